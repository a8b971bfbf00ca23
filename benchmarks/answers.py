"""How long the page of answers takes to open in a browser: 1,034 questions of Spider's size and 8 runs.

    python benchmarks/answers.py [--out results.json]

The study is made up: 20 databases, prompts of about 5,000 characters that begin alike, answers of about 120, and 150
questions of MMLU. Measured in a headless Chromium, five times: from the start of the navigation until the list and the
first question are there, and from a change of a filter or the search, a step to the next question and the opening of a
prompt until the page has changed. Beside it stand the seconds to write the file.
"""

import argparse
import json
import platform
import random
import shutil
import statistics
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), *(str(ROOT / name) for name in ("scripts", "scripts/steps", "tests/support"))]

QUESTIONS, MMLU, RUNS, TIMES = 1034, 150, 8, 5
OPENED = """() => new Promise((done) => {
  const there = () => (document.querySelector("#question h2") ? requestAnimationFrame(() => done(performance.now()))
    : setTimeout(there, 2));
  there();
})"""
ACTED = """(act) => new Promise((done) => {
  const start = performance.now();
  new Function(act)();
  requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
})"""
ACTS = {
    "filter_ms": "const one = document.getElementById('field-class'); one.value = 'wrong';"
    " one.dispatchEvent(new Event('input', { bubbles: true }))",
    "search_ms": "const one = document.getElementById('search'); one.value = 'table 7';"
    " one.dispatchEvent(new Event('input', { bubbles: true }))",
    "next_ms": "document.getElementById('next').click()",
    "prompt_ms": "document.querySelector('#question > details').open = true",
}


def made_up(folder: Path) -> dict[str, dict]:
    """Write the records, rows, questions and prompts of such a study; the inputs of the step."""
    from _study import mmlu_records, spider_records
    from common.files import write_jsonl

    generator = random.Random(0)
    names = [f"database_{n}" for n in range(20)]
    inputs: dict[str, dict] = {kind: {"spider": [], "mmlu": []} for kind in ("records", "prompts")}
    inputs |= {"questions": {}, "rows": {"spider": []}, "schemas": {}}
    for run in range(RUNS):
        right = [int(generator.random() < 0.6) for _ in range(QUESTIONS)]
        query = (
            "SELECT t1.name, count(*) FROM table AS t1 JOIN other AS t2 ON t1.id = t2.id WHERE t2.value > 10 GROUP BY 1"
        )
        texts = {"answer": query, "sql": query}
        inputs["records"]["spider"].append(spider_records(folder / f"spider{run}.csv", right, names, **texts))
        inputs["records"]["mmlu"].append(mmlu_records(folder / f"mmlu{run}.csv", right[:MMLU]))
        rows = [[i, [f"name {i}", generator.randrange(10**6)]] for i in range(10)]
        result = {"columns": ["name", "count(*)"], "width": 2, "rows": rows, "unmatched": [0, 1]}
        path = folder / f"rows{run}.jsonl"
        write_jsonl(path, [{"id": f"dev-{i:05d}", "gold": result, "predicted": result} for i in range(QUESTIONS)])
        inputs["rows"]["spider"].append(path)
    shots = "You translate questions into SQL.\n" + "An example with its schema and its query.\n" * 70
    schemas = [f"table {name} (" + ", ".join(f"column_{i}" for i in range(150)) + ")" for name in names]
    questions = [f"How many rows are in table {i % 97} of the database, and why {i}?" for i in range(QUESTIONS)]
    read = [f"{shots}{schemas[i % 20]}\nQuestion: {text}" for i, text in enumerate(questions)]
    ids = [f"dev-{i:05d}" for i in range(QUESTIONS)]
    write_jsonl(folder / "spider.jsonl", [{"id": i, "question": q} for i, q in zip(ids, questions, strict=True)])
    write_jsonl(folder / "spider_prompts.jsonl", [{"id": i, "prompt": p} for i, p in zip(ids, read, strict=True)])
    categories = ("stem", "humanities", "social_sciences")
    asked = [f"{categories[i * 3 // MMLU]}-{i:05d}" for i in range(MMLU)]
    write_jsonl(folder / "mmlu.jsonl", [{"id": i, "question": i, "choices": list("abcd")} for i in asked])
    write_jsonl(folder / "mmlu_prompts.jsonl", [{"id": i, "prompt": shots + i} for i in asked])
    for task in ("spider", "mmlu"):
        inputs["questions"][task] = folder / f"{task}.jsonl"
        inputs["prompts"][task] = [folder / f"{task}_prompts.jsonl"] * RUNS
    return inputs


def measure(page: Path) -> dict[str, dict[str, float]]:
    """Median and spread of each time, in milliseconds."""
    from playwright.sync_api import sync_playwright

    found: dict[str, list[float]] = {"open_ms": []} | {name: [] for name in ACTS}
    with sync_playwright() as playwright:
        path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
        browser = playwright.chromium.launch(executable_path=path)
        for _ in range(TIMES):
            # Without its policy the page lets a measurement be put into it.
            context = browser.new_context(viewport={"width": 1400, "height": 900}, bypass_csp=True)
            tab = context.new_page()
            tab.goto(page.as_uri(), wait_until="commit")
            found["open_ms"].append(tab.evaluate(OPENED))
            for name, act in ACTS.items():
                found[name].append(tab.evaluate(ACTED, act))
            context.close()
        version = browser.version
        browser.close()
    times = {
        name: {"median": round(statistics.median(all_), 1), "max": round(max(all_), 1)} for name, all_ in found.items()
    }
    return times | {"chromium": version}


def main() -> None:
    """Make the study, write its page, measure it, and print or write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where to write the result, as JSON")
    options = parser.parse_args()
    from _study import TASKS
    from answers import answers
    from tasks.registry import measured

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        inputs, page = made_up(folder), folder / "answers.html"
        runs = [{"model": "m", "variant": f"lr{run}" if run else "base"} for run in range(RUNS)]
        settings = {"study": "scale", "runs": runs, "language": "en", "known_defects": [], "accept_defect": []}
        start = time.perf_counter()
        answers(inputs, measured(TASKS), page, settings)
        result = {
            "date": str(date.today()),
            "machine": platform.processor() or platform.machine(),
            "questions": QUESTIONS,
            "runs": RUNS,
            "write_s": round(time.perf_counter() - start, 2),
            **measure(page),
        }
    text = json.dumps(result, indent=1) + "\n"
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
