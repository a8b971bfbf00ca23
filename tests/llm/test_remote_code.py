"""A model that comes with code of its own: the code never runs, not even if somebody says yes to everything."""

import io
import json
from pathlib import Path

import pytest

from common.files import UserError
from llm.adapters import skeleton
from llm.chat import load_chat
from llm.load import load_model
from tiny_model import make_model

CODE = """
from pathlib import Path
Path({marker!r}).touch()
from transformers import LlamaConfig, LlamaForCausalLM
class OwnConfig(LlamaConfig):
    model_type = "own"
class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "the-code-ran"


@pytest.fixture
def record(tmp_path, marker) -> dict:
    found = json.loads(make_model(tmp_path / "model").read_text())
    folder = Path(found["path"])
    config = json.loads((folder / "config.json").read_text())
    classes = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "own", "auto_map": classes}))
    (folder / "own.py").write_text(CODE.format(marker=str(marker)))
    return found


@pytest.mark.parametrize("load", [load_chat, lambda record: load_model(record, "fp32"), skeleton])
def test_the_code_of_a_model_never_runs(record, marker, load, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 100))
    with pytest.raises((UserError, ValueError), match=r"trust_remote_code|custom code"):
        load(record)
    assert not marker.exists()
