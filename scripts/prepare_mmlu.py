"""Choose the MMLU questions of the study and the solved examples that go before each, the same on every run."""

import csv
import difflib
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from _files import UserError, sha256_file, sha256_json, write_json, write_jsonl
from _job import job

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
) -> None:
    """Write the question file (JSON lines) and its manifest.

    A row has id (`<subject>-<5-digit row of the subject's test file>`), subject, category, question, choices (4 texts),
    answer (A to D) and shots (question, choices, answer: the first rows of the same subject's dev file).

    Args:
        dev, test: tables of all subjects, as `fetch_mmlu` writes them.
        categories: subjects of each category.
        questions_per_category: shared equally by the category's subjects, the first ones taking what is left over; each
            gives the first of its test questions after a shuffle with the seed. None: all questions, shuffled alike.
        shots: solved examples a question.
        seed: of the shuffle, which is made anew for each subject.
        questions, manifest: output paths.

    Raises:
        UserError: an unknown subject, one named twice, too few questions or examples, or a question among its shots.
    """
    examples, pool = read_table(dev), read_table(test)
    named = [subject for subjects in categories.values() for subject in subjects]
    for subject in named:
        if subject not in pool:
            raise UserError(_unknown(subject, pool))
        if named.count(subject) > 1:
            raise UserError(f"mmlu, categories: {subject} is named twice. Name each subject once.")
        if len(examples.get(subject, [])) < shots:
            raise UserError(
                f"mmlu, shots: {subject} has {len(examples.get(subject, []))} dev rows, expected {shots}. Use fewer."
            )

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
            own = [{key: row[key] for key in ("question", "choices", "answer")} for row in examples[subject][:shots]]
            for row in order[:number]:
                if any((row["question"], row["choices"]) == (shot["question"], shot["choices"]) for shot in own):
                    raise UserError(
                        f"{subject}, test row {row['index']}: is one of the {shots} examples of its own prompt. The "
                        "test and dev data overlap; fetch them again, or leave out the subject."
                    )
                rows.append(
                    {
                        "id": f"{subject}-{row['index']:05d}",
                        "subject": subject,
                        "category": category,
                        "question": row["question"],
                        "choices": row["choices"],
                        "answer": row["answer"],
                        "shots": own,
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


def _unknown(subject: str, known: Mapping[str, object]) -> str:
    near = [name for name in known if subject in name]
    near += [name for name in difflib.get_close_matches(subject, known, n=3, cutoff=0.5) if name not in near]
    message = f"mmlu, categories: there is no subject {subject!r} in the data."
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
