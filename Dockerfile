# A worker: the package and what it needs at run time, in the locked versions. Build it with `docker compose build`.
FROM python:3.13-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
RUN python -m venv /venv
COPY requirements.lock requirements-run.lock ./
RUN /venv/bin/pip install --require-hashes -r requirements-run.lock
# What builds the wheel comes from the lock too, and stays in this stage.
RUN sed -n '/^setuptools==/,/[^\\]$/p' requirements.lock > build.lock && pip install --require-hashes -r build.lock
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY models models
COPY operators operators
COPY streams streams
RUN pip wheel --no-deps --no-build-isolation --wheel-dir dist . && /venv/bin/pip install --no-deps dist/*.whl

FROM python:3.13-slim
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1
RUN useradd --create-home --uid 10001 modelstream
COPY --from=build /venv /venv
WORKDIR /app
COPY examples examples
# Functions that a pipeline file names, such as examples.flights.features:departure, are looked up from here.
ENV PYTHONPATH=/app
USER modelstream
EXPOSE 6066
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:6066/', timeout=2)"]
CMD ["modelstream", "run", "examples/flights/pipeline.yaml", "--web-bind", "0.0.0.0", "--web-port", "6066"]
