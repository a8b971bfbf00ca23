"""Models that think: at once or after a thought, base and adapter alike, and on any day the same prompts."""

import datetime
import inspect
from dataclasses import replace

import pytest
import torch
from transformers.utils import chat_template_utils

from common.files import UserError, read_json, read_jsonl, write_json
from fetch_model import fetch_model
from llm.answering import Asked, choose, load
from llm.chat import Turn, load_chat
from llm.decoding import Decoding, Encoded
from llm.labels import Limits
from llm.labels import audit as check_rows
from llm.prompts import prompt_row
from tests.llm.test_answering import LETTERS, make_study, run
from thinkers import THINKERS
from tiny_model import audit, make_model, render, write_splits

TURNS = [Turn("system", "You write SQL."), Turn("user", "How many?")]
# What stands between the name of the assistant and its answer, where it answers at once.
PREFILLED = {
    "qwen3": "<|im_start|>assistant\n<think>\n\n</think>\n\n",
    "qwen3_always": "<|im_start|>assistant\n<think>\n\n</think>\n\n",
    "r1": "<|Assistant|><think>\n\n</think>\n\n",
    "smollm3": "<|im_start|>assistant\n<think>\n\n</think>\n",
    "gpt_oss": "<|start|>assistant<|channel|>final<|message|>",
    "gemma4": "<|turn>model\n<|channel>thought\n<channel|>",
    "glm": "<|assistant|>\n<think></think>",
    "deepseek": "<|Assistant|></think>",
}
OPEN = {
    "qwen3": "<|im_start|>assistant\n",
    "qwen3_always": "<think>\n",
    "r1": "<think>\n",
    "smollm3": "<|im_start|>assistant\n",
    "gpt_oss": "<|start|>assistant",
    "gemma4": "<|turn>model\n",
    "glm": "<|assistant|>",
    "deepseek": "<|Assistant|><think>",
}
# With what a thought ends, where it is not the usual tag.
ENDS = {"gpt_oss": "<|channel|>final<|message|>", "gemma4": "<channel|>"}
# What tells a model to think, and what not to.
TOLD = {"smollm3": (": /think", ": /no_think"), "gemma4": ("<|think|>\n", ""), "deepseek": ("<think>", "")}


def chat_of(folder, kind, **more):
    record = make_model(folder / kind, kind)
    write_json(record, read_json(record) | more)
    return load_chat(read_json(record))


@pytest.mark.parametrize("kind", list(THINKERS))
def test_a_model_that_thinks_can_answer_at_once(tmp_path, kind):
    chat = chat_of(tmp_path, kind)
    assert chat.prompt(TURNS).endswith(PREFILLED[kind])
    between = "\n" if kind == "glm" else ""  # of its template
    assert chat.completion(TURNS, "SELECT 1") == f"{between}SELECT 1{chat.end_of_turn}"
    assert chat.facts()["thinking_tokens"] == 0


@pytest.mark.parametrize("kind", list(OPEN))
def test_a_thought_comes_first_and_an_adapter_learns_an_empty_one(tmp_path, kind):
    chat, at_once = chat_of(tmp_path, kind, thinking=8), chat_of(tmp_path, kind)
    assert chat.prompt(TURNS).endswith(OPEN[kind])
    # The whole conversation is the same in both, but for what tells the model to think.
    whole = [one.prompt(TURNS) + one.completion(TURNS, "SELECT 1") for one in (chat, at_once)]
    told, not_told = TOLD.get(kind, ("", ""))
    assert told in whole[0]
    assert whole[0].replace(told, not_told) == whole[1]
    assert chat.thought.end == ENDS.get(kind, "</think>")
    rows = [{"id": "a", "prompt": chat.prompt(TURNS), "completion": chat.completion(TURNS, "SELECT 1")}]
    assert check_rows(chat, rows, {"a": "SELECT 1"}, Limits(None))["pass"]
    with pytest.raises(UserError, match="the completion is"):
        check_rows(chat, rows, {"a": "SELECT 2"}, Limits(None))


@pytest.mark.parametrize("kind", ["llama3", "mistral", "gemma", "smollm2"])
def test_a_template_without_thoughts(tmp_path, kind):
    assert chat_of(tmp_path, kind).thought == (0, "", "")
    with pytest.raises(UserError, match=r"models, thinking: the chat template of example/tiny has no place"):
        chat_of(tmp_path, kind, thinking=8)


@pytest.mark.parametrize("kind", ["smollm3", "gpt_oss", "qwen3"])
def test_no_template_sees_the_date_of_today(tmp_path, kind, monkeypatch):
    class Tomorrow(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2031, 5, 17)

    chat = chat_of(tmp_path, kind)
    before = chat.prompt(TURNS)
    assert "datetime.now()" in inspect.getsource(chat_template_utils)  # what a template would see
    monkeypatch.setattr(chat_template_utils, "datetime", Tomorrow)
    assert chat.prompt(TURNS) == before
    assert "2031" not in before
    assert chat.facts()["date"] == (None if kind == "qwen3" else "2024-07-26")
    assert ("2024" in before) == (kind != "qwen3")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = make_study(tmp_path_factory.mktemp("thinks"), "qwen3")
    write_json(folder / "model.json", read_json(folder / "model.json") | {"thinking": 9})
    render(folder, folder / "model.json", "test")
    return folder


@pytest.mark.parametrize("adapter", [False, True])
def test_the_answer_follows_the_thought(study, tmp_path, adapter):
    """Token by token: a thought of greedy tokens, its end, and the answer, whatever the batch."""
    rows = run(study, tmp_path / "4", adapter=adapter)
    assert rows == run(study, tmp_path / "1", adapter=adapter, batch_size=1)
    report = read_json(tmp_path / "4/report.json")
    assert report["decoder"] == "generate (it thinks before it answers)"
    assert report["thoughts"]["limit"] == report["thinking_tokens"] == 9
    assert report["thoughts"]["cut"] == len(rows)  # a random model ends no thought
    assert 0 < report["thoughts"]["tokens"] <= 9 * len(rows)
    record = read_json(study / "model.json")
    chat = load_chat(record)
    model, _ = load(Asked(record, chat, [], {}), study / "adapter" if adapter else None, Decoding("fp32", 12, 4))

    def greedy(ids, count):
        said = []
        while len(said) < count and (not said or said[-1] not in chat.stop_ids):
            with torch.no_grad():
                said.append(model(input_ids=torch.tensor([ids + said])).logits[0, -1].argmax().item())
        return said

    for row, prompt in zip(rows, read_jsonl(study / "prompts/test.jsonl"), strict=True):
        ids = chat.encode(prompt["prompt"])[0]
        thought = [token for token in greedy(ids, 9) if token not in chat.stop_ids]
        ids = ids + thought + chat.tokenizer.encode("\n</think>\n\n", add_special_tokens=False)
        assert row["answer"] == chat.decode(greedy(ids, 12))[0]


def test_letters_are_read_after_the_thought(study, tmp_path):
    rows = run(study, tmp_path, LETTERS)
    assert set(rows[0]["logprobs"]) == set(LETTERS)


def test_a_thought_that_ends_by_itself_is_left_alone(study, monkeypatch):
    record = read_json(study / "model.json")
    chat = load_chat(record)
    model, _ = load(Asked(record, chat, [], {}), None, Decoding("fp32", 12, 4))
    engine = choose(model, chat, [[5, 6, 7]], Decoding("fp32", 12, 4))
    end, asked = chat.tokenizer.convert_tokens_to_ids("</think>"), []
    original = engine._generate

    def generate(batch, **options):
        asked.append(batch[0].tokens)
        return (None, [[9, end]]) if options else original(batch)

    monkeypatch.setattr(engine, "_generate", generate)
    engine.answer([Encoded("a", [5, 6, 7])], 0, 1)
    assert asked[1] == [5, 6, 7, 9, end, *chat.tokenizer.encode("\n\n", add_special_tokens=False)]
    assert engine.facts()["thoughts"] == {"limit": 9, "tokens": 2, "cut": 0}


@pytest.mark.parametrize("kind", ["llama3", "gemma", "mistral"])
def test_an_answer_with_outer_white_space_is_said_as_the_template_has_it(tmp_path, kind):
    chat = chat_of(tmp_path, kind)
    said = chat.completion(TURNS, " the answer\n")
    assert said.removesuffix(chat.end_of_turn).strip() == "the answer"
    row = prompt_row(chat, {"id": "a"}, TURNS, "\n the answer ")
    assert check_rows(chat, [row], {"a": "\n the answer "}, Limits(None))["pass"]
    broken = replace(chat, end_of_turn="<|nowhere|>")
    with pytest.raises(UserError, match=r"row a: example/tiny: its chat template changes an answer"):
        prompt_row(broken, {"id": "a"}, TURNS, "x")


def test_a_study_of_a_model_that_thinks_is_audited(tmp_path):
    write_splits(tmp_path)
    record = make_model(tmp_path / "model", "qwen3")
    write_json(record, read_json(record) | {"thinking": 16})
    render(tmp_path, record, "train")
    report = read_json(audit(tmp_path, record))
    assert report["pass"]
    assert report["example"]["labels_decoded"].startswith("<think>\n\n</think>\n\nSELECT")


def test_the_record_says_how_long_a_model_may_think(tmp_path):
    make_model(tmp_path / "model", "qwen3")
    for tokens in (None, 64):
        fetch_model("tiny", str(tmp_path / "model"), None, tmp_path / "record.json", thinking=tokens)
        assert read_json(tmp_path / "record.json").get("thinking") == tokens
