rule fetch_harness:
    """Get the data sets of lm-evaluation-harness's tasks into the cache of the hub."""
    output:
        manifest="<results>/data/harness.json",
    log:
        "<logs>/fetch_harness.log",
    localrule: True
    conda:
        "../envs/harness.yaml"
    params:
        settings=pick("evaluation.harness.tasks", "evaluation.harness.include_path"),
    script:
        "../scripts/steps/fetch_harness.py"


rule harness:
    """Run tasks of lm-evaluation-harness on the base model or one adapter."""
    input:
        tasks="<results>/data/harness.json",
        record="<results>/models/{model}.json",
        adapter=own_adapter,
    output:
        scores="<results>/runs/{model}/{run}/harness.json",
    log:
        "<logs>/harness/{model}/{run}.log",
    benchmark:
        "<benchmarks>/harness/{model}/{run}.tsv"
    conda:
        "../envs/harness.yaml"
    threads: 2
    resources:
        gpu=1,
        mem_mb=more_memory("harness/{model}/{run}.log"),
        runtime=720,
    params:
        identity=lambda wildcards: identity.stage(
            "predict", harness_settings(wildcards), identity.RUN_KEYS["inference"]
        ),
        unwatched=lambda wildcards, resources: harness_settings(wildcards),
    script:
        "../scripts/steps/harness.py"


rule harness_table:
    """Put what lm-evaluation-harness measured into one table, with every adapter against its base model."""
    input:
        scores=of_runs("harness.json", ASKED_ONCE),
    output:
        **table("harness"),
    log:
        "<logs>/harness_table.log",
    group:
        "results"
    conda:
        "../envs/score.yaml"
    params:
        settings=pick("tables.confidence_level", *WRITTEN, runs=tabled(ASKED_ONCE)),
        code=code.digest("harness_table"),
    script:
        "../scripts/steps/harness_table.py"
