"""What stands around every step: its log, the sentence at its end, and no standard input."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.job import ended, retry_only_what_was_cut_off

SCRIPTS = Path(__file__).parents[2] / "scripts"


PROGRAM = """
import sys
from common.files import UserError
from common.job import job
with job(sys.argv[1]):
    {body}
"""


def run(tmp_path: Path, body: str) -> tuple[int, str]:
    """Run a step with this body, answering yes to everything; return its exit status and its log."""
    log = tmp_path / "log"
    command = [sys.executable, "-c", PROGRAM.format(body=body), log]
    env = os.environ | {"PYTHONPATH": str(SCRIPTS)}
    done = subprocess.run(command, input="y\n" * 100, text=True, check=False, env=env)
    return done.returncode, log.read_text()


def test_nobody_answers_a_library(tmp_path):
    assert run(tmp_path, "print(repr(sys.stdin.read()))") == (0, "''\n")
    status, _ = run(tmp_path, "input('Run the code of this model? [y/N]')")
    assert status != 0


def test_what_gives_access_is_in_no_log(tmp_path):
    said = "https://host/data.zip?X-Amz-Signature=0ff1ce: the server answered 404."
    status, log = run(tmp_path, f"raise UserError({said!r})")
    assert (status, log) == (1, "ERROR: https://host/data.zip?X-Amz-Signature=***: the server answered 404.\n")


def test_who_presses_ctrl_c_reads_a_sentence(tmp_path):
    # A shell lets what it starts in the background ignore the key, and so would this.
    heeded = "import os, signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    status, log = run(tmp_path, f"{heeded}; os.kill(os.getpid(), signal.SIGINT); sys.stdin.read()")
    said = "\nERROR: stopped by Ctrl-C (SIGINT). The same command goes on from what was kept.\n"
    assert (status, log) == (130, said)


@pytest.mark.parametrize(
    ("log", "end"),
    [
        (None, "stopped"),
        ("ERROR: training: stopped by SIGTERM (preemption or time limit) after step 3 of 9.", "stopped"),
        ("ERROR: stopped by Ctrl-C (SIGINT). The same command goes on from what was kept.", "stopped"),
        ("half a li", "killed"),
        ("Traceback (most recent call last)\nMemoryError\nERROR: out of main memory. Give the job more", "killed"),
        ("ERROR: GPU-b: the process on this GPU was killed (SIGKILL); what it said stands above.", "killed"),
        ("ERROR: GPU-b: the process on this GPU ended with exit code 1; what it said stands above.", "failed"),
        ("ERROR: data.jsonl, line 3: found nothing.", "failed"),
        ("Traceback (most recent call last):\nZeroDivisionError", "failed"),
    ],
)
def test_only_what_was_cut_off_is_tried_again(tmp_path, log, end):
    path = tmp_path / "log"
    if log is not None:
        path.write_text(log)
    assert ended(path) == end

    class Job:
        restart_times = property(lambda self: 3)
        log = (tmp_path / "another job of its group", path)

    retry_only_what_was_cut_off(Job)
    assert Job().restart_times == (0 if end == "failed" else 3)
