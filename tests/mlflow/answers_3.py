"""The answers of 3.x: logged models, traces, webhooks, prompts, scorers, evaluation datasets; and what 3.17 has beyond.

Left out, and why: sums over spans and traces (`traces/metrics`), whose last digits depend on the order in which an
engine adds; the server's description of itself, which names the kind of its store; values of secrets, which no server
tells - their masked forms are here, and a server with the wrong key fails to give them.
"""

import json
from urllib.parse import quote

from rest import Server, pages, told

OLD = "/api/2.0/mlflow"
API = "/api/3.0/mlflow"
SCHEMA_VERSION = "mlflow.trace_schema.version"


def drop_schema_version(answer: object) -> None:
    """Takes out what a server of 3.4 says of its own form of traces in each answer; later ones keep it as data."""
    if isinstance(answer, list):
        for below in answer:
            drop_schema_version(below)
    elif isinstance(answer, dict):
        answer.get("trace_metadata", {}).pop(SCHEMA_VERSION, None)
        if "request_metadata" in answer:
            answer["request_metadata"] = [pair for pair in answer["request_metadata"] if pair["key"] != SCHEMA_VERSION]
        for name in ("trace_metadata", "request_metadata"):
            if not answer.get(name, True):
                del answer[name]
        for below in answer.values():
            drop_schema_version(below)


class Newer:
    """The calls that 3.4 has, and those of 3.17 where the surface is wide enough."""

    def __init__(self, server: Server, surface: tuple[int, ...]):
        self.server = server
        self.surface = surface

    def get(self, path: str, **query) -> dict:
        return self.server.get(f"{API}/{path}", **query)

    def post(self, path: str, **body) -> dict:
        return self.server.post(f"{API}/{path}", **body)

    def read(self, experiments: list[str], runs: list[str]) -> dict:
        answers = {
            "logged models": {number: self.logged_models(number) for number in experiments},
            "traces": {number: self.traces(number) for number in experiments},
            "traces found": {"ordered": self.found_traces(experiments)},
            "traces of runs": {
                run: [found["trace_id"] for found in self.search_traces(experiments, filter=f"run_id = '{run}'")]
                for run in runs
            },
            "webhooks": self.webhooks(),
            "scorers": {number: self.scorers(number) for number in experiments},
            "evaluation datasets": self.evaluation_datasets(),
        }
        if self.surface >= (3, 17):
            answers |= {
                "gateway": self.gateway(),
                "reviews": {number: told(lambda number=number: self.reviews(number)) for number in experiments},
                "issues": {number: told(lambda number=number: self.issues(number)) for number in experiments},
                "mcp servers": self.mcp_servers(),
                "jobs": self.server.post("/ajax-api/3.0/jobs/search")["jobs"],
                # A server that runs without workspaces has no such call.
                "workspaces": self.get("workspaces") if self.server.headers else None,
            }
        return answers

    def logged_models(self, experiment: str) -> list[dict]:
        def search(**body) -> dict:
            return self.server.post(f"{OLD}/logged-models/search", experiment_ids=[experiment], **body)

        found = list(pages(search, "models", max_results=50))
        return [
            {"searched": model, "got": self.server.get(f"{OLD}/logged-models/{model['info']['model_id']}")}
            for model in found
        ]

    def search_traces(self, experiments: list[str], **body) -> list[dict]:
        locations = [
            {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": number}} for number in experiments
        ]
        return list(
            pages(self.post, "traces", path="traces/search", **{"locations": locations, "max_results": 100, **body})
        )

    def traces(self, experiment: str) -> dict:
        return {found["trace_id"]: self.trace(found) for found in self.search_traces([experiment])}

    def trace(self, found: dict) -> dict:
        trace_id = found["trace_id"]
        info = self.get(f"traces/{trace_id}")
        assessments = [given["assessment_id"] for given in info["trace"]["trace_info"].get("assessments", [])]
        answers = {
            "searched": found,
            "got": info,
            "got as 2.x does": told(lambda: self.server.get(f"{OLD}/traces/{trace_id}/info")),
            "spans": told(lambda: self.server.get("/ajax-api/2.0/mlflow/get-trace-artifact", request_id=trace_id)),
            "assessments": [self.get(f"traces/{trace_id}/assessments/{given}") for given in assessments],
        }
        # Of a trace whose spans are not in the database, this call fails.
        if self.surface >= (3, 17) and found.get("tags", {}).get("mlflow.trace.spansLocation") == "TRACKING_STORE":
            answers["whole"] = self.get("traces/get", trace_id=trace_id, allow_partial="true")
        if self.surface < (3, 17):
            drop_schema_version(answers)
        return answers

    def found_traces(self, experiments: list[str]) -> dict:
        searches = {
            "oldest first": {"order_by": ["timestamp_ms ASC"]},
            "newest first in pages of 4": {"order_by": ["timestamp_ms DESC"], "max_results": 4},
            "tag": {"filter": "tags.team = 'red'", "order_by": ["timestamp_ms ASC"]},
            "failed": {"filter": "status = 'ERROR'"},
            "time": {"filter": "timestamp_ms > 1700050000000", "order_by": ["timestamp_ms ASC"]},
        }
        if self.surface >= (3, 17):
            searches["span name"] = {"filter": "span.name = 'step 29'"}
            searches["span type"] = {"filter": "span.type = 'LLM'", "order_by": ["timestamp_ms ASC"]}
        return {
            name: [found["trace_id"] for found in self.search_traces(experiments, **search)]
            for name, search in searches.items()
        }

    def webhooks(self) -> list[dict]:
        def search(**query) -> dict:
            return self.server.get(f"{OLD}/webhooks", **query)

        return [
            {"listed": found, "got": self.server.get(f"{OLD}/webhooks/{found['webhook_id']}")}
            for found in pages(search, "webhooks", max_results=100)
        ]

    def scorers(self, experiment: str) -> dict:
        listed = told(lambda: self.get("scorers/list", experiment_id=experiment).get("scorers", []))
        names = [found["scorer_name"] for found in listed] if isinstance(listed, list) else []
        return {
            "listed": listed,
            "versions": {name: self.get("scorers/versions", experiment_id=experiment, name=name) for name in names},
            "newest": {name: self.get("scorers/get", experiment_id=experiment, name=name) for name in names},
        }

    def evaluation_datasets(self) -> dict:
        found = list(pages(self.post, "datasets", path="datasets/search", max_results=100))
        return {
            dataset["dataset_id"]: {
                "searched": dataset,
                "got": self.get(f"datasets/{dataset['dataset_id']}"),
                "experiments": self.get(f"datasets/{dataset['dataset_id']}/experiment-ids"),
                "records": self.records(dataset["dataset_id"]),
            }
            for dataset in found
        }

    def records(self, dataset: str) -> object:
        """The server packs them into a text of JSON."""
        return json.loads(self.get(f"datasets/{dataset}/records", max_results=1000)["records"])

    def gateway(self) -> dict:
        endpoints = self.get("gateway/endpoints/list").get("endpoints", [])
        secrets = self.get("gateway/secrets/list").get("secrets", [])
        return {
            "secrets": [
                {"listed": found, "got": self.get("gateway/secrets/get", secret_id=found["secret_id"])}
                for found in secrets
            ],
            "models": self.get("gateway/model-definitions/list"),
            "endpoints": [
                {
                    "listed": found,
                    "got": self.get("gateway/endpoints/get", endpoint_id=found["endpoint_id"]),
                    "bindings": self.get("gateway/endpoints/bindings/list", endpoint_id=found["endpoint_id"]),
                    "guardrails": self.get("gateway/guardrails/list-for-endpoint", endpoint_id=found["endpoint_id"]),
                }
                for found in endpoints
            ],
            "budgets": self.get("gateway/budgets/list"),
            "guardrails": self.get("gateway/guardrails/list"),
        }

    def reviews(self, experiment: str) -> dict:
        queues = list(
            pages(self.get, "review_queues", path="review-queues/list", experiment_id=experiment, max_results=100)
        )
        scorers = told(lambda: self.get("scorers/list", experiment_id=experiment).get("scorers", []))
        ids = [found["scorer_id"] for found in scorers] if isinstance(scorers, list) else []
        return {
            "label schemas": list(
                pages(self.get, "label_schemas", path="label-schemas/list", experiment_id=experiment, max_results=100)
            ),
            "queues": queues,
            "items": {
                queue["queue_id"]: list(
                    pages(
                        self.get, "items", path="review-queues/items/list", queue_id=queue["queue_id"], max_results=100
                    )
                )
                for queue in queues
            },
            "online": self.get("scorers/online-configs", scorer_ids=ids) if ids else {},
        }

    def issues(self, experiment: str) -> list[dict]:
        found = list(pages(self.post, "issues", path="issues/search", experiment_id=experiment, max_results=100))
        return [{"searched": issue, "got": self.get(f"issues/{issue['issue_id']}")} for issue in found]

    def mcp_servers(self) -> dict:
        found = list(pages(self.get, "mcp_servers", path="mcp-servers", max_results=100))
        return {
            server["name"]: {
                "searched": server,
                "got": self.get(f"mcp-servers/{quote(server['name'])}"),
                "versions": list(
                    pages(
                        self.get,
                        "mcp_server_versions",
                        path=f"mcp-servers/{quote(server['name'])}/versions",
                        max_results=100,
                    )
                ),
                "endpoints": list(
                    pages(
                        self.get,
                        "mcp_access_endpoints",
                        path=f"mcp-servers/{quote(server['name'])}/endpoints",
                        max_results=100,
                    )
                ),
            }
            for server in found
        }
