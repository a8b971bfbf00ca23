"""Packed rows: each sees itself alone, and a training is that of padded batches."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import Gemma2Config, Gemma2ForCausalLM, MistralConfig, MistralForCausalLM
from trl import SFTTrainer

from common.files import UserError, read_json
from llm import training as module
from llm.fit import peak
from llm.labels import IGNORED, rows_of
from llm.packing import _tried, collate, divide, keep_apart, pack
from tests.llm.test_training import TRAINING, arguments, train
from tiny_model import audited_study
from train import train_on

pytestmark = pytest.mark.usefixtures("two_threads")

PLAIN = TRAINING | {"logging_steps": 1}
SHAPES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
}
NO_DROPOUT = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": ["v_proj", "q_proj"]}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    audited_study(folder)
    return folder


def losses(study, variant):
    return [entry["loss"] for entry in read_json(study / variant / "train.json")["history"]]


@pytest.fixture(scope="module")
def padded(study):
    """A training whose rows are padded: TRL's own way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "keep_apart", lambda *_: ("a test says so", {}))
        train(**arguments(study, "padded", lora=NO_DROPOUT, training=PLAIN))
    report = read_json(study / "padded/train.json")
    assert report["padded"] == "a test says so"
    return losses(study, "padded")


@pytest.fixture(scope="module")
def packed(study):
    train(**arguments(study, "packed", lora=NO_DROPOUT, training=PLAIN))
    assert read_json(study / "packed/train.json")["padded"] == ""
    return losses(study, "packed")


def test_the_loss_is_that_of_padded_batches(padded, packed):
    assert len(padded) == 7
    assert packed == pytest.approx(padded, rel=2e-6)


@pytest.mark.parametrize("tokens", [1, 60, 100000])
def test_the_number_of_micro_batches_changes_nothing(study, packed, tokens, monkeypatch):
    found = {"tokens_per_pass": tokens, "gradient_checkpointing": False}
    monkeypatch.setattr("llm.fit.fit", lambda trainer: found)
    train(**arguments(study, f"micro{tokens}", lora=NO_DROPOUT, training=PLAIN))
    assert losses(study, f"micro{tokens}") == pytest.approx(packed, rel=2e-6)
    assert read_json(study / f"micro{tokens}/train.json")["tokens_per_pass"] == tokens


def test_a_study_of_steps_keeps_its_rows_in_each(study):
    """Rows are drawn as TRL draws them: the same in each step, by whatever product of the two keys."""
    train(**arguments(study, "whole-step", lora=NO_DROPOUT, training=PLAIN))
    training = PLAIN | {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1}
    train(**arguments(study, "one-pass", lora=NO_DROPOUT, training=training))
    assert losses(study, "one-pass") == pytest.approx(losses(study, "whole-step"), rel=2e-6)


def test_fast_has_as_many_rows_as_one_micro_batch_takes(study, monkeypatch):
    monkeypatch.setattr("llm.fit.fit", lambda trainer: {"tokens_per_pass": 3000, "gradient_checkpointing": False})
    train(**arguments(study, "fast", lora=NO_DROPOUT, training=PLAIN | {"mode": "fast", "max_steps": 9}))
    report = read_json(study / "fast/train.json")
    assert report["rows_per_step"] > 4
    assert report["steps"] == -(-9 * 4 // report["rows_per_step"])


def test_out_of_memory_halves_the_micro_batch_and_repeats_the_step(study, packed, monkeypatch, capfd):
    original, calls = SFTTrainer.training_step, []

    def small(self, model, inputs, labels):
        calls.append(inputs["input_ids"].shape[1])
        if calls[-1] > 400:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return original(self, model, inputs, labels)

    monkeypatch.setattr(SFTTrainer, "training_step", small)
    monkeypatch.setattr("llm.fit.fit", lambda trainer: {"tokens_per_pass": 10000, "gradient_checkpointing": False})
    train(**arguments(study, "halved", lora=NO_DROPOUT, training=PLAIN))
    assert max(calls) > 400 >= calls[-1]
    assert losses(study, "halved") == pytest.approx(packed, rel=2e-6)
    assert "tokens a micro-batch" in capfd.readouterr().out


@pytest.mark.parametrize(("fits", "tried"), [(300, [300, 200]), (100, [75, 100]), (8, [4, 6]), (3, None)])
def test_where_memory_is_small_shorter_rows_are_tried(fits, tried):
    def compared(pair):
        if max(len(ids) for ids, _ in pair) > fits:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        assert all(set(labels) != {IGNORED} for _, labels in pair)
        return "", {"rows": [len(ids) for ids, _ in pair]}

    rows = [([*range(n)], [IGNORED] * (n - 5) + [*range(n - 5, n)]) for n in (200, 300, 250)]
    reason, facts = _tried(compared, rows)
    assert facts.get("rows") == tried
    assert ("OutOfMemoryError" in reason) == (tried is None)


@pytest.mark.ci
@pytest.mark.long
def test_two_processes_compute_the_steps_of_one(study, packed):
    train_on(["0", "1"], arguments(study, "two", lora=NO_DROPOUT, training=PLAIN))
    assert losses(study, "two") == pytest.approx(packed, rel=2e-6)
    report = read_json(study / "two/train.json")
    assert (report["processes"], report["steps"], report["rows_per_step"]) == (2, 7, 4)
    one, two = (load_file(study / name / "adapter/adapter_model.safetensors") for name in ("packed", "two"))
    assert all(torch.allclose(one[name], two[name], atol=1e-5) for name in one)
    assert not (study / "two/checkpoints").exists()


def test_the_process_that_measures_micro_batches_asks_no_other(study, monkeypatch):
    """The others wait for it: what it asked them would never be answered."""
    for name in ("empty_cache", "reset_peak_memory_stats", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda: 7)
    measured = []

    def fit(trainer):
        monkeypatch.setattr(type(trainer.accelerator), "gather_for_metrics", lambda *_: pytest.fail("asked"))
        measured.append(peak(trainer, 512))  # more than what rows begin with
        raise UserError("measured")

    monkeypatch.setattr("llm.fit.fit", fit)
    with pytest.raises(UserError, match="measured"):
        train(**arguments(study, "measured", lora=NO_DROPOUT, training=PLAIN))
    assert measured == [7]


@pytest.mark.long
def test_an_error_in_one_of_two_processes_ends_both(study, capfd):
    with pytest.raises(UserError, match="the process on this GPU ended with exit code 1"):
        lora = NO_DROPOUT | {"target_modules": ["q_prj"]}
        train_on(["0", "1"], arguments(study, "wrong", lora=lora, training=PLAIN))
    assert "lora.target_modules: found q_prj" in capfd.readouterr().err


def stopped_at_its_end(monkeypatch, given) -> None:
    """Train with these arguments, and stop before the adapter is written."""

    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "write_adapter", stop)
        train(**given)


def test_a_resumed_training_has_the_micro_batches_it_began_with(study, monkeypatch):
    monkeypatch.setattr("llm.fit.fit", lambda trainer: {"tokens_per_pass": 77, "gradient_checkpointing": False})
    given = arguments(study, "again", training=PLAIN)
    stopped_at_its_end(monkeypatch, given)
    monkeypatch.setattr("llm.fit.fit", lambda trainer: {"tokens_per_pass": 99999, "gradient_checkpointing": False})
    train(**given)
    report = read_json(study / "again/train.json")
    assert (report["tokens_per_pass"], report["resumed_from_step"]) == (77, 7)


def test_micro_batches_hold_every_row_once_and_are_as_many_for_each_process():
    rows = [([i] * n, [IGNORED] * (n - 1) + [i]) for i, n in enumerate((5, 90, 40, 41, 7, 7, 60, 3))]
    for processes in (1, 2, 3, 10):
        divided = divide(rows, 100, processes)
        assert len(divided) == processes
        assert len({len(parts) for parts in divided}) == 1
        parts = [part for process in divided for part in process]
        found = [row for part in parts for row in part if any(label != IGNORED for label in row[1])]
        assert sorted(found) == sorted(rows)
        assert all(sum(len(ids) for ids, _ in part) <= 100 for part in parts)
    assert all(part for parts in divide(rows, 10) for part in parts)  # longer rows stand alone


def test_a_micro_batch_gives_its_rows_back():
    examples = [{"input_ids": [7, 8, 9], "labels": [-100, 8, 9]}, {"input_ids": [4, 5], "labels": [4, 5]}]
    batch = collate(examples)
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1]]
    assert batch["cu_seq_lens_q"].tolist() == [0, 3, 5]
    assert batch["max_length_q"] == 3
    assert rows_of(batch) == [([7, 8, 9], [-100, 8, 9]), ([4, 5], [-100, 5])]


def test_a_sliding_window_is_kept():
    config = MistralConfig(**SHAPES, sliding_window=4)
    torch.manual_seed(0)
    model = MistralForCausalLM(config).eval()
    rows = [list(range(10, 21)), list(range(5, 12))]
    alone = [model(torch.tensor([row])).logits[0] for row in rows]
    assert keep_apart(model, [(row, row) for row in rows])[0] == ""
    batch = {key: value for key, value in pack([(row, row) for row in rows]).items() if key != "labels"}
    assert torch.allclose(model(**batch).logits[0], torch.cat(alone), atol=1e-5)


def test_models_that_cannot_keep_rows_apart_say_why():
    config = Gemma2Config(**SHAPES, head_dim=8, attn_logit_softcapping=50.0)
    reason, _ = keep_apart(Gemma2ForCausalLM(config).eval(), [([5, 6, 7, 8], [5, 6, 7, 8])])
    assert reason == "it fails with NotImplementedError: its attention has softcap"


def test_a_model_whose_rows_see_each_other_is_found_out(monkeypatch):
    from llm import packing as _packing

    model = MistralForCausalLM(MistralConfig(**SHAPES, sliding_window=None)).eval()
    before = model.config._attn_implementation

    def leaky(module, query, key, value, *_, **__):
        out = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        return out.transpose(1, 2), None

    monkeypatch.setitem(_packing.AttentionInterface._global_mapping, _packing.NAME, leaky)
    reason, proof = keep_apart(model, [([5, 6, 7, 8], [5, 6, 7, 8]), ([9, 10, 11], [9, 10, 11])])
    assert reason.startswith("its rows see each other in one micro-batch")
    assert proof["leaked"] > 1e-3
    assert model.config._attn_implementation == before
