"""How fast this machine is: two rates of its device, a matrix product and a copy, measured once in a few seconds."""

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.files import read_json, write_json


@dataclass(frozen=True)
class Device:
    """What jobs run on: its memory in bytes, and its rates (operations and bytes a second), {} where unknown."""

    name: str
    memory: float
    cuda: bool
    flops: dict[str, float]
    bandwidth: float | None


def rate(function: Callable[[], Any], wait: Callable[[], None], work: float) -> float:
    """Return `work` a second: the median of five calls, after one that is not counted."""
    seconds = []
    for _ in range(6):
        wait()
        start = time.perf_counter()
        function()
        wait()
        seconds.append(time.perf_counter() - start)
    return work / statistics.median(seconds[1:])


def this_device(calibration: Path) -> Device:
    """The first visible GPU, or this CPU with two threads, with the rates that the file `calibration` keeps."""
    import torch

    cuda = torch.cuda.is_available()
    if cuda:
        name, memory = torch.cuda.get_device_name(0), float(torch.cuda.mem_get_info(0)[1])
    else:
        torch.set_num_threads(2)  # as the rules have it
        name, memory = "cpu, 2 threads", float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    known = read_json(calibration) if calibration.exists() else {}
    if name not in known:
        where, wait = ("cuda", torch.cuda.synchronize) if cuda else ("cpu", lambda: None)
        side, copied = (8192, 2**30) if cuda else (1024, 2**27)
        flops = {}
        for precision, dtype in (("fp32", torch.float32), *([("bf16", torch.bfloat16)] if cuda else [])):
            a, b = (torch.randn(side, side, device=where, dtype=dtype) for _ in range(2))
            flops[precision] = rate(lambda a=a, b=b: a @ b, wait, 2 * side**3)
        source = torch.empty(copied, dtype=torch.uint8, device=where)
        target = torch.empty_like(source)
        known[name] = {"flops": flops, "bandwidth": rate(lambda: target.copy_(source), wait, 2 * copied)}
        write_json(calibration, known)
    return Device(name, memory, cuda, known[name]["flops"], known[name]["bandwidth"])
