# Everything a person types here. `make demo` is the way in; `make test` is what CI runs.
SHELL := /bin/bash
VENV ?= .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell packaging/python)
PYTEST := $(BIN)/python -m pytest
# Most tests wait for others, so more of them than cores run side by side; a file's tests stay together.
WORKERS ?= 3
OURS := contract gateway cloud dashboards oee simulator tests/support tests/chaos
SEEDS ?= 20
SECS ?= 60
JOBS ?= 2
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help:  ## Show what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

.PHONY: demo
demo: $(VENV)/.installed-demo  ## Install into .venv and run the whole factory on this machine
	@exec $(BIN)/oee demo $(ARGS)

.PHONY: test
test: dev system check  ## Install what tests need; check style; run unit, port, integration and end-to-end tests
	@$(BIN)/python -m compileall -q $(OURS)  # hundreds of processes are started, at times told to keep no bytecode
	$(PYTEST) -q -n $(WORKERS) --dist loadfile --durations 15 tests/unit tests/ports tests/integration tests/e2e $(ARGS)

.PHONY: unit
unit: dev  ## Run the quick tests alone
	$(PYTEST) -q tests/unit $(ARGS)

.PHONY: check
check: dev  ## Style, formatting, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: format
format: dev  ## Put the code into the one format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: bench
bench: dev  ## Run every benchmark, one after the other
	@for file in benchmarks/*.py; do case $$file in */_*) ;; *) echo "== $$file"; $(BIN)/python $$file || exit 1;; esac; done

.PHONY: chaos
chaos: dev system  ## Play seeded fault schedules against real processes: make chaos SEEDS=200, or SEED=17 for one
	$(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED),--seeds $(SEEDS) --jobs $(JOBS)) $(ARGS)

.PHONY: fuzz
fuzz: dev  ## Throw damaged messages at every reader: make fuzz SECS=600
	$(BIN)/python -m tests.fuzz --secs $(SECS) $(ARGS)

.PHONY: wheels
wheels: dev  ## Build both wheels into dist/
	$(BIN)/python -m build --wheel --outdir dist .
	$(BIN)/python -m build --wheel --outdir dist packaging/edge

.PHONY: dev
dev: $(VENV)/.installed-dev

.PHONY: system
system:
	@packaging/system-packages mosquitto chromium pango node java libfaketime postgresql

.PHONY: clean
clean:  ## Remove the environment and everything built
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# A stamp per extra, renewed when the dependencies change, so that a second run starts at once.
$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer with venv is needed (Debian: apt-get install python3-venv), or name yours: make PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-demo: pyproject.toml | $(VENV)/bin/python
	@echo "Installing into $(VENV); the first time this takes a minute."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[demo]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	@echo "Installing what tests need into $(VENV)."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/.installed-demo
