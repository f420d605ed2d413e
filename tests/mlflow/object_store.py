#!/usr/bin/env python3
"""An object store that speaks S3, for a test: moto's server, with one user who may do everything below one bucket.

    ENV/bin/python object_store.py --ready-file FILE [--empty] [--certificate FILE --key FILE]

Serves on a free port of 127.0.0.1, makes the buckets `artifacts` and `forbidden`, the first with objects unless --empty
says so, checks signatures and rights from then on, and writes {"url", "id", "secret"} into FILE (whole or not at all).
It ends when its stdin is closed.
"""

import argparse
import json
import os
import sys
import threading
from pathlib import Path

os.environ.pop("AWS_PROFILE", None)
os.environ |= {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull}

import boto3  # noqa: E402
from botocore.config import Config  # noqa: E402
from moto import settings  # noqa: E402
from moto.core.authorization import ActionAuthenticatorMixin  # noqa: E402
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app  # noqa: E402
from werkzeug.serving import make_server  # noqa: E402

POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": "s3:*", "Resource": ["arn:aws:s3:::artifacts", "arn:aws:s3:::artifacts/*"]},
        {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "arn:aws:s3:::forbidden"},
        {"Effect": "Allow", "Action": "s3:*", "Resource": ["arn:aws:s3:::missing", "arn:aws:s3:::missing/*"]},
    ],
}


def prepare(url: str, empty: bool) -> dict[str, str]:
    """Buckets, the user and a key of its own; then moto begins to check."""
    own = {
        "endpoint_url": url,
        "region_name": "us-east-1",
        "aws_access_key_id": "setup",
        "aws_secret_access_key": "setup",
        "verify": False,
        "config": Config(proxies={}),
    }
    s3 = boto3.client("s3", **own)
    for bucket in ("artifacts", "forbidden"):
        s3.create_bucket(Bucket=bucket)
    if not empty:
        fill(s3)
    iam = boto3.client("iam", **own)
    iam.create_user(UserName="mlflow")
    iam.put_user_policy(UserName="mlflow", PolicyName="artifacts", PolicyDocument=json.dumps(POLICY))
    key = iam.create_access_key(UserName="mlflow")["AccessKey"]
    settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
    ActionAuthenticatorMixin.request_count = 1
    return {"url": url, "id": key["AccessKeyId"], "secret": key["SecretAccessKey"]}


def fill(s3) -> None:
    for number in range(1100):
        s3.put_object(Bucket="artifacts", Key=f"many/{number % 10}/{number}", Body=b"x" * 10)
    s3.put_object(Bucket="artifacts", Key="root/1/model/MLmodel", Body=b"x")
    s3.put_object(Bucket="artifacts", Key="rooted/other", Body=b"not below root")
    for key, body in {"plain": b"x", "a//b": b"x", "folder/": b"", "full/": b"x", "tab\tin it": b"x"}.items():
        s3.put_object(Bucket="artifacts", Key=f"odd/{key}", Body=body)


def main() -> None:
    parser = argparse.ArgumentParser(description="an object store for a test")
    parser.add_argument("--ready-file", required=True, type=Path)
    parser.add_argument("--empty", action="store_true")
    parser.add_argument("--certificate")
    parser.add_argument("--key")
    options = parser.parse_args()
    context = (options.certificate, options.key) if options.certificate else None
    app = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, app, threaded=True, ssl_context=context)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    told = prepare(f"{'https' if context else 'http'}://localhost:{server.server_port}", options.empty)
    unfinished = options.ready_file.with_name(options.ready_file.name + ".new")
    unfinished.write_text(json.dumps(told))
    unfinished.rename(options.ready_file)
    sys.stdin.read()


if __name__ == "__main__":
    main()
