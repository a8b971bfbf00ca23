"""Fetch an adapter that was made elsewhere: a hub repository at a pinned commit, or a local folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import _path  # noqa: F401
from common.files import ADAPTER_FILES, UserError, described, read_json, write_json
from common.hub import hub_snapshot
from common.job import job
from common.weights import tensors

HUB = "hub:"


def fetch_adapter(name: str, settings: Mapping[str, Any], record: str | Path, report: str | Path) -> None:
    """Put an adapter into `adapter/` beside `report`, laid out as a trained one, and write what it is to `report`.

    Args:
        name, settings: of the adapter in the study; `source`: hub:owner/name or a local folder; `revision`: the commit
            on the hub, None for a folder.
        record: of the model that it is made for.
        report: name, source, revision, size and SHA-256 of each file as fetched, and `adapter_sha256`, that of the
            files written, whose configuration names the study's model.

    Raises:
        UserError: it cannot be had (see `hub_snapshot`), its weights are no safetensors, or it does not fit the model.
    """
    source, revision = settings["source"], settings["revision"]
    if source.startswith(HUB):
        folder = hub_snapshot(source.removeprefix(HUB), revision, "model", list(ADAPTER_FILES), [])
    else:
        folder = Path(source)
    if missing := [file for file in ADAPTER_FILES if not (folder / file).is_file()]:
        raise UserError(
            f"adapters.{name}.source: {source} has no {missing[0]}. An adapter is what PEFT's save_pretrained writes. "
            "Pickled weights (adapter_model.bin) are not read, since they can run code: load them where you trust them "
            "and save them again."
        )
    tensors(folder / ADAPTER_FILES[0])
    from llm.adapters import check_fits, write_adapter  # torch takes seconds

    model = read_json(record)
    check_fits(f"adapters.{name}.source: {source}", folder, model)
    written = write_adapter(folder, Path(report).parent / "adapter", model["source"])
    facts = {"name": name, "source": source, "revision": revision, "files": described(folder, ADAPTER_FILES)}
    write_json(report, facts | {"adapter_sha256": written})


if __name__ == "__main__":
    with job(snakemake.log[0]):
        fetch_adapter(
            snakemake.wildcards.run,
            snakemake.params.settings,
            record=snakemake.input.record,
            report=snakemake.output.report,
        )
