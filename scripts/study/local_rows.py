"""The rows of a task before any job has run: those that are prepared already, or made of a small local source."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from common.files import read_jsonl
from study.unfold import stage
from tasks.registry import KINDS

# A local source with more bytes is not read only to plan.
SMALL = 1e8


@contextmanager
def local_rows(config: dict, task: str, data: Path) -> Iterator[tuple[Path, Callable[[str], list[dict]]] | None]:
    """Give the folder of the raw data and a function that reads or makes a part; None if they are not here.

    `data` is the folder of the task's data. What is not there is made in a temporary folder from a local source.
    """
    section, kind = config["tasks"][task], KINDS[config["tasks"][task]["kind"]]
    with tempfile.TemporaryDirectory() as scratch:
        source = data / "source"
        if not (source / "manifest.json").exists():
            given = Path(section["source"])
            files = [given, *given.rglob("*")] if given.exists() else []
            if not files or sum(file.stat().st_size for file in files) > SMALL:
                yield None
                return
            source = Path(scratch)
            kind.fetch(stage(config, task, "fetch"), source)

        def rows(name: str) -> list[dict]:
            file = data / f"{name}.jsonl"
            return read_jsonl(file) if file.exists() else kind.prepare(stage(config, task, name), source, name)[0]

        yield source, rows
