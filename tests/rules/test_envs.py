"""The conda environments and requirements.txt name the same versions."""

import ast
import itertools
import re
import sys
from pathlib import Path

import pytest
import yaml

ENVS = sorted((Path(__file__).parents[2] / "envs").glob("*.yaml"))
# The rules of a task stand in a loop.
SCRIPT = re.compile(r"\n +script:\n")
# Snakemake starts the environments, and the others are for development: no rule's job needs them.
NOT_IN_JOBS = {
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
# Requirements whose module has another name, and modules that come with a requirement.
MODULES = {
    "pyyaml": {"yaml"},
    "markdown-it-py": {"markdown_it"},
    "pydantic": {"pydantic", "pydantic_core"},
    "jinja2": {"jinja2", "markupsafe"},
    "huggingface_hub": {"huggingface_hub", "httpx"},
    "datasets": {"datasets", "requests"},
    "deepeval": {"deepeval", "requests"},
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
    assert rules.count('"../envs/') == len(SCRIPT.findall(rules))


def imported(module: str, repo: Path, seen: set[str]) -> set[str]:
    """The modules of others that one of ours needs as it is imported, by its own imports and those of what it imports.

    Imports inside a function are left out: a job may never come there.
    """
    names = [repo / folder / module.replace(".", "/") for folder in ("scripts", "scripts/steps", "")]
    file = next((path.with_suffix(".py") for path in names if path.with_suffix(".py").is_file()), None)
    if file is None:
        top = module.partition(".")[0]
        ours = any((repo / folder / top).is_dir() for folder in ("scripts", ""))
        return set() if ours or top in sys.stdlib_module_names else {top}
    if module in seen:
        return set()
    seen.add(module)
    found = set()
    body = ast.parse(file.read_text(encoding="utf-8")).body
    # What a job does stands below `if __name__ == "__main__"`, here and there with an import.
    jobs = [node.body for node in body if isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)]
    for node in itertools.chain(body, *jobs):
        if isinstance(node, ast.Import):
            found.update(*(imported(alias.name, repo, seen) for alias in node.names))
        elif isinstance(node, ast.ImportFrom):
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            found.update(*(imported(name, repo, seen) for name in [node.module, *inner]))
    return found


def test_every_environment_has_what_its_steps_import(repo):
    rules = "".join(path.read_text(encoding="utf-8") for path in (repo / "rules").glob("*.smk"))
    steps = re.findall(
        r'"\.\./envs/(\w+)\.yaml"\n(?:(?!\n *rule[ :]).)*?"\.\./scripts/steps/(\w+)\.py"', rules, re.DOTALL
    )
    assert len(steps) == len(SCRIPT.findall(rules))
    for env, step in steps:
        pins = {name: MODULES.get(name, {name}) for name in pip_pins(repo / f"envs/{env}.yaml")}
        # Pandas and torch bring numpy along, at the version of requirements.txt or near it.
        assert imported(step, repo, set()) - {"numpy"} <= set().union(*pins.values()), f"{step} in {env}.yaml"


def test_no_module_has_the_name_of_one_in_the_standard_library(repo):
    # Python may take its own instead: which one it finds first differs between machines.
    assert not {path.stem for path in (repo / "scripts").glob("*.py")} & sys.stdlib_module_names
