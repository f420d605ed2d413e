#!/usr/bin/env python3
"""Backup and restore side by side with what people run instead, on the same data, in one run.

    python3 benches/backup.py [--metrics N]... [--artifact-mb N] [--rounds N] [--postgres-bin DIR]

Database: a sample store of so many metric rows (1 and 10 million without the option), in SQLite and in a private
PostgreSQL (socket only, collation C), `mlops backup --artifacts none` and `mlops restore --no-artifacts` beside
`sqlite3 .backup` alone and with gzip, `pg_dump -Fc`, `pg_restore -j2`. Artifacts: files of so many MB (1000) below the
runs and models of a small store - weights that do not compress, tables, logs and JSON that do, 10,000 small files -
`mlops backup` and `mlops restore` of that store with its database beside `tar czf`, `tar xzf` and restic with a fresh
repository; a second backup with nothing changed beside restic's second.

The tools take turns, best time and highest memory of the rounds each; files are in the page cache, none is flushed by
the bench. What mlops makes is verified by itself within its time; the peers verify nothing. What each restored is
compared with the source once, outside of the time. Memory is the client's: a server's is not in it.

Prints a table in Markdown per part. Needs the release build (cargo build --release), sqlite3, PostgreSQL's programs, GNU
time, restic (Debian's; left out where it is not installed) and no root.
"""

import argparse
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import migrate
from migrate import ROOT, Cluster, best

PROGRAM = ROOT / "target/release/mlops"
SMALL_FILES = 10_000
MB = 1_000_000
WEIGHTS = (64 * MB, MB, 4 * MB, MB, 16 * MB, MB, 4 * MB, MB)
TABLE = "| what | s | MB | peak MB | beside | s | MB | peak MB | ratio of times | of sizes |\n" + "|---" * 10 + "|"

Taken = tuple[float, float]
Work = Callable[[], Taken]


class Job:
    """One tool at one job: how it is run, and what it leaves, for the size."""

    def __init__(self, name: str, work: Work, made: Path | None = None) -> None:
        self.name, self.work, self.made = name, work, made
        self.took: list[Taken] = []
        self.bytes = 0

    def run(self) -> None:
        self.took.append(self.work())
        self.bytes = size(self.made) if self.made else 0

    def cells(self) -> str:
        seconds, memory = best(self.took)
        return f"{self.name} | {seconds:.2f} | {f'{self.bytes / MB:.1f}' if self.bytes else ''} | {memory:.0f}"


def measured(*command: str | Path) -> Taken:
    """As in migrate.py, but a program begins with the memory of whoever starts it, so somebody small has to."""
    with tempfile.NamedTemporaryFile("r") as told:
        seconds, _ = migrate.measured("/usr/bin/time", "-f", "%M", "-o", told.name, *command)
        return seconds, int(told.read()) / 1024


def size(path: Path) -> int:
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


def in_turn(jobs: list[Job], rounds: int) -> None:
    for _ in range(rounds):
        for job in jobs:
            print(f"  {job.name}", file=sys.stderr, flush=True)
            job.run()


def beside(ours: Job, *peers: Job) -> list[str]:
    """A line of the table for each peer."""
    lines = []
    for peer in peers:
        time = f"{best(ours.took)[0] / best(peer.took)[0]:.2f}"
        bytes_ = f"{ours.bytes / peer.bytes:.2f}" if ours.bytes and peer.bytes else ""
        lines.append(f"| {ours.cells()} | {peer.cells()} | {time} | {bytes_} |")
    return lines


def fresh(path: Path) -> Path:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    return path


def sample(store: Path, metrics: int, runs: int) -> None:
    subprocess.run([PROGRAM, "demo", "--only-sample", "-q", "--file", store, "--metrics", str(metrics),
                    "--runs", str(runs)], check=True, stdout=subprocess.DEVNULL)


def backup(place: Path, store: str | Path, *more: str | Path) -> Taken:
    return measured(PROGRAM, "backup", "-q", "--to", place, "--backend-store-uri", store, *more)


def restore(place: Path, to: str | Path, *more: str | Path) -> Taken:
    return measured(PROGRAM, "restore", "latest", "-q", "--yes", "--from", place, "--to", to, *more)


def rows(*, store: Path | None = None, cluster: Cluster | None = None, database: str = "") -> str:
    """The number of metric rows and a sum over them, which every copy must have."""
    question = "SELECT count(*), sum(step) FROM metrics"
    if store:
        connection = sqlite3.connect(f"file:{store}?mode=ro", uri=True)
        found = "|".join(str(value) for value in connection.execute(question).fetchone())
        connection.close()
        return found
    command = [cluster.programs / "psql", "-At", "-h", cluster.folder, "-U", "bench", "-d", database, "-c", question]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def expect(found: str, wanted: str, who: str) -> None:
    if found != wanted:
        sys.exit(f"{who} restored {found}, not {wanted}")


def databases(folder: Path, cluster: Cluster, metrics: int, rounds: int) -> list[str]:
    """SQLite and PostgreSQL, there and back."""
    store, dump, copy = folder / "store.db", folder / "store.dump", folder / "copy.db"
    of_sqlite, of_postgres = folder / "of-sqlite", folder / "of-postgres"
    sample(fresh(store), metrics, 2_000)
    migrate.mlops(cluster, PROGRAM, store)
    url = f"postgresql://bench@/mlops?host={cluster.folder}"
    connection = ("-h", cluster.folder, "-U", "bench", "-d")
    pg_dump = (cluster.programs / "pg_dump", *connection, "mlops", "-Fc", "-f", dump)

    def zipped() -> Taken:
        fresh(copy), fresh(Path(f"{copy}.gz"))
        return measured("sh", "-c", f"sqlite3 '{store}' '.backup {copy}' && gzip '{copy}'")

    def restored_by_mlops(to: str) -> Taken:
        return restore(of_postgres, cluster.empty(to), "--no-artifacts")

    def restored_by_peer(to: str) -> Taken:
        cluster.empty(to)
        return measured(cluster.programs / "pg_restore", *connection, to, "-j2", dump)

    plain = folder / "plain.db"
    jobs = [
        Job("`sqlite3 .backup`", lambda: measured("sqlite3", store, f".backup {fresh(plain)}"), plain),
        Job("`sqlite3 .backup` and `gzip`", zipped, Path(f"{copy}.gz")),
        Job("backup of SQLite", lambda: backup(fresh(of_sqlite), store, "--artifacts", "none"), of_sqlite),
        Job("`pg_dump -Fc`", lambda: measured(*pg_dump), dump),
        Job("backup of PostgreSQL", lambda: backup(fresh(of_postgres), url, "--artifacts", "none"), of_postgres),
    ]
    in_turn(jobs, rounds)
    by_copy, by_zip, ours, by_dump, ours_of_postgres = jobs
    lines = [*beside(ours, by_copy, by_zip), *beside(ours_of_postgres, by_dump)]
    fresh(plain)
    here = folder / "restored.db"
    jobs = [
        Job("`gunzip` to SQLite", lambda: measured("sh", "-c", f"gunzip -c '{copy}.gz' > '{fresh(plain)}'"), None),
        Job("restore to SQLite", lambda: restore(of_sqlite, fresh(here), "--no-artifacts"), None),
        Job("`pg_restore -j2`", lambda: restored_by_peer("peer"), None),
        Job("restore to PostgreSQL", lambda: restored_by_mlops("ours"), None),
    ]
    in_turn(jobs, rounds)
    wanted = rows(store=store)
    for path in (plain, here):
        expect(rows(store=path), wanted, path.name)
        fresh(path)
    for database in ("peer", "ours"):
        expect(rows(cluster=cluster, database=database), wanted, database)
    for database in ("peer", "ours", "mlops"):
        cluster.psql("postgres", f"DROP DATABASE {database};")
    for path in (of_sqlite, of_postgres, dump, Path(f"{copy}.gz"), store):
        fresh(path)
    by_zip, ours, by_dump, ours_of_postgres = jobs
    return [*lines, *beside(ours, by_zip), *beside(ours_of_postgres, by_dump)]


def words(chance: random.Random, length: int, kind: int) -> bytes:
    """About so many bytes of a table, a log or JSON, as training writes them."""
    lines, written = [], 0
    for step in range(length):
        loss, rate = chance.random(), chance.random()
        line = (
            f"{step},{loss:.9f},{rate:.6f},{step % 97}\n",
            f"2026-01-01 00:{step // 60 % 60:02}:{step % 60:02} INFO train: epoch {step // 500} loss {loss:.5f}\n",
            f'{{"step": {step}, "loss": {loss!r}, "tags": {{"split": "validation", "fold": {step % 5}}}}}\n',
        )[kind % 3]
        lines.append(line)
        written += len(line)
        if written >= length:
            break
    return "".join(lines).encode()


def places(store: Path, root: Path) -> tuple[list[Path], list[Path]]:
    """The folders of the store's runs and of its logged models; the sample lies behind a proxy."""
    connection = sqlite3.connect(f"file:{store}?mode=ro", uri=True)

    def folders(question: str) -> list[Path]:
        found = [address for (address,) in connection.execute(question)]
        return [root / address.removeprefix("mlflow-artifacts:/") for address in found]

    found = (folders("SELECT artifact_uri FROM runs ORDER BY run_uuid"),
             folders("SELECT artifact_location FROM logged_models ORDER BY model_id"))
    connection.close()
    return found


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def fill(store: Path, root: Path, total: int) -> None:
    """The same files each time: 60 of 100 bytes are weights, 25 are text, 15 are in small files."""
    chance = random.Random(6)
    runs, models = places(store, root)
    for number, model in enumerate(models):
        write(model / "MLmodel", b"flavors:\n  python_function:\n    loader_module: mlflow.pytorch\n")
        write(model / "requirements.txt", b"mlflow==3.17.2\ntorch==2.9.1\n")
    written, number = 0, 0
    while (left := total * 60 // 100 - written) > 0:
        length = min(WEIGHTS[number % len(WEIGHTS)], left)
        write(models[number % len(models)] / f"data/weights-{number:03}.bin", chance.randbytes(length))
        written, number = written + length, number + 1
    written, number = 0, 0
    while (left := total * 25 // 100 - written) > 0:
        content = words(chance, min(2 * MB, left), number)
        write(runs[number % len(runs)] / f"logs/part-{number:04}.{('csv', 'log', 'json')[number % 3]}", content)
        written, number = written + len(content), number + 1
    for number in range(SMALL_FILES):
        length = total * 15 // 100 // SMALL_FILES
        content = words(chance, length, 2) if number % 2 else chance.randbytes(length)
        write(runs[number % len(runs)] / f"plots/{number:05}.{('png', 'json')[number % 2]}", content)


def restic(repository: Path, *arguments: str | Path) -> tuple[str | Path, ...]:
    return ("restic", "--quiet", "--repo", repository, *arguments)


def same(root: Path, other: Path, who: str) -> None:
    if subprocess.run(["diff", "-rq", root, other], stdout=subprocess.DEVNULL).returncode:
        sys.exit(f"{who} did not restore the artifacts as they were")


def artifacts(folder: Path, total: int, rounds: int) -> list[str]:
    """Files there and back, and the backup after that in which nothing is new."""
    store, root, place = folder / "small.db", folder / "artifacts", folder / "place"
    archive, repository, here = folder / "artifacts.tar.gz", folder / "repository", folder / "here"
    sample(store, 10_000, 500)
    fill(store, root, total)
    with_restic = shutil.which("restic") is not None
    os.environ |= {"RESTIC_PASSWORD": "bench", "RESTIC_CACHE_DIR": str(folder / "cache")}
    ours = ("--artifact-root", root)

    def first_of_restic() -> Taken:
        fresh(repository), fresh(folder / "cache")
        measured(*restic(repository, "init"))
        return measured(*restic(repository, "backup", root))

    def into(where: str, command: Callable[[Path], tuple]) -> Taken:
        target = fresh(here / where)
        target.mkdir(parents=True)
        return measured(*command(target))

    def turn(*jobs: Job) -> list[str]:
        """The last is ours."""
        taking_part = [job for job in jobs if with_restic or "restic" not in job.name]
        in_turn(taking_part, rounds)
        *peers, own = taking_part
        return beside(own, *peers)

    lines = turn(
        Job("`tar czf`", lambda: measured("tar", "czf", fresh(archive), "-C", root, "."), archive),
        Job("`restic backup`", first_of_restic, repository),
        Job("first backup", lambda: backup(fresh(place), store, *ours), place),
    )
    lines += turn(
        Job("second `restic backup`", lambda: measured(*restic(repository, "backup", root))),
        Job("second backup", lambda: backup(place, store, *ours)),
    )
    lines += turn(
        Job("`tar xzf`", lambda: into("tar", lambda target: ("tar", "xzf", archive, "-C", target))),
        Job("`restic restore`", lambda: into(
            "restic", lambda target: restic(repository, "restore", "latest", "--target", target))),
        Job("restore", lambda: restore(
            place, fresh(folder / "restored.db"), "--artifact-root", fresh(here / "ours"))),
    )
    same(root, here / "tar", "tar")
    same(root, here / "ours", "mlops")
    if with_restic:
        same(root, here / f"restic{root}", "restic")
    files = sum(1 for file in root.rglob("*") if file.is_file())
    return [f"{files:,} artifact files, {size(root) / MB:,.0f} MB\n", TABLE, *lines]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--metrics", type=int, action="append", help="0 for no database at all")
    parser.add_argument("--artifact-mb", type=int, default=1_000, help="0 for no artifacts at all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--postgres-bin", type=Path, default=Path("/usr/lib/postgresql/15/bin"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mlops-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        os.environ["XDG_STATE_HOME"] = str(folder / "state")
        if options.artifact_mb:
            print("\n".join(artifacts(folder, options.artifact_mb * MB, options.rounds)), flush=True)
        if counts := [count for count in options.metrics or (1_000_000, 10_000_000) if count]:
            server = folder / "server"
            server.mkdir()
            cluster = Cluster(options.postgres_bin, server)
            try:
                for count in counts:
                    lines = databases(folder, cluster, count, options.rounds)
                    print(f"\n{count:,} metric rows\n\n{TABLE}", *lines, sep="\n", flush=True)
            finally:
                cluster.stop()
    print(f"\nBest of {options.rounds}.")


if __name__ == "__main__":
    main()
