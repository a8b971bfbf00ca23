"""Answering the prompts of a prepared study by this workflow, vLLM or SGLang, alike: the same token ids and length.

    python benchmarks/servers.py PROMPTS RECORD --by here [--adapter DIR] [--new 64] [--out results.json]

PROMPTS is `results/<study>/prompts/<model>/<task>_test.jsonl` and RECORD `results/<study>/models/<model>.json`. Run it
once for each of `--by here`, `vllm` and `sglang`, on the same GPU, with the same `--out`, to whose file results are
added. vLLM and SGLang each need an environment of their own; `make environment` installs neither.

All compute greedily in bf16 and give each prompt just `--new` tokens, whatever these are: an answer that ends early
would compare models and not engines. Each may share prefixes. Caches are emptied before each repeat. Seconds are those
from the first prompt to the last answer, all prompts given at once; what an engine takes to start stands apart
(`start_s`).
The adapter, if there is one, stands beside the weights in all three.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

Answer = Callable[[], list[list[int]]]


def here(path: str, adapter: str | None, prompts: Sequence[list[int]], new: int) -> Answer:
    """What answers by this workflow; the new ids of each prompt."""
    import torch

    from llm.adapters import load_adapter
    from llm.decoding import Encoded
    from llm.fused import fuse
    from llm.load import load_model
    from llm.memory import CPU_ROWS
    from llm.prefix_engine import PrefixEngine, fitting_rows

    precision = "bf16" if torch.cuda.is_available() else "fp32"
    model = load_model({"name": "model", "source": path, "path": path}, precision)
    if adapter:
        model = load_adapter(model, adapter)
        fuse(model, learning=False)
    engine = PrefixEngine(model, [-1], prompts, new)  # no token ends an answer
    rows = CPU_ROWS
    if torch.cuda.is_available():
        rows = fitting_rows(model, engine.longest, torch.cuda.mem_get_info()[0])

    def answer() -> list[list[int]]:
        found: dict[int, list[int]] = {}
        with torch.inference_mode():
            for number, group in enumerate(engine.groups):
                batches = -(-len(group) // rows)
                size = -(-len(group) // batches)
                for start in range(0, len(group), size):
                    places = group[start : start + size]
                    _, ids = engine.answer([Encoded(str(i), prompts[i]) for i in places], number, size)
                    found |= dict(zip(places, ids, strict=True))
        engine.close()
        return [found[place] for place in range(len(prompts))]

    return answer


def vllm(path: str, adapter: str | None, prompts: Sequence[list[int]], new: int) -> Answer:
    """What answers by vLLM's offline engine, with its prefix cache."""
    from vllm import LLM, SamplingParams
    from vllm.inputs import TokensPrompt
    from vllm.lora.request import LoRARequest

    lora = {"enable_lora": True, "max_lora_rank": rank(adapter)} if adapter else {}
    length = max(map(len, prompts)) + new
    engine = LLM(model=path, dtype="bfloat16", enable_prefix_caching=True, max_model_len=length, seed=0, **lora)
    sampling = SamplingParams(temperature=0.0, max_tokens=new, ignore_eos=True, detokenize=False)
    given = [TokensPrompt(prompt_token_ids=list(prompt)) for prompt in prompts]
    request = LoRARequest("adapter", 1, adapter) if adapter else None

    def answer() -> list[list[int]]:
        engine.reset_prefix_cache()
        found = engine.generate(given, sampling, lora_request=request, use_tqdm=False)
        return [list(one.outputs[0].token_ids) for one in found]

    return answer


def sglang(path: str, adapter: str | None, prompts: Sequence[list[int]], new: int) -> Answer:
    """What answers by SGLang's offline engine, with its radix cache."""
    import sglang as package

    lora = {"lora_paths": [f"adapter={adapter}"], "max_loras_per_batch": 1} if adapter else {}
    engine = package.Engine(model_path=path, dtype="bfloat16", random_seed=0, skip_tokenizer_init=True, **lora)
    sampling = {"temperature": 0.0, "max_new_tokens": new, "ignore_eos": True}
    named = {"lora_path": ["adapter"] * len(prompts)} if adapter else {}

    def answer() -> list[list[int]]:
        engine.flush_cache()
        found = engine.generate(input_ids=[list(prompt) for prompt in prompts], sampling_params=sampling, **named)
        return [list(one["output_ids"])[-new:] for one in found]

    return answer


def rank(adapter: str) -> int:
    """The rank of a LoRA adapter, by its folder."""
    return json.loads(Path(adapter, "adapter_config.json").read_text())["r"]


def measure(answer: Answer, prompts: Sequence[list[int]], new: int, repeats: int) -> dict[str, Any]:
    """Answer all prompts once to warm up and then so many times; the seconds a prompt.

    Raises:
        SystemExit: an engine gave a prompt another number of tokens.
    """
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        found = answer()
        seconds.append((time.perf_counter() - start) / len(prompts))
        wrong = [len(ids) for ids in found if len(ids) != new]
        if wrong or len(found) != len(prompts):
            sys.exit(
                f"Found {len(found)} answers, some of {wrong[:3]} tokens, expected {len(prompts)} of {new} tokens."
            )
    first, *rest = seconds
    each = {"seconds_a_prompt": statistics.median(rest), "lowest": min(rest), "highest": max(rest)}
    return each | {"first": first, "answers": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompts", type=Path, help="rendered prompts of a study")
    parser.add_argument("record", type=Path, help="the record of the model")
    parser.add_argument("--by", choices=("here", "vllm", "sglang"), required=True)
    parser.add_argument("--adapter", help="folder of an adapter")
    parser.add_argument("--new", type=int, default=64, help="new tokens of each answer (default: 64)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="JSON file to which the result is added")
    given = parser.parse_args()
    record = json.loads(given.record.read_text())
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(record["path"], local_files_only=True)
    rows = [json.loads(line) for line in given.prompts.read_text().splitlines()]
    prompts = [tokenizer.encode(row["prompt"], add_special_tokens=False) for row in rows]
    start = time.perf_counter()
    answer = globals()[given.by](record["path"], given.adapter, prompts, given.new)
    start = time.perf_counter() - start
    found = measure(answer, prompts, given.new, given.repeats)
    answers = found.pop("answers")
    package = {"here": "transformers"}.get(given.by, given.by)
    import torch

    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu"
    what = {"model": record["source"], "adapter": bool(given.adapter), "prompts": len(prompts), "new_tokens": given.new}
    result = {"by": given.by, "version": f"{package} {version(package)}", "device": device, **what}
    result |= {"mean_prompt_tokens": statistics.mean(map(len, prompts)), "start_s": start, **found}
    earlier = json.loads(given.out.read_text()) if given.out and given.out.exists() else []
    for other in earlier:  # of engines that answered the same prompts
        same = sum(one == two for one, two in zip(other["answers"], answers, strict=False))
        print(f"{same} of {len(answers)} answers are those of {other['by']}, token for token.")
    print(json.dumps(result, indent=1), flush=True)
    if given.out:
        given.out.write_text(json.dumps([*earlier, result | {"answers": answers}]) + "\n")


if __name__ == "__main__":
    main()
