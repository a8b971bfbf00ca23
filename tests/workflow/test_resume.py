"""Killed in the middle, the next run ends where an undisturbed one does, and two clean runs agree to the last bit."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from _folders import folder as folder_of

pytestmark = pytest.mark.long


def run_and_kill(start_snakemake: Callable, folder: Path, reached: Callable[[], bool], timeout_s: float = 1200) -> None:
    """Start the small study and kill Snakemake and all its jobs at once, as soon as `reached` is true."""
    log = folder / "killed.log"
    with log.open("w") as stream:
        process = start_snakemake(folder, "--configfile", "small.yaml", stdout=stream, start_new_session=True)
        deadline = time.monotonic() + timeout_s
        try:
            while not reached():
                assert process.poll() is None, log.read_text()[-8000:]
                assert time.monotonic() < deadline, log.read_text()[-8000:]
                time.sleep(0.01)
        finally:
            # The jobs are in the driver's process group.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_killed_in_training_and_in_prediction(small_run, copy_repo, snakemake, start_snakemake, small_study):
    folder = copy_repo("killed")
    (folder / "small.yaml").write_text(yaml.safe_dump(small_study), encoding="utf-8")
    run_dir = folder / "results" / "small" / "runs" / "demo" / folder_of(small_study, "lr0.001")
    weights = run_dir / "adapter" / "adapter_model.safetensors"
    answers = run_dir / "spider_answers.jsonl"
    partial = run_dir / "spider_answers.jsonl.partial.jsonl"

    run_and_kill(start_snakemake, folder, lambda: any(run_dir.glob("checkpoints/checkpoint-*/trainer_state.json")))
    assert not weights.exists()
    assert any(run_dir.glob("checkpoints/checkpoint-*"))

    assert snakemake(folder, "--configfile", "small.yaml", "--unlock").returncode == 0
    run_and_kill(start_snakemake, folder, lambda: partial.is_file() and partial.read_bytes().count(b"\n") > 4)
    assert weights.exists()
    assert not answers.exists()
    assert partial.exists()

    assert snakemake(folder, "--configfile", "small.yaml", "--unlock").returncode == 0
    run = snakemake(folder, "--configfile", "small.yaml")
    assert run.returncode == 0, run.stdout[-8000:]

    own = run_dir.name
    same = [f"runs/demo/{own}/adapter/{name}" for name in ("adapter_model.safetensors", "adapter_config.json")]
    same += [f"runs/demo/{v}/{task}_answers.jsonl" for v in ("base", own) for task in ("spider", "mmlu")]
    same += [f"runs/demo/{v}/{task}.csv" for v in ("base", own) for task in ("spider", "mmlu")]
    same += [f"tables/{t}.{suffix}" for t in ("spider", "mmlu", "regression") for suffix in ("csv", "md")]
    same += ["figures/tradeoff.svg"]
    for name in same:
        ours, theirs = (root / "results" / "small" / name for root in (folder, small_run))
        assert ours.read_bytes() == theirs.read_bytes(), name
