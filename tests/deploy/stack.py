"""The command lines of deploy/ on a real stack: an MLflow server on SQLite, with its artifacts in a folder."""

import os
import re
import shlex
import subprocess
import sys
import time
import urllib.error
import urllib.request
from datetime import datetime, timezone
from pathlib import Path

from cronsim import CronSim

import deployment
from deployment import DEPLOY, PASSWORD, ROOT, Line

MLFLOW = ROOT / "tests/mlflow"
SECONDS = 120


def read_by_mlops(pairs, place: str) -> None:
    """Each NAME or NAME=VALUE is an environment variable that the one room that reads them names."""
    source = "".join(p.read_text() for p in (ROOT / "src/config").glob("*.rs"))
    for pair in pairs:
        name = pair.split("=")[0]
        assert f'"{name}"' in source, f"{place} sets {name}, which mlops does not read"


class Stack:
    """A server that is up as long as this is entered."""

    def __init__(self, mlops: Path, work: Path, allowed_hosts: str):
        self.work, self.allowed_hosts = work, allowed_hosts
        for folder in ("bin", "artifacts", "tmp"):
            (work / folder).mkdir()
        (work / "bin/mlops").symlink_to(mlops)

    def __enter__(self):
        make = [sys.executable, MLFLOW / "environments.py", "mlflow-3.17.2"]
        python = subprocess.run(make, capture_output=True, text=True, check=True).stdout.strip() + "/bin/python"
        self.store = f"sqlite:///{self.work}/mlflow.db"
        ready = self.work / "ready"
        words = ["--backend-store-uri", self.store, "--artifact-root", self.work / "artifacts", "--serve-artifacts"]
        words += ["--ready-file", ready, "--log", self.work / "server.log"]
        words += ["--env", f"MLFLOW_SERVER_ALLOWED_HOSTS={self.allowed_hosts}"]
        # It ends with its stdin.
        self.server = subprocess.Popen([python, MLFLOW / "server.py", *words], stdin=subprocess.PIPE)
        until = time.monotonic() + SECONDS
        while not ready.exists():
            assert self.server.poll() is None and time.monotonic() < until, "the server is not up"
            time.sleep(0.05)
        self.url = ready.read_text().strip()
        return self

    def __exit__(self, *_):
        self.server.stdin.close()
        self.server.wait(timeout=SECONDS)

    def asked_as(self, host: str) -> int:
        """The code of the answer to a client that calls the server by this name."""
        url = f"{self.url}/api/2.0/mlflow/experiments/search?max_results=1"
        try:
            return urllib.request.urlopen(urllib.request.Request(url, headers={"Host": host}), timeout=20).status
        except urllib.error.HTTPError as refused:
            return refused.code

    def state(self, kind: str) -> Path:
        folder = self.work / f"state-{kind}"
        (folder / "metrics").mkdir(parents=True, exist_ok=True)
        return folder

    def runs(self, line: Line, kind: str) -> None:
        """The line as its shell runs it, but for places of this machine and addresses of this stack."""
        state = str(self.state(kind))
        environment = {name: value.replace("/var/lib/mlops", state) for name, value in line.environment.items()}
        environment |= {"PATH": f"{self.work}/bin:{os.environ['PATH']}", "HOME": state, "TMPDIR": f"{self.work}/tmp"}
        environment |= {"MLOPS_TRACKING_URI": self.url, "MLOPS_BACKEND_STORE_URI": self.store}
        environment["MLOPS_ARTIFACT_ROOT"] = f"{self.work}/artifacts"
        environment["MLOPS_BACKUP_TO"] = f"{self.work}/backup-{kind}"
        environment.setdefault("MLOPS_STATE_DIR", state)
        if line.config:
            config = self.work / f"{kind}.toml"
            config.write_text(line.config)
            environment["MLOPS_CONFIG"] = str(config)
        text = line.text.replace("/var/lib/mlops", state).replace("/usr/local/bin/mlops", "mlops")
        done = subprocess.run(
            ["sh", "-c", text],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        said = f"{line.place}: {text}: {done.returncode}\n{done.stdout}{done.stderr}"
        # A sample has warnings: no backup was kept for a day, the file lies in a folder for temporary files.
        well = (0, 1) if " health " in text and "--fail-on" not in text else (0,)
        assert done.returncode in well, said
        assert PASSWORD not in done.stdout + done.stderr, f"{line.place} tells a password"
        assert "--quiet" not in text or not done.stderr, said


def steps(lines: list[Line]) -> list[Line]:
    """Backups come first, then their drills, health last: a stack without a backup is critical."""
    words = ("mlops backup --", " verify ", " cleanup ", " health ")
    return sorted(lines, key=lambda line: next(n for n, word in enumerate(words) if word in line.text))


def lines(arguments) -> None:
    """Every command line runs on a real stack, and the metrics and checks that the alerts name are there."""
    kinds = (deployment.compose, deployment.kubernetes, deployment.systemd, deployment.crontab)
    found = {kind.__name__: kind() for kind in kinds}
    for line in (line for all_of_kind in found.values() for line in all_of_kind):
        read_by_mlops(line.environment, line.place)
        if line.schedule:
            now = datetime.now(timezone.utc)
            assert next(CronSim(line.schedule, now)) > now, line.place
    hardening = (DEPLOY / "systemd/mlops-.service.d/hardening.conf").read_text()
    read_by_mlops(re.findall(r"\b(?:PG|AWS_|MLFLOW_|MLOPS_)[A-Z_]+\b", hardening), "hardening.conf")
    mentioned = deployment.mentioned()
    assert len(mentioned) > 10, mentioned
    for place, text in mentioned:
        words = [arguments.mlops, *shlex.split(text)[1:], "--help"]
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS)
        assert done.returncode == 0, f"{place}: {text}: {done.stderr}"
    allowed = deployment.services()["mlflow"]["environment"]["MLFLOW_SERVER_ALLOWED_HOSTS"]
    with Stack(arguments.mlops, arguments.work, allowed) as stack:
        assert stack.asked_as("mlflow:5000") == 200 and stack.asked_as("elsewhere:5000") == 403
        for kind, said in found.items():
            words = " ".join(line.text for line in said)
            assert all(word in words for word in ("mlops backup --", "--drill", "mlops health ")), f"{kind}: {words}"
            for line in steps(said):
                stack.runs(line, kind)
            if "--textfile" in words:
                metrics_are_there(stack.state(kind) / "metrics/mlops.prom")


def metrics_are_there(file: Path) -> None:
    """What the alerts ask for is in what mlops wrote, where another user, node_exporter, reads it."""
    assert file.stat().st_mode & 0o044 == 0o044, oct(file.stat().st_mode)
    text = file.read_text()
    rules = re.sub(r"#.*", "", (DEPLOY / "prometheus/alerts.yaml").read_text())
    for pattern in (r"\b(mlops_\w+)", r'check="([^"]+)"'):
        there, named = set(re.findall(pattern, text)), set(re.findall(pattern, rules))
        assert named and named <= there, f"the alerts ask for {named - there}, which is not among {sorted(there)}"
