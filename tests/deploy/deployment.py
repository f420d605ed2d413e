"""What the files of deploy/ say: the command lines of mlops in them, and the environment each of them is given."""

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
PASSWORD = "hunter2-9f2c"


@dataclass
class Line:
    """A command line as a shell is given it, and where it stands."""

    place: str
    text: str
    environment: dict[str, str] = field(default_factory=dict)
    # The configuration that it finds in /etc/mlops, where there is one.
    config: str | None = None
    # What tells when it runs, in cron's form, where it is.
    schedule: str | None = None


def compose_says(*more: str, filled: bool = True) -> subprocess.CompletedProcess:
    """Docker Compose's own reading of compose.yaml, with passwords or as .env.example stands."""
    example = (DEPLOY / "compose/.env.example").read_text()
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    for name in re.findall(r"^(\w+)=$", example, re.M) if filled else []:
        environment[name] = "http://127.0.0.1:1/ping" if name.endswith("PING") else PASSWORD
    program = Path(sys.executable).with_name("docker-compose")
    files = ["-f", DEPLOY / "compose/compose.yaml", "--env-file", DEPLOY / "compose/.env.example"]
    return subprocess.run([program, *files, *more], env=environment, capture_output=True, text=True, timeout=60)


def services() -> dict[str, dict]:
    """Every service of compose.yaml, all values filled in."""
    done = compose_says("--profile", "*", "config", "--format", "json")
    assert done.returncode == 0, done.stderr
    assert not done.stderr, f"Compose warns: {done.stderr}"
    return json.loads(done.stdout)["services"]


def compose() -> list[Line]:
    lines = []
    for name, service in services().items():
        if service.get("entrypoint") != ["mlops-schedule"]:
            continue
        environment = {k: v for k, v in service["environment"].items() if v is not None}
        place = f"compose.yaml {name}"
        lines += [Line(place, text, environment) for text in service["command"][2:]]
        kind, *words = service["healthcheck"]["test"]
        if kind == "CMD":
            lines.append(Line(f"{place} healthcheck", shlex.join(words), environment))
    return lines


def resources() -> list[tuple[Path, dict]]:
    """Every resource of kubernetes/, the kustomization aside."""
    files = [f for f in sorted((DEPLOY / "kubernetes").glob("*.yaml")) if f.name != "kustomization.yaml"]
    return [(f, resource) for f in files for resource in yaml.safe_load_all(f.read_text())]


def pods() -> list[tuple[str, str, dict]]:
    """Name, schedule and pod of each CronJob."""
    jobs = [r for _, r in resources() if r["kind"] == "CronJob"]
    template = lambda job: job["spec"]["jobTemplate"]["spec"]["template"]["spec"]  # noqa: E731
    return [(job["metadata"]["name"], job["spec"]["schedule"], template(job)) for job in jobs]


def kubernetes() -> list[Line]:
    of = {r["kind"]: r for _, r in resources()}
    environment, config = of["Secret"]["stringData"], of["ConfigMap"]["data"]["config.toml"]
    lines = []
    for name, schedule, pod in pods():
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            text = shlex.join(["mlops", *container["args"]])
            lines.append(Line(f"kubernetes {name} {container['name']}", text, environment, config, schedule))
    return lines


def systemd() -> list[Line]:
    hardening = (DEPLOY / "systemd/mlops-.service.d/hardening.conf").read_text()
    environment = dict(line.split("=", 1) for line in re.findall(r"^Environment=(.*)$", hardening, re.M))
    config = (DEPLOY / "config.toml").read_text()
    return [
        Line(unit.name, text, environment, config)
        for unit in sorted((DEPLOY / "systemd").glob("*.service"))
        for text in re.findall(r"^ExecStart=(.*)$", unit.read_text(), re.M)
    ]


def crontab() -> list[Line]:
    config = (DEPLOY / "config.toml").read_text()
    lines = []
    for text in (DEPLOY / "crontab").read_text().splitlines():
        if entry := re.fullmatch(r"((?:[\d*/,-]+ ){5})mlops (.*)", text):
            lines.append(Line(f"crontab {entry[1]}", entry[2], {}, config, entry[1].strip()))
        else:
            assert not text or text.startswith("#") or re.match(r"[A-Z]+=", text), f"crontab: {text}"
    return lines


def all_lines() -> list[Line]:
    return [line for kind in (compose, kubernetes, systemd, crontab) for line in kind()]


def mentioned() -> list[tuple[str, str]]:
    """Command lines in running text and in alerts, between backticks, and those of a README's blocks of shell."""
    found = []
    for file in [ROOT / "Dockerfile", *sorted(f for f in DEPLOY.rglob("*") if f.is_file())]:
        text = file.read_text()
        name = str(file.relative_to(ROOT))
        found += [(name, line) for line in re.findall(r"`(mlops [^`]+)`", text)]
        for block in re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S):
            commands = re.findall(r"^(?:docker compose exec \S+ )?(mlops .*)", block, re.M)
            found += [(name, line.split(" #")[0]) for line in commands]
    return found
