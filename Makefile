# Everything on a fresh clone: `make demo`, `make test`. Plain pip commands stand in the README.

PYTHON ?= python3
# Index of torch wheels. Empty: pip's own settings. CPU-only: TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
DEMO ?= cartpole-swingup --designer evolution --samples 4 --generations 3

# Processes that share the tests, file by file.
TEST_PROCESSES ?= 2

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
APT_INSTALL := export DEBIAN_FRONTEND=noninteractive; apt-get update -qq >/dev/null && apt-get install -y -qq
CAN_APT = [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null

ifeq ($(origin MENAGERIE_ROOT),undefined)
ifneq ($(wildcard ../shared/menagerie),)
export MENAGERIE_ROOT := $(abspath ../shared/menagerie)
endif
endif

.PHONY: help venv renderer browser test lint types demo bench clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## */\1	/p' $(MAKEFILE_LIST) | while IFS='	' read -r name text; do printf '  make %-9s %s\n' "$$name" "$$text"; done

venv: $(STAMP)  ## make .venv with everything in it (once)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed, but $(PYTHON) is $$($(PYTHON) -V 2>&1); name another: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq --upgrade pip
	@# torch first and by itself, so that it alone comes from TORCH_INDEX.
	$(BIN)/python -m pip install -qq $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$$($(BIN)/python -c \
	  'import tomllib; print(*[d for d in tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"] if d.startswith("torch>")])')"
	@# dev: pytest with xdist, hypothesis, ruff, pyright; on Linux x86-64 also ray (260 MB), so that its executor is tested.
	$(BIN)/python -m pip install -qq -e ".[dev]"
	@touch $@

renderer: $(STAMP)  ## where nothing can draw, and this is root with apt-get: install libosmesa6
	@if $(BIN)/python -c 'import sys; from rl.render import probe_renderer; sys.exit(probe_renderer() is None)'; then :; \
	elif $(CAN_APT); then \
	  echo "nothing can draw here: installing libosmesa6"; \
	  ($(APT_INSTALL) libosmesa6 >/dev/null) || echo "libosmesa6 could not be installed: there will be no videos"; \
	else echo "nothing can draw here, so there will be no videos; to get them: apt-get install libosmesa6"; fi

browser:  ## where there is no Chromium, and this is root with apt-get: install it (a test opens the report in it)
	@if { command -v chromium || command -v chromium-browser || command -v google-chrome || command -v google-chrome-stable; } >/dev/null; then :; \
	elif $(CAN_APT); then \
	  echo "installing chromium"; \
	  ($(APT_INSTALL) chromium >/dev/null) || echo "chromium could not be installed: the report is not opened in a browser"; \
	else echo "no Chromium here: the report is not opened in a browser; to do so: apt-get install chromium"; fi

test: renderer lint  ## lint, and all tests
	@# tests/conftest.py puts the long files first.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -ra -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

lint: $(STAMP)  ## ruff
	$(BIN)/ruff check .

types: $(STAMP)  ## pyright; needs node, which it downloads where there is none
	$(BIN)/pyright

demo: renderer  ## a whole reward search without a key or a network: minutes on two cores, then open its report
	@out=runs/demo/$$(date +%Y%m%d-%H%M%S); \
	$(BIN)/eureka search $(DEMO) --out "$$out" && echo "report: $(CURDIR)/$$out/report.html"

bench: $(STAMP)  ## steps per second, and time to a given fitness
	$(BIN)/python benchmarks/throughput.py
	$(BIN)/python benchmarks/time_to_fitness.py

clean:  ## remove .venv, build folders and caches; runs/ stays
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
