#!/usr/bin/env python3
"""Everything that MLflow's own client reads from a server, files and predictions too, as one JSON document.

    ENV/bin/python check_artifacts.py --tracking-uri URL [--object-store FILE]

Two servers on equal stores give the same bytes, wherever the artifacts of each lie: no address of an artifact is in
it. Every file of every run and logged model is downloaded and told by its listed size, its length and its SHA-256;
every registered version is loaded and predicts. A file that the release's own client cannot ask for (one with # in its
name) is told by its size and the name of the error.
"""

import argparse
import hashlib
import json
import tempfile
from pathlib import Path

import surroundings
from client_answers import every, read

# Addresses, which a restore to another place changes.
ADDRESSES = {"artifact_location", "artifact_uri", "source"}


def without_addresses(value: object) -> object:
    if isinstance(value, dict):
        return {key: without_addresses(below) for key, below in value.items() if key not in ADDRESSES}
    if isinstance(value, list):
        return [without_addresses(below) for below in value]
    return value


def told(path: Path) -> list:
    with path.open("rb") as file:
        return [path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()]


def listed(ask) -> list[tuple[str, int | None]]:
    """Paths and sizes of all files below; `ask` lists one folder."""
    found, folders = [], [None]
    while folders:
        for info in ask(folders.pop()):
            if info.is_dir:
                folders.append(info.path)
            else:
                found.append((info.path, info.file_size))
    return sorted(found)


def files(ask, fetch) -> dict:
    """Each listed file with what its download holds. `fetch` downloads a path into a folder."""
    found = {}
    with tempfile.TemporaryDirectory() as name:
        whole = Path(name) / "whole"
        whole.mkdir()
        wanted = listed(ask)
        try:
            top = Path(fetch("", str(whole))) if wanted else whole
        except Exception:  # one name that the client cannot spell: the others are fetched one by one
            top = None
        for number, (path, size) in enumerate(wanted):
            try:
                if top is None:
                    alone = Path(name) / str(number)
                    alone.mkdir()
                    found[path] = [size, *told(Path(fetch(path, str(alone))))]
                else:
                    found[path] = [size, *told(top / path)]
            except Exception as error:
                found[path] = [size, f"unread: {type(error).__name__}"]
    return found


def predictions(mlflow, version: dict) -> list | str:
    import pandas

    # Without a place of its own, loading leaves a file `registered_model_meta` in an artifact root of this machine.
    with tempfile.TemporaryDirectory() as folder:
        try:
            model = mlflow.pyfunc.load_model(f"models:/{version['name']}/{version['version']}", dst_path=folder)
        except mlflow.MlflowException as error:
            # 3.17 looks for a logged model that is named by its run in the run's own, empty folder.
            if version["source"].startswith("runs:/") and version["source"].endswith("/model"):
                return f"unread: {type(error).__name__}"
            raise
    return model.predict(pandas.DataFrame({"x": [0.0, 1.0, -2.5, 1e6]}))


def main() -> None:
    parser = argparse.ArgumentParser(description="what MLflow's own client reads, as JSON")
    parser.add_argument("--tracking-uri", required=True)
    parser.add_argument("--object-store", metavar="FILE")
    options = parser.parse_args()
    surroundings.clean(options.tracking_uri, options.object_store)
    import mlflow.pyfunc

    surroundings.quiet()
    client = mlflow.MlflowClient()
    new = mlflow.__version__ >= "3"
    answers = read(client, new)
    answers.pop("artifacts")  # of some runs, and no bytes
    answers["files"] = {
        run["id"]: files(
            lambda path, run=run: client.list_artifacts(run["id"], path),
            lambda path, folder, run=run: client.download_artifacts(run["id"], path, folder),
        )
        for run in answers["runs"]
    }
    if new:
        answers["files of models"] = {
            model["id"]: files(
                lambda path, model=model: client.list_logged_model_artifacts(model["id"], path),
                lambda path, folder, model=model: mlflow.artifacts.download_artifacts(
                    artifact_uri=f"models:/{model['id']}/{path}".rstrip("/"), dst_path=folder
                ),
            )
            for model in answers["logged"]
        }
        experiments = [experiment["id"] for experiment in answers["experiments"]]
        answers["traces"] = {
            trace.info.trace_id: [[span.name, span.inputs, span.outputs] for span in trace.data.spans]
            for trace in every(client.search_traces, experiment_ids=experiments)
        }
    answers["predictions"] = {
        f"{version['name']} {version['version']}": predictions(mlflow, version)
        for version in answers["versions"]
    }
    print(json.dumps(without_addresses(answers), sort_keys=True, indent=1))


if __name__ == "__main__":
    main()
