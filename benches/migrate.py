#!/usr/bin/env python3
"""Migration and archives side by side with what people run instead, on the same data, in one run.

    python3 benches/migrate.py [--metrics N] [--runs N] [--rounds N] [--postgres-bin DIR]

Makes a sample store, then on a private PostgreSQL (socket only, collation C), best of the rounds each:

  floor     psql \\copy of the same metric rows from a file, then their key and two indexes, one after the other:
            no other table, no verification, nothing published
  mlops     `mlops migrate sqlite-to-pg` of the whole store with verification; and its peak memory
  pgloader  its default run, where pgloader is installed
  archives  `mlops migrate export` and `import`, both with verification, beside `pg_dump -Fc` and `pg_restore -j2` of the
            same rows
  start     `mlops --version`

Prints tables in Markdown with the ratios. Needs the release build (cargo build --release) and no root.
"""

import argparse
import os
import pwd
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FLOOR = """
ALTER TABLE metrics ADD CONSTRAINT metric_pk PRIMARY KEY (key, timestamp, step, run_uuid, value, is_nan);
CREATE INDEX index_metrics_run_uuid ON metrics (run_uuid);
CREATE INDEX index_metrics_run_uuid_key_step ON metrics (run_uuid, key, step);
"""


class Cluster:
    """A private PostgreSQL; as root it runs as the user postgres."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self.programs, self.folder = programs, folder
        self.user = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
        if self.user:
            entry = pwd.getpwnam("postgres")
            os.chown(folder, entry.pw_uid, entry.pw_gid)
        data = folder / "data"
        quiet = {"stdout": subprocess.DEVNULL, "cwd": folder}
        subprocess.run([programs / "initdb", "-A", "trust", "-E", "UTF8", "--locale=C", "-U", "bench", "-D", data],
                       check=True, **quiet, **self.user)
        options = ["-c", "listen_addresses=", "-c", "max_wal_size=4GB", "-c", "shared_buffers=512MB"]
        self.server = subprocess.Popen([programs / "postgres", "-D", data, "-k", folder, *options],
                                       stderr=subprocess.DEVNULL, **quiet, **self.user)
        for _ in range(600):
            if subprocess.run([programs / "pg_isready", "-q", "-h", folder, "-U", "bench"], check=False).returncode == 0:
                return
            time.sleep(0.1)
        sys.exit("the private PostgreSQL did not start")

    def psql(self, database: str, sql: str) -> None:
        command = [self.programs / "psql", "-q", "-v", "ON_ERROR_STOP=1", "-h", self.folder, "-U", "bench", "-d", database]
        subprocess.run(command, input=sql, text=True, check=True, stdout=subprocess.DEVNULL)

    def empty(self, database: str) -> str:
        self.psql("postgres", f"DROP DATABASE IF EXISTS {database};")
        self.psql("postgres", f"CREATE DATABASE {database};")
        self.psql("postgres", "CHECKPOINT;")
        return f"postgresql://bench@/{database}?host={self.folder}"

    def stop(self) -> None:
        self.server.send_signal(signal.SIGINT)
        self.server.wait(30)


def timed(work) -> float:
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


def floor(cluster: Cluster, rows: Path) -> float:
    cluster.empty("floor")
    cluster.psql("floor", "CREATE TABLE metrics (key varchar(250) NOT NULL, value float8 NOT NULL, timestamp int8 NOT "
                          "NULL, run_uuid varchar(32) NOT NULL, step int8 NOT NULL, is_nan bool NOT NULL);")
    return timed(lambda: cluster.psql("floor", f"\\copy metrics FROM '{rows}'\n{FLOOR}"))


def measured(*command: str | Path) -> tuple[float, float]:
    """Seconds and peak memory in MB of a program that must succeed."""
    begun = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    took = time.monotonic() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command[0]} failed with {process.returncode}")
    return took, usage.ru_maxrss / 1024


def best(runs: list[tuple[float, float]]) -> tuple[float, float]:
    """The shortest time and the highest memory of several runs."""
    return min(t for t, _ in runs), max(m for _, m in runs)


def mlops(cluster: Cluster, program: Path, store: Path) -> tuple[float, float]:
    url = cluster.empty("mlops")
    return measured(program, "migrate", "sqlite-to-pg", "-q", "--source", store, "--target", url)


def archives(cluster: Cluster, program: Path, store: Path, folder: Path, rounds: int) -> list[str]:
    """Exports and imports of the store, and of the database that it was migrated into, as lines of the table."""
    url = f"postgresql://bench@/mlops?host={cluster.folder}"
    target = ("-h", cluster.folder, "-U", "bench", "-d")
    lines = []

    def row(what: str, took: tuple[float, float], peer: float, size: Path | None) -> None:
        megabytes = f"{size.stat().st_size / 1e6:.1f}" if size else ""
        lines.append(f"| {what} | {took[0]:.2f} | {took[0] / peer:.2f} | {megabytes} | {took[1]:.0f} |")

    def exported(source: str | Path, file: Path, *more: str) -> tuple[float, float]:
        file.unlink(missing_ok=True)
        return measured(program, "migrate", "export", "-q", source, "--file", file, *more)

    dump = folder / "store.dump"
    dumped = best([measured(cluster.programs / "pg_dump", *target, "mlops", "-Fc", "-f", dump) for _ in range(rounds)])
    row("`pg_dump -Fc`", dumped, dumped[0], dump)
    for name, source, more in (("SQLite", store, ()), ("PostgreSQL", url, ()), ("SQLite", store, ("--compression", "zstd"))):
        file = folder / "store.tar"
        took = best([exported(source, file, *more) for _ in range(rounds)])
        row(f"`mlops migrate export` from {name}{', zstd' if more else ', gzip'}, verified", took, dumped[0], file)
    exported(store, folder / "store.tar")

    def restored() -> tuple[float, float]:
        cluster.empty("restored")
        return measured(cluster.programs / "pg_restore", *target, "restored", "-j2", dump)

    def imported() -> tuple[float, float]:
        return measured(program, "migrate", "import", "-q", folder / "store.tar", "--target", cluster.empty("restored"))

    peer = best([restored() for _ in range(rounds)])
    row("`pg_restore -j2`", peer, peer[0], None)
    row("`mlops migrate import`, verified", best([imported() for _ in range(rounds)]), peer[0], None)
    return lines


def pgloader(cluster: Cluster, store: Path) -> float:
    cluster.empty("loader")
    target = f"postgresql://bench@unix:{cluster.folder}:5432/loader"
    command = ["pgloader", "--quiet", f"sqlite://{store}", target]
    return timed(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))


def write_rows(store: Path, rows: Path) -> None:
    """The metric rows as COPY's text."""
    connection = sqlite3.connect(f"file:{store}?immutable=1", uri=True)
    with rows.open("w", encoding="utf-8") as out:
        for key, value, timestamp, run, step, is_nan in connection.execute(
                "SELECT key, value, timestamp, run_uuid, step, is_nan FROM metrics"):
            out.write(f"{key}\t{value!r}\t{timestamp}\t{run}\t{step}\t{'t' if is_nan else 'f'}\n")
    connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--metrics", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--postgres-bin", type=Path, default=Path("/usr/lib/postgresql/15/bin"))
    options = parser.parse_args()
    program = ROOT / "target/release/mlops"
    with tempfile.TemporaryDirectory(prefix="mlops-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        server = folder / "server"
        server.mkdir()
        store, rows = folder / "store.db", folder / "metrics.copy"
        subprocess.run([program, "demo", "--only-sample", "-q", "--file", store, "--metrics", str(options.metrics),
                        "--runs", str(options.runs)], check=True, stdout=subprocess.DEVNULL)
        write_rows(store, rows)
        cluster = Cluster(options.postgres_bin, server)
        try:
            lowest = min(floor(cluster, rows) for _ in range(options.rounds))
            ours = [mlops(cluster, program, store) for _ in range(options.rounds)]
            loader = pgloader(cluster, store) if shutil.which("pgloader") else None
            archive = archives(cluster, program, store, folder, options.rounds)
        finally:
            cluster.stop()
        start = best([measured(program, "--version") for _ in range(20)])[0]
    took, memory = best(ours)
    print(f"{options.metrics:,} metric rows, {options.runs:,} runs, best of {options.rounds}\n")
    print("| what | seconds | ratio to the floor |\n|---|---|---|")
    print(f"| floor: `\\copy` of the metric rows alone, key, two indexes | {lowest:.2f} | 1.00 |")
    print(f"| `mlops migrate sqlite-to-pg`, the whole store, verified ({memory:.0f} MB peak) | {took:.2f} | {took / lowest:.2f} |")
    if loader:
        print(f"| pgloader, default run | {loader:.1f} | {loader / lowest:.2f} |")
    else:
        print("\npgloader is not installed and was left out.")
    print("\n| what | seconds | ratio | MB | peak memory, MB |\n|---|---|---|---|---|")
    print("\n".join(archive))
    print(f"\n`mlops --version`: {start * 1000:.1f} ms")


if __name__ == "__main__":
    main()
