localrules:
    fetch_spider,
    fetch_mmlu,
    fetch_model,
    fetch_replay,


rule fetch_spider:
    """Get Spider: questions, schemas, and the databases beside them (database/<db>/<db>.sqlite)."""
    output:
        train_spider="<results>/data/spider/train_spider.json",
        train_others="<results>/data/spider/train_others.json",
        dev="<results>/data/spider/dev.json",
        tables="<results>/data/spider/tables.json",
        manifest="<results>/data/spider/manifest.json",
    log:
        "<logs>/fetch_spider.log",
    benchmark:
        "<benchmarks>/fetch_spider.tsv"
    conda:
        "../envs/data.yaml"
    params:
        settings=SETTINGS["fetch_spider"],
    script:
        "../scripts/steps/fetch_spider.py"


rule fetch_mmlu:
    """Get MMLU: all subjects, dev and test."""
    output:
        dev="<results>/data/mmlu/dev.csv",
        test="<results>/data/mmlu/test.csv",
        manifest="<results>/data/mmlu/manifest.json",
    log:
        "<logs>/fetch_mmlu.log",
    benchmark:
        "<benchmarks>/fetch_mmlu.tsv"
    conda:
        "../envs/data.yaml"
    params:
        settings=SETTINGS["fetch_mmlu"],
    script:
        "../scripts/steps/fetch_mmlu.py"


rule fetch_replay:
    """Get rows of general knowledge to mix into the training: MMLU's auxiliary_train, or a local file."""
    input:
        # Of a local file, an edit is seen.
        file=[] if config["replay"]["source"] in (None, _config.AUXILIARY) else config["replay"]["source"],
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
        settings=SETTINGS["fetch_replay"],
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
        settings=lookup("{model}", within=SETTINGS["fetch_model"]),
    script:
        "../scripts/steps/fetch_model.py"


rule prepare_spider:
    """Split Spider into few-shot examples, training, validation and dev rows, and prove that they do not overlap."""
    input:
        train_spider="<results>/data/spider/train_spider.json",
        train_others="<results>/data/spider/train_others.json",
        dev="<results>/data/spider/dev.json",
        tables="<results>/data/spider/tables.json",
        manifest="<results>/data/spider/manifest.json",
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
        settings=SETTINGS["prepare_spider"],
    script:
        "../scripts/steps/prepare_spider.py"


rule prepare_mmlu:
    """Draw the multiple-choice questions of each category, each with the few-shot examples of its subject."""
    input:
        dev="<results>/data/mmlu/dev.csv",
        test="<results>/data/mmlu/test.csv",
    output:
        questions="<results>/data/mmlu_suite/questions.jsonl",
        manifest="<results>/data/mmlu_suite/manifest.json",
    log:
        "<logs>/prepare_mmlu.log",
    conda:
        "../envs/data.yaml"
    params:
        settings=SETTINGS["prepare_mmlu"],
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
        settings=SETTINGS["extend_shots"],
    script:
        "../scripts/steps/extend_shots.py"


rule prepare_replay:
    """Draw the rows to replay, and prove that none of them is a row of MMLU's test or dev files."""
    input:
        rows="<results>/data/replay_source/rows.jsonl",
        dev="<results>/data/mmlu/dev.csv",
        test="<results>/data/mmlu/test.csv",
    output:
        rows="<results>/data/replay/rows.jsonl",
        manifest="<results>/data/replay/manifest.json",
    log:
        "<logs>/prepare_replay.log",
    conda:
        "../envs/data.yaml"
    params:
        settings=SETTINGS["prepare_replay"],
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
        settings=lookup("{split}", within=SETTINGS["render_spider"]),
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
        settings=SETTINGS["render_mmlu"],
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
        settings=SETTINGS["render_replay"],
    script:
        "../scripts/steps/render_replay.py"
