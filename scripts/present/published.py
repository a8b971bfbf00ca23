"""The page that puts the figures that a report printed beside ours."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from present.format import MINUS, Say

NAMES = {"mmlu": "MMLU", "execution_accuracy": "execution accuracy"}
NOTE = (
    "Possible: whether the report's own numbers allow the printed figure; ? where they cannot tell. Ours: right "
    "answers in percent with the {level} interval (Wilson) of our number of questions, which need not be the report's; "
    "of its categories, our questions on the same subjects. Empty: nothing of ours to compare, or that run is not part "
    "of this study. Two intervals from one set of questions are not independent: a difference is tested in the table "
    "of changes against the base model."
)


def published_page(
    study: str, published: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], odd: Sequence[str], level: float
) -> str:
    """Write the comparison as a page of Markdown.

    Args:
        study: the study's name, for the heading.
        published: the block of the study: who reported, and what is only stated.
        rows: one for each printed figure and run of ours; without `ours` where we have none.
        odd: what else is odd about the figures, in sentences.
        level: of our intervals.
    """
    say = Say("en")
    table = pd.DataFrame([cells(row, say) for row in rows])
    parts = [
        f"# Published figures: {study}",
        f"Report: {published['report']}",
        table.to_markdown(index=False, disable_numparse=True),
        NOTE.format(level=say.level(level)),
    ]
    if odd:
        parts += ["What the figures themselves show:", "\n".join(f"* {sentence}" for sentence in odd)]
    if published["stated"]:
        stated = [f"* {one['what']}: {say.number(one['value'], one['decimals'])}" for one in published["stated"]]
        parts += ["Also stated, and not compared:", "\n".join(stated)]
    return "\n\n".join(parts) + "\n"


def cells(row: Mapping[str, Any], say: Say) -> dict[str, str]:
    """Write one row of the table, by heading."""
    change = row["kind"] == "change"
    measure, column = (NAMES.get(row[key], row[key].replace("_", " ")) for key in ("measure", "column"))
    ours = ""
    if "ours" in row:
        ours = say.signed(row["ours"]) if change else say.interval(row["ours"], row["ci_low"], row["ci_high"])
        ours += "" if change else f", {say.count(row['correct'])} of {say.count(row['n'])}"
    return {
        "Where": row["table"],
        "Variant": row["run"] or row["variant"],
        "Of": f"{measure}, {column}" + (", change" if change else ""),
        "Published %": (say.signed if change else say.number)(row["published"], row["decimals"]),
        "Possible": {True: "yes", False: "**no**", None: "?"}[row["possible"]],
        "Why": re.sub(r"(?<!\w)-(?=\d)", MINUS, row["why"]),
        "Ours % (interval)": ours,
        "Difference pp": say.signed(row["difference_pp"]) if "difference_pp" in row else "",
        "Ours holds it": {True: "yes", False: "no", None: ""}[row.get("published_in_ci")],
    }
