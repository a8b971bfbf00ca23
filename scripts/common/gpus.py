"""Which GPUs a job computes on: cards that are free, locked for as long as its process lives.

Snakemake counts `gpu` but hands out no devices, so with `--resources gpu=4` four jobs would all compute on the first
card. Each job takes its own here. A lock is a flock on a file a card in a folder of this user on this machine; the
kernel gives it up when the process ends, in whatever way. Other users' jobs and programs that do not lock are not seen.

Within a job of SLURM the cards are those of the job, and locks are kept among its own processes only.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

from filelock import FileLock, Timeout

from common.files import UserError

VARIABLE = "CUDA_VISIBLE_DEVICES"
# Where the folder of the locks is: the same for all of a user's runs, which TMPDIR need not be, nor XDG_RUNTIME_DIR,
# which is emptied when the user logs out while runs go on.
ROOT = Path("/tmp")
# Seconds between two looks for a free card.
WAIT_S = 1.0
# An open lock holds its card; one that is collected as garbage would give it up.
_held: list[FileLock] = []


def _listed() -> list[list[str]]:
    """Return each GPU of the machine as the UUIDs by which CUDA finds it: its own, or those of its MIG instances."""
    try:
        found = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
    except OSError:
        # Some containers have the driver but not its tools.
        files = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
        return [[uuid] for file in files for uuid in re.findall(r"^GPU UUID:\s*(GPU-\S+)", file.read_text(), re.M)]
    gpus: list[list[str]] = []
    for kind, uuid in re.findall(r"^\s*(GPU|MIG) .*\(UUID: ([^)\s]+)\)", found.stdout, re.M):
        if kind == "GPU":
            gpus.append([uuid])
        else:
            gpus[-1] = [one for one in gpus[-1] if one.startswith("MIG")] + [uuid]
    if not gpus and found.returncode:
        print(f"No GPU is used; nvidia-smi says: {(found.stdout + found.stderr).strip()}", flush=True)
    return gpus


def visible() -> list[str]:
    """Return the cards that this process may use, by UUID: those that CUDA_VISIBLE_DEVICES names, or all there are.

    Its numbers are those of `nvidia-smi -L`. Where no GPU is listed, what the variable names is taken at its word.

    Raises:
        UserError: the variable names a card that is not there; CUDA would then see none, or fewer, and say nothing.
    """
    gpus, given = _listed(), os.environ.get(VARIABLE)
    every = [uuid for gpu in gpus for uuid in gpu]
    if given is None:
        return every
    tokens = [token.strip() for token in given.split(",")]
    if tokens[0] in ("", "-1", "NoDevFiles"):
        return []
    if not gpus:
        return tokens
    found: list[str] = []
    for token in tokens:
        numbered = gpus[int(token)] if token.isdigit() and int(token) < len(gpus) else []
        cards = numbered or [uuid for uuid in every if token and uuid.startswith(token)]
        if not cards:
            raise UserError(f"{VARIABLE}: found {token!r}, which is none of this machine's cards: {', '.join(every)}.")
        found += cards
    return list(dict.fromkeys(found))


def _folder() -> Path:
    """Return the folder of the locks.

    Raises:
        UserError: the folder belongs to somebody else.
    """
    job = os.environ.get("SLURM_JOB_ID")
    folder = ROOT / (f"lora-tradeoff-cards-{os.getuid()}" + (f"-slurm-{job}" if job else ""))
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.lstat().st_uid != os.getuid():
        raise UserError(f"{folder}: found a folder of another user, expected your own. Have it removed.")
    return folder


def _try(cards: list[str], n: int, folder: Path) -> dict[str, FileLock]:
    """Lock the first `n` free cards and return them with their locks, or lock none and return {}."""
    locks: dict[str, FileLock] = {}
    # One job at a time looks: two that need two of three cards each would otherwise hold one and wait for ever.
    with FileLock(folder / "look.lock", fallback_to_soft=False):
        for card in cards:
            # Without flock, filelock would go by the file's existence, which outlives a kill.
            lock = FileLock(folder / f"{re.sub('[^A-Za-z0-9-]', '_', card)}.lock", timeout=0, fallback_to_soft=False)
            try:
                lock.acquire()
            except Timeout:
                continue
            locks[card] = lock
            if len(locks) == n:
                return locks
        for lock in locks.values():
            lock.release()
    return {}


def take(n: int) -> list[str]:
    """Take `n` free cards for this process until it ends, hide all others from it, and return their UUIDs.

    If too few are free it says so and waits. CUDA_VISIBLE_DEVICES is set to the cards, so what this process starts sees
    the same ones; a child that shall compute on one of them is started with the variable set to that one.

    CUDA reads the variable once in a process, so this comes before anything that asks for GPUs; bitsandbytes does so
    while it is imported, by peft and trl too.

    Returns:
        The cards, `n` of them; those of the job where `n` is 0 in a job of SLURM that has some. None where `n` is 0
        otherwise, and where it is 1 and there is no GPU: the job then computes on the CPU.

    Raises:
        UserError: fewer than `n` cards are visible.
        RuntimeError: bitsandbytes is imported already.
    """
    if n == 0 and "SLURM_JOB_ID" in os.environ and VARIABLE in os.environ:
        n = len(visible())  # asked for by gres, which Snakemake does not count
    if n == 0:
        os.environ[VARIABLE] = ""
        return []
    cards = visible()
    if n == 1 and not cards:
        # A card that no tool lists (another vendor's, say) is still the first one only.
        os.environ.setdefault(VARIABLE, "0")
        return []
    if "bitsandbytes" in sys.modules:
        raise RuntimeError("bitsandbytes is imported, so CUDA has read CUDA_VISIBLE_DEVICES: take cards before.")
    if len(cards) < n:
        limited = f", of those that {VARIABLE}={os.environ[VARIABLE]} leaves" if VARIABLE in os.environ else ""
        raise UserError(
            f"resources, gpu: found {n}, but this job sees {len(cards)} cards{limited}. Ask for at most "
            f"{max(1, len(cards))}: --set-resources <rule>:gpu={max(1, len(cards))}, or `set-resources` in the profile."
        )
    folder = _folder()
    locks = _try(cards, n, folder)
    if not locks:
        print(f"Too few cards are free: waiting for {n} of {', '.join(cards)} (locks in {folder}).", flush=True)
    while not locks:
        time.sleep(WAIT_S)
        locks = _try(cards, n, folder)
    _held.extend(locks.values())
    os.environ[VARIABLE] = ",".join(locks)
    print(f"GPU: {', '.join(locks)}", flush=True)
    return list(locks)
