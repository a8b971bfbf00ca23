"""The conda environments and requirements.txt name the same versions."""

import sys
from pathlib import Path

import pytest
import yaml

ENVS = sorted((Path(__file__).parents[2] / "envs").glob("*.yaml"))
# Snakemake starts the environments and reads the study by pydantic, and the others are for development: no rule's job
# needs them.
NOT_IN_JOBS = {
    "pydantic",
    "snakemake",
    "snakemake-executor-plugin-slurm",
    "pytest",
    "pytest-xdist",
    "hypothesis",
    "playwright",
    "ruff",
    "import-linter",
    "snakefmt",
}


def required(repo: Path) -> dict[str, str]:
    names = ("requirements.txt", "requirements-harness.txt")
    lines = "\n".join((repo / name).read_text(encoding="utf-8") for name in names).splitlines()
    pins = [line for line in lines if line.strip() and not line.startswith(("#", "--constraint"))]
    assert all(line.count("==") == 1 for line in pins), "every requirement has one exact version"
    return dict(line.split("==") for line in pins)


def pip_pins(env: Path) -> dict[str, str]:
    dependencies = yaml.safe_load(env.read_text(encoding="utf-8"))["dependencies"]
    return dict(line.split("==") for entry in dependencies if isinstance(entry, dict) for line in entry["pip"])


@pytest.mark.parametrize("env", ENVS, ids=lambda path: path.stem)
def test_an_environment_has_the_pins_of_requirements_txt(env, repo):
    pins, wanted = pip_pins(env), required(repo)
    assert pins
    assert pins == {name: wanted.get(name) for name in pins}


def test_every_requirement_of_a_job_is_in_an_environment(repo):
    assert set().union(*map(pip_pins, ENVS)) == set(required(repo)) - NOT_IN_JOBS


def test_every_environment_is_used_and_exists(repo):
    rules = "".join(path.read_text(encoding="utf-8") for path in (repo / "rules").glob("*.smk"))
    for env in ENVS:
        assert f'"../envs/{env.name}"' in rules
    assert rules.count('"../envs/') == rules.count("\n    script:\n")


def test_no_module_has_the_name_of_one_in_the_standard_library(repo):
    # Python may take its own instead: which one it finds first differs between machines.
    assert not {path.stem for path in (repo / "scripts").glob("*.py")} & sys.stdlib_module_names
