#!/usr/bin/env python3
"""`mlops verify concurrency` beside threads with MLflow's own client that write the same, in one run.

    python3 benches/verify.py [--writers N] [--runs N] [--metrics N] [--store URI]

Starts a real MLflow 3.17.2 server (one worker, loopback, a pool of 85 connections) with the help of tests/mlflow, on a new
SQLite file or on the database of --store, and lets both write to it, one after the other:

  mlops   `mlops verify concurrency`: wall time with reading back, its own processor time, peak memory
  client  a Python process with one thread and one MlflowClient for each writer, that does the same calls in the same
          order; nothing is read back or compared

Prints two tables in Markdown. Needs the release build (cargo build --release) and Python 3.11.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
POOL = ["--env", "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE=40", "--env", "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW=45"]
CLIENT = """
import json, sys, threading, time
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
url, writers, runs, metrics = sys.argv[1], *map(int, sys.argv[2:])
singles, batched = (metrics + 1) // 2, metrics // 2
batches = -(-batched // 25)
times, lock = {}, threading.Lock()
made = MlflowClient(url)
name = f"bench-{time.time_ns()}"
own = [made.create_experiment(f"{name}-{w}") for w in range(writers)]
shared = made.create_experiment(f"{name}-shared")

def write(writer):
    client = MlflowClient(url)
    def timed(operation, call, *given, **more):
        begun = time.perf_counter()
        try:
            return call(*given, **more)
        finally:
            with lock:
                times.setdefault(operation, []).append((time.perf_counter() - begun) * 1e3)
    for number in range(runs):
        place = shared if number % 2 else own[writer]
        title = f"writer-{writer:03}-run-{number:05}"
        run = timed("create_run", client.create_run, place, run_name=title, tags={"mark": name}).info.run_id
        timed("log_param", client.log_param, run, "alone", title)
        step, turns = 0, max(batches, 1)
        for turn in range(turns):
            while step < singles * (turn + 1) // turns:
                timed("log_metric", client.log_metric, run, "single", float(step), timestamp=step, step=step)
                step += 1
            if turn < batches:
                steps = range(turn * 25, min((turn + 1) * 25, batched))
                points = [Metric("batched", float(s), s, s) for s in steps]
                timed("log_batch", client.log_batch, run, metrics=points, params=[Param(f"batch-{turn}", title)],
                      tags=[RunTag(f"batch-{turn}", title)])
            if turn == turns // 2:
                timed("search", client.search_runs, [place], f"attributes.run_name = '{title}'", max_results=10)
        timed("set_tag", client.set_tag, run, "alone", title)
        timed("end_run", client.set_terminated, run)

threads = [threading.Thread(target=write, args=(w,)) for w in range(writers)]
begun = time.perf_counter()
[t.start() for t in threads]
[t.join() for t in threads]
took = time.perf_counter() - begun
for experiment in [*own, shared]:
    made.delete_experiment(experiment)
def at(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]
print(json.dumps({"took": took, "operations": {
    o: [len(v), at(v, 0.5), at(v, 0.95), max(v)] for o, v in times.items()}}))
"""


def measured(command: list, **more) -> tuple[str, float, float, int]:
    """What it printed, wall seconds, processor seconds, peak memory in MiB."""
    begun = time.monotonic()
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(command, stdout=out, **more)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read()
    if process.returncode != 0:
        sys.exit(f"{command[0]} ended with {process.returncode}: {text}")
    return text, time.monotonic() - begun, usage.ru_utime + usage.ru_stime, usage.ru_maxrss // 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--writers", type=int, default=20)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--metrics", type=int, default=60)
    parser.add_argument("--store")
    options = parser.parse_args()
    made = subprocess.run(
        [sys.executable, ROOT / "tests/mlflow/environments.py", "mlflow-3.17.2"], check=True, capture_output=True, text=True
    )
    python = Path(made.stdout.strip()) / "bin/python"
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready"
        store = options.store or f"sqlite:///{folder}/mlflow.db"
        server = subprocess.Popen(
            [python, ROOT / "tests/mlflow/server.py", "--backend-store-uri", store, "--artifact-root",
             f"{folder}/artifacts", "--ready-file", ready, "--log", f"{folder}/log", *POOL],
            stdin=subprocess.PIPE,
        )  # fmt: skip
        try:
            while not ready.exists():
                if server.poll() is not None:
                    sys.exit("the server ended")
                time.sleep(0.1)
            compare(options, ready.read_text().strip(), python, folder)
        finally:
            server.stdin.close()
            server.wait()


def compare(options: argparse.Namespace, url: str, python: Path, home: str) -> None:
    amount = [str(n) for n in (options.writers, options.runs, options.metrics)]
    own = {"PATH": os.environ["PATH"], "HOME": home, "MLOPS_STATE_DIR": f"{home}/state"}
    command = [ROOT / "target/release/mlops", "verify", "concurrency", "--tracking-uri", url, "--output", "json",
               "--progress", "none", "--writers", amount[0], "--runs", amount[1], "--metrics", amount[2]]  # fmt: skip
    told, mlops_wall, mlops_own, mlops_peak = measured(command, env=own)
    result = json.loads(told)["result"]
    quiet = own | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
    told, client_wall, client_own, client_peak = measured([python, "-c", CLIENT, url, *amount], env=quiet)
    client = json.loads(told)
    wrote = next(s for s in result["steps"] if s["name"] == "write")["milliseconds"] / 1e3
    print("| | writing | all of it | processor | peak memory |\n| --- | ---: | ---: | ---: | ---: |")
    print(f"| mlops verify concurrency | {wrote:.1f} s | {mlops_wall:.1f} s | {mlops_own:.2f} s | {mlops_peak} MiB |")
    print(f"| MLflow's client | {client['took']:.1f} s | {client_wall:.1f} s | {client_own:.2f} s | {client_peak} MiB |")
    print("\n| operation | count | mlops p50 | p95 | max | client p50 | p95 | max |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for o in result["figures"]["operations"][:-1]:
        count, *theirs = client["operations"][o["operation"]]
        if count != o["count"]:
            sys.exit(f"{o['operation']}: {o['count']} against {count}")
        times = [o["p50_ms"], o["p95_ms"], o["max_ms"], *theirs]
        print(f"| {o['operation']} | {count} | " + " | ".join(f"{t:.0f} ms" for t in times) + " |")


if __name__ == "__main__":
    main()
