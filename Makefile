# make study   train, measure and report the study in config.yaml (STUDY=studies/paper.yaml for another)
#              (VERBOSE=1 shows all that Snakemake says, which else goes to a file)
# make test    the tests
# make lint    style of code and rules
# make redraw  statistics, figures and report from the tables alone; trains nothing
#
# Needs Python 3.11 to 3.13 and a package index; PYTHON=python3.12 chooses another interpreter.

PYTHON ?= python3
STUDY ?= config.yaml
BIN := .venv/bin
# Twice quiet: of warnings there may be hundreds, and of errors all are shown.
PINNED := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --constraint envs/pins.txt

.PHONY: study test lint redraw

study: .venv/.ready
	@$(BIN)/deltaball study --study "$(STUDY)" $(if $(VERBOSE),--verbose)

redraw: .venv/.ready
	@$(BIN)/deltaball redraw --study "$(STUDY)"

test: .venv/.ready-dev
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

lint: .venv/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint

.venv/.ready: pyproject.toml envs/pins.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { echo "deltaball needs Python 3.11 to 3.13; '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12"; exit 1; }
	@echo "Installing into .venv (a few minutes, once)"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@$(PINNED) --editable .
	@touch $@

.venv/.ready-dev: .venv/.ready
	@$(PINNED) --editable '.[dev]'
	@touch $@
