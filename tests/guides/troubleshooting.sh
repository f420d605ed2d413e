# shellcheck shell=bash
# Three databases beside the server's own: one with what pgloader leaves, one of a newer MLflow, one that is empty.
mlflow_role
stack 3.17.2 postgresql://mlflow@db/mlflow
psql -qX postgresql://postgres@db/postgres -c 'CREATE DATABASE from_pgloader OWNER mlflow' \
    -c 'CREATE DATABASE newer OWNER mlflow' -c 'CREATE DATABASE restored OWNER mlflow'
mlops migrate export postgresql://mlflow@db/mlflow --file store.tar -q > /dev/null
mlops migrate import store.tar --target postgresql://mlflow@db/from_pgloader -q > /dev/null
mlops migrate import store.tar --target postgresql://mlflow@db/newer -q > /dev/null
mlops migrate import store.tar --target /srv/mlflow/mlflow.db -q > /dev/null
psql -qX postgresql://mlflow@db/from_pgloader -c 'ALTER TABLE experiments ALTER experiment_id DROP DEFAULT' \
    -c 'DROP SEQUENCE experiments_experiment_id_seq' \
    -c 'ALTER TABLE registered_model_aliases DROP CONSTRAINT registered_model_alias_pk'
psql -qX postgresql://mlflow@db/newer -c "UPDATE alembic_version SET version_num = 'f4a9b2c7d1e6'"
truncate -s -100 store.tar
# A webhook whose secret the next process cannot read: the test's server has a key of its own until the guide sets one.
curl -fsS http://mlflow:5000/api/2.0/mlflow/webhooks -H 'Content-Type: application/json' -d '{"name": "ci",
    "url": "https://93.184.216.34/hook", "events": [{"entity": "MODEL_VERSION_TAG", "action": "DELETED"}], "secret": "secret"}'
