"""The conda environments and requirements.txt name the same versions."""

import ast
import itertools
import re
import subprocess
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
    "pytest-xdist",
    "hypothesis",
    "jsonschema",
    "playwright",
    "ruff",
    "import-linter",
    "snakefmt",
    "pillow",
    "duckdb",
    "psycopg",
    "psycopg-binary",
    "pytz",
    "snakemake-interface-logger-plugins",
}
# Requirements whose module has another name.
MODULES = {"pyyaml": "yaml", "markdown-it-py": "markdown_it", "liger-kernel": "liger_kernel", "pillow": "PIL"}
MODULES["snakemake-interface-logger-plugins"] = "snakemake_interface_logger_plugins"
# An evaluator that a benchmark is pointed at, which is in no package; what the metric's adapter is for, an extra of it;
# engines that a benchmark compares, each in an environment of its own.
ELSEWHERE = {"exec_eval", "inspect_ai", "vllm", "sglang"}


def required(repo: Path) -> dict[str, str]:
    names = ("requirements.txt", "requirements-harness.txt")
    lines = "\n".join((repo / name).read_text(encoding="utf-8") for name in names).splitlines()
    pins = [line for line in lines if line.strip() and not line.startswith(("#", "--constraint"))]
    pins = [line.partition(";")[0] for line in pins]
    assert all(line.count("==") == 1 for line in pins), "every requirement has one exact version"
    return dict(line.split("==") for line in pins)


def pip_pins(env: Path) -> dict[str, str]:
    dependencies = yaml.safe_load(env.read_text(encoding="utf-8"))["dependencies"]
    lines = [line.partition(";")[0] for entry in dependencies if isinstance(entry, dict) for line in entry["pip"]]
    return dict(line.split("==") for line in lines)


@pytest.mark.parametrize("env", ENVS, ids=lambda path: path.stem)
def test_an_environment_has_the_pins_of_requirements_txt(env, repo):
    pins, wanted = pip_pins(env), required(repo)
    assert pins
    assert pins == {name: wanted.get(name) for name in pins}


@pytest.mark.parametrize("env", ENVS, ids=lambda path: path.stem)
def test_conda_has_to_find_a_python_and_pip_alone(env, repo):
    """No more is looked up in a channel; all else comes from pip's index, by exact versions."""
    found = yaml.safe_load(env.read_text(encoding="utf-8"))
    assert set(found) == {"channels", "dependencies"}
    assert found["channels"] == ["conda-forge", "nodefaults"]
    python, pip, pins = found["dependencies"]
    assert (pip, set(pins)) == ("pip", {"pip"})
    minor = re.fullmatch(r"python=(3\.\d+)", python)[1]
    workflow = yaml.safe_load((repo / ".github/workflows/tests.yaml").read_text(encoding="utf-8"))
    assert minor in workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+(; .+)?", line) for line in pins["pip"])


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
        pins = {MODULES.get(name, name) for name in pip_pins(repo / f"envs/{env}.yaml")}
        # Pandas and torch bring numpy along, at the version of requirements.txt or near it.
        assert imported(step, repo, set()) - {"numpy"} <= pins, f"{step} in {env}.yaml"


def test_every_package_that_is_imported_is_required(repo):
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py", "*.smk", "Snakefile"]
    files = subprocess.run(listed, cwd=repo, capture_output=True, text=True, check=True).stdout.splitlines()
    ours = {Path(name).stem for name in files} | {part for name in files for part in Path(name).parts}
    found = set()
    for name in files:
        text = (repo / name).read_text(encoding="utf-8") if (repo / name).is_file() else ""
        if name.endswith(".py"):
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Import):
                    found |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    found.add(node.module.partition(".")[0])
        else:  # no Python to parse
            found |= set(re.findall(r"^(?:import|from) (\w+)", text, re.MULTILINE))
    assert found >= {"torch", "requests"}
    allowed = {MODULES.get(name, name) for name in required(repo)} | ours | ELSEWHERE | sys.stdlib_module_names
    assert found - allowed == set()


def test_the_lock_has_what_is_required(repo):
    """`envs/environment.py` says how it is made."""
    lines = (repo / "requirements.lock").read_text(encoding="utf-8").splitlines()
    locked = dict(line.split()[0].split("==") for line in lines if not line.startswith(" "))
    pins = re.findall(r"^([\w.-]+)==([^;\s]+)", (repo / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE)
    wanted = {name.replace("_", "-"): version for name, version in pins}
    assert {name: locked.get(name) for name in wanted} == wanted
    assert sum("--hash=sha256:" in line for line in lines) > len(locked)


def test_no_module_has_the_name_of_one_in_the_standard_library(repo):
    # Python may take its own instead: which one it finds first differs between machines.
    assert not {path.stem for path in (repo / "scripts").glob("*.py")} & sys.stdlib_module_names


def test_what_a_platform_lacks_is_not_asked_of_it(repo):
    """Triton, which Liger's kernels need, is made for Linux alone; the environments say so as requirements.txt does."""
    needed = (repo / "requirements.txt").read_text(encoding="utf-8").splitlines()
    kept = {line for line in needed if ";" in line and not line.startswith("#")}
    assert kept == {'liger-kernel==0.8.5; sys_platform == "linux"'}
    for env in ENVS:
        dependencies = yaml.safe_load(env.read_text(encoding="utf-8"))["dependencies"]
        lines = {line for entry in dependencies if isinstance(entry, dict) for line in entry["pip"]}
        assert {line for line in lines if line.startswith("liger-kernel")} <= kept
