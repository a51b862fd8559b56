# Everything runs in .venv/, installed once from requirements.lock. `make` alone lists the targets.
PYTHON ?= python3
UV ?= uv
PORT ?= 9092
EVENTS ?=
ARGS ?=
WORKERS ?= 3
ROWS ?=
SEED ?=
MINUTES ?= 60
JSON ?=

BIN := .venv/bin
INSTALLED := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help demo replay-quick test lint faults soak bench bench-full bench-batching bench-cache kafka lock

help: ## Say what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 18

demo: $(INSTALLED) ## Score 336,776 real flights on an embedded broker; EVENTS=20000 for fewer, ARGS=--verify for more
	@$(BIN)/modelstream demo $(if $(EVENTS),--events $(EVENTS)) $(ARGS)

replay-quick: $(INSTALLED) ## Replay 5,000 flights at full speed on an embedded broker, and measure; JSON=FILE for the result
	@$(BIN)/python examples/flights/data.py --limit 5000 | \
		$(BIN)/modelstream replay examples/flights/pipeline.yaml - --broker embedded $(if $(JSON),--json "$(JSON)") $(ARGS)

# Most tests wait for processes: three at a time keep two processors busy.
test: $(INSTALLED) ## Run the tests, on Apache Kafka where Java and Maven are; ARGS="-k ledger" for some, WORKERS=0 one by one
	FAULT_SCALE=quick $(BIN)/pytest -n $(WORKERS) --dist worksteal $(ARGS)

lint: $(INSTALLED) ## Check style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

faults: $(INSTALLED) ## Kill, stop and starve real processes, and count what was lost; ROWS=F03,F12 for some, SEED=7 for other moments
	FAULT_ROWS="$(ROWS)" FAULT_SEED="$(SEED)" $(BIN)/pytest tests/faults $(ARGS)

soak: $(INSTALLED) ## One random fault after the other for MINUTES=60; memory, descriptors and what was lost at the end
	FAULT_SCALE=soak SOAK_MINUTES="$(MINUTES)" FAULT_SEED="$(SEED)" $(BIN)/pytest -s tests/faults $(ARGS)

bench: $(INSTALLED) ## Compare with a hand-written loop and six peers in ten minutes; ARGS="--systems loop,modelstream" for some
	@$(BIN)/python benchmarks/suite.py $(ARGS)

bench-full: $(INSTALLED) ## All workloads, peers and rates, for hours, into benchmarks/results/; ARGS="--sections latency" for a part
	@$(BIN)/python benchmarks/suite.py --full $(ARGS)

bench-batching: $(INSTALLED) ## Compare target_p99_ms with static batch sizes and waits; ARGS="--quick --json FILE" for a minute
	@$(BIN)/python benchmarks/batching.py $(ARGS)

bench-cache: $(INSTALLED) ## What the prediction cache gives and costs, on a Redis of its own; ARGS="--quick --json FILE"
	@$(BIN)/python benchmarks/cache.py $(ARGS)

kafka: $(INSTALLED) ## Run Apache Kafka on 127.0.0.1:9092 until Ctrl-C; PORT=19092 for another port
	@$(BIN)/python tests/support/kafka_server.py --port $(PORT)

LOCK := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

# All that development needs; of it what a worker needs, for the Dockerfile; what builds those that come as source; and
# what the benchmark's peers need in environments of their own.
lock: ## Resolve the dependencies into the lock files, with uv; ARGS=--upgrade for newer versions
	$(LOCK) --output-file requirements.lock pyproject.toml --all-extras --group build $(ARGS)
	$(LOCK) --output-file requirements-run.lock pyproject.toml --constraint requirements.lock
	$(LOCK) --output-file requirements-build.lock --group build --constraint requirements.lock
	for input in benchmarks/requirements/*.in; do \
	  $(LOCK) --output-file $${input%.in}.lock $$input $(ARGS) || exit 1; \
	done

PIP_INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check

$(INSTALLED): pyproject.toml requirements.lock requirements-build.lock
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 14) else "modelstream needs Python 3.11, 3.12 or 3.13, and this is %d.%d; name another: make PYTHON=python3.12" % v)'
	@echo "Installing into .venv/, once: one to two minutes"
	@$(PYTHON) -m venv .venv
	@$(PIP_INSTALL) --require-hashes -r requirements-build.lock
	@$(PIP_INSTALL) --require-hashes --no-build-isolation -r requirements.lock
	@$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@
