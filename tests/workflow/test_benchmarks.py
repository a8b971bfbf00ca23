"""The benchmarks that need a GPU run, at tiny shapes, on a CPU."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from common.files import read_json

pytestmark = pytest.mark.long
PARTS = ("train_spider.json", "train_others.json", "dev.json", "tables.json")


@pytest.fixture
def spider(shared_data, tmp_path) -> Path:
    """A folder of Spider's JSON files."""
    with zipfile.ZipFile(shared_data / "spider/spider_data.zip") as archive:
        for member in archive.namelist():
            name = Path(member).name
            if name in PARTS and "__MACOSX" not in member and Path(member).parent.name != "test_data":
                (tmp_path / name).write_bytes(archive.read(member))
    return tmp_path


def test_a_study_is_measured_from_real_prompts(shared_data, spider, repo):
    out = spider / "out.json"
    command = [sys.executable, "benchmarks/shapes.py", "--spider", spider, "--out", out, "--shapes", "tiny"]
    command += ["--mmlu", shared_data / "mmlu/mmlu_data.tar.gz", "--study", "freitas"]
    run = subprocess.run(command, cwd=repo, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-4000:]
    (study,) = read_json(out)["studies"]
    assert (study["study"], study["train"]["steps"]) == ("freitas", 20)
    assert (study["spider"]["answers"], study["mmlu"]["answers"]) == (32, 32)
    # A CPU's passes are not sized by its memory.
    assert study["passes"] == []


def test_what_is_measured_on_a_gpu_is_made_from_real_prompts(shared_data, spider, repo):
    program = (
        "import gpu, json, sys; from pathlib import Path; folder = Path(sys.argv[1]);"
        "data = json.loads(gpu.make_data(folder / 'made', folder, sys.argv[2]).read_text());"
        "print(json.dumps({k: len(v) if isinstance(v, list) else v for k, v in data.items()}))"
    )
    (spider / "made").mkdir()
    command = [sys.executable, "-c", program, spider, shared_data / "mmlu/mmlu_data.tar.gz"]
    run = subprocess.run(command, cwd=repo / "benchmarks", capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-4000:]
    made = json.loads(run.stdout.splitlines()[-1])
    assert (made["spider"], made["mmlu"], made["train"], made["study_train"]) == (1034, 150, 512, 512)
    assert 400 < made["train_mean_tokens"] < 500
    assert 900 < made["study_train_mean_tokens"] < 1000
