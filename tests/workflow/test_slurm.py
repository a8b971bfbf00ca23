"""The tiny study on a real SLURM: the bits of a workstation, one card a job, and all that a cluster does to jobs."""

import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from _folders import folder as folder_of
from _folders import labels, tiny
from _runs import OFFLINE
from common.files import read_json

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(os.geteuid() != 0, reason="SLURM's daemons and its device files need root"),
    pytest.mark.skipif(
        not all(map(shutil.which, ("slurmctld", "slurmd", "munged"))), reason="apt-get install slurm-wlm"
    ),
]

# The profile as it is, but for how often is asked and how long is waited: these files are on a local disk.
ARGUMENTS = (
    *("--workflow-profile", "profiles/slurm", "--configfile", "tiny.yaml"),
    *("--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "5"),
)
ON_A_CARD = {"train", "predict_spider", "predict_mmlu"}
# What takes seconds on a CPU is in groups, whose names end with those of their first rules.
GROUPS = ("data", "scores", "results")
FOLDER = folder_of(tiny(), "lr0.001")
RUN = Path("results/tiny/runs/demo") / FOLDER
WEIGHTS = RUN / "adapter/adapter_model.safetensors"
TRAIN_LOG = Path(f"results/tiny/logs/train/demo/{FOLDER}.log")


def command(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def cluster(repo) -> Iterator[Path]:
    """The folder of a running SLURM of two nodes, n1 with two cards and n2 with one."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    try:
        os.mknod(folder / "device", stat.S_IFCHR | 0o600, os.makedev(240, 9))
    except PermissionError:  # root in a container
        pytest.skip("may not make device files, which stand for cards")
    started = subprocess.run([repo / "tests/slurm/start.sh", folder])
    if started.returncode == 3:  # whose jobs stop.sh would end
        pytest.skip("this machine has a SLURM of its own")
    try:
        started.check_returncode()
        yield folder
    finally:
        subprocess.run([repo / "tests/slurm/stop.sh", folder], check=True)
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def through_slurm(cluster, copy_repo, tiny_run, snakemake) -> Path:
    """A copy of the repository in which the tiny study has run through SLURM once."""
    folder = copy_repo("slurm")
    shutil.copy(tiny_run / "tiny.yaml", folder)
    run = snakemake(folder, *ARGUMENTS)
    assert run.returncode == 0, run.stdout[-8000:]
    return folder


@pytest.fixture
def finished(through_slurm, tmp_path) -> Path:
    """A copy of the finished run."""
    return shutil.copytree(through_slurm, tmp_path / "repo", symlinks=True)


def compared(folder: Path) -> list[Path]:
    """Return which files of a finished tiny study are to be equal wherever it ran, by their paths."""
    names = [
        path.relative_to(folder)
        for place, pattern in (("tables", "*"), ("figures", "*"), ("runs", "**/*.csv"), ("runs", "**/adapter/*"))
        for path in (folder / "results/tiny" / place).glob(pattern)
        if path.stem != "cost"  # which holds times
    ] + [path.relative_to(folder) for path in folder.glob("results/tiny/runs/**/*_answers.jsonl")]
    assert len(names) == 24 + 3 + 12 + 4 + 2 + 4
    return names


def rules() -> dict[str, str]:
    """Return the rule or group of each job that SLURM remembers, by the job's id."""
    shown = command("scontrol", "show", "job", "--oneliner")
    found = re.findall(r"^JobId=(\d+) .* Comment=rule_([a-z_.]+?)(?:_wildcards\S*)? ", shown, re.MULTILINE)
    return {job: next((group for group in GROUPS if rule.startswith(f"{group}_")), rule) for job, rule in found}


def tasks(cluster: Path) -> list[tuple[float, str, str, str, str, str, str]]:
    """Return time, begin or end, job, step (empty for the batch script), node, card and offline flag of each task."""
    lines = [line.split(" ") for line in (cluster / "tasks.log").read_text().splitlines()]
    return sorted((float(line[0]), *line[1:]) for line in lines)


@pytest.mark.ci
def test_the_results_are_those_of_a_workstation(through_slurm, tiny_run):
    for name in compared(tiny_run):
        assert (through_slurm / name).read_bytes() == (tiny_run / name).read_bytes(), name


@pytest.mark.ci
def test_each_gpu_job_has_one_card_that_no_other_job_has_and_no_cpu_job_has_any(through_slurm, cluster):
    rule_of = rules()
    # Downloads are none of them: they are where there is an internet.
    on_cpus = [rule for rule in rule_of.values() if rule not in ON_A_CARD]
    assert sorted(on_cpus) == sorted([*GROUPS, "export_recommended", "deepeval_tests"])
    assert len(rule_of) == len(on_cpus) + 1 + 2 * 2
    held: dict[tuple[str, str], str] = {}
    seen = set()
    for _, word, job, step, node, card, offline in tasks(cluster):
        if rule_of[job] not in ON_A_CARD:
            assert card == "none", rule_of[job]
            continue
        assert re.fullmatch(r"\d", card), (rule_of[job], card)
        if step:
            assert offline == "1"
            continue
        # The batch script has the card from the job's first moment to its last.
        if word == "begin":
            assert (node, card) not in held, "a card with two jobs"
            held[node, card] = job
            seen.add((node, card))
        else:
            assert held.pop((node, card)) == job
    assert not held
    assert len(seen) > 1
    shown = command("scontrol", "show", "job", "--oneliner").splitlines()
    for job, rule in rule_of.items():
        (line,) = [line for line in shown if line.startswith(f"JobId={job} ")]
        assert ("TresPerJob=gres:gpu:1" in line) == (rule in ON_A_CARD), line


def test_squeue_says_whose_jobs_these_are(through_slurm, cluster):
    names = command("scontrol", "show", "job", "--oneliner")
    assert set(re.findall(r"JobName=([a-z-]+)", names)) == {"lora-tradeoff"}


def test_cards_by_gres_alone(finished, cluster, snakemake):
    target = "results/tiny/runs/demo/base/mmlu_answers.jsonl"
    before = (finished / target).read_bytes()
    (finished / target).unlink()
    known = set(rules())
    given = ("--set-resources", "predict_mmlu:gpu=0", "predict_mmlu:gres='gpu:1'")
    run = snakemake(finished, *ARGUMENTS, *given, "--", target)
    assert run.returncode == 0, run.stdout[-4000:]
    assert (finished / target).read_bytes() == before
    (job,) = set(rules()) - known
    assert {card for _, _, number, _, _, card, _ in tasks(cluster) if number == job} <= {"0", "1"}
    assert "TresPerNode=gres:gpu:1" in command("scontrol", "show", "job", job)


def test_one_training_on_two_nodes(finished, cluster, snakemake, tiny_run):
    """A process on each, which find each other; one is not started before the other is there."""
    shutil.rmtree(finished / RUN)
    before = len(tasks(cluster))
    given = ("mpi=srun", "nodes=2", "tasks=2", "tasks_per_gpu=1", "gpu=2")
    given = ("--set-resources", *(f"train:{one}" for one in given))
    run = snakemake(finished, *ARGUMENTS, *given, "--", str(RUN / "train.json"))
    assert run.returncode == 0, run.stdout[-8000:]
    report, alone = (read_json(folder / RUN / "train.json") for folder in (finished, tiny_run))
    assert (report["processes"], alone["processes"]) == (2, 1)
    losses = [[entry["loss"] for entry in one["history"]] for one in (report, alone)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    begun = [(job, node) for _, word, job, _, node, *_ in tasks(cluster)[before:] if word == "begin"]
    assert {"n1", "n2"} in [{node for one, node in begun if one == job} for job, _ in begun]


def test_adapters_as_an_array(cluster, through_slurm, copy_repo, snakemake):
    folder = copy_repo("array")
    shutil.copy(through_slurm / "tiny.yaml", folder)
    shutil.copytree(through_slurm / "results", folder / "results")
    shutil.copytree(through_slurm / ".snakemake", folder / ".snakemake")
    study = tiny()
    study["training"]["max_steps"] = 2
    study["sweep"] = {"training.learning_rate": [0.001, 0.002, 0.003]}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    made = [name for name in labels(study) if name != "base"]
    targets = [f"results/tiny/runs/demo/{name}/adapter/adapter_model.safetensors" for name in made]
    run = snakemake(folder, *ARGUMENTS, "--slurm-array-jobs", "train", "--", *targets)
    assert run.returncode == 0, run.stdout[-4000:]
    shown = command("scontrol", "show", "job", "--oneliner")
    assert len(re.findall(r"ArrayTaskId=\d .*Comment=rule_train", shown)) == 3
    assert len({(folder / target).read_bytes() for target in targets}) == 3


class Training:
    """A training job in the queue, started by a Snakemake of its own."""

    def __init__(self, folder: Path, start: Callable[..., subprocess.Popen]):
        self.folder = folder
        self.known: set[str] = set(rules())
        self.held: list[int] = []
        with (folder / "driver.log").open("w") as log:
            self.driver = start(folder, *ARGUMENTS, "--", str(WEIGHTS), stdout=log)

    def until(self, reached: Callable[[], object], timeout_s: float = 600) -> None:
        deadline = time.monotonic() + timeout_s
        while not reached():
            assert self.driver.poll() is None, (self.folder / "driver.log").read_text()[-4000:]
            assert time.monotonic() < deadline, (self.folder / "driver.log").read_text()[-4000:]
            time.sleep(0.05)

    def next_job(self, steps: int) -> tuple[str, int]:
        """Wait until a new job has saved so many steps or more, stop its process there, and return both."""

        def saved() -> bool:
            jobs = command("squeue", "--noheader", "--states=RUNNING", "--format=%i").split()
            done = list((self.folder / RUN).glob("checkpoints/checkpoint-*/trainer_state.json"))
            return (
                bool(set(jobs) - self.known)
                and bool(said(self.folder))
                and any(int(path.parent.name.split("-")[1]) >= steps for path in done)
                and bool(set(self.processes()) - set(self.held))
            )

        self.until(saved)
        (job,) = set(command("squeue", "--noheader", "--states=RUNNING", "--format=%i").split()) - self.known
        (process,) = set(self.processes()) - set(self.held)
        os.kill(process, signal.SIGSTOP)
        self.held.append(process)
        return job, process

    def processes(self) -> list[int]:
        """Return the processes that run this folder's training script."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if len(words) > 1 and words[1].startswith(f"{self.folder}/.snakemake/scripts/"):
                found.append(int(entry.name))
        return found


def said(folder: Path) -> str:
    """Return the training's log; each attempt replaces it."""
    log = folder / TRAIN_LOG
    return log.read_text() if log.exists() else ""


def node_of(job: str) -> str:
    return command("squeue", "--noheader", f"--jobs={job}", "--format=%N").strip()


def state_of(job: str) -> str:
    return re.search(r"JobState=(\w+)", command("scontrol", "show", "job", job))[1]


def test_scancel_and_preemption(finished, start_snakemake, tiny_run):
    (finished / WEIGHTS).unlink()
    training = Training(finished, start_snakemake)
    job, _ = training.next_job(2)
    # SLURM sends SIGCONT and SIGTERM, and SIGKILL half a minute later.
    command("scancel", job)
    training.until(lambda: state_of(job) == "CANCELLED")
    assert "stopped by SIGTERM" in said(finished)
    training.known.add(job)

    job, _ = training.next_job(4)
    node = node_of(job)
    cards = {"n1": "2", "n2": "1"}[node]
    urgent = ("--partition=urgent", f"--nodelist={node}", f"--gpus={cards}", "--cpus-per-task=1", "--output=/dev/null")
    other = command("sbatch", "--parsable", *urgent, "--wrap=sleep 1").strip()
    training.known.add(other)
    training.until(lambda: node_of(other) == node)
    assert "stopped by SIGTERM" in said(finished)
    assert training.driver.wait(timeout=600) == 0
    assert "resuming." in said(finished)
    assert (finished / WEIGHTS).read_bytes() == (tiny_run / WEIGHTS).read_bytes()


def test_the_warning_before_a_time_limit(finished, start_snakemake, tiny_run):
    (finished / WEIGHTS).unlink()
    training = Training(finished, start_snakemake)
    job, process = training.next_job(2)
    hours, minutes = re.search(r"RunTime=(\d+):(\d+):", command("scontrol", "show", "job", job)).groups()
    # The profile has SIGTERM sent two minutes before the end: with less than that left, at once.
    limit = 60 * int(hours) + int(minutes) + 2
    command("scontrol", "update", f"JobId={job}", f"TimeLimit={limit}")

    def warned() -> bool:
        # While SLURM sends a signal, the state says so.
        if state_of(job) not in ("RUNNING", "SIGNALING", "COMPLETING"):
            return True
        with suppress(FileNotFoundError):  # it has ended just now
            waiting = re.search(r"^ShdPnd:\s*(\w+)", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)[1]
            if int(waiting, 16) >> (signal.SIGTERM - 1) & 1:
                os.kill(process, signal.SIGCONT)
        return False

    training.until(warned)
    assert state_of(job) == "FAILED"  # by itself, before its time was over
    assert training.driver.wait(timeout=600) == 0
    assert "resuming." in said(finished)
    assert (finished / WEIGHTS).read_bytes() == (tiny_run / WEIGHTS).read_bytes()


def test_a_mistake_is_submitted_once(finished, cluster, snakemake):
    known = set(rules())
    os.truncate(finished / WEIGHTS, (finished / WEIGHTS).stat().st_size // 2)
    answers = RUN / "mmlu_answers.jsonl"
    run = snakemake(finished, *ARGUMENTS, "--", str(answers))
    assert run.returncode != 0
    assert len(set(rules()) - known) == 1, run.stdout
    assert re.findall(r"ERROR: .*cut or damaged", run.stdout)
    # One that fails within a group is named, and the others of the group are not said to have failed.
    known = set(rules())
    (finished / RUN / "mmlu.csv").unlink()
    (finished / answers).write_text("{}\n")
    scores = (str(RUN / "mmlu.csv"), "results/tiny/runs/demo/base/mmlu.csv")
    (finished / scores[1]).unlink()
    run = snakemake(finished, *ARGUMENTS, "--allowed-rules", "score_mmlu", "--", *scores)
    assert run.returncode != 0
    assert len(set(rules()) - known) == 1, run.stdout
    assert re.findall(r"Error in rule (\w+: .*) failed", run.stdout) == ["score_mmlu: score_mmlu lr0.001"]


def test_memory_grows_after_a_kill_for_it(finished, cluster, start_snakemake):
    (finished / WEIGHTS).unlink()
    training = Training(finished, start_snakemake)
    job, process = training.next_job(2)
    assert "MinMemoryNode=32000M" in command("scontrol", "show", "job", job)
    training.known.add(job)
    os.kill(process, signal.SIGKILL)  # as the kernel does
    job, _ = training.next_job(2)
    assert "MinMemoryNode=62.50G" in command("scontrol", "show", "job", job)
    # Ctrl-C cancels what was submitted.
    training.driver.send_signal(signal.SIGINT)
    training.driver.wait()
    assert state_of(job) == "CANCELLED"


def test_a_node_goes_down_and_a_daemon_is_killed(finished, start_snakemake, tiny_run, cluster):
    (finished / WEIGHTS).unlink()
    training = Training(finished, start_snakemake)
    job, lost = training.next_job(2)
    # SLURM kills the job there and puts it back into the queue; it is the same job, no new attempt. The node is back as
    # soon as its daemon says that it is well.
    command("scontrol", "update", f"nodename={node_of(job)}", "state=down", "reason=test")
    again, orphan = training.next_job(2)
    assert again == job
    assert "Restarts=1" in command("scontrol", "show", "job", job)
    assert lost not in training.processes()

    node = node_of(job)
    os.kill(int((cluster / f"{node}.pid").read_text()), signal.SIGKILL)
    # The node answers no more; the job is started elsewhere, while its process still lives on the lost node.
    training.until(lambda: node_of(job) not in ("", node))
    training.until(lambda: "waiting for its end" in said(finished))
    assert orphan in training.processes()
    subprocess.run(["slurmd", "-f", cluster / "slurm.conf", "-N", node], check=True)
    assert training.driver.wait(timeout=600) == 0, (finished / "driver.log").read_text()[-4000:]
    assert not training.processes()
    assert "Restarts=2" in command("scontrol", "show", "job", job)
    assert "resuming." in said(finished)
    assert (finished / WEIGHTS).read_bytes() == (tiny_run / WEIGHTS).read_bytes()


def test_the_driver_is_killed_while_its_job_runs(finished, start_snakemake, snakemake, tiny_run):
    (finished / WEIGHTS).unlink()
    training = Training(finished, start_snakemake)
    job, process = training.next_job(2)
    training.driver.kill()
    training.driver.wait()
    os.kill(process, signal.SIGCONT)
    deadline = time.monotonic() + 600
    while state_of(job) != "COMPLETED":  # the cluster goes on without it
        assert time.monotonic() < deadline
        time.sleep(0.2)
    run = snakemake(finished, *ARGUMENTS, "--unlock")
    assert run.returncode == 0
    known = set(rules())
    run = snakemake(finished, *ARGUMENTS, "--", str(WEIGHTS))
    assert run.returncode == 0, run.stdout[-4000:]
    assert set(rules()) == known  # what the job made is complete: nothing is done twice
    assert (finished / WEIGHTS).read_bytes() == (tiny_run / WEIGHTS).read_bytes()


# Of Debian's own users, for whom nothing runs.
USERS = ("games", "news")


@pytest.fixture
def for_all(cluster) -> Iterator[Path]:
    """A Python with the packages of this one where every user finds it: this one may lie in root's home."""
    place = cluster / "for-all"
    packages = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    mounted = {place / "python": sys.base_prefix, place / "venv" / packages: sysconfig.get_path("purelib")}
    (place / "venv/bin").mkdir(parents=True)
    (place / "venv/pyvenv.cfg").write_text(f"home = {place}/python/bin\n", encoding="utf-8")
    (place / "venv/bin/python").symlink_to(place / "python" / Path(sys._base_executable).relative_to(sys.base_prefix))
    done = []
    try:
        for folder, source in mounted.items():
            folder.mkdir(parents=True)
            # Read-only: nothing that deletes the folder shall ever delete this Python.
            if subprocess.run(["mount", "--options", "bind,ro", source, folder]).returncode:
                pytest.skip("may not mount, so that other users have no Python with these packages")
            done.append(folder)
        yield place
    finally:
        for folder in done:
            subprocess.run(["umount", "--lazy", folder], check=True)
        shutil.rmtree(place)


def test_two_users_at_once(cluster, for_all, copy_repo, tiny_run):
    """Each has a clone; cluster, nodes, environment, /tmp and the name of the study are the same."""
    before = set(rules())
    source, running = copy_repo("two-users"), {}
    shutil.copy(tiny_run / "tiny.yaml", source)

    def start(name: str, clone: Path, *arguments: str, **options) -> subprocess.Popen:
        user = pwd.getpwnam(name)
        own = {"HOME": str(for_all / name), "USER": name, "LOGNAME": name, "PATH": os.defpath}
        return subprocess.Popen(
            [for_all / "venv/bin/python", "-m", "snakemake", *arguments],
            **{"cwd": clone, "stderr": subprocess.STDOUT, "start_new_session": True, "text": True},
            **{"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []},
            env=OFFLINE | own | {"LD_LIBRARY_PATH": f"{for_all}/python/lib"},
            **options,
        )

    for name in USERS:
        user, clone = pwd.getpwnam(name), for_all / name / "clone"
        shutil.copytree(source, clone)
        for path in (clone.parent, clone, *clone.rglob("*")):
            os.chown(path, user.pw_uid, user.pw_gid)
        with (for_all / f"{name}.log").open("w") as log:
            running[name] = start(name, clone, *ARGUMENTS, stdout=log)
    try:
        ended = {name: process.wait(timeout=3600) for name, process in running.items()}
    finally:
        for process in running.values():
            process.terminate()
    said = {name: (for_all / f"{name}.log").read_text()[-4000:] for name in USERS}
    assert not any(ended.values()), said
    names = compared(tiny_run)
    for name in USERS:
        clone = for_all / name / "clone"
        for path in names:
            assert (clone / path).read_bytes() == (tiny_run / path).read_bytes(), (name, path)
        assert {path.owner() for path in clone.parent.rglob("*")} == {name}
    # They had jobs at the same time, and no card had two.
    shown = command("scontrol", "show", "job", "--oneliner")
    owner = dict(re.findall(r"^JobId=(\d+) .*?UserId=(\w+)\(", shown, re.MULTILINE))
    assert {owner[job] for job in set(owner) - before} == set(USERS)
    held: dict[tuple[str, str], str] = {}
    at_once = set()
    for _, word, job, step, node, card, _ in tasks(cluster):
        if job in before or step:
            continue
        place = (node, card if card != "none" else job)
        assert word == "end" or place not in held, "a card with two jobs"
        held |= {place: owner[job]}
        at_once.add(frozenset(held.values()))
        if word == "end":
            del held[place]
    assert frozenset(USERS) in at_once
