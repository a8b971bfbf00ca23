import pytest

from present.format import Say
from present.templates import environment
from present.typeset import drawable, read_blocks, to_pdf

HEAD = "# Title\n\nBy the study `s`\n\n"
HOSTILE = (
    "```\n# Not a heading\n<script>alert(1)</script> #panic(1) $x$ @ref *b* \\ \n````\n\0\ud800\u202e 查询 🙂 é |"
    + "x" * 700
)


def test_a_pdf_of_hostile_text_in_every_kind_of_block(tmp_path):
    page = (
        "# {{ x }}\n\nBy {{ x }} `s`\n\n> **Defects**\n>\n> * {{ x }}\n\n<!-- abstract -->\n**A.** {{ x }}\n"
        "<!-- end -->\n\n## {{ x }}\n\n{{ x }} {{ x|code }} **{{ x }}** *{{ x }}*\n\n- {{ x }}\n- {{ x|code }}\n\n"
        "<!-- table -->\n**Table 1.** {{ x }} {{ x|code }}\n\n| {{ x }} | a |\n| :-- | --: |\n"
        "| {{ x|code }} | {{ x }} |\n\n{{ x }}\n<!-- end -->\n\n<!-- pipeline -->\n1. **a** {{ x }} **b** c\n"
        "2. **d** e\n\n**Fig. 1.** {{ x }}\n<!-- end -->\n\n<!-- entry -->\n{{ x }}\n\n"
        "{{ x|fenced }}\n\n{{ x }}\n<!-- end -->\n\n{{ x|fenced('sql') }}\n"
    )
    made = environment(Say("en")).from_string(page).render(x=HOSTILE)
    kinds = "heading paragraph stamp abstract heading paragraph list table pipeline entry code"
    assert " ".join(block["kind"] for block in read_blocks(made)) == kinds
    pdf, _ = to_pdf(made, tmp_path, "en")
    assert pdf.startswith(b"%PDF")
    assert pdf == to_pdf(made, tmp_path, "en")[0]


@pytest.mark.parametrize(("rows", "pages"), [(50, 1), (66, 2)])
def test_a_table_goes_on_to_the_next_page_where_floats_leave_less_than_its_height(tmp_path, rows, pages):
    def table(name, rows, kind):
        cells = "".join(f"| `{name}{row}` |\n" for row in range(rows))
        return f"<!-- {kind} -->\n**{name}.** c\n\n| a |\n| :-- |\n{cells}<!-- end -->\n\n"

    page = HEAD + table("floating", rows, "table wide") + table("in the text", 13, "table")
    assert to_pdf(page, tmp_path, "en")[1] == pages


def test_a_thin_line_stands_where_the_next_adapter_begins():
    def groups(*names):
        rows = "".join(f"| {name} |\n" for name in names)
        return read_blocks(f"<!-- table -->\nc\n\n| a |\n| --: |\n{rows}\nnote\n<!-- end -->\n")[0]["groups"]

    assert groups("a", "a", "b", "b", "c", "c") == [2, 4]
    assert groups("a", "b", "c") == []


def test_markdown_is_read_as_blocks():
    page = "> **S**\n>\n> * x\n\ntext *e* **s** `c`\nmore [link](l)\n\n"
    page += "<!-- figure -->\n![alt](f/a\\_b.svg)\n\n**Fig. 1.** c\n<!-- end -->\n"
    stamp, paragraph, figure = read_blocks(page)
    assert (stamp["kind"], stamp["parts"][1]["items"]) == ("stamp", [[("text", "x")]])
    spans = [("text", "text "), ("emph", "e"), ("text", " "), ("strong", "s"), ("text", " "), ("code", "c")]
    assert paragraph == {"kind": "paragraph", "body": [*spans, ("text", " more link")]}
    assert (figure["path"], figure["alt"]) == ("f/a_b.svg", "alt")
    assert figure["caption"] == [("strong", "Fig. 1."), ("text", " c")]


def test_what_fonts_cannot_draw_is_written_by_number():
    assert drawable("é→\t☃🙂\u0301\u202e") == r"é→    \u2603\U0001f642\u0301\u202e"
