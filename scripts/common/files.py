"""Files that other jobs read: atomic writes, JSON lines, hashes, and the error a user is meant to see."""

import hashlib
import json
import os
import platform
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

# What an adapter is on disk, as PEFT writes it.
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json")
# Keys of its configuration with which it is no product of two matrices that can be scaled and averaged.
NOT_LINEAR = ("use_dora", "modules_to_save", "trainable_token_indices", "target_parameters", "lora_bias")


class UserError(Exception):
    """Something the user can mend. The message names the file, the key and the remedy; no traceback is shown."""


@contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO]:
    """Open a temporary file beside `path` and move it there when the block ends without an error.

    A reader sees the old file or the whole new one, never a part: the data reach the disk before the rename.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.tmp")
    try:
        with temporary.open(mode, **({} if "b" in mode else {"encoding": "utf-8", "newline": ""})) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    with atomic_write(path) as stream:
        stream.write(text)


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON with sorted keys, so that equal values are equal files."""
    with atomic_write(path) as stream:
        json.dump(value, stream, indent=2, sort_keys=True, ensure_ascii=False)
        stream.write("\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: the file is missing, not UTF-8 or not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file.") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: not valid JSON ({error}). Delete it and run again to make it anew.") from None


def write_jsonl(path: str | Path, rows: Iterable[dict]) -> None:
    """Write one JSON object a line, keys in their given order."""
    with atomic_write(path) as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def json_lines(path: str | Path) -> Iterator[tuple[int, Any]]:
    """Yield the number of each line that is not blank, and its value.

    Raises:
        UserError: a line is not JSON; the message names the line.
    """
    with Path(path).open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, 1):
            try:
                if line.strip():
                    yield number, json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(f"{path}, line {number}: not valid JSON ({error}). Mend the line.") from None


def read_jsonl(path: str | Path) -> list[Any]:
    """Read one value a line; errors as of `json_lines`."""
    return [value for _, value in json_lines(path)]


def sha256_file(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """Return the SHA-256 of a plain value, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def described(folder: str | Path, names: Iterable[str]) -> dict[str, dict]:
    """Size in bytes and SHA-256 of each of the files of a folder, by its name."""
    folder = Path(folder)
    return {name: {"bytes": (folder / name).stat().st_size, "sha256": sha256_file(folder / name)} for name in names}


def fingerprint(source: str, known: Path = Path("results/fingerprints.json")) -> str | None:
    """SHA-256 of a local file, or of the names and contents of all files in a local folder; None if it is neither.

    The file `known` keeps the hash of each file with its size and time of change: the workflow is read again in every
    job, and weights are gigabytes.
    """
    root = Path(source)
    if not root.exists():
        return None
    kept = json.loads(known.read_text()) if known.exists() else {}
    before, found = dict(kept), {}
    for path in sorted(root.rglob("*")) if root.is_dir() else [root]:
        if path.is_file():
            status = path.stat()
            stamp, entry = [status.st_size, status.st_mtime_ns], kept.get(str(path.resolve()))
            if entry is None or entry[:2] != stamp:
                entry = kept[str(path.resolve())] = [*stamp, sha256_file(path)]
            found[str(path.relative_to(root))] = entry[2]
    if kept != before:
        with suppress(OSError), atomic_write(known) as stream:  # of a folder that cannot be written, hashed every time
            json.dump(kept, stream)
    return sha256_json(found)
