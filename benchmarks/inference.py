"""Answering text-to-SQL prompts at the shapes of an 8B model: the reports' way, plain batches, and this workflow's way.

    python benchmarks/inference.py [--out results.json]

One CUDA GPU with 80 GB. The weights are random (their values change no time), so no answer ends early: each one has
64 new tokens. Prompts have 890 tokens on average, of which the first 512 are the same in all, as with three few-shot
examples. The three ways run in one process; times are medians of the repeats, in seconds a prompt.

The limit is what the card could do at best: the prompts' arithmetic at the measured rate of a large matrix product,
plus, for each step of decoding, the weights and the cache at the measured bandwidth of a copy, with the largest batch.
"""

import argparse
import json
import random
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from _engine import Engine, fitting_rows, row_bytes

LLAMA3_8B = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
    "tie_word_embeddings": False,
}
PREFIX, MEAN, SPREAD, NEW = 512, 378, 120, 64
STOP = [128255]  # never the likeliest token here


def make_model() -> LlamaForCausalLM:
    """Return the model with random weights in bf16 on the GPU."""
    with torch.device("cuda"):
        torch.set_default_dtype(torch.bfloat16)
        model = LlamaForCausalLM(LlamaConfig(**LLAMA3_8B)).eval()
        torch.set_default_dtype(torch.float32)
    return model


def quantise(model: LlamaForCausalLM) -> LlamaForCausalLM:
    """Replace the linear layers by nf4 ones with double quantisation, as `load_model` with precision nf4 does."""
    import bitsandbytes as bnb

    for parent in list(model.model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, torch.nn.Linear):
                layer = bnb.nn.Linear4bit(
                    child.in_features, child.out_features, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4"
                )
                layer.weight = bnb.nn.Params4bit(
                    child.weight.data, requires_grad=False, compress_statistics=True, quant_type="nf4"
                )
                setattr(parent, name, layer.to("cuda"))
    torch.cuda.empty_cache()
    return model


def make_prompts(count: int) -> list[list[int]]:
    rng = random.Random(0)
    prefix = [rng.randrange(1000, 100000) for _ in range(PREFIX)]
    lengths = sorted((max(64, min(900, round(rng.gauss(MEAN, SPREAD)))) for _ in range(count)), reverse=True)
    return [prefix + [rng.randrange(1000, 100000) for _ in range(length)] for length in lengths]


def timed(function, repeats: int) -> list[float]:
    """Return the seconds of each of `repeats` calls, after the GPU has finished."""
    seconds = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        start = time.perf_counter()
        function()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return seconds


def ceilings() -> tuple[float, float]:
    """Return the measured rates of a large bf16 matrix product (FLOP/s) and of a copy (bytes read and written a s)."""
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    b = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    timed(lambda: a @ b, 3)
    product = statistics.median(timed(lambda: [a @ b for _ in range(20)], 5)) / 20
    x = torch.empty(4 * 2**30, dtype=torch.uint8, device="cuda")
    y = torch.empty_like(x)
    timed(lambda: y.copy_(x), 3)
    copy = statistics.median(timed(lambda: y.copy_(x), 5))
    return 2 * 8192**3 / product, 2 * x.numel() / copy


def limit(model: LlamaForCausalLM, prompts: list[list[int]], rows: int, flops: float, bandwidth: float) -> float:
    """Return the least seconds a prompt: see this file's text."""
    weights = sum(p.numel() for p in model.model.layers.parameters())
    rest = statistics.mean(len(p) - PREFIX for p in prompts)
    prefill = 2 * weights * rest / flops
    head = 2 * model.lm_head.weight.numel()
    cache = row_bytes(model, round(rest) + NEW)
    return prefill + NEW * ((2 * weights + head) / rows + cache) / bandwidth


def plain(model: LlamaForCausalLM, prompts: list[list[int]]) -> None:
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(p)) + p for p in prompts], device="cuda")
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device="cuda")
    config = GenerationConfig(max_new_tokens=NEW, do_sample=False, eos_token_id=STOP, pad_token_id=0)
    with torch.inference_mode():
        model.generate(input_ids=ids, attention_mask=mask, generation_config=config)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, help="prompts a batch of this workflow's way; default: what fits")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    flops, bandwidth = ceilings()
    torch.cuda.empty_cache()
    rows: list[dict] = []

    def record(way: str, precision: str, batch: int, seconds: list[float], count: int) -> None:
        each = [s / count for s in seconds]
        rows.append(
            {
                "way": way,
                "precision": precision,
                "batch": batch,
                "seconds_a_prompt": statistics.median(each),
                "lowest": min(each),
                "highest": max(each),
                "peak_gib": torch.cuda.max_memory_allocated() / 2**30,
            }
        )
        print(json.dumps(rows[-1]), flush=True)
        torch.cuda.reset_peak_memory_stats()

    def run_engine(model, precision: str, batch: int) -> None:
        prompts = make_prompts(batch)
        prefix = prompts[0][:PREFIX]
        torch.cuda.reset_peak_memory_stats()
        first = timed(
            lambda: setattr(run_engine, "it", Engine(model, prefix, STOP, batch, max(map(len, prompts)) - PREFIX, NEW)),
            1,
        )
        warm = timed(lambda: run_engine.it.generate(prompts), 1)
        print(f"engine made in {first[0]:.2f} s, first batch {warm[0]:.2f} s", flush=True)
        seconds = timed(lambda: run_engine.it.generate(prompts), arguments.repeats)
        record("shared prefix, graph", precision, batch, seconds, batch)
        run_engine.it.close()
        run_engine.it = None
        torch.cuda.empty_cache()

    model = make_model()
    if arguments.rows is None:
        longest = max(map(len, make_prompts(1024))) - PREFIX
        arguments.rows = fitting_rows(model, longest + NEW, torch.cuda.mem_get_info()[0])
        print(f"batches of {arguments.rows} prompts", flush=True)
    best = limit(model, make_prompts(arguments.rows), arguments.rows, flops, bandwidth)
    print(f"{flops / 1e12:.0f} TFLOP/s, {bandwidth / 1e12:.2f} TB/s, limit {best:.4f} s a prompt", flush=True)
    for batch in (128, arguments.rows):
        run_engine(model, "bf16", batch)
    prompts = make_prompts(128)
    timed(lambda: plain(model, prompts[:8]), 1)
    record("plain batch", "bf16", 128, timed(lambda: plain(model, prompts), arguments.repeats), 128)
    model = quantise(model)
    run_engine(model, "nf4", arguments.rows)
    timed(lambda: plain(model, prompts[:1]), 1)
    middle = prompts[len(prompts) // 2 : len(prompts) // 2 + arguments.repeats]
    seconds = [timed(lambda p=p: plain(model, [p]), 1)[0] for p in middle]
    record("one at a time", "nf4", 1, seconds, 1)

    recipe = rows[-1]["seconds_a_prompt"]
    print("| way | precision | batch | s a prompt | spread | times the recipe | times the limit | peak GiB |")
    print("| --- | --- | --: | --: | --- | --: | --: | --: |")
    for row in rows:
        row["times_recipe"], row["times_limit"] = recipe / row["seconds_a_prompt"], row["seconds_a_prompt"] / best
        print(
            f"| {row['way']} | {row['precision']} | {row['batch']} | {row['seconds_a_prompt']:.4f} | "
            f"{row['lowest']:.4f} to {row['highest']:.4f} | {row['times_recipe']:.0f} | {row['times_limit']:.1f} | "
            f"{row['peak_gib']:.1f} |"
        )
    if arguments.out:
        result = {
            "device": torch.cuda.get_device_name(0),
            "torch": torch.__version__,
            "flops": flops,
            "bandwidth": bandwidth,
            "limit_seconds": best,
            "rows": rows,
        }
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
