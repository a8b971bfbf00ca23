# Nothing here may depend on an evaluation setting: whatever reaches these rules retrains every adapter.


rule audit_labels:
    """Prove, before any training, that every row's loss covers its target and nothing else."""
    input:
        prompts="<results>/prompts/{model}/{task}_train.jsonl",
        rows="<results>/data/{task}/train.jsonl",
        shots=lambda wildcards: audited(wildcards, "<results>/data/{task}/shots.jsonl", "shots"),
        manifest="<results>/data/{task}/source/manifest.json",
        # Only a study that evaluates while it trains has inputs made from these rows, here and in `train`.
        validation=lambda wildcards: audited(wildcards, "<results>/data/{task}/validation.jsonl", "validation"),
        validation_prompts=lambda wildcards: audited(
            wildcards, f"<results>/prompts/{wildcards.model}/{{task}}_validation.jsonl", "validation"
        ),
        record="<results>/models/{model}.json",
    output:
        report="<results>/prompts/{model}/{task}_audit.json",
    log:
        "<logs>/audit_labels/{model}/{task}.log",
    benchmark:
        "<benchmarks>/audit_labels/{model}/{task}.tsv"
    wildcard_constraints:
        task=any_of(unfold.tasks_of(config, "target", "replay")),
    group:
        "data"
    conda:
        "../envs/model.yaml"
    params:
        identity=lambda wildcards: identity.audit(audit_settings(wildcards)),
        unwatched=lambda wildcards, resources: audit_settings(wildcards),
    script:
        "../scripts/steps/audit_labels.py"


rule choose_rows:
    """Choose the rows that some settings train on out of all."""
    input:
        rows="<results>/data/{task}/train.jsonl",
    output:
        chosen="<results>/data/{task}/rows_{choice}.json",
    log:
        "<logs>/choose_rows/{task}/{choice}.log",
    wildcard_constraints:
        task=re.escape(TARGET),
        choice=any_of(CHOICES),
    # What cannot be chosen is said before anything is trained.
    priority: 1
    group:
        "data"
    conda:
        "../envs/data.yaml"
    params:
        settings=chosen_settings,
        recipe=identity.RECIPES["choose"],
    script:
        "../scripts/steps/choose_rows.py"


rule train:
    """Train one adapter; a killed job goes on from its last checkpoint."""
    input:
        prompts=f"<results>/prompts/{{model}}/{TARGET}_train.jsonl",
        validation=validation_rows,
        audit=f"<results>/prompts/{{model}}/{TARGET}_audit.json",
        record="<results>/models/{model}.json",
        # Only of an adapter that is trained on some of the rows.
        chosen=chosen_rows,
        # Only of an adapter with replay.
        replay=replayed("train.jsonl"),
        replay_audit=replayed("audit.json"),
    output:
        weights="<results>/runs/{model}/{run}/adapter/adapter_model.safetensors",
        config="<results>/runs/{model}/{run}/adapter/adapter_config.json",
        report="<results>/runs/{model}/{run}/train.json",
        kept=[adapter_files(f"{{run}}/steps/{step}") for step in config["evaluation"]["checkpoints"]],
    log:
        "<logs>/train/{model}/{run}.log",
    benchmark:
        "<benchmarks>/train/{model}/{run}.tsv"
    wildcard_constraints:
        run=any_of(VALUES),
    conda:
        "../envs/model.yaml"
    # Two threads, so that a CPU's sums do not depend on how many cores it has.
    threads: 2
    resources:
        gpu=1,
        mem_mb=more_memory("train/{model}/{run}.log"),
        runtime=1440,
    params:
        identity=lambda wildcards: identity.training(training_settings(wildcards)),
        # With `resources` among its arguments, Snakemake does not compare it.
        unwatched=lambda wildcards, resources: training_settings(wildcards),
    script:
        "../scripts/steps/train.py"


rule fetch_adapter:
    """Get an adapter that was made elsewhere, check that it fits its model, and put it where a trained one would be."""
    input:
        record="<results>/models/{model}.json",
        files=local_adapter,
    output:
        weights="<results>/runs/{model}/{run}/adapter/adapter_model.safetensors",
        config="<results>/runs/{model}/{run}/adapter/adapter_config.json",
        report="<results>/runs/{model}/{run}/fetch_adapter.json",
    log:
        "<logs>/fetch_adapter/{model}/{run}.log",
    wildcard_constraints:
        run=any_of(READY_MADE),
    localrule: True
    conda:
        "../envs/model.yaml"
    params:
        settings=lambda wildcards: unfold.pick(config["adapters"][wildcards.run], "source", "revision"),
    script:
        "../scripts/steps/fetch_adapter.py"


rule soup:
    """Average what several adapters add to the weights, and write the mean as an adapter."""
    input:
        adapters=soup_files,
        record="<results>/models/{model}.json",
    output:
        weights="<results>/runs/{model}/{run}/adapter/adapter_model.safetensors",
        config="<results>/runs/{model}/{run}/adapter/adapter_config.json",
    log:
        "<logs>/soup/{model}/{run}.log",
    wildcard_constraints:
        run=any_of(SOUPS),
    conda:
        "../envs/model.yaml"
    params:
        settings={},
    script:
        "../scripts/steps/soup.py"
