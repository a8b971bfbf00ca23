"""Databases and questions of one's own: with and without tables.json, each mistake, splits and scores."""

import json
import shutil
from pathlib import Path

import pytest

from _tasks import edit, options, shown, spider_folder
from common.files import UserError, read_json
from custom_metrics.sandbox import JOURNAL_MAGIC
from tasks import spider_format

FILES = [
    *(f"database/{name}/{name}.sqlite" for name in ("horses", "ships")),
    "dev.json",
    "manifest.json",
    "tables.json",
]


@pytest.fixture
def source(tmp_path) -> Path:
    return spider_folder(tmp_path / "source")


def fetched(source: Path, out: Path, **keys) -> dict:
    """Fetch, and give the options."""
    chosen = options(spider_format, source=str(source), **keys)
    spider_format.fetch(chosen, out)
    return chosen


def test_fetch_a_folder_or_an_archive_without_tables_json(source, tmp_path):
    fetched(spider_folder(tmp_path / "asked", train=False), tmp_path / "out")
    assert sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*")) == FILES
    assert [entry["table_names_original"] for entry in read_json(tmp_path / "out/tables.json")] == [
        ["maker", "horse"],
        ["maker", "ship"],
    ]
    archive = shutil.make_archive(str(tmp_path / "shop"), "zip", source)
    fetched(archive, tmp_path / "packed", role="target")
    manifest = read_json(tmp_path / "packed/manifest.json")
    assert (manifest["counts"], manifest["databases"]) == ({"dev": 24, "train": 48}, 6)
    assert len(manifest["archive_sha256"]) == 64


def test_databases_may_lie_anywhere_and_tables_json_counts_where_it_has_an_entry(source, tmp_path):
    for path in list(source.rglob("*.sqlite")):
        path.rename(source / path.name)
    shutil.rmtree(source / "database")
    (source / "train.json").rename(source / "train_spider.json")
    fetched(source, tmp_path / "made")
    made = read_json(tmp_path / "made/tables.json")
    entry = next(entry for entry in made if entry["db_id"] == "ships") | {"foreign_keys": []}
    (source / "tables.json").write_text(json.dumps([entry]))
    fetched(source, tmp_path / "given")
    given = read_json(tmp_path / "given/tables.json")
    assert [entry["foreign_keys"] for entry in given if entry["db_id"] == "ships"] == [[]]
    assert [entry for entry in given if entry["db_id"] != "ships"] == [e for e in made if e["db_id"] != "ships"]
    assert (tmp_path / "given/train.json").is_file()


def test_fetching_again_forgets_what_is_no_longer_there(source, tmp_path):
    fetched(source, tmp_path / "out")
    (source / "train.json").unlink()
    chosen = fetched(source, tmp_path / "out")
    assert not (tmp_path / "out/train.json").exists()
    assert not (tmp_path / "out/database/clocks").exists()
    assert spider_format.prepare(chosen, tmp_path / "out", "shots") == ([], {})


def bad_body(path: Path) -> None:
    """Leave the first page alone, which has the header and what says which tables there are."""
    raw = path.read_bytes()
    path.write_bytes(raw[:4096] + bytes([255]) * (len(raw) - 4096))


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def beside(source: Path, ending: str, content: bytes) -> None:
    (source / f"database/ships/ships.sqlite{ending}").write_bytes(content)


def entry(source: Path, **keys) -> None:
    """Write tables.json with a schema of ships that differs in these keys from one in Spider's form."""
    named = {"db_id": "ships", "table_names_original": ["ship"], "column_names_original": [[-1, "*"], [0, "name"]]}
    others = {"column_types": ["text", "text"], "primary_keys": [1], "foreign_keys": []}
    (source / "tables.json").write_text(json.dumps([named | others | keys]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: (s / "dev.json").unlink(), "holds no dev.json"),
        (lambda s: (s / "dev.json").write_text("[]"), "dev.json: found no rows, expected at least 1"),
        (lambda s: (s / "dev.json").write_text("{}"), "expected a JSON list of objects"),
        (lambda s: edit(s / "dev.json", 3, query=7), "dev.json, row 3: query is 7, expected a text. Mend the row"),
        (lambda s: edit(s / "dev.json", 3, db_id="shops"), "dev.json, row 3: db_id is 'shops', expected one file"),
        (
            lambda s: shutil.copy(s / "database/ships/ships.sqlite", s / "ships.sqlite"),
            "found database/ships/ships.sqlite and ships.sqlite. Add the database, remove the copy",
        ),
        (lambda s: edit(s / "train.json", 5, query="SELECT a FROM clock"), "train.json, row 5: .*no such column: a"),
        (lambda s: (s / "database/ships/ships.sqlite").write_text("no"), "ships.sqlite: not a SQLite database"),
        (
            lambda s: bad_body(s / "database/ships/ships.sqlite"),
            "ships.sqlite: a damaged SQLite database .*Get the data",
        ),
        (
            lambda s: edit(s / "train.json", 7, db_id="ships", question=" How many red ships are there?"),
            "train.json, row 7: asks the question of dev.json, row 0. Remove one of them",
        ),
        (lambda s: (s / "train.json").unlink(), "tasks.mine, role: target: found no train.json"),
        (
            lambda s: edit(s / "dev.json", 3, question="What\ud83d"),
            r"row 3: question holds .*, half of a character",
        ),
        (lambda s: folder(s / "dev.json"), r"dev.json: cannot be read \(Is a directory"),
        (lambda s: folder(s / "database/ships/ships.sqlite"), "expected one file ships.sqlite in .*, found none"),
        (lambda s: dangling(s / "database/ships/ships.sqlite"), "expected one file ships.sqlite in .*, found none"),
        (lambda s: beside(s, "-wal", b"x"), "ships.sqlite-wal: found changes .*PRAGMA wal_checkpoint.*is packed"),
        (
            lambda s: beside(s, "-journal", JOURNAL_MAGIC),
            "ships.sqlite-journal: found a change of ships.sqlite that was",
        ),
        (lambda s: entry(s, table_names_original=None), "entry 0: table_names_original is no list of names. Mend the"),
        (lambda s: entry(s, column_names_original=["a"]), "entry 0: column_names_original is no list of pairs"),
        (lambda s: entry(s, column_names_original=[[9, "a"]]), "entry 0: column_names_original is no list of pairs"),
        (lambda s: entry(s, column_types=["text"]), "entry 0: column_types is no list of 2 types, one for each column"),
        (lambda s: entry(s, primary_keys=["a"]), "entry 0: primary_keys is no list of numbers of columns"),
        (lambda s: entry(s, foreign_keys=[[1, 99]]), "entry 0: foreign_keys is no list of pairs of numbers of columns"),
    ],
)
def test_mistakes_are_told_before_any_data_are_replaced(source, tmp_path, change, message):
    change(source)
    with pytest.raises(UserError, match=message):
        fetched(source, tmp_path / "out", role="target")
    assert not list((tmp_path / "out").rglob("*.json"))


def test_parts(source, tmp_path):
    chosen = fetched(source, tmp_path / "out", role="target", shots=2, validation={"by": "database", "fraction": 0.2})
    parts = {part: spider_format.prepare(chosen, tmp_path / "out", part)[0] for part in spider_format.PARTS}
    assert {part: len(rows) for part, rows in parts.items() if part != "shots"} == {
        "train": 34,
        "validation": 12,
        "test": 24,
    }
    ids = [row["id"] for part in ("train", "validation", "test") for row in parts[part]]
    assert len(set(ids + [row["id"] for row in parts["shots"][:2]])) == len(ids) + 2
    assert parts == {part: spider_format.prepare(chosen, tmp_path / "out", part)[0] for part in parts}
    asked = spider_format.prepare(chosen | {"questions": 5, "exclude_databases": ["ships"]}, tmp_path / "out", "test")
    assert [row["db_id"] for row in asked[0]] == ["horses"] * 5


def test_a_database_of_ones_own_may_be_learnt_and_asked_about(source, tmp_path):
    rows = [json.loads((source / name).read_text()) for name in ("dev.json", "train.json")]
    moved = [row for row in rows[0] if row["question"].startswith("Which towns")]
    (source / "dev.json").write_text(json.dumps([row for row in rows[0] if row not in moved]))
    (source / "train.json").write_text(json.dumps(moved))
    chosen = fetched(source, tmp_path / "out", role="target", validation={"by": "rows", "fraction": 0.25})
    train, test = (spider_format.prepare(chosen, tmp_path / "out", part)[0] for part in ("train", "test"))
    assert {row["db_id"] for row in train} == {row["db_id"] for row in test} == {"ships", "horses"}
    assert not {row["question"] for row in train} & {row["question"] for row in test}


def test_examples_need_rows_to_draw_them_from(tmp_path):
    chosen = fetched(spider_folder(tmp_path / "source", train=False), tmp_path / "out", shots=1)
    with pytest.raises(UserError, match=r"tasks\.mine, shots: found no train\.json in the data"):
        spider_format.prepare(chosen, tmp_path / "out", "shots")


def test_prompt_and_score(source, tmp_path):
    chosen = fetched(source, tmp_path / "out")
    first, second = spider_format.prepare(chosen, tmp_path / "out", "test")[0][:2]
    assert shown(spider_format, chosen, tmp_path / "out", first)[-1].text == (
        "maker (maker_id, name, town)\nship (ship_id, name, colour, maker_id, price)\n"
        "ship.maker_id = maker.maker_id\nQuestion: How many red ships are there?\nSQL:"
    )
    asked = [(first, {"answer": first["query"]}), (second, None)]
    records = [record for record, _ in spider_format.score(chosen, tmp_path / "out", asked, 1)]
    measure = spider_format.measure(chosen)
    assert [[record[key] for key in ("hardness", measure.criterion, "error_class")] for record in records] == [
        ["easy", 1, "ok"],
        ["medium", 0, "missing"],
    ]
    assert set(measure.columns) <= set(records[0])
    assert (measure.name, measure.form, measure.cluster) == ("mine", "sql", "db_id")
