# `make demo` and `make test` do all the set-up; everything goes into .venv and .cache beside this file.
PYTHON ?= python3
BIN := .venv/bin
# where a container forbids bytecode, every program would compile our modules anew
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help demo test lint format bench prove docs clean
help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

.venv/local: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[local]'
	@touch $@

.venv/dev: .venv/local
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group dev
	@touch $@

.cache/helm/%/helm: | .venv/local
	$(BIN)/python scripts/get_helm.py $* --into .cache/helm || command -v helm

demo: .venv/local .cache/helm/4.3.1/helm  ## create, show and delete a cluster on the embedded stack
	@PATH="$(CURDIR)/$(BIN):$(CURDIR)/.cache/helm/4.3.1:$$PATH" scripts/demo.sh

test: .venv/dev .cache/helm/3.17.2/helm .cache/helm/4.3.1/helm  ## run the tests
	@$(BIN)/python -m pytest -n 1 tests/prove >.cache/prove.log 2>&1 & prove=$$!; \
	$(BIN)/python -m pytest -n 2 --dist loadgroup --ignore tests/prove; rest=$$?; \
	wait $$prove; proof=$$?; cat .cache/prove.log; exit $$((rest || proof))

prove: .venv/dev .cache/helm/4.3.1/helm  ## run the whole proof of crash safety (long)
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m prove --ignore tests/prove
	$(BIN)/python scripts/prove.py

lint: .venv/dev  ## style, types, layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/dev  ## put the code into shape
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

.cache/awscli/bin/aws:
	-$(PYTHON) -m venv .cache/awscli && .cache/awscli/bin/python -m pip install --quiet --disable-pip-version-check awscli

bench: .venv/local .cache/helm/4.3.1/helm .cache/awscli/bin/aws  ## measure, and write docs/performance.md (10 minutes)
	$(BIN)/python scripts/bench --write

docs: .venv/dev  ## write the generated pages
	$(BIN)/python scripts/generate.py

clean:  ## remove everything that make made
	rm -rf .venv .cache build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
