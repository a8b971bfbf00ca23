"""Our letters against those of lm-evaluation-harness: same model, prompts and questions, in fp32.

`make faults` installs the harness (requirements-harness.txt); nothing else needs it, so the tests are marked `long`.
"""

import json
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model

from _folders import folders
from _rules import settings as rule_settings
from common.files import read_json, read_jsonl, write_jsonl
from fetch_model import fetch_model
from llm.adapters import load_adapter
from llm.answering import Job, predict
from llm.chat import load_chat
from llm.decoding import Decoding
from llm.harness import harness
from llm.load import load_model
from prepare import prepare
from present.values import read_table
from render import render
from tasks import mmlu
from tasks.registry import KINDS

pytestmark = pytest.mark.long
LETTERS = "ABCD"
# What stands between prompt and letter: both are tokens of the demo's vocabulary, and ours adds up their probabilities.
SPACES = ("", " ")


@pytest.fixture(scope="module")
def study(tmp_path_factory, repo) -> Path:
    """The demo's model, its 150 questions as its prompts have them, and an adapter that was not trained."""
    folder, demo = tmp_path_factory.mktemp("harness"), repo / "resources" / "demo"
    config = yaml.safe_load((repo / "config.yaml").read_text(encoding="utf-8"))
    settings = rule_settings(config)
    fetch_model("demo", str(demo / "model"), None, str(folder / "model.json"))
    raw, questions, prompts = folder / "raw", folder / "questions.jsonl", folder / "prompts.jsonl"
    KINDS["mmlu"].fetch(settings["fetch_mmlu"] | {"source": str(demo / "mmlu")}, raw)
    prepare(raw, "test", settings["prepare_mmlu"]["test"], questions)
    inputs = {"rows": questions, "manifest": raw / "manifest.json", "record": folder / "model.json"}
    render(inputs, repo / "resources/prompts" / mmlu.PROMPT, settings["render_mmlu"]["test"], prompts)
    torch.manual_seed(0)
    lora = LoraConfig(r=8, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    adapted = get_peft_model(load_model(read_json(folder / "model.json"), "fp32"), lora)
    adapted.save_pretrained(folder / "adapter")
    answers = {row["id"]: row["answer"] for row in read_jsonl(questions)}
    rows = [
        {"id": row["id"], "prompt": row["prompt"], "gold": LETTERS.index(answers[row["id"]])}
        for row in read_jsonl(prompts)
    ]
    assert len(rows) == 150
    write_jsonl(folder / "documents.jsonl", rows)
    for number, space in enumerate(SPACES):
        task = {
            "task": f"letters_{number}",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(folder / "documents.jsonl")}},
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": "prompt",
            "doc_to_choice": list(LETTERS),
            "doc_to_target": "gold",
            "target_delimiter": space,
        }
        (folder / f"{task['task']}.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
    return folder


@pytest.mark.parametrize("strength", [None, 0.1], ids=["base", "adapter"])
def test_letters_are_those_of_lm_evaluation_harness(study, tmp_path, monkeypatch, strength):
    """The same letter to each question, and the same log probabilities."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    import lm_eval  # missing? make faults installs it
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    record = read_json(study / "model.json")
    adapter = None if strength is None else study / "adapter"
    more = {} if strength is None else {"strength": strength}
    decoding = Decoding(precision="fp32", batch_size=32, max_new_tokens=8, **more)
    job = Job(str(study / "prompts.jsonl"), str(study / "model.json"), adapter and str(adapter), decoding)
    predict(job, tmp_path / "answers.jsonl", tmp_path / "report.json")
    ours = {row["id"]: row for row in read_jsonl(tmp_path / "answers.jsonl")}
    model = load_model(record, "fp32")
    if adapter is not None:
        model = load_adapter(model, adapter, **more)
    # The prompts hold their BOS already.
    lm = HFLM(pretrained=model, tokenizer=load_chat(record).tokenizer, batch_size=8, add_bos_token=False)
    found = lm_eval.simple_evaluate(
        model=lm,
        tasks=["letters_0", "letters_1"],
        task_manager=TaskManager(include_path=str(study), include_defaults=False),
        log_samples=True,
        bootstrap_iters=0,
    )
    theirs: dict[str, dict[str, list[float]]] = {}
    for number, _ in enumerate(SPACES):
        samples = found["samples"][f"letters_{number}"]
        assert len(samples) == 150
        for sample in samples:
            values = theirs.setdefault(sample["doc"]["id"], {letter: [] for letter in LETTERS})
            for letter, response in zip(LETTERS, sample["filtered_resps"], strict=True):
                values[letter].append(float(response[0]))
    assert theirs.keys() == ours.keys()
    right = 0
    for name, values in theirs.items():
        plain = {letter: both[0] for letter, both in values.items()}
        added = {letter: math.log(sum(map(math.exp, both))) for letter, both in values.items()}
        assert ours[name]["logprobs"] == pytest.approx(added, abs=1e-4)
        assert ours[name]["prediction"] == max(added, key=added.get)
        # The model writes its letter without a space: the harness alone, as its tasks are written, chooses the same.
        assert ours[name]["prediction"] == max(plain, key=plain.get)
        right += ours[name]["prediction"] == LETTERS[next(s for s in samples if s["doc"]["id"] == name)["doc"]["gold"]]
    assert found["results"]["letters_0"]["acc,none"] == pytest.approx(right / 150)
    assert 0 < right < 150
    assert len({row["prediction"] for row in ours.values()}) == 4


KILLED = """
import json, os, signal, sys, time
from lm_eval.models.huggingface import HFLM
from llm.harness import harness

calls, call = 0, HFLM._model_call

def counted(self, *given, **more):
    global calls
    calls += 1
    if calls == 4:
        time.sleep(1)  # the cache is written by a thread
        os.kill(os.getpid(), signal.SIGKILL)
    return call(self, *given, **more)

HFLM._model_call = counted
record, output, settings = sys.argv[1:]
harness(record, None, output, json.loads(settings))
"""


def test_a_killed_job_does_not_ask_again(study, tmp_path, monkeypatch, repo):
    """40 questions in batches of 5, the fourth of which is killed; the second attempt asks the other 25."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    from lm_eval.models.huggingface import HFLM

    settings = {"precision": "fp32", "batch_size": 5, "num_fewshot": None, "limit": 40}
    settings |= {"tasks": ["letters_0"], "include_path": str(study)}
    record = study / "model.json"
    asked, call = [], HFLM._model_call

    def counted(self, ids, *rest, **more):
        asked.append(len(ids))
        return call(self, ids, *rest, **more)

    monkeypatch.setattr(HFLM, "_model_call", counted)
    whole, output = tmp_path / "whole.json", tmp_path / "harness.json"
    harness(record, None, whole, settings)
    assert sum(asked) == 40

    def killed():
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(repo / "scripts"), str(repo)])}
        arguments = [sys.executable, "-c", KILLED, record, output, json.dumps(settings)]
        assert subprocess.run(arguments, env=environment).returncode == -signal.SIGKILL
        assert list(tmp_path.glob("harness.json.partial.*_rank0.db"))
        asked.clear()

    killed()
    harness(record, None, output, settings)
    assert sum(asked) == 25
    one, two = (read_json(path) for path in (whole, output))
    assert one["results"] == two["results"]
    assert one["samples"] == two["samples"]
    assert not list(tmp_path.glob("*.partial.*"))
    # What another model answered is of no use.
    killed()
    harness(record, study / "adapter", output, settings | {"strength": 0.1})
    assert sum(asked) == 40
    assert not list(tmp_path.glob("*.partial.*"))


def test_tasks_of_the_harness_are_a_yardstick_of_every_run(copy_repo, snakemake, tiny_study, tmp_path):
    """A task over local questions in a whole run, and that turning it on makes nothing stale."""
    folder = copy_repo("harness")
    questions = [{"q": f"Is {n} even?", "gold": n % 2} for n in range(40)]
    write_jsonl(folder / "questions.jsonl", questions)
    task = {
        "task": "even",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "questions.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "q",
        "doc_to_choice": ["yes", "no"],
        "doc_to_target": "gold",
        "metric_list": [{"metric": "acc"}],
    }
    (folder / "tasks").mkdir()
    (folder / "tasks/even.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
    study = tiny_study | {"study": "yardstick"}
    (folder / "off.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    run = snakemake(folder, "--configfile", "off.yaml")
    assert run.returncode == 0, run.stdout[-8000:]
    study["evaluation"] = {"interpolate": [0.5], "harness": {"tasks": ["even"], "limit": 30, "include_path": "tasks"}}
    (folder / "on.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    run = snakemake(folder, "--configfile", "on.yaml")
    assert run.returncode == 0, run.stdout[-8000:]
    results = folder / "results/yardstick"
    rows = {row["variant"]: row for row in read_table(results / "tables/harness.csv").to_dict("records")}
    adapter = next(name for name in rows if name != "base" and "@" not in name)
    assert list(rows) == ["base", adapter, f"{adapter}@0.5"]
    for row in rows.values():
        found = read_json(folders(results)[row["variant"]] / "harness.json")
        assert (row["n"], row["lm_eval"]) == (30, found["lm_eval"])
        assert row["score"] == pytest.approx(sum(sample["acc"] for sample in found["samples"]) / 30)
    assert rows[adapter]["difference"] == pytest.approx(rows[adapter]["score"] - rows["base"]["score"])
    assert "even, acc" in (results / "tables/harness.md").read_text(encoding="utf-8")
    assert "Tasks of lm-evaluation-harness" in (results / "tables.html").read_text(encoding="utf-8")
    assert "### Other tasks" in (results / "report.md").read_text(encoding="utf-8")
    # No training, and no answer of base and adapter.
    (jobs,) = re.findall(r"^\d+ jobs: (.*)", run.stdout, re.MULTILINE)
    counts = {rule: int(n) for n, rule in (job.split() for job in jobs.split(", "))}
    assert not {"train", "audit_labels"} & set(counts)
    assert counts["predict_mmlu"] == 1
    study["evaluation"]["harness"]["tasks"] = ["odd"]
    (folder / "on.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    run = snakemake(folder, "--configfile", "on.yaml")
    assert run.returncode != 0
    assert "evaluation.harness.tasks: lm-evaluation-harness cannot make odd" in run.stdout
