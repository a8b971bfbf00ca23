# Answers and scores. Each task has rules of its own, which are the same for all: predict_<task>, score_<task>.

for task in TASKS:

    rule:
        name:
            f"predict_{task}"
        input:
            prompts=asked_prompts,
            record="<results>/models/{model}.json",
            adapter=own_adapter,
        output:
            answers="<results>/runs/{model}/{run}/{task}_answers.jsonl",
            report="<results>/runs/{model}/{run}/{task}_predict.json",
        log:
            "<logs>/predict_{task}/{model}/{run}.log",
        benchmark:
            "<benchmarks>/predict_{task}/{model}/{run}.tsv"
        wildcard_constraints:
            task=task,
        conda:
            "../envs/model.yaml"
        threads: 2
        resources:
            gpu=1,
            mem_mb=more_memory(f"predict_{task}/{{model}}/{{run}}.log"),
            runtime=720,
        params:
            identity=lambda wildcards: identity.decoding(decoding(wildcards), LABELS[wildcards.run] in FOLDERS),
            unwatched=lambda wildcards, resources: decoding(wildcards),
        script:
            "../scripts/steps/predict.py"

    rule:
        name:
            f"score_{task}"
        input:
            answers=scored_answers,
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
        conda:
            "../envs/score.yaml"
        threads: 4 if task in SQL_TASKS else 1
        params:
            settings=stage(task, "score"),
            code=code.digest("score"),
        script:
            "../scripts/steps/score.py"
