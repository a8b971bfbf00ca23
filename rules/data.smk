# Data, models and prompts. Each task has rules of its own, which are the same for all: fetch_<task>, prepare_<task>,
# render_<task>.


rule fetch_model:
    """Get a model at its pinned revision, and record where it lies and what is in it."""
    output:
        record="<results>/models/{model}.json",
    log:
        "<logs>/fetch_model/{model}.log",
    benchmark:
        "<benchmarks>/fetch_model/{model}.tsv"
    # Before the data sets: what the hub refuses, it refuses at once.
    priority: 1
    localrule: True
    conda:
        "../envs/data.yaml"
    params:
        recipe=identity.RECIPES["fetch"],
        settings=lambda wildcards: unfold.pick(
            config["models"][wildcards.model],
            "source",
            "revision",
            **local_files(config["models"][wildcards.model]),
            **unfold.thinking(config["models"][wildcards.model]),
        ),
    script:
        "../scripts/steps/fetch_model.py"


for task in config["tasks"]:

    rule:
        name:
            f"fetch_{task}"
        output:
            manifest="<results>/data/{task}/source/manifest.json",
        log:
            "<logs>/fetch_{task}.log",
        benchmark:
            "<benchmarks>/fetch_{task}.tsv"
        wildcard_constraints:
            task=task,
        localrule: True
        conda:
            "../envs/data.yaml"
        params:
            settings=stage(task, "fetch", **local_files(config["tasks"][task])),
            recipe=identity.RECIPES["fetch"],
        script:
            "../scripts/steps/fetch_data.py"

    rule:
        name:
            f"prepare_{task}"
        input:
            manifest="<results>/data/{task}/source/manifest.json",
            yardsticks=[f"<results>/data/{name}/source/manifest.json" for name in kept_out(task)],
            answers=deciding_answers,
        output:
            rows="<results>/data/{task}/{part}.jsonl",
            about="<results>/data/{task}/{part}.json",
        log:
            "<logs>/prepare_{task}/{part}.log",
        wildcard_constraints:
            task=task,
            part=any_of(kind_of(task).PARTS),
        group:
            "data"
        conda:
            "../envs/data.yaml"
        params:
            identity=lambda wildcards: identity.preparing(part_settings(wildcards.task, wildcards.part)),
            unwatched=lambda wildcards, resources: part_settings(wildcards.task, wildcards.part),
            recipe=identity.RECIPES["prepare"],
        script:
            "../scripts/steps/prepare.py"

    rule:
        name:
            f"render_{task}"
        input:
            unpack(part_rows),
            manifest="<results>/data/{task}/source/manifest.json",
            record="<results>/models/{model}.json",
        output:
            prompts="<results>/prompts/{model}/{task}_{part}.jsonl",
            report="<results>/prompts/{model}/{task}_{part}.json",
        log:
            "<logs>/render_{task}/{model}/{part}.log",
        wildcard_constraints:
            task=task,
            part="train|validation|test(_shots[0-9]+)?",
        group:
            "data"
        conda:
            "../envs/model.yaml"
        params:
            identity=lambda wildcards: identity.rendering(prompt_settings(wildcards)),
            # With `resources` among its arguments, Snakemake does not compare it.
            unwatched=lambda wildcards, resources: prompt_settings(wildcards),
            # Its content is in the settings: where it lies changes nothing.
            words=lambda wildcards, resources: str(template_of(wildcards.task, wildcards.part)),
        script:
            "../scripts/steps/render.py"
