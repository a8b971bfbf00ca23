"""The audit passes on what is right, and each kind of sabotage makes it fail and name the row."""

import pytest
import torch
from datasets import Dataset
from tiny_model import KINDS, audit, make_model, render, write_splits
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from _chat import load_chat
from _files import UserError, read_json, read_jsonl, sha256_file, write_jsonl
from _labels import build_dataset, check_labels


@pytest.fixture(scope="module", params=list(KINDS))
def study(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    write_splits(folder, train=20)
    record = make_model(folder / "model", request.param)
    render(folder, record, "train")
    return folder, record


@pytest.fixture
def parts(study):
    folder, record = study
    chat, rows = load_chat(read_json(record)), read_jsonl(folder / "prompts/train.jsonl")
    return chat, rows, build_dataset(chat, rows), DataCollatorForLanguageModeling(chat.tokenizer.pad_token_id)


def test_audit_of_good_prompts(study):
    folder, record = study
    report = read_json(audit(folder, record))
    assert report["pass"] is True
    assert report["rows"] == report["checked"] == 20
    assert report["truncated"] == 0
    assert report["sha256"]["prompts"] == sha256_file(folder / "prompts/train.jsonl")
    completions = [row["completion_tokens"] for row in read_jsonl(folder / "prompts/train.jsonl")]
    assert report["label_tokens"] == sum(completions)
    assert "SELECT name  ,  age FROM singer WHERE age > 2" in report["example"]["labels_decoded"]


def changed(dataset, row, **columns):
    rows = dataset.to_list()
    rows[row] |= {name: change(rows[row][name]) for name, change in columns.items()}
    return Dataset.from_list(rows)


def test_end_of_turn_outside_the_loss(parts):
    chat, rows, dataset, collator = parts
    bad = changed(dataset, 17, labels=lambda labels: [*labels[:-1], -100])
    with pytest.raises(UserError, match=rf"{rows[17]['id']}: found .* in the loss, expected"):
        check_labels(chat, bad, collator, rows, 1024)


def test_answer_outside_the_loss(parts):
    chat, rows, dataset, collator = parts
    bad = changed(dataset, 3, labels=lambda labels: [-100] * len(labels))
    with pytest.raises(UserError, match=rf"{rows[3]['id']}: found '' in the loss"):
        check_labels(chat, bad, collator, rows, 1024)


def test_prompt_inside_the_loss(parts):
    chat, rows, dataset, collator = parts
    bad = changed(dataset, 5, labels=lambda labels: [7, *labels[1:]])
    with pytest.raises(UserError, match=rf"{rows[5]['id']}: found .* in the loss"):
        check_labels(chat, bad, collator, rows, 1024)


def test_answer_of_another_row(parts):
    chat, rows, dataset, collator = parts
    swapped = [rows[1], rows[0], *rows[2:]]
    with pytest.raises(UserError, match=rows[1]["id"]):
        check_labels(chat, dataset, collator, swapped, 1024)


def test_labels_that_are_not_the_tokens(parts):
    chat, rows, dataset, collator = parts
    bad = changed(dataset, 4, input_ids=lambda ids: [*ids[:-2], ids[-3], ids[-1]])
    with pytest.raises(UserError, match=rf"{rows[4]['id']}: a label differs from the token"):
        check_labels(chat, bad, collator, rows, 1024)


def test_row_dropped(parts):
    chat, rows, dataset, collator = parts
    with pytest.raises(UserError, match="found 19 rows in the training set, expected 20"):
        check_labels(chat, dataset.select(range(19)), collator, rows, 1024)


def test_row_cut(parts):
    chat, rows, dataset, collator = parts
    longest = max(map(len, dataset["input_ids"]))
    check_labels(chat, dataset, collator, rows, longest)
    name = rows[[len(ids) for ids in dataset["input_ids"]].index(longest)]["id"]
    with pytest.raises(UserError, match=rf"{name}: found {longest} tokens, expected at most .*{longest - 1}"):
        check_labels(chat, dataset, collator, rows, longest - 1)
    cut = changed(dataset, 8, input_ids=lambda ids: ids[1:], labels=lambda labels: labels[1:])
    with pytest.raises(UserError, match=rf"{rows[8]['id']}: found .* tokens, expected"):
        check_labels(chat, cut, collator, rows, 1024)


def test_double_bos(parts):
    chat, rows, _, collator = parts
    rows = [dict(row) for row in rows]
    rows[2]["prompt"] = chat.tokenizer.bos_token + rows[2]["prompt"]
    with pytest.raises(UserError, match=rf"{rows[2]['id']}: found 2 BOS"):
        check_labels(chat, build_dataset(chat, rows), collator, rows, 1024)


def test_collator_that_ignores_the_labels(parts):
    """The defect of a published study: the collator made labels of the input, so the prompt was learned."""
    chat, rows, dataset, _ = parts
    collator = DataCollatorForLanguageModeling(chat.tokenizer.pad_token_id)
    with pytest.raises(UserError, match=rf"{rows[0]['id']}: found .* in the loss"):
        check_labels(chat, dataset, lambda batch: collator([{"input_ids": r["input_ids"]} for r in batch]), rows, 1024)


def test_collator_that_puts_padding_into_the_loss(parts):
    chat, rows, dataset, collator = parts

    def sabotaged(examples):
        batch = collator(examples)
        batch["labels"] = torch.where(batch["attention_mask"] == 0, chat.end_of_turn_id, batch["labels"])
        return batch

    with pytest.raises(UserError, match="found padding in the loss"):
        check_labels(chat, dataset, sabotaged, rows, 1024)


@pytest.fixture
def copy(tmp_path):
    write_splits(tmp_path)
    record = make_model(tmp_path / "model")
    render(tmp_path, record, "train")
    return tmp_path, record


def edit(path, row, **values):
    rows = read_jsonl(path)
    rows[row] |= values
    write_jsonl(path, rows)


def test_completion_that_is_not_gold(copy):
    folder, record = copy
    edit(folder / "prompts/train.jsonl", 6, completion="SELECT 1<|eot_id|>")
    with pytest.raises(UserError, match=r"train_spider-00008: the completion is 'SELECT 1<\|eot_id\|>'"):
        audit(folder, record)
    assert not (folder / "audit_labels.json").exists()


def test_completion_without_end_of_turn(copy):
    folder, record = copy
    gold = read_jsonl(folder / "splits/train.jsonl")[6]["query"]
    edit(folder / "prompts/train.jsonl", 6, completion=gold)
    with pytest.raises(UserError, match="train_spider-00008"):
        audit(folder, record)


@pytest.mark.parametrize(("split", "what"), [("shots", "few-shot examples"), ("dev", "dev questions")])
def test_rows_that_must_not_be_trained_on(copy, split, what):
    folder, record = copy
    row = read_jsonl(folder / "splits/train.jsonl")[4]
    other = read_jsonl(folder / f"splits/{split}.jsonl")
    write_jsonl(folder / f"splits/{split}.jsonl", [*other, row])
    with pytest.raises(UserError, match=f"{row['id']}: found among the {what}"):
        audit(folder, record)
    write_jsonl(folder / f"splits/{split}.jsonl", [*other, {**row, "id": "other-00001"}])
    with pytest.raises(UserError, match=f"{row['id']}: asks the question of other-00001, one of the {what}"):
        audit(folder, record)


def test_no_training_rows(copy):
    folder, record = copy
    write_jsonl(folder / "prompts/train.jsonl", [])
    with pytest.raises(UserError, match="no training rows"):
        audit(folder, record)
