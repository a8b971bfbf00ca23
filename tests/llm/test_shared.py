"""Rows that begin alike: computed with their prefix once, they have the losses and gradients of rows alone."""

import copy
import sys

import pytest
import torch
import torch.nn.functional as F
from peft import get_peft_model
from safetensors.torch import load_file
from trl import SFTTrainer

from common.files import read_json, write_json
from families import FAMILIES, make_family
from llm import training as module
from llm.labels import IGNORED
from llm.options import LLAMA, lora_config
from llm.packing import divide, keep_apart, pack, share
from llm.processes import ranks, run
from llm.shared import find_prefix, gather, layout, taken
from tests.llm.test_families import FAST
from tests.llm.test_packing import NO_DROPOUT, PLAIN, stopped_at_its_end
from tests.llm.test_training import LORA, arguments, train
from tests.tasks.test_replay import given as with_replay
from tests.tasks.test_replay import study  # noqa: F401 - a fixture

pytestmark = pytest.mark.usefixtures("two_threads")

# Beyond some windows: 20 tokens that all share, and rests of 2 to 30; the last row begins otherwise.
START = list(range(5, 25))
RESTS = (range(30, 60), (7, 8), range(40, 55), (60, 61, 62, 9))


def learnt(ids, count=2):
    """A row of which the last tokens are learnt."""
    return list(ids), [IGNORED] * (len(ids) - count) + list(ids)[-count:]


ROWS = [*(learnt([*START, 25 + i, *rest]) for i, rest in enumerate(RESTS)), learnt(range(33, 44))]


def test_the_prefix_is_what_saves_most():
    assert find_prefix(ROWS) == START
    # Two replayed rows share more than the others do, but three times 20 tokens are more than once 30.
    replayed = [learnt([*range(70, 100), i, i, i]) for i in (1, 2)]
    assert find_prefix([*ROWS, *replayed]) == START
    assert find_prefix([*replayed, *ROWS[-1:]]) == list(range(70, 100))
    assert find_prefix(ROWS[-1:]) == find_prefix([]) == []
    assert find_prefix([learnt([1, i] * 20) for i in range(2, 9)]) == []  # one token of 40


def test_no_label_lies_on_the_prefix_nor_follows_from_it():
    """A label counts once for each row; and the last token of the prefix would have to predict several."""
    whole = [(ids, ids) for ids, _ in ROWS]  # training.loss_on: text
    assert find_prefix(whole) == []
    assert taken(whole, START) == [0] * len(ROWS)
    assert find_prefix([learnt([*START, i]) for i in range(3)]) == START[:-2]
    at_once = [([*START, i], [IGNORED] * 20 + [i]) for i in range(3)]
    assert find_prefix(at_once) == START[:-1]
    assert taken([*at_once, *ROWS[:2]], START) == [0, 0, 0, 20, 20]


def test_one_row_alone_takes_nothing():
    assert taken(ROWS, START) == [20, 20, 20, 20, 0]
    assert taken(ROWS[3:], START) == [0, 0]
    assert pack(ROWS[3:], "cpu", START).keys() == pack(ROWS[3:]).keys()


def test_a_micro_batch_has_the_prefix_once():
    batch = pack([ROWS[1], ROWS[4], ROWS[3]], "cpu", START)
    assert batch["input_ids"].tolist() == [[*START, 26, 7, 8, *range(33, 44), 28, 60, 61, 62, 9]]
    assert batch["position_ids"].tolist() == [[*range(20), 20, 21, 22, *range(11), *range(20, 25)]]
    assert batch["cu_seq_lens_q"].tolist() == [0, 20, 23, 34, 39]
    assert batch["cu_seq_lens_k"].tolist() == [0, 20, 43, 54, 79]
    labels = [*[IGNORED] * 21, 7, 8, *[IGNORED] * 9, 42, 43, *[IGNORED] * 3, 62, 9]
    assert batch["labels"].tolist() == [labels]


def test_gathered_keys_have_the_gradient_of_repeated_ones():
    torch.manual_seed(0)
    one, other = (torch.randn(3 + 2 + 4 + 1, 2, 5, generator=torch.Generator().manual_seed(0)) for _ in range(2))
    one.requires_grad_(), other.requires_grad_()
    found = gather(one, *layout([2, 4, 1], [3, 0, 3]))
    meant = torch.cat([other[:3], other[:5], other[5:9], other[:3], other[9:]])
    assert torch.equal(found, meant)
    weight = torch.randn_like(meant)
    (found * weight).sum().backward()
    (meant * weight).sum().backward()
    torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_micro_batches_are_as_large_as_what_they_compute(processes):
    divided = divide(ROWS, 60, processes, START)
    assert len(divided) == processes
    assert len({len(parts) for parts in divided}) == 1
    parts = [part for process in divided for part in process]
    assert sorted(row for part in parts for row in part if set(row[1]) != {IGNORED}) == sorted(ROWS)
    assert all(pack(part, "cpu", START)["input_ids"].shape[1] <= 60 for part in parts)
    assert len(divide(ROWS, 86, 1, START)[0]) == 1  # 146 tokens, of which 3 x 20 are not computed again
    assert len(divide(ROWS, 85, 1, START)[0]) == 2


def gradients(model, batches, labels):
    """The losses at all labels, and the gradient of each weight of the adapter, of one step in these batches."""
    model.zero_grad()
    found = []
    for inputs, targets in batches:
        kept = (targets != IGNORED).nonzero()[:, 0]
        logits = model(**inputs, use_cache=False).logits[0][kept - 1]
        losses = F.cross_entropy(logits.float(), targets[kept], reduction="none")
        (losses.sum() / labels).backward()
        found += losses.tolist()
    return found, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def adapted(name, device="cpu"):
    model = make_family(name, 128)
    settings = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "init_lora_weights": False}
    torch.manual_seed(1)
    return model.to(device), {**settings, "target_modules": list(LLAMA)}


def shared_and_alone(model, settings, checkpointing=False):
    """How a step is computed with the prefix once, and by the model's own attention, a row at a time."""
    before = model.config.get_text_config()._attn_implementation
    model = get_peft_model(model, lora_config(settings, model))
    alone = [
        (
            {"input_ids": torch.tensor([ids], device=model.device)},
            torch.tensor([IGNORED, *labels[1:]], device=model.device),
        )
        for ids, labels in ROWS
    ]
    meant = gradients(model, alone, 10)
    reason, _ = keep_apart(model, ROWS)
    if reason:
        return None, meant
    start, facts = share(model, ROWS)
    assert (start, facts["reason"]) == (START, "")
    assert facts["proof"]["difference"] < (1e-4 if model.dtype == torch.float32 else 0.1)
    assert facts["proof"]["shared_tokens"] == 20
    assert before != model.get_base_model().get_decoder().config._attn_implementation
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
        model.train()
    inputs = pack(ROWS, model.device, start)
    assert inputs["input_ids"].shape[1] == 86
    return gradients(model, [(inputs, inputs.pop("labels")[0])], 10), meant


def close(found, meant, tolerance):
    """By the norm of each weight's gradient; weights that get hardly any are held against the largest of all."""
    assert sorted(found[0]) == pytest.approx(sorted(meant[0]), rel=tolerance, abs=tolerance)
    assert found[1].keys() == meant[1].keys()
    largest = max(gradient.norm().item() for gradient in meant[1].values())
    assert largest > 1e-3
    for name, gradient in meant[1].items():
        distance = (found[1][name] - gradient).norm().item()
        assert distance <= tolerance * max(gradient.norm().item(), largest / 100), name


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.families) for name in FAMILIES]
)
def test_a_family_has_the_losses_and_gradients_of_rows_alone(name):
    model, settings = adapted(name)
    try:
        get_peft_model(copy.deepcopy(model), lora_config(settings, model))
    except ValueError as error:
        assert "target_modules" in str(error)
        pytest.skip("PEFT puts no adapter on it")
    found, meant = shared_and_alone(model, settings)
    if found is None:
        assert name not in ("llama", "mistral", "granite", "qwen3_moe", "phi3")
        return  # not packed either: docs/families.md
    # At the kink of a ReLU, and between two experts, rounding decides.
    close(found, meant, 1e-5 if name in FAST else 1e-4)


def test_activations_that_are_computed_twice_have_the_same_gradient():
    close(*shared_and_alone(*adapted("llama"), checkpointing=True), 1e-5)


KEYS = ("loss", "replay_kl", "replay_loss", "grad_norm")


def history(study, variant):  # noqa: F811
    report = read_json(study / variant / "train.json")
    return [value for entry in report["history"] for value in (entry.get(key, 0.0) for key in KEYS)]


@pytest.mark.parametrize("tokens", [100000, 400, 1])
def test_a_training_has_the_losses_and_gradients_of_whole_rows(study, monkeypatch, tokens):  # noqa: F811
    """Rows of the study, rows replayed, and the KL term, in whatever number of micro-batches."""
    monkeypatch.setattr("llm.fit.fit", lambda _: {"tokens_per_pass": tokens, "gradient_checkpointing": tokens == 400})
    found = []
    for start in ("shared", "whole"):
        variant = f"{start}-{tokens}"
        with monkeypatch.context() as patch:
            if start == "whole":
                patch.setattr(module, "whole", lambda *_: "a test says so")
            train(**with_replay(study, variant))
        report = read_json(study / variant / "train.json")
        found.append((report, history(study, variant)))
    (ours, losses), (theirs, meant) = found
    assert losses == pytest.approx(meant, rel=2e-5, abs=1e-6)
    assert any(entry["replay_kl"] > 0 for entry in ours["history"] if "replay_kl" in entry)
    assert (ours["shared_prefix"]["reason"], theirs["shared_prefix"]) == ("", {"reason": "a test says so"})
    assert ours["shared_tokens"] > 100
    assert theirs["shared_tokens"] == 0
    # Tokens are those of the rows, whatever was computed.
    counted = [report["tokens_per_second"] * report["train_seconds"] for report, _ in found]
    assert counted[0] == pytest.approx(counted[1], rel=0.01)
    one, two = (
        load_file(study / f"{start}-{tokens}/adapter/adapter_model.safetensors") for start in ("shared", "whole")
    )
    assert all(torch.allclose(one[key], two[key], atol=1e-5) for key in one)


def test_the_prefix_is_computed_once(study, monkeypatch):  # noqa: F811
    seen = []
    original = SFTTrainer.training_step

    def step(self, model, inputs, labels):
        seen.append(inputs["input_ids"].shape[1])
        return original(self, model, inputs, labels)

    monkeypatch.setattr(SFTTrainer, "training_step", step)
    report = train(**arguments(study, "once", lora=NO_DROPOUT, training=PLAIN))
    assert max(seen) < 4 * report["shared_tokens"]  # of four rows a step, each longer than that


def test_stopped_it_ends_with_the_same_bits(study, monkeypatch):  # noqa: F811
    """With dropout, of which the report says what the rows share."""
    given = {"lora": LORA, "training": PLAIN | {"save_steps": 2}}
    whole = train(**arguments(study, "drawn", **given))
    assert whole["shared_prefix"]["dropout"] == "the rows of a micro-batch share one draw on the shared tokens"

    def stop(self, args, state, control, **_):
        if state.global_step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module.Checkpoints, "on_step_begin", stop)
        train(**arguments(study, "stopped", **given))
    ours = train(**arguments(study, "stopped", **given))
    assert ours["resumed_from_step"] == 2
    assert ours["shared_tokens"] == whole["shared_tokens"] > 0
    assert ours["adapter_sha256"] == whole["adapter_sha256"]


def test_a_training_that_began_with_whole_rows_ends_with_them(study, monkeypatch):  # noqa: F811
    """As one does that an earlier version of the workflow began."""
    given = arguments(study, "before", training=PLAIN)
    stopped_at_its_end(monkeypatch, given)
    passes = study / "before/checkpoints/passes.json"
    found = read_json(passes)
    assert found.pop("shared_tokens") > 0
    write_json(passes, found)
    assert train(**given)["shared_tokens"] == 0


@pytest.mark.long
def test_two_processes_compute_the_steps_of_one(study):  # noqa: F811
    one = train(**with_replay(study, "one"))
    run((sys.executable, "-m", "llm.training"), ["0", "1"], [with_replay(study, "two")] * 2, ranks(2))
    two = read_json(study / "two/train.json")
    assert (two["processes"], two["steps"], two["shared_tokens"]) == (2, one["steps"], one["shared_tokens"])
    assert history(study, "two") == pytest.approx(history(study, "one"), rel=2e-5, abs=1e-6)


def test_where_rows_are_computed_whole_the_report_says_why(study):  # noqa: F811
    report = train(**arguments(study, "off", training=PLAIN | {"max_steps": 1, "share_prefix": False}))
    assert (report["shared_prefix"], report["shared_tokens"]) == ({"reason": "training.share_prefix is false"}, 0)


def test_rows_that_are_learnt_whole_are_computed_whole():
    """Labels on what rows begin with count once for each row."""
    model = make_family("llama", 64)
    assert keep_apart(model, [(ids, ids) for ids, _ in ROWS])[0] == ""
    start, facts = share(model, [(ids, ids) for ids, _ in ROWS])
    assert (start, facts) == ([], {"reason": "too few tokens are the same in all rows"})


def test_a_model_that_computes_a_prefix_otherwise_is_found_out(monkeypatch):
    model = make_family("llama", 64)
    assert keep_apart(model, ROWS)[0] == ""
    monkeypatch.setattr("llm.packing.gather", lambda x, keys, own, copies: gather(x.flip(0), keys, own, copies))
    start, facts = share(model, ROWS)
    assert start == []
    assert facts["reason"].startswith("it computes a shared prefix otherwise")
    assert facts["proof"]["difference"] > 1e-3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", FAST)
def test_on_a_gpu_a_family_has_the_losses_and_gradients_of_rows_alone(name):
    torch.backends.cuda.matmul.allow_tf32 = False
    found, meant = shared_and_alone(*adapted(name, "cuda"))
    if found is not None:
        close(found, meant, 1e-5)
