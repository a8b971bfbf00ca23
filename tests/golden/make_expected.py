"""Collect what a finished study says, for `expected.json.xz`: values of tables, numbers of pages, links.

    python tests/golden/make_expected.py results/demo-full results/demo > expected.json

The file beside this one is of the records in `demo-full.tar.xz`: a run of `studies/demo-full.yaml` on a CPU, its
weights set to zero. It is made anew only for a change that is meant, and the commit that does so says which numbers
changed and why.
"""

import json
import re
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

NUMBER = re.compile(r"(?<![\w.#])[+-]?(?:\d[\d.,]*\d|\d|\.\d+)(?![\w%-]*-)")
HASH = re.compile(r"\b[0-9a-f]{12,64}\b")


def numbers(text: str, decimal: str = ".") -> list[str]:
    """List the numbers of a text in one form, sorted: no thousands mark, a leading zero, `-` for every minus."""
    thousands = "," if decimal == "." else "."
    text = HASH.sub(" ", text.replace("\N{MINUS SIGN}", "-"))
    text = re.sub(r"(?<=\d) (?=\d{3}\b)", "", text)  # 2 475, as the table of costs once had it
    found = []
    for number in NUMBER.findall(text):
        number = number.rstrip(".,")
        if re.fullmatch(rf"[+-]?\d{{1,3}}(?:\{thousands}\d{{3}})+(?:\{decimal}\d+)?", number):
            number = number.replace(thousands, "")
        number = number.replace(decimal, ".") if decimal != "." else number
        found.append(re.sub(r"^([+-]?)\.", r"\g<1>0.", number))
    return sorted(found)


def sections(page: str, decimal: str = ".") -> dict[str, Counter]:
    """Count the numbers of each second-level section of a Markdown page, by the section's place from 0."""
    parts = re.split(r"(?m)^## .*$", page)
    return {str(place): Counter(numbers(part, decimal)) for place, part in enumerate(parts)}


class _Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag, attrs):
        self.found |= {value for name, value in attrs if name in ("href", "src") and value}


def links(page: str) -> list[str]:
    """List the addresses that an HTML page links to."""
    parser = _Links()
    parser.feed(page)
    return sorted(parser.found)


def collect(folder: Path) -> dict:
    """Return what one study's results say."""

    def read(name: str) -> str:
        return (folder / name).read_text(encoding="utf-8")

    found: dict = {
        "csv": {path.name: path.read_text(encoding="utf-8") for path in sorted((folder / "tables").glob("*.csv"))},
        "markdown": {
            path.name: Counter(numbers(path.read_text(encoding="utf-8")))
            for path in sorted((folder / "tables").glob("*.md"))
        },
        "report": {"en": sections(read("report.md"))},
        "card": Counter(numbers(read("recommended/README.md"))),
        "links": {name: links(read(name)) for name in ("tables.html", "answers.html")},
        "daggers": {
            path.name: path.read_text(encoding="utf-8").count("\N{DAGGER}")
            for path in sorted((folder / "tables").glob("*.md"))
        },
    }
    if (folder / "report.pt.md").exists():
        found["report"]["pt"] = sections(read("report.pt.md"), ",")
    return found


if __name__ == "__main__":
    json.dump({Path(one).name: collect(Path(one)) for one in sys.argv[1:]}, sys.stdout, indent=1, sort_keys=True)
