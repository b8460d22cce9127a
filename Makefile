# make study   train, measure and report the study in config.yaml (STUDY=studies/paper.yaml for another)
#              (VERBOSE=1 shows all that Snakemake says, which else goes to a file)
# make test    the tests
# make lint    style of code and rules
# make redraw  statistics, figures and report from the tables alone; trains nothing
# make gpu     what a GPU is to show, in nine minutes, into gpu-results/ (PART=training for one part; benchmarks/gpu.py);
#              it installs nothing but the wheels that `make gpu-wheels` left in gpu-wheels/, here or elsewhere
#
# Needs Python 3.11 to 3.13 and a package index; PYTHON=python3.12 chooses another interpreter.

PYTHON ?= python3
STUDY ?= config.yaml
BIN := .venv/bin
# Twice quiet: of warnings there may be hundreds, and of errors all are shown.
PIP := $(BIN)/python -m pip --quiet --quiet --disable-pip-version-check
PINNED := $(PIP) install --constraint envs/pins.txt

.PHONY: study test lint redraw gpu gpu-wheels

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

gpu:
	@$(PYTHON) benchmarks/gpu.py

# What a machine lacks that has torch, JAX, NumPyro, pandas, PyArrow and scikit-learn, for Python 3.12 on Linux.
GPU_WHEELS ?= keras absl-py namex optree rich markdown-it-py mdurl pygments h5py \
	pydantic pydantic-core annotated-types typing-inspection typing-extensions pyyaml safetensors highspy mlxtend \
	scikit-image imageio lazy-loader tifffile foolbox eagerpy gitpython gitdb smmap requests urllib3 idna certifi charset-normalizer \
	pytest iniconfig pluggy hypothesis sortedcontainers

gpu-wheels: .venv/.ready
	@rm -rf gpu-wheels
	@$(PIP) download --constraint envs/pins.txt --no-deps --only-binary=:all: --python-version 3.12 --implementation cp --dest gpu-wheels \
		$(foreach glibc,2_28 2_27 2_17 2_12 2_5,--platform manylinux_$(glibc)_x86_64) --platform manylinux2014_x86_64 $(GPU_WHEELS)
	@du --apparent-size --human-readable gpu-wheels/*.whl | sort --human-numeric-sort
	@du --apparent-size --human-readable --total gpu-wheels | tail -1

.venv/.ready: pyproject.toml envs/pins.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { echo "deltaball needs Python 3.11 to 3.13; '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12"; exit 1; }
	@echo "Installing into .venv (a few minutes, once)"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@$(PINNED) --editable .
	@touch $@

.venv/.ready-dev: .venv/.ready
	@$(PINNED) --editable '.[dev]'
	@touch $@
