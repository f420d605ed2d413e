#!/usr/bin/env python3
"""Runs every bench and writes docs/benchmarks.md of what they print: machine, versions, commands, figures, ratios.

    python3 benches/report.py [--full] [--only NAME]... [--mlflow PYTHON]

Without --full the stores are small enough for the whole to take about 15 minutes on 2 cores. --only runs some of them and
leaves the other chapters of the page as they are. PYTHON is that of an environment with the MLflow release whose schema
the sample has (3.17): `mlflow gc` is run with it. Needs what each of the benches needs (its head tells), the release build
above all; a bench that fails ends this with its error, and the page stays as it was. Nothing else should run meanwhile.
"""

import argparse
import datetime
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/benchmarks.md"
MLFLOW = "--mlflow"

# Name, title, arguments without and with --full.
BENCHES = [
    ("migrate", "Migration and archives", ["--metrics", "300000", "--rounds", "2"], ["--metrics", "1000000"]),
    ("backup", "Backup and restore", ["--metrics", "300000", "--artifact-mb", "200", "--rounds", "1"], []),
    ("cleanup", "Purge", ["--rounds", "1", "--gc-runs", "200", MLFLOW], [MLFLOW]),
    ("health", "Health", ["--rounds", "3"], []),
    ("verify", "Concurrent writers", [], []),
]

UNMEASURED = """\
## What is not measured

- Servers and stores over a real network: all of it is on one machine, over loopback or a socket. S3 is not measured.
- Disks: files are in the page cache, and nothing is flushed by the benches.
- Stores beyond the sizes above; the memory of `mlops` is bounded by design, and its peak stands in the tables.
- Other tools than those that are named; pgloader and restic only where they are installed, with their default settings.
- `promote`, `cleanup` of experiments and runs, `verify persistence`: their time is that of the tracking server's calls.
"""


def said(*command: str) -> str:
    """The first line of what a program says of itself; nothing where it is not there."""
    try:
        out = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (out.stdout or out.stderr).strip().splitlines()[0] if (out.stdout or out.stderr).strip() else ""


def machine() -> list[str]:
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    gib = int(memory[1]) / (1 << 20) if memory else 0
    return [
        f"{os.cpu_count()} processors ({cpu[1] if cpu else platform.machine()}), {gib:.0f} GiB, {platform.system()}",
        f"load when it began: {os.getloadavg()[0]:.1f}",
    ]


def versions(mlflow: str | None) -> list[str]:
    asked = [
        said(str(ROOT / "target/release/mlops"), "--version"),
        said("/usr/lib/postgresql/15/bin/postgres", "--version"),
        "SQLite " + said("sqlite3", "--version").split(" ")[0],
        said("pgloader", "--version"),
        said("restic", "version"),
        said("curl", "--version").split(" (")[0],
        f"Python {platform.python_version()}",
    ]
    if mlflow:
        asked.append("MLflow " + said(mlflow, "-c", "import mlflow; print(mlflow.__version__)"))
    return [one for one in asked if one and one != "SQLite "]


def chapters() -> dict[str, str]:
    """Those of the page that is there."""
    if not PAGE.exists():
        return {}
    parts = re.split(r"^<!-- (\w+) -->\n", PAGE.read_text(), flags=re.M)
    found = dict(zip(parts[1::2], parts[2::2], strict=True))
    return {name: text for name, text in found.items() if name != "end"}


def run(name: str, title: str, arguments: list[str], mlflow: str | None) -> str:
    given = []
    for argument in arguments:
        if argument != MLFLOW:
            given.append(argument)
        elif mlflow:
            given += [MLFLOW, mlflow]
    shown = " ".join(["python3", f"benches/{name}.py", *given]).replace(mlflow or "\0", "PYTHON")
    print(f"{shown} ...", file=sys.stderr, flush=True)
    command = [sys.executable, str(ROOT / f"benches/{name}.py"), *given]
    out = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if out.returncode != 0:
        sys.exit(f"{shown} failed with {out.returncode}; {PAGE.name} is left as it was")
    facts = [datetime.date.today().isoformat(), *machine(), ", ".join(versions(mlflow))]
    listed = "\n".join(f"- {fact}" for fact in facts)
    return f"## {title}\n\n`{shown}`\n\n{listed}\n\n{out.stdout.strip()}\n\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--only", action="append", choices=[name for name, *_ in BENCHES])
    parser.add_argument("--mlflow")
    options = parser.parse_args()
    made = chapters()
    for name, title, small, full in BENCHES:
        if not options.only or name in options.only:
            made[name] = run(name, title, full if options.full else small, options.mlflow)
    page = "# Benchmarks\n\nMade by `python3 benches/report.py`: every bench puts `mlops` beside what people run instead,\n"
    page += "on the same data, in one run. Times are seconds; the ratio is what counts.\n\n"
    for name, *_ in BENCHES:
        if name in made:
            page += f"<!-- {name} -->\n{made[name].strip()}\n\n"
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(f"{page}<!-- end -->\n{UNMEASURED}")


if __name__ == "__main__":
    main()
