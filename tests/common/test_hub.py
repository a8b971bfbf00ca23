"""A hub on the loopback device that is busy, breaks off, gives other bytes or refuses; and what must not be logged."""

import hashlib
import os
import random
import time
from pathlib import Path

import pytest
from huggingface_hub import constants

from _loopback import COMMIT, Hub, use
from common.download import ATTEMPTS
from common.files import UserError, redacted
from common.hub import hub_snapshot

WEIGHTS = random.Random(0).randbytes(300_000)
FILES = {"config.json": b"{}", "model.safetensors": WEIGHTS}
OTHERS = bytes(len(WEIGHTS))


@pytest.fixture
def naps(monkeypatch):
    """The seconds that were waited between attempts."""
    waited = []
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


@pytest.fixture
def fetch(tmp_path, monkeypatch):
    """Get owner/model from a hub; the cache lasts for the test."""

    def get(hub: Hub, token: str | None = None) -> Path:
        with use(hub, tmp_path / "cache", monkeypatch):
            if token:
                monkeypatch.setenv("HF_TOKEN", token)
            return hub_snapshot("owner/model", COMMIT, "model", ["*"], [])

    return get


def asked(hub: Hub, name: str) -> int:
    return sum(command == "GET" and path.endswith(name) for command, path in hub.seen)


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize("name", ["", "model.safetensors"])
def test_a_busy_hub_is_waited_for(fetch, naps, status, name):
    hub = Hub(FILES, plan={name: [{"status": status}] * 3})
    assert (fetch(hub) / "model.safetensors").read_bytes() == WEIGHTS
    assert len(naps) >= 3


def test_a_hub_that_stays_busy(fetch, naps):
    with pytest.raises(UserError, match=r"the hub cannot be reached.*503"):
        fetch(Hub(FILES, (503, "")))
    assert len(naps) >= ATTEMPTS - 1


def test_a_broken_download_goes_on_where_it_stopped(fetch, naps, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 14)  # what is kept of it are whole chunks
    hub = Hub(FILES, plan={"model.safetensors": [{"cut": 200_000}, {"cut": 50_000}]})
    assert (fetch(hub) / "model.safetensors").read_bytes() == WEIGHTS
    first, second = (
        int(wanted.removeprefix("bytes=").removesuffix("-")) for kind, wanted in hub.seen if kind == "Range"
    )
    assert 0 < first < second < len(WEIGHTS)


def test_other_bytes_of_the_right_size_are_downloaded_again(fetch, capsys):
    hub = Hub(FILES, plan={"model.safetensors": [{"body": OTHERS}]})
    assert (fetch(hub) / "model.safetensors").read_bytes() == WEIGHTS
    found, wanted = (hashlib.sha256(body).hexdigest() for body in (OTHERS, WEIGHTS))
    assert f"model.safetensors has the hash {found}, expected {wanted}; downloading it again" in capsys.readouterr().out


@pytest.mark.parametrize("name", FILES)
def test_other_bytes_twice_are_refused_and_not_kept(fetch, tmp_path, name):
    body = bytes(len(FILES[name]))
    with pytest.raises(UserError, match=f"{name} has the hash .*, again after a second download. It was deleted"):
        fetch(Hub(FILES, plan={name: [{"body": body}] * 2}))
    assert not [path for path in tmp_path.rglob(name) if path.is_file()]


def test_a_cached_file_that_was_damaged_is_downloaded_again(fetch):
    kept = fetch(Hub(FILES)) / "model.safetensors"
    kept.resolve().write_bytes(OTHERS)
    hub = Hub(FILES)
    assert (fetch(hub) / "model.safetensors").read_bytes() == WEIGHTS
    assert (asked(hub, "model.safetensors"), asked(hub, "config.json")) == (1, 0)


@pytest.mark.parametrize(
    ("error", "token", "message"),
    [
        ((401, "GatedRepo"), None, r"gated\. Accept its licence at .*, then set the environment variable HF_TOKEN"),
        (
            (403, "GatedRepo"),
            "hf_abcdefgh",
            r"gated, and your token .* may not read it\. Accept its licence at .*",
        ),
        ((401, ""), "hf_abcdefgh", r"the hub refuses the token .*mistyped or has expired\. Make another"),
        ((401, "RepoNotFound"), "hf_abcdefgh", r"the hub refuses the token"),
        (
            (404, "RepoNotFound"),
            "hf_abcdefgh",
            r"or it is private.*HF_TOKEN to the token of an account",
        ),
    ],
)
def test_a_refused_token_is_not_a_missing_one(fetch, naps, error, token, message):
    with pytest.raises(UserError, match=message) as caught:
        fetch(Hub(FILES, error), token)
    assert "hf_abcdefgh" not in str(caught.value)
    assert naps == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "https://cdn.example/x?X-Amz-Credential=AKIA%2F1&X-Amz-Date=1&X-Amz-Signature=0ff1ce",
            "https://cdn.example/x?X-Amz-Credential=***&X-Amz-Date=1&X-Amz-Signature=***",
        ),
        ("Error (https://me:secret@host/data.zip): 403", "Error (https://***@host/data.zip): 403"),
        ("https://a.blob/x?sv=1&sig=abc%3D' failed", "https://a.blob/x?sv=1&sig=***' failed"),
        ("https://zenodo.org/x.zip?download=1", "https://zenodo.org/x.zip?download=1"),
        ("gdrive:1403EGqz-_x, mail a@b.c", "gdrive:1403EGqz-_x, mail a@b.c"),
        ("Bearer hf_abcdefgh", "Bearer ***"),
    ],
)
def test_what_gives_access_is_not_shown(monkeypatch, text, shown):
    monkeypatch.setitem(os.environ, "HF_TOKEN", "hf_abcdefgh")
    assert redacted(text) == shown
