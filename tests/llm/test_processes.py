"""Questions shared by several GPUs: the same answers as on one, and none lost when a process dies.

Each process computes on the CPU here; what it would see of the GPUs is in its environment all the same.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from common.files import UserError, read_json
from llm import answering
from llm.groups import deal
from llm.partial import Partial, share_paths
from llm.processes import run_on_nodes
from tests.llm.test_answering import LETTERS, SAMPLED, make_job, make_study, run

pytestmark = [pytest.mark.usefixtures("two_threads"), pytest.mark.long]

GPUS = ["GPU-a", "GPU-b"]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("shards"), "llama3")


@pytest.mark.parametrize(
    ("questions", "gpus", "batch_size", "shares", "size"),
    [
        (["abcdefghij"], 2, 4, ["abcdij", "efgh"], 4),
        (["abcdefghij"], 2, 32, ["abcde", "fghij"], 5),
        (["abcdefghij"], 3, "auto", ["adgj", "beh", "cfi"], "auto"),
        (["abc"], 2, 1, ["ac", "b"], 1),
        (["a"], 4, 8, ["a"], 1),
        (["abcdef", "", "ghij"], 2, 4, ["abcdghij", "ef"], 4),
    ],
)
def test_questions_are_dealt_by_batches(questions, gpus, batch_size, shares, size):
    found, used = deal(questions, gpus, batch_size)
    assert (["".join(share) for share in found], used) == (shares, size)


@pytest.mark.parametrize(
    ("options", "settings"), [((), {"adapter": True, **SAMPLED}), (LETTERS, {})], ids=["text", "letters"]
)
def test_several_gpus_answer_as_one(study, tmp_path, options, settings):
    one = run(study, tmp_path / "one", options, **settings)
    two = run(study, tmp_path / "two", options, gpus=GPUS, **settings)
    assert one == two
    ours, theirs = (read_json(tmp_path / name / "report.json") for name in ("two", "one"))
    assert ours.keys() == theirs.keys()
    assert [gpu["questions"] for gpu in ours["gpus"]] == [6, 4]
    assert [gpu["questions"] for gpu in theirs["gpus"]] == [10]
    for key in ("answers_sha256", "settings", "decoder", "finished", "questions", "template"):
        assert ours.get(key) == theirs.get(key)
    assert ours["batch_size_used"] == 4
    assert ours["seconds"] == max(gpu["seconds"] for gpu in ours["gpus"])
    assert ours["peak_memory_mib"] == max(gpu["peak_memory_mib"] for gpu in ours["gpus"])
    assert {path.name for path in (tmp_path / "two").iterdir()} == {"answers.jsonl", "report.json"}


# What the process on a GPU runs in place of `python -m llm.answering`: the same, but for this.
CHILD = """
import os, signal, sys, time
sys.path.insert(0, {scripts!r})
from llm import answering
add = answering.Partial.add
def changed(self, rows, batch_size):
    add(self, rows, batch_size)
    gpu = os.environ["CUDA_VISIBLE_DEVICES"]
{body}
answering.Partial.add = changed
sys.exit(answering.serve(answering.answer_share))
"""
# The process on the second GPU dies after its first batch, once the first has had one too; the first goes on for ever.
DIES = """
    if gpu == "GPU-a":
        while True:
            time.sleep(0.1)
    while not any(b'"rows"' in p.read_bytes() for p in self.path.parent.glob("*.gpu0.jsonl")):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def child(tmp_path, monkeypatch):
    """A function that puts another script in the place of a process."""

    def replace(body: str) -> Path:
        script = tmp_path / "child.py"
        scripts = str(Path(answering.__file__).parents[1])
        script.write_text(CHILD.format(scripts=scripts, body=textwrap.indent(textwrap.dedent(body), "    ")))
        monkeypatch.setattr(answering, "PROGRAM", (sys.executable, str(script)))
        return script

    return replace


def test_a_killed_process_ends_the_job_and_all_answers_are_kept(study, tmp_path, child, monkeypatch):
    out = tmp_path / "out"
    child(DIES)
    with pytest.raises(UserError, match=r"GPU-b: .* was killed \(SIGKILL\).* run the same command again"):
        run(study, out, batch_size=2, gpus=GPUS)
    assert not (out / "answers.jsonl").exists()
    assert len(share_paths(out / "answers.jsonl")) == 2
    monkeypatch.undo()
    # On another number of GPUs than before: one.
    rows = run(study, out, batch_size=2)
    assert read_json(out / "report.json")["answered_before_resuming"] == 4
    assert [gpu["questions"] for gpu in read_json(out / "report.json")["gpus"]] == [6]
    assert rows == run(study, tmp_path / "whole", batch_size=2)
    assert not share_paths(out / "answers.jsonl")


def test_a_job_of_one_gpu_goes_on_with_two(study, tmp_path, monkeypatch):
    calls, add = [], Partial.add

    def interrupted(self, rows, batch_size):
        add(self, rows, batch_size)
        calls.append(rows)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Partial, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(study, tmp_path / "out", batch_size=2)
    monkeypatch.undo()
    rows = run(study, tmp_path / "out", batch_size=2, gpus=GPUS)
    assert read_json(tmp_path / "out/report.json")["answered_before_resuming"] == 4
    assert rows == run(study, tmp_path / "whole", batch_size=2)


def test_what_a_process_complains_of_is_shown(study, tmp_path, capfd):
    shutil.copytree(study / "model", tmp_path / "model")
    (tmp_path / "model/model.safetensors").unlink()
    record = read_json(study / "model.json") | {"path": str(tmp_path / "model")}
    shutil.copytree(study / "prompts", tmp_path / "prompts")
    (tmp_path / "model.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(UserError, match="the process on this GPU ended with exit code 1; what it said stands above"):
        run(tmp_path, tmp_path / "out", gpus=GPUS)
    assert "ERROR: " in (said := capfd.readouterr().err)
    assert "cannot load the model" in said


def test_processes_end_with_a_job_that_is_killed(study, tmp_path, child):
    script = child("""
        (self.path.parent / f"{os.getpid()}.pid").touch()
        time.sleep(600)
    """)
    out = tmp_path / "out"
    arguments = [asdict(make_job(study)), str(out / "answers.jsonl"), str(out / "report.json"), GPUS]
    code = (
        "import json, sys\nfrom llm import answering\n"
        "answering.PROGRAM = (sys.executable, sys.argv[2])\n"
        "job, *rest = json.loads(sys.argv[1])\njob['decoding'] = answering.Decoding(**job['decoding'])\n"
        "answering.predict(answering.Job(**job), *rest)"
    )
    scripts = Path(answering.__file__).parents[1]
    job = subprocess.Popen([sys.executable, "-c", code, json.dumps(arguments), str(script)], cwd=scripts)
    try:
        while len(found := list((tmp_path / "out").glob("*.pid"))) < 2:
            assert job.poll() is None
            time.sleep(0.05)
    finally:
        job.send_signal(signal.SIGKILL)
        job.wait()
    deadline = time.monotonic() + 600
    while any(running(int(path.stem)) for path in found):
        assert time.monotonic() < deadline, "a process outlives its job"
        time.sleep(0.05)


def running(pid: int) -> bool:
    """Tell whether the process computes; one that has ended may still be listed until it is waited for."""
    try:
        os.kill(pid, 0)
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False


@pytest.mark.parametrize(("launcher", "tasks"), [("no-such-launcher", 8), ("sh", None)])
def test_several_nodes_need_a_launcher_and_tasks(launcher, tasks):
    with pytest.raises(UserError, match=f"found {launcher} with {tasks or 'no'} tasks, .* train:tasks=8"):
        run_on_nodes(launcher, ["true"], {}, tasks, 2)


SRUN = """
import os, subprocess, sys
line = sys.stdin.readline()
for rank in "01":
    task = subprocess.Popen(sys.argv[5:], stdin=subprocess.PIPE, text=True, env=os.environ | {"SLURM_PROCID": rank})
    task.stdin.write(line)
    task.stdin.flush()
    if code := task.wait():
        sys.exit(code)
"""


def test_processes_on_nodes_have_the_job_and_find_each_other(tmp_path):
    """By a stand-in for srun, which starts each task with what SLURM says of it and gives it what it reads itself."""
    launcher, program = tmp_path / "srun", tmp_path / "program.py"
    launcher.write_text(f"#!{sys.executable}\n{SRUN}")
    launcher.chmod(0o755)
    program.write_text(
        "import json, os, sys\nfrom llm.processes import serve\n"
        "names = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_PORT')\n"
        "def work(folder, fail):\n"
        "    found = {name: os.environ[name] for name in names}\n"
        "    open(f'{folder}/{found[\"RANK\"]}.json', 'w').write(json.dumps(found))\n"
        "    os._exit(3 if fail else 0)\n"
        "serve(work)\n"
    )
    command = [sys.executable, str(program)]
    run_on_nodes(str(launcher), command, {"folder": str(tmp_path), "fail": False}, 2, 2)
    found = [read_json(tmp_path / f"{rank}.json") for rank in (0, 1)]
    assert [one["RANK"] for one in found] == ["0", "1"]
    assert {(one["WORLD_SIZE"], one["LOCAL_RANK"]) for one in found} == {("2", "0")}
    assert len({one["MASTER_PORT"] for one in found}) == 1
    with pytest.raises(UserError, match="one of the 2 nodes ended with exit code 3"):
        run_on_nodes(str(launcher), command, {"folder": str(tmp_path), "fail": True}, 2, 2)
