# `make train` on a fresh clone installs everything into .venv and trains DOT on PushT.
# Needs GNU make and Python >= 3.11 with venv; another interpreter: make train PYTHON=python3.12
PYTHON ?= python3
ARGS ?=
BIN := .venv/bin

# A setting of the run would become a variable of make, and change nothing.
given := $(foreach name,$(.VARIABLES),$(if $(findstring command line,$(origin $(name))),$(name)))
stray := $(firstword $(foreach name,$(given),$(if $(findstring .,$(name)),$(name))) \
	$(filter task policy,$(given)))
ifneq (,$(stray))
$(error $(stray)=... is a setting of the run: write make train ARGS="$(stray)=...")
endif

.PHONY: help install install-dev install-all train test quick lint clean

help: ## print this list (what plain `make` does)
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: .venv/installed ## make .venv and install the package, editable

install-dev: .venv/installed-dev ## the same, with the tools for tests and lint

install-all: .venv/installed-all ## the same, with every extra too; needs a C++ compiler

train: .venv/installed ## train DOT on PushT; ARGS="key=value ..." overrides the config
	$(BIN)/python train.py --config-name=train_dot_pusht $(ARGS)

test: .venv/installed-dev ## run the tests in two processes; ARGS goes to pytest
	$(BIN)/python -m pytest -n 2 $(ARGS)

quick: .venv/installed-dev ## run the tests that take less than about a second each
	$(BIN)/python -m pytest -n 2 -m "not slow" $(ARGS)

lint: .venv/installed-dev ## check style, formatting, spelling and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/typos
	$(BIN)/mypy

clean: ## remove .venv, caches and build leftovers; runs and data stay
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name .git -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +

# While pip works, a file names the process of make. If that was killed, .venv may be half of one,
# which would pass for a whole one: it is made anew.
unfinished := .venv/unfinished
ifneq (,$(wildcard $(unfinished)))
ifeq (,$(shell pid=$$(cat $(unfinished)); { tr '\0' ' ' < /proc/$$pid/cmdline || ps -p $$pid -o args=; } 2> /dev/null | grep make))
$(info an installation was killed: .venv is made anew)
$(shell rm -rf .venv)
endif
endif
install = echo $$PPID > $(unfinished); $(1); code=$$?; rm $(unfinished); exit $$code

# The installed* files are stamps: done once, and again whenever pyproject.toml changes.
.venv/installed: pyproject.toml | $(BIN)/python
	@# an environment of uv comes without pip
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || $(BIN)/python -m ensurepip
	$(call install,$(BIN)/python -m pip install --editable .)
	@touch $@

.venv/installed-dev: .venv/installed
	$(call install,$(BIN)/python -m pip install --editable ".[dev]")
	@touch $@

.venv/installed-all: .venv/installed-dev
	@# robomimic's egl_probe is compiled with cmake, and not by cmake 4. The wheel's command is
	@# a script that cannot start within pip's isolated build, hence the program behind it.
	$(call install,$(BIN)/python -m pip install "cmake<4")
	PATH="$$($(BIN)/python -c 'import cmake; print(cmake.CMAKE_BIN_DIR)'):$$PATH"; \
		$(call install,$(BIN)/python -m pip install --editable ".[all]")
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) is missing or older than Python 3.11 ($$($(PYTHON) --version 2>&1));" \
			"name a newer one: make PYTHON=python3.12"; exit 1; }
	@# half an environment would pass for a whole one at the next call
	$(PYTHON) -m venv --clear .venv || { rm -rf .venv; exit 1; }
