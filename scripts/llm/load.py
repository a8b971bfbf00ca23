"""Loading a model at its study's precision, on the GPU if there is one, and saying where it ran."""

import ctypes
import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from transformers import BitsAndBytesConfig, GenerationConfig, PreTrainedModel

from common.files import UserError, read_json
from common.weights import QUANTISED
from llm.chat import Chat
from llm.kept import load_quantised, read_model
from llm.memory import Shape, unquantised


def device() -> torch.device:
    """The device that this job computes on: the first visible GPU (also of ROCm, also Apple's), else the CPU."""
    if torch.cuda.is_available():  # CUDA or ROCm
        return torch.device("cuda", 0)
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def half() -> torch.dtype:
    """What bf16 and nf4 compute in here: bf16, but on a GPU that lacks it (before Ampere: T4, V100) fp16."""
    emulated = torch.cuda.is_available() and not torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.float16 if emulated else torch.bfloat16


def computed(precision: str) -> torch.dtype:
    """The type that a precision computes in here."""
    return {"fp32": torch.float32, "fp16": torch.float16}.get(precision) or half()


# glibc's malloc.h: below which size what is free at the end of the heap stays (-1: any), how many blocks lie elsewhere.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def set_threads(count: int) -> None:
    """Compute with so many threads, as processes that are started do: what a CPU adds up depends on how many.

    On a CPU, memory that tensors give back also stays with the process. By default the system takes that of large ones
    back and clears it for the next, in each layer: a sixth of the processor time of answering.
    """
    os.environ["OMP_NUM_THREADS"] = str(count)
    torch.set_num_threads(count)
    if device().type == "cpu" and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_TRIM_THRESHOLD, -1)
        libc.mallopt(M_MMAP_MAX, 0)


def named(record: dict) -> dict[str, Any]:
    """What of a model's record a report repeats."""
    return {key: record[key] for key in ("name", "source", "revision", "commit", "sha256")}


def load_model(
    record: dict, precision: str, quantization: Mapping[str, Any] | None = None, across: str = ""
) -> PreTrainedModel:
    """Load the model of a record in evaluation mode.

    One that outgrows a GPU is loaded `across` several: "processes" divides its layers among those of a training
    (`llm.sharded`), "gpus" puts one layer after the other on the GPUs that this process sees.

    fp32, bf16 and fp16 load and compute in that type, but bf16 in fp16 on a GPU without it. nf4 quantises the linear
    layers to 4-bit NormalFloat with double quantisation and computes as bf16 does (Dettmers et al. 2023,
    arXiv:2305.14314), unless `quantization`, further keys of BitsAndBytesConfig, says otherwise; int8 to 8 bits, but
    for outlier features (Dettmers et al. 2022, arXiv:2208.07339). What cannot be loaded here is a UserError.
    """
    options: dict[str, Any] = {"dtype": computed(precision)}
    if precision == "fp16":
        if device().type == "cpu":
            raise UserError(
                f"models.{record['name']}.precision: precision fp16 needs a GPU and none is visible. Set it to bf16 or "
                "fp32."
            )
        if (made := made_in(record)) == "bfloat16":
            print(
                f"Warning: models.{record['name']}.precision is fp16, but {record['source']} was made in {made}, whose "
                "numbers may be larger than fp16 has (65,504). A loss of nan would stop the training.",
                flush=True,
            )
    if precision in QUANTISED:
        with suppress(KeyError):  # of a shape that nothing is known of
            shape = Shape.of(read_json(Path(record["path"]) / "config.json"))
            if found := unquantised(record["source"], record["name"], shape, precision):
                raise UserError(found[0])
        if not torch.cuda.is_available():
            raise UserError(
                f"models.{record['name']}.precision: precision {precision} needs a CUDA GPU and none is visible. Set "
                "it to bf16 or fp32."
            )
        keys: dict[str, Any] = {"load_in_8bit": True}
        if precision == "nf4":
            keys = {"load_in_4bit": True, "bnb_4bit_compute_dtype": half(), "bnb_4bit_quant_type": "nf4"}
            keys["bnb_4bit_use_double_quant"] = True
        try:
            config = BitsAndBytesConfig(**{**keys, **(quantization or {})})
        except (ValueError, TypeError, AttributeError) as error:
            raise UserError(
                f"models.{record['name']}.quantization: BitsAndBytesConfig refuses these values ({error})."
            ) from None
        options["quantization_config"] = config
    quantised = None
    if across == "processes":
        options["device_map"], quantised = {"": "cpu"}, options.pop("quantization_config", None)
    elif across:
        options["device_map"] = "balanced"
    elif torch.cuda.is_available():
        options["device_map"] = {"": 0}  # straight to the GPU: the weights never lie in memory twice
    try:
        if "quantization_config" in options:
            model = load_quantised(record, options)
        else:
            model = read_model(Path(record["path"]), **options)
    except (OSError, ValueError) as error:
        raise UserError(f"{record['path']}: cannot load the model ({error}). Run `snakemake -R fetch_model`.") from None
    if across == "processes":
        from llm.sharded import divide_layers  # imports torch.distributed's

        divide_layers(model, device(), quantised)
    if device().type == "mps":
        model = model.to(device())
    if model.dtype == torch.float16:
        check_fp16(model.eval(), record, precision == "fp16")
    return model.eval()


def made_in(record: dict) -> str:
    """The type of the weights as their config.json names it, "" if it does not."""
    config = read_json(Path(record["path"]) / "config.json")
    config = config | config.get("text_config", {})
    return str(config.get("dtype") or config.get("torch_dtype") or "").removeprefix("torch.")


def check_fp16(model: PreTrainedModel, record: dict, asked: bool = False) -> None:
    """Refuse a model whose numbers grow too large for fp16, as those of some that were made in bf16 do.

    The study has `asked` for fp16, or the GPU has no bf16.
    """
    with torch.no_grad():
        found = model(input_ids=torch.arange(64, device=model.device)[None]).logits
    if not found.isfinite().all():
        why, remedy = "this GPU has no bf16, and", "fp32, or use a GPU with bf16 (Ampere or later)"
        why, remedy = ("found fp16, but", "bf16 or fp32") if asked else (why, remedy)
        raise UserError(
            f"models.{record['name']}.precision: {why} {record['source']} has numbers too large for fp16. Set it to "
            f"{remedy}."
        )


def fuse_kernels(model: PreTrainedModel) -> str:
    """Put Liger's fused norms, rotations and gates into a model in half precision on a GPU: "liger", or "" if not.

    The head and its loss are TRL's own fused ones.
    """
    from transformers.integrations.liger import apply_liger_kernel
    from transformers.utils import is_liger_kernel_available

    if device().type != "cuda" or model.dtype == torch.float32 or not is_liger_kernel_available():
        return ""
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

    if model.config.model_type not in MODEL_TYPE_TO_APPLY_LIGER_FN:
        return ""
    apply_liger_kernel(model, {"cross_entropy": False, "fused_linear_cross_entropy": False})
    return "liger"


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
    """What this process computes on, and the most memory it has used so far, in MiB: of a GPU, if it has any."""
    if torch.cuda.is_available():
        gpus = range(torch.cuda.device_count())
        return {
            "device": " + ".join(dict.fromkeys(map(torch.cuda.get_device_name, gpus))),
            "peak_memory_mib": round(max(map(torch.cuda.max_memory_allocated, gpus)) / 2**20, 1),
        }
    peak = None
    with suppress(ImportError):  # Windows does not have it
        import resource

        # KiB on Linux, bytes on macOS.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** (20 if platform.system() == "Darwin" else 10)
    name = f"cpu ({platform.machine()}, {torch.get_num_threads()} threads)"
    if device().type == "mps":
        name = f"Apple GPU ({platform.machine()})"
    return {"device": name, "peak_memory_mib": None if peak is None else round(peak, 1)}
