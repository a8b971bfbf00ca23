# Answers and scores. Each task has rules of its own, which are the same for all: predict_<task>, score_<task>, and for
# answers that were given elsewhere import_<task>.


rule fetch_answers:
    """Get a file of answers that were given elsewhere, as it is."""
    output:
        file="<results>/runs/{model}/{run}/{task}_given",
    log:
        "<logs>/fetch_answers/{model}/{run}/{task}.log",
    wildcard_constraints:
        task=any_of(TASKS),
        run=any_of(folder for _, folder in GIVEN),
    localrule: True
    conda:
        "../envs/data.yaml"
    params:
        recipe=identity.RECIPES["fetch"],
        settings=lambda wildcards: {
            key: value
            for key, value in given_settings(wildcards.model, wildcards.run, wildcards.task).items()
            if key in ("source", "sha256", "name", "files")
        },
    script:
        "../scripts/steps/fetch_answers.py"


for task in TASKS:

    rule:
        name:
            f"predict_{task}"
        input:
            prompts=asked_prompts,
            record="<results>/models/{model}.json",
            adapter=own_adapter,
            failed=to_repair,
        output:
            answers="<results>/runs/{model}/{run}/{task}_answers.jsonl",
            report="<results>/runs/{model}/{run}/{task}_predict.json",
        log:
            "<logs>/predict_{task}/{model}/{run}.log",
        benchmark:
            "<benchmarks>/predict_{task}/{model}/{run}.tsv"
        wildcard_constraints:
            task=task,
            run=any_of(run["folder"] for run in [*RUNS_HERE, *NOISE, *(REPAIRS if task == TARGET else [])]),
        conda:
            "../envs/model.yaml"
        threads: 2
        resources:
            gpu=1,
            mem_mb=more_memory(f"predict_{task}/{{model}}/{{run}}.log"),
            runtime=720,
        params:
            identity=lambda wildcards: identity.decoding(decoding(wildcards), LABELS[wildcards.run] in ADAPTED),
            unwatched=lambda wildcards, resources: decoding(wildcards),
        script:
            "../scripts/steps/predict.py"

    rule:
        name:
            f"import_{task}"
        input:
            file="<results>/runs/{model}/{run}/{task}_given",
            questions="<results>/data/{task}/test.jsonl",
            manifest="<results>/data/{task}/source/manifest.json",
        output:
            answers="<results>/runs/{model}/{run}/{task}_answers.jsonl",
            report="<results>/runs/{model}/{run}/{task}_predict.json",
        log:
            "<logs>/import_{task}/{model}/{run}.log",
        wildcard_constraints:
            task=task,
            run=any_of(folder for _, folder in GIVEN),
        group:
            "scores"
        conda:
            "../envs/score.yaml"
        params:
            settings=lambda wildcards: given_settings(wildcards.model, wildcards.run, wildcards.task)
            | {"kind": config["tasks"][wildcards.task]["kind"]},
            code=code.digest("import_answers"),
        script:
            "../scripts/steps/import_answers.py"

    rule:
        name:
            f"score_{task}"
        input:
            answers=scored_answers,
            report=report_of_answers,
            first=first_answers,
            questions="<results>/data/{task}/test.jsonl",
            manifest="<results>/data/{task}/source/manifest.json",
        output:
            **({"rows": "<results>/runs/{model}/{run}/{task}_rows.jsonl"} if task in SQL_TASKS else {}),
            records="<results>/runs/{model}/{run}/{task}.csv",
        log:
            "<logs>/score_{task}/{model}/{run}.log",
        benchmark:
            "<benchmarks>/score_{task}/{model}/{run}.tsv"
        wildcard_constraints:
            task=task,
        group:
            "scores"
        conda:
            "../envs/score.yaml"
        threads: 4 if task in SQL_TASKS else 1
        params:
            settings=stage(task, "score"),
            code=code.digest("score"),
        script:
            "../scripts/steps/score.py"
