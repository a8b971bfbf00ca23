import re
from itertools import product

import pandas as pd
import pytest

from _study import HAS, MEASURES, TASKS, study, table_paths, write_tables
from conclude import conclude
from present.conclusion import conclusion
from present.format import LANGUAGES, MINUS, Say
from present.values import LOST, NOT_LOST, RECOMMENDED, THIS_RUN, UNDECIDED

SAY = Say("en", MEASURES)
RATE = "training.learning_rate"
FEW = SAY.word("report.few")
ONCE = SAY.word("conclusion.once")
# Verdict and verdict against the margin of each finding.
VERDICTS = {"gained": ("gained", NOT_LOST), "lost": (LOST, "lost more than the margin")}
VERDICTS |= {"undecided": (UNDECIDED, UNDECIDED), "kept": (UNDECIDED, NOT_LOST), "within": (LOST, NOT_LOST)}


def row(setting, task, found, effect, **others):
    """A row of the table of settings, with an interval of ten points on both sides."""
    verdict, margin = VERDICTS[found]
    values = {"model": "m", "setting": setting, "task": task, "category": "aggregate", "measure": "correct"}
    values |= {"verdict": verdict, "margin_verdict": margin, "difference_pp": effect, "ci_low_pp": effect - 10}
    values |= {"ci_high_pp": effect + 10, "margin_pp": 3.0, "about": "setting", "unit": "database"}
    return values | others


def said(*rows, best=None, say=SAY):
    """The answer of a study with these rows, with a plain minus; `best` is the recommended setting, "" for none."""
    frame = pd.DataFrame(rows)
    if best is None:
        return [line.replace(MINUS, "-") for line in conclusion(frame, None, say)]
    chosen = frame.assign(choice=(frame["setting"] == best).map({True: RECOMMENDED, False: "loss not certified"}))
    return [line.replace(MINUS, "-") for line in conclusion(frame, chosen, say)]


def two(gain=(23.2, 24.1), **others):
    """Two learning rates, of which the higher one forgets."""
    low, high = {RATE: "0.003"} | others, {RATE: "0.012"} | others
    return [
        row("lr0.003", "spider", "gained", gain[0], **low),
        row("lr0.003", "mmlu", "kept", 0.7, **low),
        row("lr0.012", "spider", "gained", gain[1], **high),
        row("lr0.012", "mmlu", "lost", -17.0, **high),
    ]


def test_two_learning_rates():
    assert said(*two(), best="lr0.003") == [
        "Both learning rates gain about 24 pp of Spider execution accuracy.",
        "At learning rate 0.012 the model also loses 17 pp of MMLU (-27 to -7); at 0.003 it loses no more than 3 pp.",
        "Use learning rate 0.003.",
    ]
    assert said(*two(gain=(12.0, 24.1)))[0] == "Both learning rates gain 12 to 24 pp of Spider execution accuracy."


def test_what_limits_the_answer_is_said_with_it():
    lines = said(*two(about=THIS_RUN, unit="question"), best="lr0.003")
    assert lines[0].endswith("accuracy †.")
    assert lines[1].count("†") == 2
    assert lines[-2:] == [ONCE, FEW]


def test_one_training():
    own = {"about": THIS_RUN}
    rows = row("lr0.1", "spider", "gained", 50.0, **own), row("lr0.1", "mmlu", "undecided", -0.4, **own)
    assert said(*rows, best="") == [
        "This training run of `lr0.1` gains 50 pp of Spider execution accuracy (+40 to +60).",
        "In it no change of MMLU is shown, and a loss above 3 pp is not ruled out (-10.4 to +9.6 pp).",
        "No candidate is shown both to gain and to lose no more than 3 pp of MMLU, so none is recommended.",
    ]


def test_nothing_gained():
    rows = [row(f"a{i}", "spider", found, effect) for i, found, effect in ((1, "undecided", 2.0), (2, "lost", -15.0))]
    lines = said(*rows, *(row(f"a{i}", "mmlu", "kept", 0.0) for i in (1, 2)), best="")
    assert lines[0] == (
        "`a2` loses 15 pp of Spider execution accuracy (-25 to -5); no gain is shown for `a1` (-8 to +12 pp)."
    )
    assert lines[1] == "With both settings the model loses no more than 3 pp of MMLU."
    assert lines[2] == "No candidate is shown to gain, so none is recommended."


@pytest.mark.parametrize("n", [6, 30])
def test_many_settings_are_counted(n):
    rows = []
    for i in range(n):
        rows.append(row(f"s{i}", "spider", "gained", 10.0 + i))
        rows.append(row(f"s{i}", "mmlu", "lost" if i >= n - 4 else "undecided" if i == 0 else "kept", -5.0 - i))
    lines = said(*rows, best="s1")
    assert lines[0] == f"All {n} settings gain 10 to {9 + n} pp of Spider execution accuracy."
    assert lines[1].startswith(f"With 4 of {n} settings the model also loses {n + 1} to {n + 4} pp of MMLU; with `s0` ")
    kept = "`s1`" if n == 6 else "25 of 30 settings"
    assert lines[1].endswith(f"with {kept} it loses no more than 3 pp.")
    assert lines[2] == "Use `s1`."


def test_two_swept_factors_are_named_by_their_setting():
    rows = [
        row(name, task, found, effect, **{RATE: name[2:5], "lora.r": name[-1]})
        for name in ("lr0.1-r4", "lr0.1-r8", "lr0.2-r4")
        for task, found, effect in (("spider", "gained", 20.0), ("mmlu", "within", -1.5))
    ]
    expected = "With all 3 settings the model also loses about 2 pp of MMLU, no more than the margin of 3 pp."
    assert said(*rows)[1] == expected
    assert said(*rows, best="lr0.2-r4")[-1] == "Use `lr0.2-r4`."


def test_what_is_recommended_may_be_no_setting():
    rows = two()
    point = row("lr0.012@0.5", "spider", "gained", 20.0) | {"choice": RECOMMENDED}
    lines = conclusion(pd.DataFrame(rows), pd.DataFrame([point]), SAY)
    expected = "Use `lr0.012@0.5`, which gains 20 pp of Spider execution accuracy and loses no more than 3 pp of MMLU."
    assert lines[-1] == expected


def test_several_models_have_a_line_each():
    lines = said(*two(), *(one | {"model": "other"} for one in two()), best="lr0.003")
    assert len(lines) == 2
    assert lines[0].startswith("`m`: Both learning rates gain")
    assert lines[1].endswith("Use learning rate 0.003.")


def test_each_yardstick_has_its_sentence():
    measures = MEASURES | {"law": MEASURES["mmlu"]}
    rows = [*two(), row("lr0.003", "law", "kept", 0.0), row("lr0.012", "law", "gained", 12.0)]
    lines = said(*(rows[:4] + [one | {RATE: one["setting"][2:]} for one in rows[4:]]), say=Say("en", measures))
    assert len(lines) == 3
    assert lines[2].startswith("At learning rate 0.012 the model also gains 12 pp")


def test_a_study_without_adapters():
    frame = pd.DataFrame([row("x", "mmlu", "kept", 0.0)]).iloc[:0]
    assert conclusion(frame, None, SAY) == [SAY.word("notes.no_adapters")]


@pytest.mark.parametrize("pair", list(product(VERDICTS, VERDICTS)))
def test_every_pair_of_findings_has_a_sentence_in_each_language(pair):
    rows = [row(name, task, found, 9.0) for name in "ab" for task, found in zip(("spider", "mmlu"), pair, strict=True)]
    rows += [row("c", "spider", "gained", 4.0), row("c", "mmlu", "kept", 1.0)]
    pages = [said(*rows, best="c", say=Say(language, MEASURES)) for language in LANGUAGES]
    english, portuguese = (re.findall(r"\d+", re.sub(r"(?<=\d)[.,](?=\d)", "", "\n".join(page))) for page in pages)
    assert sorted(english) == sorted(portuguese)
    for line in (line for page in pages for line in page):
        assert re.fullmatch(r"[A-ZÀ-Ú`](?!.*[{}]).*[.]", line), line


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_results_open_with_the_answer(tmp_path, language):
    paths = table_paths(tmp_path)
    write_tables(outputs=paths, **study(tmp_path / "made", 2))
    outputs = {"answer": tmp_path / "answer.md", "readme": tmp_path / "README.md", "caption": tmp_path / "answer.rst"}
    settings = {"study": "test", "tasks": TASKS, "scale": "full", "language": language}
    settings |= {"known_defects": ["It #is broken."], "accept_defect": []}
    assert not HAS["recommend"]
    conclude({"settings": paths["settings"]}, outputs, settings)
    answer, readme, caption = (path.read_text(encoding="utf-8") for path in outputs.values())
    assert answer.split("\n")[0][:20] in caption
    assert readme.startswith(f"# test\n\n{answer}")
    assert "It #is broken." in readme
    assert "recommended" not in readme
    conclude({"settings": paths["settings"]}, outputs, settings | {"scale": "smoke"})
    assert outputs["answer"].read_text(encoding="utf-8").startswith("**")
