#!/usr/bin/env python3
"""A full `mlops health` beside the same questions asked by curl and by MLflow's own client, in one run.

    python3 benches/health.py [--experiments N] [--runs N] [--metrics N] [--rounds N]

Makes a sample store, starts a real MLflow 3.17.2 server on it (one worker, loopback) with the help of tests/mlflow, and
takes the best of the rounds each:

  mlops   `mlops health` with server, database and artifacts: wall time, its own processor time, peak memory, requests
  curl    one process per question, one after the other, as a cron script has it: nothing is judged
  client  a Python process with MLflow's own client that asks the same

Prints a table in Markdown. Needs the release build (cargo build --release), curl and Python 3.11.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CLIENT = """
import sys
from mlflow import MlflowClient
from mlflow.entities import ViewType
client = MlflowClient(sys.argv[1])
experiments = client.search_experiments(max_results=100)
ids = [e.experiment_id for e in experiments]
runs = client.search_runs(ids[:20], max_results=10)
run = next(r for r in runs if r.data.metrics)
client.get_metric_history(run.info.run_id, next(iter(run.data.metrics)))
client.search_runs(ids, run_view_type=ViewType.DELETED_ONLY, max_results=1000)
client.search_experiments(view_type=ViewType.DELETED_ONLY, max_results=1000)
client.search_model_versions(max_results=5000)
"""


def measured(command: list, rounds: int, **more) -> tuple[float, float, int]:
    """Best wall seconds, processor seconds of that round, and the peak memory of all in MiB."""
    best, own, peak = float("inf"), 0.0, 0
    for _ in range(rounds):
        begun = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, **more)
        _, status, usage = os.wait4(process.pid, 0)
        took = time.monotonic() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            sys.exit(f"{command[0]} ended with {process.returncode}")
        if took < best:
            best, own = took, usage.ru_utime + usage.ru_stime
        peak = max(peak, usage.ru_maxrss // 1024)
    return best, own, peak


def questions(url: str) -> str:
    """The questions as a shell script of curl calls."""

    def post(call: str, body: dict) -> str:
        text = json.dumps(body)
        return f"curl -fsS -o /dev/null -H 'Content-Type: application/json' -d '{text}' {url}/api/2.0/mlflow/{call}"

    def asked(call: str, body: dict) -> dict:
        request = urllib.request.Request(f"{url}/api/2.0/mlflow/{call}", json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    experiments = asked("experiments/search", {"max_results": 100})["experiments"]
    ids = [e["experiment_id"] for e in experiments]
    runs = asked("runs/search", {"experiment_ids": ids[:20], "max_results": 10})["runs"]
    run = next(r for r in runs if r["data"].get("metrics"))
    history = f"run_id={run['info']['run_id']}&metric_key={run['data']['metrics'][0]['key']}&max_results=1000"
    return "\n".join([
        f"curl -fsS -o /dev/null {url}/health",
        f"curl -fsS -o /dev/null {url}/version",
        post("experiments/search", {"max_results": 100}),
        post("runs/search", {"experiment_ids": ids[:20], "max_results": 10}),
        f"curl -fsS -o /dev/null -G '{url}/api/2.0/mlflow/metrics/get-history?{history}'",
        post("runs/search", {"experiment_ids": ids, "run_view_type": "DELETED_ONLY", "max_results": 1000}),
        post("experiments/search", {"view_type": "DELETED_ONLY", "max_results": 1000}),
        f"curl -fsS -o /dev/null '{url}/api/2.0/mlflow/model-versions/search?max_results=5000'",
    ])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=100)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--metrics", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    mlops = ROOT / "target/release/mlops"
    environments = [sys.executable, ROOT / "tests/mlflow/environments.py", "mlflow-3.17.2"]
    python = Path(subprocess.run(environments, check=True, capture_output=True, text=True).stdout.strip()) / "bin/python"
    with tempfile.TemporaryDirectory(prefix="mlops-bench-") as name:
        folder = Path(name)
        store, artifacts, ready, log = (folder / n for n in ("mlflow.db", "artifacts", "ready", "server.log"))
        artifacts.mkdir()
        subprocess.run([mlops, "demo", "--only-sample", "-q", "--experiments", str(arguments.experiments), "--runs",
                        str(arguments.runs), "--metrics", str(arguments.metrics), "--file", store],
                       check=True, stdout=subprocess.DEVNULL)
        server = subprocess.Popen([python, ROOT / "tests/mlflow/server.py", "--backend-store-uri", f"sqlite:///{store}",
                                   "--artifact-root", artifacts, "--ready-file", ready, "--log", log],
                                  stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        try:
            while not ready.exists():
                if server.poll() is not None:
                    sys.exit(f"the server ended: {log.read_text()}")
                time.sleep(0.1)
            url = ready.read_text().strip()
            health = [mlops, "health", "--tracking-uri", url, "--backend-store-uri", store, "--artifact-root", artifacts,
                      # The sample has versions without files, and lies in a temporary folder.
                      "--skip", "artifacts.versions", "--skip", "database.path", "--state-dir", folder / "state"]
            client = folder / "client.py"
            client.write_text(CLIENT)
            subprocess.run(health, check=True, stdout=subprocess.DEVNULL)
            rows = [
                ("`mlops health`", measured(health, arguments.rounds)),
                ("curl, 8 questions", measured(["sh", "-ec", questions(url)], arguments.rounds)),
                ("MLflow's client, 7 questions", measured([python, client, url], min(arguments.rounds, 3))),
            ]
        finally:
            server.stdin.close()
            server.wait(timeout=30)
    print(f"\n{arguments.experiments} experiments, {arguments.runs} runs, {arguments.metrics} metric rows\n")
    print("| what | wall s | ratio | own processor s | peak MiB |\n|---|---|---|---|---|")
    floor = rows[1][1][0]
    for what, (wall, own, peak) in rows:
        print(f"| {what} | {wall:.3f} | {wall / floor:.2f} | {own:.3f} | {peak} |")


if __name__ == "__main__":
    main()
