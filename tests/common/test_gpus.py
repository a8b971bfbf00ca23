"""GPUs go to one process each, whatever starts or dies when."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from common import gpus
from common.access import check_gpu
from common.files import UserError

UUIDS = [f"GPU-{i}0000000-0000-0000-0000-00000000000{i}" for i in range(4)]
LIST = "".join(f"GPU {i}: NVIDIA H100 80GB HBM3 (UUID: {uuid})\n" for i, uuid in enumerate(UUIDS))
MIG = (
    LIST.splitlines(keepends=True)[0]
    + "  MIG 3g.40gb     Device  0: (UUID: MIG-aaaaaaaa-0000-0000-0000-000000000000)\n"
    + "  MIG 3g.40gb     Device  1: (UUID: MIG-bbbbbbbb-0000-0000-0000-000000000000)\n"
    + LIST.splitlines(keepends=True)[1]
)
# Takes GPUs, says which, and holds them until its standard input ends.
JOB = (
    "import sys; sys.path.insert(0, sys.argv[1])\n"
    "from pathlib import Path; from common import gpus\n"
    "gpus.ROOT = Path(sys.argv[2]); gpus.WAIT_S = 0.05\n"
    "gpus.take(int(sys.argv[3]))\n"
    "import os; print('TAKEN', os.environ['CUDA_VISIBLE_DEVICES'], flush=True); sys.stdin.read()\n"
)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A function that puts an `nvidia-smi` with this output on the path, alone but for Python."""

    def make(listing: str, code: int = 0) -> None:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        (tmp_path / "listing").write_text(listing, encoding="utf-8")
        tool = folder / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\n/bin/cat {tmp_path / 'listing'}\nexit {code}\n", encoding="utf-8")
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", str(folder))

    for name in (gpus.VARIABLE, "SLURM_JOB_ID"):
        monkeypatch.setenv(name, "")  # so that what a test sets is taken back
        monkeypatch.delenv(name)
    monkeypatch.setattr(gpus, "ROOT", tmp_path)
    monkeypatch.setattr(gpus, "_held", [])
    monkeypatch.delitem(sys.modules, "bitsandbytes", raising=False)
    return make


@pytest.fixture
def start(tmp_path):
    """A function that starts a process which takes GPUs; all are ended after the test."""
    processes = []

    def job(n: int, **environment: str) -> subprocess.Popen:
        scripts = str(Path(gpus.__file__).parents[1])
        process = subprocess.Popen(
            [sys.executable, "-c", JOB, scripts, str(tmp_path), str(n)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | environment,
            text=True,
        )
        processes.append(process)
        return process

    yield job
    for process in processes:
        process.kill()
        process.communicate()


def taken(process: subprocess.Popen) -> list[str]:
    """Wait until the process has its GPUs, and return them."""
    for line in process.stdout:
        if line.startswith("TAKEN"):
            return line.split()[1].split(",")
    raise AssertionError("the process ended without GPUs")


def test_no_two_processes_have_one_gpu(machine, start):
    machine(LIST)
    jobs = [start(1) for _ in range(4)]
    assert sorted(gpu for job in jobs for gpu in taken(job)) == UUIDS


def test_a_killed_process_gives_its_gpus_up(machine, start):
    machine(LIST)
    first, second = start(2), start(1)
    held = taken(first) + taken(second)
    assert len(set(held)) == 3
    third = start(2)
    assert "waiting for 2 of GPU-" in third.stdout.readline()
    first.send_signal(signal.SIGKILL)
    got = taken(third)
    assert len(set(got)) == 2
    assert held[2] not in got


def test_a_process_that_ends_gives_its_gpus_up(machine, start):
    machine(LIST)
    job = start(4)
    assert taken(job) == UUIDS
    assert gpus._try(UUIDS, 1, gpus._folder()) == {}
    job.communicate()
    assert list(gpus._try(UUIDS, 4, gpus._folder())) == UUIDS


def test_gpus_are_hidden_from_one_another(machine):
    machine(LIST)
    assert gpus.take(1) == UUIDS[:1]
    assert os.environ[gpus.VARIABLE] == UUIDS[0]
    assert gpus.visible() == UUIDS[:1]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("0,1", UUIDS[:2]),
        ("3", UUIDS[3:]),
        (UUIDS[2], UUIDS[2:3]),
        ("GPU-1000", UUIDS[1:2]),
        ("1,1", UUIDS[1:2]),
        ("", []),
        ("-1", []),
    ],
)
def test_gpus_come_from_the_set_that_the_user_gives(machine, monkeypatch, given, expected):
    machine(LIST)
    monkeypatch.setenv(gpus.VARIABLE, given)
    assert gpus.visible() == expected


def test_two_jobs_of_a_user_who_gives_two_gpus(machine, start):
    machine(LIST)
    jobs = [start(1, CUDA_VISIBLE_DEVICES="2,3") for _ in range(2)]
    assert sorted(gpu for job in jobs for gpu in taken(job)) == UUIDS[2:]


def test_an_unknown_gpu_is_refused(machine, monkeypatch):
    machine(LIST)
    monkeypatch.setenv(gpus.VARIABLE, "0,7")
    with pytest.raises(UserError, match="found '7', which is none of this machine's GPUs"):
        gpus.take(1)


def test_too_few_gpus(machine, monkeypatch):
    machine(LIST)
    with pytest.raises(UserError, match=r"found 5, but this job sees 4 GPUs\. Ask for at most 4: --set-resources"):
        gpus.take(5)
    monkeypatch.setenv(gpus.VARIABLE, "1")
    with pytest.raises(UserError, match="found 2, but this job sees 1 GPUs, of those that CUDA_VISIBLE_DEVICES=1"):
        gpus.take(2)


def test_instances_of_a_divided_gpu_are_gpus(machine, monkeypatch):
    machine(MIG)
    instances = [f"MIG-{c * 8}-0000-0000-0000-000000000000" for c in "ab"]
    assert gpus.visible() == [*instances, UUIDS[1]]
    monkeypatch.setenv(gpus.VARIABLE, "1")
    assert gpus.visible() == UUIDS[1:2]


@pytest.mark.parametrize("listing", [None, "No devices were found\n"])
def test_without_a_gpu_the_cpu_computes_and_nothing_is_locked(machine, monkeypatch, tmp_path, capsys, listing):
    if listing is None:
        monkeypatch.setenv("PATH", str(tmp_path))
    else:
        machine(listing, code=6)
    with pytest.raises(UserError, match="found 2, but this job sees 0 GPUs"):
        gpus.take(2)
    assert ("No devices were found" in capsys.readouterr().out) == (listing is not None)
    assert gpus.take(1) == []
    assert not list(tmp_path.glob("lora-tradeoff-gpus-*"))


def test_a_job_without_gpus_sees_none(machine):
    machine(LIST)
    assert gpus.take(0) == []
    assert os.environ[gpus.VARIABLE] == ""


def test_jobs_of_slurm_do_not_wait_for_one_another(machine, start):
    # Each has its own set; where two sets share a GPU, that is meant.
    machine(LIST)
    jobs = [start(1, CUDA_VISIBLE_DEVICES="0", SLURM_JOB_ID=str(i)) for i in range(2)]
    assert [taken(job) for job in jobs] == [UUIDS[:1]] * 2


def test_a_job_of_slurm_leaves_no_folder_of_locks(machine, start, tmp_path):
    machine(LIST)
    jobs = [start(1, SLURM_JOB_ID="7") for _ in range(2)]
    assert sorted(gpu for job in jobs for gpu in taken(job)) == UUIDS[:2]
    folder = tmp_path / f"lora-tradeoff-gpus-{os.getuid()}-slurm-7"
    for job, left in zip(jobs, (True, False), strict=True):
        job.communicate()  # its standard input ends
        assert job.returncode == 0
        assert folder.exists() == left


def test_a_job_of_slurm_keeps_the_gpus_that_it_asked_for_by_gres(machine, monkeypatch):
    machine(LIST)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert gpus.take(0) == []  # a job without GPUs: no variable
    assert os.environ[gpus.VARIABLE] == ""
    monkeypatch.setenv(gpus.VARIABLE, "1")
    assert gpus.take(0) == [UUIDS[1]]


def test_too_late(machine, monkeypatch):
    machine(LIST)
    monkeypatch.setitem(sys.modules, "bitsandbytes", os)
    with pytest.raises(RuntimeError, match="take GPUs before"):
        gpus.take(1)


@pytest.mark.parametrize(
    ("precision", "platform", "needs"),
    [
        ("nf4", "linux", "a CUDA GPU"),
        ("int8", "darwin", "a CUDA GPU"),
        ("fp16", "linux", "a GPU"),
        ("fp16", "darwin", None),
        ("bf16", "linux", None),
    ],
)
def test_a_precision_that_needs_a_gpu_is_refused_before_anything_is_fetched(precision, platform, needs, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setattr("common.access.AMD", Path("nothing"))
    for key in ("precision", "base_precision"):
        models = {"first": {"precision": "fp32"}, "second": {"precision": "bf16", key: precision}}
        if needs is None:
            check_gpu(models)
            continue
        with pytest.raises(UserError, match=rf"^models.second.{key}: {precision} needs {needs} and none is visible"):
            check_gpu(models)
