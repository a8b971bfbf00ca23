# Second answers where the SQL of the first ones did not run, for evaluation.repair.

from types import SimpleNamespace

try:
    REPAIR_PROMPT, REPAIR_WORDS = repair.words(
        config,
        Path(workflow.basedir, "resources/prompts"),
        {TEMPLATES[part]: template_of(TARGET, part) for task, part in WORDS if task == TARGET},
    )
except UserError as error:
    raise WorkflowError(str(error)) from None


def repair_settings(wildcards):
    """What the prompts depend on that ask again where the SQL of a run failed."""
    first = repaired_part(wildcards.run)
    return prompt_settings(SimpleNamespace(task=TARGET, part=first)) | {"repair": REPAIR_WORDS}


def repaired_part(run):
    """The part of the target's prompts that the run answered whose failed answers this run repairs."""
    return OWN_PROMPTS[TARGET].get(REPAIRED[run], "test")


rule run_sql:
    """Run the SQL of a run's answers, no gold query with it, and keep the answers whose SQL failed."""
    input:
        answers=f"<results>/runs/{{model}}/{{run}}/{TARGET}_answers.jsonl",
        questions=f"<results>/data/{TARGET}/test.jsonl",
        manifest=f"<results>/data/{TARGET}/source/manifest.json",
    output:
        failed=f"<results>/runs/{{model}}/{{run}}/{TARGET}_failed.jsonl",
    log:
        "<logs>/run_sql/{model}/{run}.log",
    benchmark:
        "<benchmarks>/run_sql/{model}/{run}.tsv"
    wildcard_constraints:
        run=any_of(REPAIRED.values()),
    group:
        "repairs"
    conda:
        "../envs/score.yaml"
    threads: 4
    params:
        # Not its code: on what it finds hours of answers depend.
        identity=identity.stage("run_sql", stage(TARGET, "score")),
        unwatched=lambda wildcards, resources: stage(TARGET, "score"),
    script:
        "../scripts/steps/run_sql.py"


rule render_repair:
    """Render the prompts that ask again, with the answer so far and what the database says of it."""
    input:
        rows=f"<results>/data/{TARGET}/test.jsonl",
        shots=f"<results>/data/{TARGET}/shots.jsonl",
        manifest=f"<results>/data/{TARGET}/source/manifest.json",
        record="<results>/models/{model}.json",
        failed=to_repair,
    output:
        prompts=f"<results>/prompts/{{model}}/{TARGET}_{{run}}.jsonl",
        report=f"<results>/prompts/{{model}}/{TARGET}_{{run}}.json",
    log:
        "<logs>/render_repair/{model}/{run}.log",
    wildcard_constraints:
        run=any_of(REPAIRED),
    group:
        "repairs"
    conda:
        "../envs/model.yaml"
    params:
        identity=lambda wildcards: identity.rendering(repair_settings(wildcards)),
        unwatched=lambda wildcards, resources: repair_settings(wildcards),
        words=lambda wildcards, resources: str(template_of(TARGET, repaired_part(wildcards.run))),
        repair=lambda wildcards, resources: str(REPAIR_PROMPT),
    script:
        "../scripts/steps/render.py"


rule repair:
    """Count what a second answer changes where the SQL of the first one did not run."""
    input:
        records=of_runs(f"{TARGET}.csv", REPAIR_RUNS),
        again=of_runs(f"{TARGET}_answers.jsonl", REPAIRS),
    output:
        **table("repair"),
    log:
        "<logs>/repair.log",
    group:
        "results"
    conda:
        "../envs/score.yaml"
    params:
        settings=counted(REPAIR_RUNS, {TARGET: MEASURED[TARGET]}),
        code=code.digest("repair"),
    script:
        "../scripts/steps/repair.py"
