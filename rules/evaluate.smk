rule predict_spider:
    """Answer the text-to-SQL prompts with the base model or one adapter; a killed job goes on where it was."""
    input:
        prompts=lambda run: f"<results>/runs/{run.model}/prompts/{OWN_PROMPTS.get(run.variant, 'dev')}.jsonl",
        record="<results>/data/models/{model}.json",
        adapter=own_adapter,
    output:
        answers="<results>/runs/{model}/{variant}/spider_answers.jsonl",
        report="<results>/runs/{model}/{variant}/predict_spider.json",
    log:
        "<logs>/predict_spider/{model}/{variant}.log",
    benchmark:
        "<benchmarks>/predict_spider/{model}/{variant}.tsv"
    conda:
        "../envs/model.yaml"
    threads: 2
    resources:
        gpu=1,
        mem_mb=32000,
        runtime=720,
    params:
        settings=decoding("spider"),
    script:
        "../scripts/steps/predict_spider.py"


rule predict_mmlu:
    """Answer the multiple-choice prompts with the base model or one adapter, by letter and in words."""
    input:
        prompts="<results>/runs/{model}/prompts/mmlu.jsonl",
        record="<results>/data/models/{model}.json",
        adapter=own_adapter,
    output:
        answers="<results>/runs/{model}/{variant}/mmlu_answers.jsonl",
        report="<results>/runs/{model}/{variant}/predict_mmlu.json",
    log:
        "<logs>/predict_mmlu/{model}/{variant}.log",
    benchmark:
        "<benchmarks>/predict_mmlu/{model}/{variant}.tsv"
    conda:
        "../envs/model.yaml"
    threads: 2
    resources:
        gpu=1,
        mem_mb=32000,
        runtime=240,
    params:
        settings=decoding("mmlu"),
    script:
        "../scripts/steps/predict_mmlu.py"


rule score_spider:
    """Execute every predicted query and its gold query, write one record per question, and the first rows beside it."""
    input:
        answers="<results>/runs/{model}/{variant}/spider_answers.jsonl",
        questions="<results>/data/splits/dev.jsonl",
        prompts="<results>/runs/{model}/prompts/dev.jsonl",
        manifest="<results>/data/spider/manifest.json",
    output:
        records="<results>/runs/{model}/{variant}/spider.csv",
        rows="<results>/runs/{model}/{variant}/spider_rows.jsonl",
    log:
        "<logs>/score_spider/{model}/{variant}.log",
    benchmark:
        "<benchmarks>/score_spider/{model}/{variant}.tsv"
    conda:
        "../envs/score.yaml"
    threads: 4
    params:
        settings=pick("scoring.timeout_s"),
    script:
        "../scripts/steps/score_spider.py"


rule score_mmlu:
    """Compare letters with the key, and write one record per question."""
    input:
        answers=lambda run: f"<results>/runs/{run.model}/{SAME_MMLU.get(run.variant, run.variant)}/mmlu_answers.jsonl",
        questions="<results>/data/mmlu_suite/questions.jsonl",
    output:
        records="<results>/runs/{model}/{variant}/mmlu.csv",
    log:
        "<logs>/score_mmlu/{model}/{variant}.log",
    conda:
        "../envs/score.yaml"
    params:
        settings={},
    script:
        "../scripts/steps/score_mmlu.py"
