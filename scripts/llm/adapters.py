"""LoRA adapters: put on a model, averaged, and written as files that are the same, bit for bit, wherever made.

A model whose weights were all trained (`llm.full`) is one of them here: it has the same two files.
"""

import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from common.files import (
    ADAPTER_FILES,
    FULL,
    NOT_LINEAR,
    UserError,
    atomic_write,
    fully_tuned,
    read_json,
    read_object,
    sha256_file,
    write_json,
)
from common.weights import check_adapter, tensors
from llm import full
from llm.kept import read_model

# Keys of LoraConfig that a ready-made adapter may not have.
OF_ANOTHER_BASE = ("layer_replication", "megatron_config", "alora_invocation_tokens", "arrow_config")
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
    bf16, 8 bits, what the adapter adds to a weight is lost where it is less than 1/512 of it. Weights that cannot be
    read, are no sum that can be scaled, or are not finite once merged, are a UserError.

    Where all weights were trained, they take the place of the model's own, merged or not; with a `strength`, those
    between the two (`llm.full.put`).
    """
    check_adapter(folder)
    if fully_tuned(folder):
        return full.put(model, folder, strength).eval()
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer

    adapted = PeftModel.from_pretrained(model, str(folder), local_files_only=True)
    if strength != 1:
        check_linear(folder, "an interpolation needs")
    # As peft.helpers.rescale_adapter_scale, which takes it back at the end of its context.
    for module in adapted.modules():
        if isinstance(module, LoraLayer):
            module.scale_layer(strength)
    return merged(adapted, folder) if merge else adapted.eval()


def merged(adapted: PreTrainedModel, folder: str | Path) -> PreTrainedModel:
    """Merge the adapter, from `folder`, that stands beside a model's weights into them, unless it is these weights."""
    if fully_tuned(folder):
        return adapted
    untie(adapted)
    try:
        return adapted.merge_and_unload(safe_merge=True).eval()
    except ValueError as error:
        raise UserError(
            f"{folder}: cannot be merged ({error}). Set inference.merge_adapters and evaluation.noise_floor to false."
        ) from None


def untie(adapted: PreTrainedModel) -> None:
    """Give an adapted layer a weight of its own where it shares one, so that a merged head leaves embeddings alone."""
    from peft.tuners.lora import LoraLayer

    every = list(adapted.modules())
    for layer in [module.get_base_layer() for module in every if isinstance(module, LoraLayer)]:
        weight = layer._parameters.get("weight")
        if weight is not None and any(m._parameters.get("weight") is weight for m in every if m is not layer):
            layer.weight = torch.nn.Parameter(weight.detach().clone(), requires_grad=False)


def check_linear(folder: str | Path, needed_by: str) -> None:
    """Refuse an adapter that does more than add (alpha / r) B A to weights."""
    config = read_json(Path(folder) / ADAPTER_FILES[1])
    for key in NOT_LINEAR:
        if config.get(key):
            raise UserError(
                f"{folder}: has lora.{key}, but {needed_by} an adapter that only adds a product of two matrices to "
                "weights. Leave it out of `evaluation`."
            )


def average(adapters: Sequence[str | Path], record: str | Path, output: str | Path) -> None:
    """Average several adapters (their folders) of one base model (a soup, Wortsman et al. 2022, arXiv:2203.05482).

    The adapter made adds to each weight the mean of what the given ones add. That is the mean of (alpha / r) B A over
    the adapters, not of A and of B, whose product is another matrix. PEFT's combination "cat" puts the A below each
    other and the B beside each other, so that the sum of the products is exact; its rank is the sum of the ranks. No
    weight of the base model is read. An adapter that cannot be read, or is no such sum, is a UserError.

    Where all weights were trained, the mean is that of the weights; there is none of both kinds.
    """
    from peft import PeftModel

    base = read_json(record)
    if any(kinds := [fully_tuned(folder) for folder in adapters]):
        if not all(kinds):
            named = ", ".join(map(str, adapters))
            raise UserError(f"{named}: full fine-tuning and adapters have no mean. Name settings of one kind.")
        full.average(adapters, Path(output))
        return
    model = skeleton(base)
    # Memory that is never written takes no room: PEFT must find the layers, not their weights.
    model.to_empty(device="cpu")
    names = [f"adapter{number}" for number in range(len(adapters))]
    for name, folder in zip(names, map(str, adapters), strict=True):
        options = {"adapter_name": name, "torch_device": "cpu", "local_files_only": True}
        try:
            check_adapter(folder)
            if name == names[0]:
                model = PeftModel.from_pretrained(model, folder, **options)
            else:
                model.load_adapter(folder, **options)
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(
                f"{folder}: cannot be read as an adapter of {base['source']} ({error}). Delete it and run snakemake "
                "again: it is then trained anew."
            ) from None
        check_linear(folder, "a mean of adapters needs")
    # The scale of each adapter goes into its A, so that the mean has the scale 1, which is r / r and not r / sqrt(r).
    model.peft_config[names[0]].use_rslora = False
    # PEFT draws weights and multiplies them by 0 where an adapter has none, which keeps their sign.
    torch.manual_seed(0)
    model.add_weighted_adapter(names, [1 / len(names)] * len(names), "soup", combination_type="cat")
    with tempfile.TemporaryDirectory() as made:
        model.save_pretrained(made, selected_adapters=["soup"])
        write_adapter(Path(made, "soup"), output, base["source"])


def skeleton(record: Mapping[str, Any]) -> PreTrainedModel:
    """The model of a record without any weights."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(
            AutoConfig.from_pretrained(record["path"], local_files_only=True, trust_remote_code=False)
        )


def not_finite(weights: Path) -> str | None:
    """The name of a weight that is not finite, None if all are."""
    with safe_open(weights, "pt") as file:
        names = file.keys()  # the file itself cannot be iterated over
        return next((name for name in names if not file.get_tensor(name).isfinite().all()), None)


def check_fits(named: str, folder: Path, record: Mapping[str, Any]) -> None:
    """Check that a ready-made adapter, `named` in errors, is one of this model: its base, its weights' shapes."""
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

    config = read_object(folder / ADAPTER_FILES[1])
    tensors(folder / ADAPTER_FILES[0])
    if config.get("peft_type") != "LORA":
        raise UserError(f"{named} is an adapter of the kind {config.get('peft_type')}, expected LORA.")
    for key in OF_ANOTHER_BASE:
        if config.get(key):
            raise UserError(f"{named} has {key}, so it does not only add to the weights of its base model.")
    begun = config.get("init_lora_weights", True)
    if isinstance(begun, str) and begun not in ("gaussian", "orthogonal", "eva"):
        raise UserError(
            f"{named} began as {begun}, which changes the weights of the base model. Convert it to a plain LoRA "
            "adapter (path_initial_model_for_weight_conversion of save_pretrained), and take that."
        )
    base = str(config.get("base_model_name_or_path"))
    # Of a folder of some machine, its name.
    if base != record["source"] and Path(base).name.lower() != Path(record["source"]).name.lower():
        raise UserError(
            f"{named} was made for {base}, but models.{record['name']}.source is {record['source']}. Take the adapter "
            "of this model, or evaluate it on its own. If both have the same weights, write this source into "
            "base_model_name_or_path of a local copy of adapter_config.json."
        )
    try:
        with torch.device("meta"):
            adapted = get_peft_model(skeleton(record), LoraConfig.from_pretrained(str(folder)))
            state = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    except (OSError, ValueError, TypeError, RuntimeError, re.error) as error:
        raise UserError(f"{folder}: PEFT cannot put this adapter on {record['source']} ({error}).") from None
    expected = {name: tuple(weight.shape) for name, weight in state.items()}
    with safe_open(folder / ADAPTER_FILES[0], "pt") as file:
        found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    for name in sorted({*found, *expected}):
        if found.get(name) != expected.get(name):
            raise UserError(
                f"{named} does not fit {record['source']}: found {found.get(name, 'nothing')} for {name}, expected "
                f"{expected.get(name, 'nothing')}."
            )
    if broken := not_finite(folder / ADAPTER_FILES[0]):
        raise UserError(f"{named}: weight {broken} is not finite. It is damaged, or its training has diverged.")


def prove(adapted: PreTrainedModel, prompts: Sequence[list[int]], folder: str | Path) -> dict[str, Any]:
    """Prove that an adapter acts: the largest change of a log-probability of an answer's first token is not 0.

    In logarithms: where both are all but sure of the first token, probabilities would be rounded to the same numbers.
    """
    largest = 0.0
    with torch.inference_mode():
        for tokens in prompts:
            given = {"input_ids": torch.tensor([tokens], device=adapted.device), "logits_to_keep": 1}
            tuned = adapted(**given).logits.float().log_softmax(-1)
            with adapted.disable_adapter():
                base = adapted(**given).logits.float().log_softmax(-1)
            largest = max(largest, (tuned - base).abs().max().item())
    if largest == 0:
        raise UserError(
            f"{folder}: does nothing. On {len(prompts)} of the study's prompts, the first token of its answer has the "
            "very probabilities of the base model. Look at its weights, and at the layers that it names."
        )
    return {"prompts": len(prompts), "largest_change": largest}


def merge_into(record: Mapping, precision: str, folder: Path, strength: float = 1.0) -> None:
    """Put the whole model, its adapter merged into the weights, and its tokenizer in place of the adapter in `folder`.

    The sum is rounded to the precision of the weights. On the CPU, so that no GPU is needed. A LoRA adapter has its
    strength in its configuration; `strength` is that of a model whose weights were all trained.
    """
    from peft import PeftModel

    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    path = Path(record["path"])
    try:
        model = read_model(path, dtype=dtype)
        if fully_tuned(folder):
            full.put(model, folder, strength)
        else:
            model = PeftModel.from_pretrained(model, str(folder), torch_device="cpu")
            untie(model)
            model = model.merge_and_unload(safe_merge=True)
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
    """Write the adapter of a checkpoint as files that are the same, bit for bit, wherever they were made; their hashes.

    The configuration names the base model's `source` in place of its folder on this machine. A weight that is not
    finite is a UserError: the training has diverged.
    """
    weights, configuration = ADAPTER_FILES
    config = read_json(checkpoint / configuration) | {"base_model_name_or_path": source}
    if isinstance(config.get("target_modules"), list):
        # PEFT keeps them as a set, whose order changes from process to process.
        config["target_modules"].sort()
    if name := not_finite(checkpoint / weights):
        raise UserError(f"training: weight {name} is not finite: the training diverged. Lower learning_rate.")
    if config.get("peft_type") == FULL:
        full.write(checkpoint / weights, folder, config["precision"])
    else:
        copy_file(checkpoint / weights, Path(folder) / weights)
    write_json(Path(folder) / configuration, config)
    return file_hashes(folder)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file; a reader sees the whole of it or none."""
    with atomic_write(target, "wb") as stream:
        stream.write(source.read_bytes())
