"""Train one LoRA adapter, on one card or on several."""

import os
from collections.abc import Sequence
from pathlib import Path
from socket import socket
from typing import Any

import torch

import _path  # noqa: F401
from common.gpus import take
from common.job import job
from llm import shards as _shards


def train_on(cards: Sequence[str], **given: Any) -> None:
    """Train here, or with a process on each card if there are several; see `llm.training.train` for what is `given`.

    The processes compute the same optimizer steps as one would: each takes its share of a step's rows, and they add up
    their gradients (data-parallel, by accelerate).

    Raises:
        UserError: a process ended otherwise than well.
    """
    if len(cards) < 2:
        # Not before cards are taken: what it imports asks CUDA which there are.
        from llm.training import train

        return train(**given)
    _shards.run(cards, [given] * len(cards), "llm.training.train", ranks(len(cards)))


def ranks(count: int) -> list[dict[str, str]]:
    """Return the variables by which processes on this machine find each other, as torch.distributed reads them."""
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        {
            "RANK": str(rank),
            # Each process sees one card, its first.
            "LOCAL_RANK": "0",
            "WORLD_SIZE": str(count),
            "LOCAL_WORLD_SIZE": str(count),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        for rank in range(count)
    ]


if __name__ == "__main__":
    run_dir = Path(snakemake.output.report).parent  # …/runs/<model>/<variant>
    with job(snakemake.log[0], lock=run_dir / ".train.lock"):
        cards = take(snakemake.resources.gpu)
        os.environ["OMP_NUM_THREADS"] = str(snakemake.threads)  # of processes that are started
        torch.set_num_threads(snakemake.threads)
        train_on(
            cards,
            prompts=str(snakemake.input.prompts),
            audit=str(snakemake.input.audit),
            record=str(snakemake.input.record),
            adapter_dir=str(run_dir / "adapter"),
            report=str(snakemake.output.report),
            # An input that a study does not use is an empty list.
            validation=str(snakemake.input.get("validation") or "") or None,
            replay_prompts=str(snakemake.input.get("replay") or "") or None,
            replay_audit=str(snakemake.input.get("replay_audit") or "") or None,
            tensorboard_dir=str(run_dir.parents[2] / "tensorboard" / run_dir.parent.name / run_dir.name),
            kept_steps=sorted({int(Path(file).parent.name) for file in snakemake.output.get("kept", [])}),
            **snakemake.params.settings,
        )
