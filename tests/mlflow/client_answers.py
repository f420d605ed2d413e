#!/usr/bin/env python3
"""What MLflow's own client reads from a server, in the form that tests/client.rs gives to what mlops reads.

    ENV/bin/python client_answers.py --tracking-uri URL

Lists are sorted by id; numbers of metrics are told by their bits.
"""

import argparse
import json
import struct

import surroundings

PAGE = 500


def bits(value: float) -> str:
    return "nan" if value != value else struct.pack(">d", value).hex()


def every(call, **arguments):
    """All items of a paged list."""
    token = None
    while True:
        page = call(page_token=token, **arguments)
        yield from page
        token = page.token
        if not token:
            return


def points(metrics) -> dict:
    return {m.key: [bits(m.value), m.timestamp, m.step] for m in metrics}


def experiment(e) -> dict:
    return {
        "id": e.experiment_id,
        "name": e.name,
        "artifact_location": e.artifact_location,
        "deleted": e.lifecycle_stage == "deleted",
        "created": e.creation_time,
        "updated": e.last_update_time,
        "tags": dict(e.tags),
    }


def run(r) -> dict:
    return {
        "id": r.info.run_id,
        "name": r.info.run_name or "",
        "experiment_id": r.info.experiment_id,
        "status": r.info.status,
        "start": r.info.start_time,
        "end": r.info.end_time,
        "deleted": r.info.lifecycle_stage == "deleted",
        "artifact_uri": r.info.artifact_uri,
        "metrics": points(r.data._metric_objs),
        "params": dict(r.data.params),
        "tags": dict(r.data.tags),
    }


def version(v) -> dict:
    return {
        "name": v.name,
        "version": int(v.version),
        "status": v.status,
        "status_message": v.status_message or "",
        "stage": v.current_stage or "",
        "source": v.source or "",
        "run_id": v.run_id or "",
        "created": v.creation_timestamp,
        "updated": v.last_updated_timestamp,
        "description": v.description or "",
        "aliases": sorted(v.aliases),
        "tags": dict(v.tags),
    }


def model(m) -> dict:
    return {
        "name": m.name,
        "created": m.creation_timestamp,
        "updated": m.last_updated_timestamp,
        "description": m.description or "",
        "latest_versions": sorted((version(v) for v in m.latest_versions), key=lambda v: v["version"]),
        "aliases": {alias: str(number) for alias, number in m.aliases.items()},
        "tags": dict(m.tags),
    }


def logged(m) -> dict:
    from mlflow.protos.service_pb2 import LoggedModelStatus

    return {
        "id": m.model_id,
        "experiment_id": m.experiment_id,
        "name": m.name,
        "status": LoggedModelStatus.Name(m.status.to_proto()),
        "artifact_uri": m.artifact_location,
        "source_run_id": m.source_run_id or "",
        "created": m.creation_timestamp,
        "updated": m.last_updated_timestamp,
        "metrics": sorted([[metric.key, bits(metric.value), metric.timestamp, metric.step] for metric in m.metrics or []]),
        "params": dict(m.params),
        "tags": dict(m.tags),
    }


def files(client, run_id: str) -> list:
    found, folders = [], [None]
    while folders:
        for info in client.list_artifacts(run_id, folders.pop()):
            found.append([info.path, info.is_dir, None if info.is_dir else info.file_size])
            if info.is_dir:
                folders.append(info.path)
    return sorted(found)


def read(client, new: bool) -> dict:
    from mlflow.entities import ViewType

    experiments = list(every(client.search_experiments, view_type=ViewType.ALL, max_results=PAGE))
    ids = [e.experiment_id for e in experiments]
    runs = list(every(client.search_runs, experiment_ids=ids, run_view_type=ViewType.ALL, max_results=PAGE))
    models = list(every(client.search_registered_models, max_results=PAGE))
    # MLflow's client takes a filter for granted in some releases.
    versions = [v for m in models for v in every(client.search_model_versions, filter_string=name_is(m.name))]
    return {
        "experiments": sorted((experiment(e) for e in experiments), key=lambda e: e["id"]),
        "runs": sorted((run(r) for r in runs), key=lambda r: r["id"]),
        "history": {
            f"{r.info.run_id} {key}": sorted(
                [m.timestamp, m.step, bits(m.value)] for m in client.get_metric_history(r.info.run_id, key)
            )
            for r in runs
            for key in r.data.metrics
        },
        "models": sorted((model(m) for m in models), key=lambda m: m["name"]),
        "versions": sorted((version(v) for v in versions), key=lambda v: (v["name"], v["version"])),
        "alias": {
            f"{m.name} {alias}": version(client.get_model_version_by_alias(m.name, alias))
            for m in models
            for alias in m.aliases
        },
        "latest": {
            m.name: sorted((version(v) for v in client.get_latest_versions(m.name)), key=lambda v: v["version"])
            for m in models
        },
        "logged": sorted((logged(m) for m in every(client.search_logged_models, experiment_ids=ids)), key=lambda m: m["id"])
        if new
        else None,
        "artifacts": {r.info.run_id: files(client, r.info.run_id) for r in runs[:20]},
    }


def name_is(name: str) -> str:
    quote = '"' if "'" in name else "'"
    return f"name = {quote}{name}{quote}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tracking-uri", required=True)
    options = parser.parse_args()
    surroundings.clean(options.tracking_uri)
    import mlflow

    client = mlflow.MlflowClient()
    print(json.dumps(read(client, mlflow.__version__ >= "3")))


if __name__ == "__main__":
    main()
