rule tables:
    """Count the records of all runs: what each got right, and what every adapter changed against its base model."""
    input:
        **{task: of_runs(f"{task}.csv") for task in TASKS},
    output:
        **{name: shown_table(name) for name in TABLES},
        **{f"{name}_md": f"<results>/tables/{name}.md" for name in TABLES},
    log:
        "<logs>/tables.log",
    group:
        "results"
    conda:
        "../envs/score.yaml"
    params:
        settings=counted(RUNS),
        code=code.digest("tables"),
    script:
        "../scripts/steps/tables.py"


for task in SQL_TASKS:

    rule:
        name:
            f"certify_{task}"
        input:
            questions="<results>/data/{task}/test.jsonl",
            manifest="<results>/data/{task}/source/manifest.json",
        output:
            certificates="<results>/data/{task}/gold.csv",
        log:
            "<logs>/certify_{task}.log",
        wildcard_constraints:
            task=task,
        group:
            "results"
        conda:
            "../envs/score.yaml"
        threads: 4
        params:
            settings=stage(task, "score"),
            code=code.digest("certify"),
        script:
            "../scripts/steps/certify.py"


if SQL_TASKS:

    rule gold:
        """Say what the gold queries are worth, and between which bounds that leaves each accuracy."""
        input:
            **{task: of_runs(f"{task}.csv") for task in SQL_TASKS},
            **{f"certified_{task}": f"<results>/data/{task}/gold.csv" for task in SQL_TASKS},
        output:
            **table("gold"),
        log:
            "<logs>/gold.log",
        group:
            "results"
        conda:
            "../envs/score.yaml"
        params:
            settings=counted(RUNS, {task: MEASURED[task] for task in SQL_TASKS}),
            code=code.digest("gold"),
        script:
            "../scripts/steps/gold.py"

    rule deepeval_tests:
        """Give each answer to the DeepEval metric, as pytest does, and hold its verdicts against the records."""
        input:
            **{f"questions_{task}": f"<results>/data/{task}/test.jsonl" for task in SQL_TASKS},
            **{f"manifest_{task}": f"<results>/data/{task}/source/manifest.json" for task in SQL_TASKS},
            answers=[answers_of(task, run["model"], run["folder"]) for task in SQL_TASKS for run in RUNS],
            records=[file for task in SQL_TASKS for file in of_runs(f"{task}.csv")],
        output:
            runs="<results>/tables/deepeval_tests.json",
            junit="<results>/tables/deepeval_tests.xml",
        log:
            "<logs>/deepeval_tests.log",
        benchmark:
            "<benchmarks>/deepeval_tests.tsv"
        conda:
            "../envs/score.yaml"
        threads: 2
        params:
            settings=pick(
                runs=[{"name": tested_name(task, run), "task": task} for task in SQL_TASKS for run in RUNS],
                tasks={
                    task: {"criterion": MEASURES[task].criterion, **pick(f"tasks.{task}.timeout_s")}
                    for task in SQL_TASKS
                },
            ),
            code=code.digest("deepeval_tests"),
        script:
            "../scripts/steps/deepeval_tests.py"


if NOISE:

    rule noise:
        """Count the verdicts that turn where nothing changes but the batches, or how an adapter is applied."""
        input:
            **{task: of_runs(f"{task}.csv", NOISE_RUNS) for task in TASKS},
        output:
            **table("noise"),
        log:
            "<logs>/noise.log",
        group:
            "results"
        conda:
            "../envs/score.yaml"
        params:
            settings=counted(NOISE_RUNS),
            code=code.digest("noise"),
        script:
            "../scripts/steps/noise.py"


# Apart from `tables`: what a run cost may change without what it answered.
rule cost:
    """Put the time, speed and memory of every training and every run of a model into one table."""
    input:
        **{f"predict_{task}": of_runs(f"{task}_predict.json", computed(task)) for task in TASKS},
        # Nobody counts the tokens of answers by letter.
        **{
            f"{task}_answers": of_runs(f"{task}_answers.jsonl", computed(task))
            for task in TASKS
            if MEASURES[task].form != "choice"
        },
        train=of_runs("train.json", ADAPTERS),
    output:
        **table("cost"),
    log:
        "<logs>/cost.log",
    group:
        "results"
    conda:
        "../envs/score.yaml"
    params:
        settings=pick(*WRITTEN, study=STUDY, runs=tabled(RUNS_HERE + REPAIRS)) | {"tasks": MEASURED},
        code=code.digest("cost"),
    script:
        "../scripts/steps/cost.py"


rule tables_page:
    """Put all tables on one page to look at, which needs no network and no other file."""
    input:
        **csv_of(*catalogue.names(catalogue.TABLES, HAS | {"published": False})),
        answer="<results>/answer.md",
    output:
        page="<results>/tables.html",
    log:
        "<logs>/tables_page.log",
    group:
        "results"
    conda:
        "../envs/score.yaml"
    params:
        settings=pick(*WRITTEN, study=STUDY) | {"tasks": MEASURED},
        code=code.digest("tables_page"),
    script:
        "../scripts/steps/tables_page.py"


rule answers:
    """Put every question with every answer on one page to look at, which needs no network and no other file."""
    input:
        **{f"records_{task}": of_runs(f"{task}.csv") for task in TASKS},
        **{f"questions_{task}": f"<results>/data/{task}/test.jsonl" for task in TASKS},
        **{f"rows_{task}": of_runs(f"{task}_rows.jsonl") for task in SQL_TASKS},
        **{f"schemas_{task}": f"<results>/data/{task}/source/manifest.json" for task in SQL_TASKS},
        **{f"prompts_{task}": [prompts_of(task, run["model"], run["folder"]) for run in RUNS_HERE] for task in TASKS},
        answer="<results>/answer.md",
    output:
        page="<results>/answers.html",
    log:
        "<logs>/answers.log",
    group:
        "results"
    conda:
        "../envs/score.yaml"
    params:
        settings=pick(
            *WRITTEN,
            study=STUDY,
            runs=[one | ({"imported": True} if "imported" in run else {}) for one, run in zip(named(RUNS), RUNS)],
        )
        | {"tasks": MEASURED},
        code=code.digest("answers"),
    script:
        "../scripts/steps/answers.py"


rule conclude:
    """Say in a few sentences what was found, and open the results with it."""
    input:
        **csv_of("settings", *(["recommendation"] if config["recommend"] else [])),
    output:
        answer="<results>/answer.md",
        readme="<results>/README.md",
        caption="<results>/answer.rst",
    log:
        "<logs>/conclude.log",
    group:
        "results"
    conda:
        "../envs/score.yaml"
    params:
        settings=pick("scale", *WRITTEN, study=STUDY) | {"tasks": MEASURED},
        code=code.digest("conclude"),
    script:
        "../scripts/steps/conclude.py"


rule figures:
    """Draw the tables, each figure as SVG and as PDF."""
    input:
        **csv_of(*TASKS, "settings", "regression", *(("databases", "confusion") if SQL_TASKS else ())),
        recommendation="<results>/tables/recommendation.csv" if config["recommend"] else [],
        train=of_runs("train.json", ADAPTERS),
    output:
        **{
            f"{name}_svg": shown(f"<results>/figures/{name}.svg", SAY.word(f"figures.{name}.title"), "figure")
            for name in FIGURES
        },
        **{f"{name}_pdf": f"<results>/figures/{name}.pdf" for name in FIGURES},
    log:
        "<logs>/figures.log",
    group:
        "results"
    conda:
        "../envs/report.yaml"
    params:
        settings=pick("report.language", adapters=named(ADAPTERS)) | {"tasks": MEASURED},
        code=code.digest("figures"),
    script:
        "../scripts/steps/figures.py"


rule report:
    """Write the technical report: method, results, failures, what they support, limits, and how to have them again."""
    input:
        tables=[
            f"<results>/tables/{name}.csv"
            for name in (*TASKS, "settings", "contrasts", "transitions", "regression", "cost")
            + (("equal_gain",) if "equal_gain" in TABLES else ())
            + (("errors", "gold") if SQL_TASKS else ())
            + (("recommendation",) if config["recommend"] else ())
            + (("harness",) if HARNESS else ())
            + (("noise",) if NOISE else ())
            + (("repair",) if REPAIRS else ())
        ],
        figures=[f"<results>/figures/{name}.pdf" for name in FIGURES],
        records=of_runs(f"{TARGET}.csv") if TARGET in SQL_TASKS else [],
        data=[
            f"<results>/data/{task}/{name}.json"
            for task, parts in REPORTED_PARTS.items()
            for name in ("source/manifest", *parts)
        ],
        models=of_models("<results>/models/{model}.json"),
        audits=of_models(f"<results>/prompts/{{model}}/{TARGET}_audit.json"),
        prompts=[file for task in TASKS for file in of_models(f"<results>/prompts/{{model}}/{task}_test.json")],
        train=of_runs("train.json", ADAPTERS),
        answers=[file for task in TASKS for file in of_runs(f"{task}_predict.json", asked(task))],
        imported=[f"<results>/runs/{model}/{run}/{task}_predict.json" for model, run in GIVEN for task in TASKS],
        published=["<results>/tables/published.json"] if PUBLISHED else [],
        registered=[f"<results>/preregistered/{REGISTERED.name}"] if REGISTERED.exists() else [],
    output:
        report="<results>/report.md",
        pdf=shown("<results>/report.pdf", SAY.word("report_file"), "report"),
    log:
        "<logs>/report.log",
    group:
        "results"
    conda:
        "../envs/report.yaml"
    params:
        settings=pick(
            "protocol",
            "scale",
            "published.report",
            *keys_of("report", "title", "authors", "affiliation", "course", "date"),
            *WRITTEN,
            study=STUDY,
            labels=LABELS,
            own_prompts={task: sorted(of) for task, of in OWN_PROMPTS.items() if of},
        )
        | {"tasks": MEASURED},
        code=code.digest("report"),
    script:
        "../scripts/steps/report.py"


rule index:
    """List every run of the study with its folder and what it is."""
    output:
        index="<results>/index.csv",
    log:
        "<logs>/index.log",
    localrule: True
    conda:
        "../envs/score.yaml"
    params:
        settings={"runs": RUNS + NOISE + REPAIRS},
        code=code.digest("index"),
    script:
        "../scripts/steps/index.py"


rule compare_published:
    """Put the figures that a report printed beside ours, and say which of them its own arithmetic allows."""
    input:
        **{task: of_runs(f"{task}.csv", BESIDE_PUBLISHED) for task in TASKS},
    output:
        **table("published"),
        findings="<results>/tables/published.json",
    log:
        "<logs>/compare_published.log",
    group:
        "results"
    conda:
        "../envs/score.yaml"
    params:
        settings=pick(
            "published",
            "tables.confidence_level",
            *WRITTEN,
            study=STUDY,
            runs=named(BESIDE_PUBLISHED),
            official={
                task: config["tasks"][task]["counts"]["dev"] for task in TASKS if "counts" in config["tasks"][task]
            },
        )
        | {"tasks": MEASURED},
        code=code.digest("compare_published"),
    script:
        "../scripts/steps/compare_published.py"
