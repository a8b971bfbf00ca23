"""The trainer: TRL's, but for a few things.

Only this file subclasses a trainer or sets private attributes of TRL, transformers or accelerate. `PRIVATE` lists those
that it uses; tests/llm/test_trainer.py fails if a new version of these libraries drops one.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate.data_loader import BatchSamplerShard
from peft.tuners.tuners_utils import BaseTunerLayer
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel
from transformers.trainer_pt_utils import LengthGroupedSampler
from trl import SFTTrainer

from common.files import read_json, write_json
from llm import full
from llm.labels import IGNORED, rows_of
from llm.packing import divide, pack
from llm.step_graphs import StepGraphs

PRIVATE = (
    "_get_train_sampler",  # overridden: the order of an epoch does not depend on the global generator
    "_set_signature_columns_if_needed",  # overridden: the column `replay` reaches the collator
    "_signature_columns",
    "_train_batch_size",  # all rows of a step are one batch
    "_metrics",  # emptied after a measurement, and kept beside a checkpoint
    "_total_train_tokens",
    "_save_checkpoint",  # overridden: what is summed up since the last log is kept too
    "_clip_grad_norm",  # overridden: of the trained weights, without a walk through all modules
    "_load_from_checkpoint",  # overridden: an adapter stays in its type; of all weights, the files are an adapter's
    "_load_best_model",
    "_tr_loss",
    "_globalstep_last_logged",
)


class EpochLengths(LengthGroupedSampler):
    """Rows of about the same length together, in an order that is drawn for each epoch by itself.

    transformers draws it from the global generator, whose state at the start of an epoch a run that is resumed within
    that epoch does not know.
    """

    def __init__(self, *args, seed: int, **kwargs):
        super().__init__(*args, **kwargs, generator=torch.Generator())
        self.seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw the order of this epoch next; the trainer calls it."""
        self.generator.manual_seed(self.seed + epoch)


def mark(collator: Callable[[list[dict]], dict], examples: Sequence[dict]) -> dict:
    """Make a batch by a collator, with `replay`, bool (rows), where examples say whether they are replayed."""
    batch = collator([{key: example[key] for key in ("input_ids", "labels")} for example in examples])
    marks = [example["replay"] for example in examples if "replay" in example]
    return batch | ({"replay": torch.tensor(marks)} if marks else {})


class Trainer(SFTTrainer):
    """TRL's trainer, but for the sampler that groups by length, the micro-batches of a step, and replayed rows.

    With `micro_batch_tokens`, a batch is all the rows of an optimizer step, in each process. They are divided into
    micro-batches of at most so many tokens, which changes the gradient by rounding only: the loss is the sum over the
    step's labels divided by their number. What the rows begin with, `start`, is computed once in each micro-batch.

    With `kl`, the loss at each label of a replayed row is its cross entropy and `kl` times KL(base || tuned) there; the
    sum is divided by the same number, that of all the step's labels. The term is computed in micro-batches of its own,
    of these rows alone and of logits at their labels alone; the base is the model with its adapter switched off, or,
    where all its weights are trained, the model `base`.

    With `graphs`, small steps of one micro-batch are computed by CUDA graphs.

    Where the model is `divided` among the processes (`llm.sharded`), all of them go through it equally often.
    """

    micro_batch_tokens: int | None = None
    start: Sequence[int] = ()
    kl: float = 0.0
    base: PreTrainedModel | None = None
    graphs: StepGraphs | None = None

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.divided = any(isinstance(module, FSDPModule) for module in self.model.modules())
        if self.divided:  # DistributedDataParallel takes no such model: gradients are added up in `training_step`
            self.accelerator.prepare_model = partial(self.accelerator.prepare_model, evaluation_mode=True)
        # Of this process, since the last log: sums over the labels of replayed rows, and how many these were.
        self._replayed = {"kl": 0.0, "loss": 0.0, "labels": 0}
        self._unlogged: dict[str, Any] = {}
        self._walk_less()

    def _walk_less(self) -> None:
        """Walk through the model's thousands of modules once, and not for each micro-batch and each gradient.

        In small steps, for which a GPU waits, these walks take a tenth of the time.
        """
        model = self.model.train()

        def train(mode: bool = True):
            return model if model.training == mode else type(model).train(model, mode)

        def zero_grad(set_to_none: bool = True):
            for weight in self._trained() or model.parameters():
                weight.grad = None

        model.train, model.zero_grad = train, zero_grad

    def _trained(self) -> list[torch.nn.Parameter]:
        """The weights that the optimizer has; none before there is one."""
        return [weight for group in self.optimizer.param_groups for weight in group["params"]] if self.optimizer else []

    def _clip_grad_norm(self, model):
        return self.accelerator.clip_grad_norm_(self._trained(), self.args.max_grad_norm)

    def go_on_from(self, checkpoint: Path) -> None:
        """Take up, in the first step, what was summed up between the last log and a checkpoint."""
        path = checkpoint / f"unlogged_{self.args.process_index}.json"
        self._unlogged = read_json(path) if path.exists() else {}

    def _save_checkpoint(self, model, trial):
        """Save, besides, what this process has summed up since the last log: the next mean is of that too."""
        sums = {"loss": self._tr_loss.item(), "after_step": self._globalstep_last_logged}
        sums |= {"metrics": self._metrics["train"], "replayed": self._replayed}
        folder = Path(self.args.output_dir, f"checkpoint-{self.state.global_step}")
        write_json(folder / f"unlogged_{self.args.process_index}.json", sums)
        super()._save_checkpoint(model, trial)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        """Load the adapter in the type that it is trained in; PEFT makes fp32 of one in bf16, as beside nf4."""
        model = model or self.model
        dtypes = {name: weight.dtype for name, weight in model.named_parameters() if weight.requires_grad}
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        for name, weight in model.named_parameters():
            weight.data = weight.data.to(dtypes.get(name, weight.dtype))

    def use(self, micro_batches: Mapping[str, Any]) -> None:
        """Compute each step in micro-batches, as `llm.fit.settle` has found."""
        arguments, rows = self.args, micro_batches["rows_per_step"]
        before = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps
        self.micro_batch_tokens = micro_batches["tokens_per_pass"]
        self.start = self.start[: micro_batches["shared_tokens"]]
        arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps = rows, 1
        self._train_batch_size = rows
        self.accelerator.gradient_accumulation_steps = 1
        if arguments.max_steps > 0:  # as many rows as in steps of the study's size
            arguments.max_steps = -(-arguments.max_steps * before // rows)
        arguments.gradient_checkpointing = micro_batches["gradient_checkpointing"]
        if arguments.bf16 or arguments.fp16:
            # Autocast makes half precision of what PEFT has made fp32.
            for module in self.model.modules():
                if isinstance(module, BaseTunerLayer):
                    module.cast_input_dtype_enabled = False

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Compute losses that leave no trace.

        The other processes wait meanwhile: the loss must not ask them for their part of its metrics.
        """
        self.accelerator.gather_for_metrics = lambda tensor: tensor
        try:
            yield
        finally:
            del self.accelerator.gather_for_metrics
            self.model.zero_grad(set_to_none=True)
            for metrics in self._metrics.values():
                metrics.clear()
            self._total_train_tokens = 0

    def get_train_dataloader(self):
        """TRL's loader, but each process sees every row of a step, since `training_step` divides them."""
        loader = super().get_train_dataloader()
        if self.micro_batch_tokens and isinstance(loader.batch_sampler, BatchSamplerShard):
            loader.batch_sampler.num_processes, loader.batch_sampler.process_index = 1, 0
        return loader

    def training_step(self, model, inputs, num_items_in_batch=None):
        """Compute the gradient of one step, in micro-batches; out of GPU memory, in smaller ones from then on."""
        loss = self._all_micro_batches(model, inputs, num_items_in_batch)
        if self.divided and self.accelerator.sync_gradients:
            for weight in self._trained():
                weight.grad = self.accelerator.reduce(weight.grad, "mean")
        return loss

    def _all_micro_batches(self, model, inputs, num_items_in_batch):
        if self._unlogged:
            self._tr_loss += self._unlogged["loss"]
            self._globalstep_last_logged = self._unlogged["after_step"]
            self._metrics["train"].update(self._unlogged["metrics"])
            self._replayed |= self._unlogged["replayed"]  # which keeps their order
            self._unlogged = {}
        marks = inputs.pop("replay", None)
        rows = rows_of(inputs) if self.micro_batch_tokens or marks is not None else []
        replayed = [] if marks is None else list(itertools.compress(rows, marks.tolist()))
        if not self.micro_batch_tokens:
            term = self._diverge(model, [[row] for row in replayed], num_items_in_batch)
            return term + super().training_step(model, inputs, num_items_in_batch)
        labels = sum(label != IGNORED for _, row in rows for label in row)
        counted = self._total_train_tokens
        while True:
            try:
                loss = self._step(model, rows, replayed, torch.tensor(labels, device=self.args.device))
                # Those of the rows, and not those that were computed.
                self._total_train_tokens = counted + sum(len(ids) for ids, _ in rows)
                self._metrics["train"]["num_tokens"] = [self._total_train_tokens]
                return loss
            except torch.cuda.OutOfMemoryError:
                longest = max(len(ids) for ids, _ in rows)
                if self.graphs and self.graphs.tokens:
                    self.graphs.give_up("out of GPU memory")
                elif self.args.world_size > 1 or self.micro_batch_tokens <= longest:
                    raise
                else:
                    self.micro_batch_tokens = max(longest, self.micro_batch_tokens // 2)
                    print(
                        f"Out of GPU memory: going on with {self.micro_batch_tokens} tokens a micro-batch.", flush=True
                    )
            model.zero_grad()
            torch.cuda.empty_cache()

    def _step(self, model, rows, replayed, labels):
        def mine(rows):
            return divide(rows, self.micro_batch_tokens, self.args.world_size, self.start)[self.args.process_index]

        loss = self._diverge(model, mine(replayed) if replayed else [], labels)
        *parts, last = mine(rows)
        if self.graphs and not parts:
            with self.graphs.filled(last, self.args.device, self.start, self.micro_batch_tokens) as batch:
                return loss + super().training_step(model, batch, labels)
        with self.accelerator.no_sync(model):  # the processes add up their gradients once, at the last
            for part in parts:
                loss += super().training_step(model, pack(part, self.args.device, self.start), labels)
        return loss + super().training_step(model, pack(last, self.args.device, self.start), labels)

    def _diverge(self, model, parts, labels):
        """Add the gradient of the KL term, in micro-batches of replayed rows, to the model's; the term.

        The `parts` are this process's; `labels` is how many the step has in all processes.
        """
        device = self.args.device
        term = torch.zeros((), device=device)
        if not parts:
            return term
        inner = self.accelerator.unwrap_model(model)
        for part in parts:
            batch = pack(part, device, self.start)
            targets = batch.pop("labels")[0]
            at = (targets != IGNORED).nonzero()[:, 0]
            if not len(at) and not self.divided:
                continue
            if not self.micro_batch_tokens:  # attention that knows nothing of packed rows
                batch = {"input_ids": batch["input_ids"]}
            given = batch | {"logits_to_keep": at - 1, "use_cache": False}
            # By the model without its wrapper: processes with other numbers of micro-batches do not wait for each
            # other here, and add these gradients up with those of their last micro-batch.
            with self.accelerator.no_sync(model), self.compute_loss_context_manager():
                inner.eval()
                whole = self.base is not None
                with torch.no_grad(), nullcontext() if whole else inner.disable_adapter():
                    base = (self.base if whole else inner)(**given).logits[0].float().log_softmax(-1)
                inner.train()
                tuned = inner(**given).logits[0].float().log_softmax(-1)
                divergence = F.kl_div(tuned, base, reduction="sum", log_target=True)
                # Gradients are averaged over the processes.
                loss = self.kl * divergence / labels * self.args.world_size
                self.accelerator.backward(loss)
            term += loss.detach()
            self._replayed["kl"] += divergence.item()
            self._replayed["loss"] += F.nll_loss(tuned.detach(), targets[at], reduction="sum").item()
            self._replayed["labels"] += len(at)
        return term

    def floating_point_ops(self, inputs):
        """None: nobody reads how many there were, and to count all weights in each step takes a tenth of its time."""
        return 0

    def log(self, logs, start_time=None):
        """Log the means over the labels of the rows replayed since the last log beside the loss: KL, cross entropy."""
        if self.kl and "loss" in logs:
            # Apple's GPUs have no fp64.
            dtype = torch.float32 if self.args.device.type == "mps" else torch.float64
            sums = torch.tensor([*self._replayed.values()], dtype=dtype, device=self.args.device)
            kl, loss, labels = self.accelerator.reduce(sums, "sum").tolist()
            if labels:
                logs |= {"replay_kl": kl / labels, "replay_loss": loss / labels}
            self._replayed = dict.fromkeys(self._replayed, 0)
        super().log(logs, start_time)

    def _set_signature_columns_if_needed(self):
        super()._set_signature_columns_if_needed()
        if "replay" not in self._signature_columns:
            self._signature_columns.append("replay")

    def _get_train_sampler(self, train_dataset=None):
        sampler = super()._get_train_sampler(train_dataset)
        if isinstance(sampler, LengthGroupedSampler):
            sampler = EpochLengths(sampler.batch_size, lengths=sampler.lengths, seed=self.args.seed)
        return sampler


class FullTrainer(Trainer):
    """The trainer of all weights of a model, which end in the study's `precision`.

    Its checkpoints have the two files of an adapter (`llm.full`): transformers' own may be in several files, and have
    other names than the weights in the model.
    """

    def __init__(self, *args, precision: str, **kwargs):
        self.precision = precision
        super().__init__(*args, **kwargs)

    def save_model(self, output_dir=None, _internal_call=False):
        """Write the weights of a checkpoint."""
        if self.args.should_save:
            full.save_checkpoint(self.model, Path(output_dir or self.args.output_dir), self.precision)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        full.put(model or self.model, resume_from_checkpoint)

    def _load_best_model(self):
        """Load nothing: what is written is the best checkpoint's files."""
