"""Spider from a folder, an archive and the real release; each way in which the data can be wrong."""

import json
import shutil
import sqlite3
import zipfile
from pathlib import Path

import pytest

from _loopback import reply, serve
from common.files import UserError, read_json, sha256_file
from tasks.spider import fetch

COUNTS = {"train_spider": 2, "train_others": 1, "dev": 1}
SCHEMA = {
    "table_names_original": ["t"],
    "column_names_original": [[-1, "*"], [0, "x"]],
    "column_types": ["text", "number"],
    "primary_keys": [],
    "foreign_keys": [],
}


def fetch_spider(source, sha256, counts, out):
    fetch({"name": "tasks.spider", "source": str(source), "sha256": sha256, "counts": counts}, out)


def question(db_id: str, text: str) -> dict:
    return {
        "db_id": db_id,
        "question": text,
        "query": "SELECT x FROM t",
        "query_toks": ["SELECT"],
        "sql": {"where": []},
    }


@pytest.fixture
def source(tmp_path) -> Path:
    """A data set in the layout of the release: databases a and b (train), c (others), d (dev); e has no question."""
    root = tmp_path / "source" / "spider_data"
    root.mkdir(parents=True)
    tables = [SCHEMA | {"db_id": db_id} for db_id in "abcde"]
    (root / "tables.json").write_text(json.dumps(tables))
    (root / "train_spider.json").write_text(json.dumps([question("a", "Quel âge?"), question("b", "How many?")]))
    (root / "train_others.json").write_text(json.dumps([question("c", "Which?")]))
    (root / "dev.json").write_text(json.dumps([question("d", "Who?")]))
    for db_id in "abcd":
        folder = root / "database" / db_id
        folder.mkdir(parents=True)
        with sqlite3.connect(folder / f"{db_id}.sqlite") as connection:
            connection.execute("CREATE TABLE t (x)")
        connection.close()
        (folder / "schema.sql").write_text("CREATE TABLE t (x)")
    return root


def zipped(root: Path) -> Path:
    return Path(shutil.make_archive(str(root.parent.parent / "spider"), "zip", root.parent))


def test_folder(source, tmp_path):
    fetch_spider(source, None, COUNTS, tmp_path / "out")
    out = tmp_path / "out"
    assert read_json(out / "train_spider.json") == [
        {"db_id": "a", "question": "Quel âge?", "query": "SELECT x FROM t"},
        {"db_id": "b", "question": "How many?", "query": "SELECT x FROM t"},
    ]
    assert [schema["db_id"] for schema in read_json(out / "tables.json")] == list("abcde")
    files = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert files == [
        *(f"database/{db_id}/{db_id}.sqlite" for db_id in "abcd"),
        "dev.json",
        "manifest.json",
        "tables.json",
        "train_others.json",
        "train_spider.json",
    ]
    manifest = read_json(out / "manifest.json")
    assert (manifest["counts"], manifest["databases"], manifest["archive_sha256"]) == (COUNTS, 4, None)
    assert manifest["original_sha256"]["dev.json"] == sha256_file(source / "dev.json")
    assert set(manifest["files"]) == set(files) - {"manifest.json"}
    for name, described in manifest["files"].items():
        assert described == {"bytes": (out / name).stat().st_size, "sha256": sha256_file(out / name)}


def test_archive_gives_the_same_as_its_folder(source, tmp_path):
    archive = zipped(source)
    fetch_spider(source, None, COUNTS, tmp_path / "folder")
    fetch_spider(archive, sha256_file(archive), COUNTS, tmp_path / "archive")
    one, two = (read_json(tmp_path / name / "manifest.json") for name in ("folder", "archive"))
    assert one["files"] == two["files"]
    assert two["archive_sha256"] == sha256_file(archive)
    assert not (tmp_path / "archive" / "unpacked").exists()


def test_url(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where downloads are kept
    archive = zipped(source)
    with serve(lambda request: reply(request, archive.read_bytes())) as url:
        fetch_spider(f"{url}/spider.zip", sha256_file(archive), COUNTS, tmp_path / "out")
    assert len(read_json(tmp_path / "out" / "dev.json")) == 1


def test_fetching_again_replaces_the_databases(source, tmp_path):
    fetch_spider(source, None, COUNTS, tmp_path / "out")
    first = (tmp_path / "out" / "manifest.json").read_bytes()
    (tmp_path / "out/database/stale").mkdir()
    (tmp_path / "out/database/a/a.sqlite").write_bytes(b"damaged")
    fetch_spider(source, None, COUNTS, tmp_path / "out")
    assert (tmp_path / "out" / "manifest.json").read_bytes() == first
    assert not (tmp_path / "out/database/stale").exists()
    assert sha256_file(tmp_path / "out/database/a/a.sqlite") == sha256_file(source / "database/a/a.sqlite")


def edit(path: Path, change) -> None:
    rows = json.loads(path.read_text())
    change(rows)
    path.write_text(json.dumps(rows))


BAD = {
    "no such database": (
        lambda root: (root / "database/c/c.sqlite").unlink(),
        r"train_others\.json, row 0: db_id is 'c', expected one file c\.sqlite in .*, found none",
    ),
    "no database": (
        lambda root: (root / "database/b/b.sqlite").write_text("version https://git-lfs.github.com/spec/v1"),
        r"b/b\.sqlite: not a SQLite database",
    ),
    "empty database": (
        lambda root: (root / "database/b/b.sqlite").write_bytes(b""),
        r"b/b\.sqlite: not a SQLite database",
    ),
    "too few questions": (
        lambda root: edit(root / "train_spider.json", lambda rows: rows.pop()),
        r"train_spider\.json: found 1 questions, expected 2 \(tasks\.spider\.counts\.train_spider\)",
    ),
    "no question file": (lambda root: (root / "train_others.json").unlink(), r"train_others\.json: no such file"),
    "no schemas": (lambda root: (root / "tables.json").unlink(), r"holds no tables\.json"),
    "cut JSON": (
        lambda root: (root / "dev.json").write_text((root / "dev.json").read_text()[:-20]),
        r"dev\.json: not valid JSON",
    ),
    "not UTF-8": (lambda root: (root / "dev.json").write_bytes(b'[{"db_id": "\xe9"}]'), r"dev\.json: not valid JSON"),
    "no list": (lambda root: (root / "dev.json").write_text("{}"), r"dev\.json: expected a JSON list"),
    "no query": (
        lambda root: edit(root / "dev.json", lambda rows: rows[0].pop("query")),
        r"dev\.json, row 0: query is None, expected a text",
    ),
    "unknown database": (
        lambda root: edit(root / "dev.json", lambda rows: rows[0].update(db_id="zoo")),
        r"dev\.json, row 0: db_id 'zoo' is not in tables\.json",
    ),
    "schema without keys": (
        lambda root: edit(root / "tables.json", lambda rows: rows[1].pop("foreign_keys")),
        r"tables\.json, entry 1: lacks foreign_keys",
    ),
    "db_id that leaves the folder": (
        lambda root: edit(root / "tables.json", lambda rows: rows[1].update(db_id="../../x")),
        r"tables\.json, entry 1: db_id '\.\./\.\./x' is no folder's name",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_data_is_named_and_what_was_there_is_kept(source, tmp_path, case):
    fetch_spider(source, None, COUNTS, tmp_path / "out")
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    spoil, message = BAD[case]
    spoil(source)
    for bad in (source, zipped(source)):
        with pytest.raises(UserError, match=message):
            fetch_spider(bad, None, COUNTS, tmp_path / "out")
        assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before


def test_cut_archive(source, tmp_path):
    archive = zipped(source)
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(UserError, match="not a whole zip or tar archive"):
        fetch_spider(archive, None, COUNTS, tmp_path / "out")


def test_archive_with_an_escaping_entry(source, tmp_path):
    archive = zipped(source)
    with zipfile.ZipFile(archive, "a") as stream:
        stream.writestr("../../../evil.json", "[]")
    with pytest.raises(UserError, match=r"entry '\.\./\.\./\.\./evil\.json' leaves the folder"):
        fetch_spider(archive, None, COUNTS, tmp_path / "a/b/c/out")
    assert not list(tmp_path.rglob("evil*"))


def test_real_release(shared_data, tmp_path):
    counts = {"train_spider": 7000, "train_others": 1659, "dev": 1034}
    archive = shared_data / "spider" / "spider_data.zip"
    expected = read_json(shared_data / "spider" / "MANIFEST.json")
    fetch_spider(archive, None, counts, tmp_path)
    manifest = read_json(tmp_path / "manifest.json")
    assert (manifest["counts"], manifest["databases"]) == (counts, 166)
    assert len(list((tmp_path / "database").glob("*/*.sqlite"))) == 166
    assert manifest["original_sha256"]["dev.json"] in json.dumps(expected)
    with pytest.raises(UserError, match="found 1,034 questions, expected 1,035"):
        fetch_spider(archive, None, counts | {"dev": 1035}, tmp_path)
