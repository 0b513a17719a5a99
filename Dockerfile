# One image for every service: the command says which (ingress, streams, sink, topics, migrate, …).
ARG PYTHON_IMAGE=python:3.12-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
# Behind a proxy or with a mirror, two build secrets, of which neither stays in the image: pip's configuration, and the
# certificates to trust (a file that is not there changes nothing).
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 SSL_CERT_FILE=/run/secrets/ca_certificates
WORKDIR /src
# What runs, in an environment of its own; the locks change seldom, so these layers are kept.
COPY requirements-server.lock requirements-build.lock ./
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf --mount=type=secret,id=ca_certificates \
    python -m venv /opt/eventpush \
 && /opt/eventpush/bin/pip install --require-hashes --only-binary :all: -r requirements-server.lock \
 && pip install --require-hashes --only-binary :all: -r requirements-build.lock
COPY pyproject.toml README.md LICENSE ./
COPY runtime runtime
COPY schemas schemas
COPY ingress ingress
COPY streams streams
COPY sinks sinks
COPY embedded embedded
COPY eventpush eventpush
COPY docs/benchmarks.json docs/benchmarks.json
RUN python -m hatchling build -t wheel -d /dist \
 && /opt/eventpush/bin/pip install --no-deps --no-index /dist/*.whl \
 && /opt/eventpush/bin/pip uninstall --yes pip

FROM ${PYTHON_IMAGE}
# No program of the base image may give its user more rights: nothing keeps a setuid or setgid bit.
RUN find / -xdev -type f -perm /6000 -exec chmod ug-s {} + \
 && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin eventpush \
 && install -d -o eventpush -g eventpush /var/lib/eventpush
COPY --from=build /opt/eventpush /opt/eventpush
ENV PATH=/opt/eventpush/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    EVENTPUSH_DATA_DIR=/var/lib/eventpush \
    EVENTPUSH_LOG_FORMAT=json \
    EVENTPUSH_INGRESS_HOST=0.0.0.0 \
    EVENTPUSH_METRICS_HOST=0.0.0.0 \
    HEALTH_URLS="http://127.0.0.1:9101/readyz http://127.0.0.1:9102/readyz \
http://127.0.0.1:9103/readyz http://127.0.0.1:9104/readyz"
USER 10001:10001
WORKDIR /var/lib/eventpush
EXPOSE 8080 9101 9102 9103 9104
# Each service has its own metrics port, and the container is healthy when one of them is ready. With other ports, or
# for a one-off command, set HEALTH_URLS or disable the check.
# The shell form fills in $HEALTH_URLS.
# hadolint ignore=DL3025
HEALTHCHECK --interval=10s --timeout=10s --start-period=60s --retries=3 \
  CMD exec python -m eventpush.healthcheck $HEALTH_URLS
STOPSIGNAL SIGTERM
ENTRYPOINT ["eventpush"]
CMD ["ingress"]
