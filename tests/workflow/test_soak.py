"""Kills at random: whatever dies, and when, the same command ends with the bytes of an undisturbed run.

`make faults` has a few kills. For more: `pytest -m faults tests/workflow/test_soak.py --kills 200 --seed 7 -s`.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

pytestmark = pytest.mark.faults

STUDY = ("--configfile", "tiny.yaml")
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
TARGETS = ("driver", "job", "worker", "all")
LONGEST_S = 20  # between two kills
# What says how long something took, on which node, or where it went on.
TIMED = {"cost.csv", "cost.md", "tables.html", "report.md", "report.pdf", "spider_predict.json", "mmlu_predict.json"}
LEARNT = ("adapter_sha256", "history", "eval_history", "steps", "rows")


def processes(folder: Path) -> dict[int, tuple[int, list[str]]]:
    """Return the parent and the words of each process that works in this folder, by its id."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").resolve() != folder:
                continue
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            status = (entry / "stat").read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        if status[0] != "Z":
            found[int(entry.name)] = (int(status[1]), words)
    return found


def candidates(folder: Path, driver: int, target: str) -> list[int]:
    """Return the processes of a kind: the driver, its jobs, or what these have started, as pytest and the judge's."""
    if target == "driver":
        return [driver]
    running = processes(folder)
    script = f"{folder}/.snakemake/scripts/"
    jobs = [pid for pid, (_, words) in running.items() if len(words) > 1 and words[1].startswith(script)]
    if target != "worker":
        return jobs
    workers, generation = [], jobs
    while generation := [pid for pid, (parent, _) in running.items() if parent in generation]:
        workers += generation
    return workers


def contents(folder: Path) -> dict[str, bytes]:
    """Return all results of the tiny study by their paths, but for what tells of time; logs are none."""
    root, found = folder / "results/tiny", {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root)
        if path.is_dir() or name.parts[0] in ("logs", "benchmarks"):
            continue
        content = path.read_bytes()
        if path.name == "train.json" and "runs" in name.parts:
            report = json.loads(content)
            content = json.dumps([report[key] for key in LEARNT]).encode()
        found[str(name)] = b"" if path.name in TIMED else content
    return found


def nobody_is_left(folder: Path) -> None:
    """Wait until no process works in a folder; one that does not end by itself fails."""
    deadline = time.monotonic() + 300
    while left := processes(folder):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def nothing_is_left(folder: Path) -> None:
    """Assert that a run that ended well leaves no lock of Snakemake, no mark of a job cut off, no temporary file."""
    for kind in ("locks", "incomplete"):
        assert not list((folder / ".snakemake" / kind).glob("*")), kind
    assert not list((folder / "results").rglob(".*.tmp"))


class Soak:
    """One study in one folder that is started again and again, and killed."""

    def __init__(self, folder: Path, start, snakemake, numbers: random.Random):
        self.folder, self.start, self.snakemake, self.numbers = folder, start, snakemake, numbers
        self.kills = 0

    def unlock(self) -> None:
        """Do what a run that finds the folder locked says."""
        if list((self.folder / ".snakemake/locks").glob("*")):
            assert self.snakemake(self.folder, *STUDY, "--unlock").returncode == 0

    def run(self, kills: int) -> bool:
        """Run the study and kill parts of it until there were so many kills in all; whether it ended well."""
        self.unlock()
        log = self.folder / "driver.log"
        with log.open("w") as stream:
            driver = self.start(self.folder, *STUDY, stdout=stream, start_new_session=True)
        killed = False
        while driver.poll() is None and self.kills < kills:
            time.sleep(self.numbers.uniform(0, LONGEST_S))
            killed |= self.kill(driver)
        ended = driver.wait()
        assert killed or ended == 0, log.read_text()[-4000:]
        # What the driver has left behind ends by itself, or the next run would meet it.
        nobody_is_left(self.folder)
        return ended == 0

    def kill(self, driver: subprocess.Popen) -> bool:
        """Send some signal to some process of a run; whether there was one."""
        target, number, pick = self.numbers.choice(TARGETS), self.numbers.choice(SIGNALS), self.numbers.random()
        # Workers live for seconds.
        while not (hit := candidates(self.folder, driver.pid, target)) and target == "worker" and driver.poll() is None:
            time.sleep(0.05)
        if not hit or driver.poll() is not None:
            return False
        words = processes(self.folder).get(chosen := sorted(hit)[int(pick * len(hit))], (0, []))[1]
        with suppress(ProcessLookupError):  # it has ended just now
            if target == "all":
                os.killpg(driver.pid, number)
            else:
                os.kill(chosen, number)
        self.kills += 1
        print(f"kill {self.kills}: {number.name} to {target} {' '.join(words)[:300]}", flush=True)
        return True


@pytest.mark.ci
def test_random_kills_change_no_byte(tiny_run, copy_repo, start_snakemake, snakemake, pytestconfig):
    kills, seed = pytestconfig.getoption("kills"), pytestconfig.getoption("seed")
    print(f"\n{kills} kills, --seed {seed}")
    folder, expected = copy_repo("soak").resolve(), contents(tiny_run)
    assert len(expected) > 100
    shutil.copy(tiny_run / "tiny.yaml", folder)
    soak = Soak(folder, start_snakemake, snakemake, random.Random(seed))
    whole, ended_well = 0, False
    while soak.kills < kills or not ended_well:
        ended_well = soak.run(kills)
        if ended_well:
            nothing_is_left(folder)
            assert contents(folder) == expected
            whole += 1
            print(f"{soak.kills} kills, {whole} whole studies, all equal", flush=True)
            shutil.rmtree(folder / "results")
