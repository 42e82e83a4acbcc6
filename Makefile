# Needs only make and Python >= 3.11 with pip and venv. `make` lists what there is.

# make test DJANGO=6.0 PYTHON=python3.12   another version beside the usual one, in .venv-6.0
VENV ?= .venv$(addprefix -,$(DJANGO))
export PYTHON
RUN := $(VENV)/bin/python

.DEFAULT_GOAL := help
.PHONY: help demo test django-suite ducklake-test lint format types imports check build bench pin clean

help:  ## List the targets
	@awk -F ':.*  ## ' '/^[a-z-]+:.*  ## / {printf "  make %-13s %s\n", $$1, $$2}' Makefile

$(VENV)/.levada-%: pyproject.toml constraints.txt scripts/make_venv.py
	@python=$$(scripts/find-python) && "$$python" scripts/make_venv.py $(VENV) $* $(if $(DJANGO),--django $(DJANGO))

demo: $(VENV)/.levada-demo  ## Run the demo; options: make demo ARGS="--rows 50000 --no-browser"
	@$(RUN) -m levada demo $(ARGS)

test: $(VENV)/.levada-dev  ## Run the tests, with SQLite and with PostgreSQL; ARGS go to pytest
	@$(RUN) scripts/run_tests.py $(ARGS)

django-suite: $(VENV)/.levada-suite  ## Run Django's own tests on DuckDB; APPS="queries lookup" for some
	@$(RUN) -m tests.django_suite $(APPS) $(ARGS)

ducklake-test: $(VENV)/.levada-dev  ## Run the tests of lakes, on the newest DuckDB with packaged extensions
	@$(RUN) -m pip install --quiet --no-deps --upgrade --target .ducklake --requirement tests/ducklake.txt
	@PYTHONPATH=.ducklake $(RUN) scripts/with_postgres.py $(RUN) -m pytest tests/integration/test_ducklake.py $(ARGS)

check: lint imports types  ## Everything that reads the code without running it

lint: $(VENV)/.levada-dev  ## Check style and format
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .

format: $(VENV)/.levada-dev  ## Mend style and format
	@$(RUN) -m ruff check --fix .
	@$(RUN) -m ruff format .

imports: $(VENV)/.levada-dev  ## Check the import rule of the folder tree
	@$(VENV)/bin/lint-imports

types: $(VENV)/.levada-dev  ## Check types
	@$(RUN) -m mypy

build: $(VENV)/.levada-dev  ## Build the wheel into dist/
	@$(RUN) -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

bench: $(VENV)/.levada-dev  ## Measure everything; takes long, wants a quiet machine
	@$(RUN) scripts/with_postgres.py $(RUN) -m bench $(ARGS)

pin: $(VENV)/.levada-dev  ## Write constraints.txt again with the newest versions
	@$(RUN) scripts/pin.py $(or $(PYTHONS),python3.11 python3.12 python3.13)

clean:  ## Remove the virtual environment, builds and the demo's data
	rm -rf $(VENV) .venv-* build dist .django-suite .ducklake .levada-demo .mypy_cache .ruff_cache .pytest_cache
