# A worker: the package and what it needs at run time, in the locked versions. Build it with `docker compose build`.
FROM python:3.13-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
COPY requirements-build.lock requirements-run.lock ./
# Built without isolation: what builds comes from a lock too, and stays in this stage.
RUN pip install --require-hashes -r requirements-build.lock
RUN pip wheel --require-hashes --no-build-isolation --wheel-dir wheels -r requirements-run.lock
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY models models
COPY operators operators
COPY streams streams
COPY examples examples
RUN pip wheel --no-deps --no-build-isolation --wheel-dir wheels .
RUN python -m venv /venv && /venv/bin/pip install --no-deps wheels/*.whl

FROM python:3.13-slim
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1
RUN useradd --create-home --uid 10001 modelstream
COPY --from=build /venv /venv
WORKDIR /app
COPY examples examples
USER modelstream
EXPOSE 6066
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:6066/health/live', timeout=2)"]
CMD ["modelstream", "run", "examples/flights/pipeline.yaml", "--web-bind", "0.0.0.0", "--web-port", "6066"]
