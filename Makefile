# The developer's entry points. Each works from a clean checkout: packaging/dev-setup installs what is missing.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

export ROSTERD_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/rosterd

# Throwaway machines take root. What runs as root leaves nothing in the checkout, and uses the cache of who called it.
AS_ROOT := $(if $(filter-out 0,$(shell id -u)),sudo) \
	env ROSTERD_CACHE='$(ROSTERD_CACHE)' CI='$(CI)' PYTHONDONTWRITEBYTECODE=1
PYTHON := .venv/bin/python
# One process a core; the tests of a file share what they set up, and run in one of them.
SIDE_BY_SIDE := --numprocesses=2 --dist=loadfile

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.* ## /\1\t/p' $(MAKEFILE_LIST) | expand -t 18

.PHONY: demo
demo: deb ## show the whole job in a throwaway machine; KEEP=1 opens a shell in it afterwards
	@packaging/dev-setup machine
	@$(AS_ROOT) KEEP='$(KEEP)' $(PYTHON) -m tests.demo

.PHONY: test
test: ## check, unit and machine-test, each with the time it took
	@for part in check unit machine-test; do \
		printf '\n=== make %s\n' "$$part"; \
		started=$$SECONDS; \
		$(MAKE) "$$part"; \
		printf '=== make %s: passed in %d s\n' "$$part" "$$((SECONDS - started))"; \
	done
	@printf '\nmake test: all passed\n'

.PHONY: check
check: ## linters, formatting, types, import contracts, shell scripts
	@packaging/dev-setup check
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy reconciler tests
	.venv/bin/lint-imports
	find .ci packaging tests -type f -exec awk '/^#!\/bin\/(ba|da)?sh/ {print FILENAME} {nextfile}' {} + | xargs shellcheck

.PHONY: unit
unit: ## unit and property tests
	@packaging/dev-setup check
	$(PYTHON) -m pytest $(SIDE_BY_SIDE) tests/unit

.PHONY: machine-test
machine-test: deb ## tests on real systemd, in throwaway machines
	@packaging/dev-setup machine
	@$(AS_ROOT) $(PYTHON) -m tests.machine.rootfs bookworm trixie
	@# Where one of these cannot be had, the tests that need it are skipped and say why; but not in CI.
	@$(AS_ROOT) $(PYTHON) -m tests.machine.rootfs bookworm-browser || [ '$(CI)' != true ]
	@$(AS_ROOT) $(PYTHON) -m tests.machine.rootfs bookworm-around || [ '$(CI)' != true ]
	$(AS_ROOT) $(PYTHON) -m pytest -p no:cacheprovider $(SIDE_BY_SIDE) tests/machine

.PHONY: proof
proof: deb ## run what tests sample at full size, and write docs/reliability.md; ROWS="power fuzz" for some of it
	@packaging/dev-setup machine
	@$(AS_ROOT) $(PYTHON) -m tests.machine.rootfs bookworm trixie
	$(AS_ROOT) $(PYTHON) -m tests.proof $(ROWS)

.PHONY: deb
deb: ## build dist/rosterd_*.deb
	@packaging/dev-setup deb
	packaging/build-deb

.PHONY: picture
picture: deb ## draw docs/run.svg from the real output of a throwaway machine
	@packaging/dev-setup machine
	@$(AS_ROOT) $(PYTHON) -m tests.demo.picture

.PHONY: status-pictures
status-pictures: ## draw docs/status-*.png with the browser of a throwaway machine
	@packaging/dev-setup machine
	@$(AS_ROOT) $(PYTHON) -m tests.demo.status_pictures

.PHONY: bench
bench: deb ## measure rosterd beside its floor and other tools, half an hour; SIZES="10 100" is a short one
	@packaging/dev-setup bench
	@$(AS_ROOT) $(PYTHON) -m tests.bench $(SIZES)

.PHONY: shell
shell: deb ## a root shell in a throwaway machine with the package
	@packaging/dev-setup machine
	@$(AS_ROOT) $(PYTHON) -m tests.machine.machine bookworm --deb dist/rosterd_*.deb

.PHONY: clean
clean: ## remove what was built in the checkout; the cache stays
	rm -rf dist build .venv .peers .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage *.egg-info
	find reconciler tests -name __pycache__ -prune -exec rm -rf {} +
