"""Replay: rows of general knowledge in the training, none of them MMLU's, and the distance from the base's answers."""

import csv
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from audit_labels import audit_labels
from common.files import UserError, read_json, read_jsonl, sha256_file, write_json, write_jsonl
from llm import training as module
from llm.adapters import load_adapter
from llm.chat import load_chat
from llm.load import load_model
from llm.training import rows_to_replay
from prepare import prepare
from render import render as render_step
from tasks.replay import fetch, fingerprint
from tests.llm.test_training import LORA, TRAINING, adapter, arguments, killed, train
from tiny_model import audited_study, words
from train import train_on

pytestmark = pytest.mark.usefixtures("two_threads")

NO_DROPOUT = LORA | {"lora_dropout": 0.0}
# 12 rows of SQL and 4 of replay.
PLAIN = TRAINING | {"logging_steps": 1, "max_steps": 3}
KL = {"fraction": 0.3, "kl": 2.0}
ABOUT = {"kind": "replay", "name": "tasks.general", "role": "replay"}
HEAD = "question,A,B,C,D,answer\n"


def write_table(path: Path, rows: list[tuple[str, list[str], str]]) -> Path:
    """Write a table of MMLU as its fetch does."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["subject", "index", "question", *"ABCD", "answer"])
        writer.writerows(["facts", index, question, *choices, answer] for index, (question, choices, answer) in rows)
    return path


def choice(number: int) -> dict:
    return {"question": f"What is {number} ?", "choices": [f"{number + i} ." for i in range(4)], "answer": "A"}


@pytest.fixture
def mmlu(tmp_path):
    """A folder of MMLU's raw data with three questions."""
    rows = [(i, (choice(i)["question"], choice(i)["choices"], "A")) for i in (100, 101)]
    write_table(tmp_path / "test.csv", rows)
    write_table(tmp_path / "dev.csv", [(0, (choice(102)["question"], choice(102)["choices"], "A"))])
    return tmp_path


def fetched(folder: Path, source: Path) -> list[dict]:
    fetch(ABOUT | {"source": str(source), "revision": None, "sha256": None}, folder)
    return read_jsonl(folder / "rows.jsonl")


def prepared(folder: Path, mmlu: Path, questions: int = 99, seed: int = 42) -> list[dict]:
    settings = ABOUT | {"questions": questions, "seed": seed, "yardsticks": ["mmlu"]}
    if not (folder / "manifest.json").is_file():
        write_json(folder / "manifest.json", {})
    prepare(folder, "train", settings, folder / "train.jsonl", [mmlu])
    return read_jsonl(folder / "train.jsonl")


def test_csv_and_jsonl_are_the_same_rows(tmp_path):
    one, other = tmp_path / "r.csv", tmp_path / "s/r.jsonl"
    other.parent.mkdir()
    one.write_text("subject," + HEAD + 'x,"Why, then?",a,b,None,d,C\n,Who?,a,b,c,d,A\n', encoding="utf-8")
    rows = [
        {"subject": "x", "question": "Why, then?", "choices": ["a", "b", "None", "d"], "answer": "C"},
        {"question": "Who?", "choices": ["a", "b", "c", "d"], "answer": "A"},
    ]
    other.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    found = fetched(tmp_path, one)
    assert [row["subject"] for row in found] == ["x", ""]
    assert [{**row, "id": ""} for row in found] == [{**row, "id": ""} for row in fetched(tmp_path, other)]
    assert found[0]["choices"][2] == "None"
    assert read_json(tmp_path / "manifest.json")["by_kind"] == {"multiple_choice": 2}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("r.txt", "", r"tasks\.general\.source: found .*r\.txt, expected a file named \.csv or \.jsonl"),
        ("r.csv", HEAD, r"r\.csv: found no rows"),
        ("r.csv", "a,b\n1,2\n", r"r\.csv, line 1: found columns a, b, expected question, A, B, C, D, answer"),
        (
            "r.csv",
            HEAD.replace("answer", "answer,answer"),
            r"line 1: found columns question, A, B, C, D, answer, answer",
        ),
        ("r.csv", HEAD + "q,a,b,c,d,A\nq,a,b,c,d\n", r"r\.csv, line 3: found 5 fields, expected 6"),
        ("r.csv", HEAD + "q,a,b,c,d,e,A\n", r"r\.csv, line 2: found 7 fields, expected 6\. Put texts"),
        ("r.csv", HEAD + "q,a,b,c,d,E\n", r"r\.csv, line 2: answer is 'E', expected A to D"),
        ("r.csv", HEAD + "q,a,,c,d,A\n", r"r\.csv, line 2: B is '', expected a text"),
        ("r.csv", HEAD.encode() + b"\xff,a,b,c,d,A\n", r"r\.csv: not UTF-8"),
        ("r.jsonl", "\n{\n", r"r\.jsonl, line 2: not valid JSON"),
        ("r.jsonl", '{"prompt": "p"}\n', r"r\.jsonl, line 1: found keys prompt, expected prompt and completion, or"),
        ("r.jsonl", '{"prompt": "p", "completion": " "}\n', r"line 1: completion is ' ', expected a text"),
        ("r.jsonl", '{"question": "q", "choices": ["a"], "answer": "A"}\n', r"line 1: choices are \['a'\]"),
        ("r.jsonl", "[]\n", r"line 1: found keys \(none\)"),
    ],
)
def test_a_bad_file_is_refused_by_its_line(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=message):
        fetched(tmp_path, path)
    assert not (tmp_path / "rows.jsonl").exists()


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(
        UserError, match=r"tasks\.general\.source: .*none\.csv is no file\. Write the path of a CSV or JSONL file, or a"
    ):
        fetched(tmp_path, tmp_path / "none.csv")


@pytest.fixture
def auxiliary(tmp_path):
    """A folder of MMLU's CSV files, with training rows."""
    folder = tmp_path / "mmlu/auxiliary_train"
    folder.mkdir(parents=True)
    for name in ("race", "arc_easy"):
        (folder / f"{name}.csv").write_text(f"{name}?,a,b,c,d,B\nagain?,a,b,c,d,D\n", encoding="utf-8")
    return folder


def test_auxiliary_train_is_read_from_mmlus_own_source(tmp_path, auxiliary):
    options = ABOUT | {"source": str(auxiliary.parent), "revision": None, "sha256": None}
    fetch(options, tmp_path)
    rows = read_jsonl(tmp_path / "rows.jsonl")
    assert [row["id"] for row in rows] == ["arc_easy-00000", "arc_easy-00001", "race-00000", "race-00001"]
    assert rows[2] == {"id": "race-00000", "kind": "multiple_choice", "subject": "", "question": "race?",
                       "choices": ["a", "b", "c", "d"], "answer": "B"}  # fmt: skip


def test_auxiliary_train_of_the_hubs_files(tmp_path):
    import pyarrow
    import pyarrow.parquet

    (tmp_path / "mmlu/all").mkdir(parents=True)
    table = {"question": ["q?"], "subject": [""], "choices": [["a", "b", "c", "d"]], "answer": [2]}
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "mmlu/all/auxiliary_train-00000-of-00001.parquet")
    options = ABOUT | {"source": str(tmp_path / "mmlu"), "revision": None, "sha256": None}
    fetch(options, tmp_path)
    assert read_jsonl(tmp_path / "rows.jsonl")[0]["answer"] == "C"


def test_a_copy_of_mmlu_without_training_rows_is_refused(tmp_path):
    (tmp_path / "mmlu/test").mkdir(parents=True)
    options = ABOUT | {"source": str(tmp_path / "mmlu"), "revision": None, "sha256": None}
    with pytest.raises(UserError, match=r"auxiliary_train is not in .*Some copies of MMLU lack it"):
        fetch(options, tmp_path)


def test_rows_of_every_yardstick_are_dropped(tmp_path, mmlu):
    """Those of a text-to-SQL yardstick too, whose questions have no choices."""
    queries = tmp_path / "queries"
    write_json(queries / "tables.json", [{"db_id": "a"}])
    write_json(queries / "dev.json", [{"db_id": "a", "question": "How many are there?", "query": "SELECT 1"}])
    rows = [choice(1), choice(100), {"prompt": "HOW  many are there? Say it in SQL.", "completion": "SELECT 1"}]
    (tmp_path / "r.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    fetched(tmp_path, tmp_path / "r.jsonl")
    settings = ABOUT | {"questions": 9, "seed": 1, "yardsticks": ["spider", "mmlu"]}
    prepare(tmp_path, "train", settings, tmp_path / "train.jsonl", [queries, mmlu])
    assert [row["id"] for row in read_jsonl(tmp_path / "train.jsonl")] == ["r-00001"]
    about = read_json(tmp_path / "train.json")
    assert about["dropped"] == {"r-00002": "test facts-00100", "r-00003": "dev-00000"}
    assert about["checked_against"] == 4


def test_rows_of_mmlu_are_dropped_and_counted(tmp_path, mmlu, capsys):
    turned = choice(100) | {"choices": choice(100)["choices"][::-1], "question": " WHAT  is 100 ?"}
    text = {"prompt": f"I ask: {choice(102)['question']} {' '.join(choice(102)['choices'])}", "completion": "A"}
    part = {"prompt": choice(102)["question"], "completion": "A"}  # without the choices
    rows = [choice(1), turned, choice(101), text, choice(2), choice(1), part, part]
    (tmp_path / "r.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    fetched(tmp_path, tmp_path / "r.jsonl")
    found = prepared(tmp_path, mmlu)
    assert sorted(row.get("question", row.get("prompt")) for row in found) == [
        "What is 1 ?",
        "What is 102 ?",
        "What is 2 ?",
    ]
    manifest = read_json(tmp_path / "train.json")
    assert manifest["dropped"] == {
        "r-00002": "test facts-00100", "r-00003": "test facts-00101", "r-00004": "dev facts-00000"
    }  # fmt: skip
    assert (manifest["found"], manifest["rows"], manifest["repeated_dropped"]) == (8, 3, 2)
    assert manifest["checked_against"] == 3
    assert "r-00002: is test facts-00100 of a yardstick; dropped." in capsys.readouterr().out


def test_what_is_drawn_follows_from_the_seed(tmp_path, mmlu):
    write_jsonl(tmp_path / "rows.jsonl", [choice(i) | {"id": f"r{i}", "kind": "multiple_choice"} for i in range(30)])
    drawn = prepared(tmp_path, mmlu, 10)
    assert len(drawn) == 10
    assert drawn == prepared(tmp_path, mmlu, 10) == prepared(tmp_path, mmlu, 20)[:10]
    assert drawn != prepared(tmp_path, mmlu, 10, seed=1)


def test_a_file_of_mmlus_own_rows_is_refused(tmp_path, mmlu):
    write_jsonl(tmp_path / "rows.jsonl", [choice(100) | {"id": "r", "kind": "multiple_choice"}])
    with pytest.raises(UserError, match="none of its 1 rows is left: 1 are of the yardsticks' data"):
        prepared(tmp_path, mmlu)


def test_the_demos_rows_are_on_facts_that_are_not_asked():
    demo = Path(__file__).parents[2] / "resources/demo"
    asked, marks = {}, set()
    for path in demo.glob("mmlu/*/*.csv"):
        for question, *choices, letter in csv.reader(path.open(encoding="utf-8", newline="")):
            asked[question] = choices["ABCD".index(letter)]
            marks.add(fingerprint(question, choices))
    with (demo / "replay.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) > 250
    for row in rows:
        answer = row[row["answer"]]
        assert row["question"] not in asked
        assert fingerprint(row["question"], [row[letter] for letter in "ABCD"]) not in marks
        # Nor the other way round: the capital of X, and the country of which it is the capital.
        turned = [other for other, right in asked.items() if f"{right}?" in row["question"] and f" {answer}?" in other]
        assert not turned


# -- training ----------------------------------------------------------------------------------------------------------


def audit_replay(study, prompts, report):
    """Audit the rows to replay of `study`."""
    files = {"prompts": prompts, "rows": study / "replay.jsonl", "record": study / "model.json"}
    audit_labels(files, ABOUT | {"max_length": 1024}, report)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study up to its audits, with six rows to replay: four questions and two instructions."""
    folder = tmp_path_factory.mktemp("study")
    record = audited_study(folder)
    rows = [choice(i) | {"id": f"c{i}", "kind": "multiple_choice", "subject": ""} for i in range(4)]
    rows[1:1] = [{"id": "i", "kind": "instruction", "prompt": "Say two words.", "completion": "order by"}]
    rows += [{"id": "long", "kind": "instruction", "prompt": "singer " * 2000, "completion": "x"}]
    write_jsonl(folder / "replay.jsonl", rows)
    inputs = {"rows": folder / "replay.jsonl", "record": record, "manifest": folder / "manifest.json"}
    settings = ABOUT | {"system": "Answer.", "max_length": 1024}
    render_step(inputs, words("replay"), settings, folder / "prompts/replay.jsonl")
    audit_replay(folder, folder / "prompts/replay.jsonl", folder / "audit_replay.json")
    return folder


def given(study, variant, replay=KL, training=PLAIN, lora=NO_DROPOUT):
    return arguments(study, variant, lora=lora, training=training) | {
        "replay": replay,
        "replay_prompts": str(study / "prompts/replay.jsonl"),
        "replay_audit": str(study / "audit_replay.json"),
    }


def history(study, variant, *keys):
    """Return these values of each entry; 0 where no row was replayed."""
    return [[entry.get(key, 0.0) for key in keys] for entry in read_json(study / variant / "train.json")["history"]]


def close(one, other, rel=5e-6):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a == pytest.approx(b, rel=rel, abs=1e-6)  # a divergence is a difference


KEYS = ("loss", "replay_kl", "replay_loss", "grad_norm")


def test_rows_are_rendered_as_in_the_evaluation(study):
    rows = {row["id"]: row for row in read_jsonl(study / "prompts/replay.jsonl")}
    assert list(rows) == ["c0", "i", "c1", "c2", "c3"]
    assert "Answer." in rows["c0"]["prompt"]
    assert "(with answers) about general knowledge.\n\nWhat is 0 ?\nA. 0 .\n" in rows["c0"]["prompt"]
    assert rows["c0"]["completion"] == "A<|eot_id|>"
    assert rows["i"]["completion"] == "order by<|eot_id|>"
    report = read_json(study / "prompts/replay.json")
    assert (report["count"], report["too_long"]) == (5, ["long"])
    found = read_json(study / "audit_replay.json")
    assert (found["pass"], found["checked"]) == (True, 5)
    assert found["sha256"]["prompts"] == sha256_file(study / "prompts/replay.jsonl")


def test_another_answer_in_the_loss_is_found(study, tmp_path):
    rows = read_jsonl(study / "prompts/replay.jsonl")
    rows[2]["completion"] = "B<|eot_id|>"
    write_jsonl(tmp_path / "replay.jsonl", rows)
    with pytest.raises(UserError, match="labels of c1: the completion is 'B<"):
        audit_replay(study, tmp_path / "replay.jsonl", tmp_path / "a.json")


@pytest.fixture(scope="module")
def packed(study):
    train(**given(study, "packed"))
    assert read_json(study / "packed/train.json")["padded"] == ""
    return history(study, "packed", *KEYS)


def test_what_is_reported(study, packed):
    report = read_json(study / "packed/train.json")
    # 30% of 12, rounded up.
    assert (report["rows"], report["replay"]["rows"], report["replay"]["of"]) == (16, 4, KL)
    assert report["replay"]["prompts_sha256"] == sha256_file(study / "prompts/replay.jsonl")
    assert report["settings"]["replay"] == KL
    assert (report["steps"], report["epochs"]) == (3, 0.75)
    assert any(row[1] > 0 for row in packed)


def test_the_loss_is_cross_entropy_and_divergence_from_the_base(study):
    """The loss of the second step against one computed here, with the adapter that the first one left."""
    training = PLAIN | {
        "per_device_train_batch_size": 16,
        "gradient_accumulation_steps": 1,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
    }
    train(**given(study, "one", training=training | {"max_steps": 1}))
    train(**given(study, "both", training=training | {"max_steps": 2}))
    record = read_json(study / "model.json")
    chat, base = load_chat(record), load_model(record, "fp32")
    tuned = load_adapter(load_model(record, "fp32"), study / "one/adapter")
    rows = [(row, False) for row in read_jsonl(study / "prompts/train.jsonl")]
    rows += [(row, True) for row in read_jsonl(study / "prompts/replay.jsonl")[:4]]
    losses, divergences, replayed = [], [], []
    for row, of_replay in rows:
        prompt, completion = chat.encode(row["prompt"], row["completion"])
        with torch.no_grad():
            before, after = (
                model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
                for model in (base, tuned)
            )
        found = F.nll_loss(after, torch.tensor(completion), reduction="none").tolist()
        losses += found
        if of_replay:
            divergences += (before.exp() * (before - after)).sum(-1).tolist()
            replayed += found
    (first, second) = history(study, "both", "loss", "replay_kl", "replay_loss")
    mean = sum(divergences) / len(divergences)
    assert mean > 0.001
    assert first[1] == pytest.approx(0, abs=1e-6)  # a fresh adapter changes nothing
    assert second[1] == pytest.approx(mean, rel=1e-4)
    assert second[2] == pytest.approx(sum(replayed) / len(replayed), rel=1e-4)
    assert second[0] == pytest.approx((sum(losses) + KL["kl"] * sum(divergences)) / len(losses), rel=1e-4)


def test_padded_batches_have_the_same_losses_and_gradients(study, packed, monkeypatch):
    monkeypatch.setattr(module, "keep_apart", lambda *_: ("a test says so", {}))
    train(**given(study, "padded"))
    assert read_json(study / "padded/train.json")["padded"] == "a test says so"
    close(history(study, "padded", *KEYS), packed, rel=2e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["bf16", "nf4"])
def test_on_a_gpu_padded_batches_have_the_same_losses(study, precision, monkeypatch):
    training = PLAIN | {"learning_rate": 0.02}
    train(**given(study, f"{precision}-packed", training=training) | {"precision": precision})
    monkeypatch.setattr(module, "keep_apart", lambda *_: ("a test says so", {}))
    train(**given(study, f"{precision}-padded", training=training) | {"precision": precision})
    ours, theirs = (history(study, f"{precision}-{how}", *KEYS) for how in ("packed", "padded"))
    assert [row[0] for row in ours] == pytest.approx([row[0] for row in theirs], rel=0.01)
    assert ours[-1][1] > 0.01
    assert ours[-1][1] == pytest.approx(theirs[-1][1], rel=0.2)


def test_the_number_of_micro_batches_changes_nothing(study, packed, monkeypatch):
    found = {"tokens_per_pass": 1, "gradient_checkpointing": True}  # a row a micro-batch, computed twice
    monkeypatch.setattr("llm.fit.fit", lambda trainer: found)
    train(**given(study, "passes"))
    close(history(study, "passes", *KEYS), packed, rel=2e-5)


@pytest.mark.long
@pytest.mark.parametrize("padded", [False, True])
def test_two_processes_compute_the_steps_of_one(study, packed, padded):
    name, options = "two", given(study, "two")
    if padded:  # by noise of no size; a process then has its own rows of a step
        training = PLAIN | {"per_device_train_batch_size": 1, "neftune_noise_alpha": 0.0}
        name, options = "two-padded", given(study, "two-padded", training=training)
    train_on(["0", "1"], options)
    assert bool(read_json(study / name / "train.json")["padded"]) == padded
    close(history(study, name, *KEYS), packed, rel=2e-5)
    one, two = (load_file(study / variant / "adapter/adapter_model.safetensors") for variant in ("packed", name))
    assert all(torch.allclose(one[key], two[key], atol=1e-5) for key in one)


def test_killed_it_ends_with_the_same_bits(study):
    # With dropout, whose random state the passes of the KL term go through too.
    training = PLAIN | {"logging_steps": 3, "max_steps": 5}
    options = {"training": training, "lora": LORA}
    train(**given(study, "dropout", **options))
    more = {key: value for key, value in given(study, "killed", **options).items() if key.startswith("replay")}
    killed(study, "killed", "between", 3, training=training, more=more)
    train(**given(study, "killed", **options))
    assert read_json(study / "killed/train.json")["resumed_from_step"] == 2
    assert adapter(study, "killed") == adapter(study, "dropout")
    assert history(study, "killed", *KEYS) == history(study, "dropout", *KEYS)


def test_without_the_term_rows_are_rows(study, packed):
    """kl 0 is a training on all rows; the term holds the tuned model nearer to the base on those replayed."""
    plain = {"fraction": 0.3, "kl": 0.0}
    train(**given(study, "plain", replay=plain))
    report = read_json(study / "plain/train.json")
    assert (report["rows"], report["replay"]["of"]) == (16, plain)
    assert all(row == [0, 0] for row in history(study, "plain", "replay_kl", "replay_loss"))
    train(**given(study, "strong", replay={"fraction": 0.3, "kl": 500.0}))
    record = read_json(study / "model.json")
    chat, base = load_chat(record), load_model(record, "fp32")
    distance = {}
    for variant in ("plain", "strong"):
        tuned, distance[variant] = load_adapter(load_model(record, "fp32"), study / variant / "adapter"), 0.0
        for row in read_jsonl(study / "prompts/replay.jsonl")[:4]:
            prompt, completion = chat.encode(row["prompt"], row["completion"])
            with torch.no_grad():
                a, b = (m(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1] for m in (base, tuned))
            distance[variant] += F.kl_div(b.log_softmax(-1), a.log_softmax(-1), reduction="sum", log_target=True).item()
    assert distance["strong"] < 0.5 * distance["plain"]


def test_too_few_rows_are_refused(study):
    with pytest.raises(UserError, match=r"replay.fraction: 0.5 of 12 rows are 6, but .* has 5\."):
        train(**given(study, "few", replay={"fraction": 0.5, "kl": 0.0}))


def test_the_audit_must_be_of_these_prompts(study, tmp_path):
    report = read_json(study / "audit_replay.json")
    report["sha256"]["prompts"] = "0" * 64
    write_json(tmp_path / "audit.json", report)
    with pytest.raises(UserError, match="made for other prompts"):
        rows_to_replay(str(study / "prompts/replay.jsonl"), str(tmp_path / "audit.json"), 0.1, 10)
