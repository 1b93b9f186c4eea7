PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: run test test-all lint types install lock openapi clean

run: $(INSTALLED)  ## The service on port 8000 with the embedded store and the sample gallery
	$(BIN)/locore serve --sample

test: lint types  ## Lint, types, all tests
	$(BIN)/pytest --numprocesses 3 --dist loadfile

test-all: test  ## And those that start engines and a browser, for which it installs Debian packages (as root)
	sh tests/slow/install_browser.sh
	sh tests/slow/install_deploy.sh
	sh tests/slow/install_ray.sh
	$(BIN)/pytest -m slow

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

install: $(INSTALLED)

$(INSTALLED): pyproject.toml client/pyproject.toml constraints.txt deploy/container/mamba.sh
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable client --editable '.[extract,extractors,compare,first-stage,tracing,recipes,heif,cuda,dev]'
	sh deploy/container/mamba.sh $(BIN)/pip --quiet
	touch $@

lock:  ## Write the versions of a fresh environment to constraints.txt
	rm -rf $(VENV) && $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable client --editable '.[extract,extractors,compare,first-stage,tracing,recipes,heif,cuda,dev]'
	sh deploy/container/mamba.sh $(BIN)/pip --quiet
	$(BIN)/pip freeze --exclude-editable | sed 's/^\(torch==[0-9.]*\)+.*/\1/' > constraints.txt
	touch $(INSTALLED)

openapi: $(INSTALLED)  ## Write docs/openapi.json anew
	$(BIN)/locore openapi > docs/openapi.json

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
