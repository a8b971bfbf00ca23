"""BIRD: its official layout with archives in the archive, its evidence and levels, and its execution accuracy."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from _tasks import DIFFICULTY, bird_release, database, edit, options, shown
from common.files import UserError, read_json
from tasks import bird
from tasks.records import read_records, write_records


def fetched(source: Path, out: Path, **keys) -> dict:
    """Fetch, and give the options."""
    chosen = options(bird, source=str(source), **keys)
    bird.fetch(chosen, out)
    return chosen


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """The fetched release, with rows to train on."""
    folder = tmp_path_factory.mktemp("bird")
    fetched(bird_release(folder / "source"), folder / "out", role="target")
    return folder / "out"


def test_archive_of_the_questions_to_ask(tmp_path):
    """The archive that the authors offer: dev alone, the databases in an archive of their own."""
    bird_release(tmp_path / "source", train=False)
    archive = shutil.make_archive(str(tmp_path / "dev"), "zip", tmp_path / "source")
    fetched(archive, tmp_path / "out")
    assert sorted(
        str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()
    ) == [
        "database/horses/horses.sqlite",
        "database/ships/ships.sqlite",
        "dev.json",
        "manifest.json",
        "tables.json",
    ]
    rows = read_json(tmp_path / "out/dev.json")
    assert rows[2] == {
        "db_id": "ships",
        "question": "Which maker has most red ships?",
        "query": rows[2]["query"],
        "evidence": "ships are made by makers",
        "difficulty": "challenging",
    }


def test_folders_in_which_the_archives_are_unpacked_give_the_same(data, tmp_path):
    fetched(bird_release(tmp_path / "source", packed=False), tmp_path / "out", role="target")
    one, two = (read_json(folder / "manifest.json") for folder in (data, tmp_path / "out"))
    assert one["files"] == two["files"]
    assert one["counts"] == {"dev": 24, "train": 48}
    assert not list(data.glob("unpacked*"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda dev: (dev / "dev.json").unlink(), "holds no dev.json"),
        (lambda dev: (dev / "dev_tables.json").write_text("[]"), "dev_tables.json.*no entry for horses"),
        (lambda dev: (dev / "dev_databases.zip").unlink(), "dev.json, row 0: db_id is 'ships', expected one file"),
        (lambda dev: edit(dev / "dev.json", 1, SQL=None), "dev.json, row 1: SQL is None, expected a text"),
        (
            lambda dev: edit(dev / "dev.json", 1, difficulty="hard"),
            "row 1: difficulty is 'hard', expected simple, moderate, challeng",
        ),
        (
            lambda dev: edit(dev / "dev.json", 1, evidence=7),
            "dev.json, row 1: evidence is 7, expected a text. Mend the",
        ),
        (lambda dev: shutil.rmtree(dev.parent / "train"), "tasks.mine, role: target: found no train.json"),
    ],
)
def test_mistakes_are_told(tmp_path, change, message):
    change(bird_release(tmp_path / "source") / "dev_20240627")
    with pytest.raises(UserError, match=message):
        fetched(tmp_path / "source", tmp_path / "out", role="target")
    assert not list((tmp_path / "out").rglob("*.json"))


def test_evidence_is_shown_unless_it_is_not_wanted(data):
    chosen = options(bird, source="x", role="target", shots=1)
    pool = bird.prepare(chosen, data, "shots")[0][:1]
    asked = bird.prepare(chosen, data, "test")[0]
    with_it = [shown(bird, chosen, data, row, pool)[-1].text for row in asked]
    assert with_it[2].endswith(
        "ship.maker_id = maker.maker_id\nEvidence: ships are made by makers\n"
        "Question: Which maker has most red ships?\nSQL:"
    )
    # The other questions have none.
    assert with_it[0].endswith("ship.maker_id = maker.maker_id\nQuestion: How many red ships are there?\nSQL:")
    assert f"\nSQL: {pool[0]['query']}\n\nmaker (" in with_it[0]
    without = [shown(bird, chosen | {"evidence": False}, data, row, pool)[-1].text for row in asked]
    assert not any("Evidence" in text for text in without)
    assert [text.replace("Evidence: ships are made by makers\n", "") for text in with_it[:12]] == without[:12]


def test_strata_are_the_levels_of_difficulty_and_records_can_be_read_again(data, tmp_path):
    chosen = options(bird, source="x", role="yardstick")
    rows, _ = bird.prepare(chosen, data, "test")
    asked = [(row, {"answer": row["query"]}) for row in rows[:3]] + [(rows[3], None)]
    records = [record for record, _ in bird.score(chosen, data, asked, 2)]
    measure = bird.measure(chosen)
    assert (measure.name, measure.criterion, measure.cluster) == ("BIRD", "set", "db_id")
    assert measure.strata == {"difficulty": DIFFICULTY, "db_id": "sorted"}
    write_records(tmp_path / "bird.csv", measure.columns, records)
    frame = read_records(tmp_path / "bird.csv", measure.columns)
    assert list(frame["difficulty"]) == [*DIFFICULTY, "simple"]
    assert list(frame["evidence"]) == ["", "", "ships are made by makers", ""]
    assert list(frame[measure.criterion]) == [1, 1, 1, 0]


def official(path: Path, predicted: str, gold: str) -> int:
    """BIRD's own rule: the rows of both queries, as sets; a query that fails is wrong."""
    with closing(sqlite3.connect(path)) as connection:
        try:
            return int(set(connection.execute(predicted).fetchall()) == set(connection.execute(gold).fetchall()))
        except sqlite3.Error:
            return 0


GOLD = "SELECT T2.town FROM ship AS T1 JOIN maker AS T2 ON T1.maker_id = T2.maker_id"


@pytest.mark.parametrize(
    ("gold", "predicted"),
    [
        (GOLD, GOLD.replace("SELECT", "SELECT DISTINCT")),
        (GOLD, f"{GOLD} ORDER BY T2.town DESC"),
        (f"{GOLD} ORDER BY T2.town", f"{GOLD} ORDER BY T2.town DESC"),
        (GOLD, GOLD.replace("T2.town", "T2.town, T2.name")),
        ("SELECT name, town FROM maker", "SELECT town, name FROM maker"),
        ("SELECT count(*) FROM ship", "SELECT 12.0"),
        ("SELECT count(*) FROM ship", "SELECT '12'"),
        ("SELECT price FROM ship WHERE price IS NULL", "SELECT NULL"),
        ("SELECT name FROM ship WHERE price > 999", "SELECT town, name FROM maker WHERE town = 'Rome'"),
        ("SELECT avg(price) FROM ship", "SELECT sum(price) * 1.0 / count(price) FROM ship"),
        ("SELECT name FROM ship", "SELECT nome FROM ship"),
        ("SELECT name FROM ship", "SELECT name FROM ship WHERE"),
    ],
)
def test_set_is_the_execution_accuracy_of_the_official_evaluation(data, tmp_path, gold, predicted):
    database(tmp_path / "ships.sqlite", "ship")
    row = bird.prepare(options(bird, source="x"), data, "test")[0][0] | {"query": gold}
    ((record, _),) = bird.score(options(bird, source="x"), data, [(row, {"answer": predicted})], 1)
    assert record["set"] == official(tmp_path / "ships.sqlite", predicted, gold)
