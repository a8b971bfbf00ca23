# `make help` lists what there is. Everything runs in the environment .venv, which envs/environment.py builds.

SHELL := bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# Any Python 3.11 or later makes the environment, and torch can be another build, from the index whose address PyTorch's
# install page names: make demo PYTHON=python3.12 TORCH=<address>. The choice stays until another is made.
ENVIRONMENT := $(or $(PYTHON),$(shell command -v python3.11 || command -v python3)) envs/environment.py \
	$(if $(PYTHON),--python $(PYTHON)) $(if $(TORCH),--torch $(TORCH))
# Where the link points now: what runs for days must not follow it to another environment.
BIN = $(realpath .venv)/bin
# The demo and the tests are offline: a model library must not even ask.
OFFLINE := HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 HF_DATASETS_OFFLINE=1 DEEPEVAL_TELEMETRY_OPT_OUT=1
# Processes of tests must not spin while they wait for each other's cores. They start hundreds of others, none of which is
# to compile our modules again, so bytecode is written whatever the shell says.
TESTING := OMP_WAIT_POLICY=passive PYTHONDONTWRITEBYTECODE=

# With what a run of a study ends: its answer, and where the rest stands.
answered = cat results/$(1)/answer.md; echo; ls results/$(1)/report.pdf results/$(1)/answers.html results/$(1)/tables.html

.PHONY: help environment environment-is-there demo demo-full demo-replay studies plan why bundle verify test harness faults some-faults families lint size format dag demo-data demo-model clean

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

environment: ## build .venv beside the one there is, if its requirements changed; PYTHON=python3.12 TORCH=<index> choose
	@$(ENVIRONMENT)

# What may be typed while a study runs builds nothing.
environment-is-there:
	@$(ENVIRONMENT) --check

demo: environment ## the whole study on the embedded data: offline, on a CPU, in minutes
	$(OFFLINE) $(BIN)/python -m snakemake --cores all
	@echo
	@$(call answered,demo)

demo-full: environment-is-there ## the demo with strengths, trajectory and a soup: within 20 minutes on two cores
	$(OFFLINE) $(BIN)/python -m snakemake --cores all --configfile studies/demo-full.yaml
	@echo
	@$(call answered,demo-full)

demo-replay: environment-is-there ## the demo's adapter that forgets, with replay and a KL term: within 20 minutes on two cores
	$(OFFLINE) $(BIN)/python -m snakemake --cores all --configfile studies/demo-replay.yaml
	@echo
	@$(call answered,demo-replay)

studies: environment-is-there ## list the studies: model, licence, adapters, questions, memory
	@$(BIN)/python scripts/studies.py

plan: environment-is-there ## what a study will need and be able to find; make plan STUDY=studies/<name>.yaml [GPU=RTX4090]
	@$(OFFLINE) $(BIN)/python scripts/preregister.py $(if $(STUDY),--configfile $(STUDY))
	@echo
	@$(OFFLINE) $(BIN)/python scripts/plan.py $(if $(STUDY),--configfile $(STUDY)) $(if $(GPU),--gpu $(GPU))

why: environment-is-there ## what a run would do, because of which key or file, and how many hours; make why STUDY=studies/<name>.yaml
	@$(OFFLINE) $(BIN)/python scripts/why.py $(if $(STUDY),--configfile $(STUDY))

bundle: environment-is-there ## pack a finished study into results/<study>.zip; make bundle STUDY=studies/<name>.yaml
	@$(OFFLINE) $(BIN)/python scripts/bundle.py $(if $(STUDY),--configfile $(STUDY))

verify: environment-is-there ## score and count a packed study anew; make verify BUNDLE=<study>.zip [DATA=results/<study>/data]
	@$(BIN)/python scripts/verify.py $(BUNDLE) $(if $(DATA),--data $(DATA))

# Two processes at a time. A process takes one file after the other, so that what a file's tests share is made once; whole
# runs come first (tests/conftest.py), so that both end at about the same time. No test needs what deepeval adds to pytest.
test: environment ## all tests but those that take minutes
	$(OFFLINE) $(TESTING) $(BIN)/python -m pytest -p no:deepeval --numprocesses 2 --dist loadfile --no-loadscope-reorder tests

harness: environment-is-there ## add lm-evaluation-harness to the environment, for evaluation.harness
	$(BIN)/python -m pip install --quiet --requirement requirements-harness.txt

faults: harness ## the tests that take minutes: kill, fill and break what runs; as root, with a SLURM that they start
	$(OFFLINE) $(TESTING) $(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m "long and not faults" tests
	$(OFFLINE) $(BIN)/python -m pytest -m faults tests

some-faults: environment-is-there ## a few of these, one of each kind, for each change
	$(OFFLINE) $(TESTING) $(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m "ci and not faults" tests/analysis tests/llm tests/workflow
	$(OFFLINE) $(BIN)/python -m pytest -m "ci and faults" --kills 2 tests/workflow

families: environment-is-there ## engine, packing and adapters on a tiny model of each family; REWRITE=1 writes docs/families.md
	$(OFFLINE) $(TESTING) $(BIN)/python -m pytest -m families tests/llm/test_families.py tests/llm/test_kept.py

lint: environment-is-there ## check style and rooms: ruff, snakefmt, import-linter, snakemake --lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	PYTHONPATH=scripts:. $(BIN)/lint-imports --no-cache
	$(BIN)/python -m snakemake --lint

# What a newcomer would have to read. Sentences (prose of report and card, words) stand apart, tests and benchmarks too.
PROSE := templates/(report|results|discussion|model_card)[a-z.]*\.md\.j2

size: ## count the lines of code
	@git ls-files | grep -E '\.(py|smk|html|js|css|typ|j2)$$|^Snakefile$$' \
		| grep -Ev '^(tests|studies|benchmarks|resources/demo)/|$(PROSE)' | xargs cat | wc -l | sed 's/$$/ lines of code/'
	@git ls-files | grep -E '$(PROSE)|/words\.' | xargs cat | wc -l | sed 's/$$/ lines of sentences/'

format: environment-is-there ## mend style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile rules

dag: environment-is-there ## draw the rules into docs/dag.mmd (Mermaid)
	mkdir -p docs
	$(BIN)/python -m snakemake --cores 1 --forceall --rulegraph mermaid-js > docs/dag.mmd

demo-data: environment-is-there ## write the demo's databases and questions anew; equal bytes every time
	$(BIN)/python resources/demo/build/make_data.py

demo-model: environment-is-there ## train the demo's base model anew; needs a GPU, seven minutes on an H100
	$(BIN)/python resources/demo/build/pretrain.py

clean: ## remove the demo's results and all caches; not environments, not other studies
	# .snakemake stays: it remembers the settings behind the other studies' results.
	rm -rf results/demo .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
