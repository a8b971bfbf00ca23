"""Families of models: answers are those of plain transformers, packed rows those of rows alone, or a sentence says why.

And the workflow's own steps carry each from its questions to its adapter's answers.

docs/families.md was written by

    REWRITE=1 make families
"""

import math
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from safetensors.torch import load_file
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from common.files import UserError, read_json, read_jsonl, write_json
from families import FAMILIES, OTHERS, save_family, template_of
from llm.adapters import average, load_adapter, write_adapter
from llm.answering import Job, choose, predict
from llm.chat import Turn, load_chat
from llm.decoding import Decoding, Encoded
from llm.load import load_model, set_greedy
from llm.memory import Shape, unquantised
from llm.options import LLAMA, lora_config
from llm.packing import collate, keep_apart
from llm.proof import distance, own_logits
from llm.training import Plan, train
from render import render as render_step
from study.schema import Lora
from tests.steps.test_render import questions_file
from tiny_model import audit, render, words, write_splits

PAGE = Path(__file__).parents[2] / "docs/families.md"
# Those of the plain tests: each way in which a family differs from Llama.
FAST = ("llama", "mistral", "gemma2", "gemma3", "granite", "cohere2", "gpt_oss", "qwen3_moe", "phi3", "deepseek_v3")
# Those that the plain tests carry through all steps: seconds each.
STEPPED = ("gemma3",)
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


def battery(folder: Path, name: str) -> dict[str, str]:
    """Carry a tiny model of a family through everything; the cells of its row in the docs."""
    record = save_family(folder, name)
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


COLUMNS = ("Answers by", "Rows", "Adapters on", "nf4", "Template", "Thoughts", "By the steps")


def written(name: str) -> dict[str, str]:
    """The row of a family in the docs, {} if there is none."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    cells = next((one.strip("| ").split(" | ") for one in lines if one.startswith(f"| {name} |")), [])
    return dict(zip(("Family", *COLUMNS), cells, strict=False))


def held(name: str, found: dict[str, str]) -> None:
    """Hold cells of a family's row against those of the docs, or write them there."""
    before = written(name)
    if "REWRITE" in os.environ:
        row = {"Family": name, **dict.fromkeys(COLUMNS, ""), **before, **found}
        lines = [one for one in PAGE.read_text(encoding="utf-8").splitlines() if not one.startswith(f"| {name} |")]
        start = next(place for place, one in enumerate(lines) if one.startswith("| ---")) + 1
        end = next((place for place in range(start, len(lines)) if not lines[place].startswith("|")), len(lines))
        table = sorted([*lines[start:end], f"| {' | '.join(row.values())} |"])
        PAGE.write_text("\n".join([*lines[:start], *table, *lines[end:], ""]), encoding="utf-8")
        return
    assert {name: before.get(name) for name in found} == found


def test_each_family_of_transformers_is_tried_or_is_left_out_with_a_reason():
    """A version of transformers with a new family fails here: see `GIVEN` and `OTHERS` of tests/support/families.py."""
    assert [name for name in FAMILIES if set(written(name)) != {"Family", *COLUMNS}] == []
    page = PAGE.read_text(encoding="utf-8")
    assert set(OTHERS) <= set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    for reason in set(OTHERS.values()):
        names = ", ".join(sorted(name for name in OTHERS if OTHERS[name] == reason))
        assert f"\n- {names}: {reason}\n" in page


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.families) for name in FAMILIES]
)
def test_a_family_is_right_or_refused(tmp_path, name):
    held(name, battery(tmp_path, name))


LEARNS = {
    "learning_rate": 0.05, "max_steps": 2, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1,
    "optim": "adamw_torch", "lr_scheduler_type": "constant", "max_length": 1024, "logging_steps": 1, "save_steps": 2,
    "gradient_checkpointing": False, "seed": 42,
}  # fmt: skip


def rendered(folder: Path, record: Path) -> None:
    """Both tasks rendered by their steps, and what is to be trained on audited by its own."""
    render(folder, record, "train", shots=1)
    render(folder, record, "test", shots=1, max_new_tokens=NEW)
    asked = {"rows": questions_file(folder, 3), "record": record, "manifest": folder / "manifest.json"}
    settings = {"kind": "mmlu", "name": "tasks.mmlu", "system": "Answer.", "max_new_tokens": NEW}
    render_step(asked, words("choice"), settings, folder / "prompts/mmlu.jsonl")
    assert read_json(audit(folder, record, shots=1))["pass"]


def answered(folder: Path, adapter: Path | None) -> list[dict]:
    """The reports of both tasks' answers, which are as many as the questions."""
    reports = []
    for task in ("test", "mmlu"):
        prompts, decoding = str(folder / f"prompts/{task}.jsonl"), Decoding("fp32", NEW, 4, prove=True)
        job = Job(prompts, str(record_file(folder)), adapter and str(adapter), decoding)
        predict(job, folder / f"{task}.answers.jsonl", folder / f"{task}.json")
        rows = read_jsonl(folder / f"{task}.answers.jsonl")
        assert [row["id"] for row in rows] == [row["id"] for row in read_jsonl(job.prompts)]
        assert task == "test" or all(sum(map(math.exp, row["logprobs"].values())) <= 1.001 for row in rows)
        reports.append(read_json(folder / f"{task}.json"))
    return reports


def steps(folder: Path, name: str) -> dict[str, str]:
    """Carry a family by the steps of the workflow, from questions to answers; the cells of its row in the docs."""
    kind = template_of(name)
    record, path = save_family(folder, name, kind), record_file(folder)
    write_splits(folder, train=4, test=3)
    cells = {"Template": kind, "Thoughts": "no", "By the steps": "trained and answered"}
    try:
        write_json(path, record | {"thinking": 4})
        load_chat(read_json(path))
    except UserError as error:
        assert "has no place for a thought" in str(error)
    else:
        cells["Thoughts"] = "yes"
        rendered(folder, path)
        assert [report["thoughts"]["limit"] for report in answered(folder, None)] == [4, 4]
    write_json(path, record)
    rendered(folder, path)
    plan = Plan(
        str(folder / "prompts/train.jsonl"), str(folder / "audit_labels.json"), str(path), str(folder / "adapter"),
        str(folder / "train.json"), "fp32", LEARNS, DEFAULT,
    )  # fmt: skip
    try:
        try:
            report = train(plan)
        except UserError as error:
            if "Set training.router_aux_loss_coef to 0" not in str(error):
                raise
            report = train(replace(plan, training={**LEARNS, "router_aux_loss_coef": 0.0}))
            cells["By the steps"] += ", with router_aux_loss_coef: 0"
    except UserError as error:
        refused = {"PEFT refuses": "answered; PEFT has no adapter for it", "TRL cannot train": "answered; not by TRL"}
        answered(folder, None)
        return cells | {"By the steps": next(cell for said, cell in refused.items() if said in str(error))}
    assert [len(report["history"]), report["steps"]] == [2, 2]
    assert all(math.isfinite(entry["loss"]) and entry["grad_norm"] > 0 for entry in report["history"])
    assert report["adapted_layers"] == sorted(lora_config(DEFAULT, load_model(record, "fp32")).target_modules)
    weights = load_file(folder / "adapter/adapter_model.safetensors")
    learnt = [key for key, weight in weights.items() if "lora_B" in key and weight.abs().max() > 0]
    assert len(learnt) > 0.5 * len(weights) / 2  # no gradient: what routers, or a choice of tokens, read
    assert min(one["adapter_acts"]["largest_change"] for one in answered(folder, folder / "adapter")) > 0
    return cells


@pytest.mark.parametrize(
    "name", [name if name in STEPPED else pytest.param(name, marks=pytest.mark.families) for name in FAMILIES]
)
def test_a_family_goes_through_the_steps(tmp_path, name):
    held(name, steps(tmp_path, name))


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
