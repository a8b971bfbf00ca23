"""envs/environment.py builds beside what there is, and never takes away, empties or changes an environment."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

# Notes how it was called, and fails on demand. Where uv is there, it installs.
# A Python that makes an environment in no time: itself, in a folder.
PYTHON = """
[ "$2" = venv ] || exec {python} "$@"
mkdir -p "$3/bin" && cp "$0" "$3/bin/python"
"""
INSTALLER = 'echo "$@" >> "$CALLS"; [ ! -e "$CALLS.fail" ]'


def executable(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


class Clone:
    """A clone with small requirements."""

    def __init__(self, folder: Path):
        self.folder, self.link, self.calls = folder, folder / ".venv", folder / "calls"
        (folder / "envs").mkdir(parents=True)
        shutil.copy(Path(__file__).parents[2] / "envs/environment.py", folder / "envs")
        self.require("1.0")
        executable(folder / "bin/uv", INSTALLER)
        self.python = executable(folder / "bin/python3", PYTHON.format(python=sys.executable))

    def require(self, version: str) -> None:
        (self.folder / "requirements.txt").write_text(f"torch==2.0\nfruit=={version}\n")
        locked = (f"fruit=={version} \\\n    --hash=sha256:aa", "nvidia-x==1 \\\n    --hash=sha256:bb", "torch==2.0")
        (self.folder / "requirements.lock").write_text("\n".join(locked) + "\n")

    def run(self, *arguments: str, fails: bool = False) -> str:
        if not (self.link.exists() or arguments):
            arguments = ("--python", self.python)
        done = subprocess.run(
            [sys.executable, "envs/environment.py", *arguments],
            cwd=self.folder, capture_output=True, text=True, check=False,
            env=os.environ | {"PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}", "CALLS": str(self.calls)},
        )  # fmt: skip
        assert (done.returncode != 0) == fails, done.stderr
        return done.stdout + done.stderr

    def installs(self) -> int:
        return len(self.calls.read_text().splitlines()) if self.calls.exists() else 0


@pytest.fixture
def clone(tmp_path) -> Clone:
    return Clone(tmp_path / "clone")


def test_other_requirements_are_built_beside(clone):
    assert "no environment yet. Run `make environment`" in clone.run("--check", fails=True)
    assert not clone.link.exists()
    clone.run()
    first = clone.link.resolve()
    torch, others = clone.calls.read_text().splitlines()
    assert torch.endswith("--quiet torch==2.0")
    assert others.endswith(f"--no-deps --require-hashes --requirement {first / 'requirements.lock'}")
    # What torch brings along is of its own build.
    assert (first / "requirements.lock").read_text() == "fruit==1.0 \\\n    --hash=sha256:aa"

    # Time stamps say nothing.
    for name in ("requirements.txt", "requirements.lock"):
        (clone.folder / name).touch()
    clone.run("--check")
    clone.run()
    assert clone.installs() == 2

    (first / "in-use").touch()
    clone.require("1.1")
    assert "built from other requirements" in clone.run("--check", fails=True)
    assert clone.link.resolve() == first
    assert "The one before it stays" in clone.run()
    second = clone.link.resolve()
    assert (second != first, (first / "in-use").exists(), clone.installs()) == (True, True, 4)

    # An older commit and back: both are there.
    for version, folder in (("1.0", first), ("1.1", second)):
        clone.require(version)
        clone.run()
        assert clone.link.resolve() == folder
    assert clone.installs() == 4


def test_a_build_that_broke_changes_nothing_and_is_completed(clone):
    clone.run()
    first = clone.link.resolve()
    clone.require("1.1")
    Path(f"{clone.calls}.fail").touch()
    assert "What you had is unchanged; run again to go on" in clone.run(fails=True)
    assert clone.link.resolve() == first
    Path(f"{clone.calls}.fail").unlink()
    clone.run()
    assert clone.link.resolve() != first


def test_a_choice_of_torch_stays(clone):
    clone.run("--torch", "https://example.org/whl/cpu", "--python", clone.python)
    assert clone.calls.read_text().splitlines()[0].endswith("--index-url https://example.org/whl/cpu")
    clone.run()
    assert (clone.installs(), clone.link.resolve().name.endswith("-cpu")) == (2, True)
    clone.run("--torch", "https://example.org/whl/cu126")
    assert (clone.installs(), clone.link.resolve().name.endswith("-cu126")) == (4, True)


def test_a_link_to_another_disk_stays_there(clone, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    clone.link.symlink_to(disk / "chosen")
    clone.run()
    first = clone.link.resolve()
    (first / "in-use").touch()
    clone.require("1.1")
    clone.run()
    assert {first.parent, clone.link.resolve().parent} == {disk.resolve()}
    assert (first / "in-use").exists()


@pytest.mark.parametrize("linked", [False, True])
def test_an_environment_of_the_users_own(clone, tmp_path, linked):
    own = tmp_path / "own" if linked else clone.link
    python = executable(own / "bin/python", f'exec {sys.executable} "$@"')
    if linked:
        clone.link.symlink_to(own)
    said = clone.run(fails=True)
    assert "without fruit==1.0" in said.replace("without torch==2.0 (2", "without fruit==1.0 (2")
    assert "`.venv/bin/python -m pip install -r requirements.txt`, or `mv .venv .venv-old`" in said
    assert [path.name for path in own.rglob("*")] == ["bin", "python"]
    assert Path(python).stat().st_size

    version = subprocess.run(
        [sys.executable, "-c", "import yaml; print(yaml.__version__)"], capture_output=True, text=True, check=True
    ).stdout
    (clone.folder / "requirements.txt").write_text(f"pyyaml=={version}")
    clone.run()
    clone.run("--check")
    assert "which PYTHON and TORCH do not change" in clone.run("--torch", "cpu", fails=True)
    assert clone.installs() == 0


def test_an_old_python(clone, tmp_path):
    old = executable(tmp_path / "python3.9", "echo 3.9")
    assert "is Python 3.9; 3.11 or later is needed" in clone.run("--python", old, fails=True)
    assert not clone.link.exists()


def test_a_system_without_file_locks(repo):
    """As Windows is."""
    program = "import runpy, sys; sys.modules['fcntl'] = None; runpy.run_path(sys.argv[1], run_name='__main__')"
    command = [sys.executable, "-c", program, repo / "envs/environment.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "On Windows use WSL 2" in done.stderr


def test_only_demo_and_test_build(repo):
    rules = (repo / "Makefile").read_text(encoding="utf-8")
    needs = dict(re.findall(r"^([a-z-]+): ?([a-z -]*?) ?##", rules, re.MULTILINE))
    assert {name for name, before in needs.items() if before == "environment"} == {"demo", "test"}
    for name, recipe in re.findall(r"^([a-z-]+):.*\n((?:\t.*\n)+)", rules, re.MULTILINE):
        assert needs.get(name) or "$(BIN)" not in recipe, f"{name} uses an environment that may not be there"
    assert not re.search(r"--clear|rm .*\.venv", rules.replace("-not -path './.venv*'", ""))


def test_what_runs_on_every_change_is_what_ci_runs_on_all_pythons(repo):
    workflow = yaml.safe_load((repo / ".github/workflows/tests.yaml").read_text(encoding="utf-8"))
    test, faults = workflow["jobs"]["test"], workflow["jobs"]["faults"]
    wanted = re.findall(r"^make (\w+)$", (repo / ".ci/run").read_text(encoding="utf-8"), re.MULTILINE)
    last = re.search(r"^make \"\$\{1:-([\w-]+)\}\"$", (repo / ".ci/run").read_text(encoding="utf-8"), re.MULTILINE)[1]
    done = [step["run"].split()[1] for step in test["steps"] if step.get("run", "").startswith("make ")]
    assert (wanted, last) == (done, "some-faults")
    # All of them each night, and by hand.
    when = {step["run"]: re.findall(r"== '(\w+)'", step["if"]) for step in faults["steps"] if "if" in step}
    assert when == {".ci/run": ["push", "pull_request"], ".ci/run faults": ["schedule", "workflow_dispatch"]}
    # YAML reads `on` as true.
    assert {*workflow[True]} == {event for events in when.values() for event in events}
    assert test["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]


def test_what_security_md_names_is_there(repo):
    named = re.findall(r"`(tests/[\w/.]*)`", (repo / "SECURITY.md").read_text(encoding="utf-8"))
    assert named
    assert all((repo / name).exists() for name in named), named
