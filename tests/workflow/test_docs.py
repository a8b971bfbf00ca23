"""Every command in the documentation exists and takes its options; Snakemake accepts it; or what it needs is said."""

import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from _runs import forked

REPO = Path(__file__).parents[2]
PAGES = [REPO / name for name in ("README.md", "CONTRIBUTING.md", "custom_metrics/README.md")]
PAGES += sorted((REPO / "docs").glob("*.md"))
PROGRAMS = ("make", "snakemake", "python", "python3", ".venv/bin/python")
# What no test can run here, and why.
ELSEWHERE = {
    r"source |export |pip install|mv |cd |git ": "changes the shell or the user's own folders",
    r"apptainer |apt-get ": "installs software",
    r"squeue |sbatch |scontrol ": "needs SLURM; tests/slurm starts one",
    r"snakemake --report": "needs a finished study; test_staleness makes one and runs it",
}
FIRST = tuple(f"{word} " for word in PROGRAMS) + tuple("|".join(ELSEWHERE).split("|"))


def commands() -> list[tuple[str, str]]:
    """The commands of all pages: lines of blocks that are indented or fenced as a shell's."""
    found: dict[str, str] = {}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        blocks = re.findall(r"^ *```(?:sh|bash|console)\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
        plain = re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)
        lines = [line for block in blocks for line in block.splitlines()]
        lines += re.findall(r"^ {4}(\S.*)$", plain, re.MULTILINE)
        lines += re.findall(r"`((?:make|snakemake|python3?) [a-zA-Z-][^`]+)`", plain)
        for line in lines:
            command = re.sub(r"\s+#.*| *;.*", "", line).strip().removesuffix("\\").strip()
            if command.startswith(FIRST) and "…" not in command:
                found.setdefault(command, page.name)
    return list(found.items())


COMMANDS = commands()
HERE = [one for one, _ in COMMANDS if not any(re.match(pattern, one) for pattern in ELSEWHERE)]
OF = {name: [one for one in HERE if one.startswith(name)] for name in ("make ", "snakemake ")}
PYTHON = [one for one in HERE if re.match(r"(\.venv/bin/)?python3? ", one)]


def test_the_documentation_has_commands_and_each_is_looked_at():
    assert len(COMMANDS) > 40
    looked = {*OF["make "], *OF["snakemake "], *PYTHON}
    assert set(HERE) == looked


@pytest.mark.parametrize("command", OF["make "])
def test_make_has_the_target(command):
    target, *variables = command.split()[1:]
    text = (REPO / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{re.escape(target)}:", text, re.MULTILINE), command
    for variable in variables:
        assert re.search(rf"\b{variable.partition('=')[0]}\b", text), command


@pytest.mark.parametrize("command", PYTHON)
def test_a_script_is_there_and_takes_its_options(command):
    words = command.split()[1:]
    if words[0] == "-c":
        return
    if words[0] == "-m":
        if words[1] in ("pytest", "snakemake", "pip", "venv"):
            return
        program, words = ["-m", words[1]], words[2:]
        program += words[:1] if words and re.fullmatch(r"[a-z]+", words[0]) else []
    else:
        program = [words[0]]
        assert (REPO / words[0]).is_file(), command
    options = re.findall(r"(?<=\s)(--[a-z][a-z-]*)", command)
    if options:
        shown = options_of(*program)
        assert not [option for option in options if option not in shown], command


@cache
def options_of(*program: str) -> str:
    """What a program says of its options."""
    command = [sys.executable, *program, "--help"]
    return subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True).stdout


def words_of(command: str) -> list[str]:
    """The arguments of Snakemake in a command, for the studies that a reader is to write."""
    own = re.sub(r"studies/<\w+>\.yaml", "studies/name.yaml", command)
    own = re.sub(r"--configfile FILE", "--configfile studies/FILE.yaml", own)
    assert not re.search(r"<\w+>", own), command
    words = shlex.split(own)[1:]
    return [*words, "--dry-run", *(["--quiet"] if "--lint" not in words else [])]


@pytest.fixture(scope="module")
def ended(copy_repo) -> dict[str, subprocess.CompletedProcess]:
    """How each command of Snakemake ended as a dry run, in a copy with the studies that a reader is to write."""
    folder = copy_repo("docs")
    for name in ("mine", "name", "FILE"):
        text = (folder / "config.yaml").read_text(encoding="utf-8").replace("study: demo", f"study: {name.lower()}", 1)
        (folder / f"studies/{name}.yaml").write_text(text, encoding="utf-8")
    runs = {f"{number}": words_of(command) for number, command in enumerate(OF["snakemake "])}
    return dict(zip(OF["snakemake "], forked(folder, runs).values(), strict=True))


@pytest.mark.parametrize("command", OF["snakemake "])
def test_snakemake_accepts_it(ended, command):
    run = ended[command]
    assert run.returncode == 0, f"{command}\n{run.stdout[-3000:]}"
