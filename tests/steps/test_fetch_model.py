"""Models from a folder and from a hub on the loopback device; each way in which they can be unusable."""

import hashlib
import json
import shutil
import time
from pathlib import Path

import huggingface_hub.constants
import pytest

from _loopback import COMMIT, Hub, use
from common.files import UserError, read_json
from fetch_model import fetch_model

FILES = {
    "config.json": b'{"model_type": "llama"}',
    "generation_config.json": b"{}",
    "model.safetensors": b"weights",
    "tokenizer.json": b"{}",
    "tokenizer_config.json": b'{"chat_template": "{{ messages }}"}',
}
OTHER = {
    "README.md": b"# hello",
    "pytorch_model.bin": b"pickle",
    "original/consolidated.00.pth": b"pickle",
    "original/params.json": b"{}",
    "consolidated.safetensors": b"weights again",
}


@pytest.fixture
def folder(tmp_path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    for name, data in FILES.items():
        (path / name).write_bytes(data)
    return path


def test_local_folder(folder, tmp_path):
    (folder / "README.md").write_text("hello")
    fetch_model("demo", str(folder), None, tmp_path / "record.json")
    record = read_json(tmp_path / "record.json")
    assert (record["name"], record["source"], record["path"]) == ("demo", str(folder), str(folder))
    assert (record["revision"], record["commit"]) == (None, None)
    assert set(record["files"]) == set(FILES)
    digest = hashlib.sha256(b"weights").hexdigest()
    assert record["files"]["model.safetensors"] == {"bytes": 7, "sha256": digest}

    (folder / "model.safetensors").write_bytes(b"Weights")
    fetch_model("demo", str(folder), None, tmp_path / "other.json")
    assert read_json(tmp_path / "other.json")["sha256"] != record["sha256"]


def test_chat_template_in_its_own_file(folder, tmp_path):
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    fetch_model("demo", str(folder), None, tmp_path / "record.json")
    assert "chat_template.jinja" in read_json(tmp_path / "record.json")["files"]


def remove(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def forget_shard(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    weights = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))


BAD = {
    "no chat template": (
        lambda folder: (folder / "tokenizer_config.json").write_text('{"chat_template": null}'),
        "the tokenizer has no chat template",
    ),
    "no tokenizer": (remove("tokenizer.json"), "no tokenizer"),
    "no tokenizer settings": (remove("tokenizer_config.json"), "no tokenizer"),
    "no weights": (remove("model.safetensors"), r"no weights \(\*\.safetensors\)"),
    "a missing shard": (forget_shard, r"weights model-00002-of-00002\.safetensors missing \(1 in all\)"),
    "no configuration": (remove("config.json"), r"no config\.json"),
    "a configuration that is no object": (
        lambda folder: (folder / "config.json").write_text("[]"),
        r"config\.json: found no JSON object",
    ),
    "tokenizer settings that are no object": (
        lambda folder: (folder / "tokenizer_config.json").write_text("[]"),
        r"tokenizer_config\.json: found no JSON object",
    ),
    "an index without weights": (
        lambda folder: (folder / "model.safetensors.index.json").write_text('{"weight_map": ["a"]}'),
        r"model\.safetensors\.index\.json names no weights\. Get the model again",
    ),
    "damaged configuration": (lambda folder: (folder / "config.json").write_text("{"), r"config\.json: not valid JSON"),
}


@pytest.mark.parametrize("case", BAD)
def test_unusable_folder(folder, tmp_path, case):
    spoil, message = BAD[case]
    spoil(folder)
    with pytest.raises(UserError, match=message):
        fetch_model("demo", str(folder), None, tmp_path / "record.json")
    assert not (tmp_path / "record.json").exists()


def test_source_that_is_neither_folder_nor_repository(tmp_path):
    for source in ("resources/demo/nowhere", "./model", "gpt2", str(tmp_path / "nowhere")):
        with pytest.raises(UserError, match="neither an existing folder nor a hub repository"):
            fetch_model("demo", source, None, tmp_path / "record.json")


def test_folder_has_no_revision(folder, tmp_path):
    with pytest.raises(UserError, match="a local folder, which has no revision"):
        fetch_model("demo", str(folder), COMMIT, tmp_path / "record.json")


@pytest.mark.parametrize("revision", [None, "main", COMMIT[:12], COMMIT.upper()])
def test_revision_must_be_a_commit(tmp_path, revision):
    with pytest.raises(UserError, match=r"A branch name moves with time: pin a commit of .*owner/model/commits/main"):
        fetch_model("demo", "owner/model", revision, tmp_path / "record.json")


# The hub


@pytest.fixture
def on_hub(tmp_path, monkeypatch):
    """Fetch owner/model from a hub; return the record. The cache lasts for the test."""

    def fetch(hub, revision=COMMIT):
        with use(hub, tmp_path / "cache", monkeypatch):
            fetch_model("demo", "owner/model", revision, tmp_path / "record.json")
        return read_json(tmp_path / "record.json")

    return fetch


def test_hub_repository(on_hub):
    hub = Hub(FILES | OTHER)
    record = on_hub(hub)
    assert (record["revision"], record["commit"]) == (COMMIT, COMMIT)
    assert set(record["files"]) == set(FILES)
    assert (Path(record["path"]) / "model.safetensors").read_bytes() == b"weights"
    assert not any(name in path for _, path in hub.seen for name in OTHER), "what is not wanted is not downloaded"
    # The same files from a folder are the same model.
    copy = Path(record["path"]).parent / "copy"
    shutil.copytree(record["path"], copy)
    fetch_model("demo", str(copy), None, copy / "record")
    assert read_json(copy / "record")["sha256"] == record["sha256"]


def test_hub_repository_without_chat_template(on_hub):
    hub = Hub(FILES | OTHER | {"tokenizer_config.json": b"{}"})
    with pytest.raises(UserError, match="the tokenizer has no chat template"):
        on_hub(hub)


@pytest.mark.parametrize(
    ("hub", "message"),
    [
        (
            Hub(FILES, (401, "GatedRepo")),
            r"gated. Accept its licence at https://huggingface.co/owner/model, .* HF_TOKEN",
        ),
        (Hub(FILES, (403, "GatedRepo"), only_files=True), r"gated. Accept its licence at .*HF_TOKEN"),
        (Hub(FILES, (401, "RepoNotFound")), r"no such model on the hub, or it is private.*HF_TOKEN"),
        (Hub(FILES, (404, "RepoNotFound")), r"no such model on the hub, or it is private"),
        (Hub(FILES, (404, "RevisionNotFound")), rf"has no commit {COMMIT}"),
        (Hub(FILES, (500, "")), r"the hub cannot be reached"),
    ],
)
def test_hub_refuses(on_hub, hub, message, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(UserError, match=message):
        on_hub(hub)


def test_offline(on_hub, monkeypatch, tmp_path):
    on_hub(Hub(FILES))
    (tmp_path / "record.json").unlink()
    # The server is gone now; the cache has this commit, and no other.
    fetch_model("demo", "owner/model", COMMIT, tmp_path / "record.json")
    waited = []
    monkeypatch.setattr(time, "sleep", waited.append)
    with pytest.raises(UserError, match=r"the hub cannot be reached, and this revision is not in the local cache"):
        fetch_model("demo", "owner/model", "f" * 40, tmp_path / "other.json")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"the hub cannot be reached"):
        fetch_model("demo", "owner/model", "f" * 40, tmp_path / "other.json")
    assert waited == []
