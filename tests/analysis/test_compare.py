"""The tables of a study that compare settings: with their base, with each other, and where they gained the same."""

import itertools

import numpy as np
import pandas as pd
import pytest

from _hand import GROUPS, Hand, holm
from _study import (
    TABLES,
    draw,
    mmlu_records,
    settings_of,
    spider_records,
    study,
    sweep,
    table_paths,
    with_shots,
    write_tables,
)
from analysis.data import ALL
from present.format import VERDICTS
from present.values import is_point, is_prompted, read_table, trained
from tasks.records import right_probability


def swept(base, mmlu_base, settings, seed=0):
    """Answers of a sweep of ranks: of each rank and training seed which share of Spider and of MMLU is right."""
    runs = [({}, base, mmlu_base)]
    for r, shares in settings.items():
        for number, (spider, mmlu) in enumerate(shares, 1):
            drawn = draw(len(base), spider, 100 * r + number + seed), draw(len(mmlu_base), mmlu, 7000 + 10 * r + number)
            runs.append((settings_of(number, r=r), *drawn))
    return runs


def right(frame, task=None):
    """The rows over all questions, right or wrong; of one task."""
    frame = frame[(frame["category"] == ALL) & (frame["measure"] == "correct")]
    return (frame if task is None else frame[frame["task"] == task]).reset_index(drop=True)


def left_out(frame):
    """Whether each interval leaves out 0."""
    return (frame["ci_low_pp"] > 0) | (frame["ci_high_pp"] < 0)


# -- settings against their base -----------------------------------------------------------------------------------


def test_a_setting_is_the_mean_over_its_seeds(tmp_path):
    base, known = draw(160, 0.4, 1), draw(160, 0.7, 2)
    settings = {4: [(0.9, 0.7), (0.94, 0.6), (0.92, 0.75)], 8: [(0.5, 0.6), (0.6, 0.7)], 16: [(0.7, 0.7)]}
    answers = swept(base, known, settings)
    found = sweep(tmp_path, answers)["settings"]
    for task, place, before in (("spider", 1, base), ("mmlu", 2, known)):
        rows = right(found, task)
        runs = iter(np.array([one[place] for one in answers[1:]]))
        changes = [np.array(list(itertools.islice(runs, len(of)))) - np.array(before) for of in settings.values()]
        assert rows["setting"].tolist() == ["r4", "r8", "r16"]
        assert rows["seeds"].tolist() == [3, 2, 1]
        assert rows["n"].tolist() == [160] * 3
        assert rows["difference_pp"].tolist() == pytest.approx([100 * one.mean() for one in changes])
        tuned = [100 * (np.mean(before) + one.mean()) for one in changes]
        assert rows["tuned_accuracy_pct"].tolist() == pytest.approx(tuned)
        hand = Hand(*changes)
        expected = [hand.row(np.eye(3)[i], 1 - rows["confidence_of_interval"][i]) for i in range(3)]
        for key, values in zip(("ci_low_pp", "ci_high_pp", "p"), zip(*expected, strict=True), strict=True):
            # No share changes by more than 100 points.
            assert rows[key].tolist() == pytest.approx(np.minimum(values, 100).tolist(), rel=1e-5, abs=1e-9), key
        assert rows["seed_df"].tolist() == [3] * 3
        assert rows["seed_sd_pp"].tolist() == pytest.approx([100 * np.sqrt(max(0, hand.between - hand.noise))] * 3)
        assert rows["about"].tolist() == ["setting"] * 3
        assert rows["seed_variance"].tolist() == ["own seeds", "own seeds", "seeds of other settings"]
    # Of one family: three settings and two tasks.
    whole = right(found)
    assert set(whole["family"]) == {6}
    assert whole["p_holm"].tolist() == pytest.approx(holm(whole["p"].tolist()))
    assert {"gained", "undecided"} == set(whole["verdict"])
    page = (tmp_path / "settings.md").read_text(encoding="utf-8")
    assert "this training run" not in page.lower()
    assert "seeds of other settings" in page
    assert "(3 degrees of freedom)" in page


def test_one_seed_everywhere_is_about_this_training_run(tmp_path):
    base, known = draw(160, 0.4, 1), draw(160, 0.7, 2)
    found = sweep(tmp_path, swept(base, known, {4: [(0.8, 0.5)], 8: [(0.5, 0.7)]}))["settings"]
    assert set(found["about"]) == {"this training run"}
    assert set(found["seed_variance"]) == {"left out"}
    assert found["seed_sd_pp"].isna().all()
    page = (tmp_path / "settings.md").read_text(encoding="utf-8")
    assert "r4, this training run" in page
    assert "the interval leaves that out" in page
    assert "standard deviation between training seeds" not in page


def test_seeds_that_differ_much_take_the_verdict_from_a_mean(tmp_path):
    base = [0] * 160
    counts = {8: (60, 64, 68), 16: (20, 60, 100)}
    verdicts = {}
    for r, ks in counts.items():
        answers = [({}, base, [1] * 80)]
        answers += [(settings_of(seed, r=r), [1] * k + [0] * (160 - k), [1] * 80) for seed, k in enumerate(ks, 1)]
        row = right(sweep(tmp_path / str(r), answers)["settings"], "spider").iloc[0]
        assert row["difference_pp"] == pytest.approx(100 * np.mean(ks) / 160)
        verdicts[r] = row["verdict"]
    # Each run alone gains; how much more or less is its seed's.
    assert verdicts == {8: "gained", 16: "undecided"}


def test_changes_on_one_database_are_no_verdict_on_others(tmp_path):
    base = [0] * 160
    everywhere = [int(i < 80) for i in range(160)]
    one = [int(i % 8 == 0) for i in range(160)]
    for tuned, verdict in ((everywhere, "gained"), (one, "undecided")):
        found = sweep(tmp_path, [({}, base, [1, 0] * 40), ({}, tuned, [1, 0] * 40)])
        assert found["regression"]["p_mcnemar"][0] < 0.001
        row = found["settings"].iloc[0]
        assert (row["unit"], row["clusters"], row["verdict"]) == ("database", 8, verdict)
        assert (row["ci_low_pp"] > 0) == (verdict == "gained")
        low, high, p = Hand(np.array([tuned])).row([1], 1 - row["confidence_of_interval"])
        assert (row["ci_low_pp"], row["ci_high_pp"], row["p"]) == pytest.approx((low, high, p), rel=1e-5)


def test_few_subjects_are_marked(tmp_path):
    arguments = study(tmp_path, 2)
    write_tables(outputs=table_paths(tmp_path), **arguments)
    assert set(read_table(tmp_path / "settings.csv")["unit"]) == {"question"}
    for name in ("settings", "regression"):
        page = (tmp_path / f"{name}.md").read_text(encoding="utf-8")
        assert "† These questions come from fewer than five databases or subjects" in page
    assert "gained †" in (tmp_path / "settings.md").read_text(encoding="utf-8")
    sweep(tmp_path, [({}, [1, 0] * 40, [1] * 80), ({}, [0, 1] * 40, [0] * 80)])
    assert "†" not in (tmp_path / "settings.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("seed", range(3))
def test_an_interval_leaves_out_0_exactly_where_the_verdict_says_so(tmp_path, seed):
    shares = {r: [(0.4 + r / 40, 0.7 - r / 60)] * (1 + r % 3) for r in range(1, 9)}
    found = sweep(tmp_path, swept(draw(160, 0.4, 1), draw(160, 0.7, 2), shares, seed))
    for name, words in (("settings", ("gained", "lost")), ("contrasts", ("higher", "lower"))):
        frame = found[name]
        assert {*words, "undecided"} & set(frame["verdict"])
        assert set(frame["verdict"]) <= {*words, "undecided"} <= {*VERDICTS}
        for word, decided in zip(words, (frame["ci_low_pp"] > 0, frame["ci_high_pp"] < 0), strict=True):
            assert (decided == (frame["verdict"] == word)).all()
        assert (left_out(frame) == (frame["p_holm"] < 0.05)).all()


def test_margin_verdicts_follow_the_interval(tmp_path):
    shares = {r: [(0.4 + r / 20, 0.9 - r / 20)] for r in range(1, 9)}
    seen, target = set(), set()
    for margin in (3.0, 12.0):
        folder = tmp_path / str(margin)
        found = sweep(folder, swept([0] * 160, [1] * 160, shares), margin_pp=margin)["settings"]
        assert set(found["margin_pp"]) == {margin}
        rows = found[found["measure"] == "correct"]
        for low, high, loss, gain in rows[["ci_low_pp", "ci_high_pp", "margin_verdict", "gain_margin_verdict"]].values:
            assert loss == (
                "no more than the margin lost" if low > -margin
                else "lost more than the margin" if high < -margin else "undecided"
            )  # fmt: skip
            assert gain == (
                "gained more than the margin" if low > margin
                else "no more than the margin gained" if high < margin else "undecided"
            )  # fmt: skip
        seen |= set(rows["margin_verdict"])
        target |= set(rows.loc[rows["task"] == "spider", "gain_margin_verdict"])
        # What would decide is said where it is undecided.
        undecided = rows["margin_verdict"] == "undecided"
        assert rows.loc[~undecided, "units_to_decide"].isna().all()
        assert rows.loc[undecided, "units_to_decide"].gt(GROUPS).any()
        page = (folder / "settings.md").read_text(encoding="utf-8")
        assert f"Margin: {margin:g} pp" in page
        assert "subjects would decide" in page
    assert len(seen) == 3
    assert "gained more than the margin" in target


def test_the_exchange_rate_is_given_where_a_gain_is_shown(tmp_path):
    base, more, fewer = [0] * 80 + [1] * 80, [0] * 20 + [1] * 140, [0] * 140 + [1] * 20
    known, forgotten = [1] * 160, [1] * 120 + [0] * 40
    found = sweep(
        tmp_path,
        [({"lora.r": r}, spider, mmlu) for r, spider, mmlu in (
            (0, base, known), (1, more, forgotten), (2, base, forgotten), (3, fewer, forgotten), (4, more, known)
        )],
    )["settings"]  # fmt: skip
    rates = right(found, "mmlu")["exchange_rate"]
    # 25 points lost for 37.5 gained.
    assert rates[0] == pytest.approx(2 / 3)
    assert rates.isna().tolist() == [False, True, True, False]
    assert rates[3] == 0
    rest = found[(found["task"] == "spider") | (found["category"] != ALL) | (found["measure"] != "correct")]
    assert rest["exchange_rate"].isna().all()
    page = (tmp_path / "settings.md").read_text(encoding="utf-8")
    assert "| 0.67 " in page.replace("  ", "")
    assert "\N{MINUS SIGN}0.00" not in page


# -- the probability of the right letter ---------------------------------------------------------------------------


def test_the_probability_of_the_right_letter_of_both_forms_of_records():
    logprobs = np.array([[-1.0, -2.0, -3.0, -4.0], [-9.0, -8.5, -0.5, -700.0], [-800.0, -801.0, -802.0, -803.0]])
    answers = ["A", "D", "C"]
    shares = np.exp(logprobs - logprobs.max(axis=1, keepdims=True))
    expected = [row["ABCD".index(letter)] / row.sum() for row, letter in zip(shares, answers, strict=True)]
    mmlu = pd.DataFrame(logprobs, columns=[f"logprob_{letter}" for letter in "ABCD"]).assign(answer=answers)
    assert right_probability(mmlu).tolist() == pytest.approx(expected)
    # Of any number of choices, and where there is no answer.
    cells = ['{"A": -1.0, "B": -2.0}', '{"A": -1.0, "B": -2.0, "C": -0.5, "D": -3.0, "E": -2.5}', "{}"]
    own = pd.DataFrame({"logprobs": cells, "answer": ["B", "E", "A"]})
    five = np.exp([-1.0, -2.0, -0.5, -3.0, -2.5])
    assert right_probability(own).tolist() == pytest.approx([1 / (1 + np.e), five[4] / five.sum(), 0.0])
    nothing = pd.DataFrame({"logprobs": ["{}", "{}"], "answer": ["B", "E"]})
    assert right_probability(nothing).tolist() == [0.0, 0.0]
    missing = mmlu.assign(**dict.fromkeys([f"logprob_{letter}" for letter in "ABCD"], np.nan))
    assert right_probability(missing).tolist() == [0.0] * 3


def test_the_probability_is_a_measure_of_its_own(tmp_path):
    base, known = draw(160, 0.4, 1), [1] * 160
    answers = swept(base, known, {4: [(0.7, 1.0)] * 4, 8: [(0.4, 1.0)] * 2})
    generator, probabilities, letters = np.random.default_rng(3), [], [f"logprob_{letter}" for letter in "ABCD"]

    def less_sure(path, number):
        # The letters stay; all that changes is how sure the model is of them. One answer is missing.
        frame = pd.read_csv(path, dtype=object, keep_default_na=False)
        logprobs = generator.normal(size=(160, 4)) + np.array([3.0 - 0.5 * (number > 0), 0, 0, 0])
        frame[letters] = logprobs
        frame[letters] = frame[letters].astype(object)
        frame.loc[5, letters] = ""
        frame.to_csv(path, index=False)
        shares = np.exp(logprobs)
        probability = shares[:, 0] / shares.sum(axis=1)
        probability[5] = 0
        probabilities.append(probability)

    found = sweep(tmp_path, answers, change=less_sure)["settings"]
    rows = found[found["measure"] == "score"].reset_index(drop=True)
    assert rows[["task", "category", "setting"]].values.tolist() == [["mmlu", ALL, "r4"], ["mmlu", ALL, "r8"]]
    first, *tuned = probabilities
    assert rows["base_accuracy_pct"].tolist() == pytest.approx([100 * first.mean()] * 2)
    changes = [np.array(tuned[:4]) - first, np.array(tuned[4:]) - first]
    assert rows["difference_pp"].tolist() == pytest.approx([100 * one.mean() for one in changes])
    assert rows["tuned_accuracy_pct"].tolist() == pytest.approx([100 * np.mean(tuned[:4]), 100 * np.mean(tuned[4:])])
    # Without a gained and a lost question added: textbook formulas.
    hand = Hand(*changes)
    hand.added = np.zeros(2)
    expected = [hand.row(np.eye(2)[i], 1 - rows["confidence_of_interval"][i]) for i in range(2)]
    assert rows["ci_low_pp"].tolist() == pytest.approx([low for low, *_ in expected], rel=1e-5)
    assert rows["p"].tolist() == pytest.approx([p for *_, p in expected], rel=1e-4)
    # A family of its own, in which a loss shows that right and wrong answers do not have.
    assert set(rows["family"]) == {2}
    assert set(right(found)["family"]) == {4}
    assert (rows["verdict"] == "lost").all()
    assert set(right(found, "mmlu")["verdict"]) == {"undecided"}
    assert rows[["percent_change", "exchange_rate"]].isna().all(axis=None)
    assert "MMLU, probability of the right letter" in (tmp_path / "settings.md").read_text(encoding="utf-8")


# -- settings against each other -----------------------------------------------------------------------------------


def test_contrasts_are_averaged_over_what_else_is_swept(tmp_path):
    base, mmlu = [0] * 160, [1] * 80
    share = {(1e-4, 8): 0.25, (1e-4, 16): 0.3, (1e-3, 8): 0.65, (1e-3, 16): 0.7}
    answers, changes = [({}, base, mmlu)], []
    for number, ((lr, r), of) in enumerate(share.items()):
        runs = [draw(160, of, 10 * number + seed) for seed in (1, 2)]
        changes.append(np.array(runs))
        answers += [(settings_of(seed, lr=lr, r=r), run, mmlu) for seed, run in enumerate(runs, 1)]
    found = sweep(tmp_path, answers)["contrasts"]
    spider = found[found["task"] == "spider"].reset_index(drop=True)
    assert spider[["axis", "low", "high", "pairs"]].values.tolist() == [
        ["training.learning_rate", "0.0001", "0.001", 2],
        ["lora.r", "8", "16", 2],
    ]
    means = [one.mean() for one in changes]
    sides = [(means[:2], means[2:]), (means[::2], means[1::2])]
    sides = [[np.mean(side) for side in pair] for pair in sides]
    assert spider[["low_accuracy_pct", "high_accuracy_pct"]].values == pytest.approx(100 * np.array(sides))
    assert spider["difference_pp"].tolist() == pytest.approx([100 * (high - low) for low, high in sides])
    hand = Hand(*changes)
    assert found["p_holm"].tolist() == pytest.approx(holm(found["p"].tolist()))
    for row, weights in zip(spider.to_dict("records"), ((-0.5, -0.5, 0.5, 0.5), (-0.5, 0.5, -0.5, 0.5)), strict=True):
        centre, half = hand.contrast(weights)
        low, high, p = hand.row(weights, 0.05)
        assert row["p"] == pytest.approx(p, rel=1e-4, abs=1e-12)
        # The interval of a family of four is wider than one alone, at a level of its own.
        assert row["ci_high_pp"] - row["ci_low_pp"] > high - low
        assert (row["ci_low_pp"] + row["ci_high_pp"]) / 2 == pytest.approx(100 * centre)
        assert row["ci_high_pp"] - 100 * centre <= 100 * half(0.05 / 4) * (1 + 1e-9)
    assert spider["verdict"].tolist()[0] == "higher"
    assert (found.loc[found["task"] == "mmlu", "verdict"] == "undecided").all()
    assert set(found["about"]) == {"setting"}
    assert (left_out(found) == (found["verdict"] != "undecided")).all()


def test_only_settings_that_are_alike_in_all_else_are_a_pair(tmp_path):
    base, mmlu = [0] * 160, [1] * 80
    right_of = {(1e-4, 8): 40, (1e-4, 16): 56, (1e-3, 8): 104}  # the fourth was not trained
    answers = [({}, base, mmlu)]
    answers += [(settings_of(lr=lr, r=r), [1] * k + [0] * (160 - k), mmlu) for (lr, r), k in right_of.items()]
    found = sweep(tmp_path, answers)["contrasts"]
    spider = found[found["task"] == "spider"]
    assert spider["pairs"].tolist() == [1, 1]
    assert spider["difference_pp"].tolist() == pytest.approx([40.0, 10.0])
    assert set(found["about"]) == {"this training run"}


def test_adapters_with_a_name_are_compared_with_each_other_setting(tmp_path):
    base, known = [0] * 160, [1] * 80
    answers = [({}, base, known)]
    for seed in (1, 2):
        answers += [(settings_of(seed, r=r), [1] * k + [0] * (160 - k), known) for r, k in ((4, 40), (8, 60))]
    before = sweep(tmp_path / "before", answers)
    after = sweep(tmp_path / "after", [*answers, ({}, [1] * 80 + base[80:], known)], made=[len(answers)])
    contrasts = after["contrasts"]
    own = contrasts["axis"] != ""
    told = ["low", "high", "pairs", "difference_pp", "p"]
    pd.testing.assert_frame_equal(contrasts.loc[own, told].reset_index(drop=True), before["contrasts"][told])
    spider = contrasts[~own & (contrasts["task"] == "spider")]
    assert spider[["low", "high", "pairs"]].values.tolist() == [["r4", "public", 1], ["r8", "public", 1]]
    assert spider["difference_pp"].tolist() == pytest.approx([25.0, 12.5])
    row = right(after["settings"], "spider").query("setting == 'public'").iloc[0]
    assert (row["base_accuracy_pct"], row["tuned_accuracy_pct"], row["verdict"]) == (0.0, 50.0, "gained")
    assert row["seed_variance"] == "seeds of other settings"
    assert row["lora.r"] == ""
    assert "public" in set(after["spider"]["variant"]) & set(after["mmlu"]["variant"])


def test_named_adapters_alone_are_all_compared(tmp_path):
    names = ("plain", "replay", "decay")
    answers = [({}, [0] * 160, [1] * 80)]
    answers += [({}, {"variant": name, "setting": name}, [1] * k + [0] * (160 - k), [1] * 80)
                for name, k in zip(names, (80, 64, 96), strict=True)]  # fmt: skip
    found = sweep(tmp_path, answers)["contrasts"]
    spider = found[found["task"] == "spider"]
    assert spider[["low", "high"]].values.tolist() == [list(pair) for pair in itertools.combinations(names, 2)]
    assert spider["difference_pp"].tolist() == pytest.approx([-10.0, 10.0, 20.0])


def test_of_many_levels_each_is_compared_with_the_first(tmp_path):
    answers = [({}, [0] * 16, [1] * 16), *((settings_of(r=r), [0, 1] * 8, [1] * 16) for r in (1, 2, 4, 8, 16))]
    found = sweep(tmp_path, answers)["contrasts"]
    assert set(found["low"]) == {"1"}
    assert found.loc[found["task"] == "mmlu", "high"].tolist() == ["2", "4", "8", "16"]
    four = sweep(tmp_path, answers[:5])["contrasts"]
    assert len(four) == 2 * 6


def test_one_setting_has_no_contrast(tmp_path):
    answers = [({}, [0] * 16, [1] * 16), *((settings_of(seed, r=4), [0, 1] * 8, [1] * 16) for seed in (1, 2))]
    assert sweep(tmp_path, answers)["contrasts"].empty
    assert "no two settings of one model" in (tmp_path / "contrasts.md").read_text(encoding="utf-8")


# -- families ------------------------------------------------------------------------------------------------------


def with_points(arguments, folder):
    """Add two strengths of the first adapter, a step of it and a soup to what `study` returned."""
    first = arguments["runs"][1]["variant"]
    points = {
        f"{first}@0.5": {"of": [first], "strength": 0.5},
        f"{first}@2": {"of": [first], "strength": 2.0},
        f"{first}@step50": {"of": [first], "step": 50},
        "soup-both": {"of": [run["variant"] for run in arguments["runs"][1:3]], "soup": "both"},
    }
    for number, (name, point) in enumerate(points.items()):
        settings = arguments["runs"][1]["settings"] if len(point["of"]) == 1 else {}
        run = {"model": "demo", "variant": name, "setting": name, "settings": settings, "point": point}
        arguments["runs"].append(run)
        arguments["spider"].append(spider_records(folder / f"p{number}.csv", draw(200, 0.6, 50 + number)))
        arguments["mmlu"].append(mmlu_records(folder / f"pm{number}.csv", draw(150, 0.3, 60 + number)))
    return arguments


def written(folder, arguments, names=TABLES):
    """Write the tables; return their paths and frames."""
    paths = table_paths(folder, names)
    write_tables(outputs=paths, **arguments)
    return paths, {name: read_table(paths[name]) for name in names}


def test_points_change_no_row_of_a_setting(tmp_path):
    _, before = written(tmp_path / "before", study(tmp_path / "a", 2))
    names = [*TABLES, "equal_gain"]
    paths, after = written(tmp_path / "after", with_points(study(tmp_path / "b", 2), tmp_path), names)
    for name, frame in before.items():
        # Contrasts and transitions are about what was trained.
        own = trained(after[name]) if "of" in after[name] else after[name]
        pd.testing.assert_frame_equal(own, frame, check_dtype=False)
    settings = after["settings"]
    points = right(settings[is_point(settings)])
    assert points[["of", "strength", "step"]].drop_duplicates().fillna(-1).values.tolist() == [
        ["lr0.0001-r8-seed42", 0.5, -1],
        ["lr0.0001-r8-seed42", 2.0, -1],
        ["lr0.0001-r8-seed42", -1, 50],
        ["lr0.0001-r8-seed42 lr0.00015-r8-seed42", -1, -1],
    ]
    # A family of their own: four points and two tasks.
    assert set(points["family"]) == {8}
    assert points["p_holm"].tolist() == pytest.approx(holm(points["p"].tolist()))
    assert set(right(trained(settings))["family"]) == {4}
    page = paths["settings_md"].read_text(encoding="utf-8")
    assert "adjusted for the 4 comparisons of settings and tasks" in page
    assert "exploratory: their p are adjusted apart, for 8 comparisons" in page


def test_a_base_with_other_prompts_is_compared_where_it_was_asked(tmp_path):
    names = [*TABLES, "equal_gain"]
    _, before = written(tmp_path, with_points(study(tmp_path / "a", 2), tmp_path), names)
    arguments = with_points(study(tmp_path / "b", 2), tmp_path)
    rights = {0: [0] * 200, 5: draw(200, 0.6, 5)}
    paths, after = written(tmp_path, with_shots(arguments, tmp_path, rights), names)
    for name, frame in after.items():
        if "of" not in frame:
            assert frame.equals(before[name])
            continue
        others = frame[~is_prompted(frame)].reset_index(drop=True)
        own, had = (one.drop(columns="shots") for one in (others, before[name]))
        pd.testing.assert_frame_equal(own, had, check_dtype=False)
        if "variant" in others:
            assert set(others.loc[others["variant"] == "base", "shots"]) <= {3}
        assert set(frame.loc[is_prompted(frame), "shots"]) == {0, 5}
    for name in ("settings", "regression", "flips"):
        assert set(after[name].loc[is_prompted(after[name]), "task"]) == {"spider"}
    own = after["settings"][is_prompted(after["settings"])]
    base = sum(draw(200, 0.3, 0))
    assert own["difference_pp"].tolist() == pytest.approx([-base / 2, (sum(rights[5]) - base) / 2])
    # A family of their own: two numbers of examples. No training, so no seed is left out.
    assert set(own["family"]) == {2}
    assert own["p_holm"].tolist() == pytest.approx(holm(own["p"].tolist()))
    assert set(own["about"]) == {"prompt"}
    assert set(own["seed_variance"]) == {""}
    page = paths["settings_md"].read_text(encoding="utf-8")
    assert "base@shots0 " in page
    assert "base@shots0, this training run" not in page
    assert "Rows of base@shots repeat those of the base" in paths["mmlu_md"].read_text(encoding="utf-8")
    knowledge = after["mmlu"].set_index("variant")
    assert knowledge.loc["base@shots0", "correct"].tolist() == knowledge.loc["base", "correct"].tolist()


# -- forgetting ----------------------------------------------------------------------------------------------------


def courses(*ways):
    """Answers of settings with an interpolation half-way: of each what of 160 is right half-way and at the end.

    Whole blocks of eight turn, so that all databases and subjects change alike and nothing is left to chance.
    """
    answers = [({}, [0] * 160, [1] * 160)]
    for number, ((half_gain, half_loss), (gain, loss)) in enumerate(ways):
        r = 4 * (number + 1)
        for place, gained, lost in ((0.5, half_gain, half_loss), (1, gain, loss)):
            point = {"of": [f"r{r}"], "strength": place}
            more = {"variant": f"r{r}@0.5", "setting": f"r{r}@0.5", "point": point} if place < 1 else {}
            answers.append(
                (settings_of(r=r), more, [1] * gained + [0] * (160 - gained), [0] * lost + [1] * (160 - lost))
            )
    return answers


def test_settings_are_compared_where_they_gained_the_same(tmp_path):
    # Of 160: the first gains 40 at a loss of 8, then 80 at 32; the second 80 at 0, then 96 at 16.
    found = sweep(tmp_path, courses(((40, 8), (80, 32)), ((80, 0), (96, 16))))["equal_gain"]
    # At a half and at three quarters of the 80 that both reach.
    assert found[["model", "task", "low", "high"]].values.tolist() == [["m", "mmlu", "r4", "r8"]] * 2
    assert found["gain_pp"].tolist() == pytest.approx([25.0, 37.5])
    first = np.interp([40, 60], [0, 40, 80], [0, -8, -32])
    second = np.interp([40, 60], [0, 80, 96], [0, 0, -16])
    assert found["difference_pp"].tolist() == pytest.approx((100 * (second - first) / 160).tolist())
    assert found["difference_pp"].tolist() == pytest.approx([5.0, 12.5])
    # All databases and subjects are alike: whichever are drawn, the difference is the same.
    for limit in ("ci_low_pp", "ci_high_pp"):
        assert found[limit].tolist() == pytest.approx(found["difference_pp"].tolist())
    page = (tmp_path / "equal_gain.md").read_text(encoding="utf-8")
    assert "+5.0 (+5.0 to +5.0)" in page


def test_a_setting_that_gains_nothing_is_compared_at_no_gain(tmp_path):
    assert sweep(tmp_path, courses(((40, 8), (80, 32)), ((0, 8), (0, 16))))["equal_gain"].empty
    assert "a gain in common" in (tmp_path / "equal_gain.md").read_text(encoding="utf-8")
    assert sweep(tmp_path / "one", courses(((40, 8), (80, 32))))["equal_gain"].empty


def test_courses_are_means_over_seeds(tmp_path):
    def of_seed(r, seed, half, end):
        name = f"r{r}-seed{seed}"
        point = {"of": [name], "step": 10}
        for more, (gained, lost) in (
            ({"variant": f"{name}@step10", "setting": f"r{r}@step10", "point": point}, half), ({}, end)
        ):  # fmt: skip
            yield settings_of(seed, r=r), more, [1] * gained + [0] * (160 - gained), [0] * lost + [1] * (160 - lost)

    answers = [({}, [0] * 160, [1] * 160)]
    answers += [*of_seed(4, 1, (32, 8), (64, 40)), *of_seed(4, 2, (48, 8), (96, 24))]
    answers += [*of_seed(8, 1, (80, 16), (96, 16))]
    found = sweep(tmp_path, answers)["equal_gain"]
    # On average the first gains 40 at a loss of 8, then 80 at 32.
    assert found["gain_pp"].tolist() == pytest.approx([25.0, 37.5])
    first = np.interp([40, 60], [0, 40, 80], [0, -8, -32])
    second = np.interp([40, 60], [0, 80, 96], [0, -16, -16])
    assert found["difference_pp"].tolist() == pytest.approx((100 * (second - first) / 160).tolist())
    # What the seeds differ in is all that is left to chance.
    assert (found["ci_low_pp"] < found["difference_pp"] - 0.1).any()
    assert ((found["ci_low_pp"] <= found["difference_pp"]) & (found["difference_pp"] <= found["ci_high_pp"])).all()


def test_answers_that_turned_are_counted_over_seeds(tmp_path):
    base, known = draw(160, 0.4, 1), draw(160, 0.7, 2)
    answers = swept(base, known, {4: [(0.6, 0.5), (0.7, 0.6)], 8: [(0.5, 0.7)]})
    found = sweep(tmp_path, answers)["transitions"].set_index(["setting", "task"])
    assert found.index.tolist() == [("r4", "spider"), ("r8", "spider"), ("r4", "mmlu"), ("r8", "mmlu")]
    for (name, task), row in found.iterrows():
        place, before = {"spider": (1, base), "mmlu": (2, known)}[task]
        runs = np.array([one[place] for one in answers[1:] if one[0]["lora.r"] == int(name[1:])])
        chance = {"spider": 0.0, "mmlu": 0.25}[task]
        assert (row["seeds"], row["n"], row["chance"]) == (len(runs), 160, chance)
        first = np.array(before)
        lost, gained = (first * (1 - runs)).mean(), ((1 - first) * runs).mean()
        guessed = (1 - runs).mean(), (1 - first).mean()
        for key, turned, wrong in zip(("right_to_wrong", "wrong_to_right"), (lost, gained), guessed, strict=True):
            assert row[f"{key}_pct"] == pytest.approx(100 * (turned - chance * wrong) / (1 - chance) ** 2)
            assert row[f"{key}_low_pct"] < row[f"{key}_pct"] < row[f"{key}_high_pct"]
