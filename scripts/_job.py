"""What every rule's script does around its one call: log everything, tell the user's mistakes from ours."""

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from _files import UserError

LIBRARIES = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "bitsandbytes",
    "liger-kernel",
    "datasets",
    "tokenizers",
    "deepeval",
    "pandas",
)


@contextmanager
def job(log: str) -> Iterator[None]:
    """Send all this process and its children print to `log`; end with a sentence, not a traceback, on a UserError.

    File descriptors are redirected, so what C libraries and child processes print is caught too.
    """
    with Path(log).open("w", buffering=1) as stream:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
        try:
            yield
        except UserError as error:
            print(f"ERROR: {error}", file=sys.stderr, flush=True)
            sys.exit(1)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that can change a result."""
    found = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found
