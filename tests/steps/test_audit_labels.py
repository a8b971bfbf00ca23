"""The audit passes on what is right, and each kind of sabotage makes it fail and name the row."""

import pytest
import torch
from datasets import Dataset
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from common.files import UserError, read_json, read_jsonl, sha256_file, write_json, write_jsonl
from llm.chat import load_chat
from llm.labels import Limits, build_dataset, check_labels
from tasks.spider import FIELDS, held_out
from tiny_model import KINDS, SCHEMA, audit, make_model, render, write_splits


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
        check_labels(chat, bad, collator, rows, Limits(1024))


def test_answer_outside_the_loss(parts):
    chat, rows, dataset, collator = parts
    bad = changed(dataset, 3, labels=lambda labels: [-100] * len(labels))
    with pytest.raises(UserError, match=rf"{rows[3]['id']}: found '' in the loss"):
        check_labels(chat, bad, collator, rows, Limits(1024))


def test_prompt_inside_the_loss(parts):
    chat, rows, dataset, collator = parts
    bad = changed(dataset, 5, labels=lambda labels: [7, *labels[1:]])
    with pytest.raises(UserError, match=rf"{rows[5]['id']}: found .* in the loss"):
        check_labels(chat, bad, collator, rows, Limits(1024))


def test_answer_of_another_row(parts):
    chat, rows, dataset, collator = parts
    swapped = [rows[1], rows[0], *rows[2:]]
    with pytest.raises(UserError, match=rows[1]["id"]):
        check_labels(chat, dataset, collator, swapped, Limits(1024))


def test_labels_that_are_not_the_tokens(parts):
    chat, rows, dataset, collator = parts
    bad = changed(dataset, 4, input_ids=lambda ids: [*ids[:-2], ids[-3], ids[-1]])
    with pytest.raises(UserError, match=rf"{rows[4]['id']}: a label differs from the token"):
        check_labels(chat, bad, collator, rows, Limits(1024))


def test_row_dropped(parts):
    chat, rows, dataset, collator = parts
    with pytest.raises(UserError, match="found 19 rows in the training set, expected 20"):
        check_labels(chat, dataset.select(range(19)), collator, rows, Limits(1024))


def test_row_cut(parts):
    chat, rows, dataset, collator = parts
    longest = max(map(len, dataset["input_ids"]))
    check_labels(chat, dataset, collator, rows, Limits(longest))
    name = rows[[len(ids) for ids in dataset["input_ids"]].index(longest)]["id"]
    with pytest.raises(UserError, match=rf"{name}: found {longest} tokens, expected at most .*{longest - 1}"):
        check_labels(chat, dataset, collator, rows, Limits(longest - 1))
    cut = changed(dataset, 8, input_ids=lambda ids: ids[1:], labels=lambda labels: labels[1:])
    with pytest.raises(UserError, match=rf"{rows[8]['id']}: found .* tokens, expected"):
        check_labels(chat, cut, collator, rows, Limits(1024))


def test_double_bos(parts):
    chat, rows, _, collator = parts
    rows = [dict(row) for row in rows]
    rows[2]["prompt"] = chat.tokenizer.bos_token + rows[2]["prompt"]
    with pytest.raises(UserError, match=rf"{rows[2]['id']}: found 2 BOS"):
        check_labels(chat, build_dataset(chat, rows), collator, rows, Limits(1024))


def test_collator_that_ignores_the_labels(parts):
    """The defect of a published study: the collator made labels of the input, so the prompt was learned."""
    chat, rows, dataset, _ = parts
    collator = DataCollatorForLanguageModeling(chat.tokenizer.pad_token_id)
    with pytest.raises(UserError, match=rf"{rows[0]['id']}: found .* in the loss"):
        check_labels(
            chat, dataset, lambda batch: collator([{"input_ids": r["input_ids"]} for r in batch]), rows, Limits(1024)
        )


def test_collator_that_puts_padding_into_the_loss(parts):
    chat, rows, dataset, collator = parts

    def sabotaged(examples):
        batch = collator(examples)
        batch["labels"] = torch.where(batch["attention_mask"] == 0, chat.end_of_turn_id, batch["labels"])
        return batch

    with pytest.raises(UserError, match="found padding in the loss"):
        check_labels(chat, dataset, sabotaged, rows, Limits(1024))


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


def test_few_shot_examples_must_not_be_trained_on(copy):
    folder, record = copy
    row = read_jsonl(folder / "splits/train.jsonl")[4]
    first = read_jsonl(folder / "splits/shots.jsonl")[0]
    write_jsonl(folder / "splits/shots.jsonl", [first, row])
    with pytest.raises(UserError, match=f"{row['id']}: found among the few-shot examples.*tasks.spider.shots"):
        audit(folder, record)
    write_jsonl(folder / "splits/shots.jsonl", [first, {**row, "id": "other-00001"}])
    with pytest.raises(UserError, match=f"{row['id']}: asks the question of other-00001, one of the few-shot examples"):
        audit(folder, record)
    # Beyond those that are set aside the list has training rows, which other numbers of examples show the base.
    audit(folder, record, shots=1)


def test_questions_to_ask_must_not_be_trained_on(copy):
    folder, record = copy
    row = read_jsonl(folder / "splits/train.jsonl")[4]
    dev = folder / "data/spider/dev.json"
    write_json(dev, [*read_json(dev), {key: row[key] for key in FIELDS}])
    message = f"{row['id']}: asks the question of dev-00006, one of the questions to ask, of the same db_id"
    with pytest.raises(UserError, match=message):
        audit(folder, record)
    # Asked in this study or not: all of the release's are held out.
    write_jsonl(folder / "splits/test.jsonl", [])
    with pytest.raises(UserError, match=message):
        audit(folder, record)
    # The same words on another database are another question.
    tables = folder / "data/spider/tables.json"
    write_json(tables, [*read_json(tables), {**SCHEMA, "db_id": "other"}])
    write_json(dev, [{key: row[key] for key in FIELDS} | {"db_id": "other"}])
    audit(folder, record)


def test_a_row_that_has_the_id_of_a_question_to_ask(copy):
    folder, record = copy
    for file in ("splits/train.jsonl", "prompts/train.jsonl"):
        edit(folder / file, 4, id="dev-00003")
    with pytest.raises(UserError, match="row dev-00003: found among the questions to ask, expected in one only"):
        audit(folder, record)


def test_no_training_rows(copy):
    folder, record = copy
    write_jsonl(folder / "prompts/train.jsonl", [])
    with pytest.raises(
        UserError, match=r"prompts/train\.jsonl: found no rows, expected at least 1\. See tasks\.spider\."
    ):
        audit(folder, record)


def test_report_without_defects(copy):
    folder, record = copy
    report = read_json(audit(folder, record))
    assert (report["failed"], report["accepted"], report["without_target"]) == ([], [], 0)
    assert report["validation"] is None


def test_cut_rows_need_their_defect_named(copy):
    folder, record = copy
    rows = read_jsonl(folder / "prompts/train.jsonl")
    longest = max(row["prompt_tokens"] + row["completion_tokens"] for row in rows)
    shortest = min(row["prompt_tokens"] for row in rows)
    max_length = shortest + 2
    # Accepted, but not asked for: rows are never cut without training.truncate.
    with pytest.raises(UserError, match=r"found \d+ tokens, expected at most .*or shorten the prompt\.$"):
        audit(folder, record, max_length, accept_defect=["truncated"])
    with pytest.raises(UserError, match=r"found \d+ tokens, expected at most .*accept_defect: \[truncated\]"):
        audit(folder, record, max_length, truncate=True, accept_defect=["target_not_in_loss"])
    assert not (folder / "audit_labels.json").exists()
    report = read_json(audit(folder, record, max_length, truncate=True, accept_defect=["truncated"]))
    assert (report["pass"], report["failed"], report["accepted"]) == (False, ["truncated"], ["truncated"])
    assert report["truncated"] == sum(row["prompt_tokens"] + row["completion_tokens"] > max_length for row in rows)
    assert report["without_target"] == sum(row["prompt_tokens"] >= max_length for row in rows) > 0
    assert report["longest_row_tokens"] == max_length
    # Nothing is cut: nothing fails, and nothing was accepted.
    report = read_json(audit(folder, record, longest, truncate=True, accept_defect=["truncated"]))
    assert (report["pass"], report["accepted"]) == (True, [])
    with pytest.raises(UserError, match="cuts every row before its SQL"):
        audit(folder, record, shortest, truncate=True, accept_defect=["truncated"])


def test_prompt_as_target_needs_its_defect_named(study):
    folder, record = study
    good = read_jsonl(folder / "prompts/train.jsonl")
    prompts = render(folder, record, "train", loss_on="prompt")
    try:
        rows = read_jsonl(prompts)
        assert [row["prompt"] for row in rows] == [row["prompt"] for row in good]
        assert {(row["completion"], row["completion_tokens"]) for row in rows} == {("", 0)}
        with pytest.raises(UserError, match=r"the completion is '', .*not what training.loss_on: completion renders"):
            audit(folder, record, accept_defect=["target_not_in_loss"])
        with pytest.raises(UserError, match=r"completion is empty.*accept_defect: \[target_not_in_loss\]"):
            audit(folder, record, loss_on="prompt")
        report = read_json(audit(folder, record, loss_on="prompt", accept_defect=["target_not_in_loss"]))
        assert (report["pass"], report["failed"]) == (False, ["target_not_in_loss"])
        assert report["label_tokens"] == sum(row["prompt_tokens"] for row in rows)
    finally:
        write_jsonl(prompts, good)
    with pytest.raises(UserError, match=r"not what training.loss_on: prompt renders"):
        audit(folder, record, loss_on="prompt", accept_defect=["target_not_in_loss"])


def test_the_loss_on_all_turns_of_the_assistant(study):
    """Of every kind of chat template: the answers of the examples and of the row, each with its end of turn."""
    folder, record = study
    good = read_jsonl(folder / "prompts/train.jsonl")
    chat, shots = load_chat(read_json(record)), read_jsonl(folder / "splits/shots.jsonl")
    try:
        with pytest.raises(
            UserError, match=r"found assistant, but in .*text_to_sql.jinja few-shot examples are no turn"
        ):
            render(folder, record, "train", loss_on="assistant")
        prompts = render(folder, record, "train", "text_to_sql_turns", loss_on="assistant")
        rows = read_jsonl(prompts)
        report = read_json(audit(folder, record, loss_on="assistant"))
        dataset = build_dataset(chat, rows)
        with pytest.raises(UserError, match=r"not what training.loss_on: completion renders"):
            audit(folder, record)
        with pytest.raises(UserError, match=r"not what training.loss_on: text renders"):
            audit(folder, record, loss_on="text")
    finally:
        write_jsonl(folder / "prompts/train.jsonl", good)
    assert (report["pass"], report["loss_on"], report["without_target"]) == (True, "assistant", 0)
    ended = [shot["query"] + chat.end_of_turn for shot in shots]
    for row, labels in zip(rows, dataset["labels"], strict=True):
        said = [row["prompt"][start:end] for start, end in row["learnt"]]
        assert [text.replace(" " + chat.end_of_turn, chat.end_of_turn).strip() for text in said] == ended
        learnt = chat.tokenizer.decode([i for i in labels if i != -100], clean_up_tokenization_spaces=False)
        assert learnt.replace(" ", "") == "".join([*said, row["completion"]]).replace(" ", "")
    # Neither a token of a question in the loss nor an example's end of turn outside of it passes.
    collator = DataCollatorForLanguageModeling(chat.tokenizer.pad_token_id)
    first = next(i for i, label in enumerate(dataset["labels"][4]) if label != -100)
    last = dataset["labels"][4].index(chat.end_of_turn_id)
    for place, label in ((first - 1, dataset["input_ids"][4][first - 1]), (last, -100)):
        bad = changed(dataset, 4, labels=lambda old, i=place, new=label: [*old[:i], new, *old[i + 1 :]])
        with pytest.raises(UserError, match=rf"{rows[4]['id']}: (found .* in the loss, expected|the labels differ)"):
            check_labels(chat, bad, collator, rows, Limits(1024))


def test_the_loss_on_the_whole_text(study):
    folder, record = study
    good = read_jsonl(folder / "prompts/train.jsonl")
    chat, tokens = load_chat(read_json(record)), [row["prompt_tokens"] + row["completion_tokens"] for row in good]
    before = max(row["prompt_tokens"] for row in good)  # where every row loses its SQL, but for the longest prompt's
    try:
        rows = read_jsonl(render(folder, record, "train", loss_on="text"))
        report = read_json(audit(folder, record, loss_on="text"))
        cut = {"truncate": True, "loss_on": "text", "accept_defect": ["truncated"]}
        some = read_json(audit(folder, record, before, **cut))
        shortest = min(row["prompt_tokens"] for row in good)
        with pytest.raises(UserError, match=r"cuts every row before its SQL.*accept_defect: \[target_not_in_loss\]"):
            audit(folder, record, shortest, **cut)
        both = {"accept_defect": ["truncated", "target_not_in_loss"]}
        none = read_json(audit(folder, record, shortest, **cut | both))
        dataset = build_dataset(chat, rows)
    finally:
        write_jsonl(folder / "prompts/train.jsonl", good)
    assert [row["prompt"] for row in rows] == [row["prompt"] for row in good]
    assert dataset["labels"] == dataset["input_ids"]
    assert (report["pass"], report["label_tokens"]) == (True, sum(tokens))
    cut_off = sum(row["prompt_tokens"] >= before for row in good)
    assert (some["failed"], some["without_target"]) == (["truncated"], cut_off)
    assert none["failed"] == none["accepted"] == ["target_not_in_loss", "truncated"]
    assert none["without_target"] == len(rows)
    collator = DataCollatorForLanguageModeling(chat.tokenizer.pad_token_id)
    for place in (3, -1):
        bad = changed(dataset, 6, labels=lambda old, i=place: [*old[:i], -100, *(old[i + 1 :] if i + 1 else [])])
        with pytest.raises(UserError, match=rf"{rows[6]['id']}: found .* in the loss, expected the whole text"):
            check_labels(chat, bad, collator, rows, Limits(1024))


def test_defect_that_is_accepted_is_the_only_one(parts):
    """With the prompt as target, labels that are neither are still refused."""
    chat, rows, _, collator = parts
    rows = [row | {"completion": ""} for row in rows]
    bad = changed(build_dataset(chat, rows), 7, labels=lambda labels: [*labels[:-1], -100])
    with pytest.raises(UserError, match=rf"{rows[7]['id']}: the labels differ"):
        check_labels(chat, bad, collator, rows, Limits(1024, accept_defect=["target_not_in_loss"]))
    rows[2]["prompt"] = (chat.tokenizer.bos_token or "") + rows[2]["prompt"]
    with pytest.raises(UserError, match=rf"{rows[2]['id']}: found 2 BOS"):
        check_labels(
            chat, build_dataset(chat, rows), collator, rows, Limits(1024, accept_defect=["target_not_in_loss"])
        )


@pytest.fixture
def evaluated(tmp_path):
    write_splits(tmp_path, validation=4)
    record = make_model(tmp_path / "model")
    render(tmp_path, record, "train")
    render(tmp_path, record, "validation")
    return tmp_path, record


def test_validation_rows_are_checked_too(evaluated):
    folder, record = evaluated
    report = read_json(audit(folder, record))
    assert report["validation"]["checked"] == 4
    assert report["sha256"]["validation_prompts"] == sha256_file(folder / "prompts/validation.jsonl")
    edit(folder / "prompts/validation.jsonl", 2, completion="SELECT 1<|eot_id|>")
    with pytest.raises(UserError, match=r"train_spider-00302: the completion is 'SELECT 1<\|eot_id\|>'"):
        audit(folder, record)


def test_validation_rows_that_alone_are_cut(evaluated):
    folder, record = evaluated
    rows = read_jsonl(folder / "splits/validation.jsonl")
    rows[1]["query"] += " AND age < 30" * 5
    write_jsonl(folder / "splits/validation.jsonl", rows)
    render(folder, record, "validation")
    prompts = read_jsonl(folder / "prompts/train.jsonl")
    longest = max(row["prompt_tokens"] + row["completion_tokens"] for row in prompts)
    report = read_json(audit(folder, record, longest, truncate=True, accept_defect=["truncated"]))
    assert (report["truncated"], report["validation"]["truncated"]) == (0, 1)
    assert (report["pass"], report["failed"]) == (False, ["truncated"])


def test_dev_rows_as_validation_need_their_defect_named(evaluated):
    folder, record = evaluated
    write_jsonl(folder / "splits/validation.jsonl", held_out(folder / "data/spider"))
    render(folder, record, "validation")
    with pytest.raises(UserError, match=r"validation, row dev-00000: found .*accept_defect: \[dev_used_to_choose\]"):
        audit(folder, record)
    report = read_json(audit(folder, record, accept_defect=["dev_used_to_choose"]))
    assert (report["pass"], report["failed"], report["accepted"]) == (False, *[["dev_used_to_choose"]] * 2)
    assert report["test_rows_in_train"] == 0


def test_no_validation_rows(evaluated):
    folder, record = evaluated
    write_jsonl(folder / "prompts/validation.jsonl", [])
    with pytest.raises(
        UserError,
        match=r"prompts/validation\.jsonl: found no rows, expected at least 1\. See tasks\.spider\.validation",
    ):
        audit(folder, record)
