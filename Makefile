# One target a chore; `make help` lists them. Every target installs what it needs and says so.
# Works on a fresh Debian 12 or Ubuntu 22.04/24.04 that has only make and git.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?=
# Folders that also run on the nodes: they stay valid for this Python (DESIGN: Debian 11 has 3.9).
NODE_PYTHON := 3.9
NODE_CODE := meshctl/errors.py meshctl/model meshctl/core meshctl/agent
SHELL_SCRIPTS := .ci/run

# Lab hosts are namespaces, so whatever builds them runs as root: directly, or through sudo.
AS_ROOT := $(if $(filter 0,$(shell id -u)),,sudo)

# $(call apt,packages…): install what dpkg does not have; silent and without root when nothing is missing.
define apt
missing=(); \
for package in $(1); do \
	[[ $$(dpkg-query -W -f='$${Status}' "$$package" 2>/dev/null) == *' ok installed' ]] || missing+=("$$package"); \
done; \
if (( $${#missing[@]} )); then \
	echo "==> apt: installing $${missing[*]}"; \
	if [[ -n "$(AS_ROOT)" ]] && ! command -v sudo >/dev/null; then \
		echo "Error: not root and no sudo; as root, run: apt-get install $${missing[*]}" >&2; exit 1; \
	fi; \
	$(AS_ROOT) apt-get -qq update </dev/null; \
	$(AS_ROOT) env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install \
		"$${missing[@]}" </dev/null >/dev/null; \
fi
endef

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(VENV)/.installed ## Make .venv with meshctl and the developers' tools in it
	@echo "==> ready: $(BIN)/meshctl"

# The first Python that is new enough and can make a venv; Ubuntu 22.04's python3 is 3.10, its python3.11 is a package.
$(BIN)/python:
	@usable() { "$$1" -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }; \
	find_python() { for p in python3 python3.14 python3.13 python3.12 python3.11; do \
		if usable "$$p"; then command -v "$$p"; return; fi; done; return 1; }; \
	if ! python=$$(find_python); then \
		echo "==> no Python >= 3.11 with venv here"; \
		if command -v python3 >/dev/null && ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; \
		then $(call apt,python3.11 python3.11-venv); \
		else $(call apt,python3 python3-venv); fi; \
		python=$$(find_python) || { echo "Error: this system has no Python >= 3.11" >&2; exit 1; }; \
	fi; \
	echo "==> $(VENV): a virtual environment of $$python"; \
	"$$python" -m venv $(VENV)

# compat: a plain path in a .pth file. The default mode's import hook costs every `meshctl` 20 ms, and strict mode does not
# see new files. Its deprecation notice is kept from the screen; what pip says is shown when it fails.
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo "==> $(VENV): installing meshctl (editable) and the developers' tools"
	@pip() { $(BIN)/python -m pip install --disable-pip-version-check "$$@" </dev/null 2>&1; }; \
	said=$$(pip --upgrade pip 'setuptools>=77' && pip --config-settings editable_mode=compat --editable '.[dev]') \
		|| { echo "$$said" >&2; exit 1; }
	@touch $@

$(VENV)/.lab-packages: meshctl/lab/packages.txt | $(BIN)/python
	@$(call apt,$(shell sed 's/#.*//' meshctl/lab/packages.txt))
	@touch $@

TEST_PACKAGES := tests/packages.txt tests/kernel/packages.txt
$(VENV)/.test-packages: $(TEST_PACKAGES) | $(BIN)/python
	@$(call apt,$(shell sed 's/#.*//' $(TEST_PACKAGES)))
	@touch $@

.PHONY: demo
demo: $(VENV)/.installed $(VENV)/.lab-packages need-root ## Build the example mesh on this machine, in real hosts behind real NATs
	@$(AS_ROOT) $(BIN)/python tests/demo/demo.py

# Each builds labs of its own, so that more of them want a machine with more memory, too.
WORKERS ?= 2
KERNEL_TESTS := tests/kernel
# What waits for windows to be over, half a minute each.
SAFETY_TESTS := $(addprefix tests/mesh/test_mesh_,confirm.py keys.py killed.py rollback.py waves.py)
.PHONY: test
test: $(VENV)/.installed $(VENV)/.lab-packages $(VENV)/.test-packages need-root ## Run every test; a skipped one is a failure
	@echo "==> pytest, the lab included"
	@$(AS_ROOT) env PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=tests/plugins $(BIN)/python tests/run.py \
		--numprocesses $(WORKERS) --dist loadfile --ignore=$(KERNEL_TESTS) $(addprefix --ignore=,$(SAFETY_TESTS)) \
		$(PYTEST_ARGS) </dev/null

.PHONY: test-safety
test-safety: $(VENV)/.installed $(VENV)/.lab-packages $(VENV)/.test-packages need-root ## An apply that goes wrong in every way, in the lab (part of CI)
	@$(AS_ROOT) env PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=tests/plugins $(BIN)/python tests/run.py \
		--numprocesses $(WORKERS) --dist loadfile $(PYTEST_ARGS) $(SAFETY_TESTS) </dev/null

.PHONY: test-kernel
test-kernel: $(VENV)/.installed $(VENV)/.lab-packages $(VENV)/.test-packages need-root ## What meshctl does with the kernel's own WireGuard, in QEMU (part of CI, and alone: an emulator needs a core)
	@$(AS_ROOT) env PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=tests/plugins $(BIN)/python tests/run.py $(PYTEST_ARGS) \
		$(KERNEL_TESTS) </dev/null

RUNS ?= 500
.PHONY: chaos
chaos: $(VENV)/.installed $(VENV)/.lab-packages $(VENV)/.test-packages need-root ## RUNS=500 applies that are cut short in every way: each host must end wholly old or wholly new
	@$(AS_ROOT) env PYTHONDONTWRITEBYTECODE=1 $(BIN)/python tests/chaos/main.py $(RUNS) </dev/null

FUZZ ?= 20
.PHONY: fuzz
fuzz: $(VENV)/.installed $(VENV)/.lab-packages $(VENV)/.test-packages need-root ## The random tests, FUZZ=20 times as hard, with new seeds
	@$(AS_ROOT) env PYTHONDONTWRITEBYTECODE=1 MESHCTL_FUZZ=$(FUZZ) $(BIN)/python -m pytest $(PYTEST_ARGS) \
		tests/policy/test_policy_{fuzz,reference,packets}.py tests/agentcore tests/wire tests/core/test_core_wgdump.py \
		tests/agent/test_agentnode_fuzz.py </dev/null

$(VENV)/.fuzz: pyproject.toml | $(VENV)/.installed
	@echo "==> $(VENV): installing atheris"
	@said=$$($(BIN)/python -m pip install --disable-pip-version-check --config-settings editable_mode=compat \
		--editable '.[fuzz]' </dev/null 2>&1) || { echo "$$said" >&2; exit 1; }
	@touch $@

MINUTES ?= 10
.PHONY: fuzz-parsers
fuzz-parsers: $(VENV)/.fuzz ## What strangers, routers and peers can have parsed, MINUTES=10 each by libFuzzer, TARGETS="stun core" or all
	@PYTHONDONTWRITEBYTECODE=1 $(BIN)/python tests/fuzz/main.py --minutes $(MINUTES) $(TARGETS)

$(VENV)/.mutants: pyproject.toml | $(VENV)/.installed
	@echo "==> $(VENV): installing cosmic-ray"
	@said=$$($(BIN)/python -m pip install --disable-pip-version-check --config-settings editable_mode=compat \
		--editable '.[mutants]' </dev/null 2>&1) || { echo "$$said" >&2; exit 1; }
	@touch $@

.PHONY: mutants
mutants: $(VENV)/.mutants ## Change the path machine in every small way, and see which changes no test notices
	@PYTHONDONTWRITEBYTECODE=1 $(BIN)/python tests/mutants/main.py $(MUTANTS)

SEEDS ?= 2000
.PHONY: sim
sim: $(VENV)/.installed ## The agent's core in SEEDS=2000 small worlds, or in those of SEEDS=17,99-120, and in one of 300 agents
	@PYTHONDONTWRITEBYTECODE=1 $(BIN)/python tests/sim/main.py '$(SEEDS)' $(SIM_ARGS)

.PHONY: wg-model
wg-model: $(VENV)/.installed $(VENV)/.lab-packages $(VENV)/.test-packages need-root ## The simulator's WireGuard beside the kernel's own (in QEMU) and wireguard-go
	@$(AS_ROOT) env PYTHONDONTWRITEBYTECODE=1 $(BIN)/python tests/wgmodel/main.py </dev/null

.PHONY: need-root
need-root:
	@if [[ -n "$(AS_ROOT)" ]] && ! command -v sudo >/dev/null; then \
		echo "Error: the lab builds network namespaces; run this as root, or install sudo" >&2; exit 1; fi

.PHONY: lint
lint: $(VENV)/.installed ## ruff, mypy --strict, vermin for the nodes' Python, shellcheck, links in the documents
	@$(call apt,shellcheck)
	@echo "==> ruff"; $(BIN)/ruff check .
	@echo "==> mypy"; $(BIN)/mypy
	@echo "==> vermin, Python $(NODE_PYTHON)"; $(BIN)/vermin --quiet --no-tips --violations -t=$(NODE_PYTHON)- $(NODE_CODE)
	@echo "==> shellcheck"; shellcheck $(SHELL_SCRIPTS)
	@echo "==> links"; $(BIN)/python tests/repo/doc_links.py

.PHONY: docs
docs: $(VENV)/.installed ## Regenerate docs/cli-reference.md from --help, and what docs/agent.md has from the code
	@$(BIN)/python tests/repo/cli_reference.py > docs/.cli-reference.new
	@mv docs/.cli-reference.new docs/cli-reference.md
	@$(BIN)/python tests/repo/agent_page.py

.PHONY: bench
bench: $(VENV)/.installed $(VENV)/.lab-packages need-root ## Measure against Ansible, pyinfra and wg-meshconf; writes docs/benchmarks.md
	@$(call apt,nftables openssh-server iproute2 iperf3 nebula coturn wireguard-go wireguard-tools)
	@$(AS_ROOT) $(BIN)/python tests/bench/main.py all

.PHONY: bench-paths
bench-paths: $(VENV)/.installed $(VENV)/.lab-packages need-root ## Which way hosts behind NATs reach each other, how soon, what is lost, what it costs, and the same beside Nebula; writes docs/benchmarks.md
	@$(call apt,iperf3 coturn wireguard-go wireguard-tools nebula)
	@$(AS_ROOT) $(BIN)/python tests/bench/main.py paths path_places path_times path_losses path_cost path_nebula

.PHONY: rotate-keys
rotate-keys: $(VENV)/.installed $(VENV)/.lab-packages need-root ## What a rotation of every key of eight nodes loses, on all pairs; writes docs/keys.md
	@$(AS_ROOT) $(BIN)/python tests/bench/rotate_keys.py

.PHONY: zipapp
zipapp: $(VENV)/.installed ## Pack meshctl itself into dist/meshctl.pyz (its dependencies stay in the venv)
	@$(BIN)/python tests/repo/zip_package.py dist/meshctl.pyz

.PHONY: clean
clean: ## Remove what was built, the venv included; the lab's image cache stays (see docs/lab.md)
	@rm -rf $(VENV) build dist *.egg-info .bench .mypy_cache .ruff_cache .pytest_cache .hypothesis .fuzz
	@find meshctl tests roles inventory schemas templates -name __pycache__ -type d -prune -exec rm -rf {} +
