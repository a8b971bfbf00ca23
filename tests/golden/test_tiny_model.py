"""What the tiny models learn and answer: if this changes, results change, and whoever changed it must say so.

Sums are rounded otherwise on other CPUs, so values are compared, not bits. tiny_model.json was written by

    python -m pytest tests/golden/test_tiny_model.py, with REWRITE set in the environment
"""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from common.files import read_json, read_jsonl
from tests.llm.test_answering import LETTERS, SAMPLED, make_study, run
from tests.llm.test_training import EVALUATED, LORA, TRAINING, arguments, make_evaluated, train
from tests.tasks.test_replay import KL, given
from tests.tasks.test_replay import study as replay_study  # noqa: F401 - a fixture

pytestmark = pytest.mark.usefixtures("two_threads")

GOLDEN = Path(__file__).with_name("tiny_model.json")
# With dropout, rows whose prefix is computed once share its draws; tests/llm/test_shared.py holds the two together.
WHOLE = {"share_prefix": False}
NEAR = 1e-5


def check(name: str, found: dict) -> None:
    """Compare what was found with what was kept under this name."""
    golden = read_json(GOLDEN) if GOLDEN.exists() else {}
    if "REWRITE" in os.environ:
        GOLDEN.write_text(json.dumps(golden | {name: found}, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        return
    kept = golden[name]
    assert found.keys() == kept.keys()
    for key, value in kept.items():
        assert found[key] == (value if isinstance(value, str) else pytest.approx(value, rel=NEAR, abs=1e-6)), key


def learnt(folder: Path) -> dict:
    """Losses, and the norm of each weight of the adapter."""
    report = read_json(folder / "train.json")
    weights = load_file(folder / "adapter/adapter_model.safetensors")
    entries = [(entry, "loss") for entry in report["history"]] + [(e, "eval_loss") for e in report["eval_history"]]
    found = {f"{key} {entry['step']}": entry[key] for entry, key in entries}
    found |= {f"kl {entry['step']}": entry["replay_kl"] for entry in report["history"] if "replay_kl" in entry}
    return found | {name: torch.linalg.vector_norm(weight).item() for name, weight in weights.items()}


def answered(rows: list[dict]) -> dict:
    """Each answer's text, and the log probability of each letter."""
    found = {row["id"]: row.get("answer", row.get("generated")) for row in rows}
    return found | {f"{row['id']} {k}": p for row in rows for k, p in row.get("logprobs", {}).items()}


def test_plain_training(replay_study):  # noqa: F811
    train(**arguments(replay_study, "golden", training=TRAINING | WHOLE))
    check("plain", learnt(replay_study / "golden"))


def test_training_with_replay(replay_study):  # noqa: F811
    options = {"training": TRAINING | WHOLE | {"logging_steps": 1, "max_steps": 5}, "lora": LORA}
    train(**given(replay_study, "golden-replay", replay=KL, **options))
    check("replay", learnt(replay_study / "golden-replay"))


def test_training_with_evaluation(tmp_path):
    train(**arguments(make_evaluated(tmp_path), "golden", training=EVALUATED | WHOLE))
    check("evaluated", learnt(tmp_path / "golden"))


@pytest.mark.parametrize("kind", ["llama3", "mistral"])
@pytest.mark.parametrize(
    ("name", "options", "settings"),
    [
        ("greedy", (), {}),
        ("letters", LETTERS, {}),
        ("sampled", (), {"adapter": True, **SAMPLED}),
    ],
)
def test_answers(tmp_path, kind, name, options, settings):
    rows = run(make_study(tmp_path / "study", kind), tmp_path, options, **settings)
    assert rows == read_jsonl(tmp_path / "answers.jsonl")
    check(f"{kind} {name}", answered(rows))
