# `make demo` and `make test` do all the set-up; everything goes into .venv and .cache beside this file.
PYTHON ?= python3
BIN := .venv/bin
# where a container forbids bytecode, every program would compile our modules anew
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help demo test test-random lint format bench prove docs site e2e e2e-sweep lock dist clean
help:  ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 13

# What is installed is in requirements/, by version and hash; `make lock` renews it, and NEWEST=1
# takes the newest versions that pyproject.toml allows, as a weekly job does.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.venv/local: pyproject.toml requirements/local.txt
	@echo "installing $$(grep -c '^[a-z]' requirements/local.txt) Python packages into .venv"
	$(PYTHON) -m venv .venv
ifdef NEWEST
	$(INSTALL) --upgrade 'pip>=25.1'
	$(INSTALL) --upgrade --upgrade-strategy eager --editable '.[local]'
else
	$(INSTALL) --require-hashes --requirement requirements/local.txt
	$(INSTALL) --no-deps --no-build-isolation --editable .
endif
	@touch $@

.venv/dev: .venv/local requirements/dev.txt
	@echo "installing $$(grep -c '^[a-z]' requirements/dev.txt) Python packages, with those of the tests"
ifdef NEWEST
	$(INSTALL) --upgrade --upgrade-strategy eager --group dev
else
	$(INSTALL) --require-hashes --requirement requirements/dev.txt
endif
	@touch $@

.cache/uv/bin/uv:
	$(PYTHON) -m venv .cache/uv && .cache/uv/bin/python -m pip install --quiet --disable-pip-version-check uv

LOCK := .cache/uv/bin/uv pip compile --quiet --universal --python-version 3.11 --upgrade \
  --generate-hashes --no-header --no-emit-index-url
COMPILE := $(LOCK) --extra local --group build

lock: .cache/uv/bin/uv  ## renew the versions and hashes in requirements/
	$(COMPILE) --group dev --output-file requirements/dev.txt pyproject.toml
	$(COMPILE) --constraint requirements/dev.txt --output-file requirements/local.txt pyproject.toml
	$(LOCK) --group site --output-file requirements/site.txt

.cache/helm/%/helm: | .venv/local
	@echo "downloading helm $* into .cache/helm"
	@$(BIN)/python scripts/get_helm.py $* --into .cache/helm || command -v helm || \
	  echo "hyperpod-eks downloads helm when it needs it"

.cache/published: requirements/published.txt | .venv/local
	-$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes \
	  --requirement $< --dest $@ && touch $@

# the helm that hyperpod-eks downloads (hyperpod_eks/helm/download.py); tests also take the oldest and the newest
HELM := 4.1.4

demo: .venv/local .cache/helm/$(HELM)/helm  ## create, show and delete a cluster on the embedded stack
	@PATH="$(CURDIR)/$(BIN):$(CURDIR)/.cache/helm/$(HELM):$$PATH" scripts/demo.sh

test: .venv/dev .cache/published .cache/helm/3.17.2/helm .cache/helm/4.3.1/helm  ## run the tests
	@$(BIN)/python -m pytest -n 1 tests/prove >.cache/prove.log 2>&1 & prove=$$!; \
	$(BIN)/python -m pytest -n 3 --dist loadfile --ignore tests/prove; rest=$$?; \
	wait $$prove; proof=$$?; cat .cache/prove.log; exit $$((rest || proof))

test-random:  ## run the tests 3 times in random order on a busy machine (long)
	@MAKE="$(MAKE)" scripts/test_random.sh

prove: .venv/dev .cache/helm/4.3.1/helm .cache/awscli/bin/aws  ## run the whole proof of crash safety (long)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m prove --ignore tests/prove
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

E2E := PATH="$(CURDIR)/.cache/helm/$(HELM):$$PATH" $(BIN)/python scripts/e2e.py
WHERE := --account "$(ACCOUNT)" --region "$(REGION)" --endpoint "$(ENDPOINT)"

e2e: .venv/local .cache/helm/$(HELM)/helm  ## run on a real account, which costs money (docs/e2e.md)
	@$(E2E) run $(WHERE) --tier "$(or $(TIER),0)" --budget "$(or $(BUDGET),5)" $(if $(KEEP),--keep)

e2e-sweep: .venv/local .cache/helm/$(HELM)/helm  ## remove what an interrupted e2e left
	@$(E2E) sweep $(WHERE) $(if $(NOW),--now)

docs: .venv/dev  ## write the generated pages
	$(BIN)/python scripts/generate.py
	$(BIN)/python scripts/diagram.py

.cache/site/venv: requirements/site.txt
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $<
	@touch $@

# Sphinx calls its first page README.html; servers ask for index.html
site: .cache/site/venv  ## build the documentation site in .cache/site/html
	.cache/site/venv/bin/python -m sphinx -q -W --keep-going -c docs -d .cache/site/doctrees . .cache/site/html
	@cp .cache/site/html/README.html .cache/site/html/index.html

.cache/sbom/bin/cyclonedx-py:
	$(PYTHON) -m venv .cache/sbom && .cache/sbom/bin/python -m pip install --quiet --disable-pip-version-check cyclonedx-bom==7.5.0

dist: .venv/local .cache/sbom/bin/cyclonedx-py  ## build wheel, source and SBOM; TAG=v1.2.0 must be the version
	@version=$$($(BIN)/python -c 'import hyperpod_eks; print(hyperpod_eks.__version__)'); \
	test -z "$(TAG)" -o "$(TAG)" = "v$$version" || { echo "the version is $$version, not $(TAG)"; exit 1; }; \
	test -z "$(TAG)" || grep -qE "^## \[?$$version" CHANGELOG.md || { echo "CHANGELOG.md has no $$version"; exit 1; }
	rm -rf dist
	$(BIN)/python -m hatchling build -d dist
	.cache/sbom/bin/cyclonedx-py environment .venv --pyproject pyproject.toml --output-reproducible \
	  --output-file dist/hyperpod-eks.cdx.json

clean:  ## remove everything that make made
	rm -rf .venv .cache build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
