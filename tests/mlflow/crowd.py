#!/usr/bin/env python3
"""Many trainers that write straight into a backend database, by the store of the MLflow that this Python has.

    ENV/bin/python crowd.py --store URI --writers N --ready-file FILE

Each is a process with a run of its own and logs a batch of metrics, a parameter and a tag again and again. FILE is
written when each has written once. Ends when its stdin is closed, and prints one JSON object: the writes that were done,
those that failed with the first reasons, and the slowest in seconds. The store's own waiting for locks is all there is.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

import surroundings


def write(store, run: str, number: int) -> None:
    from mlflow.entities import Metric, Param, RunTag

    now = int(time.time() * 1000)
    metrics = [Metric(key, number + 0.5, now, number) for key in ("loss", "rmse", "r2")]
    store.log_batch(run, metrics, [Param(f"p{number}", "1")], [RunTag("step", str(number))])


def trainer(uri: str, experiment: str, told: int, ending: int) -> None:
    """One of them; tells a line of JSON when it has written once, and one at the end."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore(uri, "/tmp/none")
    done, failed, errors, slowest, number, run = 0, 0, [], 0.0, 0, None
    os.set_blocking(ending, False)
    while True:
        try:
            if os.read(ending, 1) == b"":
                break
        except BlockingIOError:
            pass
        begun = time.monotonic()
        try:
            if run is None:
                run = store.create_run(experiment, "crowd", begun_at(), [], "crowd").info.run_id
            write(store, run, number)
            done += 1
        except Exception as error:
            failed += 1
            errors = [*errors, f"{type(error).__name__}: {error}"[:300]][:3]
        slowest = max(slowest, time.monotonic() - begun)
        number += 1
        if number == 1:
            os.write(told, b'{"first": true}\n')
        time.sleep(0.05)
    os.write(told, (json.dumps({"done": done, "failed": failed, "errors": errors, "slowest": slowest}) + "\n").encode())
    os._exit(0)


def begun_at() -> int:
    return int(time.time() * 1000)


def main() -> None:
    parser = argparse.ArgumentParser(description="many writers on a backend database")
    parser.add_argument("--store", required=True)
    parser.add_argument("--experiment", default="1")
    parser.add_argument("--writers", type=int, default=20)
    parser.add_argument("--ready-file", required=True, type=Path)
    options = parser.parse_args()
    surroundings.clean(options.store)
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401

    surroundings.quiet()
    ending, holding = os.pipe()
    reading, told = os.pipe()
    for _ in range(options.writers):
        if os.fork() == 0:
            os.close(holding)
            os.close(reading)
            trainer(options.store, options.experiment, told, ending)
    os.close(told)
    lines = os.fdopen(reading)
    for _ in range(options.writers):
        assert json.loads(lines.readline())["first"]
    options.ready_file.write_text("ready")
    sys.stdin.read()
    os.close(holding)
    ends = [json.loads(line) for line in lines]
    assert len(ends) == options.writers, ends
    print(json.dumps({
        "done": sum(end["done"] for end in ends),
        "failed": sum(end["failed"] for end in ends),
        "errors": [error for end in ends for error in end["errors"]][:5],
        "slowest": max(end["slowest"] for end in ends),
    }))


if __name__ == "__main__":
    main()
