"""Data from elsewhere: resumable downloads, archives opened safely."""

import lzma
import os
import re
import shutil
import stat
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import sha256 as new_sha256
from pathlib import Path, PureWindowsPath
from typing import IO, TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from filelock import FileLock
from tqdm import tqdm

from common.files import UserError, redacted, sha256_file

if TYPE_CHECKING:
    import requests  # where it is used: every parse of the workflow, in each cluster job too, reads this module

# Shared by all studies, so that five of them download Spider once.
CACHE = Path("results/downloads")
GOOGLE_DRIVE = "https://drive.usercontent.google.com"
ATTEMPTS = 6
# What an archive may hold: so many entries, and so many times its own bytes. Text and databases shrink to a twentieth.
MOST_ENTRIES = 1_000_000
MOST_GROWTH = 200
SMALL = 1 << 28  # bytes that any archive may hold
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)


def cached_download(source: str, sha256: str | None = None, cache_dir: Path = CACHE) -> Path:
    """Download an http(s) URL or a Google Drive file (`gdrive:<id>`) into `cache_dir`; return the file's path.

    A finished download is used again if its SHA-256 is the given one. A broken one goes on where it stopped.

    Raises:
        UserError: the server refuses, keeps failing or answers with a web page, or the SHA-256 differs.
    """
    url, name = source, unquote(urlsplit(source).path).rsplit("/", 1)[-1] or "download"
    if source.startswith("gdrive:"):
        name = source.removeprefix("gdrive:")
        # confirm=t answers the "too large to scan for viruses" page that large files have.
        url = f"{GOOGLE_DRIVE}/download?id={name}&export=download&confirm=t"
    # Two servers may use one file name.
    prefix = new_sha256(source.encode()).hexdigest()[:8]
    target = cache_dir / f"{prefix}-{re.sub(r'[^A-Za-z0-9._-]', '_', name)}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if not target.is_file() or (sha256 and sha256_file(target) != sha256.lower()):
            download(url, target, sha256)
    return target


def download(url: str, target: Path, sha256: str | None = None) -> None:
    """Download `url` to `target`, which appears only when it is whole and, if `sha256` is given, right.

    Until then the bytes are in `<target>.part`. A later call goes on from there if the server still has the same file
    (HTTP Range with If-Range). Transient failures are tried again after 1, 2, 4 … seconds, or what Retry-After says;
    `ATTEMPTS` of them without a new byte end the job.

    Raises:
        UserError: as for `cached_download`.
    """
    # Beside the part stands the ETag or date of the file that it is the beginning of.
    part, validator = (target.with_name(target.name + end) for end in (".part", ".part.validator"))
    failures, farthest = 0, _size(part)
    while failure := _attempt(url, part, validator):
        reason, wait = failure
        size = _size(part)
        failures, farthest = 1 if size > farthest else failures + 1, max(farthest, size)
        if failures >= ATTEMPTS:
            raise UserError(
                f"{url}: {reason}; tried {ATTEMPTS} times. The {size:,} bytes that came are kept in {part}. "
                "Run again to go on from there, or download the file yourself and give its path as source."
            )
        print(redacted(f"{url}: {reason}; trying again."), flush=True)
        time.sleep(min(60, 2 ** (failures - 1) if wait is None else wait))
    size, found = _size(part), sha256 and sha256_file(part)
    validator.unlink(missing_ok=True)
    if sha256 and found != sha256.lower():
        part.unlink()
        raise UserError(
            f"{url}: sha256 of the {size:,} bytes downloaded is {found}, expected {sha256}. They were deleted. "
            "If the publisher has changed the file, put the new sha256 in the config; if not, run again."
        )
    part.replace(target)


def _attempt(url: str, part: Path, validator: Path) -> tuple[str, float | None] | None:
    """Make one request, for what `part` lacks; the answer is None when `part` is whole.

    After a failure that may pass it is the reason, and the seconds to wait (None: more with each failure).
    """
    import requests

    headers = {"Accept-Encoding": "identity"}  # the bytes as they are stored: ranges and hashes are of those
    if part.is_file() and validator.is_file() and validator.read_text():
        headers |= {"Range": f"bytes={_size(part)}-", "If-Range": validator.read_text()}
    try:
        with requests.get(url, headers=headers, stream=True, timeout=(10, 60)) as answer:
            if answer.status_code in TRANSIENT:
                wait = answer.headers.get("Retry-After", "")
                return f"the server answered {answer.status_code}", float(wait) if wait.isdigit() else None
            _check(url, answer)
            have = _size(part) if answer.status_code == 206 else 0
            span = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
            if answer.status_code == 416 or (have and (span is None or int(span[1]) != have)):
                # Complete already, or of another file: either way asking for all of it is sure to end well.
                validator.unlink(missing_ok=True)
                return "the server cannot go on from where the download stopped", 0
            if not have:
                # A weak ETag does not promise equal bytes.
                etag = answer.headers.get("ETag") or "W/"
                validator.write_text(answer.headers.get("Last-Modified", "") if etag.startswith("W/") else etag)
            length = answer.headers.get("Content-Length")
            total = have + int(length) if length else None
            shown = {"total": total, "initial": have, "desc": part.stem, "mininterval": 1}
            with part.open("ab" if have else "wb") as stream, tqdm.wrapattr(stream, "write", **shown) as counted:
                for block in answer.iter_content(1 << 16):
                    counted.write(block)
                stream.flush()
                os.fsync(stream.fileno())
    except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
        return f"the connection failed ({error})", None
    except requests.RequestException as error:
        raise UserError(f"{url}: cannot be downloaded ({error}). Check the address.") from None
    if total is not None and _size(part) != total:
        return f"the server closed after {_size(part):,} of {total:,} bytes", None
    return None


def _check(url: str, answer: "requests.Response") -> None:
    """Refuse an answer that is neither the file nor a part of it."""
    status, page = answer.status_code, answer.headers.get("Content-Type", "").startswith("text/html")
    if page and "/download?id=" in url:
        title = re.search(r"<title>(.*?)</title>", answer.text, re.DOTALL | re.IGNORECASE)
        raise UserError(
            f"{url}: Google Drive answered with a page ({title[1].strip() if title else status}), not with "
            "the file: its download quota is used up for today, or it is not public. Try again tomorrow, or download "
            "it in a browser and give the path of the file as source."
        )
    if status >= 400 and status != 416:
        raise UserError(f"{url}: the server answered {status} {answer.reason}. Check the address.")
    if page:
        raise UserError(f"{url}: the server answered with a web page, expected an archive. Check the address.")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


@contextmanager
def opened(
    source: str, sha256: str | None, scratch: Path, endings: tuple[str, ...], cache_dir: Path = CACHE
) -> Iterator[tuple[Path, str | None]]:
    """Yield the folder that holds the files of `source`, and the SHA-256 of its archive (None if it is a folder).

    An archive is downloaded if need be and unpacked into the folder `scratch`, only the entries whose names have these
    endings; `scratch` is deleted when the block ends. A local folder is yielded as it is.

    Raises:
        UserError: there is no such source, its archive is damaged or unsafe, or its SHA-256 differs.
    """
    remote = source.startswith(("http://", "https://", "gdrive:"))
    archive = cached_download(source, sha256, cache_dir) if remote else Path(source).expanduser()
    if archive.is_dir():
        if sha256:
            raise UserError(f"{source}: is a folder, and sha256 is of an archive. Set sha256 to null.")
        yield archive, None
        return
    if not archive.is_file():
        raise UserError(f"{source}: no such file or folder. Give an http(s) URL, gdrive:<id>, or a local path.")
    found = sha256_file(archive)
    if sha256 and found != sha256.lower():
        raise UserError(f"{archive}: sha256 is {found}, expected {sha256}. Correct the config, or get the file again.")
    try:
        extract(archive, scratch, endings)
        yield scratch, found
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def extract(archive: Path, target: Path, endings: tuple[str, ...] = ("",)) -> None:
    """Unpack a zip or tar archive into a new folder `target`, which appears only when all is unpacked.

    Only entries whose names have these endings are written, and no metadata that macOS adds. This function writes plain
    files itself: what the archive says of links, owners and modes has no effect.

    Raises:
        UserError: the archive is damaged, or has an entry that is a link, a device, or leaves the folder, or holds
            far more than its size.
    """
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(target, ignore_errors=True)
    temporary.mkdir(parents=True)
    left = max(SMALL, MOST_GROWTH * archive.stat().st_size)
    try:
        for number, (name, plain, open_entry) in enumerate(_entries(archive)):
            if number >= MOST_ENTRIES:
                raise UserError(f"{archive}: more than {MOST_ENTRIES:,} entries. Do not use this archive.")
            path = PureWindowsPath(name)  # knows both separators and drive letters
            if path.drive or path.root or ".." in path.parts:
                raise UserError(f"{archive}: the entry {name!r} leaves the folder. Do not use this archive.")
            if not plain:
                raise UserError(f"{archive}: the entry {name!r} is a link or device. Do not use this archive.")
            of_macos = "__MACOSX" in path.parts or path.name.startswith("._")
            if open_entry is not None and name.endswith(endings) and not of_macos:
                file = temporary.joinpath(*path.parts)
                file.parent.mkdir(parents=True, exist_ok=True)
                with open_entry() as source, file.open("wb") as stream:
                    while block := source.read(min(1 << 20, left + 1)):
                        left -= len(block)
                        if left < 0:
                            raise UserError(
                                f"{archive}: unpacks to more than {MOST_GROWTH} times its size, at {name!r}: made to "
                                "fill a disk. Do not use it; if you trust it, unpack it and give the folder."
                            )
                        stream.write(block)
        temporary.rename(target)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's fault, not the archive's
        raise UserError(
            f"{archive}: not a whole zip or tar archive ({str(error).splitlines()[0]}). Get it again, or name another "
            f"file; a download below {CACHE}/ is to be deleted first."
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _entries(archive: Path) -> Iterator[tuple[str, bool, Callable[[], IO[bytes]] | None]]:
    """Yield of each entry its name, whether it is a plain file or folder, and how to open it (None for a folder)."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            for entry in packed.infolist():
                plain = stat.S_IFMT(entry.external_attr >> 16) in (0, stat.S_IFREG, stat.S_IFDIR)
                yield entry.filename, plain, None if entry.is_dir() else partial(packed.open, entry)
        return
    with tarfile.open(archive) as packed:
        for entry in packed:
            plain = entry.isreg() or entry.isdir()
            yield entry.name, plain, None if entry.isdir() else partial(packed.extractfile, entry)
        # The checksum of gzip comes last, after the end of the tar archive, where tarfile stops reading.
        while packed.fileobj.read(1 << 20):
            pass


def find_root(folder: Path, pattern: str, source: str) -> Path:
    """Find the outermost folder, at or below `folder`, in which the glob `pattern` finds something.

    `source` is what messages call the data: the folder may be a temporary one.

    Raises:
        UserError: there is none, or several at one depth.
    """
    level = [folder]
    while level:
        found = [place for place in level if any(place.glob(pattern))]
        if len(found) == 1:
            return found[0]
        if found:
            raise UserError(f"{source}: {found[0].name} and {found[1].name} both hold {pattern}. Give the path of one.")
        level = [child for place in level for child in sorted(place.iterdir()) if child.is_dir()]
    raise UserError(f"{source}: holds no {pattern}. It is not the data expected here, or not all of it.")
