"""GPUs that are not here, by name: what `plan` estimates for them.

Peak rates and memory are those of NVIDIA's data sheets and architecture white papers: dense products of 16-bit matrices
that sum in 32 bits, products in fp32 without tensor cores, and the bandwidth of the memory. How much of a peak is
reached was measured on the H100 and the H200 (benchmarks/results): other GPUs are assumed to reach as much.
"""

from llm.memory import Device

# Of the peak: products of large matrices 0.73 to 0.76, copies 0.90.
MATRIX, COPY = 0.74, 0.90
# By the name: memory in MiB as nvidia-smi shows it, 10^12 operations a second in 16 bits and in fp32, 10^9 bytes a
# second.
NAMED_GPUS = {
    "T4": (15360, 65, 8.1, 320),
    "RTX3090": (24576, 71, 35.6, 936),
    "RTX4090": (24564, 165, 82.6, 1008),
    "L4": (23034, 121, 30.3, 300),
    "A100-40GB": (40960, 312, 19.5, 1555),
    "A100-80GB": (81920, 312, 19.5, 2039),
    "H100": (81559, 989, 66.9, 3350),
    "H200": (143771, 989, 66.9, 4800),
}


def named_gpu(name: str) -> Device:
    """The GPU of this name in `NAMED_GPUS`, with the rates that it is estimated to reach.

    Raises:
        KeyError: there is no such name.
    """
    mebibytes, half, single, copies = NAMED_GPUS[name]
    flops = {"fp32": MATRIX * single * 1e12, "bf16": MATRIX * half * 1e12}
    return Device(f"{name}, not here", mebibytes * 2**20, True, flops, COPY * copies * 1e9)
