"""List the studies: model, precision, licence, adapters, tasks with their questions, memory, protocols.

    python scripts/studies.py [FILE ...]       by default config.yaml and studies/*.yaml
    python scripts/studies.py document         write anew config.yaml's comments, config.schema.json, docs/config.md
                                               and scripts/study/library_keys.json

Memory is that of the largest of its jobs, in GB of 10^9 bytes, estimated as scripts/llm/memory.py says for a model
that is proportioned like Llama 3 8B, and rows of 2,000 tokens, about the longest of Spider with three examples. Of a
study in fp32 it is a CPU's, where a micro-batch is the whole batch. `make plan` looks closer.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

# `custom_metrics` stands beside this folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.files import UserError, atomic_write, write_json
from common.terminal import nobody_reads
from llm import memory as _memory
from llm.memory import Shape
from study.read import check, overlay, read_yaml
from study.unfold import PROTOCOLS, adapters, tasks_of, training
from tasks.mmlu import grouped

ROOT = Path(__file__).parents[1]
ROW_TOKENS = 2000
LIBRARY_KEYS = "scripts/study/library_keys.json"


def memory_gb(model: dict, lora: dict | None, training: dict, inference: dict) -> float | None:
    """The estimate that the head of this file describes; None for a model whose size the study does not say."""
    if model["parameters"] is None:
        return None
    precision, alone = model["precision"], precisions(model)[-1]
    shape = Shape.like(model["parameters"] * 1e9, model["vocabulary"])
    rows = 1 if inference["batch_size"] == "auto" else inference["batch_size"]
    # In one forward pass of the prompts: those of a batch, unless they are split up, as on a GPU.
    answer = max(_memory.answering(shape, one, rows, ROW_TOKENS, at_once=ROW_TOKENS) for one in (precision, alone))
    settings = {"precision": precision, "training": training} | ({} if lora is None else {"lora": lora})
    train = _memory.training(shape, settings, ROW_TOKENS, cuda=precision != "fp32")
    return max(answer, sum(train.values())) / 1e9


def precisions(model: dict) -> list[str]:
    """The precision of a model, and that of its base alone where it is another one."""
    return [model["precision"], *([model["base_precision"]] if "base_precision" in model else [])]


def questions(section: dict) -> str:
    """How many questions a task asks, as far as its section says."""
    match section:
        case {"questions": list(ids)}:
            return str(len(ids))
        case {"kind": "mmlu", "questions": {"n": each}}:
            return str(each * sum(map(len, grouped(section["categories"]).values())))
        case {"questions": {"n": number}}:
            return str(number)
        case {"kind": "mmlu", "questions_per_category": None}:
            return f"all of {sum(map(len, grouped(section['categories']).values()))} subjects"
        case {"questions_per_category": int(each)}:
            return str(each * len(grouped(section["categories"])))
        case {"questions": int(number)} | {"counts": {"dev": int(number)}}:
            return str(number)
    return "all"


def describe(path: Path) -> list[dict[str, str]]:
    """One row for each model of a study.

    Raises:
        UserError: the file is not YAML, or no study.
    """
    config = check(overlay(read_yaml(path), {}, path.name), path.name)
    asked = {
        role: ", ".join(f"{name} {questions(config['tasks'][name])}" for name in tasks_of(config, role))
        for role in ("target", "yardstick")
    }
    rows = []
    for name, model in config["models"].items():
        trained = adapters(config).values()
        # A study that trains nothing has the settings of its sections all the same.
        loras = [training(config, name, one["values"]).get("lora") for one in trained] or [config["lora"]]
        # All weights need more than any adapter.
        largest = None if None in loras else max(loras, key=lambda lora: (len(lora["target_modules"]), lora["r"]))
        memory = memory_gb(model, largest, config["training"], config["inference"])
        known = "?" if memory is None else f"{memory:.0f}"
        rows.append(
            {
                "Study": str(path),
                "Model": model["source"] or "none, only answers",
                "Precision": ", base ".join(precisions(model)) if model["source"] else "",
                "Licence": "gated: accept it, set HF_TOKEN" if model["gated"] else "open",
                "Adapters": str(len(trained)),
                "Target": asked["target"],
                "Yardsticks": asked["yardstick"] or "none",
                "Memory GB": known if model["source"] else "none",
                "Protocols": ", ".join(one for one in PROTOCOLS if one == PROTOCOLS[0] or config["protocols"].get(one)),
            }
        )
    return rows


def document(root: Path) -> None:
    """Write what is generated from scripts/study/schema.py and from the libraries; config.yaml keeps its values."""
    try:
        from llm.library_keys import library_keys
    except ImportError:
        print(f"{LIBRARY_KEYS} is left as it is: TRL or PEFT is not installed.", file=sys.stderr)
    else:
        write_json(root / LIBRARY_KEYS, library_keys())
    from study.document import documents

    for name, text in documents(root).items():
        with atomic_write(root / name) as stream:
            stream.write(text)


def main(arguments: list[str] | None = None) -> int:
    """Print the table; return 1 if a file is no study, and say why on stderr."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, help="studies, or the word document")
    files = parser.parse_args(arguments).files
    if files == [Path("document")]:
        document(ROOT)
        return 0
    rows, failed = [], False
    for path in files or [Path("config.yaml"), *sorted(Path("studies").glob("*.yaml"))]:
        try:
            rows += describe(path)
        except (UserError, OSError) as error:
            print(f"ERROR: {error}", file=sys.stderr)
            failed = True
    if rows:
        try:
            print(pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True), flush=True)
        except BrokenPipeError:
            return nobody_reads()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
