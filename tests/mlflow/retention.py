#!/usr/bin/env python3
"""Old and young experiments and runs, and which of them a policy means, found out by code that is not the program's.

    ENV/bin/python retention.py --tracking-uri URL fill --seed N [--backend-store-uri URI]
    ENV/bin/python retention.py --tracking-uri URL oracle --rules JSON
    ENV/bin/python retention.py --tracking-uri URL state

`fill` makes a random store; the creation times of experiments and versions, which no client can set, are written into
the database. `oracle` prints the ids that go by each of these rules, and `state` the life of every run and experiment.
"""

import argparse
import fnmatch
import json
import os
import random
import time

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

import sqlalchemy
from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

DAY = 86_400_000
NOW = int(time.time() * 1000)


def version_of(store, chance: random.Random, model: str, run: str):
    """A version of a run: by its id, or - where the release lets one leave it out - by nothing but its source."""
    if chance.random() < 0.5:
        try:
            return store.create_model_version(model, f"runs:/{run}/model", None)
        except MlflowException:
            pass
    return store.create_model_version(model, f"runs:/{run}/model", run)


def fill(client: MlflowClient, seed: int, database: str) -> None:
    chance = random.Random(seed)
    store = client._get_registry_client().store
    models = ["alpha", "beta"]
    for name in models:
        client.create_registered_model(name)
    made = []
    for number in range(8):
        tags = {"team": chance.choice(["red", "blue"])}
        if number == 6:
            tags["mlops.keep"] = "true"
        experiment = client.create_experiment(f"{chance.choice(['scratch', 'forecast'])}-{number}", tags=tags)
        young = number % 4 == 3
        runs: list[str] = []
        for _ in range(chance.randint(0, 14)):
            age = chance.randint(0, 20) if young and chance.random() < 0.5 else chance.randint(31, 300)
            begun = NOW - age * DAY - chance.randint(0, DAY // 2)
            tags = {"mlflow.user": chance.choice(["ann", "bob"])}
            if runs and chance.random() < 0.35:
                tags["mlflow.parentRunId"] = chance.choice(runs)
            if chance.random() < 0.06:
                tags["mlops.keep"] = ""
            if chance.random() < 0.05:
                tags["ui.pinned"] = "true"
            name = chance.choice(["train", "tune", "evaluate"])
            run = client.create_run(experiment, start_time=begun, tags=tags, run_name=name).info.run_id
            runs.append(run)
            metrics = []
            if chance.random() < 0.7:
                value = chance.choice([chance.random(), float("nan")])
                metrics.append(Metric("rmse", value, begun + 1000, 0))
            if chance.random() < 0.1:
                # Measured long after the run began.
                metrics.append(Metric("late", 1.0, NOW - chance.randint(0, 60) * DAY, 1))
            client.log_batch(run, metrics, [Param("p", "1")], [RunTag("colour", chance.choice("rg"))])
            if chance.random() < 0.9:
                status = chance.choice(["FINISHED", "FINISHED", "FAILED", "KILLED"])
                client.set_terminated(run, status, begun + chance.randint(1, 3_600_000))
            if chance.random() < 0.12:
                model = chance.choice(models)
                made.append(version_of(store, chance, model, run))
        for run in runs:
            if chance.random() < 0.1:
                client.delete_run(run)
    for one in made:
        if chance.random() < 0.3:
            client.transition_model_version_stage(one.name, one.version, chance.choice(["Staging", "Production"]))
        elif chance.random() < 0.3:
            client.set_registered_model_alias(one.name, f"a{one.version}", one.version)
    if len(made) > 2:
        client.delete_model_version(made[0].name, made[0].version)
    with sqlalchemy.create_engine(database).begin() as connection:
        ago = NOW - 400 * DAY
        for statement in ("UPDATE experiments SET creation_time = :ago", "UPDATE model_versions SET creation_time = :ago"):
            connection.execute(sqlalchemy.text(statement), {"ago": ago})


def everything(client: MlflowClient, ids: list[str], view: int) -> list:
    found, token = [], None
    while ids:
        page = client.search_runs(ids, run_view_type=view, max_results=1000, page_token=token)
        found.extend(page)
        token = page.token
        if not token:
            break
    return found


def behind(client: MlflowClient) -> dict[str, bool]:
    """Runs that a version was made of, and whether one of those versions is in use."""
    found: dict[str, bool] = {}
    for model in client.search_registered_models():
        aliases = {str(v) for v in (model.aliases or {}).values()}
        for one in client.search_model_versions(f"name = '{model.name}'"):
            used = one.current_stage in ("Staging", "Production") or str(one.version) in aliases
            ids = {one.run_id} if one.run_id else set()
            if one.source.startswith("runs:/"):
                ids.add(one.source.split("/")[1])
            for run in ids:
                found[run] = found.get(run, False) or used
    return found


LAST: dict[str, int] = {}


class Judge:
    def __init__(self, client: MlflowClient, rules: dict):
        self.client, self.rules, self.behind = client, rules, behind(client)
        self.edge = NOW - rules["days"] * DAY
        self.include = rules.get("include", [])

    def last(self, run) -> int:
        """The last activity. Versions are all old here."""
        if run.info.run_id in LAST:
            return LAST[run.info.run_id]
        times = [run.info.start_time or 0, run.info.end_time or 0]
        for key in run.data.metrics:
            history = self.client.get_metric_history(run.info.run_id, key)
            times.append(max((m.step, m.timestamp, m.value) for m in history)[1])
        LAST[run.info.run_id] = max(times)
        return max(times)

    def protected(self, run) -> bool:
        tags = run.data.tags
        if run.info.run_id in self.behind:
            if self.behind[run.info.run_id] or "registered" not in self.include:
                return True
        if "mlops.keep" in tags and "keep" not in self.include:
            return True
        if "pinned" not in self.include and any(k.endswith("pinned") and v == "true" for k, v in tags.items()):
            return True
        return run.info.status in ("RUNNING", "SCHEDULED") and "running" not in self.include

    def named(self, name: str) -> bool:
        def fits(globs):
            return any(fnmatch.fnmatchcase(name, glob) for glob in globs)

        return (not self.rules.get("name") or fits(self.rules["name"])) and not fits(self.rules.get("exclude", []))

    def tagged(self, tags: dict) -> bool:
        return all(tags.get(k) == v for k, v in self.rules.get("tag", {}).items())

    def matches(self, run) -> bool:
        status, user = self.rules.get("status"), self.rules.get("user")
        return (
            self.named(run.info.run_name)
            and (not status or run.info.status in status)
            and (not user or run.data.tags.get("mlflow.user") in user)
            and self.tagged(run.data.tags)
        )

    def runs_of(self, experiment: str) -> list[str]:
        runs = {r.info.run_id: r for r in everything(self.client, [experiment], ViewType.ACTIVE_ONLY)}

        def ancestors(run):
            seen = []
            parent = run.data.tags.get("mlflow.parentRunId")
            while parent in runs and parent not in seen:
                seen.append(parent)
                parent = runs[parent].data.tags.get("mlflow.parentRunId")
            return seen

        chosen = {i for i, r in runs.items() if self.matches(r) or any(self.matches(runs[a]) for a in ancestors(r))}
        stays = {i for i in runs if i not in chosen or self.last(runs[i]) > self.edge or self.protected(runs[i])}
        roots = [i for i in chosen if not ancestors(runs[i])]
        roots.sort(key=lambda i: (-runs[i].info.start_time, i))
        newest = set(roots[: self.rules.get("keep_last", 0)])
        stays |= {i for i in runs if ([i] + ancestors(runs[i]))[-1] in newest}
        if "keep_best" in self.rules:
            count, sign = self.rules["keep_best"], 1 if self.rules.get("lower") else -1
            values = [(sign * runs[i].data.metrics.get("rmse", float("nan")), i) for i in chosen]
            stays |= {i for _, i in sorted(v for v in values if v[0] == v[0])[:count]}
        for i in list(stays):
            stays |= set(ancestors(runs[i]))
        return sorted(set(runs) - stays)

    def runs(self) -> list[str]:
        wanted = self.rules.get("experiment")
        found = []
        for one in self.client.search_experiments():
            if not wanted or any(fnmatch.fnmatchcase(one.name, glob) or glob == one.experiment_id for glob in wanted):
                found.extend(self.runs_of(one.experiment_id))
        return sorted(found)

    def experiments(self) -> list[str]:
        old, ages = [], []
        for one in self.client.search_experiments():
            if not self.named(one.name) or not self.tagged(one.tags):
                continue
            runs = everything(self.client, [one.experiment_id], ViewType.ALL)
            last = max([one.creation_time] + [self.last(r) for r in runs])
            ages.append((-last, one.experiment_id))
            active = [r for r in runs if r.info.lifecycle_stage == "active"]
            kept = ("mlops.keep" in one.tags and "keep" not in self.include) or (
                one.experiment_id == "0" and "default" not in self.include
            )
            if last <= self.edge and not kept and not any(self.protected(r) for r in active):
                old.append(one.experiment_id)
        newest = {i for _, i in sorted(ages)[: self.rules.get("keep_last", 0)]}
        return sorted(set(old) - newest)


def state(client: MlflowClient) -> dict:
    experiments = client.search_experiments(view_type=ViewType.ALL)
    runs = everything(client, [e.experiment_id for e in experiments], ViewType.ALL)
    return {
        "experiments": {e.experiment_id: e.lifecycle_stage for e in experiments},
        "runs": {r.info.run_id: r.info.lifecycle_stage for r in runs},
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tracking-uri", required=True)
    parser.add_argument("what", choices=["fill", "oracle", "state"])
    parser.add_argument("--seed", type=int)
    parser.add_argument("--backend-store-uri")
    parser.add_argument("--rules", type=json.loads)
    options = parser.parse_args()
    client = MlflowClient(options.tracking_uri)
    if options.what == "fill":
        fill(client, options.seed, options.backend_store_uri)
    elif options.what == "state":
        print(json.dumps(state(client)))
    else:
        judges = [Judge(client, rules) for rules in options.rules]
        print(json.dumps([judge.runs() if judge.rules["kind"] == "runs" else judge.experiments() for judge in judges]))


main()
