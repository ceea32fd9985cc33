# Every command of the README and of .ci/run is here. VENV, PYTHON and PIP_ARGS may be set.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP_ARGS ?=
# Python compiles what it imports when it first does, and compiling all of torch takes half a minute;
# where it may not keep what it compiled, every process would do it again
LATER = $(if $(PYTHONDONTWRITEBYTECODE),,--no-compile)
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check $(LATER) --no-warn-conflicts $(PIP_ARGS)

.PHONY: help demo test extras storage check lint types imports docs bench chaos clean
help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 10

# one stamp per environment: made again when what defines it changes
$(BIN)/.paropt: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "paropt needs Python 3.11 or newer, not " + sys.version.split()[0] + "; set PYTHON=python3.12, say")'
	$(PYTHON) -m venv $(VENV)
	-$(INSTALL) 'pip>=24.1'  # an older one takes five times as long over so many packages
	$(INSTALL) -c constraints.txt -e .
	@touch $@

$(BIN)/.paropt-dev: $(BIN)/.paropt
	$(INSTALL) -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(BIN)/.paropt  ## a real search on a synthetic shop, ending in a paramfile
	$(BIN)/paropt launch --space paramspaces/demo.json --study demo --trials 16
	$(BIN)/paropt export demo --out runs/demo --overwrite

test: $(BIN)/.paropt-dev  ## the tests
	$(BIN)/pytest -m "not long" -n 3 --dist loadfile --no-loadscope-reorder

$(BIN)/.paropt-extras: $(BIN)/.paropt-dev
	$(INSTALL) -c constraints.txt -e '.[dev,extras]'
	@touch $@

extras: $(BIN)/.paropt-extras  ## the tests of what needs the extras: a real Ray, an object store, PgBouncer, …
	$(BIN)/pytest tests/extras

chaos: $(BIN)/.paropt-dev  ## the fault suite: 200 faults and more, some minutes; and the tests that take long
	$(BIN)/python tests/chaos/run.py
	$(BIN)/pytest -m long

storage: $(BIN)/.paropt-dev  ## the storage's tests on another PostgreSQL: POSTGRES=/usr/lib/postgresql/15/bin
	@test -x "$(POSTGRES)/initdb" || { echo "set POSTGRES to the directory of initdb and postgres" >&2; exit 2; }
	PAROPT_TEST_POSTGRES=$(POSTGRES) $(BIN)/pytest -m "not slow" tests/integration/test_leases.py tests/integration/test_study_trials.py tests/integration/test_study_resumed.py tests/integration/test_study_budget.py tests/integration/test_study_deletion.py tests/integration/test_postgres_storage.py tests/integration/test_upgrade.py tests/integration/test_status.py

bench: $(BIN)/.paropt-dev  ## the benchmarks in their short forms, some minutes; benchmarks/README.md has the long ones
	$(BIN)/python benchmarks/speed/gru4rec_speed.py --threads 1 --rounds 3 --configuration "retailrocket bpr-max"
	$(BIN)/python benchmarks/speed/sequence_speed.py --runs 3
	$(BIN)/python benchmarks/speed/ranking_speed.py --memory --items 200000
	$(BIN)/python benchmarks/speed/prepare_speed.py --events 1000000
	$(BIN)/python benchmarks/running/study_overhead.py --trials 300 --timed 10
	$(BIN)/python benchmarks/running/load.py --slots 1,4 --history 100 --seconds 5
	$(BIN)/python benchmarks/speed/embed_speed.py --vectors 50000 --rounds 1

lint: $(BIN)/.paropt-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(BIN)/.paropt-dev
	$(BIN)/mypy

imports: $(BIN)/.paropt-dev
	$(BIN)/lint-imports

docs: $(BIN)/.paropt  ## the pages that are made from the code
	$(BIN)/python docs/cli.py
	$(BIN)/python -m paropt.training.model_tables docs/models.md

check: lint types imports test  ## lint, types, import contracts, tests

clean:  ## remove the environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
