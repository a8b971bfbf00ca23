"""What is in files of weights (safetensors), by their heads alone: nothing is loaded, and no library needed."""

import json
from functools import cache
from pathlib import Path

from common.files import ADAPTER_FILES, UserError, read_json

# The precisions whose weights are numbers of 4 or 8 bits: they need a CUDA GPU, and cannot hold what an adapter adds.
QUANTISED = ("nf4", "int8")
HEAD = 8  # bytes that say how long the head is
INDEX = "model.safetensors.index.json"


def tensors(path: str | Path, remedy: str = "Get the file again.") -> dict[str, dict]:
    """The tensors in a file: of each name its dtype, shape and place in the file.

    Raises:
        UserError: the file is cut, or no safetensors; it ends with the remedy.
    """
    path = Path(path)
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(HEAD), "little")
        if not 0 < length <= size - HEAD:
            raise UserError(f"{path}: cut or damaged, or no safetensors: its first bytes are of no head. {remedy}")
        head = stream.read(length)
    try:
        found = {name: one for name, one in json.loads(head).items() if name != "__metadata__"}
        end = max((one["data_offsets"][1] for one in found.values()), default=0)
    except (ValueError, AttributeError, KeyError, TypeError, IndexError):
        raise UserError(f"{path}: cut or damaged, or no safetensors: its head cannot be read. {remedy}") from None
    if HEAD + length + end != size:
        meant = HEAD + length + end
        raise UserError(f"{path}: cut or damaged: found {size:,} bytes, expected {meant:,} by its head. {remedy}")
    return found


def check_adapter(folder: str | Path) -> None:
    """Refuse an adapter of a study whose file of weights is cut."""
    tensors(Path(folder, ADAPTER_FILES[0]), "Delete it and run snakemake again: the adapter is then trained anew.")


@cache
def modules(folder: Path) -> frozenset[str]:
    """The names of what has weights in the model of a local folder, such as model.layers.0.self_attn.q_proj.

    There are none if the folder has no weights as safetensors.

    Raises:
        UserError: as `tensors`.
    """
    files = sorted(folder.glob("*.safetensors"))
    names = {name for file in files for name in tensors(file)}
    if (folder / INDEX).is_file() and isinstance(index := read_json(folder / INDEX), dict):
        names |= set(index.get("weight_map", {}))
    return frozenset(name.removesuffix(".weight") for name in names)
