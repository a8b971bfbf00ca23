"""Recommend a setting of each model: the one that gains most among those shown to lose no more than the margin.

All candidates are compared in one family, whose intervals hold together. So they hold of the one that is chosen, too,
and no questions need be kept apart for it. Its measured gain is still that of a winner: more likely too high than too
low.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from analysis.compare import RIGHT, answers_of, head_columns, setting_heads
from analysis.data import BASE, Results, chosen_criterion
from analysis.settings import DETAILS, GAINED, LOST_MORE, NOT_LOST, SETTINGS, settings_tables

# What the table says of a candidate.
RECOMMENDED, GAINS_LESS = "recommended", "gains less"
NO_GAIN, LOSES_MORE, NOT_CERTIFIED = "no gain shown", "loses more than the margin", "loss not certified"
FIGURES = (
    "choice", "task", "seeds", "n", "clusters", "unit", "base_accuracy_pct", "tuned_accuracy_pct", "difference_pp",
    "ci_low_pp", "ci_high_pp", "p_holm", "verdict", "margin_verdict", "about", "family", "questions_to_certify",
    "seeds_to_certify",
)  # fmt: skip


def recommendation(results: Results) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Choose among the settings of each model: those trained, ready-made ones, interpolations, checkpoints and soups.

    A candidate gains if its verdict on the target says so, and keeps its knowledge if on every yardstick no more than
    the margin is lost. The largest gain is recommended; of equal ones the least loss (of several yardsticks their sum),
    then a setting before its points, then by name. Without such a candidate it is the base.

    Returns:
        A table of all candidates; and of each model what is recommended, as plain values.
    """
    heads, rows, decided = setting_heads(results), [], []
    for model in dict.fromkeys(head["model"] for head in results.heads):
        frame = candidates(results, model)
        by_setting = {name: of.set_index("task").to_dict("index") for name, of in frame.groupby("setting", sort=False)}
        reasons = {name: reason(figures, results) for name, figures in by_setting.items()}

        def order(name: str, by_setting=by_setting, model=model) -> tuple:
            gain, *losses = (by_setting[name][task]["difference_pp"] for task in results.measures)
            return -gain, -sum(losses), bool(heads[model, name].get("of")), name

        best = min((name for name, why in reasons.items() if why == GAINS_LESS), key=order, default=BASE)
        reasons[best] = RECOMMENDED
        rows += [
            heads[model, name] | {"choice": reasons[name], "task": task} | by_setting[name][task]
            for name in by_setting
            for task in results.measures
        ]
        decided.append(decision(results, model, best, by_setting.get(best, {})))
        decided[-1] |= {"candidates": len(by_setting), "admissible": sum(why == GAINS_LESS for why in reasons.values())}
        decided[-1]["admissible"] += best != BASE
    frame = pd.DataFrame(rows, columns=[*head_columns(results), *FIGURES])
    return results.label(frame).assign(margin_pp=results.margin_pp), decided


def candidates(results: Results, model: str) -> pd.DataFrame:
    """Compare all candidates of a model with its base, in one family: a row for each setting and task."""
    # What an adapter adds, times 0, is no adapter. Parts of the questions decide nothing.
    zero = {run["setting"] for run in results.runs if run.get("point", {}).get("strength") == 0}
    answers = [
        replace(one, parts={}, settings={name: runs for name, runs in one.settings.items() if name not in zero})
        for one in answers_of(results, "adapter", "point")
        if one.model == model and one.measure == RIGHT and not zero.issuperset(one.settings)
    ]
    if not answers:
        return pd.DataFrame(columns=["setting", *FIGURES])
    verdicts, details = settings_tables(answers, results.margin_pp, results.level)
    frame = verdicts.join(details[[name for name in DETAILS if name not in SETTINGS]])
    frame = frame.rename(columns={"seeds_to_decide": "seeds_to_certify"})
    base = {one.task: 100 * one.base.mean() for one in answers}
    before = frame["task"].map(base)
    # Within fixed databases or subjects the units are questions; else as many questions a unit as here.
    to_certify = frame["units_to_decide"] * frame["n"] / frame["clusters"].where(frame["unit"] == "cluster", frame["n"])
    return frame.assign(
        base_accuracy_pct=before,
        tuned_accuracy_pct=before + frame["difference_pp"],
        questions_to_certify=to_certify.where(frame["task"] != results.target),
        seeds_to_certify=frame["seeds_to_certify"].where(frame["task"] != results.target),
        unit=frame["unit"].where(frame["unit"] == "question", frame["task"].map(results.units)),
    )[["setting", *FIGURES[1:]]]


def reason(figures: Mapping[str, Mapping[str, Any]], results: Results) -> str:
    """Say why a candidate is no choice, or that another one may gain more."""
    losses = [figures[task]["margin_verdict"] for task in results.yardsticks]
    if figures[results.target]["verdict"] != GAINED:
        return NO_GAIN
    if LOST_MORE in losses:
        return LOSES_MORE
    return GAINS_LESS if all(one == NOT_LOST for one in losses) else NOT_CERTIFIED


def decision(results: Results, model: str, setting: str, figures: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Say what is recommended of a model, for `export_recommended`. Of several seeds the first one's adapter is taken.

    None is taken for what it scored: that would be chance.
    """
    members = [run for run in results.runs if run["model"] == model and run["setting"] == setting]
    chosen = members[0]
    return {
        "model": model,
        "setting": setting,
        "variant": chosen["variant"],
        "seeds": [run.get("seed") for run in members],
        "point": chosen.get("point", {}),
        "settings": chosen["settings"],
        "criterion": {
            "criterion": chosen_criterion(results.measures[results.target]),
            "margin_pp": results.margin_pp,
            "confidence_level": results.level,
        },
        # A list, as the keys of a JSON file have no order: the target first.
        "tasks": [
            {"task": task, "name": measure.name, "form": measure.form, "role": measure.role}
            for task, measure in results.measures.items()
        ],
        # JSON has no NaN.
        "figures": {
            task: {name: None if pd.isna(value) else value for name, value in own.items()}
            for task, own in figures.items()
        },
        "data_sha256": results.hashes,
    }
