"""Write the figures of docs/speed.md from the files in benchmarks/results.

    python benchmarks/document.py

A part of the page between `<!-- figures: NAME -->` and `<!-- end -->` is what the function NAME of this file makes.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median
from textwrap import fill
from typing import Any

REPO = Path(__file__).resolve().parents[1]
PAGE = REPO / "docs/speed.md"
RESULTS = REPO / "benchmarks/results"
MARKED = re.compile(r"(<!-- figures: (\w+) -->\n\n).*?(\n<!-- end -->)", re.DOTALL)
ALL = "2026-11-21-nvidia-h100-80gb-hbm3.json"
SHARED = "2026-11-22-shared-h100.json"
PACKED = "2026-11-23-answering-h100.json"
# The names of the ways in the results, for readers.
WAYS = {
    "reports: TRL, 1 row a pass": "reports' way",
    "one at a time": "reports' way",
    "faithful": "`mode: faithful`",
    "fast": "`mode: fast`",
    "faithful, 4 rows of 1,024 in 16 GB": "`mode: faithful`, in 16 GB, rows of 1,024",
    "shared prefix, graph": "this workflow",
    "padded rows, scores by matrix products": "padded rows",
    "packed prompts, flash kernels in each step": "without padding",
    "the same, adapter beside the weights": "without padding, an adapter beside the weights",
    "the same, adapter merged": "without padding, the adapter merged",
    "whole copies": "a whole copy on each GPU",
}
# Seconds that a job on a GPU takes before its work: about what was measured on hosts with warm and with cold disks.
STARTS = (15, 34)


def read(name: str) -> Any:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def table(heads: Sequence[str], words: int, rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, of whose columns the first `words` are text and the others numbers."""
    lines = [heads, ["---"] * words + ["--:"] * (len(heads) - words), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def paragraph(text: str) -> str:
    return f"{fill(text, 125, break_long_words=False, break_on_hyphens=False)}\n"


def rate(row: dict) -> str:
    return f"{row['tokens_per_second']:,.0f} ({row['lowest']:,.0f} to {row['highest']:,.0f})"


def named(row: dict) -> str:
    return f"{row['way']}, {row['precision']}"


def renamed(row: dict) -> dict:
    return row | {"way": WAYS.get(row["way"], row["way"])}


def trained(what: str, rows: Iterable[dict]) -> str:
    """The table of benchmarks/training.py's rows."""
    heads = (what, "rows a step", "tokens a second (spread)", "times the reports' way", "of the limit", "peak GiB")
    return table(heads, 1, (
        (named(row), str(row["rows_per_step"]), rate(row), f"{row['times_recipe']:.1f}", f"{row['of_limit']:.0%}",
         f"{row['peak_gib']:.1f}") for row in rows
    ))  # fmt: skip


def answered(what: str, rows: Iterable[dict]) -> str:
    """The table of benchmarks/inference.py's rows."""
    heads = (what, "batch", "seconds a prompt (spread)", "times the reports' way", "times the limit", "peak GiB")
    return table(heads, 1, (
        (named(row), str(row["batch"]), f"{row['seconds_a_prompt']:.4f} ({row['lowest']:.4f} to {row['highest']:.4f})",
         f"{row['times_recipe']:.0f}", f"{row['times_limit']:.1f}", f"{row['peak_gib']:.1f}") for row in rows
    ))  # fmt: skip


def training() -> str:
    rows = sorted(read(ALL)["parts"]["training"]["rows"], key=lambda row: row["tokens_per_second"])
    return trained("training, rows of 450 tokens", map(renamed, rows))


def answering() -> str:
    rows = sorted(read(ALL)["parts"]["inference"]["rows"], key=lambda row: -row["seconds_a_prompt"])
    return answered("answering, 64 new tokens", map(renamed, rows))


def hours() -> str:
    found = read(ALL)
    whole, own = found["whole_study"], found["parts"]["study"]
    theirs, ours = (sum(whole[f"{side}_hours"].values()) for side in ("reports", "ours"))
    slow, fast = own["train_recipe"]["tokens_per_second"], own["train"]["tokens_per_second"]
    answers, steps, large = (row["ratio"] for row in read("2026-11-21-cards-2-h200.json")["rows"])
    other = next(row for row in read("2026-11-21-inference-h100.json")["rows"] if row["batch"] == 1)
    return paragraph(
        f"From these rates, the assignment's study (base and two adapters, {own['spider']['questions']:,} + "
        f"{own['mmlu']['questions']} questions, one epoch each) would take {theirs:.1f} hours in the reports' way and "
        f"{ours:.2f} hours here, of which training is {whole['ours_hours']['training']:.2f}. The rows of that study "
        f"have {found['data']['study_train_mean_tokens']:.0f} tokens; at this length the reports' way trains "
        f"{slow:,.0f} tokens a second and `faithful` {fast:,.0f} ({fast / slow:.1f} times). Two H200 against one: "
        f"training is {steps:.2f} times as fast at 16 rows a step and {large:.2f} times at 64, answering all of dev "
        f"{answers:.2f} times (`benchmarks/cards.py`). The reports' way waits for the host, not for the GPU: on "
        f"another host it took {other['seconds_a_prompt']:.2f} s a prompt."
    )


def _lines(rows: Sequence[dict], columns: Sequence[str]) -> Iterable[tuple[str, ...]]:
    """A line for each run of a study that has all ways (`columns`), of which the first is of whole rows."""
    runs: dict[tuple, list[dict[str, dict]]] = {}
    for row in rows:
        study, way = row["way"].split(", ", 1)
        of = runs.setdefault((study, row["precision"], row["rows_per_step"]), [{}])
        if way in of[-1]:
            of.append({})
        of[-1][way] = row
    for (study, precision, count), of in runs.items():
        for ways in of:
            first, last = ways[columns[0]], ways[columns[-1]]
            yield (
                f"{study}, {precision}",
                str(count),
                *(rate(ways[way]) for way in columns),
                f"{last['times_whole']:.2f}",
                f"{first['peak_gib']:.1f} → {last['peak_gib']:.1f}",
            )


def shared() -> str:
    rows = [row for row in read(SHARED)["rows"] if row["rows_per_step"] == 16]
    heads = ("H100", "rows a step", "whole rows", "prefix once", "and fused layers", "times whole rows", "peak GiB")
    return table(heads, 1, _lines(rows, ("whole rows", "prefix once", "prefix once, fused layers")))


def small() -> str:
    heads = ("H100", "rows a step", "whole rows", "prefix once", "and fused layers", "and CUDA graphs")
    ways = ("whole rows", "prefix once", "fused layers", "CUDA graphs")
    return table(
        (*heads, "times whole rows", "peak GiB"), 1, _lines(read("2026-11-23-small-steps-h100.json")["rows"], ways)
    )


def shared_hours() -> str:
    found, before = read(SHARED), read(ALL)
    own, whole, adapters = before["parts"]["study"], before["whole_study"], before["whole_study"]["adapters"]
    kind = ("assignment, prefix once, fused layers", "nf4", 16)
    (fast,) = (row for row in found["rows"] if (row["way"], row["precision"], row["rows_per_step"]) == kind)
    tokens = adapters * before["data"]["study_train_rows"] * fast["mean_tokens"]
    trained = tokens / fast["tokens_per_second"]
    # Of the answers in 4 bits of that day, as much as those in bf16 have become faster.
    padded, packed = (row for row in read(PACKED)["rows"] if "times_limit" in row and row["batch"] == 512)
    asked = 3600 * whole["ours_hours"]["text-to-SQL"] * packed["seconds_a_prompt"] / padded["seconds_a_prompt"]
    ours = trained + asked + 3600 * whole["ours_hours"]["MMLU"]
    others = sum(value for key, value in whole["reports_hours"].items() if key != "training")
    theirs = tokens / own["train_recipe"]["tokens_per_second"] + 3600 * others
    jobs = adapters + 2 * (1 + adapters)
    times = [(theirs + jobs * start) / (ours + jobs * start) for start in STARTS]
    limit = (theirs - 20 * ours) / (19 * jobs)
    ratios = [
        f"{row['times_whole']:.2f}" for row in read("2026-11-22-shared-h200.json")["rows"] if "times_whole" in row
    ]
    return paragraph(
        f"At these rates the assignment's training takes {trained / 3600:.2f} hours where it took "
        f"{whole['ours_hours']['training']:.2f} with whole rows, and the study {ours / 3600:.2f} "
        f"({theirs / 3600:.1f} in the reports' way). Its {jobs} jobs on a GPU also start, in either way. With "
        f"{STARTS[0]} seconds a job the study is {times[0]:.1f} times as fast as in the reports' way, with {STARTS[1]} "
        f"it is {times[1]:.1f} times, and it is 20 times up to {limit:.0f} seconds. In bf16 the H100's rate is "
        f"{max(row['tokens_per_second'] for row in found['rows']) / found['limit_tokens_per_second']:.0%} of what the "
        "arithmetic of all tokens would allow. On an H200 "
        "([results](../benchmarks/results/2026-11-22-shared-h200.json), "
        f"before layers were fused, with shorter rows) the prefix alone gave {', '.join(ratios[:-1])} and {ratios[-1]}."
    )


def packed() -> str:
    heads = ("bf16", "batch", "seconds a prompt", "times the limit")
    rows = [row for row in read(PACKED)["rows"] if not row["way"].startswith("the same, base")]

    def seconds(row: dict) -> float:
        found = row["seconds_a_prompt"]
        return median(found) if isinstance(found, list) else found

    return table(heads, 1, (
        (WAYS[row["way"]], str(row["batch"]), f"{seconds(row):.4f}",
         f"{row['times_limit']:.2f}" if "times_limit" in row else "") for row in rows
    ))  # fmt: skip


def divided() -> str:
    rows = [row for row in read("2026-11-22-divided-2-h200.json")["rows"] if "way" in row]
    heads = ("shapes of", "way", "tokens a second", "GiB on each", "of the matrix rate")

    def line(row: dict) -> tuple[str, ...]:
        shape, way = row["way"].split(", ", 1)
        way = WAYS.get(way, way) + (", activations computed twice" if row["gradient_checkpointing"] else "")
        share = f"{row['of_rate']:.0%}" if "of_rate" in row else ""
        return shape.replace("-", ", "), way, rate(row), f"{row['peak_gib']:.1f}", share

    return table(heads, 2, (line(row) for row in sorted(rows, key=lambda row: "70B" in row["way"])))


MADE: dict[str, Callable[[], str]] = {
    made.__name__: made for made in (training, answering, hours, shared, small, shared_hours, packed, divided)
}


def figures(text: str) -> str:
    """The page's text with all of its figures from the results."""
    return MARKED.sub(lambda found: found[1] + MADE[found[2]]() + found[3], text)


if __name__ == "__main__":
    PAGE.write_text(figures(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
