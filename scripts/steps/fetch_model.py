"""Fetch a model: a hub repository at a pinned commit, or a local folder, checked before any job loads it."""

import re
from pathlib import Path

from tqdm import tqdm

import _path  # noqa: F401
from common.files import UserError, described, read_object, sha256_json, write_json
from common.hub import hub_snapshot
from common.job import job

# What transformers loads: weights as safetensors, configuration, tokenizer. Pickled weights (*.bin, *.pth) run code.
WANTED = ["*.safetensors", "*.json", "*.jinja", "*.model", "tokenizer*", "vocab*", "merges.txt"]
# Subfolders and `consolidated` files hold the same weights in other formats.
UNWANTED = ["*/*", "consolidated*", "*.bin", "*.pth", "*.md"]


def fetch_model(name: str, source: str, revision: str | None, record: str | Path, thinking: int | None = None) -> None:
    """Get the model if it is on the hub, check it, and write what it is to `record` (JSON).

    Args:
        source: local folder, or hub repository `owner/name`.
        revision: commit of the hub repository (40 hexadecimal digits); None for a local folder.
        thinking: tokens that the model may think before it answers; None: it answers at once.
        record: name, source, revision, resolved commit (null for a folder), path to load from, and the hashes; of a
            model that thinks also thinking.

    Raises:
        UserError: the model cannot be had (see `hub_snapshot`), or lacks weights, tokenizer or chat template.
    """
    if Path(source).is_dir():
        if revision is not None:
            raise UserError(
                f"models, {name}, revision: {source} is a local folder, which has no revision. Set it to null."
            )
        path, commit = Path(source), None
    elif re.fullmatch(r"[\w.-]+/[\w.-]+", source) and not source.startswith("."):
        path = hub_snapshot(source, revision, "model", WANTED, UNWANTED)
        commit = path.name
        if commit != revision:
            raise UserError(f"{source}: asked for commit {revision}, the hub gave {commit}. Run again.")
    else:
        raise UserError(
            f"models, {name}, source: {source} is neither an existing folder nor a hub repository (owner/name)."
        )
    names = model_files(path)
    check_model(source, path, names)
    found = described(path, tqdm(names, desc="sha256", mininterval=1))
    facts = {"name": name, "source": source, "revision": revision, "commit": commit, "path": str(path)}
    facts |= {"thinking": thinking} if thinking else {}
    write_json(record, facts | {"files": found, "sha256": sha256_json(found)})


def model_files(folder: Path) -> list[str]:
    """List the files in `folder` that loading the model may read."""
    from huggingface_hub.utils import filter_repo_objects  # half a second

    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    return list(filter_repo_objects(names, allow_patterns=WANTED, ignore_patterns=UNWANTED))


def check_model(source: str, folder: Path, files: list[str]) -> None:
    """Refuse a folder without the configuration, weights, tokenizer or chat template."""
    if "config.json" not in files:
        raise UserError(f"{source}: no config.json. This is not the folder of a transformers model.")
    read_object(folder / "config.json")
    weights = {file for file in files if file.endswith(".safetensors")}
    if not weights:
        raise UserError(f"{source}: no weights (*.safetensors). Save the model with save_pretrained, or take another.")
    if "model.safetensors.index.json" in files:
        # An interrupted download, taken up again offline, would go unseen until the model is loaded.
        placed = read_object(folder / "model.safetensors.index.json").get("weight_map")
        if not isinstance(placed, dict) or not all(isinstance(shard, str) for shard in placed.values()):
            raise UserError(f"{source}: model.safetensors.index.json names no weights. Get the model again.")
        shards = set(placed.values())
        if missing := sorted(shards - weights):
            raise UserError(f"{source}: weights {missing[0]} missing ({len(missing)} in all). Get the model again.")
    if "tokenizer_config.json" not in files or not {"tokenizer.json", "tokenizer.model"} & set(files):
        raise UserError(f"{source}: no tokenizer (tokenizer_config.json and tokenizer.json or tokenizer.model).")
    own = read_object(folder / "tokenizer_config.json").get("chat_template")
    if "chat_template.jinja" not in files and not own:
        raise UserError(
            f"{source}: the tokenizer has no chat template (chat_template.jinja, or chat_template in "
            "tokenizer_config.json). Use the instruct or chat version of the model."
        )


if __name__ == "__main__":
    with job(snakemake.log[0]):
        # The hash of a local folder's files is there for Snakemake, which sees by it that they have changed.
        settings = {key: value for key, value in snakemake.params.settings.items() if key != "files"}
        fetch_model(snakemake.wildcards.model, **settings, record=snakemake.output.record)
