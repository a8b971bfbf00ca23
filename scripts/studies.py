"""List the studies: model, precision, licence, adapters, questions, memory, faces.

    python scripts/studies.py [FILE ...]       by default config.yaml and studies/*.yaml
    python scripts/studies.py document         write config.yaml's comments, config.schema.json and docs/config.md anew

Memory is that of the largest of its jobs, in GB of 10^9 bytes, estimated as scripts/llm/memory.py says for a model
that is proportioned like Llama 3 8B, and rows of 2,000 tokens, about the longest of Spider with three examples. Of a
study in fp32 it is a CPU's, where a micro-batch is the whole batch. `make plan` looks closer.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

from common.files import UserError, atomic_write
from llm import memory as _memory
from llm.memory import Shape
from study.read import check, overlay, read_yaml
from study.unfold import BASE, FACES, training, variants

ROOT = Path(__file__).parents[1]
ROW_TOKENS = 2000


def memory_gb(model: dict, lora: dict, training: dict, inference: dict) -> float | None:
    """The estimate that the head of this file describes; None for a model whose size the study does not say."""
    if model["parameters"] is None:
        return None
    precision = model["precision"]
    shape = Shape.like(model["parameters"] * 1e9, model["vocabulary"])
    rows = 1 if inference["batch_size"] == "auto" else inference["batch_size"]
    # In one forward pass of the prompts: those of a batch, unless they are split up, as on a GPU.
    answer = _memory.answering(shape, precision, rows, ROW_TOKENS, at_once=ROW_TOKENS)
    settings = {"precision": precision, "lora": lora, "training": training}
    train = _memory.training(shape, settings, ROW_TOKENS, cuda=precision != "fp32")
    return max(answer, sum(train.values())) / 1e9


def describe(path: Path) -> list[dict[str, str]]:
    """One row for each model of a study.

    Raises:
        UserError: the file is not YAML, or no study.
    """
    config = check(overlay(read_yaml(path), {}, path.name), path.name)
    mmlu, each = config["mmlu"], config["mmlu"]["questions_per_category"]
    subjects = sum(map(len, mmlu["categories"].values()))
    rows = []
    for name, model in config["models"].items():
        adapters = [training(config, name, chosen)["lora"] for of, chosen in variants(config).items() if of != BASE]
        largest = max(adapters, key=lambda lora: (len(lora["target_modules"]), lora["r"]))
        memory = memory_gb(model, largest, config["training"], config["inference"])
        rows.append(
            {
                "Study": str(path),
                "Model": model["source"],
                "Precision": model["precision"],
                "Licence": "gated: accept it, set HF_TOKEN" if model["gated"] else "open",
                "Adapters": str(len(variants(config)) - 1),
                "Spider": str(config["spider"]["dev_questions"] or config["spider"]["counts"]["dev"]),
                "MMLU": f"all of {subjects} subjects" if each is None else str(each * len(mmlu["categories"])),
                "Memory GB": "?" if memory is None else f"{memory:.0f}",
                "Faces": ", ".join(face for face in FACES if face == FACES[0] or config["faces"][face]),
            }
        )
    return rows


def document(root: Path) -> None:
    """Write what is generated from scripts/study/schema.py; config.yaml keeps the values that it has."""
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
        print(pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
