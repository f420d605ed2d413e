# shellcheck shell=bash
mlflow_role
stack 3.17.2 postgresql://mlflow@db/mlflow
