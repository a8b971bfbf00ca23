"""LoRA adapters: put on a model, averaged, and written as files that are the same, bit for bit, wherever made."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from common.files import ADAPTER_FILES, UserError, atomic_write, read_json, sha256_file, write_json

WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "config.json")

# PEFT takes seconds to import, and answers of the base model need none of it: it is imported where it is used.


def file_hashes(folder: str | Path) -> dict[str, str]:
    """The SHA-256 of each file of an adapter by its name."""
    return {name: sha256_file(Path(folder) / name) for name in ADAPTER_FILES}


def load_adapter(
    model: PreTrainedModel, folder: str | Path, merge: bool = False, strength: float = 1.0
) -> PreTrainedModel:
    """Put the LoRA adapter of `folder` on the model: beside its weights, or `merge`d into them.

    What the adapter adds to each weight is multiplied by `strength`: 0 is the base model and 1 the adapter, and the
    weights between lie on the line between the two (WiSE-FT, Wortsman et al. 2022, arXiv:2109.01903). In the following,
    alpha is lora_alpha times `strength`. Beside them, each linear layer computes W x + (alpha / r) B A x, the second
    term in the adapter's fp32. Merged, it computes (W + (alpha / r) B A) x with the sum rounded to the type of W: in
    bf16, 8 bits, what the adapter adds to a weight is lost where it is less than 1/512 of it.

    Raises:
        UserError: the adapter's weights cannot be read, or the merged weights are not finite.
    """
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer

    try:
        adapted = PeftModel.from_pretrained(model, str(folder), local_files_only=True)
    except SafetensorError as error:
        raise UserError(
            f"{folder}/adapter_model.safetensors: cut or damaged ({error}). Delete it and run snakemake again: the "
            "adapter is then trained anew."
        ) from None
    # As peft.helpers.rescale_adapter_scale, which takes it back at the end of its context.
    for module in adapted.modules():
        if isinstance(module, LoraLayer):
            module.scale_layer(strength)
    if not merge:
        return adapted.eval()
    try:
        return adapted.merge_and_unload(safe_merge=True).eval()
    except ValueError as error:
        raise UserError(f"{folder}: cannot be merged ({error}). Set inference.merge_adapters to false.") from None


def average(adapters: Sequence[str | Path], record: str | Path, output: str | Path) -> None:
    """Average several adapters (their folders) of one base model (a soup, Wortsman et al. 2022, arXiv:2203.05482).

    The adapter made adds to each weight the mean of what the given ones add. That is the mean of (alpha / r) B A over
    the adapters, not of A and of B, whose product is another matrix. PEFT's combination "cat" puts the A below each
    other and the B beside each other, so that the sum of the products is exact; its rank is the sum of the ranks. No
    weight of the base model is read.

    Raises:
        UserError: an adapter cannot be read.
    """
    from peft import PeftModel

    base = read_json(record)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base["path"], local_files_only=True))
    # Memory that is never written takes no room: PEFT must find the layers, not their weights.
    model.to_empty(device="cpu")
    names = [f"adapter{number}" for number in range(len(adapters))]
    for name, folder in zip(names, map(str, adapters), strict=True):
        options = {"adapter_name": name, "torch_device": "cpu", "local_files_only": True}
        try:
            if name == names[0]:
                model = PeftModel.from_pretrained(model, folder, **options)
            else:
                model.load_adapter(folder, **options)
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(
                f"{folder}: cannot be read as an adapter of {base['source']} ({error}). Delete it and run snakemake "
                "again: it is then trained anew."
            ) from None
    # PEFT draws weights and multiplies them by 0 where an adapter has none, which keeps their sign.
    torch.manual_seed(0)
    model.add_weighted_adapter(names, [1 / len(names)] * len(names), "soup", combination_type="cat")
    with tempfile.TemporaryDirectory() as made:
        model.save_pretrained(made, selected_adapters=["soup"])
        write_adapter(Path(made, "soup"), output, base["source"])


def merge_into(record: Mapping, precision: str, folder: Path) -> None:
    """Put the whole model, its adapter merged into the weights, and its tokenizer in place of the adapter in `folder`.

    The sum is rounded to the precision of the weights. On the CPU, so that no GPU is needed.

    Raises:
        UserError: the adapter does not fit the model, or merged weights are not finite.
    """
    from peft import PeftModel

    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    path = Path(record["path"])
    try:
        model = AutoModelForCausalLM.from_pretrained(path, local_files_only=True, dtype=dtype)
        model = PeftModel.from_pretrained(model, str(folder), torch_device="cpu").merge_and_unload(safe_merge=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: the recommended adapter cannot be merged into it ({error}).") from None
    for name in ADAPTER_FILES:
        (folder / name).unlink()
    # What a checkpoint recommends for sampling need not be valid, which is refused here; its file is copied below.
    model.generation_config = GenerationConfig()
    model.save_pretrained(folder)
    for name in record["files"]:
        if not any(Path(name).match(pattern) for pattern in WEIGHTS):
            shutil.copyfile(path / name, folder / name)


def write_adapter(checkpoint: Path, folder: str | Path, source: str) -> dict[str, str]:
    """Write the adapter of a checkpoint as files that are the same, bit for bit, wherever they were made.

    The configuration names the base model's `source` in place of its folder on this machine.

    Returns:
        The SHA-256 of each file by its name.

    Raises:
        UserError: a weight is not finite, so the training has diverged.
    """
    weights, configuration = ADAPTER_FILES
    config = read_json(checkpoint / configuration) | {"base_model_name_or_path": source}
    if isinstance(config["target_modules"], list):
        # PEFT keeps them as a set, whose order changes from process to process.
        config["target_modules"].sort()
    with safe_open(checkpoint / weights, "pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118 - no mapping, it cannot be iterated over
            if not tensors.get_tensor(name).isfinite().all():
                raise UserError(f"training: weight {name} is not finite: the training diverged. Lower learning_rate.")
    copy_file(checkpoint / weights, Path(folder) / weights)
    write_json(Path(folder) / configuration, config)
    return file_hashes(folder)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file; a reader sees the whole of it or none."""
    with atomic_write(target, "wb") as stream:
        stream.write(source.read_bytes())
