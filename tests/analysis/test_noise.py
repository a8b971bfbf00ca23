"""How many verdicts turn where the machine alone makes the difference: the table, and what the report says of it."""

import copy
import re
from math import comb

import pytest

from _study import MEASURES, as_inputs, mmlu_records, spider_records, study
from noise import noise
from present.values import read_table
from tasks.records import read_records
from tests.present.test_report import results, written

# Of 200 and of 150 questions, those that turn where a run is repeated.
TURNED = {"base": {"spider": [0, 7, 9], "mmlu": []}, "lr0.0001-r8-seed42": {"spider": [3], "mmlu": [1, 2, 3, 4]}}
HOW = {"base": "batches", "lr0.0001-r8-seed42": "merged"}
WRITE = {"spider": spider_records, "mmlu": mmlu_records}


def table(folder, language="en"):
    """The study with its repeated runs, and the places of their table."""
    made = study(folder / "made", 1)
    given = copy.deepcopy(made)
    for number, run in enumerate(made["runs"]):
        name, how = run["variant"], HOW[run["variant"]]
        again = {"model": "demo", "variant": f"{name}@{how}", "setting": f"{name}@{how}", "settings": {}}
        given["runs"].append(again | {"repeats": name, "how": how})
        for task, path in ((task, made[task][number]) for task in WRITE):
            column = read_records(path, MEASURES[task].columns)["bag" if task == "spider" else "correct"].tolist()
            for place in TURNED[name][task]:
                column[place] = 1 - column[place]
            given[task].append(WRITE[task](folder / f"made/again-{number}-{task}.csv", column))
    records, settings = as_inputs(given)
    outputs = {"csv": folder / "tables/noise.csv", "md": folder / "tables/noise.md"}
    outputs["csv"].parent.mkdir(parents=True, exist_ok=True)
    noise(records, outputs, settings | {"language": language})
    return made, outputs


def test_verdicts_that_turn_are_counted_with_an_exact_interval(tmp_path):
    _, outputs = table(tmp_path)
    frame = read_table(outputs["csv"]).set_index(["variant", "task"])
    for name, by_task in TURNED.items():
        for task, places in by_task.items():
            row = frame.loc[name, task]
            assert (row["how"], row["flips"], row["n"]) == (HOW[name], len(places), {"spider": 200, "mmlu": 150}[task])
            assert row["gained"] + row["lost"] == len(places)
            assert row["difference_pp"] == pytest.approx(100 * (row["gained"] - row["lost"]) / row["n"])
    # By definition: at either end, as many turned verdicts or more (or fewer) have a probability of 2.5%.
    none, three = frame.loc["base", "mmlu"], frame.loc["base", "spider"]
    assert (none["ci_low"], none["ci_high"]) == (0, pytest.approx(100 * (1 - 0.025 ** (1 / 150))))
    low, high = three["ci_low"] / 100, three["ci_high"] / 100
    assert three["flips_pct"] == pytest.approx(1.5)
    assert 1 - sum(comb(200, k) * low**k * (1 - low) ** (200 - k) for k in range(3)) == pytest.approx(0.025)
    assert sum(comb(200, k) * high**k * (1 - high) ** (200 - k) for k in range(4)) == pytest.approx(0.025)
    page = outputs["md"].read_text(encoding="utf-8")
    assert "| in other batches " in page
    assert "1.5 (0.3 to 4.3)" in page


@pytest.mark.parametrize("language", ["en", "pt"])
def test_the_report_sets_the_effects_beside_the_floor(tmp_path, language):
    made, outputs = table(tmp_path, language)
    arguments = results(tmp_path / "report", 0, made=made)
    arguments["settings"]["language"] = language
    before, _ = written(arguments)
    page, _ = written(arguments, outputs["csv"])
    heading = {"en": "### Noise floor", "pt": "### Piso de ruído"}[language]
    assert heading not in before
    told = re.search(rf"{heading}\n(.*?)(?=^<!--|^#)", page, re.DOTALL | re.MULTILINE)[1]
    # Nothing else changes: no other table, figure or verdict sees these runs.
    assert page.replace(f"{heading}\n{told}", "").split() == before.split()
    settings = read_table(next(path for path in arguments["inputs"]["tables"] if path.stem == "settings"))
    for task, (kind, interval) in {
        "Spider": ("spider", {"en": "1.5 (0.3 to 4.3)", "pt": "1,5 (0,3 a 4,3)"}),
        "MMLU": ("mmlu", {"en": "0.0 (0.0 to 2.4)", "pt": "0,0 (0,0 a 2,4)"}),
    }.items():
        line = next(line for line in told.splitlines() if task in line)
        assert interval[language] in line
        whole = (settings["task"] == kind) & (settings["category"] == "aggregate") & (settings["measure"] == "correct")
        effect = f"{abs(settings[whole]['difference_pp'].iloc[0]):.1f}"
        assert f" {effect if language == 'en' else effect.replace('.', ',')} pp" in line
