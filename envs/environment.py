"""Build the environment of `make`: .venv, a link to a folder that is named after what it was built from.

    python3 envs/environment.py [--python python3.12] [--torch INDEX]    build it, unless it is there
    python3 envs/environment.py --check                                  only say what is to be done

A study may run in an environment for days. So none is deleted, emptied or changed here: for other requirements a new
one is built beside it, and when that is whole, .venv is pointed at it. What runs goes on in the old one. If .venv is
your own link, to a larger disk say, new ones are built beside what it points at; else in .venvs/.

requirements.lock is made by uv:
    uv pip compile --universal --generate-hashes --python-version 3.11 --no-annotate --no-header requirements.txt \
        --output-file requirements.lock
"""

from __future__ import annotations  # an older Python is to end with a sentence

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

try:
    import fcntl
except ImportError:
    sys.exit(
        "Nothing was built: this system lacks what Linux and macOS have (locks of files, limits of processes). On "
        "Windows use WSL 2 (`wsl --install`)."
    )

REPO = Path(__file__).resolve().parents[1]
LINK = ".venv"
# In an environment: what it was built from. It is written last, so a half-built environment has none.
STAMP = "built-from.json"
# What says whether an environment of the user's own will do.
MISSING = """
import sys
from importlib.metadata import PackageNotFoundError, version
def found(name):
    try:
        return version(name).partition("+")[0]
    except PackageNotFoundError:
        return None
print(*[pin for pin in sys.argv[1:] if found(pin.partition("==")[0]) != pin.partition("==")[2]], sep="\\n")
"""
OWN = "an environment that was not built by this command"
HOW = "Run `make environment` (`make demo` and `make test` do it too), or without make: python3 envs/environment.py"


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the environment .venv, unless it is there.")
    parser.add_argument("--check", action="store_true", help="build nothing; fail if it is to be built")
    parser.add_argument("--python", help="Python 3.11 or later; by default that of the present environment")
    parser.add_argument("--torch", metavar="INDEX", help="address of the index with another build of torch")
    options = parser.parse_args()
    try:
        run(REPO, options)
    except subprocess.CalledProcessError as error:
        sys.exit(f"{' '.join(map(str, error.cmd))}: failed. What you had is unchanged; run again to go on.")


def run(repo: Path, options: argparse.Namespace) -> None:
    """Leave a .venv that has the requirements of the checkout in `repo`, or say what is to be done."""
    link = repo / LINK
    there = read_stamp(link)
    if link.exists() and there is None:
        own(repo, link)
        if options.python or options.torch:
            sys.exit(f"{LINK}: {OWN}, which PYTHON and TORCH do not change. Move it away (mv {LINK} {LINK}-old).")
        return
    # The paths in an environment hold where it was built, not where it was moved.
    place = Path(os.path.realpath(link)).parent if link.is_symlink() else repo / ".venvs"
    wanted = {"requirements": requirements(repo, place)}
    wanted |= {"python": release(options.python)} if options.python else {}
    wanted |= {"torch": options.torch} if options.torch else {}
    if there and there | wanted == there:
        return
    if options.check:
        sys.exit(f"{LINK}: {'built from other requirements' if there else 'no environment yet'}. {HOW}")
    stamp = {"torch": None, "python": release(options.python or sys.executable)} | (there or {}) | wanted
    if there and not options.python:
        options.python = str(link / "bin" / "python")
    parts = (stamp["requirements"][:10], f"python{stamp['python']}", build_of_torch(stamp["torch"]))
    folder = place / "-".join(filter(None, parts))
    place.mkdir(parents=True, exist_ok=True)
    with (place / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if read_stamp(folder) != stamp:
            build(repo, folder, options.python or sys.executable, stamp)
        point(link, folder)
    if there:
        print(f"{LINK} is now {folder}. The one before it stays; delete it when nothing runs in it.")


def own(repo: Path, link: Path) -> None:
    """Take an environment that the user made, if it has what is needed."""
    python = link / "bin" / "python"
    pins = re.findall(r"^[\w.-]+==[^;\s]+", (repo / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE)
    if not python.exists():
        sys.exit(f"{LINK}: is no Python environment. Move it away, and run again.")
    missing = output(python, MISSING, *pins).split()
    if missing:
        sys.exit(
            f"{LINK}: {OWN}, without {missing[0]} ({len(missing)} missing in all). Nothing was changed. When nothing "
            f"runs in it, `{LINK}/bin/python -m pip install -r requirements.txt`, or `mv {LINK} {LINK}-old`. {HOW}"
        )


def requirements(repo: Path, place: Path) -> str:
    """A hash of what an environment is built from, and of the folder that it is built in."""
    content = [(repo / name).read_bytes() for name in ("requirements.txt", "requirements.lock")]
    return hashlib.sha256(b"\0".join([*content, os.fsencode(place)])).hexdigest()


def release(python: str) -> str:
    """The version of a Python, as 3.12; the script ends if it is older than 3.11."""
    program = "import sys; print(*sys.version_info[:2], sep='.')"
    found = output(python, program).strip()
    if tuple(map(int, found.split("."))) < (3, 11):
        sys.exit(f"{python} is Python {found}; 3.11 or later is needed. Name one: make environment PYTHON=python3.12")
    return found


def build_of_torch(index: str | None) -> str:
    """What an index has, by the last part of its address: cpu, cu126."""
    return (index or "").rstrip("/").rpartition("/")[2]


def output(python: str | Path, program: str, *arguments: str) -> str:
    command = [python, "-c", program, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def build(repo: Path, folder: Path, python: str, stamp: dict) -> None:
    """Make the environment in `folder`; one that was left half-built is completed."""
    print(f"Building {folder}: some minutes, and 4 to 7 GB.", flush=True)
    subprocess.run([python, "-m", "venv", folder], check=True)
    inside = folder / "bin" / "python"
    installer = ["uv", "pip", "install", "--python", inside] if shutil.which("uv") else [inside, "-m", "pip", "install"]
    # torch first and alone: which build it is depends on the machine, so it has no hash in common. What it brings along
    # for a GPU belongs to its build.
    index = ["--index-url", stamp["torch"]] if stamp["torch"] else []
    pin = re.search(r"^torch==\S+", (repo / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE)[0]
    subprocess.run([*installer, "--quiet", pin, *index], check=True)
    lock = folder / "requirements.lock"
    locked = re.split(r"\n(?=\S)", (repo / "requirements.lock").read_text(encoding="utf-8"))
    lock.write_text("\n".join(one for one in locked if not re.match(r"torch==|nvidia-|cuda-", one)), encoding="utf-8")
    # The lock is complete. Without --no-deps pip would hold it against the build of torch.
    subprocess.run([*installer, "--quiet", "--no-deps", "--require-hashes", "--requirement", lock], check=True)
    written = folder / f"{STAMP}.tmp"
    written.write_text(json.dumps(stamp), encoding="utf-8")
    written.replace(folder / STAMP)


def point(link: Path, folder: Path) -> None:
    """Point `link` at `folder` in one step."""
    new = link.with_name(f"{link.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(os.path.relpath(folder, link.parent) if folder.is_relative_to(link.parent) else folder)
    new.replace(link)


def read_stamp(folder: Path) -> dict | None:
    try:
        return json.loads((folder / STAMP).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


if __name__ == "__main__":
    main()
