"""The code of a step: a hash of its own file and of every module of this project that it imports, in turn."""

import re
from functools import cache
from hashlib import sha256
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[1]
IMPORT = re.compile(r"^\s*(?:from ([\w.]+) import (\([^)]*\)|[^\n#]+)|import ([\w., ]+))", re.MULTILINE)
# Of what readers see, templates and words are code too.
BESIDES = {"present": ("*.yaml", "templates/*")}
# What a file starts as a process of its own, which it does not import.
STARTED = {
    "custom_metrics/process.py": ("custom_metrics/worker.py",),
    "scripts/steps/deepeval_tests.py": ("custom_metrics/test_text_to_sql.py", "custom_metrics/conftest.py"),
}


@cache
def imported(file: Path) -> tuple[Path, ...]:
    """The modules of this project that a file imports itself, or starts."""
    root = SCRIPTS.parent
    found = {root / name for name in STARTED.get(file.relative_to(root).as_posix(), ())}
    for module, names, modules in IMPORT.findall(file.read_text(encoding="utf-8")):
        every = [module, *(f"{module}.{name}" for name in re.findall(r"\w+", names))] if module else modules.split(", ")
        for name in every:
            path = Path(*name.split(".")).with_suffix(".py")
            found |= {place / path for place in (SCRIPTS, root) if (place / path).is_file()}
    return tuple(sorted(found))


@cache
def digest(step: str) -> str:
    """The hash of the code of scripts/steps/<step>.py; another file in it, or an edited one, changes it."""
    found, new = set(), {SCRIPTS / f"steps/{step}.py"}
    while new:
        found |= new
        new = {path for file in new for path in imported(file)} - found
    for room, patterns in BESIDES.items():
        if any(path.parent == SCRIPTS / room for path in found):
            found |= {path for pattern in patterns for path in (SCRIPTS / room).glob(pattern)}
    contents = sha256()
    for path in sorted(found):
        contents.update(f"{path.relative_to(SCRIPTS.parent)}\0".encode() + path.read_bytes() + b"\0")
    return contents.hexdigest()
