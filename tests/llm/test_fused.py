"""LoRA layers by fewer kernels: the outputs and gradients of PEFT's own."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.layer import LoraLayer
from torch import nn

from llm import fused


class Two(nn.Module):
    """Two linear layers, one with a bias, and of 4 bits if asked to."""

    def __init__(self, dtype: torch.dtype = torch.float32, bits: str = ""):
        super().__init__()
        self.first, self.second = nn.Linear(64, 128, dtype=dtype), nn.Linear(128, 64, bias=False, dtype=dtype)
        if bits:
            import bitsandbytes as bnb

            self.is_loaded_in_4bit = True
            for name, layer in list(self.named_children()):
                made = bnb.nn.Linear4bit(
                    layer.in_features, layer.out_features, layer.bias is not None, dtype, bits == "double", "nf4"
                )
                made.load_state_dict(layer.state_dict())
                setattr(self, name, made)

    def forward(self, x):
        return self.second(self.first(x).tanh())

    def get_decoder(self):
        return self


def adapted(dtype=torch.float32, bits="", device="cpu", **lora):
    torch.manual_seed(0)
    options = {"r": 4, "lora_alpha": 6, "target_modules": ["first", "second"], "init_lora_weights": False}
    return get_peft_model(Two(dtype, bits).to(device), LoraConfig(**options | lora))


def layers_of(model) -> list[LoraLayer]:
    return [module for module in model.modules() if isinstance(module, LoraLayer)]


def results(model, x) -> list[torch.Tensor]:
    """The output, without and with gradients, and the gradients of input and matrices."""
    x = x.clone().requires_grad_()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    with torch.no_grad():
        alone = model(x)
    out = model(x)
    (out.float() ** 2).sum().backward()
    found = [alone, out.detach(), x.grad, *(weight.grad for weight in weights)]
    for weight in weights:
        weight.grad = None
    return found


def distances(ours, theirs) -> list[float]:
    return [((a.float() - b.float()).norm() / b.float().norm()).item() for a, b in zip(ours, theirs, strict=True)]


@pytest.mark.parametrize("bits", ["", "nf4", "double"])
def test_outputs_and_gradients_are_those_of_peft(bits):
    model = adapted(bits=bits, rank_pattern={"second": 2}, use_rslora=True)
    x = torch.randn(2, 5, 64)
    theirs = results(model, x)
    fused.replace(layers_of(model))
    assert max(distances(results(model, x), theirs)) < 1e-5
    assert all(layer.forward.__func__ is fused._forward for layer in layers_of(model))


def test_the_gradient_with_dropout_is_that_of_what_is_computed():
    model = adapted(torch.float64, lora_dropout=0.5).double()
    (layer, _) = layers_of(model)
    fused.replace([layer])
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight

    def computed(x, a, b):
        torch.manual_seed(1)  # the same draw each time
        with torch.no_grad():
            layer.lora_A["default"].weight.copy_(a)
            layer.lora_B["default"].weight.copy_(b)
        layer.copies = [torch.empty_like(one) for one in layer.copies]  # those of another call are still needed
        fused.refresh([layer])
        return fused._Adapted.apply(x, a, b, layer, layer.scaling["default"], 0.5)

    given = [torch.randn(3, 64, dtype=torch.float64), a.detach().clone(), b.detach().clone()]
    assert torch.autograd.gradcheck(computed, [one.requires_grad_() for one in given], fast_mode=True)
    # About half of the input is dropped, and what is left is twice as large: on average, nothing changes.
    model.train()
    x = torch.randn(64, dtype=torch.float64).expand(20000, 64).clone().requires_grad_()
    mean, plain = layer(x).mean(0), layer.eval()(x[0])
    assert (mean - plain).norm() < 0.05 * plain.norm()


def test_copies_follow_the_matrices_while_a_model_learns():
    model = adapted()
    fused.replace(layers_of(model))
    x = torch.randn(3, 64)
    with torch.no_grad():
        for layer in layers_of(model):
            layer.lora_B["default"].weight.mul_(2)
    fused.refresh(layers_of(model))
    plain = copy.deepcopy(model)
    for layer in layers_of(plain):
        del layer.forward
    assert max(distances(results(model, x), results(plain, x))) < 1e-5


def test_without_its_adapter_a_layer_is_the_base():
    model = adapted()
    fused.replace(layers_of(model))
    x = torch.randn(3, 64)
    with model.disable_adapter():
        assert torch.equal(
            model(x), model.get_base_model().second.base_layer(model.get_base_model().first.base_layer(x).tanh())
        )


@pytest.mark.parametrize("lora", [{"use_dora": True}, {"lora_bias": True}, {}])
def test_other_layers_stay_as_peft_computes_them(lora):
    model = adapted(torch.bfloat16, **lora)
    assert not any(fused.takes(layer) for layer in layers_of(model))  # DoRA, a bias, and no GPU
    assert fused.fuse(model, learning=True) == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("bits", ["", "nf4", "double"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_on_a_gpu_gradients_are_those_of_peft_within_rounding(bits, dtype):
    model, x = adapted(dtype, bits, "cuda"), torch.randn(2, 50, 64, device="cuda", dtype=dtype)
    with torch.autocast("cuda", dtype):
        theirs = results(model, x)
        assert fused.fuse(model, learning=True) == 2
        ours = results(model, x)
    assert max(distances(ours, theirs)) < 0.02
    with torch.no_grad():
        for layer in layers_of(model):
            layer.lora_A["default"].weight.mul_(2)
    with torch.autocast("cuda", dtype):
        ours = results(model, x)
        for layer in layers_of(model):
            del layer.forward
        assert max(distances(ours, results(model, x))) < 0.02
