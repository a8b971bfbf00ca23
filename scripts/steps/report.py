"""Write the technical report of a study from its results alone, as Markdown and as PDF."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

import _path  # noqa: F401
from common.files import UserError, atomic_write, read_json
from common.job import job
from present.facts import Results, facts
from present.format import VERDICTS, Say
from present.templates import render
from present.typeset import MOST_PAGES, SCREEN, ReportSize, fitted_pdf
from present.values import ALL, BASE, is_point, is_prompted, read_table, trained
from tasks.records import SPIDER_COLUMNS, read_records

# The tables that the report tells of.
TABLES = ("execution_accuracy", "mmlu", "regression", "errors", "exchange", "factors", "seeds", "cost")


def report(outputs: Mapping[str, str | Path], inputs: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Write the report.

    Args:
        outputs: the files to write, `report` (Markdown) and `pdf`.
        inputs: as the rule names them, what is of several runs or models as lists: the CSV files of `TABLES`,
            `recommendation` and `harness` (empty in a study without), `figures` (PDF, an SVG beside each), `records`
            (spider.csv of each run), the manifests `spider`, `mmlu_source`, `splits`, `suite`, and `replay` and
            `replay_source` (empty without replay), and the reports `models`, `audits`, `dev_prompts`, `mmlu_prompts`,
            `train`, `answers_reports`. Model and variant are the folders they lie in.
        settings: `language`, and what `Results.settings` names.

    Raises:
        UserError: two runs of a model were given different prompts and the study does not say so; a table holds a
            verdict that is not known here.
    """
    results = read_results(outputs, inputs, settings)
    check_prompts(results)
    check_verdicts(results.tables)
    values, language = facts(results, Say(settings["language"])), settings["language"]

    def page(size: ReportSize) -> str:
        return render(f"report.{language}.md.j2", language, values | {"size": size})

    with atomic_write(outputs["report"]) as stream:
        stream.write(page(SCREEN))
    pdf, pages = fitted_pdf(page, Path(outputs["report"]).parent, language)
    print(f"{outputs['pdf']}: {pages} pages")
    if pages > MOST_PAGES:
        print(f"WARNING: {pages} pages, expected at most {MOST_PAGES}: the study has too many models or defects.")
    with atomic_write(outputs["pdf"], "wb") as stream:
        stream.write(pdf)


def read_results(outputs: Mapping[str, str | Path], inputs: Mapping[str, Any], settings: Mapping[str, Any]) -> Results:
    """Read what the report is made of; see `report`."""
    read = {name: read_table(inputs[name]) for name in TABLES}
    points, accuracy = read["regression"][is_point(read["regression"])], read["execution_accuracy"]
    tables = {name: trained(frame) for name, frame in read.items()}
    tables["points"] = points[(points["category"] == ALL) & ~is_prompted(points)]
    tables["prompted"] = points[is_prompted(points)]
    if inputs.get("recommendation"):
        tables["recommendation"] = read_table(inputs["recommendation"])
    if inputs.get("harness"):
        tables["harness"] = trained(read_table(inputs["harness"]))
    # How many examples are in the base's own prompts, which a study says where it evaluates others.
    own = accuracy.loc[accuracy["variant"] == BASE, "shots"].dropna() if "shots" in accuracy else ()
    here = Path(outputs["report"]).parent
    manifests = ("spider", "mmlu_source", "splits", "suite", "replay", "replay_source")
    return Results(
        settings=settings,
        tables=tables,
        shots=int(own.iloc[0]) if len(own) else None,
        figures={Path(path).stem: os.path.relpath(Path(path).with_suffix(".svg"), here) for path in inputs["figures"]},
        records={run_of(path): read_records(path, SPIDER_COLUMNS) for path in inputs["records"]},
        manifests={name: read_json(inputs[name]) for name in manifests if inputs.get(name)},
        models=[read_json(path) for path in inputs["models"]],
        audits={Path(path).parent.name: read_json(path) for path in inputs["audits"]},
        prompts={
            task: {Path(path).parts[-3]: read_json(path) for path in inputs[f"{task}_prompts"]}
            for task in ("dev", "mmlu")
        },
        train={run_of(path): read_json(path) for path in inputs["train"]},
        answers={(*run_of(path), Path(path).stem): read_json(path) for path in inputs["answers_reports"]},
    )


def run_of(path: str | Path) -> tuple[str, str]:
    """Return (model, variant) of a file in …/<model>/<variant>/."""
    return Path(path).parts[-3], Path(path).parts[-2]


def check_prompts(results: Results) -> None:
    """Check that all variants of a model answered the same prompts.

    Raises:
        UserError: a variant was given other prompts than the others; the Spider prompts of `own_prompts` are not
            looked at.
    """
    found: dict[tuple[str, str], str] = {}
    for (model, variant, task), answers in results.answers.items():
        if variant in results.settings["own_prompts"] and task == "predict_spider":
            continue
        sha256 = answers["prompts_sha256"]
        if found.setdefault((model, task), sha256) != sha256:
            raise UserError(
                f"{model}/{variant}/{task}.json, prompts_sha256: found {sha256}, expected {found[model, task]} as for "
                f"the model's other runs. Run `snakemake -R {task}`."
            )


def check_verdicts(tables: Mapping[str, pd.DataFrame]) -> None:
    """Check that the tables hold verdicts that the report has words for, or none where nothing is compared.

    Raises:
        UserError: they hold another one.
    """
    for name, frame in tables.items():
        file = "regression" if name in ("points", "prompted") else name
        for verdict in set(frame.get("verdict", ())) - {*VERDICTS, ""}:
            raise UserError(
                f"tables/{file}.csv, verdict: found {verdict!r}, expected one of {', '.join(VERDICTS)}. "
                "Run `snakemake -R tables`."
            )


if __name__ == "__main__":
    with job(snakemake.log[0]):
        report(dict(snakemake.output.items()), dict(snakemake.input.items()), snakemake.params.settings)
