"""Families of models: answers are those of plain transformers, packed rows those of rows alone, or a sentence says why.

docs/families.md was written by

    REWRITE=1 make families
"""

import os
import re
from pathlib import Path

import pytest
import torch
from peft import get_peft_model

from common.files import UserError
from families import FAMILIES, save_family
from llm.adapters import average, load_adapter, write_adapter
from llm.answering import choose
from llm.chat import Turn, load_chat
from llm.decoding import Decoding, Encoded
from llm.load import load_model, set_greedy
from llm.memory import Shape, unquantised
from llm.options import LLAMA, lora_config
from llm.packing import collate, keep_apart
from llm.proof import distance, own_logits
from study.schema import Lora

PAGE = Path(__file__).parents[2] / "docs/families.md"
# Those of the plain tests: each way in which a family differs from Llama.
FAST = ("llama", "mistral", "gemma2", "gemma3", "granite", "cohere2", "gpt_oss", "qwen3_moe", "phi3", "deepseek_v3")
QUESTIONS = ("How many singers?", "name", "Which singers are older than 20? Please. " * 3)
NEW = 6
DEFAULT = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.1, "target_modules": list(LLAMA)}


def test_the_default_layers_are_those_of_the_study():
    assert list(LLAMA) == Lora().target_modules


def close(model, chat, prompts, exact=None):
    """Answer prompts in one batch, and hold each against the model's own pass over prompt and answer."""
    set_greedy(model, chat, NEW)
    engine = choose(model, chat, prompts, Decoding("fp32", NEW, 4))
    found, how = {}, engine.facts()
    with torch.inference_mode():
        for number, group in enumerate(engine.groups):
            first, new = engine.answer([Encoded(str(i), prompts[i]) for i in group], number, len(group))
            for i, logits, ids in zip(group, first, new, strict=True):
                stop = next((k + 1 for k, token in enumerate(ids) if token in chat.stop_ids), len(ids))
                found[i] = (logits.log_softmax(-1), ids[:stop])
    engine.close()
    for i, (first, ids) in found.items():
        own = own_logits(exact or model, prompts[i] + ids[:-1], len(ids))
        torch.testing.assert_close(first, own[0].log_softmax(-1), rtol=1e-4, atol=1e-4)
        # The likeliest token at each step, but for ties of rounding.
        said = own.gather(1, torch.tensor(ids)[:, None])[:, 0]
        assert (own.max(-1).values - said).max() < 1e-3
    return torch.stack([found[i][0] for i in range(len(prompts))]), how


def battery(folder: Path, name: str) -> dict[str, str] | None:
    """Carry a tiny model of a family through everything; the cells of its row in the docs, None if none is made."""
    record = save_family(folder, name)
    if record is None:
        return None
    chat = load_chat(record)
    prompts = [chat.encode(chat.prompt([Turn("system", "You write SQL."), Turn("user", q)]))[0] for q in QUESTIONS]
    base, how = close(load_model(record, "fp32"), chat, prompts)

    torch.manual_seed(1)
    model, layers = load_model(record, "fp32"), ""
    try:
        config = lora_config({**DEFAULT, "init_lora_weights": False}, model)
        config.lora_alpha = 2
        get_peft_model(model, config).save_pretrained(folder / "made")
        layers = config.target_modules
    except (UserError, ValueError) as error:
        assert "target_modules" in str(error)
    if layers:
        write_adapter(folder / "made", folder / "adapter", record["source"])
        through(folder, record, chat, prompts, base)

    model = load_model(record, "fp32")
    rows = [(ids, [-100] * (len(ids) - 3) + ids[-3:]) for ids in prompts]
    padded, proof = keep_apart(model, rows)
    batch = collate([{"input_ids": ids, "labels": labels} for ids, labels in rows])
    if not padded:
        assert proof["difference"] < 1e-4
        del batch["labels"]
        with torch.no_grad():
            packed = model(**batch, use_cache=False).logits[0]
        plain = load_model(record, "fp32")
        alone = torch.cat([own_logits(plain, ids, len(ids)) for ids in prompts])
        torch.testing.assert_close(packed.float(), alone, rtol=1e-3, atol=1e-3)
    try:
        nf4 = "no: experts" if unquantised("", "", Shape.of(model.config.to_dict()), "nf4") else "yes"
    except KeyError:
        nf4 = "untried"
    names = "none" if not layers else re.sub(r"[\[\]']", "", str(sorted(layers)))
    engine = "shared prefix" if how["decoder"].startswith("shared") else "generate"
    return {"Answers by": engine, "Rows": "padded" if padded else "packed", "Adapters on": names, "nf4": nf4}


def through(folder, record, chat, prompts, base):
    """The adapter beside the weights, merged, at no strength, and averaged with itself."""

    def adapted(**options):
        return load_adapter(load_model(record, "fp32"), folder / "adapter", **options)

    tuned, _ = close(adapted(), chat, prompts)
    assert (tuned - base).abs().max() > 1e-2
    merged, _ = close(adapted(merge=True), chat, prompts)
    torch.testing.assert_close(merged, tuned, rtol=1e-3, atol=1e-3)
    none, _ = close(adapted(strength=0.0), chat, prompts)
    torch.testing.assert_close(none, base, rtol=1e-4, atol=1e-4)
    average([folder / "adapter"] * 2, record_file(folder), folder / "soup")
    soup, _ = close(load_adapter(load_model(record, "fp32"), folder / "soup"), chat, prompts)
    torch.testing.assert_close(soup, tuned, rtol=1e-3, atol=1e-3)


def record_file(folder: Path) -> Path:
    return folder / "model.json"


def line(name: str, row: dict[str, str]) -> str:
    return f"| {' | '.join([name, *row.values()])} |"


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.families) for name in FAMILIES]
)
def test_a_family_is_right_or_refused(tmp_path, name):
    row = battery(tmp_path, name)
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    written = [one for one in lines if one.startswith(f"| {name} |")]
    if row is None:
        assert not written
        pytest.skip("no tiny model of it is made from these sizes")
    if "REWRITE" in os.environ:
        start = next(place for place, one in enumerate(lines) if one.startswith("| ---")) + 1
        table = sorted([*(one for one in lines[start:] if one not in written), line(name, row)])
        PAGE.write_text("\n".join([*lines[:start], *table, ""]), encoding="utf-8")
        return
    assert written == [line(name, row)]


def first_logits(engine, prompts) -> torch.Tensor:
    """The logits of the first new token after each prompt, (prompts, 1, vocabulary)."""
    found = {}
    for number, group in enumerate(engine.groups):
        logits, _ = engine.answer([Encoded(str(i), prompts[i]) for i in group], number, len(group))
        found |= dict(zip(group, logits.float(), strict=True))
    engine.close()
    return torch.stack([found[i] for i in range(len(prompts))])[:, None]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["bf16", "nf4"])
@pytest.mark.parametrize("name", FAST)
def test_on_a_gpu_a_family_answers_within_the_rounding_of_its_precision(tmp_path, name, precision):
    record = save_family(tmp_path, name)
    if record is None:
        pytest.skip("no tiny model of it is made from these sizes")
    chat = load_chat(record)
    prompts = [chat.encode(chat.prompt([Turn("system", "You write SQL."), Turn("user", q)]))[0] for q in QUESTIONS]
    try:
        model = load_model(record, precision)
    except UserError as error:
        assert precision == "nf4"
        assert "are experts, which it leaves as they are" in str(error)
        return
    set_greedy(model, chat, NEW)
    decoding = Decoding(precision, NEW, 4)
    engine = choose(model, chat, prompts, decoding)
    with torch.inference_mode():
        ours = first_logits(engine, prompts)
        plain = torch.stack([own_logits(model, ids, 1) for ids in prompts])
        # The same weights, computed without rounding to half precision.
        exact = (model.dequantize() if precision == "nf4" else model).float()
        exact = torch.stack([own_logits(exact, ids, 1) for ids in prompts])
    error, rounding = (distance(found, exact, torch.bfloat16)[0] for found in (ours, plain))
    print(f"{name}, {precision}: {engine.facts()['decoder']}; {error:.4f} off, the model itself {rounding:.4f}")
    assert error <= max(3 * rounding, 0.01)  # a tie between two experts may be broken otherwise
