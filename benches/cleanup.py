#!/usr/bin/env python3
"""`mlops cleanup purge` side by side with hand-written SQL and with `mlflow gc`, on the same data, in one run.

    python3 benches/cleanup.py [--metrics N] [--runs N] [--gc-runs N] [--rounds N] [--postgres-bin DIR] [--mlflow PYTHON]

Rows: a sample store of so many runs and metric rows (2,000 and 1 million), all runs deleted, in SQLite and in a private
PostgreSQL (socket only, collation C). `mlops cleanup purge --artifacts none` beside set-based DELETEs of the same rows in
one transaction, written by somebody who knows the schema: `sqlite3` and `psql`. SQLite's file is a fresh copy each time,
PostgreSQL's database one of a template.

`mlflow gc`: a smaller store (500 runs, 250,000 metric rows), and with --artifacts 4 files a run in a folder. Left out
without --mlflow, the Python of an environment with MLflow 3.17.

The tools take turns, best time of the rounds each; nothing is flushed by the bench. What is left is the same afterwards:
the bench counts the rows of every table. Prints a table in Markdown. Needs the release build (cargo build --release),
sqlite3, PostgreSQL's programs and no root.
"""

import argparse
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from migrate import ROOT, Cluster, timed

PROGRAM = ROOT / "target/release/mlops"
CHILDREN = (("metrics", "run_uuid"), ("latest_metrics", "run_uuid"), ("params", "run_uuid"), ("tags", "run_uuid"),
            ("logged_model_metrics", "run_id"))
DELETED = """
UPDATE runs SET lifecycle_stage = 'deleted', deleted_time = 1000;
DELETE FROM tags WHERE key = 'mlops.keep';
UPDATE model_versions SET current_stage = 'Deleted_Internal', run_id = 'REDACTED-RUN-ID';
UPDATE logged_models SET lifecycle_stage = 'active';
UPDATE experiments SET lifecycle_stage = 'active';
"""


def by_hand() -> str:
    """Children first, each table once."""
    gone = "(SELECT run_uuid FROM runs WHERE lifecycle_stage = 'deleted')"
    linked = f"destination_id IN {gone} OR source_id IN {gone}"
    lines = [f"DELETE FROM input_tags WHERE input_uuid IN (SELECT input_uuid FROM inputs WHERE {linked})",
             f"DELETE FROM inputs WHERE {linked}",
             f"DELETE FROM entity_associations WHERE {linked}",
             f"UPDATE issues SET source_run_id = NULL WHERE source_run_id IN {gone}",
             *(f"DELETE FROM {table} WHERE {column} IN {gone}" for table, column in CHILDREN),
             "DELETE FROM runs WHERE lifecycle_stage = 'deleted'"]
    return ";\n".join(["BEGIN", *lines, "COMMIT"]) + ";\n"


def ran(*command: str | Path, text: str | None = None, **more: object) -> float:
    def work() -> None:
        done = subprocess.run(command, input=text, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                              check=False, **more)
        if done.returncode:
            sys.exit(f"{command[0]} failed with {done.returncode}: {done.stderr}")
    return timed(work)


def purge(store: str | Path, *more: str | Path) -> float:
    return ran(PROGRAM, "cleanup", "purge", "-q", "--yes", "--older-than", "0s", "--backend-store-uri", store, *more)


def sample(store: Path, metrics: int, runs: int) -> None:
    subprocess.run([PROGRAM, "demo", "--only-sample", "-q", "--file", store, "--metrics", str(metrics),
                    "--runs", str(runs)], check=True, stdout=subprocess.DEVNULL)
    connection = sqlite3.connect(store)
    connection.executescript(DELETED)
    connection.close()


def left(store: Path) -> list[tuple[str, int]]:
    connection = sqlite3.connect(store)
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1")]
    found = [(table, connection.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0]) for table in tables]
    connection.close()
    return found


def left_in(cluster: Cluster, database: str) -> str:
    tables = "SELECT string_agg(format('SELECT %L, count(*) FROM %I', relname, relname), ' UNION ALL ' ORDER BY relname)"
    ask = [cluster.programs / "psql", "-At", "-h", cluster.folder, "-U", "bench", "-d", database, "-c"]
    question = subprocess.run([*ask, f"{tables} FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"],
                              check=True, capture_output=True, text=True).stdout.strip()
    return subprocess.run([*ask, question], check=True, capture_output=True, text=True).stdout


def same(ours: object, others: object, who: str) -> None:
    if ours != others:
        sys.exit(f"{who} left other rows than mlops:\n{others}\n{ours}")


class Turn:
    """Two tools at one job, in turns; the first is ours."""

    def __init__(self, name: str, ours: Callable[[], float], peer: str, others: Callable[[], float]) -> None:
        self.name, self.peer, self.work = name, peer, (ours, others)
        self.took: tuple[list[float], list[float]] = ([], [])

    def run(self, rounds: int) -> "Turn":
        for _ in range(rounds):
            for took, work in zip(self.took, self.work):
                took.append(work())
                print(f"  {self.name}: {took[-1]:.2f} s", file=sys.stderr, flush=True)
        return self

    def line(self, runs: int) -> str:
        ours, others = (min(took) for took in self.took)
        return (f"| {self.name} | {ours:.2f} | {runs / ours:,.0f} | {self.peer} | {others:.2f} | {runs / others:,.0f} "
                f"| {ours / others:.2f} |")


def copied(store: Path, to: Path) -> Path:
    for path in (to, Path(f"{to}-journal"), Path(f"{to}-wal")):
        path.unlink(missing_ok=True)
    shutil.copyfile(store, to)
    with to.open("rb") as file:
        os.fsync(file.fileno())
    return to


class Bench:
    def __init__(self, folder: Path, cluster: Cluster) -> None:
        self.folder, self.cluster = folder, cluster

    def template(self, store: Path) -> None:
        url = self.cluster.empty("template_runs")
        subprocess.run([PROGRAM, "migrate", "sqlite-to-pg", "-q", "--source", store, "--target", url], check=True,
                       stdout=subprocess.DEVNULL)
        self.cluster.psql("template_runs", "VACUUM ANALYZE; CHECKPOINT;")

    def fresh(self, database: str) -> str:
        self.cluster.psql("postgres", f"DROP DATABASE IF EXISTS {database};")
        self.cluster.psql("postgres", f"CREATE DATABASE {database} TEMPLATE template_runs;")
        self.cluster.psql("postgres", "CHECKPOINT;")
        return f"postgresql://bench@/{database}?host={self.cluster.folder}"

    def rows(self, metrics: int, runs: int, rounds: int) -> list[str]:
        store, ours, others = (self.folder / f"{name}.db" for name in ("store", "ours", "others"))
        sample(store, metrics, runs)
        self.template(store)
        rows = ("--artifacts", "none")
        psql = (self.cluster.programs / "psql", "-q", "-v", "ON_ERROR_STOP=1", "-h", self.cluster.folder, "-U", "bench")

        def ours_on_postgres() -> float:
            url = self.fresh("ours")
            return purge(url, *rows)

        def hand_on_postgres() -> float:
            self.fresh("others")
            return ran(*psql, "-d", "others", text=by_hand())

        def ours_on_sqlite() -> float:
            copied(store, ours)
            return purge(ours, *rows)

        def hand_on_sqlite() -> float:
            copied(store, others)
            return ran("sqlite3", others, text="PRAGMA foreign_keys = ON;\n" + by_hand())

        on_sqlite = Turn("rows, SQLite", ours_on_sqlite, "`sqlite3`, by hand", hand_on_sqlite).run(rounds)
        same(left(ours), left(others), "sqlite3")
        on_postgres = Turn("rows, PostgreSQL", ours_on_postgres, "`psql`, by hand", hand_on_postgres).run(rounds)
        same(left_in(self.cluster, "ours"), left_in(self.cluster, "others"), "psql")
        return [on_sqlite.line(runs), on_postgres.line(runs)]

    def gc(self, python: Path, runs: int, rounds: int) -> list[str]:
        store, ours, others = (self.folder / f"{name}.db" for name in ("small", "ours", "others"))
        sample(store, runs * 500, runs)
        self.template(store)
        lines = []
        for artifacts in (False, True):
            word = "rows and artifacts" if artifacts else "rows"
            root = self.folder / "root"

            def filled() -> None:
                shutil.rmtree(root, ignore_errors=True)
                connection = sqlite3.connect(store)
                addresses = [address for (address,) in connection.execute("SELECT artifact_uri FROM runs")]
                connection.close()
                for address in addresses:
                    place = root / address.removeprefix("mlflow-artifacts:/")
                    # `mlflow gc` stops at the first folder that is not there.
                    (place / "model").mkdir(parents=True)
                    for name in ("model/MLmodel", "model/weights.bin", "plot.png", "log.txt") if artifacts else ():
                        (place / name).write_bytes(b"x" * 2_000)

            # `mlflow gc` reaches no proxy without a server: addresses are the folder's own.
            addressed = f"UPDATE runs SET artifact_uri = replace(artifact_uri, 'mlflow-artifacts:', '{root}');"

            def prepared(url: str | Path) -> str | Path:
                filled()
                if isinstance(url, Path):
                    connection = sqlite3.connect(url)
                    connection.executescript(addressed)
                    connection.close()
                else:
                    self.cluster.psql(url.split("?")[0].rsplit("/", 1)[1], addressed)
                return url

            def mlflow(uri: str) -> float:
                own = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_TRACKING_URI": uri}
                return ran(python, "-m", "mlflow", "gc", "--backend-store-uri", uri, env=own)

            which = () if artifacts else ("--artifacts", "none")
            for name, mine, theirs in (
                ("SQLite", lambda: prepared(copied(store, ours)), lambda: f"sqlite:///{prepared(copied(store, others))}"),
                ("PostgreSQL", lambda: prepared(self.fresh("ours")),
                 lambda: prepared(self.fresh("others")).replace("postgresql://", "postgresql+psycopg2://")),
            ):
                def our_turn(mine: Callable[[], str | Path] = mine) -> float:
                    address = mine()
                    return purge(address, *which)

                def their_turn(theirs: Callable[[], str] = theirs) -> float:
                    uri = theirs()
                    return mlflow(uri)

                lines.append(Turn(f"{word}, {name}", our_turn, "`mlflow gc`", their_turn).run(rounds).line(runs))
        return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--metrics", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=2_000)
    parser.add_argument("--gc-runs", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--postgres-bin", type=Path, default=Path("/usr/lib/postgresql/15/bin"))
    parser.add_argument("--mlflow", type=Path, help="the Python of an environment with MLflow")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mlops-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        os.environ["XDG_STATE_HOME"] = str(folder / "state")
        server = folder / "server"
        server.mkdir()
        cluster = Cluster(options.postgres_bin, server)
        try:
            bench = Bench(folder, cluster)
            lines = bench.rows(options.metrics, options.runs, options.rounds) if options.metrics else []
            if options.mlflow:
                lines += bench.gc(options.mlflow, options.gc_runs, 1)
        finally:
            cluster.stop()
    print("| what | s | runs/s | beside | s | runs/s | ratio |\n" + "|---" * 7 + "|", *lines, sep="\n")
    print(f"\nBest of {options.rounds}; `mlflow gc` once.")


if __name__ == "__main__":
    main()
