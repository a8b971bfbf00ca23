"""What verify.py calls different: cells, rows, and numbers beyond what machines differ in."""

import json
import zipfile
from pathlib import Path

import pytest

from common.files import UserError
from verify import Findings, agree, check_hashes, differences, main, read, report


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("12.5", "12.50", True),
        ("33.44083687", "33.44083688", True),
        ("33.44", "33.45", False),
        ("0", "1e-12", True),
        ("1", "0", False),
        ("", "0", False),
        ("lost", "gained", False),
        ("nan", "nan", True),
        (None, "", False),
    ],
)
def test_only_the_last_digits_may_differ(one, other, equal):
    assert agree(one, other) is equal


def rows(path: Path, text: str) -> list:
    path.write_text(text, encoding="utf-8", newline="")
    return read(path)


def test_a_cell_of_a_record_is_named_by_its_question_and_column(tmp_path):
    stored = rows(tmp_path / "a.csv", "id,bag,answer\nq1,1,SELECT 1\nq2,1,SELECT 2\n")
    made = rows(tmp_path / "b.csv", "id,bag,answer\nq2,0,SELECT 2\nq1,1,SELECT 1\n")
    assert list(differences(stored, made)) == ["q2, bag: '1' in the bundle, '0' made anew"]


def test_a_record_that_is_gone_or_new_is_named(tmp_path):
    stored, made = rows(tmp_path / "a.csv", "id,bag\nq1,1\n"), rows(tmp_path / "b.csv", "id,bag\nq2,1\n")
    assert list(differences(stored, made)) == ["q1: is in the bundle, and not made anew", "q2: is not in the bundle"]


def test_a_row_that_is_gone_from_a_table_is_named_and_the_others_are_not(tmp_path):
    head = "model,n\n"
    stored = rows(tmp_path / "a.csv", head + "m,1\nm,3\n")
    made = rows(tmp_path / "b.csv", head + "m,1\nm,2\nm,3\n")
    assert list(differences(stored, made)) == ["line 3 (m) of the table made anew: is not in the bundle"]


def test_a_cell_of_a_page_is_named_by_its_line_and_heading(tmp_path):
    page = "# T\n\n| Run | n |\n|:--|--:|\n| base | {} |\n\nn = {} questions\n"
    stored, made = rows(tmp_path / "a.md", page.format(3, 3)), rows(tmp_path / "b.md", page.format(4, 3))
    assert list(differences(stored, made)) == ["line 5, n: '3' in the bundle, '4' made anew"]


def test_a_value_of_json_is_named_by_its_place(tmp_path):
    stored, made = rows(tmp_path / "a.json", '{"a": {"b": [1, 2]}}'), rows(tmp_path / "b.json", '{"a": {"b": [1, 3]}}')
    assert list(differences(stored, made)) == ["a.b.1: '2' in the bundle, '3' made anew"]


def test_files_that_came_or_went_are_named(tmp_path):
    (tmp_path / "more.csv").write_text("x")
    listed = [{"@id": "gone.csv", "@type": "File", "sha256": ""}, {"@id": "./", "@type": "Dataset"}]
    (tmp_path / "ro-crate-metadata.json").write_text(json.dumps({"@graph": listed}))
    check_hashes(tmp_path, found := Findings())
    assert set(found.different) == {"gone.csv", "more.csv"}
    assert list(report(found))[-1] == "2 differences in 2 files."


def test_what_is_no_bundle_is_refused(tmp_path, capsys):
    assert main([str(tmp_path / "none.zip")]) == 1
    assert "no such file" in capsys.readouterr().err
    (tmp_path / "text.zip").write_text("text")
    assert main([str(tmp_path / "text.zip")]) == 1
    assert "not a whole zip or tar archive" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a.csv", "a.md", "a.json"])
@pytest.mark.parametrize("content", [b"id,n\n1,2,3\n4\n", b"\xff\x00", b"[1, null]", b"null", b'"x"', b""])
def test_whatever_a_forger_wrote_into_a_file_is_another_value_or_refused(tmp_path, name, content):
    made, forged = tmp_path / name, tmp_path / f"forged-{name}"
    made.write_text("{}" if name.endswith("json") else "| id |\n\nq1,1\n", encoding="utf-8")
    forged.write_bytes(content)
    try:
        assert list(differences(read(forged), read(made))) + list(differences(read(made), read(forged)))
    except UserError as error:
        assert f"forged-{name}: not valid JSON" in str(error)


@pytest.mark.parametrize(
    ("crate", "message"),
    [
        (b"null", "found no JSON object"),
        (b"{}", "lacks @graph. Get the archive again"),
        (b'{"@graph": [1]}', "lists no files: it is not one of scripts/bundle.py"),
        (b'{"@graph": [{"@id": ["a"], "@type": "File"}]}', "lists no files"),
        (b"{", "not valid JSON"),
    ],
)
def test_metadata_that_list_no_files_are_refused_by_the_name_of_the_archive(tmp_path, repo, capsys, crate, message):
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.write(repo / "config.yaml", "config.yaml")
        packed.writestr("ro-crate-metadata.json", crate)
    assert main([str(archive), "--offline"]) == 1
    assert f"ERROR: {archive}, ro-crate-metadata.json: {message}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--data", "none"), "--data none: no such folder. Give the folder data/ of a study's results."),
        (("--cores", "0"), "--cores: found 0, expected 1 or more."),
    ],
)
def test_options_that_cannot_be_are_refused(repo, capsys, option, message):
    assert main([str(repo / "config.yaml"), *option]) == 1
    assert capsys.readouterr().err == f"ERROR: {message}\n"
