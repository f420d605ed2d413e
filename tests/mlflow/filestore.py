#!/usr/bin/env python3
"""A store as people have it who began with `mlruns` folders: a file store, moved to SQLite by MLflow's own tool.

    ENV/bin/python filestore.py --folder DIR --out FILE [--no-migration]

ENV is that of MLflow 3.17. Fills DIR/mlruns through MLflow's client, then runs `mlflow migrate-filestore` into FILE,
which must not be there. Experiments get ids of 18 digits, which do not fit PostgreSQL's integer; the content is the
same each time, but for the ids and for the times that the store sets.

What such a SQLite file has that others have not, and what this fills on purpose:
- the header says WAL (MLflow's tool sets it and leaves it so); there is no -wal beside it once the tool has ended;
- metrics of logged models come over as they were: an infinite one is an infinity, not the greatest float;
- the id of an experiment is in its artifact addresses, in a prompt's tag `_mlflow_experiment_ids`, and in addresses of
  traces, whose spans are files only: tables spans and entity_associations stay empty;
- inputs and outputs of runs, and their datasets, have new ids, as the file store keeps none.

Prints one JSON object: where things are, the ids by name, the rows by table.
"""

import argparse
import contextlib
import json
import logging
import math
import os
import sqlite3
import subprocess
import sys
import time
import warnings
from pathlib import Path

import texts

START = 1_700_000_000_000
HOUR = 3_600_000
SECOND_NS = 1_000_000_000
STEPS = 1500
BATCH = 1000
INT4 = 2**31 - 1
SECONDS = 120
UNICODE = "実験 – Grüße 🧪 ניסוי"
KEPT_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH")
SETTINGS = {
    "MLFLOW_ALLOW_FILE_STORE": "true",  # without it, 3.17 refuses to open one
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
    "MLFLOW_ENABLE_ASYNC_TRACE_LOGGING": "false",
    "GIT_PYTHON_REFRESH": "quiet",
    "PYTHONUTF8": "1",
}


class FileStore:
    """Fills one. MLflow is imported when the environment is set, as it reads that on import."""

    def __init__(self, address: str):
        import mlflow

        logging.getLogger("mlflow").setLevel(logging.ERROR)
        warnings.simplefilter("ignore", FutureWarning)
        mlflow.set_tracking_uri(address)
        mlflow.set_registry_uri(address)
        self.mlflow = mlflow
        self.client = mlflow.MlflowClient(address, address)
        self.experiments: dict[str, str] = {"Default": "0"}
        self.runs: dict[str, str] = {}
        self.models: dict[str, str] = {}
        self.traces: dict[str, str] = {}

    def fill(self) -> None:
        self.fill_experiments()
        self.fill_runs()
        self.fill_special_metrics()
        self.fill_texts()
        self.fill_datasets()
        self.fill_logged_models()
        self.fill_registry()
        self.fill_traces()
        self.fill_prompts()
        self.delete_some()

    def fill_experiments(self) -> None:
        tags = {"team": "red", "mlflow.note.content": "# Note\n\n*for* people"}
        for name, given in (("training", tags), (UNICODE, {"empty": ""}), ("deleted with runs", {})):
            self.experiments[name] = self.client.create_experiment(name, tags=given)

    def run(self, key: str, experiment: str, *, hour: int = 0, status: str | None = "FINISHED", **tags: str) -> str:
        """One run; without a status it goes on for ever."""
        begin = START + hour * HOUR
        made = self.client.create_run(
            self.experiments[experiment],
            start_time=begin,
            tags={"mlflow.user": "ada", "mlflow.source.name": "C:\\jobs\\train.py", **tags},
            run_name=key,
        ).info.run_id
        if status is not None:
            self.client.set_terminated(made, status=status, end_time=begin + HOUR)
        self.runs[key] = made
        return made

    def fill_runs(self) -> None:
        """Runs as people have them, some of them nested; one with a long series."""
        from mlflow.entities import Metric, Param, RunTag

        for number in range(12):
            experiment = ("training", "training", UNICODE, "deleted with runs", "Default")[number % 5]
            status = ("FINISHED", "FINISHED", "FAILED", "KILLED", None)[number % 5]
            parent = {"mlflow.parentRunId": self.runs["run 0"]} if number in (1, 5, 6) else {}
            run = self.run(f"run {number}", experiment, hour=number, status=status, **parent)
            self.client.log_batch(
                run,
                metrics=[
                    Metric(key, 1 / (step + number + 1), START + number * HOUR + step, step)
                    for key in ("loss", "val/loss")
                    for step in range(20)
                ],
                params=[Param("lr", repr(0.1**number)), Param("data/path", "s3://bucket/α β")],
                tags=[RunTag("team", ("red", "blue")[number % 2])],
            )
        self.run("run of a run", "training", **{"mlflow.parentRunId": self.runs["run 1"]})
        series = [Metric("signal", math.sin(step / 50), START + step, step) for step in range(STEPS)]
        for first in range(0, STEPS, BATCH):
            self.client.log_batch(self.runs["run 0"], metrics=series[first : first + BATCH])
        self.client.log_text(self.runs["run 0"], "report\n", "reports/report.txt")
        self.client.log_dict(self.runs["run 0"], {"flavors": {}}, "model/MLmodel")

    def fill_special_metrics(self) -> None:
        from mlflow.entities import Metric

        run = self.run("special", "training")
        values = (math.nan, math.inf, -math.inf, -0.0, 5e-324, 1.7976931348623157e308, 1 / 3, 42.0)
        metrics = [Metric("all values", value, START + place, place) for place, value in enumerate(values)]
        metrics += [Metric("ends in nan", value, START, place) for place, value in enumerate((1.0, math.nan))]
        metrics += [Metric("steps", 1.0, START, step) for step in (-(2**63), -1, 0, 2**53 + 1, 2**63 - 1)]
        metrics += [Metric("точность", 0.5, START, 0)]
        self.client.log_batch(run, metrics=metrics)

    def fill_texts(self) -> None:
        """As tags and params. The file store makes each kind of line end that of Unix."""
        from mlflow.entities import Param, RunTag

        self.client.log_batch(
            self.run("texts", UNICODE),
            params=[Param(key, text) for key, text in texts.HARD.items()],
            tags=[RunTag(key, text) for key, text in texts.HARD.items()],
        )

    def fill_datasets(self) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        iris = Dataset(
            name="iris",
            digest="0a1b2c3d",
            source_type="http",
            source='{"url": "https://example.org/iris.csv"}',
            schema='{"mlflow_colspec": []}',
            profile='{"num_rows": 150}',
        )
        source = json.dumps({"uri": "C:\\data\\x"})
        local = Dataset(name="große Daten 🧪", digest="ffffffff", source_type="local", source=source)
        context = [InputTag("mlflow.data.context", "training")]
        self.client.log_inputs(self.runs["run 0"], [DatasetInput(iris, context), DatasetInput(local, [])])
        self.client.log_inputs(self.runs["run 2"], [DatasetInput(iris, context)])
        self.client.log_inputs(self.runs["run 3"], [DatasetInput(local, context)])

    def fill_logged_models(self) -> None:
        from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Metric

        for number, experiment in enumerate(("training", UNICODE, "training")):
            model = self.client.create_logged_model(
                self.experiments[experiment],
                name=f"model-{number}",
                source_run_id=self.runs["run 0"] if number == 0 else None,
                model_type="Agent" if number else "",
                tags={"number": str(number), "note": texts.HARD["scripts"]},
                params={"alpha": str(number / 3)},
            )
            self.models[str(number)] = model.model_id
        self.client.finalize_logged_model(self.models["0"], LoggedModelStatus.READY)
        self.client.finalize_logged_model(self.models["1"], LoggedModelStatus.FAILED)
        run = self.runs["run 0"]
        self.client.log_outputs(run, [LoggedModelOutput(self.models["0"], 3)])
        self.client.log_batch(
            run,
            metrics=[
                Metric("score", value, START + step, step, model_id=self.models["0"], run_id=run)
                for step, value in enumerate((0.25, 1 / 3, math.inf, -math.inf))
            ],
        )

    def fill_registry(self) -> None:
        client = self.client
        client.create_registered_model("churn", tags={"owner": "ada"}, description="who leaves\n\nand \\N")
        client.create_registered_model("modèle 数")
        client.create_registered_model("no versions")
        for number in range(3):
            run = self.runs[f"run {number}"]
            source = client.get_run(run).info.artifact_uri + "/model"
            client.create_model_version(
                "churn", source, run_id=run, tags={"number": str(number)}, description=f"version {number + 1}"
            )
        client.create_model_version("churn", f"models:/{self.models['0']}", model_id=self.models["0"])
        client.create_model_version("modèle 数", "s3://bucket/no run/模型")
        client.transition_model_version_stage("churn", "1", "Production")
        for alias, number in (("champion", "2"), ("challenger", "3"), ("Champion", "1")):
            client.set_registered_model_alias("churn", alias, number)

    def trace(self, key: str, experiment: str, *, hour: int, status: str = "OK", **tags: str) -> str:
        """A trace of a root with two spans below, at given times."""
        begin = START * 1_000_000 + hour * HOUR * 1_000_000
        root = self.mlflow.start_span_no_context(
            f"trace {key}",
            span_type="CHAIN",
            inputs={"question": texts.HARD["scripts"]},
            tags=tags,
            experiment_id=self.experiments[experiment],
            start_time_ns=begin,
        )
        for place in range(2):
            span = self.mlflow.start_span_no_context(
                f"step {place}", span_type="LLM", parent_span=root, start_time_ns=begin + place * SECOND_NS
            )
            span.set_attributes({"place": place, "share": 1 / (place + 3)})
            span.end(outputs={"answer": place}, end_time_ns=begin + (place + 1) * SECOND_NS)
        root.end(outputs={"answer": 42}, status=status, end_time_ns=begin + 5 * SECOND_NS)
        self.traces[key] = root.trace_id
        return root.trace_id

    def fill_traces(self) -> None:
        from mlflow.entities import AssessmentSource

        for number in range(4):
            experiment = ("training", UNICODE, "training", "deleted with runs")[number]
            self.trace(f"{number}", experiment, hour=number, status=("OK", "ERROR")[number % 2], team="red")
        human = AssessmentSource(source_type="HUMAN", source_id="ada@example.org")
        first = self.traces["0"]
        values = {"bool": True, "float": 0.1, "text": texts.HARD["scripts"], "dict": {"b": [1, None]}}
        for name, value in values.items():
            self.mlflow.log_feedback(trace_id=first, name=name, value=value, source=human, rationale="since\n\\N")
        self.mlflow.log_expectation(trace_id=self.traces["1"], name="answer", value="42", source=human)

    def fill_prompts(self) -> None:
        """The first prompt belongs to two experiments, the second to one."""
        ids = [self.experiments[name] for name in ("training", UNICODE)]
        self.mlflow.set_experiment(experiment_id=ids[0])
        for number, template in enumerate(("Hello {{name}}", "Say: {{words}}\n" + texts.HARD["scripts"])):
            self.client.register_prompt("greeting", template, commit_message=f"change {number}")
        self.client.set_prompt_alias("greeting", "production", 1)
        self.belongs("greeting", ids[:1])
        self.mlflow.set_experiment(experiment_id=ids[1])
        self.client.register_prompt("chat", [{"role": "user", "content": "{{q}}"}])
        self.belongs("chat", ids[1:])
        # MLflow adds the second id where a prompt is loaded, in the background; this is what it writes.
        self.client.set_prompt_tag("greeting", "_mlflow_experiment_ids", f",{ids[0]},{ids[1]},")

    def belongs(self, prompt: str, ids: list[str]) -> None:
        """Waits for the tag that MLflow sets in the background."""
        end = time.monotonic() + SECONDS / 4
        while not set(ids) <= set(self.client.get_prompt(prompt).tags.get("_mlflow_experiment_ids", "").split(",")):
            if time.monotonic() > end:
                raise SystemExit(f"filestore: prompt {prompt} never got its experiments")
            time.sleep(0.05)

    def delete_some(self) -> None:
        self.client.delete_run(self.run("deleted run", "training"))
        self.client.delete_experiment(self.experiments["deleted with runs"])


def migrate(folder: Path, out: Path) -> None:
    """MLflow's own tool, as a person calls it."""
    tool = Path(sys.executable).with_name("mlflow")
    done = subprocess.run(
        [sys.executable, str(tool), "migrate-filestore", "--source", str(folder), "--target", f"sqlite:///{out}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=SECONDS,
    )
    if done.returncode != 0:
        raise SystemExit(f"filestore: migrate-filestore ended with {done.returncode}: {done.stdout.decode()}")


def described(out: Path) -> dict:
    """The rows of what is not empty, and how the file was left; nothing is left beside it."""
    if any(out.with_name(out.name + end).exists() for end in ("-wal", "-journal")):
        raise SystemExit(f"filestore: migrate-filestore left {out} unfinished")
    with contextlib.closing(sqlite3.connect(f"file:{out}?immutable=1", uri=True)) as store:
        tables = [name for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1")]
        rows = {name: store.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in tables}
        revision = store.execute("SELECT version_num FROM alembic_version").fetchone()[0]
    journal = {1: "delete", 2: "wal"}[out.read_bytes()[18]]
    filled = {name: count for name, count in rows.items() if count}
    return {"revision": revision, "journal": journal, "rows": filled}


def main() -> None:
    parser = argparse.ArgumentParser(description="a file store, migrated to SQLite by MLflow")
    parser.add_argument("--folder", required=True, type=Path, help="gets the folder mlruns, which must not be there")
    parser.add_argument("--out", required=True, type=Path, help="the SQLite file, which must not be there")
    parser.add_argument("--no-migration", action="store_true", help="stop with the file store")
    options = parser.parse_args()
    folder, out = options.folder.resolve(), options.out.resolve()
    mlruns = folder / "mlruns"
    for path in (mlruns, out):
        if path.exists():
            raise SystemExit(f"filestore: {path} is there already")
    mlruns.parent.mkdir(parents=True, exist_ok=True)
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    os.environ.clear()
    os.environ.update(kept | SETTINGS)
    os.chdir(folder)  # MLflow leaves files where it works
    started = time.monotonic()
    store = FileStore(mlruns.as_uri())
    store.fill()
    if any(int(number) <= INT4 for number in store.experiments.values() if number != "0"):
        raise SystemExit(f"filestore: ids that fit an integer: {store.experiments}")
    report = {"mlruns": str(mlruns), "experiments": store.experiments, "traces": len(store.traces)}
    if not options.no_migration:
        migrate(folder, out)
        report |= {"sqlite": str(out), **described(out)}
    print(json.dumps(report | {"seconds": round(time.monotonic() - started, 1)}, ensure_ascii=False))


if __name__ == "__main__":
    main()
