#!/usr/bin/env python3
"""Everything that a tracking server tells over REST, as one canonical JSON document.

    ENV/bin/python answers.py --tracking-uri URL [--surface 2.9.2|3.4.0|3.17.2] [--workspace NAME] [--out FILE]

Two servers on equal data give the same bytes, whatever database is below. So lists are sorted where the order is not
part of the answer, and kept where it is: under "ordered" stand the answers whose order the request asked for. The
surface is what the release asked for could tell; without it, it is the server's own. With an older one, calls and
fields that are newer than it are left out, so that an upgraded store can be compared with the store before.

Left out, and why:
- order by names, params and free text: PostgreSQL sorts by the collation of its database, SQLite by bytes;
- page tokens: they hold offsets, and the requests here follow them to the end;
- texts of errors: they can quote the database's own words. The error's code and status are there.
"""

import argparse
import json
import sys

from answers_3 import Newer
from rest import Server, pages, told

API = "/api/2.0/mlflow"
PROMPTS = "tags.`mlflow.prompt.is_prompt` = 'true'"
STAGES = ("None", "Staging", "Production", "Archived")

# Fields that a release added to the answers of older calls: by surface, what newer servers say in addition.
NEWER_THAN_2_9 = {
    "model_inputs",
    "model_id",
    "model_params",
    "model_metrics",
    "deployment_job_id",
    "deployment_job_state",
}
NEWER_THAN_3_4 = {"outputs", "model_outputs", "scorer_id", "workspace"}
NEWER_FIELDS = {
    (2, 9): NEWER_THAN_2_9 | NEWER_THAN_3_4,
    (3, 4): NEWER_THAN_3_4,
    (3, 17): set(),
}

# Lists of plain values in which the servers let the database choose the order. Others are kept as they come.
UNORDERED = {"aliases", "users", "schema_ids", "experiment_ids"}


def by_json(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def canonical(value: object, dropped: set[str], key: str = "") -> object:
    """Without the dropped fields; lists of things are sorted, as are those of names that have no order."""
    if isinstance(value, dict):
        return {
            name: below if name == "ordered" else canonical(below, dropped, name)
            for name, below in value.items()
            if name not in dropped
        }
    if isinstance(value, list):
        below = [canonical(item, dropped) for item in value]
        is_set = key in UNORDERED or all(isinstance(item, dict) for item in below)
        return sorted(below, key=by_json) if is_set else below
    return value


class Answers:
    """The calls that 2.9.2 has."""

    def __init__(self, server: Server, surface: tuple[int, ...]):
        self.server = server
        self.surface = surface

    def get(self, path: str, **query) -> dict:
        return self.server.get(f"{API}/{path}", **query)

    def post(self, path: str, **body) -> dict:
        return self.server.post(f"{API}/{path}", **body)

    def read(self) -> dict:
        experiments = list(pages(self.search, "experiments", path="experiments", view_type="ALL"))
        ids = sorted((experiment["experiment_id"] for experiment in experiments), key=int)
        runs = list(pages(self.search, "runs", path="runs", experiment_ids=ids, run_view_type="ALL"))
        answers = {
            "experiments": self.experiments(experiments),
            "runs": {run["info"]["run_id"]: self.run(run) for run in runs},
            "datasets": {number: self.datasets(number) for number in ids},
            "models": self.models(),
            "ordered": self.ordered(experiments, ids),
        }
        if self.surface >= (3, 0):
            answers |= Newer(self.server, self.surface).read(ids, [run["info"]["run_id"] for run in runs])
        return answers

    def search(self, path: str, max_results: int = 1000, **body) -> dict:
        return self.post(f"{path}/search", max_results=max_results, **body)

    def experiments(self, found: list[dict]) -> dict:
        by_view = {
            view: [
                experiment["experiment_id"]
                for experiment in pages(self.search, "experiments", path="experiments", view_type=view)
            ]
            for view in ("ACTIVE_ONLY", "DELETED_ONLY", "ALL")
        }
        return {
            "by view": by_view,
            "searched": found,
            "by id": [self.get("experiments/get", experiment_id=experiment["experiment_id"]) for experiment in found],
            "by name": [
                self.get("experiments/get-by-name", experiment_name=experiment["name"]) for experiment in found
            ],
            "missing name": told(lambda: self.get("experiments/get-by-name", experiment_name="TRAINING")),
        }

    def run(self, found: dict) -> dict:
        run_id = found["info"]["run_id"]
        single = self.get("runs/get", run_id=run_id)["run"]
        keys = [metric["key"] for metric in single["data"].get("metrics", [])]
        return {
            "searched": found,
            "got": single,
            "histories": {key: self.history(run_id, key) for key in keys},
            "artifacts": told(lambda: self.get("artifacts/list", run_id=run_id)),
        }

    def history(self, run_id: str, key: str) -> list[dict]:
        return list(
            pages(self.get, "metrics", path="metrics/get-history", run_id=run_id, metric_key=key, max_results=400)
        )

    def datasets(self, experiment_id: str) -> list[dict]:
        path = "/ajax-api/2.0/mlflow/experiments/search-datasets"
        found = self.server.post(path, experiment_ids=[experiment_id]).get("dataset_summaries", [])
        # Newer servers leave a missing context out, older ones say null.
        return [{key: value for key, value in summary.items() if value is not None} for summary in found]

    def models(self) -> dict:
        found = list(pages(self.get, "registered_models", path="registered-models/search", max_results=100))
        if self.surface >= (3, 0):
            # Prompts are registered models that a search hides unless it asks for them.
            found += pages(
                self.get, "registered_models", path="registered-models/search", max_results=100, filter=PROMPTS
            )
        return {"searched": found, "by name": {model["name"]: self.model(model["name"]) for model in found}}

    def model(self, name: str) -> dict:
        quoted = name.replace("'", "\\'")
        versions = list(
            pages(self.get, "model_versions", path="model-versions/search", filter=f"name='{quoted}'", max_results=1000)
        )
        got = self.get("registered-models/get", name=name)["registered_model"]
        aliases = [alias["alias"] for alias in got.get("aliases", [])]
        highest = max((int(version["version"]) for version in versions), default=0) + 1
        return {
            "got": got,
            "latest": self.latest(name=name),
            "by stage": {stage: self.latest(name=name, stages=stage) for stage in STAGES},
            "by alias": {
                alias: told(lambda alias=alias: self.get("registered-models/alias", name=name, alias=alias))
                for alias in (*aliases, "no such alias")
            },
            "searched versions": versions,
            # One more than the highest, and those between that were deleted, answer with a refusal.
            "versions": {str(number): self.version(name, number) for number in range(1, highest + 1)},
        }

    def latest(self, **query) -> list[dict]:
        """Without the aliases, which newer servers say here and all say elsewhere."""
        found = self.get("registered-models/get-latest-versions", **query).get("model_versions", [])
        return [{key: value for key, value in version.items() if key != "aliases"} for version in found]

    def version(self, name: str, number: int) -> dict:
        at = {"name": name, "version": str(number)}
        return {
            "got": told(lambda: self.get("model-versions/get", **at)),
            "download": told(lambda: self.get("model-versions/get-download-uri", **at)),
        }

    def ordered(self, experiments: list[dict], ids: list[str]) -> dict:
        """Searches whose order or choice the database makes."""
        training = next((found["experiment_id"] for found in experiments if found["name"] == "training"), "0")
        searches = {
            "all in pages of 7": {"max_results": 7},
            "metric down": {"order_by": ["metrics.loss DESC"]},
            "metric up": {"order_by": ["metrics.`val/loss` ASC", "start_time ASC"]},
            "special values": {"order_by": ["metrics.`value/nan` ASC", "metrics.`value/inf` DESC"]},
            "time up": {"order_by": ["attributes.start_time ASC"]},
            "end time down": {"order_by": ["attributes.end_time DESC"]},
            "status": {"order_by": ["attributes.status ASC", "attributes.start_time ASC"]},
            "tag": {"order_by": ["tags.team ASC", "attributes.start_time DESC"]},
            "metric below": {"filter": "metrics.`val/loss` < 0.03"},
            "metric infinite": {"filter": "metrics.`value/inf` > 1e300"},
            "param": {"filter": "params.flag = 'True' and params.`optimizer.name` = 'adam'"},
            "empty param": {"filter": "params.empty = ''"},
            "tag equal": {"filter": "tags.team = 'red' and metrics.accuracy > 0.01"},
            "tag like": {"filter": "tags.`mlflow.source.name` LIKE 'C:%'"},
            "tag like case": {"filter": "tags.team LIKE 'RED'"},
            "tag ilike": {"filter": "tags.team ILIKE 'RED'"},
            "status equal": {"filter": "attributes.status = 'RUNNING'"},
            "name": {"filter": "attributes.run_name LIKE 'run 1%'"},
            "time": {"filter": "attributes.start_time > 1700050000000"},
            "dataset": {"filter": "dataset.name = 'iris'"},
            "dataset context": {"filter": "dataset.context = 'training'"},
            "deleted": {"run_view_type": "DELETED_ONLY"},
            "active": {"run_view_type": "ACTIVE_ONLY"},
        }
        if self.surface >= (3, 17):  # older ones compare the 0 that stands for NaN
            searches["metric of nan"] = {"filter": "metrics.`value/nan` != 0"}
        runs = {name: self.found_runs(ids, search) for name, search in searches.items()}
        runs["one experiment"] = self.found_runs([training], {"order_by": ["metrics.accuracy ASC"]})
        return {"runs": runs, "experiments": self.found_experiments(), "models": self.found_models()}

    def found_runs(self, ids: list[str], search: dict) -> list[str]:
        body = {"run_view_type": "ALL", **search}
        return [run["info"]["run_id"] for run in pages(self.search, "runs", path="runs", experiment_ids=ids, **body)]

    def found_experiments(self) -> dict:
        searches = {
            "newest first": {"order_by": ["creation_time DESC"]},
            "last changed": {"order_by": ["last_update_time ASC"]},
            "name like": {"filter": "name LIKE 'train%'"},
            "name ilike": {"filter": "name ILIKE 'train%'"},
            "tag": {"filter": "tags.`made with` = 'tags'"},
            "in pages of 3": {"max_results": 3},
        }
        return {
            name: [
                found["experiment_id"]
                for found in pages(self.search, "experiments", path="experiments", view_type="ALL", **search)
            ]
            for name, search in searches.items()
        }

    def found_models(self) -> dict:
        models = {
            "newest change first": {"order_by": "timestamp DESC"},
            "name like, oldest change first": {"filter": "name LIKE 'ch%'", "order_by": "timestamp ASC"},
            "name ilike, oldest change first": {"filter": "name ILIKE 'CH%'", "order_by": "timestamp ASC"},
            "tag": {"filter": "tags.owner = 'ada'"},
        }
        versions = {
            "by number": {"filter": "name = 'churn'", "order_by": "version_number DESC"},
            "in pages of 3": {"filter": "name = 'churn'", "order_by": "version_number ASC", "max_results": 3},
            "of a tag": {"filter": "tags.number = '3'", "order_by": "version_number ASC"},
        }
        return {
            "models": {
                name: [
                    model["name"]
                    for model in pages(self.get, "registered_models", path="registered-models/search", **search)
                ]
                for name, search in models.items()
            },
            "versions": {
                name: [
                    (found["name"], found["version"])
                    for found in pages(self.get, "model_versions", path="model-versions/search", **search)
                ]
                for name, search in versions.items()
            },
        }


def main() -> None:
    parser = argparse.ArgumentParser(description="everything a server tells, as canonical JSON")
    parser.add_argument("--tracking-uri", required=True)
    parser.add_argument("--surface", help="the release whose calls and fields are asked for; default the server's")
    parser.add_argument("--workspace", help="of 3.17; without it the server tells of the default one")
    parser.add_argument("--out", help="default stdout")
    options = parser.parse_args()
    server = Server(options.tracking_uri, {"X-MLFLOW-WORKSPACE": options.workspace} if options.workspace else None)
    surface = server.version()
    if options.surface:
        surface = tuple(int(part) for part in options.surface.split(".")[:2])
    if surface not in NEWER_FIELDS:
        raise SystemExit(f"answers: unknown surface {surface}; there are {sorted(NEWER_FIELDS)}")
    answers = Answers(server, surface).read()
    text = json.dumps(canonical(answers, NEWER_FIELDS[surface]), sort_keys=True, indent=1) + "\n"
    if options.out:
        with open(options.out, "w") as handle:
            handle.write(text)
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
