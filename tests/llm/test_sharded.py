"""Training a model that is divided among processes, as one that outgrows a GPU is."""

import copy
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from socket import socket

import pytest
import torch
import torch.distributed as dist
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

from common.files import UserError, read_json, write_json
from llm import sharded
from llm import training as module
from llm.sharded import divide_layers
from tests.llm.test_answering import make_study
from tests.llm.test_answering import run as answer
from tests.llm.test_packing import NO_DROPOUT, PLAIN, losses
from tests.llm.test_processes import running
from tests.llm.test_shared import history, study, with_replay  # noqa: F401
from tests.llm.test_training import arguments, train
from train import train_on

pytestmark = pytest.mark.usefixtures("two_threads")


NF4 = {"load_in_4bit": True, "bnb_4bit_compute_dtype": torch.bfloat16, "bnb_4bit_quant_type": "nf4"}
NF4 |= {"bnb_4bit_use_double_quant": True}
CPU_0 = """
import torch
torch.serialization.register_package(1, lambda _: None, lambda storage, place: storage if place == "cpu:0" else None)
"""


def same(study, one, two):  # noqa: F811
    one, two = (load_file(study / name / "adapter/adapter_model.safetensors") for name in (one, two))
    assert one.keys() == two.keys()
    for name in one:
        assert (one[name] - two[name]).norm() <= 1e-5 * one[name].norm().clamp(min=1e-3)


def kill_and_go_on(plan):
    """Kill a training after its first checkpoint, wait until its processes have ended, and start it again."""
    folder = Path(plan["report"]).parent
    code = "import json, sys; from train import train_on; train_on(['0', '1'], json.loads(sys.argv[1]))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    job = subprocess.Popen([sys.executable, "-c", code, json.dumps(plan)], env=environment)
    try:
        while not (folder / "checkpoints/checkpoint-2/trainer_state.json").exists():
            assert job.poll() is None
            time.sleep(0.01)
        listed = [int(path.name) for path in Path("/proc").glob("[0-9]*") if parent(path) == job.pid]
    finally:
        job.send_signal(signal.SIGKILL)
        job.wait()
    assert len(listed) == 2
    while any(running(pid) for pid in listed):
        time.sleep(0.05)
    assert not (folder / "train.json").exists()
    train_on(["0", "1"], plan)


def parent(process: Path) -> int | None:
    """The process that started this one, None if it has ended."""
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


@pytest.mark.ci
@pytest.mark.long
@pytest.mark.parametrize("checkpointing", [False, True])
def test_two_processes_that_divide_a_model_compute_the_steps_of_one(study, checkpointing):  # noqa: F811
    one, two = f"one-{checkpointing}", f"two-{checkpointing}"
    given = {"lora": NO_DROPOUT, "training": PLAIN | {"gradient_checkpointing": checkpointing}}
    train(**arguments(study, one, **given))
    train_on(["0", "1"], arguments(study, two, **given) | {"divided": True})
    assert losses(study, two) == pytest.approx(losses(study, one), rel=2e-6)
    ours, theirs = (read_json(study / name / "train.json") for name in (two, one))
    layers = len(theirs["adapted_layers"])
    assert (ours["processes"], ours["divided_layers"], theirs["divided_layers"]) == (2, layers, 0)
    assert ours["all_parameters"] == theirs["all_parameters"]
    assert ours["shared_tokens"] == theirs["shared_tokens"] > 0
    same(study, one, two)


@pytest.mark.long
def test_with_replay_and_its_kl_term_too(study):  # noqa: F811
    """Also in steps in which one process has no replayed row."""
    train(**with_replay(study, "kl-one"))
    train_on(["0", "1"], with_replay(study, "kl-two") | {"divided": True})
    assert history(study, "kl-two") == pytest.approx(history(study, "kl-one"), rel=2e-5, abs=1e-6)
    same(study, "kl-one", "kl-two")


@pytest.mark.long
def test_killed_it_ends_with_the_same_bits(study, tmp_path, monkeypatch):  # noqa: F811
    """The state of the optimizer is read onto cpu:0, as accelerate calls it, a name that PyTorch does not read."""
    (tmp_path / "sitecustomize.py").write_text(CPU_0)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # what a checkpoint is bound to
    given = {"lora": NO_DROPOUT, "training": PLAIN | {"save_steps": 2, "max_steps": 12}}
    train_on(["0", "1"], arguments(study, "whole", **given) | {"divided": True})
    kill_and_go_on(arguments(study, "killed", **given) | {"divided": True})
    ours, theirs = (read_json(study / name / "train.json") for name in ("killed", "whole"))
    assert ours["resumed_from_step"] >= 2
    assert ours["adapter_sha256"] == theirs["adapter_sha256"]
    assert ours["history"] == theirs["history"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"precision": "nf4"}, True),
        ({"precision": "int8"}, False),
        ({"training": PLAIN | {"method": "full"}, "lora": {}}, False),
        ({"divided": False}, False),
    ],
)
def test_what_can_be_divided_is_where_the_model_outgrows_a_gpu(tmp_path, changes, expected, monkeypatch):
    monkeypatch.setattr(sharded, "outgrows", lambda *_: True)
    write_json(tmp_path / "model.json", {"path": str(tmp_path)})
    write_json(tmp_path / "config.json", {})
    plan = module.Plan(**(arguments(tmp_path, "asked") | changes))

    class Two:
        world_size = 2

    assert module.divides(plan, Two, 100) is expected


def test_a_model_is_divided_where_it_outgrows_a_gpu(monkeypatch):
    """Llama 3 70B in 4 bits needs more than 24 GB, and less than 80."""
    memory = 0
    monkeypatch.setattr(sharded.dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(sharded.dist, "all_gather_object", lambda found, mine: found.__setitem__(slice(2), [mine] * 2))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (0, memory))
    config = {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64}
    config |= {"num_key_value_heads": 8, "vocab_size": 128256}
    training = {"optim": "adamw_torch", "eval_strategy": "no"}
    settings = {"precision": "nf4", "lora": NO_DROPOUT, "training": training}
    for memory, outgrown in ((24e9, True), (48e9, True), (80e9, False)):  # noqa: B007
        assert sharded.outgrows(config, settings, 1000) is outgrown
    assert sharded.outgrows(config, settings | {"precision": "bf16"}, 1000)
    monkeypatch.setattr(sharded.dist, "get_world_size", lambda: 1)
    assert not sharded.outgrows(config, settings | {"precision": "bf16"}, 1000)


@pytest.fixture
def alone(monkeypatch):
    """This process as the only one of a group."""
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    dist.init_process_group("gloo", init_method=address, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_a_divided_model_of_4_bits_computes_what_the_same_bits_do_in_one_piece(alone):
    """Layer by layer, with an adapter of PEFT's on top, and counted as what it is."""
    shapes = {"hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 3, "vocab_size": 300}
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**shapes, num_attention_heads=4)).eval().bfloat16()
    plain, number = copy.deepcopy(model), sum(weight.numel() for weight in model.parameters())
    for layer in plain.model.layers.modules():
        if isinstance(layer, torch.nn.Linear):
            held = quantize_4bit(layer.weight.data, quant_type="nf4", compress_statistics=True)
            layer.weight.data = dequantize_4bit(*held)
    divide_layers(model, torch.device("cpu"), BitsAndBytesConfig(**NF4))
    ids = torch.arange(9)[None]
    with torch.no_grad():
        assert torch.equal(model(ids).logits, plain(ids).logits)
    quantised = [layer for layer in model.model.layers.modules() if hasattr(layer, "quant_state")]
    assert len(quantised) == 3 * 7
    assert all(isinstance(layer.weight, DTensor) for layer in quantised)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "up_proj"]))
    own = sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad)
    assert type(adapted.get_base_model().model.layers[0].self_attn.q_proj).__name__ == "Linear4bit"
    assert module.all_parameters(adapted) == number + own
    adapted(ids).logits.sum().backward()
    assert all(weight.grad.abs().sum() > 0 for name, weight in adapted.named_parameters() if "lora_B" in name)


def test_a_model_of_which_nobody_knows_the_layers_is_refused(alone):
    model = LlamaForCausalLM(LlamaConfig(hidden_size=32, intermediate_size=8, num_hidden_layers=1, vocab_size=9))
    model._no_split_modules = None
    with pytest.raises(UserError, match=r"LlamaForCausalLM needs more memory .* Use a GPU with more memory"):
        divide_layers(model, torch.device("cpu"), None)


@pytest.fixture(scope="module")
def answered(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("answered"), "llama3")


two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices")


@pytest.mark.gpu
@two_gpus
@pytest.mark.parametrize("precision", ["bf16", "nf4"])
def test_two_gpus_that_divide_a_model_compute_the_steps_of_two_that_do_not(study, precision):  # noqa: F811
    gpus = [str(gpu) for gpu in range(2)]
    given = {"lora": NO_DROPOUT, "training": PLAIN | {"save_steps": 2, "max_steps": 12}, "precision": precision}
    whole, divided = f"whole-{precision}", f"divided-{precision}"
    train_on(gpus, arguments(study, whole, **given) | {"divided": False})
    plan = arguments(study, divided, **given) | {"divided": True}
    train_on(gpus, plan)
    ours, theirs = (read_json(study / name / "train.json") for name in (divided, whole))
    assert losses(study, divided) == pytest.approx(losses(study, whole), rel=1e-3)
    assert (ours["divided_layers"] > 0, theirs["divided_layers"]) == (True, 0)
    assert ours["all_parameters"] == theirs["all_parameters"]
    assert ours["fused_layers"] == theirs["fused_layers"] > 0
    kill_and_go_on(arguments(study, f"killed-{precision}", **given) | {"divided": True})
    again = read_json(study / f"killed-{precision}/train.json")
    assert again["resumed_from_step"] >= 2
    assert again["adapter_dtype"] == ours["adapter_dtype"] == ("bfloat16" if precision == "nf4" else "float32")
    # The kernels add up in no fixed order.
    assert losses(study, f"killed-{precision}") == pytest.approx(losses(study, divided), rel=0.01)


@pytest.mark.gpu
@two_gpus
@pytest.mark.parametrize("precision", ["fp32", "bf16", "nf4"])
def test_a_model_on_two_gpus_answers_as_on_one(answered, precision, monkeypatch):
    settings = {"precision": precision, "adapter": True}
    one = answer(answered, answered / f"one-{precision}", **settings)
    monkeypatch.setattr("llm.answering.outgrows", lambda *_: True)
    load = AutoModelForCausalLM.from_pretrained
    placed = {"model.embed_tokens": 0, "model.rotary_emb": 0, "model.layers.0": 0, "model.layers.1": 1}
    placed |= {"model.norm": 1, "lm_head": 1}

    def loaded(*args, **options):
        """On both: a model as small as this one would be put on one."""
        assert options["device_map"] == "balanced"
        return load(*args, **options | {"device_map": placed})

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", loaded)
    two = answer(answered, answered / f"two-{precision}", **settings)
    ours, theirs = (read_json(answered / f"{name}-{precision}/report.json") for name in ("two", "one"))
    assert ours["decoder"] == theirs["decoder"] == "shared prefix computed once"
    if precision == "fp32":
        assert one == two
    assert [row["id"] for row in one] == [row["id"] for row in two]
