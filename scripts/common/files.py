"""Files that other jobs read: atomic writes, JSON lines, hashes, and the error a user is meant to see."""

import hashlib
import json
import os
import platform
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

# What an adapter is on disk, as PEFT writes it.
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json")
# What `peft_type` of its configuration says where all weights were trained, and lie there themselves (`llm.full`).
FULL = "FULL"
# Keys of its configuration with which it is no product of two matrices that can be scaled and averaged.
NOT_LINEAR = ("use_dora", "modules_to_save", "trainable_token_indices", "target_parameters", "lora_bias")


class UserError(Exception):
    """Something the user can mend. The message names the file, the key and the remedy; no traceback is shown."""


# What Python's reader of JSON raises of what is no UTF-8, no JSON, too long a number, or too deep.
UNREADABLE = (ValueError, RecursionError)
KNOWN = Path("results/fingerprints.json")
SECRET = re.compile(
    r"(//)[^/\s@?#]+(?=@)|([?&][^=&\s]*(?:sig|token|key|credential|secret|password|auth|policy)[^=&\s]*=)[^&\s'\")]*[^&\s'\"):.,]",
    re.IGNORECASE,
)


def redacted(text: str) -> str:
    """A text without what gives access: names and passwords in addresses, their signatures, the token of the hub."""
    text = SECRET.sub(lambda found: f"{found[1] or found[2]}***", text)
    token = os.environ.get("HF_TOKEN", "")
    return text.replace(token, "***") if len(token) > 7 else text


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
    """Read a JSON file; a byte order mark is not part of it.

    Raises:
        UserError: the file is missing, cannot be read, or is not UTF-8 or not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Expected a JSON file.") from None
    except UNREADABLE as error:
        remedy = "Mend it, or get it again; one that a run made can be deleted, and the next run makes it anew."
        raise UserError(f"{path}: not valid JSON ({error}). {remedy}") from None


def read_object(path: str | Path) -> dict[str, Any]:
    """Read a JSON object; errors as of `read_json`, and a UserError for any other value."""
    if not isinstance(found := read_json(path), dict):
        raise UserError(f"{path}: found no JSON object, expected one. Get the file again.")
    return found


def fully_tuned(folder: str | Path) -> bool:
    """Whether the folder of an adapter has all weights of a model in its place; a lack is said where it is read."""
    config = Path(folder) / ADAPTER_FILES[1]
    return config.is_file() and read_object(config).get("peft_type") == FULL


def write_jsonl(path: str | Path, rows: Iterable[dict]) -> None:
    """Write one JSON object a line, keys in their given order; a lone surrogate stays an escape."""
    with atomic_write(path, "wb") as stream:
        for row in rows:
            stream.write(f"{json.dumps(row, ensure_ascii=False)}\n".encode(errors="backslashreplace"))


def json_lines(path: str | Path) -> Iterator[tuple[int, Any]]:
    """Yield the number of each line that is not blank, and its value; a byte order mark is not part of the first.

    Raises:
        UserError: a line is not UTF-8 or not JSON; the message names the line.
    """
    with Path(path).open("rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                if line.strip():
                    yield number, json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except UnicodeDecodeError as error:
                raise UserError(f"{path}, line {number}: not UTF-8 ({error}). Save the file as UTF-8.") from None
            except UNREADABLE as error:
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


def _hashes(paths: Iterable[Path], known: Path) -> dict[Path, str]:
    """The SHA-256 of each file. `known` keeps them with size and times of change: weights are gigabytes."""
    kept = read_json(known) if known.exists() else {}
    before, found = dict(kept), {}
    for path in paths:
        status, place = path.stat(), str(path.resolve())
        stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
        if kept.get(place, [])[:-1] != stamp:
            kept[place] = [*stamp, sha256_file(path)]
        found[path] = kept[place][-1]
    if kept != before:
        with suppress(OSError), atomic_write(known) as stream:  # of a folder that cannot be written, hashed every time
            json.dump(kept, stream)
    return found


def fingerprint(source: str, known: Path = KNOWN) -> str | None:
    """SHA-256 of a local file, or of the names and contents of all files in a local folder; None if it is neither.

    The workflow is read again in every job, so a file that has not changed is not read again: see `_hashes`.
    """
    root = Path(source)
    if not root.exists():
        return None
    files = [path for path in (sorted(root.rglob("*")) if root.is_dir() else [root]) if path.is_file()]
    return sha256_json({str(path.relative_to(root)): found for path, found in _hashes(files, known).items()})


def check_files(record: str | Path, known: Path = KNOWN) -> None:
    """Refuse a model whose files are no longer those of its record, before a result is made that names them.

    Raises:
        UserError: a file is not there, or has another SHA-256 than the record says.
    """
    facts = read_json(record)
    wanted = {Path(facts["path"], name): one["sha256"] for name, one in facts["files"].items()}
    found = _hashes([path for path in wanted if path.is_file()], known)
    for path, expected in wanted.items():
        if found.get(path) != expected:
            what = f"found {found[path]}" if path in found else "found no file"
            raise UserError(
                f"{path}: changed since the model was fetched: expected sha256 {expected}, {what}. Put the file back, "
                "or make the results of the model as it is now: `snakemake -R fetch_model`."
            )
