"""The Jinja2 environment of every page and report; its filters are the methods of `present.format.Say`."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from present.format import Say

FOLDER = Path(__file__).parent / "templates"


def environment(say: Say) -> Environment:
    """Make the environment of a language. What goes into `*.html.j2` is escaped; an undefined name is an error."""
    made = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=select_autoescape(("html.j2",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {name: getattr(say, name) for name in dir(Say) if not name.startswith("_")}
    return made
