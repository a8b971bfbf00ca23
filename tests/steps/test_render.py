"""Prompts: templates of several kinds, one BOS, system text, completions, nothing cut off."""

import sqlite3

import pytest

from common.files import UserError, read_json, read_jsonl, sha256_file, write_json, write_jsonl
from llm.chat import Turn, load_chat, token_counts
from llm.prompts import template
from render import render as step
from tasks.sql_schema import pipe_schema
from tiny_model import GEMMA, KINDS, LLAMA3, MISTRAL, make_model, render, words, write_splits

SYSTEM, USER, SQL = "Be brief.", "How many singers?", "SELECT count(*)  FROM singer WHERE name = 'Zoë , it''s'"
TURNS = [Turn("system", SYSTEM), Turn("user", USER)]
EXPECTED = {
    "llama3": (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHow many singers?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        f"{SQL}<|eot_id|>",
    ),
    "mistral": ("<s>[INST] Be brief.\n\nHow many singers? [/INST]", f" {SQL}</s>"),
    "gemma": (
        "<bos><start_of_turn>user\nBe brief.\n\nHow many singers?<end_of_turn>\n<start_of_turn>model\n",
        f"{SQL}<end_of_turn>",
    ),
    "smollm2": (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHow many singers?<|im_end|>\n"
        "<|im_start|>assistant\n",
        f"{SQL}<|im_end|>",
    ),
}


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {kind: make_model(folder / kind, kind) for kind in KINDS}


@pytest.fixture
def with_template(tmp_path):
    def make(template, kind="llama3", **special):
        record = make_model(tmp_path / "changed", kind, chat_template=template, **special)
        return load_chat(read_json(record))

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_prompt_and_completion_of_each_kind(records, kind):
    chat = load_chat(read_json(records[kind]))
    prompt, completion = chat.prompt(TURNS), chat.completion(TURNS, SQL)
    assert (prompt, completion) == EXPECTED[kind]
    assert chat.system_role == ("own" if kind in ("llama3", "smollm2") else "folded")
    prompt_ids, completion_ids = chat.encode(prompt, completion)
    # What is trained on after the prompt is what inference starts from, and says the SQL and the end, once.
    assert prompt_ids == chat.encode(prompt)[0]
    # SmolLM2 begins every turn with it.
    assert prompt_ids.count(chat.tokenizer.bos_token_id) == (3 if kind == "smollm2" else 1)
    assert prompt_ids[0] == chat.tokenizer.bos_token_id
    chat.check_bos("row", prompt_ids)
    with pytest.raises(UserError, match="prompt of row"):
        chat.check_bos("row", [prompt_ids[0], *prompt_ids])
    assert completion_ids[-1] == chat.end_of_turn_id
    decoded = chat.tokenizer.decode(completion_ids, clean_up_tokenization_spaces=False)
    assert decoded.strip() == completion.strip()
    # The completion is what a model would say after the prompt, not with a second space before it.
    both = chat.tokenizer.encode(prompt + completion, add_special_tokens=False)
    assert prompt_ids + completion_ids == both


@pytest.mark.parametrize("kind", KINDS)
def test_stop_and_pad_tokens_of_each_kind(records, kind):
    chat = load_chat(read_json(records[kind]))
    names = chat.tokenizer.convert_ids_to_tokens(list(chat.stop_ids))
    expected = {
        "llama3": ({"<|end_of_text|>", "<|eot_id|>"}, "<|reserved_special_token_0|>"),
        "mistral": ({"</s>"}, "<unk>"),
        "gemma": ({"<eos>", "<end_of_turn>"}, "<pad>"),
        "smollm2": ({"<|im_end|>"}, "<|endoftext|>"),
    }[kind]
    assert (set(names), chat.tokenizer.pad_token) == expected
    assert chat.tokenizer.pad_token_id not in chat.stop_ids


def test_pad_equal_to_eos_is_replaced(tmp_path):
    record = make_model(tmp_path / "model", pad_token="<|eot_id|>")
    assert load_chat(read_json(record)).tokenizer.pad_token == "<|reserved_special_token_0|>"


def test_no_token_to_pad_with(tmp_path, monkeypatch):
    special = [t for t in KINDS["llama3"]["special"] if "reserved" not in t]
    monkeypatch.setitem(KINDS["llama3"], "special", special)
    with pytest.raises(UserError, match="no token to pad with"):
        load_chat(read_json(make_model(tmp_path / "model")))


def test_stop_ids_fall_to_config_where_generation_config_is_missing(tmp_path):
    record = make_model(tmp_path / "model", "gemma")
    (tmp_path / "model/generation_config.json").unlink()
    chat = load_chat(read_json(record))
    assert chat.tokenizer.convert_ids_to_tokens(list(chat.stop_ids)) == ["<eos>", "<end_of_turn>"]


def test_system_text_dropped_by_the_template_is_folded(with_template):
    template = LLAMA3.replace(
        "{% for message in messages %}", "{% for message in messages if message.role != 'system' %}"
    )
    chat = with_template(template)
    assert chat.system_role == "folded"
    assert "Be brief.\n\nHow many singers?" in chat.prompt(TURNS)


def test_no_system_text_gives_no_system_turn(records):
    assert "system" not in load_chat(read_json(records["llama3"])).prompt(TURNS[1:])


def test_bos_left_to_the_tokenizer_is_put_before_the_text(with_template):
    chat = with_template(GEMMA.replace("{{ bos_token }}", ""), "gemma")
    prompt = chat.prompt(TURNS)
    assert chat.bos == 1
    assert prompt.startswith("<bos><start_of_turn>")
    assert chat.encode(prompt)[0].count(chat.tokenizer.bos_token_id) == 1
    assert chat.completion(TURNS, SQL) == EXPECTED["gemma"][1]


def test_two_bos_in_the_template_are_refused(with_template):
    with pytest.raises(UserError, match="renders 2 BOS"):
        with_template("{{ bos_token }}" + MISTRAL, "mistral")


@pytest.mark.parametrize("template", ["{% if %}", "{{ 1 / 0 }}", "{{ messages + 1 }}"])
def test_a_template_that_cannot_be_filled_in_is_refused(with_template, template):
    with pytest.raises(UserError, match="its chat template cannot render a user turn"):
        with_template(template)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_configurations_of_another_form_are_refused(tmp_path, name):
    record = make_model(tmp_path / "model")
    (tmp_path / "model" / name).write_text("[]")
    with pytest.raises(UserError, match=r"cannot load config and tokenizer \(.*\)\. Check models\."):
        load_chat(read_json(record))


def test_bos_in_a_question_is_refused_and_names_the_row(tmp_path):
    write_splits(tmp_path)
    rows = read_jsonl(tmp_path / "splits/test.jsonl")
    rows[3]["question"] = "What is <|begin_of_text|>?"
    write_jsonl(tmp_path / "splits/test.jsonl", rows)
    with pytest.raises(UserError, match=r"dev-00503: found 2 BOS"):
        render(tmp_path, make_model(tmp_path / "model"), "test")


def test_todays_date_is_not_in_a_prompt(with_template):
    llama31 = (
        "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
        "{{ 'Today: ' + date_string + '\n' }}"
    )
    assert "Today: 26 Jul 2024" in with_template(llama31 + MISTRAL, "mistral").prompt(TURNS)


@pytest.mark.parametrize(
    ("template", "found"),
    [
        (MISTRAL.replace(" + eos_token", ""), "no end-of-turn token"),
        (LLAMA3.replace("message['content'] | trim", "'...'"), "leaves the user's text out"),
        (None, "no chat template"),
    ],
)
def test_templates_that_cannot_be_used(with_template, template, found):
    kind = "mistral" if template and "[INST]" in template else "llama3"
    with pytest.raises(UserError, match=found):
        with_template(template, kind)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (("message['content'] | trim", "message['content'] | replace('  ', ' ')"), "changes an answer"),
        (
            ("{% if add_generation_prompt %}{{ '", "{% if add_generation_prompt %}{{ 'Now: "),
            "renders a prompt differently once it is answered",
        ),
    ],
)
def test_templates_that_change_the_answer(with_template, change, found):
    with pytest.raises(UserError, match=found):
        with_template(LLAMA3.replace(*change)).completion(TURNS, SQL)


def test_render_spider_train(tmp_path, records):
    write_splits(tmp_path)
    prompts = render(tmp_path, records["mistral"], "train")
    rows, source = read_jsonl(prompts), read_jsonl(tmp_path / "splits/train.jsonl")
    assert [row["id"] for row in rows] == [row["id"] for row in source]
    assert list(rows[0]) == ["id", "prompt", "completion", "prompt_tokens", "completion_tokens"]
    assert all(row["completion"] == f" {gold['query']}</s>" for row, gold in zip(rows, source, strict=True))
    assert all(
        f"Question: {gold['question']}\nSQL: [/INST]" in row["prompt"] for row, gold in zip(rows, source, strict=True)
    )
    assert rows[0]["prompt"].count("SQL: SELECT") == 2  # the shots
    report = read_json(prompts.with_suffix(".json"))
    assert report["sha256"] == sha256_file(prompts)
    assert report["count"] == 12
    assert report["prompt_tokens"]["max"] == max(row["prompt_tokens"] for row in rows)
    assert report["template"]["system_role"] == "folded"
    assert report["first_prompt"] == rows[0]["prompt"]


def test_render_spider_empty_validation(tmp_path, records):
    write_splits(tmp_path)
    prompts = render(tmp_path, records["llama3"], "validation")
    assert prompts.read_text() == ""
    assert read_json(prompts.with_suffix(".json"))["count"] == 0


def test_what_is_asked_has_no_completion(tmp_path, records):
    """Which rows are asked is a part of the data: tests/tasks/test_text_to_sql.py."""
    write_splits(tmp_path)
    rows = read_jsonl(render(tmp_path, records["llama3"], "test"))
    assert [row["id"] for row in rows] == [f"dev-{i:05d}" for i in range(500, 506)]
    assert list(rows[0]) == ["id", "prompt", "prompt_tokens"]


@pytest.mark.parametrize(("schema", "text"), [("ddl", "CREATE TABLE singer ("), ("ddl_rows", "1\tAda\t36")])
def test_render_spider_other_schemas(tmp_path, records, schema, text):
    write_splits(tmp_path)
    database = tmp_path / "data/spider/database/concert/concert.sqlite"
    database.parent.mkdir(parents=True)
    connection = sqlite3.connect(database)
    connection.executescript(
        "CREATE TABLE singer (singer_id, name, age); CREATE TABLE song (song_id, singer_id);"
        "INSERT INTO singer VALUES (1, 'Ada', 36)"
    )
    connection.close()
    assert text in read_jsonl(render(tmp_path, records["llama3"], "test", schema=schema))[0]["prompt"]
    database.unlink()
    if schema == "ddl_rows":
        with pytest.raises(UserError, match=r"concert\.sqlite: no such database"):
            render(tmp_path, records["llama3"], "test", schema=schema)


def test_pipe_schema_in_the_style_of_its_report(tmp_path, records):
    write_splits(tmp_path)
    prompts = render(tmp_path, records["gemma"], "train", "ribeiro", schema="pipe")
    schema = (
        "Schema:\n| singer : singer_id , name , age |\n| song : song_id , singer_id |\n"
        "Relationships:\nsong.singer_id = singer.singer_id\n\n"
    )
    shots, row = read_jsonl(tmp_path / "splits/shots.jsonl"), read_jsonl(tmp_path / "splits/train.jsonl")[0]
    # The model's template trims each turn, which ends with a line break.
    asked = [f"{schema}Question: {one['question']}\nSQL:<end_of_turn>\n<start_of_turn>model\n" for one in [*shots, row]]
    answered = [q + f"{shot['query']}<end_of_turn>\n" for q, shot in zip(asked, shots, strict=False)]
    turns = "<start_of_turn>user\n".join([*answered, asked[-1]])
    assert read_jsonl(prompts)[0]["prompt"] == f"<bos><start_of_turn>user\nYou write SQL.\n\n{turns}"
    assert read_json(prompts.with_suffix(".json"))["settings"]["schema"] == "pipe"


def test_the_words_between():
    shot = {"schema": "t (a)", "question": "q?", "target": "SELECT 1"}
    row = {"schema": "u (b)", "question": "r?"}

    def user_turn(name, row, shot):
        (turn,) = template(words(name))({**row, "shots": [shot], "options": {"system": ""}})
        assert turn.role == "user"
        return turn.text

    assert user_turn("text_to_sql", row, shot) == "t (a)\nQuestion: q?\nSQL: SELECT 1\n\nu (b)\nQuestion: r?\nSQL:"
    none = {"schema": ""}
    assert user_turn("text_to_sql", row | none, shot | none) == ("Question: q?\nSQL: SELECT 1\n\nQuestion: r?\nSQL:")


def test_pipe_schema_without_foreign_keys():
    schema = {"table_names_original": ["t"], "column_names_original": [[-1, "*"], [0, "a b"]], "foreign_keys": []}
    assert pipe_schema(schema) == "| t : a b |"


def test_no_schema(tmp_path, records):
    write_splits(tmp_path)
    prompt = read_jsonl(render(tmp_path, records["llama3"], "test", schema="none"))[0]["prompt"]
    assert "singer_id" not in prompt
    assert "You write SQL.<|eot_id|>" in prompt
    assert "<|end_header_id|>\n\nQuestion: " in prompt


def test_other_shots_for_the_base_model(tmp_path, records):
    write_splits(tmp_path)
    own = read_jsonl(render(tmp_path, records["llama3"], "test"))
    shots = read_jsonl(tmp_path / "splits/shots.jsonl")
    prompts = render(tmp_path, records["llama3"], "test_shots1", shots=1)
    rows = read_jsonl(prompts)
    assert [row["id"] for row in rows] == [row["id"] for row in own]
    assert [row["prompt"].count("SQL: SELECT") for row in (rows[0], own[0])] == [1, 2]
    assert "completion" not in rows[0]
    assert read_json(prompts.with_suffix(".json"))["shots"] == [shots[0]["id"]]
    longest = max(row["prompt_tokens"] for row in rows)
    small = make_model(tmp_path / "small", context=longest + 11)
    with pytest.raises(UserError, match=r"at most \d+ in all.* tasks\.spider\.schema, fewer shots or a smaller"):
        render(tmp_path, small, "test_shots1", shots=1)
    few = r"tasks\.spider: found 2 few-shot examples, each on another database with a short query, expected 50"
    with pytest.raises(UserError, match=few):
        render(tmp_path, records["llama3"], "test_shots50", shots=50)
    assert not (tmp_path / "prompts/test_shots50.jsonl").exists()


def test_schema_missing_from_tables(tmp_path, records):
    write_splits(tmp_path)
    write_json(tmp_path / "data/spider/tables.json", [])
    with pytest.raises(UserError, match="no entry for database concert"):
        render(tmp_path, records["llama3"], "train")


@pytest.mark.parametrize("split", ["train", "test"])
def test_prompt_longer_than_the_context(tmp_path, split):
    write_splits(tmp_path)
    whole = make_model(tmp_path / "long")
    rows = read_jsonl(render(tmp_path, whole, split))
    needed = [row["prompt_tokens"] + row.get("completion_tokens", 12) for row in rows]
    render(tmp_path, make_model(tmp_path / "fits", context=max(needed)), split)
    first = rows[needed.index(max(needed))]
    with pytest.raises(UserError, match=rf"{first['id']}: found {first['prompt_tokens']} tokens .* {max(needed) - 1} "):
        render(tmp_path, make_model(tmp_path / "short", context=max(needed) - 1), split)


def questions_file(tmp_path, count=5):
    path = tmp_path / "questions.jsonl"
    shot = {"question": "2 + 2?", "choices": ["1", "2", "3", "4"], "answer": "D"}
    write_jsonl(
        path,
        [
            {
                "id": f"world_religions-{i:05d}",
                "subject": "world_religions",
                "category": "humanities",
                "question": f"Question {i}?" + " Think." * i,
                "choices": ["w", "x", "y", "z"],
                "answer": "B",
                "shots": [shot],
            }
            for i in range(count)
        ],
    )
    return path


def test_render_mmlu(tmp_path, records):
    report = tmp_path / "mmlu.json"
    inputs = {"rows": questions_file(tmp_path), "record": records["gemma"], "manifest": tmp_path / "manifest.json"}
    settings = {"kind": "mmlu", "name": "tasks.mmlu", "system": "Answer.", "max_new_tokens": 4}
    step(inputs, words("choice"), settings, tmp_path / "mmlu.jsonl")
    rows = read_jsonl(tmp_path / "mmlu.jsonl")
    assert list(rows[0]) == ["id", "options", "prompt", "prompt_tokens"]
    assert rows[0]["options"] == ["A", "B", "C", "D"]
    assert rows[1]["prompt"] == (
        "<bos><start_of_turn>user\nAnswer.\n\nThe following are multiple choice questions (with answers) about world "
        "religions.\n\n2 + 2?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer: D\n\nQuestion 1? Think.\nA. w\nB. x\nC. y\nD. z\nAnswer:"
        "<end_of_turn>\n<start_of_turn>model\n"
    )
    assert read_json(report)["sha256"] == sha256_file(tmp_path / "mmlu.jsonl")
    longest = max(row["prompt_tokens"] for row in rows)
    short = make_model(tmp_path / "short", "gemma", context=longest + 3)
    with pytest.raises(UserError, match=f"world_religions-00004: found {longest} tokens and 4 to follow"):
        step(inputs | {"record": short}, words("choice"), settings, tmp_path / "mmlu.jsonl")


def test_token_counts():
    assert token_counts(range(1, 101)) == {"min": 1, "median": 50.5, "p95": 95, "max": 100}
    assert token_counts([7]) == {"min": 7, "median": 7, "p95": 7, "max": 7}
    assert token_counts([]) is None
