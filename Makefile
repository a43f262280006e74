# Two commands matter: `make demo` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKERS ?= auto

.DEFAULT_GOAL := help
.PHONY: help demo test lint format bench bench-peers test-figures conformance fuzz soak docs clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml setup.py constraints.txt $(shell find protos -name '*.proto' 2>/dev/null)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo "Python 3.11 or newer is needed. On Debian: apt-get install python3-venv"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null \
	  || { echo "Python's venv module is missing. On Debian: apt-get install python3-venv"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(STAMP) ## start the gateway with its demo backends, and print what to try
	@$(BIN)/python -m demo.run

test: $(STAMP) system-redis ## run the tests (8 minutes at most)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

lint: $(STAMP) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## let ruff write the layout
	$(BIN)/ruff check --fix --select I .
	$(BIN)/ruff format .

docs: $(STAMP) ## write the generated parts of docs/ anew
	$(BIN)/python -m gateway.cli schema > docs/config.schema.json

bench-peers: $(STAMP) system-nginx system-haproxy system-wrk system-node ## install what the benchmarks compare with
	npm --prefix bench/peers ci --silent --no-audit --no-fund

bench: $(STAMP) ## measure beside the peers, into bench/RESULTS.md
	$(BIN)/python -m bench.run $(ARGS)

test-figures: $(STAMP) ## the counts and durations of the promised figures
	$(BIN)/python -m bench.run --figures $(ARGS)

fuzz: $(STAMP) ## longer fuzzing of the parsers
	$(BIN)/python -m pytest tests -k fuzz --hypothesis-profile=long -q $(ARGS)

clean: ## remove what was built
	rm -rf $(VENV) build dist .run src/*.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +

# Programs from Debian: installed when make runs as root, else the command is printed.
define debian
	@command -v $(1) >/dev/null 2>&1 || { \
	  if [ "$$(id -u)" = 0 ]; then apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(2) >/dev/null; \
	  else echo "$(1) is missing. As root: apt-get install $(2)"; exit 1; fi; }
endef

.PHONY: system-redis system-nginx system-haproxy system-wrk system-node
system-redis:
	$(call debian,redis-server,redis-server)
system-nginx:
	$(call debian,nginx,nginx-light)
system-haproxy:
	$(call debian,haproxy,haproxy)
system-wrk:
	$(call debian,wrk,wrk)
system-node:
	$(call debian,node,nodejs npm)
