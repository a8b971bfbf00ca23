"""Training a LoRA adapter at the shapes of an 8B model: the reports' way, plain batches, and this workflow's ways.

    python benchmarks/training.py [--data data.json] [--shared] [--out results.json]

One CUDA GPU with 80 GB. The weights are random. Rows are those of a study, as benchmarks/gpu.py writes them into a
file, or else random ones of 500 tokens on average, of which the last 40 are the target. The reports' way is nf4, one
row a micro-batch, 4 of them a step, gradient checkpointing; `faithful` has the same rows in each step, `fast` as many
as one micro-batch takes. Each way runs in this process through the trainer of the workflow, or TRL's where it says so;
tokens are those of the rows, without padding, and the time is the median of the steps after the first two.

`--shared` compares four ways only, with the rows of each study of the data, each time in another order: whole rows
with PEFT's layers; the prefix of all rows computed once in each micro-batch; that with fused layers (`llm.fused`); and
that with CUDA graphs (`llm.step_graphs`), which is what the workflow does.

The limit is the arithmetic that cannot be saved, 4 operations a weight and token (forward, and backward to the
activations; frozen weights have no gradient), at the measured rate of a large matrix product.
"""

import argparse
import gc
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

import torch
from datasets import Dataset
from inference import LLAMA3_8B, ceilings, make_model, quantise
from peft import LoraConfig
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, TrainerCallback
from trl import SFTTrainer

from llm.fit import settle
from llm.fused import fuse
from llm.labels import IGNORED
from llm.load import fuse_kernels
from llm.options import training_arguments
from llm.packing import collate, keep_apart, share
from llm.step_graphs import StepGraphs
from llm.trainer import Trainer

MEAN, SPREAD, TARGET = 500, 150, 40
LORA = {
    "r": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.05,
    "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "task_type": "CAUSAL_LM",
}


def make_rows(count: int, length: int | None = None) -> Dataset:
    rng = random.Random(0)
    rows = []
    for _ in range(count):
        tokens = length or max(100, min(1024, round(rng.gauss(MEAN, SPREAD))))
        ids = [rng.randrange(1000, 100000) for _ in range(tokens)]
        rows.append({"input_ids": ids, "labels": [IGNORED] * (tokens - TARGET) + ids[-TARGET:]})
    return Dataset.from_list(rows)


class Clock(TrainerCallback):
    """Times each step, after the GPU has finished it, and counts its tokens."""

    def __init__(self):
        self.seconds, self.start = [], 0.0

    def on_step_begin(self, *_, **__):
        torch.cuda.synchronize()
        self.start = time.perf_counter()

    def on_step_end(self, *_, **__):
        torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - self.start)


def tokenizer() -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, models

    words = Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": 1, "<unk>": 2}, "<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")


def measure(
    model,
    precision: str,
    way: str,
    batch: int,
    accumulation: int,
    steps: int,
    mode: str = "",
    gib: float | None = None,
    rows: Dataset | None = None,
    shared: bool = False,
    fused: bool = True,
    graphs: bool = False,
) -> tuple[dict, torch.nn.Module]:
    """Train some steps and return the tokens a second and what they took, and the model without its adapter.

    Args:
        rows: to train on; None = random ones.
        mode: of the workflow; "" for TRL's own trainer with gradient checkpointing.
        gib: GPU memory that may be used; None = all.
        shared: whether what all rows begin with is computed once in each micro-batch.
        fused: whether the workflow's fused layers compute, or PEFT's.
        graphs: whether small steps are computed by CUDA graphs; then the last half of the steps count.
    """
    torch.manual_seed(0)
    folder = Path(tempfile.mkdtemp())
    training = {
        "learning_rate": 1e-4, "max_steps": steps, "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": accumulation, "optim": "adamw_torch", "max_length": 4096,
        "gradient_checkpointing": not mode, "logging_steps": 1, "seed": 0, "train_sampling_strategy": "sequential",
    }  # fmt: skip
    arguments = training_arguments(training, precision, folder)
    arguments.save_strategy = "no"
    if rows is None or gib:
        rows = make_rows(64 * steps, 1024 if gib else None)
    start, proof = [], {}
    model.set_attn_implementation("sdpa")
    if mode:
        pairs = [*zip(rows["input_ids"], rows["labels"], strict=True)]
        reason, _ = keep_apart(model, pairs)
        assert not reason, reason
        start, proof = share(model, pairs) if shared else (start, proof)
        assert bool(start) == shared, proof
        model.gradient_checkpointing_disable()
        arguments.gradient_checkpointing = False
    clock = Clock()
    trainer = (Trainer if mode else SFTTrainer)(
        model=model,
        args=arguments,
        train_dataset=rows,
        processing_class=tokenizer(),
        data_collator=collate if mode else None,
        peft_config=LoraConfig(**LORA),
        callbacks=[clock],
    )
    how = {}
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(gib * 2**30 / total if gib else 1.0)
    if mode:
        assert not fused or fuse(trainer.model, learning=True)
        trainer.start = start
        how = settle(trainer, {"mode": mode}, folder / "passes.json")
        trainer.use(how)
        arguments.max_steps = steps
        trainer.graphs = StepGraphs(trainer.model) if graphs else None
    torch.cuda.reset_peak_memory_stats()
    per_step = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps
    trainer.train()
    peak = torch.cuda.max_memory_allocated()
    torch.cuda.set_per_process_memory_fraction(1.0)
    if graphs:
        how["step_graphs"] = {"tokens": [*trainer.graphs.tokens], "reason": trainer.graphs.reason}
        trainer.graphs.give_up("the model is measured further")
    lengths = [len(ids) for ids in rows["input_ids"]]
    tokens = [sum(lengths[step * per_step : (step + 1) * per_step]) for step in range(steps)]
    rates = [n / s for n, s in zip(tokens, clock.seconds, strict=True)][steps // 2 if graphs else 2 :]
    found = {
        "way": way, "precision": precision, "rows_per_step": per_step, "tokens_per_second": statistics.median(rates),
        "lowest": min(rates), "highest": max(rates), "steps": len(rates), "peak_gib": peak / 2**30, **how,
        "proof": proof.get("proof"),
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
    }  # fmt: skip
    print(json.dumps(found), flush=True)
    base = trainer.model.unload()
    del trainer
    gc.collect()
    torch.cuda.empty_cache()
    return found, base


def rows_of(pairs: Sequence[tuple[list[int], list[int]]]) -> Dataset:
    """The rows of prompts and completions."""
    return Dataset.from_list(
        [
            {"input_ids": prompt + completion, "labels": [IGNORED] * len(prompt) + completion}
            for prompt, completion in pairs
        ]
    )


def quantised(model: LlamaForCausalLM) -> LlamaForCausalLM:
    """The same weights, quantised, in a new model without the kernels."""
    weights = model.state_dict()
    with torch.device("meta"):
        found = LlamaForCausalLM(LlamaConfig(**LLAMA3_8B)).eval()
    found.load_state_dict(weights, assign=True)
    found.model.rotary_emb = type(found.model.rotary_emb)(found.config, device="cuda")
    return quantise(found)


def compare_shared(
    studies: Mapping[str, Dataset], steps: int, per_step: Collection[int], write: Callable[[dict], None]
) -> None:
    """Measure, with the rows of each study, whole rows and shared prefixes; `write` gets each result."""
    first, model = next(iter(studies)), make_model()
    fuse_kernels(model)
    # By name, whether the prefix is computed once, whether layers are fused, and whether there are CUDA graphs.
    ways = [("whole rows", 0, 0, 0), ("prefix once", 1, 0, 0), ("fused layers", 1, 1, 0), ("CUDA graphs", 1, 1, 1)]

    def compare(precision: str, name: str, count: int) -> None:
        nonlocal model
        ways.append(ways.pop(0))
        rows, found = studies[name], {}
        for way, shared, fused, graphs in ways:
            found[way], model = measure(
                model,
                precision,
                f"{name}, {way}",
                count,
                1,
                4 * steps if graphs else steps,
                "faithful",
                rows=rows,
                shared=bool(shared),
                fused=bool(fused),
                graphs=bool(graphs),
            )
            found[way]["mean_tokens"] = statistics.mean(map(len, rows["input_ids"]))
        whole = found["whole rows"]["tokens_per_second"]
        for way in found:
            write(found[way] | {"times_whole": found[way]["tokens_per_second"] / whole})

    if 16 in per_step:
        compare("bf16", first, 16)
    model = quantised(model)
    fuse_kernels(model)
    for name in studies if 16 in per_step else ():
        compare("nf4", name, 16)
    for _ in range(2 if 4 in per_step else 0):
        compare("nf4", first, 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6, help="steps of each way, the first two not counted")
    parser.add_argument("--data", type=Path, help="rows as benchmarks/gpu.py writes them")
    parser.add_argument("--shared", action="store_true", help="whole rows against shared prefixes, and nothing else")
    parser.add_argument("--rows", type=int, nargs="+", choices=(4, 16), default=(4, 16), help="a step, with --shared")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    data = json.loads(given.data.read_text()) if given.data else {}
    if given.shared and not data:
        parser.error("--shared needs --data: random rows share nothing")
    flops, _ = ceilings()
    torch.cuda.empty_cache()
    with torch.device("meta"):
        layers = LlamaForCausalLM(LlamaConfig(**LLAMA3_8B)).model.layers
    limit = flops / (4 * sum(p.numel() for p in layers.parameters()))
    print(f"{flops / 1e12:.0f} TFLOP/s, limit {limit:.0f} tokens/s", flush=True)
    rows, model = [], None
    plain = rows_of(data["train"]) if data and not given.shared else None

    def run(*way, **more) -> None:
        nonlocal model
        found, model = measure(model, *way, **more, rows=plain)
        write(found)

    def write(found: dict) -> None:
        rows.append(found)
        if given.out:  # what there is so far, should the run be cut
            given.out.write_text(json.dumps(result | {"rows": rows}, indent=1) + "\n")

    result = {
        "device": torch.cuda.get_device_name(0),
        "torch": torch.__version__,
        "flops": flops,
        "limit_tokens_per_second": limit,
    }
    steps = given.steps
    if given.shared:
        studies = {name: rows_of(pairs) for name, pairs in data["shared"].items()}
        return compare_shared(studies, steps, given.rows, write)
    model = make_model()
    run("bf16", "TRL, 4 rows a pass", 4, 4, steps)
    fuse_kernels(model)
    run("bf16", "faithful", 4, 4, steps, "faithful")
    run("bf16", "fast", 4, 4, steps, "fast")
    model = quantised(model)
    run("nf4", "reports: TRL, 1 row a pass", 1, 4, steps)
    fuse_kernels(model)
    run("nf4", "faithful", 1, 4, steps, "faithful")
    run("nf4", "fast", 1, 4, steps, "fast")
    run("nf4", "faithful, 4 rows of 1,024 in 16 GB", 4, 1, steps, "faithful", gib=16e9 / 2**30)

    recipe = next(row for row in rows if row["way"].startswith("reports"))["tokens_per_second"]
    print("| way | precision | rows a step | tokens/s | spread | times the recipe | of the limit | peak GiB |")
    print("| --- | --- | --: | --: | --- | --: | --: | --: |")
    for row in rows:
        speed = row["tokens_per_second"]
        row["times_recipe"], row["of_limit"] = speed / recipe, speed / limit
        print(
            f"| {row['way']} | {row['precision']} | {row['rows_per_step']} | {speed:,.0f} | {row['lowest']:,.0f} to "
            f"{row['highest']:,.0f} | {row['times_recipe']:.1f} | {row['of_limit']:.0%} | {row['peak_gib']:.1f} |"
        )
    if given.out:
        given.out.write_text(json.dumps(result | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
