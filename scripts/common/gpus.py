"""Which GPUs a job computes on: free ones, locked for as long as its process lives.

Snakemake counts `gpu` but hands out no devices, so with `--resources gpu=4` four jobs would all compute on the first
one. Each job takes its own here, by a flock on a file for each GPU, in a folder of this user on this machine. The
kernel releases a lock when the process ends, in whatever way. Jobs of other users, and programs that do not lock, are
not seen. Within a SLURM job the GPUs are those of the job, and only its own processes share locks.
"""

import atexit
import os
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from common.files import UserError

VARIABLE = "CUDA_VISIBLE_DEVICES"
# The same for all runs of a user, which TMPDIR need not be. XDG_RUNTIME_DIR is emptied at logout while runs go on.
ROOT = Path("/tmp")
# Held while a job looks for free GPUs.
LOOK = "look.lock"
# Seconds between two looks for a free GPU.
WAIT_S = 1.0
# An open lock holds its GPU; a lock that is collected as garbage would release it.
_held: list[FileLock] = []


def _listed() -> list[list[str]]:
    """List the machine's GPUs, each as the UUIDs by which CUDA finds it: its own, or those of its MIG instances."""
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
    """List the UUIDs of the GPUs that this process may use: all, or those that CUDA_VISIBLE_DEVICES names.

    Numbers in the variable are those of `nvidia-smi -L`. Where no GPU is listed, its names are taken unchecked.

    Raises:
        UserError: the variable names a GPU that is not there. CUDA would see fewer GPUs and say nothing.
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
        named = numbered or [uuid for uuid in every if token and uuid.startswith(token)]
        if not named:
            raise UserError(f"{VARIABLE}: found {token!r}, which is none of this machine's GPUs: {', '.join(every)}.")
        found += named
    return list(dict.fromkeys(found))


def _folder() -> Path:
    """Make the folder of the locks; a UserError if it belongs to somebody else."""
    job = os.environ.get("SLURM_JOB_ID")
    folder = ROOT / (f"lora-tradeoff-gpus-{os.getuid()}" + (f"-slurm-{job}" if job else ""))
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.lstat().st_uid != os.getuid():
        raise UserError(f"{folder}: found a folder of another user, expected your own. Have it removed.")
    return folder


def _leave(folder: Path) -> None:
    """Remove the folder of a SLURM job's locks, unless another process of the job holds one."""
    for lock in _held:
        # Whoever waits for it sees that it is gone, and makes another.
        Path(lock.lock_file).unlink(missing_ok=True)
    if not [path for path in folder.glob("*.lock") if path.name != LOOK]:
        (folder / LOOK).unlink(missing_ok=True)
        with suppress(OSError):
            folder.rmdir()


def _try(gpus: list[str], n: int, folder: Path) -> dict[str, FileLock]:
    """Lock the first `n` free GPUs, or none; the answer maps each UUID to its lock."""
    locks: dict[str, FileLock] = {}
    # One job at a time looks: two that need two of three GPUs each would otherwise hold one and wait for ever.
    with FileLock(folder / LOOK, fallback_to_soft=False):
        for gpu in gpus:
            # Without flock, filelock would go by the file's existence, which outlives a kill.
            lock = FileLock(folder / f"{re.sub('[^A-Za-z0-9-]', '_', gpu)}.lock", timeout=0, fallback_to_soft=False)
            with suppress(Timeout):
                lock.acquire()
                locks[gpu] = lock
            if len(locks) == n:
                return locks
        for lock in locks.values():
            lock.release()
    return {}


def take(n: int) -> list[str]:
    """Take `n` free GPUs for this process until it ends, hide all others from it, and list their UUIDs.

    If too few are free, the job says so and waits. CUDA_VISIBLE_DEVICES is set to what was taken, also for child
    processes. CUDA reads it once in a process, so take GPUs before anything asks for them; bitsandbytes does so while
    it is imported, also by peft and trl.

    With `n` = 0 these are the GPUs that a SLURM job has by `gres`, else none. With `n` = 1 and no GPU on the machine
    there are none: the job then computes on the CPU.

    Raises:
        UserError: fewer than `n` GPUs are visible.
    """
    if n == 0 and "SLURM_JOB_ID" in os.environ and VARIABLE in os.environ:
        n = len(visible())  # asked for by gres, which Snakemake does not count
    if n == 0:
        os.environ[VARIABLE] = ""
        return []
    gpus = visible()
    if n == 1 and not gpus:
        # A GPU that no tool lists (another vendor's, say) is still the first one only.
        os.environ.setdefault(VARIABLE, "0")
        return []
    if "bitsandbytes" in sys.modules:
        raise RuntimeError(f"bitsandbytes is imported, so CUDA has read {VARIABLE}: take GPUs before.")
    if len(gpus) < n:
        limited = f", of those that {VARIABLE}={os.environ[VARIABLE]} leaves" if VARIABLE in os.environ else ""
        most = max(1, len(gpus))
        raise UserError(
            f"resources, gpu: found {n}, but this job sees {len(gpus)} GPUs{limited}. Ask for at most {most}: "
            f"--set-resources <rule>:gpu={most}, or `set-resources` in the profile."
        )
    folder = _folder()
    locks = _try(gpus, n, folder)
    if not locks:
        print(f"Too few GPUs are free: waiting for {n} of {', '.join(gpus)} (locks in {folder}).", flush=True)
    while not locks:
        time.sleep(WAIT_S)
        locks = _try(gpus, n, folder)
    _held.extend(locks.values())
    if "SLURM_JOB_ID" in os.environ:
        atexit.register(_leave, folder)
    os.environ[VARIABLE] = ",".join(locks)
    print(f"GPU: {', '.join(locks)}", flush=True)
    return list(locks)
