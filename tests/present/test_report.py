import json
import re
from pathlib import Path
from string import Formatter

import pandas as pd
import pytest
import typst

from _study import TABLES as WRITTEN
from _study import mmlu_records, spider_records, study, with_shots, write_tables
from analysis.data import heads_of
from common.files import UserError, write_json
from custom_metrics.judge import ERROR_CLASSES
from harness_table import harness_table
from present.report_content import FIGURES, NEAR_MISSES, choose_failures
from present.report_render import (
    MOST_PAGES,
    ROOMS,
    code_span,
    drawable,
    fenced,
    fitted,
    markdown,
    spans_markdown,
    to_pdf,
)
from present.report_text import LANGUAGES, TEXTS, Language, code, text
from present.values import SAME, read_table
from report import TABLES, report
from tasks.records import SPIDER_COLUMNS, read_records

TEMPLATE = Path(__file__).resolve().parents[2] / "resources" / "report" / "report.typ"
HOSTILE = (
    "```\n# Not a heading\n<script>alert(1)</script> #panic(1) $x$ @ref *b* \\ \n````\n\0\ud800\u202e 查询 🙂 é |"
    + "x" * 5000
)
COST = {"task": "predict_spider", "device": "cpu", "seconds": 3.5, "gpu_hours": 0, "rows_per_second": 4.2}
COST |= {"tokens_per_second": "", "peak_memory_mib": 700}


def results(folder, adapters, models=("demo",), made=None):
    """Write everything a report reads, as the rules leave it; return the arguments of `report`."""
    made = made or study(folder / "made", adapters, models)
    runs = [(run["model"], run["variant"]) for run in made["runs"]]
    models = list(dict.fromkeys(model for model, _ in runs))
    records = []
    for (model, variant), path in zip(runs, made["spider"], strict=True):
        records.append(folder / f"runs/{model}/{variant}/spider.csv")
        records[-1].parent.mkdir(parents=True)
        records[-1].write_bytes(path.read_bytes())
    paths = {name: folder / f"tables/{name}.csv" for name in (*WRITTEN, "cost")}
    write_tables(outputs=paths | {f"{name}_md": folder / f"tables/{name}.md" for name in WRITTEN}, **made)
    pd.DataFrame([head | COST for head in heads_of(made["runs"])[1]]).to_csv(paths["cost"], index=False)
    (folder / "figures").mkdir()
    picture = typst.compile(b"#set page(width: 400pt, height: 300pt)\nA figure", timestamp=0)
    figures = [folder / f"figures/{name}.pdf" for name in FIGURES]
    for path in figures:
        path.write_bytes(picture)
    split = {"rows": 200, "sha256": "ab" * 32, "by_database": {"zoo": 200}}
    split["by_hardness"] = {"easy": 50, "medium": 50, "hard": 50, "extra": 50}
    manifests = {
        "spider": {"source": "https://example.org/spider.zip", "archive_sha256": "cd" * 32},
        "mmlu_source": {"source": "https://example.org/mmlu.tar", "archive_sha256": None},
        "splits": {
            "shots": ["train_spider-00001"],
            "splits": {"train": split, "dev": split},
            "settings": {"seed": 42, "validation": {"by": "database"}},
        },
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
        record = {"name": model, "source": "meta/llama", "commit": "c0ffee" * 6, "sha256": "12" * 32}
        write_json(folder / f"models/{model}.json", record)
        audit = {"rows": 80, "checked": 80, "truncated": 0, "pass": True}
        write_json(
            folder / f"runs/{model}/audit_labels.json", audit | {"few_shot_rows_in_train": 0, "dev_rows_in_train": 0}
        )
        for name in ("dev", "mmlu"):
            write_json(folder / f"runs/{model}/prompts/{name}.json", {"first_prompt": "<s>How many?\n  SQL:"})
    trained, answered = [], []
    for number, (model, variant) in enumerate(runs):
        facts = {"prompts_sha256": "34" * 32, "batch_size_used": 8, "device": "cpu", "settings": {"precision": "fp32"}}
        for task in ("spider", "mmlu"):
            answered.append(folder / f"runs/{model}/{variant}/predict_{task}.json")
            write_json(answered[-1], facts | {"versions": {"torch": "2.13.0"}})
        if variant != "base" and "point" not in made["runs"][number]:
            trained.append(folder / f"runs/{model}/{variant}/train.json")
            training = {"learning_rate": 0.001 * number, "seed": 42}
            settings = {"lora": {"r": 8, "target_modules": ["q", "v"]}, "training": training}
            facts = {"rows": 80, "steps": 10, "trainable_parameters": 1000, "all_parameters": 100000, "device": "cpu"}
            write_json(trained[-1], facts | {"settings": settings, "history": [{"loss": 0.5}]})
    return {
        "outputs": {"report": folder / "report.md", "pdf": folder / "report.pdf"},
        "tables": {name: paths[name] for name in TABLES},
        "figures": figures,
        "records": records,
        **{name: folder / f"{name}.json" for name in manifests},
        "models": [folder / f"models/{model}.json" for model in models],
        "audits": [folder / f"runs/{model}/audit_labels.json" for model in models],
        "dev_prompts": [folder / f"runs/{model}/prompts/dev.json" for model in models],
        "mmlu_prompts": [folder / f"runs/{model}/prompts/mmlu.json" for model in models],
        "train": trained,
        "answers_reports": answered,
        "template": TEMPLATE,
        "study": "test",
        "semantics": "bag",
    }


def written(arguments, **others):
    """Write the report; return its Markdown, its PDF and the number of its pages."""
    report(**arguments | others)
    pdf = arguments["outputs"]["pdf"].read_bytes()
    return arguments["outputs"]["report"].read_text(encoding="utf-8"), pdf


def pages(capsys):
    return int(re.search(r"report\.pdf: (\d+) pages", capsys.readouterr().out)[1])


def part(page, heading, language="en"):
    """Return the text under a heading of the Markdown page."""
    title = TEXTS[heading][LANGUAGES.index(language)]
    return re.search(rf"(?ms)^#+ {re.escape(title)}$(.*?)(?=^#|\Z)", page)[1]


def made_of(folder, right, mmlu):
    """Write the records of a base and one adapter with these right answers; return the arguments of `tables`."""
    runs = [{"model": "demo", "variant": "base", "settings": {}}]
    runs.append({"model": "demo", "variant": "lr0.1", "settings": {"training.learning_rate": 0.1}})
    folder.mkdir()
    return {
        "spider": [spider_records(folder / f"s{i}.csv", answers) for i, answers in enumerate(right)],
        "mmlu": [mmlu_records(folder / f"m{i}.csv", answers, ("stem",)) for i, answers in enumerate(mmlu)],
        "study": "test",
        "runs": runs,
        "confidence_level": 0.95,
    }


@pytest.mark.parametrize("language", ["en", "pt"])
def test_the_macro_average_stands_where_it_is_another(tmp_path, language):
    made = study(tmp_path / "made", 1)
    one = results(tmp_path / "one", 1, made=made)
    for path, right in zip(made["mmlu"], ([1] * 150, [0] * 30 + [1] * 120), strict=True):
        mmlu_records(path, right, subjects=["a", "b", "c", "a"])
    other = results(tmp_path / "other", 1, made=made)
    for arguments, there in ((one, False), (other, True)):
        assert ("Macro" in written(arguments, language=language)[0]) == there


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    ("adapters", "models"), [(0, ("demo",)), (1, ("demo",)), (30, ("demo",)), (2, ("llama", "gemma"))]
)
def test_a_report_of_any_study(tmp_path, capsys, adapters, models, language):
    arguments = results(tmp_path, adapters, models)
    page, pdf = written(arguments, language=language)
    assert pages(capsys) <= MOST_PAGES
    assert (page, pdf) == written(arguments, language=language)
    assert str(tmp_path) not in page
    assert str(tmp_path).encode() not in pdf
    assert "](figures/tradeoff.svg)" in page
    assert "](answers.html#task=spider&q=dev-0" in page
    assert "c0ffee" in page
    assert "nan" not in re.sub(r"\w*(finan|nant)\w*", "", page.lower())
    none = TEXTS["no_adapters"][LANGUAGES.index(language)]
    if adapters:
        assert none not in page
        assert len(re.findall(r"(?m)^- .*execution accuracy .*MMLU", page)) == adapters * len(models)
    else:
        assert page.count(none) >= 2
        assert TEXTS["verdict_better"][LANGUAGES.index(language)] not in part(page, "change", language)


def test_a_long_table_is_cut_on_paper_and_whole_on_screen(tmp_path):
    arguments = results(tmp_path, 30)
    page, _ = written(arguments)
    rows = [line for line in page.splitlines() if line.startswith("| `lr") and "Execution accuracy" in line]
    assert len(rows) == 30
    table = {"kind": "table", "note": [], "file": "tables/x.csv", "more": "more_rows"}
    table["rows"] = [{"rank": rank, "cells": []} for rank in (None, 3, 3, 0, 0, 2, 2, 1, 1)]
    room = ROOMS[-1]
    shown = fitted({"body": [table]}, room, Language("en"))["body"][0]
    assert [row["rank"] for row in shown["rows"]] == [None, 0, 0, 1, 1]
    assert spans_markdown(shown["note"]) == (
        "Shown: the 2 of 4 adapters with the highest execution accuracy; the rest is in `tables/x.csv`."
    )


def test_findings_say_what_the_table_says(tmp_path):
    page, _ = written(results(tmp_path, 2))
    found = re.findall(r"(?m)^- `(\S+)`: .*\*\*(.*)\*\*; .*\*\*(.*)\*\*\.$", part(page, "change"))
    table = pd.read_csv(tmp_path / "tables/regression.csv")
    said = table[table["category"] == "aggregate"].groupby("variant")["verdict"].agg(list)
    assert {name: [gain, loss] for name, gain, loss in found} == {
        name: [verdict.removesuffix(" at this n") for verdict in verdicts] for name, verdicts in said.items()
    }


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("gain", ["better", "worse", SAME])
@pytest.mark.parametrize("loss", ["better", "worse", SAME])
def test_each_pair_of_verdicts_has_its_sentence(tmp_path, gain, loss, language):
    arguments = results(tmp_path, 1)
    path = arguments["tables"]["regression"]
    table = pd.read_csv(path)
    table.loc[table["measure"] == "execution_accuracy", "verdict"] = gain
    table.loc[table["measure"] == "mmlu", "verdict"] = loss
    table.to_csv(path, index=False)
    page, _ = written(arguments, language=language)
    pair = "_".join({SAME: "same"}.get(verdict, verdict) for verdict in (gain, loss))
    sentence = TEXTS[pair][LANGUAGES.index(language)]
    expected = re.sub(r"\\{\w+\\}", ".*?", re.escape(sentence.replace("{rate} ", "{rate}"))) + r"\n"
    assert re.search(expected, part(page, "worth", language))


def test_an_unknown_verdict_is_refused(tmp_path):
    arguments = results(tmp_path, 1)
    path = arguments["tables"]["regression"]
    path.write_text(path.read_text().replace(SAME, "promising").replace("better", "promising"))
    with pytest.raises(UserError, match=r"verdict: found 'promising', expected one of better, worse"):
        report(**arguments)


@pytest.mark.parametrize("share", [0, 1])
def test_all_wrong_all_right(tmp_path, share):
    made = made_of(tmp_path / "made", [[share] * 60] * 2, [[share] * 30] * 2)
    page, _ = written(results(tmp_path, 1, made=made))
    for word in ("**better**", "**worse**", "Highest is"):
        assert (word in page) == (word == "Highest is" and share == 1)
    assert ("No run has a right answer" in page) == (share == 0)
    assert ("all 60 answers are right" in page) == (share == 1)
    assert ("not shown to be above chance on MMLU" in page) == (share == 0)
    # One category is the whole: no table of it apart.
    assert "by MMLU category" not in page


def test_known_defects_stand_above_all(tmp_path):
    arguments = results(tmp_path, 1)
    page, clean = written(arguments)
    assert TEXTS["defects_title"][0] not in page
    page, pdf = written(arguments, known_defects=["The loss #covers <b>nothing</b>."], accept_defect=["truncated"])
    head = page.partition("## Methodology")[0]
    assert "The loss \\#covers \\<b\\>nothing\\</b\\>." in head
    assert "its audit may fail: truncated" in head
    assert TEXTS["abstract_defects"][0] in head
    assert pdf != clean


def frame_of(*rows):
    """Return Spider records of these (id, right, class, hardness)."""
    names = ("id", "bag", "error_class", "hardness")
    return pd.DataFrame([dict(zip(names, row, strict=True)) for row in rows])


def test_failures_are_chosen_by_rule():
    tuned = frame_of(
        ("a", 1, "ok", "easy"),
        ("b", 0, "no_sql", "easy"),
        ("c", 0, "wrong_rows", "hard"),
        ("d", 0, "wrong_rows", "easy"),
        ("e", 0, "duplicate_only", "medium"),
        ("f", 0, "wrong_columns", "hard"),
        ("g", 0, "wrong_columns", "hard"),
    )
    # The base's records in another order, with b wrong and c right.
    base = frame_of(*[(i, int(i in "ac"), "ok", "easy") for i in "gfedcba"])
    chosen = [(rule, row.id) for rule, row in choose_failures(tuned, base, "bag")]
    assert chosen == [("forgotten", "c"), ("commonest", "d"), ("near_miss", "f")]
    assert [rule for rule, _ in choose_failures(tuned, tuned, "bag")] == ["commonest", "near_miss"]
    assert choose_failures(tuned[tuned["bag"] == 1], base, "bag") == []
    # One wrong answer is shown once, by the first rule that it meets.
    assert [rule for rule, _ in choose_failures(tuned.iloc[[2]], base, "bag")] == ["forgotten"]
    assert set(NEAR_MISSES) < set(ERROR_CLASSES)


def test_hostile_answers_are_shown_and_not_obeyed(tmp_path, capsys):
    arguments = results(tmp_path, 1)
    path = arguments["records"][1]
    spider_records(path, read_records(path, SPIDER_COLUMNS)["bag"].tolist(), answer=HOSTILE)
    page, pdf = written(arguments)
    assert pages(capsys) <= MOST_PAGES
    assert pdf.startswith(b"%PDF")
    assert "`````text\n```\n# Not a heading\n<script>" in page
    assert "\\u0000\\ud800\\u202e 查询" in page
    assert "more characters.)" in page
    outside = re.sub(r"(?ms)^(`{3,})\w*\n.*?^\1$", "", page)
    assert "<script>" not in outside
    assert "# Not a heading" not in outside


def test_a_pdf_of_hostile_text_in_every_kind_of_block():
    hostile = HOSTILE[:700]
    spans = [*text(hostile), *code(hostile), ("strong", hostile), ("emph", hostile)]
    table = {"kind": "table", "label": "T", "caption": spans, "note": spans, "wide": False, "more": "more_rows"}
    table |= {"columns": [{"title": hostile[:200], "align": "left"}], "rows": [{"rank": None, "cells": [spans]}]}
    blocks = [{"kind": "paragraph", "body": spans}, {"kind": "list", "items": [spans]}, table]
    blocks += [{"kind": "code", "body": hostile, "most": "answer"}, {"kind": "heading", "level": 1, "text": hostile}]
    made = {"title": "t", "study": hostile[:99], "byline": spans, "abstract": {"label": "a", "body": spans}}
    made |= {"body": blocks, "stamp": {"title": "x", "items": [spans]}}
    pdf, _ = to_pdf(made, "en", TEMPLATE)
    assert pdf == to_pdf(made, "en", TEMPLATE)[0]


@pytest.mark.parametrize(("rows", "pages"), [(50, 1), (66, 2)])
def test_a_table_goes_on_to_the_next_page_where_floats_leave_less_than_its_height(rows, pages):
    def table(name, rows, wide):
        made = {"kind": "table", "label": name, "caption": text("c"), "note": [], "wide": wide, "more": "more_rows"}
        made |= {"columns": [{"title": "a", "align": "left"}]}
        return made | {"rows": [{"rank": None, "cells": [code(f"{name}{row}")]} for row in range(rows)]}

    made = {"title": "t", "study": "s", "byline": text("b"), "abstract": {"label": "a", "body": text("b")}}
    made |= {"body": [table("floating", rows, True), table("in the text", 13, False)], "stamp": None}
    assert to_pdf(made, "en", TEMPLATE)[1] == pages


def test_other_prompts_for_one_run_are_refused(tmp_path):
    arguments = results(tmp_path, 1)
    path = arguments["answers_reports"][-1]
    write_json(path, json.loads(path.read_text()) | {"prompts_sha256": "ff" * 32})
    with pytest.raises(UserError, match=r"predict_mmlu\.json, prompts_sha256: found ff.*expected 34"):
        report(**arguments)


def test_prompts_of_its_own_for_the_base_are_said(tmp_path):
    arguments = results(tmp_path, 1)
    path = arguments["answers_reports"][0]
    write_json(path, json.loads(path.read_text()) | {"prompts_sha256": "ff" * 32})
    page, _ = written(arguments, own_prompts=["base"])
    assert "the base was given other prompts than its adapters" in page
    assert "Spider prompts of `base`" in page


@pytest.mark.parametrize("language", LANGUAGES)
def test_points_have_a_part_of_their_own(tmp_path, language):
    plain, _ = written(results(tmp_path / "plain", 2), language=language)
    made = study(tmp_path / "made", 2)
    first = made["runs"][1]["variant"]
    for name, point in {f"{first}@0.5": {"strength": 0.5}, "soup-all": {"soup": "all"}}.items():
        made["runs"].append({"model": "demo", "variant": name, "settings": {}, "point": {"of": [first], **point}})
        made["spider"].append(made["spider"][1])
        made["mmlu"].append(made["mmlu"][1])
    page, _ = written(results(tmp_path / "points", 2, made=made), language=language)
    own = part(page, "points", language)
    assert f"`{first}@0.5`" in own
    assert "`soup-all`" in own
    assert "strength.svg" in own
    # All else is about the adapters alone.
    rest = page.replace(own, "")
    assert f"{first}@" not in rest
    assert "soup-all" not in rest
    for heading in ("change", "worth"):
        assert part(page, heading, language) == part(plain, heading, language)


def harness_csv(path, adapters, scores):
    """Write what `harness_table` makes of 0/1 scores, by task, of the base and each adapter; return the path."""
    runs = [{"model": "demo", "variant": name, "settings": {}} for name in ["base", *adapters]]
    files = []
    for number, run in enumerate(runs):
        samples = [
            {"task": task, "filter": "none", "doc_id": i, "doc_hash": str(i), "acc": float(value)}
            for task, values in scores.items()
            for i, value in enumerate(values[number])
        ]
        results = [
            {"task": task, "metric": "acc", "filter": "none", "value": sum(v[number]) / len(v[number])}
            | {"n": len(v[number])}
            for task, v in scores.items()
        ]
        results.append({"task": "t0", "metric": "perplexity", "filter": "none", "value": 9.5, "n": 40})
        files.append(path.with_name(f"{run['variant']}.json"))
        found = {"lm_eval": "0.4.13", "shots": dict.fromkeys(scores, 0), "results": results, "samples": samples}
        write_json(files[-1], found)
    settings = {"runs": runs, "confidence_level": 0.95, "known_defects": [], "accept_defect": [], "language": "en"}
    harness_table(files, {"csv": path, "md": path.with_suffix(".md")}, settings)
    return path


@pytest.mark.parametrize("language", LANGUAGES)
def test_other_tasks_have_a_sentence_for_each_verdict(tmp_path, language):
    arguments = results(tmp_path, 2)
    adapters = [path.parts[-2] for path in arguments["train"]]
    half, better, worse = [1, 0] * 20, [1] * 38 + [0] * 2, [0] * 39 + [1]
    # Of 2 x 5 comparisons, one better, one worse, eight the same; more than the table shows.
    scores = {"t0": [half, better, half], "t1": [half, half, worse], **{f"t{i}": [half] * 3 for i in (2, 3, 4)}}
    path = harness_csv(tmp_path / "harness.csv", adapters, scores)
    page, _ = written(arguments, harness=path, language=language)
    own, say = part(page, "harness", language), Language(language)
    table = read_table(path).set_index(["variant", "task", "metric"])

    def change(verdict, name, task):
        row = table.loc[name, task, "acc"]
        difference = say.change(*(100 * row[column] for column in ("difference", "ci_low", "ci_high")))
        name = say("harness_change", name=code(name), measure=[*code(task), *text(" acc")], difference=difference)
        return spans_markdown(say(f"harness_{verdict}", k=1, n=10, names=name))

    equal = table[table["verdict"] == SAME]
    ends = {
        end: say.signed(100 * value)
        for end, value in (("low", equal["ci_low"].min()), ("high", equal["ci_high"].max()))
    }
    same = say("harness_same", k=8, n=10, **ends)
    expected = (change("worse", adapters[1], "t1"), change("better", adapters[0], "t0"), spans_markdown(same))
    assert " ".join(expected) in own
    assert spans_markdown(say("more_contrasts", shown=6, all=10, file="tables/harness.csv")) in own
    assert spans_markdown(say("harness_note", n=10, level=say.percent(0.95))) in own
    lines = [line for line in own.splitlines() if line.startswith("| `lr")]
    assert len(lines) == 6
    row = table.loc[adapters[0], "t0", "acc"]
    first = next(line for line in lines if "`t0`" in line and adapters[0] in line)
    assert f"{say.number(50)} → {say.number(95)}" in first
    assert first.split("|")[3].strip() == "40"
    assert say.p(row["p_holm"]) in first
    assert "perplexity" not in own
    # Nothing else of the report is about them.
    without, _ = written(arguments, language=language)
    assert TEXTS["harness"][LANGUAGES.index(language)] not in without
    assert part(page, "change", language) == part(without, "change", language)


def test_other_tasks_of_a_base_alone(tmp_path):
    path = harness_csv(tmp_path / "harness.csv", [], {"t0": [[1, 0] * 20]})
    page, _ = written(results(tmp_path / "r", 0), harness=path)
    assert "`t0` acc 0.500 (n = 40) and `t0` perplexity 9.500 (n = 40)" in part(page, "harness")


@pytest.mark.parametrize(
    ("language", "rights", "best", "accuracy"),
    [
        ("en", {0: [0] * 200, 5: [1] * 150 + [0] * 50}, 5, 75.0),
        ("pt", {0: [0] * 200, 1: [0] * 199 + [1]}, 3, None),
    ],
)
def test_what_prompting_alone_buys(tmp_path, language, rights, best, accuracy):
    made = with_shots(study(tmp_path / "made", 2), tmp_path, rights)
    arguments = results(tmp_path / "shots", 2, made=made)
    other = "0" * 64
    for path in arguments["answers_reports"]:
        if "@shots" in str(path) and path.name == "predict_spider.json":
            write_json(path, json.loads(path.read_text()) | {"prompts_sha256": other})
    page, _ = written(arguments, language=language, own_prompts=[f"base@shots{shots}" for shots in rights])
    own = part(page, "shots", language)
    assert all(f"`base@shots{shots}`" in own for shots in rights)
    assert "shots.svg" in own
    counts = read_table(arguments["tables"]["execution_accuracy"])
    whole = counts[counts["questions"] == "aggregate"].set_index("variant")["accuracy_pct"]
    say = Language(language)
    reached = accuracy or whole["base"]
    best_of = say("shots_best", model=code("demo"), shots=say.count("n_example", best), accuracy=say.number(reached))
    top = whole[[name for name in whole.index if name.startswith("lr")]].idxmax()
    difference = say.signed(whole[top] - reached)
    against = say("shots_adapter", adapter=code(top), accuracy=say.number(whole[top]), difference=difference)
    assert f"{spans_markdown(best_of)} {spans_markdown(against)}" in own
    # The base was given the adapters' prompts; what has others is named, with their hash.
    assert spans_markdown(say("same_prompts")) in page
    assert f"`{other[:16]}`" in page
    assert "base@shots" not in part(page, "change", language)


@pytest.mark.parametrize("language", LANGUAGES)
def test_whether_replay_reduced_forgetting_is_said(tmp_path, language):
    made = study(tmp_path / "made", 2)
    for run, fraction in zip(made["runs"][1:], (0.0, 0.25), strict=True):
        run |= {"settings": {"replay.fraction": fraction}, "variant": f"replay{fraction}"}
    arguments = results(tmp_path, 2, made=made)
    trained = arguments["train"][1]
    facts = json.loads(trained.read_text())
    facts["settings"]["replay"] = {"fraction": 0.25, "kl": 0.0}
    write_json(trained, facts | {"replay": {"rows": 20}})
    manifest = {"rows": 99, "settings": {"seed": 7}, "repeated_dropped": 2, "checked_against": 195}
    write_json(tmp_path / "replay.json", manifest | {"of_mmlu_dropped": {"a": "test x-00001"}})
    write_json(tmp_path / "replay_source.json", {"source": "rows.csv"})
    arguments |= {name: tmp_path / f"{name}.json" for name in ("replay", "replay_source")}
    table = pd.read_csv(arguments["tables"]["factors"])
    for verdict, key in (("higher", "higher"), ("lower", "lower"), (SAME, "same")):
        table.assign(verdict=verdict).to_csv(arguments["tables"]["factors"], index=False)
        page, _ = written(arguments, language=language)
        what = TEXTS["mitigation_replay.fraction"][LANGUAGES.index(language)]
        said = TEXTS[f"mitigation_{key}"][LANGUAGES.index(language)].partition("{high}")[0].replace("{what}", what)
        assert f"{said}0.25 " in part(page, "factors", language)
        # Execution accuracy is nothing that is forgotten.
        assert page.count(said) == 1
    assert "`rows.csv`" in page
    assert "195" in page
    assert "0.0; 0.25" in page
    assert "`replay.fraction`" in page


def test_both_languages_say_the_same():
    for key, both in TEXTS.items():
        english, portuguese = ([field for _, field, _, _ in Formatter().parse(said) if field] for said in both)
        assert sorted(english) == sorted(portuguese), key
        for sign in ("`", "**"):
            assert both[0].count(sign) == both[1].count(sign), key
        # A report says what was found, never why.
        assert not re.search(r"(?i)\b(because|caus\w+|due to|thanks to|owing|porque|devido|graças)\b", str(both)), key


def test_every_class_of_error_is_explained():
    assert {f"e_{name}" for name in ERROR_CLASSES} <= set(TEXTS)


def test_numbers():
    english, portuguese = map(Language, LANGUAGES)
    assert english.interval(-1.25, -2, 0.04, sign=True) == "\N{MINUS SIGN}1.2 (\N{MINUS SIGN}2.0 to 0.0)"
    assert portuguese.interval(1.25, float("nan"), 2, sign=True) == "+1,2"
    assert portuguese.change(3, 1, 5) == "+3,0 pp, +1,0 a +5,0"
    assert english.number(float("nan")) == "n/a"
    assert (english.p(0.0004), english.p(0.0314), english.p(1.0)) == ("< 0.001", "0.031", "1")
    assert (english.whole(12345), portuguese.whole(12345)) == ("12,345", "12.345")
    assert spans_markdown(english.listed([text(name) for name in "abcdef"])) == "a, b, c, d and 2 more"


def test_text_is_shown_as_it_is():
    assert markdown("a*b_c|<d>\ne") == r"a\*b\_c|\<d\> e"
    assert code_span("a`b") == "``a`b``"
    assert code_span("`a`") == "`` `a` ``"
    assert fenced("x", "sql") == "```sql\nx\n```"
    assert drawable("é→\t☃🙂\u0301\u202e") == r"é→    \u2603\U0001f642\u0301\u202e"
    # A value is filled in, never read as a sentence.
    assert Language("en")("byline", study="{study} **b** `c`")[-1] == ("code", "{study} **b** `c`")
