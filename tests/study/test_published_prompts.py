"""The prompts of published studies, as they were run, are those of their own code, on the real data.

`published_prompts.json` has the SHA-256 of what each study's code makes of given questions, and of all of a file: made
once by a program that does what that code does, read at the commits that the study files name. Of a conversation it is
the hash of its turns, since the model's own chat template puts the marks around them.
"""

import csv
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from common.files import read_json
from llm.prompts import template
from study import read
from tasks import mmlu, spider, text_to_sql
from tasks.base import examples_of, filled

REPO = Path(__file__).parents[2]
EXPECTED = read_json(Path(__file__).with_name("published_prompts.json"))
FILES = ("dev", "train_spider")


def hash_of(said: list) -> str:
    """The hash of a whole prompt, or of the turns of a conversation."""
    whole = said[0].role == "whole"
    text = said[0].text if whole else json.dumps([[*turn] for turn in said], ensure_ascii=False)
    return sha256(text.encode()).hexdigest()


def section(study: str, name: str) -> dict:
    """A task of a study as it was run."""
    raw = read.read_yaml(REPO / f"studies/{study}.yaml")
    return read.resolve(raw, {"protocol": "as_reported"}, study)["tasks"][name]


def maker(task, study: str, name: str, told: Callable, pool: list) -> Callable[[dict], list]:
    """What makes the turns of a row as the study does; as it asks the base model, if what names it ends in base."""
    options = section(study.partition(" ")[0], name)
    turns = template(REPO / options["base_prompt" if study.endswith("base") else "prompt"])
    shown = options | {"shots": len(pool)} if pool or "shots" in task.PARTS else options
    return lambda row: turns(filled(task, told, row, examples_of(task, shown, row, pool), options))


@pytest.fixture(scope="module")
def folder(shared_data, tmp_path_factory) -> Path:
    """Spider's questions and schemas."""
    found = tmp_path_factory.mktemp("spider")
    with zipfile.ZipFile(shared_data / "spider/spider_data.zip") as archive:
        for name in (*FILES, "tables"):
            (found / f"{name}.json").write_bytes(archive.read(f"spider_data/{name}.json"))
    return found


@pytest.mark.parametrize("case", [case for case in EXPECTED if " spider" in case])
def test_every_prompt_of_text_to_sql_is_that_of_the_studys_code(case, folder):
    study = case.partition(" ")[0]
    options = read.resolve(read.read_yaml(REPO / f"studies/{study}.yaml"), {"protocol": "as_reported"})["tasks"][
        "spider"
    ]
    rows = {name: text_to_sql.read_rows(folder / f"{name}.json") for name in FILES}
    by_id = {row["id"]: row for name in FILES for row in rows[name]}
    shots = [] if case.endswith("base") or not options["shots"] else [by_id[one] for one in options["shots"]]
    make = maker(spider, study, "spider", text_to_sql.context(options, folder), shots)
    found = {}
    for name in FILES:
        of_file = sha256()
        for row in rows[name]:
            said = make(row)
            if case.endswith("rows"):
                # As it is trained on: the answer and the end of the turn behind the prompt.
                whole = said[0].text + said[1].text + row["query"] + "<|eot_id|>"
                one = sha256(whole.encode()).hexdigest()
            else:
                one = hash_of(said)
            of_file.update(one.encode())
            if row["id"] in EXPECTED[case]:
                found[row["id"]] = one
        found[name] = of_file.hexdigest()
    assert found == EXPECTED[case]


@pytest.mark.parametrize("case", [case for case in EXPECTED if " mmlu" in case])
def test_prompts_of_mmlu_are_those_of_the_studys_code(case, shared_data):
    with tarfile.open(shared_data / "mmlu/mmlu_data.tar.gz") as archive:

        def rows(subject: str, part: str) -> list[dict]:
            text = archive.extractfile(f"data/{part}/{subject}_{part}.csv").read().decode()
            return [
                {"subject": subject, "question": cells[0], "choices": cells[1:5], "answer": cells[5]}
                for cells in csv.reader(io.StringIO(text))
            ]

        study, found = case.partition(" ")[0], {}
        make = maker(mmlu, case, "mmlu", mmlu.context({}, shared_data), [])
        for name in EXPECTED[case]:
            subject, _, index = name.rpartition("-")
            # DeepEval shows the examples of the first subject that it is given.
            shots = rows("abstract_algebra", "dev")[:4] if study == "ribeiro" else []
            found[name] = hash_of(make(rows(subject, "test")[int(index)] | {"shots": shots}))
    assert found == EXPECTED[case]
