"""The benchmarks that need a GPU run, at tiny shapes, on a CPU; and the page has their figures."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from benchmarks import document
from common.files import read_json

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


@pytest.mark.long
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


@pytest.mark.long
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


# Stand-ins for packages that need a GPU: they take what these take and answer with the number of a prompt's tokens.
VLLM = """
from types import SimpleNamespace as Made
class LLM:
    def __init__(self, *, model, dtype, enable_prefix_caching, max_model_len, seed, enable_lora=False, max_lora_rank=0):
        self.length = max_model_len
    def reset_prefix_cache(self):
        self.emptied = True
    def generate(self, given, sampling, *, lora_request, use_tqdm):
        assert self.emptied and sampling.ignore_eos and sampling.temperature == 0
        count = sampling.max_tokens - SHORT
        return [Made(outputs=[Made(token_ids=[len(one["prompt_token_ids"])] * count)]) for one in given]
SamplingParams = lambda **keys: Made(**keys)
SHORT = 0
"""


@pytest.mark.long
def test_the_same_prompts_are_given_to_other_engines(repo, tmp_path, demo_run):
    (tmp_path / "vllm/lora").mkdir(parents=True)
    (tmp_path / "vllm/__init__.py").write_text(VLLM)
    (tmp_path / "vllm/inputs.py").write_text("TokensPrompt = dict\n")
    (tmp_path / "vllm/lora/__init__.py").write_text("")
    (tmp_path / "vllm/lora/request.py").write_text("LoRARequest = tuple\n")
    (tmp_path / "vllm-1.0.dist-info").mkdir()
    (tmp_path / "vllm-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 1.0\n")
    results, out = demo_run / "results/demo", tmp_path / "out.json"
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join((results / "prompts/demo/spider_test.jsonl").open().readlines()[:4]))

    def run(by: str) -> subprocess.CompletedProcess:
        command = [sys.executable, repo / "benchmarks/servers.py", prompts, results / "models/demo.json"]
        command += ["--by", by, "--new", "5", "--repeats", "2", "--out", out]
        paths = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ['PYTHONPATH']}"}
        return subprocess.run(command, cwd=demo_run, env=os.environ | paths, capture_output=True, text=True)

    for by in ("here", "vllm"):
        done = run(by)
        assert done.returncode == 0, done.stderr[-4000:]
    assert "0 of 4 answers are those of here" in done.stdout
    ours, theirs = read_json(out)
    assert (ours["prompts"], ours["new_tokens"], theirs["version"]) == (4, 5, "vllm 1.0")
    assert len({len(ids) for ids in ours["answers"]}) == 1
    (tmp_path / "vllm/__init__.py").write_text(VLLM.replace("SHORT = 0", "SHORT = 1"))
    assert "some of [4, 4, 4] tokens, expected 4 of 5 tokens" in run("vllm").stderr


def test_the_page_has_the_figures_of_the_results(repo):
    text = document.PAGE.read_text(encoding="utf-8")
    assert [name for _, name, _ in document.MARKED.findall(text)] == [*document.MADE]
    assert document.figures(text) == text, "run `python benchmarks/document.py`"
    assert document.figures(text.replace("22,105", "22,106")) == text
