# Everything runs in .venv, which the first target that needs it makes: see tools/setup_environment.py.
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format docs clean

# Extras of pyproject.toml to install: "make setup EXTRAS=test,lint,cuda".
EXTRAS ?= test,lint
# "make test TESTS=tests/graph" runs a part.
TESTS ?=
VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/nnmpq-installed.json
SOURCES := nnmpq tests benchmarks tools $(wildcard docs *.py)

# Any Python 3 that runs, for the set-up script only. A version manager's "python3" does not run where .python-version names
# a version that it does not have, so the usual places and its own folder are tried too.
FIND_PYTHON = for python in "$(PYTHON)" python3 python3.14 python3.13 python3.12 python3.11 python3.10 python3.9 python \
	/usr/bin/python3 /usr/local/bin/python3 "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3.*/bin/python3; do \
	if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 6))' >/dev/null 2>&1; then break; fi; python=; done; \
	if [ -z "$$python" ]; then echo "make: no working Python 3.6 or later was found; set one: make PYTHON=/path/to/python3" >&2; exit 1; fi

help: ## Show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

$(STAMP): pyproject.toml constraints.txt tools/setup_environment.py
	@$(FIND_PYTHON); "$$python" tools/setup_environment.py --extras "$(EXTRAS)"

setup: $(STAMP) ## Make .venv (Python 3.10) with nnmpq in it; EXTRAS=test,lint,cuda adds more
	@$(RUN) tools/setup_environment.py --extras "$(EXTRAS)"

# One thread: the network is too small to share, and the figures are those of the README.
demo: $(STAMP) ## Digits in float; bits learned, then bits searched and trained; both exported as verified C99
	$(RUN) train_resnet.py DIGITS_FLOAT --cfg cfgs/train_resnet_digits.cfg --threads 1
	$(RUN) train_resnet.py DIGITS_EXPORT --cfg cfgs/train_resnet_digits.cfg --threads 1
	$(RUN) -m nnmpq export runs/DIGITS_EXPORT --to c99
	$(RUN) search.py DIGITS --cfg cfgs/search_sensitivity.cfg --threads 1
	$(RUN) train_resnet.py DIGITS_TRAIN --cfg cfgs/search_sensitivity.cfg --threads 1
	$(RUN) -m nnmpq export runs/DIGITS_TRAIN --to c99

test: $(STAMP) ## Run the tests and the docstrings' examples; TESTS=tests/graph runs a part
	$(RUN) -m pytest -q -n auto --maxprocesses=4 --dist=worksteal $(TESTS)

lint: $(STAMP) ## Check format, style and types
	$(RUN) -m ruff format --check $(SOURCES)
	$(RUN) -m ruff check $(SOURCES)
	$(RUN) -m mypy

format: $(STAMP) ## Format the code and mend what ruff can mend
	$(RUN) -m ruff format $(SOURCES)
	$(RUN) -m ruff check --fix $(SOURCES)

docs: $(STAMP) ## Draw the pictures of docs/
	$(RUN) docs/draw.py

clean: ## Remove what set-up and the tools made; runs/ stays
	rm -rf $(VENV) .tools build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
