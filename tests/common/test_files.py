"""JSON that cannot be read gets a sentence that is true of a user's own file too; what can be written is read again."""

import pytest

from common.files import UserError, json_lines, read_json, read_jsonl, write_jsonl

DEEP = b"[" * 100_000
LONG = b'{"n": ' + b"9" * 5000 + b"}"


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", DEEP, LONG], ids=["empty", "cut", "not UTF-8", "deep", "long"])
def test_what_is_no_json_is_not_to_be_deleted_unless_a_run_made_it(tmp_path, content):
    path = tmp_path / "dev.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"dev\.json: not valid JSON \(.*Mend it, or get it again; one that a run made"):
        read_json(path)
    path.write_bytes(b"{}\n" + (content or b"{"))
    with pytest.raises(UserError, match=r"dev\.json, line 2: not "):
        read_jsonl(path)


def test_a_folder_in_place_of_a_file(tmp_path):
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\). Expected a JSON file."):
        read_json(tmp_path)


def test_a_byte_order_mark_is_not_part_of_a_file(tmp_path):
    path = tmp_path / "dev.json"
    path.write_text('{"a": "é"}\n', encoding="utf-8-sig")
    assert read_json(path) == {"a": "é"}
    assert list(json_lines(path)) == [(1, {"a": "é"})]


def test_a_lone_surrogate_is_written_as_json_has_it(tmp_path):
    rows = [{"answer": "é \ud83d \\ud83d"}]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    assert (tmp_path / "rows.jsonl").read_bytes() == '{"answer": "é \\ud83d \\\\ud83d"}\n'.encode()
    assert read_jsonl(tmp_path / "rows.jsonl") == rows
