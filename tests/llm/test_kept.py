"""Quantised weights are kept: the same bits again, from fewer bytes, and never what somebody changed."""

import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from common.files import read_json, write_json
from families import save_family
from llm import kept
from llm.load import load_model
from tests.llm.test_families import FAMILIES
from tiny_model import make_model

NF4 = {
    "load_in_4bit": True,
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": True,
    "bnb_4bit_compute_dtype": torch.bfloat16,
}
WAYS = {"nf4": NF4, "fp4": NF4 | {"bnb_4bit_quant_type": "fp4", "bnb_4bit_use_double_quant": False}}
WAYS |= {"as bf16": NF4 | {"bnb_4bit_quant_storage": torch.bfloat16}, "int8": {"load_in_8bit": True}}

# transformers does not read what it wrote of them.
ANEW = {"hrm_text", "hy_v4", "llama4", "llama4_text", "qwen4_exp", "qwen4_exp_text"}


def options(**keys) -> dict:
    return {
        "dtype": torch.bfloat16,
        "device_map": {"": "cpu"},
        "quantization_config": BitsAndBytesConfig(**(keys or NF4)),
    }


@pytest.fixture
def record(tmp_path) -> dict:
    """A model's record."""
    return read_json(make_model(tmp_path / "model"))


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """Of bytes that are held as numbers some are no number."""
    return tensor.reshape(-1).view(torch.uint8)


def folders() -> list[Path]:
    return sorted(path for path in kept.KEPT.iterdir() if path.is_dir())


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        # In evaluation bitsandbytes would pack the weights anew for a CPU, of which these are too few.
        return model.train()(torch.arange(40)[None]).logits


def forget_weights(record: dict) -> None:
    """Delete the weights that would have to be quantised again."""
    for file in Path(record["path"]).glob("*.safetensors"):
        file.unlink()


@pytest.mark.parametrize("way", WAYS)
def test_the_second_job_has_the_first_ones_bits_without_reading_the_model(record, way):
    first = kept.load_quantised(record, options(**WAYS[way]))
    whole = sum(file.stat().st_size for file in Path(record["path"]).glob("*.safetensors"))
    forget_weights(record)
    second = kept.load_quantised(record, options(**WAYS[way]))
    ours, theirs = first.state_dict(), second.state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(bits(tensor), bits(theirs[name])) and tensor.dtype == theirs[name].dtype, name
    assert torch.equal(logits(first), logits(second))
    assert second.name_or_path == second.config.name_or_path == first.name_or_path == record["path"]
    assert second.is_loaded_in_4bit if way != "int8" else second.is_loaded_in_8bit
    (folder,) = folders()
    assert sum(file.stat().st_size for file in folder.glob("*.safetensors")) < whole


def test_other_settings_and_other_models_have_their_own(record):
    for one, keys in ((record, NF4), (record, WAYS["fp4"]), (record | {"sha256": "0" * 64}, NF4)):
        kept.load_quantised(one, options(**keys))
    kept.load_quantised(record, options() | {"dtype": torch.float16})
    assert len(folders()) == 4


def test_the_weights_of_other_libraries_are_not_taken(record, monkeypatch):
    kept.load_quantised(record, options())
    monkeypatch.setattr(kept, "versions", lambda: dict.fromkeys(kept.LIBRARIES, "99.0"))
    kept.load_quantised(record, options())
    assert len(folders()) == 2


def change_byte(folder: Path) -> None:
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)


def cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def lose_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def lose_quantization(folder: Path) -> None:
    config = read_json(folder / "config.json")
    del config["quantization_config"]
    write_json(folder / "config.json", config)


def lose_sums(folder: Path) -> None:
    (folder / kept.SUMS).write_text("{")


@pytest.mark.parametrize("harm", [change_byte, cut, lose_config, lose_quantization, lose_sums])
def test_what_was_changed_is_never_used(record, harm, capsys):
    first = kept.load_quantised(record, options())
    (folder,) = folders()
    harm(folder)
    again = kept.load_quantised(record, options())
    said = capsys.readouterr().out
    assert f"{folder}: the weights are not as they were kept (" in said
    assert "Delete the folder, and they are kept once more." in said
    assert torch.equal(logits(first), logits(again))
    kept.load_quantised(record, options())  # a family whose weights never come back costs no further writing
    assert not [*folder.iterdir()]
    folder.rmdir()
    kept.load_quantised(record, options())
    forget_weights(record)
    assert torch.equal(logits(first), logits(kept.load_quantised(record, options())))
    assert "kept" not in capsys.readouterr().out


def test_an_exchange_of_two_weights_is_seen(record):
    model = kept.load_quantised(record, options())
    before = kept._sums(model)
    norm = model.model.norm.weight
    with torch.no_grad():
        norm[0], norm[1] = 2.0, 3.0
        one = kept._sums(model)
        norm[0], norm[1] = 3.0, 2.0
    other = kept._sums(model)
    assert {name for name, _ in one.items() ^ other.items()} == {"model.norm.weight"}
    assert {name for name, _ in before.items() ^ other.items()} == {"model.norm.weight"}


def test_a_writer_that_was_killed_leaves_nothing_that_counts(record):
    kept.load_quantised(record, options())
    (folder,) = folders()
    shutil.move(folder, partial := folder.with_name(f"{folder.name}.part"))
    (partial / kept.SUMS).unlink()
    kept.load_quantised(record, options())
    assert folders() == [folder]


def test_one_job_writes_and_the_others_go_on(record, capsys):
    kept.load_quantised(record, options())
    (folder,) = folders()
    shutil.rmtree(folder)
    with FileLock(f"{folder}.lock"):
        assert logits(kept.load_quantised(record, options())).isfinite().all()
    assert folders() == []
    assert not capsys.readouterr().out


def test_a_full_disk_does_not_end_the_job(record, monkeypatch, capsys):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1000))
    assert logits(kept.load_quantised(record, options())).isfinite().all()
    assert (
        "the quantised weights are not kept, each job quantises anew ([Errno 28] it takes " in capsys.readouterr().out
    )
    assert folders() == []


def test_a_folder_that_cannot_be_written_does_not_end_the_job(record, capsys):
    kept.KEPT.write_text("a file in the folder's place")
    assert logits(kept.load_quantised(record, options())).isfinite().all()
    assert "the quantised weights are not kept" in capsys.readouterr().out


def test_a_model_that_cannot_be_read_is_no_matter_of_what_is_kept(record):
    forget_weights(record)
    with pytest.raises(OSError, match=r"no file named model\.safetensors"):
        kept.load_quantised(record, options())
    assert not kept.KEPT.exists()


def test_a_model_on_a_cpu_loads_as_before(record):
    model = AutoModelForCausalLM.from_pretrained(record["path"], **options())
    assert torch.equal(logits(model), logits(kept.load_quantised(record, options())))


@pytest.mark.families
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_comes_back_as_it_was_or_is_quantised_anew(tmp_path, name, capsys):
    record = save_family(tmp_path, name)
    first = kept._sums(kept.load_quantised(record, options()))
    assert kept._sums(kept.load_quantised(record, options())) == first
    assert ("the weights are not as they were kept" in capsys.readouterr().out) == (name in ANEW)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["nf4", "int8"])
def test_a_study_on_a_gpu_keeps_its_weights(record, precision, capsys):
    first = load_model(record, precision)
    forget_weights(record)
    second = load_model(record, precision)
    assert "kept" not in capsys.readouterr().out
    ids = torch.arange(40, device="cuda")[None]
    assert torch.equal(first(ids).logits, second(ids).logits)
