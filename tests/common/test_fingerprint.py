"""What lies in a local source: an edit is seen, a touch is not, and nothing is hashed twice."""

import json
import os

import pytest

from common import files
from common.files import UserError, check_files, described, fingerprint, write_json


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    (folder / "inner").mkdir(parents=True)
    (folder / "a.txt").write_text("a", encoding="utf-8")
    (folder / "inner/b.txt").write_text("b", encoding="utf-8")
    return folder


@pytest.fixture
def known(tmp_path):
    return tmp_path / "results/fingerprints.json"


def test_a_touch_changes_nothing_and_an_edit_is_seen(source, known):
    before = fingerprint(str(source), known)
    os.utime(source / "a.txt", (1, 1))
    assert fingerprint(str(source), known) == before
    (source / "inner/b.txt").write_text("c", encoding="utf-8")
    edited = fingerprint(str(source), known)
    assert edited != before
    (source / "inner/b.txt").write_text("b", encoding="utf-8")
    assert fingerprint(str(source), known) == before
    assert edited != before


def test_names_count_and_where_the_folder_lies_does_not(source, known, tmp_path):
    before = fingerprint(str(source), known)
    moved = source.rename(tmp_path / "moved")
    assert fingerprint(str(moved), known) == before
    (moved / "a.txt").rename(moved / "z.txt")
    assert fingerprint(str(moved), known) != before
    (moved / "z.txt").unlink()
    (moved / "empty").mkdir()
    assert fingerprint(str(moved), known) not in (before, None)


def test_a_file_alone(source, known):
    before = fingerprint(str(source / "a.txt"), known)
    (source / "a.txt").write_text("x", encoding="utf-8")
    assert fingerprint(str(source / "a.txt"), known) not in (before, None)


@pytest.mark.parametrize("elsewhere", ["hub:cais/mmlu", "https://example.org/x.zip", "gdrive:1", "owner/name", "none"])
def test_a_source_elsewhere_has_none(elsewhere, known):
    assert fingerprint(elsewhere, known) is None
    assert not known.exists()


def test_nothing_is_hashed_twice(source, known, monkeypatch):
    before = fingerprint(str(source), known)
    assert len(json.loads(known.read_text())) == 2
    hashed = []
    monkeypatch.setattr(files, "sha256_file", lambda path: hashed.append(path.name) or "0" * 64)
    assert fingerprint(str(source), known) == before
    assert hashed == []
    (source / "a.txt").write_text("longer", encoding="utf-8")
    assert fingerprint(str(source), known) != before
    assert hashed == ["a.txt"]


def test_a_model_must_have_the_files_of_its_record(source, known, tmp_path):
    record = tmp_path / "record.json"
    write_json(record, {"path": str(source), "files": described(source, ["a.txt", "inner/b.txt"])})
    check_files(record, known)
    os.utime(source / "a.txt", (1, 1))
    check_files(record, known)
    # As many bytes, and the old time: a copy that keeps times.
    before = (source / "a.txt").stat()
    (source / "a.txt").write_text("b", encoding="utf-8")
    os.utime(source / "a.txt", ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(
        UserError, match=r"a\.txt: changed since the model was fetched: expected sha256 .*found .*-R fetch_model"
    ):
        check_files(record, known)
    (source / "a.txt").write_text("a", encoding="utf-8")
    check_files(record, known)
    (source / "inner/b.txt").unlink()
    with pytest.raises(UserError, match=r"b\.txt: changed .*found no file"):
        check_files(record, known)
