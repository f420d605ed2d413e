#!/usr/bin/env python3
"""Fills a tracking server with artifacts and with models that load and predict.

    ENV/bin/python fill_artifacts.py --tracking-uri URL [--files N] [--only-files] [--own-location ADDRESS]
        [--object-store FILE]

Works through the client of the release that this Python has: into the store itself where the server names a folder or
a bucket, through the server where it hands out artifacts by its proxy. The content is the same each time, but for ids
and for what the release writes of itself into a model. --files logs so many small files, none like another, into one
run more; --only-files does nothing else. FILE is what `object_store.py` wrote. One experiment lies in a place of its
own: --own-location, or `elsewhere` below the artifact root.

`check_artifacts.py` tells what can be read of it. Prints one JSON object: the runs and versions made, the seconds.
"""

import argparse
import json
import random
import tempfile
import time
from pathlib import Path

import surroundings

# A proxy must quote each of these names once and no more; with MLflow's own client 50%25.txt becomes 50%.txt there. It
# asks for no file with # or %25 in its name, and releases differ in whether it asks for such a file's folder.
HARD_NAMES = (
    "with a blank.txt",
    "Grüße.txt",
    "実験 – опыт.txt",
    "#hash.txt",
    "100%.txt",
    "50%25.txt",
    "a+b&c=d;e.txt",
    "it's 'quoted', (so) [to] {say}!.txt",
    ".hidden",
    "no-ending",
)
BIG = 5_000_000


def scaler(factor: float):
    """A model that needs its class, its state and its file; made here, it is stored as it is and not by name."""
    import mlflow

    class Scaler(mlflow.pyfunc.PythonModel):
        def __init__(self, factor: float):
            self.factor = factor

        def load_context(self, context):
            with open(context.artifacts["weights"]) as file:
                self.offset = json.load(file)["offset"]

        def predict(self, context, model_input, params=None):
            return [float(x) * self.factor + self.offset for x in model_input["x"]]

    return Scaler(factor)


class Artifacts:
    """Experiments, runs with files, models."""

    def __init__(self, folder: Path, own_location: str | None):
        import mlflow

        self.mlflow = mlflow
        self.client = mlflow.MlflowClient()
        release = tuple(int(part) for part in mlflow.__version__.split(".")[:2])
        self.new, self.newest = release >= (3, 0), release >= (3, 17)
        self.folder = folder
        self.own_location = own_location
        self.runs: dict[str, str] = {}
        self.versions = 0

    def fill(self) -> None:
        root = self.client.get_experiment("0").artifact_location.rstrip("/").removesuffix("/0")
        self.training = self.client.create_experiment("training", tags={"owner": "ada"})
        self.named = self.client.create_experiment("Grüße & more, 100 %")
        self.located = self.client.create_experiment(
            "own location", artifact_location=self.own_location or f"{root}/elsewhere/own"
        )
        self.doomed = self.client.create_experiment("deleted")
        self.fill_files()
        self.fill_models()
        if self.new:
            self.fill_trace()
        self.client.delete_run(self.runs["deleted"])
        self.client.delete_experiment(self.doomed)

    def run(self, name: str, experiment: str) -> str:
        made = self.client.create_run(experiment, run_name=name)
        self.client.set_terminated(made.info.run_id)
        self.runs[name] = made.info.run_id
        return made.info.run_id

    def fill_files(self) -> None:
        nested = self.run("nested", self.training)
        self.client.log_text(nested, "at the top\n", "top.txt")
        self.client.log_text(nested, "deep\n", "a/b/c/d/e/deep.txt")
        self.client.log_dict(nested, {"lr": 0.1, "layers": [64, 64], "name": "Grüße"}, "a/config.json")
        self.client.log_dict(nested, {"lr": 0.1, "layers": [64, 64]}, "a/b/config.yaml")
        curve = "".join(f"{step},{1 / (step + 1)}\n" for step in range(2000))
        self.client.log_text(nested, f"epoch,loss\n{curve}", "a/loss.csv")
        for name in ("empty", "a/empty", "a/.gitkeep"):
            self.client.log_text(nested, "", name)
        big = self.folder / "weights.bin"
        big.write_bytes(random.Random(1).randbytes(BIG))
        for place in ("first", "second"):
            self.client.log_artifact(nested, str(big), f"twice/{place}")
        hard = self.run("hard names", self.named)
        proxied = self.client.get_run(hard).info.artifact_uri.startswith("mlflow-artifacts:")
        self.client.log_artifacts(hard, str(self.hard_names(proxied)))
        self.client.log_text(self.run("elsewhere", self.located), "elsewhere\n", "notes/here.txt")
        self.client.log_text(self.run("deleted", self.training), "of a deleted run\n", "kept/until gc.txt")
        self.client.log_text(self.run("of a deleted experiment", self.doomed), "doomed\n", "doomed.txt")
        self.run("without artifacts", self.training)

    def hard_names(self, proxied: bool) -> Path:
        top = self.folder / "hard"
        for place in (top, top / "folder ü & 20 %"):
            place.mkdir(parents=True)
            for name in HARD_NAMES:
                if proxied and self.is_refused(name):
                    continue
                (place / name).write_text(f"{name} in {place.name}\n")
        return top

    def is_refused(self, name: str) -> bool:
        """By MLflow's proxy: the client sends a # as it is; servers before 3.17 fail to send such names back."""
        return "#" in name or not (name.isascii() or self.newest)

    def fill_many(self, number: int) -> None:
        """Each file has its own content, so that none is stored already."""
        run = self.run("many files", "0")
        top = self.folder / "many"
        for place in range(number):
            file = top / f"{place % 10}" / f"part-{place:05}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{run} {place}\n" * (1 + place % 7))
        self.client.log_artifacts(run, str(top), "many")

    def weights(self, offset: float) -> dict:
        file = self.folder / f"weights of {offset}.json"
        file.write_text(json.dumps({"offset": offset}))
        # Named requirements spare the search for what the model imports, which starts a Python of its own.
        return {"artifacts": {"weights": str(file)}, "pip_requirements": ["mlflow", "pandas"]}

    def model(self, name: str, factor: float, offset: float) -> tuple[str, str]:
        """Logged as people do; the run and the address that the release gives."""
        with self.mlflow.start_run(experiment_id=self.training, run_name=name) as run:
            # Until 3 a model is a folder of its run, since then it is a thing of its own with a name.
            place = {"name": "model"} if self.new else {"artifact_path": "model"}
            self.mlflow.log_metric("factor", factor)
            made = self.mlflow.pyfunc.log_model(python_model=scaler(factor), **place, **self.weights(offset))
        self.runs[name] = run.info.run_id
        return run.info.run_id, made.model_uri

    def saved(self, name: str, factor: float, offset: float, experiment: str) -> tuple[str, str]:
        """A model saved by hand and logged as files; the run and the folder's address in the store."""
        run = self.run(name, experiment)
        place = self.folder / name
        self.mlflow.pyfunc.save_model(str(place), python_model=scaler(factor), **self.weights(offset))
        self.client.log_artifacts(run, str(place), "saved")
        return run, f"{self.client.get_run(run).info.artifact_uri}/saved"

    def version(self, name: str, source: str, run: str | None, **more: str) -> None:
        from versions import add

        add(self.client, name, source, run, **more)
        self.versions += 1

    def fill_models(self) -> None:
        """Three models with two versions and more; the sources have every form that a release writes."""
        names = ("churn", "Größen – Modell", "copied")
        for name in names:
            self.client.create_registered_model(name)
        logged = []
        for number in (1, 2):
            run, address = self.model(f"churn {number}", float(number), 0.5)
            # What 2.9.2 makes of runs:/ is the folder's address, what 3 makes of it is models:/m-...
            self.mlflow.register_model(address, "churn", await_registration_for=0)
            self.versions += 1
            logged.append(address)
        run, _ = self.saved("by run", 3.0, -1.0, self.training)
        self.version(names[1], f"runs:/{run}/saved", run)
        run, address = self.saved("by path", -2.0, 0.25, self.training)
        self.version(names[1], address, run)
        self.client.copy_model_version("models:/churn/1", "copied")
        self.versions += 1
        run, address = self.saved("by path elsewhere", 0.125, 4.0, self.located)
        self.version("copied", address, run)
        if self.new:  # the run's folder is empty: it is the model of that name which is meant
            run, _ = self.model("model by run", 5.0, 5.0)
            self.version("copied", f"runs:/{run}/model", run)
        self.client.set_registered_model_alias("churn", "champion", "2")
        self.client.set_registered_model_alias(names[1], "Prüfling", "1")
        self.client.transition_model_version_stage("churn", "1", "Production")
        self.client.transition_model_version_stage("copied", "2", "Staging")

    def fill_trace(self) -> None:
        """Its spans are a file among the artifacts, or rows where the release keeps them so."""
        root = self.client.start_trace("asked", inputs={"question": "why"}, experiment_id=self.training)
        span = self.client.start_span("looked up", trace_id=root.trace_id, parent_id=root.span_id, inputs={"part": 1})
        self.client.end_span(root.trace_id, span.span_id, outputs={"found": "Grüße"})
        self.client.end_trace(root.trace_id, outputs={"answer": 42})


def main() -> None:
    parser = argparse.ArgumentParser(description="fill an MLflow server with artifacts")
    parser.add_argument("--tracking-uri", required=True)
    parser.add_argument("--files", type=int, default=0, metavar="N")
    parser.add_argument("--only-files", action="store_true")
    parser.add_argument("--own-location", metavar="ADDRESS")
    parser.add_argument("--object-store", metavar="FILE")
    options = parser.parse_args()
    surroundings.clean(options.tracking_uri, options.object_store)
    import mlflow.pyfunc

    surroundings.quiet()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        artifacts = Artifacts(Path(folder), options.own_location)
        if not options.only_files:
            artifacts.fill()
        if options.files:
            artifacts.fill_many(options.files)
    seconds = round(time.monotonic() - started, 1)
    print(json.dumps({"runs": artifacts.runs, "versions": artifacts.versions, "seconds": seconds}))


if __name__ == "__main__":
    main()
