"""Get a file of answers that were given elsewhere, as it is."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import _path  # noqa: F401
from common.download import cached_download
from common.files import UserError, atomic_write, sha256_file
from common.job import job


def fetch_answers(settings: Mapping[str, Any], output: str | Path) -> None:
    """Copy or download the file that `settings` (of `tasks.imported.Answers`) name.

    Raises:
        UserError: there is no such file, its SHA-256 differs, or the download fails.
    """
    source, sha256, name = (settings[key] for key in ("source", "sha256", "name"))
    remote = source.startswith(("http://", "https://"))
    path = cached_download(source, sha256) if remote else Path(source).expanduser()
    if not path.is_file():
        raise UserError(f"{source}: no such file. Give an http(s) URL or a local path as {name}.source.")
    if sha256 and (found := sha256_file(path)) != sha256:
        raise UserError(f"{path}: sha256 is {found}, expected {sha256}. Correct {name}.sha256, or get the file again.")
    with atomic_write(output, "wb") as stream, path.open("rb") as file:
        shutil.copyfileobj(file, stream)


if __name__ == "__main__":
    with job(snakemake.log[0]):
        fetch_answers(snakemake.params.settings, snakemake.output.file)
