"""Markdown tables and the page of all tables: what they show of the CSV files, in both languages."""

import re
from html import unescape

import pandas as pd
import pytest

from _study import MEASURES, TABLES, TASKS, draw, mmlu_records, settings_of, study, sweep, table_paths, write_tables
from present.catalogue import MOST_CONFUSIONS
from present.format import LANGUAGES, Say
from present.tables import read, shared_facts, to_markdown
from present.values import read_table
from tables_page import tables_page
from tests.analysis.test_tables import costs, run, two


def page_of(folder, language="en", **arguments):
    """Write tables, their costs as made up, and the page of them; return the page's text."""
    paths = table_paths(folder)
    write_tables(outputs=paths, language=language, **arguments)
    costs(folder, arguments["runs"])
    csv = {name: paths[name] for name in TABLES} | {"cost": folder / "cost.csv"}
    settings = {"study": arguments["study"], "tasks": TASKS, "language": language}
    settings |= {"known_defects": [], "accept_defect": []}
    tables_page(csv, folder / "tables.html", settings)
    return (folder / "tables.html").read_text(encoding="utf-8")


def cells(page):
    """The rows of cells of a Markdown page."""
    lines = [line for line in page.splitlines() if line.startswith("|") and not re.match(r"\|[:\-|]+$", line)]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


@pytest.mark.parametrize("adapters", [0, 1, 30])
def test_the_page_holds_every_table_and_nothing_from_elsewhere(tmp_path, adapters):
    arguments = study(tmp_path, adapters)
    page = page_of(tmp_path, **arguments)
    for name in (*TABLES, "cost"):
        assert f"<section id={name}>" in page
        assert f'href="#{name}"' in page
    assert not re.search(r"<script|<link|<img|https?://|url\(|@import", page)
    assert str(tmp_path) not in page
    assert page.count("<tr") == page.count("</tr>")
    assert ("nothing to compare" in page) == (adapters == 0)
    again = (tmp_path / "tables.html").read_bytes()
    page_of(tmp_path, **arguments)
    assert again == (tmp_path / "tables.html").read_bytes()


def test_names_cannot_break_the_page(tmp_path):
    arguments = two(tmp_path, [1, 0], [0, 1], [1] * 6, [0] * 6)
    for path in arguments["mmlu"]:
        mmlu_records(path, [1] * 6, categories=("<b>x</b>", "a&b"))
    for one in arguments["runs"]:
        one["model"] = 'm"><i>{{ 7 * 7 }}</i>'
    defects = {"known_defects": ["<u>it</u> never saw"], "accept_defect": ["<s>x</s>"]}
    page_of(tmp_path, **arguments | {"study": "<script>alert(1)</script>"})
    csv = {name: tmp_path / f"{name}.csv" for name in (*TABLES, "cost")}
    settings = {"study": "<script>alert(1)</script>", "tasks": TASKS, "language": "en", **defects}
    tables_page(csv, tmp_path / "tables.html", settings)
    page = (tmp_path / "tables.html").read_text(encoding="utf-8")
    assert not re.search(r"<(script|b|i|u|s)\b", page)
    assert "&lt;b&gt;x&lt;/b&gt;" in page
    assert "a&amp;b" in page
    assert "{{ 7 * 7 }}" in page
    assert "&lt;u&gt;it&lt;/u&gt; never saw" in page
    assert "audit may fail: &lt;s&gt;x&lt;/s&gt;" in page


def test_names_cannot_break_a_table(tmp_path):
    arguments = two(tmp_path, [1, 0], [0, 1], [1] * 6, [0] * 6)
    for r in arguments["runs"]:
        r["model"] = "a|b"
    _, pages = run(tmp_path, **arguments)
    assert all("a\\|b" in page and "a|b" not in page for page in pages)


def test_every_page_names_its_questions(tmp_path):
    answers = [({}, draw(80, 0.4, 1), draw(40, 0.5, 3))]
    answers += [(settings_of(seed, lr=lr), draw(80, 0.6, 2), draw(40, 0.4, 4)) for seed in (1, 2) for lr in (0.1, 0.2)]
    found = sweep(tmp_path, answers, criterion="ordered")
    for name in TABLES:
        page = (tmp_path / f"{name}.md").read_text(encoding="utf-8")
        assert "n = 80 Spider questions" in page or "n = 40 MMLU questions" in page
        hashes = set(" ".join(found[name]["data_sha256"]).split())
        assert hashes
        assert all(re.fullmatch("[0-9a-f]{64}", value) and f"sha256 `{value}`" in page for value in hashes)
        if name not in ("mmlu", "errors", "confusion"):
            assert "Ordered criterion: an answer is right if" in page
            assert "ordered" in set(found[name]["criterion"])


def test_both_languages_say_the_same_numbers(tmp_path):
    answers = [({}, draw(80, 0.4, 1), draw(80, 0.5, 3))]
    answers += [(settings_of(seed, lr=lr), draw(80, 0.6, 2), draw(80, 0.4, 4)) for seed in (1, 2) for lr in (0.1, 0.2)]
    frames = sweep(tmp_path, answers)

    def numbers(page, language):
        decimal = "," if language == "pt" else "."
        return [cell.replace(decimal, ".").replace(" a ", " to ") for row in cells(page) for cell in row]

    pages = {}
    for language in LANGUAGES:
        say = Say(language, MEASURES)
        facts = shared_facts("test", {task: frames[task] for task in MEASURES}, say)
        pages[language] = {name: to_markdown(name, frames[name], facts, say) for name in TABLES}
    assert "n = 80 perguntas do Spider" in pages["pt"]["settings"]
    for name in TABLES:
        english, portuguese = (numbers(pages[language][name], language) for language in ("en", "pt"))
        assert len(english) == len(portuguese)
        quantities = [
            i for i, cell in enumerate(english) if re.fullmatch(r"[<+\N{MINUS SIGN}\d.,() to/→%]*\d\)?", cell)
        ]
        assert quantities
        assert [english[i] for i in quantities] == [portuguese[i] for i in quantities]
        hashes = [re.findall(r"sha256\s+`\w+`", pages[language][name]) for language in ("en", "pt")]
        assert hashes[0] == hashes[1]


def test_answers_at_equal_gain_name_their_questions(tmp_path):
    answers = [({}, draw(80, 0.4, 1), draw(40, 0.9, 3))]
    for r in (4, 8):
        point = {"variant": f"r{r}@0.5", "setting": f"r{r}@0.5", "point": {"of": [f"r{r}"], "strength": 0.5}}
        answers += [(settings_of(r=r), draw(80, 0.9, r), draw(40, 0.4, r))]
        answers += [(settings_of(r=r), point, draw(80, 0.7, r), draw(40, 0.6, r))]
    frame = sweep(tmp_path, answers)["equal_gain"]
    assert len(frame) == 2
    page = (tmp_path / "equal_gain.md").read_text(encoding="utf-8")
    assert "n = 80 Spider questions" in page
    assert "n = 40 MMLU questions" in page


@pytest.mark.parametrize("language", LANGUAGES)
def test_markdown_and_page_show_the_same_cells(tmp_path, language):
    page = page_of(tmp_path, language, **study(tmp_path, 3))
    assert f'<html lang="{language}">' in page
    for name in (*TABLES, "cost"):
        text = (tmp_path / f"{name}.md").read_text(encoding="utf-8")
        if name == "cost":
            text = to_markdown(name, read_table(tmp_path / "cost.csv"), {}, Say(language, MEASURES))
        chapter = re.search(f"<section id={name}>.*?</section>", page, re.S)[0]
        rows = re.findall("<tr.*?</tr>", chapter, re.S)
        shown = [re.sub("<[^>]*>", " ", row) for row in rows]
        # A verdict has its sign before it; lines break elsewhere.
        shown = [re.sub(r"\s+", "", unescape(row)) for row in shown]
        wanted = cells(text)
        assert len(shown) == len(wanted)
        for row, html in zip(wanted, shown, strict=True):
            for cell in row[2:]:
                assert re.sub(r"\s+", "", cell).replace("`", "") in html


def test_a_verdict_of_few_clusters_has_its_dagger_everywhere(tmp_path):
    page = page_of(tmp_path, **two(tmp_path, [1, 0] * 30, [0, 1] * 30, [1] * 30, [0] * 30))
    text = (tmp_path / "settings.md").read_text(encoding="utf-8")
    assert text.count("| lost †") == page.count("lost\N{NO-BREAK SPACE}†") > 0
    # And so has what stands against the margin.
    assert text.count("margin lost †") == page.count("margin lost †") > 0
    assert "† These questions come from fewer than five" in page


def test_an_interval_is_drawn_where_it_lies(tmp_path):
    run(tmp_path, **two(tmp_path, [0] * 40, [1] * 20 + [0] * 20, [1] * 30, [1] * 30))
    frame = read_table(tmp_path / "regression.csv")
    say = Say("en", MEASURES)
    facts = shared_facts("test", {task: read_table(tmp_path / f"{task}.csv") for task in MEASURES}, say)
    sheet = read("regression", frame, facts, say)
    column = [column.key for column in sheet.grids[0].columns].index("difference")
    gain, none = (row[column].bar for row in sheet.grids[0].rows)
    assert (gain.zero, none.zero) == (50, 50)
    assert 50 < gain.low < gain.middle < gain.high == 98
    assert none.low < none.middle == 50 < none.high


def test_of_too_many_adapters_the_classes_are_not_shown():
    rows = [
        {"task": "spider", "model": "m", "variant": f"v{i}", "base_class": "ok", "tuned_class": "ok", "n": 3}
        for i in range(MOST_CONFUSIONS + 1)
    ]
    few, many = (
        read("confusion", pd.DataFrame(rows[:n]), {}, Say("en", MEASURES)) for n in (MOST_CONFUSIONS, len(rows))
    )
    assert len(few.grids) == MOST_CONFUSIONS
    assert many.grids == []
    assert "41 adapters" in many.notes["many"]
