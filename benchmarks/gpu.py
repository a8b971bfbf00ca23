"""The speed of a study on one GPU: the reports' way and this workflow's side by side, at the shapes of an 8B model.

    python benchmarks/gpu.py --spider spider_data --mmlu mmlu_data.tar.gz [--part study ...] [--out results.json]

One CUDA GPU with 80 GB, about twenty minutes. The weights are random; prompts and rows are real ones, made by the
functions of scripts/ for studies/assignment.yaml, with a byte-level BPE tokenizer trained on the spot. Its parts, each
a process of its own, whose results are kept in the file as each ends:

    inference   benchmarks/inference.py on the study's Spider prompts: seconds, peaks, limit, equality of the answers
    training    benchmarks/training.py on rows of about 500 tokens (one solved example before each, not three)
    shared      benchmarks/training.py --shared on the rows of three studies, with all of their few-shot examples
    study       the study's own jobs: all 1,034 dev questions and 150 of MMLU with an adapter, `--answer` new tokens
                each, by `predict_spider` and `predict_mmlu` as the rules call them; MMLU one question at a time;
                training at the study's own rows (three examples) and steps, its prefix computed once; and what a
                job takes until it has a model (imports, and the reading of quantised weights that were kept)
    cards       benchmarks/cards.py on all GPUs; with one it is left out
    divided     benchmarks/divided.py likewise, on the rows of the assignment

The limit of training is what the arithmetic takes at the measured rate of a matrix product: the share of it that is
reached is the model FLOPs utilisation. The time of the whole study, base model and two adapters, is extrapolated from
these parts, and says so; the jobs of the reports' way are taken to start as ours do.
"""

import argparse
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any
from unittest.mock import patch

REPO = Path(__file__).resolve().parents[1]
PATHS = [str(REPO / part) for part in ("", "scripts", "scripts/steps", "benchmarks")]
sys.path[:0] = PATHS

import document  # noqa: E402
import shapes  # noqa: E402
import torch  # noqa: E402

from common.files import read_json, read_jsonl, write_json  # noqa: E402
from llm.chat import load_chat  # noqa: E402

# What the steps of a study import that load a model.
LOADERS = {"train": "llm.training", "predict": "llm.answering"}
STARTS = 3
PARTS = ("inference", "training", "shared", "study", "cards", "divided")
STUDY = "assignment"
SHARED = (STUDY, "cunha", "freitas")
# Rows of training that are rendered, evenly spaced over the split: enough for every measured step.
ROWS, ADAPTERS = 512, 2


def make_data(folder: Path, spider: Path, mmlu: str) -> Path:
    """Write the token ids of a study's prompts and rows, and how many there are of all; return the file."""
    data: dict[str, Any] = {}
    rows = {"train": ROWS, "validation": shapes.VALIDATION}
    others = [(name, shapes.read_study(name)) for name in SHARED[1:]]
    own = [(key, shapes.read_study(STUDY, spider={"shots": shots})) for key, shots in
           (("train", ["train_spider-00001"]), ("study_train", 3))]  # fmt: skip
    for key, config in (*others, *own):
        prompts, record = shapes.prepare(config, folder / key, (spider, mmlu), rows)
        chat = load_chat(read_json(record))
        pairs = [chat.encode(row["prompt"], row["completion"]) for row in read_jsonl(prompts / "spider_train.jsonl")]
        lengths = [len(prompt) + len(completion) for prompt, completion in pairs]
        data[f"{key}_mean_tokens"] = statistics.mean(lengths)
        data[f"{key}_rows"] = read_json(folder / key / "data/spider/train.json")["rows"]
        # Of every length in each step.
        random.Random(0).shuffle(pairs)
        data[key] = pairs
    data["shared"] = {STUDY: data["study_train"], **{name: data.pop(name) for name in SHARED[1:]}}
    for task in shapes.TASKS:
        data[task] = [chat.encode(row["prompt"])[0] for row in read_jsonl(prompts / f"{task}_test.jsonl")]
    training = config["training"]
    data["epochs"] = training["num_train_epochs"]
    data["batch"] = [training["per_device_train_batch_size"], training["gradient_accumulation_steps"]]
    data["prompts"], data["record"] = str(prompts), str(record)
    file = folder / "data.json"
    file.write_text(json.dumps(data))
    return file


def study(data: dict, answer: int) -> dict[str, Any]:
    """Measure the study's own jobs, as this file's text says."""
    import training
    from datasets import Dataset
    from inference import make_model, plain, quantise, timed
    from peft import get_peft_model

    from llm.answering import Job, predict
    from llm.decoding import Decoding
    from llm.load import fuse_kernels
    from llm.options import lora_config
    from study.unfold import BASE

    config = shapes.read_study(STUDY)
    (model,) = config["models"]
    workflow = shapes.parse(config)

    def decoding(task: str) -> dict[str, Any]:
        return shapes.settings_of(workflow, f"predict_{task}", model=model, run=BASE, task=task)

    rows = Dataset.from_list(
        [
            {"input_ids": prompt + completion, "labels": [training.IGNORED] * len(prompt) + completion}
            for prompt, completion in data["study_train"]
        ]
    )
    found: dict[str, Any] = {}
    eight = quantise(make_model())
    new = decoding("mmlu")["max_new_tokens"]
    middle = sorted(data["mmlu"], key=len)[len(data["mmlu"]) // 2 :][:4]
    plain(eight, middle[:1], new)
    found["mmlu_recipe_seconds"] = [timed(lambda p=p, m=eight: plain(m, [p], new), 1)[0] for p in middle[1:]]
    found["train_recipe"], eight = training.measure(eight, "nf4", "reports: TRL, 1 row a pass", 1, 4, 5, rows=rows)
    fuse_kernels(eight)
    own = {"rows": rows, "shared": True}
    found["train"], eight = training.measure(eight, "nf4", "faithful", *data["batch"], 5, "faithful", **own)
    # An adapter to answer with, as the study has them.
    folder = Path(tempfile.mkdtemp())
    adapter = shapes.settings_of(
        workflow, "train", model=workflow.globals["ADAPTERS"][0]["model"], run=workflow.globals["ADAPTERS"][0]["folder"]
    )
    adapted = get_peft_model(eight, lora_config(adapter["lora"], eight))
    adapted.save_pretrained(folder)
    del eight, adapted
    torch.cuda.empty_cache()
    kept = folder / "quantised"
    found["start_seconds"] = {step: starts(step, data["record"], kept) for step in LOADERS}
    with (
        patch.object(shapes.AutoModelForCausalLM, "from_pretrained", shapes.from_pretrained),
        patch.object(shapes._kept, "KEPT", kept),
    ):
        for task in shapes.TASKS:
            given = decoding(task) | {"batch_size": "auto"}
            if task == "spider":
                given["max_new_tokens"] = answer
            job = Job(f"{data['prompts']}/{task}_test.jsonl", data["record"], str(folder), Decoding(**given))
            taken = shapes.measured(predict, job, folder / f"{task}.jsonl", folder / f"{task}.json")
            report = read_json(folder / f"{task}.json")
            found[task] = taken | {
                "questions": report["questions"],
                "batch": report["batch_size_used"],
                "max_new_tokens": given["max_new_tokens"],
                "answer_seconds": report["seconds"],
                "mean_prompt_tokens": statistics.mean(map(len, data[task])),
            }
    return found


def starts(step: str, record: str, kept: Path, precision: str = "nf4") -> list[float]:
    """The seconds from the start of a process until it has loaded a model, whose quantised weights are `kept`.

    The first process is not counted: it reads the libraries from the disk, and draws, quantises and keeps the weights
    if they are not there yet.
    """
    load = f"load_model(json.load(open({record!r})), {precision!r})"
    seconds = []
    begin = f"import gc, json, sys; gc.disable(); sys.path[:0] = {PATHS!r}; from pathlib import Path; "
    begin += f"import {LOADERS[step]}; from llm import kept; from llm.load import load_model; "
    begin += f"kept.KEPT = Path({str(kept)!r}); "
    drawn = "import shapes; shapes.AutoModelForCausalLM.from_pretrained = shapes.from_pretrained; "
    for more in (drawn, *[""] * STARTS):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", begin + more + load], check=True, cwd=REPO)
        seconds.append(time.perf_counter() - begun)
    return seconds[1:]


def extrapolate(parts: dict, data: dict) -> dict[str, float]:
    """Return the hours of the whole study, base and `ADAPTERS` adapters, in the reports' way and in this one."""
    answered, own = parts["inference"], parts["study"]
    recipe = next(row for row in answered["rows"] if row["batch"] == 1)["seconds_a_prompt"]
    tokens = data["study_train_rows"] * data["study_train_mean_tokens"] * data["epochs"]
    models = 1 + ADAPTERS
    questions, knowledge = own["spider"]["questions"], own["mmlu"]["questions"]
    train, predict = (statistics.median(own["start_seconds"][step]) for step in LOADERS)
    started = ADAPTERS * train + 2 * models * predict
    reports = {
        "training": ADAPTERS * tokens / own["train_recipe"]["tokens_per_second"],
        "text-to-SQL": models * questions * recipe,
        "MMLU": models * knowledge * statistics.median(own["mmlu_recipe_seconds"]),
        "start of all jobs": started,
    }
    ours = {
        "training": ADAPTERS * tokens / own["train"]["tokens_per_second"],
        "text-to-SQL": models * own["spider"]["answer_seconds"],
        "MMLU": models * own["mmlu"]["answer_seconds"],
        "start of all jobs": started,
    }
    return {
        "adapters": ADAPTERS,
        "training_tokens_an_adapter": tokens,
        "reports_hours": {key: seconds / 3600 for key, seconds in reports.items()},
        "ours_hours": {key: seconds / 3600 for key, seconds in ours.items()},
        "ratio": sum(reports.values()) / sum(ours.values()),
    }


def markdown(result: dict) -> str:
    """Return the tables for people, of the parts that are there."""
    blocks, parts = [f"{result['device']}, PyTorch {result['torch']}\n"], result["parts"]
    if "training" in parts:
        blocks.append(document.trained("training", parts["training"]["rows"]))
    if "shared" in parts:
        heads = ("training, few-shot rows", "rows a step", "tokens a second (spread)", "times whole rows", "peak GiB")
        blocks.append(document.table(heads, 1, (
            (document.named(row), str(row["rows_per_step"]), document.rate(row),
             f"{row['times_whole']:.2f}" if "times_whole" in row else "", f"{row['peak_gib']:.1f}")
            for row in parts["shared"]["rows"]
        )))  # fmt: skip
    if "inference" in parts:
        blocks.append(document.answered("answering", parts["inference"]["rows"]))
        blocks.append(document.table(("answers compared", "rows", "differing", "tied within rounding"), 1, (
            (f"{document.named(row)}, with {row['compared_with']}", str(row["rows"]), str(row["differing"]),
             str(row["tied"]))
            for row in parts["inference"]["equality"]
        )))  # fmt: skip
    if "whole_study" in result:
        whole = result["whole_study"]
        head = f"hours of the assignment study, base and {whole['adapters']} adapters, extrapolated"
        total = [sum(whole[side].values()) for side in ("reports_hours", "ours_hours")]
        rows = [
            (key, f"{hours:.2f}", f"{whole['ours_hours'][key]:.2f}") for key, hours in whole["reports_hours"].items()
        ]
        rows.append(("all", f"{total[0]:.1f}", f"{total[1]:.2f}"))
        blocks.append(document.table((head, "the reports' way", "this workflow"), 1, rows))
    return "\n".join(blocks)


def main() -> int:
    """Run the parts one after the other, keeping what each found; return 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spider", type=Path, required=True, help="folder of Spider's JSON files")
    parser.add_argument("--mmlu", required=True, help="MMLU's archive or folder")
    parser.add_argument("--part", choices=PARTS, nargs="+", default=PARTS, help="what to measure; the rest is kept")
    parser.add_argument("--compare", type=int, default=16, help="answers compared one by one")
    parser.add_argument("--steps", type=int, default=5, help="steps of each way of training, the first two not counted")
    parser.add_argument("--answer", type=int, default=64, help="new tokens of each answer")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("no CUDA GPU is visible")
    device, count = torch.cuda.get_device_name(0), torch.cuda.device_count()
    slug = "-".join(re.findall(r"[a-z0-9]+", device.lower()))
    out = given.out or REPO / f"benchmarks/results/{date.today()}-{slug}.json"
    result = read_json(out) if out.exists() else {"device": device, "torch": torch.__version__, "parts": {}}
    failed = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = make_data(folder, given.spider, given.mmlu)
        data = read_json(file)
        result["data"] = {key: value for key, value in data.items() if isinstance(value, int | float)}
        rows, steps, gpus = ["--data", str(file)], ["--steps", str(given.steps)], ["--gpus", str(count)]
        more = {"inference": [*rows, "--compare", str(given.compare)], "training": [*rows, *steps], "cards": gpus}
        more |= {"shared": [*rows, *steps, "--shared"], "divided": [*rows, *gpus]}
        for part in given.part:
            if part in ("cards", "divided") and count < 2:
                print(f"== {part}: left out, one GPU is visible", flush=True)
                continue
            own = folder / f"{part}.json"
            if part == "study":
                command = [sys.executable, "-c", f"import gpu, json, pathlib; data = json.load(open({str(file)!r})); "
                           f"gpu.write_json(pathlib.Path({str(own)!r}), gpu.study(data, {given.answer}))"]  # fmt: skip
            else:
                script = "training" if part == "shared" else part
                command = [sys.executable, str(REPO / f"benchmarks/{script}.py"), "--out", str(own), *more[part]]
            print(f"== {part}", flush=True)
            code = subprocess.run(command, cwd=REPO / "benchmarks").returncode
            if code:
                failed.append(part)
            if own.exists() and not code:
                result["parts"][part] = read_json(own)
                if {"inference", "study"} <= result["parts"].keys():
                    result["whole_study"] = extrapolate(result["parts"], data)
                write_json(out, result)
    table = markdown(result)
    out.with_suffix(".md").write_text(table, encoding="utf-8")
    print(table)
    for part in failed:
        print(f"{part}: failed, see above.")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
