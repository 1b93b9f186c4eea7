PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
EXTRAS := extract,extractors,compare,first-stage,tracing,recipes,heif,cuda,dev
.DEFAULT_GOAL := run

.PHONY: help run test test-all lint types install lock openapi clean

help:  ## List these targets
	@sed -n 's/^\([a-z-]*\):.*##/\1:/p' Makefile | sort

run: $(INSTALLED)  ## The service on port 8000 with the embedded store and the sample gallery
	$(BIN)/locore serve --sample

# mypy has one core's worth of work: the tests do not wait for it, and its words come last.
test: lint  ## Lint, types, all quick tests
	$(BIN)/mypy > $(VENV)/types.txt 2>&1 & types=$$!; \
	$(BIN)/pytest --numprocesses 3 --dist loadfile; failed=$$?; \
	wait $$types || failed=1; cat $(VENV)/types.txt; exit $$failed

test-all: test  ## Also slow tests, with engines and a browser, for which it installs Debian packages (as root)
	sh tests/slow/install_browser.sh
	sh tests/slow/install_deploy.sh
	sh tests/slow/install_ray.sh
	$(BIN)/pytest -m slow

lint: $(INSTALLED)  ## Rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)  ## mypy --strict
	$(BIN)/mypy

install: $(INSTALLED)  ## Everything, into .venv

$(INSTALLED): pyproject.toml client/pyproject.toml constraints.txt deploy/container/mamba.sh
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable client --editable '.[$(EXTRAS)]'
	sh deploy/container/mamba.sh $(BIN)/pip --quiet
	touch $@

lock:  ## Write the versions of a fresh environment to constraints.txt
	rm -rf $(VENV) && $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable client --editable '.[$(EXTRAS)]'
	sh deploy/container/mamba.sh $(BIN)/pip --quiet
	$(BIN)/pip freeze --exclude-editable | sed 's/^\(torch==[0-9.]*\)+.*/\1/' > constraints.txt
	touch $(INSTALLED)

openapi: $(INSTALLED)  ## Write docs/openapi.json again
	$(BIN)/locore openapi > docs/openapi.json

clean:  ## Remove the environment and all caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
