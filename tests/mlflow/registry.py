#!/usr/bin/env python3
"""A registry with every kind of version, and what they were made of.

    ENV/bin/python registry.py --tracking-uri URL

prints one JSON object: the ids of what was made. The MLmodel is written by hand: what infers a signature is not in every
environment.
"""

import argparse
import json
import math
import os
import random
import tempfile
from importlib.metadata import version
from pathlib import Path

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

import mlflow
from mlflow.tracking import MlflowClient

INPUTS = [
    {"type": "double", "name": "temp", "required": True},
    {"type": "array", "items": {"type": "string"}, "name": "tags", "required": False},
]
OUTPUTS = [{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 24]}}]
PARAMS = [{"name": "horizon", "default": 24, "shape": None, "type": "long"}]


def mlmodel(run: str, uuid: str) -> str:
    """As MLflow writes it; JSON is YAML."""
    signature = {"inputs": json.dumps(INPUTS), "outputs": json.dumps(OUTPUTS), "params": json.dumps(PARAMS)}
    flavors = {"python_function": {"loader_module": "mlflow.pyfunc.model", "python_version": "3.11.7"}}
    return json.dumps(
        {
            "artifact_path": "model",
            "flavors": flavors,
            "mlflow_version": mlflow.__version__,
            "model_uuid": uuid,
            "run_id": run,
            "signature": signature,
            "utc_time_created": "2026-11-21 19:18:52.518497",
        },
        indent=1,
    )


class Registry:
    """Runs, models and versions."""

    def __init__(self, url: str, folder: Path):
        mlflow.set_tracking_uri(url)
        self.client = MlflowClient()
        self.store = self.client._get_registry_client().store
        self.new = int(version("mlflow").split(".")[0]) >= 3
        self.newest = tuple(int(part) for part in version("mlflow").split(".")[:2]) >= (3, 17)
        self.folder = folder
        self.experiment = self.client.create_experiment("registry")
        self.made: dict = {"experiment": self.experiment}

    def files(self, uuid: str, run: str) -> Path:
        place = Path(tempfile.mkdtemp(dir=self.folder))
        (place / "MLmodel").write_text(mlmodel(run, uuid))
        (place / "data" / "deep").mkdir(parents=True)
        (place / "data" / "weights.bin").write_bytes(random.Random(7).randbytes(300_000))
        (place / "data" / "deep" / "it's & more+.txt").write_text("hello\n")
        (place / "empty").write_text("")
        return place

    def run(self, name: str, rmse: float, parent: str | None = None) -> str:
        tags = {"mlflow.parentRunId": parent} if parent else {}
        run = self.client.create_run(self.experiment, run_name=name, tags=tags).info.run_id
        self.client.log_param(run, "depth", "7")
        self.client.log_metric(run, "rmse", 99.0, step=0)
        self.client.log_metric(run, "rmse", rmse, step=1)
        self.client.log_artifacts(run, str(self.files("a" * 32, run)), "model")
        self.client.set_terminated(run)
        self.made[name] = {"id": run, "uri": self.client.get_run(run).info.artifact_uri}
        return run

    def model(self, name: str) -> None:
        self.client.create_registered_model(name)

    def add(self, name: str, source: str, run: str | None, **more: str) -> str:
        """A version straight to the store: the client would resolve what it can of the source."""
        return self.store.create_model_version(name, source, run, **more).version

    def stage(self, name: str, number: str, stage: str) -> None:
        self.client.transition_model_version_stage(name, number, stage, archive_existing_versions=False)

    def fill(self) -> None:
        parent = self.client.create_run(self.experiment, run_name="sweep").info.run_id
        self.client.set_terminated(parent)
        good, worse = self.run("good", 0.25, parent), self.run("worse", math.nan)
        own = {run: f"{self.client.get_run(run).info.artifact_uri}/model" for run in (good, worse)}
        self.made["parent"] = parent

        self.client.create_registered_model("forecast", tags={"team": "a b"}, description="Tomorrow's load\nper hour")
        for run in (worse, worse, good, worse):
            self.add("forecast", own[run], run)
        self.client.set_model_version_tag("forecast", "3", "approved_by", "ada")
        self.client.update_model_version("forecast", "3", "the good one")
        self.stage("forecast", "2", "Archived")
        self.stage("forecast", "3", "Production")
        self.stage("forecast", "4", "Staging")
        self.client.set_registered_model_alias("forecast", "champion", "3")
        self.client.set_registered_model_alias("forecast", "challenger", "4")

        self.model("doubled")
        for _ in range(2):
            number = self.add("doubled", own[worse], worse)
            self.stage("doubled", number, "Production")

        self.model("by-run")
        self.add("by-run", f"runs:/{good}/model", good)
        self.stage("by-run", "1", "Production")
        self.model("gone")
        self.add("gone", f"{self.client.get_run(good).info.artifact_uri}/nothing", good)
        self.stage("gone", "1", "Production")
        hard = ["it's", 'say "x"', "both ' and \"", "back\\slash", "a@b", "with a blank & 100%"]
        if not self.newest:
            hard += ["team/model", "team/model@x/3"]
        for name in hard:
            self.model(name)
            for _ in range(2):
                self.add(name, own[good], good)
        self.made["hard"] = hard
        self.model("unused")
        if self.new:
            self.fill_new(good)

    def fill_new(self, run: str) -> None:
        model = mlflow.initialize_logged_model(
            name="net", source_run_id=run, experiment_id=self.experiment, params={"layers": "3"}
        )
        self.client.log_model_artifacts(model.model_id, str(self.files(model.model_id, run)))
        mlflow.finalize_logged_model(model.model_id, "READY")
        self.client.log_metric(run, "auc", math.nan, model_id=model.model_id)
        self.made["logged"] = {"id": model.model_id, "uri": self.client.get_logged_model(model.model_id).artifact_location}
        self.model("of-logged")
        self.add("of-logged", f"models:/{model.model_id}", None, model_id=model.model_id)
        self.client.set_registered_model_alias("of-logged", "champion", "1")
        self.model("of-logged-by-run")
        self.add("of-logged-by-run", f"runs:/{run}/net", run)
        claims = [{"name": "of-logged", "version": 1}, {"name": "of-logged", "version": 7}]
        self.client.set_logged_model_tags(model.model_id, {"mlflow.modelVersions": json.dumps(claims), "colour": "red"})
        mlflow.genai.register_prompt(name="greeting", template="Hello {{name}}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tracking-uri", required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        registry = Registry(options.tracking_uri, Path(folder))
        registry.fill()
    print(json.dumps(registry.made))


if __name__ == "__main__":
    main()
