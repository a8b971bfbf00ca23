"""Write the report of a study from its results: findings, tables, figure, setup, proofs, failures, limits."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from _files import UserError, atomic_write, read_json
from _job import job
from _records import SPIDER_COLUMNS, escape, read_records
from _stamp import stamp

BASE = "base"
ALL = "aggregate"
FAILURES = 3
LONGEST_ANSWER = 1200
SEED = "training.seed"


def report(
    report: str | Path,
    study: str,
    semantics: str,
    execution_accuracy_md: str | Path,
    mmlu_md: str | Path,
    regression_md: str | Path,
    errors_md: str | Path,
    regression: str | Path,
    figure: str | Path,
    records: Sequence[str | Path],
    spider: str | Path,
    splits: str | Path,
    suite: str | Path,
    models: Sequence[str | Path],
    audits: Sequence[str | Path],
    train: Sequence[str | Path],
    answers_reports: Sequence[str | Path],
    known_defects: Sequence[str] = (),
    accept_defect: Sequence[str] = (),
    base_prompts: str = "dev",
) -> None:
    """Write `report`, a Markdown page.

    Args:
        semantics: the headline's, as in the tables.
        execution_accuracy_md, mmlu_md, regression_md, errors_md, regression: what `tables` wrote.
        figure: what `figures` drew; linked relative to `report`.
        records: spider.csv of each run, in …/<model>/<variant>/.
        spider, splits, suite: manifests of `fetch_spider`, `prepare_spider` and `prepare_mmlu`.
        models: records of `fetch_model`.
        audits: reports of `audit_labels`, in …/<model>/.
        train: reports of `train`, in …/<model>/<variant>/.
        answers_reports: reports of `predict_spider` and `predict_mmlu`, in …/<model>/<variant>/.

        known_defects, accept_defect: what is said of the method, and which failures of the audit it ran with.
        base_prompts: the prompts of the base model; "dev" if they are its adapters'.

    Raises:
        UserError: two runs of a model were given different prompts, and the study does not say so.
    """
    answers = {(*run_of(path), Path(path).stem): read_json(path) for path in answers_reports}
    prompts = same_prompts(answers, base_prompts == "dev")
    comparisons = pd.read_csv(regression, dtype={"model": str, "variant": str}, keep_default_na=False)
    adapters = {run_of(path): read_json(path) for path in train}
    sections = [
        f"# {markdown(study)}: what fine-tuning for SQL gains and costs",
        "The question: when an instruct model is fine-tuned with LoRA to translate questions into SQL, how much better "
        "does it get at that, and how much general knowledge does it lose? Measured as execution accuracy on Spider "
        f"({semantics.replace('_', ' ')} semantics) and as accuracy on multiple-choice questions of MMLU, base model "
        "and adapters on the same prompts.",
        "## Findings",
        findings(comparisons),
        stamp(known_defects, accept_defect).strip(),
        f"![Learning against forgetting]({os.path.relpath(figure, Path(report).parent)})",
        *(demoted(path) for path in (regression_md, execution_accuracy_md, errors_md, mmlu_md)),
        "## Setup",
        "### Models",
        models_table([read_json(path) for path in models], answers),
        "### Data",
        data_list(read_json(spider), read_json(splits), read_json(suite), prompts, base_prompts == "dev"),
        "### Adapters",
        adapters_text(adapters),
        "### Labels",
        audits_text({Path(path).parent.name: read_json(path) for path in audits}),
        "## Failures",
        failures({run_of(path): path for path in records}, semantics),
        "## Limits",
        limits(comparisons),
    ]
    with atomic_write(report) as stream:
        stream.write("\n\n".join(section for section in sections if section) + "\n")


# Where the solved examples before an MMLU question come from, by mmlu.shots_from.
SHOTS = {
    "own_dev": "of the same subject",
    "first_subject": "of the first subject, the same for all,",
    "fixed": "that the study names, the same for all,",
}


def run_of(path: str | Path) -> tuple[str, str]:
    """Return (model, variant) of a file in …/<model>/<variant>/."""
    return Path(path).parts[-3], Path(path).parts[-2]


def same_prompts(answers: Mapping[tuple[str, str, str], Mapping], base_too: bool) -> dict[tuple[str, str], str]:
    """Return the hash of the prompts of each (model, predict_spider or predict_mmlu).

    Raises:
        UserError: a variant was given other prompts than the others; the base's Spider prompts only if `base_too`.
    """
    found: dict[tuple[str, str], str] = {}
    for (model, variant, task), facts in answers.items():
        if not base_too and (variant, task) == ("base", "predict_spider"):
            continue
        sha256 = facts["prompts_sha256"]
        if found.setdefault((model, task), sha256) != sha256:
            raise UserError(
                f"{model}/{variant}/{task}.json, prompts_sha256: found {sha256}, expected {found[model, task]} as for "
                f"the model's other runs. Run `snakemake -R {task}`."
            )
    return found


def findings(comparisons: pd.DataFrame) -> str:
    """Return what the tests support, one line an adapter."""
    if comparisons.empty:
        return "This study has no adapters: it measures base models only, and nothing can be said about fine-tuning."
    measures = {"execution_accuracy": "execution accuracy", "mmlu": "MMLU"}
    lines = []
    for (model, variant), rows in comparisons[comparisons["category"] == ALL].groupby(["model", "variant"], sort=False):
        parts = []
        for row in rows.itertuples():
            change = f"{row.base_accuracy_pct:.1f}% → {row.tuned_accuracy_pct:.1f}%, {row.difference_pp:+.1f} pp"
            interval = f"{100 * row.confidence_level:g}% interval {row.ci_low_pp:+.1f} to {row.ci_high_pp:+.1f}"
            parts.append(f"{measures[row.measure]} {change} ({interval}): **{row.verdict}**")
        lines.append(f"- {code(f'{model} {variant}')}: {'; '.join(parts)}.")
    lines.append(
        "\nVerdicts follow exact McNemar tests adjusted by Holm's method for all comparisons of this list. \"Not "
        'distinguishable" does not mean equal: the table names the least difference that this n would find.'
    )
    return "\n".join(lines)


def demoted(path: str | Path) -> str:
    """Return a page of `tables` with its heading one level lower."""
    return re.sub(r"^#", "##", Path(path).read_text(encoding="utf-8").strip())


def models_table(models: Sequence[Mapping], answers: Mapping[tuple[str, str, str], Mapping]) -> str:
    """Return the table of models, with the precision in which they were run."""
    rows = []
    for model in models:
        runs = [facts for (name, _, _), facts in answers.items() if name == model["name"]]
        rows.append(
            {
                "Model": markdown(model["name"]),
                "Source": code(model["source"]),
                "Commit": code(model["commit"]) if model["commit"] else "local folder",
                "Files (sha256)": code(model["sha256"][:16]),
                "Precision": ", ".join(sorted({facts["settings"]["precision"] for facts in runs})),
                "Batch size": ", ".join(sorted({str(facts["batch_size_used"]) for facts in runs})),
                "Device": markdown("; ".join(sorted({facts["device"] for facts in runs}))),
            }
        )
    return table(rows)


def data_list(
    spider: Mapping, splits: Mapping, suite: Mapping, prompts: Mapping[tuple[str, str], str], base_too: bool = True
) -> str:
    """Return where the questions come from, with their hashes."""
    categories = ", ".join(f"{count} {markdown(name)}" for name, count in suite["by_category"].items())
    lines = [
        f"- Spider from {code(spider['source'])}"
        + (f", archive sha256 {code(spider['archive_sha256'])}" if spider["archive_sha256"] else "")
        + ".",
        *(
            f"- Split {name}: {split['rows']} questions, sha256 {code(split['sha256'])}."
            for name, split in splits["splits"].items()
        ),
        f"- Few-shot examples, in no other split: {', '.join(map(code, splits['shots'])) or 'none'}.",
        f"- MMLU: {suite['rows']} questions ({categories}), {suite['settings']['shots']} examples "
        f"{SHOTS[suite['settings']['shots_from']]} before each, seed {suite['settings']['seed']}, sha256 "
        f"{code(suite['sha256'])}.",
        *(
            f"- Prompts of {markdown(model)}, {'Spider' if task == 'predict_spider' else 'MMLU'}: sha256 "
            f"{code(sha256)}, the same for "
            + (
                "the base and all adapters."
                if base_too or task == "predict_mmlu"
                else "all adapters; the base has others."
            )
            for (model, task), sha256 in prompts.items()
        ),
    ]
    return "\n".join(lines)


def adapters_text(adapters: Mapping[tuple[str, str], Mapping]) -> str:
    """Return the settings that adapters share, and a table of those in which they differ with what training gave."""
    if not adapters:
        return "None."
    settings = {run: flat(facts["settings"]) for run, facts in adapters.items()}
    names = list(dict.fromkeys(name for values in settings.values() for name in values))
    shared = [n for n in names if len({str(values.get(n)) for values in settings.values()}) == 1]
    first = next(iter(settings.values()))
    rows = [
        {"Model": markdown(model), "Variant": markdown(variant)}
        | {code(n): code(settings[model, variant].get(n)) for n in names if n not in shared}
        | {
            "Rows": facts["rows"],
            "Steps": facts["steps"],
            "Trainable parameters": f"{facts['trainable_parameters']:,} of {facts['all_parameters']:,}",
            "Last loss": f"{facts['history'][-1]['loss']:.3f}" if facts["history"] else "n/a",
            "Seconds": f"{facts['train_seconds']:.0f}",
            "Device": markdown(facts["device"]),
        }
        for (model, variant), facts in adapters.items()
    ]
    return f"{table(rows)}\n\nShared by all: {', '.join(f'{code(n)} {code(first[n])}' for n in shared)}."


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested settings as one level, the keys joined by dots."""
    result = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            result |= flat(value, f"{prefix}{name}.")
        else:
            result[prefix + name] = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return result


def audits_text(audits: Mapping[str, Mapping]) -> str:
    """Return what the audit of the training labels found."""
    lines = [
        f"- {markdown(model)}: {facts['checked']} of {facts['rows']} training rows checked; the labels of "
        f"{facts['rows'] if facts['pass'] else 'not all'} equal the gold SQL and the end of turn; {facts['truncated']} "
        f"truncated; {facts['few_shot_rows_in_train']} few-shot and {facts['dev_rows_in_train']} dev rows among them."
        for model, facts in audits.items()
    ]
    return "What the loss was computed on, decoded before training:\n\n" + "\n".join(lines) if lines else ""


def failures(records: Mapping[tuple[str, str], str | Path], semantics: str) -> str:
    """Return three wrong answers, chosen by a rule: of the first model's adapter with the highest execution accuracy,
    the first three questions that its base has right and it has wrong, then the first it has wrong."""
    frames = {run: read_records(path, SPIDER_COLUMNS) for run, path in records.items()}
    model = next(iter(frames))[0]
    adapters = [run for run in frames if run[0] == model and run[1] != BASE]
    chosen = max(adapters, key=lambda run: frames[run][semantics].sum()) if adapters else (model, BASE)
    frame = frames[chosen]
    base = frames[model, BASE].set_index("id").loc[frame["id"]].reset_index()
    wrong = frame.index[frame[semantics] == 0]
    if not len(wrong):
        return f"{code(' '.join(chosen))} has no wrong answer."
    forgotten = [i for i in wrong if base[semantics][i] == 1]
    rows = (forgotten + [i for i in wrong if i not in set(forgotten)])[:FAILURES]
    name = code(" ".join(chosen))
    rule = f"The first {len(rows)} questions that {name} has wrong."
    if adapters:
        rule = (
            f"By rule, not by taste: of {name}, the adapter of this model with the most right answers, the first "
            f"questions (in the order of dev) that its base has right and it has wrong ({len(forgotten)} of "
            f"{len(wrong)} wrong answers are such); where there are too few, the first that it has wrong."
        )
    parts = [rule]
    for i in rows:
        row = frame.loc[i]
        parts += [
            f"### {markdown(row['id'])} ({markdown(row['db_id'])}, {markdown(row['hardness'])}, base "
            f"{'right' if base[semantics][i] else 'wrong'})",
            f"{markdown(row['question'])}",
            f"Gold:\n\n{fenced(row['gold'], 'sql')}",
            f"Answer:\n\n{fenced(row['answer'])}",
            f"Why it is wrong: {code(row['error_class'])}, {code(row['message'])}",
        ]
    return "\n\n".join(parts)


def limits(comparisons: pd.DataFrame) -> str:
    """Return what this study cannot tell."""
    lines = [
        "- Execution on one database a question: a wrong query may give the right rows by chance, and a right one may "
        "order its columns otherwise and count as wrong, but under semantics that allow for it.",
        "- Questions are taken as independent. Those on one database or subject resemble each other, so true intervals "
        "are wider.",
        "- A question is asked in one wording and answered greedily: the variation over prompts and sampling is not "
        "measured.",
        "- MMLU is a sample of the benchmark in the named subjects: its accuracy is no estimate of the whole.",
    ]
    if not comparisons.empty and SEED not in comparisons.columns:
        lines.append(
            "- Each adapter was trained once, with one seed: differences between adapters hold the chance of training "
            "too, which the intervals do not."
        )
    return "\n".join(lines)


def table(rows: Sequence[Mapping]) -> str:
    """Return rows as a Markdown table."""
    cells = pd.DataFrame(rows).map(lambda cell: str(cell).replace("|", "\\|"))
    return cells.to_markdown(index=False, disable_numparse=True)


def markdown(text: object) -> str:
    """Return text as Markdown that shows it as it is, on one line."""
    return re.sub(r"([\\`*_\[\]<>#~&!])", r"\\\1", escape_controls(str(text)).replace("\n", " "))


def code(text: object) -> str:
    """Return text as an inline code span, whatever backticks it holds."""
    text = escape_controls(str(text)).replace("\n", " ")
    ticks = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if text.startswith("`") or text.endswith("`") or not text.strip() else ""
    return f"{ticks}{space}{text or ' '}{space}{ticks}"


def fenced(text: str, language: str = "text") -> str:
    """Return text as a fenced code block that nothing in the text can close, cut after `LONGEST_ANSWER` characters."""
    more = len(text) - LONGEST_ANSWER
    shown = escape_controls(text[:LONGEST_ANSWER])
    ticks = "`" * (1 + max([2, *map(len, re.findall("`+", shown))]))
    note = f"\n\n({more} more characters)" if more > 0 else ""
    return f"{ticks}{language}\n{shown}\n{ticks}{note}"


def escape_controls(text: str) -> str:
    """Return text with characters that cannot be shown or encoded as `\\uXXXX`; newlines stay."""
    return "\n".join(
        "".join(c if c in "\\\t" else escape(c) for c in line)
        for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    )


if __name__ == "__main__":
    with job(snakemake.log[0]):
        report(
            report=snakemake.output.report,
            execution_accuracy_md=snakemake.input.execution_accuracy_md,
            mmlu_md=snakemake.input.mmlu_md,
            regression_md=snakemake.input.regression_md,
            errors_md=snakemake.input.errors_md,
            regression=snakemake.input.regression,
            figure=snakemake.input.figure,
            records=snakemake.input.records,
            spider=snakemake.input.spider,
            splits=snakemake.input.splits,
            suite=snakemake.input.suite,
            models=snakemake.input.models,
            audits=snakemake.input.audits,
            train=snakemake.input.train,
            answers_reports=snakemake.input.answers_reports,
            **snakemake.params.settings,
        )
