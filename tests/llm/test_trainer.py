"""The trainer leans on names that libraries do not promise to keep."""

import inspect

import pytest
from accelerate.data_loader import BatchSamplerShard
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
