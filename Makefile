# `make help` lists what there is. Everything runs in .venv, made once from requirements.txt.

SHELL := bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# Any Python 3.11 or later makes the environment: make demo PYTHON=python3.12
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# The demo and the tests are offline: a model library must not even ask.
OFFLINE := HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 HF_DATASETS_OFFLINE=1 DEEPEVAL_TELEMETRY_OPT_OUT=1

.PHONY: help demo demo-full demo-replay studies plan why test harness faults lint size format dag demo-data demo-model clean

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# torch first and alone: pip then takes exactly this build, whatever the other packages would accept.
.venv/.stamp: requirements.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or later is needed; name one: make PYTHON=...")'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "$$(grep '^torch==' requirements.txt)"
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	touch $@

demo: .venv/.stamp ## the whole study on the embedded data: offline, on a CPU, in minutes
	$(OFFLINE) $(BIN)/python -m snakemake --cores all
	@echo
	@cat results/demo/tables/regression.md
	@echo
	@echo "Read results/demo/report.pdf; look at results/demo/answers.html and tables.html in a browser."
	@echo "The adapter to use: results/demo/recommended/README.md"

demo-full: .venv/.stamp ## the demo with strengths, trajectory and a soup: within 20 minutes on two cores
	$(OFFLINE) $(BIN)/python -m snakemake --cores all --configfile studies/demo-full.yaml
	@echo
	@cat results/demo-full/tables/regression.md
	@echo
	@echo "Figures: results/demo-full/figures/strength.svg and trajectory.svg   Report: results/demo-full/report.pdf"
	@echo "The point to use: results/demo-full/recommended/README.md"

demo-replay: .venv/.stamp ## the demo's adapter that forgets, with replay and a KL term: within 20 minutes on two cores
	$(OFFLINE) $(BIN)/python -m snakemake --cores all --configfile studies/demo-replay.yaml
	@echo
	@cat results/demo-replay/tables/factors.md

studies: .venv/.stamp ## list the studies: model, licence, adapters, questions, memory
	@$(BIN)/python scripts/studies.py

plan: .venv/.stamp ## what a study will need: memory, tokens, time; make plan STUDY=studies/<name>.yaml
	@$(OFFLINE) $(BIN)/python scripts/plan.py $(if $(STUDY),--configfile $(STUDY))

why: .venv/.stamp ## what a run would do, because of which key or file, and its GPU hours; make why STUDY=studies/<name>.yaml
	@$(OFFLINE) $(BIN)/python scripts/why.py $(if $(STUDY),--configfile $(STUDY))

# Two processes at a time, which must not spin while they wait for each other's cores; whole runs use both by themselves.
test: .venv/.stamp ## all tests but those that take minutes
	$(OFFLINE) OMP_WAIT_POLICY=passive $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --ignore tests/workflow --ignore tests/golden tests
	$(OFFLINE) OMP_WAIT_POLICY=passive $(BIN)/python -m pytest --numprocesses 2 --dist loadfile tests/golden tests/workflow

.venv/.harness: requirements-harness.txt .venv/.stamp
	$(BIN)/python -m pip install --quiet --requirement requirements-harness.txt
	touch $@

harness: .venv/.harness ## add lm-evaluation-harness to the environment, for evaluation.harness

faults: .venv/.harness ## the tests that take minutes: kill, fill and break what runs; as root, with a SLURM that they start
	$(OFFLINE) OMP_WAIT_POLICY=passive $(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m "long and not faults" tests
	$(OFFLINE) $(BIN)/python -m pytest -m faults tests

lint: .venv/.stamp ## check style and rooms: ruff, snakefmt, import-linter, snakemake --lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	PYTHONPATH=scripts:. $(BIN)/lint-imports --no-cache
	$(BIN)/python -m snakemake --lint

# What a newcomer would have to read. Sentences (prose of report and card, words) stand apart, tests and benchmarks too.
PROSE := templates/(report|results|discussion|card)[a-z.]*\.md\.j2

size: ## count the lines of code
	@git ls-files | grep -E '\.(py|smk|html|js|css|typ|j2)$$|^Snakefile$$' \
		| grep -Ev '^(tests|studies|benchmarks|resources/demo)/|$(PROSE)' | xargs cat | wc -l | sed 's/$$/ lines of code/'
	@git ls-files | grep -E '$(PROSE)|/words\.' | xargs cat | wc -l | sed 's/$$/ lines of sentences/'

format: .venv/.stamp ## mend style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile rules

dag: .venv/.stamp ## draw the rules into docs/dag.mmd (Mermaid)
	mkdir -p docs
	$(BIN)/python -m snakemake --cores 1 --forceall --rulegraph mermaid-js > docs/dag.mmd

demo-data: .venv/.stamp ## write the demo's databases and questions anew; equal bytes every time
	$(BIN)/python resources/demo/build/make_data.py

demo-model: .venv/.stamp ## train the demo's base model anew; needs a GPU, seven minutes on an H100
	$(BIN)/python resources/demo/build/pretrain.py

clean: ## remove the demo's results and all caches; not .venv, not other studies
	# .snakemake stays: it remembers the settings behind the other studies' results.
	rm -rf results/demo .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
