"""The benchmark's comparison of answers: what it counts as different, and what as tied within rounding."""

import random

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.inference import adapt, compare, plain, reference, ulp, until
from llm.prefix_engine import SharedPrefix

STOP = [13, 14]
NEW = 24
PREFIX = [7, 3, 9, 9, 1, 22, 31]


@pytest.fixture(scope="module", autouse=True)
def threads():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(dtype: torch.dtype, initializer_range: float = 0.2) -> LlamaForCausalLM:
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=60,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=initializer_range,
    )
    return LlamaForCausalLM(config).eval().to(dtype)


def prompts(count: int) -> list[list[int]]:
    rng = random.Random(0)
    rests = [[rng.randrange(60) for _ in range(rng.randrange(2, 30))] for _ in range(count)]
    return [PREFIX + rest for rest in sorted(rests, key=len, reverse=True)]


def answers(model, given: list[list[int]]) -> list[list[int]]:
    engine = SharedPrefix(model, PREFIX, STOP, len(given), len(given[0]) - len(PREFIX) + NEW)
    _, ids = engine.generate(given, NEW)
    engine.close()
    return ids


@pytest.mark.parametrize("value", [1.0, 1.99, 2.0, -3.7, 0.3, 20.6, 1e-4])
def test_ulp_is_the_distance_to_the_next_bf16_number(value):
    low = torch.tensor(abs(value), dtype=torch.float32).view(torch.int32) & ~0xFFFF  # bf16 is the upper half of fp32
    step = (low + 0x10000).view(torch.float32) - low.view(torch.float32)
    assert ulp(value) == step.item()


def test_what_counts_as_tied():
    logits = torch.full((3, 5), -9.0)
    logits[:, 0] = 16.0  # one ulp is 0.125
    logits[1, 1:4] = torch.tensor([15.875, 15.75, 15.5])
    wanted = [([0, 0, 0], logits)] * 5
    found = compare(wanted, [[0, 0, 0], [0, 1, 4], [0, 2, 0], [0, 3, 0], [0, 4, 0]], [])
    assert found == {"rows": 5, "differing": 4, "tied": 2, "gaps_ulp": [1.0, 2.0, 4.0, 200.0]}


def test_what_follows_a_stop_token_is_ignored():
    logits = torch.zeros(2, 20)
    assert until([5, 13, 6, 14], STOP) == [5, 13]
    assert compare([([5, 13], logits)], [[5, 13, 9, 9]], STOP)["differing"] == 0
    # An answer that stops where the other goes on differs there.
    logits[1, 6] = 1.0
    assert compare([([5, 6, 7], logits)], [[5, 13, 0]], STOP)["gaps_ulp"] == [1 / ulp(1.0)]


def test_reference_chooses_the_likeliest_by_its_logits():
    given = prompts(6)
    for ids, logits in reference(make(torch.float32), given, NEW, STOP):
        assert logits.argmax(dim=-1).tolist() == ids
    assert len({len(ids) for ids, _ in reference(make(torch.float32), given, NEW, STOP)}) > 1


@pytest.mark.parametrize("with_adapter", [False, True])
def test_no_answer_differs_in_fp32(with_adapter):
    model, given = make(torch.float32), prompts(12)
    inner = model
    if with_adapter:
        model = adapt(model, rank=4)
        inner = model.get_base_model()
    wanted = reference(inner, given, NEW, STOP)
    assert compare(wanted, answers(model, given), STOP)["differing"] == 0
    longest = max(map(len, given))
    batch = plain(inner, given, NEW, STOP).sequences[:, longest:].tolist()
    assert compare(wanted, batch, STOP)["differing"] == 0
    if with_adapter:
        base = reference(make(torch.float32), given, NEW, STOP)
        assert compare(base, answers(model, given), STOP)["differing"] > 0, "the adapter must be seen"


def test_answers_in_bf16_differ_by_rounding_only():
    # Weights as small as a trained model's: large ones enlarge what was rounded in the layers before.
    model, given = make(torch.bfloat16, 0.05), prompts(24)
    wanted = reference(model, given, NEW, STOP)
    assert wanted[0][1].dtype == torch.bfloat16
    assert len({tuple(ids) for ids, _ in wanted}) > 12
    found = compare(wanted, answers(model, given), STOP)
    assert found["differing"] == found["tied"] < 24
    # Another model is not taken for rounding.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.0 + 0.2 * torch.rand_like(parameter))
    other = compare(wanted, answers(model, given), STOP)
    assert other["differing"] > other["tied"]


def test_the_adapter_is_a_hundredth_of_the_weights():
    model = make(torch.float32)
    before = {name: p.clone() for name, p in model.named_parameters() if "_proj" in name}
    after = dict(adapt(model, rank=16).merge_and_unload().named_parameters())
    for name, weight in before.items():
        assert (after[name] - weight).std().item() / 0.2 == pytest.approx(0.01, rel=0.2)
