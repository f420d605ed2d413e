# shellcheck shell=bash
stack 3.4.0 sqlite:////srv/mlflow/mlflow.db
post() {
    curl -fsS "http://mlflow:5000/api/2.0/mlflow/$1" -H 'Content-Type: application/json' -d "$2"
}
churn=$(post experiments/create '{"name": "churn"}' | grep -o '[0-9]*')
post experiments/delete "{\"experiment_id\": \"$churn\"}"
