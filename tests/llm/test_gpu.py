"""What only a GPU can show: the precisions, a kill, and an out-of-memory that is real."""

import pytest
import torch

from common.files import read_json, write_jsonl
from fetch_model import fetch_model
from llm import training as module
from llm.chat import Turn, load_chat
from tests.llm.test_answering import LETTERS, SAMPLED, make_study, run
from tests.llm.test_training import EVALUATED, TRAINING, arguments, killed, make_evaluated, train
from tiny_model import audit, render

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = make_study(tmp_path_factory.mktemp("gpu"), "llama3")
    render(folder, folder / "model.json", "train")
    audit(folder, folder / "model.json")
    return folder


@pytest.mark.parametrize(
    ("precision", "adapter_dtype"),
    [
        ("fp32", "float32"),
        ("bf16", "float32"),
        ("fp16", "float32"),
        ("nf4", "bfloat16"),
        ("int8", "bfloat16"),
    ],
)
def test_each_precision_trains_and_answers(study, precision, adapter_dtype, tmp_path):
    train(**arguments(study, precision, precision=precision, training={**TRAINING, "max_steps": 6}))
    report = read_json(study / precision / "train.json")
    assert report["device"] == torch.cuda.get_device_name(0)
    assert report["peak_memory_mib"] > 0
    assert report["adapter_dtype"] == adapter_dtype
    assert report["history"][-1]["loss"] < report["history"][0]["loss"]
    for options in ((), LETTERS):
        rows = run(study, tmp_path / str(len(options)), options, adapter=True, precision=precision)
        assert len(rows) == 10


@pytest.mark.parametrize(("precision", "close"), [("fp32", 1e-5), ("bf16", 0.01), ("nf4", 0.01)])
def test_packed_rows_have_the_loss_of_padded_ones(study, precision, close, monkeypatch):
    lora = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": ["q_proj", "v_proj", "down_proj"]}
    given = {"precision": precision, "lora": lora, "training": TRAINING | {"logging_steps": 1}}
    train(**arguments(study, f"{precision}-packed", **given))
    monkeypatch.setattr(module, "keep_apart", lambda *_: ("a test says so", {}))
    train(**arguments(study, f"{precision}-padded", **given))
    packed, padded = (read_json(study / f"{precision}-{how}/train.json") for how in ("packed", "padded"))
    assert (packed["padded"], padded["padded"]) == ("", "a test says so")
    assert packed["tokens_per_pass"] >= 1024
    assert packed["shared_tokens"] > 100  # computed once in each micro-batch
    losses = [[entry["loss"] for entry in report["history"]] for report in (packed, padded)]
    assert losses[0] == pytest.approx(losses[1], rel=close)
    assert losses[0][-1] < losses[0][0]


def test_a_killed_training_goes_on(study):
    training = TRAINING | {"logging_steps": 1}
    train(**arguments(study, "whole-gpu", "bf16", training=training))
    killed(study, "killed-gpu", "between", 5, training, precision="bf16")
    train(**arguments(study, "killed-gpu", "bf16", training=training))
    ours, whole = (read_json(study / f"{name}/train.json") for name in ("killed-gpu", "whole-gpu"))
    assert ours["resumed_from_step"] == 4
    # The kernels add up in no fixed order.
    for key in ("step", "loss"):
        assert [e[key] for e in ours["history"]] == pytest.approx([e[key] for e in whole["history"]], rel=0.01)


def test_batch_size_changes_no_answer_on_a_gpu(study, tmp_path):
    assert run(study, tmp_path / "1", batch_size=1) == run(study, tmp_path / "8", batch_size=8)


@pytest.mark.parametrize("precision", ["bf16", "nf4"])
@pytest.mark.parametrize("optim", ["adamw_8bit", "paged_adamw_32bit"])
def test_optimizers_of_bitsandbytes(tmp_path, optim, precision):
    training = EVALUATED | {"optim": optim, "learning_rate": 0.01}
    given = arguments(make_evaluated(tmp_path), "run", precision, training=training)
    train(**given)
    report = read_json(given["report"])
    assert report["history"][-1]["loss"] < report["history"][0]["loss"]
    assert report["best_step"] in [entry["step"] for entry in report["eval_history"]]


def test_sampled_answers_on_a_gpu(study, tmp_path):
    one = run(study, tmp_path / "1", batch_size=1, **SAMPLED)
    assert one == run(study, tmp_path / "8", batch_size=8, **SAMPLED)
    assert one != run(study, tmp_path / "greedy", batch_size=8)


def test_a_batch_too_large_for_the_gpu_is_halved(repo, tmp_path):
    # The demo's model on prompts of 2,000 tokens: 64 of them take 1.6 GB of keys and values, one takes 25 MB.
    fetch_model("demo", str(repo / "resources/demo/model"), None, tmp_path / "model.json")
    chat = load_chat(read_json(tmp_path / "model.json"))
    write_jsonl(
        tmp_path / "prompts/test.jsonl",
        [{"id": f"dev-{i:05d}", "prompt": chat.prompt([Turn("user", f"{i}" + " singer" * 2000)])} for i in range(64)],
    )
    torch.cuda.empty_cache()
    limit = torch.cuda.memory_reserved() + 800 * 2**20
    torch.cuda.set_per_process_memory_fraction(limit / torch.cuda.get_device_properties(0).total_memory)
    try:
        rows = run(tmp_path, tmp_path / "tight", batch_size=64)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
    assert len(rows) == 64
    assert 1 <= read_json(tmp_path / "tight/report.json")["batch_size_used"] < 64
