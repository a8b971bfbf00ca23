"""Small steps by CUDA graphs: what is learnt is what is learnt without them."""

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from common.files import read_json
from llm import fused, step_graphs
from llm import training as module
from llm.labels import IGNORED
from llm.packing import NAME, pack
from llm.step_graphs import OFTEN, ROUND, StepGraphs, fill
from tests.llm.test_training import TRAINING, arguments, train
from tiny_model import audited_study

SHAPES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
}
START = [7, 8, 9, 10]
ROWS = [
    ([*START, *range(11, 11 + count)], [IGNORED] * (len(START) + 2) + [*range(13, 11 + count)]) for count in (5, 9, 30)
]


@pytest.fixture
def model():
    torch.manual_seed(0)
    made = MistralForCausalLM(MistralConfig(**SHAPES, sliding_window=None))
    made.set_attn_implementation(NAME)
    return made


def learn(model, batch) -> list[torch.Tensor]:
    """The losses at the labels of a micro-batch, and the gradients of their sum."""
    batch, labels = dict(batch), batch["labels"][0]
    del batch["labels"]
    kept = (labels != IGNORED).nonzero()[:, 0]
    logits = model(**batch, use_cache=False).logits[0, kept - 1]
    losses = torch.nn.functional.cross_entropy(logits, labels[kept], reduction="none")
    model.zero_grad()
    losses.sum().backward()
    return [losses.detach(), *(weight.grad.clone() for weight in model.parameters())]


def alike(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("start", [[], START])
def test_a_micro_batch_that_is_filled_up_teaches_the_same(model, start):
    plain, filled = pack(ROWS, start=start), fill(ROWS, "cpu", start)
    assert filled["input_ids"].shape[1] == ROUND > plain["input_ids"].shape[1]
    alike(learn(model, filled), learn(model, plain))
    # Rows of as many tokens in another order have the same shapes.
    shapes = [
        {name: x.shape for name, x in fill(rows, "cpu", start).items() if torch.is_tensor(x)}
        for rows in (ROWS, ROWS[::-1])
    ]
    assert shapes[0] == shapes[1]


def test_a_full_micro_batch_gets_a_row_more_too():
    rows = [([1] * ROUND, [IGNORED, *[1] * (ROUND - 1)])]
    assert fill(rows, "cpu", [])["cu_seq_lens_q"].tolist() == [0, ROUND, 2 * ROUND]


def graphed(monkeypatch, make) -> None:
    """Let `make` stand for what makes a CUDA graph of a function."""
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", lambda compute, inputs, **_: make(compute))


def steps(model, graphs, count) -> list[list[torch.Tensor]]:
    found = []
    for _ in range(count):
        with graphs.filled(ROWS, torch.device("cpu"), START, 1024) as batch:
            found.append(learn(model, batch))
    return found


def test_a_shape_that_comes_often_gets_a_graph(model, monkeypatch):
    made, used = [], []

    def make(compute):
        made.append(compute)
        return lambda *inputs: used.append(1) or compute(*inputs)

    graphed(monkeypatch, make)
    plain = learn(model, pack(ROWS, start=START))
    graphs = StepGraphs(model)
    found = steps(model, graphs, OFTEN - 1)
    assert (graphs.tokens, made) == ([], [])
    found += steps(model, graphs, 2)
    assert (graphs.tokens, len(made), graphs.reason) == ([ROUND], 1, "")
    assert len(used) == 1 + 2  # tried once
    for one in found:
        alike(one, plain)
    learn(model, fill(ROWS, "cpu", START))  # outside of `filled`
    assert len(used) == 3
    # What a graph keeps leaves too little memory for another micro-batch.
    with graphs.filled(ROWS, torch.device("cpu"), START, 2 * ROUND - 1) as batch:
        assert batch["input_ids"].shape[1] < ROUND


def fails(_compute):
    raise RuntimeError("operation not permitted when stream is capturing")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (fails, "it fails with RuntimeError: operation not permitted"),
        (lambda compute: lambda *inputs: 2 * compute(*inputs), "a graph computes otherwise"),
    ],
)
def test_where_a_graph_computes_otherwise_steps_are_computed_without(model, monkeypatch, capsys, make, reason):
    graphed(monkeypatch, make)
    plain = learn(model, pack(ROWS, start=START))
    graphs = StepGraphs(model)
    for one in steps(model, graphs, OFTEN + 1):
        alike(one, plain)
    assert reason in graphs.reason
    assert capsys.readouterr().out.count("computed without CUDA graphs from now on") == 1
    assert graphs.decoder.forward.__func__ is type(graphs.decoder).forward


def test_layers_that_are_given_embeddings_are_computed_without(model, capsys):
    graphs, ids = StepGraphs(model), torch.tensor([[7, 8, 9]])
    with graphs.filled(ROWS, torch.device("cpu"), START, 1024):
        found = model.get_decoder()(inputs_embeds=model.get_input_embeddings()(ids), **whole(3)).last_hidden_state
    assert graphs.reason == "its layers are given embeddings, and no ids"
    assert "computed without CUDA graphs" in capsys.readouterr().out
    torch.testing.assert_close(found, model.get_decoder()(input_ids=ids, **whole(3)).last_hidden_state)


def whole(tokens: int) -> dict:
    """What a single row of so many tokens is packed as, but for its ids."""
    packed = pack([([1] * tokens, [IGNORED] * tokens)])
    return {name: x for name, x in packed.items() if name not in ("input_ids", "labels")}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    audited_study(folder)
    return folder


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
FOURTEEN = TRAINING | {"max_steps": 14, "logging_steps": 1, "learning_rate": 0.002}


def losses(study, name) -> list[float]:
    return [entry["loss"] for entry in read_json(study / name / "train.json")["history"]]


@needs_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("precision", ["bf16", "fp16", "nf4"])
def test_a_training_by_graphs_is_that_without(study, monkeypatch, precision, dropout):
    lora = {"r": 4, "lora_alpha": 8, "lora_dropout": dropout, "target_modules": ["q_proj", "v_proj", "down_proj"]}
    given = {"precision": precision, "lora": lora, "training": FOURTEEN}
    ours, theirs = f"{precision}-{dropout}", f"{precision}-{dropout}-plain"
    with_graphs = train(**arguments(study, ours, **given))["step_graphs"]
    assert with_graphs["tokens"]
    assert with_graphs["reason"] == ""
    monkeypatch.setattr(module, "takes_graphs", lambda *_: False)
    assert train(**arguments(study, theirs, **given))["step_graphs"] is None
    # Filled-up micro-batches draw another dropout.
    assert losses(study, ours) == pytest.approx(losses(study, theirs), rel=0.1 if dropout else 0.01)


@needs_gpu
@pytest.mark.gpu
def test_when_graphs_are_made_changes_no_loss(study, monkeypatch):
    """So that a training that goes on, in which graphs are made later, ends where it would have."""
    lora = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.1, "target_modules": ["q_proj", "v_proj", "down_proj"]}
    given = {"precision": "bf16", "lora": lora, "training": FOURTEEN}
    for name, often in (("soon", 2), ("late", 5), ("never", 1000)):
        monkeypatch.setattr(step_graphs, "OFTEN", often)
        report = train(**arguments(study, name, **given))
        assert bool(report["step_graphs"]["tokens"]) == (often < 10)
    found = [losses(study, name) for name in ("soon", "late", "never")]
    assert found[0] == pytest.approx(found[2], rel=1e-3)
    assert found[1] == pytest.approx(found[2], rel=1e-3)


@needs_gpu
@pytest.mark.gpu
def test_layers_that_ask_the_gpu_are_computed_without_a_graph(study, monkeypatch):
    plain = fused.weight

    def asks(base, dtype):
        found = plain(base, dtype)
        assert found.isfinite().all().item()
        return found

    monkeypatch.setattr(fused, "weight", asks)
    report = train(**arguments(study, "asks", precision="bf16", training=FOURTEEN))
    assert report["step_graphs"]["tokens"] == []
    assert "it fails with" in report["step_graphs"]["reason"]
    assert report["history"][-1]["loss"] < report["history"][0]["loss"]
