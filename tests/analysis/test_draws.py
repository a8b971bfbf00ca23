"""Answers that are drawn several times: every number is of the mean over draws, and draws are no trainings."""

import copy

import pandas as pd
import pytest

from _study import draw, spider_records, study, table_paths, write_tables
from present.values import read_table

NAMES = ("settings", "contrasts", "transitions", "regression", "flips", "spider", "mmlu", "errors", "confusion")


def made(folder, others=None):
    """A study of two adapters; with `others`, of each run the 0/1 of a second draw of its answers to Spider."""
    arguments = study(folder / "records", 2, n=120)
    for number, run in enumerate(copy.deepcopy(arguments["runs"])) if others else ():
        arguments["runs"][number]["draw"] = 1
        again = run | {"variant": f"{run['variant']}@draw2", "draw": 2, "draw_of": run["variant"]}
        arguments["runs"].append(again)
        again = spider_records(folder / f"{number}.csv", others[number]) if others[number] else None
        arguments["spider"].append(again or arguments["spider"][number])
        # Letters are not drawn.
        arguments["mmlu"].append(arguments["mmlu"][number])
    return arguments


def tables(folder, others=None):
    folder.mkdir()
    write_tables(table_paths(folder), **made(folder, others))
    return {name: read_table(folder / f"{name}.csv") for name in (*NAMES, "databases")}


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    return tables(tmp_path_factory.mktemp("draws") / "once")


@pytest.fixture(scope="module")
def second():
    """Of base and adapters the 0/1 of a second draw."""
    return [draw(120, share, 50 + number) for number, share in enumerate((0.35, 0.5, 0.6))]


@pytest.fixture(scope="module")
def twice(tmp_path_factory, second):
    return tables(tmp_path_factory.mktemp("draws") / "twice", second)


def test_equal_draws_change_nothing(tmp_path, once):
    same = tables(tmp_path / "same", [None] * 3)
    for name, frame in once.items():
        found = same[name]
        if name == "regression":  # which counts questions, and means over draws are none
            spider = frame["task"] == "spider"
            assert found.loc[spider, "p_mcnemar"].isna().all()
            found.loc[spider, "p_mcnemar"] = frame.loc[spider, "p_mcnemar"]
        pd.testing.assert_frame_equal(found, frame, check_dtype=False)


def test_numbers_are_means_over_draws(once, twice, second):
    of_sql = once["spider"][once["spider"]["questions"] == "aggregate"]
    found = twice["spider"][twice["spider"]["questions"] == "aggregate"]
    # Draws are no runs of their own.
    assert found["variant"].tolist() == of_sql["variant"].tolist()
    means = [(first + sum(other)) / 2 for first, other in zip(of_sql["correct"], second, strict=True)]
    assert found["correct"].tolist() == means
    whole = (twice["settings"]["task"] == "spider") & (twice["settings"]["category"] == "aggregate")
    settings = twice["settings"][whole]
    assert settings["difference_pp"].tolist() == pytest.approx([100 * (mean - means[0]) / 120 for mean in means[1:]])
    assert settings["base_accuracy_pct"].tolist() == pytest.approx([100 * means[0] / 120] * 2)
    assert settings["tuned_accuracy_pct"].tolist() == pytest.approx([100 * mean / 120 for mean in means[1:]])
    for name in ("regression", "flips"):
        frame = twice[name][twice[name]["task"] == "spider"].drop_duplicates("variant")
        changes = [mean - means[0] for mean in means[1:]]
        assert (frame["gained"] - frame["lost"]).tolist() == pytest.approx(changes)
    flips = twice["flips"]
    assert flips[["both_right", "both_wrong", "gained", "lost"]].sum(axis=1).tolist() == pytest.approx(flips["n"])
    right = twice["errors"][twice["errors"]["error_class"] == "ok"]
    assert right["n"].tolist() == means
    became = twice["confusion"].groupby("variant", sort=False)["n"].sum()
    assert became.tolist() == pytest.approx([120, 120])


def test_a_draw_is_no_training_and_narrows_only_the_chance_of_drawing(once, twice):
    for name in ("settings", "transitions"):
        assert set(twice[name]["seeds"]) == {1}
    assert set(twice["settings"]["about"]) == {"this training run"}
    errors = [frame["settings"].query("task == 'spider' & category == 'aggregate'") for frame in (once, twice)]
    assert (errors[1]["cluster_se_pp"].to_numpy() < errors[0]["cluster_se_pp"].to_numpy()).all()


def test_letters_are_what_they_are_without_draws(once, twice):
    for name in ("mmlu", "regression", "flips"):
        pairs = [
            frame[name][frame[name]["task"] == "mmlu"] if name != "mmlu" else frame[name] for frame in (once, twice)
        ]
        pd.testing.assert_frame_equal(*(pair.reset_index(drop=True) for pair in pairs), check_dtype=False)
