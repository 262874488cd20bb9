# The vocabulary of the project: every target is one line that calls a room.
#   make run                                  the whole loop on simulated sign-ups
#   make run DOMAIN=oulad DATA=<folder>       the same on real people
#   make run BROKER=rabbitmq ONLINE=redis     live events through a broker, on several workers
DOMAIN ?= saas
STATE ?= var
PORT ?= 3000
USERS ?= 5000
DATA ?=
BROKER ?=
ONLINE ?=
VERSION ?=
ARGS ?=

export FIRSTMILE_HOME := $(abspath $(STATE))
export FIRSTMILE_DOMAIN := $(DOMAIN)
export BENTOML_HOME := $(FIRSTMILE_HOME)/bentoml
export BENTOML_DO_NOT_TRACK := True
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := true
export FEAST_USAGE := False

VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help install run test soak lint bench wheel simulate ingest compact backfill apply features quarantine train promote evaluate compare build serve stream replay experiments report parity mlflow-ui feast-ui lock clean distclean

help: ## This list
	@grep -E '^[a-z-]+:.*## ' Makefile | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'
	@echo "Variables: DOMAIN=$(DOMAIN) DATA=<folder> PORT=$(PORT) STATE=$(STATE) USERS=$(USERS) BROKER=kafka|rabbitmq|kinesis ONLINE=redis VERSION=<n> ARGS=<options of the command>"

$(READY): requirements.lock pyproject.toml
	@python=$$(for p in $(PYTHON) python3 python3.12 python3.11; do $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done); \
	if [ -z "$$python" ]; then echo "Firstmile needs Python 3.11 or 3.12 on the PATH (or PYTHON=/path/to/python)."; exit 1; fi; \
	echo "Creating $(VENV) with $$($$python --version) and installing the locked packages; the first time takes a few minutes ..."; \
	$$python -m venv $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(READY)

install: $(READY) ## Create or update the virtual environment

run: $(READY) ## The whole loop: events, features, model, service, decisions, report
	@$(PY) -m monitoring run --users $(USERS) $(if $(filter file default,$(origin PORT)),,--port $(PORT)) $(if $(DATA),--data "$(DATA)") $(if $(BROKER),--broker $(BROKER)) $(if $(ONLINE),--online $(ONLINE)) $(ARGS)

test: $(READY) ## All tests in their short forms
	@$(PY) -m pytest tests -m "not soak" -n 2 --dist loadscope --no-loadscope-reorder $(ARGS)

soak: $(READY) ## The full-size forms of slow properties
	@FIRSTMILE_HYPOTHESIS=soak $(PY) -m pytest tests -m "soak or hypothesis" --timeout 3600 -n 2 --dist loadscope --no-loadscope-reorder $(ARGS)

lint: $(READY) ## Style and types
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy

bench: $(READY) ## Ratios against what one would do instead, into bench.json
	@$(PY) -m tests.bench $(if $(DATA),--data "$(DATA)") $(ARGS)

wheel: $(READY) ## Build the wheel into dist/
	@$(PY) -m build --wheel --no-isolation --outdir dist .

simulate: $(READY) ## Simulated sign-ups into the lake
	@$(PY) -m feature_repo simulate --users $(USERS) $(ARGS)

ingest: $(READY) ## A domain's source into the lake
	@$(PY) -m feature_repo ingest $(if $(DATA),--data "$(DATA)") $(ARGS)

compact: $(READY) ## One lake file a bucket of users, without copies
	@$(PY) -m feature_repo compact $(ARGS)

backfill: $(READY) ## Feature rows of whom new events touch, offline and online
	@$(PY) -m feature_repo backfill $(ARGS)

apply: $(READY) ## Tell Feast what the domain declares
	@$(PY) -m feature_repo apply $(ARGS)

features: $(READY) ## The feature catalogue
	@$(PY) -m feature_repo features $(ARGS)

quarantine: $(READY) ## The refused events and why
	@$(PY) -m feature_repo quarantine $(ARGS)

train: $(READY) ## Train the candidates, register the best
	@$(PY) -m training train $(ARGS)

promote: $(READY) ## Let the newest version through the gate; VERSION=n rolls back
	@$(PY) -m training promote $(if $(VERSION),--version $(VERSION)) $(ARGS)

evaluate: $(READY) ## Score a version on the newest holdout
	@$(PY) -m training evaluate $(if $(VERSION),--version $(VERSION)) $(ARGS)

compare: $(READY) ## oulad beside the published figures
	@$(PY) -m training compare $(ARGS)

build: $(READY) ## A Bento that holds the champion
	@$(PY) -m serving build $(ARGS)

stream: $(READY) ## The workers that apply what a broker (FIRSTMILE_LOG) holds
	@$(PY) -m feature_repo stream $(ARGS)

serve: $(READY) ## The decision service on 127.0.0.1:PORT
	@$(PY) -m serving serve --port $(PORT) $(ARGS)

replay: $(READY) ## Every decision made again from its receipt
	@$(PY) -m serving replay --all $(ARGS)

experiments: $(READY) ## What each experiment has brought
	@$(PY) -m monitoring experiments $(ARGS)

report: $(READY) ## The weekly report
	@$(PY) -m monitoring report $(ARGS)

parity: $(READY) ## Every served feature vector against the lake
	@$(PY) -m monitoring parity $(ARGS)

mlflow-ui: $(READY) ## MLflow's pages on 127.0.0.1:5000
	@$(VENV)/bin/mlflow ui --backend-store-uri sqlite:///$(FIRSTMILE_HOME)/mlflow.db

feast-ui: $(READY) ## Feast's pages on 127.0.0.1:8888
	@cd feature_repo && ../$(VENV)/bin/feast -f "$(FIRSTMILE_HOME)/$(DOMAIN)/feature_store.yaml" ui --host 127.0.0.1

lock: ## Resolve the dependencies anew into requirements.lock
	@test -x $(VENV)/bin/uv || $(PY) -m pip install --quiet uv
	@$(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header --group dev pyproject.toml -o requirements.lock

clean: ## Remove the state folder
	@rm -rf "$(FIRSTMILE_HOME)"

distclean: clean ## Remove the virtual environment and what was built as well
	@rm -rf $(VENV) dist
