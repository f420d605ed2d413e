#!/usr/bin/env python3
"""Whether a store holds one moment of the run that `writer.py` wrote.

    python3 consistency.py --store FILE --run ID [--at-least N] [--at-most N]
    ENV/bin/python consistency.py --store postgresql://... --run ID ...

FILE is SQLite, of a copy or of a server that runs: it is only read, and read in one transaction. ENV is any of the
MLflow environments, for psycopg2.

At one moment the steps of metric a are 1 to m without a gap, each with its own number as value and timestamp; those of
b are the same (none, if the writer wrote single metrics); latest_metrics tells m for each. m is 0 where the run is not
there, or nothing of it is yet. --at-least is what the writer had been told is written when the copy began.

Prints one JSON object: m as "steps", and what is wrong. Exit code 0 if nothing is, else 1; a store that cannot be read
is told on stderr alone.
"""

import argparse
import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

START = 1_700_000_000_000
SHOWN = 5
Rows = Callable[[str], list[tuple]]

RUN = """
SELECT t.value FROM runs r LEFT JOIN tags t ON t.run_uuid = r.run_uuid AND t.key = 'writer' WHERE r.run_uuid = {}
"""
METRICS = "SELECT key, step, value, timestamp, is_nan FROM {} WHERE run_uuid = {} ORDER BY key, step, timestamp, value"


@contextlib.contextmanager
def opened(store: str, run: str) -> Iterator[Rows]:
    """A way to ask, in a transaction that sees one moment; `{}` in a question stands for the run."""
    if store.startswith(("postgresql", "postgres:")):
        import psycopg2

        scheme, rest = store.split(":", 1)
        with contextlib.closing(psycopg2.connect(f"{scheme.split('+')[0]}:{rest}")) as connection:
            connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
            cursor = connection.cursor()

            def ask(question: str) -> list[tuple]:
                cursor.execute(question, (run,))
                return cursor.fetchall()

            yield lambda question: ask(question.format("%s"))
        return
    path = Path(store.removeprefix("sqlite:///")).resolve(strict=True)
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        yield lambda question: connection.execute(question.format("?"), (run,)).fetchall()


def series(key: str, rows: list[tuple]) -> Iterator[str]:
    """What is wrong with one metric's rows, which are in the order of their steps."""
    steps = [row[0] for row in rows]
    if steps != list(range(1, len(steps) + 1)):
        missing = sorted(set(range(1, max(steps) + 1)) - set(steps))
        double = len(steps) - len(set(steps))
        yield f"{key}: {len(steps)} rows, {double} of them double; missing are {len(missing)}: {missing[:SHOWN]}"
    wrong = [row for row in rows if (row[1], row[2], bool(row[3])) != (row[0], START + row[0], False)]
    if wrong:
        yield f"{key}: {len(wrong)} rows with another value or time: {wrong[:SHOWN]}"


def problems(ask: Rows) -> tuple[int, list[str]]:
    """The last step and what is wrong."""
    runs = ask(RUN)
    metrics, latest = (
        {key: [row[1:] for row in rows if row[0] == key] for key in sorted({row[0] for row in rows} | {"a", "b"})}
        for rows in (ask(METRICS.format(table, "{}")) for table in ("metrics", "latest_metrics"))
    )
    found = [problem for key, rows in metrics.items() for problem in series(key, rows)]
    last = max((row[0] for rows in metrics.values() for row in rows), default=0)
    if not runs and (last or any(latest.values())):
        found.append("metrics without their run")
    if runs and runs[0][0] not in ("pairs", "single"):
        found.append(f"the run is not the writer's: its tag is {runs[0][0]!r}")
    written = ["a"] if runs and runs[0][0] == "single" else ["a", "b"]
    for key in metrics.keys() | latest.keys():
        steps = {row[0] for row in metrics.get(key, [])}
        wanted = {row[0] for row in metrics["a"]} if key in written else set()
        if steps != wanted:
            found.append(f"{key} and a differ in {len(steps ^ wanted)} steps: {sorted(steps ^ wanted)[:SHOWN]}")
        told = [tuple(row[:3]) for row in latest.get(key, [])]
        newest = [(max(steps), float(max(steps)), START + max(steps))] if steps else []
        if told != newest:
            found.append(f"latest_metrics tells {told} of {key} where the newest is {newest}")
    return last, sorted(found)


def main() -> None:
    parser = argparse.ArgumentParser(description="check the moment of writer.py's run in a store")
    parser.add_argument("--store", required=True, help="SQLite file or address, or PostgreSQL address")
    parser.add_argument("--run", required=True)
    parser.add_argument("--at-least", type=int, default=0, metavar="STEPS")
    parser.add_argument("--at-most", type=int, metavar="STEPS")
    options = parser.parse_args()
    try:
        with opened(options.store, options.run) as ask:
            last, found = problems(ask)
    except (sqlite3.Error, OSError) as error:
        raise SystemExit(f"consistency: {options.store}: {error}") from None
    if last < options.at_least or (options.at_most is not None and last > options.at_most):
        found.append(f"{last} steps; there should be {options.at_least} to {options.at_most or 'any number'}")
    print(json.dumps({"steps": last, "problems": found}))
    raise SystemExit(1 if found else 0)


if __name__ == "__main__":
    main()
