# shellcheck shell=bash
mlflow_role
stack 2.9.2 postgresql://mlflow@db/mlflow
