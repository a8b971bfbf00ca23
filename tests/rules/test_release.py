"""A release has the notes of CHANGELOG.md, and all that names a version names the same one."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

FILES = ("CITATION.cff", "pyproject.toml", "custom_metrics/pyproject.toml", "CHANGELOG.md", ".ci/release-notes")


@pytest.fixture
def clone(repo, tmp_path) -> Path:
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(repo / name, tmp_path / name)
    return tmp_path


def notes(folder: Path, version: str) -> subprocess.CompletedProcess:
    return subprocess.run([folder / ".ci/release-notes", version], capture_output=True, text=True, check=False)


def test_the_notes_of_a_release_are_its_section(clone):
    version = yaml.safe_load((clone / "CITATION.cff").read_text(encoding="utf-8"))["version"]
    log = clone / "CHANGELOG.md"
    sections = ("Unreleased\n- new", f"{version} - 2026-11-21\n\n### Added\n- old", "0.0.9 - 2026-01-01\n- gone")
    log.write_text("".join(f"## {section}\n\n" for section in sections), encoding="utf-8")
    for name in (version, f"v{version}"):
        done = notes(clone, name)
        assert (done.returncode, done.stdout) == (0, "\n### Added\n- old\n"), done.stderr


def test_the_changelog_has_notes_of_the_present_version(repo):
    version = yaml.safe_load((repo / "CITATION.cff").read_text(encoding="utf-8"))["version"]
    done = notes(repo, f"v{version}")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^- \w", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("name", FILES[:4])
def test_a_version_that_is_not_everywhere_is_refused(clone, name):
    version = yaml.safe_load((clone / "CITATION.cff").read_text(encoding="utf-8"))["version"]
    text = (clone / name).read_text(encoding="utf-8")
    (clone / name).write_text(re.sub(rf"^(version.*|## ){re.escape(version)}", r"\g<1>9.9", text, flags=re.M), "utf-8")
    done = notes(clone, f"v{version}")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"{name}") and "found" in done.stderr and "tag anew" in done.stderr


def test_a_tag_makes_a_release_with_these_notes(repo):
    workflow = yaml.safe_load((repo / ".github/workflows/release.yaml").read_text(encoding="utf-8"))
    assert workflow[True] == {"push": {"tags": ["v*"]}}  # YAML reads `on` as true
    said, made = (step["run"] for step in workflow["jobs"]["release"]["steps"] if "run" in step)
    assert said == '.ci/release-notes "$GITHUB_REF_NAME" > notes.md'
    assert "--notes-file notes.md" in made
