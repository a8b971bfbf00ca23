"""Loading a model at its study's precision, on the GPU if there is one, and saying where it ran."""

import platform
import resource
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, GenerationConfig, PreTrainedModel

from common.files import UserError
from llm.chat import Chat

PRECISIONS = ("fp32", "bf16", "nf4")


def device() -> torch.device:
    """Return the device that this job computes on: the first visible GPU, else the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def load_model(record: dict, precision: str) -> PreTrainedModel:
    """Load the model of a record in evaluation mode.

    fp32 and bf16 load and compute in that type. nf4 quantises the linear layers to 4-bit NormalFloat with double
    quantisation and computes in bf16 (Dettmers et al. 2023, arXiv:2305.14314).

    Raises:
        UserError: an unknown precision, nf4 without a CUDA GPU, or a folder that holds no causal language model.
    """
    key = f"models.{record['name']}.precision"
    if precision not in PRECISIONS:
        raise UserError(f"{key}: found {precision!r}, expected one of {', '.join(PRECISIONS)}.")
    options: dict[str, Any] = {"dtype": torch.float32 if precision == "fp32" else torch.bfloat16}
    if precision == "nf4":
        if not torch.cuda.is_available():
            raise UserError(f"{key}: precision nf4 needs a CUDA GPU and none is visible. Set it to bf16 or fp32.")
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    if torch.cuda.is_available():
        options["device_map"] = {"": 0}  # straight to the card: the weights never lie in memory twice
    try:
        model = AutoModelForCausalLM.from_pretrained(Path(record["path"]), local_files_only=True, **options)
    except (OSError, ValueError) as error:
        raise UserError(f"{record['path']}: cannot load the model ({error}). Run `snakemake -R fetch_model`.") from None
    return model.eval()


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
    from peft import PeftModel  # seconds to import; base runs need none of it
    from peft.tuners.lora import LoraLayer
    from safetensors import SafetensorError

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


def set_greedy(model: PreTrainedModel, chat: Chat, max_new_tokens: int) -> None:
    """Make `generate` plain greedy decoding up to a stop token, whatever sampling the checkpoint recommends."""
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=list(chat.stop_ids),
        pad_token_id=chat.tokenizer.pad_token_id,
        bos_token_id=chat.tokenizer.bos_token_id,
    )


def machine() -> dict[str, Any]:
    """Return what this process computes on, and the most memory it has used so far, in MiB (GPU memory on a GPU).

    Of several cards, the kinds are named, and the memory is that of the card on which it was most.
    """
    if torch.cuda.is_available():
        cards = range(torch.cuda.device_count())
        return {
            "device": " + ".join(dict.fromkeys(map(torch.cuda.get_device_name, cards))),
            "peak_memory_mib": round(max(map(torch.cuda.max_memory_allocated, cards)) / 2**20, 1),
        }
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux, bytes on macOS
    return {
        "device": f"cpu ({platform.machine()}, {torch.get_num_threads()} threads)",
        "peak_memory_mib": round(peak / 2 ** (20 if platform.system() == "Darwin" else 10), 1),
    }
