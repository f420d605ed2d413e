#!/usr/bin/env python3
"""ENV/bin/python delete_experiment.py --tracking-uri URL --id ID: deletes an experiment, as a person who tidies up."""

import argparse

from mlflow.tracking import MlflowClient

parser = argparse.ArgumentParser()
parser.add_argument("--tracking-uri", required=True)
parser.add_argument("--id", required=True)
options = parser.parse_args()
MlflowClient(options.tracking_uri).delete_experiment(options.id)
