"""Engine and packing are used where they compute what the model means, and only there."""

import pytest
import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
)

from common.files import read_json
from llm import prefix_engine as _engine
from llm.chat import load_chat
from llm.decoding import Decoding
from llm.generate_engine import GenerateEngine
from llm.load import load_model, set_greedy
from llm.packing import keep_apart
from llm.prefix_engine import PrefixEngine, SharedPrefix
from llm.proof import STEPS, prove
from tests.llm.test_prefix_engine import NEW, PREFIX, RESTS, SHAPE, STOP, cut, reference
from tiny_model import make_model

PROMPTS = [PREFIX + rest for rest in RESTS]
ROWS = [(ids, [-100] * (len(ids) - 2) + ids[-2:]) for ids in PROMPTS]


def made(kind, config):
    torch.manual_seed(3)
    return kind(config).eval()


def mistral(window):
    return made(MistralForCausalLM, MistralConfig(**SHAPE, sliding_window=window))


def gemma(window):
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    return made(Gemma3ForCausalLM, Gemma3TextConfig(**SHAPE, sliding_window=window, layer_types=kinds))


def phi(limit):
    """LongRoPE: other angles for a text that grows longer than it was trained on."""
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [8.0] * 4}
    config = Phi3Config(
        **SHAPE, pad_token_id=0, rope_parameters=rope, original_max_position_embeddings=limit, sliding_window=None
    )
    return made(Phi3ForCausalLM, config)


@pytest.mark.parametrize("make", [mistral, gemma])
@pytest.mark.parametrize("window", [2, 3, 5, 9, 200])
def test_sliding_windows_are_kept_token_for_token(make, window):
    """Shorter than the prefix, than a rest, than an answer; and longer than all."""
    model = make(window)
    assert prove(PrefixEngine(model, STOP, PROMPTS, NEW), PROMPTS)[0] == ""
    want_first, want = reference(model, PROMPTS)
    engine = SharedPrefix(model, PREFIX, STOP, 6, 9 + NEW)
    first, ids = engine.generate(PROMPTS, NEW)
    engine.close()
    torch.testing.assert_close(first, want_first, rtol=1e-4, atol=1e-4)
    assert [cut(row) for row in ids] == want


def test_a_window_as_long_as_prompt_and_answer_is_none(monkeypatch):
    monkeypatch.setattr(_engine, "_windowed", lambda *_: pytest.fail("asked for a mask"))
    assert prove(PrefixEngine(mistral(16 + NEW), STOP, PROMPTS, NEW), PROMPTS)[0] == ""


def test_what_is_proved_is_recorded():
    model = made(LlamaForCausalLM, LlamaConfig(**SHAPE))
    engine = PrefixEngine(model, STOP, PROMPTS, NEW)
    reason, facts = prove(engine, PROMPTS)
    assert (reason, facts["prompts"], facts["steps"]) == ("", 3, STEPS)
    assert 0 < facts["difference"] < 1e-4
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("wrong", ["windows", "scale", "places"])
def test_an_engine_that_computes_otherwise_is_found_out(wrong, monkeypatch):
    """Windows that the attention is not told; scores of another scale; a shared prefix one place off."""
    model, attention = mistral(6), _engine._attention

    def other(module, query, key, value, mask=None, scaling=None, sliding_window=None, **more):
        window = None if wrong == "windows" else sliding_window
        scale = scaling * (1.01 if wrong == "scale" else 1)
        shift = 1 if wrong == "places" and _engine._state.phase == "step" else 0
        return attention(module, query, key.roll(shift, 2), value, mask, scale, window, **more)

    monkeypatch.setitem(_engine.AttentionInterface._global_mapping, _engine.NAME, other)
    reason, facts = prove(PrefixEngine(model, STOP, PROMPTS, NEW), PROMPTS)
    assert reason.startswith("its logits differ by ")
    assert facts["difference"] > 1e-3


@pytest.mark.parametrize(("limit", "right"), [(200, True), (12, False), (16 + NEW // 2, False)])
def test_angles_that_depend_on_the_length_of_a_text(limit, right):
    """Right where no text grows that long; the answer alone may do so, which the filled prompt shows."""
    reason, _ = prove(PrefixEngine(phi(limit), STOP, PROMPTS, NEW), PROMPTS)
    assert (reason == "") == right
    assert (keep_apart(phi(limit), ROWS)[0] == "") == (limit >= 16)


def test_each_group_that_has_the_longest_or_the_shortest_prompt_is_tried(monkeypatch):
    prompts = (
        [[1, *[5] * 400, i] for i in range(40)] + [[2, *[6] * 300, i, i] for i in range(40)] + [[2, *[6] * 300, 9]]
    )
    model = made(LlamaForCausalLM, LlamaConfig(**SHAPE | {"max_position_embeddings": 512}))
    engine = PrefixEngine(model, STOP, prompts, 2)
    assert len(engine.groups) == 2
    assert prove(engine, prompts)[1]["prompts"] == 6


def test_half_precision_has_a_tolerance_of_its_own():
    model = made(LlamaForCausalLM, LlamaConfig(**SHAPE)).to(torch.bfloat16)
    reason, facts = prove(PrefixEngine(model, STOP, PROMPTS, NEW), PROMPTS)
    assert reason == ""
    assert 1e-4 < facts["difference"] < 0.1
    assert keep_apart(model, ROWS)[0] == ""


@pytest.mark.parametrize("ignored", [True, False])
def test_where_padding_changes_answers_no_row_is_padded(tmp_path, ignored, monkeypatch):
    record = read_json(make_model(tmp_path / "model"))
    chat, model = load_chat(record), load_model(record, "fp32")
    set_greedy(model, chat, 3)
    if not ignored:  # a model that sees what a row is filled up with
        forward = model.forward

        def seeing(*args, attention_mask=None, **given):
            return forward(*args, **given)

        monkeypatch.setattr(model, "forward", seeing)
    engine = GenerateEngine(model, chat, PROMPTS, Decoding("fp32", 3, 4), "a test says so")
    lengths = [{len(PROMPTS[i]) for i in group} for group in engine.groups]
    assert (len(lengths) == 1) == ignored
    assert ignored or all(len(one) == 1 for one in lengths)


def test_a_row_too_long_for_the_memory_is_halved(monkeypatch):
    from llm import packing as _packing

    model, seen = made(LlamaForCausalLM, LlamaConfig(**SHAPE)), _packing._seen

    def small(model, rows):
        if sum(len(ids) for ids, _ in rows) > 12:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return seen(model, rows)

    monkeypatch.setattr(_packing, "_seen", small)
    reason, proof = keep_apart(model, [*ROWS, ([3] * 3, [3] * 3)])
    assert (reason, proof["rows_tokens"]) == ("", [8, 3])
    assert all(weight.requires_grad for weight in model.parameters())
