# In a study that asks for a recommendation (`recommend`) alone.


rule recommend:
    """Choose an adapter or point of each model on one half of the questions, and count it on the other half."""
    input:
        spider=of_runs("spider.csv"),
        mmlu=of_runs("mmlu.csv"),
    output:
        **table("recommendation"),
        decision="<results>/tables/recommendation.json",
    log:
        "<logs>/recommend.log",
    conda:
        "../envs/score.yaml"
    params:
        settings=pick(
            *keys_of("recommend", "max_loss_pp", "seed"),
            *keys_of("tables", "semantics", "confidence_level"),
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
        adapters=[of_models(file) for folder in dict.fromkeys(FOLDERS.values()) for file in adapter_files(folder)],
        records=of_models("<results>/data/models/{model}.json"),
        prompts=of_models("<results>/runs/{model}/prompts/dev.json"),
        base_prompts=of_models(f"<results>/runs/{{model}}/prompts/{OWN_PROMPTS.get(unfold.BASE, 'dev')}.json"),
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
