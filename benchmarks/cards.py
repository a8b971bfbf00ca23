"""One GPU against two, at the shapes of an 8B model: training tokens and answered prompts a second.

    python benchmarks/cards.py [--gpus 2] [--out results.json]

On one machine with that many GPUs. Both go the way of the workflow: a process on each GPU, each taking its share of
the rows of every optimizer step, or of the prompts. Weights, rows and prompts are random, as in training.py and
inference.py; seconds are those of the slowest GPU.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from common.gpus import take
from llm.processes import ranks, run, serve

# As many as Spider's dev set has; no batch of more than `llm.prefix_engine.fitting_rows` allows.
PROMPTS, BATCH = 1034, 512


def share(out: str, repeats: int, work: list[str]) -> None:
    """Measure this process's part, as the variables of its environment say which, and write it to `out`.<rank>."""
    import torch
    import training
    from inference import NEW, PREFIX, STOP, make_model, make_prompts, timed

    from llm.prefix_engine import SharedPrefix

    def answers(model, prompts: list[list[int]]) -> list[float]:
        # As many batches as must be, of one size, as in `llm.answering.answer_here`.
        rows = -(-len(prompts) // -(-len(prompts) // BATCH))
        batches = [prompts[start : start + rows] for start in range(0, len(prompts), rows)]
        length = max(map(len, prompts)) - PREFIX + NEW
        engine = SharedPrefix(model, prompts[0][:PREFIX], STOP, rows, length)
        engine.generate(batches[0], NEW)
        seconds = timed(lambda: [engine.generate(batch, NEW) for batch in batches], repeats)
        engine.close()
        return seconds

    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    found = {"device": torch.cuda.get_device_name(0)}
    model = make_model()
    if "answers" in work:
        found["answers"] = answers(model, make_prompts(PROMPTS)[rank::world])
        torch.cuda.empty_cache()
    steps = {"faithful, 16 rows a step": 16, "faithful, 64 rows a step": 64}
    for name, rows in steps.items() if "training" in work else ():
        found[name], model = training.measure(model, "bf16", name, rows, 1, repeats + 2, "faithful")
    Path(f"{out}.{rank}").write_text(json.dumps(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--work", choices=("answers", "training"), nargs="+", default=("answers", "training"))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    gpus = take(given.gpus)
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    folder, results = Path(tempfile.mkdtemp()), {}
    for count in (1, given.gpus):
        start = time.perf_counter()
        job = {"out": str(folder / str(count)), "repeats": given.repeats, "work": list(given.work)}
        run((sys.executable, __file__, "--share"), gpus[:count], [job] * count, ranks(count))
        results[count] = [json.loads((folder / f"{count}.{rank}").read_text()) for rank in range(count)]
        print(f"{count}: {time.perf_counter() - start:.0f} s in all", flush=True)
    rows = []
    for name in [key for key in results[1][0] if key != "device"]:
        row = {"work": name}
        for count, parts in results.items():
            if name == "answers":
                times = [max(times) for times in zip(*(part[name] for part in parts), strict=True)]
                speeds = [PROMPTS / seconds for seconds in times]
                row[f"{count}"], row[f"{count}_spread"] = statistics.median(speeds), [min(speeds), max(speeds)]
            else:
                row[f"{count}"] = parts[0][name]["tokens_per_second"]
                row[f"{count}_spread"] = [parts[0][name]["lowest"], parts[0][name]["highest"]]
        row["ratio"] = row[f"{given.gpus}"] / row["1"]
        rows.append(row)
        print(json.dumps(row), flush=True)
    if given.out:
        device = results[1][0]["device"]
        given.out.write_text(json.dumps({"device": device, "gpus": given.gpus, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:] == ["--share"]:
        sys.exit(serve(share))
    main()
