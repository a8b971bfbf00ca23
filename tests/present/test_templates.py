import json
import subprocess
import sys

import pytest
from jinja2 import UndefinedError
from markdown_it import MarkdownIt

from present.format import Say
from present.templates import Numbers, code, environment, fenced, fit, literal, markdown
from present.typeset import read_blocks

HOSTILE = [
    "```\n# Not a heading\n<script>alert(1)</script>",
    "#panic(1) $x$ @ref *b* _c_ ~~d~~ \\",
    "a | b | c\n| --- |",
    "{{ 7 * 7 }} {% for x in y %}",
    "<!-- end --> &lt; [a](b) ![c](d)",
    "1. first\n2. second",
    "- item",
    "=== ",
    "`",
    "``a` b",
    " a ",
    "",
    "\0\ud800\u202e\u2028 查询 🙂 é \t x\r\ny",
]


def filled(template, **values):
    return environment(Say("en")).from_string(template).render(**values)


@pytest.mark.parametrize("body", HOSTILE)
def test_what_is_filled_in_is_shown_as_it_is(body):
    """Read as Markdown, a paragraph, a list, a table and a code block hold the very text, and nothing else."""
    page = filled(
        "{{ x }}\n\nText {{ x }} and {{ x|code }}.\n\n- {{ x }}\n\n| a | b |\n| - | - |\n| {{ x }} | {{ x|code }} |\n\n"
        "{{ x|fenced }}\n\nThe end.\n",
        x=body,
    )
    whole = body.replace("\0", "\\u0000").replace("\ud800", "\\ud800").replace("\u202e", "\\u202e")
    whole = whole.replace("\u2028", "\\u2028").replace("\r\n", "\n")
    line = whole.replace("\n", " ")
    blocks = read_blocks(page)
    if not line.strip():
        blocks.insert(0, {"kind": "paragraph"})
    kinds = ["paragraph", "paragraph", "list", "table", "code", "paragraph"]
    assert [block["kind"] for block in blocks] == kinds
    # Characters that the PDF cannot draw are escaped by it alone.
    html = MarkdownIt("commonmark").enable("table").render(page)
    assert "<script>" not in html
    assert "49" not in html
    assert "<h1>" not in html

    def said(spans):
        return "".join(text for _, text in spans)

    def drawn(text):
        return text.replace("查询", "\\u67e5\\u8be2").replace("🙂", "\\U0001f642").replace("\t", "    ")

    assert said(blocks[1]["body"]).split() == drawn(f"Text {line} and {line}.").split()
    assert [len(row) for row in blocks[3]["rows"]] == [2]
    assert said(blocks[3]["rows"][0][1]).strip() == drawn(line).strip()
    assert blocks[4]["body"] == drawn(whole)


def test_text_is_shown_as_it_is():
    assert markdown("a*b_c|<d>\ne") == r"a\*b\_c\|\<d\> e"
    assert code("a`b") == "``a`b``"
    assert code("`a`") == "`` `a` ``"
    assert fenced("x", "sql") == "```sql\nx\n```"
    assert fenced("abcdef", "text", 3) == "```text\nabc…\n```"


@pytest.mark.parametrize("value", ["a\"b'c\\d\n{{ e }}", 3, [5, 6], None, True])
def test_a_literal_is_the_value_in_python(value):
    found = subprocess.run(
        [sys.executable, "-c", f"import json\nnull, true = None, True\nprint(json.dumps({literal(value)}))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(found.stdout) == value


def test_a_value_that_is_not_there_is_an_error():
    with pytest.raises(UndefinedError):
        filled("{{ nothing }}")


def test_numbers_are_given_in_the_order_of_their_first_mention():
    page = "{{ t.b }} {{ t.a }} {{ t.b }} {{ t['c'] }}"
    assert filled(page, t=Numbers()) == "1 2 1 3"


def test_a_long_table_is_cut_by_rank():
    rows = [{"rank": rank} for rank in (None, 3, 3, 0, 0, 2, 2, 1, 1)]
    part = fit(rows, 5)
    assert [row["rank"] for row in part.rows] == [None, 0, 0, 1, 1]
    assert (part.shown, part.all) == (2, 4)
    assert fit(rows, 200).rows == rows
    assert fit(rows, 1).shown == 1


def test_numbers_in_each_language():
    english, portuguese = Say("en"), Say("pt")
    assert english.interval(-1.25, -2, 0.04, sign=True) == "\N{MINUS SIGN}1.2 (\N{MINUS SIGN}2.0 to 0.0)"
    assert portuguese.interval(1.25, float("nan"), 2, sign=True) == "+1,2"
    assert english.number(float("nan")) == "n/a"
    assert (english.p(0.0004), english.p(0.0314), english.p(1.0)) == ("< 0.001", "0.031", "1")
    assert (english.count(12345), portuguese.count(12345)) == ("12,345", "12.345")
    assert (english.short(0.75), english.short(12.0), portuguese.short(2.1)) == ("0.75", "12", "2,1")
    change = '{% from "macros.md.j2" import change_pp with context %}{{ change_pp(row) }}'
    row = {"difference_pp": 3, "ci_low_pp": 1, "ci_high_pp": 5}
    assert environment(Say("pt")).from_string(change).render(row=row) == "+3,0 pp, +1,0 a +5,0"
    assert filled(change, row=row | {"ci_low_pp": float("nan")}) == "+3.0 pp"
    assert filled("{{ names|listed }}", names=list("abcdef")) == "a, b, c, d and 2 more"
    assert filled("{{ names|map('code')|listed }}", names=["a|b", "c"]) == r"a\|b and `c`"
