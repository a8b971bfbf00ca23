"""Recommendations: an honest choice, and a folder that plain PEFT and transformers load to the very same model."""

import contextlib
import io
import json
import math
import os
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from markdown_it import MarkdownIt
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel, get_peft_model
from scipy.stats import t as student
from transformers import AutoModelForCausalLM, AutoTokenizer

from _answers import SPIDER as SPIDER_SIZES
from _answers import SUBJECTS, Design
from _hand import Hand, holm
from _study import (
    EIGHT,
    MEASURES,
    TABLES,
    TASKS,
    as_inputs,
    mmlu_records,
    spider_records,
    study,
    table_paths,
    write_tables,
)
from analysis.choose import GAINS_LESS, LOSES_MORE, NO_GAIN, NOT_CERTIFIED, RECOMMENDED, recommendation
from analysis.data import Results, base_of, heads_of, part_of
from common.files import UserError, read_json, read_jsonl, sha256_file, write_json
from export_recommended import export_recommended
from llm.adapters import average, load_adapter
from llm.answering import Job, predict
from llm.decoding import Decoding
from llm.full import save_checkpoint
from llm.load import load_model
from present.format import Say
from present.values import read_table
from recommend import recommend
from tables_page import tables_page
from tests.analysis.test_tables import costs
from tests.golden.make_expected import numbers
from tests.present.test_report import HEADINGS, part, results, written
from tiny_model import make_model, render, write_splits

SPIDER, MMLU = "spider", "mmlu"


@pytest.fixture
def choose(tmp_path):
    """Recommend a setting of a made-up study on eight databases and eight subjects; return decision, table and page."""

    def choose(candidates, margin_pp=3.0, n=400, subjects=EIGHT):
        # Of each candidate its name, and of each of its seeds what is gained and lost of n questions, or their answers.
        # Blocks turn, so databases and subjects are all alike.
        arguments = {
            "study": "test",
            "confidence_level": 0.95,
            "margin_pp": margin_pp,
            "runs": [],
            SPIDER: [],
            MMLU: [],
        }
        rows = [("base", {}, (0, 0)), *candidates]
        for name, more, *seeds in rows:
            for seed, (gain, loss) in enumerate(seeds, 1):
                run = {"model": "m", "variant": name, "setting": name, "settings": {}}
                run |= {"variant": f"{name}-seed{seed}", "seed": seed} if len(seeds) > 1 else {}
                arguments["runs"].append(run | more)
                path = tmp_path / f"{len(arguments['runs'])}"
                gained = [1] * gain + [0] * (n - gain) if isinstance(gain, int) else gain
                lost = [0] * loss + [1] * (n - loss) if isinstance(loss, int) else loss
                arguments[SPIDER].append(spider_records(path.with_suffix(".s"), gained, databases=EIGHT))
                arguments[MMLU].append(mmlu_records(path.with_suffix(".m"), lost, subjects=subjects))
        recommended(tmp_path, arguments)
        frame = read_table(tmp_path / "recommendation.csv")
        choices = frame.drop_duplicates("setting").set_index("setting")["choice"].to_dict()
        (decision,) = read_json(tmp_path / "recommendation.json")
        return SimpleNamespace(
            decision=decision, frame=frame, choices=choices, page=(tmp_path / "recommendation.md").read_text("utf-8")
        )

    return choose


def recommended(folder: Path, made: dict, **others) -> None:
    """Write the recommendation for what `study` returned."""
    ends = {"csv": "csv", "md": "md", "decision": "json"}
    records, settings = as_inputs(made | others)
    recommend(records, {name: folder / f"recommendation.{end}" for name, end in ends.items()}, settings)


# -- the choice ----------------------------------------------------------------------------------------------------


def test_the_largest_gain_among_those_shown_to_keep_what_the_base_knows(choose):
    found = choose(
        [("a", {}, (40, 0)), ("b", {}, (200, 120)), ("c", {}, (160, 0)), ("d", {}, (0, 0)), ("e", {}, (180, 8))]
    )
    # What e loses, 2 points, may be more than 3: its interval says so.
    assert found.choices == {
        "a": GAINS_LESS, "b": LOSES_MORE, "c": RECOMMENDED, "d": NO_GAIN, "e": NOT_CERTIFIED,
    }  # fmt: skip
    decision, rows = found.decision, found.frame.set_index(["setting", "task"])
    assert (decision["setting"], decision["variant"]) == ("c", "c")
    assert (decision["candidates"], decision["admissible"]) == (5, 2)
    assert decision["criterion"] == {"criterion": "bag", "margin_pp": 3.0, "confidence_level": 0.95}
    assert [one["task"] for one in decision["tasks"]] == [SPIDER, MMLU]
    # All candidates and tasks are one family, and the intervals are those of its levels.
    assert set(found.frame["family"]) == {10}
    assert rows["p_holm"].tolist() == pytest.approx(holm_of(found.frame), abs=1e-12)
    for setting, gain, loss in (("a", 40, 0), ("b", 200, 120), ("c", 160, 0), ("e", 180, 8)):
        for task, turned in ((SPIDER, gain), (MMLU, -loss)):
            row = rows.loc[setting, task]
            assert row["difference_pp"] == turned / 4
            changes = np.sign(turned) * (np.arange(400) < abs(turned))
            centre, half = Hand(changes[None]).contrast([1])
            assert (row["ci_low_pp"] + row["ci_high_pp"]) / 2 == pytest.approx(100 * centre)
            # Between the level of a single comparison and that of all ten.
            assert half(0.05) < (row["ci_high_pp"] - row["ci_low_pp"]) / 200 <= half(0.005) * (1 + 1e-6)
    assert decision["figures"][SPIDER]["difference_pp"] == 40
    assert decision["figures"][MMLU]["margin_verdict"] == "no more than the margin lost"
    assert "All 10 comparisons are one family" in found.page
    assert found.page.index("Recommended:") < found.page.index("| c") < found.page.index("All other candidates:")
    # Another margin, another choice.
    assert choose([("c", {}, (160, 0)), ("e", {}, (180, 8))], margin_pp=5.0).decision["setting"] == "e"


def holm_of(frame) -> list[float]:
    """Adjusted p values of the rows, by those that textbook formulas give."""
    p = []
    for row in frame.itertuples():
        turned = round(4 * row.difference_pp)
        changes = np.sign(turned) * (np.arange(400) < abs(turned))
        p.append(Hand(changes[None].astype(float)).row([1], 0.05)[2])
    return holm(p)


def test_a_lucky_seed_is_neither_chosen_nor_taken(choose):
    # The second seed of `lucky` gains most of all runs; over seeds its setting gains less than the other.
    found = choose([("lucky", {}, (88, 0), (160, 0), (100, 0)), ("steady", {}, (128, 0), (136, 0), (132, 0))])
    assert found.choices == {"lucky": GAINS_LESS, "steady": RECOMMENDED}
    decision = found.decision
    # The first seed's adapter, though the second one scored more.
    assert (decision["setting"], decision["variant"], decision["seeds"]) == ("steady", "steady-seed1", [1, 2, 3])
    assert decision["candidates"] == 2
    assert decision["figures"][SPIDER]["difference_pp"] == pytest.approx(33)
    assert found.frame["seeds"].tolist() == [3] * 4
    assert set(found.frame["about"]) == {"setting"}
    assert "seed2" not in found.page


def test_one_training_run_is_named_so(choose):
    found = choose([("a", {}, (160, 0))])
    assert set(found.frame["about"]) == {"this training run"}
    assert "a, this training run" in found.page


def test_without_a_candidate_the_base_is_recommended(choose):
    found = choose([("a", {}, (3, 0)), ("b", {}, (160, 120))])
    assert found.choices == {"a": NO_GAIN, "b": LOSES_MORE}
    assert (found.decision["setting"], found.decision["variant"], found.decision["figures"]) == ("base", "base", {})
    assert (found.decision["candidates"], found.decision["admissible"]) == (2, 0)
    assert "No candidate passes, so the base model itself is recommended." in found.page
    assert "seeds_to_certify" in found.frame


def test_a_study_without_adapters_recommends_the_base(choose):
    found = choose([])
    assert (found.decision["variant"], found.decision["candidates"]) == ("base", 0)
    assert found.frame.empty


@pytest.mark.parametrize("subjects", [EIGHT, ("one",)])
def test_how_many_questions_would_certify_a_candidate(choose, subjects):
    lost = np.ones(400, int)
    lost[np.random.default_rng(2).choice(400, 8, replace=False)] = 0
    found = choose([("a", {}, (160, lost.tolist()))], subjects=subjects)
    assert found.choices == {"a": NOT_CERTIFIED}
    row = found.frame.set_index("task").loc[MMLU]
    assert row["difference_pp"] == -2
    if len(subjects) > 1:
        units, df = 8, 7
        error = Hand((lost - 1)[None]).contrast([1])[1](0.05) / student.isf(0.025, df)
    else:
        # Of one subject the questions are drawn; one gained and one lost are added.
        units, df, centre = 400, 399, -8 / 402
        spread = ((lost - 1 - centre) ** 2).sum() * 400 / 399 + (1 - centre) ** 2 + (1 + centre) ** 2
        error = np.sqrt(spread) / 402
    # The gain is decided. So the loss stands alone at the full level, or is decided itself at half of it.
    p = 2 * student.sf(8 / 402 / error, df)
    alpha = 0.025 if p < 0.025 else 0.05
    # The t of this level and that of 80% power, times the standard error of so many units, are the point to the margin.
    factor = ((student.isf(alpha / 2, df) + student.ppf(0.8, df)) * error / 0.01) ** 2
    assert factor > 1
    assert row["questions_to_certify"] == np.ceil(factor * units) * 400 / units
    assert np.isnan(row["seeds_to_certify"])
    assert f"| {int(row['questions_to_certify']):,} " in re.sub(" +", " ", found.page)
    assert np.isnan(found.frame.set_index("task").loc[SPIDER, "questions_to_certify"])
    assert "does not show that all candidates lose" in found.page
    if len(subjects) == 1:
        # With so many of the same kind it is certified.
        times = int(np.ceil(row["questions_to_certify"] / 400))
        again = choose([("a", {}, (160 * times, lost.tolist() * times))], n=400 * times, subjects=subjects)
        assert again.choices == {"a": RECOMMENDED}


def test_equal_gains_go_to_less_loss_then_to_the_setting_then_by_name(choose):
    point = {"point": {"of": ["b"], "strength": 0.5}}
    one = [("a", {}, (160, 4)), ("b", {}, (160, 0))]
    assert choose(one, margin_pp=8.0).choices == {"a": GAINS_LESS, "b": RECOMMENDED}
    points_first = [("b", {}, (160, 4)), ("a@0.5", point, (160, 4))]
    assert choose(points_first, margin_pp=8.0).decision["setting"] == "b"
    assert choose([("b", {}, (160, 4)), ("a@0.5", point, (160, 0))], margin_pp=8.0).decision["setting"] == "a@0.5"
    assert choose([("d", {}, (160, 4)), ("c", {}, (160, 4))], margin_pp=8.0).decision["setting"] == "c"


def test_points_are_candidates_and_one_is_taken_with_its_strength(choose):
    point = {"point": {"of": ["a"], "strength": 0.5}, "settings": {}}
    found = choose([("a", {}, (200, 120)), ("a@0.5", point, (160, 0))])
    assert found.choices == {"a": LOSES_MORE, "a@0.5": RECOMMENDED}
    assert found.decision["point"] == {"of": ["a"], "strength": 0.5}
    # They are in the family of the settings here: all that may be chosen.
    assert set(found.frame["family"]) == {4}


def test_prompts_alone_and_strength_0_are_no_candidates(choose):
    shots = {"point": {"of": ["base"], "shots": 5}}
    zero = {"point": {"of": ["a"], "strength": 0.0}}
    found = choose([("a", {}, (40, 0)), ("base@shots5", shots, (400, 0)), ("a@0", zero, (300, 0))])
    assert found.choices == {"a": RECOMMENDED}
    assert (found.decision["candidates"], set(found.frame["family"])) == (1, {2})


def test_each_model_has_its_own(tmp_path):
    made = study(tmp_path / "made", 3, ("llama", "gemma"), n=600)
    recommended(tmp_path, made)
    frame, decided = read_table(tmp_path / "recommendation.csv"), read_json(tmp_path / "recommendation.json")
    assert [one["model"] for one in decided] == ["llama", "gemma"]
    assert [one["candidates"] for one in decided] == [3, 3]
    # A family of each model: three candidates and two tasks.
    assert frame.groupby("model", sort=False)["family"].unique().map(list).to_dict() == {"llama": [6], "gemma": [6]}
    for one in decided:
        chosen = set(frame.loc[(frame["model"] == one["model"]) & (frame["choice"] == RECOMMENDED), "setting"])
        assert chosen == ({one["setting"]} - {"base"})


def test_the_decision_is_plain_json(choose, tmp_path):
    def refuse(constant):
        raise AssertionError(constant)

    choose([("a", {}, (160, 0))])
    json.loads((tmp_path / "recommendation.json").read_text(encoding="utf-8"), parse_constant=refuse)


# -- how often it errs ---------------------------------------------------------------------------------------------


def blank(spider: tuple[int, ...], mmlu: tuple[int, ...], runs: list[dict]) -> Results:
    """A study of so many questions on each database and of each subject, whose answers are yet to come."""
    frames = {
        SPIDER: pd.DataFrame({"db_id": np.repeat(np.arange(len(spider)), spider), "hardness": "easy", "flags": ""}),
        MMLU: pd.DataFrame({"subject": np.repeat(np.arange(len(mmlu)), mmlu), "category": "stem", "probability": 0.5}),
    }
    axes, heads = heads_of(runs)
    parts = [part_of(task, MEASURES[task], frame, np.arange(len(frame))) for task, frame in frames.items()]
    return Results(
        runs=runs, axes=axes, heads=heads, bases=base_of(heads), measures=MEASURES,
        frames={task: [frame] * len(runs) for task, frame in frames.items()}, right={}, parts=parts,
        hashes=dict.fromkeys(MEASURES, ""), level=0.95, margin_pp=3.0,
    )  # fmt: skip


def outcomes(gain: Design, loss: Design, count: int) -> list[tuple[str, str]]:
    """What is recommended, and which candidate gained most, in so many studies of these candidates."""
    settings = [(f"s{i}", seed) for i, seeds in enumerate(gain.seeds) for seed in range(seeds)]
    runs = [{"model": "m", "variant": "base", "setting": "base", "settings": {}}]
    runs += [{"model": "m", "variant": f"{name}-{seed}", "setting": name, "settings": {}} for name, seed in settings]
    results, generator, found = blank(gain.sizes, loss.sizes, runs), np.random.default_rng(4), []
    for _ in range(count):
        drawn = {task: design.draw(generator)[0] for task, design in ((SPIDER, gain), (MMLU, loss))}
        right = {
            task: np.array([one.base, *(one.settings[name][seed] for name, seed in settings)], np.int8)
            for task, one in drawn.items()
        }
        (one,) = recommendation(replace(results, right=right))[1]
        found.append((one["setting"], one["variant"]))
    return found


@pytest.mark.long
@pytest.mark.parametrize("seeds", [1, 3])
def test_a_loss_of_the_margin_itself_is_seldom_certified(seeds):
    # Four candidates gain, and each loses just as much as the margin: none may be recommended.
    count, four = 300, (seeds,) * 4
    gain = Design(SPIDER_SIZES, four, (0.15,) * 4, seed_sd=0.0 if seeds == 1 else 0.01, changed=0.25)
    loss = Design((150,) * 8, four, (-0.03,) * 4, seed_sd=0.0 if seeds == 1 else 0.01, changed=0.1)
    wrong = np.mean([setting != "base" for setting, _ in outcomes(gain, loss, count)])
    assert wrong <= 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / count)


@pytest.mark.long
def test_a_gain_that_is_none_is_seldom_recommended():
    # Nine candidates that change answers and gain nothing: the best of them looks as if it did.
    count, nine = 300, (1,) * 9
    nothing = Design(SPIDER_SIZES, nine, seed_sd=0.0, changed=0.3), Design((150,) * 8, nine, seed_sd=0.0, changed=0.05)
    wrong = np.mean([setting != "base" for setting, _ in outcomes(*nothing, count)])
    assert wrong <= 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / count)


def test_a_good_setting_is_found_and_its_first_seed_taken():
    # One gains 15 points and loses nothing; another gains more and loses 10; two gain nothing.
    gain = Design(SPIDER_SIZES, (3,) * 4, (0.15, 0.2, 0.0, 0.0), seed_sd=0.01, changed=0.25)
    loss = Design(SUBJECTS, (3,) * 4, (0.0, -0.1, 0.0, 0.0), seed_sd=0.002, changed=0.1)
    found = outcomes(gain, loss, 60)
    assert np.mean([one == ("s0", "s0-0") for one in found]) > 0.8
    assert {variant for _, variant in found} <= {"s0-0", "base"}


# -- report and page -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["en", "pt"])
def test_the_report_says_what_is_recommended(tmp_path, language):
    made = study(tmp_path / "made", 3, ("llama", "gemma"), n=600)
    recommended(tmp_path, made, margin_pp=40.0, language=language)
    reported = results(tmp_path, 3, made=made | {"margin_pp": 40.0}, models=("llama", "gemma"))
    page, _ = written(reported, tmp_path / "recommendation.csv", language=language)
    own, say = part(page, "recommendation", language), Say(language)
    decided = read_json(tmp_path / "recommendation.json")
    assert {one["variant"] == "base" for one in decided} == {False}
    for one in decided:
        found = one["figures"][SPIDER]
        value, low, high = (say.signed(found[key]) for key in ("difference_pp", "ci_low_pp", "ci_high_pp"))
        assert f"`{one['model']} {one['setting']}`" in own
        assert f"{value} pp ({low} {say.word('numbers.to')} {high})" in own or f"{value} pp, {low}" in own
    # None is certified at a margin of nothing.
    recommended(tmp_path, made, margin_pp=0.0, language=language)
    page, _ = written(reported, tmp_path / "recommendation.csv", language=language)
    own = part(page, "recommendation", language)
    for one in read_json(tmp_path / "recommendation.json"):
        assert one["variant"] == "base"
        assert re.search(rf"\b3 candidat\w+ \w+ {one['model']}\b", own.replace("`", ""))
    without, _ = written(results(tmp_path / "without", 3, models=("llama", "gemma")), language=language)
    assert f"### {HEADINGS['recommendation'][language == 'pt']}" not in without


def test_the_report_says_what_would_certify_a_candidate_that_gains(tmp_path):
    made = study(tmp_path / "made", 2)
    # One gains, and loses nearly the margin; another gains nothing, and one question would nearly be enough.
    for number, (gain, loss) in enumerate(((0, 0), (100, 3), (0, 1))):
        spider_records(made["spider"][number], [1] * gain + [0] * (200 - gain))
        mmlu_records(made["mmlu"][number], [0] * loss + [1] * (150 - loss))
    recommended(tmp_path, made)
    frame = read_table(tmp_path / "recommendation.csv")
    needed = frame[frame["task"] == MMLU].set_index("choice")["questions_to_certify"]
    assert needed[NO_GAIN] < needed[NOT_CERTIFIED]
    page, _ = written(results(tmp_path, 2, made=made), tmp_path / "recommendation.csv")
    assert f"would need {needed[NOT_CERTIFIED]:,.0f} questions" in part(page, "recommendation")


def test_the_page_of_tables_begins_with_it(tmp_path):
    made = study(tmp_path / "made", 2, ("m",))
    paths = table_paths(tmp_path)
    write_tables(outputs=paths, **made)
    costs(tmp_path, made["runs"])
    csv = {name: paths[name] for name in TABLES} | {"cost": tmp_path / "cost.csv"}
    pages = []
    for more in ({}, {"recommendation": tmp_path / "recommendation.csv"}):
        recommended(tmp_path, made, margin_pp=0.0)  # so small a margin that it is the base
        settings = {"study": "test", "tasks": TASKS, "language": "en", "known_defects": [], "accept_defect": []}
        tables_page(csv | more, tmp_path / "tables.html", settings)
        pages.append((tmp_path / "tables.html").read_text(encoding="utf-8"))
    assert "section id=recommendation" not in pages[0]
    assert pages[1].index("section id=recommendation") < pages[1].index("section id=settings")
    assert "nan" not in pages[1]


@pytest.fixture(scope="module")
def one_thread():
    """One thread, as for models this small any more only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


CARDS = [("lr0.1@0.75", False), ("lr0.1", True), ("base", False), ("full", False), ("full@0.5", False)]

# -- the folder ----------------------------------------------------------------------------------------------------

FOLDERS = {"lr0.1": "lr0.1/adapter", "lr0.1@0.75": "lr0.1/adapter", "lr0.1@step4": "lr0.1/steps/4"}
FOLDERS |= {"lr0.2": "lr0.2/adapter", "soup-both": "soup-both/adapter"}
FOLDERS |= dict.fromkeys(["full", "full@0.5"], "full/adapter")
POINTS = {
    "lr0.1": {},
    "lr0.1@0.75": {"of": ["lr0.1"], "strength": 0.3},  # no power of two: roundings would show
    "lr0.1@step4": {"of": ["lr0.1"], "step": 4},
    "soup-both": {"of": ["lr0.1", "lr0.2"], "soup": "both"},
    "base": {},
}
WHOLE = {"full": {}, "full@0.5": {"of": ["full"], "strength": 0.3}}
EVERY = POINTS | WHOLE


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
    whole = load_model(read_json(record), "fp32")
    torch.manual_seed(3)
    for weight in whole.parameters():
        weight.data += 0.1 * torch.randn_like(weight)
    (runs / "full/adapter").mkdir(parents=True)
    save_checkpoint(whole, runs / "full/adapter", "fp32")
    average([runs / "lr0.1/adapter", runs / "lr0.2/adapter"], record, runs / "soup-both/adapter")
    write_splits(runs)
    render(runs, record, "test")
    write_json(folder / "spider.json", {"counts": {"dev": 6}, "source": "example.zip"})
    return folder


def export(made: Path, folder: Path, variant: str, records=None, models=("tiny",), seeds=(42,), **others) -> Path:
    """Export a variant of each model as if `recommend` had chosen it; return the folder."""
    figures = {"seeds": 1, "n": 10, "clusters": 2, "unit": "question", "about": "this training run", "family": 8}
    figures |= {"base_accuracy_pct": 40.0, "tuned_accuracy_pct": 60.0, "difference_pp": 20.0}
    figures |= {"ci_low_pp": 1.0, "ci_high_pp": 39.0, "p_holm": 0.04, "verdict": "gained"}
    figures |= {"margin_verdict": "no more than the margin lost", "questions_to_certify": None}
    figures |= {"seeds_to_certify": None}
    figures |= {"seeds": len(seeds), "about": "setting"} if len(seeds) > 1 else {}
    criterion = {"margin_pp": 3.0, "confidence_level": 0.95, "criterion": "bag"}
    decided = [
        {"model": model, "setting": variant, "variant": variant, "point": EVERY[variant], "settings": {}}
        | {"candidates": 4, "admissible": 2, "criterion": criterion, "seeds": seeds}
        | {"figures": {} if variant == "base" else {SPIDER: figures, MMLU: figures}}
        | {"data_sha256": {SPIDER: "ab", MMLU: "cd"}}
        for model in models
    ]
    write_json(folder / "decision.json", decided)
    prompts = [folder / f"prompts/{model}/spider_test.json" for model in models]
    for model, path in zip(models, prompts, strict=True):
        write_json(path, read_json(made / f"runs/{model}/prompts/test.json"))
    if not (folder / "runs").exists():
        (folder / "runs").symlink_to(made / "runs")
    settings = {"study": "test", "tasks": TASKS, "folders": FOLDERS, "merge": False, "merge_adapters": False}
    settings |= {
        "precisions": dict.fromkeys(models, "fp32"),
        "known_defects": [],
        "accept_defect": [],
        "language": "en",
    }
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


def test_the_model_card_says_the_same_in_portuguese(made, tmp_path):
    pages = [
        (export(made, tmp_path / language, "lr0.1", language=language) / "README.md").read_text(encoding="utf-8")
        for language in ("en", "pt")
    ]
    # Without code and versions, whose marks are those of no language.
    texts = [re.sub(r"(?ms)^```.*?^```|^\* python .*$", "", page) for page in pages]
    english, portuguese = (Counter(numbers(text, mark)) for text, mark in zip(texts, ".,", strict=True))
    assert english - portuguese == portuguese - english == Counter()
    assert "## Measured trade-off" in pages[0] and "## Ganhos e perdas medidos" in pages[1]
    # But for the code, no line is in English still.
    same = set(texts[0].splitlines()) & set(texts[1].splitlines())
    assert not [line for line in same if re.search(r"\b(the|of|and|is)\b", line)]


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


@pytest.mark.parametrize("merge", [False, True])
def test_a_cut_adapter_is_not_recommended(made, tmp_path, merge):
    shutil.copytree(made, tmp_path / "made")
    weights = tmp_path / "made/runs/tiny/lr0.1/adapter/adapter_model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    with pytest.raises(UserError, match=r"adapter_model\.safetensors: cut or damaged: found .* Delete it and run"):
        export(tmp_path / "made", tmp_path, "lr0.1", merge=merge)


@pytest.mark.parametrize(("variant", "merge"), CARDS)
def test_the_code_of_the_card_gives_the_answer_of_the_study(made, tmp_path, variant, merge, monkeypatch):
    folder = export(made, tmp_path, variant, merge=merge)
    adapter = None if variant == "base" else made / "runs/tiny" / FOLDERS[variant]
    decoding = Decoding(precision="fp32", batch_size=4, max_new_tokens=12, strength=EVERY[variant].get("strength", 1.0))
    job = Job(made / "runs/tiny/prompts/test.jsonl", made / "tiny.json", adapter, decoding)
    predict(job, tmp_path / "answers.jsonl", tmp_path / "answers.json")
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    monkeypatch.chdir(folder)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})
    answer = next(row for row in read_jsonl(tmp_path / "answers.jsonl") if row["id"] == "dev-00500")
    assert printed.getvalue() == answer["answer"] + "\n"


@pytest.mark.parametrize("variant", WHOLE)
def test_of_full_fine_tuning_the_whole_model_is_written(made, tmp_path, variant):
    folder = export(made, tmp_path, variant)
    expected = load_adapter(load_model(read_json(made / "tiny.json"), "fp32"), made / "runs/tiny/full/adapter")
    if variant != "full":
        base = load_model(read_json(made / "tiny.json"), "fp32")
        expected = load_adapter(base, made / "runs/tiny/full/adapter", strength=0.3)
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(folder), made), logits(expected, made))
    assert not list(folder.glob("adapter*"))
    assert read_json(folder / "recommendation.json")["merged"]
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert "All weights of the model, fully fine-tuned as `full`" in page
    assert ("at strength 0.3" in page) == (variant != "full")
    for word in ("LoRA adapter", "lora_alpha", "Rank", "from peft", "merged into", "- lora"):
        assert word not in page


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
    told = "10 (2) | 40.0 | 60.0 | +20.0 (+1.0 to +39.0) | 0.040 | gained † |"
    assert f"| Spider execution accuracy | 1 | {told}  |" in page
    assert f"| MMLU | 1 | {told} no more than the margin lost † |" in page
    assert "These figures are of this one training run." in page
    assert "The intervals of all 4 candidates hold together" in page
    assert "lose no more than 3 pp of MMLU: 2 passed." in page
    assert "at strength 0.3" in page
    assert "† There are few databases or subjects" in page
    assert "* It is a toy." in page
    assert "example.zip" in page


def test_the_card_of_several_seeds_says_whose_adapter_it_is(made, tmp_path):
    page = (export(made, tmp_path, "lr0.1", seeds=(7, 8, 9)) / "README.md").read_text(encoding="utf-8")
    assert "means over 3 training seeds (7, 8, 9)" in page
    assert "that of seed 7, taken because it is the first, not for what it scored" in page
    assert "this one training run" not in page


def test_hostile_names_cannot_change_the_card(made, tmp_path):
    hostile = "a`b|c <i>d</i>\n# e\n```\n$x$ {{ 7919 * 7907 }}"
    page = (
        export(made, tmp_path, "lr0.1", study=hostile, known_defects=[hostile], accept_defect=[hostile]) / "README.md"
    ).read_text(encoding="utf-8")
    tokens = MarkdownIt("commonmark").enable("table").parse(page.split("---\n", 2)[2])
    assert sum(token.type == "heading_open" for token in tokens) == 8
    assert sum(token.type == "fence" for token in tokens) == 1
    assert not [token for token in tokens for child in token.children or () if child.type.startswith("html")]
    assert "62615533" not in page
