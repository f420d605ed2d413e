"""deploy/schedule.sh, run by the shells that are here."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from deployment import DEPLOY

SCRIPT = DEPLOY / "schedule.sh"
WRONG = ("every 0 x", "every 5m x", "every 05 x", "daily 24:00 x", "daily 9:08 x", "daily 09:60 x", "every 5", "")
SECONDS = 30


def schedule(arguments) -> None:
    """It goes on after a failure, waits for the time of day, and passes SIGTERM on."""
    for shell in filter(None, map(shutil.which, ("dash", "bash"))):
        folder = arguments.work / Path(shell).name
        folder.mkdir()
        goes_on(shell, folder / "goes-on")
        cleans_up(shell, folder / "cleans-up")
        by_the_clock(shell, folder / "clock")
        for words in WRONG:
            done = subprocess.run([shell, SCRIPT, *words.split()], capture_output=True, timeout=SECONDS)
            assert done.returncode == 2 and done.stderr.startswith(b"usage"), f"{shell}: {words}: {done}"


def begin(shell: str, *words: str, **more) -> subprocess.Popen:
    return subprocess.Popen([shell, SCRIPT, *words], stderr=subprocess.PIPE, **more)


def ended(process: subprocess.Popen) -> tuple[int, bytes]:
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=SECONDS)[1]
    return process.returncode, said


def seen(log: Path, text: str) -> None:
    until = time.monotonic() + SECONDS
    while not (log.exists() and text in log.read_text()):
        assert time.monotonic() < until, f"{text!r} is not in {log}"
        time.sleep(0.05)


def goes_on(shell: str, log: Path) -> None:
    process = begin(shell, "every", "1", f"sh -c 'echo first >> {log}; exit 3'", f"sh -c 'echo second >> {log}'")
    seen(log, "first\nsecond\nfirst\nsecond\n")
    code, said = ended(process)
    assert code in (0, 3, 143) and b"ended with 3" in said, f"{shell}: {code}, {said}"


def cleans_up(shell: str, log: Path) -> None:
    words = f'trap "echo cleaned >> {log}; exit 7" TERM; echo begun >> {log}; while :; do sleep 0.1; done'
    process = begin(shell, "every", "60", f"sh -c '{words}'")
    seen(log, "begun")
    assert ended(process)[0] == 7, shell
    seen(log, "cleaned")


def by_the_clock(shell: str, log: Path) -> None:
    """Its clock is `date`, here one that stands a second before the time."""
    clock = log.with_name("bin")
    clock.mkdir()
    (clock / "date").write_text(f"#!/bin/sh\necho {20_000 * 86_400 + 9 * 3_600 + 8 * 60 - 1}\n")
    (clock / "date").chmod(0o755)
    environment = {**os.environ, "PATH": f"{clock}:{os.environ['PATH']}"}
    begun = time.monotonic()
    process = begin(shell, "daily", "09:08", f"sh -c 'echo daily >> {log}'", env=environment)
    seen(log, "daily")
    assert time.monotonic() - begun >= 1, f"{shell}: not at that time"
    ended(process)
