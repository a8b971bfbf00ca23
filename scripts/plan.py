"""What a study will need before it is run: memory, tokens and time of its GPU jobs; exit code 1 if one cannot fit.

    python scripts/plan.py [--configfile studies/<name>.yaml] [--config protocol=as_reported] [--gpu RTX4090] [--gpus 2]

Sizes are those of the model's config.json where the model has been fetched or is a local folder, else those of a model
of so many `parameters` that is proportioned like Llama 3 8B ("~"). Memory is estimated as scripts/llm/memory.py says.
Tokens are counted where the prompts have been rendered

    snakemake --cores all --configfile ... --until render_spider render_mmlu

and else estimated ("~"): of Spider, MMLU and rows to replay from the study's numbers and the mean lengths of the real
data, of any other task from its rows, if they have been prepared or lie in a small local source.

Times come from two rates of the device that is visible here, a matrix product and a copy, measured in a few seconds and
kept in results/calibration.json (delete it to measure again). They are the least time in which the device could do the
job, times what this workflow was measured to need of that, and on a GPU the start of each job. Expect them to be right
within a factor of two on a GPU; a CPU's are rougher still. With --gpu the rates are estimates for a GPU that is not
here (scripts/llm/named_gpus.py), and with --memory-gb, which plans for any GPU of that size, times are unknown. With
--gpus, so many jobs run at once.
"""

import argparse
import math
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import pandas as pd

# `custom_metrics` stands beside this folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.files import UserError, read_json, read_jsonl
from common.weights import QUANTISED
from llm import memory as _memory
from llm.groups import STEP_TOKENS
from llm.memory import CPU_ROWS, PREFILL_TOKENS, ROUND, Device, Shape, gb, this_device
from llm.named_gpus import NAMED_GPUS, named_gpu
from llm.times import LARGE_STEP, SHARED, START_S, Prompts, Target, answering_seconds, gathered, training_seconds
from study import unfold
from study.local_rows import local_rows
from study.read import as_for_snakemake
from study.unfold import BASE, label, shots_of, stage, target_of, tasks_of
from tasks.base import examples_of, filled
from tasks.mmlu import grouped
from tasks.questions import how_many, number_of
from tasks.registry import KINDS

TEMPLATES = Path(__file__).resolve().parents[1] / "resources/prompts"
CALIBRATION = Path("results/calibration.json")
# Characters on the real data, compact schema: of a Spider example with its SQL, of a question with its schema (mean and
# longest), of its SQL; of an MMLU question. And characters a token: 3,100 of Spider are about 900 tokens of Llama 3.
SPIDER_SHOT, SPIDER_QUESTION, SPIDER_LONGEST, SPIDER_SQL = 777, 760, 4400, 130
MMLU_QUESTION = 300
# Of a row of auxiliary_train, most of which have a passage to read: assumed, not measured.
REPLAYED = 1600
CHARACTERS = 3.4
# How many GPUs are proposed for a model that outgrows one.
SEVERAL = (2, 4, 8, 16)


@dataclass(frozen=True)
class Need:
    """What a job needs: tokens in all, bytes of memory, seconds."""

    prompts: Prompts
    tokens: float
    memory: float
    seconds: float


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
    """The exact tokens of a rendered prompts file, completions included, as `gathered`; None where there is none."""
    if not (path.exists() and record.exists()):
        return None
    from llm.chat import load_chat  # seconds to import

    chat = load_chat(read_json(record))
    pairs = (chat.encode(row["prompt"], row.get("completion", "")) for row in read_jsonl(path))
    return gathered([[*prompt, *completion] for prompt, completion in pairs], new)


def estimate(config: dict, task: str, part: str, new: int = 0) -> Prompts | None:
    """The prompts of a part of Spider, MMLU or rows to replay, as the study's numbers and mean lengths have them.

    The part test_shots5 is test with five few-shot examples. Of other kinds of task nothing is known: None.
    """
    section = config["tasks"][task]
    part, _, other = part.partition("_shots")
    if section["kind"] == "replay":
        return Prompts(section["questions"], REPLAYED / CHARACTERS, config["training"]["max_length"], False)
    if section["kind"] == "mmlu":
        categories, each = grouped(section["categories"]), section["questions_per_category"]
        subjects = sum(map(len, categories.values()))
        # All of a subject's questions: 14,042 of 57 subjects.
        number = round(14_042 / 57 * subjects) if each is None else each * len(categories)
        if (named := section["questions"]) is not None:
            number = number_of(named) * (subjects if isinstance(named, dict) else 1)
        mean, shared = (round(MMLU_QUESTION * n / CHARACTERS) for n in (1 + section["shots"], section["shots"]))
        groups = [(number, shared)]
        if section["shots_from"] == "own_dev":  # a subject's questions share its examples
            alone = round(number / subjects)
            apart = (alone - 1) * shared > STEP_TOKENS * new
            groups = [(alone, shared)] * subjects if apart else [(number, 0)]
        return Prompts(number, mean, 2 * mean, False, groups, 2 * mean - groups[0][1])
    if section["kind"] != "spider":
        return None
    shots = shots_of(config, task)
    shared = SPIDER_SHOT * int(other or shots)
    number, sql = number_of(section["questions"]) or section["counts"]["dev"], 0
    if part == "train":
        number = sum(section["counts"][name] for name in section["train_files"]) - shots
        if section["validation"]["by"] in ("rows", "database"):
            number = round(number * (1 - section["validation"]["fraction"]))
        number, sql = min(number, section["train_questions"] or number), SPIDER_SQL
    mean, longest = ((shared + own + sql) / CHARACTERS for own in (SPIDER_QUESTION, SPIDER_LONGEST))
    begun = round(shared / CHARACTERS)
    return Prompts(number, mean, round(longest), False, [(number, begun)], round(longest) - begun, begun)


def sample(config: dict, task: str, part: str, new: int, data: Path) -> Prompts | None:
    """The prompts of a part of any task, rendered from its rows without a model; None if the rows are not here.

    `data` is the folder of the task's data. What is not there is made in a temporary folder from a local source.
    """
    section, kind = config["tasks"][task], KINDS[config["tasks"][task]["kind"]]
    part, _, other = part.partition("_shots")
    with local_rows(config, task, data) as found:
        if found is None:
            return None
        from llm.prompts import template  # seconds to import

        source, rows = found
        settings = stage(config, task, "prompt")
        words = (other and section.get("base_prompt")) or section["prompt"] or TEMPLATES / kind.PROMPT
        told, turns = kind.context(settings, source), template(words)
        pool, number = rows("shots") if "shots" in kind.PARTS else [], int(other or shots_of(config, task))
        texts = []
        for row in rows(part):
            shots = examples_of(kind, settings | {"shots": number}, row, pool)
            said = turns(filled(kind, told, row, shots, settings))
            texts.append("".join(turn.text for turn in said) + ("" if new else kind.target(row)))
    return gathered(texts, new, CHARACTERS)


def trained_rows(settings: dict, of: int) -> int:
    """How many of all training rows a training takes."""
    chosen = settings["training"].get("rows")
    return settings.get("rows") or (how_many(chosen, of) if chosen else of)


def train_need(target: Target, settings: dict, learnt: Prompts, replayed: Prompts | None = None) -> Need:
    """What the training of one adapter needs."""
    lora, training, replay = settings.get("lora"), settings["training"], settings.get("replay")
    prompts = learnt = replace(learnt, count=min(trained_rows(settings, learnt.count), learnt.count))
    if replay:
        number = math.ceil(replay["fraction"] * learnt.count)
        mean = (learnt.count * learnt.mean + number * replayed.mean) / (learnt.count + number)
        longest, counted = max(learnt.longest, replayed.longest), learnt.counted and replayed.counted
        prompts = Prompts(learnt.count + number, mean, longest, counted)
    tokens, mean = (min(length, training["max_length"]) for length in (prompts.longest, prompts.mean))
    need = _memory.training(target.shape, settings, tokens, target.device.cuda)
    step = mean * training["per_device_train_batch_size"] * training["gradient_accumulation_steps"]
    total = training["num_train_epochs"] * prompts.count * mean
    if training["max_steps"] > 0:
        total = training["max_steps"] * step
    twice = training["gradient_checkpointing"]
    if target.device.cuda:  # only where it must be
        once = _memory.training_activations(target.shape, target.precision, lora, tokens, checkpointing=False)
        twice = sum(need.values()) - need["activations"] + once > target.device.memory
    # With a KL term, each replayed row goes through the model a second time, and through the base.
    own = total * learnt.count * learnt.mean / (prompts.count * prompts.mean)
    again = 1.5 * (total - own)
    passed = total + (again if replay and replay["kl"] else 0)
    # In small steps a GPU waits for its host, whatever it computes.
    large = step >= LARGE_STEP or not target.device.cuda
    if training["share_prefix"] and training["loss_on"] == "completion" and large:
        saved = own * learnt.begin / learnt.mean * (1 - mean / step)
        passed = min(passed, (passed - saved) / SHARED)
    seconds = training_seconds(target, passed, step, twice, full=lora is None)
    return Need(prompts, total, sum(need.values()), seconds)


def answer_need(target: Target, prompts: Prompts, batch: int | str, new: int) -> tuple[Need, float]:
    """What answering prompts needs, in batches that fit, and the bytes of one prompt at a time."""
    device, shape, tokens = target.device, target.shape, -(-(prompts.rest + new) // ROUND) * ROUND
    prefix = _memory.row(shape, max(beginning for _, beginning in prompts.groups), _memory.element(target.precision))

    def memory(rows: int) -> float:
        return _memory.answering(shape, target.precision, rows, tokens, PREFILL_TOKENS) + prefix

    if batch == "auto" and device.cuda:  # as many as fit
        batch = next((rows for rows in range(512, 0, -1) if memory(rows) <= device.memory), 1)
    rows = min(CPU_ROWS if batch == "auto" else batch, prompts.count)
    while device.cuda and rows > 1 and memory(rows) > device.memory:  # as a batch too large for a GPU is halved
        rows //= 2
    seconds = answering_seconds(target, prompts, rows, new)
    return Need(prompts, prompts.count * prompts.mean, memory(rows), seconds), memory(1)


def too_large(target: Target, variant: str, settings: dict, need: Need, shorter: str) -> str:
    """Say that a training cannot fit, what needs the memory, and which changes, each by itself and all, need less.

    `shorter` names the keys by which prompts become shorter.
    """
    training, cuda = settings["training"], target.device.cuda
    longest = min(need.prompts.longest, training["max_length"])

    def parts(precision: str = target.precision, tokens: int = longest, **changed) -> dict[str, float]:
        given = settings | {"precision": precision, "training": training | changed}
        return _memory.training(target.shape, given, tokens, cuda)

    def total(changed: dict) -> float:
        return sum(parts(**changed).values())

    def on_gpus(count: int) -> float:
        return sum(_memory.training(target.shape, settings, longest, gpus=count).values())

    rows = training["per_device_train_batch_size"] * training["gradient_accumulation_steps"]
    batch = f"training.per_device_train_batch_size: 1, gradient_accumulation_steps: {rows}"
    tried: dict[str, dict] = {
        f"models.{target.name}.precision: nf4": {"precision": "nf4"} if cuda and "lora" in settings else {},
        "training.gradient_checkpointing: true": {"gradient_checkpointing": True},
        batch: {"per_device_train_batch_size": 1},
        f"a max_length of {longest // 2}" + (f" with {shorter}" if shorter else ""): {"tokens": longest // 2},
        "training.per_device_eval_batch_size: 1": {"per_device_eval_batch_size": 1},
    }
    # A GPU's micro-batches are as small as they must be already, and have gradient checkpointing.
    tried = {text: changed for text, changed in tried.items() if total(changed) < total({})}
    tried["all of these"] = {key: value for changed in tried.values() for key, value in changed.items()}
    found = ", ".join(f"{part} {gb(size)}" for part, size in parts().items())
    lines = [
        f"train {target.name}/{variant}: needs {gb(need.memory)} GB ({found}), {target.device.name} has "
        f"{gb(target.device.memory)}. What it would need with",
        *(f"    {text}: {gb(total(changed))} GB" for text, changed in tried.items()),
    ]
    several = next((n for n in SEVERAL if on_gpus(n) <= target.device.memory), None)
    if several and cuda and "lora" in settings and target.precision != "int8":
        lines.append(
            f"    {several} such GPUs that divide the model's layers (--set-resources train:gpu={several}): "
            f"{gb(on_gpus(several))} GB on each"
        )
    elif total(tried["all of these"]) > target.device.memory:
        less = "" if "lora" in settings else ", or an adapter in place of full fine-tuning (training.method: lora)"
        lines.append(f"    A larger GPU, or a smaller model{less}, is needed.")
    return "\n".join(lines)


def not_here(target: Target, optims: set[str], key: str = "precision") -> list[str]:
    """A sentence for each setting that a CPU cannot have."""
    if target.device.cuda:
        return []
    needs_gpu = target.precision in ("fp16", *QUANTISED)
    keys = [f"models.{target.name}.{key}: {target.precision}"] if needs_gpu else []
    keys += [f"training.optim: {one}" for one in optims if any(part in one for part in ("8bit", "32bit", "paged"))]
    return [
        f"{one} needs a CUDA GPU and none is visible. For another machine add --gpu or --memory-gb." for one in keys
    ]


def duration(seconds: float) -> str:
    """Write seconds as hours and minutes, or as seconds below two minutes."""
    if math.isnan(seconds):
        return "unknown"
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours} h {rest // 60:02d} min" if seconds >= 120 else f"{max(1, round(seconds))} s"


@dataclass
class Plan:
    """A row for each rule and model, a sentence for each that cannot fit, and the rules that render what is unknown."""

    gpus: int = 1
    rows: list[dict[str, str]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def add(self, rule: str, target: Target, jobs: int, need: Need) -> None:
        mark = "" if need.prompts.counted else "~"
        seconds = need.seconds + (START_S if target.device.cuda else 0)
        self.rows.append(
            {
                "Rule": rule,
                "Model": target.name,
                "Size": f"{'' if target.read else '~'}{target.shape.parameters / 1e9:.3g} B {target.precision}",
                "Jobs": str(jobs),
                "Tokens of the longest": f"{mark}{need.prompts.longest:,}",
                "Tokens a job": f"{mark}{need.tokens:,.0f}",
                "Memory GB": gb(need.memory),
                "Time a job": duration(seconds),
                "Time of all": duration(seconds * math.ceil(jobs / self.gpus)),
            }
        )

    def add_model(self, config: dict, target: Target, find: Callable[..., Prompts | None]) -> None:
        """Add what one model needs; `find` gives the prompts of a part of a task."""
        adapters = unfold.adapters(config).items()
        trainings = {name: unfold.training(config, target.name, one["values"]) for name, one in adapters}
        alone = replace(target, precision=unfold.loading(config["models"][target.name], base=True)["precision"])
        self.refused += not_here(target, {one["training"]["optim"] for one in trainings.values()})
        source = config["models"][target.name]["source"]
        self.refused += _memory.unquantised(source, target.name, target.shape, target.precision)
        learnt = target_of(config)
        replay = tasks_of(config, "replay") if any("replay" in one for one in trainings.values()) else []
        prompts = [find(task, "train") for task in (learnt, *replay)]
        # What is estimated is no number of rows.
        exact = all(prompts) and (prompts[0].counted or config["tasks"][learnt]["kind"] != "spider")
        for name, one in trainings.items() if exact else ():
            if (number := trained_rows(one, prompts[0].count)) > prompts[0].count:
                self.refused.append(
                    f"train {target.name}/{name}: is to take {number:,} rows, and there are {prompts[0].count:,} "
                    f"training rows. Write fewer in training.rows.count or tasks.{learnt}.train_questions."
                )
        if trainings and all(prompts):
            needs = {name: train_need(target, one, *prompts) for name, one in trainings.items()}
            if name := next((name for name, need in needs.items() if need.memory > target.device.memory), None):
                words = {"shots": f"fewer tasks.{learnt}.shots", "schema": f"tasks.{learnt}.schema: compact"}
                shorter = ", or ".join(text for key, text in words.items() if key in config["tasks"][learnt])
                self.refused.append(too_large(target, name, trainings[name], needs[name], shorter))
            longest = max(needs.values(), key=lambda need: (need.tokens, need.seconds))
            largest = max(need.memory for need in needs.values())
            self.add("train", target, len(needs), replace(longest, memory=largest))

        further = unfold.points(config)
        made = [name for name, of in unfold.ready_made(config).items() if of == target.name]
        bases = [] if "answers" in config["models"][target.name] else [BASE]
        again = [run["variant"] for run in unfold.noise(config) if run["model"] == target.name]
        every = [*bases, *trainings, *made, *further, *again]
        adapted = [name for name in every if name.partition("@")[0] != BASE]
        if alone == target:
            self.add_answers(config, target, every, find)
        else:
            self.refused += not_here(alone, set(), "base_precision")
            self.refused += _memory.unquantised(source, alone.name, alone.shape, alone.precision)
            self.add_answers(config, alone, [name for name in every if name not in adapted], find)
            self.add_answers(config, target, adapted, find)

    def add_answers(
        self, config: dict, target: Target, variants: Sequence[str], find: Callable[..., Prompts | None]
    ) -> None:
        """Add what the answers of some runs of a model need, all in one precision."""
        learnt, further = target_of(config), unfold.points(config)
        others = [name for name in variants if "shots" not in further.get(name, ())]
        jobs = []
        for task in (learnt, *tasks_of(config, "yardstick")):
            own = unfold.own_prompts(config, task)
            asked = Counter(own.get(name, "test") for name in (variants if task == learnt else others))
            jobs += [(task, *item) for item in asked.items()]
        for task, part, number in jobs:
            new, rule = config["tasks"][task]["max_new_tokens"], f"predict_{task}"
            if not (prompts := find(task, part, new)):
                continue
            need, least = answer_need(target, prompts, config["inference"]["batch_size"], new)
            if least > target.device.memory:
                several = math.ceil(least / (0.9 * target.device.memory))
                self.refused.append(
                    f"{rule} {target.name}: needs {gb(least)} GB for one prompt at a time, {target.device.name} "
                    f"has {gb(target.device.memory)}. Set models.{target.name}.precision to nf4, use a larger GPU, or "
                    f"{several} of them (--set-resources {rule}:gpu={several})."
                )
            self.add(rule if part == "test" else f"{rule} ({part})", target, number, need)


def plan(config: dict, device: Device, results: Path, gpus: int = 1) -> Plan:
    """What each model of a study needs, where `gpus` jobs run at once."""
    found = Plan(gpus)
    # The same for all models.
    sampled = cache(lambda task, part, new: sample(config, task, part, new, results / "data" / task))
    for model in unfold.asked_models(unfold.runs(config)):
        values = config["models"][model]
        record = results / "models" / f"{model}.json"
        shape, read = shape_of(values, record)
        if shape is None:
            found.refused.append(
                f"models.{model}: its size is not known. Add its `parameters`, in billions, or fetch it: "
                f"snakemake --cores 1 {record}"
            )
            continue

        def find(task: str, part: str, new: int = 0, model=model, record=record) -> Prompts | None:
            counted = count(results / "prompts" / model / f"{task}_{part}.jsonl", record, new)
            known = counted or estimate(config, task, part, new) or sampled(task, part, new)
            if not known and f"render_{task}" not in found.unknown:
                found.unknown.append(f"render_{task}")
            return known

        found.add_model(config, Target(model, shape, values["precision"], device, read), find)
    return found


def main(arguments: list[str] | None = None) -> int:
    """Print the plan; return 1 if something cannot fit, or the study is none, and say why on stderr."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configfile", type=Path, default=Path("config.yaml"), help="the study")
    parser.add_argument("--config", nargs="+", default=[], metavar="KEY=VALUE", help="as for snakemake")
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--gpu", choices=NAMED_GPUS, help="plan for this GPU, which is not here: times are estimates")
    other.add_argument("--memory-gb", type=float, help="plan for a GPU with so much memory, in GB of 10^9 bytes")
    parser.add_argument("--gpus", type=int, default=1, help="how many GPUs there are, with one job on each")
    given = parser.parse_args(arguments)
    try:
        config = as_for_snakemake(given.configfile, given.config)
        if given.gpus < 1:
            raise UserError(f"--gpus: found {given.gpus}, expected 1 or more.")
        if given.memory_gb is not None and not 0 < given.memory_gb < math.inf:
            raise UserError(f"--memory-gb: found {given.memory_gb:g}, expected a number above 0, such as 24.")
        if given.gpu:
            device = named_gpu(given.gpu)
        elif given.memory_gb:
            device = Device("a GPU that is not here", given.memory_gb * 1e9, cuda=True)
        else:
            device = this_device(CALIBRATION)
        found = plan(config, device, Path("results") / label(config), given.gpus)
    except (UserError, OSError, ValueError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    rates = ", ".join(f"{name} {rate / 1e12:.3g} TFLOP/s" for name, rate in device.flops.items())
    how = "estimated from its data sheet" if given.gpu else "measured"
    known = f", {how}: {rates}, copies {device.bandwidth / 1e9:.3g} GB/s" if rates else ""
    many = f"{given.gpus} x " if given.gpus > 1 else ""
    print(f"{label(config)} on {many}{device.name}, {gb(device.memory)} GB{known}\n")
    if found.rows:
        print(pd.DataFrame(found.rows).to_markdown(index=False, disable_numparse=True))
    print("\nAll other rules: minutes on a CPU, and the downloads.")
    if config["evaluation"]["repair"]:
        print(
            "Not in the table: second answers (evaluation.repair). How many there are shows when the first ones have "
            "been run: each base and each adapter is asked some of the target's questions again, at most all of them."
        )
    if not device.cuda:
        print("No GPU is visible: the times are rough ones of this CPU.")
    if found.unknown:
        print(
            "Not in the table: jobs whose prompts are neither rendered nor prepared. Render them to have them counted: "
            f"snakemake --cores all --configfile {given.configfile} --until {' '.join(found.unknown)}"
        )
    for sentence in found.refused:
        print(f"\nREFUSED: {sentence}", file=sys.stderr)
    return int(bool(found.refused))


if __name__ == "__main__":
    sys.exit(main())
