# An application beside a sigward: clients that sign nothing, or sign with dummy keys. It has no credentials.
ARG BASE=debian:trixie-slim
FROM ${BASE}
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ca-certificates curl python3-boto3 \
    && rm -rf /var/lib/apt/lists/*
USER 65531:65531
