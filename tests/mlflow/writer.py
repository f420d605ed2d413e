#!/usr/bin/env python3
"""A trainer that logs at a fixed rate to a running server, so that a copy taken meanwhile can be checked.

    python3 writer.py --uri URL [--rate 50] [--seconds N] [--steps-per-request 1] [--single] [--ready-file FILE]

Step n = 1, 2, 3, ... is one log-batch with two metrics, a = n and b = n: one transaction, so that a store at any one
moment holds the steps 1 to some m, each of them in a and in b, and m as the latest of both (`consistency.py` looks).
With --steps-per-request that many steps share a request; with --single each step is one log-metric of a alone.

A write that fails is sent again until it is done - it changes nothing to write a step twice - and no later step is
sent before. When it falls behind, it goes on without a pause until it has caught up.

Ends after --seconds, on SIGTERM or SIGINT, or when its stdin is a pipe whose other end is closed. FILE gets the run's
id after the first write. Prints one JSON object: the run, the steps that were acknowledged ("written"; one request
more may have reached the store), the attempts that failed with the different reasons, the slowest answer and how far
it was behind at worst. Exit code 0, or 1 if nothing was written. Only the standard library is used.
"""

import argparse
import http.client
import json
import os
import select
import signal
import stat
import time
from pathlib import Path
from urllib.parse import urlsplit

API = "/api/2.0/mlflow"
START = 1_700_000_000_000
SECONDS = 60
PAUSE = 0.2
KEPT_ERRORS = 20


class Failed(Exception):
    """Why a request was not carried out."""


class Client:
    """One connection that stays open, as a trainer's does."""

    def __init__(self, address: str):
        self.place = urlsplit(address)
        self.connection: http.client.HTTPConnection | None = None

    def send(self, method: str, path: str, body: dict) -> dict:
        if self.connection is None:
            kind = http.client.HTTPSConnection if self.place.scheme == "https" else http.client.HTTPConnection
            self.connection = kind(self.place.netloc, timeout=SECONDS)
        try:
            headers = {"Content-Type": "application/json"}
            self.connection.request(method, f"{self.place.path.rstrip('/')}{API}/{path}", json.dumps(body), headers)
            answer = self.connection.getresponse()
            text = answer.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            self.connection.close()
            self.connection = None
            raise Failed(f"{type(error).__name__}: {error}") from None
        if answer.status != 200:
            raise Failed(f"{answer.status} {text[:300]}")
        return json.loads(text) if text else {}


class Clock:
    """When to stop. Waiting ends early when stdin is closed."""

    def __init__(self, seconds: float | None):
        self.end = None if seconds is None else time.monotonic() + seconds
        self.over = False
        kind = os.fstat(0).st_mode
        self.watched = [0] if stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind) else []
        for sign in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sign, self.stop)

    def stop(self, *_: object) -> None:
        self.over = True

    def goes_on(self) -> bool:
        return not self.over and (self.end is None or time.monotonic() < self.end)

    def wait(self, seconds: float) -> None:
        """Looks at stdin even if there is no time to wait."""
        if self.end is not None:
            seconds = min(seconds, self.end - time.monotonic())
        readable, _, _ = select.select(self.watched, [], [], max(0, seconds))
        if readable and not os.read(0, 4096):
            self.over = True


class Writer:
    """Writes the steps in order and keeps account."""

    def __init__(self, client: Client, clock: Clock, *, rate: float, per_request: int, single: bool):
        self.client = client
        self.clock = clock
        self.rate = rate
        self.per_request = per_request
        self.single = single
        self.run = ""
        self.written = self.requests = self.failed = 0
        self.errors: dict[str, int] = {}
        self.slowest = self.behind = 0.0

    def begin(self, experiment: str) -> None:
        """The run, in an experiment of this name, made if need be; a refusal here is the end."""
        try:
            number = self.client.send("POST", "experiments/create", {"name": experiment})["experiment_id"]
        except Failed as failed:
            if "RESOURCE_ALREADY_EXISTS" not in str(failed):
                raise
            found = self.client.send("GET", f"experiments/get-by-name?experiment_name={experiment}", {})
            number = found["experiment"]["experiment_id"]
        tags = [{"key": "writer", "value": "single" if self.single else "pairs"}]
        body = {"experiment_id": number, "run_name": "live", "start_time": START, "tags": tags}
        self.run = self.client.send("POST", "runs/create", body)["run"]["info"]["run_id"]

    def request(self) -> tuple[str, dict, int]:
        """What comes next, and the last step in it."""
        steps = range(self.written + 1, self.written + 1 + (1 if self.single else self.per_request))
        metrics = [
            {"key": key, "value": step, "timestamp": START + step, "step": step}
            for step in steps
            for key in ("a", "b")
        ]
        if self.single:
            return "runs/log-metric", {"run_id": self.run, **metrics[0]}, steps[-1]
        return "runs/log-batch", {"run_id": self.run, "metrics": metrics}, steps[-1]

    def write(self) -> bool:
        """One attempt."""
        path, body, last = self.request()
        began = time.monotonic()
        try:
            self.client.send("POST", path, body)
        except Failed as failed:
            self.failed += 1
            if str(failed) in self.errors or len(self.errors) < KEPT_ERRORS:
                self.errors[str(failed)] = self.errors.get(str(failed), 0) + 1
            return False
        finally:
            self.slowest = max(self.slowest, time.monotonic() - began)
        self.written = last
        self.requests += 1
        return True

    def go(self, ready_file: Path | None) -> None:
        began = time.monotonic()
        while self.clock.goes_on():
            due = began + self.requests / self.rate
            now = time.monotonic()
            self.behind = max(self.behind, now - due)
            self.clock.wait(due - now)
            if not self.clock.goes_on():
                return
            if not self.write():
                self.clock.wait(PAUSE)
            elif self.requests == 1 and ready_file:
                publish(self.run, ready_file)

    def report(self) -> dict:
        return {
            "run": self.run,
            "written": self.written,
            "failed": self.failed,
            "errors": [f"{reason} (x {count})" if count > 1 else reason for reason, count in self.errors.items()],
            "slowest_ms": round(self.slowest * 1000, 1),
            "behind_ms": round(self.behind * 1000, 1),
        }


def publish(text: str, path: Path) -> None:
    """A reader sees the whole text or no file."""
    unfinished = path.with_name(path.name + ".new")
    unfinished.write_text(text)
    unfinished.rename(path)


def main() -> None:
    parser = argparse.ArgumentParser(description="log metrics to an MLflow server at a fixed rate")
    parser.add_argument("--uri", required=True, help="the server's address")
    parser.add_argument("--rate", type=float, default=50, help="requests a second")
    parser.add_argument("--seconds", type=float, help="default: until stdin is closed or a signal comes")
    parser.add_argument("--steps-per-request", type=int, default=1)
    parser.add_argument("--single", action="store_true", help="one log-metric of one metric a step")
    parser.add_argument("--experiment", default="live", help="the name, without anything that a URL would encode")
    parser.add_argument("--ready-file", type=Path)
    options = parser.parse_args()
    writer = Writer(
        Client(options.uri),
        Clock(options.seconds),
        rate=options.rate,
        per_request=options.steps_per_request,
        single=options.single,
    )
    try:
        writer.begin(options.experiment)
    except Failed as failed:
        raise SystemExit(f"writer: {failed}") from None
    started = time.monotonic()
    writer.go(options.ready_file)
    print(json.dumps(writer.report() | {"seconds": round(time.monotonic() - started, 1)}, ensure_ascii=False))
    raise SystemExit(0 if writer.written else 1)


if __name__ == "__main__":
    main()
