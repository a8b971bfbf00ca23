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
import statistics
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd

from common.files import UserError, read_json, read_jsonl
from llm.groups import STEP_TOKENS, alike, common_prefix
from llm.memory import Shape, gb
from llm.needs import Device, Need, Prompts, Target, answer_need, not_here, this_device, too_large, train_need
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


def shape_of(values: dict, record: Path) -> tuple[Shape | None, bool]:
    """The shape of a study's model, None if nothing is known of it, and whether it is read, not estimated."""
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
    """The exact tokens of a rendered prompts file, completions included; None where there is none.

    With `new`, the tokens of an answer at most, the groups in which the prompts are answered are found too.
    """
    if not (path.exists() and record.exists()):
        return None
    from llm.chat import load_chat  # seconds to import

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
    """The prompts of a split as the study's numbers and the mean lengths of the real data have them.

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
            apart = (subject - 1) * shared > STEP_TOKENS * config["inference"]["mmlu_max_new_tokens"]
            groups = [(subject, shared)] * subjects if apart else [(number, 0)]
        return Prompts(number, mean, 2 * mean, False, groups, 2 * mean - groups[0][1])
    shots = spider["shots"] if isinstance(spider["shots"], int) else len(spider["shots"])
    split, _, other = split.partition("_shots")
    shared = SPIDER_SHOT * int(other or shots)
    number, sql = spider["dev_questions"] or spider["counts"]["dev"], 0
    if split != "dev":
        number = sum(spider["counts"][name] for name in spider["train_files"]) - shots
        if spider["validation"]["by"] in ("rows", "database"):
            number = round(number * (1 - spider["validation"]["fraction"]))
        number = min(number, spider["train_questions"] or number)
        sql = SPIDER_SQL
    mean, longest = ((shared + own + sql) / CHARACTERS for own in (SPIDER_QUESTION, SPIDER_LONGEST))
    begun = round(shared / CHARACTERS)
    return Prompts(number, mean, round(longest), False, [(number, begun)], round(longest) - begun)


def duration(seconds: float | None) -> str:
    """Write seconds as hours and minutes, or as seconds below two minutes."""
    if seconds is None:
        return "unknown"
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours} h {rest // 60:02d} min" if seconds >= 120 else f"{max(1, round(seconds))} s"


def line(rule: str, target: Target, jobs: int, need: Need) -> dict[str, str]:
    """A row of the plan."""
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
    """The rows and the refusals of one model; `find` gives the prompts of a split."""
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
    """A row of the plan for each rule and model, and a sentence for each that cannot fit."""
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
