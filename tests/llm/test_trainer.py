"""The trainer leans on names that libraries do not promise to keep."""

import inspect

import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from peft import LoraConfig
from transformers import PreTrainedModel, Trainer
from transformers.trainer_pt_utils import LengthGroupedSampler
from trl import SFTTrainer

from common.files import read_json
from llm import trainer as module
from llm.chat import load_chat
from llm.labels import build_dataset
from llm.load import load_model
from llm.options import training_arguments
from tests.llm.test_training import TRAINING
from tiny_model import make_model, spider_rows


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """TRL's own trainer, of which ours is a subclass."""
    folder = tmp_path_factory.mktemp("plain")
    record = read_json(make_model(folder / "model"))
    chat = load_chat(record)
    rows = [{"prompt": row["question"], "completion": row["query"]} for row in spider_rows("train", 4)]
    return SFTTrainer(
        model=load_model(record, "fp32"),
        args=training_arguments(TRAINING, "fp32", folder),
        train_dataset=build_dataset(chat, rows),
        processing_class=chat.tokenizer,
    )


@pytest.mark.parametrize("name", module.PRIVATE)
def test_the_libraries_still_have_what_is_private(plain, name):
    assert hasattr(plain, name) or f"self.{name} = " in inspect.getsource(Trainer)
    assert not hasattr(object(), name)


def test_what_is_overridden_is_still_called():
    """A method that the libraries have renamed would be overridden in vain."""
    source = inspect.getsource(Trainer) + inspect.getsource(SFTTrainer)
    for name in (
        "_get_train_sampler",
        "_set_signature_columns_if_needed",
        "_train_batch_size",
        "_total_train_tokens",
        "_save_checkpoint",
        "_load_from_checkpoint",
        "_load_best_model",
    ):
        assert f"self.{name}" in source
    assert {"num_processes", "process_index"} <= BatchSamplerShard(range(2)).__dict__.keys()
    assert {"batch_size", "lengths"} <= LengthGroupedSampler(1, lengths=[1, 2]).__dict__.keys()


def test_what_engines_and_packing_ask_of_a_model():
    assert hasattr(PreTrainedModel, "_can_set_attn_implementation")
    assert callable(PreTrainedModel.get_decoder)


def test_a_checkpoint_is_loaded_in_the_type_in_which_its_adapter_is_trained(tmp_path):
    """An adapter beside nf4 is in bf16, of which PEFT makes fp32 when it loads one."""
    record = read_json(make_model(tmp_path / "model"))
    chat = load_chat(record)
    rows = [{"prompt": row["question"], "completion": row["query"]} for row in spider_rows("train", 4)]
    trainer = module.Trainer(
        model=load_model(record, "fp32"),
        args=training_arguments(TRAINING, "fp32", tmp_path),
        train_dataset=build_dataset(chat, rows),
        processing_class=chat.tokenizer,
        peft_config=LoraConfig(r=2, target_modules=["q_proj"]),
    )

    def adapter():
        return {name: weight for name, weight in trainer.model.named_parameters() if weight.requires_grad}

    for weight in adapter().values():
        weight.data = torch.randn_like(weight, dtype=torch.bfloat16)
    saved = {name: weight.detach().clone() for name, weight in adapter().items()}
    trainer.model.save_pretrained(tmp_path / "checkpoint")
    for weight in adapter().values():
        weight.data = torch.zeros_like(weight)
    trainer._load_from_checkpoint(str(tmp_path / "checkpoint"))
    assert adapter().keys() == saved.keys()
    for name, weight in adapter().items():
        assert weight.dtype == torch.bfloat16
        assert torch.equal(weight, saved[name])
