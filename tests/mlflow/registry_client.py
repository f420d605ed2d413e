#!/usr/bin/env python3
"""MLflow's own client of the model registry, for a test that asks it one thing after the other.

    ENV/bin/python registry_client.py --tracking-uri URL

Reads a JSON object per line, `{"do": NAME, ...}`, and answers with one per line: `{"told": ...}`, or `{"refused": TEXT}`
where the client raised. NAME is a method of `Registry`, the rest its arguments. It ends with its stdin.
"""

import argparse
import json
import sys
import threading
import time

import surroundings


class Storm:
    """Changes the champion again and again, and takes no lock."""

    def __init__(self, client, model: str, versions: list[int], pause: float):
        self.client, self.model, self.versions, self.pause = client, model, versions, pause
        self.over = threading.Event()
        self.done = self.failed = 0
        self.thread = threading.Thread(target=self.blow)
        self.thread.start()

    def blow(self) -> None:
        while not self.over.wait(self.pause):
            version = self.versions[(self.done + self.failed) % len(self.versions)]
            try:
                self.client.transition_model_version_stage(
                    self.model, str(version), "Production", archive_existing_versions=True
                )
                self.done += 1
            except Exception:  # what became of it is the registry's to tell
                self.failed += 1

    def calm(self) -> dict:
        self.over.set()
        self.thread.join()
        return {"done": self.done, "failed": self.failed}


class Registry:
    """What a test may ask for."""

    def __init__(self, client):
        self.client = client
        self.storms: dict[str, Storm] = {}

    def register(
        self,
        model: str,
        metrics: dict | None = None,
        tags: dict | None = None,
        mlmodel: str | None = None,
        logged: dict | None = None,
    ) -> dict:
        """A new version out of a new run. `logged`: metrics of a logged model (MLflow 3), whose version it is then."""
        from mlflow.entities import Metric
        from mlflow.exceptions import MlflowException

        client = self.client
        run = client.create_run("0").info
        now = int(time.time() * 1000)
        measured = [Metric(key, float(value), now, 0) for key, value in (metrics or {}).items()]
        client.log_batch(run.run_id, metrics=measured)
        if mlmodel is not None:
            client.log_text(run.run_id, mlmodel, "model/MLmodel")
        source, more = f"{run.artifact_uri}/model", {}
        if logged is not None:
            own = client.create_logged_model("0", name="model", source_run_id=run.run_id).model_id
            for later, (name, value) in enumerate(logged.items()):
                # `rmse[val]` is measured on a dataset. MLflow's key of the table leaves the dataset out, so each
                # has a time of its own.
                key, _, dataset = name.rstrip("]").partition("[")
                on = {"dataset_name": dataset, "dataset_digest": dataset} if dataset else {}
                client.log_metric(run.run_id, key, float(value), timestamp=now + later, step=0, model_id=own, **on)
            source, more = f"models:/{own}", {"model_id": own}
        client.set_terminated(run.run_id)
        try:
            client.create_registered_model(model)
        except MlflowException as refused:
            if refused.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        made = client.create_model_version(
            model, source, run_id=run.run_id, tags=tags, await_creation_for=0, **more
        )
        return {"version": int(made.version), "run_id": run.run_id, "model_id": more.get("model_id")}

    def view(self, model: str) -> dict:
        """All of a model, as the client sees it; each version is also asked for by itself."""
        registered = self.client.get_registered_model(model)
        quote = '"' if "'" in model else "'"
        # A filter knows no escape: a name with both kinds of quotes is sifted out of all.
        filter_string = "" if "'" in model and '"' in model else f"name = {quote}{model}{quote}"
        found = self.client.search_model_versions(filter_string, max_results=5000)
        found = [version for version in found if version.name == model]
        versions = {}
        for version in found:
            one = self.client.get_model_version(model, version.version)
            versions[str(version.version)] = {
                "stage": one.current_stage,
                "aliases": sorted(one.aliases),
                "tags": dict(one.tags),
                "status": one.status,
                "updated": one.last_updated_timestamp,
            }
            assert one.current_stage == version.current_stage, (one, version)
        aliases = {alias: int(version) for alias, version in registered.aliases.items()}
        for alias, version in aliases.items():
            assert int(self.client.get_model_version_by_alias(model, alias).version) == version, alias
        return {"versions": versions, "aliases": aliases}

    def transition(self, model: str, version: int, stage: str, archive: bool = False) -> None:
        self.client.transition_model_version_stage(model, str(version), stage, archive_existing_versions=archive)

    def alias(self, model: str, alias: str, version: int | None) -> None:
        """Points an alias to a version; to none: removes it."""
        if version is None:
            self.client.delete_registered_model_alias(model, alias)
        else:
            self.client.set_registered_model_alias(model, alias, str(version))

    def tag(self, model: str, version: int, key: str, value: str) -> None:
        self.client.set_model_version_tag(model, str(version), key, value)

    def delete(self, model: str, version: int) -> None:
        self.client.delete_model_version(model, str(version))

    def storm(self, model: str, versions: list[int], pause: float) -> None:
        self.storms[model] = Storm(self.client, model, versions, pause)

    def calm(self, model: str) -> dict:
        return self.storms.pop(model).calm()


def main() -> None:
    parser = argparse.ArgumentParser(description="MLflow's client of the model registry")
    parser.add_argument("--tracking-uri", required=True)
    options = parser.parse_args()
    surroundings.clean(options.tracking_uri)
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    surroundings.quiet()
    registry = Registry(MlflowClient(tracking_uri=options.tracking_uri, registry_uri=options.tracking_uri))
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer = {"told": getattr(registry, asked.pop("do"))(**asked)}
        except MlflowException as refused:
            answer = {"refused": str(refused)}
        print(json.dumps(answer), flush=True)
    for storm in registry.storms.values():
        storm.calm()


if __name__ == "__main__":
    main()
