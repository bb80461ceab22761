# `make train` and `make test` work first thing on a fresh clone: they make .venv and install what is needed.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.installed
S3 := .venv/s3-server/.installed

# Tests run in two halves beside each other, since each leaves a core idle: here are the first half's folders.
HALF := tests/engine tests/models tests/ray tests/runs tests/serve tests/sweeps tests/use
SLOW_HALF := tests/ray tests/serve tests/sweeps
HALVES := $(MAKE) --jobs=2 --keep-going --output-sync=line
PYTEST := $(BIN)/pytest -p no:cacheprovider

.PHONY: train test first-half second-half test-all test-slow slow-first-half slow-second-half check format clean

train: $(READY)
	$(BIN)/raymeta train --workers 2

test: $(READY) $(S3)
	$(HALVES) first-half second-half

first-half:
	$(PYTEST) $(HALF)

second-half:
	$(PYTEST) $(HALF:%=--ignore=%)

test-all: test
	$(MAKE) test-slow

test-slow: $(READY) $(S3)
	$(HALVES) slow-first-half slow-second-half

slow-first-half:
	$(PYTEST) -m slow $(SLOW_HALF)

slow-second-half:
	$(PYTEST) -m slow $(SLOW_HALF:%=--ignore=%)

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
