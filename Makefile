# Every target makes what it needs: the only things asked of the machine are Python 3.11 or newer, git and make.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --quiet --disable-pip-version-check
PARALLEL := -n auto --maxprocesses 4 --dist worksteal

.PHONY: help run test test-long types lint bench docs clean
.DEFAULT_GOAL := help

help:
	@echo 'make run        trade for 20 seconds in a simulated market, then report'
	@echo 'make test       run the tests'
	@echo 'make test-long  run the tests with many more generated examples, and 2,200 kills'
	@echo 'make types      check types (mypy, strict)'
	@echo 'make lint       check style (ruff, flake8-async)'
	@echo 'make bench      run the benchmarks'
	@echo 'make docs       build the documentation into docs/_build/html'

run: $(VENV)/.run
	$(PY) -m trio_nt run --for 20

test: $(VENV)/.test
	$(PY) -m pytest $(PARALLEL)

test-long: $(VENV)/.test
	HYPOTHESIS_PROFILE=long $(PY) -m pytest $(PARALLEL) --timeout 3600

types: $(VENV)/.test $(VENV)/.check
	$(PY) -m mypy
	$(PY) -m mypy --explicit-package-bases tests/typing

lint: $(VENV)/.check
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m flake8

bench: $(VENV)/.bench
	$(PY) -m trio_nt bench

docs: $(VENV)/.docs
	$(PY) -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo 'docs/_build/html/index.html'

clean:
	rm -rf $(VENV) build dist docs/_build

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "trio-nt needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1 || echo missing)."; \
	  echo "Name a newer one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV) || { \
	  echo "'$(PYTHON) -m venv' failed; on Debian and Ubuntu: sudo apt install python3-venv"; exit 1; }
	@echo 'installing into $(VENV)'
	@$(PIP) install --upgrade 'pip>=25.1'
	@touch $@

# The optional compiled kernels come along: they are what a trader would run.
$(VENV)/.run: $(VENV)/.made pyproject.toml
	@$(PIP) install --editable '.[compiled]'
	@touch $@

$(VENV)/.test $(VENV)/.check $(VENV)/.bench $(VENV)/.docs $(VENV)/.package: $(VENV)/.%: $(VENV)/.made pyproject.toml
	@echo 'installing what $* needs'
	@$(PIP) install --editable . --group $*
	@touch $@
