"""List the studies: model, precision, licence, adapters, questions, memory, faces.

Memory is an estimate for the largest of its jobs, in GB of 10^9 bytes:

    weights     parameters x 4 bytes (fp32), 2 (bf16), 0.75 (nf4, whose embeddings stay in bf16)
    training    1, and for each token in a forward pass (rows of 2,000 tokens, about the longest of Spider with three
                examples): vocabulary x 14 bytes (logits, their float copy and gradient), and activations, which grow
                with depth x width, about the root of the size: root of the billions of parameters x 0.1 MB with
                gradient_checkpointing, x 1.6 MB without
    answering   for each token of a batch (as long): root of the billions of parameters x 0.1 MB (keys, values); of one
                prompt where batch_size is auto, which takes what there is
    other       1

    weights + the larger of training and answering + other

On a CPU the same is needed of its own memory.
"""

import argparse
import math
import sys
from pathlib import Path

import pandas as pd
import yaml

import _config
from _files import UserError

ROOT = Path(__file__).parents[1]
ROW_TOKENS = 2000
# What a study does not say.
VOCABULARY = 128_000
WEIGHT_BYTES = {"fp32": 4.0, "bf16": 2.0, "nf4": 0.75}


def memory_gb(model: dict, training: dict, inference: dict) -> float | None:
    """Return the estimate that the head of this file describes; None for a model whose size the study does not say."""
    billions = model["parameters"]
    if billions is None:
        return None
    per_token = (model["vocabulary"] or VOCABULARY) * 14 / 1e9
    per_token += math.sqrt(billions) * (0.1e-3 if training["gradient_checkpointing"] else 1.6e-3)
    rows = training["per_device_train_batch_size"]
    if training["eval_strategy"] != "no":
        rows = max(rows, training["per_device_eval_batch_size"])
    train = 1 + rows * ROW_TOKENS * per_token
    prompts = 1 if inference["batch_size"] == "auto" else inference["batch_size"]
    answer = prompts * ROW_TOKENS * math.sqrt(billions) * 0.1e-3
    return billions * WEIGHT_BYTES[model["precision"]] + max(train, answer) + 1


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
        memory = memory_gb(model, config["training"], config["inference"])
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
