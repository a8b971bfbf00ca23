"""A model divided among GPUs (`llm.sharded`): training beside whole copies at 8B shapes, and alone at 70B shapes.

    python benchmarks/divided.py [--gpus 2] [--data data.json] [--rows 16] [--only 8B-bf16 ...] [--out results.json]

On one machine with that many GPUs. Weights are random; rows are those of the first study in benchmarks/gpu.py's data,
or random ones. All go the way of the workflow: a process on each GPU, its share of the rows of each optimizer step.
The share of the measured rate of a large matrix product counts 4 operations a weight and token, as in
benchmarks/training.py, for whole rows and for rows whose prefix is computed once. `answers` are of 70B shapes in 4 bits
on all GPUs, one layer after the other, by the prefix engine.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from common.files import read_json, write_json
from common.gpus import take
from llm.processes import ranks, run, serve

# Name, layers divided, whether the prefix is computed once.
WAYS = [("whole copies", False, False), ("divided", True, False), ("divided, prefix once", True, True)]
PARTS = {"8B-bf16": WAYS, "8B-nf4": WAYS, "70B-nf4": WAYS[1:], "70B-bf16": WAYS[1:]}
LARGE = {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64}


def on_cpu(shapes: dict, seed: int):
    """A model whose weights lie on the CPU and take no memory there: overlapping views of one row of random numbers."""
    import torch
    from accelerate import init_empty_weights
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**shapes, dtype="bfloat16")
    with init_empty_weights(include_buffers=False):
        model = LlamaForCausalLM(config).eval()
    numbers = torch.randn(1_000_000, generator=torch.Generator().manual_seed(seed)).mul_(0.02).bfloat16()
    for name, weight in [*model.named_parameters()]:
        module, _, leaf = name.rpartition(".")
        if weight.dim() == 1:
            made = torch.ones(weight.shape, dtype=torch.bfloat16)
        else:
            made = numbers.as_strided(weight.shape, (7, 1))
        setattr(model.get_submodule(module), leaf, torch.nn.Parameter(made, requires_grad=False))
    return model


def config_of(precision: str):
    import torch
    from transformers import BitsAndBytesConfig

    if precision != "nf4":
        return None
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
    )


def share(out: str, part: str, data: str | None, rows: int, steps: int, way: list) -> None:
    """Measure this process's share of one way of a part; the first process writes what it found."""
    import torch
    import training
    from accelerate import PartialState
    from inference import LLAMA3_8B, ceilings, quantise

    from llm.load import fuse_kernels
    from llm.sharded import divide_layers

    PartialState()
    name, divided, shared = way
    size, precision = part.split("-")
    flops, _ = ceilings()
    torch.cuda.empty_cache()
    pairs = training.rows_of(next(iter(read_json(data)["shared"].values()))) if data else None
    start = time.perf_counter()
    model = on_cpu(LLAMA3_8B | (LARGE if size == "70B" else {}), 0)
    blocks = sum(weight.numel() for weight in model.model.layers.parameters())
    if divided:
        divide_layers(model, torch.device("cuda", 0), config_of(precision))
    else:
        model = model.to("cuda") if precision == "bf16" else quantise(model.to("cuda"))
    fuse_kernels(model)
    torch.cuda.synchronize()
    loaded = time.perf_counter() - start
    found, _ = training.measure(
        model, precision, f"{part}, {name}", rows, 1, steps, "faithful", rows=pairs, shared=shared
    )
    found |= {"load_seconds": loaded, "flops": flops, "weights_gib": torch.cuda.memory_allocated() / 2**30}
    found["of_rate"] = found["tokens_per_second"] * 4 * blocks / (flops * int(os.environ["WORLD_SIZE"]))
    if os.environ["RANK"] == "0":
        write_json(out, found)


def answers(rows: int, repeats: int) -> dict:
    """How fast a model of 70B shapes answers, whose layers are on all GPUs of this process, one after the other."""
    import torch
    from accelerate import dispatch_model
    from inference import LLAMA3_8B, NEW, PREFIX, STOP, make_prompts, timed

    from llm.prefix_engine import SharedPrefix
    from llm.sharded import fill_4bit, prepare_4bit

    model, count = on_cpu(LLAMA3_8B | LARGE, 0), torch.cuda.device_count()
    lying = dict(model.named_parameters())
    quantizer = prepare_4bit(model, config_of("nf4"))
    layers = {f"model.layers.{i}": i * count // len(model.model.layers) for i in range(len(model.model.layers))}
    for layer, gpu in layers.items():
        fill_4bit(model, f"{layer}.", quantizer, lying, torch.device("cuda", gpu))
    placed = {"model.embed_tokens": 0, "model.rotary_emb": 0, **layers, "model.norm": count - 1, "lm_head": count - 1}
    model = dispatch_model(model, placed)
    prompts = make_prompts(2 * rows)
    engine = SharedPrefix(model, prompts[0][:PREFIX], STOP, rows, max(map(len, prompts)) - PREFIX + NEW)
    engine.generate(prompts[:rows], NEW)
    seconds = timed(lambda: engine.generate(prompts[rows:], NEW), repeats)
    engine.close()
    peaks = [torch.cuda.max_memory_allocated(gpu) / 2**30 for gpu in range(count)]
    return {"part": "70B-nf4 answers", "batch": rows, "gpus": count, "seconds": seconds, "peak_gib": peaks}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, default=2)
    parser.add_argument("--data", type=Path, help="rows as benchmarks/gpu.py writes them")
    parser.add_argument("--rows", type=int, default=16, help="of a step")
    parser.add_argument("--steps", type=int, default=6, help="the first two are not counted")
    parser.add_argument("--only", nargs="+", choices=(*PARTS, "answers"), default=(*PARTS, "answers"))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    gpus, results = take(given.gpus), {"gpus": given.gpus, "rows": []}
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    folder, data = Path(tempfile.mkdtemp()), str(given.data) if given.data else None
    ways = dict(PARTS) if data else {part: [way for way in ways if not way[2]] for part, ways in PARTS.items()}
    for part in given.only:
        out = str(folder / part)
        if part == "answers":
            found = [answers(128, 3)]
        else:
            found = []
            for way in ways[part]:
                job = {"out": out, "part": part, "data": data, "rows": given.rows, "steps": given.steps, "way": way}
                run((sys.executable, __file__, "--share"), gpus, [job] * given.gpus, ranks(given.gpus))
                found.append(read_json(out))
        results["rows"] += found
        for row in found:
            print(json.dumps(row), flush=True)
        if given.out:
            write_json(given.out, results)


if __name__ == "__main__":
    if sys.argv[1:] == ["--share"]:
        sys.exit(serve(share))
    main()
