#!/usr/bin/env python3
"""Fills a tracking server with rows in every table that its release lets a client fill.

    ENV/bin/python fill.py --tracking-uri URL --artifact-dir DIR [--backend-store-uri URI]

Works through the client of the release that this Python has, and over raw REST where the client lacks a call. The
content is the same each time, but for ids and creation times, which are the server's, and the name of the user.

    ENV/bin/python fill.py --tracking-uri URL --artifact-dir DIR --workspace NAME

makes a second workspace instead, on a server that runs with MLFLOW_ENABLE_WORKSPACES=true. After that, the store no
longer opens in a server without workspaces.
"""

import argparse
import json
import os
import time

import fill_workspace
import surroundings


def main() -> None:
    parser = argparse.ArgumentParser(description="fill an MLflow server")
    parser.add_argument("--tracking-uri", required=True)
    parser.add_argument("--artifact-dir", required=True, help="absolute; for the experiment with a location of its own")
    parser.add_argument(
        "--backend-store-uri",
        help="the same store as the server's; without it the tables that only background jobs of 3.17 write stay empty",
    )
    parser.add_argument("--workspace", help="make this workspace of 3.17 and fill nothing but it")
    options = parser.parse_args()
    if options.workspace:
        fill_workspace.fill(options.tracking_uri, options.workspace)
    else:
        print(json.dumps(fill(options)))


def fill(options: argparse.Namespace) -> dict:
    """Everything but a second workspace; what the caller's environment says of MLflow does not count."""
    surroundings.clean(options.tracking_uri)
    import mlflow

    from fill_core import Core
    from rest import Server

    surroundings.quiet()
    started = time.monotonic()
    server = Server(options.tracking_uri)
    core = Core(mlflow.MlflowClient(options.tracking_uri), os.path.abspath(options.artifact_dir))
    core.fill()
    if server.version() >= (3, 0):
        from fill_3 import Newer

        newer = Newer(core, server)
        newer.fill()
    if server.version() >= (3, 17):
        from fill_3_17 import Newest

        Newest(newer).fill(options.backend_store_uri)
    return {
        "experiments": len(core.experiments),
        "runs": len(core.runs),
        "seconds": round(time.monotonic() - started, 1),
    }


if __name__ == "__main__":
    main()
