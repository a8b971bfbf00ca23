"""The page of answers, in a headless Chromium: `apt-get install chromium`, or any browser that Playwright can drive."""

import csv
import html
import json
import math
import random
import re
import shutil
import sqlite3
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from _loopback import serve
from _study import TABLES
from answers import LONGEST_PROMPT, LONGEST_TEXT, answers, front_coded, plain
from common.files import UserError, read_jsonl, sha256_file, write_json, write_jsonl
from custom_metrics.compare import SEMANTICS
from custom_metrics.hardness import hardness
from custom_metrics.judge import ERROR_CLASSES, GOLD_FLAGS
from present.format import LANGUAGES, read_words
from score import score
from tables import tables
from tables_page import tables_page
from tasks.base import Measure
from tasks.records import MMLU_COLUMNS, SPIDER_COLUMNS, read_records, write_records
from tasks.registry import measured

LONG = "SELECT '" + "x" * 100_000
HOSTILE = [
    "<script>window.hit = 1</script>",
    "</script><script>window.hit = 1</script>",
    "<img src=x onerror='window.hit = 1'>",
    'SELECT "<svg/onload=window.hit=1>", \'</pre><iframe srcdoc="<script>parent.hit=1</script>">\' FROM t',
    "SELECT <b>window.hit</b>",
    "<!--<script>",
    "]]>--></style><style>* { display: none }</style><body onload=window.hit=1>",
    "javascript:window.hit=1 `${window.hit=1}` {{DATA}} {{POLICY}} \\u003cscript>",
    "&lt;b&gt; &amp; &#60;",
    "a\0b\x1b[31mc",
    "high \ud800 low \udfff pair 😀",
    "\u202eSELECT a FROM t\u2066",
    "\u2028 and \u2029",
    "\r\n two\rthree",
    "tags \U000e0041\U000e0041 end",
    "",
    LONG,
]
# What cannot be seen is shown as its code.
SHOWN = {
    "a\0b\x1b[31mc": "aU+0000bU+001B[31mc",
    "high \ud800 low \udfff pair 😀": "high U+D800 low U+DFFF pair 😀",
    "\u202eSELECT a FROM t\u2066": "U+202ESELECT a FROM tU+2066",
    "\u2028 and \u2029": "U+2028 and U+2029",
    "\r\n two\rthree": "\r\n twoU+000Dthree",
    "tags \U000e0041\U000e0041 end": "tags U+E0041 \u00d72 end",
    LONG: LONG[:LONGEST_TEXT],
}


DEFAULTS = {"language": "en", "known_defects": [], "accept_defect": []}
LEVELS = ("easy", "medium", "hard", "extra")
SCORED = {"kind": "spider", "name": "tasks.spider", "criterion": "bag", "role": "target", "timeout_s": 5.0}
MEASURES = measured({"spider": SCORED, "mmlu": {"kind": "mmlu", "role": "yardstick"}})


SHARED = "Reply with SQL \ud83d\ude00 only.\n".encode("utf-16", "surrogatepass").decode("utf-16") + "An example. " * 50


class Study:
    """A small study on disk: scored as the workflow scores it, one database, some multiple-choice questions."""

    def __init__(
        self, folder: Path, questions: list[dict], answers_by_run: dict[str, list[str | None]], mmlu: list[dict]
    ):
        self.folder, self.runs = (
            folder,
            [dict(zip(("model", "variant"), run.split("/"), strict=True)) for run in answers_by_run],
        )
        path = folder / "data/database/zoo/zoo.sqlite"
        path.parent.mkdir(parents=True)
        connection = sqlite3.connect(path)
        connection.executescript("CREATE TABLE t (a, b);")
        connection.executemany(
            "INSERT INTO t VALUES (?, ?)", [(n, "<i onclick=hit()>\u202e\0" + "é" * n) for n in range(40)]
        )
        connection.commit()
        connection.close()
        name = "database/zoo/zoo.sqlite"
        write_json(folder / "data/manifest.json", {"files": {name: {"sha256": sha256_file(path)}}})
        entry = {"db_id": "zoo", "table_names_original": ["t"], "primary_keys": [1], "foreign_keys": []}
        entry |= {
            "column_names_original": [[-1, "*"], [0, "a"], [0, "</b>"]],
            "column_types": ["text", "number", "others"],
        }
        write_json(folder / "data/tables.json", [entry])
        write_jsonl(folder / "dev.jsonl", questions)
        write_jsonl(folder / "suite.jsonl", mmlu)
        # The second model reads its own template.
        for model in {run["model"] for run in self.runs}:
            for task, rows in (("spider", questions), ("mmlu", mmlu)):
                read = [{"id": row["id"], "prompt": f"<{model}>{SHARED}{row['question']}"} for row in rows]
                write_jsonl(folder / f"{model}_{task}.jsonl", read)
        for number, (run, given) in enumerate(answers_by_run.items()):
            at = folder / "runs" / run
            at.mkdir(parents=True)
            rows = [{"id": q["id"], "answer": a} for q, a in zip(questions, given, strict=True) if a is not None]
            (at / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            inputs = {"answers": at / "answers.jsonl", "manifest": folder / "data/manifest.json"}
            inputs["questions"] = folder / "dev.jsonl"
            score(inputs, {"records": at / "spider.csv", "rows": at / "spider_rows.jsonl"}, SCORED)
            write_records(at / "mmlu.csv", MMLU_COLUMNS, [mmlu_record(q, number, i) for i, q in enumerate(mmlu)])

    def files(self, name: str) -> list[Path]:
        return [self.folder / "runs" / run["model"] / run["variant"] / name for run in self.runs]

    def spider(self, run: int):
        return read_records(self.files("spider.csv")[run], SPIDER_COLUMNS).set_index("id")

    def inputs(self) -> dict[str, dict]:
        return {
            "records": {"spider": self.files("spider.csv"), "mmlu": self.files("mmlu.csv")},
            "rows": {"spider": self.files("spider_rows.jsonl")},
            "questions": {"spider": self.folder / "dev.jsonl", "mmlu": self.folder / "suite.jsonl"},
            "schemas": {"spider": self.folder / "data/tables.json"},
            "prompts": {
                task: [self.folder / f"{run['model']}_{task}.jsonl" for run in self.runs] for task in ("spider", "mmlu")
            },
        }

    def build(self, inputs=None, measures=MEASURES, page=None, **changes) -> Path:
        page = page or self.folder / "answers.html"
        settings = {"study": "a <small> study", "runs": self.runs} | DEFAULTS | changes
        answers(inputs or self.inputs(), measures, page, settings)
        return page


def question(number: int, text: str, gold: str, level: str = "easy") -> dict:
    return {"id": f"dev-{number:05d}", "db_id": "zoo", "question": text, "query": gold, "hardness": level}


def choice(number: int, text: str = "Which?") -> dict:
    return {
        "id": f"physics-{number:05d}",
        "subject": "physics" if number % 2 else "law",
        "category": "stem" if number % 2 else "humanities",
        "question": text,
        "choices": ["one", "two", "three", "<u>four</u>"],
        "answer": "ABCD"[number % 4],
    }


def mmlu_record(q: dict, run: int, i: int) -> dict:
    """Run 0 is always right; run n is wrong on every (n+1)th question, and there writes a text instead of a letter."""
    wrong = run > 0 and i % (run + 1) == 0
    missing = run == 2 and i == 1
    letter = "ABCD"[("ABCD".index(q["answer"]) + wrong) % 4]
    right = int(not wrong and not missing)
    return {
        **{key: q[key] for key in ("id", "subject", "category", "answer")},
        **{f"logprob_{x}": None if missing else -0.1 if x == letter else -4.0 for x in "ABCD"},
        "prediction": "" if missing else letter,
        "correct": right,
        "generated": "" if missing else "<b>hm</b>\0" if wrong else letter,
        "generated_letter": letter if right else "",
        "correct_generated": right,
    }


GOLD = [
    "SELECT a FROM t WHERE a < 3",
    "SELECT count(*) FROM t",
    "SELECT a, b FROM t ORDER BY a",
    "SELECT a FROM t WHERE a > 99",
]
ANIMALS = ("lions", "tigers", "bears", "foxes", "owls", "crows", "bats", "newts", "frogs", "toads")
SOME = [question(n, f"Question {n} about {name}?", GOLD[n % 4], LEVELS[n % 4]) for n, name in enumerate(ANIMALS)]


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    """Ten questions, two models: one with two adapters, one with one."""
    base = [q["query"] for q in SOME]
    base[1] = base[5] = "SELECT absent FROM t"
    tuned = [q["query"] for q in SOME]
    tuned[0] = "SELECT a FROM t WHERE a < 2"
    tuned[2] = "SELECT a, b FROM t ORDER BY a DESC"
    tuned[6] = "Here you are:\n```sql\nSELECT b, a FROM t\n```"
    tuned[9] = None
    given = {
        "llama/base": base,
        "llama/lr0.1": tuned,
        "llama/lr0.2": ["SELECT 1"] * 10,
        "gemma/base": base[::-1],
        "gemma/lr0.1": base,
    }
    folder = tmp_path_factory.mktemp("answers")
    made = Study(folder, SOME, given, [choice(n, f"Which {n}?") for n in range(12)])
    made.build()
    return made


@pytest.fixture(scope="module")
def browser():
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no Chromium; apt-get install chromium")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=found)
        yield opened
        opened.close()


@pytest.fixture
def show(browser):
    """A function that opens a page; at the end none has asked for anything, failed, or run what it was given."""
    opened = []

    def open_page(path: Path, fragment: str = "", width: int = 1400, **options) -> Page:
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        page = context.new_page()
        page.set_default_timeout(10_000)
        seen: list[str] = []
        page.on("request", lambda request: seen.append(request.url.partition("#")[0]))
        page.on("console", lambda message: seen.append(message.text))
        page.on("pageerror", lambda error: seen.append(str(error)))
        page.on("dialog", lambda dialog: seen.append(dialog.message))
        opened.append((page, context, path, seen))
        page.goto(f"{path.as_uri()}{fragment}")
        expect(page.locator("#count")).not_to_be_empty()
        return page

    yield open_page
    for page, context, path, seen in opened:
        hit = page.evaluate("window.hit")
        context.close()
        assert hit is None
        assert set(seen) == {path.as_uri()}


def ids(page: Page) -> list[str]:
    return page.locator(".item").evaluate_all("items => items.map((item) => item.dataset.id)")


def settled(page: Page, pattern: str) -> str:
    """Wait until the fragment matches, and return the address."""
    page.wait_for_url(re.compile(pattern))
    return page.url


def chosen(page: Page) -> str:
    return page.locator(".item[aria-selected=true]").get_attribute("data-id")


# ---- without a browser


def test_equal_results_make_equal_bytes(study):
    first = study.build().read_bytes()
    assert study.build().read_bytes() == first


def test_the_page_holds_no_text_of_an_answer(tmp_path):
    gold = [question(n, text, "SELECT 1") for n, text in enumerate(HOSTILE[:9])]
    study = Study(tmp_path, gold, {"m/base": HOSTILE[:9]}, [choice(0, HOSTILE[1])])
    text = study.build().read_text(encoding="utf-8")
    assert text.count("</script>") == 2
    assert "window.hit" not in text
    assert '<h1 id="title">Answers: a &lt;small&gt; study</h1>' in text
    policy = html.unescape(re.search(r'Content-Security-Policy" content="(.*?)"', text)[1])
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert not re.search(r"https?://|//cdn|\bsrc=|@import|url\(", text)


def test_a_long_text_is_cut_and_says_so():
    assert plain("x" * LONGEST_TEXT) == "x" * LONGEST_TEXT
    assert plain(LONG) == [LONG[:LONGEST_TEXT], len(LONG)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: write_json(s / "data/tables.json", []), r"tables\.json: no entry for database zoo"),
        (lambda s: write_jsonl(s / "suite.jsonl", []), r"suite\.jsonl: has no question physics-00000"),
        (
            lambda s: write_jsonl(s / "runs/m/base/spider_rows.jsonl", []),
            r"spider_rows\.jsonl: lacks 1 questions, dev-00000",
        ),
        (
            lambda s: write_jsonl(s / "runs/m/base/spider_rows.jsonl", [{"id": "dev-9"}]),
            r"spider_rows\.jsonl, line 1: id dev-9 is not among the questions",
        ),
    ],
)
def test_files_that_do_not_belong_together_are_refused(tmp_path, change, message):
    study = Study(tmp_path, SOME[:1], {"m/base": ["SELECT 1"]}, [choice(0)])
    change(tmp_path)
    with pytest.raises(UserError, match=message):
        study.build()
    assert not (tmp_path / "answers.html").exists()


def test_a_run_without_files_is_refused(study):
    for kind, message in (
        ("records", "found 4 files of records and 5 of rows"),
        ("rows", "5 files of records and 4 of"),
    ):
        inputs = study.inputs()
        inputs[kind] = inputs[kind] | {"spider": inputs[kind]["spider"][:4]}
        with pytest.raises(UserError, match=f"answers, spider: .*{message}.*, expected one of each of 5 runs"):
            study.build(inputs)


# ---- what is shown


def test_a_question_is_shown_with_all_that_became_of_it(study, show):
    page = show(study.folder / "answers.html", "#task=spider&q=dev-00006")
    expect(page.locator("h2")).to_have_text("Question 6 about bats?")
    expect(page.get_by_label("Schema of zoo")).to_have_text(
        'CREATE TABLE t (\n  a NUMERIC,\n  "</b>" TEXT,\n  PRIMARY KEY (a)\n);'
    )
    expect(page.get_by_label("Gold query").locator("pre")).to_have_text("SELECT a, b FROM t ORDER BY a")
    run = page.locator("[data-run='llama/lr0.1']")
    expect(run.locator("summary")).to_contain_text("wrong columns")
    expect(run.locator("summary")).to_contain_text("the columns of the gold query in another order")
    assert run.locator("pre").all_inner_texts() == [
        "Here you are:\n```sql\nSELECT b, a FROM t\n```",
        "SELECT b, a FROM t",
        "SELECT \N{MINUS SIGN}a , b +, a FROM t \N{MINUS SIGN}ORDER BY a ",
    ]
    head, sql_row, raw_row = run.locator(".verdicts tr").all()
    assert head.locator("th").all_inner_texts() == ["Set", "Bag", "Ordered", "Test suite", "Columns in any order"]
    expected = study.spider(1).loc["dev-00006"]
    for row, suffix in ((sql_row, ""), (raw_row, "_raw")):
        verdicts = ["✓ right" if expected[f"{name}{suffix}"] else "✗ wrong" for name in SEMANTICS]
        assert row.locator("td").all_inner_texts() == verdicts
    answer, gold = run.locator("table.rows").all()
    assert answer.locator("thead th").all_inner_texts() == ["b", "a"]
    assert gold.locator("tbody tr").first.locator("th, td").all_inner_texts() == [
        "\u2212 1",
        "0",
        "<i onclick=hit()>U+202EU+0000",
    ]
    # Ten first rows, five more that the other lacks, and a sign that there are others.
    assert gold.locator("tbody th").all_inner_texts() == [f"\u2212 {n}" for n in range(1, 16)]
    assert gold.locator("tr.gap").count() == 1
    expect(run).to_contain_text("15 of 40 rows, \u2212 rows that the answer lacks")


def test_what_did_not_run_or_is_not_there_says_so(study, show):
    page = show(study.folder / "answers.html", "#task=spider&q=dev-00001")
    run = page.locator("[data-run='llama/base']")
    expect(run.locator("summary")).to_contain_text("no such column: absent")
    expect(run).to_contain_text("no rows: the query did not run")
    page.goto(page.url.replace("dev-00001", "dev-00009"))
    expect(page.locator("[data-run='llama/lr0.1']")).to_contain_text("There is no answer to this question.")
    page.goto(page.url.replace("dev-00009", "dev-00003"))
    expect(page.get_by_role("group", name="Gold query").first).to_contain_text("no rows: any empty result is right")


def test_multiple_choice_questions_have_their_own_tab(study, show):
    page = show(study.folder / "answers.html")
    page.get_by_role("radio", name="MMLU 12").check()
    expect(page.locator("#count")).to_have_text("12 of 12 questions")
    expect(page.locator(".choices li.key")).to_have_text("Aone  right answer")
    expect(page.locator(".choices li").last).to_have_text("D<u>four</u>")
    base, tuned = page.locator("[data-run='llama/base']"), page.locator("[data-run='llama/lr0.1']")
    expect(base.locator("h4").first).to_have_text("Letter by probability: A ✓ right")
    assert base.locator("tbody tr").first.locator("th, td").all_inner_texts() == ["A", "", "90.5%", "\u22120.10"]
    expect(tuned.locator("h4").first).to_have_text("Letter by probability: B ✗ wrong")
    expect(tuned.locator("pre")).to_have_text("<b>hm</b>U+0000")
    expect(tuned.locator("h4").nth(1)).to_have_text("Generated text: no letter ✗ wrong")
    page.get_by_label("Result").select_option("invalid")
    page.get_by_label("Model").select_option("gemma/lr0.1")
    page.get_by_label("Category").select_option("humanities")
    wrong = [
        q["id"]
        for i, q in enumerate(read_jsonl(study.folder / "suite.jsonl"))
        if i % 5 == 0 and q["category"] == "humanities"
    ]
    assert ids(page) == wrong
    page.goto(f"{page.url.partition('#')[0]}#task=mmlu&q=physics-00001")
    expect(page.locator("[data-run='llama/lr0.2']")).to_contain_text("There is no answer to this question.")


def test_hostile_text_neither_runs_nor_breaks(tmp_path, show):
    # Questions come from UTF-8, which has no lone surrogates.
    texts = [text.encode("utf-8", "replace").decode() for text in HOSTILE]
    questions = [question(n, text, "SELECT a, b FROM t") for n, text in enumerate(texts)]
    study = Study(tmp_path, questions, {"m/base": HOSTILE, "m/lr1": HOSTILE[::-1]}, [choice(0, HOSTILE[1])])
    page = show(study.build(known_defects=[HOSTILE[0]], accept_defect=["labels_cover_prompt"]))
    expect(page.locator("#defects summary")).to_have_text("Known defects of this method: 2")
    assert page.locator("#defects li").first.text_content() == HOSTILE[0]
    for number, text in enumerate(HOSTILE):
        page.goto(f"{page.url.partition('#')[0]}#task=spider&q=dev-{number:05d}")
        shown = SHOWN.get(text, text)
        title = SHOWN.get(texts[number], texts[number])
        expect(page.locator(".where").last).to_contain_text(f"dev-{number:05d}")
        assert page.locator("h2").text_content() == (title if text != LONG else LONG)
        body = page.locator("[data-run='m/base'] .body")
        if text:
            assert body.locator("pre").first.text_content() == shown
        else:
            expect(body).to_contain_text("empty")
        if text == LONG:
            expect(body).to_contain_text("The first 10,000 of 100,008 characters; runs/m/base/spider.csv has them all.")
    assert page.locator("script, img, iframe, svg, b b").count() == 1


def test_the_policy_stops_what_a_text_could_try(study, browser):
    # Not by `show`, which wants a page without violations.
    asked = []

    def answer(request):
        asked.append(request.path)
        request.send_response(200)
        request.end_headers()

    with serve(answer) as address:
        page = browser.new_page()
        page.goto((study.folder / "answers.html").as_uri())
        expect(page.locator("#count")).not_to_be_empty()
        tried = page.evaluate(
            """async (address) => {
                const outcome = {};
                const attempt = (name, act) => {
                    try { act(); outcome[name] = "done"; } catch { outcome[name] = "refused"; }
                };
                try { await fetch(address); outcome.fetch = "done"; } catch { outcome.fetch = "refused"; }
                for (const tag of ["img", "script", "iframe"]) {
                    attempt(tag, () => {
                        const element = document.createElement(tag);
                        element.src = address + "/" + tag;
                        document.body.append(element);
                    });
                }
                attempt("inline", () => {
                    const inline = document.createElement("script");
                    inline.append("window.hit = 1");
                    document.body.append(inline);
                });
                attempt("handler", () => {
                    const button = document.createElement("button");
                    button.setAttribute("onclick", "window.hit = 1");
                    document.body.append(button);
                    button.click();
                });
                attempt("html", () => { document.body.innerHTML += "<b>x</b>"; });
                await new Promise((done) => setTimeout(done, 200));
                return { ...outcome, hit: window.hit ?? null };
            }""",
            address,
        )
        page.close()
    assert asked == []
    assert (tried["fetch"], tried["html"], tried["hit"]) == ("refused", "refused", None)


# ---- finding a question


def test_filters_show_the_questions_that_the_records_name(study, show):
    page = show(study.folder / "answers.html")
    runs = ["llama/base", "llama/lr0.1", "llama/lr0.2", "gemma/base", "gemma/lr0.1"]
    frames = {run: study.spider(number) for number, run in enumerate(runs)}
    pairs = [("llama/base", "llama/lr0.1"), ("llama/base", "llama/lr0.2"), ("gemma/base", "gemma/lr0.1")]
    every = [q["id"] for q in SOME]
    assert ids(page) == every

    def check(**fields):
        page.get_by_role("button", name="Clear all").click() if page.locator("#clear").is_visible() else None
        for label, option in fields.items():
            page.get_by_label(label.replace("_", " "), exact=True).select_option(option)
        return ids(page)

    for semantics in SEMANTICS:
        means = "" if semantics == "bag" else semantics  # bag counts while nothing is chosen

        def right(run, i, semantics=semantics):
            return bool(frames[run].loc[i, semantics])

        def changed(base, tuned, i, before, after, right=right):
            return right(base, i) is bool(before) and right(tuned, i) is bool(after)

        for kind, (before, after) in {"lost": (1, 0), "gained": (0, 1), "both": (1, 1), "neither": (0, 0)}.items():
            found = check(Right_means=means, Base_against_tuned=kind)
            assert found == [i for i in every if any(changed(*pair, i, before, after) for pair in pairs)]
            page.get_by_label("Model").select_option("llama/lr0.1")
            assert ids(page) == [i for i in every if changed(*pairs[0], i, before, after)]
        assert check(Right_means=means, Model="gemma/base", Result="wrong") == [
            i for i in every if not right("gemma/base", i)
        ]
        count = sum(right("llama/lr0.1", i) for i in every)
        expect(page.locator("#field-model option[value='llama/lr0.1']")).to_have_text(
            f"llama lr0.1 ({count} of 10 right)"
        )
    for name in {c for frame in frames.values() for c in frame["error_class"]}:
        assert check(Result=name) == [i for i in every if any(f.loc[i, "error_class"] == name for f in frames.values())]
    # Of one and the same adapter.
    found = check(Result="wrong_rows", Base_against_tuned="lost")
    classes = {run: frame["error_class"] for run, frame in frames.items()}
    bag = {run: frame["bag"] for run, frame in frames.items()}
    assert found == [
        i for i in every if any(bag[b][i] and not bag[t][i] and classes[t][i] == "wrong_rows" for b, t in pairs)
    ]
    assert len(found) > 1
    assert check(Hardness="hard") == every[2::4]
    assert check(Database="zoo") == every
    assert len(ids(page)) == 10


def test_an_adapter_is_shown_beside_its_base(study, show):
    page = show(study.folder / "answers.html", "#task=spider&model=gemma%2Flr0.1")
    assert page.locator("[data-run]").evaluate_all("x => x.map((e) => e.dataset.run)") == ["gemma/base", "gemma/lr0.1"]
    assert page.locator(".item").first.locator(".mark").count() == 2


def test_search_takes_words_of_questions_sql_and_answers(study, show):
    page = show(study.folder / "answers.html")
    box = page.get_by_label("Search questions and answers")
    for words, found in {
        "OWLS": ["dev-00004"],
        "here you are": ["dev-00006"],
        "you ORDER bats": ["dev-00006"],
        "no such column": ["dev-00001", "dev-00004", "dev-00005", "dev-00008"],
        "dev-00007": ["dev-00007"],
        "nowhere": [],
    }.items():
        box.fill(words)
        assert ids(page) == found
    expect(page.locator("#count")).to_have_text("0 of 10 questions")
    expect(page.locator("#question")).to_have_text("No question fits the filters.")
    expect(page.locator("#toolbar")).to_be_hidden()
    page.get_by_role("button", name="Clear all").click()
    expect(page.locator("#count")).to_have_text("10 of 10 questions")
    expect(box).to_have_value("")


def test_a_link_keeps_filters_and_question(study, show):
    page = show(study.folder / "answers.html")
    page.get_by_label("Hardness").select_option("medium")
    page.get_by_label("Right means").select_option("ordered")
    page.get_by_label("Search questions and answers").fill("no such column")
    page.locator(".item").nth(1).click()
    expect(page.locator("h2")).to_have_text("Question 5 about crows?")
    address = settled(page, "q=dev-00005")
    expect(page.get_by_role("link", name="Link to this question")).to_have_attribute(
        "href", address[address.index("#") :]
    )
    other = show(study.folder / "answers.html", address[address.index("#") :])
    expect(other.locator("h2")).to_have_text("Question 5 about crows?")
    assert ids(other) == ids(page) == ["dev-00001", "dev-00005"]
    assert other.get_by_label("Right means").input_value() == "ordered"
    assert chosen(other) == "dev-00005"
    # A question that the filters leave out is shown all the same.
    other.goto(address.replace("dev-00005", "dev-00000"))
    expect(other.locator("h2")).to_have_text("Question 0 about lions?")
    expect(other.locator("#main")).to_contain_text("not among those found")


@pytest.mark.parametrize(
    "fragment",
    ["#", "#%", "#task=constructor&q=__proto__&model=<b>&db_id=../x&criterion=0", "#q=dev-99999&class=class:%00"],
)
def test_a_fragment_that_says_nothing_known_is_passed_over(study, show, fragment):
    page = show(study.folder / "answers.html", fragment)
    expect(page.locator("#count")).to_have_text("10 of 10 questions")
    assert chosen(page) == "dev-00000"


# ---- by hand


def test_everything_can_be_done_from_the_keyboard(study, show):
    page = show(study.folder / "answers.html")
    press = page.keyboard.press
    press("j")
    press("j")
    press("k")
    assert chosen(page) == "dev-00001"
    press("/")
    expect(page.locator("#search")).to_be_focused()
    page.keyboard.type("jk toads")
    assert ids(page) == []
    page.locator("#search").fill("toads")
    assert chosen(page) == "dev-00009"
    page.locator("#search").fill("")
    press("Enter")
    expect(page.locator("#list")).to_be_focused()
    assert page.locator("#list").evaluate("list => getComputedStyle(list).outlineStyle") == "solid"
    press("Home")
    assert chosen(page) == "dev-00000"
    press("ArrowDown")
    assert chosen(page) == "dev-00001"
    assert page.locator("#list").get_attribute("aria-activedescendant") == page.locator(
        ".item[aria-selected=true]"
    ).get_attribute("id")
    press("End")
    assert chosen(page) == "dev-00009"
    press("j")
    assert chosen(page) == "dev-00009"
    press("Enter")
    expect(page.locator("#main")).to_be_focused()
    press("k")
    assert chosen(page) == "dev-00008"
    press("Escape")
    expect(page.locator("#list")).to_be_focused()
    page.get_by_role("radio", name="Spider").focus()
    press("ArrowRight")
    expect(page.get_by_role("radio", name="MMLU")).to_be_focused()
    expect(page.get_by_role("radio", name="MMLU")).to_be_checked()
    press("j")
    assert chosen(page) == "physics-00001"
    # Once round with Tab: each stop has a name and can be seen to have the focus.
    stops = set()
    for _ in range(60):
        press("Tab")
        stop = page.evaluate(
            """() => {
                const e = document.activeElement;
                if (e === document.body) return null;
                const name = e.getAttribute("aria-label") || e.labels?.[0]?.textContent || e.textContent;
                return [e.id || e.tagName, name.trim().length > 0, getComputedStyle(e).outlineStyle !== "none"];
            }"""
        )
        if stop is None:
            break
        stops.add(stop[0])
        assert stop[1:] == [True, True], stop
    assert {"search", "field-model", "field-change", "list", "link"} <= stops


def test_on_a_phone_the_list_gives_way_to_the_question(study, show):
    page = show(study.folder / "answers.html", width=390)
    expect(page.locator("#main")).to_be_hidden()
    expect(page.locator("#fields")).to_be_hidden()
    page.get_by_text("Filters").click()
    page.get_by_label("Hardness").select_option("hard")
    page.locator(".item").nth(1).click()
    expect(page.locator("h2")).to_have_text("Question 6 about bats?")
    expect(page.locator("#list")).to_be_hidden()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.locator("#main").evaluate("main => main.scrollWidth <= main.clientWidth")
    page.get_by_role("button", name="← List").click()
    expect(page.locator("#list")).to_be_visible()
    expect(page.locator("#main")).to_be_hidden()
    page.locator(".item").first.click()
    expect(page.locator("h2")).to_have_text("Question 2 about bears?")
    page.go_back()
    expect(page.locator("#list")).to_be_visible()
    assert ids(page) == ["dev-00002", "dev-00006"]


def test_dark_and_light_differ(study, show):
    colours = {
        scheme: show(study.folder / "answers.html", color_scheme=scheme).evaluate(
            "getComputedStyle(document.body).backgroundColor"
        )
        for scheme in ("light", "dark")
    }
    assert colours["light"] != colours["dark"]


def test_the_words_name_every_class_criterion_and_flag():
    for language in LANGUAGES:
        words = read_words(language)
        assert tuple(words["classes"]) == ERROR_CLASSES
        assert tuple(words["criteria"]) == SEMANTICS
        assert tuple(words["answers"]["flags"]) == GOLD_FLAGS
        assert tuple(words["levels"])[1:5] == LEVELS


def test_in_portuguese(study, show):
    page = show(study.build(language="pt", page=study.folder / "respostas.html"), "#q=dev-00009")
    expect(page.locator("#count")).to_have_text("10 de 10 perguntas")
    expect(page.locator("[data-run='llama/lr0.1']")).to_contain_text("Não há resposta a esta pergunta.")
    expect(page.locator("[data-run='llama/base'] summary")).to_contain_text("certa")
    page.get_by_role("radio", name="MMLU 12").check()
    base = page.locator("[data-run='llama/base'] tbody tr").first.locator("th, td")
    assert base.all_inner_texts() == ["A", "", "90,5%", "\u22120,10"]
    assert "undefined" not in page.locator("body").inner_text()


# ---- of any size


def test_a_study_without_adapters(tmp_path, show):
    page = show(Study(tmp_path, SOME, {"m/base": ["SELECT 1"] * 10}, [choice(0)]).build())
    expect(page.get_by_label("Base against tuned")).to_have_count(0)
    assert page.locator("[data-run]").count() == 1
    expect(page.locator("#order")).to_have_text("Marks: base")


def test_thirty_adapters_are_folded(tmp_path, show):
    given = {"m/base": ["SELECT 1"] * 2} | {f"m/lr{n}": [SOME[0]["query"], "SELECT 1"] for n in range(30)}
    page = show(Study(tmp_path, SOME[:2], given, [choice(0)]).build())
    assert page.locator("[data-run]").count() == 31
    assert page.locator("[data-run] .body").count() == 0
    expect(page.locator(".item").first).to_contain_text("30 of 31 right")
    page.locator("[data-run='m/lr7'] summary").click()
    expect(page.locator("[data-run] .body pre")).to_have_text(SOME[0]["query"])
    # It stays open for the next question.
    page.keyboard.press("j")
    expect(page.locator("h2")).to_have_text("Question 1 about tigers?")
    expect(page.locator("[data-run='m/lr7'] .body")).to_be_visible()
    assert page.locator("[data-run] .body").count() == 1


def test_a_base_with_other_examples_has_no_answers_of_its_own_on_mmlu(tmp_path, show):
    given = {run: ["SELECT 1"] * 2 for run in ("m/base", "m/base@shots0", "m/lr1")}
    page = show(Study(tmp_path, SOME[:2], given, [choice(0)]).build())
    assert page.locator("[data-run]").count() == 3
    assert page.get_by_label("Model").locator("option").count() == 4
    page.get_by_role("radio", name="MMLU 1").check()
    expect(page.locator("[data-run]")).to_have_count(2)
    assert page.get_by_label("Model").locator("option").count() == 3
    assert page.locator("[data-run='m/base@shots0']").count() == 0


FACTS = Measure(
    name="facts",
    form="match",
    columns=("id", "topic", "question", "answer", "prediction", "correct"),
    question=("id", "topic", "question", "answer"),
    counted=(),
    cluster="topic",
    strata={"topic": None},
)
QUIZ = Measure(
    name="quiz",
    form="choice",
    columns=("id", "question", "answer", "prediction", "correct", "logprobs", *MMLU_COLUMNS[-3:]),
    question=("id", "question", "answer"),
    counted=(),
    cluster="id",
    strata={},
)
BIRD = replace(
    MEASURES["spider"],
    name="BIRD",
    role="yardstick",
    criterion="set",
    columns=("id", "db_id", "difficulty", "question", "evidence", *SPIDER_COLUMNS[4:]),
    question=("id", "db_id", "difficulty", "question", "evidence", "gold"),
    strata={"difficulty": ("simple", "moderate"), "db_id": "sorted"},
)


def test_tasks_of_every_form_stand_side_by_side(study, tmp_path, show):
    inputs, runs = study.inputs(), study.runs[:2]
    for kind in ("records", "rows"):
        inputs[kind] = {task: paths[:2] for task, paths in inputs[kind].items()}
    facts = [
        {"id": f"f{n}", "topic": ("plants", HOSTILE[2])[n % 2], "question": f"Fact {n}?", "answer": HOSTILE[n]}
        for n in range(4)
    ]
    quiz = [{"id": "quiz-1", "question": "Yes?", "choices": ["yes", "no"], "answer": "B"}]
    write_jsonl(tmp_path / "facts.jsonl", facts)
    write_jsonl(tmp_path / "quiz.jsonl", quiz)
    inputs["questions"] |= {"facts": tmp_path / "facts.jsonl", "quiz": tmp_path / "quiz.jsonl"}
    inputs["questions"]["bird"] = inputs["questions"]["spider"]
    inputs["rows"]["bird"] = inputs["rows"]["spider"]
    inputs["records"] |= {task: [tmp_path / f"{task}{run}.csv" for run in (0, 1)] for task in ("facts", "quiz", "bird")}
    for run in (0, 1):
        given = [("", 0) if run and n == 1 else (HOSTILE[n + run], 1 - run) for n in range(4)]
        rows = [row | {"prediction": text, "correct": right} for row, (text, right) in zip(facts, given, strict=True)]
        write_records(tmp_path / f"facts{run}.csv", FACTS.columns, rows)
        letters = {"prediction": "AB"[run], "correct": run, "generated": "b", "generated_letter": "B"}
        scores = {"logprobs": json.dumps({"A": -0.7, "B": -math.inf}), "correct_generated": 1}
        write_records(tmp_path / f"quiz{run}.csv", QUIZ.columns, [quiz[0] | letters | scores])
        frame = study.spider(run).reset_index().astype(object)
        bird = frame.where(frame.notna(), None).to_dict("records")
        bird = [row | {"difficulty": "simple", "evidence": f"evidence {row['id']}"} for row in bird]
        write_records(tmp_path / f"bird{run}.csv", BIRD.columns, bird)
    measures = MEASURES | {"facts": FACTS, "quiz": QUIZ, "bird": BIRD}
    page = show(study.build(inputs, measures, tmp_path / "answers.html", runs=runs), "#task=facts&q=f0")
    assert page.locator("#tasks label").all_inner_texts() == ["Spider 10", "MMLU 12", "facts 4", "quiz 1", "BIRD 10"]
    # Text that is compared.
    expect(page.get_by_role("radio", name="facts 4")).to_be_checked()
    assert page.get_by_label("Right answer").locator("pre").text_content() == HOSTILE[0]
    assert page.locator("[data-run='base'], [data-run] pre").all_text_contents() == [HOSTILE[0], HOSTILE[1]]
    expect(page.get_by_label("Right means")).to_have_count(0)
    page.get_by_label("Base against tuned").select_option("lost")
    assert ids(page) == ["f0", "f1", "f2", "f3"]
    page.get_by_label("topic").select_option(HOSTILE[2])
    page.get_by_label("Search questions and answers").fill("iframe")
    assert ids(page) == ["f3"]
    page.goto(f"{page.url.partition('#')[0]}#task=facts&q=f1")
    expect(page.locator("[data-run='llama/lr0.1']")).to_contain_text("There is no answer to this question.")
    page.get_by_label("topic").select_option(HOSTILE[2])
    # Two choices, their log-probabilities in one column, one of them minus infinity.
    page.get_by_role("radio", name="quiz").check()
    run = page.locator("[data-run='llama/base']")
    assert run.locator("tbody tr").last.locator("th, td").all_inner_texts() == ["B", "", "0.0%", "\u2212\u221e"]
    expect(run.locator("summary")).to_contain_text("letter and text differ")
    # Another text-to-SQL task: no tables.json, a criterion and levels of its own.
    page.get_by_role("radio", name="BIRD").check()
    expect(page.locator("#question")).to_contain_text("evidence dev-00000")
    expect(page.get_by_label("Right means").locator("option").first).to_have_text("Set (headline)")
    assert page.get_by_label("Difficulty").locator("option").all_inner_texts() == ["all", "simple", "moderate"]
    expect(page.locator("[data-run='llama/base'] .verdicts .chosen").first).to_have_text("Set")
    assert page.locator(".schema").count() == 0
    # Each task keeps its own filters.
    page.get_by_role("radio", name="facts").check()
    assert ids(page) == ["f1", "f3"]


# What gold and an answer have in common, what only gold has, and what only the answer has.
COMPARED = [
    ("SELECT a FROM t WHERE a < 3", "select  A from t where a<3 ;", None),
    ("SELECT a FROM t WHERE a < 3", "SELECT a FROM t WHERE a < 4", ["SELECT a FROM t WHERE a <", "-3", "+4"]),
    ("SELECT a FROM t ORDER BY a DESC", "SELECT a FROM t ORDER BY a", ["SELECT a FROM t ORDER BY a", "-DESC"]),
    ("SELECT a FROM t WHERE b = 'Ann Lee'", "SELECT a FROM t WHERE b = 'ann lee'",
     ["SELECT a FROM t WHERE b =", "-'Ann Lee'", "+'ann lee'"]),
    ("SELECT a FROM t", "SELECT a FROM t UNION SELECT b", ["SELECT a FROM t", "+UNION SELECT b"]),
]  # fmt: skip


def test_the_difference_of_two_queries_is_marked(tmp_path, show):
    gold = [question(n, f"Question {n}?", one) for n, (one, _, _) in enumerate(COMPARED)]
    study = Study(tmp_path, gold, {"m/base": [one for _, one, _ in COMPARED]}, [choice(0)])
    page = show(study.build())
    for n, (_, _, parts) in enumerate(COMPARED):
        page.goto(f"{page.url.partition('#')[0]}#q=dev-{n:05d}")
        expect(page.locator("h2")).to_have_text(f"Question {n}?")
        told = page.get_by_role("group", name="Compared with the gold query")
        if parts is None:
            expect(page.locator("[data-run='m/base']")).to_contain_text("The words of the gold query, in its order.")
            expect(told).to_have_count(0)
        else:
            shown = [text.replace("\N{MINUS SIGN}", "-").strip() for text in told.locator("*").all_inner_texts()]
            assert shown == parts
            assert told.locator("del").count() == sum(part.startswith("-") for part in parts)


def test_a_very_long_query_is_not_compared(tmp_path, show):
    long = "SELECT " + ", ".join(["a"] * 1200) + " FROM t"
    study = Study(tmp_path, [question(0, "Long?", long)], {"m/base": [f"{long} LIMIT 1"]}, [choice(0)])
    page = show(study.build())
    expect(page.locator("h2")).to_have_text("Long?")
    expect(page.locator("ins")).to_have_count(0)


def test_what_the_models_read_is_folded_and_stored_once(study, show):
    page = show(study.folder / "answers.html", "#task=spider&q=dev-00006")
    panels = page.locator("#question > details").filter(has_text="read")
    assert panels.locator("summary").all_inner_texts() == [
        "What llama base, llama lr0.1, llama lr0.2 read",
        "What gemma base, gemma lr0.1 read",
    ]
    expect(panels.locator("pre")).to_have_count(0)
    for model, panel in zip(("llama", "gemma"), panels.all(), strict=True):
        panel.locator("summary").click()
        expect(panel.locator("pre")).to_have_text(f"<{model}>{SHARED}Question 6 about bats?")
    # It stays open for the next question, and a task of its own has prompts of its own.
    page.keyboard.press("j")
    expect(page.locator("#question > details pre").first).to_contain_text("Question 7 about newts?")
    page.goto(f"{study.folder.joinpath('answers.html').as_uri()}#task=mmlu&model=gemma/base")
    expect(page.locator("#question > details summary")).to_have_text("What the model read")
    expect(page.locator("#question > details pre")).to_have_text(f"<gemma>{SHARED}Which 0?")


def test_prompts_with_one_beginning_are_stored_with_what_differs():
    texts = [SHARED + end for end in ("b", "a\ud800", "", "a\U0001f600")]
    coded = front_coded(texts)
    before, decoded = "", {}
    for place, units, rest in coded:
        # As JavaScript counts.
        before = before.encode("utf-16-le", "surrogatepass")[: 2 * units].decode("utf-16-le", "surrogatepass") + rest
        decoded[place] = before
    assert [decoded[place] for place in range(4)] == texts
    assert sum(len(one[2]) for one in coded) == len(SHARED) + 4
    (cut,) = front_coded(["x" * (LONGEST_PROMPT + 5)])
    assert len(cut[2]) == LONGEST_PROMPT and cut[3] == LONGEST_PROMPT + 5


def test_prompts_of_other_questions_are_refused(tmp_path):
    study = Study(tmp_path, SOME[:1], {"m/base": ["SELECT 1"]}, [choice(0)])
    write_jsonl(tmp_path / "m_spider.jsonl", [])
    with pytest.raises(UserError, match=r"m_spider\.jsonl: has no question dev-00000"):
        study.build()


def test_runs_stand_side_by_side(study, show):
    page = show(study.folder / "answers.html", "#task=spider&q=dev-00006")
    runs = page.locator(".runs > details")
    assert len({run.bounding_box()["x"] for run in runs.all()}) == 1
    button = page.get_by_role("button", name="Runs side by side")
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    boxes = [run.bounding_box() for run in runs.all()]
    assert len({box["x"] for box in boxes}) == 5 and len({box["y"] for box in boxes}) == 1
    page.get_by_role("radio", name="MMLU").check()
    expect(button).to_be_hidden()


HARMFUL = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", '"quoted", and\nbroken', "-3.5", "\ud800 lone"]


def test_the_list_is_saved_as_csv_that_computes_nothing(tmp_path, show):
    gold = [question(n, f"Question {n}?", "SELECT a FROM t") for n in range(len(HARMFUL))]
    study = Study(tmp_path, gold, {"m/base": HARMFUL, "m/lr1": ["SELECT a FROM t"] * len(HARMFUL)}, [choice(0)])
    page = show(study.build(), "#task=spider&class=wrong&model=m/base")
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save list as CSV").click()
    assert saved.value.suggested_filename == "answers-spider.csv"
    with open(saved.value.path(), encoding="utf-8-sig", newline="") as stream:  # noqa: PTH123
        heads, *rows = csv.reader(stream)
    assert heads == ["id", "hardness", "db_id", "question", "gold", "base correct", "base class", "base answer"]
    assert [row[0] for row in rows] == ids(page)
    records = study.spider(0)
    for row, text in zip(rows, HARMFUL, strict=True):
        assert row[3] == f"Question {int(row[0][4:])}?" and row[5] == "0"
        assert row[6] == records.loc[row[0]]["error_class"]
        taken = records.loc[row[0]]["sql"]
        assert row[7] in (taken, f"'{taken}", "\ufffd lone")
        assert not re.match(r"[=+@]|-(?!3\.5$)", row[7]), text


def test_pages_lead_to_each_other_and_open_on_the_finding(study, show):
    answer = study.folder / "answer.md"
    answer.write_text("Both gain about 23 pp.\nUse `<b>lr0.1</b>`.\n", encoding="utf-8")
    page = show(study.build(study.inputs() | {"answer": answer}, page=study.folder / "with.html"))
    expect(page.locator("#finding")).to_contain_text("Both gain about 23 pp. Use <b>lr0.1</b>.", use_inner_text=True)
    assert page.locator(".pages a").evaluate_all("links => links.map((one) => one.getAttribute('href'))") == [
        "report.pdf",
        "tables.html",
    ]
    # The report and the tables link to a question by its id.
    page.goto(f"{study.folder.joinpath('with.html').as_uri()}#physics-00003")
    expect(page.locator("h2")).to_have_text("Which 3?")
    expect(page.get_by_role("radio", name="MMLU")).to_be_checked()
    page.goto(f"{study.folder.joinpath('with.html').as_uri()}#dev-00004")
    expect(page.locator("h2")).to_have_text("Question 4 about owls?")


def test_a_table_links_to_the_answers_that_it_counts(study, show):
    measures = {"spider": SCORED, "mmlu": {"kind": "mmlu", "role": "yardstick"}}
    settings = DEFAULTS | {"study": "small", "tasks": measures, "confidence_level": 0.95, "margin_pp": 3.0}
    settings["runs"] = [
        run | {"setting": run["variant"], "settings": {} if run["variant"] == "base" else {"lora.r": n}}
        for n, run in enumerate(study.runs)
    ]
    paths = {name: study.folder / f"{name}.csv" for name in TABLES}
    tables(study.inputs()["records"], paths | {f"{name}_md": study.folder / f"{name}.md" for name in TABLES}, settings)
    tables_page(paths, study.folder / "tables.html", settings)
    page = (study.folder / "tables.html").read_text(encoding="utf-8")
    links = re.findall(r'<a href="answers\.html(#[^"]+)">([\d,]+)</a>', page)
    assert len(links) > 20 and {"class", "change", "hardness", "category"} <= set(re.findall(r"[#;](\w+)=", " ".join(
        html.unescape(link).replace("&", ";") for link, _ in links)))  # fmt: skip
    shown = show(study.folder / "answers.html")
    for link, count in links:
        shown.goto(f"{study.folder.joinpath('answers.html').as_uri()}{html.unescape(link)}")
        expect(shown.locator("#count")).to_have_text(re.compile(rf"^{count} of "))


def test_all_of_spider_with_five_systems(shared_data, tmp_path, show):
    with zipfile.ZipFile(shared_data / "spider/spider_data.zip") as archive:
        dev = json.loads(archive.read("spider_data/dev.json"))
        names = {f"database/{row['db_id']}/{row['db_id']}.sqlite" for row in dev}
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True)
            path.write_bytes(archive.read(f"spider_data/{name}"))
        (tmp_path / "tables.json").write_bytes(archive.read("spider_data/tables.json"))
    write_json(
        tmp_path / "manifest.json", {"files": {name: {"sha256": sha256_file(tmp_path / name)} for name in names}}
    )
    questions = [
        question(n, row["question"], row["query"], hardness(row["query"])) | {"db_id": row["db_id"]}
        for n, row in enumerate(dev)
    ]
    write_jsonl(tmp_path / "dev.jsonl", questions)
    suite = [choice(n) for n in range(150)]
    write_jsonl(tmp_path / "suite.jsonl", suite)
    systems = {path.stem: read_jsonl(path) for path in sorted((shared_data / "predictions").glob("*.jsonl"))}
    folders = []
    for number, (name, rows) in enumerate(systems.items()):
        folders.append(tmp_path / "runs/published" / name)
        at = folders[-1]
        at.mkdir(parents=True)
        (at / "answers.jsonl").write_text(
            "".join(json.dumps({"id": f"dev-{row['index']:05d}", "answer": row["pred"]}) + "\n" for row in rows)
        )
        inputs = {"answers": at / "answers.jsonl", "manifest": tmp_path / "manifest.json"}
        inputs["questions"] = tmp_path / "dev.jsonl"
        outputs = {"records": at / "spider.csv", "rows": at / "spider_rows.jsonl"}
        score(inputs, outputs, SCORED | {"timeout_s": 30.0}, workers=2)
        write_records(at / "mmlu.csv", MMLU_COLUMNS, [mmlu_record(q, number, i) for i, q in enumerate(suite)])
    page_file = tmp_path / "answers.html"
    answers(
        {
            "records": {task: [at / f"{task}.csv" for at in folders] for task in MEASURES},
            "rows": {"spider": [at / "spider_rows.jsonl" for at in folders]},
            "questions": {"spider": tmp_path / "dev.jsonl", "mmlu": tmp_path / "suite.jsonl"},
            "schemas": {"spider": tmp_path / "tables.json"},
            "prompts": {},
        },
        MEASURES,
        page_file,
        {"study": "published", "runs": [{"model": "published", "variant": name} for name in systems]} | DEFAULTS,
    )
    assert page_file.stat().st_size < 2_000_000

    page = show(page_file, "#criterion=test_suite")
    expect(page.locator("#count")).to_have_text("1,034 of 1,034 questions")
    expect(page.locator("h2")).to_have_text("How many singers do we have?")
    for name, at in zip(systems, folders, strict=True):
        right = read_records(at / "spider.csv", SPIDER_COLUMNS)["test_suite"].sum()
        expect(page.locator(f"#field-model option[value='published/{name}']")).to_have_text(
            f"{name} ({right} of 1,034 right)"
        )
    # Only what is in view is in the document.
    assert page.locator(".item").count() < 60
    page.locator("#list").focus()
    page.keyboard.press("End")
    assert chosen(page) == "dev-01033"
    expect(page.locator("h2")).to_have_text(dev[-1]["question"].strip())
    picked = random.Random(0).sample(range(1034), 5)
    for number in picked:
        page.goto(f"{page_file.as_uri()}#q=dev-{number:05d}")
        expect(page.get_by_label("Gold query").locator("pre")).to_have_text(dev[number]["query"])
        assert page.locator(".verdicts").count() == 5
