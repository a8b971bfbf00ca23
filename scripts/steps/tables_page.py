"""Put all tables of a study on one page that needs no network and no other file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import _path  # noqa: F401
from common.files import atomic_write
from common.job import job
from present import tables
from present.catalogue import TABLES
from present.format import Say
from present.templates import html_environment
from present.values import BASE, read_table, trained


def tables_page(csv: Mapping[str, str | Path], page: str | Path, settings: Mapping[str, Any]) -> None:
    """Write `page` from the CSV files of the tables, by their names in the catalogue and in its order.

    Args:
        csv: the files; those of tables that a study lacks are missing.
        page: the file to write.
        settings: `study` (its name), `language`, `known_defects`, `accept_defect`.
    """
    say = Say(settings["language"])
    frames = {table.key: read_table(csv[table.key]) for table in TABLES if table.key in csv}
    facts = tables.shared_facts(settings["study"], frames["execution_accuracy"], frames["mmlu"], say)
    runs = trained(frames["execution_accuracy"])[["model", "variant"]].drop_duplicates()
    terms = {
        "models": ", ".join(dict.fromkeys(runs["model"])),
        "adapters": say.count((runs["variant"] != BASE).sum()),
        "spider": say.count(facts["n_spider"]),
        "mmlu": say.count(facts["n_mmlu"]),
        "criterion": facts["criterion_lower"],
        "intervals": facts["percent"],
    }
    template = html_environment(say).get_template("tables.html.j2")
    sheets = [tables.read(name, frame, facts, say) for name, frame in frames.items()]
    with atomic_write(page) as stream:
        stream.write(template.render(settings, sheets=sheets, facts=facts, terms=terms.items()))


if __name__ == "__main__":
    with job(snakemake.log[0]):
        tables_page(dict(snakemake.input.items()), snakemake.output.page, snakemake.params.settings)
