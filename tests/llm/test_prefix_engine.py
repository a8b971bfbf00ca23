"""The fast decoder against transformers' own, token by token, on several architectures."""

import random

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    GemmaConfig,
    GemmaForCausalLM,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from llm.groups import STEP_TOKENS, alike, common_prefix
from llm.prefix_engine import ROUND, SharedPrefix, fitting_rows, row_bytes

SHAPE = {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "initializer_range": 0.4,
}
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=None)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE)),
    "gemma": lambda: GemmaForCausalLM(GemmaConfig(**SHAPE)),
}
PREFIX = [7, 3, 9, 9, 1, 22, 31]
RESTS = [[5, 4, 30, 8, 2, 11, 17, 40, 41], [5, 4, 31], [50], [20, 21, 22, 23, 24, 25], [6, 6], [33]]
NEW = 20
STOP = [13, 14]


def make(name: str, adapter: bool = False):
    torch.manual_seed(3)
    model = MODELS[name]().eval()
    if adapter:
        config = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "up_proj"], init_lora_weights=False)
        model = get_peft_model(model, config).eval()
    return model


def reference(model, prompts):
    """One prompt at a time by `generate`: the logits of its first token, and its ids up to a stop token."""
    firsts, ids = [], []
    config = GenerationConfig(max_new_tokens=NEW, do_sample=False, eos_token_id=STOP, pad_token_id=0)
    for prompt in prompts:
        with torch.inference_mode():
            out = model.generate(
                input_ids=torch.tensor([prompt]),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                generation_config=config,
                output_logits=True,
                return_dict_in_generate=True,
            )
        firsts.append(out.logits[0][0].float())
        ids.append(out.sequences[0, len(prompt) :].tolist())
    return torch.stack(firsts), ids


def cut(ids: list[int]) -> list[int]:
    return next((ids[: i + 1] for i, token in enumerate(ids) if token in STOP), ids)


@pytest.mark.parametrize("adapter", [False, True])
@pytest.mark.parametrize("name", list(MODELS))
def test_same_tokens_as_generate(name, adapter):
    model, prompts = make(name, adapter), [PREFIX + rest for rest in RESTS]
    want_first, want = reference(model, prompts)
    assert len({tuple(ids) for ids in want}) == len(RESTS)
    engine = SharedPrefix(model, PREFIX, STOP, 4, 9 + NEW)
    for start in (0, 4):  # the second batch is not full
        first, ids = engine.generate(prompts[start : start + 4], NEW)
        torch.testing.assert_close(first, want_first[start : start + 4], rtol=1e-4, atol=1e-4)
        assert [cut(row) for row in ids] == want[start : start + 4]
    engine.close()
    assert reference(model, prompts)[1] == want, "closing must give the model its own attention back"


def flash(query, key, value, starts, key_starts, *numbers, scale, seqused_k=None):
    """What the flash kernels compute, by the formula: padded (rows, tokens, heads, size) or packed (tokens, ...)."""
    *_, causal, _ = numbers
    outs, sums = [], []
    if starts is None:
        triples = zip(query, key, value, strict=True)
    else:
        used = key_starts.diff() if seqused_k is None else seqused_k
        ends = (key_starts[:-1] + used).tolist()
        spans = [*zip(starts.tolist()[:-1], starts.tolist()[1:], key_starts.tolist()[:-1], ends, strict=True)]
        triples = [(query[a:b], key[c:d], value[c:d]) for a, b, c, d in spans]
    for q, k, v in triples:
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
        scores = torch.einsum("qhd,khd->hqk", q, k) * scale
        if causal:
            scores += torch.full(scores.shape[1:], -torch.inf).triu(1 + len(k) - len(q))
        outs.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), v))
        sums.append(scores.logsumexp(-1))
    together = torch.stack if starts is None else torch.cat
    return together(outs), torch.stack(sums) if starts is None else torch.cat(sums, dim=1), None, None, None


@pytest.mark.parametrize("name", ["llama", "gemma"])
def test_the_calls_of_the_flash_kernels_are_of_the_same_attention(name, monkeypatch):
    model, prompts = make(name), [PREFIX + rest for rest in RESTS]
    want_first, want = reference(model, prompts)
    monkeypatch.setattr("llm.prefix_engine.takes_flash", lambda query: True)
    monkeypatch.setattr(torch.ops.aten, "_flash_attention_forward", flash)
    monkeypatch.setattr("llm.prefix_engine._step", None)
    engine = SharedPrefix(model, PREFIX, STOP, 4, 9 + NEW)
    for start in (0, 4):
        first, ids = engine.generate(prompts[start : start + 4], NEW)
        torch.testing.assert_close(first, want_first[start : start + 4], rtol=1e-4, atol=1e-4)
        assert [cut(row) for row in ids] == want[start : start + 4]
    engine.close()


def test_some_rows_stop_early():
    model, prompts = make("llama"), [PREFIX + rest for rest in RESTS]
    _, free = reference(model, prompts)
    stop = [free[0][2], free[3][5]]
    engine = SharedPrefix(model, PREFIX, stop, 6, 9 + NEW)
    _, ids = engine.generate(prompts, NEW)
    for mine, theirs in zip(ids, free, strict=True):
        end = next((i + 1 for i, token in enumerate(theirs) if token in stop), NEW)
        assert mine[:end] == theirs[:end]


def test_prompts_in_several_forward_passes(monkeypatch):
    model, prompts = make("llama"), [PREFIX + rest for rest in RESTS]
    _, want = reference(model, prompts)
    monkeypatch.setattr("llm.prefix_engine.PREFILL_TOKENS", 10)
    _, ids = SharedPrefix(model, PREFIX, STOP, 6, 9 + NEW).generate(prompts, NEW)
    assert [cut(row) for row in ids] == want


def test_one_token_is_enough_of_a_prefix():
    model, prompts = make("llama"), [PREFIX + rest for rest in RESTS]
    _, want = reference(model, prompts)
    longest = max(map(len, prompts)) - 1
    _, ids = SharedPrefix(model, PREFIX[:1], STOP, 6, longest + NEW).generate(prompts, NEW)
    assert [cut(row) for row in ids] == want


@pytest.mark.parametrize(
    ("prompts", "prefix"),
    [
        ([[1, 2, 3], [1, 2, 4]], [1, 2]),
        ([[1, 2], [1, 2, 4]], [1]),
        ([[1, 2, 3], [1, 2, 3]], [1, 2]),
        ([[1, 2], [3, 4]], []),
        ([[5, 6, 7]], [5, 6]),
    ],
)
def test_common_prefix_leaves_every_prompt_a_token(prompts, prefix):
    assert common_prefix(prompts) == prefix


def saved(prompts, groups, new):
    """How many tokens need not be computed, by the price of the groups."""
    each = [(len(g) - 1) * len(common_prefix([prompts[i] for i in g])) - new * STEP_TOKENS for g in groups]
    return sum(each)


def partitions(places):
    """All ways of dividing places into groups."""
    if not places:
        yield []
        return
    first, *rest = places
    for smaller in partitions(rest):
        yield [[first], *smaller]
        for i, group in enumerate(smaller):
            yield [*smaller[:i], [first, *group], *smaller[i + 1 :]]


@pytest.mark.parametrize("tokens", [2, 7, 30])
@pytest.mark.parametrize("seed", range(6))
def test_groups_save_as_much_as_any_others(seed, tokens, monkeypatch):
    """Against all 877 ways of dividing seven questions of three subjects."""
    monkeypatch.setattr("llm.groups.STEP_TOKENS", tokens)
    monkeypatch.setitem(globals(), "STEP_TOKENS", tokens)
    generator = random.Random(seed)
    shots = [[1, 2, subject, *[9] * generator.randint(0, 20)] for subject in (3, 4, 5)]
    prompts = [[*generator.choice(shots), 10 + i] for i in range(7)]
    groups = alike(prompts, 1)
    assert sorted(place for group in groups for place in group) == list(range(7))
    assert saved(prompts, groups, 1) == max(saved(prompts, other, 1) for other in partitions(list(range(7))))
    longest = [max(len(prompts[i]) for i in group) for group in groups]
    assert longest == sorted(longest, reverse=True)


def test_groups_of_subjects():
    """Many questions on the examples of a subject are a group; few are not worth a batch of their own."""
    shots = {subject: [1, 2, subject] + [subject + 10] * 400 for subject in (3, 4, 5)}
    many = [[*shots[i % 3 + 3], 50 + i] for i in range(90)]
    assert alike(many, 8) == [list(range(start, 90, 3)) for start in range(3)]
    assert alike(many[:6], 8) == [list(range(6))]
    assert sorted(map(len, alike([*many[::3], *many[1:9:3], *many[2:9:3]], 8))) == [6, 30]


def test_rows_that_fit():
    model = make("llama")
    engine = SharedPrefix(model, PREFIX, STOP, 4, 9 + NEW)
    held = sum(t.numel() * t.element_size() for t in (*engine.state.keys, *engine.state.values))
    assert held == 4 * row_bytes(model, ROUND)
    engine.close()
    rows = [fitting_rows(model, 29, free) for free in (10**6, 4 * 10**7, 10**9, 10**12)]
    assert rows == sorted(rows)
    assert rows[0] == 1
    assert rows[-1] == 512
    assert rows[0] < rows[1] < rows[2]
    assert fitting_rows(model, 29 + ROUND, 4 * 10**7) < rows[1]
