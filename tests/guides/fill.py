#!/usr/bin/env python3
"""A small stack as teams have them, over REST: experiments with runs, files and a registered model.

    python3 fill.py URL ARTIFACTS

ARTIFACTS is the folder behind the server's proxy, or its own root. Leaves the challenger's run in run_id.txt. Only the standard library is used.
"""

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "mlflow"))
from rest import Server  # noqa: E402

DAY = 86_400_000
NOW = int(time.time() * 1000)
MLMODEL = """artifact_path: model
flavors:
  python_function:
    loader_module: mlflow.pyfunc.model
    python_version: 3.11.7
run_id: {run}
signature:
  inputs: '[{{"type": "double", "name": "temp", "required": true}}]'
  outputs: '[{{"type": "tensor", "tensor-spec": {{"dtype": "float32", "shape": [-1, 24]}}}}]'
utc_time_created: '2026-11-21 19:18:52.518497'
"""


class Stack:
    def __init__(self, url: str, artifacts: str):
        self.server = Server(url)
        self.artifacts = artifacts

    def post(self, path: str, **body):
        return self.server.post(f"/api/2.0/mlflow/{path}", **body)

    def experiment(self, name: str) -> str:
        return self.post("experiments/create", name=name)["experiment_id"]

    def run(self, experiment: str, name: str, days: float, status: str = "FINISHED", **metrics: float) -> dict:
        """A run of so many days ago, with a file."""
        start = NOW - int(days * DAY)
        run = self.post("runs/create", experiment_id=experiment, start_time=start, run_name=name)["run"]["info"]
        points = [
            {"key": key, "value": value + (4 - step) / 8, "timestamp": start + step, "step": step}
            for key, value in metrics.items()
            for step in range(5)
        ]
        params = [{"key": "depth", "value": "7"}]
        self.post("runs/log-batch", run_id=run["run_id"], metrics=points, params=params)
        self.file(run, "notes.txt", f"{name}\n")
        self.post("runs/update", run_id=run["run_id"], status=status, end_time=start + 60_000)
        return run

    def file(self, run: dict, path: str, text: str) -> None:
        file = Path(run["artifact_uri"].replace("mlflow-artifacts:", self.artifacts).removeprefix("file://")) / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def version(self, model: str, run: dict, stage: str) -> None:
        self.file(run, "model/MLmodel", MLMODEL.format(run=run["run_id"]))
        self.file(run, "model/weights.json", json.dumps(list(range(100))))
        source = run["artifact_uri"] + "/model"
        made = self.post("model-versions/create", name=model, source=source, run_id=run["run_id"])
        number = made["model_version"]["version"]
        self.post("model-versions/transition-stage", name=model, version=number, stage=stage)


def main() -> None:
    stack = Stack(sys.argv[1], sys.argv[2])
    forecast, scratch = stack.experiment("forecast-demand"), stack.experiment("scratch-ann")
    stack.post("registered-models/create", name="energy")
    champion = stack.run(forecast, "champion", 40, rmse=2.5, r2=0.88)
    challenger = stack.run(forecast, "challenger", 1, rmse=2.1, r2=0.91)
    stack.version("energy", champion, "Production")
    stack.version("energy", challenger, "Staging")
    Path("run_id.txt").write_text(challenger["run_id"])
    for number in range(4):
        stack.run(forecast, f"train-{number}", 100 + number, rmse=3.0 + number, r2=0.7)
    stack.run(forecast, "broken", 120, status="FAILED", rmse=9.0)
    stack.run(scratch, "try", 200, rmse=5.0)


if __name__ == "__main__":
    main()
