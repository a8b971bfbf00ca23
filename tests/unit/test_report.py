import json
import re

import pytest
from _study import study, table_paths

from _files import UserError, write_json
from figures import figures
from report import code, fenced, markdown, report
from tables import tables


def results(folder, adapters, models=("demo",)):
    """Write everything a report reads, as the rules leave it; return the arguments of `report`."""
    made = study(folder / "made", adapters, models)
    runs = [(run["model"], run["variant"]) for run in made["runs"]]
    records = []
    for (model, variant), path in zip(runs, made["spider"], strict=True):
        records.append(folder / f"runs/{model}/{variant}/spider.csv")
        records[-1].parent.mkdir(parents=True)
        records[-1].write_bytes(path.read_bytes())
    paths = table_paths(folder / "tables")
    tables(outputs=paths, **made)
    figure = folder / "figures/tradeoff.svg"
    figures(paths["execution_accuracy"], paths["mmlu"], figure, folder / "figures/tradeoff.pdf")
    split = {"rows": 200, "sha256": "ab" * 32}
    manifests = {
        "spider": {"source": "https://example.org/spider.zip", "archive_sha256": "cd" * 32},
        "splits": {"shots": ["train_spider-00001"], "splits": {"train": split, "dev": split}},
        "suite": {
            "by_category": {"stem": 50},
            "rows": 150,
            "settings": {"shots": 4, "shots_from": "own_dev", "seed": 42},
            "sha256": "ef" * 32,
        },
    }
    for name, value in manifests.items():
        write_json(folder / f"{name}.json", value)
    for model in models:
        record = {"name": model, "source": "meta/llama", "commit": "c0ffee", "sha256": "12" * 32}
        write_json(folder / f"models/{model}.json", record)
        audit = {"rows": 80, "checked": 80, "truncated": 0, "pass": True}
        write_json(
            folder / f"runs/{model}/audit_labels.json", audit | {"few_shot_rows_in_train": 0, "dev_rows_in_train": 0}
        )
    trained, answered = [], []
    for number, (model, variant) in enumerate(runs):
        facts = {"prompts_sha256": "34" * 32, "batch_size_used": 8, "device": "cpu", "settings": {"precision": "fp32"}}
        for task in ("spider", "mmlu"):
            answered.append(folder / f"runs/{model}/{variant}/predict_{task}.json")
            write_json(answered[-1], facts)
        if variant != "base":
            trained.append(folder / f"runs/{model}/{variant}/train.json")
            settings = {"lora": {"r": 8, "target_modules": ["q", "v"]}, "training": {"learning_rate": 0.001 * number}}
            facts = {"rows": 80, "steps": 10, "trainable_parameters": 1000, "all_parameters": 100000, "device": "cpu"}
            write_json(trained[-1], facts | {"settings": settings, "history": [{"loss": 0.5}], "train_seconds": 3.2})
    return {
        "report": folder / "report.md",
        "study": "test",
        "semantics": "bag",
        **{f"{name}_md": paths[f"{name}_md"] for name in ("execution_accuracy", "mmlu", "regression", "errors")},
        "regression": paths["regression"],
        "figure": figure,
        "records": records,
        **{name: folder / f"{name}.json" for name in manifests},
        "models": [folder / f"models/{model}.json" for model in models],
        "audits": [folder / f"runs/{model}/audit_labels.json" for model in models],
        "train": trained,
        "answers_reports": answered,
    }


def written(arguments):
    report(**arguments)
    return arguments["report"].read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("adapters", "models"), [(0, ("demo",)), (1, ("demo",)), (30, ("demo",)), (2, ("llama", "gemma"))]
)
def test_a_report_of_any_study(tmp_path, adapters, models):
    arguments = results(tmp_path, adapters, models)
    page = written(arguments)
    assert page == written(arguments)
    assert str(tmp_path) not in page
    assert "](figures/tradeoff.svg)" in page
    assert "80 of 80 training rows checked" in page
    assert "c0ffee" in page
    assert page.count("## Execution accuracy on Spider (bag semantics): test") == 1
    assert page.count("### dev-") == 3
    if adapters:
        assert page.count("execution accuracy 3") + page.count("execution accuracy 2") >= adapters * len(models)
        assert "By rule" in page
    else:
        assert "nothing can be said about fine-tuning" in page
        assert "better" not in page.partition("## Setup")[0].partition("## Findings")[2]
    assert "nan" not in page.lower().replace("finance", "")


def test_findings_say_what_the_table_says(tmp_path):
    page = written(results(tmp_path, 2))
    verdicts = re.findall(r"\*\*(.*?)\*\*", page)
    table = (tmp_path / "tables/regression.csv").read_text().splitlines()[1:]
    assert verdicts == [line.split(",")[-2] for line in table if ",aggregate," in line]


def test_failures_are_forgotten_ones_first(tmp_path):
    arguments = results(tmp_path, 1)
    page = written(arguments)
    assert page.count("base right)") == 3
    base, tuned = arguments["records"]
    base.write_bytes(tuned.read_bytes())
    page = written(arguments)
    assert page.count("base wrong)") == 3
    assert "(0 of " in page


def test_hostile_answers_stay_in_their_block(tmp_path):
    arguments = results(tmp_path, 1)
    hostile = "```\n# Not a heading\n<script>alert(1)</script>\n````\n\0\ud800 | \u202e" + "x" * 5000
    path = arguments["records"][1]
    # In a record a newline is written as \n, NUL as \u0000: as JSON writes them, but for quotes.
    text = json.dumps(hostile)[1:-1]
    path.write_text(path.read_text().replace("SELECT -1,SELECT -1", f"{text},SELECT -1"))
    page = written(arguments)
    assert "`````text\n```\n# Not a heading\n<script>" in page
    assert "\\u0000\\ud800" in page
    assert "more characters)" in page
    outside = re.sub(r"(?ms)^(`{3,})\w*\n.*?^\1$", "", page)
    assert "<script>" not in outside
    assert "# Not a heading" not in outside


def test_other_prompts_for_one_run_are_refused(tmp_path):
    arguments = results(tmp_path, 1)
    path = arguments["answers_reports"][-1]
    write_json(path, json.loads(path.read_text()) | {"prompts_sha256": "ff" * 32})
    with pytest.raises(UserError, match=r"predict_mmlu\.json, prompts_sha256: found ff.*expected 34"):
        report(**arguments)


def test_text_is_shown_as_it_is():
    assert markdown("a*b_c|<d>\ne") == r"a\*b\_c|\<d\> e"
    assert code("a`b") == "``a`b``"
    assert code("`a`") == "`` `a` ``"
    assert fenced("x", "sql") == "```sql\nx\n```"
