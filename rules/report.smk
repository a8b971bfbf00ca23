rule tables:
    """Count the records of all runs: what each got right, and what every adapter changed against its base model."""
    input:
        spider=collect("<results>/runs/{run[model]}/{run[variant]}/spider.csv", run=RUNS),
        mmlu=collect("<results>/runs/{run[model]}/{run[variant]}/mmlu.csv", run=RUNS),
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
        train=collect("<results>/runs/{run[model]}/{run[variant]}/train.json", run=ADAPTERS),
        predict_spider=collect("<results>/runs/{run[model]}/{run[variant]}/predict_spider.json", run=RUNS),
        predict_mmlu=collect("<results>/runs/{run[model]}/{run[variant]}/predict_mmlu.json", run=ASKED_MMLU),
        answers=collect("<results>/runs/{run[model]}/{run[variant]}/spider_answers.jsonl", run=RUNS),
    output:
        csv=shown("<results>/tables/cost.csv", "tables.cost"),
        md="<results>/tables/cost.md",
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
        **{
            name: f"<results>/tables/{name}.csv"
            for name in catalogue.names(catalogue.TABLES, HAS)
            if name != "published"
        },
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
        spider=collect("<results>/runs/{run[model]}/{run[variant]}/spider.csv", run=RUNS),
        rows=collect("<results>/runs/{run[model]}/{run[variant]}/spider_rows.jsonl", run=RUNS),
        mmlu=collect("<results>/runs/{run[model]}/{run[variant]}/mmlu.csv", run=RUNS),
        questions="<results>/data/mmlu_suite/questions.jsonl",
        tables="<results>/data/spider/tables.json",
    output:
        page="<results>/answers.html",
    log:
        "<logs>/answers.log",
    conda:
        "../envs/score.yaml"
    params:
        settings=pick("tables.semantics", *WRITTEN, study=STUDY, runs=NAMES),
    script:
        "../scripts/steps/answers.py"


rule figures:
    """Draw the tables, each figure as SVG and as PDF."""
    input:
        execution_accuracy="<results>/tables/execution_accuracy.csv",
        mmlu="<results>/tables/mmlu.csv",
        regression="<results>/tables/regression.csv",
        databases="<results>/tables/databases.csv",
        confusion="<results>/tables/confusion.csv",
        seeds="<results>/tables/seeds.csv",
        recommendation="<results>/tables/recommendation.csv" if config["recommend"] else [],
        train=collect("<results>/runs/{run[model]}/{run[variant]}/train.json", run=ADAPTERS),
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
        **{
            name: f"<results>/tables/{name}.csv"
            for name in [
                "execution_accuracy",
                "mmlu",
                "regression",
                "errors",
                "exchange",
                "factors",
                "seeds",
                "cost",
            ]
        },
        recommendation="<results>/tables/recommendation.csv" if config["recommend"] else [],
        harness="<results>/tables/harness.csv" if HARNESS else [],
        figures=[f"<results>/figures/{name}.pdf" for name in FIGURES],
        records=collect("<results>/runs/{run[model]}/{run[variant]}/spider.csv", run=RUNS),
        spider="<results>/data/spider/manifest.json",
        splits="<results>/data/splits/manifest.json",
        mmlu_source="<results>/data/mmlu/manifest.json",
        suite="<results>/data/mmlu_suite/manifest.json",
        models=collect("<results>/data/models/{model}.json", model=config["models"]),
        audits=collect("<results>/runs/{model}/audit_labels.json", model=config["models"]),
        dev_prompts=collect("<results>/runs/{model}/prompts/dev.json", model=config["models"]),
        mmlu_prompts=collect("<results>/runs/{model}/prompts/mmlu.json", model=config["models"]),
        train=collect("<results>/runs/{run[model]}/{run[variant]}/train.json", run=ADAPTERS),
        answers_reports=[
            *collect("<results>/runs/{run[model]}/{run[variant]}/predict_spider.json", run=RUNS),
            *collect("<results>/runs/{run[model]}/{run[variant]}/predict_mmlu.json", run=ASKED_MMLU),
        ],
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
        settings=pick(
            "tables.semantics",
            "report.language",
            "face",
            "scale",
            *DEFECTS,
            study=STUDY,
            own_prompts=sorted(OWN_PROMPTS),
        ),
    script:
        "../scripts/steps/report.py"


rule compare_published:
    """Put the figures that a report printed beside ours, and say which of them its own arithmetic allows."""
    input:
        execution_accuracy="<results>/tables/execution_accuracy.csv",
        mmlu=collect("<results>/runs/{run[model]}/{run[variant]}/mmlu.csv", run=TRAINED),
    output:
        csv=shown("<results>/tables/published.csv", "tables.published"),
        md="<results>/tables/published.md",
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
            runs=[{"model": run["model"], "variant": run["variant"]} for run in TRAINED],
        ),
    script:
        "../scripts/steps/compare_published.py"
