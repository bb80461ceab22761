# `make train` and `make test` work first thing on a fresh clone: they make .venv and install what is needed.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.installed
S3 := .venv/s3-server/.installed

# Slow tests that start clusters, services and sweeps run beside all other slow tests: each half leaves a core idle.
CLUSTERS := tests/ray tests/serve tests/sweeps

.PHONY: train test test-all test-slow slow-clusters slow-others check format clean

train: $(READY)
	$(BIN)/raymeta train --workers 2

test: $(READY) $(S3)
	$(BIN)/pytest

test-all: test
	$(MAKE) test-slow

test-slow: $(READY) $(S3)
	$(MAKE) --jobs=2 --keep-going --output-sync=line slow-clusters slow-others

slow-clusters:
	$(BIN)/pytest -m slow -p no:cacheprovider $(CLUSTERS)

slow-others:
	$(BIN)/pytest -m slow -p no:cacheprovider $(CLUSTERS:%=--ignore=%)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache

# Constraints pin one tested set; a mark beside them says that it was installed whole.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "raymeta needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

$(S3): tests/support/s3_server.txt $(READY)
	$(PYTHON) -m venv .venv/s3-server
	.venv/s3-server/bin/python -m pip install --quiet -r tests/support/s3_server.txt
	touch $@
