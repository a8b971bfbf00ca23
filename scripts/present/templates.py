"""The one Jinja2 environment: what a template may use, and that nothing it is given can break the page."""

import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markdown_it import MarkdownIt
from markupsafe import Markup, escape

from present.format import Say

FOLDER = Path(__file__).parent / "templates"
# Paragraphs, lists and code alone: a name in a note is no link and no emphasis.
_NOTES = MarkdownIt("zero").enable(["list", "backticks"])


def environment(say: Say) -> Environment:
    """The environment of one language: `say` in every template, HTML escaped, an unknown name an error.

    Filters: the methods of `Say`; `note` makes HTML of a note; `inline` of a text with code in backticks.
    """
    made = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {name: getattr(say, name) for name in dir(Say) if not name.startswith("_")}
    made.globals |= {"say": say, "zip": zip}
    made.filters["note"] = lambda text: Markup(_NOTES.render(text).strip())
    made.filters["inline"] = lambda text: Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))
    return made
