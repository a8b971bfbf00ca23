localrules:
    fetch_spider,
    fetch_mmlu,
    fetch_model,
    fetch_replay,


rule fetch_spider:
    """Get Spider: questions, schemas, and the databases beside them (database/<db>/<db>.sqlite)."""
    output:
        **SPIDER,
    log:
        "<logs>/fetch_spider.log",
    benchmark:
        "<benchmarks>/fetch_spider.tsv"
    conda:
        "../envs/data.yaml"
    params:
        settings=pick(*keys_of("spider", "source", "sha256", "counts")),
    script:
        "../scripts/steps/fetch_spider.py"


rule fetch_mmlu:
    """Get MMLU: all subjects, dev and test."""
    output:
        **MMLU,
        manifest="<results>/data/mmlu/manifest.json",
    log:
        "<logs>/fetch_mmlu.log",
    benchmark:
        "<benchmarks>/fetch_mmlu.tsv"
    conda:
        "../envs/data.yaml"
    params:
        settings=pick(*keys_of("mmlu", "source", "revision", "sha256", "subjects")),
    script:
        "../scripts/steps/fetch_mmlu.py"


rule fetch_replay:
    """Get rows of general knowledge to mix into the training: MMLU's auxiliary_train, or a local file."""
    input:
        # Of a local file, an edit is seen.
        file=[] if REPLAYS_MMLU else config["replay"]["source"] or [],
    output:
        rows="<results>/data/replay_source/rows.jsonl",
        manifest="<results>/data/replay_source/manifest.json",
    log:
        "<logs>/fetch_replay.log",
    benchmark:
        "<benchmarks>/fetch_replay.tsv"
    conda:
        "../envs/data.yaml"
    params:
        # Of MMLU, what leads to its training rows alone.
        settings=pick(
            "replay.source",
            **({"mmlu": pick(*keys_of("mmlu", "source", "revision", "sha256"))} if REPLAYS_MMLU else {}),
        ),
    script:
        "../scripts/steps/fetch_replay.py"


rule fetch_model:
    """Get a model at its pinned revision, and record where it lies and what is in it."""
    output:
        record="<results>/data/models/{model}.json",
    log:
        "<logs>/fetch_model/{model}.log",
    benchmark:
        "<benchmarks>/fetch_model/{model}.tsv"
    # Before the data sets: what the hub refuses, it refuses at once.
    priority: 1
    conda:
        "../envs/data.yaml"
    params:
        settings=lambda wildcards: unfold.pick(config["models"][wildcards.model], "source", "revision"),
    script:
        "../scripts/steps/fetch_model.py"


rule prepare_spider:
    """Split Spider into few-shot examples, training, validation and dev rows, and prove that they do not overlap."""
    input:
        **SPIDER,
    output:
        train="<results>/data/splits/train.jsonl",
        validation="<results>/data/splits/validation.jsonl",
        dev="<results>/data/splits/dev.jsonl",
        shots="<results>/data/splits/shots.jsonl",
        manifest="<results>/data/splits/manifest.json",
    log:
        "<logs>/prepare_spider.log",
    conda:
        "../envs/data.yaml"
    params:
        settings=pick(*keys_of("spider", "train_files", "shots", "seed", "validation", "train_questions")),
    script:
        "../scripts/steps/prepare_spider.py"


rule prepare_mmlu:
    """Draw the multiple-choice questions of each category, each with the few-shot examples of its subject."""
    input:
        **MMLU,
    output:
        questions="<results>/data/mmlu_suite/questions.jsonl",
        manifest="<results>/data/mmlu_suite/manifest.json",
    log:
        "<logs>/prepare_mmlu.log",
    conda:
        "../envs/data.yaml"
    params:
        settings=pick(
            *keys_of("mmlu", "categories", "questions_per_category", "shots", "shots_from", "fixed_shots", "seed")
        ),
    script:
        "../scripts/steps/prepare_mmlu.py"


rule extend_shots:
    """Take so many few-shot examples: those set aside, then further ones from the training rows."""
    input:
        shots="<results>/data/splits/shots.jsonl",
        train="<results>/data/splits/train.jsonl",
        tables="<results>/data/spider/tables.json",
    output:
        shots="<results>/data/splits/shots{shots}.jsonl",
    log:
        "<logs>/extend_shots/{shots}.log",
    conda:
        "../envs/data.yaml"
    params:
        settings=pick("spider.seed"),
    script:
        "../scripts/steps/extend_shots.py"


rule prepare_replay:
    """Draw the rows to replay, and prove that none of them is a row of MMLU's test or dev files."""
    input:
        **MMLU,
        rows="<results>/data/replay_source/rows.jsonl",
    output:
        rows="<results>/data/replay/rows.jsonl",
        manifest="<results>/data/replay/manifest.json",
    log:
        "<logs>/prepare_replay.log",
    conda:
        "../envs/data.yaml"
    params:
        settings=pick("replay.questions", "replay.seed"),
    script:
        "../scripts/steps/prepare_replay.py"


rule render_spider:
    """Write the text-to-SQL prompts of one split as the model's chat template wraps them."""
    input:
        unpack(split_rows),
        tables="<results>/data/spider/tables.json",
        manifest="<results>/data/spider/manifest.json",
        record="<results>/data/models/{model}.json",
    output:
        prompts="<results>/runs/{model}/prompts/{split}.jsonl",
        report="<results>/runs/{model}/prompts/{split}.json",
    log:
        "<logs>/render_spider/{model}/{split}.log",
    conda:
        "../envs/model.yaml"
    params:
        settings=render_settings,
    script:
        "../scripts/steps/render_spider.py"


rule render_mmlu:
    """Write the multiple-choice prompts as the model's chat template wraps them."""
    input:
        questions="<results>/data/mmlu_suite/questions.jsonl",
        record="<results>/data/models/{model}.json",
    output:
        prompts="<results>/runs/{model}/prompts/mmlu.jsonl",
        report="<results>/runs/{model}/prompts/mmlu.json",
    log:
        "<logs>/render_mmlu/{model}.log",
    conda:
        "../envs/model.yaml"
    params:
        settings=pick("prompt.mmlu_system as system", "inference.mmlu_max_new_tokens as max_new_tokens"),
    script:
        "../scripts/steps/render_mmlu.py"


rule render_replay:
    """Write the rows to replay, with what is to be answered, as the model's chat template wraps them."""
    input:
        rows="<results>/data/replay/rows.jsonl",
        record="<results>/data/models/{model}.json",
    output:
        prompts="<results>/runs/{model}/prompts/replay.jsonl",
        report="<results>/runs/{model}/prompts/replay.json",
    log:
        "<logs>/render_replay/{model}.log",
    conda:
        "../envs/model.yaml"
    params:
        settings=pick("prompt.mmlu_system as system", "training.max_length"),
    script:
        "../scripts/steps/render_replay.py"
