"""What of its environment a test's MLflow sees: the server it is told of and an object store, nothing of the caller."""

import json
import logging
import os
import warnings
from pathlib import Path


def s3(object_store: str | Path) -> dict[str, str]:
    """Variables for the store that `object_store.py` wrote into that file; no file of the user's is read."""
    told = json.loads(Path(object_store).read_text())
    return {
        "MLFLOW_S3_ENDPOINT_URL": told["url"],
        "AWS_ACCESS_KEY_ID": told["id"],
        "AWS_SECRET_ACCESS_KEY": told["secret"],
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


def clean(tracking_uri: str, object_store: str | None = None) -> None:
    """To be called before MLflow is imported, which reads some variables once."""
    for name in list(os.environ):
        if name.startswith(("MLFLOW_", "AWS_")) or name.lower().endswith("_proxy"):
            del os.environ[name]
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    os.environ["MLFLOW_TRACKING_URI"] = tracking_uri
    # Past the proxy 3.17 asks S3 itself with a signature in the address, which moto's check of rights does not know.
    os.environ["MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD"] = "false"
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "2"  # as it is, a request that the server fails takes minutes
    os.environ |= {"MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0", "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0"}
    os.environ |= s3(object_store) if object_store else {}
    warnings.simplefilter("ignore", FutureWarning)  # of stages, which the tests need as long as servers have them


def quiet() -> None:
    """To be called after MLflow is imported, which sets its loggers up."""
    logging.getLogger("mlflow").setLevel(logging.ERROR)
