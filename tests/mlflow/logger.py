#!/usr/bin/env python3
"""A trainer that logs files one after another to a running server, so that a backup made meanwhile can be checked.

    ENV/bin/python logger.py --tracking-uri URL --experiment NAME --ready-file FILE [--object-store FILE]

Through the client of the release that this Python has, as `fill_artifacts.py`. File n = 0, 1, 2, ... is `part-n.txt`
with the line "part n" 500 times. FILE gets the run's id as soon as the first three are logged. Ends when its stdin is
closed, and prints one JSON object: the run, the files that were logged, the attempts that failed and the first reasons.
"""

import argparse
import json
import os
import select
import tempfile
from pathlib import Path

import surroundings

FIRST = 3
KEPT_ERRORS = 20
MOST = 100_000


def is_over() -> bool:
    readable, _, _ = select.select([0], [], [], 0)
    return bool(readable) and not os.read(0, 4096)


def main() -> None:
    parser = argparse.ArgumentParser(description="log files to an MLflow server until stdin is closed")
    parser.add_argument("--tracking-uri", required=True)
    parser.add_argument("--experiment", required=True, help="made if it is not there")
    parser.add_argument("--ready-file", required=True, type=Path)
    parser.add_argument("--object-store", metavar="FILE")
    options = parser.parse_args()
    surroundings.clean(options.tracking_uri, options.object_store)
    import mlflow

    surroundings.quiet()
    client = mlflow.MlflowClient()
    found = client.get_experiment_by_name(options.experiment)
    experiment = found.experiment_id if found else client.create_experiment(options.experiment)
    run = client.create_run(experiment, run_name="files").info.run_id
    logged, failed, errors = 0, 0, []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(MOST):
            if is_over():
                break
            file = Path(folder) / f"part-{number}.txt"
            file.write_text(f"part {number}\n" * 500)
            try:
                client.log_artifact(run, str(file), "parts")
                logged += 1
            except Exception as error:
                failed += 1
                errors = [*errors, f"{type(error).__name__}: {error}"][:KEPT_ERRORS]
            file.unlink()
            if number + 1 == FIRST:
                unfinished = options.ready_file.with_name(options.ready_file.name + ".new")
                unfinished.write_text(run)
                unfinished.rename(options.ready_file)
    print(json.dumps({"run": run, "written": logged, "failed": failed, "errors": errors}))


if __name__ == "__main__":
    main()
