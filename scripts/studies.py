"""List the studies: model, precision, licence, adapters, questions, memory, faces.

Memory is that of the largest of its jobs, in GB of 10^9 bytes, estimated as scripts/llm/memory.py says for a model
that is proportioned like Llama 3 8B, and rows of 2,000 tokens, about the longest of Spider with three examples. Of a
study in fp32 it is a CPU's, where a pass has a whole batch. `make plan` looks closer.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd
import yaml

from common.files import UserError
from llm import memory as _memory
from llm.memory import Shape
from study import config as _config

ROOT = Path(__file__).parents[1]
ROW_TOKENS = 2000


def memory_gb(model: dict, lora: dict, training: dict, inference: dict) -> float | None:
    """Return the estimate that the head of this file describes; None for a model whose size the study does not say."""
    if model["parameters"] is None:
        return None
    shape, precision = Shape.like(model["parameters"] * 1e9, model["vocabulary"]), model["precision"]
    rows = 1 if inference["batch_size"] == "auto" else inference["batch_size"]
    # In one forward pass of the prompts: those of a batch, unless they are split up, as on a GPU.
    answer = _memory.answering(shape, precision, rows, ROW_TOKENS, at_once=ROW_TOKENS)
    settings = {"precision": precision, "lora": lora, "training": training}
    train = _memory.training(shape, settings, ROW_TOKENS, cuda=precision != "fp32")
    return max(answer, sum(train.values())) / 1e9


def _largest(config: dict) -> dict:
    """Return the adapter's settings that need the most memory."""
    adapters = next(iter(_config.settings(config)["train"].values())).values()
    return max((one["lora"] for one in adapters), key=lambda lora: (len(lora["target_modules"]), lora["r"]))


def describe(path: Path, schema: dict) -> list[dict[str, str]]:
    """Return one row for each model of a study.

    Raises:
        UserError: the file is not YAML, or no study.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML ({error}).") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path}: found no keys, expected a study. See config.yaml.")
    config = _config.check(_config.unfold(raw, {}, path.name), schema, path.name)
    adapters = len(_config.variants(config)) - 1
    faces = ["corrected"] + [face for face in _config.FACES[1:] if config["faces"][face]]
    mmlu = config["mmlu"]
    each = mmlu["questions_per_category"]
    knowledge = (
        f"all of {sum(map(len, mmlu['categories'].values()))} subjects"
        if each is None
        else str(each * len(mmlu["categories"]))
    )
    rows = []
    for model in config["models"].values():
        memory = memory_gb(model, _largest(config), config["training"], config["inference"])
        rows.append(
            {
                "Study": str(path),
                "Model": model["source"],
                "Precision": model["precision"],
                "Licence": "gated: accept it, set HF_TOKEN" if model["gated"] else "open",
                "Adapters": str(adapters),
                "Spider": str(config["spider"]["dev_questions"] or config["spider"]["counts"]["dev"]),
                "MMLU": knowledge,
                "Memory GB": "?" if memory is None else f"{memory:.0f}",
                "Faces": ", ".join(faces),
            }
        )
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Print the table; return 1 if a file is no study, and say why on stderr."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, help="studies (default: config.yaml and studies/*.yaml)")
    files = parser.parse_args(arguments).files
    schema = _config.read_schema(ROOT / "rules" / "config.schema.yaml")
    rows, failed = [], False
    for path in files or [Path("config.yaml"), *sorted(Path("studies").glob("*.yaml"))]:
        try:
            rows += describe(path, schema)
        except (UserError, OSError) as error:
            print(f"ERROR: {error}", file=sys.stderr)
            failed = True
    if rows:
        print(pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
