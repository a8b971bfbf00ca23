"""Each study at its model's real shapes: optimizer steps and answers, within the memory that it states.

    python benchmarks/shapes.py --spider spider_data --mmlu mmlu_data.tar.gz [--study souza ...] [--out results.json]

One CUDA GPU with 30 GB. PyTorch gets no more of it than `scripts/studies.py` states for the study: what needs
more fails, and what adapts to the memory adapts to that. Only the model is not real: each tensor is drawn at random
when it is loaded, in place of being read, and the tokenizer is a byte-level BPE trained on Spider's training rows, with
the real one's special tokens and chat template. All else is what a study does: its own data, prompts, audit,
quantisation, LoRA and trainer arguments, through the functions of scripts/.

A study trains its first adapter for `STEPS` optimizer steps and answers `ANSWERS` questions of Spider and as many of
MMLU with it. Rows are the longest of their part, which decides the memory, and others evenly spaced. Batches are the
study's; of the gradient accumulation at most `ACCUMULATION` batches, since more of them only repeat the same work.
Random weights hardly ever end an answer, so that answers have their full length.

`--shapes tiny` tries the script on a CPU, in minutes: two layers, fp32, another optimizer, short answers.
"""

import argparse
import copy
import gc
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/support"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts/steps"))

import torch
import yaml
from snakemake.iocontainers import Wildcards
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
)

from _rules import parse, seen
from audit_labels import audit_labels
from benchmarks.inference import LLAMA3_8B
from common.files import read_json, read_jsonl, sha256_json, write_json, write_jsonl
from common.job import versions
from llm import fit as _fit
from llm import kept as _kept
from llm import load as _model
from llm.answering import Job
from llm.answering import predict as answer
from llm.decoding import Decoding
from llm.prompts import template
from llm.trainer import Trainer
from llm.training import Plan, train
from prepare import prepare as prepare_part
from render import render
from studies import memory_gb
from study import read
from tasks import mmlu as mmlu_task
from tasks import spider as spider_task
from tasks.base import filled
from tasks.sql_schema import compact_schema
from tiny_model import KINDS

TASKS = ("spider", "mmlu")
REPO = Path(__file__).resolve().parents[1]
STEPS, ANSWERS, ACCUMULATION, VALIDATION = 20, 32, 2, 8
# The cheapest first: a run that is cut off keeps more.
STUDIES = ("freitas", "ribeiro", "cunha", "souza", "assignment")
# Configuration and chat template of each model, as its repository on the hub has them.
SHAPES = {
    "meta-llama/Meta-Llama-3-8B-Instruct": (LlamaConfig, LLAMA3_8B, "llama3"),
    "mistralai/Mistral-7B-Instruct-v0.2": (
        MistralConfig,
        {
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "vocab_size": 32000,
            "max_position_embeddings": 32768,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
            "sliding_window": None,
            "tie_word_embeddings": False,
        },
        "mistral",
    ),
    "google/gemma-2b-it": (
        GemmaConfig,
        {
            "hidden_size": 2048,
            "intermediate_size": 16384,
            "num_hidden_layers": 18,
            "num_attention_heads": 8,
            "num_key_value_heads": 1,
            "head_dim": 256,
            "vocab_size": 256000,
            "max_position_embeddings": 8192,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
            "tie_word_embeddings": True,
        },
        "gemma",
    ),
}
TINY = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
TINY |= {"num_key_value_heads": 1, "head_dim": 16, "vocab_size": 12000}
READ = AutoModelForCausalLM.from_pretrained
# With so many tokens a BPE trained on Spider itself leaves the longest rows at about the 2,000 tokens that the stated
# memory is for; the models' own tokenizers have more, but were not trained on these texts.
VOCABULARY = 8000


class Drawn:
    """One tensor of a checkpoint, drawn when it is asked for: what loading takes for a slice of a safetensors file."""

    def __init__(self, shape: torch.Size):
        self.shape = shape

    def __getitem__(self, _: Any) -> torch.Tensor:
        on = {"device": _model.device(), "dtype": torch.bfloat16}
        # Vectors are the weights of norms.
        return torch.ones(self.shape, **on) if len(self.shape) == 1 else torch.randn(self.shape, **on).mul_(0.02)


def from_pretrained(path: Path, local_files_only: bool, **options: Any) -> torch.nn.Module:
    """Stand in for `AutoModelForCausalLM.from_pretrained`: load as it does, but what is not there is drawn."""
    if any(path.glob("*.safetensors")):  # quantised weights that were kept
        return READ(path, local_files_only=local_files_only, **options)
    config = AutoConfig.from_pretrained(path, local_files_only=local_files_only)
    kind = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    with torch.device("meta"):
        drawn = {name: Drawn(parameter.shape) for name, parameter in kind(config).named_parameters()}
    model = kind.from_pretrained(None, config=config, state_dict=drawn, **options)
    model.name_or_path = model.config.name_or_path = str(path)
    return model


def make_model(folder: Path, name: str, source: str, tiny: bool, texts: list[str]) -> Path:
    """Write configuration and tokenizer of a model into `folder`, and return its record, as `fetch_model` writes it."""
    config, shapes, template = SHAPES[source]
    shapes = shapes | (TINY if tiny else {})
    facts = KINDS[template]
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(texts, vocab_size=VOCABULARY, special_tokens=facts["special"], show_progress=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer._tokenizer,
        bos_token=facts["bos"],
        eos_token=facts["eos"],
        pad_token=facts["pad"],
        unk_token="<unk>" if "<unk>" in facts["special"] else None,
        chat_template=facts["template"],
    )
    tokenizer.save_pretrained(folder)
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    made = config(**shapes, **ids, pad_token_id=None)
    made.architectures = [MODEL_FOR_CAUSAL_LM_MAPPING[config].__name__]
    made.save_pretrained(folder)
    record = folder.with_name(f"{folder.name}.json")
    facts = {"name": name, "source": source, "revision": None, "commit": None, "path": str(folder)}
    write_json(record, facts | {"sha256": sha256_json(shapes)})
    return record


def spread(rows: list[dict], count: int, length: Callable[[dict], int]) -> list[dict]:
    """Return the longest row and `count` - 1 others, evenly spaced, in their order."""
    longest = max(range(len(rows)), key=lambda i: length(rows[i]))
    others = [i for i in range(len(rows)) if i != longest]
    chosen = {longest, *(others[i * len(others) // (count - 1)] for i in range(count - 1))}
    return [rows[i] for i in sorted(chosen)]


def measured(function: Callable[..., Any], *arguments: Any) -> dict[str, float | None]:
    """Call the function; return its seconds and the GPU memory it took, in GB of 10^9 bytes (None without a GPU)."""
    gc.collect()
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    function(*arguments)
    return {
        "seconds": round(time.perf_counter() - start, 1),
        "peak_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2) if cuda else None,
        # What the allocator holds, with what lies free between tensors: what nvidia-smi shows, but for the context.
        "peak_reserved_gb": round(torch.cuda.max_memory_reserved() / 1e9, 2) if cuda else None,
    }


def read_study(name: str, **changed: dict) -> dict:
    """Return a study of studies/, checked and complete; `changed` are values of its tasks' sections."""
    raw = read.read_yaml(REPO / f"studies/{name}.yaml")
    for task, values in changed.items():
        raw["tasks"][task] |= values
    return read.resolve(raw, source=name)


def settings_of(workflow: Any, rule: str, **wildcards: str) -> dict[str, Any]:
    """Return what a job of a rule sees of the study with which the workflow was parsed (`_rules.parse`)."""
    given = seen(workflow.get_rule(rule))
    return copy.deepcopy(given(Wildcards(fromdict=wildcards)) if callable(given) else given)


def prepare(
    config: dict, folder: Path, sources: tuple[Path, str], rows: dict[str, int | None], tiny: bool = False
) -> tuple[Path, Path]:
    """Make data, prompts, tokenizer and audit of a study in `folder`, through the functions of scripts/.

    Args:
        config: the study, with one model.
        sources: Spider and MMLU, as on the command line.
        rows: how many of each part of the target, and of `mmlu`: the longest and others evenly spaced; None = all.
        tiny: whether the model has two layers only.

    Returns:
        The folder of the prompts, and the model record.
    """
    workflow, (model,) = parse(config), config["models"]
    data, prompts = folder / "data", folder / "prompts"
    spider, mmlu = data / "spider/source", data / "mmlu/source"
    spider.mkdir(parents=True)
    for path in sources[0].glob("*.json"):
        (spider / path.name).symlink_to(path.resolve())
    write_json(spider / "manifest.json", {})
    mmlu_task.fetch(
        settings_of(workflow, "fetch_mmlu") | {"source": sources[1], "revision": None, "sha256": None}, mmlu
    )
    schemas = {entry["db_id"]: len(compact_schema(entry)) for entry in read_json(spider / "tables.json")}

    def length(row: dict) -> int:
        if "shots" in row:
            return len(row["question"]) + len(str(row["shots"]))
        return schemas[row["db_id"]] + len(row["question"]) + len(row["query"])

    evaluated = config["training"]["eval_strategy"] != "no"
    parts = [("spider", part) for part in ("train", "test", *(["validation"] if evaluated else []))] + [
        ("mmlu", "test")
    ]
    # The tokenizer is made of each question and its SQL, and of one prompt of each database, as the study words them.
    texts, of_database = [], {}
    for task, part in (("spider", "shots"), *parts):
        file, wildcards = data / task / f"{part}.jsonl", {"task": task, "part": part}
        prepare_part(data / task / "source", part, settings_of(workflow, f"prepare_{task}", **wildcards), file)
        found, kept = read_jsonl(file), rows.get("mmlu" if task == "mmlu" else part)
        if part == "train":
            texts += [f"{row['question']}\nSQL: {row['query']}" for row in found]
            of_database = {row["db_id"]: row for row in found}
        if kept is not None:
            write_jsonl(file, spread(found, kept, length))
    given = settings_of(workflow, "render_spider", model=model, task="spider", part="train")
    told, words = spider_task.context(given, spider), REPO / workflow.globals["template_of"]("spider")
    for row in of_database.values():
        texts += [turn.text for turn in template(words)(filled(spider_task, told, row, [], given))]
    record = make_model(folder / "model", model, config["models"][model]["source"], tiny, texts)
    for task, part in parts:
        inputs = {
            "rows": data / task / f"{part}.jsonl",
            "manifest": data / task / "source/manifest.json",
            "record": record,
        }
        inputs |= {"shots": data / task / "shots.jsonl"} if task == "spider" else {}
        given = settings_of(workflow, f"render_{task}", model=model, task=task, part=part)
        render(inputs, REPO / workflow.globals["template_of"](task), given, prompts / f"{task}_{part}.jsonl")
    audited = {"prompts": prompts / "spider_train.jsonl", "record": record, "manifest": spider / "manifest.json"}
    audited |= {"rows": data / "spider/train.jsonl", "shots": data / "spider/shots.jsonl"}
    if evaluated:
        audited["validation"] = data / "spider/validation.jsonl"
        audited["validation_prompts"] = prompts / "spider_validation.jsonl"
    audit_labels(audited, settings_of(workflow, "audit_labels", model=model, task="spider"), folder / "audit.json")
    return prompts, record


def run(name: str, folder: Path, spider: Path, mmlu: str, tiny: bool) -> dict[str, Any]:
    """Train and answer with the first adapter of a study; return what it took."""
    config = read_study(name)
    workflow, (model,) = parse(config), config["models"]
    facts, training = config["models"][model], config["training"]
    run = workflow.globals["ADAPTERS"][0]["folder"]
    adapter = settings_of(workflow, "train", model=model, run=run)
    stated = memory_gb(facts, adapter["lora"], training, config["inference"])
    if torch.cuda.is_available():
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, stated * 1e9 / total))
    accumulation = min(ACCUMULATION, training["gradient_accumulation_steps"])
    adapter["training"] |= {"max_steps": STEPS, "gradient_accumulation_steps": accumulation, "logging_steps": 5}
    if training["eval_strategy"] == "steps":
        adapter["training"] |= {"eval_steps": STEPS // 2, "save_steps": STEPS // 2}
    predict = {task: settings_of(workflow, f"predict_{task}", model=model, run=run, task=task) for task in TASKS}
    if tiny:
        adapter["training"]["optim"] = "adamw_torch"
        for part in (adapter, *predict.values()):
            part["precision"] = "fp32"
        for part in predict.values():
            part["max_new_tokens"] = 4
    batch, evaluated = training["per_device_train_batch_size"], training["eval_strategy"] != "no"
    rows = {"train": STEPS * batch * accumulation, "validation": VALIDATION, "test": ANSWERS, "mmlu": ANSWERS}
    prompts, record = prepare(config, folder, (spider, mmlu), rows, tiny)

    sizes, peak = [], _fit.peak

    def peak_of(trainer: Trainer, tokens: int) -> int | None:
        """Keep what the micro-batches took by which training sizes its own."""
        found = peak(trainer, tokens)
        twice = trainer.model.get_base_model().is_gradient_checkpointing
        gb = found and round(found / 1e9, 3)
        sizes.append({"tokens": tokens, "gradient_checkpointing": twice, "peak_gb": gb})
        return found

    with (
        patch.object(AutoModelForCausalLM, "from_pretrained", from_pretrained),
        patch.object(_kept, "KEPT", folder / "quantised"),
        patch.object(_fit, "peak", peak_of),
    ):
        taken = measured(
            train,
            Plan(
                prompts=str(prompts / "spider_train.jsonl"),
                audit=str(folder / "audit.json"),
                record=str(record),
                adapter_dir=str(folder / "adapter"),
                report=str(folder / "train.json"),
                validation=str(prompts / "spider_validation.jsonl") if evaluated else None,
                tracker_dir=str(folder / "tensorboard"),
                **adapter,
            ),
        )
        report = read_json(folder / "train.json")
        result = {
            "study": name,
            "model": facts["source"],
            "precision": adapter["precision"],
            "run": run,
            "parameters": report["all_parameters"],
            "trained_parameters": report["trainable_parameters"],
            "stated_gb": round(stated, 1),
            # Of one micro-batch; null where it was more than what is stated.
            "passes": sizes,
            "train": taken
            | {
                "steps": report["steps"],
                "batch": batch,
                "gradient_accumulation_steps": accumulation,
                "gradient_accumulation_steps_of_study": training["gradient_accumulation_steps"],
                "rows": report["rows"],
                "longest_row_tokens": report["audit"]["longest_row_tokens"],
                "mean_row_tokens": _mean(prompts / "spider_train.jsonl", "prompt_tokens", "completion_tokens"),
                "train_seconds": report["train_seconds"],
                "tokens_per_second": report["tokens_per_second"],
                "losses": [entry["loss"] for entry in report["history"]],
                "eval_losses": [entry["eval_loss"] for entry in report["eval_history"]],
            },
        }
        for task in TASKS:
            answers, asked = folder / f"{task}_answers.jsonl", prompts / f"{task}_test"
            job = Job(f"{asked}.jsonl", str(record), str(folder / "adapter"), Decoding(**predict[task]))
            taken = measured(answer, job, answers, folder / f"{task}.json")
            report = read_json(folder / f"{task}.json")
            result[task] = taken | {
                "answers": report["questions"],
                "batch": report["batch_size_used"],
                "max_new_tokens": predict[task]["max_new_tokens"],
                "longest_prompt_tokens": read_json(f"{asked}.json")["prompt_tokens"]["max"],
                "mean_prompt_tokens": _mean(Path(f"{asked}.jsonl"), "prompt_tokens"),
                "answer_seconds": report["seconds"],
                "decoder": report["decoder"],
            }
            if task == "spider":
                result[task]["mean_answer_tokens"] = _mean(answers, "tokens")
    return result


def _mean(path: Path, *keys: str) -> float:
    rows = read_jsonl(path)
    return round(sum(row[key] for row in rows for key in keys) / len(rows), 1)


def main() -> int:
    """Run the studies one after the other, writing what is known after each; return 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--spider", type=Path, required=True, help="folder of Spider's JSON files; databases are not needed"
    )
    parser.add_argument("--mmlu", required=True, help="MMLU's archive or folder")
    parser.add_argument("--study", choices=STUDIES, nargs="+", default=STUDIES)
    parser.add_argument("--shapes", choices=("real", "tiny"), default="real")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.shapes == "real" and not torch.cuda.is_available():
        parser.error("no CUDA GPU is visible; --shapes tiny needs none")
    device = _model.machine()["device"]
    slug = "-".join(re.findall(r"[a-z0-9]+", device.lower()))
    out = arguments.out or REPO / f"benchmarks/results/{date.today()}-studies-{slug}.json"
    result: dict[str, Any] = {"device": device, "shapes": arguments.shapes, "versions": versions(), "studies": []}
    failed = {}
    for name in arguments.study:
        with tempfile.TemporaryDirectory() as folder:
            try:
                done = run(name, Path(folder), arguments.spider, arguments.mmlu, arguments.shapes == "tiny")
            except Exception as error:
                traceback.print_exc()
                failed[name] = f"{type(error).__name__}: {error}"
                continue
        result["studies"].append(done)
        write_json(out, result)
        print(yaml.safe_dump(done, sort_keys=False), flush=True)
    print("| study | precision | stated GB | training | answers | MMLU | steps | s a step | tokens/s | s an answer |")
    print("| --- | --- | --: | --: | --: | --: | --: | --: | --: | --: |")
    for row in result["studies"]:
        training, answers = row["train"], row["spider"]
        peaks = " | ".join(str(row[part]["peak_gb"]) for part in ("train", "spider", "mmlu"))
        print(
            f"| {row['study']} | {row['precision']} | {row['stated_gb']} | {peaks} | {training['steps']} | "
            f"{training['train_seconds'] / training['steps']:.2f} | {training['tokens_per_second']} | "
            f"{answers['answer_seconds'] / answers['answers']:.2f} |"
        )
    for name, sentence in failed.items():
        print(f"{name}: {sentence}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
