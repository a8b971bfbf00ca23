"""What a job does with SIGTERM, a full disk and the like, and with another attempt that still runs."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.files import UserError, read_json
from llm import training as train_module
from llm.partial import Partial
from tests.llm.test_answering import make_study
from tests.llm.test_answering import run as predict
from tests.llm.test_training import TRAINING, adapter, arguments, make_evaluated, train

pytestmark = pytest.mark.usefixtures("two_threads")

EVALUATED_EPOCHS = TRAINING | {"max_steps": 8, "eval_strategy": "epoch", "train_sampling_strategy": "group_by_length"}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return make_evaluated(tmp_path_factory.mktemp("evaluated"))


def train_and_terminate(study, variant, training, step, monkeypatch):
    """Train until the process gets SIGTERM within `step`; return what the error says."""

    class Terminated(train_module.Checkpoints):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == step - 1:
                os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch, pytest.raises(UserError) as error:
        patch.setattr(train_module, "Checkpoints", Terminated)
        train(**arguments(study, variant, training=training))
    return str(error.value)


# Steps 3 and 6 end an epoch; checkpoints are due at steps 2, 4, 6, or with evaluation after each epoch. Losses are
# logged with them and at steps 3 and 6, so not in step 5.
@pytest.mark.parametrize(("training", "step"), [(TRAINING, 5), (EVALUATED_EPOCHS, 3), (EVALUATED_EPOCHS, 5)])
def test_sigterm_saves_and_the_next_attempt_ends_with_the_same_bits(study, training, step, monkeypatch, capfd):
    whole, variant = f"whole-{len(training)}", f"stopped-{len(training)}-{step}"
    if not (study / whole).exists():
        train(**arguments(study, whole, training=training))
    said = train_and_terminate(study, variant, training, step, monkeypatch)
    assert f"stopped by SIGTERM (preemption or time limit) after step {step} of {training['max_steps']}" in said
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    train(**arguments(study, variant, training=training))
    assert f"checkpoint-{step}: resuming." in capfd.readouterr().out
    assert adapter(study, variant) == adapter(study, whole)
    ours, theirs = read_json(study / variant / "train.json"), read_json(study / whole / "train.json")
    assert (ours["history"], ours["eval_history"]) == (theirs["history"], theirs["eval_history"])
    assert ours["resumed_from_step"] == step


def test_sigterm_in_the_last_step_ends_the_training(study, monkeypatch):
    class Terminated(train_module.Checkpoints):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 6:
                os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(train_module, "Checkpoints", Terminated)
    train(**arguments(study, "last"))
    assert read_json(study / "last/train.json")["steps"] == 7


def test_sigterm_keeps_the_answers_so_far(tmp_path, monkeypatch):
    study = make_study(tmp_path / "study", "llama3")
    add, added = Partial.add, []

    def terminated(self, rows, batch_size):
        add(self, rows, batch_size)
        added.append(len(rows))
        if len(added) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch, pytest.raises(UserError, match=r"stopped by SIGTERM .* after 8 of 10"):
        patch.setattr(Partial, "add", terminated)
        predict(study, tmp_path / "stopped")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    answers = predict(study, tmp_path / "stopped")
    assert read_json(tmp_path / "stopped/report.json")["answered_before_resuming"] == 8
    assert answers == predict(study, tmp_path / "whole")


def in_job(tmp_path, code, **options):
    """Run Python code within `job`, in a process of its own, and return it; its log is tmp_path/log."""
    code = f"from common.job import job\nwith job({str(tmp_path / 'log')!r}, {str(tmp_path / 'lock')!r}):\n    {code}"
    scripts = Path(sys.modules["common.job"].__file__).parents[1]
    return subprocess.Popen([sys.executable, "-c", code], cwd=scripts, **options)


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (f"OSError({errno.ENOSPC}, 'No space left on device', 'a/b')", "ERROR: a/b: the disk is full"),
        (f"OSError({errno.EDQUOT}, 'Disk quota exceeded', 'a/b')", "ERROR: a/b: the disk is full, or a quota"),
        ("RuntimeError('[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0')", "the disk is full"),
        ("RuntimeError('PytorchStreamWriter failed writing file data/1: file write failed')", "the disk is full"),
        (f"OSError({errno.EROFS}, 'Read-only file system', 'a/b')", "a/b: cannot be written (Read-only file system)"),
        ("MemoryError()", "ERROR: out of main memory. Give the job more (mem_mb in the profile)"),
        ("RuntimeError('DefaultCPUAllocator: can\\'t allocate memory: you tried')", "ERROR: out of main memory"),
    ],
)
def test_what_a_user_can_mend_ends_with_a_sentence(tmp_path, raised, said):
    process = in_job(tmp_path, f"raise {raised}")
    assert process.wait() == 1
    log = (tmp_path / "log").read_text()
    assert said in log.splitlines()[-1]
    assert "Traceback" in log


def test_another_error_stays_what_it_is(tmp_path):
    process = in_job(tmp_path, "raise RuntimeError('a bug')")
    assert process.wait() == 1
    assert (tmp_path / "log").read_text().endswith("RuntimeError: a bug\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full: not Linux")
def test_the_sentence_reaches_the_terminal_if_the_log_cannot_take_it(tmp_path):
    (tmp_path / "log").symlink_to("/dev/full")
    process = in_job(tmp_path, "raise OSError(28, 'No space left on device', 'a/b')", stderr=subprocess.PIPE, text=True)
    assert "ERROR: a/b: the disk is full" in process.communicate()[1]
    assert process.returncode == 1


def test_a_second_attempt_waits_for_the_first(tmp_path):
    first = in_job(tmp_path, "import time; print('first', flush=True); time.sleep(600)")
    log = tmp_path / "log"
    while not log.exists() or "first" not in log.read_text():
        assert first.poll() is None
        time.sleep(0.05)
    log.rename(tmp_path / "log of the first")
    second = in_job(tmp_path, "print('got it', flush=True)")
    while not log.exists() or "waiting for its end" not in log.read_text():
        assert second.poll() is None
        time.sleep(0.05)
    assert "got it" not in log.read_text()
    first.kill()
    first.wait()
    assert second.wait() == 0
    assert "got it" in log.read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_a_job_ends_with_the_snakemake_that_started_it(tmp_path):
    code = f"from common.job import job\nimport os, time\nwith job({str(tmp_path / 'log')!r}):\n"
    code += "    print(os.getpid(), flush=True)\n    time.sleep(600)"
    scripts = Path(sys.modules["common.job"].__file__).parents[1]
    starter = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    parent = subprocess.Popen([sys.executable, "-c", starter, code], cwd=scripts)
    log = tmp_path / "log"
    while not log.exists() or not log.read_text().endswith("\n"):
        assert parent.poll() is None
        time.sleep(0.05)
    child = int(log.read_text())
    parent.kill()
    parent.wait()
    while Path(f"/proc/{child}").exists() and Path(f"/proc/{child}/stat").read_text().split()[2] != "Z":
        time.sleep(0.05)  # a test that hangs here has failed
