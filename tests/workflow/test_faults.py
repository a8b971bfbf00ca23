"""What can die, fill up or break under a run: the next run ends where an undisturbed one does, or says what to do."""

import os
import random
import re
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from _folders import folder as folder_of
from _folders import tiny

pytestmark = pytest.mark.faults

STUDY = ("--configfile", "tiny.yaml")
FOLDER = folder_of(tiny(), "lr0.001")
RUN = Path("results/tiny/runs/demo") / FOLDER
WEIGHTS, CONFIG = RUN / "adapter/adapter_model.safetensors", RUN / "adapter/adapter_config.json"
ANSWERS, RECORDS = RUN / "spider_answers.jsonl", RUN / "spider.csv"
TRAIN_LOG = Path(f"results/tiny/logs/train/demo/{FOLDER}.log")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")


@pytest.fixture
def finished(tiny_run, tmp_path) -> Path:
    """A copy of the finished tiny run; Snakemake's own records are part of it."""
    return shutil.copytree(tiny_run, tmp_path / "repo", symlinks=True)


@pytest.fixture
def same(tiny_run) -> Callable[..., None]:
    """A function that asserts that files of a run are those of the undisturbed one."""

    def check(folder: Path, *names: Path) -> None:
        for name in names:
            assert (folder / name).read_bytes() == (tiny_run / name).read_bytes(), name

    return check


@pytest.fixture
def small_disk() -> Iterator[Callable[[Path, str], Path]]:
    """A function that makes a folder a file system of its own, of a size such as 64k; unmounted at the end."""
    mounted = []

    def mount(folder: Path, size: str) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == 32 and "permi" in done.stderr:  # root in a container
            pytest.skip(f"may not mount: {done.stderr.strip()}")
        assert done.returncode == 0, done.stderr
        mounted.append(folder)
        return folder

    yield mount
    for folder in reversed(mounted):
        subprocess.run(["umount", "--lazy", folder], check=True)


def wait_until(reached: Callable[[], object], process: subprocess.Popen, timeout_s: float = 900) -> None:
    # Of a test that hangs, however busy the machine is.
    deadline = time.monotonic() + timeout_s
    while not reached():
        assert process.poll() is None, "snakemake ended before the fault"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def script_of(folder: Path, step: str) -> int | None:
    """Return the process that runs this step in this folder, None if there is none."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        script = words[1].decode(errors="replace") if len(words) > 1 else ""
        if script.startswith(f"{folder}/.snakemake/scripts/") and script.endswith(f".{step}.py"):
            return int(entry.name)
    return None


def forget(folder: Path, *names: Path) -> None:
    for name in names:
        (folder / name).unlink()


@pytest.mark.ci
def test_the_driver_alone_is_killed_while_another_waits(finished, same, start_snakemake, snakemake):
    written = (finished / "results/tiny/tables").iterdir()
    tables = [path.relative_to(finished) for path in written if path.stem != "cost"]  # which holds times
    assert len(tables) >= 8
    forget(finished, WEIGHTS, ANSWERS, RECORDS, *tables)
    with (finished / "first.log").open("w") as log:
        first = start_snakemake(finished, *STUDY, stdout=log)
    wait_until(lambda: list((finished / RUN).glob("checkpoints/checkpoint-*/trainer_state.json")), first)
    # The training must not end while the second one starts.
    job = script_of(finished, "train")
    os.kill(job, signal.SIGSTOP)
    second = snakemake(finished, *STUDY)
    assert second.returncode != 0
    assert "Directory cannot be locked" in second.stdout
    assert "--unlock" in second.stdout
    first.kill()
    first.wait()
    os.kill(job, signal.SIGCONT)
    # The job does not go on by itself, and it keeps what it has done.
    deadline = time.monotonic() + 300
    while script_of(finished, "train") == job:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert "stopped by SIGTERM" in (finished / TRAIN_LOG).read_text()
    assert snakemake(finished, *STUDY, "--unlock").returncode == 0
    run = snakemake(finished, *STUDY)
    assert run.returncode == 0, run.stdout[-4000:]
    assert "resuming." in (finished / TRAIN_LOG).read_text()
    same(finished, WEIGHTS, CONFIG, ANSWERS, RECORDS, Path("results/tiny/figures/tradeoff.svg"), *tables)


@pytest.mark.ci
def test_a_training_job_is_killed_and_its_last_checkpoint_cut(finished, same, start_snakemake, snakemake):
    forget(finished, WEIGHTS)
    with (finished / "first.log").open("w") as log:
        first = start_snakemake(finished, *STUDY, "--", str(WEIGHTS), stdout=log)
    wait_until(lambda: (finished / RUN / "checkpoints/checkpoint-4/trainer_state.json").exists(), first)
    os.kill(script_of(finished, "train"), signal.SIGKILL)
    assert first.wait() == 1
    last = max((finished / RUN / "checkpoints").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    optimizer = last / "optimizer.pt"
    os.truncate(optimizer, optimizer.stat().st_size // 2 if optimizer.exists() else 0)
    run = snakemake(finished, *STUDY, "--", str(WEIGHTS))
    assert run.returncode == 0, run.stdout[-4000:]
    said = (finished / TRAIN_LOG).read_text()
    why = "incomplete, or of another number of processes; deleted, the one before is used."
    assert f"{RUN}/checkpoints/{last.name}: {why}" in said
    assert "resuming." in said
    same(finished, WEIGHTS, CONFIG)


@pytest.mark.ci
def test_a_prediction_worker_is_killed(finished, same, start_snakemake, snakemake):
    forget(finished, ANSWERS)
    partial = finished / f"{ANSWERS}.partial.jsonl"
    with (finished / "first.log").open("w") as log:
        first = start_snakemake(finished, *STUDY, "--", str(ANSWERS), stdout=log)
    wait_until(lambda: partial.exists() and partial.read_bytes().count(b"\n") > 2, first)
    os.kill(script_of(finished, "predict"), signal.SIGKILL)
    assert first.wait() == 1
    kept = partial.read_bytes().count(b"\n") - 1
    assert 0 < kept < 8
    run = snakemake(finished, *STUDY, "--", str(ANSWERS))
    assert run.returncode == 0, run.stdout[-4000:]
    assert f'"answered_before_resuming": {2 * kept}' in (finished / RUN / "spider_predict.json").read_text()
    same(finished, ANSWERS)


@needs_root
@pytest.mark.parametrize(
    ("target", "left"),
    [pytest.param(WEIGHTS, 400 << 10, id="checkpoint", marks=pytest.mark.ci), pytest.param(RECORDS, 0, id="records")],
)
def test_the_disk_is_full(target, left, finished, same, snakemake, small_disk):
    """The folder of the run is a disk of its own, filled but for `left` bytes."""
    kept = (finished / RUN).rename(finished / "kept")
    disk = small_disk(finished / RUN, "16m")
    shutil.copytree(kept, disk, dirs_exist_ok=True)
    forget(finished, target)
    filler = disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(disk).free - left))
    run = snakemake(finished, *STUDY, "--", str(target))
    assert run.returncode != 0
    assert "the disk is full, or a quota is used up. Free some space and run snakemake again" in run.stdout
    assert not (finished / target).exists()
    assert not list(disk.rglob(".*.tmp"))
    filler.unlink()
    run = snakemake(finished, *STUDY, "--", str(target))
    assert run.returncode == 0, run.stdout[-4000:]
    same(finished, target)


@needs_root
def test_the_disk_is_full_when_the_adapter_is_written(finished, same, snakemake, small_disk):
    forget(finished, WEIGHTS, CONFIG)
    disk = small_disk(finished / WEIGHTS.parent, "16k")
    run = snakemake(finished, *STUDY, "--", str(WEIGHTS))
    assert run.returncode != 0
    assert "the disk is full, or a quota is used up. Free some space and run snakemake again" in run.stdout
    assert not list(disk.iterdir())
    subprocess.run(["mount", "-o", "remount,size=16m", disk], check=True)
    run = snakemake(finished, *STUDY, "--", str(WEIGHTS))
    assert run.returncode == 0, run.stdout[-4000:]
    assert '"resumed_from_step": 12' in (finished / RUN / "train.json").read_text()
    same(finished, WEIGHTS, CONFIG)


def test_a_killed_job_is_tried_again_by_the_same_run(finished, same, start_snakemake):
    forget(finished, ANSWERS)
    with (finished / "first.log").open("w") as log:
        run = start_snakemake(finished, *STUDY, "--retries", "2", "--", str(ANSWERS), stdout=log)
    for _ in range(2):
        wait_until(lambda: script_of(finished, "predict"), run)
        killed = script_of(finished, "predict")
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda killed=killed: script_of(finished, "predict") != killed, run)
    assert run.wait() == 0
    assert (finished / "first.log").read_text().count("Trying to restart job") == 2
    same(finished, ANSWERS)


def test_a_cut_adapter_is_named_and_deleted_it_is_trained_anew(finished, same, snakemake):
    os.truncate(finished / WEIGHTS, (finished / WEIGHTS).stat().st_size // 2)
    run = snakemake(finished, *STUDY, "--retries", "3", "--", str(ANSWERS))
    assert run.returncode != 0
    assert "Trying to restart" not in run.stdout
    assert len(re.findall("Error in rule predict_spider", run.stdout)) == 1
    assert f"ERROR: {RUN}/adapter/adapter_model.safetensors: cut or damaged" in run.stdout
    assert "Delete it and run snakemake again" in run.stdout
    forget(finished, WEIGHTS)
    run = snakemake(finished, *STUDY, "--", str(ANSWERS))
    assert run.returncode == 0, run.stdout[-4000:]
    same(finished, WEIGHTS, ANSWERS)


def test_out_of_memory_in_training(finished, same, start_snakemake, snakemake):
    forget(finished, WEIGHTS)
    with (finished / "first.log").open("w") as log:
        first = start_snakemake(finished, *STUDY, "--", str(WEIGHTS), stdout=log)
    wait_until(lambda: (finished / RUN / "checkpoints/checkpoint-2/trainer_state.json").exists(), first)
    # No new memory for the process from here on.
    resource.prlimit(script_of(finished, "train"), resource.RLIMIT_AS, (1 << 20, 1 << 20))
    assert first.wait() == 1
    assert (
        "ERROR: out of main memory. Give the job more (mem_mb in the profile)" in (finished / "first.log").read_text()
    )
    run = snakemake(finished, *STUDY, "--", str(WEIGHTS))
    assert run.returncode == 0, run.stdout[-4000:]
    assert "resuming." in (finished / TRAIN_LOG).read_text()
    same(finished, WEIGHTS)


def test_a_clock_that_jumps_makes_nothing_stale(finished, snakemake):
    numbers = random.Random(0)
    for path in (finished / "results").rglob("*"):
        jumped = time.time() + numbers.uniform(-400, 400) * 24 * 3600
        os.utime(path, (jumped, jumped))
    assert "Nothing to be done" in snakemake(finished, *STUDY, "--dry-run").stdout


def test_a_moved_repository_has_nothing_to_do(finished, snakemake):
    moved = finished.rename(finished.with_name("moved"))
    assert "Nothing to be done" in snakemake(moved, *STUDY, "--dry-run").stdout


def test_results_moved_into_another_clone_have_nothing_to_do(finished, copy_repo, snakemake):
    clone = copy_repo("clone")
    shutil.copy2(finished / "tiny.yaml", clone)
    shutil.move(finished / "results", clone / "results")
    assert "Nothing to be done" in snakemake(clone, *STUDY, "--dry-run").stdout


@needs_root
def test_results_that_cannot_be_written(finished, same, snakemake, small_disk):
    results = finished / "results"
    kept = results.rename(finished / "kept")
    shutil.copytree(kept, small_disk(results, "64m"), dirs_exist_ok=True)
    subprocess.run(["mount", "-o", "remount,ro", results], check=True)
    run = snakemake(finished, *STUDY)
    assert run.returncode == 0, run.stdout[-4000:]
    assert "Nothing to be done" in run.stdout
    run = snakemake(finished, *STUDY, "--config", "tables={confidence_level: 0.9}")
    assert run.returncode != 0
    # Snakemake names one of the rules, whichever it comes to first.
    assert re.search(r"Write-protected output files for rule \w+:[\s\S]*affected files:\s+results/tiny/", run.stdout)
    subprocess.run(["mount", "-o", "remount,rw", results], check=True)
    run = snakemake(finished, *STUDY)
    assert run.returncode == 0, run.stdout[-4000:]
    same(finished, Path("results/tiny/tables/regression.csv"))
