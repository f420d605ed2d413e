"""Dump MLflow's own schema at every revision, as the oracle of what the catalogue renders.

    PYTHON schema_dumps.py --postgres-bin DIR --socket-dir DIR --port N --user U --out DIR

On a PostgreSQL server that already runs, MLflow's migrations build its schema one revision at a time in a scratch
database, and after each `pg_dump --schema-only --no-owner` goes into OUT/<line>-<revision>.sql; the statements of
SQLite, sorted, go into OUT/<line>-<revision>.sqlite.sql. PYTHON is the same as for generate.py. The lines of pg_dump
that carry a random key, `\\restrict` and `\\unrestrict`, are taken out: compare with dumps that lack them as well.
"""

import argparse
import multiprocessing
import re
import subprocess
from pathlib import Path

from generate import Line, build_step_by_step, lines, scratch_database, scratch_sqlite, sqlite_objects

RANDOM_KEY = re.compile(r"^\\(un)?restrict .*\n", re.M)


def dump_postgres(line: Line, where: dict, programs: Path, out: Path) -> None:
    """Write the PostgreSQL dump of every revision of one line."""
    name = f"mlflow_oracle_{line.name}"
    server = ["-h", where["host"], "-p", str(where["port"]), "-U", where["user"], "-d", name]
    with scratch_database(where, name) as engine:
        for revision in build_step_by_step(line, engine):
            command = [programs / "pg_dump", "--schema-only", "--no-owner", *server]
            dump = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            (out / f"{line.name}-{revision.revision}.sql").write_text(RANDOM_KEY.sub("", dump))


def dump_sqlite(line: Line, out: Path) -> None:
    """Write the SQLite statements of every revision of one line."""
    with scratch_sqlite() as engine:
        for revision in build_step_by_step(line, engine):
            with engine.connect() as connection:
                statements = sorted(sql for *_, sql in sqlite_objects(connection))
            (out / f"{line.name}-{revision.revision}.sqlite.sql").write_text("".join(f"{sql};\n" for sql in statements))


def main() -> None:
    """Dump both lines, each engine in a process of its own: alembic keeps its state in module globals."""
    parser = argparse.ArgumentParser(description="Dump MLflow's own schema at every revision.")
    parser.add_argument("--postgres-bin", type=Path, required=True, help="the folder of PostgreSQL's programs")
    parser.add_argument("--socket-dir", required=True, help="the folder of the server's Unix socket")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--user", required=True)
    parser.add_argument("--out", type=Path, required=True, help="the folder for the dumps; made where it is missing")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    where = {"host": arguments.socket_dir, "port": arguments.port, "user": arguments.user}

    fork = multiprocessing.get_context("fork")
    tasks = []
    for line in lines():
        tasks.append(fork.Process(target=dump_postgres, args=(line, where, arguments.postgres_bin, arguments.out)))
        tasks.append(fork.Process(target=dump_sqlite, args=(line, arguments.out)))
    for task in tasks:
        task.start()
    for task in tasks:
        task.join()
    if any(task.exitcode for task in tasks):
        raise SystemExit("schema_dumps.py: a dump failed, see above")


if __name__ == "__main__":
    main()
