"""What every step does around its one call: it logs everything, says what to do, and leaves nothing running."""

import ctypes
import errno
import gc
import os
import platform
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType

from common.files import UserError, redacted

# Those that can change a result.
LIBRARIES = (
    "torch", "transformers", "trl", "peft", "bitsandbytes", "liger-kernel", "datasets", "tokenizers", "deepeval",
    "pandas",
)  # fmt: skip
FULL = (errno.ENOSPC, errno.EDQUOT)
# The last two are how torch's writer ends.
FULL_TEXTS = (*map(os.strerror, FULL), "PytorchStreamWriter failed", "unexpected pos")
# What an attempt leaves in its log that was cut off from outside: the next one may do better.
OUT_OF_MEMORY, STOPPED, KILLED = "out of main memory", "stopped by SIGTERM", "was killed (SIGKILL)"
INTERRUPTED = "stopped by Ctrl-C (SIGINT)"
PR_SET_PDEATHSIG = 1  # linux/prctl.h


@contextmanager
def job(log: str, lock: str | Path | None = None) -> Iterator[None]:
    """Write all output of this process and its children to `log`; end with a sentence if a user can mend the error.

    File descriptors are redirected, which catches the output of C libraries too. Standard input is empty: no library
    may take an answer from there, as to whether it shall run a model's code. If Snakemake is killed, this process gets
    SIGTERM, so that the next Snakemake does not find it at work on the same files.

    Args:
        log: the file; it is replaced.
        lock: a lock file, for a job that goes on from the files of an earlier attempt: two must never run at once.
    """
    collect_garbage()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    with Path(log).open("w", buffering=1) as stream, os.fdopen(os.dup(2), "w") as terminal:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
        with open(os.devnull) as nothing:  # noqa: PTH123
            os.dup2(nothing.fileno(), 0)
        try:
            with _alone(lock) if lock else nullcontext():
                yield
        except KeyboardInterrupt:
            # A progress bar may be left in the middle of its line.
            print(f"\nERROR: {INTERRUPTED}. The same command goes on from what was kept.", file=sys.stderr, flush=True)
            sys.exit(128 + signal.SIGINT)
        except Exception as error:
            sentence = redacted(str(error) if isinstance(error, UserError) else _remedy(error))
            if not sentence:
                raise
            trace = "" if isinstance(error, UserError) else redacted(traceback.format_exc())
            try:
                print(f"{trace}ERROR: {sentence}", file=sys.stderr, flush=True)
            except OSError:  # the log lies on the full disk
                print(f"{trace}ERROR: {sentence}", file=terminal, flush=True)
            sys.exit(1)


def collect_garbage() -> None:
    """Look for garbage from now on, but never again among what is imported: that is not left before the job ends."""
    gc.freeze()
    gc.enable()


@contextmanager
def _alone(lock: str | Path) -> Iterator[None]:
    """Wait until no other process is in this block: an attempt on a node that its scheduler lost may still run."""
    from filelock import FileLock, Timeout  # only the environments of jobs that lock have it

    Path(lock).parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(lock)
    try:
        held.acquire(blocking=False)
    except Timeout:
        print(f"{lock}: another attempt of this job still runs; waiting for its end.", flush=True)
        held.acquire()
    except NotImplementedError:
        print(f"{lock}: this file system has no locks. End other attempts of this job, if there are any.", flush=True)
    try:
        yield
    finally:
        held.release()


def _remedy(error: BaseException) -> str:
    """Say what to do if the disk or the memory is too small; "" for any other error.

    Errors of Python have a number; those of safetensors and of torch's file writer have only a text.
    """
    found: BaseException | None = error
    while found:
        number, text = getattr(found, "errno", None), str(found)
        where = getattr(found, "filename", None) or "the results"
        if number in FULL or any(part in text for part in FULL_TEXTS):
            return (
                f"{where}: the disk is full, or a quota is used up. Free some space and run snakemake again: it goes "
                "on from what is there."
            )
        if number in (errno.EROFS, errno.EACCES, errno.EPERM):
            return f"{where}: cannot be written ({found.strerror}). Make it writable and run snakemake again."
        if isinstance(found, MemoryError) or number == errno.ENOMEM or "can't allocate memory" in text:
            return (
                f"{OUT_OF_MEMORY}. Give the job more (mem_mb in the profile), or have it need less "
                "(training.per_device_train_batch_size, inference.batch_size), and run snakemake again."
            )
        found = found.__cause__ or found.__context__
    return ""


def ended(log: str | Path) -> str:
    """How an attempt that failed has ended, as far as its log tells: `stopped`, `killed` or `failed`.

    What ends by itself leaves a sentence or a traceback: `failed`, and it would fail again. An attempt that says that
    it had too little main memory, or was killed for it and left no word, is `killed`; so are a few that were killed
    for another reason. Without a log it has not begun: `stopped`.
    """
    try:
        text = Path(log).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "stopped"
    if OUT_OF_MEMORY in text or KILLED in text:
        return "killed"
    if STOPPED in text or INTERRUPTED in text:
        return "stopped"
    return "failed" if "ERROR: " in text or "Traceback (most recent call last)" in text else "killed"


@cache
def retry_only_what_was_cut_off(kind: type) -> None:
    """Let a kind of Snakemake's jobs be tried again only after attempts that were stopped or killed.

    Snakemake tries whatever failed as often as `retries` says, and a job cannot tell it not to. A user's mistake would
    wait for a GPU once for each attempt.
    """
    allowed = kind.restart_times.fget
    kind.restart_times = property(lambda job: 0 if "failed" in map(ended, job.log) else allowed(job))


class Sigterm:
    """Notes SIGTERM within a `with` block instead of dying of it; `came` says whether it has.

    A scheduler sends it before it kills a job. A job that can keep its work finishes its step or batch, keeps it and
    fails; the next attempt goes on from there. Nothing depends on it: after SIGKILL the next attempt goes on from the
    last regular checkpoint or batch.
    """

    came = False

    def __enter__(self) -> "Sigterm":
        self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.came = True


def versions() -> dict[str, str]:
    """Name the versions of Python and of those `LIBRARIES` that are installed."""
    found = {"python": platform.python_version()}
    for library in LIBRARIES:
        with suppress(PackageNotFoundError):
            found[library] = version(library)
    return found
