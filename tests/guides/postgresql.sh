# shellcheck shell=bash
stack 3.17.2 sqlite:////srv/mlflow/mlflow.db
