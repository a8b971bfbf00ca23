"""What a run shows: a line for each job that has ended, and how far the others are, by the ends of their logs."""

import io
import logging
import os
import re
import time
from types import SimpleNamespace

import pytest
from snakemake.logging import ColorizingTextHandler, DefaultFilter, DefaultFormatter
from snakemake_interface_logger_plugins.common import LogEvent
from tqdm import tqdm

from common.terminal import ERASE, SHOWN, Terminal, duration, progress_of, show_jobs

SETTINGS = {"dryrun": False, "verbose": False, "quiet": set(), "debug_dag": False}
LABELS = {"lr0.003_s42_0a1b2c": "lr0.003"}


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def logger():
    made = logging.Logger("snakemake")
    yield made
    for handler in made.handlers:
        handler.close()


def attach(logger, stream, **settings):
    handler = ColorizingTextHandler(
        nocolor=True, stream=stream, formatter=DefaultFormatter(show_failed_logs=True),
        filter=DefaultFilter(set(), False, False, False, False),
    )  # fmt: skip
    handler.name = "DefaultStreamHandler"
    logger.addHandler(handler)
    show_jobs(logger, SimpleNamespace(**SETTINGS | settings), LABELS, one_model=True)
    return logger.handlers[0]


def start(logger, number, rule, log, **wildcards):
    more = dict.fromkeys(("rule_msg", "benchmark", "reason"))
    more |= {"local": False, "is_checkpoint": False, "input": ["in"], "output": ["out"], "priority": 0, "threads": 1}
    event = {"jobid": number, "rule_name": rule, "wildcards": wildcards, "log": [str(log)], "resources": {}}
    logger.info("a rule", extra={"event": LogEvent.JOB_INFO} | more | event)


def end(logger, number, done, total):
    logger.info("Finished", extra={"event": LogEvent.JOB_FINISHED, "job_id": number})
    logger.info(None, extra={"event": LogEvent.PROGRESS, "done": done, "total": total})


def counting(path, n, total, name="", loss=None):
    """Write the log of a job that has counted to `n`, with tqdm, as all jobs do."""
    with path.open("w") as stream:
        print("Loaded the model.", file=stream)
        bar = tqdm(total=total, desc=name, file=stream, mininterval=0)
        for _ in range(n):
            bar.update()
            if loss is not None:
                bar.write(str({"loss": f"{loss:.4g}", "learning_rate": "0.003"}), file=stream)
        bar.refresh()
        stream.flush()
        bar.disable = True  # a killed job does not close its bar
    return path


def test_the_end_of_a_log_says_how_far_a_job_is(tmp_path):
    said = progress_of(counting(tmp_path / "log", 12, 128, loss=0.93))
    assert re.fullmatch(r"step 12 of 128, loss 0\.93, \d:\d\d left", said)
    assert re.fullmatch(r"answers 3 of 256, \d:\d\d left", progress_of(counting(tmp_path / "log", 3, 256, "answers")))
    assert progress_of(counting(tmp_path / "log", 0, 256, "answers")) == "answers 0 of 256"
    # Bytes have units.
    with (tmp_path / "log").open("w") as stream:
        bar = tqdm(total=3 * 10**9, desc="model.safetensors", unit="B", unit_scale=True, file=stream)
        bar.update(10**9)
        bar.refresh()
    assert progress_of(tmp_path / "log").startswith("model.safetensors 1.00G of 3.00G")
    # At its end a bar says nothing of what the job does now; nor does a log without one, or none.
    assert progress_of(counting(tmp_path / "log", 4, 4)) == ""
    (tmp_path / "log").write_text("50%|half a bar")
    assert progress_of(tmp_path / "log") == "" == progress_of(tmp_path / "none")


def test_durations():
    assert [duration(s) for s in (0.4, 7, 760, 11_100)] == ["0:00", "0:07", "12:40", "3:05:00"]


def test_each_job_has_one_line_when_it_has_ended(tmp_path, logger):
    stream = io.StringIO()
    attach(logger, stream)
    logger.info("table", extra={"event": LogEvent.RUN_INFO, "stats": {"train": 2, "all": 1, "total": 3}})
    start(logger, 7, "train", tmp_path / "log", model="demo", run="lr0.003_s42_0a1b2c")
    start(logger, 8, "predict_spider", tmp_path / "log", model="demo", run="base", task="spider")
    logger.info("Execute 2 jobs...", extra={"event": LogEvent.JOB_STARTED, "jobs": [7, 8]})
    logger.info("Select jobs to execute...")
    end(logger, 7, 1, 3)
    end(logger, 8, 2, 3)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "2 jobs: 2 train"
    assert [re.sub(r"^[\d:]{8}|\d:\d\d$", "*", line) for line in lines[1:]] == [
        "*  1 of 2  train lr0.003, *",
        "*  2 of 2  predict_spider base, *",
    ]


def test_without_a_terminal_a_running_job_has_a_plain_line_now_and_then(tmp_path, logger, monkeypatch):
    monkeypatch.setattr("common.terminal.REDRAWN_S", 0.01)
    monkeypatch.setattr("common.terminal.TOLD_S", 0.05)
    stream = io.StringIO()
    attach(logger, stream)
    start(logger, 7, "train", counting(tmp_path / "log", 12, 128, loss=0.93), model="demo", run="lr0.003_s42_0a1b2c")
    start(logger, 8, "train", tmp_path / "waits", model="demo", run="other")
    for _ in range(500):
        time.sleep(0.01)
        if stream.getvalue().count("\n") > 1:
            break
    assert re.match(r"[\d:]{8}  train lr0\.003: step 12 of 128, loss 0\.93, \d:\d\d left\n", stream.getvalue())
    assert "other" not in stream.getvalue()
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", stream.getvalue())


def test_on_a_terminal_the_last_line_is_redrawn_and_gives_way(tmp_path, logger, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    screen = Screen()
    attach(logger, screen)
    start(logger, 7, "train", counting(tmp_path / "log", 12, 128, loss=0.93), model="demo", run="lr0.003_s42_0a1b2c")
    start(logger, 8, "train", tmp_path / "waits", model="demo", run="other")
    last = screen.getvalue().rpartition(ERASE)[2]
    assert re.fullmatch(r"train lr0\.003: step 12 of 128, loss 0\.93, \d:\d\d left  1 wait", last)
    assert len(last) < 60 and "\n" not in screen.getvalue()
    logger.warning("Something else.")
    assert f"{ERASE}Something else.\n{ERASE}train" in screen.getvalue()
    end(logger, 7, 1, 3)
    assert re.search(rf"{re.escape(ERASE)}[\d:]{{8}}  1 of 3  train lr0\.003, \d:\d\d\n", screen.getvalue())
    end(logger, 8, 2, 3)
    assert screen.getvalue().endswith("\n")


def test_a_failed_job_shows_the_end_of_its_log_without_bars(tmp_path, logger):
    log = counting(tmp_path / "log", 40, 128)
    with log.open("a") as stream:
        stream.write("\n" + "".join(f"line {n}\n" for n in range(2 * SHOWN)) + "ERROR: Lower learning_rate.\n")
    stream = io.StringIO()
    attach(logger, stream)
    start(logger, 7, "train", log, model="demo", run="lr0.003_s42_0a1b2c")
    event = {"jobid": 7, "rule_name": "train", "rule_msg": "killed", "aux": {"external_jobid": 12}, "log": [str(log)]}
    logger.error("Error", extra={"event": LogEvent.JOB_ERROR} | event)
    lines = stream.getvalue().splitlines()
    assert lines[0].endswith("Error in rule train: train lr0.003 failed.")
    assert lines[1:4] == ["    killed", "    external_jobid: 12", f"    log: {log}"]
    assert lines[-1] == "    ERROR: Lower learning_rate." and len(lines) == SHOWN + 5
    assert "%|" not in stream.getvalue() and "\r" not in stream.getvalue()


@pytest.mark.parametrize("asked", [{"verbose": True}, {"quiet": {"rules"}}, {"dryrun": True}])
def test_who_asks_for_more_or_less_gets_what_snakemake_writes(logger, asked):
    assert not isinstance(attach(logger, io.StringIO(), **asked), Terminal)


def test_of_a_group_the_job_that_failed_is_told_of(tmp_path, logger):
    stream, said = io.StringIO(), tmp_path / "said.log"
    attach(logger, stream)
    old = tmp_path / "old.log"
    old.write_text("ERROR: what was mended since")
    os.utime(old, (1, 1))
    start(logger, 1, "prepare_spider", said)
    start(logger, 2, "render_spider", tmp_path / "none.log")
    start(logger, 3, "render_mmlu", old)
    said.write_text("ERROR: a mistake")
    members = [
        {"jobid": number, "rule_name": rule, "rule_msg": None, "aux": {}, "log": [str(log)], "indent": True}
        for number, rule, log in ((1, "prepare_spider", said), (2, "render_spider", "none"), (3, "render_mmlu", old))
    ]
    group = {"event": LogEvent.GROUP_ERROR, "groupid": "data", "aux_logs": ["slurm.log"], "job_error_info": members}
    logger.error("Error in group data", extra=group)
    for member in members:
        logger.error("Error in rule", extra={"event": LogEvent.JOB_ERROR} | member)
    assert re.findall(r"Error in rule .*", stream.getvalue()) == [
        "Error in rule prepare_spider: prepare_spider failed."
    ]
    assert "a mistake" in stream.getvalue() and "what was mended" not in stream.getvalue()
    start(logger, 2, "render_spider", tmp_path / "none.log")
    logger.error("Error in group data", extra=group | {"job_error_info": members[1:2]})
    assert "Error in group data: cut off, no log says why (render_spider).\n    log: slurm.log\n" in stream.getvalue()
