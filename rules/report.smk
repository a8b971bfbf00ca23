rule tables:
    """Count the records of all runs: execution accuracy, MMLU accuracy, and the change against the base model."""
    input:
        spider=collect("<results>/runs/{run[model]}/{run[variant]}/spider.csv", run=RUNS),
        mmlu=collect("<results>/runs/{run[model]}/{run[variant]}/mmlu.csv", run=RUNS),
    output:
        execution_accuracy=report(
            "<results>/tables/execution_accuracy.csv",
            caption="captions/execution_accuracy.rst",
            category="Tables",
            labels={"table": "Execution accuracy"},
        ),
        execution_accuracy_md="<results>/tables/execution_accuracy.md",
        mmlu=report(
            "<results>/tables/mmlu.csv",
            caption="captions/mmlu.rst",
            category="Tables",
            labels={"table": "MMLU"},
        ),
        mmlu_md="<results>/tables/mmlu.md",
        regression=report(
            "<results>/tables/regression.csv",
            caption="captions/regression.rst",
            category="Tables",
            labels={"table": "Change against the base model"},
        ),
        regression_md="<results>/tables/regression.md",
        errors=report(
            "<results>/tables/errors.csv",
            caption="captions/errors.rst",
            category="Tables",
            labels={"table": "What became of the SQL"},
        ),
        errors_md="<results>/tables/errors.md",
    log:
        "<logs>/tables.log",
    conda:
        "../envs/score.yaml"
    params:
        settings=SETTINGS["tables"],
    script:
        "../scripts/tables.py"


rule figures:
    """Draw learning against forgetting, one point per adapter."""
    input:
        execution_accuracy="<results>/tables/execution_accuracy.csv",
        mmlu="<results>/tables/mmlu.csv",
    output:
        svg=report(
            "<results>/figures/tradeoff.svg",
            caption="captions/tradeoff.rst",
            category="Figures",
            labels={"figure": "Learning against forgetting"},
        ),
        pdf="<results>/figures/tradeoff.pdf",
    log:
        "<logs>/figures.log",
    conda:
        "../envs/report.yaml"
    params:
        settings=SETTINGS["figures"],
    script:
        "../scripts/figures.py"


rule report:
    """Put the tables, the figure and the proofs of how they came about into one page."""
    input:
        execution_accuracy_md="<results>/tables/execution_accuracy.md",
        mmlu_md="<results>/tables/mmlu.md",
        regression_md="<results>/tables/regression.md",
        errors_md="<results>/tables/errors.md",
        regression="<results>/tables/regression.csv",
        figure="<results>/figures/tradeoff.svg",
        records=collect("<results>/runs/{run[model]}/{run[variant]}/spider.csv", run=RUNS),
        spider="<results>/data/spider/manifest.json",
        splits="<results>/data/splits/manifest.json",
        suite="<results>/data/mmlu_suite/manifest.json",
        models=collect("<results>/data/models/{model}.json", model=config["models"]),
        audits=collect("<results>/runs/{model}/audit_labels.json", model=config["models"]),
        train=collect("<results>/runs/{run[model]}/{run[variant]}/train.json", run=ADAPTERS),
        answers_reports=collect(
            "<results>/runs/{run[model]}/{run[variant]}/predict_{task}.json", run=RUNS, task=["spider", "mmlu"]
        ),
    output:
        report="<results>/report.md",
    log:
        "<logs>/report.log",
    conda:
        "../envs/report.yaml"
    params:
        settings=SETTINGS["report"],
    script:
        "../scripts/report.py"


rule compare_published:
    """Put the figures that a report printed beside ours, and say which of them its own arithmetic allows."""
    input:
        execution_accuracy="<results>/tables/execution_accuracy.csv",
        mmlu=collect("<results>/runs/{run[model]}/{run[variant]}/mmlu.csv", run=RUNS),
    output:
        csv=report(
            "<results>/tables/published.csv",
            caption="captions/published.rst",
            category="Tables",
            labels={"table": "Published figures"},
        ),
        md="<results>/tables/published.md",
    log:
        "<logs>/compare_published.log",
    conda:
        "../envs/score.yaml"
    params:
        settings=SETTINGS["compare_published"],
    script:
        "../scripts/compare_published.py"
