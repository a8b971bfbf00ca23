rule tables:
    """Count the records of all runs: what each got right, and what every adapter changed against its base model."""
    input:
        spider=of_runs("spider.csv"),
        mmlu=of_runs("mmlu.csv"),
    output:
        **{name: shown(f"<results>/tables/{name}.csv", f"tables.{name}") for name in TABLES},
        **{f"{name}_md": f"<results>/tables/{name}.md" for name in TABLES},
    log:
        "<logs>/tables.log",
    conda:
        "../envs/score.yaml"
    params:
        settings=pick("tables.semantics", "tables.confidence_level", *WRITTEN, study=STUDY, runs=RUNS),
    script:
        "../scripts/steps/tables.py"


# Apart from `tables`: what a run cost may change without what it answered.
rule cost:
    """Put the time, speed and memory of every training and every run of a model into one table."""
    input:
        train=of_runs("train.json", ADAPTERS),
        predict_spider=of_runs("predict_spider.json"),
        predict_mmlu=of_runs("predict_mmlu.json", ASKED_MMLU),
        answers=of_runs("spider_answers.jsonl"),
    output:
        **table("cost"),
    log:
        "<logs>/cost.log",
    conda:
        "../envs/score.yaml"
    params:
        settings=pick(*WRITTEN, study=STUDY, runs=RUNS),
    script:
        "../scripts/steps/cost.py"


rule tables_page:
    """Put all tables on one page to look at, which needs no network and no other file."""
    input:
        **csv_of(*catalogue.names(catalogue.TABLES, HAS | {"published": False})),
    output:
        page="<results>/tables.html",
    log:
        "<logs>/tables_page.log",
    conda:
        "../envs/score.yaml"
    params:
        settings=pick(*WRITTEN, study=STUDY),
    script:
        "../scripts/steps/tables_page.py"


rule answers:
    """Put every question with every answer on one page to look at, which needs no network and no other file."""
    input:
        spider=of_runs("spider.csv"),
        rows=of_runs("spider_rows.jsonl"),
        mmlu=of_runs("mmlu.csv"),
        questions="<results>/data/mmlu_suite/questions.jsonl",
        tables="<results>/data/spider/tables.json",
    output:
        page="<results>/answers.html",
    log:
        "<logs>/answers.log",
    conda:
        "../envs/score.yaml"
    params:
        settings=pick("tables.semantics", *WRITTEN, study=STUDY, runs=named(RUNS)),
    script:
        "../scripts/steps/answers.py"


rule figures:
    """Draw the tables, each figure as SVG and as PDF."""
    input:
        **csv_of("execution_accuracy", "mmlu", "regression", "databases", "confusion", "seeds"),
        recommendation="<results>/tables/recommendation.csv" if config["recommend"] else [],
        train=of_runs("train.json", ADAPTERS),
    output:
        **{f"{name}_svg": shown(f"<results>/figures/{name}.svg", f"figure_list.{name}", "figure") for name in FIGURES},
        **{f"{name}_pdf": f"<results>/figures/{name}.pdf" for name in FIGURES},
    log:
        "<logs>/figures.log",
    conda:
        "../envs/report.yaml"
    params:
        settings=pick("report.language"),
    script:
        "../scripts/steps/figures.py"


rule report:
    """Write the technical report: method, results, failures, what they support, limits, and how to have them again."""
    input:
        **csv_of("execution_accuracy", "mmlu", "regression", "errors", "exchange", "factors", "seeds", "cost"),
        recommendation="<results>/tables/recommendation.csv" if config["recommend"] else [],
        harness="<results>/tables/harness.csv" if HARNESS else [],
        figures=[f"<results>/figures/{name}.pdf" for name in FIGURES],
        records=of_runs("spider.csv"),
        spider="<results>/data/spider/manifest.json",
        splits="<results>/data/splits/manifest.json",
        mmlu_source="<results>/data/mmlu/manifest.json",
        suite="<results>/data/mmlu_suite/manifest.json",
        models=of_models("<results>/data/models/{model}.json"),
        audits=of_models("<results>/runs/{model}/audit_labels.json"),
        dev_prompts=of_models("<results>/runs/{model}/prompts/dev.json"),
        mmlu_prompts=of_models("<results>/runs/{model}/prompts/mmlu.json"),
        train=of_runs("train.json", ADAPTERS),
        answers_reports=of_runs("predict_spider.json") + of_runs("predict_mmlu.json", ASKED_MMLU),
        replay="<results>/data/replay/manifest.json" if REPLAYED else [],
        replay_source="<results>/data/replay_source/manifest.json" if REPLAYED else [],
    output:
        report="<results>/report.md",
        pdf=shown("<results>/report.pdf", "report_file", "report"),
    log:
        "<logs>/report.log",
    conda:
        "../envs/report.yaml"
    params:
        settings=pick("tables.semantics", "face", "scale", *WRITTEN, study=STUDY, own_prompts=sorted(OWN_PROMPTS)),
    script:
        "../scripts/steps/report.py"


rule compare_published:
    """Put the figures that a report printed beside ours, and say which of them its own arithmetic allows."""
    input:
        **csv_of("execution_accuracy"),
        mmlu=of_runs("mmlu.csv", TRAINED),
    output:
        **table("published"),
    log:
        "<logs>/compare_published.log",
    conda:
        "../envs/score.yaml"
    params:
        settings=pick(
            "published",
            "spider.counts.dev as dev_questions",
            "tables.confidence_level",
            *WRITTEN,
            study=STUDY,
            runs=named(TRAINED),
        ),
    script:
        "../scripts/steps/compare_published.py"
