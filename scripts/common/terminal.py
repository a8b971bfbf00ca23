"""What a run shows where it was started: one line for each job that has ended, and how far those are that run.

Jobs write into logs of their own, here or on a node of a cluster. How far a job is, is what tqdm wrote last into its
log: all that takes long counts with tqdm (downloads, labels, training steps, answers). So nothing is kept but the log,
and a job that is killed leaves nothing wrong behind.

On a terminal the last line is redrawn. Elsewhere (a file, a pipe) each running job has a plain line once a minute.
Snakemake's own account of each job, with its inputs and its reason, is in the file that it names at the end of a run.
"""

import logging
import os
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import get_terminal_size
from types import SimpleNamespace
from typing import Any

from common.files import redacted
from common.job import ended

# A bar of tqdm: what is counted, how many of how many, the time left.
BAR = re.compile(r"([^\r\n|%]*?):? *\d+%\|[^|\r\n]*\| *([\d.]+\w*)/([\d.]+\w*) \[[\d:]+<([\d:?]+)")
# What transformers logs beside the bar of a training.
LOSS = re.compile(r"'loss': '?([^',}]+)")
READ = 8192  # bytes at the end of a log in which its last bar is sought
SHOWN = 30  # lines of a failed job's log
REDRAWN_S, TOLD_S = 2, 60
ERASE = "\r\x1b[K"
OURS = {
    "job_info", "job_started", "job_finished", "progress", "job_error", "shellcmd", "resources_info", "run_info",
    "workflow_started", "group_info", "group_error",
}  # fmt: skip
SKEW_S = 10  # by which the clocks of two machines may differ


@dataclass(slots=True)
class Job:
    """A job that was started, its logs, and when that was and when it was last told of (seconds since the epoch)."""

    name: str
    logs: Sequence[str]
    start: float
    told: float

    def began(self) -> bool:
        """Whether it runs: one that waits in the queue of a cluster has no log of this attempt yet."""
        try:
            return not self.logs or Path(self.logs[0]).stat().st_mtime > self.start - SKEW_S
        except OSError:
            return False

    def state(self) -> str:
        """How far it is, or how long it has run."""
        return (progress_of(self.logs[0]) if self.logs else "") or f"running for {duration(time.time() - self.start)}"


def progress_of(log: str | Path) -> str:
    """How far a job is by the end of its log, such as `step 12 of 128, loss 0.93, 1:20 left`; "" if that is unknown."""
    try:
        with Path(log).open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - READ))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return ""
    bars = BAR.findall(text)
    if not bars or bars[-1][1] == bars[-1][2]:  # at its end, and something else goes on
        return ""
    what, n, total, left = bars[-1]
    loss = LOSS.findall(text)
    parts = [f"{what.strip() or 'step'} {n} of {total}", *([f"loss {loss[-1]}"] if loss else [])]
    return redacted(", ".join([*parts, *([f"{left.removeprefix('0')} left"] if "?" not in left else [])]))


def nobody_reads() -> int:
    """Write nothing more to standard output, whose reader has enough of it (`| head`); give the exit status for that.

    Python would complain once more when it ends.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141


def duration(seconds: float) -> str:
    """`0:07`, `12:40` or `3:05:00`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class Terminal(logging.Handler):
    """Writes in place of Snakemake's own handler for the terminal, which gets all that is not about one job."""

    def __init__(self, default: logging.StreamHandler, labels: Mapping[str, str], one_model: bool):
        super().__init__(default.level)
        self.default, self.stream = default, default.stream
        self.labels, self.one_model = labels, one_model
        self.live = bool(getattr(self.stream, "isatty", bool)()) and os.environ.get("TERM") != "dumb"
        self.jobs: dict[int, Job] = {}
        self.ended: list[Job] = []
        self.targets = 0  # jobs that only stand for the files that were asked for
        self.closed = threading.Event()
        self.thread: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, or none, of an event of a job; let Snakemake's handler write anything else."""
        event = getattr(getattr(record, "event", None), "value", "")
        if event in OURS:
            self.write(*getattr(self, event, lambda record: ())(record))
        elif record.getMessage() != "Select jobs to execute..." and self.default.filter(record):
            self.stream.write(ERASE if self.live else "")
            self.default.handle(record)
        self.redraw()

    def write(self, *lines: str) -> None:
        """Write whole lines; a live line gives way to them."""
        self.stream.write((ERASE if self.live and lines else "") + "".join(f"{line}\n" for line in lines))
        self.stream.flush()

    def redraw(self) -> None:
        """Draw the live line anew, in one line of the terminal."""
        if self.live and self.jobs:
            begun = [job for job in [*self.jobs.values()] if job.began()]
            waiting = len(self.jobs) - len(begun)
            parts = [f"{job.name}: {job.state()}" for job in begun] + ([f"{waiting} waiting"] if waiting else [])
            self.stream.write(ERASE + "  ".join(parts)[: get_terminal_size().columns - 1])
            self.stream.flush()

    def follow(self) -> None:
        """Redraw the live line, or tell of each job that has run for a while; until this handler is closed."""
        while not self.closed.wait(REDRAWN_S):
            with self.lock:
                self.redraw()
                for job in [] if self.live else [*self.jobs.values()]:
                    if time.time() - job.told >= TOLD_S and job.began():
                        job.told = time.time()
                        self.write(f"{time.strftime('%H:%M:%S')}  {job.name}: {job.state()}")

    def close(self) -> None:
        """End the thread and the live line."""
        self.closed.set()
        with self.lock:
            if self.live and self.jobs:
                self.stream.write(ERASE)
            self.jobs.clear()
        super().close()

    # ---- Events of Snakemake, by their names: the lines that each of them has

    def run_info(self, record: Any) -> Iterator[str]:
        """Say which jobs there are to do."""
        counts = {rule: n for rule, n in record.stats.items() if rule not in ("total", "all")}
        self.targets = record.stats.get("all", 0)
        total = sum(counts.values())
        yield f"{total} job{'s' * (total != 1)}: {', '.join(f'{n} {rule}' for rule, n in counts.items())}"

    def job_info(self, record: Any) -> Iterator[str]:
        """Follow a job that starts."""
        words = [
            self.labels.get(value, value)
            for key, value in record.wildcards.items()
            if not (key == "model" and self.one_model) and not record.rule_name.endswith(f"_{value}")
        ]
        start = time.time()
        self.jobs[record.jobid] = Job(" ".join([record.rule_name, *words]), list(record.log), start, start)
        if self.thread is None:
            self.thread = threading.Thread(target=self.follow, daemon=True)
            self.thread.start()
        return iter(())

    def job_finished(self, record: Any) -> Iterator[str]:
        """Remember that a job has ended: how many have is said by the next event."""
        self.ended += [job for job in [self.jobs.pop(record.job_id, None)] if job and job.name != "all"]
        return iter(())

    def progress(self, record: Any) -> Iterator[str]:
        """Say which jobs have ended, and how many of all have."""
        for job in self.ended:
            total = record.total - self.targets
            count = f"{record.done:>{len(str(total))}} of {total}"
            yield f"{time.strftime('%H:%M:%S')}  {count}  {job.name}, {duration(time.time() - job.start)}"
        self.ended.clear()

    def group_error(self, record: Any) -> Iterator[str]:
        """Say which jobs failed of a group, which Snakemake runs as one; if none did, that the group was cut off."""
        members = [SimpleNamespace(**info) for info in record.job_error_info]
        jobs = {member.jobid: self.jobs.pop(member.jobid, None) for member in members}
        failed = [m for m in members if (job := jobs[m.jobid]) and job.began() and ended(job.logs[0]) == "failed"]
        for member in failed:
            self.jobs[member.jobid] = jobs[member.jobid]
            yield from self.job_error(member)
        if not failed:
            names = ", ".join(sorted({member.rule_name for member in members}))
            yield f"{time.strftime('%H:%M:%S')}  Error in group {record.groupid}: cut off, no log says why ({names})."
            yield from (f"    log: {log}" for log in record.aux_logs)

    def job_error(self, record: Any) -> Iterator[str]:
        """Say that a job failed, and show the end of its log without the bars; of one in a group that has been said."""
        if getattr(record, "indent", False) and record.jobid not in self.jobs:
            return
        job = self.jobs.pop(record.jobid, None)
        name = job.name if job else record.rule_name
        yield f"{time.strftime('%H:%M:%S')}  Error in rule {record.rule_name}: {name} failed."
        told = [record.rule_msg] if record.rule_msg else []
        yield from (f"    {line}" for text in told for line in str(text).splitlines())
        yield from (f"    {key}: {value}" for key, value in record.aux.items())
        said = bool(record.log) and Path(record.log[0]).is_file() and ended(record.log[0]) == "failed"
        for number, log in enumerate(record.log):
            yield f"    log: {log}"
            if said and number:  # that of the scheduler, with nothing but Snakemake's account of the same
                continue
            if self.default.formatter.show_failed_logs and Path(log).is_file():
                lines = Path(log).read_text(encoding="utf-8", errors="replace").splitlines()
                lines = [line for line in lines if line.strip() and not BAR.search(line)]
                yield from (["    …"] if len(lines) > SHOWN else [])
                yield from (f"    {line}" for line in lines[-SHOWN:])


def show_jobs(logger: logging.Logger, settings: Any, labels: Mapping[str, str], one_model: bool) -> None:
    """Let a run show its jobs in this way, unless it was asked for more, or for less, or is a dry run.

    Args:
        logger: Snakemake's.
        settings: its output settings.
        labels: the names of runs by their folders, which the wildcards of jobs have.
        one_model: whether a job's name need not say the model.
    """
    if settings.dryrun or settings.verbose or settings.quiet or settings.debug_dag:
        return
    for handler in logger.handlers:
        if handler.name == "DefaultStreamHandler":
            logger.removeHandler(handler)
            logger.addHandler(Terminal(handler, labels, one_model))
            return
