# Two commands matter: `make demo` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Many tests wait for processes and clocks: two more than there are processors.
WORKERS ?= $(shell echo $$(( $$(nproc) + 2 )))
MINUTES ?= 60
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check --no-input

.DEFAULT_GOAL := help
.PHONY: help demo demo-cluster test lint format docs constraints conformance fuzz audit soak bench bench-peers test-figures clean-figures clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml setup.py constraints.txt $(shell find protos -name '*.proto' 2>/dev/null)
	@command -v $(PYTHON) >/dev/null 2>&1 \
	  || { echo "There is no $(PYTHON). On Debian, as root: apt-get install python3-venv"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make $(MAKECMDGOALS) PYTHON=python3.13"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "Python's venv module is missing. On Debian, as root: apt-get install python3-venv"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV)"
	@$(PIP) install --constraint constraints.txt --editable '.[dev]'
	@# An editable install brings no plugin; twistd looks for twisted/plugins along the path.
	@$(BIN)/python -c 'import os, sysconfig; open(sysconfig.get_path("purelib") + "/gateway-checkout.pth", "w").write(os.getcwd())'
	@touch $@

demo: $(STAMP) ## start the gateway with its demo backend, and print what to try
	@exec $(BIN)/python -m demo.run $(ARGS)

demo-cluster: $(STAMP) ## the same with two instances, haproxy and Redis: play, and kill one of them
	@deploy/need redis-server haproxy
	@exec $(BIN)/python -m demo.cluster $(ARGS)

SDK := tests/sdk/js/node_modules/.package-lock.json

$(SDK): tests/sdk/js/package-lock.json
	@deploy/need node=nodejs npm
	@npm --prefix tests/sdk/js ci --silent --no-audit --no-fund --ignore-scripts </dev/null
	@touch $@

test: $(STAMP) $(SDK) ## run the tests
	@deploy/need node=nodejs npm chromium redis-server haproxy faketime promtool=prometheus ssh=openssh-client
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

lint: $(STAMP) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## let ruff order imports and lay out code
	$(BIN)/ruff check --fix --select I .
	$(BIN)/ruff format .

docs: $(STAMP) ## write the generated parts of docs/ anew
	$(BIN)/python -m gateway.cli schema > docs/config.schema.json

constraints: $(STAMP) ## write the versions that are installed now into constraints.txt
	@{ echo "# The versions that were tested together. Written by: make constraints"; \
	   $(BIN)/python -m pip freeze --exclude-editable --exclude pip --exclude setuptools --exclude wheel; } > constraints.new
	@mv constraints.new constraints.txt

SUITE := .run/autobahntestsuite-25.10.1

$(SUITE): $(STAMP)
	@mkdir -p .run
	@$(PIP) download --no-deps --no-binary :all: --dest .run autobahntestsuite==25.10.1
	@tar -xzf $(SUITE).tar.gz -C .run && touch $@

conformance: $(STAMP) $(SUITE) ## raw HTTP, and the cases of the Autobahn|Testsuite, against the gateway
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal tests/web tests/ws $(ARGS)
	$(BIN)/python -W ignore -m tests.conformance.autobahn_cases $(SUITE)

fuzz: $(STAMP) ## strangers' bytes by the hour (MINUTES=60): led by what code they reach, then the property tests again and again
	@end=$$((SECONDS + 60 * $(MINUTES))); \
	if $(PIP) install --only-binary atheris --constraint constraints.txt atheris; then \
	  $(BIN)/python -m tests.fuzz.run --minutes $$(( ($(MINUTES) + 1) / 2 )) || exit 1; \
	else echo "atheris has no build for $$($(BIN)/python -V): property tests alone"; fi; \
	while [ $$SECONDS -lt $$end ]; do $(BIN)/python -m pytest -q -n $(WORKERS) -m hypothesis $(ARGS) || exit 1; done

AUDIT := .run/audit/.installed

$(AUDIT): .ci/audit.txt
	@$(PYTHON) -m venv .run/audit
	@.run/audit/bin/python -m pip -qq --disable-pip-version-check --no-input install --requirement .ci/audit.txt
	@touch $@

audit: $(STAMP) $(AUDIT) ## known holes in what is installed, and a list of it (.run/sbom.json); says so where nobody can be asked
	@.run/audit/bin/python .ci/audit.py .run/audit/bin constraints.txt $(BIN)/python .run/sbom.json

soak: $(STAMP) ## hours of mixed load against one gateway (MINUTES=60), and what it leaves behind
	$(BIN)/python -m bench.soak --minutes $(MINUTES) $(ARGS)

bench-peers: $(STAMP) ## install what the benchmarks compare with
	@deploy/need redis-server nginx=nginx-light haproxy wrk node=nodejs npm taskset=util-linux gcc \
	  /usr/lib/nginx/modules/ngx_nchan_module.so=libnginx-mod-nchan
	@npm --prefix bench/peers ci --silent --no-audit --no-fund </dev/null

bench: bench-peers ## measure beside the peers, into bench/RESULTS.md
	$(BIN)/python -m bench $(ARGS)

FIGURES := refusals openings cuts chaos crashes memory grpc http realtime cluster events limits watched console

# What held is not measured again: a run that was cut goes on where it was. make clean-figures forgets.
$(FIGURES:%=.run/figures/%): .run/figures/%: | bench-peers
	$(BIN)/python -m bench --check --only $* $(ARGS)
	@mkdir -p .run/figures && touch $@

$(FIGURES:%=figures-%): figures-%: .run/figures/%

test-figures: bench-peers ## hold the promised figures, into bench/RESULTS.md; one part: make figures-realtime
	@missed=; for part in $(FIGURES); do $(MAKE) --no-print-directory figures-$$part || missed="$$missed $$part"; done; \
	[ -z "$$missed" ] || { echo "missed or not measured:$$missed"; exit 1; }

clean-figures: ## forget which figures were held
	rm -rf .run/figures

clean: ## remove what was built
	rm -rf $(VENV) build dist .run src/*.egg-info bench/peers/node_modules tests/sdk/js/node_modules
	find . -name __pycache__ -prune -exec rm -rf {} +
