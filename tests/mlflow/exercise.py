#!/usr/bin/env python3
"""Makes new things on a filled tracking server and reads them back.

    ENV/bin/python exercise.py --tracking-uri URL

A store whose sequences or keys are wrong answers with an error here. Prints JSON of what was made; exit code 1 with the
server's words, or with what came back different, if something failed. It can run any number of times.
"""

import argparse
import json
import secrets
import sys
import time

from rest import Refused, Server, pages

OLD = "/api/2.0/mlflow"
NEW = "/api/3.0/mlflow"


class Different(Exception):
    """What was read is not what was written."""


def expect(what: str, wanted: object, found: object) -> None:
    if wanted != found:
        raise Different(f"{what}: wanted {wanted!r}, found {found!r}")


class Exercise:
    """Each step leaves what it made in `made`."""

    def __init__(self, server: Server):
        self.server = server
        self.mark = secrets.token_hex(4)
        self.made: dict[str, object] = {"mark": self.mark}

    def get(self, path: str, **query) -> dict:
        return self.server.get(f"{OLD}/{path}", **query)

    def post(self, path: str, **body) -> dict:
        return self.server.post(f"{OLD}/{path}", **body)

    def do(self) -> None:
        self.experiment()
        self.run()
        self.version()
        self.model()
        if self.server.version() >= (3, 0):
            self.logged_model()
            self.trace()

    def experiment(self) -> None:
        """The new id is above all that there are, deleted ones too."""

        def search(**body) -> dict:
            return self.post("experiments/search", view_type="ALL", max_results=1000, **body)

        before = max(int(found["experiment_id"]) for found in pages(search, "experiments"))
        name = f"exercise {self.mark} – 🧪"
        made = self.post("experiments/create", name=name, tags=[{"key": "k", "value": "ä"}])["experiment_id"]
        if int(made) <= before:
            raise Different(f"experiment id: {made} is not above {before}")
        found = self.get("experiments/get", experiment_id=made)["experiment"]
        expect("experiment's name", name, found["name"])
        expect("experiment's tags", {"k": "ä"}, {tag["key"]: tag["value"] for tag in found["tags"]})
        self.made |= {"experiment": made, "highest experiment before": str(before), "next id": int(made) == before + 1}

    def run(self) -> None:
        now = int(time.time() * 1000)
        run = self.post("runs/create", experiment_id=self.made["experiment"], run_name="exercise", start_time=now)[
            "run"
        ]
        run_id = run["info"]["run_id"]
        for step, value in enumerate((0.5, "NaN", "Infinity", 0.1)):
            self.post("runs/log-metric", run_id=run_id, key="loss", value=value, timestamp=now + step, step=step)
        self.post(
            "runs/log-batch", run_id=run_id, params=[{"key": "lr", "value": "0.1"}], tags=[{"key": "t", "value": "\\N"}]
        )
        self.post(
            "runs/log-inputs",
            run_id=run_id,
            datasets=[
                {
                    "dataset": {"name": "exercise", "digest": self.mark, "source_type": "local", "source": "{}"},
                    "tags": [{"key": "mlflow.data.context", "value": "training"}],
                }
            ],
        )
        self.post("runs/update", run_id=run_id, status="FINISHED", end_time=now + 1000)
        found = self.get("runs/get", run_id=run_id)["run"]
        expect("run's status", "FINISHED", found["info"]["status"])
        expect(
            "run's metrics", [("loss", 0.1)], [(metric["key"], metric["value"]) for metric in found["data"]["metrics"]]
        )
        expect("run's params", [("lr", "0.1")], [(param["key"], param["value"]) for param in found["data"]["params"]])
        expect("run's dataset", self.mark, found["inputs"]["dataset_inputs"][0]["dataset"]["digest"])
        history = self.get("metrics/get-history", run_id=run_id, metric_key="loss", max_results=100)["metrics"]
        # MLflow keeps an infinity as the largest float.
        expect(
            "metric's history",
            ["0.5", "NaN", str(sys.float_info.max), "0.1"],
            [str(metric["value"]) for metric in sorted(history, key=lambda metric: int(metric["timestamp"]))],
        )
        self.made |= {"run": run_id, "artifacts": found["info"]["artifact_uri"]}

    def version(self) -> None:
        """A new version of the model that most have versions of, numbered after the highest."""

        def search(**query) -> dict:
            return self.get("model-versions/search", max_results=1000, **query)

        versions = list(pages(search, "model_versions"))
        names = [found["name"] for found in versions if not self.is_prompt(found)]
        if not names:
            raise Different("a model to add a version to: the server has none")
        name = max(sorted(set(names)), key=names.count)
        before = max(int(found["version"]) for found in versions if found["name"] == name)
        made = self.post(
            "model-versions/create", name=name, source=f"{self.made['artifacts']}/model", run_id=self.made["run"]
        )
        number = made["model_version"]["version"]
        expect(f"next version of {name!r}", str(before + 1), number)
        self.use_version(name, number)
        self.made |= {"model": name, "version": number}

    def is_prompt(self, version: dict) -> bool:
        return any(tag["key"] == "mlflow.prompt.is_prompt" for tag in version.get("tags", []))

    def use_version(self, name: str, number: str) -> None:
        """Tags, stage and alias of a version."""
        alias = f"exercise-{self.mark}"
        self.post("model-versions/set-tag", name=name, version=number, key="exercise", value=self.mark)
        self.post("registered-models/alias", name=name, alias=alias, version=number)
        self.post(
            "model-versions/transition-stage",
            name=name,
            version=number,
            stage="Staging",
            archive_existing_versions=False,
        )
        found = self.get("registered-models/alias", name=name, alias=alias)["model_version"]
        expect("version by alias", number, found["version"])
        expect("version's stage", "Staging", found["current_stage"])
        expect("version's tags", [("exercise", self.mark)], [(tag["key"], tag["value"]) for tag in found["tags"]])

    def model(self) -> None:
        name = f"exercise {self.mark}"
        self.post("registered-models/create", name=name, tags=[{"key": "k", "value": "v"}])
        made = self.post("model-versions/create", name=name, source="s3://bucket/exercise")["model_version"]
        expect("first version of a new model", "1", made["version"])
        self.use_version(name, "1")
        self.made |= {"new model": name}

    def logged_model(self) -> None:
        made = self.post(
            "logged-models",
            experiment_id=self.made["experiment"],
            name="exercise",
            source_run_id=self.made["run"],
            params=[{"key": "p", "value": "1"}],
            tags=[{"key": "t", "value": "2"}],
        )["model"]["info"]["model_id"]
        self.post(
            "runs/log-metric", run_id=self.made["run"], key="score", value=0.25, timestamp=1, step=1, model_id=made
        )
        self.post("runs/outputs", run_id=self.made["run"], models=[{"model_id": made, "step": 1}])
        self.server.call("PATCH", f"{OLD}/logged-models/{made}", {"model_id": made, "status": "LOGGED_MODEL_READY"})
        found = self.get(f"logged-models/{made}")["model"]
        expect("logged model's status", "LOGGED_MODEL_READY", found["info"]["status"])
        expect(
            "logged model's metrics",
            [("score", 0.25)],
            [(metric["key"], metric["value"]) for metric in found["data"]["metrics"]],
        )
        self.made |= {"logged model": made}

    def trace(self) -> None:
        """A trace with a span, sent as OpenTelemetry sends it, then a tag and an assessment."""
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        number = secrets.token_bytes(16)
        now = time.time_ns()
        request = ExportTraceServiceRequest()
        request.resource_spans.add().scope_spans.add().spans.add(
            trace_id=number,
            span_id=b"exercise",
            name="exercise",
            start_time_unix_nano=now,
            end_time_unix_nano=now + 10**6,
        )
        self.server.send(
            "/v1/traces",
            request.SerializeToString(),
            {
                "Content-Type": "application/x-protobuf",
                "X-Mlflow-Experiment-Id": self.made["experiment"],
                **self.server.headers,
            },
        )
        trace = f"tr-{number.hex()}"
        self.server.call("PATCH", f"{NEW}/traces/{trace}/tags", {"key": "exercise", "value": self.mark})
        self.server.post(
            f"{NEW}/traces/{trace}/assessments",
            assessment={
                "assessment_name": "exercise",
                "trace_id": trace,
                "feedback": {"value": 1.0},
                "source": {"source_type": "HUMAN", "source_id": "ada"},
                "create_time": "2026-01-01T00:00:00Z",
                "last_update_time": "2026-01-01T00:00:00Z",
            },
        )
        found = self.server.get(f"{NEW}/traces/{trace}")["trace"]["trace_info"]
        expect("trace's tag", self.mark, found["tags"]["exercise"])
        expect("trace's assessment", ["exercise"], [given["assessment_name"] for given in found["assessments"]])
        self.made |= {"trace": trace}


def main() -> int:
    parser = argparse.ArgumentParser(description="make new things on a server and read them back")
    parser.add_argument("--tracking-uri", required=True)
    exercise = Exercise(Server(parser.parse_args().tracking_uri))
    try:
        exercise.do()
    except (Refused, Different) as failure:
        print(f"exercise: {failure}", file=sys.stderr)
        print(json.dumps(exercise.made | {"failed": str(failure)}))
        return 1
    print(json.dumps(exercise.made))
    return 0


if __name__ == "__main__":
    sys.exit(main())
