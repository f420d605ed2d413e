# MLflow's server with what it needs for PostgreSQL and S3; MLflow's own image has neither.
FROM python:3.11-slim-bookworm
RUN pip install --no-cache-dir mlflow==3.17.2 psycopg2-binary==2.9.11 boto3==1.44.5 \
    && useradd --uid 10002 --create-home mlflow
USER 10002
WORKDIR /home/mlflow
EXPOSE 5000
CMD ["mlflow", "server", "--host", "0.0.0.0", "--port", "5000"]
