"""LoRA layers computed with fewer kernels: base, dropout and both matrices as one step forward and one backward.

PEFT computes an adapted layer, W x + (alpha / r) B A dropout(x), by a dozen small operations and twice as many
backward. For the few thousand tokens of a micro-batch, the host needs longer to start their kernels than the GPU to
compute them. In answering, which is one CUDA graph a step, each kernel still takes its microseconds. What is computed
is the same: the matrices are rounded to half precision, as autocast rounds them, and products are added up in fp32.
The gradients are those of the formula by the chain rule.

Plain LoRA on a linear layer, of 4 bits or not, is computed so, in half precision on a GPU. PEFT computes any other one.
"""

from collections.abc import Sequence
from types import MethodType

import torch
import torch.nn.functional as F
from peft.tuners.lora.layer import Linear as LoraLinear
from peft.tuners.lora.layer import LoraLayer
from torch import nn
from transformers import PreTrainedModel

from llm.attention import decoder

HALF = (torch.bfloat16, torch.float16)


def fuse(adapted: PreTrainedModel, learning: bool) -> int:
    """Compute the plain LoRA layers of a model in half precision on a GPU by fewer kernels; how many these are.

    With `learning`, each forward pass of the model takes the matrices as they are then; without, as they are now.
    """
    layers = [module for module in decoder(adapted).modules() if isinstance(module, LoraLayer) and takes(module)]
    replace(layers)
    if learning and layers:
        decoder(adapted).register_forward_pre_hook(lambda *_: refresh(layers))
    return len(layers)


def takes(layer: LoraLayer) -> bool:
    """Whether a layer has one plain adapter on a frozen linear layer, in half precision on a GPU."""
    base, names = layer.get_base_layer(), layer.active_adapters
    # PEFT has a class of its own for layers of 4 bits, which is there only where bitsandbytes is.
    if type(layer) is not LoraLinear and type(layer).__name__ != "Linear4bit":
        return False
    plain = len(names) == 1 == len(layer.lora_A) and not layer.lora_variant and not layer.lora_bias[names[0]]
    plain = plain and not layer.merged and not getattr(layer, "fan_in_fan_out", False)
    held = base.compute_dtype if type(base).__name__ == "Linear4bit" else base.weight.dtype
    return plain and type(base).__name__ in ("Linear", "Linear4bit") and held in HALF and base.weight.is_cuda


def replace(layers: Sequence[LoraLayer]) -> None:
    """Give layers their forward, and copies of their matrices in the type in which they compute."""
    for layer in layers:
        (name,), base = layer.active_adapters, layer.get_base_layer()
        dtype = base.compute_dtype if type(base).__name__ == "Linear4bit" else base.weight.dtype
        matrices = layer.lora_A[name].weight, layer.lora_B[name].weight
        layer.copies = [torch.empty_like(matrix, dtype=dtype, requires_grad=False) for matrix in matrices]
        layer.forward = MethodType(_forward, layer)
    refresh(layers)


@torch.no_grad()
def refresh(layers: Sequence[LoraLayer]) -> None:
    """Copy the matrices as they are now: (alpha / r) A, and B."""
    if not layers:
        return
    (name,) = layers[0].active_adapters
    scaled, plain = [layer.copies[0] for layer in layers], [layer.copies[1] for layer in layers]
    torch._foreach_copy_(scaled, [layer.lora_A[name].weight for layer in layers])
    torch._foreach_mul_(scaled, [float(layer.scaling[name]) for layer in layers])
    torch._foreach_copy_(plain, [layer.lora_B[name].weight for layer in layers])


def _forward(layer: LoraLayer, x: torch.Tensor) -> torch.Tensor:
    """The forward of a layer that has copies, x (..., in) to (..., out)."""
    if layer.disable_adapters or x.dtype != layer.copies[0].dtype:
        return type(layer).forward(layer, x)
    (name,) = layer.active_adapters
    if torch.is_grad_enabled():
        a, b, dropout = layer.lora_A[name].weight, layer.lora_B[name].weight, layer.lora_dropout[name]
        p = dropout.p if isinstance(dropout, nn.Dropout) and dropout.training else 0.0
        return _Adapted.apply(x, a, b, layer, layer.scaling[name], p)
    out, (a, b) = layer.base_layer(x), layer.copies
    out.view(-1, out.shape[-1]).addmm_(x.reshape(-1, x.shape[-1]) @ a.T, b.T)
    return out


class _Adapted(torch.autograd.Function):
    """W x + scale B A dropout(x), with W frozen; gradients of x, A and B."""

    @staticmethod
    def forward(ctx, x, a, b, layer, scale, p):  # noqa: PLR0913
        base, (half_a, half_b) = layer.base_layer, layer.copies
        flat = x.reshape(-1, x.shape[-1])
        seen, kept = torch.native_dropout(flat, p, True) if p else (flat, None)
        low = seen @ half_a.T
        ctx.save_for_backward(seen, kept, low, half_a, half_b)
        ctx.base, ctx.scale, ctx.p, ctx.shape = base, scale, p, x.shape
        ctx.dtypes = a.dtype, b.dtype
        out = F.linear(flat, weight(base, flat.dtype), None if base.bias is None else base.bias.to(flat.dtype))
        return out.addmm_(low, half_b.T).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx, gradient):
        seen, kept, low, half_a, half_b = ctx.saved_tensors
        of_a, of_b = ctx.dtypes
        given = gradient.reshape(-1, gradient.shape[-1])
        inner = given @ half_b
        grad_a, grad_b = _product(inner.T, seen, of_a).mul_(ctx.scale), _product(given.T, low, of_b)
        if not ctx.needs_input_grad[0]:
            return None, grad_a, grad_b, None, None, None
        grad_x = given @ weight(ctx.base, given.dtype)
        if kept is None:
            grad_x.addmm_(inner, half_a)
        else:
            grad_x += torch.ops.aten.native_dropout_backward(inner @ half_a, kept, 1 / (1 - ctx.p))
        return grad_x.view(ctx.shape), grad_a, grad_b, None, None, None


def _product(one: torch.Tensor, other: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A matrix product in this type, in which it is added up too, where the two are of half precision on a GPU."""
    if one.is_cuda and dtype == torch.float32:
        return torch.mm(one, other, out_dtype=dtype)
    return (one @ other).to(dtype)


def weight(base: nn.Module, dtype: torch.dtype) -> torch.Tensor:
    """The weight of a linear layer, (out, in), of 4 bits too.

    The constants of 4-bit blocks are 8-bit numbers themselves (double quantisation). They are computed once and kept, 4
    bytes for 64 weights: each time would take three kernels more. Of a layer that is divided among GPUs they are not
    kept: memory is what such a model lacks.
    """
    own = getattr(base.weight, "quant_state", None)
    state = own or getattr(base, "quant_state", None)
    if state is None:
        return base.weight
    from bitsandbytes.functional import QuantState, dequantize_4bit, dequantize_blockwise

    if own and own.nested:
        if not hasattr(base, "constants"):
            constants = dequantize_blockwise(state.absmax, state.state2) + state.offset
            base.constants = QuantState(
                constants.float(), state.shape, state.code, state.blocksize, state.quant_type, state.dtype
            )
        state = base.constants
    return dequantize_4bit(base.weight.view(-1, 1), state).to(dtype)
