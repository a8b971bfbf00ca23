"""Write the technical report of a study from its results alone, as Markdown and as PDF."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

import _path  # noqa: F401
from common.files import UserError, atomic_write, read_json
from common.job import job
from present.report_content import Facts, content
from present.report_render import MOST_PAGES, to_markdown, to_pdf
from present.values import BASE, is_point, read_table, trained
from tasks.records import SPIDER_COLUMNS, read_records

# The tables that the report tells of.
TABLES = ("execution_accuracy", "mmlu", "regression", "errors", "exchange", "factors", "seeds", "cost")


def report(
    outputs: Mapping[str, str | Path],
    tables: Mapping[str, str | Path],
    figures: Sequence[str | Path],
    records: Sequence[str | Path],
    spider: str | Path,
    mmlu_source: str | Path,
    splits: str | Path,
    suite: str | Path,
    models: Sequence[str | Path],
    audits: Sequence[str | Path],
    dev_prompts: Sequence[str | Path],
    mmlu_prompts: Sequence[str | Path],
    train: Sequence[str | Path],
    answers_reports: Sequence[str | Path],
    template: str | Path,
    study: str,
    semantics: str,
    language: str = "en",
    face: str = "corrected",
    scale: str = "full",
    known_defects: Sequence[str] = (),
    accept_defect: Sequence[str] = (),
    recommendation: str | Path | None = None,
    harness: str | Path | None = None,
    own_prompts: Sequence[str] = (),
    replay: str | Path | None = None,
    replay_source: str | Path | None = None,
) -> None:
    """Write the report.

    Args:
        outputs: the files to write, `report` (Markdown) and `pdf`.
        tables: what `tables` and `cost` wrote, the CSV files by name: those of `TABLES`.
        figures: what `figures` drew, as PDF, named after the figure, with an SVG of the same name beside each.
        records: spider.csv of each run, in …/<model>/<variant>/, in the order of the tables.
        spider, mmlu_source, splits, suite: manifests of `fetch_spider`, `fetch_mmlu`, `prepare_spider`, `prepare_mmlu`.
        models: records of `fetch_model`.
        audits: reports of `audit_labels`, in …/<model>/.
        dev_prompts, mmlu_prompts: reports of `render_spider` and `render_mmlu`, in …/<model>/prompts/.
        train: reports of `train`, in …/<model>/<variant>/.
        answers_reports: reports of `predict_spider` and `predict_mmlu`, in …/<model>/<variant>/.
        template: how the PDF looks, in typst.
        semantics: the headline's, as in the tables.
        language: en or pt.
        face, scale: which of the study's faces and scales was run.
        known_defects, accept_defect: what is said of the method, and which failures of the audit it ran with.
        recommendation, harness: what `recommend` and `harness_table` wrote (CSV), of a study that has it.
        own_prompts: the variants whose Spider prompts are not those of the adapters.
        replay, replay_source: manifests of `prepare_replay` and `fetch_replay`; None if no adapter replays rows.

    Raises:
        UserError: two runs of a model were given different prompts, and the study does not say so.
    """
    answers = {(*run_of(path), Path(path).stem): read_json(path) for path in answers_reports}
    check_prompts(answers, own_prompts)
    read = {name: read_table(path) for name, path in tables.items()}
    facts = Facts(
        study=study,
        face=face,
        scale=scale,
        semantics=semantics,
        known_defects=known_defects,
        accept_defect=accept_defect,
        own_prompts=own_prompts,
        tables={name: trained(frame) for name, frame in read.items()},
        points=read["regression"][is_point(read["regression"])],
        recommendation=read_table(recommendation) if recommendation else None,
        harness=trained(read_table(harness)) if harness else None,
        shots=own_shots(read["execution_accuracy"]),
        figures={Path(path).stem: Path(path) for path in figures},
        records={run_of(path): read_records(path, SPIDER_COLUMNS) for path in records},
        spider=read_json(spider),
        mmlu=read_json(mmlu_source),
        splits=read_json(splits),
        suite=read_json(suite),
        models=[read_json(path) for path in models],
        audits={Path(path).parent.name: read_json(path) for path in audits},
        dev_prompts={Path(path).parts[-3]: read_json(path) for path in dev_prompts},
        mmlu_prompts={Path(path).parts[-3]: read_json(path) for path in mmlu_prompts},
        train={run_of(path): read_json(path) for path in train},
        answers=answers,
        replay=read_json(replay) if replay else None,
        replay_source=read_json(replay_source) if replay_source else None,
    )
    made = content(facts, language)
    folder = Path(outputs["report"]).parent
    drawn = os.path.relpath(Path(figures[0]).parent, folder) if figures else "."
    with atomic_write(outputs["report"]) as stream:
        stream.write(to_markdown(made, language, drawn))
    pdf, pages = to_pdf(made, language, template)
    print(f"{outputs['pdf']}: {pages} pages")
    if pages > MOST_PAGES:
        print(f"WARNING: {pages} pages, expected at most {MOST_PAGES}: the study has too many models or defects.")
    with atomic_write(outputs["pdf"], "wb") as stream:
        stream.write(pdf)


def run_of(path: str | Path) -> tuple[str, str]:
    """Return (model, variant) of a file in …/<model>/<variant>/."""
    return Path(path).parts[-3], Path(path).parts[-2]


def own_shots(accuracy: pd.DataFrame) -> int | None:
    """Return how many examples are in the base's own prompts, which a study has said where it evaluates others."""
    found = accuracy.loc[accuracy["variant"] == BASE, "shots"].dropna() if "shots" in accuracy else ()
    return int(found.iloc[0]) if len(found) else None


def check_prompts(answers: Mapping[tuple[str, str, str], Mapping[str, Any]], own_prompts: Sequence[str]) -> None:
    """Check that all variants of a model answered the same prompts.

    Raises:
        UserError: a variant was given other prompts than the others; the Spider prompts of `own_prompts` are not
            looked at.
    """
    found: dict[tuple[str, str], str] = {}
    for (model, variant, task), facts in answers.items():
        if variant in own_prompts and task == "predict_spider":
            continue
        sha256 = facts["prompts_sha256"]
        if found.setdefault((model, task), sha256) != sha256:
            raise UserError(
                f"{model}/{variant}/{task}.json, prompts_sha256: found {sha256}, expected {found[model, task]} as for "
                f"the model's other runs. Run `snakemake -R {task}`."
            )


if __name__ == "__main__":
    with job(snakemake.log[0]):
        inputs = {name: value for name, value in snakemake.input.items() if name not in TABLES}
        report(
            outputs=dict(snakemake.output.items()),
            tables={name: snakemake.input[name] for name in TABLES},
            template=Path(__file__).resolve().parents[2] / "resources" / "report" / "report.typ",
            **inputs,
            **snakemake.params.settings,
        )
