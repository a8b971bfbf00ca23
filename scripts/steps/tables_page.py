"""Put all tables of a study on one page that needs no network and no other file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import _path  # noqa: F401
from common.files import write_text
from common.job import job
from present import tables
from present.catalogue import TABLES, table_of
from present.format import Say
from present.templates import html_environment
from present.values import BASE, read_table, trained
from tasks.registry import measured


def tables_page(
    csv: Mapping[str, str | Path], page: str | Path, settings: Mapping[str, Any], answer: str | Path | None = None
) -> None:
    """Write `page` from the CSV files of those tables that a study has, in the order of the catalogue.

    `answer` is the file that says in a few sentences what was found. `settings` has `study` (its name), `tasks`,
    `language`, `known_defects`, `accept_defect`, as in `tables`.
    """
    measures = measured(settings["tasks"])
    say, order = Say(settings["language"], measures), [table.key for table in TABLES]
    names = sorted(csv, key=lambda name: order.index(table_of(name, say).key))
    frames = {name: read_table(csv[name]) for name in names}
    facts = tables.shared_facts(settings["study"], {task: frames[task] for task in measures}, say)
    runs = trained(frames[next(iter(measures))])[["model", "variant"]].drop_duplicates()
    terms = {
        say.word("page.models"): ", ".join(dict.fromkeys(runs["model"])),
        say.word("page.adapters"): say.count((runs["variant"] != BASE).sum()),
    }
    for one in facts["tasks"].values():
        means = [one["by"]] if one["criterion"] else []
        terms[say.word("page.questions", **one)] = " · ".join([one["count"], *means])
    terms[say.word("page.intervals")] = facts["percent"]
    template = html_environment(say).get_template("tables.html.j2")
    finding = Path(answer).read_text(encoding="utf-8") if answer else ""
    sheets = [tables.read(name, frame, facts, say) for name, frame in frames.items()]
    write_text(page, template.render(settings, finding=finding, sheets=sheets, facts=facts, terms=terms.items()))


if __name__ == "__main__":
    with job(snakemake.log[0]):
        inputs = dict(snakemake.input.items())
        answer = inputs.pop("answer")
        tables_page(inputs, snakemake.output.page, snakemake.params.settings, answer)
