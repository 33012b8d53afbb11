# `make demo` and `make test` need Python 3.10 or newer, pip and a package registry; they set up the rest in .venv.
# `make floors` and `make newest` set up environments of their own where they find the Python that they need.
PYTHON ?= $(firstword $(foreach name,python3 python3.14 python3.13 python3.12 python3.11 python3.10 python,\
	$(shell $(name) -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1 && echo $(name))))
# The first of some commands that starts. A version that only pyenv has is found in its folder.
first_python = $(firstword $(foreach name,$(1),$(shell $(name) -c '' >/dev/null 2>&1 && echo $(name))))
pythons = python$(1) $(wildcard $(shell pyenv root 2>/dev/null)/versions/$(1).*/bin/python$(1))
OLDEST_PYTHON ?= $(call first_python,$(call pythons,3.10))
NEWEST_PYTHON ?= $(call first_python,$(call pythons,3.14) $(call pythons,3.13))
VENV ?= .venv
JOBS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); [ $$n -gt 8 ] && echo 8 || echo $$n)
RUN := $(VENV)/bin/python
PYTEST_ARGS ?=
PIP_ARGS ?=
DEMO_ARGS ?=
BENCH_ARGS ?=

export HF_HUB_DISABLE_TELEMETRY := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo test quick slow test-all matrix floors newest style types docs bench bench-gpu cards clean

help:  ## show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/'

demo: $(VENV)/.demo  ## build a small data set, train a model on it, classify a file it has never seen
	$(RUN) examples/quickstart.py $(DEMO_ARGS)

test: $(VENV)/.test  ## run all tests but those of runtimes that are not installed
	$(call pytest)

quick: $(VENV)/.test  ## run the tests without those that start processes or take long
	$(call pytest,-m "not slow")

slow: $(VENV)/.runtimes  ## the tests that start processes or take long, with every runtime that models are exported to
	$(call pytest,-m slow)

test-all: $(VENV)/.runtimes  ## all tests, with every runtime that models are exported to
	$(call pytest)

matrix: $(VENV)/.runtimes  ## every head in every runtime that models are exported to, and every option compiled
	DEPLOY_MATRIX=1 $(call pytest,-m slow tests/deploy tests/test_families.py)

floors: .venv-floors.txt  ## quick tests and the demo on Python 3.10 with the lowest versions of setup.py, where it is found
	$(call elsewhere,floors,3.10,$(OLDEST_PYTHON),--constraint .venv-floors.txt)

newest:  ## quick tests and the demo on Python 3.13 or newer with the newest versions, where it is found
	$(call elsewhere,newest,3.13 or newer,$(NEWEST_PYTHON),--upgrade --upgrade-strategy eager)

style: $(VENV)/.test  ## check format and lint
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .

types: $(VENV)/.test  ## check types
	$(RUN) -m mypy

docs: $(VENV)/.docs  ## build the site of the documentation in build/site; it opens without a server
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict

bench: $(VENV)/.test  ## measure speed; results go to benchmarks/results
	$(RUN) -m benchmarks.import_time $(BENCH_ARGS)
	$(RUN) -m benchmarks.decoding $(BENCH_ARGS)
	$(RUN) -m benchmarks.prepared $(BENCH_ARGS)
	$(RUN) -m benchmarks.models $(BENCH_ARGS)
	$(RUN) -m benchmarks.training $(BENCH_ARGS)
	$(RUN) -m benchmarks.engine $(BENCH_ARGS)
	$(RUN) -m benchmarks.conversion $(BENCH_ARGS)
	$(RUN) -m benchmarks.serving $(BENCH_ARGS)

bench-gpu: $(VENV)/.test  ## measure training on one GPU in less than 8 minutes; benchmarks/results/gpu_<card>.csv
	$(RUN) -m benchmarks.gpu $(BENCH_ARGS)

cards: $(VENV)/.demo  ## render model_cards/ and docs/models.md from hf_videovit/published
	$(RUN) -m hf_videovit.hub.model_table
	$(RUN) -m hf_videovit.hub.cards

clean:  ## remove the environment and the caches
	rm -rf $(VENV) .venv-floors .venv-floors.txt .venv-newest .cache .mypy_cache .pytest_cache .ruff_cache build ./*.egg-info

# An environment with everything a target needs; made again when the dependencies change.
$(VENV)/.demo: setup.py pyproject.toml
	$(call environment,.[train$(comma)demo])

$(VENV)/.test: setup.py pyproject.toml
	$(call environment,.[train$(comma)demo$(comma)test$(comma)dev])
	@touch $(VENV)/.demo

$(VENV)/.runtimes: setup.py pyproject.toml
	$(call environment,.[train$(comma)demo$(comma)test$(comma)runtimes$(comma)ray$(comma)docs$(comma)dev])
	@touch $(VENV)/.demo $(VENV)/.test $(VENV)/.docs

$(VENV)/.docs: setup.py pyproject.toml
	$(call environment,.[train$(comma)demo$(comma)docs])
	@touch $(VENV)/.demo

# Every lower bound of setup.py as a pin.
.venv-floors.txt: setup.py
	grep -oE '"[A-Za-z][A-Za-z0-9_-]*>=[0-9.]+' setup.py | sed 's/"//; s/>=/==/' > $@

comma := ,

define pytest
	$(RUN) -m tests.hf_common.fetch
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 REQUIRE_HF_COMMON_TESTS=1 \
		$(RUN) -m pytest -n $(JOBS) --dist worksteal $(1) $(PYTEST_ARGS)
endef

# The environment .venv-NAME: its name, the Python it needs in words, that Python if there is one, arguments for pip.
# The demo is a short one, in a folder of its own.
define elsewhere
	@$(if $(3),$(MAKE) quick VENV=.venv-$(1) PYTHON=$(3) PIP_ARGS="$(4)" && $(MAKE) demo VENV=.venv-$(1) \
		DEMO_ARGS="--output outputs/$(1) --max_steps 20 --no-baseline $(DEMO_ARGS)",\
		echo "No Python $(2) found: \`make $(1)\` runs nothing")
endef

# A machine without ensurepip (Debian without python3-venv) gets pip from the pip it has.
define environment
	@test -n "$(PYTHON)" || { echo "No Python 3.10 or newer found. Install one, or: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(RUN) -c 'import pip' >/dev/null 2>&1 \
		|| $(PYTHON) -m venv --clear $(VENV) \
		|| { $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(RUN) install pip; } \
		|| { echo "$(PYTHON) cannot make a virtual environment. Install its venv module" \
			"(Debian, Ubuntu: apt-get install python3-venv) and run make again." >&2; exit 1; }
	@echo "Installing torch, transformers and the rest into $(VENV) (some gigabytes, a few minutes the first time)"
	$(RUN) -m pip install --quiet $(PIP_ARGS) --editable "$(1)"
	@touch $@
endef
