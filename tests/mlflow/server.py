#!/usr/bin/env python3
"""An MLflow tracking server of the release that this Python has, for a test.

    ENV/bin/python server.py --backend-store-uri URI --artifact-root DIR --ready-file FILE
        [--port N] [--serve-artifacts] [--object-store FILE] [--static-prefix PATH] [--basic-auth USER:PASSWORD]
        [--env NAME=VALUE]... [--log FILE]

Serves on 127.0.0.1 (port 0, the default, means a free one), waits until a search is answered, writes the server's
address into FILE (whole or not at all) and stays. It ends when it gets SIGTERM or SIGINT, or when its stdin is a
pipe whose other end is closed, so that a killed test leaves nothing behind; the server goes with it, whatever
happens to this process. Exit code 0 after such an end, 1 if the server failed.

The application is MLflow's own under the same web server that `mlflow server` starts; without the command line
around it, which imports everything a second time, it is up in half the time. --artifact-root is a folder or an
address such as s3://artifacts/root in the store that `object_store.py` wrote into --object-store's FILE; with
--serve-artifacts it is what the server hands out by its proxy. The environment is made from nothing
but the few variables below and --env: no MLFLOW_*, PG*, AWS_* or proxy variable of the caller leaks in. The
server works in FILE's folder (3.4 leaves an empty `mlruns` where it works), so addresses are best absolute.
"""

import argparse
import base64
import ctypes
import json
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib.metadata import version
from pathlib import Path

import surroundings

START_SECONDS = 120
STOP_SECONDS = 10
KEPT_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH")
PR_SET_PDEATHSIG = 1

UVICORN = """
import socket, sys, uvicorn
app, factory = sys.argv[2], sys.argv[2].endswith("create_app")
config = uvicorn.Config(app, factory=factory, log_level="warning", timeout_graceful_shutdown=3)
uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(sys.argv[1]))])
"""


def release() -> tuple[int, ...]:
    return tuple(int(part) for part in version("mlflow").split(".")[:2])


def command(handle: int, auth: bool) -> list[str]:
    """The web server that this release uses by default, on an already bound socket."""
    if release() >= (3, 0):
        app = "mlflow.server.auth:create_app" if auth else "mlflow.server.fastapi_app:app"
        return [sys.executable, "-c", UVICORN, str(handle), app]
    app = "mlflow.server.auth:create_app()" if auth else "mlflow.server:app"
    gunicorn = ["-m", "gunicorn", "--workers", "1", "--threads", "4", "--graceful-timeout", "3", "--timeout", "120"]
    return [sys.executable, *gunicorn, "--bind", f"fd://{handle}", app]


def environment(options: argparse.Namespace) -> dict[str, str]:
    """What `mlflow server` hands to its workers, and the keys without which secrets cannot be read again."""
    made = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    made |= {
        "_MLFLOW_SERVER_FILE_STORE": options.backend_store_uri,
        "_MLFLOW_SERVER_REGISTRY_STORE": options.backend_store_uri,
        "_MLFLOW_SERVER_ARTIFACT_ROOT": options.artifact_root,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_CRYPTO_KEK_PASSPHRASE": "mlops-tests-key-encryption-passphrase-0123456789",
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": "bWxvcHMtdGVzdHMtd2ViaG9vay1zZWNyZXQta2V5LTA=",
        "PYTHONUNBUFFERED": "1",
    }
    if release() >= (3, 0):
        made["_MLFLOW_SGI_NAME"] = "uvicorn"
    if options.serve_artifacts:
        made |= {
            "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
            "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
            "_MLFLOW_SERVER_ARTIFACT_DESTINATION": options.artifact_root,
        }
    if options.static_prefix:
        made["_MLFLOW_STATIC_PREFIX"] = options.static_prefix
    if options.basic_auth:
        made |= {"MLFLOW_AUTH_CONFIG_PATH": auth_config(options), "MLFLOW_FLASK_SERVER_SECRET_KEY": "for-tests-only"}
    if options.object_store:
        made |= surroundings.s3(options.object_store)
    for setting in options.env:
        name, _, value = setting.partition("=")
        made[name] = value
    return made


def auth_config(options: argparse.Namespace) -> str:
    """The file that the basic-auth app reads, with its database beside it."""
    folder = options.ready_file.resolve().parent
    user, _, password = options.basic_auth.partition(":")
    config = folder / "basic_auth.ini"
    config.write_text(
        "[mlflow]\ndefault_permission = READ\n"
        f"database_uri = sqlite:///{folder / 'basic_auth.db'}\n"
        f"admin_username = {user}\nadmin_password = {password}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    return str(config)


def die_with_parent() -> None:
    """Runs in the child: the kernel ends it when this process ends, even by SIGKILL."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def start(options: argparse.Namespace) -> tuple[subprocess.Popen, str]:
    """Starts the web server in a process group of its own; returns it with its address."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", options.port))
        listener.listen(128)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}{options.static_prefix}"
        with open(options.log or os.devnull, "ab") as log:
            server = subprocess.Popen(
                command(listener.fileno(), bool(options.basic_auth)),
                cwd=options.ready_file.resolve().parent,
                env=environment(options),
                stdin=subprocess.DEVNULL,
                stdout=log if options.log else sys.stderr,
                stderr=log if options.log else sys.stderr,
                pass_fds=[listener.fileno()],
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
    return server, address


def stop(server: subprocess.Popen) -> None:
    """Ends the whole process group, politely first."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, sign)
            server.wait(STOP_SECONDS)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def answers(address: str, user: str, seconds: float) -> bool:
    """Whether a search comes back from the database; a refusal of the search is an error with its text."""
    headers = {"Content-Type": "application/json"}
    if user:
        headers["Authorization"] = "Basic " + base64.b64encode(user.encode()).decode()
    request = urllib.request.Request(
        f"{address}/ajax-api/2.0/mlflow/experiments/search",  # under a prefix, older releases have this one alone
        data=json.dumps({"max_results": 1}).encode(),
        headers=headers,
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=seconds):
            return True
    except urllib.error.HTTPError as error:
        raise SystemExit(
            f"server: the first search failed: {error.code} {error.read().decode(errors='replace')}"
        ) from None
    except OSError:
        return False


def wait_until_ready(server: subprocess.Popen, address: str, user: str) -> None:
    """The socket listens before the application is there, so one request waits for it. A second one beside it would make
    the tables of a new database at the same time."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if answers(address, user, end - time.monotonic()):
            return
        check_on(server, 0.05)
    raise SystemExit(f"server: no answer in {START_SECONDS} s")


def check_on(server: subprocess.Popen, seconds: float | None) -> None:
    """Waits so long; raises when stdin is closed or the server has ended by itself."""
    watched = [os.pidfd_open(server.pid)]
    kind = os.fstat(0).st_mode
    if stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind):
        watched.append(0)
    try:
        readable, _, _ = select.select(watched, [], [], seconds)
    finally:
        os.close(watched[0])
    if 0 in readable and not os.read(0, 4096):
        raise SystemExit(0)
    if server.poll() is not None:
        raise SystemExit(f"server: ended with {server.returncode}")


def publish(address: str, path: Path) -> None:
    """A reader sees the whole address or no file."""
    unfinished = path.with_name(path.name + ".new")
    unfinished.write_text(address)
    unfinished.rename(path)


def end(*_: object) -> None:
    raise SystemExit(0)


def main() -> None:
    parser = argparse.ArgumentParser(description="an MLflow server for a test")
    parser.add_argument("--backend-store-uri", required=True)
    parser.add_argument("--artifact-root", required=True)
    parser.add_argument("--ready-file", required=True, type=Path)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--serve-artifacts", action="store_true")
    parser.add_argument("--object-store", metavar="FILE")
    parser.add_argument("--static-prefix", default="")
    parser.add_argument("--basic-auth", default="", metavar="USER:PASSWORD")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--log")
    options = parser.parse_args()
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, end)
    server, address = start(options)
    try:
        wait_until_ready(server, address, options.basic_auth)
        publish(address, options.ready_file)
        while True:
            check_on(server, None)
    finally:
        stop(server)


if __name__ == "__main__":
    main()
