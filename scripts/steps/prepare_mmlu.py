"""Choose the MMLU questions of the study and the solved examples that go before each, the same on every run."""

import csv
import difflib
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import _path  # noqa: F401
from common.files import UserError, sha256_file, sha256_json, write_json, write_jsonl
from common.job import job

LETTERS = "ABCD"


def prepare_mmlu(
    dev: str | Path,
    test: str | Path,
    categories: Mapping[str, Sequence[str]],
    questions_per_category: int | None,
    shots: int,
    seed: int,
    questions: str | Path,
    manifest: str | Path,
    shots_from: str = "own_dev",
    fixed_shots: Sequence[Mapping] = (),
) -> None:
    """Write the question file (JSON lines) and its manifest.

    A row has id (`<subject>-<5-digit row of the subject's test file>`), subject, category, question, choices (4 texts),
    answer (A to D) and shots (question, choices, answer).

    Args:
        dev, test: tables of all subjects, as `fetch_mmlu` writes them.
        categories: subjects of each category.
        questions_per_category: shared equally by the category's subjects, the first ones taking what is left over; each
            gives the first of its test questions after a shuffle with the seed. None: all questions, shuffled alike.
        shots: solved examples a question.
        seed: of the shuffle, which is made anew for each subject.
        questions, manifest: output paths.
        shots_from: "own_dev", the first rows of the subject's own dev file, as the benchmark has it; "first_subject",
            those of the alphabetically first subject of the study for all (a defect of DeepEval's benchmark); or
            "fixed", the same `fixed_shots` for all.
        fixed_shots: `subject`, `split` (dev or test), `index` (row of that file, from 0) and, to be checked, `answer`
            of each example, in the order in which they are shown.

    Raises:
        UserError: an unknown subject, one named twice, too few questions or examples, an example that is not there or
            has another answer, or a question among its shots.
    """
    if shots_from not in ("own_dev", "first_subject", "fixed"):
        raise UserError(f"mmlu.shots_from: found {shots_from!r}, expected own_dev, first_subject or fixed.")
    if fixed_shots and shots_from != "fixed":
        raise UserError(
            f"mmlu.fixed_shots: found {len(fixed_shots)} examples, expected none with shots_from: {shots_from}."
        )
    examples, pool = read_table(dev), read_table(test)
    named = [subject for subjects in categories.values() for subject in subjects]
    unknown = [subject for subject in named if subject not in pool]
    if len(unknown) == 1:
        raise UserError(_unknown(unknown[0], pool))
    if unknown:
        raise UserError(
            f"mmlu, categories: the data lack {len(unknown)} of the {len(named)} subjects named: {', '.join(unknown)}. "
            f"They have {len(pool)}: {', '.join(pool)}. Name some of these, or get other data (mmlu.source)."
        )
    for subject in named:
        if named.count(subject) > 1:
            raise UserError(f"mmlu, categories: {subject} is named twice. Name each subject once.")
    if shots_from == "fixed":
        fixed = named_shots(fixed_shots, shots, {"dev": examples, "test": pool})
    shown = {}
    for subject in named:
        source = min(named) if shots_from == "first_subject" else subject
        if shots_from != "fixed" and len(examples.get(source, [])) < shots:
            raise UserError(
                f"mmlu, shots: {source} has {len(examples.get(source, []))} dev rows, expected {shots}. Use fewer."
            )
        chosen = fixed if shots_from == "fixed" else examples.get(source, [])[:shots]
        shown[subject] = [{key: row[key] for key in ("question", "choices", "answer")} for row in chosen]

    rows = []
    for category, subjects in categories.items():
        for position, subject in enumerate(subjects):
            number = len(pool[subject])
            if questions_per_category is not None:
                number = questions_per_category // len(subjects) + (position < questions_per_category % len(subjects))
            if len(pool[subject]) < number:
                raise UserError(
                    f"mmlu, questions_per_category: {subject} has {len(pool[subject])} test questions, expected "
                    f"{number} ({questions_per_category} in {category}). Use fewer questions, or more subjects."
                )
            order = list(pool[subject])
            random.Random(seed).shuffle(order)
            for row in order[:number]:
                if any((row["question"], row["choices"]) == (s["question"], s["choices"]) for s in shown[subject]):
                    remedy = (
                        "Choose other mmlu.fixed_shots, or fewer questions."
                        if shots_from == "fixed"
                        else "The test and dev data overlap; fetch them again, or leave out the subject."
                    )
                    raise UserError(
                        f"{subject}, test row {row['index']}: is one of the {shots} examples of its own prompt. "
                        f"{remedy}"
                    )
                rows.append(
                    {
                        "id": f"{subject}-{row['index']:05d}",
                        "subject": subject,
                        "category": category,
                        "question": row["question"],
                        "choices": row["choices"],
                        "answer": row["answer"],
                        "shots": shown[subject],
                    }
                )
    write_jsonl(questions, rows)
    # MMLU itself has a few questions twice under one subject.
    contents = [sha256_json([row["subject"], row["question"], row["choices"]]) for row in rows]
    write_json(
        manifest,
        {
            "settings": {
                "categories": {name: list(subjects) for name, subjects in categories.items()},
                "questions_per_category": questions_per_category,
                "shots": shots,
                "shots_from": shots_from,
                "fixed_shots": [dict(shot) for shot in fixed_shots],
                "seed": seed,
            },
            "inputs": {"dev": sha256_file(dev), "test": sha256_file(test)},
            "rows": len(rows),
            "sha256": sha256_file(questions),
            "by_category": {name: sum(row["category"] == name for row in rows) for name in categories},
            "by_subject": {name: sum(row["subject"] == name for row in rows) for name in named},
            "by_answer": {letter: sum(row["answer"] == letter for row in rows) for letter in LETTERS},
            "repeated_questions": len(contents) - len(set(contents)),
            "ids": [row["id"] for row in rows],
            "ids_sha256": sha256_json([row["id"] for row in rows]),
        },
    )


def named_shots(wanted: Sequence[Mapping], number: int, tables: Mapping[str, Mapping[str, list[dict]]]) -> list[dict]:
    """Return the rows of `mmlu.fixed_shots`, in their order.

    Raises:
        UserError: not `number` of them, one that is not in the data, named twice or has another answer than it says.
    """
    if len(wanted) != number:
        raise UserError(f"mmlu.fixed_shots: found {len(wanted)} examples, expected {number}, the number in mmlu.shots.")
    found: list[dict] = []
    for position, shot in enumerate(wanted):
        key, subject, split, index = f"mmlu.fixed_shots[{position}]", shot["subject"], shot["split"], shot["index"]
        if split not in tables:
            raise UserError(f"{key}.split: found {split!r}, expected dev or test.")
        if subject not in tables[split]:
            raise UserError(_unknown(subject, tables[split], f"{key}.subject"))
        row = next((row for row in tables[split][subject] if row["index"] == index), None)
        if row is None:
            last = max(row["index"] for row in tables[split][subject])
            raise UserError(f"{key}.index: found {index}, expected 0 to {last}, the rows of {subject} in {split}.")
        if row in found:
            raise UserError(f"{key}: {subject}, {split} row {index} is named twice. Name each example once.")
        if shot.get("answer") not in (None, row["answer"]):
            raise UserError(
                f"{key}.answer: found {shot['answer']}, but {subject}, {split} row {index} has answer {row['answer']}. "
                "Choose another row, or correct the letter."
            )
        found.append(row)
    return found


def read_table(path: str | Path) -> dict[str, list[dict]]:
    """Read dev.csv or test.csv: return, for each subject, rows of index, question, choices (4 texts) and answer.

    Cells are text as they are: "None" and "NA" are answers in MMLU, not missing values.
    """
    table: dict[str, list[dict]] = {}
    with Path(path).open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            table.setdefault(row["subject"], []).append(
                {
                    "index": int(row["index"]),
                    "question": row["question"],
                    "choices": [row[letter] for letter in LETTERS],
                    "answer": row["answer"],
                }
            )
    return table


def _unknown(subject: str, known: Mapping[str, object], key: str = "mmlu, categories") -> str:
    near = [name for name in known if subject in name]
    near += [name for name in difflib.get_close_matches(subject, known, n=3, cutoff=0.5) if name not in near]
    message = f"{key}: there is no subject {subject!r} in the data."
    if near:
        message += f" Near names: {', '.join(near)}."
    if subject in ("computer_science", "economics"):
        message += f" The benchmark divides {subject} into several subjects; choose among them."
    return message


if __name__ == "__main__":
    with job(snakemake.log[0]):
        prepare_mmlu(
            snakemake.input.dev,
            snakemake.input.test,
            **snakemake.params.settings,
            questions=snakemake.output.questions,
            manifest=snakemake.output.manifest,
        )
