"""Answering text-to-SQL prompts at the shapes of an 8B model: the reports' way, plain batches, and this workflow's way.

    python benchmarks/inference.py [--data data.json] [--out results.json]

One CUDA GPU with 80 GB. The weights are random (their values change no time), so no answer ends early: each one has
64 new tokens. Prompts are those of a study, as benchmarks/gpu.py writes them into a file, or else random ones of 890
tokens on average, of which the first 512 are the same in all, as with three few-shot examples. All ways run in one
process; times are medians of the repeats, in seconds a prompt. An adapter of rank 16 on all linear layers, which
changes the weights by about a hundredth, is timed beside the weights and merged into them.

The answers are compared with those of transformers' `generate`, one prompt at a time (`compare`). For each row that
differs, the first token that does is looked up in that path's own logits: how far the token taken here lies below the
token taken there, in units of the last place (ulp) of bf16 at the size of these logits. The two tie within rounding if
that is at most `TIE` ulp. What the same comparison says of plain batches stands beside it.

The limit is what the GPU could do at best: the prompts' arithmetic at the measured rate of a large matrix product,
plus, for each step of decoding, the weights and the cache at the measured bandwidth of a copy, with the largest batch.
"""

import argparse
import json
import math
import random
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from llm.fused import fuse
from llm.groups import common_prefix
from llm.prefix_engine import SharedPrefix, fitting_rows, row_bytes

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
# Logits of two tokens that lie no further apart than so many units in the last place tie within rounding.
TIE = 2


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
    model.is_loaded_in_4bit = True  # by which PEFT chooses its layers
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


def evenly(prompts: list[list[int]], count: int) -> list[list[int]]:
    """Return `count` of the prompts, of all lengths, longest first; some twice if there are fewer."""
    ordered = sorted(prompts, key=len, reverse=True)
    return [ordered[int(i * len(ordered) / count)] for i in range(count)]


def limit(model: LlamaForCausalLM, prompts: list[list[int]], rows: int, flops: float, bandwidth: float) -> float:
    """Return the least seconds a prompt: see this file's text."""
    weights = sum(p.numel() for p in model.model.layers.parameters())
    rest = statistics.mean(map(len, prompts)) - len(common_prefix(prompts))
    prefill = 2 * weights * rest / flops
    head = 2 * model.lm_head.weight.numel()
    cache = row_bytes(model, round(rest) + NEW)
    return prefill + NEW * ((2 * weights + head) / rows + cache) / bandwidth


def plain(
    model: PreTrainedModel, prompts: list[list[int]], new: int = NEW, stop: Sequence[int] = STOP, logits: bool = False
):
    """Continue prompts by transformers' `generate` in one left-padded batch, and return what it returns."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(p)) + p for p in prompts], device=model.device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=model.device)
    config = GenerationConfig(
        max_new_tokens=new,
        do_sample=False,
        eos_token_id=list(stop),
        pad_token_id=0,
        output_logits=logits,
        return_dict_in_generate=True,
    )
    with torch.inference_mode():
        return model.generate(input_ids=ids, attention_mask=mask, generation_config=config)


def until(ids: list[int], stop: Sequence[int]) -> list[int]:
    """Return the ids up to the first stop token, that included."""
    return next((ids[: i + 1] for i, token in enumerate(ids) if token in stop), ids)


def ulp(value: float) -> float:
    """Return the distance of neighbouring bf16 numbers, which have 8 significant bits, at the size of `value`."""
    return 2.0 ** (math.frexp(value)[1] - 8)


def reference(
    model: PreTrainedModel, prompts: list[list[int]], new: int = NEW, stop: Sequence[int] = STOP
) -> list[tuple[list[int], torch.Tensor]]:
    """Continue each prompt alone: its new ids up to a stop token, and the logits (ids, vocabulary) they come from."""
    found = []
    for prompt in prompts:
        out = plain(model, [prompt], new, stop, logits=True)
        # In the model's own type, in which they were computed: nothing is lost.
        logits = torch.cat([step.to(model.dtype).cpu() for step in out.logits])
        found.append((until(out.sequences[0, len(prompt) :].tolist(), stop), logits))
    return found


def compare(
    wanted: list[tuple[list[int], torch.Tensor]], answers: list[list[int]], stop: Sequence[int] = STOP
) -> dict[str, Any]:
    """Compare answers with those of the same prompts one at a time.

    Args:
        wanted: what `reference` returned.
        answers: the new ids of each prompt; what follows a stop token is ignored.
        stop: ids after which an answer is finished.

    Returns:
        `rows`; `differing` rows; `tied`, those of them that tie within rounding where they first differ; `gaps_ulp`, of
        each differing row: by how much the token taken lies below the token that `reference` took, in its logits.
    """
    gaps = []
    for (want, logits), ids in zip(wanted, answers, strict=True):
        got = until(ids, stop)
        place = next((i for i, (a, b) in enumerate(zip(want, got, strict=False)) if a != b), None)
        if place is None:
            assert want == got, f"found {len(got)} tokens, expected {len(want)}"
            continue
        best, other = (logits[place, one[place]].item() for one in (want, got))
        gaps.append((best - other) / ulp(best))
    return {"rows": len(answers), "differing": len(gaps), "tied": sum(gap <= TIE for gap in gaps), "gaps_ulp": gaps}


def adapt(model: LlamaForCausalLM, rank: int = 16) -> torch.nn.Module:
    """Put a LoRA adapter with random weights on all linear layers of the blocks, in fp32 as PEFT loads one.

    The standard deviation of (alpha / rank) B A is a hundredth of that of the weights.
    """
    from peft import LoraConfig, get_peft_model

    modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=modules, task_type="CAUSAL_LM")
    adapted = get_peft_model(model, config).eval()
    for module in adapted.modules():
        if hasattr(module, "lora_B"):
            a, b = module.lora_A["default"].weight.data, module.lora_B["default"].weight.data
            torch.nn.init.normal_(b, std=0.01 * model.config.initializer_range / (2 * rank**0.5 * a.std().item()))
    return adapted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, help="prompts a batch of this workflow's way; default: what fits")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--compare", type=int, default=64, help="prompts whose answers are compared in bf16; 128 at most"
    )
    parser.add_argument("--data", type=Path, help="prompts as benchmarks/gpu.py writes them")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    given = json.loads(arguments.data.read_text())["spider"] if arguments.data else None

    def make(count: int) -> list[list[int]]:
        return evenly(given, count) if given else make_prompts(count)

    flops, bandwidth = ceilings()
    torch.cuda.empty_cache()
    rows: list[dict] = []
    equality: list[dict] = []

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

    def check(way: str, precision: str, wanted: list, answers: list[list[int]], to: str = "one at a time") -> None:
        # As many of the prompts as `wanted` has, of all lengths.
        step = len(answers) / len(wanted)
        found = compare(wanted, [answers[int(i * step)] for i in range(len(wanted))])
        equality.append({"way": way, "precision": precision, "compared_with": to, **found})
        print(json.dumps(equality[-1]), flush=True)

    def some(count: int) -> list[list[int]]:
        return [prompts[int(i * len(prompts) / count)] for i in range(count)]

    def run_engine(model, precision: str, batch: int, way: str = "shared prefix, graph") -> list[list[int]]:
        prompts = make(batch)
        prefix = common_prefix(prompts)
        torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        engine = SharedPrefix(model, prefix, STOP, batch, max(map(len, prompts)) - len(prefix) + NEW)
        first = time.perf_counter() - start
        warm = timed(lambda: engine.generate(prompts, NEW), 1)
        print(f"engine made in {first:.2f} s, first batch {warm[0]:.2f} s", flush=True)
        answers: list = []
        seconds = timed(lambda: answers.append(engine.generate(prompts, NEW)[1]), arguments.repeats)
        record(way, precision, batch, seconds, batch)
        engine.close()
        torch.cuda.empty_cache()
        return answers[-1]

    model = make_model()
    if arguments.rows is None:
        longest = max(map(len, make(1024))) - len(common_prefix(make(1024)))
        arguments.rows = fitting_rows(model, longest + NEW, torch.cuda.mem_get_info()[0])
        print(f"batches of {arguments.rows} prompts", flush=True)
    best = limit(model, make(arguments.rows), arguments.rows, flops, bandwidth)
    print(f"{flops / 1e12:.0f} TFLOP/s, {bandwidth / 1e12:.2f} TB/s, limit {best:.4f} s a prompt", flush=True)
    prompts = make(128)
    ours = run_engine(model, "bf16", 128)
    run_engine(model, "bf16", arguments.rows)
    timed(lambda: plain(model, prompts[:8]), 1)
    out: list = []
    seconds = timed(lambda: out.append(plain(model, prompts).sequences), arguments.repeats)
    record("plain batch", "bf16", 128, seconds, 128)
    theirs = out[-1][:, max(map(len, prompts)) :].tolist()
    wanted = reference(model, some(arguments.compare))
    check("shared prefix, graph", "bf16", wanted, ours)
    check("plain batch", "bf16", wanted, theirs)
    del wanted

    adapted = adapt(model)
    wanted = reference(adapted.get_base_model(), some(max(1, arguments.compare // 4)))  # by PEFT's own layers
    fuse(adapted, learning=False)
    check("adapter beside the weights", "bf16", wanted, run_engine(adapted, "bf16", 128, "adapter beside the weights"))
    # A batch as large as without an adapter need not fit.
    model = adapted.merge_and_unload()
    del adapted
    merged = run_engine(model, "bf16", 128, "adapter merged")
    check("adapter merged", "bf16", wanted, merged, to="one at a time, adapter beside the weights")
    wanted = reference(model, some(max(1, arguments.compare // 4)))
    check("adapter merged", "bf16", wanted, merged)

    model = quantise(model)
    run_engine(model, "nf4", arguments.rows)
    ours = run_engine(model, "nf4", 128)
    timed(lambda: plain(model, prompts[:1]), 1)
    middle = prompts[len(prompts) // 2 : len(prompts) // 2 + arguments.repeats]
    seconds = [timed(lambda p=p: plain(model, [p]), 1)[0] for p in middle]
    record("one at a time", "nf4", 1, seconds, 1)
    check("shared prefix, graph", "nf4", reference(model, some(max(1, arguments.compare // 4))), ours)

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
    print(f"\n| way | precision | compared with | rows | differing | tied within {TIE} ulp | widest gap, ulp |")
    print("| --- | --- | --- | --: | --: | --: | --: |")
    for row in equality:
        print(
            f"| {row['way']} | {row['precision']} | {row['compared_with']} | {row['rows']} | {row['differing']} | "
            f"{row['tied']} | {max(row['gaps_ulp'], default=0):.1f} |"
        )
    if arguments.out:
        result = {
            "device": torch.cuda.get_device_name(0),
            "torch": torch.__version__,
            "flops": flops,
            "bandwidth": bandwidth,
            "limit_seconds": best,
            "mean_prompt_tokens": statistics.mean(map(len, prompts)),
            "shared_tokens": len(common_prefix(prompts)),
            "new_tokens": NEW,
            "rows": rows,
            "equality": equality,
        }
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
