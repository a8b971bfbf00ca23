# In a study that asks for a recommendation (`recommend`) alone.


rule recommend:
    """Choose an adapter or point of each model on one half of the questions, and count it on the other half."""
    input:
        spider=collect("<results>/runs/{run[model]}/{run[variant]}/spider.csv", run=RUNS),
        mmlu=collect("<results>/runs/{run[model]}/{run[variant]}/mmlu.csv", run=RUNS),
    output:
        csv=shown("<results>/tables/recommendation.csv", "tables.recommendation"),
        md="<results>/tables/recommendation.md",
        decision="<results>/tables/recommendation.json",
    log:
        "<logs>/recommend.log",
    conda:
        "../envs/score.yaml"
    params:
        settings=pick(
            "recommend.max_loss_pp",
            "recommend.seed",
            "tables.semantics",
            "tables.confidence_level",
            *WRITTEN,
            study=STUDY,
            runs=RUNS,
        ),
    script:
        "../scripts/steps/recommend.py"


rule export_recommended:
    """Write what is recommended as plain PEFT or transformers load it, with its model card."""
    input:
        decision="<results>/tables/recommendation.json",
        # Which of them it is to be is known only when the rule runs.
        adapters=[
            f"<results>/runs/{model}/{folder}/{name}"
            for model in config["models"]
            for folder in dict.fromkeys(FOLDERS.values())
            for name in ADAPTER_FILES
        ],
        records=collect("<results>/data/models/{model}.json", model=config["models"]),
        prompts=collect("<results>/runs/{model}/prompts/dev.json", model=config["models"]),
        base_prompts=collect(
            f"<results>/runs/{{model}}/prompts/{OWN_PROMPTS.get(unfold.BASE, 'dev')}.json", model=config["models"]
        ),
        spider="<results>/data/spider/manifest.json",
    output:
        # What is in it depends on what is recommended, and nothing of an earlier choice may stay.
        folder=directory("<results>/recommended"),
    log:
        "<logs>/export_recommended.log",
    conda:
        "../envs/model.yaml"
    resources:
        mem_mb=32000 if config["recommend"]["merge"] else 4000,
    params:
        settings=pick(
            "recommend.merge",
            "inference.merge_adapters",
            *DEFECTS,
            study=STUDY,
            folders=FOLDERS,
            precisions={name: model["precision"] for name, model in config["models"].items()},
        ),
    script:
        "../scripts/steps/export_recommended.py"
