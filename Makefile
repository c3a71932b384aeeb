# Plain venv and pip; needs Python >= 3.11. Another interpreter: make setup PYTHON=python3.12.
# WORKERS: processes that run tests side by side.
# PIP_FLAGS reaches every pip install, for example an index that serves CPU-only torch (the default torch wheel brings CUDA).
PYTHON ?= python3
PIP_FLAGS ?=
DATA ?= ../shared/data/sffsd_dev_first60.parquet
SCHEMA ?= features/schemas/sffsd.yaml
WORKERS ?= 2

VENV := .venv
PY := $(VENV)/bin/python
PIP_INSTALL := $(PY) -m pip install --quiet --disable-pip-version-check --no-compile $(PIP_FLAGS) -c constraints.txt
CORE := $(VENV)/.core-installed
FULL := $(VENV)/.full-installed
GPU := $(VENV)/.gpu-installed
PEERS := .venv-peers/.installed
NATIVE := server/native/http2.so server/native/decode.so bench/client.so
PROTO := proto/miaopi/v1/decision.proto
PROTOC = $(PY) -m grpc_tools.protoc -I. --python_out=$(1) --pyi_out=$(1) --grpc_python_out=$(1) $(PROTO)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo serve test check fmt proto train bench gpu native peers fuzz clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

setup: $(FULL) ## install everything for development into .venv (once)

demo: $(CORE) ## the service with a demo population, in one command (installs only the core)
	$(PY) -m bench demo

serve: $(CORE) ## start the service; settings come from the environment
	$(PY) -m server

test: $(FULL) ## all checks, then the tests
	@$(PY) -m tests.compiled & $(MAKE) --no-print-directory check && wait $$!
	$(PY) -m pytest --numprocesses $(WORKERS) --dist worksteal -m "not alone"
	$(PY) -m pytest -m alone

check: $(FULL) ## format, lint, types, import layers, proto, Dockerfile
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports --no-logo
	$(VENV)/bin/buf lint
	$(VENV)/bin/hadolint Dockerfile
	@generated=$$(mktemp -d) && trap 'rm -rf "$$generated"' EXIT && $(call PROTOC,"$$generated") && \
	for file in "$$generated"/proto/miaopi/v1/*; do cmp "$$file" "proto/miaopi/v1/$${file##*/}" || \
	{ echo "$(PROTO) changed: run make proto"; exit 1; }; done

fmt: $(FULL) ## format and apply the safe fixes
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

proto: $(FULL) ## generate the Python code of the wire definition
	$(call PROTOC,.)

train: $(FULL) ## train the demo bundles that are committed
	$(PY) -m bench train

bench: $(FULL) ## replay a table through the running code: make bench DATA=... SCHEMA=...
	$(PY) -m bench replay --schema $(SCHEMA) --data $(DATA)

gpu: $(GPU) ## check and time the CUDA kernels; says so where there is no GPU
	$(PY) -m bench gpu

peers: $(PEERS) ## what `python -m bench compare` compares with, in an environment of its own: .venv-peers

$(PEERS): bench/peers/requirements.txt pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt '.[cpu]' -r $<
	@touch $@

clean: ## remove caches and build output, keep .venv
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build out miaopi.egg-info
	find . -path './.venv*' -prune -o -type d -name __pycache__ -exec rm -rf {} +

native: $(NATIVE) ## build the native front end against Debian's libnghttp2-dev, and the decoder of requests

server/native/decode.so: $(wildcard server/native/*.h)

server/native/http2.so: $(wildcard server/native/*.h)

# Without the library or a compiler grpc.aio serves alone; apt-get is asked where it may install.
%.so: %.c | $(PY)
	@pkg-config --exists libnghttp2 || { [ "$$(id -u)" = 0 ] && apt-get update -qq && \
	apt-get install -qq -y libnghttp2-dev nghttp2-client >/dev/null; } || \
	{ echo "libnghttp2 is not installed: apt-get install libnghttp2-dev"; exit 1; }
	$(CC) -O2 -Wall -Wextra -Werror -Wno-missing-field-initializers -fPIC -shared \
	$$($(PY) -c 'import sysconfig; print("-I" + sysconfig.get_path("include"))') $$(pkg-config --cflags libnghttp2) \
	$< -o $@ -Wl,--as-needed $$(pkg-config --libs libnghttp2)

FUZZ_SECONDS ?= 60
fuzz: $(NATIVE) ## fuzz the native front end and the decoder under AddressSanitizer (needs Debian's clang)
	$(PY) -m server.native.fuzz --seconds $(FUZZ_SECONDS)
	$(PY) -m server.native.fuzz_decode --seconds $(FUZZ_SECONDS)

$(PY):
	$(PYTHON) -m venv $(VENV)

# The stamps make a second run free and a changed pin reinstall.
$(CORE): pyproject.toml constraints.txt | $(PY)
	$(PIP_INSTALL) '.[cpu]'
	@touch $@

$(FULL): pyproject.toml constraints.txt | $(PY)
	$(PIP_INSTALL) '.[cpu,train,dev]'
	-@$(MAKE) --no-print-directory native
	@command -v g++ >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -qq -y g++ >/dev/null; } || \
	echo "g++ is not installed (apt-get install g++): the tests skip the CUDA kernels"
	@touch $(CORE) $@

# onnxruntime-gpu takes the place of onnxruntime, where there is a driver to use it.
$(GPU): $(FULL)
	@! command -v nvidia-smi >/dev/null || \
	{ $(PY) -m pip uninstall --quiet -y onnxruntime onnxruntime-gpu && $(PIP_INSTALL) '.[gpu,peer]' && touch $@; }
