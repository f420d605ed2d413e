#!/usr/bin/env python3
"""Model versions of every kind of source, each with a file of its own.

    ENV/bin/python versions.py --tracking-uri URL

prints {"name": "place"}: what was registered, and the folder or file below the artifact root that holds it. A source
that names a place is the address that the server gave the run.
"""

import argparse
import json
import os
import tempfile
from importlib.metadata import version
from pathlib import Path

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

import mlflow
from mlflow.tracking import MlflowClient


def register(client: MlflowClient, name: str, source: str, run: str | None, **more: str) -> None:
    client.create_registered_model(name)
    add(client, name, source, run, **more)


def add(client: MlflowClient, name: str, source: str, run: str | None, **more: str) -> None:
    """A version straight to the store: the client would resolve what it can of the source."""
    client._get_registry_client().store.create_model_version(name, source, run, **more)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tracking-uri", required=True)
    options = parser.parse_args()
    mlflow.set_tracking_uri(options.tracking_uri)
    client = MlflowClient()
    experiment = client.create_experiment("versions")
    run = client.create_run(experiment)
    places = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "MLmodel"
        file.write_text("flavors: {}\n")
        for model in ("placed", "by-run", "copied"):
            client.log_artifact(run.info.run_id, str(file), model)
        client.log_artifact(run.info.run_id, str(file), "single")
    for model in ("placed", "single/MLmodel"):
        name = model.split("/")[0]
        register(client, name, f"{run.info.artifact_uri}/{model}", run.info.run_id)
        places[name] = f"{experiment}/{run.info.run_id}/artifacts/{model}"
    register(client, "by-run", f"runs:/{run.info.run_id}/by-run", run.info.run_id)
    places["by-run"] = f"{experiment}/{run.info.run_id}/artifacts/by-run"
    register(client, "copied-from", f"{run.info.artifact_uri}/copied", run.info.run_id)
    register(client, "copied", "models:/copied-from/1", None)
    places["copied"] = f"{experiment}/{run.info.run_id}/artifacts/copied"
    if int(version("mlflow").split(".")[0]) >= 3:
        with mlflow.start_run(experiment_id=experiment) as active:
            model = mlflow.initialize_logged_model(name="logged")
            mlflow.finalize_logged_model(model.model_id, "READY")
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "MLmodel").write_text("flavors: {}\n")
            client.log_model_artifacts(model.model_id, folder)
        register(client, "logged", f"models:/{model.model_id}", None, model_id=model.model_id)
        register(client, "logged-by-run", f"runs:/{active.info.run_id}/logged", active.info.run_id)
        places["logged"] = f"{experiment}/models/{model.model_id}/artifacts"
        mlflow.genai.register_prompt(name="greeting", template="Hello {{name}}")
    register(client, "deleted", f"{run.info.artifact_uri}/nothing", run.info.run_id)
    client.delete_model_version("deleted", "1")
    print(json.dumps(places))


if __name__ == "__main__":
    main()
