"""A second workspace of 3.17, whose names are those of the first one."""

from rest import Server

API = "/api/2.0/mlflow"


def fill(address: str, name: str) -> None:
    """Wants a server that runs with MLFLOW_ENABLE_WORKSPACES=true."""
    Server(address).post("/api/3.0/mlflow/workspaces", name=name, description="the other team – \\N")
    server = Server(address, {"X-MLFLOW-WORKSPACE": name})
    experiment = server.post(f"{API}/experiments/create", name="training")["experiment_id"]
    run = server.post(f"{API}/runs/create", experiment_id=experiment, run_name="theirs", start_time=1_700_000_000_000)[
        "run"
    ]
    server.post(
        f"{API}/runs/log-batch",
        run_id=run["info"]["run_id"],
        params=[{"key": "lr", "value": "1"}],
        metrics=[{"key": "loss", "value": 0.5, "timestamp": 1, "step": 1}],
    )
    server.post(f"{API}/registered-models/create", name="churn", tags=[{"key": "owner", "value": "bob"}])
    server.post(f"{API}/model-versions/create", name="churn", source="s3://bucket/theirs")
    server.post(f"{API}/registered-models/alias", name="churn", alias="champion", version="1")
