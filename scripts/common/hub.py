"""Snapshots of a model hub, held to the hub's own hashes; a broken download goes on where it stopped."""

import hashlib
import logging
import re
import time
from collections.abc import Iterator
from pathlib import Path

from common.download import ATTEMPTS, TRANSIENT
from common.files import UserError, redacted, sha256_file

# What to do about a gated repository.
ACCEPT = (
    "Accept its licence at {page}, then set the environment variable HF_TOKEN to a token of the account that accepted "
    "it (https://huggingface.co/settings/tokens)."
)
TOKENS = "https://huggingface.co/settings/tokens"
HERE = "the environment variable HF_TOKEN, or what `hf auth login` saved"


def hub_snapshot(repo: str, revision: str | None, kind: str, allow: list[str], ignore: list[str]) -> Path:
    """Download the files of a hub repository at a pinned commit; return their folder, named by the commit.

    Failures that may pass are tried again after 1, 2, 4 … seconds, `ATTEMPTS` times without a new byte. The bytes of a
    file must have the hash that the hub gives it (SHA-256 of large files, git's SHA-1 of others), those of earlier
    downloads too; a file with others is downloaded once more.

    `repo` is `owner/name`, `revision` 40 hexadecimal digits, `kind` "model" or "dataset"; `allow` and `ignore` are glob
    patterns of file names.

    Raises:
        UserError: the revision is not a commit, the repository is gated or missing, its files are damaged, the token is
            refused, or the hub cannot be reached.
    """
    page = f"https://huggingface.co/{'datasets/' if kind == 'dataset' else ''}{repo}"
    if not re.fullmatch(r"[0-9a-f]{40}", revision or ""):
        raise UserError(
            f"{repo}, revision: found {revision!r}, expected the 40 hexadecimal digits of a commit. A branch name "
            f"moves with time: pin a commit of {page}/commits/main."
        )
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.file_download import repo_folder_name

    for handler in logging.getLogger("huggingface_hub").handlers:
        handler.addFilter(_without_secrets)
    cache = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=repo, repo_type=kind), "blobs")
    files = {"allow_patterns": allow, "ignore_patterns": ignore}
    failures, farthest, damaged = 0, _bytes(cache), ""
    while True:
        try:
            folder = Path(snapshot_download(repo, repo_type=kind, revision=revision, etag_timeout=10, **files))
        except Exception as error:
            have = _bytes(cache)
            failures, farthest = 1 if have > farthest else failures + 1, max(farthest, have)
            reason = redacted(str(error).splitlines()[0] if str(error) else type(error).__name__)
            if not _may_pass(error) or failures >= ATTEMPTS:
                if sentence := _sentence(error, kind, page, reason, revision):
                    raise UserError(f"{repo}: {sentence}") from None
                raise
            print(f"{repo}: {reason}; trying again.", flush=True)
            time.sleep(min(60, 2 ** (failures - 1)))
            continue
        wrong = list(_damaged(folder))
        if not wrong:
            return folder
        if damaged:
            raise UserError(
                f"{repo}: {wrong[0]}, again after a second download. It was deleted. Something between the hub and "
                "here changes files (a proxy, a mirror); give a folder with the right ones as source."
            )
        damaged = wrong[0]
        print(f"{repo}: {damaged}; downloading it again.", flush=True)


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*")) if folder.is_dir() else 0


def _damaged(folder: Path) -> Iterator[str]:
    """Delete each file of a snapshot that has not the hash that it is named after in the cache; say which it was."""
    for path in sorted(folder.rglob("*")):
        blob = path.resolve()
        if path.is_dir() or not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", blob.name):
            continue
        if len(blob.name) == 64:
            found = sha256_file(blob)
        else:  # git hashes a header too
            found = hashlib.sha1(b"blob %d\0" % blob.stat().st_size + blob.read_bytes()).hexdigest()
        if found != blob.name:
            path.unlink()
            blob.unlink()
            yield f"{path.name} has the hash {found}, expected {blob.name}"


def _status(error: BaseException | None) -> int | None:
    """The status of the hub's answer, if an error is about one."""
    while error is not None:
        if (answer := getattr(error, "response", None)) is not None:
            return answer.status_code
        error = error.__cause__
    return None


def _may_pass(error: Exception) -> bool:
    """Whether the hub was busy or the connection broke off; not whether there is none."""
    import httpx

    if (status := _status(error)) is not None:
        return status in TRANSIENT
    # OSError without a number: fewer bytes than announced. RuntimeError: a thread of huggingface_hub asks with a client
    # that another, its connection broken, has closed.
    short = type(error) is OSError and error.errno is None
    broken = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError, httpx.ReadTimeout, RuntimeError)
    return short or isinstance(error, broken)


def _sentence(error: Exception, kind: str, page: str, reason: str, revision: str) -> str | None:
    """What the user can do about an error; None if nothing is known of it."""
    import httpx
    from huggingface_hub import errors, get_token

    if get_token() and _status(error) == 401:
        return f"the hub refuses the token ({HERE}): it is mistyped or has expired. Make another at {TOKENS}."
    # The first that fits: some are kinds of others.
    reasons = {
        errors.GatedRepoError: (
            f"this {kind} is gated, and your token ({HERE}) may not read it. Accept its licence at {page} with the "
            f"account of the token; a fine-grained one must also be allowed to read gated repositories ({TOKENS})."
            if get_token()
            else f"this {kind} is gated. {ACCEPT.format(page=page)}"
        ),
        errors.RevisionNotFoundError: f"has no commit {revision}. Pin one of {page}/commits/main.",
        errors.RepositoryNotFoundError: (
            f"no such {kind} on the hub, or it is private. Check the name; for a private one set the environment "
            "variable HF_TOKEN" + (" to the token of an account that may read it." if get_token() else ".")
        ),
        errors.HFValidationError: f"not a name of a hub repository ({reason}).",
        (errors.LocalEntryNotFoundError, errors.HfHubHTTPError, httpx.HTTPError, RuntimeError): (
            f"the hub cannot be reached, and this revision is not in the local cache ({reason}). Go online and run "
            "again, or give a local folder as source."
        ),
    }
    found = next((sentence for kinds, sentence in reasons.items() if isinstance(error, kinds)), None)
    if found is None and type(error) is OSError and error.errno is None:
        return f"the hub broke off its answers {ATTEMPTS} times ({reason}). Run again to go on from what has come."
    return found


def _without_secrets(record: logging.LogRecord) -> bool:
    """Change a message of huggingface_hub, which names addresses with signatures."""
    record.msg, record.args = redacted(record.getMessage()), ()
    return True
