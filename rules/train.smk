# Nothing here may depend on an evaluation setting: whatever reaches these rules retrains every adapter.


rule audit_labels:
    """Prove, before any training, that every row's loss covers its gold SQL and nothing else."""
    input:
        prompts="<results>/runs/{model}/prompts/train.jsonl",
        train="<results>/data/splits/train.jsonl",
        shots="<results>/data/splits/shots.jsonl",
        dev="<results>/data/splits/dev.jsonl",
        # Only a study that evaluates while it trains has inputs made from these rows, here and in `train`.
        validation="<results>/data/splits/validation.jsonl" if EVALUATED else [],
        validation_prompts="<results>/runs/{model}/prompts/validation.jsonl" if EVALUATED else [],
        record="<results>/data/models/{model}.json",
    output:
        report="<results>/runs/{model}/audit_labels.json",
    log:
        "<logs>/audit_labels/{model}.log",
    benchmark:
        "<benchmarks>/audit_labels/{model}.tsv"
    conda:
        "../envs/model.yaml"
    params:
        settings=pick("training.max_length", "training.truncate", "prompt.train_target", "accept_defect"),
    script:
        "../scripts/steps/audit_labels.py"


rule audit_replay:
    """Prove, before any training, that the loss of every row to replay covers its answer and nothing else."""
    input:
        prompts="<results>/runs/{model}/prompts/replay.jsonl",
        rows="<results>/data/replay/rows.jsonl",
        record="<results>/data/models/{model}.json",
    output:
        report="<results>/runs/{model}/audit_replay.json",
    log:
        "<logs>/audit_replay/{model}.log",
    conda:
        "../envs/model.yaml"
    params:
        settings=pick("training.max_length"),
    script:
        "../scripts/steps/audit_replay.py"


rule train:
    """Train one adapter; a killed job goes on from its last checkpoint."""
    input:
        prompts="<results>/runs/{model}/prompts/train.jsonl",
        validation="<results>/runs/{model}/prompts/validation.jsonl" if EVALUATED else [],
        audit="<results>/runs/{model}/audit_labels.json",
        record="<results>/data/models/{model}.json",
        # Only of an adapter with replay.
        replay=lambda wildcards: replay_file(wildcards, "prompts/replay.jsonl"),
        replay_audit=lambda wildcards: replay_file(wildcards, "audit_replay.json"),
    output:
        weights="<results>/runs/{model}/{variant}/adapter/adapter_model.safetensors",
        config="<results>/runs/{model}/{variant}/adapter/adapter_config.json",
        report="<results>/runs/{model}/{variant}/train.json",
        kept=[adapter_files(f"{{variant}}/steps/{step}") for step in config["training"]["kept_steps"]],
    log:
        "<logs>/train/{model}/{variant}.log",
    benchmark:
        "<benchmarks>/train/{model}/{variant}.tsv"
    wildcard_constraints:
        variant=any_of(VARIANTS),
    conda:
        "../envs/model.yaml"
    # Two threads, so that a CPU's sums do not depend on how many cores it has.
    threads: 2
    resources:
        gpu=1,
        mem_mb=32000,
        runtime=1440,
    params:
        settings=lambda wildcards: unfold.training(config, wildcards.model, VARIANTS[wildcards.variant]),
    script:
        "../scripts/steps/train.py"


rule soup:
    """Average what several adapters add to the weights, and write the mean as an adapter."""
    input:
        adapters=soup_files,
        record="<results>/data/models/{model}.json",
    output:
        weights="<results>/runs/{model}/{variant}/adapter/adapter_model.safetensors",
        config="<results>/runs/{model}/{variant}/adapter/adapter_config.json",
    log:
        "<logs>/soup/{model}/{variant}.log",
    wildcard_constraints:
        variant=any_of(SOUPS),
    conda:
        "../envs/model.yaml"
    params:
        settings={},
    script:
        "../scripts/steps/soup.py"
