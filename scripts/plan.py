"""What a study will need before it is run: memory, tokens and time of its GPU jobs; exit code 1 if one cannot fit.

    python scripts/plan.py [--configfile studies/<name>.yaml] [--config face=as_reported] [--memory-gb 24]

The study is read as `snakemake` reads it. Sizes are those of the model's config.json where the model has been fetched
or is a local folder, else those of a model of so many `parameters` that is proportioned like Llama 3 8B ("~"). Memory
is estimated as scripts/llm/memory.py says. Tokens are counted where the prompts have been rendered

    snakemake --cores all --configfile ... --until render_spider render_mmlu

and else estimated ("~") from the numbers of questions and the mean lengths of Spider's and MMLU's prompts.

Times come from two rates of the device that is visible here, a matrix product and a copy, measured in a few seconds and
kept in results/calibration.json (delete it to measure again). They are the least time in which the device could do the
job, times what this workflow was measured to need of that. Expect them to be right within a factor of two on a GPU. A
CPU's are rougher still.

With --memory-gb the study is planned for a GPU of that size which is not here; its times are unknown.
"""

import argparse
import json
import math
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from common.files import UserError, read_json, read_jsonl, write_json
from llm import memory as _memory
from llm.memory import Shape, gb
from study import config as _config

ROOT = Path(__file__).parents[1]
CALIBRATION = Path("results/calibration.json")
# Characters on the real data, compact schema: of a solved Spider example, of a question with its schema (mean and
# longest), of its SQL; of an MMLU question. And characters a token: 3,100 of Spider are about 900 tokens of Llama 3.
SPIDER_SHOT, SPIDER_QUESTION, SPIDER_LONGEST, SPIDER_SQL = 777, 760, 4400, 130
MMLU_QUESTION = 300
# Of a row of auxiliary_train, most of which have a passage to read: assumed, not measured.
REPLAYED = 1600
CHARACTERS = 3.4
# Times the least time, as benchmarks/results has it: answering; training in optimizer steps of `LARGE_STEP` tokens and
# more, and in smaller ones.
ANSWERING, TRAINING, TRAINING_SMALL = 2.3, 1.9, 4.2
LARGE_STEP = 7000
CPU_ROWS = 32
# Tokens in one forward pass of the prompts, and those that take the time of one step:
# `llm.prefix_engine.PREFILL_TOKENS` and `STEP_TOKENS` (importing these takes seconds).
AT_ONCE, STEP = 16384, 256
ROUND = 64


@dataclass
class Device:
    """What jobs run on: its memory in bytes, and its rates (operations and bytes a second), {} where unknown."""

    name: str
    memory: float
    cuda: bool
    flops: dict[str, float]
    bandwidth: float | None


@dataclass
class Prompts:
    """How many prompts, and their tokens: in the mean and of the longest.

    Of those to be answered also `groups`, the number of prompts of each group that is answered together and with how
    many tokens all of it begin, and `rest`, the tokens of the longest prompt without its beginning.
    """

    count: int
    mean: float
    longest: int
    counted: bool
    groups: list[tuple[int, int]] = field(default_factory=list)
    rest: int = 0


def rate(function: Callable[[], Any], wait: Callable[[], None], work: float) -> float:
    """Return `work` a second: the median of five calls, after one that is not counted."""
    seconds = []
    for _ in range(6):
        wait()
        start = time.perf_counter()
        function()
        wait()
        seconds.append(time.perf_counter() - start)
    return work / statistics.median(seconds[1:])


def this_device(calibration: Path) -> Device:
    """Return the first visible GPU, or this CPU with two threads, and keep its rates in the file `calibration`."""
    import torch

    cuda = torch.cuda.is_available()
    if cuda:
        name, memory = torch.cuda.get_device_name(0), float(torch.cuda.mem_get_info(0)[1])
    else:
        torch.set_num_threads(2)  # as the rules have it
        name, memory = "cpu, 2 threads", float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    known = read_json(calibration) if calibration.exists() else {}
    if name not in known:
        where, wait = ("cuda", torch.cuda.synchronize) if cuda else ("cpu", lambda: None)
        side, copied = (8192, 2**30) if cuda else (1024, 2**27)
        flops = {}
        for precision, dtype in (("fp32", torch.float32), *([("bf16", torch.bfloat16)] if cuda else [])):
            a, b = (torch.randn(side, side, device=where, dtype=dtype) for _ in range(2))
            flops[precision] = rate(lambda a=a, b=b: a @ b, wait, 2 * side**3)
        source = torch.empty(copied, dtype=torch.uint8, device=where)
        target = torch.empty_like(source)
        known[name] = {"flops": flops, "bandwidth": rate(lambda: target.copy_(source), wait, 2 * copied)}
        write_json(calibration, known)
    return Device(name, memory, cuda, known[name]["flops"], known[name]["bandwidth"])


def shape_of(values: dict, record: Path) -> tuple[Shape | None, bool]:
    """Return the shape of a study's model, None if nothing is known of it, and whether it is read, not estimated."""
    folder = Path(read_json(record)["path"] if record.exists() else values["source"])
    if (folder / "config.json").is_file():
        config = read_json(folder / "config.json")
        try:
            return Shape.of(config), True
        except KeyError as error:
            print(f"{folder}/config.json: has no {error}; estimated by parameters.", file=sys.stderr)
    if values["parameters"] is None:
        return None, False
    return Shape.like(values["parameters"] * 1e9, values["vocabulary"]), False


def count(path: Path, record: Path, new: int = 0) -> Prompts | None:
    """Return the exact tokens of a rendered prompts file, completions included; None where there is none.

    With `new`, the tokens of an answer at most, the groups in which the prompts are answered are found too.
    """
    if not (path.exists() and record.exists()):
        return None
    from llm.chat import load_chat  # seconds to import
    from llm.groups import alike, common_prefix

    chat = load_chat(read_json(record))
    pairs = (chat.encode(row["prompt"], row.get("completion", "")) for row in read_jsonl(path))
    encoded = [[*prompt, *completion] for prompt, completion in pairs]
    lengths = [len(ids) for ids in encoded]
    found = Prompts(len(lengths), statistics.mean(lengths), max(lengths), True)
    for group in alike(encoded, new) if new else ():
        shared = len(common_prefix([encoded[i] for i in group]))
        found.groups.append((len(group), shared))
        found.rest = max(found.rest, *(lengths[i] - shared for i in group))
    return found


def estimate(config: dict, split: str) -> Prompts:
    """Return the prompts of a split as the study's numbers and the mean lengths of the real data have them.

    The split dev_shots5 is dev with five examples.
    """
    spider, mmlu = config["spider"], config["mmlu"]
    if split == "replay":
        return Prompts(config["replay"]["questions"], REPLAYED / CHARACTERS, config["training"]["max_length"], False)
    if split == "mmlu":
        subjects = sum(map(len, mmlu["categories"].values()))
        # All of a subject's questions: 14,042 of 57 subjects.
        each = mmlu["questions_per_category"]
        number = round(14_042 / 57 * subjects) if each is None else each * len(mmlu["categories"])
        mean, shared = (round(MMLU_QUESTION * shown / CHARACTERS) for shown in (1 + mmlu["shots"], mmlu["shots"]))
        groups = [(number, shared)]
        if mmlu["shots_from"] == "own_dev":  # a subject's questions share its examples
            subject = round(number / subjects)
            apart = (subject - 1) * shared > STEP * config["inference"]["mmlu_max_new_tokens"]
            groups = [(subject, shared)] * subjects if apart else [(number, 0)]
        return Prompts(number, mean, 2 * mean, False, groups, 2 * mean - groups[0][1])
    shots = spider["shots"] if isinstance(spider["shots"], int) else len(spider["shots"])
    split, _, other = split.partition("_shots")
    shared = SPIDER_SHOT * int(other or shots)
    if split == "dev":
        number = spider["dev_questions"] or spider["counts"]["dev"]
        sql = 0
    else:
        number = sum(spider["counts"][name] for name in spider["train_files"]) - shots
        if spider["validation"]["by"] in ("rows", "database"):
            number = round(number * (1 - spider["validation"]["fraction"]))
        number = min(number, spider["train_questions"] or number)
        sql = SPIDER_SQL
    mean, longest = ((shared + own + sql) / CHARACTERS for own in (SPIDER_QUESTION, SPIDER_LONGEST))
    begun = round(shared / CHARACTERS)
    return Prompts(number, mean, round(longest), False, [(number, begun)], round(longest) - begun)


def with_replay(prompts: Prompts, replayed: Prompts, fraction: float) -> Prompts:
    """Return the prompts of a training that mixes in a fraction of replayed rows."""
    number = math.ceil(fraction * prompts.count)
    total = prompts.count + number
    mean = (prompts.count * prompts.mean + number * replayed.mean) / total
    longest = max(prompts.longest, replayed.longest)
    return Prompts(total, mean, longest, prompts.counted and replayed.counted)


def training_rows(prompts: Prompts, training: dict) -> float:
    """Return how many rows a training passes through the model."""
    rows = prompts.count * training["num_train_epochs"]
    if training["max_steps"] > 0:
        rows = training["max_steps"] * training["per_device_train_batch_size"] * training["gradient_accumulation_steps"]
    return rows


def training_seconds(
    device: Device, shape: Shape, precision: str, tokens: float, step: float, checkpointing: bool
) -> float | None:
    """Return the time of a training: forward, and backward to the activations only, 2 operations a weight and token.

    Args:
        device, shape, precision: what trains.
        tokens: in all.
        step: tokens in an optimizer step.
        checkpointing: whether the blocks' forward pass is computed twice.
    """
    flops = device.flops.get("fp32" if precision == "fp32" else "bf16")
    if flops is None:
        return None
    operations = (6 if checkpointing else 4) * shape.block_parameters
    return (TRAINING if step >= LARGE_STEP else TRAINING_SMALL) * tokens * operations / flops


def answering_seconds(device: Device, shape: Shape, precision: str, prompts: Prompts, rows: int, new: int):
    """Return the time of answering if every answer is of the longest: see `limit` in benchmarks/inference.py."""
    flops = device.flops.get("fp32" if precision == "fp32" else "bf16")
    if flops is None or not device.bandwidth:
        return None
    shared, e = sum(number * beginning for number, beginning in prompts.groups), _memory.element(precision)
    own = prompts.count * prompts.mean - shared
    prefill = 2 * shape.block_parameters * (own + sum(beginning for _, beginning in prompts.groups)) / flops
    batches = sum(math.ceil(number / rows) for number, _ in prompts.groups)  # none has prompts of two groups
    cache = prompts.count * _memory.row(shape, round(own / prompts.count + new), e)
    read = batches * _memory.weights(shape, precision) + cache
    return ANSWERING * (prefill + new * read / device.bandwidth)


def remedies(
    model: str, precision: str, lora: dict, training: dict, shape: Shape, tokens: int, memory: float, cuda: bool
):
    """Return the changes that need less memory, each by itself and then all, with what they need; and if all fit."""

    def total(precision: str = precision, tokens: int = tokens, **changed) -> float:
        settings = {"precision": precision, "lora": lora, "training": {**training, **changed}}
        return sum(_memory.training(shape, settings, tokens, cuda).values())

    batch = training["per_device_train_batch_size"]
    accumulated = training["gradient_accumulation_steps"]
    tried: dict[str, dict] = {}
    # On a GPU both are done where they must be.
    if not cuda and not training["gradient_checkpointing"]:
        tried["training.gradient_checkpointing: true"] = {"gradient_checkpointing": True}
    if not cuda and batch > 1:
        text = f"training.per_device_train_batch_size: 1, gradient_accumulation_steps: {batch * accumulated}"
        tried[text] = {"per_device_train_batch_size": 1}
    if cuda and precision != "nf4":
        tried[f"models.{model}.precision: nf4"] = {"precision": "nf4"}
    shorter = f"a max_length of {tokens // 2} with fewer spider.shots, or prompt.schema: compact"
    tried[shorter] = {"tokens": tokens // 2}
    if training["eval_strategy"] != "no" and training["per_device_eval_batch_size"] > 1:
        tried["training.per_device_eval_batch_size: 1"] = {"per_device_eval_batch_size": 1}
    tried = {text: changed for text, changed in tried.items() if total(**changed) < total()}
    found = [(text, total(**changed)) for text, changed in tried.items()]
    every = total(**{key: value for changed in tried.values() for key, value in changed.items()})
    return [*found, ("all of these", every)], every <= memory


def duration(seconds: float | None) -> str:
    """Write seconds as hours and minutes, or as seconds below two minutes."""
    if seconds is None:
        return "unknown"
    if seconds < 120:
        return f"{max(1, round(seconds))} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"


def plan(config: dict, device: Device, results: Path) -> tuple[list[dict[str, str]], list[str]]:
    """Return a row of the plan for each rule and model, and a sentence for each that cannot fit."""
    rows, refused = [], []
    settings = _config.settings(config)
    for model, values in config["models"].items():
        record, precision = results / "data/models" / f"{model}.json", values["precision"]
        shape, read = shape_of(values, record)
        if shape is None:
            refused.append(
                f"models.{model}: its size is not known. Add its `parameters`, in billions, or fetch it: "
                f"snakemake --cores 1 {record}"
            )
            continue
        optims = {one["training"]["optim"] for one in settings["train"][model].values()}
        special = [f"training.optim: {one}" for one in optims if any(p in one for p in ("8bit", "32bit", "paged"))]
        if not device.cuda:
            needs = [*([f"models.{model}.precision: nf4"] if precision == "nf4" else []), *special]
            refused += [
                f"{one} needs a CUDA GPU and none is visible. For another machine add --memory-gb." for one in needs
            ]
        size = f"{'' if read else '~'}{shape.parameters / 1e9:.3g} B {precision}"

        def line(rule, jobs, prompts, total, memory, seconds, model=model, size=size):
            mark = "" if prompts.counted else "~"
            rows.append(
                {
                    "Rule": rule,
                    "Model": model,
                    "Size": size,
                    "Jobs": str(jobs),
                    "Tokens of the longest": f"{mark}{prompts.longest:,}",
                    "Tokens a job": f"{mark}{total:,.0f}",
                    "Memory GB": gb(memory),
                    "Time a job": duration(seconds),
                    "Time of all": duration(None if seconds is None else seconds * jobs),
                }
            )

        rendered = results / "runs" / model / "prompts"
        spider = count(rendered / "train.jsonl", record) or estimate(config, "train")
        replayed = None
        if any("replay" in one for one in settings["train"][model].values()):
            replayed = count(rendered / "replay.jsonl", record) or estimate(config, "replay")
        jobs = list(settings["train"][model].items())
        each = []
        for name, one in jobs:
            lora, training, replay = one["lora"], one["training"], one.get("replay")
            prompts = with_replay(spider, replayed, replay["fraction"]) if replay else spider
            tokens = min(prompts.longest, training["max_length"])
            need = _memory.training(shape, one, tokens, device.cuda)
            mean = min(prompts.mean, training["max_length"])
            total = training_rows(prompts, training) * mean
            step = mean * training["per_device_train_batch_size"] * training["gradient_accumulation_steps"]
            twice = training["gradient_checkpointing"]
            if device.cuda:  # only where it must be
                once = _memory.training_activations(shape, precision, lora, tokens, checkpointing=False)
                twice = sum(need.values()) - need["activations"] + once > device.memory
            # With a KL term, each replayed row goes through the model a second time, and through the base.
            again = 1.5 * (total - total * spider.count * spider.mean / (prompts.count * prompts.mean))
            passed = total + (again if replay and replay["kl"] else 0)
            seconds = training_seconds(device, shape, precision, passed, step, twice)
            each.append((sum(need.values()), total, seconds, prompts))
            if each[-1][0] > device.memory and not any(f"train {model}" in text for text in refused):
                parts = ", ".join(f"{part} {gb(size)}" for part, size in need.items())
                changes, fits = remedies(model, precision, lora, training, shape, tokens, device.memory, device.cuda)
                listed = "".join(f"\n    {text}: {gb(least)} GB" for text, least in changes)
                refused.append(
                    f"train {model}/{name}: needs {gb(each[-1][0])} GB ({parts}), {device.name} has "
                    f"{gb(device.memory)}. What it would need with{listed}"
                    + ("" if fits else "\n    A larger GPU, or a smaller model, is needed.")
                )
        longest = max(each, key=lambda one: one[1])
        line("train", len(jobs), longest[3], longest[1], max(one[0] for one in each), longest[2])

        own = _config.own_prompts(config)
        asked = Counter(own.get(variant, "dev") for variant in settings["predict_spider"][model])
        for task, split, runs in (
            *(("spider", *item) for item in asked.items()),
            ("mmlu", "mmlu", len(settings["predict_mmlu"][model])),
        ):
            answer = settings[f"predict_{task}"][model][_config.BASE]
            new = answer["max_new_tokens"]
            prompts = count(rendered / f"{split}.jsonl", record, new) or estimate(config, split)
            tokens = -(-(prompts.rest + new) // ROUND) * ROUND
            shared = max(beginning for _, beginning in prompts.groups)

            def memory(number: int, shape=shape, tokens=tokens, shared=shared, precision=precision) -> float:
                prefix = _memory.row(shape, shared, _memory.element(precision))
                return _memory.answering(shape, precision, number, tokens, AT_ONCE) + prefix

            number = answer["batch_size"]
            if number == "auto" and not device.cuda:
                number = CPU_ROWS
            elif number == "auto":  # as many as fit
                number = next((n for n in range(512, 0, -1) if memory(n) <= device.memory), 1)
            number = min(number, prompts.count)
            if memory(1) > device.memory:
                refused.append(
                    f"predict_{task} {model}: needs {gb(memory(1))} GB for one prompt at a time, {device.name} has "
                    f"{gb(device.memory)}. Set models.{model}.precision to nf4, or use a larger GPU."
                )
            # A batch that is too large for a GPU is halved until it fits.
            while device.cuda and number > 1 and memory(number) > device.memory:
                number //= 2
            seconds = answering_seconds(device, shape, precision, prompts, number, new)
            rule = f"predict_{task}" if split in ("dev", "mmlu") else f"predict_{task} ({split})"
            line(rule, runs, prompts, prompts.count * prompts.mean, memory(number), seconds)
    return rows, refused


def main(arguments: list[str] | None = None) -> int:
    """Print the plan; return 1 if something cannot fit, or the study is none, and say why on stderr."""
    from snakemake.cli import parse_config

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configfile", type=Path, default=Path("config.yaml"), help="the study")
    parser.add_argument("--config", nargs="+", default=[], metavar="KEY=VALUE", help="as for snakemake")
    parser.add_argument("--memory-gb", type=float, help="plan for a GPU with so much memory, in GB of 10^9 bytes")
    given = parser.parse_args(arguments)
    try:
        try:
            raw = yaml.safe_load(given.configfile.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise UserError(f"{given.configfile}: not YAML ({error}).") from None
        if not isinstance(raw, dict):
            raise UserError(f"{given.configfile}: found no keys, expected a study. See config.yaml.")
        smoke, schema = (_config.read_schema(ROOT / "rules" / name) for name in ("smoke.yaml", "config.schema.yaml"))
        overrides = _config.retype(json.loads(json.dumps(parse_config(given.config))))
        config = _config.resolve(raw, overrides, smoke, schema, given.configfile.name)
        if given.memory_gb:
            device = Device("a GPU that is not here", given.memory_gb * 1e9, True, {}, None)
        else:
            device = this_device(CALIBRATION)
        rows, refused = plan(config, device, Path("results") / _config.label(config))
    except (UserError, OSError, ValueError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    rates = ", ".join(f"{name} {rate / 1e12:.3g} TFLOP/s" for name, rate in device.flops.items())
    measured = f", measured: {rates}, copies {device.bandwidth / 1e9:.3g} GB/s" if device.bandwidth else ""
    print(f"{_config.label(config)} on {device.name}, {gb(device.memory)} GB{measured}\n")
    if rows:
        print(pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True))
    print("\nAll other rules: minutes on a CPU, and the downloads.")
    if not device.cuda:
        print("No GPU is visible: the times are rough ones of this CPU.")
    for sentence in refused:
        print(f"\nREFUSED: {sentence}", file=sys.stderr)
    return int(bool(refused))


if __name__ == "__main__":
    sys.exit(main())
