"""Full fine-tuning: all weights are trained, and the weights themselves are written, in place of an adapter.

They lie in the two files of an adapter, so that whatever takes one takes them too: `adapter_model.safetensors` has each
trained weight under the model's own name, a head that is tied to the embeddings once; `adapter_config.json` says so
(`common.files.FULL`). They are trained in fp32, beside which half precision computes (Micikevicius et al. 2018,
arXiv:1710.03740): steps are often smaller than bf16 can add to a weight. They are written in the precision of the
study, in which the model answers anyway: no answer would see more digits, and fp32 needs twice the space.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from transformers import PreTrainedModel

from common.files import ADAPTER_FILES, FULL, UserError, atomic_write, read_json, write_json
from common.weights import check_adapter

# What the weights of each precision are written in.
WRITTEN = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def make_trainable(model: PreTrainedModel, frozen: Sequence[str]) -> None:
    """Make all weights of a model fp32 and trainable, but for those of its modules `frozen`, which stay as they are."""
    for name, weight in model.named_parameters():
        weight.requires_grad_(not name.startswith(tuple(f"{module}." for module in frozen)))
        weight.data = weight.data.float() if weight.requires_grad else weight.data


def save_checkpoint(model: PreTrainedModel, folder: Path, precision: str) -> None:
    """Write the trained weights in fp32, as training goes on with them, and the precision in which they end."""
    found = {name: weight.detach() for name, weight in model.named_parameters() if weight.requires_grad}
    _write(found, folder / ADAPTER_FILES[0])
    write_json(folder / ADAPTER_FILES[1], {"peft_type": FULL, "precision": precision, "base_model_name_or_path": None})


def put(model: PreTrainedModel, folder: str | Path, strength: float = 1.0) -> PreTrainedModel:
    """Put the weights of `folder` into a model: W0 + strength (W - W0), computed in fp32, in the type of the model."""
    own = dict(model.named_parameters())
    with safe_open(Path(folder) / ADAPTER_FILES[0], "pt") as tensors, torch.no_grad():
        for name in tensors.keys():  # noqa: SIM118 - the file itself cannot be iterated over
            tuned = tensors.get_tensor(name)
            if name not in own or own[name].shape != tuned.shape:
                raise UserError(f"{folder}: has a weight {name}, {tuple(tuned.shape)}, which the model has not.")
            if strength != 1:
                base = own[name].cpu().float()
                tuned = base + strength * (tuned.float() - base)
            own[name].copy_(tuned)
    return model


def write(weights: Path, folder: str | Path, precision: str) -> None:
    """Write the weights of a checkpoint in the study's precision."""
    dtype = WRITTEN[precision]
    with safe_open(weights, "pt") as tensors:
        found = {name: tensors.get_tensor(name).to(dtype) for name in tensors.keys()}  # noqa: SIM118
    _write(found, Path(folder) / ADAPTER_FILES[0])


def average(folders: Sequence[str | Path], output: Path) -> None:
    """Write the mean of the weights of several folders, computed in fp32, in the precision that these have."""
    config = read_json(Path(folders[0]) / ADAPTER_FILES[1])
    total: dict[str, torch.Tensor] = {}
    for folder in folders:
        check_adapter(folder)
        with safe_open(Path(folder) / ADAPTER_FILES[0], "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                total[name] = tensors.get_tensor(name).float() + total.get(name, 0.0)
    dtype = WRITTEN[config["precision"]]
    _write({name: (weight / len(folders)).to(dtype) for name, weight in total.items()}, output / ADAPTER_FILES[0])
    write_json(output / ADAPTER_FILES[1], config)


def _write(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    with atomic_write(path, "wb") as stream:
        stream.write(save({name: weight.cpu().contiguous() for name, weight in tensors.items()}, {"format": "pt"}))
