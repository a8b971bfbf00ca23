"""The plan before a run: what it counts, what it estimates, and what it refuses."""

import json
import re
import shutil
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

import plan
from common.files import write_jsonl
from llm import answering as _predict
from llm import groups as _groups
from llm import prefix_engine as _engine
from llm import times
from llm.chat import Turn
from llm.memory import Shape
from llm.prompts import template
from studies import main as list_studies
from study.read import check, resolve
from study.unfold import stage
from tasks.choice import told
from tasks.registry import KINDS

REPO = Path(__file__).parents[2]
GPU = {"flops": {"fp32": 5e13, "bf16": 7e14}, "bandwidth": 3e12}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty folder in which the embedded demo can be found; no device is measured."""
    monkeypatch.chdir(tmp_path)
    for name in ("resources", "studies", "config.yaml"):
        (tmp_path / name).symlink_to(REPO / name)
    known = {"cpu, 2 threads": {"flops": {"fp32": 1e11}, "bandwidth": 2e10}}
    (tmp_path / "results").mkdir()
    (tmp_path / "results/calibration.json").write_text(json.dumps(known))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


def test_constants_are_those_of_the_engine():
    assert (plan.PREFILL_TOKENS, plan.ROUND) == (_engine.PREFILL_TOKENS, _engine.ROUND)
    assert plan.CPU_ROWS == _predict.CPU_ROWS


def test_answering_needs_so_many_times_the_limit():
    files = (REPO / "benchmarks/results").glob("*inference*.json")
    rows = [row for path in files for row in json.loads(path.read_text())["rows"]]
    found = [row["times_limit"] for row in rows if row["way"] == "shared prefix, graph"]
    assert statistics.median(found) == pytest.approx(times.ANSWERING, rel=0.15)


def test_training_needs_so_many_times_the_limit():
    """In steps of 16 rows and more, and in steps of 4, of 450 tokens on average."""
    result = json.loads(max((REPO / "benchmarks/results").glob("*-nvidia-h100*.json")).read_text())
    rows = result["parts"]["training"]["rows"]
    small, large = [], []
    for row in rows:
        if row["way"] in ("faithful", "fast"):
            (large if row["rows_per_step"] >= 16 else small).append(1 / row["of_limit"])
    assert statistics.median(large) == pytest.approx(times.TRAINING, rel=0.15)
    assert statistics.median(small) == pytest.approx(times.TRAINING_SMALL, rel=0.15)


def test_a_small_gpu_computes_passes_twice(monkeypatch, capsys):
    """And is slower by half at the same rates."""
    hours = []
    for memory in (8e10, 1.2e10):
        device = plan.Device("a GPU", memory, True, GPU["flops"], GPU["bandwidth"])
        monkeypatch.setattr(plan, "this_device", lambda _, device=device: device)
        assert plan.main(["--configfile", "studies/souza.yaml"]) == 0
        words = rows(capsys.readouterr().out)["train"][6].split()
        hours.append(int(words[0]) + int(words[2]) / 60)
    assert hours[1] == pytest.approx(1.5 * hours[0], rel=0.05)


def study(**sections) -> Path:
    config = yaml.safe_load(Path("config.yaml").read_text())
    for section, values in sections.items():
        config[section] |= values
    path = Path("study.yaml")
    path.write_text(yaml.safe_dump(config))
    return path


def rows(output: str) -> dict[str, list[str]]:
    """Return the cells of the printed table by rule."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in output.splitlines() if "|" in line]
    return {line[0]: line[1:] for line in cells[2:]}


def test_the_demo(capsys):
    assert plan.main([]) == 0
    out = capsys.readouterr().out
    assert out.startswith("demo on cpu, 2 threads")
    assert "No GPU is visible" in out
    found = rows(out)
    assert list(found) == ["train", "predict_spider", "predict_mmlu"]
    # The model is a local folder, so its size is read; the prompts are not rendered.
    assert [line[1] for line in found.values()] == ["0.00459 B fp32"] * 3
    # Two runs more are the noise floor's.
    assert [line[2] for line in found.values()] == ["2", "5", "5"]
    assert all(line[3].startswith("~") for line in found.values())
    assert "unknown" not in out


def test_other_numbers_of_examples_have_lines_of_their_own(capsys):
    file = study(evaluation={"shots": [0, 3, 5]})
    assert plan.main(["--configfile", str(file)]) == 0
    found = rows(capsys.readouterr().out)
    spider = {name: line for name, line in found.items() if name.startswith("predict_spider")}
    assert list(spider) == ["predict_spider", "predict_spider (test_shots0)", "predict_spider (test_shots5)"]
    assert [line[2] for line in spider.values()] == ["5", "1", "1"]
    own, none, five = (int(line[3].strip("~").replace(",", "")) for line in spider.values())
    assert none < own < five
    assert found["predict_mmlu"][2] == "5"


def test_rendered_prompts_are_counted(capsys, tmp_path):
    model = {"path": str(REPO / "resources/demo/model"), "source": "x", "revision": None, "name": "demo"}
    results = tmp_path / "results/demo"
    (results / "models").mkdir(parents=True)
    (results / "models/demo.json").write_text(json.dumps(model))
    folder = results / "prompts/demo"
    folder.mkdir(parents=True)
    chat = _predict.load_chat(model)
    texts = [chat.prompt([Turn("user", "SELECT " * n)]) for n in (3, 9)]
    (folder / "spider_train.jsonl").write_text(
        "".join(
            json.dumps({"id": str(i), "prompt": p, "completion": "SELECT 1<|end|>"}) + "\n" for i, p in enumerate(texts)
        )
    )
    lengths = [len(chat.encode(text + "SELECT 1<|end|>")[0]) for text in texts]
    assert plan.main([]) == 0
    found = rows(capsys.readouterr().out)
    assert found["train"][3:5] == [str(max(lengths)), str(sum(lengths))]
    assert found["predict_mmlu"][3].startswith("~")


def test_prompts_that_begin_alike_are_answered_together(tmp_path):
    """Two subjects with examples of their own, whose prompts are rendered; and what is estimated before."""
    record, file = tmp_path / "demo.json", tmp_path / "mmlu.jsonl"
    model = {"path": str(REPO / "resources/demo/model"), "source": "x", "revision": None, "name": "demo"}
    record.write_text(json.dumps(model))
    chat = _predict.load_chat(model)
    examples = [f"{word} " * 900 for word in ("SELECT", "name")]
    texts = [chat.prompt([Turn("user", text + "id " * n)]) for text in examples for n in range(1, 9)]
    file.write_text("".join(json.dumps({"id": str(i), "prompt": p}) + "\n" for i, p in enumerate(texts)))
    found = plan.count(file, record, 4)
    encoded = [chat.encode(text)[0] for text in texts]
    halves = [encoded[:8], encoded[8:]]
    beginnings = [len(_groups.common_prefix(half)) for half in halves]
    assert min(beginnings) > 900
    assert sorted(found.groups) == sorted((8, beginning) for beginning in beginnings)
    assert found.rest == max(len(ids) - n for half, n in zip(halves, beginnings, strict=True) for ids in half) < 20
    assert plan.count(file, record).groups == []
    # An answer so long that a batch costs more than what is shared.
    assert plan.count(file, record, 64).groups == [(16, len(_groups.common_prefix(encoded)))]
    config = check(yaml.safe_load(Path("config.yaml").read_text()))
    mmlu = config["tasks"]["mmlu"]
    subjects = sum(map(len, mmlu["categories"].values()))
    shared = round(plan.MMLU_QUESTION * mmlu["shots"] / plan.CHARACTERS)
    mmlu |= {"questions_per_category": None, "shots_from": "own_dev"}
    full = plan.estimate(config, "mmlu", "test", 8)
    assert full.groups == [(round(full.count / subjects), shared)] * subjects
    assert full.rest == full.longest - shared
    mmlu["shots_from"] = "fixed"
    assert plan.estimate(config, "mmlu", "test", 8).groups == [(full.count, shared)]
    mmlu |= {"questions_per_category": 2, "shots_from": "own_dev"}
    few = plan.estimate(config, "mmlu", "test", 8)
    assert few.groups == [(few.count, 0)]


def other_kind(monkeypatch) -> dict:
    """The demo's questions of MMLU as a task of a kind that the plan knows nothing about."""
    monkeypatch.setitem(KINDS, "other", KINDS["mmlu"])
    config = check(yaml.safe_load(Path("config.yaml").read_text()))
    config["tasks"]["quiz"] = config["tasks"]["mmlu"] | {"kind": "other"}
    return config


def planned(config) -> plan.Plan:
    return plan.plan(config, plan.Device("a GPU", 8e10, True, GPU["flops"], GPU["bandwidth"]), Path("results/demo"))


def test_a_task_of_another_kind_is_estimated_from_its_rows(monkeypatch):
    """Those of a small local source, or, where they are prepared, those alone."""
    config = other_kind(monkeypatch)
    found = planned(config)
    lines = {line["Rule"]: line for line in found.rows}
    assert list(lines) == ["train", "predict_spider", "predict_mmlu", "predict_quiz"]
    assert found.unknown == []
    assert lines["predict_quiz"]["Jobs"] == "5"
    quiz = Path("results/demo/data/quiz")
    whole = plan.sample(config, "quiz", "test", 8, quiz)
    assert (whole.count, sum(number for number, _ in whole.groups), whole.counted) == (150, 150, False)
    assert lines["predict_quiz"]["Tokens a job"] == f"~{150 * whole.mean:,.0f}"
    # What is prepared counts, whatever the source has.
    KINDS["mmlu"].fetch(stage(config, "quiz", "fetch"), quiz / "source")
    written = KINDS["mmlu"].prepare(stage(config, "quiz", "test"), quiz / "source", "test")[0][:2]
    write_jsonl(quiz / "test.jsonl", written)
    two = plan.sample(config, "quiz", "test", 8, quiz)
    turns = template(REPO / "resources/prompts/choice.jinja")
    texts = []
    for row in written:
        shots = [{**told(shot), "target": shot["answer"]} for shot in row["shots"]]
        values = {**told(row), "shots": shots, "options": {"system": config["tasks"]["quiz"]["system"]}}
        texts.append("".join(turn.text for turn in turns(values)))
    assert (two.count, two.longest) == (2, round(max(map(len, texts)) / plan.CHARACTERS))
    # A row that is learnt ends in its letter, and is answered with no others.
    learnt = plan.sample(config, "quiz", "test", 0, quiz)
    assert (learnt.longest, learnt.groups) == (round((max(map(len, texts)) + 1) / plan.CHARACTERS), [])


def test_what_nothing_is_known_of_is_said_in_a_sentence(monkeypatch, capsys):
    config = other_kind(monkeypatch)
    config["tasks"]["quiz"]["source"] = "https://example.org/quiz.zip"
    found = planned(config)
    assert [line["Rule"] for line in found.rows] == ["train", "predict_spider", "predict_mmlu"]
    assert (found.unknown, found.refused) == (["render_quiz"], [])
    monkeypatch.setattr(plan, "as_for_snakemake", lambda *_: config)
    assert plan.main([]) == 0
    out = capsys.readouterr().out
    assert "snakemake --cores all --configfile config.yaml --until render_quiz" in out
    assert "predict_quiz" not in rows(out)


def test_replayed_rows_are_counted(capsys, tmp_path):
    old = {"old": {"kind": "replay", "role": "replay", "source": "resources/demo/replay.csv"}}

    def tokens(**replay):
        path = study(tasks=old, replay=replay, training={"learning_rate": 0.01})
        assert plan.main(["--configfile", str(path)]) == 0
        line = rows(capsys.readouterr().out)["train"]
        return int(line[4].lstrip("~").replace(",", "")), line[5:]

    plain, half = tokens(), tokens(fraction=0.5)
    number = -(-plan.estimate(yaml.safe_load(Path("config.yaml").read_text()), "spider", "train").count // 2)
    assert half[0] - plain[0] == pytest.approx(number * plan.REPLAYED / plan.CHARACTERS, abs=2)
    kl = tokens(fraction=0.5, kl=1.0)
    assert kl[0] == half[0]
    assert kl[1] != half[1]  # in time


def test_a_base_in_another_precision_has_rows_of_its_own(capsys):
    given = {"source": "resources/demo/model", "precision": "fp32", "base_precision": "bf16"}
    assert plan.main(["--configfile", str(study(models={"demo": given}))]) == 0
    lines = [line.split("|")[1:5] for line in capsys.readouterr().out.splitlines() if "predict_" in line]
    assert [(rule.strip(), size.split()[-1], int(jobs)) for rule, _, size, jobs in lines] == [
        ("predict_spider", "bf16", 2), ("predict_mmlu", "bf16", 2),
        ("predict_spider", "fp32", 3), ("predict_mmlu", "fp32", 3),
    ]  # fmt: skip
    assert plan.main(["--configfile", str(study(models={"demo": given | {"base_precision": "nf4"}}))]) == 1
    assert "REFUSED: models.demo.base_precision: nf4 needs a CUDA GPU" in capsys.readouterr().err


def test_some_of_the_rows_take_less(capsys):
    def tokens(rows: dict | None) -> int:
        assert plan.main(["--configfile", str(study(training={"rows": rows}, sweep={"lora.r": [8]}))]) == 0
        return int(rows_of(capsys)["train"][4].lstrip("~").replace(",", ""))

    def rows_of(capsys) -> dict:
        return rows(capsys.readouterr().out)

    plain = tokens(None)
    assert tokens({"fraction": 0.25}) == pytest.approx(plain / 4, rel=0.01)
    assert tokens({"count": 100}) == pytest.approx(tokens({"count": 50, "balance": "hardness"}) * 2, rel=0.01)


def test_more_rows_than_there_are_is_refused_where_they_are_counted():
    learnt = plan.Prompts(30, 10.0, 20, True, [(30, 5)], 15)
    config = resolve(yaml.safe_load(Path("config.yaml").read_text()), {"training": {"rows": {"count": 31}}})
    device = plan.Device("a GPU", 8e10, True, GPU["flops"], GPU["bandwidth"])
    model = plan.Target("demo", plan.Shape.like(5e6, 2560), "fp32", device)
    for counted in (True, False):
        found = plan.Plan()
        found.add_model(config, model, lambda *_, counted=counted: replace(learnt, counted=counted))
        assert any("is to take 31 rows, and there are 30 training rows" in one for one in found.refused) == counted


def test_command_line_values_hold_as_they_do_for_snakemake(capsys):
    arguments = ["--configfile", "studies/souza.yaml", "--config", "protocol=as_reported", "scale=smoke"]
    assert plan.main([*arguments, "sweep={lora.r: [4, 8]}"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("souza-as_reported-smoke on ")
    assert rows(out)["train"][2] == "2"
    assert plan.main(["--config", "tables={confidence_level: 95}"]) == 1
    assert "tables.confidence_level: found 95" in capsys.readouterr().err


def test_what_does_not_fit_is_refused_with_what_to_change(capsys):
    given = ["--configfile", "studies/ribeiro.yaml", "--memory-gb"]
    assert plan.main([*given, "80"]) == 0
    assert "unknown" in capsys.readouterr().out  # nothing is measured of a GPU that is not here
    assert plan.main([*given, "16"]) == 1
    refusal = capsys.readouterr().err
    assert "REFUSED: train mistral/" in refusal
    for change in ("precision: nf4", "tasks.spider.schema: compact", "all of these"):
        assert change in refusal
    needed = [float(line.split()[-2]) for line in refusal.splitlines() if line.endswith(" GB")]
    assert needed[-1] == min(needed) < 16
    gpus, each = re.search(r"(\d+) such GPUs that .*train:gpu=\1\): ([\d.]+) GB on each", refusal).groups()
    assert (int(gpus), float(each) < 16) == (2, True)
    assert "one prompt" not in refusal or "--set-resources predict_spider:gpu=" in refusal
    assert plan.main([*given, "3"]) == 1
    refusal = capsys.readouterr().err
    assert "A larger GPU, or a smaller model, is needed." in refusal
    assert "REFUSED: predict_spider mistral: needs" in refusal
    assert re.search(r"or (\d+) of them \(--set-resources predict_spider:gpu=\1\)", refusal)


@pytest.mark.parametrize("size", ["nan", "inf", "-5", "0"])
def test_a_memory_that_no_gpu_has(size, capsys):
    assert plan.main(["--memory-gb", size]) == 1
    assert capsys.readouterr().err == f"ERROR: --memory-gb: found {size}, expected a number above 0, such as 24.\n"


def test_full_fine_tuning_of_a_large_model_is_refused(capsys):
    """A model of 7 B needs more than one GPU has; neither nf4 nor other keys of an adapter are a remedy."""
    config = yaml.safe_load((REPO / "studies/ribeiro.yaml").read_text(encoding="utf-8"))
    config["adapters"] = {"full": {"training": {"method": "full", "learning_rate": 1.0e-5}}}
    Path("full.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    assert plan.main(["--configfile", "full.yaml", "--memory-gb", "80"]) == 1
    refusal = capsys.readouterr().err
    (said,) = re.findall(
        r"REFUSED: train mistral/full: needs ([\d.]+) GB \(weights [\d.]+, gradients and optimizer", refusal
    )
    assert 120 < float(said) < 160
    assert "nf4" not in refusal
    assert "or an adapter in place of full fine-tuning (training.method: lora), is needed." in refusal
    assert list_studies(["full.yaml", str(REPO / "studies/ribeiro.yaml")]) == 0
    whole, adapter = (float(_cells(line)[7]) for line in capsys.readouterr().out.splitlines()[2:4])
    assert whole > 2 * adapter


@pytest.mark.parametrize(
    ("file", "name"), [("*inference-h100", "H100"), ("*shared-h100", "H100"), ("*shared-h200", "H200")]
)
def test_a_named_gpu_is_as_fast_as_was_measured(file, name):
    (found,) = (REPO / "benchmarks/results").glob(f"{file}.json")
    measured, estimated = json.loads(found.read_text()), plan.named_gpu(name)
    assert estimated.flops["bf16"] == pytest.approx(measured["flops"], rel=0.03)
    assert estimated.bandwidth == pytest.approx(measured.get("bandwidth", estimated.bandwidth), rel=0.03)


def test_a_gpu_that_is_not_here_has_estimates_by_its_name(capsys):
    given = ["--configfile", "studies/assignment.yaml", "--gpu"]
    assert plan.main([*given, "RTX4090"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("assignment on RTX4090, not here, 25.8 GB, estimated from its data sheet: ")
    assert "unknown" not in out
    with pytest.raises(SystemExit):
        plan.main([*given, "RTX9999"])
    assert "'T4', 'RTX3090'" in capsys.readouterr().err


def test_jobs_share_the_gpus_and_each_must_start(capsys):
    given = ["--configfile", "studies/assignment.yaml", "--gpu", "A100-80GB", "--gpus"]
    found = {}
    for gpus in (1, 2, 4):
        assert plan.main([*given, str(gpus)]) == 0
        *_, alone, together = rows(capsys.readouterr().out)["predict_mmlu"]
        found[gpus] = int(together.removesuffix(" s"))
        assert int(alone.removesuffix(" s")) > plan.START_S
    # Seven jobs: one after the other, in four turns, in two.
    assert found[1] / found[2] == pytest.approx(7 / 4, rel=0.05)
    assert found[1] / found[4] == pytest.approx(7 / 2, rel=0.05)
    assert plan.main([*given, "0"]) == 1
    assert "--gpus: found 0, expected 1 or more." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("sections", "refusal"),
    [
        ({"models": {"demo": {"source": "resources/demo/model", "precision": "nf4"}}}, "models.demo.precision: nf4"),
        ({"training": {"optim": "paged_adamw_32bit"}}, "training.optim: paged_adamw_32bit"),
        ({"models": {"demo": {"source": "a/b", "revision": "0" * 40}}}, "models.demo: its size is not known"),
    ],
)
def test_what_this_machine_cannot_do(capsys, sections, refusal):
    assert plan.main(["--configfile", str(study(**sections))]) == 1
    assert f"REFUSED: {refusal}" in capsys.readouterr().err


def test_no_study(capsys, tmp_path):
    (tmp_path / "broken.yaml").write_text("a: [")
    assert plan.main(["--configfile", "broken.yaml"]) == 1
    assert "broken.yaml: not YAML" in capsys.readouterr().err
    assert plan.main(["--configfile", "nowhere.yaml"]) == 1
    assert "nowhere.yaml" in capsys.readouterr().err


def test_the_device_is_measured_once(tmp_path):
    file = tmp_path / "calibration.json"
    device = plan.this_device(file)
    kept = file.read_bytes()
    assert device.flops["fp32"] > 0
    assert device.bandwidth > 0
    assert not device.cuda
    again = plan.this_device(file)
    assert (again.flops, again.bandwidth, file.read_bytes()) == (device.flops, device.bandwidth, kept)


def test_times_follow_from_the_rates():
    shape = Shape.like(8.03e9, 128256)
    device = plan.Device("x", 8e10, True, GPU["flops"], GPU["bandwidth"])
    slow = plan.Device("x", 8e10, True, {key: value / 2 for key, value in GPU["flops"].items()}, GPU["bandwidth"])
    target, slower = (plan.Target("m", shape, "bf16", d) for d in (device, slow))
    fast, twice = (plan.training_seconds(one, 1e6, 16000, False) for one in (target, slower))
    assert twice == pytest.approx(2 * fast)
    # 4 operations a weight and token, of the 7.0 billion weights of the blocks, at 7e14 a second.
    assert fast == pytest.approx(times.TRAINING * 4 * 7.0e9 * 1e6 / 7e14, rel=0.01)
    assert plan.training_seconds(target, 1e6, 16000, True) == pytest.approx(1.5 * fast)
    assert plan.training_seconds(target, 1e6, 2000, False) > 2 * fast
    prompts = plan.Prompts(1000, 890, 1400, True, [(1000, 512)])
    one, many = (plan.answering_seconds(target, prompts, rows, 64) for rows in (1, 500))
    assert one > 10 * many
    # The benchmark's measured seconds a prompt at these shapes.
    assert many / 1000 == pytest.approx(0.02, rel=0.25)
    # The same prompts, ten kinds of them that begin alike: none are computed twice, but batches are smaller.
    tens = plan.Prompts(1000, 890, 1400, True, [(100, 512)] * 10)
    none = plan.Prompts(1000, 890, 1400, True, [(1000, 0)])
    alike, unlike = (plan.answering_seconds(target, prompts, 500, 1) for prompts in (tens, none))
    assert alike < 0.5 * unlike
    assert plan.answering_seconds(target, tens, 500, 64) > many


def test_list_of_studies_has_the_memory_of_each(capsys, tmp_path):
    shutil.copytree(REPO / "studies", tmp_path / "copied")
    assert list_studies([str(path) for path in sorted((tmp_path / "copied").glob("*.yaml"))]) == 0
    listed = {cells[0].rsplit("/")[-1]: cells for cells in map(_cells, capsys.readouterr().out.splitlines()[2:])}
    assert listed["assignment.yaml"][5:7] == ["spider 1034", "mmlu 150"]
    assert listed["ribeiro.yaml"][5:7] == ["spider 1034", "mmlu all of 39 subjects"]
    memory = {name: cells[7] for name, cells in listed.items()}
    assert float(memory["demo-on-spider.yaml"]) < 5
    assert 10 < float(memory["assignment.yaml"]) < 24
    assert float(memory["ribeiro.yaml"]) > float(memory["souza.yaml"])


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_what_rows_begin_with_is_computed_once_on_a_gpu():
    """As much faster as benchmarks/results has it; not in small steps, nor where the prompt is learnt."""
    device = plan.Device("x", 8e10, True, GPU["flops"], GPU["bandwidth"])
    target = plan.Target("m", Shape.like(8.03e9, 128256), "bf16", device)
    rows = plan.Prompts(8000, 951, 2000, True, begin=666)

    def seconds(share: bool, batch: int = 16, loss_on: str = "completion") -> float:
        training = check(yaml.safe_load((REPO / "config.yaml").read_text()))["training"]
        training |= {"share_prefix": share, "per_device_train_batch_size": batch, "gradient_accumulation_steps": 1}
        training["loss_on"] = loss_on
        lora = {"r": 8, "lora_dropout": 0.0, "target_modules": ["q_proj"]}
        settings = {"training": training, "lora": lora, "precision": "bf16"}
        return plan.train_need(target, settings, rows).seconds

    assert seconds(False) / seconds(True) == pytest.approx(2.5, rel=0.1)
    assert seconds(False, batch=4) == seconds(True, batch=4)
    assert seconds(False, loss_on="text") == seconds(True, loss_on="text")
