"""What 3.17 has beyond 3.4: the gateway, reviews, issues, MCP servers, and what background jobs write."""

import datetime
import json
import time

import texts
from fill_3 import PUBLIC_ADDRESS, Newer

API = "/api/3.0/mlflow"
DAY = 86_400_000


class Newest:
    """Builds on the experiments, traces and scorers of 3.4."""

    def __init__(self, newer: Newer):
        self.server = newer.server
        self.experiments = newer.experiments
        self.runs = newer.runs
        self.traces = newer.traces

    def post(self, path: str, **body) -> dict:
        return self.server.post(f"{API}/{path}", **body)

    def fill(self, backend_store_uri: str | None) -> None:
        self.fill_gateway()
        self.fill_guards()
        self.fill_reviews()
        self.fill_issues()
        self.fill_mcp_servers()
        if backend_store_uri:
            self.fill_as_jobs_do(backend_store_uri)

    def fill_gateway(self) -> None:
        secrets = [
            self.post(
                "gateway/secrets/create",
                secret_name=f"key of {who}",
                secret_value={"api_key": f"sk-{who}-{texts.HARD['scripts']}"},
                provider=provider,
                created_by=who,
                **more,
            )["secret"]["secret_id"]
            for who, provider, more in (
                ("ada", "openai", {}),
                ("bob", "azure", {"auth_config": {"api_version": "2024-06-01"}}),
            )
        ]
        self.post("gateway/secrets/update", secret_id=secrets[1], secret_value={"api_key": "changed"}, updated_by="eve")
        definitions = [
            self.post(
                "gateway/model-definitions/create",
                name=f"model of {provider}",
                secret_id=secret,
                provider=provider,
                model_name=f"{provider}-model",
                created_by="ada",
            )["model_definition"]["model_definition_id"]
            for secret, provider in zip(secrets, ("openai", "azure"), strict=True)
        ]
        primary, fallback = (
            {"model_definition_id": definition, "linkage_type": kind, "weight": weight, **more}
            for definition, kind, weight, more in (
                (definitions[0], "PRIMARY", 0.7, {}),
                (definitions[1], "FALLBACK", 1.0, {"fallback_order": 0}),
            )
        )
        self.endpoint = self.post(
            "gateway/endpoints/create",
            name="chat",
            model_configs=[primary, fallback],
            created_by="ada",
            usage_tracking=True,
            fallback_config={"strategy": "SEQUENTIAL", "max_attempts": 2},
            experiment_id=self.experiments["training"],
            routing_strategy="REQUEST_BASED_TRAFFIC_SPLIT",
        )["endpoint"]["endpoint_id"]
        self.post("gateway/endpoints/create", name="bare", model_configs=[primary], usage_tracking=False)
        for key in ("empty", "scripts", "backslashes"):
            self.post("gateway/endpoints/set-tag", endpoint_id=self.endpoint, key=key, value=texts.HARD[key])

    def fill_guards(self) -> None:
        """A scorer of a gateway's model: bound to its endpoint, run on new traces, and a guard before answers."""
        experiment = self.experiments["training"]
        scorer = {
            "name": "guard",
            "aggregations": [],
            "is_session_level_scorer": False,
            "mlflow_version": "3.17.2",
            "serialization_version": 1,
            "instructions_judge_pydantic_data": {
                "instructions": "Is {{ outputs }} safe?",
                "model": "gateway:/chat",
                "feedback_value_type": {"type": "string"},
            },
        }
        made = self.post(
            "scorers/register", experiment_id=experiment, name="guard", serialized_scorer=json.dumps(scorer)
        )
        self.server.call(
            "PUT",
            f"{API}/scorers/online-config",
            {"experiment_id": experiment, "name": "guard", "sample_rate": 0.1, "filter_string": "status = 'OK'"},
        )
        guard = self.post(
            "gateway/guardrails/create",
            name="safe answers",
            scorer_id=made["scorer_id"],
            scorer_version=1,
            stage="BEFORE",
            action="VALIDATION",
        )["guardrail"]["guardrail_id"]
        self.post(
            "gateway/guardrails/add-to-endpoint", endpoint_id=self.endpoint, guardrail_id=guard, execution_order=1
        )
        for amount, unit, action in ((0.1, "DAYS", "ALERT"), (1234.56, "MONTHS", "REJECT")):
            self.post(
                "gateway/budgets/create",
                budget_unit="USD",
                budget_amount=amount,
                duration={"unit": unit, "value": 1},
                target_scope="GLOBAL",
                budget_action=action,
                created_by="ada",
            )

    def fill_reviews(self) -> None:
        experiment = self.experiments["training"]
        inputs = {
            "passed": {"pass_fail": {"positive_label": "yes", "negative_label": "nö"}},
            "kind": {"categorical": {"options": ["a", "b\\", "ψ"], "multi_select": True}},
            "points": {"numeric": {"min_value": -0.5, "max_value": 10.0}},
            "words": {"text": {"max_length": 500}},
        }
        schemas = [
            self.post(
                "label-schemas/create",
                experiment_id=experiment,
                name=name,
                input=given,
                enable_comment=name == "kind",
                type="EXPECTATION" if name == "words" else "FEEDBACK",
                instruction=f"judge the {name}\n\\N",
            )["label_schema"]["schema_id"]
            for name, given in inputs.items()
        ]
        queue = self.post(
            "review-queues/create",
            experiment_id=experiment,
            name="first look – 🧪",
            queue_type="CUSTOM",
            created_by="ada",
            users=["ada", "bob"],
            schema_ids=schemas[:2],
        )["review_queue"]["queue_id"]
        self.post("review-queues/get-or-create-user", experiment_id=experiment, user="eve", created_by="ada")
        items = [self.traces[key] for key in ("plain 0", "plain 3", "plain 6")]
        self.post("review-queues/items/add", queue_id=queue, item_type="TRACE", item_ids=items)
        self.post(
            "review-queues/items/set-status", queue_id=queue, item_id=items[0], status="COMPLETE", completed_by="bob"
        )
        self.post(
            "review-queues/items/set-status", queue_id=queue, item_id=items[1], status="DECLINED", completed_by="ada"
        )

    def fill_issues(self) -> None:
        experiment = self.experiments["training"]
        made = self.post(
            "issues",
            experiment_id=experiment,
            name="slow – 🐌",
            description=texts.HARD["newlines"],
            status="pending",
            severity="high",
            root_causes=["no cache", texts.HARD["quotes"]],
            source_run_id=self.runs["train 0"],
            created_by="ada",
            categories=["latency"],
        )["issue"]["issue_id"]
        self.server.call("PATCH", f"{API}/issues/{made}", {"issue_id": made, "status": "resolved"})
        self.post("issues", experiment_id=experiment, name="bare", description="no more than that")

    def fill_mcp_servers(self) -> None:
        name = "org.example/weather"
        icon = {"src": f"{PUBLIC_ADDRESS}/icon.png", "mimeType": "image/png", "sizes": ["16x16"]}
        self.post("mcp-servers", name=name, description="rain \\N and shine", icons=[icon])
        for version, status in (("1.0.0", "active"), ("1.1.0-beta", "draft")):
            described = {
                "name": name,
                "version": version,
                "title": "Wetter",
                "description": texts.HARD["scripts"],
                "remotes": [{"type": "streamable-http", "url": PUBLIC_ADDRESS}],
                "_meta": {"floats": [0.1, 1e300]},
            }
            tools = [
                {"name": "forecast", "inputSchema": {"type": "object", "properties": {"city": {"type": "string"}}}}
            ]
            self.post(
                f"mcp-servers/{name}/versions",
                server_json=described,
                status=status,
                source="https://example.org/source",
                tools=tools,
            )
        self.post(f"mcp-servers/{name}/tags", key="owner", value="ada")
        self.post(f"mcp-servers/{name}/versions/1.0.0/tags", key="checked", value=texts.HARD["backslashes"])
        self.post(f"mcp-servers/{name}/aliases", alias="production", version="1.0.0")
        self.post(f"mcp-servers/{name}/endpoints", url=f"{PUBLIC_ADDRESS}/1", server_version="1.0.0")
        self.post(
            f"mcp-servers/{name}/endpoints", url=f"{PUBLIC_ADDRESS}/p", server_alias="production", transport_type="sse"
        )

    def fill_as_jobs_do(self, backend_store_uri: str) -> None:
        """The tables of background jobs, by the code that the jobs run: servers of tests start none."""
        from mlflow.server.jobs.lock_manager import JobLockManager
        from mlflow.store.db.trace_rollups import run_sql_trace_rollups
        from mlflow.store.jobs.sqlalchemy_store import SqlAlchemyJobStore
        from mlflow.store.tracking.utils.sql_trace_rollups import RollupFamily, ensure_locked_rebuild_entry
        from sqlalchemy.orm import Session

        jobs = SqlAlchemyJobStore(backend_store_uri)
        made = [
            jobs.create_job(
                f"job {number}",
                json.dumps({"n": number, "text": texts.HARD["scripts"]}),
                timeout=(None, 1.5)[number % 2],
                creator="ada",
            ).job_id
            for number in range(4)
        ]
        for job in made[1:]:
            jobs.start_job(job)
        jobs.finish_job(made[1], json.dumps({"score": 0.1}))
        jobs.fail_job(made[2], texts.HARD["newlines"])
        jobs.update_status_details(made[3], {"stage": "half – 🧪", "share": 0.5})
        locks = JobLockManager(jobs)
        locks.acquire_exclusive_lock("one at a time", made[3])
        locks.acquire_scheduler_lease("scheduler", 60)
        run_sql_trace_rollups(jobs.engine, now_ms=int(time.time() * 1000) + 3 * DAY)
        with Session(jobs.engine) as session, session.begin():
            ensure_locked_rebuild_entry(
                session, RollupFamily.TRACE_METRIC, int(self.experiments["training"]), datetime.date(2023, 11, 14)
            )
