# shellcheck shell=bash
# A stack before the reader comes: `stack RELEASE STORE`, served from /srv/mlflow/artifacts by the proxy, and filled.
psql -qX postgresql://mlops@db/postgres -c 'CREATE ROLE postgres SUPERUSER LOGIN'

mlflow_role() {
    psql -qX postgresql://postgres@db/postgres -c 'CREATE ROLE mlflow LOGIN' -c 'CREATE DATABASE mlflow OWNER mlflow'
}

stack() {
    pip install "mlflow==$1"
    printf '%s\n' "MLFLOW_BACKEND_STORE_URI=$2" "MLFLOW_ARTIFACTS_DESTINATION=/srv/mlflow/artifacts" > /etc/mlflow/mlflow.env
    systemctl start mlflow
    python3 "$ROOT/tests/guides/fill.py" http://mlflow:5000 /srv/mlflow/artifacts
}
