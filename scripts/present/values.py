"""What stands in the CSV files of the tables: the names of their values, and how a file is read."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

BASE = "base"
# The gold queries as if they were a run.
GOLD = "gold"
ALL = "aggregate"
SEED = "training.seed"
GOLD_NOT_EMPTY, GOLD_EMPTY = "gold_not_empty", "gold_empty"
SAME = "not distinguishable at this n"
# What the table of `recommend` says of a candidate.
RECOMMENDED, GAINS_LESS, NOT_CERTIFIED = "recommended", "gains less", "loss not certified"
# What the table of settings says: of an effect, of a loss against the margin, and what a row is about.
GAINED, LOST, UNDECIDED, NOT_LOST = "gained", "lost", "undecided", "no more than the margin lost"
THIS_RUN, RIGHT = "this training run", "correct"
# What became of an answer, in the order in which a reader wants it.
CLASSES = (
    "ok", "wrong_rows", "wrong_columns", "wrong_order_only", "extra_or_missing_columns", "duplicate_only",
    "syntax_error", "no_such_table", "no_such_column", "ambiguous_column", "other_sql_error", "timeout", "too_large",
    "forbidden", "no_sql", "missing",
)  # fmt: skip
# Columns that hold words; all others hold numbers.
TEXT = {
    "model", "variant", "questions", "criterion", "category", "db_id", "error_class", "part", "value",
    "base_class", "tuned_class", "verdict", "unit", "note", "axis", "low", "high", "setting", "task", "device",
    "data_sha256", "of", "choice", "metric", "filter", "lm_eval", "measure", "margin_verdict", "gain_margin_verdict",
    "about", "seed_variance", "how", "methods_disagree", "seeds_differ_more",
}  # fmt: skip
# Where `questions` is a number, not a part of the questions.
COUNTED_QUESTIONS = ("errors", "confusion")


def read_table(path: str | Path) -> "pd.DataFrame":
    """Read the CSV file of a table: columns of `TEXT` and swept settings as text, the others as numbers."""
    import pandas as pd

    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    words = TEXT - ({"questions"} if Path(path).stem in COUNTED_QUESTIONS else set())
    for column in frame:
        if column not in words and "." not in column:
            frame[column] = pd.to_numeric(frame[column])
    return frame


def is_point(frame: "pd.DataFrame") -> "pd.Series":
    """Tell of each row whether it is about a run that `evaluation` adds: no base, no trained adapter."""
    return frame["of"] != "" if "of" in frame else frame["model"].isna()


def is_prompted(frame: "pd.DataFrame") -> "pd.Series":
    """Tell of each row whether it is about a base model with another number of examples in its prompts."""
    return frame["of"] == BASE if "of" in frame else frame["model"].isna()


def trained(frame: "pd.DataFrame") -> "pd.DataFrame":
    """The rows of a table that are about base models and trained adapters, as if there were no others."""
    what = ["of", "strength", "step", "shots"]
    return frame[~is_point(frame)].drop(columns=what, errors="ignore").reset_index(drop=True)


def setting_name(axis: str) -> str:
    """The name of a setting as PEFT or TRL has it, without its section; those of replay keep theirs."""
    return axis.removeprefix("lora.").removeprefix("training.")
