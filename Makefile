# Every target sets up .venv by itself on a fresh machine. PYTHON names the interpreter: make PYTHON=python3.12 test
PYTHON ?= python3
SCENARIO ?= bebop-reasoning
PYTEST_ARGS ?=
# torch for the profiler's tests: the build without CUDA, which is a tenth of the size. TORCH= leaves it out.
TORCH ?= torch==2.13.0+cpu
# llama.cpp, whose wheels do not exist for every platform. LLAMACPP= leaves it out.
LLAMACPP ?= xllamacpp gguf

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BENCHMARKS := $(wildcard $(addprefix benchmarks/,rollout.py scale.py turns.py peer.py roofline.py scorecard.py acceptance.py aiconfigurator_check.py mtp_speed.py engine_check.py))

.PHONY: help setup run test check bench

help:
	@echo 'make setup   create $(VENV) and install Bebop with its dashboard and development tools'
	@echo 'make run     simulate the scenario $(SCENARIO) (another one: SCENARIO=name-or-file)'
	@echo 'make test    run the tests (PYTEST_ARGS=... goes to pytest)'
	@echo 'make check   ruff, mypy, import-linter, then the tests'
	@echo 'make bench   speed and accuracy, side by side with peers'

setup: $(READY)

run: $(READY)
	@$(BIN)/bebop simulate $(SCENARIO)

# Tests that measure time run after the others and alone; with PYTEST_ARGS, what these name runs as they say.
TESTS = $(BIN)/python -m pytest -n 2 $(if $(PYTEST_ARGS),$(PYTEST_ARGS),-m "not quiet" && $(BIN)/python -m pytest -m quiet)

test: $(READY)
	$(TESTS)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(TESTS)

bench: $(READY)
	@set -e; for file in $(BENCHMARKS); do echo "== $$file"; $(BIN)/python $$file; done

# A stamp, not $(VENV) itself: pip touches the folder, and a broken install must not count as done.
$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo 'make: no $(PYTHON) here; name one: make PYTHON=python3.11 $(MAKECMDGOALS)' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: Bebop needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) -V 2>&1); name another: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo 'make: $(PYTHON) has no venv module; on Debian: apt-get install python3-venv' >&2; exit 1; }
	@echo 'setting up $(VENV), about a minute' >&2
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input -c constraints.txt -e '.[dashboard,dev,ray,study]'
	@test -z '$(TORCH)' || $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input -c constraints.txt nvidia-ml-py '$(TORCH)' 2>$(VENV)/torch.log || echo "no $(TORCH) where pip looks ($(VENV)/torch.log): the profiler's tests will skip; name another: make TORCH=torch $(MAKECMDGOALS)" >&2
	@test -z '$(LLAMACPP)' || $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input --only-binary xllamacpp -c constraints.txt $(LLAMACPP) 2>$(VENV)/llamacpp.log || echo "no $(LLAMACPP) where pip looks ($(VENV)/llamacpp.log): its tests will skip; leave it out: make LLAMACPP= $(MAKECMDGOALS)" >&2
	@touch $@
