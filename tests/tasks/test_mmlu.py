"""MMLU from CSV and parquet files; each way in which the data can be wrong."""

import csv
import shutil
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from common.files import UserError, read_json, sha256_file
from tasks import mmlu

ODD = 'He said "no, never",\nthen left'
DATA = {
    ("dev", "anatomy"): [["Q1", "a", "b", "c", "d", "A"], [ODD, "None", "NA", "1, 2", ' "x"', "D"]],
    ("test", "anatomy"): [["Où?", "1", "2", "3", "4", "B"]],
    ("dev", "virology"): [["Q2", "a", "b", "c", "d", "C"]],
    ("test", "virology"): [["Q3", "a", "b", "c", "d", "C"], ["Q4", "null", "nan", "c", "d", "A"]],
}


def fetch_mmlu(source, revision, sha256, subjects, out):
    options = {"source": str(source), "revision": revision, "sha256": sha256, "subjects": subjects}
    mmlu.fetch(options | {"name": "tasks.mmlu"}, out)


@pytest.fixture
def csv_folder(tmp_path) -> Path:
    root = tmp_path / "source" / "data"
    for (split, subject), rows in DATA.items():
        path = root / split / f"{subject}_{split}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows(rows)
    (root / "val").mkdir()
    return root


@pytest.fixture
def parquet_folder(tmp_path) -> Path:
    root = tmp_path / "hub"
    for (split, subject), rows in [*DATA.items(), (("test", "all"), DATA["test", "anatomy"])]:
        path = root / subject / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        columns = {
            "question": [row[0] for row in rows],
            "subject": [subject] * len(rows),
            "choices": [row[1:5] for row in rows],
            "answer": ["ABCD".index(row[5]) for row in rows],
        }
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
    (root / "auxiliary_train").mkdir()
    return root


def read(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))


def expected(split: str) -> list[list[str]]:
    rows = [["subject", "index", "question", "A", "B", "C", "D", "answer"]]
    for subject in ("anatomy", "virology"):
        rows += [[subject, str(index), *row] for index, row in enumerate(DATA[split, subject])]
    return rows


def test_csv_folder_and_archive(csv_folder, tmp_path):
    archive = Path(shutil.make_archive(str(tmp_path / "mmlu"), "gztar", csv_folder.parent))
    for source, sha256 in ((csv_folder, None), (archive, sha256_file(archive))):
        fetch_mmlu(source, None, sha256, 2, tmp_path / "out")
        assert read(tmp_path / "out" / "dev.csv") == expected("dev")
        assert read(tmp_path / "out" / "test.csv") == expected("test")
        manifest = read_json(tmp_path / "out" / "manifest.json")
        assert manifest["archive_sha256"] == sha256
        assert manifest["counts"] == {"dev": 3, "test": 3}
        assert manifest["subjects"]["anatomy"] == {"dev": 2, "test": 1}
        assert manifest["files"]["dev.csv"]["sha256"] == sha256_file(tmp_path / "out" / "dev.csv")


def test_parquet_gives_the_same_tables(csv_folder, parquet_folder, tmp_path):
    fetch_mmlu(csv_folder, None, None, 2, tmp_path / "csv")
    fetch_mmlu(parquet_folder, None, None, 2, tmp_path / "parquet")
    for name in ("dev.csv", "test.csv"):
        assert (tmp_path / "csv" / name).read_bytes() == (tmp_path / "parquet" / name).read_bytes()


def test_hub(parquet_folder, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(mmlu, "hub_snapshot", lambda *args: asked.append(args) or parquet_folder)
    fetch_mmlu("hub:cais/mmlu", "c" * 40, None, 2, tmp_path / "out")
    assert read(tmp_path / "out" / "dev.csv") == expected("dev")
    assert read_json(tmp_path / "out" / "manifest.json")["revision"] == "c" * 40
    repo, revision, kind, allow, ignore = asked[0]
    assert (repo, revision, kind) == ("cais/mmlu", "c" * 40, "dataset")
    assert (allow, ignore) == (["*/dev-*.parquet", "*/test-*.parquet"], ["all/*", "auxiliary_train/*"])


@pytest.mark.parametrize("revision", [None, "main", "c30699e"])
def test_hub_needs_a_commit(tmp_path, revision):
    with pytest.raises(UserError, match="expected the 40 hexadecimal digits of a commit"):
        fetch_mmlu("hub:cais/mmlu", revision, None, 57, tmp_path)


def test_settings_that_do_not_belong_together(csv_folder, tmp_path):
    with pytest.raises(UserError, match="Set revision to null"):
        fetch_mmlu(csv_folder, "c" * 40, None, 2, tmp_path / "out")
    with pytest.raises(UserError, match="Set sha256 to null"):
        fetch_mmlu("hub:cais/mmlu", "c" * 40, "0" * 64, 2, tmp_path / "out")


ANATOMY = "test/anatomy_test.csv"
BAD = {
    "not UTF-8": (
        b'"Two\nlines",1,2,3,4,A\nQ,caf\xe9,2,3,4,A\n',
        r"test/anatomy_test\.csv, row 2: not UTF-8 \(byte 0xe9",
    ),
    "not UTF-8 from its start": (b"Q,1,2,3,4,A\n\xe9,1,2,3,4,A\n", r"row 2: not UTF-8"),
    "empty": (b"", r"test/anatomy_test\.csv: empty, expected one question a row"),
    "five fields": (b"Q,1,2,3,4,A\nQ,1,2,3,A\n", r"row 2: found 5 fields, expected 6"),
    "blank line": (b"Q,1,2,3,4,A\n\nQ,1,2,3,4,A\n", r"row 2: found 0 fields, expected 6"),
    "wrong letter": (b"Q,1,2,3,4,E\n", r"row 1: answer is 'E', expected A to D"),
    "two letters": (b"Q,1,2,3,4,AB\n", r"row 1: answer is 'AB', expected A to D"),
    "empty choice": (b"Q,1,,3,4,A\n", r"row 1: B is '', expected a text"),
    "cut in a quoted cell": (b'Q,1,2,3,4,A\n"Q,1,2', r"row 2: not CSV \(unexpected end of data\)"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_rows_are_named_and_what_was_there_is_kept(csv_folder, tmp_path, case):
    fetch_mmlu(csv_folder, None, None, 2, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    content, message = BAD[case]
    (csv_folder / ANATOMY).write_bytes(content)
    with pytest.raises(UserError, match=message):
        fetch_mmlu(csv_folder, None, None, 2, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_number_of_subjects(csv_folder, tmp_path):
    with pytest.raises(UserError, match=r"found 2 subjects, expected 57 \(tasks\.mmlu\.subjects\)"):
        fetch_mmlu(csv_folder, None, None, 57, tmp_path / "out")


def test_subject_without_dev_file(csv_folder, tmp_path):
    (csv_folder / "dev" / "virology_dev.csv").unlink()
    with pytest.raises(UserError, match="virology has no dev file"):
        fetch_mmlu(csv_folder, None, None, 2, tmp_path / "out")


def test_folder_of_something_else(tmp_path):
    with pytest.raises(UserError, match=r"holds no test/\*_test\.csv"):
        fetch_mmlu(tmp_path, None, None, 2, tmp_path / "out")


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("answer", [4], r"anatomy/test-00000-of-00001\.parquet, row 1: answer is 4, expected 0 to 3"),
        ("choices", [["a", "b", "c"]], r"row 1: choices are \['a', 'b', 'c'\], expected 4"),
        ("question", [""], r"row 1: question is '', expected a text"),
    ],
)
def test_bad_parquet_rows(parquet_folder, tmp_path, column, value, message):
    path = parquet_folder / "anatomy" / "test-00000-of-00001.parquet"
    columns = {"question": ["Q"], "choices": [["a", "b", "c", "d"]], "answer": [0]} | {column: value}
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    with pytest.raises(UserError, match=message):
        fetch_mmlu(parquet_folder, None, None, 2, tmp_path / "out")


def test_damaged_parquet(parquet_folder, tmp_path):
    (parquet_folder / "anatomy" / "test-00000-of-00001.parquet").write_bytes(b"PAR1 cut")
    with pytest.raises(UserError, match=r"anatomy/test-00000-of-00001\.parquet: cannot be read"):
        fetch_mmlu(parquet_folder, None, None, 2, tmp_path / "out")
    pyarrow.parquet.write_table(
        pyarrow.table({"text": ["Q"]}), parquet_folder / "anatomy" / "test-00000-of-00001.parquet"
    )
    with pytest.raises(UserError, match=r"cannot be read"):
        fetch_mmlu(parquet_folder, None, None, 2, tmp_path / "out")


def test_real_release(shared_data, tmp_path):
    archive = shared_data / "mmlu" / "mmlu_data.tar.gz"
    fetch_mmlu(archive, None, sha256_file(archive), 57, tmp_path)
    manifest = read_json(tmp_path / "manifest.json")
    assert (len(manifest["subjects"]), manifest["counts"]) == (57, {"dev": 285, "test": 14042})
    assert len(read(tmp_path / "test.csv")) == 14043
