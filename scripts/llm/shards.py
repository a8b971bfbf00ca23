"""One job on several cards: a process for each. A prediction's answers its share of the questions.

A batch is the same batch whichever card answers it: with a fixed `batch_size` the questions are cut into the batches
that one card would make of them, and the batches are dealt out. Where there are fewer batches than cards they are made
smaller. With `auto` the questions are dealt out one by one, and each card takes the batches that fit its memory.

Each process keeps its answers in a file of its own, which the next run of the job collects, on however many cards.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from common.files import UserError

# Starts the process of one GPU.
PROGRAM = (sys.executable, "-m", "llm.shards")


def deal(groups: Sequence[Sequence[str]], cards: int, batch_size: int | str) -> tuple[list[list[str]], int | str]:
    """Return each card's share of the questions, given group by group and longest first, and the size of a batch.

    A batch is of one group.
    """
    if batch_size != "auto":
        batch_size = min(batch_size, -(-sum(map(len, groups)) // cards))
    unit = 1 if batch_size == "auto" else batch_size
    batches = [group[start : start + unit] for group in groups for start in range(0, len(group), unit)]
    shares = [[one for batch in batches[card::cards] for one in batch] for card in range(cards)]
    return [share for share in shares if share], batch_size


def partial_path(answers: str | Path, card: int) -> Path:
    """Return the file of one process's answers."""
    return Path(f"{answers}.partial.card{card}.jsonl")


def partial_paths(answers: str | Path) -> list[Path]:
    """Return the files that processes on several cards have left."""
    answers = Path(answers)
    return sorted(answers.parent.glob(f"{answers.name}.partial.card*.jsonl"))


def run(
    cards: Sequence[str],
    jobs: Sequence[dict[str, Any]],
    function: str = "llm.answering.answer_share",
    environments: Sequence[dict[str, str]] | None = None,
) -> None:
    """Call a function with each of `jobs` as its arguments in a process of its own, on the card of the same place.

    Args:
        function: module and name.
        environments: variables of each process.

    Raises:
        UserError: a process ended otherwise than well; the others are then ended too. What they have done is in their
            files.
    """
    processes = []
    try:
        for card, job, more in zip(cards, jobs, environments or [{}] * len(jobs), strict=False):
            process = subprocess.Popen(
                [*PROGRAM, function],
                stdin=subprocess.PIPE,
                env=os.environ | {"CUDA_VISIBLE_DEVICES": card, "PYTHONPATH": os.pathsep.join(sys.path)} | more,
                text=True,
            )
            processes.append(process)
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()  # and left open: its end tells the process that this one is gone
        while any(process.poll() is None for process in processes) and not any(p.poll() for p in processes):
            time.sleep(0.1)
        for card, process in zip(cards, processes, strict=False):
            if process.poll():
                code = process.returncode
                how = f"was killed ({signal.Signals(-code).name})" if code < 0 else f"ended with exit code {code}"
                raise UserError(
                    f"card {card}: its process {how}; what it said stands above. What all cards have done so far is "
                    "kept: run the same command again."
                )
    except BrokenPipeError:
        raise UserError("A card's process ended at its start; what it said stands above.") from None
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


def main() -> int:
    """Do the one job on standard input, for as long as that stays open; return the exit code."""
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    module, _, name = sys.argv[1].rpartition(".")
    try:
        getattr(import_module(module), name)(**job)
    except UserError as error:
        print(f"ERROR: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
