"""Weights that were quantised once are kept: the next job reads a third or half as much, and quantises nothing.

What is kept is used only if each of its tensors has the sum that it had right after quantising.
"""

import errno
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from transformers import AutoModelForCausalLM, PreTrainedModel

from common.files import read_json, sha256_json, write_json
from common.job import versions

# Of all studies: like downloads, it depends on the model alone.
KEPT = Path("results/quantised")
SUMS = "sums.json"
LIBRARIES = ("torch", "transformers", "bitsandbytes")
PIECE = 2**24
FACTOR = 1_000_003


def load_quantised(record: Mapping[str, Any], options: Mapping[str, Any]) -> PreTrainedModel:
    """The model of a record, with its linear layers as `quantization_config` of the options says.

    Args:
        record: of a model: name, path and sha256.
        options: `from_pretrained`'s, with dtype and quantization_config.

    Raises:
        OSError, ValueError: the model cannot be loaded from its path.
    """
    folder = _folder(record, options)
    if (folder / SUMS).is_file() and (model := _read(record, folder, options)) is not None:
        return model
    model = read_model(Path(record["path"]), **options)
    _keep(model, folder)
    return model


def read_model(path: Path, **options: Any) -> PreTrainedModel:
    """The model of a folder, by `from_pretrained` and its options: no network, and no code that came with the model."""
    return AutoModelForCausalLM.from_pretrained(path, local_files_only=True, trust_remote_code=False, **options)


def _folder(record: Mapping[str, Any], options: Mapping[str, Any]) -> Path:
    """Where the weights lie that another job, with the same settings and libraries, would quantise to the same bits."""
    config, installed = options["quantization_config"].to_dict(), versions()
    made_by = {"model": record["sha256"], "quantization": config, "dtype": str(options["dtype"])}
    made_by |= {library: installed.get(library) for library in LIBRARIES}
    return KEPT / f"{record['name']}-{sha256_json(made_by)[:16]}"


def _read(record: Mapping[str, Any], folder: Path, options: Mapping[str, Any]) -> PreTrainedModel | None:
    """The model from what was kept. If that is not what was quantised there is none, and an empty folder is left."""
    own = {key: value for key, value in options.items() if key != "quantization_config"}
    try:
        model = read_model(folder, **own)
        wrong = [name for name, known in _sums(model).items() ^ read_json(folder / SUMS).items()]
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # of a damaged file, or of a family that transformers does not read as it wrote it
        model, wrong = None, [f"{type(error).__name__}: {error}"]
    if wrong:
        print(
            f"{folder}: the weights are not as they were kept ({wrong[0]}). Each job quantises anew from now on. "
            "Delete the folder, and they are kept once more.",
            flush=True,
        )
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(exist_ok=True)
        return None
    # By which an adapter names its base.
    model.name_or_path = model.config.name_or_path = str(record["path"])
    return model


def _keep(model: PreTrainedModel, folder: Path) -> None:
    """Write a model's weights, if there is room and no other job does it. Nothing that goes wrong here ends the job."""
    partial = folder.with_name(f"{folder.name}.part")
    try:
        KEPT.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock", timeout=0):
            if folder.exists():
                return
            shutil.rmtree(partial, ignore_errors=True)
            size, free = model.get_memory_footprint(), shutil.disk_usage(KEPT).free
            if free < 2 * size:
                raise OSError(errno.ENOSPC, f"it takes {size / 1e9:.1f} GB, and {free / 1e9:.1f} are free")
            model.save_pretrained(partial)
            write_json(partial / SUMS, _sums(model))
            partial.rename(folder)
    except Timeout:
        return
    except Exception as error:
        print(f"{folder}: the quantised weights are not kept, each job quantises anew ({error}).", flush=True)
        shutil.rmtree(partial, ignore_errors=True)


@torch.no_grad()
def _sums(model: PreTrainedModel) -> dict[str, int]:
    """Of each tensor of a model, by name, a number that any other byte, or two bytes in each other's place, change."""
    sums = {}
    for name, tensor in model.state_dict().items():
        total = torch.zeros((), dtype=torch.int64, device=tensor.device)
        for piece in tensor.contiguous().reshape(-1).view(torch.uint8).split(PIECE):
            places = torch.arange(1, len(piece) + 1, device=piece.device)
            total = total * FACTOR + (piece * places).sum()
        sums[name] = total.item()
    return sums
