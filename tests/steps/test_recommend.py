"""Recommendations: an honest choice, and a folder that plain PEFT and transformers load to the very same model."""

import contextlib
import io
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from markdown_it import MarkdownIt
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from _study import MEASURES, TABLES, TASKS, as_inputs, mmlu_records, spider_records, study, table_paths, write_tables
from analysis.choose import (
    BASE_ITSELF,
    GAINS_LESS,
    HALVES,
    LOSS_OVER_CAP,
    LOSS_SHOWN,
    NO_GAIN,
    RECOMMENDED,
    choose,
    divide,
    figures_of,
)
from common.files import UserError, read_json, read_jsonl, sha256_file, write_json
from custom_metrics.stats import clustered_difference
from export_recommended import export_recommended
from llm.adapters import average, load_adapter
from llm.answering import Job, predict
from llm.decoding import Decoding
from llm.load import load_model
from present.format import Say
from present.values import read_table
from recommend import recommend
from tables_page import tables_page
from tasks.records import MMLU_COLUMNS, SPIDER_COLUMNS, read_records
from tests.analysis.test_tables import costs
from tests.present.test_report import HEADINGS, part, results, written
from tiny_model import make_model, render, write_splits

SPIDER, MMLU = "spider", "mmlu"


def questions(databases: int, subjects: int, each: int = 16) -> dict[str, pd.DataFrame]:
    """Return the questions of a study, `each` on each database and of each subject, as records have them."""
    spider = pd.DataFrame({"db_id": [f"db{i:02d}" for i in range(databases) for _ in range(each)]})
    spider = spider.assign(id=[f"dev-{i:05d}" for i in range(len(spider))], hardness="easy", question="?", gold="")
    mmlu = pd.DataFrame({"subject": [f"s{i:02d}" for i in range(subjects) for _ in range(each)]})
    mmlu = mmlu.assign(id=[f"q-{i:05d}" for i in range(len(mmlu))], category=mmlu["subject"].str[:2], answer="A")
    return {SPIDER: spider, MMLU: mmlu}


# -- the halves ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("databases", "subjects", "divided"),
    [(20, 57, ("database", "subject")), (8, 3, ("database", "question")), (3, 9, ("question", "question"))],
)
def test_halves_are_apart_and_of_about_one_size(databases, subjects, divided):
    frames = questions(databases, subjects)
    halves = divide(frames, MEASURES, 42)
    columns = (SPIDER, "db_id", divided[0]), (MMLU, "subject", divided[1])
    for measure, column, by in columns:
        names = frames[measure][column]
        first, second = (halves[half][measure].part.chosen for half in HALVES)
        assert sorted([*first, *second]) == list(range(len(names)))
        assert abs(len(first) - len(second)) <= 16
        shared = set(names[first]) & set(names[second])
        if by == "question":
            # Half of each database, and the questions are what is drawn, however many databases there are.
            assert set(names[first].value_counts()) == {8}
            assert {halves[half][measure].part.unit for half in HALVES} == {"question"}
        else:
            assert not shared
        assert halves["report"][measure].divided == by
        assert halves["report"][measure].sha256 != halves["validation"][measure].sha256


def test_halves_depend_on_the_seed_alone():
    frames = questions(20, 57)

    def chosen(seed):
        return divide(frames, MEASURES, seed)["validation"][SPIDER].part.chosen.tolist()

    assert chosen(42) == chosen(42)
    assert len({tuple(chosen(seed)) for seed in range(8)}) > 4


def test_subjects_of_a_category_are_in_both_halves():
    frames = questions(8, 57)
    mmlu = frames[MMLU]
    mmlu["category"] = [f"c{int(name[1:]) // 4}" for name in mmlu["subject"]]
    halves = divide(frames, MEASURES, 1)
    counts = [mmlu["category"].iloc[halves[half][MMLU].part.chosen].value_counts() for half in HALVES]
    # One of 57 is left over.
    assert all((count.drop("c14", errors="ignore") == 32).all() for count in counts)


def test_one_question_cannot_be_divided():
    with pytest.raises(UserError, match="recommend: found 1 questions of Spider, expected 2"):
        divide(questions(1, 1, each=1), MEASURES, 1)


# -- the choice ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("clusters", "each", "replicates"), [(20, 16, 4000), (3, 80, 1200)])
def test_shuffled_labels_give_no_gain_beyond_chance(clusters, each, replicates):
    # Nine runs that differ; which of them is called base, and which candidate 1 to 8, is shuffled in each database and
    # each subject, and in each question where there are few. So no candidate gains anything, and the best of them looks
    # as if it did where it is chosen.
    generator = np.random.default_rng(1)
    frames = questions(clusters, clusters, each)
    halves = divide(frames, MEASURES, 42)
    column = {SPIDER: frames[SPIDER]["db_id"], MMLU: frames[MMLU]["subject"]}
    if halves["report"][SPIDER].divided == "question":
        column = {measure: frame["id"] for measure, frame in frames.items()}
    codes = {measure: pd.factorize(names)[0] for measure, names in column.items()}
    share = {SPIDER: np.linspace(0.35, 0.7, 9), MMLU: np.linspace(0.7, 0.65, 9)}
    heads = [{"variant": f"v{i}"} for i in range(9)]
    seen, confirmed, found = [], [], 0
    for _ in range(replicates):
        right = {}
        for measure, of in codes.items():
            answers = (generator.random((9, len(of))) < share[measure][:, None]).astype(np.int8)
            shuffled = generator.permuted(np.tile(np.arange(9), (of.max() + 1, 1)), axis=1)
            right[measure] = answers[shuffled[of].T, np.arange(len(of))]
        figures = figures_of(halves["validation"], right, range(9), 0.95)
        best, _ = choose(figures, heads, None)
        if best:
            found += 1
            seen.append(figures[best][SPIDER])
            confirmed.append(figures_of(halves["report"], right, [0, best], 0.95)[best][SPIDER])
    # Of eight candidates one shows a gain far oftener than in one of forty studies.
    assert found > 0.06 * replicates
    gains = np.array([one["difference_pp"] for one in confirmed])
    error = gains.std() / np.sqrt(found)
    assert error < 0.8
    assert abs(gains.mean()) < 3 * error
    covered = np.mean([one["ci_low_pp"] <= 0 <= one["ci_high_pp"] for one in confirmed])
    assert 0.9 < covered < 0.99
    assert np.mean([one["verdict"] == "better" for one in confirmed]) < 0.06
    # What choosing and reporting on one half would have said.
    naive = np.array([one["difference_pp"] for one in seen])
    assert naive.mean() > 8
    assert np.mean([one["verdict"] == "better" for one in seen]) == 1


def pick(gains, losses, names=None, max_loss_pp=None, points=(), n=400):
    """Choose among candidates that gain so many of 400 Spider questions, and lose so many of 400 of MMLU."""
    half = divide(questions(1, 1, each=2 * n), MEASURES, 1)["validation"]
    names = names or [f"v{i}" for i in range(len(gains))]
    right = {measure: np.zeros((len(gains) + 1, 2 * n), dtype=np.int8) for measure in (SPIDER, MMLU)}
    right[MMLU][:] = 1
    for number, (gain, loss) in enumerate(zip(gains, losses, strict=True), 1):
        right[SPIDER][number, half[SPIDER].part.chosen[:gain]] = 1
        right[MMLU][number, half[MMLU].part.chosen[:loss]] = 0
    heads = [{"variant": name, "of": "v" if name in points else ""} for name in ("base", *names)]
    best, reasons = choose(figures_of(half, right, range(len(heads)), 0.95), heads, max_loss_pp)
    return heads[best]["variant"], [reasons[i] for i in range(len(heads))]


def test_the_greatest_gain_without_a_loss_that_shows():
    assert pick([40, 90, 60, 3], [0, 30, 5, 0]) == (
        "v2",
        [BASE_ITSELF, GAINS_LESS, LOSS_SHOWN, RECOMMENDED, NO_GAIN],
    )


def test_without_a_candidate_the_base_is_recommended():
    assert pick([3, 60], [0, 60]) == ("base", [RECOMMENDED, NO_GAIN, LOSS_SHOWN])
    assert pick([], []) == ("base", [RECOMMENDED])


def test_a_cap_holds_for_the_interval_of_the_loss():
    # Of 400 questions: 30 lost are 7.5 points, and with 95% confidence no more than 10.6; 5 are 1.25, no more than 2.8.
    assert pick([90, 60], [30, 5], max_loss_pp=12)[0] == "v0"
    assert pick([90, 60], [30, 5], max_loss_pp=8) == ("v1", [BASE_ITSELF, LOSS_OVER_CAP, RECOMMENDED])
    assert pick([90, 60], [30, 5], max_loss_pp=2)[0] == "base"
    # Nothing is lost, but so few questions cannot show it.
    assert pick([20], [0], max_loss_pp=1, n=40) == ("base", [RECOMMENDED, LOSS_OVER_CAP])


def test_ties_go_to_less_loss_then_to_the_adapter_then_by_name():
    assert pick([60, 60], [5, 4])[0] == "v1"
    assert pick([60, 60], [4, 4], names=["a@0.5", "b"], points=["a@0.5"])[0] == "b"
    assert pick([60, 60], [4, 4], names=["d", "c"])[0] == "c"


def recommended(folder: Path, made: dict, **others) -> None:
    """Write the recommendation for what `study` returned."""
    ends = {"csv": "csv", "md": "md", "decision": "json"}
    records, settings = as_inputs({"max_loss_pp": None, "seed": 42} | made | others)
    recommend(records, {name: folder / f"recommendation.{end}" for name, end in ends.items()}, settings)


def test_each_model_has_its_own_and_the_report_half_is_of_what_is_recommended_alone(tmp_path):
    made = study(tmp_path / "made", 3, ("llama", "gemma"), n=600)
    recommended(tmp_path, made)
    frame = read_table(tmp_path / "recommendation.csv")
    decided = read_json(tmp_path / "recommendation.json")
    assert [one["model"] for one in decided] == ["llama", "gemma"]
    for one in decided:
        rows = frame[frame["model"] == one["model"]]
        assert one["candidates"] == 3
        assert rows.loc[rows["half"] == "validation", "variant"].nunique() == 4
        report = rows[rows["half"] == "report"]
        assert report["variant"].tolist() == [one["variant"]] * 2
        assert set(report["choice"]) == {RECOMMENDED}
        # The figures are those of the records.
        number = [(run["model"], run["variant"]) for run in made["runs"]].index((one["model"], one["variant"]))
        base = [(run["model"], run["variant"]) for run in made["runs"]].index((one["model"], "base"))
        frames = [read_records(made["spider"][i], SPIDER_COLUMNS) for i in (base, number)]
        same = {SPIDER: frames[0], MMLU: read_records(made["mmlu"][0], MMLU_COLUMNS)}
        half = divide(same, MEASURES, 42)["report"][SPIDER].part.chosen
        before, after = (records["bag"].to_numpy()[half] for records in frames)
        found = one["report"]["figures"][SPIDER]
        assert (found["n"], found["base_correct"], found["tuned_correct"]) == (len(half), before.sum(), after.sum())
        estimate = clustered_difference(after - before, np.ones(len(half)), 0.95)
        assert found["ci_low_pp"] == pytest.approx(100 * estimate.low)
    page = (tmp_path / "recommendation.md").read_text(encoding="utf-8")
    assert page.index("On the report half") < page.index("What the validation half says")


def test_prompts_alone_and_strength_0_are_no_candidates(tmp_path):
    made = study(tmp_path / "made", 1)
    best = made["runs"][1]["variant"]
    points = {"base@shots5": {"of": [], "shots": 5}, f"{best}@0": {"of": [best], "strength": 0.0}}
    for name, point in points.items():
        made["runs"].append({"model": "demo", "variant": name, "settings": {}, "point": point})
        made["spider"].append(spider_records(tmp_path / f"{name}.csv", [1] * 200))
        made["mmlu"].append(mmlu_records(tmp_path / f"{name}-m.csv", [1] * 150))
    recommended(tmp_path, made)
    (one,) = read_json(tmp_path / "recommendation.json")
    assert one["candidates"] == 1
    assert one["variant"] in ("base", best)


@pytest.mark.parametrize(
    ("language", "max_loss_pp", "loss", "base", "to"),
    [
        ("en", None, "its loss of MMLU must not be distinguishable.", "none passes", "to"),
        ("pt", 2.5, "sua perda em MMLU, pelo intervalo de 95%, deve ser de no máximo 2,5 pp.", "nenhum passa", "a"),
    ],
)
def test_the_report_says_what_the_report_half_says(tmp_path, language, max_loss_pp, loss, base, to):
    made = study(tmp_path / "made", 3, ("llama", "gemma"), n=600)
    recommended(tmp_path, made, max_loss_pp=max_loss_pp)
    page, _ = written(
        results(tmp_path, 3, made=made, models=("llama", "gemma")),
        tmp_path / "recommendation.csv",
        language=language,
    )
    own, say = part(page, "recommendation", language), Say(language)
    assert loss in own
    for one in read_json(tmp_path / "recommendation.json"):
        found = one["report"]["figures"][SPIDER]
        if one["variant"] == "base":
            assert re.search(rf"\w+ 3 candidat\w+ \w+ {one['model']} {base}", own.replace("`", ""))
        else:
            value, low, high = (say.signed(found[key]) for key in ("difference_pp", "ci_low_pp", "ci_high_pp"))
            assert f"`{one['model']} {one['variant']}`" in own
            verdict = say.verdict(found["verdict"], found["unit"])
            assert f"{value} pp, {low} {to} {high} ({verdict})" in own
    without, _ = written(results(tmp_path / "without", 3, models=("llama", "gemma")), language=language)
    assert f"### {HEADINGS['recommendation'][language == 'pt']}" not in without


def test_the_page_of_tables_begins_with_it(tmp_path):
    made = study(tmp_path / "made", 2, ("m",))
    paths = table_paths(tmp_path)
    write_tables(outputs=paths, **made)
    costs(tmp_path, made["runs"])
    csv = {name: paths[name] for name in TABLES} | {"cost": tmp_path / "cost.csv"}
    pages = []
    for more in ({}, {"recommendation": tmp_path / "recommendation.csv"}):
        recommended(tmp_path, made, max_loss_pp=0)  # so small a cap that it is the base
        settings = {"study": "test", "tasks": TASKS, "language": "en", "known_defects": [], "accept_defect": []}
        tables_page(csv | more, tmp_path / "tables.html", settings)
        pages.append((tmp_path / "tables.html").read_text(encoding="utf-8"))
    assert "section id=recommendation" not in pages[0]
    assert pages[1].index("section id=recommendation") < pages[1].index("section id=regression")
    assert "nan" not in pages[1]


@pytest.fixture(scope="module")
def one_thread():
    """One thread, as for models this small any more only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# -- the folder ----------------------------------------------------------------------------------------------------

FOLDERS = {"lr0.1": "lr0.1/adapter", "lr0.1@0.75": "lr0.1/adapter", "lr0.1@step4": "lr0.1/steps/4"}
FOLDERS |= {"lr0.2": "lr0.2/adapter", "soup-both": "soup-both/adapter"}
POINTS = {
    "lr0.1": {},
    "lr0.1@0.75": {"of": ["lr0.1"], "strength": 0.3},  # no power of two: roundings would show
    "lr0.1@step4": {"of": ["lr0.1"], "step": 4},
    "soup-both": {"of": ["lr0.1", "lr0.2"], "soup": "both"},
    "base": {},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory, one_thread) -> Path:
    """The results of a study of a tiny model: record, prompts, adapters of two learning rates, a step, a soup."""
    folder = tmp_path_factory.mktemp("recommended")
    record = make_model(folder / "tiny")
    write_json(record, read_json(record) | {"source": str(folder / "tiny")})
    kinds = {"lr0.1/adapter": {"r": 3, "lora_alpha": 7}, "lr0.1/steps/4": {"r": 3, "lora_alpha": 7}}
    kinds["lr0.2/adapter"] = {"r": 2, "lora_alpha": 8, "target_modules": ["q_proj", "up_proj"]}
    for seed, (name, kind) in enumerate(kinds.items()):
        torch.manual_seed(seed)
        config = LoraConfig(**{"target_modules": ["q_proj", "v_proj"]} | kind, init_lora_weights=False)
        config.task_type = "CAUSAL_LM"
        get_peft_model(load_model(read_json(record), "fp32"), config).save_pretrained(folder / "runs/tiny" / name)
    runs = folder / "runs/tiny"
    average([runs / "lr0.1/adapter", runs / "lr0.2/adapter"], record, runs / "soup-both/adapter")
    write_splits(runs)
    render(runs, record, "test")
    write_json(folder / "spider.json", {"counts": {"dev": 6}, "source": "example.zip"})
    return folder


def export(made: Path, folder: Path, variant: str, records=None, models=("tiny",), **others) -> Path:
    """Export a variant of each model as if `recommend` had chosen it; return the folder."""
    figures = {"n": 10, "clusters": 2, "unit": "question", "base_correct": 4, "tuned_correct": 6, "difference_pp": 20.0}
    figures |= {"base_accuracy_pct": 40.0, "tuned_accuracy_pct": 60.0, "ci_low_pp": -4.0, "ci_high_pp": 44.0}
    figures |= {"gained": 3, "lost": 1, "p": 0.04, "minimum_detectable_pp": 30.0, "verdict": "better"}
    half = {"figures": {SPIDER: figures, MMLU: figures}, "sha256": {SPIDER: "ab", MMLU: "cd"}}
    criterion = {"max_loss_pp": None, "confidence_level": 0.95, "criterion": "bag"}
    decided = [
        {"model": model, "variant": variant, "point": POINTS[variant], "settings": {}, "candidates": 4, "admissible": 2}
        | {"criterion": criterion, "seed": 42, "validation": half, "report": half}
        for model in models
    ]
    write_json(folder / "decision.json", decided)
    prompts = [folder / f"prompts/{model}/spider_test.json" for model in models]
    for model, path in zip(models, prompts, strict=True):
        write_json(path, read_json(made / f"runs/{model}/prompts/test.json"))
    if not (folder / "runs").exists():
        (folder / "runs").symlink_to(made / "runs")
    settings = {"study": "test", "tasks": TASKS, "folders": FOLDERS, "merge": False, "merge_adapters": False}
    settings |= {"precisions": dict.fromkeys(models, "fp32"), "known_defects": [], "accept_defect": []}
    inputs = {
        "decision": folder / "decision.json",
        "records": records or [made / f"{model}.json" for model in models],
        "prompts": prompts,
        "base_prompts": prompts,
        "source": made / "spider.json",
    }
    export_recommended(inputs, folder / "recommended", settings | others)
    return folder / "recommended"


def logits(model, made: Path) -> torch.Tensor:
    """Return the logits of every position of the first prompt."""
    tokenizer = AutoTokenizer.from_pretrained(made / "tiny")
    prompt = read_json(made / "runs/tiny/prompts/test.json")["first_prompt"]
    ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        return model.eval()(ids).logits


def evaluated(made: Path, variant: str, merge: bool = False, precision: str = "fp32") -> torch.Tensor:
    """Return the logits with which the workflow evaluates a variant."""
    model = load_model(read_json(made / "tiny.json"), precision)
    strength = POINTS[variant].get("strength", 1.0)
    return logits(load_adapter(model, made / "runs/tiny" / FOLDERS[variant], merge, strength), made)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("variant", [name for name in POINTS if name != "base"])
def test_plain_peft_computes_what_was_evaluated(made, tmp_path, variant, precision):
    folder = export(made, tmp_path, variant, precisions={"tiny": precision})
    base = AutoModelForCausalLM.from_pretrained(
        made / "tiny", dtype={"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    )
    plain = logits(base, made)
    found = logits(PeftModel.from_pretrained(base, folder), made)
    assert torch.equal(found, evaluated(made, variant, precision=precision))
    assert (found - plain).abs().max() > 0.1
    # The weights are the training's own file.
    weights = "adapter_model.safetensors"
    assert sha256_file(folder / weights) == sha256_file(made / "runs/tiny" / FOLDERS[variant] / weights)


def test_the_base_and_its_commit_are_found_by_peft_alone(made, tmp_path):
    folder = export(made, tmp_path, "lr0.1@0.75")
    config = read_json(folder / "adapter_config.json")
    assert config["lora_alpha"] == pytest.approx(2.1)
    found = AutoPeftModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert torch.equal(logits(found, made), evaluated(made, "lr0.1@0.75"))
    record = read_json(made / "tiny.json") | {"source": "owner/name", "commit": "c0ffee"}
    write_json(tmp_path / "hub.json", record)
    folder = export(made, tmp_path, "lr0.1", records=[tmp_path / "hub.json"])
    config = read_json(folder / "adapter_config.json")
    assert (config["base_model_name_or_path"], config["revision"]) == ("owner/name", "c0ffee")
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert 'from_pretrained("owner/name", revision="c0ffee", dtype=torch.float32)' in page
    assert "\nbase_model: owner/name\n" in page
    assert "license_link: https://huggingface.co/owner/name\n" in page
    assert str(made) not in page + (folder / "recommendation.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("variant", ["lr0.1@0.75", "soup-both"])
def test_merged_is_loaded_by_transformers_alone(made, tmp_path, variant, precision):
    folder = export(made, tmp_path, variant, merge=True, precisions={"tiny": precision})
    assert not [path.name for path in folder.iterdir() if path.name.startswith("adapter")]
    found = AutoModelForCausalLM.from_pretrained(folder)
    assert next(found.parameters()).dtype == {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    assert torch.equal(logits(found, made), evaluated(made, variant, merge=True, precision=precision))
    own, base = AutoTokenizer.from_pretrained(folder), AutoTokenizer.from_pretrained(made / "tiny")
    assert (own.get_vocab(), own.chat_template) == (base.get_vocab(), base.chat_template)
    assert read_json(folder / "generation_config.json") == read_json(made / "tiny/generation_config.json")
    assert "which rounds otherwise" in (folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("variant", "merge"), [("lr0.1@0.75", False), ("lr0.1", True), ("base", False)])
def test_the_code_of_the_card_gives_the_answer_of_the_study(made, tmp_path, variant, merge, monkeypatch):
    folder = export(made, tmp_path, variant, merge=merge)
    adapter = None if variant == "base" else made / "runs/tiny" / FOLDERS[variant]
    decoding = Decoding(
        precision="fp32", batch_size=4, max_new_tokens=12, strength=POINTS[variant].get("strength", 1.0)
    )
    job = Job(made / "runs/tiny/prompts/test.jsonl", made / "tiny.json", adapter, decoding)
    predict(job, tmp_path / "answers.jsonl", tmp_path / "answers.json")
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    monkeypatch.chdir(folder)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})
    answer = next(row for row in read_jsonl(tmp_path / "answers.jsonl") if row["id"] == "dev-00500")
    assert printed.getvalue() == answer["answer"] + "\n"


def test_the_code_of_the_card_finds_a_base_model_that_the_study_names_from_its_own_folder(made, tmp_path, monkeypatch):
    monkeypatch.chdir(made)
    write_json(tmp_path / "tiny.json", read_json(made / "tiny.json") | {"source": "tiny"})
    folder = export(made, tmp_path, "lr0.1", records=[tmp_path / "tiny.json"])
    base = re.search(r'^base = "(.*)"$', (folder / "README.md").read_text(encoding="utf-8"), re.MULTILINE)[1]
    assert not Path(base).is_absolute()
    assert (folder / base).resolve() == (made / "tiny").resolve()


def test_the_code_of_the_card_of_a_4_bit_model_computes_what_was_evaluated(made, tmp_path, monkeypatch, repo):
    # bitsandbytes also computes on a CPU, with matrices larger than the tiny model's; the workflow itself wants a GPU.
    model, adapter = repo / "resources/demo/model", tmp_path / "made/runs/tiny/lr0.1/adapter"
    shutil.copytree(made, tmp_path / "made")
    write_json(tmp_path / "made/tiny.json", read_json(made / "tiny.json") | {"source": str(model), "path": str(model)})
    torch.manual_seed(1)
    config = LoraConfig(r=3, lora_alpha=7, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(model), config).save_pretrained(adapter)
    folder = export(tmp_path / "made", tmp_path, "lr0.1@0.75", precisions={"tiny": "nf4"})
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    monkeypatch.chdir(folder)
    names: dict = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(code, "README.md", "exec"), names)
    assert "Linear4bit" in {type(module).__name__ for module in names["model"].modules()}

    def base():
        # Anew each time: on a CPU bitsandbytes stores the weights otherwise once single tokens have gone through them.
        options = {"dtype": torch.bfloat16, "quantization_config": names["quantization"]}
        return AutoModelForCausalLM.from_pretrained(model, **options)

    plain = logits(base(), made)
    adapted = logits(load_adapter(base(), adapter, strength=POINTS["lr0.1@0.75"]["strength"]), made)
    assert torch.equal(logits(PeftModel.from_pretrained(base(), folder), made), adapted)
    assert (adapted - plain).abs().max() > 0.1


def test_the_base_has_no_weights_and_nothing_of_an_earlier_choice_stays(made, tmp_path):
    export(made, tmp_path, "lr0.1")
    folder = export(made, tmp_path, "base")
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "prompt.txt", "recommendation.json"]
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert "recommends no adapter" in page
    assert "Trained on" not in page
    assert read_json(folder / "recommendation.json")["variant"] == "base"


def test_several_models_have_a_folder_each(made, tmp_path):
    shutil.copytree(made, tmp_path / "made")
    for path in ("runs/other", "other"):
        shutil.copytree(made / path.replace("other", "tiny"), tmp_path / "made" / path)
    write_json(tmp_path / "made/other.json", read_json(made / "tiny.json") | {"name": "other"})
    folder = export(tmp_path / "made", tmp_path, "lr0.1@0.75", models=("tiny", "other"))
    assert sorted(path.name for path in folder.iterdir()) == ["other", "tiny"]
    for model in ("tiny", "other"):
        facts = read_json(folder / model / "recommendation.json")
        assert (facts["model"], facts["variant"]) == (model, "lr0.1@0.75")
        assert sha256_file(folder / model / "adapter_config.json") == facts["files"]["adapter_config.json"]


def test_a_missing_adapter_leaves_no_folder(made, tmp_path):
    with pytest.raises(UserError, match=r"adapter_config\.json: no such file"):
        export(made, tmp_path, "lr0.1", folders={"lr0.1": "gone/adapter"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["decision.json", "prompts", "runs"]


def test_the_card_says_what_was_measured(made, tmp_path):
    folder = export(made, tmp_path, "lr0.1@0.75", known_defects=["It is a toy."])
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert (
        "| Spider execution accuracy | 10 (2) | 40.0 | 60.0 | +20.0 (\N{MINUS SIGN}4.0 to +44.0) | 0.040 | better † |"
        in page
    )
    assert "at strength 0.3" in page
    assert "† There are few databases or subjects" in page
    assert "A loss of MMLU of less than 30.0 pp" in page
    assert "* It is a toy." in page
    assert "example.zip" in page


def test_hostile_names_cannot_change_the_card(made, tmp_path):
    hostile = "a`b|c <i>d</i>\n# e\n```\n$x$ {{ 7 * 7 }}"
    page = (
        export(made, tmp_path, "lr0.1", study=hostile, known_defects=[hostile], accept_defect=[hostile]) / "README.md"
    ).read_text(encoding="utf-8")
    tokens = MarkdownIt("commonmark").enable("table").parse(page.split("---\n", 2)[2])
    assert sum(token.type == "heading_open" for token in tokens) == 8
    assert sum(token.type == "fence" for token in tokens) == 1
    assert not [token for token in tokens for child in token.children or () if child.type.startswith("html")]
    assert "49" not in page.replace(sha256_file(tmp_path / "recommended/prompt.txt"), "").partition("## Measured")[0]
