# The interpreter that the virtual environment is made with, and where it is made.
PYTHON ?= python3
VENV ?= .venv
# cpu: PyTorch's own build without CUDA; nothing: the build that pip finds, which on Linux is the one with CUDA.
TORCH ?=
ifneq ($(filter-out cpu,$(TORCH)),)
$(error TORCH=$(TORCH): expected cpu, or nothing)
endif
CPU_TORCH = --index-url https://download.pytorch.org/whl/cpu

BIN = $(VENV)/bin
STAMP = $(VENV)/.limask-installed
PIP = $(BIN)/python -m pip --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help venv test lint check demo docs options format clean

help:
	@echo 'make venv     virtual environment in $(VENV) with the tested versions of everything'
	@echo 'make test     run the tests (ARGS="-k mask -x" is passed on to pytest)'
	@echo 'make lint     ruff check, ruff format --check, mypy, hadolint'
	@echo 'make check    lint and test'
	@echo 'make format   sort imports, apply safe fixes, reformat'
	@echo 'make demo     train three arms on one battle (the campaign demo) and report on them'
	@echo 'make docs     build the documentation in site/ (open site/index.html)'
	@echo 'make options  write the options of limask/config/options.py into config/algs and docs/options.md'
	@echo 'make clean    remove builds and caches (not $(VENV))'
	@echo
	@echo 'PYTHON=python3.12 and VENV=folder choose the interpreter and the environment.'
	@echo 'TORCH=cpu takes the build of torch without CUDA, when the environment is made.'

venv: $(STAMP)

# pymarlzooplus and pysc2 are installed without their dependencies: setup.py says why.  pip would name them
# as conflicts each time the environment is brought up to date, hence --no-warn-conflicts.
$(STAMP): setup.py pyproject.toml constraints.txt
	@echo 'Installing into $(VENV): several minutes and about 3 GB the first time, more with CUDA (TORCH=cpu: without).'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -z "$(TORCH)" || $(PIP) install --no-deps $(CPU_TORCH) "$$(grep '^torch==' constraints.txt)"
	@$(PIP) install --no-warn-conflicts -c constraints.txt -e '.[dev,smax,pymarlzooplus,ray,slurm,wandb,report,docs]'
	@$(PIP) install --no-deps -c constraints.txt pymarlzooplus==1.1.0 pysc2==4.0.0
	@touch $@

# The networks of the tests are tiny: with more threads torch spends its time on handing out work. A process for
# each core does better; each takes whole files, as the tests of one share what they have compiled, in the order
# of tests/conftest.py.
test: venv
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile

check: lint test

# Three trainings at a time: on two cores that is sooner over than two and then one.
demo: venv
	$(BIN)/limask campaign run demo --output demo --jobs 3
	$(BIN)/limask campaign report demo

# A broken link ends the build.
docs: venv
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

options: venv
	$(BIN)/python docs/write_options.py

format: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf build dist site *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './.venv*' -not -path './$(VENV)/*' -prune -exec rm -rf {} +
