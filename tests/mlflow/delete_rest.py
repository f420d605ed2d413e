#!/usr/bin/env python3
"""ENV/bin/python delete_rest.py --tracking-uri URL: deletes every registered model, and every experiment but Default;
then makes a new one of each, for what is tried after that."""

import argparse

import surroundings

parser = argparse.ArgumentParser()
parser.add_argument("--tracking-uri", required=True)
options = parser.parse_args()
surroundings.clean(options.tracking_uri)
import mlflow  # noqa: E402

client = mlflow.MlflowClient()
for model in client.search_registered_models(max_results=100):
    for version in client.search_model_versions(f"name = '{model.name}'"):
        if version.current_stage in ("Production", "Staging"):
            client.transition_model_version_stage(model.name, version.version, "Archived")
    client.delete_registered_model(model.name)
for experiment in client.search_experiments():
    if experiment.name != "Default":
        client.delete_experiment(experiment.experiment_id)
experiment = client.create_experiment("after the deletion")
run = client.create_run(experiment)
client.create_registered_model("after the deletion")
client.create_model_version("after the deletion", f"{run.info.artifact_uri}/model", run.info.run_id)
