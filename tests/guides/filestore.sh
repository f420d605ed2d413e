# shellcheck shell=bash
# A file store as people have it, filled through MLflow's own client.
pip install mlflow==3.17.2
export PYTHONWARNINGS=ignore MLFLOW_DISABLE_TELEMETRY=true
"$(cat "$WORLD/tmp/python")" "$ROOT/tests/mlflow/filestore.py" --no-migration --folder /srv/mlflow --out /srv/mlflow/mlflow.db
