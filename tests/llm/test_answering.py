"""Prediction: the same answers whatever the batch, the padding or the number of kills."""

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from itertools import chain, pairwise
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.helpers import rescale_adapter_scale

from common.files import UserError, read_json, read_jsonl, sha256_file, write_json, write_jsonl
from llm import answering
from llm.adapters import load_adapter
from llm.answering import Job, answer_all, predict
from llm.chat import Turn, load_chat
from llm.decoding import Decoding, Draw, Encoded
from llm.groups import other_batches
from llm.load import load_model, set_greedy
from llm.partial import Partial
from tiny_model import KINDS, make_model, render, write_splits

pytestmark = pytest.mark.usefixtures("two_threads")

SETTINGS = {"precision": "fp32", "batch_size": 4, "max_new_tokens": 12}
LETTERS = ("A", "B", "C", "D")


def make_study(folder, kind):
    """Write a model, an adapter and prompts whose lengths differ much, so that padding does."""
    write_splits(folder, test=10)
    record = make_model(folder / "model", kind)
    prompts = render(folder, record, "test")
    rows = read_jsonl(prompts)
    chat = load_chat(read_json(record))
    for i, row in enumerate(rows):
        row["prompt"] = chat.prompt([Turn("user", "singer " * (3 * i % 7) + f"{i}?")])
    write_jsonl(prompts, rows)
    torch.manual_seed(1)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(load_model(read_json(record), "fp32"), config).save_pretrained(folder / "adapter")
    return folder


@pytest.fixture(scope="module", params=list(KINDS))
def study(request, tmp_path_factory):
    return make_study(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("only"), "llama3")


def make_job(study, options=(), adapter=False, **settings):
    prompts = study / "prompts/test.jsonl"
    if options:
        rows = [{**row, "options": list(options)} for row in read_jsonl(prompts)]
        prompts = study / "prompts/options.jsonl"
        write_jsonl(prompts, rows)
    return Job(
        prompts=str(prompts),
        record=str(study / "model.json"),
        adapter=str(study / "adapter") if adapter else None,
        decoding=Decoding(**SETTINGS | settings),
    )


def run(study, out, options=(), adapter=False, gpus=(), **settings):
    """Predict into `out` and return the answers."""
    predict(make_job(study, options, adapter, **settings), out / "answers.jsonl", out / "report.json", gpus)
    assert not (out / "answers.jsonl.partial.jsonl").exists()
    return read_jsonl(out / "answers.jsonl")


@pytest.mark.parametrize("adapter", [False, True])
def test_batch_size_changes_no_answer(study, tmp_path, adapter):
    one = run(study, tmp_path / "1", adapter=adapter, batch_size=1)
    four = run(study, tmp_path / "4", adapter=adapter, batch_size=4)
    assert one == four
    assert [row["id"] for row in one] == [row["id"] for row in read_jsonl(study / "prompts/test.jsonl")]
    assert len({row["answer"] for row in one}) > 1


def test_other_batches_are_others_and_answers_stay_in_the_order_of_the_prompts(llama, tmp_path, monkeypatch):
    found, seen = {}, []
    answer_all = answering.answer_all

    def watched(prompts, groups, answer, partial, batch_size):
        seen.append([groups[0][start : start + batch_size] for start in range(0, len(groups[0]), batch_size)])
        return answer_all(prompts, groups, answer, partial, batch_size)

    monkeypatch.setattr(answering, "answer_all", watched)
    for other in (False, True):
        found[other] = run(llama, tmp_path / str(other), batch_size=4, other_batches=other)
    assert found[False] == found[True]
    once, again = seen
    assert sorted(chain(*once)) == sorted(chain(*again))
    assert {len(batch) for batch in again[:-1]} == {2}
    assert once[0][0] == again[0][0], "the longest prompt, which shows first what does not fit"
    # No prompt has its old neighbours beside it.
    pairs = [{frozenset(pair) for batch in batches for pair in pairwise(batch)} for batches in seen]
    assert not pairs[0] & pairs[1]


@pytest.mark.parametrize("batch_size", [1, 2, 7, 512])
def test_other_batches_have_another_size(batch_size):
    groups, size = other_batches([[*range(9, 0, -1)], [], [0]], batch_size)
    assert size == {1: 2, 2: 1, 7: 3, 512: 4}[batch_size]
    assert [sorted(group) for group in groups] == [[*range(1, 10)], [], [0]]


def test_answers_are_plain_greedy(study, tmp_path):
    """Against a loop that takes the likeliest token, without padding, cache or generation config."""
    rows = run(study, tmp_path)
    record = read_json(study / "model.json")
    chat, model = load_chat(record), load_model(record, "fp32")
    for row, prompt in zip(rows, read_jsonl(study / "prompts/test.jsonl"), strict=True):
        ids = chat.encode(prompt["prompt"])[0]
        start = len(ids)
        while len(ids) < start + 12 and (len(ids) == start or ids[-1] not in chat.stop_ids):
            with torch.no_grad():
                ids = [*ids, model(torch.tensor([ids])).logits[0, -1].argmax().item()]
        text, tokens, finished = chat.decode(ids[start:])
        assert row == {"id": prompt["id"], "answer": text, "tokens": tokens, "finished": finished}


def test_adapter_answers_otherwise_and_is_recorded(llama, tmp_path):
    base, tuned = run(llama, tmp_path / "base"), run(llama, tmp_path / "tuned", adapter=True)
    assert [row["answer"] for row in base] != [row["answer"] for row in tuned]
    report = read_json(tmp_path / "tuned/report.json")
    name = "adapter_model.safetensors"
    assert report["adapter_sha256"][name] == sha256_file(llama / "adapter" / name)
    assert read_json(tmp_path / "base/report.json")["adapter_sha256"] is None
    assert report["prompts_sha256"] == sha256_file(llama / "prompts/test.jsonl")
    assert report["batch_size_used"] == 4
    assert report["questions"] == 10


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("options", [(), LETTERS], ids=["text", "letters"])
def test_strength_0_is_the_base_and_1_the_adapter(llama, tmp_path, options, merge):
    """Equal, not close: tokens and, of MMLU, log probabilities."""
    base, tuned = (run(llama, tmp_path / f"{adapter}", options, adapter) for adapter in (False, True))
    assert base != tuned
    more = {"merge_adapters": True} if merge else {}
    assert run(llama, tmp_path / "0", options, True, strength=0.0, **more) == base
    if not merge:
        assert run(llama, tmp_path / "1", options, True, strength=1.0) == tuned
    assert run(llama, tmp_path / "half", options, True, strength=0.5, **more) not in (base, tuned)
    assert read_json(tmp_path / "half/report.json")["settings"] == {**SETTINGS, **more, "strength": 0.5}


def test_strength_is_that_of_peft(llama):
    """As peft.helpers.rescale_adapter_scale, and as the line between the weights of base and adapter."""
    record = read_json(llama / "model.json")
    ids = torch.arange(20)[None]

    def logits(model):
        with torch.no_grad():
            return model(ids).logits

    whole = load_adapter(load_model(record, "fp32"), llama / "adapter")
    with rescale_adapter_scale(whole, 0.25):
        expected = logits(whole)
    part = load_adapter(load_model(record, "fp32"), llama / "adapter", strength=0.25)
    assert torch.equal(logits(part), expected)
    assert not torch.equal(logits(whole), expected)
    base, tuned, between = (
        dict(model.named_parameters())
        for model in (
            load_model(record, "fp32"),
            load_adapter(load_model(record, "fp32"), llama / "adapter", merge=True),
            load_adapter(load_model(record, "fp32"), llama / "adapter", merge=True, strength=0.25),
        )
    )
    for name, weight in between.items():
        torch.testing.assert_close(weight, 0.75 * base[name] + 0.25 * tuned[name], rtol=0, atol=1e-6)


def test_a_merged_adapter_answers_as_one_beside_the_weights(llama, tmp_path):
    beside = run(llama, tmp_path / "beside", adapter=True)
    assert run(llama, tmp_path / "merged", adapter=True, merge_adapters=True) == beside
    settings = [read_json(tmp_path / name / "report.json")["settings"] for name in ("beside", "merged")]
    assert settings == [SETTINGS, {**SETTINGS, "merge_adapters": True}]
    record = read_json(llama / "model.json")
    merged = load_adapter(load_model(record, "fp32"), llama / "adapter", merge=True)
    assert not hasattr(merged, "peft_config")
    weights = dict(load_model(record, "fp32").named_parameters())
    changed = {name.split(".")[-2] for name, p in merged.named_parameters() if not torch.equal(p, weights[name])}
    assert changed == {"q_proj", "v_proj"}
    # The base model has none.
    run(llama, tmp_path / "base", merge_adapters=True)
    assert read_json(tmp_path / "base/report.json")["settings"] == SETTINGS


def test_generation_stops_at_the_stop_ids_of_the_model(llama, tmp_path):
    """The second token that the model says to the first prompt is declared a stop token: the answer must end there."""
    shutil.copytree(llama, tmp_path / "study")
    study = tmp_path / "study"
    record = read_json(study / "model.json") | {"path": str(study / "model")}
    write_json(study / "model.json", record)
    chat, model = load_chat(record), load_model(record, "fp32")
    ids = chat.encode(read_jsonl(study / "prompts/test.jsonl")[0]["prompt"])[0]
    with torch.no_grad():
        ids.append(model(torch.tensor([ids])).logits[0, -1].argmax().item())
        stop = model(torch.tensor([ids])).logits[0, -1].argmax().item()
    assert stop != ids[-1]
    generation = read_json(study / "model/generation_config.json")
    write_json(study / "model/generation_config.json", generation | {"eos_token_id": [stop, chat.end_of_turn_id]})
    first = run(study, tmp_path / "out")[0]
    assert (first["tokens"], first["finished"]) == (2, True)
    assert read_json(tmp_path / "out/report.json")["finished"] >= 1
    assert stop in read_json(tmp_path / "out/report.json")["template"]["stop_ids"]


def test_greedy_whatever_the_checkpoint_recommends(llama):
    record = read_json(llama / "model.json")
    chat, model = load_chat(record), load_model(record, "fp32")
    assert model.generation_config.do_sample is True
    set_greedy(model, chat, 5)
    config = model.generation_config
    assert config.do_sample is False
    assert (config.temperature, config.max_new_tokens) == (None, 5)
    assert config.eos_token_id == list(chat.stop_ids)


SAMPLED = {"do_sample": True, "temperature": 1.3, "top_p": 0.95, "seed": 1}


def test_sampled_answers_are_each_question_s_own(study, tmp_path):
    """Whatever the batch, its order and the other questions, and other than the greedy ones."""
    one = run(study, tmp_path / "1", batch_size=1, **SAMPLED)
    assert one == run(study, tmp_path / "4", batch_size=4, **SAMPLED)
    fewer = tmp_path / "study"
    shutil.copytree(study, fewer)
    write_jsonl(fewer / "prompts/test.jsonl", read_jsonl(study / "prompts/test.jsonl")[5:2:-1])
    assert run(fewer, tmp_path / "fewer", batch_size=4, **SAMPLED) == one[5:2:-1]
    answers = [row["answer"] for row in one]
    assert answers != [row["answer"] for row in run(study, tmp_path / "seed", **SAMPLED | {"seed": 2})]
    greedy = run(study, tmp_path / "greedy")
    assert answers != [row["answer"] for row in greedy]
    assert run(study, tmp_path / "cold", **SAMPLED | {"temperature": 1e-4}) == greedy
    assert run(study, tmp_path / "narrow", **SAMPLED | {"top_p": 1e-6}) == greedy
    assert read_json(tmp_path / "1/report.json")["settings"] == {**SETTINGS, "batch_size": 1, **SAMPLED}
    # Without it, its settings are nobody's business.
    assert read_json(tmp_path / "greedy/report.json")["settings"] == SETTINGS


@pytest.mark.parametrize(
    ("generation", "reason"),
    [
        ({"repetition_penalty": 1.3}, "the tokens so far change what comes next"),
        ({"no_repeat_ngram_size": 1, "top_k": 1}, "the tokens so far change what comes next"),
        ({"top_k": 1}, None),
    ],
)
def test_further_keys_act_as_in_generate(llama, tmp_path, generation, reason):
    """As transformers' own `generate` answers one prompt with these keys; whatever the batch; letters are the same."""
    rows = run(llama, tmp_path / "4", generation=generation)
    assert rows == run(llama, tmp_path / "1", batch_size=1, generation=generation)
    report = read_json(tmp_path / "4/report.json")
    greedy = {key: value for key, value in generation.items() if key != "top_k"}
    assert report["settings"] == SETTINGS | ({"generation": greedy} if greedy else {})
    assert (f"generate ({reason})" == report["decoder"]) == (reason is not None)
    assert (rows == run(llama, tmp_path / "plain")) == (reason is None)
    letters = run(llama, tmp_path / "letters", LETTERS, generation=generation)
    without = run(llama, tmp_path / "without", LETTERS)
    assert all(
        one["logprobs"][letter] == pytest.approx(two["logprobs"][letter], abs=1e-4)
        for one, two in zip(letters, without, strict=True)
        for letter in LETTERS
    )
    record = read_json(llama / "model.json")
    chat, model = load_chat(record), load_model(record, "fp32")
    set_greedy(model, chat, 12)
    for row, prompt in zip(rows, read_jsonl(llama / "prompts/test.jsonl"), strict=True):
        ids = torch.tensor([chat.encode(prompt["prompt"])[0]])
        new = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **greedy)[0, ids.shape[1] :]
        assert row["answer"] == chat.decode(new.tolist())[0]


def test_further_keys_narrow_what_is_drawn(llama, tmp_path):
    greedy = run(llama, tmp_path / "greedy")
    assert run(llama, tmp_path / "drawn", **SAMPLED) != greedy
    for number, generation in enumerate(({"top_k": 1}, {"min_p": 1.0}, {"epsilon_cutoff": 0.999})):
        assert run(llama, tmp_path / f"{number}", **SAMPLED, generation=generation) == greedy
    with pytest.raises(UserError, match=r"inference: transformers refuses these values .*top_k"):
        run(llama, tmp_path / "wrong", **SAMPLED, generation={"top_k": 0})


def test_draws_follow_the_distribution():
    """Frequencies of one token's draws for many questions, after temperature and top-p, against the probabilities."""
    torch.manual_seed(0)
    scores, n = torch.randn(1, 20) * 2, 20000
    warped = (scores / 0.7).softmax(-1)[0]
    order = warped.argsort(descending=True)
    kept = order[: int((warped[order].cumsum(0) < 0.9).sum()) + 1]
    expected = torch.zeros(20).scatter(0, kept, warped[kept] / warped[kept].sum())
    processors = Decoding("fp32", 3, "auto", True, 0.7, 0.9, 42).processors([str(i) for i in range(n)])
    drawn = [processors(torch.zeros(n, 1), scores.repeat(n, 1)).argmax(-1) for _ in range(3)]
    for tokens in drawn:
        frequencies = torch.bincount(tokens, minlength=20) / n
        assert (frequencies[expected == 0] == 0).all()
        assert torch.allclose(frequencies, expected, atol=5 * (0.25 / n) ** 0.5)
    # One token's draw says nothing about the next one's.
    assert abs(torch.corrcoef(torch.stack(drawn[:2]).float())[0, 1]) < 0.05


def test_draws_never_take_what_has_no_probability():
    scores = torch.full((1, 6), -torch.inf)
    scores[0, 3] = 0.0
    draw = Draw(["a"], 0, 3)
    draw.uniform = torch.tensor([[0.0], [0.5], [1.0 - 2**-53]], dtype=torch.float64)
    assert [draw(None, scores).argmax().item() for _ in range(3)] == [3, 3, 3]


def test_no_prompts(llama, tmp_path):
    shutil.copytree(llama, tmp_path / "study")
    write_jsonl(tmp_path / "study/prompts/test.jsonl", [])
    with pytest.raises(UserError, match="found no prompts"):
        run(tmp_path / "study", tmp_path / "out")


def test_decode_new(llama):
    chat = load_chat(read_json(llama / "model.json"))
    sql = chat.tokenizer.encode("SELECT a , b FROM t WHERE x = ' !'", add_special_tokens=False)
    end, pad = chat.end_of_turn_id, chat.tokenizer.pad_token_id
    text = "SELECT a , b FROM t WHERE x = ' !'"
    assert chat.decode([*sql, end, pad, pad]) == (text, len(sql) + 1, True)
    assert chat.decode(sql) == (text, len(sql), False)
    assert chat.decode([end]) == ("", 1, True)


KILLED = """
import json, os, signal, sys
import torch
from llm import answering
from huggingface_hub import constants
assert constants.HF_HUB_OFFLINE
assert "peft" not in sys.modules and "trl" not in sys.modules
torch.set_num_threads(2)
write, batches = answering.Partial._write, []
def torn(self, entry):
    batches.append(entry)
    if len(batches) < 4:  # the header and two batches
        return write(self, entry)
    self.stream.write(json.dumps(entry).encode()[:40])
    self.stream.flush()
    os.kill(os.getpid(), signal.SIGKILL)
answering.Partial._write = torn
job, answers, report = json.loads(sys.argv[1])
job["decoding"] = answering.Decoding(**job["decoding"])
answering.predict(answering.Job(**job), answers, report)
"""


@pytest.mark.parametrize("sampled", [{}, SAMPLED], ids=["greedy", "sampled"])
def test_killed_while_an_answer_is_written(llama, tmp_path, capsys, sampled):
    study, out = llama, tmp_path / "killed"
    arguments = [asdict(make_job(study, **sampled)), str(out / "answers.jsonl"), str(out / "report.json")]
    scripts = Path(sys.modules["llm.answering"].__file__).parents[1]
    command = [sys.executable, "-c", KILLED, json.dumps(arguments)]
    done = subprocess.run(command, cwd=scripts, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (out / "answers.jsonl").exists()
    kept = (out / "answers.jsonl.partial.jsonl").read_bytes()
    assert kept.count(b"\n") == 3
    assert not kept.endswith(b"\n")
    run(study, out, **sampled)
    assert read_json(out / "report.json")["answered_before_resuming"] == 8
    assert "last line is cut" in capsys.readouterr().out
    run(study, tmp_path / "whole", **sampled)
    assert (out / "answers.jsonl").read_bytes() == (tmp_path / "whole/answers.jsonl").read_bytes()


def test_answers_so_far_belong_to_the_identity(llama, tmp_path, capsys):
    """What it leaves out, such as the size of a batch, may change between two attempts; what it has may not."""

    def interrupted(out):
        partial, add = tmp_path / out / "answers.jsonl", Partial.add

        def stop(self, rows, batch_size):
            add(self, rows, batch_size)
            raise InterruptedError

        with pytest.MonkeyPatch.context() as patch, pytest.raises(InterruptedError):
            patch.setattr(Partial, "add", stop)
            predict(replace(make_job(llama), identity={"seed": 1}), partial, partial.with_name("report.json"))
        return partial

    for out, seed, before in (("same", 1, 4), ("other", 2, 0)):
        answers = interrupted(out)
        job = replace(make_job(llama, batch_size=2), identity={"seed": seed})
        predict(job, answers, answers.with_name("report.json"))
        assert read_json(answers.with_name("report.json"))["answered_before_resuming"] == before
        assert read_jsonl(answers) == run(llama, tmp_path / "whole")
    assert "starting over" in capsys.readouterr().out


def test_answers_of_other_settings_are_not_reused(llama, tmp_path, capsys):
    partial = Partial(tmp_path / "answers.jsonl.partial.jsonl", "another run")
    partial.add([{"id": "dev-00500", "answer": "stale", "tokens": 1, "finished": True}], 4)
    partial.close(remove=False)
    rows = run(llama, tmp_path)
    assert "starting over" in capsys.readouterr().out
    assert rows[0]["answer"] != "stale"
    assert rows == run(llama, tmp_path / "fresh")


def fake(limit, calls):
    def answer(batch, group, full):
        assert len(batch) <= full
        calls.append(len(batch))
        if len(batch) > limit:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return [{"answer": str(len(prompt.tokens))} for prompt in batch]

    return answer


def test_out_of_memory_halves_the_batch(tmp_path, capsys):
    prompts = [Encoded(str(i), [0] * (i + 1)) for i in range(11)]
    partial, calls = Partial(tmp_path / "p", "x"), []
    assert answer_all(prompts, [list(range(10, -1, -1))], fake(2, calls), partial, 8) == 2
    assert calls == [8, 4, 2, 2, 2, 2, 2, 1]
    assert {i: row["answer"] for i, row in partial.rows.items()} == {str(i): str(i + 1) for i in range(11)}
    assert "batches of 2" in capsys.readouterr().out
    partial.close(remove=False)
    # A resumed job does not run into the same wall.
    assert Partial(tmp_path / "p", "x").batch_size == 2


def test_batch_size_auto(llama, tmp_path):
    assert run(llama, tmp_path / "auto", batch_size="auto") == run(llama, tmp_path / "32", batch_size=32)
    report = read_json(tmp_path / "auto/report.json")
    # No larger than there are questions.
    assert (report["settings"]["batch_size"], report["batch_size_used"]) == ("auto", 10)


def test_out_of_memory_while_the_cache_is_made(llama, tmp_path, monkeypatch):
    """The engine fails at its first size; the next one is made with half the rows and answers the same."""
    want, tried, zeros = run(llama, tmp_path / "roomy", batch_size=8), [], torch.zeros

    def small(shape, *args, **kwargs):
        if isinstance(shape, tuple) and len(shape) == 4:
            tried.append(shape[0])
            if shape[0] > 2:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return zeros(shape, *args, **kwargs)

    monkeypatch.setattr(torch, "zeros", small)
    assert run(llama, tmp_path / "tight", batch_size=8) == want
    # Three rows and then one are those of the engine's proof.
    assert sorted(set(tried), reverse=True) == [8, 4, 3, 2, 1]
    report = read_json(tmp_path / "tight/report.json")
    assert report["batch_size_used"] == 2
    assert report["decoder"] == "shared prefix computed once"


def test_one_prompt_too_large_for_the_gpu(tmp_path):
    with pytest.raises(UserError, match="prompt of b: its 3 tokens do not fit"):
        answer_all([Encoded("a", [0]), Encoded("b", [0] * 3)], [[1, 0]], fake(0, []), Partial(tmp_path / "p", "x"), 4)


def test_a_batch_is_of_one_group(tmp_path):
    """And is the same batch after a kill."""
    prompts, groups = [Encoded(str(i), [0]) for i in range(7)], [[6, 3, 1], [5, 4, 2, 0]]
    seen = []

    def answer(batch, group, full):
        seen.append(("".join(prompt.id for prompt in batch), group, full))
        return [{"answer": ""}] * len(batch)

    partial = Partial(tmp_path / "p", "x")
    answer_all(prompts, groups, answer, partial, 3)
    assert seen == [("631", 0, 3), ("542", 1, 3), ("0", 1, 3)]
    for lost in ("54210", "0"):
        rest, before = Partial(tmp_path / lost, "x"), len(seen)
        rest.add([{"id": name} for name in "631" + "542" * (lost == "0")], 3)
        answer_all(prompts, groups, answer, rest, 3)
        assert seen[before:] == seen[1 + (lost == "0") : 3]


@pytest.mark.parametrize("options", [(), LETTERS], ids=["text", "letters"])
def test_groups_change_no_answer(llama, tmp_path, options, monkeypatch):
    """Prompts about three subjects in turn, as one group and as three."""
    shutil.copytree(llama / "prompts", tmp_path / "prompts")
    shutil.copy(llama / "model.json", tmp_path)
    rows, chat = read_jsonl(tmp_path / "prompts/test.jsonl"), load_chat(read_json(llama / "model.json"))
    subjects = ["singer " * 30, "concert " * 20, "stadium " * 40]
    for i, row in enumerate(rows):
        row["prompt"] = chat.prompt([Turn("user", subjects[i % 3] + "year " * (i % 4) + f"{i}?")])
    write_jsonl(tmp_path / "prompts/test.jsonl", rows)
    found, reports = {}, {}
    for tokens in (0, 10**6):  # what a group costs
        monkeypatch.setattr("llm.groups.STEP_TOKENS", tokens)
        found[tokens] = run(tmp_path, tmp_path / str(tokens), options)
        reports[tokens] = read_json(tmp_path / str(tokens) / "report.json")
    assert reports[0]["shared_beginnings"] >= 3
    assert reports[10**6]["shared_beginnings"] == 1
    assert reports[0]["shared_tokens"] > reports[10**6]["shared_tokens"] + 20
    for one, other in zip(*found.values(), strict=True):
        assert one.pop("logprobs", {}) == pytest.approx(other.pop("logprobs", {}), abs=1e-4)
        assert one == other


def test_prompt_with_two_bos(llama, tmp_path):
    shutil.copytree(llama / "prompts", tmp_path / "prompts")
    shutil.copy(llama / "model.json", tmp_path)
    rows = read_jsonl(tmp_path / "prompts/test.jsonl")
    rows[2]["prompt"] = "<|begin_of_text|>" + rows[2]["prompt"]
    write_jsonl(tmp_path / "prompts/test.jsonl", rows)
    with pytest.raises(UserError, match=f"{rows[2]['id']}: found 2 BOS"):
        run(tmp_path, tmp_path / "out")


def test_nf4_without_gpu(llama, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"models.tiny.precision: precision nf4 needs a CUDA GPU"):
        run(llama, tmp_path, precision="nf4")


@pytest.mark.parametrize("adapter", [False, True])
def test_mmlu_batch_size_changes_nothing(study, tmp_path, adapter):
    one = run(study, tmp_path / "1", LETTERS, adapter, batch_size=1)
    four = run(study, tmp_path / "4", LETTERS, adapter, batch_size=4)
    for a, b in zip(one, four, strict=True):
        assert (a["id"], a["prediction"], a["generated"]) == (b["id"], b["prediction"], b["generated"])
        assert a["logprobs"] == pytest.approx(b["logprobs"], abs=1e-4)


def test_mmlu_log_probabilities(study, tmp_path):
    """Against one forward pass without padding; the letters' tokens found by hand."""
    rows = run(study, tmp_path, LETTERS)
    record = read_json(study / "model.json")
    chat, model = load_chat(record), load_model(record, "fp32")
    vocabulary = chat.tokenizer.get_vocab()
    space = "Ġ" if any(token.startswith("Ġ") for token in vocabulary) else "▁"
    forms = [f for f in ("", space) if all(f + letter in vocabulary for letter in "ABCD")]
    assert forms
    for row, prompt in zip(rows, read_jsonl(study / "prompts/test.jsonl"), strict=True):
        assert list(row) == ["id", "logprobs", "prediction", "generated"]
        with torch.no_grad():
            logits = model(torch.tensor([chat.encode(prompt["prompt"])[0]])).logits[0, -1]
        probabilities = logits.softmax(-1)
        for letter in "ABCD":
            expected = sum(probabilities[vocabulary[form + letter]] for form in forms).log().item()
            assert row["logprobs"][letter] == pytest.approx(expected, abs=1e-4)
        assert row["prediction"] == max("ABCD", key=row["logprobs"].get)
    assert set(read_json(tmp_path / "report.json")["letter_tokens"]["B"]) == {form + "B" for form in forms}


def test_mmlu_letters_are_those_of_greedy_decoding(llama, tmp_path):
    greedy = run(llama, tmp_path / "greedy", LETTERS)
    sampled = run(llama, tmp_path / "sampled", LETTERS, **SAMPLED)
    for ours, theirs in zip(sampled, greedy, strict=True):
        # Drawing uses transformers' own decoding, whose sums are rounded elsewhere.
        assert ours["logprobs"] == pytest.approx(theirs["logprobs"], abs=1e-4)
        assert (ours["id"], ours["prediction"]) == (theirs["id"], theirs["prediction"])
    assert [row["generated"] for row in sampled] != [row["generated"] for row in greedy]


def test_letters_in_both_forms(llama, monkeypatch):
    """Where "A" and " A" are both tokens, both count; a form that only some letters have favours none of them."""
    chat = load_chat(read_json(llama / "model.json"))
    names = {letter: chat.tokenizer.convert_ids_to_tokens(ids) for letter, ids in chat.option_tokens(LETTERS).items()}
    assert {letter: set(found) for letter, found in names.items()} == {c: {c, f"Ġ{c}"} for c in "ABCD"}
    vocabulary = {token: i for token, i in chat.tokenizer.get_vocab().items() if token != "ĠC"}
    encode = chat.tokenizer.encode
    monkeypatch.setattr(chat.tokenizer, "get_vocab", lambda: vocabulary)
    monkeypatch.setattr(chat.tokenizer, "encode", lambda text, **_: [1, 2] if text == " C" else encode(text, **_))
    assert chat.option_tokens(LETTERS) == {letter: [vocabulary[letter]] for letter in "ABCD"}


def test_letters_that_are_no_tokens(tmp_path, monkeypatch):
    chat = load_chat(read_json(make_model(tmp_path / "model")))
    vocabulary = {token: i for token, i in chat.tokenizer.get_vocab().items() if token[-1] != "C"}
    monkeypatch.setattr(chat.tokenizer, "get_vocab", lambda: vocabulary)
    monkeypatch.setattr(chat.tokenizer, "encode", lambda text, **_: [1, 2])
    with pytest.raises(UserError, match="no single token for the letters"):
        chat.option_tokens(LETTERS)
