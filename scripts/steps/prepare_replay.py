"""Draw the rows to replay, the same on every run, without any that MMLU evaluates on or shows as an example."""

import random
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

import _path  # noqa: F401
from common.files import UserError, read_jsonl, sha256_file, sha256_json, write_json, write_jsonl
from common.job import job
from prepare_mmlu import read_table


def prepare_replay(
    rows: str | Path,
    dev: str | Path,
    test: str | Path,
    questions: int,
    seed: int,
    drawn: str | Path,
    manifest: str | Path,
) -> None:
    """Write the drawn rows (JSON lines, in the order in which trainings take them) and their manifest.

    All rows are shuffled with the seed, and the first ones taken that are neither equal to one before them nor a row of
    MMLU: one with the question and the choices of a test or dev row, in any order (`fingerprint`), or an instruction
    whose prompt contains such a question and all of its choices. Every test and dev row counts, of whatever subject:
    what a study evaluates on may change without a change of what was trained on.

    Args:
        rows: JSON lines of `fetch_replay`.
        dev, test: tables of `fetch_mmlu`.
        questions: how many rows are drawn at most.
        seed: of the shuffle.
        drawn, manifest: output paths.

    Raises:
        UserError: no row is left.
    """
    known = [
        (f"{split} {subject}-{row['index']:05d}", row["question"], row["choices"])
        for split, path in (("test", test), ("dev", dev))
        for subject, found in read_table(path).items()
        for row in found
    ]
    of_mmlu = {fingerprint(question, choices): name for name, question, choices in known}
    texts = [(name, normal(question), [normal(choice) for choice in choices]) for name, question, choices in known]
    pool = read_jsonl(rows)
    random.Random(seed).shuffle(pool)
    chosen, dropped, repeated, seen = [], {}, 0, set()
    for row in pool:
        if len(chosen) == questions:
            break
        if "choices" in row:
            mark = fingerprint(row["question"], row["choices"])
            twin = of_mmlu.get(mark)
        else:
            mark = sha256_json([normal(row["prompt"]), normal(row["completion"])])
            twin = contained(normal(row["prompt"]), texts)
        if twin:
            print(f"{row['id']}: is MMLU's {twin}; dropped.", flush=True)
            dropped[row["id"]] = twin
        elif mark in seen:
            repeated += 1
        else:
            seen.add(mark)
            chosen.append(row)
    print(f"{len(chosen)} of {len(pool)} rows drawn; {len(dropped)} of MMLU's and {repeated} repeated ones dropped.")
    if not chosen:
        raise UserError(
            f"replay.source: none of its {len(pool)} rows is left: {len(dropped)} are of MMLU's test or dev files. "
            "Use another source."
        )
    write_jsonl(drawn, chosen)
    write_json(
        manifest,
        {
            "settings": {"questions": questions, "seed": seed},
            "inputs": {"rows": sha256_file(rows), "dev": sha256_file(dev), "test": sha256_file(test)},
            "found": len(pool),
            "rows": len(chosen),
            "by_kind": {
                kind: sum(row["kind"] == kind for row in chosen) for kind in sorted({r["kind"] for r in chosen})
            },
            # Of the rows up to the last one drawn.
            "of_mmlu_dropped": dropped,
            "repeated_dropped": repeated,
            "checked_against": len(known),
            "sha256": sha256_file(drawn),
            "ids_sha256": sha256_json([row["id"] for row in chosen]),
        },
    )


def normal(text: str) -> str:
    """Return a text without what does not change what it asks: compatibility forms, case, spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def fingerprint(question: str, choices: Sequence[str]) -> str:
    """Return the SHA-256 of a normalised question and its normalised choices, whatever their order."""
    return sha256_json([normal(question), sorted(map(normal, choices))])


def contained(prompt: str, known: Iterable[tuple[str, str, Sequence[str]]]) -> str | None:
    """Return the name of the first of `known` whose question and choices all stand in the prompt; all normalised."""
    return next(
        (name for name, question, choices in known if question in prompt and all(c in prompt for c in choices)), None
    )


if __name__ == "__main__":
    with job(snakemake.log[0]):
        prepare_replay(
            rows=snakemake.input.rows,
            dev=snakemake.input.dev,
            test=snakemake.input.test,
            drawn=snakemake.output.rows,
            manifest=snakemake.output.manifest,
            **snakemake.params.settings,
        )
