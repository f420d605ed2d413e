# mlops in a container.
#
#     docker build -t mlops .                              the program, a shell and certificates
#     docker build -t mlops:rehearse --target rehearse .   with PostgreSQL's server too
#
# Backups, drills, migrations and restores need no program of PostgreSQL's: mlops speaks to servers itself, and
# drills in a SQLite file or on the server that --drill-on names. Only `mlops migrate sqlite-to-pg --rehearse` and
# `mlops demo` start a PostgreSQL of their own; the target `rehearse` is for them. Debian and not an image without a
# shell, because a shell runs the commands of probes and gates, and deploy/schedule.sh.

ARG RUST=1.89
ARG DEBIAN=bookworm

FROM rust:${RUST}-slim-${DEBIAN} AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin mlops \
    && install -D target/release/mlops /out/mlops

FROM debian:${DEBIAN}-slim AS base
# Certificates are wanted as they are today, so no version is named.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 mlops \
    && useradd --uid 10001 --gid mlops --home-dir /var/lib/mlops --no-create-home --shell /usr/sbin/nologin mlops \
    && install -d -o mlops -g mlops /var/lib/mlops /var/lib/mlops/metrics /backup
COPY --from=build /out/mlops /usr/local/bin/mlops
COPY --chmod=755 deploy/schedule.sh /usr/local/bin/mlops-schedule
COPY LICENSE /usr/share/doc/mlops/LICENSE
ENV HOME=/var/lib/mlops MLOPS_STATE_DIR=/var/lib/mlops
# What is remembered between runs, and the place of backups where it is a folder.
VOLUME ["/var/lib/mlops", "/backup"]
USER 10001:10001
# Not a server: there is nothing to ask. Services that run mlops by the clock say in compose.yaml what is asked of them.
HEALTHCHECK NONE
ENTRYPOINT ["mlops"]
CMD ["--help"]

FROM base AS rehearse
USER 0:0
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends postgresql-common \
    && sed -i 's/^#\?create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf \
    && apt-get install -y --no-install-recommends postgresql \
    && rm -rf /var/lib/apt/lists/*
USER 10001:10001

FROM base AS mlops
