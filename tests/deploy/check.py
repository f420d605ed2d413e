#!/usr/bin/env python3
"""Judges what packages mlops, with the programs that will read it.

    ENV/bin/python check.py WHAT --mlops PROGRAM --work FOLDER

WHAT is images, compose, kubernetes, systemd, prometheus, scripts, lines, schedule or completions. ENV is the
environment `deploy` of ../mlflow/environments.py. Ends with 0 if all is well, else with 1 and what is not; what could
not be checked is told on stderr as skipped.
"""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import yaml

import debian
import deployment
from completions import completions
from deployment import DEPLOY, ROOT
from schedule import schedule
from stack import lines, read_by_mlops

BIN = Path(sys.executable).parent
KUBERNETES = ("1.29", "1.37")
EXPOSURE = 20


def run(*command: object, **more) -> subprocess.CompletedProcess:
    words = [str(word) for word in command]
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, **more)


def quiet(*command: object, **more) -> None:
    """The command must end with 0 and have nothing to say."""
    done = run(*command, **more)
    said = done.stdout + done.stderr
    assert done.returncode == 0 and not said.strip(), f"{shlex.join(map(str, command))}: {done.returncode}\n{said}"


def images(_) -> None:
    """hadolint finds nothing, and what is copied is let through to the build."""
    let = [p.strip() for p in (ROOT / ".dockerignore").read_text().splitlines() if p.strip() and p[0] != "#"]
    for file in (ROOT / "Dockerfile", DEPLOY / "compose/mlflow.Dockerfile"):
        quiet(BIN / "hadolint", "--no-color", file)
    for words in re.findall(r"^COPY (?!--from)(?:--\S+ )*(.*)$", (ROOT / "Dockerfile").read_text(), re.M):
        for source in words.split()[:-1]:
            assert (ROOT / source).exists(), f"Dockerfile copies {source}, which is not there"
            assert f"!{source}" in let, f".dockerignore keeps {source} from the build"
    read_by_mlops(re.findall(r"^ENV (.*)$", (ROOT / "Dockerfile").read_text(), re.M)[0].split(), "Dockerfile")


def compose(_) -> None:
    """Docker Compose takes it with passwords, and refuses it without."""
    without = deployment.compose_says("config", "--quiet", filled=False)
    assert without.returncode != 0 and "POSTGRES_PASSWORD" in without.stderr, without
    services = deployment.services()
    assert {"postgres", "minio", "mlflow", "mlops-health", "mlops-backup"} <= services.keys(), services.keys()
    for name, service in services.items():
        if name != "buckets" and "monitoring" not in service.get("profiles", []):
            assert "test" in service.get("healthcheck", {}), f"{name} has no health check"
        # Nothing is reachable from elsewhere unless somebody says so.
        assert all(port.get("host_ip") == "127.0.0.1" for port in service.get("ports", [])), name
        assert ":" in service["image"] and not service["image"].endswith(":latest"), f"{name}: {service['image']}"
        for volume in service.get("volumes", []):
            assert volume["type"] != "bind" or Path(volume["source"]).exists(), f"{name}: {volume}"
    assert not (DEPLOY / "compose/.env").exists() or run("git", "check-ignore", DEPLOY / "compose/.env").stdout


def kubernetes(_) -> None:
    """The schemas of an old and a new release take each resource, and the pods are as restricted as they can be."""
    for file, resource in deployment.resources():
        for release in KUBERNETES:
            kubernetes_validate.validate(resource, release, strict=True)
        if resource["kind"] == "CronJob":
            spec = resource["spec"]
            wanted = {"startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit", "timeZone"}
            assert wanted <= spec.keys() and spec["concurrencyPolicy"] == "Forbid", file
            assert spec["jobTemplate"]["spec"]["activeDeadlineSeconds"] > 0, file
    claims = {r["metadata"]["name"] for _, r in deployment.resources() if r["kind"] == "PersistentVolumeClaim"}
    for name, _, pod in deployment.pods():
        assert pod["automountServiceAccountToken"] is False and pod["securityContext"]["runAsNonRoot"] is True, name
        used = {v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "persistentVolumeClaim" in v}
        assert used <= claims, f"{name}: {used}"
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            rights = container["securityContext"]
            assert rights["readOnlyRootFilesystem"] and not rights["allowPrivilegeEscalation"], name
            assert rights["capabilities"] == {"drop": ["ALL"]}, name
            assert {m["name"] for m in container["volumeMounts"]} <= {v["name"] for v in pod["volumes"]}, name
    listed = yaml.safe_load((DEPLOY / "kubernetes/kustomization.yaml").read_text())["resources"]
    there = {file.name for file, _ in deployment.resources()} - {"secret.example.yaml"}
    assert set(listed) == there, f"kustomization.yaml lists {listed}, there are {sorted(there)}"


def systemd(arguments) -> None:
    """systemd takes every unit, has no warning, and finds little to be exposed."""
    program = shutil.which("systemd-analyze")
    if program is None:
        print("skipped: systemd-analyze is not here", file=sys.stderr)
        return
    units = arguments.work / "units"
    shutil.copytree(DEPLOY / "systemd", units)
    for unit in units.glob("*.service"):
        unit.write_text(unit.read_text().replace("/usr/local/bin/mlops", str(arguments.mlops)))
    names = sorted(p for p in units.iterdir() if p.suffix in (".service", ".timer"))
    quiet(program, "verify", "--man=no", *names)
    for unit in units.glob("*.timer"):
        assert unit.with_suffix(".service").exists(), f"{unit.name} has no service"
    # Without a number of hardening lines the threshold must be passed: it measures something.
    threshold = ("security", "--offline=yes", f"--threshold={EXPOSURE}", "--no-pager")
    for service in units.glob("*.service"):
        done = run(program, *threshold, service)
        assert done.returncode == 0, f"{service.name}: {done.stdout[-200:]}{done.stderr}"
    (units / "mlops-.service.d/hardening.conf").write_text("")
    assert run(program, *threshold, units / "mlops-health.service").returncode != 0
    sysusers = shutil.which("systemd-sysusers")
    if sysusers and "--dry-run" in run(sysusers, "--help").stdout:
        done = run(sysusers, "--dry-run", f"--root={arguments.work}", units / "mlops.sysusers.conf")
        assert done.returncode == 0 and "user 'mlops'" in done.stderr, done


def prometheus(_) -> None:
    """promtool takes rules and configuration, and the rules alert when their test says they do."""
    folder = DEPLOY / "prometheus"
    rules = [r for group in yaml.safe_load((folder / "alerts.yaml").read_text())["groups"] for r in group["rules"]]
    tests = yaml.safe_load((folder / "alerts_test.yaml").read_text())["tests"]
    fired = {t["alertname"] for test in tests for t in test["alert_rule_test"] if t.get("exp_alerts")}
    assert {rule["alert"] for rule in rules} == fired, "an alert that no test sees"
    found = debian.program("promtool", "usr/bin/promtool")
    if found is None:
        return
    for what in ("check rules alerts.yaml", "check config prometheus.yaml", "test rules alerts_test.yaml"):
        done = run(found[0], *what.split(), cwd=folder)
        assert done.returncode == 0 and "SUCCESS" in done.stdout, f"promtool {what}: {done.stdout}{done.stderr}"


def is_shell(file: Path) -> bool:
    with open(file, "rb") as text:
        return re.match(rb"#!.*\b(ba|da)?sh\b", text.readline(200)) is not None


def scripts(_) -> None:
    """shellcheck finds nothing in any script of the project."""
    found = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = sorted(set(folders) - {"target", ".git", "__pycache__"})
        files = [Path(folder, name) for name in names]
        found += [f for f in files if f.is_file() and (f.suffix == ".sh" or is_shell(f))]
    assert {ROOT / ".ci/run", DEPLOY / "schedule.sh"} <= set(found), found
    quiet(BIN / "shellcheck", "--color=never", *found)


CHECKS = (images, compose, kubernetes, systemd, prometheus, scripts, lines, schedule, completions)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=[check.__name__ for check in CHECKS])
    parser.add_argument("--mlops", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        next(check for check in CHECKS if check.__name__ == arguments.what)(arguments)
    except (AssertionError, kubernetes_validate.ValidationError) as wrong:
        print(wrong, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
