# Tasks of corpusmith. They need make and Python 3.11 or newer; all else is installed into .venv by the first of them.

VENV := .venv
BIN := $(VENV)/bin
SITE_PACKAGES := $(VENV)/lib/python3*/site-packages
DEMO_READY := $(VENV)/demo-ready
DEV_READY := $(VENV)/dev-ready
DECLARED := pyproject.toml setup.py constraints.txt
ROOMS := schemas operators pipelines training

PYTHONS := $(or $(PYTHON),python3.11 python3)
SUITABLE := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test test-slow bench lint format types links clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-10s %s\n", $$1, $$2 }' Makefile

demo: $(DEMO_READY) ## build a small corpus of real pictures below demo/ and print the report's path
	$(BIN)/corpusmith demo demo

test: $(DEV_READY) ## run the tests; ARGS="-k NAME" is passed on to pytest
	$(BIN)/python -m pytest $(ARGS)

test-slow: $(DEV_READY) ## run the slow tests
	$(BIN)/python -m pytest -m slow $(ARGS)

bench: $(DEV_READY) ## run the benchmarks; BENCH=NAME runs tests/benchmarks/bench_NAME.py alone
	@set -e; for script in tests/benchmarks/bench_$(or $(BENCH),*).py; do \
	  echo "== $$script"; $(BIN)/python "$$script"; \
	done

lint: $(DEV_READY) links ## check style, format and types
	@status=0; for check in "ruff check" "ruff format --check" pyright; do \
	  echo "$(BIN)/$$check"; $(BIN)/$$check || status=1; \
	done; exit $$status

format: $(DEV_READY) ## format the code and mend what ruff can mend
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

types: $(DEV_READY) links ## check types alone
	$(BIN)/pyright

# Type checkers find corpusmith.ROOM here: the rooms lie at the top level, and only the installer maps their names.
links:
	@mkdir -p links/corpusmith
	@for room in $(ROOMS); do ln -sfn "../../$$room" "links/corpusmith/$$room"; done

clean: ## remove caches, builds, links and the demo; .venv stays
	rm -rf links .pytest_cache .ruff_cache .hypothesis build dist *.egg-info demo
	find $(ROOMS) tests -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is written after a complete install only, so that a stopped one goes on at the next call. What pip was
# writing when it was killed has no RECORD (or a name that begins with ~) and would pass for installed: it goes first.
define install
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	  for python in $(PYTHONS); do \
	    if "$$python" -c '$(SUITABLE)' >/dev/null 2>&1; then exec "$$python" -m venv --clear $(VENV); fi; \
	  done; \
	  echo "error: none of these is Python 3.11 or newer with the venv module: $(PYTHONS)" >&2; \
	  echo "  install it (on Debian: python3 and python3-venv), or name it: make PYTHON=/path/to/python3.11 …" >&2; \
	  exit 1; \
	}
	@for info in $(SITE_PACKAGES)/*.dist-info; do test -e "$$info/RECORD" || rm -rf "$$info"; done
	@rm -rf $(SITE_PACKAGES)/~*
	$(BIN)/python -m pip install --disable-pip-version-check --compile -c constraints.txt -e '.[$(1)]'
endef

$(DEMO_READY): $(DECLARED)
	$(call install,demo)
	@touch $@

# dev holds all that the demo needs.
$(DEV_READY): $(DECLARED)
	$(call install,dev)
	@touch $(DEMO_READY) $@
