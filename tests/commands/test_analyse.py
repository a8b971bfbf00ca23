"""`scripts/analyse.py`: the results of any harness, and what it says of a file that is wrong."""

import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import analyse
from _answers import THREE, Design, records
from analysis.settings import CONTRASTS, SETTINGS, contrasts_table, settings_tables


@pytest.fixture(scope="module")
def answers():
    generator = np.random.default_rng(1)
    found = [
        Design(seeds=(3, 1), truths=(0.1, 0.02), cluster_sd=0.03).draw(generator, "spider")[0],
        Design(THREE, seeds=(3, 1), truths=(-0.1, 0.0)).draw(generator, "mmlu")[0],
    ]
    # As `records` writes them.
    hard = [np.arange(len(one.base)) % 3 == 0 for one in found]
    return [replace(one, parts={"hard": of, "easy": ~of}) for one, of in zip(found, hard, strict=True)]


@pytest.fixture
def frame(answers):
    return pd.concat(map(records, answers), ignore_index=True)


def run(tmp_path, frame, *options):
    path = tmp_path / "records.csv"
    frame.to_csv(path, index=False)
    assert analyse.main([str(path), "--out", str(tmp_path / "out"), *options]) == 0
    return {one.stem: pd.read_csv(one) for one in (tmp_path / "out").iterdir()}


def test_tables_are_those_of_the_workflows_own_functions(tmp_path, frame, answers):
    found = run(tmp_path, frame, "--margin", "2", "--confidence", "0.9")
    assert {*found} == {"settings", "details", "contrasts", "transitions"}
    settings, details = settings_tables(answers, 2.0, 0.9)
    options = {"check_dtype": False, "rtol": 1e-8}
    pd.testing.assert_frame_equal(found["settings"], settings, **options)
    pd.testing.assert_frame_equal(found["details"], details, **options)
    pd.testing.assert_frame_equal(found["contrasts"], contrasts_table(answers, 0.9)[[*CONTRASTS]], **options)
    assert list(found["settings"].columns) == [*SETTINGS]
    assert list(found["contrasts"].columns) == [*CONTRASTS]
    assert list(found["settings"]["part"].unique()) == ["all", "hard", "easy"]
    assert set(found["settings"]["verdict"]) <= {"lost", "gained", "undecided"}


def test_the_order_of_rows_changes_no_figure(tmp_path, frame):
    keys = ["setting", "task", "part"]
    first, second = (
        run(tmp_path, one)["settings"].sort_values(keys, ignore_index=True)
        for one in (frame, frame.sample(frac=1, random_state=1))
    )
    pd.testing.assert_frame_equal(first, second)


def test_without_parts_there_are_no_rows_of_parts(tmp_path, frame):
    for name in ("", "all"):
        assert set(run(tmp_path, frame.assign(part=name))["settings"]["part"]) == {"all"}


def test_scores_are_a_measure_of_their_own(tmp_path, frame):
    mmlu = frame["task"] == "mmlu"
    scored = frame.assign(score=(0.25 + 0.5 * frame["correct"]).where(mmlu))
    found = run(tmp_path, scored)["settings"]
    plain = run(tmp_path, frame)["settings"]
    pd.testing.assert_frame_equal(found[found["measure"] == "correct"].reset_index(drop=True), plain)
    scores = found[found["measure"] == "score"]
    assert set(scores["task"]) == {"mmlu"}
    rows = plain[plain["task"] == "mmlu"]
    assert scores["difference_pp"].tolist() == pytest.approx((rows["difference_pp"] / 2).tolist())


def test_names_are_kept_as_they_are_written(tmp_path, frame):
    named = frame.assign(model="NA", setting=frame["setting"].replace({"s0": "007", "s1": "7"}))
    found = run(tmp_path, named)["contrasts"]
    raw = pd.read_csv(tmp_path / "out/contrasts.csv", dtype=str, keep_default_na=False)
    assert (raw["model"][0], raw["a"][0], raw["b"][0]) == ("NA", "007", "7")
    assert len(found) == 2


def test_right_and_wrong_may_be_words(tmp_path, frame):
    words = frame.assign(correct=frame["correct"].map({0: "FALSE", 1: "True"}))
    pd.testing.assert_frame_equal(run(tmp_path, words)["settings"], run(tmp_path, frame)["settings"])


def test_sampled_answers_of_the_base_are_averaged(tmp_path, frame):
    other = frame[frame["setting"] == "base"].assign(correct=lambda rows: 1 - rows["correct"], seed=2)
    found = run(tmp_path, pd.concat([frame, other]))["settings"]
    right = frame[(frame["setting"] == "s0") & (frame["task"] == "mmlu")]["correct"].mean()
    row = found[(found["setting"] == "s0") & (found["task"] == "mmlu") & (found["part"] == "all")]
    assert row["difference_pp"].tolist() == pytest.approx([100 * (right - 0.5)])


def test_clusters_may_be_declared_fixed(tmp_path, frame):
    free, fixed = (run(tmp_path, frame, *options) for options in ((), ("--fixed-clusters", "spider")))
    for tables, units in ((free, ["cluster", "question"]), (fixed, ["question", "question"])):
        details = tables["details"]
        assert details[details["part"] == "all"].groupby("task", sort=False)["unit"].first().tolist() == units
    assert list(free["settings"]["clusters"]) == list(fixed["settings"]["clusters"])


def test_chance_is_that_of_the_option(tmp_path, frame):
    found = run(tmp_path, frame, "--chance", "mmlu=0.25")["transitions"]
    assert found.groupby("task")["chance"].first().to_dict() == {"mmlu": 0.25, "spider": 0}


def change(column, value, where=5):
    def changed(frame):
        column_as_text = frame[column].astype(object)
        column_as_text[where] = value
        return frame.assign(**{column: column_as_text})

    return changed


BASE, FIRST, OTHER = "found no row of model, setting base on spider", "row 2, column setting: ", "row 1042, column "


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (change("correct", 2), "row 7, column correct: found '2', expected 0 or 1"),
        (change("correct", ""), "row 7, column correct: found nothing, expected a value"),
        (change("model", ""), "row 7, column model: found nothing, expected a value"),
        (change("part", "all"), "row 7, column part: found 'all', expected another name"),
        (change("question", "q4"), "row 7, column question: found 'q4', expected one row for each question"),
        (change("question", "new"), "column question: found no answer of model, setting base to q5 of spider"),
        (change("cluster", "c9", 1040), OTHER + "cluster: found 'c9', expected the cluster that its question has"),
        (change("part", "odd", 1040), OTHER + "part: found 'odd', expected the part that its question has"),
        (lambda frame: frame.drop(index=1040), "found no answer of model, setting s0, seed 1 to q6 of spider"),
        (lambda frame: frame.drop(columns="cluster"), "row 1: lacks the column cluster, found model, setting"),
        (
            lambda frame: frame.set_axis([*frame.columns[:-1], "part"], axis=1),
            "row 1: found the column part twice, expected it once. Remove one",
        ),
        (lambda frame: frame[frame["setting"] != "base"], FIRST + BASE),
        (lambda frame: frame[frame["setting"] == "base"], FIRST + "found no setting of model besides base on spider"),
        (lambda frame: frame.assign(score="high"), "row 2, column score: found 'high', expected a number"),
        (lambda frame: frame.assign(score=["0.5", *[""] * (len(frame) - 1)]), "row 3, column score: found nothing"),
        (lambda frame: frame[:0], "row 2: found no answer, expected one in each row"),
    ],
)
def test_a_mistake_is_told_with_its_row_and_column(tmp_path, frame, capsys, mistake, message):
    path = tmp_path / "records.csv"
    mistake(frame).to_csv(path, index=False)
    assert analyse.main([str(path), "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"{path}, row ")
    assert message in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "not a CSV file in UTF-8"),
        (b"model,setting\n\xff\xfe,1\n", "not a CSV file in UTF-8"),
        (b"a,b\n1,2\n1,2,3\n", "not a CSV file in UTF-8"),
    ],
)
def test_a_file_that_is_none_is_told(tmp_path, capsys, content, message):
    path = tmp_path / "records.csv"
    if content is not None:
        path.write_bytes(content)
    assert analyse.main([str(path), "--out", str(tmp_path)]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--confidence", "95"], "--confidence: found 95, expected a share"),
        (["--margin", "-1"], "--margin: found -1, expected percentage points"),
        (["--chance", "mmlu"], "argument --chance"),
    ],
)
def test_an_option_that_is_wrong_is_told(tmp_path, capsys, options, message):
    with pytest.raises(SystemExit):
        analyse.main([str(tmp_path), "--out", str(tmp_path), *options])
    assert message in capsys.readouterr().err


def test_a_task_that_an_option_names_must_be_there(tmp_path, frame, capsys):
    path = tmp_path / "records.csv"
    frame.to_csv(path, index=False)
    assert analyse.main([str(path), "--out", str(tmp_path), "--fixed-clusters", "squad"]) == 1
    assert "column task: found no squad" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_told(tmp_path, frame, capsys):
    path = tmp_path / "records.csv"
    frame.to_csv(path, index=False)
    assert analyse.main([str(path), "--out", str(path)]) == 1
    assert f"--out {path}: " in capsys.readouterr().err


def test_it_imports_no_model_library_and_little_else():
    import subprocess

    code = "import sys; sys.path.insert(0, 'scripts'); import analyse; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers", "matplotlib", "snakemake", "scipy.stats", "scipy.optimize"} & {*loaded}
