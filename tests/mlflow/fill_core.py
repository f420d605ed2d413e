"""What every release has: experiments, runs, metrics, params, tags, datasets, the model registry."""

import json
import math
import random

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunStatus, RunTag, ViewType
from mlflow.tracking import MlflowClient

import texts

START = 1_700_000_000_000
HOUR = 3_600_000
INT64 = (-(2**63), 2**63 - 1)
BATCH = 1000


class Core:
    """Fills the tables that 2.9.2 has; later releases build on its runs and experiments."""

    def __init__(self, client: MlflowClient, artifact_dir: str):
        self.client = client
        self.artifact_dir = artifact_dir
        self.random = random.Random(20260101)
        self.experiments: dict[str, str] = {}
        self.runs: dict[str, str] = {}

    def fill(self) -> None:
        self.fill_experiments()
        self.fill_training_runs()
        self.fill_odd_runs()
        self.fill_special_metrics()
        self.fill_texts()
        self.fill_datasets()
        self.fill_registry()
        self.delete_some()

    def fill_experiments(self) -> None:
        names = {
            "training": "training",
            "case": "Training",
            "space": "training ",
            "unicode": "実験 – Grüße 🧪 ניסוי",
            "hard": "quote ' \" back\\slash \\N\ttab",
            "long": texts.long(256),
            "empty": "no runs at all",
            "deleted": "deleted with runs",
            "deleted empty": "deleted without runs",
            "restored": "deleted and restored",
        }
        for key, name in names.items():
            self.experiments[key] = self.client.create_experiment(name)
        self.experiments["located"] = self.client.create_experiment(
            "own location", artifact_location=f"file://{self.artifact_dir}/elsewhere", tags={"made with": "tags"}
        )
        self.experiments["renamed"] = self.client.create_experiment("before the renaming")
        self.client.rename_experiment(self.experiments["renamed"], "after the renaming")
        self.experiments["default"] = "0"
        for key, text in texts.HARD.items():
            self.client.set_experiment_tag(self.experiments["hard"], key, text)
        self.client.set_experiment_tag(self.experiments["long"], "long", texts.long(5000))
        self.client.set_experiment_tag(self.experiments["training"], "mlflow.note.content", "# Note\n\n*for* people")
        self.client.set_experiment_tag(self.experiments["training"], "overwritten", "first")
        self.client.set_experiment_tag(self.experiments["training"], "overwritten", "second")

    def run(
        self,
        key: str,
        experiment: str,
        name: str,
        *,
        tags: dict | None = None,
        hour: int = 0,
        end: int | None = HOUR,
        status: str | None = "FINISHED",
    ) -> str:
        """One run; without a status it goes on for ever."""
        start = START + hour * HOUR
        made = self.client.create_run(
            self.experiments[experiment], start_time=start, tags={"mlflow.user": "ada", **(tags or {})}, run_name=name
        )
        self.runs[key] = made.info.run_id
        if status is not None:
            self.client.set_terminated(made.info.run_id, status=status, end_time=start + (end or 0))
        return made.info.run_id

    def fill_training_runs(self) -> None:
        """Runs as people have them: curves, params, tags, some of them nested."""
        statuses = [*RunStatus.all_status(), RunStatus.FINISHED, RunStatus.FINISHED]
        for number in range(30):
            experiment = ("training", "case", "space", "unicode", "located", "default")[number % 6]
            status = RunStatus.to_string(statuses[number % len(statuses)])
            parent = {"mlflow.parentRunId": self.runs["train 0"]} if number in (6, 12, 18) else {}
            run = self.run(
                f"train {number}",
                experiment,
                f"run {number:02}",
                tags=parent,
                hour=number,
                end=HOUR + number * 1234,
                status=None if status == "RUNNING" else status,
            )
            self.client.log_batch(run, params=self.training_params(number), tags=self.training_tags(number))
            metrics = self.curves(number)
            for first in range(0, len(metrics), BATCH):
                self.client.log_batch(run, metrics=metrics[first : first + BATCH])
        for number in (0, 1, 4):
            self.client.log_text(self.runs[f"train {number}"], f"report of {number}\n", "reports/report.txt")
            self.client.log_dict(self.runs[f"train {number}"], {"flavors": {}, "number": number}, "model/MLmodel")

    def training_params(self, number: int) -> list[Param]:
        rate = self.random.choice([1e-4, 3e-4, 1e-3])
        return [
            Param("lr", repr(rate)),
            Param("depth", str(number % 7)),
            Param("data/path", "s3://bucket/α β"),
            Param("optimizer.name", "adam"),
            Param("flag", str(number % 2 == 0)),
        ]

    def training_tags(self, number: int) -> list[RunTag]:
        return [
            RunTag("team", ["red", "blue"][number % 2]),
            RunTag("mlflow.source.name", "C:\\jobs\\train.py"),
            RunTag("mlflow.source.type", "LOCAL"),
            RunTag("mlflow.source.git.commit", f"{number:040x}"),
        ]

    def curves(self, number: int) -> list[Metric]:
        length = 20 + number
        return [
            Metric(key, 1 / (step + 1) + self.random.gauss(0, 0.01), START + number * HOUR + step * 1000, step)
            for key in ("loss", "val/loss", "accuracy")
            for step in range(length)
        ]

    def fill_odd_runs(self) -> None:
        """Names, times and owners at their limits."""
        self.run("unicode name", "unicode", "ran – 🧪 实验 ניסוי")
        self.run("long name", "long", texts.long(250))
        self.run("spaces", "hard", "  spaces around  ")
        self.run("hard name", "hard", "back\\slash \\N 'single' \"double\"\nnext line")
        self.run("ends before start", "hard", "ends before it starts", end=-5 * HOUR)
        self.run("ends at start", "hard", "ends as it starts", end=0, status="KILLED")
        self.run("old", "hard", "began in 1970", hour=-START // HOUR + 1)
        self.run("empty owner", "hard", "nobody's", tags={"mlflow.user": "", "mlflow.source.name": ""})
        self.run("nothing", "restored", "nothing logged", status=None)
        self.run("grandchild", "training", "grandchild", tags={"mlflow.parentRunId": self.runs["train 6"]})
        for key in ("a", "b", "c"):
            self.run(f"doomed {key}", "deleted", f"in a deleted experiment {key}")
            self.client.log_metric(self.runs[f"doomed {key}"], "loss", 0.5, timestamp=START, step=1)
        self.run("deleted run", "training", "deleted run")
        self.run("restored run", "training", "restored run")

    def fill_special_metrics(self) -> None:
        """Each kind of float and of step; rows that differ in one part of the key only."""
        run = self.run("special", "training", "special metrics")
        values = {
            "nan": math.nan,
            "inf": math.inf,
            "minus inf": -math.inf,
            "minus zero": -0.0,
            "zero": 0.0,
            "smallest": 5e-324,
            "subnormal": -2.2250738585072009e-308,
            "largest": 1.7976931348623157e308,
            "big": 1e308,
            "third": 1 / 3,
            "tenth": 0.1,
            "2^53+1": 9007199254740993.0,
            "integer": 42.0,
        }
        metrics = [
            Metric(f"value/{key.replace('+', ' plus ').replace('^', ' to ')}", value, START, 0)
            for key, value in values.items()
        ]
        metrics += [Metric("all values", value, START + place, place) for place, value in enumerate(values.values())]
        metrics += [
            Metric("steps", float(place), START, step)
            for place, step in enumerate([*INT64, 0, -1, 1, 2**31, -(2**31) - 1, 2**53 + 1])
        ]
        metrics += [Metric("times", 1.0, time, 0) for time in (0, 1, START, 4_102_444_800_000)]
        metrics += [Metric("ties", value, START, 7) for value in (2.0, 1.0, math.nan, 3.0, math.inf)]
        metrics += [Metric("точность 精度", 0.5, START, 0), Metric("a/b.c-d e_f", 0.25, START, 0)]
        metrics += [Metric("k" * 250, 1.0, START, 0)]
        self.client.log_batch(run, metrics=metrics)
        self.client.log_batch(run, metrics=metrics[8:12])
        dense = self.run("dense", "training", "one long series")
        series = [Metric("signal", math.sin(step / 50), START + step // 3, step) for step in range(BATCH)]
        self.client.log_batch(dense, metrics=series)

    def fill_texts(self) -> None:
        """Each hard text as a tag and as a param, and the longest that go in whole."""
        from mlflow.utils import validation

        longest_param = getattr(validation, "MAX_PARAM_VAL_LENGTH", 6000)
        longest_tag = min(getattr(validation, "MAX_TAG_VAL_LENGTH", 5000), 8000)
        run = self.run("texts", "hard", "hard texts")
        self.client.log_batch(
            run,
            params=[Param(key, text) for key, text in texts.HARD.items()],
            tags=[RunTag(key, text) for key, text in texts.HARD.items()],
        )
        self.client.log_batch(
            run,
            params=[Param("long", texts.long(longest_param)), Param("p" * 250, "long key")],
            tags=[RunTag("long", texts.long(longest_tag)), RunTag("t" * 250, "long key")],
        )
        self.client.set_tag(run, "overwritten", "first")
        self.client.set_tag(run, "overwritten", "second")
        self.client.set_tag(run, "removed", "soon")
        self.client.delete_tag(run, "removed")
        history = [
            {
                "run_id": run,
                "artifact_path": "model",
                "utc_time_created": "2026-01-01 00:00:00.000000",
                "flavors": {"python_function": {"loader_module": "mlflow.sklearn"}},
            }
        ]
        self.client.set_tag(run, "mlflow.log-model.history", json.dumps(history))

    def fill_datasets(self) -> None:
        plain = Dataset(
            name="iris",
            digest="0a1b2c3d",
            source_type="http",
            source='{"url": "https://example.org/iris.csv"}',
            schema='{"mlflow_colspec": []}',
            profile='{"num_rows": 150}',
        )
        bare = Dataset(name="no schema", digest="00000000", source_type="local", source='{"uri": "C:\\\\data\\\\x"}')
        large = Dataset(
            name="große Daten 🧪",
            digest="ffffffff",
            source_type="code",
            source=texts.HARD["json"],
            schema=texts.long(50_000),
            profile=texts.long(50_000),
        )
        context = [InputTag("mlflow.data.context", "training")]
        hard = [InputTag(key, text) for key, text in texts.HARD.items() if text]
        self.client.log_inputs(self.runs["train 0"], [DatasetInput(plain, context), DatasetInput(bare, [])])
        self.client.log_inputs(self.runs["train 6"], [DatasetInput(plain, [InputTag("mlflow.data.context", "eval")])])
        self.client.log_inputs(self.runs["texts"], [DatasetInput(large, hard), DatasetInput(plain, context)])
        self.client.log_inputs(self.runs["doomed a"], [DatasetInput(plain, context)])

    def fill_registry(self) -> None:
        client = self.client
        client.create_registered_model("churn", tags={"owner": "ada", "empty": ""}, description="who leaves\n\nand \\N")
        client.create_registered_model("Churn", description="another case")
        client.create_registered_model("modèle 数 🧪", tags=texts.HARD)
        client.create_registered_model("no versions")
        client.create_registered_model("long " + texts.long(245), description=texts.long(5000))
        client.create_registered_model("old name")
        client.rename_registered_model("old name", "new name")
        client.create_registered_model("deleted model")
        self.version("deleted model", "train 3")
        client.delete_registered_model("deleted model")
        for number in range(8):
            self.version("churn", f"train {number}", tags={"number": str(number)}, description=f"version {number + 1}")
        for number, stage in ((1, "Production"), (2, "Production"), (3, "Staging"), (4, "Archived"), (5, "Staging")):
            client.transition_model_version_stage("churn", str(number), stage, archive_existing_versions=number == 2)
        for alias, number in (("champion", "2"), ("challenger", "3"), ("moved", "4"), ("moved", "5"), ("Δοκιμή", "6")):
            client.set_registered_model_alias("churn", alias, number)
        client.set_registered_model_alias("churn", "gone", "1")
        client.delete_registered_model_alias("churn", "gone")
        client.delete_model_version("churn", "7")
        client.delete_model_version_tag("churn", "8", "number")
        client.set_registered_model_tag("churn", "long", texts.long(5000))
        for key, text in texts.HARD.items():
            client.set_model_version_tag("churn", "6", key, text)
        client.update_model_version("churn", "6", description=texts.long(5000))
        self.version("Churn", "train 1")
        self.version("new name", "train 2", linked="https://example.org/run?a=1&b=ä")
        client.create_model_version("modèle 数 🧪", "s3://bucket/no run/模型", run_id=None, await_creation_for=0)
        client.create_model_version("modèle 数 🧪", "models:/churn/1", run_id=None, await_creation_for=0)
        client.transition_model_version_stage("Churn", "1", "Production")

    def version(self, model: str, run: str, *, linked: str | None = None, **more) -> None:
        run_id = self.runs[run]
        source = self.client.get_run(run_id).info.artifact_uri + "/model"
        self.client.create_model_version(model, source, run_id=run_id, run_link=linked, await_creation_for=0, **more)

    def delete_some(self) -> None:
        """Soft deletions and what comes back from them; versions and datasets keep pointing at the deleted runs."""
        client = self.client
        for key in ("deleted run", "restored run", "doomed a", "train 5"):
            client.delete_run(self.runs[key])
        client.restore_run(self.runs["restored run"])
        for key in ("deleted", "deleted empty", "restored"):
            client.delete_experiment(self.experiments[key])
        client.restore_experiment(self.experiments["restored"])
        assert len(client.search_experiments(view_type=ViewType.DELETED_ONLY)) == 2
