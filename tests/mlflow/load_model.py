#!/usr/bin/env python3
"""Every version of a registered model, loaded and asked as its users do.

    ENV/bin/python load_model.py --tracking-uri URL --model NAME [--object-store FILE]

Prints a JSON list: for each version its number, the signature's inputs, the metadata, and what it predicts for 1 and 2.
"""

import argparse
import json

import surroundings


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tracking-uri", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--object-store")
    options = parser.parse_args()
    surroundings.clean(options.tracking_uri, options.object_store)
    import mlflow
    import pandas
    from mlflow.tracking import MlflowClient

    surroundings.quiet()
    told = []
    versions = MlflowClient().search_model_versions(f"name = '{options.model}'")
    for version in sorted(versions, key=lambda v: int(v.version)):
        model = mlflow.pyfunc.load_model(f"models:/{options.model}/{version.version}")
        predicted = model.predict(pandas.DataFrame({"x": [1.0, 2.0]}))
        inputs = [column.name for column in model.metadata.get_input_schema().inputs]
        told.append([int(version.version), inputs, model.metadata.metadata, list(predicted)])
    print(json.dumps(told))


if __name__ == "__main__":
    main()
