# In a study that asks for a recommendation (`recommend`) alone.


rule recommend:
    """Choose the setting of each model that gains most among those shown to lose no more than the margin."""
    input:
        **{task: of_runs(f"{task}.csv") for task in TASKS},
    output:
        **table("recommendation"),
        decision="<results>/tables/recommendation.json",
    log:
        "<logs>/recommend.log",
    group:
        "results"
    conda:
        "../envs/score.yaml"
    params:
        settings=counted(RUNS),
        code=code.digest("recommend"),
    script:
        "../scripts/steps/recommend.py"


rule export_recommended:
    """Write what is recommended as plain PEFT or transformers load it, with its model card."""
    input:
        decision="<results>/tables/recommendation.json",
        # Which of them it is to be is known only when the rule runs.
        adapters=sorted({file for run in RUNS for file in adapter_files_of(run["variant"], run["model"])}),
        records=of_models("<results>/models/{model}.json"),
        prompts=of_models(f"<results>/prompts/{{model}}/{TARGET}_test.json"),
        base_prompts=of_models(
            f"<results>/prompts/{{model}}/{TARGET}_{OWN_PROMPTS[TARGET].get(unfold.BASE, 'test')}.json"
        ),
        source=f"<results>/data/{TARGET}/source/manifest.json",
    output:
        # What is in it depends on what is recommended, and nothing of an earlier choice may stay.
        folder=directory("<results>/recommended"),
    log:
        "<logs>/export_recommended.log",
    conda:
        "../envs/model.yaml"
    resources:
        # Of full fine-tuning the whole model is written, too.
        mem_mb=(
            32000 if config["recommend"]["merge"] or any(unfold.is_full(config, v) for v in VALUES.values()) else 4000
        ),
        runtime=60,
    params:
        settings=pick(
            "recommend.merge",
            "inference.merge_adapters",
            *WRITTEN,
            study=STUDY,
            folders=FOLDERS,
            precisions={name: model["precision"] for name, model in config["models"].items()},
            **({"base_precisions": BASE_PRECISIONS} if BASE_PRECISIONS else {}),
        )
        | {"tasks": MEASURED},
        code=code.digest("export_recommended"),
    script:
        "../scripts/steps/export_recommended.py"
