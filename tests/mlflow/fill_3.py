"""What 3.x added: logged models, traces with spans and assessments, webhooks, prompts, scorers, evaluation datasets."""

import json
import math
import os

import mlflow
from mlflow.entities import AssessmentSource, Feedback, LoggedModelOutput, LoggedModelStatus, Metric
from mlflow.entities.trace_location import TraceLocation

import texts
from fill_core import HOUR, START, Core
from rest import Server

SECOND_NS = 1_000_000_000
# Some addresses have to be public ones; this one resolves without a name server. Nothing is ever sent there.
PUBLIC_ADDRESS = "https://93.184.216.34/hook"


class Newer:
    """Builds on the experiments, runs and models of the older tables."""

    def __init__(self, core: Core, server: Server):
        self.client = core.client
        self.server = server
        self.experiments = core.experiments
        self.runs = core.runs
        self.models: dict[str, str] = {}
        self.traces: dict[str, str] = {}
        os.environ["MLFLOW_ENABLE_ASYNC_TRACE_LOGGING"] = "false"
        os.environ["MLFLOW_ENABLE_ASYNC_LOGGING"] = "false"

    def fill(self) -> None:
        self.fill_logged_models()
        self.fill_prompts()
        self.fill_traces()
        self.fill_trace_links()
        self.fill_assessments()
        self.fill_webhooks()
        self.fill_scorers()
        self.fill_evaluation_datasets()
        self.delete_some()

    def fill_logged_models(self) -> None:
        for number in range(6):
            experiment = ("training", "unicode")[number % 2]
            source = self.runs[f"train {number * 6 + (0, 3)[number % 2]}"] if number < 4 else None
            made = self.client.create_logged_model(
                self.experiments[experiment],
                name=f"model-{number}",
                source_run_id=source,
                model_type=("", "Agent")[number % 2],
                tags={"tag": str(number), **(texts.HARD if number == 1 else {})},
                params={"alpha": str(number / 3), **({"long": texts.long(250)} if number == 1 else {})},
            )
            self.models[str(number)] = made.model_id
        for number, status in (("0", LoggedModelStatus.READY), ("1", LoggedModelStatus.FAILED)):
            self.client.finalize_logged_model(self.models[number], status)
        self.client.set_logged_model_tags(self.models["0"], {"overwritten": "second", "removed": "soon"})
        self.client.delete_logged_model_tag(self.models["0"], "removed")
        run = self.runs["train 0"]
        self.client.log_outputs(run, [LoggedModelOutput(self.models["0"], 3), LoggedModelOutput(self.models["2"], -1)])
        values = (0.25, math.inf, -math.inf, 5e-324, 1 / 3)
        metrics = [
            Metric(
                "score",
                value,
                START + step,
                step,
                model_id=self.models["0"],
                dataset_name="iris",
                dataset_digest="0a1b2c3d",
                run_id=run,
            )
            for step, value in enumerate(values)
        ]
        metrics += [
            Metric("bare", float(step), START, step, model_id=self.models["2"], run_id=run) for step in (-1, 2**63 - 1)
        ]
        self.client.log_batch(run, metrics=metrics)
        self.client.log_metric(run, "nan of a model", math.nan, timestamp=START, step=0, model_id=self.models["0"])
        self.client.create_model_version(
            "churn", f"models:/{self.models['0']}", run_id=run, model_id=self.models["0"], await_creation_for=0
        )

    def fill_prompts(self) -> None:
        for number, template in enumerate(
            ("Hello {{name}}", "Say: {{words}}\n" + texts.HARD["scripts"], texts.long(4000))
        ):
            self.client.register_prompt(
                "greeting", template, commit_message=f"change {number}", tags={"number": str(number)}
            )
        self.client.set_prompt_alias("greeting", "production", 2)
        self.client.set_prompt_tag("greeting", "owner", "ada")
        self.client.register_prompt(
            "chat", [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "{{q}}"}]
        )
        self.client.link_prompt_version_to_run(self.runs["train 0"], self.client.get_prompt_version("greeting", 2))

    def trace(
        self,
        key: str,
        experiment: str,
        *,
        hour: int,
        status: str = "OK",
        spans: int = 3,
        tags: dict | None = None,
        inputs: object = "question",
        outputs: object = "answer",
        attributes: dict | None = None,
    ) -> str:
        """One trace with a root span and so many below it."""
        begin = (START + hour * HOUR) * 1_000_000
        root = self.client.start_trace(
            f"trace {key}",
            span_type="CHAIN",
            inputs={"question": inputs},
            attributes={"number": hour, **(attributes or {})},
            tags=tags,
            experiment_id=self.experiments[experiment],
            start_time_ns=begin,
        )
        for number in range(spans):
            span = self.client.start_span(
                f"step {number}",
                trace_id=root.trace_id,
                parent_id=root.span_id,
                span_type=("LLM", "TOOL", "RETRIEVER")[number % 3],
                inputs={"part": number},
                attributes=self.span_attributes(number),
                start_time_ns=begin + number * SECOND_NS,
            )
            self.client.end_span(
                root.trace_id,
                span.span_id,
                outputs={"part": number},
                status=status if number == 0 else "OK",
                end_time_ns=begin + number * SECOND_NS + 123_456_789,
            )
        self.client.end_trace(
            root.trace_id, outputs={"answer": outputs}, status=status, end_time_ns=begin + spans * SECOND_NS
        )
        self.traces[key] = root.trace_id
        return root.trace_id

    def span_attributes(self, number: int) -> dict:
        """Tokens and costs of a language model, which newer servers put into tables of their own."""
        if number % 3 != 0:
            return {"floats": [0.1, 1e300], "none": None}
        return {
            "mlflow.chat.tokenUsage": {"input_tokens": 11 + number, "output_tokens": 7, "total_tokens": 18 + number},
            "mlflow.llm.cost": {"input_cost": 0.00025, "output_cost": 0.0005, "total_cost": 0.00075},
            "mlflow.llm.model": "gpt-test",
            "mlflow.llm.provider": "openai",
        }

    def fill_traces(self) -> None:
        for number in range(10):
            self.trace(
                f"plain {number}",
                ("training", "unicode", "default")[number % 3],
                hour=number,
                status="ERROR" if number == 4 else "OK",
                tags={"team": ("red", "blue")[number % 2]},
            )
        self.trace(
            "hard",
            "hard",
            hour=30,
            inputs=texts.HARD,
            outputs=list(texts.HARD.values()),
            tags={key: text for key, text in texts.HARD.items() if text},
        )
        self.trace("long", "hard", hour=31, inputs=texts.long(20_000), outputs=texts.long(20_000))
        self.trace("many spans", "training", hour=32, spans=30)
        self.trace("root only", "training", hour=33, spans=0)
        self.trace("own metadata", "training", hour=34, attributes={"mlflow.traceInputs": "x"})
        for key in ("plain 0", "plain 3"):
            self.client.set_trace_tag(self.traces[key], "later", "tag")
        self.client.set_trace_tag(self.traces["plain 0"], "removed", "soon")
        self.client.delete_trace_tag(self.traces["plain 0"], "removed")
        self.fill_traces_by_otlp()
        self.fill_trace_with_metadata()

    def fill_traces_by_otlp(self) -> None:
        """Spans sent as OpenTelemetry sends them; the server makes the trace from them."""
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
        from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

        for number in (1, 2):
            request = ExportTraceServiceRequest()
            spans = request.resource_spans.add().scope_spans.add().spans
            for place in range(3):
                begin = (START + (50 + number) * HOUR) * 1_000_000 + place
                span = spans.add(
                    trace_id=bytes([number] * 16),
                    span_id=bytes([place + 1] * 8),
                    name=f"otlp {place} – ψ",
                    parent_span_id=b"" if place == 0 else bytes([1] * 8),
                    start_time_unix_nano=begin,
                    end_time_unix_nano=begin + 10 ** (place + 3),
                )
                span.attributes.append(KeyValue(key="http.method", value=AnyValue(string_value="GET")))
                span.attributes.append(KeyValue(key="size", value=AnyValue(double_value=0.1)))
                span.events.add(time_unix_nano=begin + 5, name="retried")
            self.server.send(
                "/v1/traces",
                request.SerializeToString(),
                {
                    "Content-Type": "application/x-protobuf",
                    "X-Mlflow-Experiment-Id": self.experiments["training"],
                },
            )
            self.traces[f"otlp {number}"] = "tr-" + f"{number:02x}" * 16

    def fill_trace_with_metadata(self) -> None:
        """A trace's head alone, as other languages send it: own metadata, a session, no span at all."""
        trace_id = "tr-" + "ab" * 16
        self.server.post(
            "/api/3.0/mlflow/traces",
            trace={
                "trace_info": {
                    "trace_id": trace_id,
                    "client_request_id": "their own id \\N",
                    "trace_location": TraceLocation.from_experiment_id(self.experiments["unicode"]).to_dict(),
                    "request_preview": "Grüße 🧪",
                    "response_preview": "line\nline",
                    "state": "IN_PROGRESS",
                    "request_time": "2023-11-15T10:11:12.345Z",
                    "execution_duration": "1.500s",
                    "trace_metadata": {
                        "mlflow.trace.session": "session 1",
                        "mlflow.trace.user": "ada",
                        "mlflow.sourceRun": self.runs["train 3"],
                        "own": texts.HARD["json"],
                    },
                    "tags": {"mlflow.traceName": "head only", "empty": ""},
                }
            },
        )
        self.traces["head only"] = trace_id

    def fill_trace_links(self) -> None:
        self.client.link_traces_to_run([self.traces["plain 0"], self.traces["plain 3"]], self.runs["train 0"])
        versions = [self.client.get_prompt_version("greeting", 1), self.client.get_prompt_version("greeting", 2)]
        self.client.link_prompt_versions_to_trace(versions, self.traces["plain 0"])

    def fill_assessments(self) -> None:
        human = AssessmentSource(source_type="HUMAN", source_id="ada@example.org")
        judge = AssessmentSource(source_type="LLM_JUDGE", source_id="judge")
        values = {
            "bool": True,
            "int": 7,
            "float": 0.1,
            "text": texts.HARD["scripts"],
            "list": [1, "a", None],
            "dict": {"b": 1.0, "a": [texts.HARD["backslashes"]]},
            "empty": "",
        }
        first = self.traces["plain 0"]
        for name, value in values.items():
            mlflow.log_feedback(trace_id=first, name=name, value=value, source=human, rationale="since\n\\N")
            mlflow.log_expectation(
                trace_id=self.traces["plain 3"],
                name=name,
                value=value or "none",
                source=human,
                metadata={"project": "mlops"},
            )
        mlflow.log_feedback(trace_id=self.traces["plain 6"], name="failed", error=ValueError("no answer"), source=judge)
        old = mlflow.log_feedback(trace_id=self.traces["hard"], name="overridden", value=1, source=judge)
        mlflow.override_feedback(trace_id=self.traces["hard"], assessment_id=old.assessment_id, value=2, source=human)
        spare = mlflow.log_feedback(trace_id=self.traces["hard"], name="updated", value=1, source=judge)
        mlflow.update_assessment(self.traces["hard"], spare.assessment_id, Feedback(name="updated", value=3))
        gone = mlflow.log_feedback(trace_id=self.traces["hard"], name="gone", value=1, source=judge)
        mlflow.delete_assessment(self.traces["hard"], gone.assessment_id)

    def fill_webhooks(self) -> None:
        """What is active waits for events that no test causes: nothing is ever sent to that address."""
        quiet = ["model_version_tag.deleted", "model_version_alias.deleted"]
        loud = ["registered_model.created", "model_version.created", "model_version_alias.created"]
        self.client.create_webhook("active", PUBLIC_ADDRESS, quiet, description="all \\N", secret="s3cret – ключ")
        self.client.create_webhook("disabled", PUBLIC_ADDRESS + "?a=1", loud, status="DISABLED")
        gone = self.client.create_webhook("gone", PUBLIC_ADDRESS, loud, status="DISABLED")
        self.client.delete_webhook(gone.webhook_id)

    def fill_scorers(self) -> None:
        experiment = self.experiments["training"]
        for name in ("conciseness", "conciseness", "Grüße"):
            serialized = {
                "name": name,
                "description": None,
                "aggregations": [],
                "is_session_level_scorer": False,
                "mlflow_version": "3",
                "serialization_version": 1,
                "instructions_judge_pydantic_data": {
                    "instructions": "Is {{ outputs }} short?",
                    "model": "openai:/gpt-test",
                    "feedback_value_type": {"type": "string"},
                },
            }
            self.server.post(
                "/api/3.0/mlflow/scorers/register",
                experiment_id=experiment,
                name=name,
                serialized_scorer=json.dumps(serialized),
            )

    def fill_evaluation_datasets(self) -> None:
        experiments = [self.experiments["training"], self.experiments["unicode"]]
        made = self.client.create_dataset(
            name="questions – 🧪", experiment_id=experiments, tags={"kind": "golden", "mlflow.user": "ada"}
        )
        records = [
            {
                "inputs": {"question": text},
                "expectations": {"answer": text, "score": 0.1},
                "tags": {"key": key},
                "source": {"source_type": "HUMAN", "source_data": {"user": "ada"}},
            }
            for key, text in texts.HARD.items()
        ]
        records.append(
            {
                "inputs": {"question": "from a trace"},
                "source": {"source_type": "TRACE", "source_data": {"trace_id": self.traces["plain 0"]}},
            }
        )
        path = f"/api/3.0/mlflow/datasets/{made.dataset_id}/records"
        self.server.post(path, records=json.dumps(records))
        self.server.post(
            path, records=json.dumps([{**records[0], "expectations": {"answer": "updated", "integer": 7}}])
        )
        self.client.set_dataset_tags(made.dataset_id, {"empty": "", "later": texts.HARD["backslashes"]})
        bare = self.client.create_dataset(
            name="no records", experiment_id=self.experiments["training"], tags={"mlflow.user": "ada"}
        )
        self.client.set_dataset_tags(bare.dataset_id, {"later": "tag"})

    def delete_some(self) -> None:
        self.client.delete_logged_model(self.models["5"])
        self.client.delete_traces(self.experiments["training"], trace_ids=[self.traces["plain 9"]])
        self.client.delete_prompt_version("greeting", "3")
