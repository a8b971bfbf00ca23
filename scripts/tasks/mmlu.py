"""MMLU: the questions of all subjects, from the official CSV files or the hub's parquet files, in one table."""

import csv
import difflib
import itertools
import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from common.download import find_root, opened
from common.files import UserError, atomic_write, described, redacted, sha256_json, write_json
from common.hub import hub_snapshot
from tasks.base import NUMBERS, PER_QUESTION, Asked, Context, Measure, Part, Scored, TaskOptions, chosen, marked
from tasks.choice import LETTERS, fault, judged, lettered, told
from tasks.questions import Chosen, Named, picked
from tasks.records import MMLU_COLUMNS
from tasks.sections import ABSENT, AtLeast1, Count, Name, Section, Sha256, Some, Text, contradiction, either

PROMPT = "choice.jinja"
LICENCE = "MIT"
PARTS = ("test",)
STAGES = {
    "fetch": ("source", "revision", "sha256", "subjects"),
    "test": ("categories", "questions", "questions_per_category", "shots", "shots_from", "fixed_shots", "seed"),
    "prompt": ("system", "marks"),
    "score": ("categories",),
    "measure": (),
}
SMOKE = {"questions": None, "questions_per_category": 1}
REMEDY = "Use fewer {name}.shots or a smaller {name}.max_new_tokens, or a model with a longer context."
SPLITS = ("dev", "test")
COLUMNS = ("subject", "index", "question", *LETTERS, "answer")
AUXILIARY = "auxiliary_train"
HUB = "hub:"
# Configurations of the hub's copy that are no subject.
NO_SUBJECT = ("all", AUXILIARY)
# Of the release's archive and of the hub's copy, whose configuration `all` has it in the form of the other splits.
AUXILIARY_FILES = (f"{AUXILIARY}/*.csv", f"all/{AUXILIARY}-*.parquet")
# The benchmark's own grouping (Hendrycks et al. 2021, arXiv:2009.03300; categories.py of its release).
OFFICIAL = {
    "stem": (
        "abstract_algebra astronomy college_biology college_chemistry college_computer_science college_mathematics "
        "college_physics computer_security conceptual_physics electrical_engineering elementary_mathematics "
        "high_school_biology high_school_chemistry high_school_computer_science high_school_mathematics "
        "high_school_physics high_school_statistics machine_learning"
    ),
    "humanities": (
        "formal_logic high_school_european_history high_school_us_history high_school_world_history international_law "
        "jurisprudence logical_fallacies moral_disputes moral_scenarios philosophy prehistory professional_law "
        "world_religions"
    ),
    "social_sciences": (
        "econometrics high_school_geography high_school_government_and_politics high_school_macroeconomics "
        "high_school_microeconomics high_school_psychology human_sexuality professional_psychology public_relations "
        "security_studies sociology us_foreign_policy"
    ),
    "other": (
        "anatomy business_ethics clinical_knowledge college_medicine global_facts human_aging management marketing "
        "medical_genetics miscellaneous nutrition professional_accounting professional_medicine virology"
    ),
}
CATEGORY = {subject: category for category, subjects in OFFICIAL.items() for subject in subjects.split()}
# Rows of each subject: index, question, choices (4 texts) and answer.
Table = Mapping[str, Sequence[dict]]


class FixedShot(Section):
    """One row of the MMLU release."""

    subject: str
    """The subject, by its file name in the release."""
    split: Literal["dev", "test"]
    """The file in which the row stands."""
    index: Count
    """The number of the row there, counted from 0."""
    answer: Literal["A", "B", "C", "D"] = ABSENT
    """The right answer, to be checked against the data. May be left out."""


class Options(TaskOptions):
    """MMLU (Hendrycks et al. 2021, arXiv:2009.03300): general knowledge, multiple choice with four options."""

    kind: Literal["mmlu"] = "mmlu"
    role: Literal["yardstick"] = "yardstick"
    max_new_tokens: AtLeast1 = 8
    """Longest generated answer in tokens; the answer that counts is the letter with the highest log-probability."""
    source: Text
    """The release's CSV archive or folder (http(s) URL or local path), hub:<repository> such as hub:cais/mmlu, or a
    local folder of that repository's parquet files."""
    revision: str | None = None
    """The commit of the hub repository, needed with hub:<repository>; null for other sources."""
    sha256: Sha256 | None = None
    """SHA-256 of the archive, or null."""
    subjects: AtLeast1 = 57
    """How many subjects the source must hold. The official release has 57."""
    categories: either(Annotated[dict[Name, Some[str]], Field(min_length=1)], Literal["official"], str) = {
        "stem": ["astronomy"],
        "humanities": ["world_religions"],
        "social_sciences": ["econometrics"],
    }
    """The categories to ask and the subjects of each, by their file names in the release. official stands for all 57
    subjects in the benchmark's own four categories: stem, humanities, social_sciences and other."""
    questions_per_category: AtLeast1 | None = 50
    """Test questions drawn for each category, shared equally by its subjects; null for all, 14,042 of the release."""
    questions: either(None, Named, (list, dict, Chosen)) = None
    """In place of questions_per_category: a list of ids such as [astronomy-00017], a file of them ({file: ids.txt}), or
    so many of each subject as a library draws ({draw: datasets, seed: 42, n: 50})."""
    shots: Count = 4
    """Few-shot examples before each question. The release has 5 a subject."""
    shots_from: Literal["own_dev", PER_QUESTION, "first_subject", "fixed"] = "own_dev"
    """own_dev: the first dev rows of the question's own subject. per_question: dev rows of its own subject that are
    drawn for each question. To repeat other studies: first_subject, the rows of the first subject for all questions (a
    defect), or fixed, the rows in fixed_shots for all questions."""
    fixed_shots: list[FixedShot] = []
    """The few-shot examples of shots_from: fixed, in their order; as many as shots. For example {subject: astronomy,
    split: dev, index: 1}."""
    seed: Count = 42
    """Draws the questions."""
    marks: Literal["letters", NUMBERS] = "letters"
    """How prompts call the choices: A to D, or 1 to 4. The probabilities are those of these marks; records and tables
    have letters."""
    system: str = "Answer with the letter of the correct choice."
    """System text of a prompt; with marks: numbers it asks for the number by default."""

    @model_validator(mode="after")
    def _agree(self) -> "Options":
        if self.marks == NUMBERS and "system" not in self.model_fields_set:
            self.system = "Answer with the number of the correct choice."
        if self.questions is not None:
            if "questions_per_category" in self.model_fields_set and self.questions_per_category is not None:
                raise contradiction(
                    "questions_per_category",
                    f"found {self.questions_per_category}, but questions names those to ask. Write null.",
                )
            self.questions_per_category = None
        if self.categories == "official" and self.subjects != len(CATEGORY):
            raise contradiction(
                "categories",
                f"found official, all {len(CATEGORY)} subjects of the release, but subjects says that the source holds "
                f"{self.subjects}. Name the subjects, or use the release.",
            )
        if self.shots_from == "fixed" and len(self.fixed_shots) != self.shots:
            raise contradiction("fixed_shots", f"found {len(self.fixed_shots)} rows, expected shots = {self.shots}.")
        if self.shots_from != "fixed" and self.fixed_shots:
            raise contradiction(
                "fixed_shots", f"not used, since shots_from is {self.shots_from}. Write fixed, or remove the rows."
            )
        return self


def measure(options: Mapping) -> Measure:
    return Measure(
        name="MMLU",
        form="choice",
        columns=MMLU_COLUMNS,
        question=("id", "subject", "category", "answer"),
        counted=("correct", "correct_generated", "generated_letter"),
        cluster="subject",
        strata={"category": None, "subject": None},
        reported=("category",),
        chance=0.25,
    )


def fetch(options: Mapping, folder: Path) -> None:
    """Write dev.csv, test.csv (columns `COLUMNS`; index counts the subject's rows from 0) and manifest.json.

    The source's files are CSV as the authors release them (`{dev,test}/<subject>_{dev,test}.csv`), or parquet as the
    hub has them (`<subject>/{dev,test}-*.parquet`). Nothing in the folder is replaced before all have been checked.
    """
    source = options["source"]
    patterns = [f"*/{split}-*.parquet" for split in SPLITS], [f"{name}/*" for name in NO_SUBJECT]
    with _data(options, patterns, folder / "unpacked") as (found, archive_sha256):
        tables = _read_folder(found, source)
    names = sorted(tables["test"])
    if len(names) != options["subjects"]:
        raise UserError(
            f"{source}: found {len(names)} subjects, expected {options['subjects']} ({options['name']}.subjects). "
            "Use the whole data, or correct the number if this is other data."
        )
    for split in SPLITS:
        with atomic_write(folder / f"{split}.csv") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(COLUMNS)
            for subject in names:
                for index, row in enumerate(tables[split][subject]):
                    writer.writerow([subject, index, row["question"], *row["choices"], row["answer"]])
    manifest = {
        "source": redacted(source),
        "revision": options["revision"],
        "archive_sha256": archive_sha256,
        "subjects": {name: {split: len(tables[split][name]) for split in SPLITS} for name in names},
        "counts": {split: sum(map(len, tables[split].values())) for split in SPLITS},
        "files": described(folder, [f"{split}.csv" for split in SPLITS]),
    }
    write_json(folder / "manifest.json", manifest)


@contextmanager
def _data(options: Mapping, patterns: tuple[list[str], list[str]], scratch: Path) -> Iterator[tuple[Path, str | None]]:
    """Yield the folder of a source, and the SHA-256 of its archive; `patterns` name the hub's files to get, and not."""
    name, source, revision, sha256 = (options[key] for key in ("name", "source", "revision", "sha256"))
    if source.startswith(HUB):
        if sha256:
            raise UserError(f"{name}.sha256: {source} has no archive; its commit pins it. Set sha256 to null.")
        yield hub_snapshot(source.removeprefix(HUB), revision, "dataset", *patterns), None
        return
    if revision:
        raise UserError(f"{name}.revision: {source} is not on the hub (hub:<owner>/<name>). Set revision to null.")
    with opened(source, sha256, scratch, (".csv", ".parquet")) as found:
        yield found


def prepare(options: Mapping, folder: Path, part: str) -> Part:
    """Draw the questions of a study: id, subject, question, choices, answer and shots, its examples.

    A category's questions are shared equally by its subjects, the first ones taking what is left over. Each subject
    gives the first of its test questions after a shuffle with the seed, made anew for each. Questions that the study
    names come in its order; a library draws anew from each subject's.
    """
    categories, per_category = grouped(options["categories"]), options["questions_per_category"]
    named, key = options.get("questions"), f"{options['name']}.questions"
    tables = {split: read_table(folder / f"{split}.csv") for split in SPLITS}
    shown = _shots(options, [subject for subjects in categories.values() for subject in subjects], tables)
    asked = []
    for category, subjects in categories.items():
        for position, subject in enumerate(subjects):
            order = [
                {"id": f"{subject}-{row['index']:05d}", "subject": subject, **row} for row in tables["test"][subject]
            ]
            if named is not None:
                asked += picked(order, named, key) if isinstance(named, dict) else order
                continue
            number = len(order)
            if per_category is not None:
                number = per_category // len(subjects) + (position < per_category % len(subjects))
            if len(order) < number:
                raise UserError(
                    f"{options['name']}.questions_per_category: {subject} has {len(order)} test questions, expected "
                    f"{number} ({per_category} in {category}). Use fewer questions, or more subjects."
                )
            random.Random(options["seed"]).shuffle(order)
            asked += order[:number]
    rows = []
    for row in chosen(options, picked(asked, named, key) if isinstance(named, list) else asked):
        subject, shots = row["subject"], shown[row["subject"]]
        if options["shots_from"] == PER_QUESTION:
            shots = random.Random(f"{options['seed']} {row['id']}").sample(shots, options["shots"])
        _check_not_shown(options, subject, row, shots)
        rows.append({"id": row["id"], "subject": subject} | _plain(row) | {"shots": shots})
    parts = {"subject": itertools.chain(*categories.values()), "answer": LETTERS}
    facts = {f"by_{part}": {**dict.fromkeys(of, 0), **Counter(row[part] for row in rows)} for part, of in parts.items()}
    # MMLU itself has a few questions twice under one subject.
    different = {sha256_json([row["subject"], row["question"], row["choices"]]) for row in rows}
    return rows, facts | {"repeated_questions": len(rows) - len(different)}


def grouped(categories: Mapping[str, Sequence[str]] | str) -> Mapping[str, Sequence[str]]:
    """The subjects of each category, those of the benchmark itself for `official`."""
    if categories != "official":
        return categories
    return {name: subjects.split() for name, subjects in sorted(OFFICIAL.items())}


def _plain(row: dict) -> dict:
    return {key: row[key] for key in ("question", "choices", "answer")}


def _check_not_shown(options: Mapping, subject: str, row: dict, shots: Sequence[dict]) -> None:
    if any(row["question"] == shot["question"] and row["choices"] == shot["choices"] for shot in shots):
        remedy = "The test and dev data overlap; fetch them again, or leave out the subject."
        if options["shots_from"] == "fixed":
            remedy = f"Choose other {options['name']}.fixed_shots, or fewer questions."
        raise UserError(
            f"{subject}, test row {row['index']}: is one of the {options['shots']} examples of its own prompt. {remedy}"
        )


def _shots(options: Mapping, named: Sequence[str], tables: Mapping[str, Table]) -> dict[str, list[dict]]:
    """Choose the few-shot examples of each subject that is named, or those that they are drawn from."""
    name, number, known = options["name"], options["shots"], tables["test"]
    unknown = [subject for subject in named if subject not in known]
    if len(unknown) == 1:
        raise UserError(_unknown(unknown[0], known, f"{name}.categories"))
    if unknown:
        raise UserError(
            f"{name}.categories: the data lack {len(unknown)} of the {len(named)} subjects named: "
            f"{', '.join(unknown)}. They have {len(known)}: {', '.join(known)}. Name some of these, or "
            f"get other data ({name}.source)."
        )
    if twice := [subject for subject, count in Counter(named).items() if count > 1]:
        raise UserError(f"{name}.categories: {twice[0]} is named twice. Name each subject once.")
    if options["shots_from"] == "fixed":
        return dict.fromkeys(named, _fixed(options, tables))
    shown = {}
    for subject in named:
        own = min(named) if options["shots_from"] == "first_subject" else subject
        examples = tables["dev"].get(own, [])
        if len(examples) < number:
            raise UserError(f"{name}.shots: {own} has {len(examples)} dev rows, expected {number}. Use fewer.")
        shown[subject] = [_plain(row) for row in examples[: None if options["shots_from"] == PER_QUESTION else number]]
    return shown


def _fixed(options: Mapping, tables: Mapping[str, Table]) -> list[dict]:
    """Find the rows of `fixed_shots`, in their order."""
    found: list[dict] = []
    for position, shot in enumerate(options["fixed_shots"]):
        key = f"{options['name']}.fixed_shots[{position}]"
        subject, split, index = (shot[name] for name in ("subject", "split", "index"))
        if subject not in tables[split]:
            raise UserError(_unknown(subject, tables[split], f"{key}.subject"))
        rows = tables[split][subject]
        if index >= len(rows):
            raise UserError(
                f"{key}.index: found {index}, expected 0 to {len(rows) - 1}, the rows of {subject} in {split}."
            )
        row = rows[index]
        if row in found:
            raise UserError(f"{key}: {subject}, {split} row {index} is named twice. Name each example once.")
        if shot.get("answer") not in (None, row["answer"]):
            raise UserError(
                f"{key}.answer: found {shot['answer']}, but {subject}, {split} row {index} has answer {row['answer']}. "
                "Choose another row, or correct the letter."
            )
        found.append(row)
    return [_plain(row) for row in found]


def _unknown(subject: str, known: Table, key: str) -> str:
    close = difflib.get_close_matches(subject, known, n=3, cutoff=0.5)
    near = list(dict.fromkeys([*(name for name in known if subject in name), *close]))
    message = f"{key}: there is no subject {subject!r} in the data."
    if near:
        message += f" Near names: {', '.join(near)}."
    if subject in ("computer_science", "economics"):
        message += f" The benchmark divides {subject} into several subjects; choose among them."
    return message


def held_out(folder: Path) -> list[dict]:
    """All rows of test and dev, of whatever subject."""
    return [
        {"id": f"{split} {subject}-{row['index']:05d}", "subject": subject, **row}
        for split in ("test", "dev")
        for subject, found in read_table(folder / f"{split}.csv").items()
        for row in found
    ]


def context(options: Mapping, folder: Path) -> Context:
    return partial(told, marks=[marked(options, letter) for letter in LETTERS])


def target(row: Mapping) -> str:
    return row["answer"]


def score(options: Mapping, folder: Path, asked: Asked, workers: int) -> Scored:
    """Compare letters: `correct` is about the one with the highest log-probability, the `prediction` of an answer."""
    category = {one: name for name, subjects in grouped(options["categories"]).items() for one in subjects}
    for row, answer in asked:
        given = lettered(answer) if answer else None
        prediction = given["prediction"] if given else ""
        # A text that was written elsewhere may hold no letter.
        if given and prediction not in {*LETTERS, *([] if given["logprobs"] else [""])}:
            raise UserError(
                f"{row['id']}: found prediction {prediction!r}, expected a letter A to D. Run "
                f"`snakemake -R predict_{options['name'].rpartition('.')[2]}`."
            )
        known = (given["logprobs"] if given else None) or dict.fromkeys(LETTERS)
        logprobs = {f"logprob_{letter}": known[letter] for letter in LETTERS}
        yield {**row, "category": category[row["subject"]], **judged(row, given, prediction), **logprobs}, None


def read_table(path: Path) -> Table:
    """Read dev.csv or test.csv. Cells are text as they are: "None" and "NA" are answers, not missing values."""
    table: dict[str, list[dict]] = {}
    with path.open(encoding="utf-8", newline="") as stream:
        for subject, index, *cells in itertools.islice(csv.reader(stream), 1, None):
            table.setdefault(subject, []).append({"index": int(index), **_question(cells)})
    return table


def fetch_auxiliary(options: Mapping, scratch: Path) -> list[dict]:
    """Get MMLU's own training rows: id (file and number), question, choices (4 texts) and answer.

    The folder `scratch` holds an unpacked archive while it is read.
    """
    source = options["source"]
    with _data(options, ([AUXILIARY_FILES[1]], []), scratch) as (folder, _):
        pattern = next((p for p in AUXILIARY_FILES if any(folder.rglob(p))), None)
        if pattern is None:
            raise UserError(
                f"{options['name']}.source: {AUXILIARY} is not in {source} (looked for "
                f"{' and '.join(AUXILIARY_FILES)}). Some copies of MMLU lack it: use the release's archive, "
                "hub:cais/mmlu, or a file of your own."
            )
        return [
            {"id": f"{path.name.partition('.')[0]}-{number:05d}", **row}
            for path in sorted(find_root(folder, pattern, source).glob(pattern))
            for number, row in enumerate(_rows(path))
        ]


def _read_folder(folder: Path, source: str) -> dict[str, dict[str, list[dict]]]:
    """Read all subjects below `folder` as `tables[split][subject]`: rows of question, choices and answer."""
    is_parquet = any(folder.rglob("*.parquet"))
    pattern = "*/{0}-*.parquet" if is_parquet else "{0}/*_{0}.csv"
    root = find_root(folder, pattern.format("test"), source)
    tables: dict[str, dict[str, list[dict]]] = {split: {} for split in SPLITS}
    for split, table in tables.items():
        for path in sorted(root.glob(pattern.format(split))):
            subject = path.parent.name if is_parquet else path.stem.removesuffix(f"_{split}")
            if subject not in NO_SUBJECT and not path.name.startswith("."):
                table.setdefault(subject, []).extend(_rows(path))
    for subject in sorted(set(tables["dev"]) ^ set(tables["test"])):
        lacking = "dev" if subject in tables["test"] else "test"
        raise UserError(f"{source}: {subject} has no {lacking} file, which is needed. Get the data again.")
    return tables


def _rows(path: Path) -> Iterator[dict]:
    """Yield question, choices and answer of each row of a file, checked."""
    number = 0
    for number, row in enumerate(_parquet_rows(path) if path.suffix == ".parquet" else _csv_rows(path), 1):
        if found := fault(row):
            raise _wrong(path, number, found)
        yield row
    if not number:
        raise _wrong(path, None, "empty, expected one question a row")


def _csv_rows(path: Path) -> Iterator[dict]:
    number = 0
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
        try:
            for number, cells in enumerate(csv.reader(stream, strict=True), 1):
                if odd := re.search("[\udc80-\udcff]", "".join(cells)):
                    found = f"not UTF-8 (byte {ord(odd[0]) - 0xDC00:#04x})"
                    raise _wrong(path, number, found, "Save the file as UTF-8, or get it again.")
                if len(cells) != 6:
                    found = f"found {len(cells)} fields, expected 6 (question, four choices, answer letter)"
                    raise _wrong(path, number, found)
                yield _question(cells)
        except csv.Error as error:
            raise _wrong(path, number + 1, f"not CSV ({error})") from None


def _question(cells: Sequence[str]) -> dict:
    return {"question": cells[0], "choices": list(cells[1:5]), "answer": cells[5]}


def _parquet_rows(path: Path) -> Iterator[dict]:
    import pyarrow.parquet  # tenths of a second to import

    try:
        rows = pyarrow.parquet.read_table(path, columns=["question", "choices", "answer"]).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise _wrong(path, None, f"cannot be read ({str(error).splitlines()[0]})") from None
    for number, row in enumerate(rows, 1):
        if row["answer"] not in range(4):
            raise _wrong(path, number, f"answer is {row['answer']!r}, expected 0 to 3")
        yield row | {"answer": LETTERS[row["answer"]]}


def _wrong(path: Path, row: int | None, found: str, remedy: str = "Get the file again.") -> UserError:
    # By its path inside the data: the folder it was unpacked to no longer exists when the message is read.
    place = "/".join(path.parts[-2:]) + (f", row {row}" if row is not None else "")
    return UserError(f"{place}: {found}. {remedy}")
