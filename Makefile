# `make up` and `make test` need nothing but Python 3.11-3.14 and make.
PYTHON ?= $(shell for p in python3.12 python3.13 python3.14 python3.11 python3; do \
	$$p -c pass 2>/dev/null && command -v $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all:
# pip's last line names a package, and not what to do.
NOT_INSTALLED = { echo "the packages could not be installed: check the network (pip's own lines above say more) and run make again; behind a proxy set HTTPS_PROXY, and PIP_INDEX_URL if you have a mirror" >&2; exit 1; }

.PHONY: up unit coverage test containers containers-drills containers-clean lint docs bench soak lock clean

up: $(VENV)/.runtime
	@exec $(BIN)/eventpush up

# No Kafka, no ClickHouse, under a minute on two cores; tests of one file stay in one process.
UNIT := tests/unit -m "not load" --numprocesses=auto --dist=loadfile
unit: $(VENV)/.dev
	$(BIN)/python -m pytest $(UNIT) $(ARGS)

# Of the unit tests in their own processes: what only integration and fault tests reach counts as missed.
coverage: $(VENV)/.dev
	$(BIN)/python -m pytest $(UNIT) --cov --cov-report=term $(ARGS)

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(ARGS)

# The image and the Compose file on a Docker Engine: the one that is there, or one in .containers/ (Linux, as root).
containers: $(VENV)/.dev
	tests/containers/engine.sh run $(MAKE) --no-print-directory containers-drills
containers-drills: $(VENV)/.dev
	$(BIN)/python -m tests.containers.images
	$(BIN)/python -m pytest -v -m containers tests/containers $(ARGS)

containers-clean:
	tests/containers/engine.sh remove

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/codespell
	$(BIN)/yamllint --strict .
	$(BIN)/hadolint Dockerfile tests/containers/stand_ins/Dockerfile

# Fill the generated tables of the documents from the code.
docs: $(VENV)/.dev
	$(BIN)/python -m eventpush.reference

bench: $(VENV)/.bench
	$(BIN)/python -m bench $(ARGS)

soak: $(VENV)/.dev
	$(BIN)/python -m pytest -m fuzz --hypothesis-profile=soak
	$(BIN)/python -m tests.faults.soak $(ARGS)

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "eventpush needs Python 3.11 to 3.14, and there is no python3 on PATH: install one, or run make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) tools/check_machine.py
	@echo "creating $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: $(VENV)/bin/python requirements.lock pyproject.toml
	@echo "installing the pinned packages (about 400 MB the first time; some minutes on a slow line)"
	@$(PIP) -r requirements.lock || $(NOT_INSTALLED)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements-dev.lock
	@$(PIP) -r requirements-dev.lock || $(NOT_INSTALLED)
	@touch $@

# The peers that the benchmark compares with pin older libraries than ours: they live in an environment of their own.
$(VENV)/.bench: $(VENV)/.dev requirements-bench.lock
	@$(PYTHON) -m venv $(VENV)/peers
	@$(VENV)/peers/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements-bench.lock
	@touch $@

# Renew the locks: hashes, no addresses.
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links
lock:
	$(LOCK) --extra embedded --extra console --group build -o requirements.lock pyproject.toml
	$(LOCK) --extra embedded --extra console --group build --group dev -c requirements.lock -o requirements-dev.lock pyproject.toml
	$(LOCK) -c requirements.lock -o requirements-server.lock pyproject.toml
	$(LOCK) -c requirements.lock --group build -o requirements-build.lock
	$(LOCK) -o requirements-bench.lock requirements-bench.in

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage dist
