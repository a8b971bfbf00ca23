"""Write the technical report of a study from its results alone, as Markdown and as PDF."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

import _path  # noqa: F401
from common.files import UserError, atomic_write, read_json, write_text
from common.job import job
from custom_metrics.explain import differences
from present.facts import Results, facts
from present.format import VERDICTS, Say
from present.templates import render
from present.typeset import MOST_PAGES, SCREEN, ReportSize, fitted_pdf
from present.values import BASE, read_table, trained
from tasks.base import Measure
from tasks.records import read_records
from tasks.registry import measured


def report(outputs: Mapping[str, str | Path], inputs: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Write the report.

    Args:
        outputs: the files to write, `report` (Markdown) and `pdf`.
        inputs: lists of files, which are told apart by their names: `tables` (CSV); `figures` (PDF, an SVG beside
            each); `records` of each run, those of the target, empty if it executes no SQL; `data`, manifests of tasks
            (data/<task>/source/manifest.json) and of parts of them (data/<task>/<part>.json); `prompts`, reports
            (prompts/<model>/<task>_test.json); `models`; `audits`; `train`; `answers`, reports
            (runs/<model>/<run>/<task>_predict.json); `imported`, those of answers that were given
            elsewhere; `published`, what is found of printed figures, and `registered`, the pre-registration, if any.
        settings: `language`, `labels` (of each run's folder), what `Results.settings` names, and `tasks`: of each its
            kind, its role and what its measure depends on, the target first.

    Raises:
        UserError: two runs of a model were given different prompts and the study does not say so; a table holds a
            verdict that is not known here.
    """
    measures = measured(settings["tasks"])
    say = Say(settings["language"], measures)
    results = read_results(outputs, inputs, settings, measures)
    check_prompts(results)
    check_defects(results, next(iter(measures)))
    check_verdicts(results.tables)
    values = facts(results, say)

    def page(size: ReportSize) -> str:
        return render(f"report.{say.language}.md.j2", say, values | {"size": size})

    write_text(outputs["report"], page(SCREEN))
    pdf, pages = fitted_pdf(page, Path(outputs["report"]).parent, say.language)
    print(f"{outputs['pdf']}: {pages} pages")
    if pages > MOST_PAGES:
        print(f"WARNING: {pages} pages, expected at most {MOST_PAGES}: the study has too many models or defects.")
    with atomic_write(outputs["pdf"], "wb") as stream:
        stream.write(pdf)


def read_results(outputs: Mapping, inputs: Mapping, settings: Mapping, measures: Mapping[str, Measure]) -> Results:
    """Read what the report is made of; see `report`."""
    here, target = Path(outputs["report"]).parent, next(iter(measures))
    labels, registered = settings["labels"], inputs.get("registered", [])

    def run_of(path: str | Path) -> tuple[str, str]:
        """Model and label of the run in whose folder, …/<model>/<run>/, a file lies."""
        return Path(path).parts[-3], labels[Path(path).parts[-2]]

    def task_of(path: str | Path) -> tuple[str, str, str]:
        """Model, label and task of a report on answers."""
        return *run_of(path), Path(path).stem.removesuffix("_predict")

    read = {Path(path).stem: read_table(path) for path in inputs["tables"]}
    whole = ("settings", "recommendation", "equal_gain", "contrasts", "transitions")
    tables = {name: frame if name in whole else trained(frame) for name, frame in read.items()}
    # How many examples are in the base's own prompts, which a study says where it evaluates others.
    accuracy = read[target]
    own = accuracy.loc[accuracy["variant"] == BASE, "shots"].dropna() if "shots" in accuracy else ()
    data: dict[str, dict[str, Mapping]] = {}
    for path in map(Path, inputs["data"]):
        task, part = (path.parts[-3], "source") if path.name == "manifest.json" else (path.parent.name, path.stem)
        data.setdefault(task if task in measures else "replay", {})[part] = read_json(path)
    prompts: dict[str, Mapping] = {}
    for path in map(Path, inputs["prompts"]):
        # One model stands for all.
        where = {"model": path.parent.name, "file": os.path.relpath(path.with_suffix(".jsonl"), here)}
        prompts.setdefault(path.stem.removesuffix("_test"), read_json(path) | where)
    return Results(
        settings=settings,
        tables=tables,
        shots=int(own.iloc[0]) if len(own) else None,
        figures={Path(path).stem: os.path.relpath(Path(path).with_suffix(".svg"), here) for path in inputs["figures"]},
        records={run_of(path): read_records(path, measures[target].columns) for path in inputs["records"]},
        data=data,
        models=[read_json(path) for path in inputs["models"]],
        audits={Path(path).parent.name: read_json(path) for path in inputs["audits"]},
        prompts=prompts,
        train={run_of(path): read_json(path) for path in inputs["train"]},
        published=next(map(read_json, inputs.get("published", ())), None),
        registered={"file": os.path.relpath(registered[0], here)} | read_json(registered[0]) if registered else None,
        answers={task_of(path): read_json(path) for path in inputs["answers"]},
        imported={task_of(path): read_json(path)["imported"] for path in inputs.get("imported", ())},
        differences=differences,
    )


def check_prompts(results: Results) -> None:
    """Refuse answers of a variant to other prompts than the model's other ones, but for those of `own_prompts`."""
    found: dict[tuple[str, str], str] = {}
    for (model, variant, task), answers in results.answers.items():
        if variant in results.settings["own_prompts"].get(task, ()):
            continue
        sha256 = answers["prompts_sha256"]
        if found.setdefault((model, task), sha256) != sha256:
            raise UserError(
                f"{model}/{variant}/{task}_predict.json, prompts_sha256: found {sha256}, expected "
                f"{found[model, task]} as for the model's other runs. Run `snakemake -R predict_{task}`."
            )


def check_defects(results: Results, target: str) -> None:
    """Check that the study still names each defect with which its rows passed their audit.

    Raises:
        UserError: it does not; the audit itself does not run again for that.
    """
    for model, audit in results.audits.items():
        for defect in set(audit.get("failed", ())) - set(results.settings["accept_defect"]):
            raise UserError(
                f"prompts/{model}/{target}_audit.json, failed: found {defect}, which accept_defect does not name. "
                f"Write accept_defect: [{defect}], or mend what the audit found."
            )


def check_verdicts(tables: Mapping[str, pd.DataFrame]) -> None:
    """Refuse a verdict that the report has no words for; there is none where nothing is compared."""
    for name, frame in tables.items():
        for verdict in set(frame.get("verdict", ())) - {*VERDICTS, ""}:
            raise UserError(
                f"tables/{name}.csv, verdict: found {verdict!r}, expected one of {', '.join(VERDICTS)}. "
                "Run `snakemake -R tables`."
            )


if __name__ == "__main__":
    with job(snakemake.log[0]):
        report(dict(snakemake.output.items()), dict(snakemake.input.items()), snakemake.params.settings)
