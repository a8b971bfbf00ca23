"""The metric as a package: its wheel has all it needs, and needs nothing of the workflow."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from functools import partial
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What the wheel may import; anything else that is installed here is hidden.
HIDDEN = (
    "torch",
    "transformers",
    "snakemake",
    "deepeval",
    "pandas",
    "datasets",
    "pydantic",
    "duckdb",
    "psycopg",
    "pytz",
)
# What Python has on Linux and macOS alone.
UNIX = ("fcntl", "grp", "pwd", "resource", "termios")
PROGRAM = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HIDDEN}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
import custom_metrics
assert custom_metrics.__file__.startswith(sys.argv.pop(1)), custom_metrics.__file__
from custom_metrics.cli import main
sys.exit(main())
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Where the wheel is unpacked, built from a copy as pip builds it."""
    folder = tmp_path_factory.mktemp("package")
    shutil.copytree(ROOT / "custom_metrics", folder / "source", ignore=shutil.ignore_patterns("__pycache__", "build"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", folder, folder / "source"], check=True, capture_output=True, text=True)
    (wheel,) = folder.glob("text_to_sql_accuracy-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_has_every_module_and_says_that_it_is_typed(installed):
    modules = {path.name for path in (ROOT / "custom_metrics").glob("*.py")}
    assert {path.name for path in (installed / "custom_metrics").iterdir()} == modules | {"py.typed"}
    (metadata,) = installed.glob("*.dist-info/METADATA")
    text = metadata.read_text(encoding="utf-8")
    assert "Execution accuracy for text-to-SQL" in text
    needed = [line for line in text.splitlines() if line.startswith("Requires-Dist:") and "extra ==" not in line]
    assert needed and not any(name in line for line in needed for name in HIDDEN)


def test_it_scores_without_the_workflows_libraries(installed, tmp_path):
    data = ROOT / "resources/demo/spider_data"
    (tmp_path / "p.txt").write_text("\n" * 255 + "SELECT 1\n", encoding="utf-8")
    arguments = ["score", "p.txt", "--questions", data / "dev.json", "--databases", data / "database", "--jobs", "1"]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, installed, *arguments],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("p.txt: 256 questions on 8 databases")


def test_without_limits_of_processes_it_imports_and_compares_and_runs_no_query(tmp_path):
    """As on Windows: SQL of a model runs in a process with limits, or not at all."""
    data = ROOT / "resources/demo/spider_data"
    (tmp_path / "p.txt").write_text("SELECT 1\n" * 256, encoding="utf-8")
    (tmp_path / "records.csv").write_text("id,db_id,bag\na,x,1\nb,x,0\nc,y,1\n", encoding="utf-8")
    score = ["score", "p.txt", "--questions", data / "dev.json", "--databases", data / "database", "--jobs", "1"]
    program = (
        f"import sys; sys.modules |= dict.fromkeys({UNIX}); import custom_metrics.worker; "
        "from custom_metrics.cli import main; sys.exit(main())"
    )
    run = partial(subprocess.run, cwd=tmp_path, capture_output=True, text=True)
    done = run([sys.executable, "-c", program, *score])
    assert done.returncode == 2, done.stderr
    assert re.search(r"^error: No query is run on \w+: .* WSL 2", done.stderr, re.MULTILINE), done.stderr
    assert "Traceback" not in done.stderr
    done = run([sys.executable, "-c", program, "compare", "records.csv", "records.csv"])
    assert done.returncode == 0, done.stderr
