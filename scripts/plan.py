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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from common.files import UserError, read_json, read_jsonl, write_json
from llm import memory as _memory
from llm.memory import Shape, gb
from study.read import read_yaml, resolve, retype
from study.unfold import BASE, label, own_prompts, points, training, variants

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


@dataclass(frozen=True)
class Device:
    """What jobs run on: its memory in bytes, and its rates (operations and bytes a second), {} where unknown."""

    name: str
    memory: float
    cuda: bool
    flops: dict[str, float]
    bandwidth: float | None


@dataclass(frozen=True)
class Target:
    """A model in one precision on one device; `read` says whether its shape is read, not estimated."""

    name: str
    shape: Shape
    precision: str
    device: Device
    read: bool = True

    @property
    def flops(self) -> float | None:
        return self.device.flops.get("fp32" if self.precision == "fp32" else "bf16")

    def training_bytes(self, lora: dict, training: dict, tokens: int) -> dict[str, float]:
        return _memory.training(self.shape, self.precision, lora, training, tokens, self.device.cuda)

    def answering_bytes(self, rows: int, tokens: int, shared: int) -> float:
        return _memory.answering(self.shape, self.precision, rows, tokens, AT_ONCE, shared)


@dataclass
class Prompts:
    """How many prompts, and their tokens: in the mean and of the longest.

    Of those to be answered also `groups`, the number of prompts of each group that is answered together and with how
    many tokens all of it begin, and `rest`, the tokens of the longest prompt without this shared prefix.
    """

    count: int
    mean: float
    longest: int
    counted: bool
    groups: list[tuple[int, int]] = field(default_factory=list)
    rest: int = 0


@dataclass(frozen=True)
class Need:
    """What a job needs: tokens in all, bytes of memory, seconds if they can be told."""

    prompts: Prompts
    tokens: float
    memory: float
    seconds: float | None


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
    from llm.prefix_engine import alike, common_prefix

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


def training_seconds(target: Target, tokens: float, step: float, twice: bool) -> float | None:
    """Return the time of a training: forward, and backward to the activations only, 2 operations a weight and token.

    Args:
        target: what is trained, and on what.
        tokens: in all.
        step: tokens in an optimizer step.
        twice: whether the activations are computed twice (gradient checkpointing).
    """
    if target.flops is None:
        return None
    operations = (6 if twice else 4) * target.shape.block_parameters
    return (TRAINING if step >= LARGE_STEP else TRAINING_SMALL) * tokens * operations / target.flops


def answering_seconds(target: Target, prompts: Prompts, rows: int, new: int) -> float | None:
    """Return the time of answering if every answer is of the longest: see `limit` in benchmarks/inference.py."""
    if target.flops is None or not target.device.bandwidth:
        return None
    shape, element = target.shape, _memory.element(target.precision)
    shared = sum(number * beginning for number, beginning in prompts.groups)
    own = prompts.count * prompts.mean - shared
    once = sum(beginning for _, beginning in prompts.groups)
    prefill = 2 * shape.block_parameters * (own + once) / target.flops
    batches = sum(math.ceil(number / rows) for number, _ in prompts.groups)  # none has prompts of two groups
    cache = prompts.count * _memory.row(shape, round(own / prompts.count + new), element)
    read = batches * _memory.weights(shape, target.precision) + cache
    return ANSWERING * (prefill + new * read / target.device.bandwidth)


def train_need(target: Target, settings: dict, spider: Prompts, replayed: Prompts | None) -> Need:
    """Return what the training of one adapter needs."""
    lora, training, replay = settings["lora"], settings["training"], settings.get("replay")
    prompts = with_replay(spider, replayed, replay["fraction"]) if replay else spider
    need = target.training_bytes(lora, training, (tokens := min(prompts.longest, training["max_length"])))
    mean = min(prompts.mean, training["max_length"])
    total = training_rows(prompts, training) * mean
    step = mean * training["per_device_train_batch_size"] * training["gradient_accumulation_steps"]
    twice = training["gradient_checkpointing"]
    if target.device.cuda:  # only where it must be
        once = _memory.training_activations(target.shape, target.precision, lora, tokens, checkpointing=False)
        twice = sum(need.values()) - need["activations"] + once > target.device.memory
    # With a KL term, each replayed row goes through the model a second time, and through the base.
    again = 1.5 * (total - total * spider.count * spider.mean / (prompts.count * prompts.mean))
    passed = total + (again if replay and replay["kl"] else 0)
    return Need(prompts, total, sum(need.values()), training_seconds(target, passed, step, twice))


def answer_need(target: Target, prompts: Prompts, batch: int | str, new: int) -> tuple[Need, float]:
    """Return what answering prompts needs, in batches that fit, and the bytes of one prompt at a time."""
    device, tokens = target.device, -(-(prompts.rest + new) // ROUND) * ROUND
    shared = max(beginning for _, beginning in prompts.groups)

    def memory(rows: int) -> float:
        return target.answering_bytes(rows, tokens, shared)

    if batch == "auto" and device.cuda:  # as many as fit
        batch = next((rows for rows in range(512, 0, -1) if memory(rows) <= device.memory), 1)
    rows = min(CPU_ROWS if batch == "auto" else batch, prompts.count)
    # A batch that is too large for a GPU is halved until it fits.
    while device.cuda and rows > 1 and memory(rows) > device.memory:
        rows //= 2
    seconds = answering_seconds(target, prompts, rows, new)
    return Need(prompts, prompts.count * prompts.mean, memory(rows), seconds), memory(1)


def remedies(target: Target, settings: dict, tokens: int) -> tuple[list[tuple[str, float]], bool]:
    """Return the changes that need less memory, each by itself and then all, with what they need; and if all fit."""
    lora, training, cuda = settings["lora"], settings["training"], target.device.cuda

    def total(precision: str = target.precision, tokens: int = tokens, **changed) -> float:
        return sum(replace(target, precision=precision).training_bytes(lora, training | changed, tokens).values())

    batch = training["per_device_train_batch_size"]
    rows = batch * training["gradient_accumulation_steps"]
    tried: dict[str, dict] = {}
    # On a GPU both are done where they must be.
    if not cuda and not training["gradient_checkpointing"]:
        tried["training.gradient_checkpointing: true"] = {"gradient_checkpointing": True}
    if not cuda and batch > 1:
        text = f"training.per_device_train_batch_size: 1, gradient_accumulation_steps: {rows}"
        tried[text] = {"per_device_train_batch_size": 1}
    if cuda and target.precision != "nf4":
        tried[f"models.{target.name}.precision: nf4"] = {"precision": "nf4"}
    shorter = f"a max_length of {tokens // 2} with fewer spider.shots, or prompt.schema: compact"
    tried[shorter] = {"tokens": tokens // 2}
    if training["eval_strategy"] != "no" and training["per_device_eval_batch_size"] > 1:
        tried["training.per_device_eval_batch_size: 1"] = {"per_device_eval_batch_size": 1}
    tried = {text: changed for text, changed in tried.items() if total(**changed) < total()}
    every = total(**{key: value for changed in tried.values() for key, value in changed.items()})
    return [*((text, total(**changed)) for text, changed in tried.items()), ("all of these", every)], (
        every <= target.device.memory
    )


def too_large(target: Target, variant: str, settings: dict, need: Need) -> str:
    """Say that a training cannot fit, what needs the memory, and what to change."""
    tokens = min(need.prompts.longest, settings["training"]["max_length"])
    found = target.training_bytes(settings["lora"], settings["training"], tokens)
    parts = ", ".join(f"{part} {gb(size)}" for part, size in found.items())
    changes, fits = remedies(target, settings, tokens)
    return (
        f"train {target.name}/{variant}: needs {gb(need.memory)} GB ({parts}), {target.device.name} has "
        f"{gb(target.device.memory)}. What it would need with"
        + "".join(f"\n    {text}: {gb(least)} GB" for text, least in changes)
        + ("" if fits else "\n    A larger GPU, or a smaller model, is needed.")
    )


def not_here(target: Target, optims: set[str]) -> list[str]:
    """Return a sentence for each setting that a CPU cannot have."""
    if target.device.cuda:
        return []
    special = [f"training.optim: {one}" for one in optims if any(part in one for part in ("8bit", "32bit", "paged"))]
    nf4 = [f"models.{target.name}.precision: nf4"] if target.precision == "nf4" else []
    return [
        f"{one} needs a CUDA GPU and none is visible. For another machine add --memory-gb." for one in nf4 + special
    ]


def duration(seconds: float | None) -> str:
    """Write seconds as hours and minutes, or as seconds below two minutes."""
    if seconds is None:
        return "unknown"
    if seconds < 120:
        return f"{max(1, round(seconds))} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"


def line(rule: str, target: Target, jobs: int, need: Need) -> dict[str, str]:
    """Return a row of the plan."""
    mark, seconds = "" if need.prompts.counted else "~", need.seconds
    return {
        "Rule": rule,
        "Model": target.name,
        "Size": f"{'' if target.read else '~'}{target.shape.parameters / 1e9:.3g} B {target.precision}",
        "Jobs": str(jobs),
        "Tokens of the longest": f"{mark}{need.prompts.longest:,}",
        "Tokens a job": f"{mark}{need.tokens:,.0f}",
        "Memory GB": gb(need.memory),
        "Time a job": duration(seconds),
        "Time of all": duration(None if seconds is None else seconds * jobs),
    }


def plan_model(config: dict, target: Target, find: Callable[..., Prompts]) -> tuple[list[dict[str, str]], list[str]]:
    """Return the rows and the refusals of one model; `find` gives the prompts of a split."""
    chosen = {name: values for name, values in variants(config).items() if name != BASE}
    trainings = {name: training(config, target.name, values) for name, values in chosen.items()}
    refused = not_here(target, {one["training"]["optim"] for one in trainings.values()})
    replayed = find("replay") if any("replay" in one for one in trainings.values()) else None
    spider = find("train")
    needs = {name: train_need(target, one, spider, replayed) for name, one in trainings.items()}
    too_much = [name for name, need in needs.items() if need.memory > target.device.memory]
    refused += [too_large(target, name, trainings[name], needs[name]) for name in too_much[:1]]
    longest = max(needs.values(), key=lambda need: need.tokens)
    largest = max(need.memory for need in needs.values())
    rows = [line("train", target, len(needs), replace(longest, memory=largest))]

    further, own, inference = points(config), own_prompts(config), config["inference"]
    asked = Counter(own.get(variant, "dev") for variant in [BASE, *chosen, *further])
    mmlu = 1 + len(chosen) + sum("shots" not in point for point in further.values())
    for task, split, jobs in (*(("spider", *item) for item in asked.items()), ("mmlu", "mmlu", mmlu)):
        new = inference[f"{task}_max_new_tokens"]
        need, least = answer_need(target, find(split, new), inference["batch_size"], new)
        if least > target.device.memory:
            refused.append(
                f"predict_{task} {target.name}: needs {gb(least)} GB for one prompt at a time, {target.device.name} "
                f"has {gb(target.device.memory)}. Set models.{target.name}.precision to nf4, or use a larger GPU."
            )
        rule = f"predict_{task}" if split in ("dev", "mmlu") else f"predict_{task} ({split})"
        rows.append(line(rule, target, jobs, need))
    return rows, refused


def plan(config: dict, device: Device, results: Path) -> tuple[list[dict[str, str]], list[str]]:
    """Return a row of the plan for each rule and model, and a sentence for each that cannot fit."""
    rows, refused = [], []
    for model, values in config["models"].items():
        record, rendered = results / "data/models" / f"{model}.json", results / "runs" / model / "prompts"
        shape, read = shape_of(values, record)
        if shape is None:
            refused.append(
                f"models.{model}: its size is not known. Add its `parameters`, in billions, or fetch it: "
                f"snakemake --cores 1 {record}"
            )
            continue

        def find(split: str, new: int = 0, record=record, rendered=rendered) -> Prompts:
            return count(rendered / f"{split}.jsonl", record, new) or estimate(config, split)

        found = plan_model(config, Target(model, shape, values["precision"], device, read), find)
        rows += found[0]
        refused += found[1]
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
        overrides = retype(json.loads(json.dumps(parse_config(given.config))))
        config = resolve(read_yaml(given.configfile), overrides, given.configfile.name)
        if given.memory_gb:
            device = Device("a GPU that is not here", given.memory_gb * 1e9, True, {}, None)
        else:
            device = this_device(CALIBRATION)
        rows, refused = plan(config, device, Path("results") / label(config))
    except (UserError, OSError, ValueError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    rates = ", ".join(f"{name} {rate / 1e12:.3g} TFLOP/s" for name, rate in device.flops.items())
    measured = f", measured: {rates}, copies {device.bandwidth / 1e9:.3g} GB/s" if device.bandwidth else ""
    print(f"{label(config)} on {device.name}, {gb(device.memory)} GB{measured}\n")
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
