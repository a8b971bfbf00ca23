"""Write the answer of a study in a few sentences, and the pages with which its results open."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import _path  # noqa: F401
from common.files import write_text
from common.job import job
from present.conclusion import conclusion
from present.format import Say, defects
from present.values import read_table
from tasks.registry import measured


def conclude(tables: Mapping[str, Any], outputs: Mapping[str, str | Path], settings: Mapping[str, Any]) -> None:
    """Write the answer, as Markdown with a sentence a line, and the README of the results.

    Args:
        tables: CSV files, `settings` and, of a study that has it, `recommendation`.
        outputs: `answer`, `readme` and `caption`, with which Snakemake's report opens.
        settings: `study`, `scale`, `tasks`, `language`, `known_defects`, `accept_defect`, as in `tables`.
    """
    say = Say(settings["language"], measured(settings["tasks"]))
    chosen = read_table(tables["recommendation"]) if tables.get("recommendation") else None
    lines = conclusion(read_table(tables["settings"]), chosen, say)
    if settings["scale"] == "smoke":
        lines.insert(0, say.word("conclusion.smoke"))
    write_text(outputs["answer"], "".join(f"{line}\n" for line in lines))
    lacking = {"recommended"} if chosen is None else set()
    lacking |= set() if any(one.form == "sql" for one in say.measures.values()) else {"deepeval_tests"}
    shown = [name for name in say.words["contents"] if name not in lacking]
    page = [
        f"# {settings['study']}",
        "\n".join(lines),
        f"![{say.word('figures.tradeoff.title')}](figures/tradeoff.svg)",
        "\n".join(f"- {say.word(f'contents.{name}')}" for name in shown),
    ]
    warning = defects(settings["known_defects"], settings["accept_defect"], say)
    write_text(outputs["readme"], "\n\n".join(page) + "\n" + warning)
    write_text(outputs["caption"], caption(say.word("page.found"), [*lines, warning]))


def caption(title: str, lines: Sequence[str]) -> str:
    """Markdown of sentences, lists and code as reStructuredText, in which Snakemake's report is to fill in nothing."""

    def escaped(found: re.Match) -> str:
        return f"``{found[1]}``" if found[1] else f"\\{found[0]}"

    # Behind a word `_` would make it a link, `|` begins a substitution.
    body = re.sub(r"`([^`]+)`|(?<=\w)_(?!\w)|\|", escaped, "\n".join(lines))
    return f"{title}\n{'=' * len(title)}\n\n{{% raw %}}{body.replace('{%', '{ %')}{{% endraw %}}\n"


if __name__ == "__main__":
    with job(snakemake.log[0]):
        conclude(dict(snakemake.input.items()), dict(snakemake.output.items()), snakemake.params.settings)
