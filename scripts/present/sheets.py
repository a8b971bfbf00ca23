"""How the tables are read: from the columns of a CSV to sheets of headings, cells and notes, in Markdown and HTML."""

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from custom_metrics.judge import ERROR_CLASSES, SEMANTICS

BASE = "base"
ALL = "aggregate"
SEED = "training.seed"
HARDNESS = ("easy", "medium", "hard", "extra")
GOLD_NOT_EMPTY, GOLD_EMPTY = "gold_not_empty", "gold_empty"
SAME = "not distinguishable at this n"
# What the table of `recommend` says of a run on the half of the questions that chooses.
RECOMMENDED, BASE_ITSELF, GAINS_LESS = "recommended", "the base itself", "gains less"
NO_GAIN, LOSS_SHOWN, LOSS_OVER_CAP = "no gain shown", "loss shown", "loss may exceed the cap"
# What `tables` writes, in the order in which a reader wants it; `cost` is written by its own rule.
TABLES = (
    "regression", "exchange", "factors", "seeds", "execution_accuracy", "databases", "mmlu", "errors", "flips",
    "confusion",
)  # fmt: skip
# How each semantics is called in a heading, and what makes an answer right under it.
NAMES = {
    "set": "Set",
    "bag": "Bag",
    "ordered": "Ordered",
    "test_suite": "Test suite",
    "columns_any_order": "Columns in any order",
}
MEANINGS = {
    "set": "its query gives the gold query's rows, however often, in any order, columns in the same order",
    "bag": "its query gives the gold query's rows, equally often, in any order, columns in the same order",
    "ordered": "its query gives the gold query's rows, equally often, in the same order where the gold query has a "
    "top-level ORDER BY, columns in the same order",
    "test_suite": "the rules of Spider's official test-suite evaluator say so, on one database: columns in any order, "
    "rows in the same order if the gold query holds ORDER BY, DISTINCT ignored",
    "columns_any_order": "its query gives the gold query's rows, equally often, in any order, for some order of its "
    "columns",
}
MEASURES = {"execution_accuracy": "Spider execution accuracy", "mmlu": "MMLU"}
TASKS = {"train": "Training", "predict_spider": "Spider answers", "predict_mmlu": "MMLU answers"}
# Columns and headings that hold words; all others hold numbers.
TEXT = (
    "model", "variant", "questions", "semantics", "category", "db_id", "error_class", "measure", "part", "value",
    "base_class", "tuned_class", "verdict", "unit", "note", "axis", "low", "high", "setting", "task", "device",
    "data_sha256", "of", "half", "choice", "divided", "metric", "filter", "lm_eval",
)  # fmt: skip
WORDS = (
    "Model", "Variant", "Category", "Measure", "Verdict", "Setting", "Levels", "Rate (interval)", "Database",
    "Base class", "Choice",
)  # fmt: skip
# Nobody reads a table for each of more adapters than this.
MOST_CONFUSIONS = 40
# Where `questions` is a number, not a part of the questions.
COUNTED_QUESTIONS = ("errors", "confusion")


@dataclass
class Block:
    """One table as it is shown: text in every cell; `bars` draws intervals into the cells of a column, in HTML."""

    table: pd.DataFrame
    above: str = ""
    # By column: (low, middle, high) of each row, NaN where there is none.
    bars: dict[str, list[tuple[float, float, float]]] = field(default_factory=dict)


@dataclass
class Sheet:
    """A page, or a chapter of one: a title, tables, and the notes that say what they are about."""

    title: str
    blocks: list[Block]
    notes: list[str]


def read_table(path: str | Path) -> pd.DataFrame:
    """Read a CSV file of `tables` or `cost`: columns of `TEXT` and swept settings as text, the others as numbers."""
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    words = set(TEXT) - ({"questions"} if Path(path).stem in COUNTED_QUESTIONS else set())
    for column in frame:
        if column not in words and "." not in column:
            frame[column] = pd.to_numeric(frame[column])
    return frame


def is_point(frame: pd.DataFrame) -> pd.Series:
    """Return of each row of a table whether it is about a point that `evaluation` adds: no base, no trained adapter."""
    return frame["of"] != "" if "of" in frame else pd.Series(False, index=frame.index)


def trained(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a table that are about base models and trained adapters, as if there were no others."""
    what = ["of", "strength", "step", "shots"]
    return frame[~is_point(frame)].drop(columns=what, errors="ignore").reset_index(drop=True)


def is_prompted(frame: pd.DataFrame) -> pd.Series:
    """Return of each row whether it is about a base model with another number of examples in its prompts."""
    return frame["of"] == BASE if "of" in frame else pd.Series(False, index=frame.index)


class Notes:
    """What stands under every table: n, semantics, interval, and the hash of the questions."""

    def __init__(self, study: str, accuracy: pd.DataFrame, mmlu: pd.DataFrame):
        """Take it from the tables of execution accuracy and of MMLU."""
        first = accuracy.iloc[0]
        level = float(first["confidence_level"])
        self.study, self.semantics = study, str(first["semantics"])
        self.n_spider, self.n_mmlu = int(first["n"]), int(mmlu.iloc[0]["n"])
        self.percent, self.alpha = f"{100 * level:g}%", f"{1 - level:.4g}"
        self.questions = f"n = {self.n_spider} Spider questions, the same for all rows."
        self.right = f"{NAMES[self.semantics]} semantics: an answer is right if {MEANINGS[self.semantics]}."
        self.hash = f"Questions (id, database, hardness, text, gold): sha256 `{first['data_sha256']}`."
        self.spider = f"{self.questions} {self.right} {self.hash}"
        sizes = mmlu[mmlu["category"] != ALL].drop_duplicates("category")
        parts = ", ".join(f"{int(row.n)} {row.category}" for row in sizes.itertuples())
        self.mmlu = (
            f"n = {self.n_mmlu} MMLU questions, the same for all rows ({parts}). Questions (id, subject, category, "
            f"answer): sha256 `{mmlu.iloc[0]['data_sha256']}`."
        )
        self.wilson = f"Intervals: {self.percent}, Wilson."


def sheet(name: str, frame: pd.DataFrame, notes: Notes | None) -> Sheet:
    """Return how a table of `TABLES`, or `cost` or `harness`, which need no notes, is read."""
    return SHEETS[name](frame, notes)


def _regression(frame: pd.DataFrame, notes: Notes) -> Sheet:
    title = f"Adapters against their base model: {notes.study}"
    if frame.empty:
        return Sheet(title, [], [NO_ADAPTERS])
    whole, point, prompted = frame["category"] == ALL, is_point(frame), is_prompted(frame)
    explored = ""
    if point.any():
        explored = (
            f"{POINTS} They are exploratory: their p are adjusted apart from these, for "
            f"{int((whole & point & ~prompted).sum())} and {int((~whole & point).sum())} comparisons"
            + (f", and for the {int(prompted.sum())} of base@shots" if prompted.any() else "")
            + ", so that they change no verdict of an adapter. "
        )
    blocks = [
        Block(table, above, {"Difference pp (interval)": _bars(part, "difference_pp", "ci_low_pp", "ci_high_pp")})
        for part, above in (
            (frame[whole], ""),
            (frame[~whole], "MMLU by category:"),
        )
        if len(part)
        for table in [_compared(part)]
    ]
    return Sheet(
        title,
        blocks,
        [
            notes.spider,
            notes.mmlu,
            f"Difference: tuned minus base in percentage points (pp), with its {notes.percent} interval. Change: the "
            "same in percent of the base's right answers, n/a where the base is not shown to be above chance (0% for "
            "SQL, 25% for MMLU). Gained: base wrong, tuned right; lost: the reverse. p (McNemar): exact test, "
            "questions taken as independent.",
            "Questions on one database or of one subject resemble each other. Interval, p (clustered) and verdict take "
            "whole databases or subjects as drawn at random, whose number stands behind n: Student's t with the "
            "cluster-robust variance and degrees of freedom of Bell and McCaffrey (2002). The CSV file also has the "
            "limits of a paired bootstrap over the same clusters.",
            f"p (Holm): the clustered p, adjusted for the {int((whole & ~point).sum())} comparisons of execution "
            f"accuracy and aggregate MMLU, and for the {int((~whole & ~point).sum())} of single categories apart. "
            f"{explored}Verdict: by this p at "
            f"level {notes.alpha}. Detectable: the least true difference that a study of this n finds with 80% "
            "probability before adjustment (Bloom 1995).",
            *_few(frame, "p (Holm) and verdict follow McNemar's test, and Detectable is by Connor (1987)"),
        ],
    )


POINTS = (
    "A variant with @ is an adapter with what it adds to the weights multiplied by the number behind it, or as it was "
    "after so many optimizer steps; soup: the mean of what several adapters add; base@shots: the base model with so "
    "many solved examples in its text-to-SQL prompts, whose answers to MMLU are those that it has anyway."
)
NO_ADAPTERS = "This study has no adapters: there is nothing to compare with the base model."


def _compared(frame: pd.DataFrame) -> pd.DataFrame:
    table = _heads(frame)
    table["Measure"] = [
        MEASURES[row.measure] + ("" if row.category == ALL else f", {row.category}") for row in frame.itertuples()
    ]
    table["n (clusters)"] = _clusters(frame)
    table["Base % → tuned %"] = [
        f"{row.base_accuracy_pct:.1f} → {row.tuned_accuracy_pct:.1f}" for row in frame.itertuples()
    ]
    table["Difference pp (interval)"] = _signed_intervals(frame, "difference_pp", "ci_low_pp", "ci_high_pp")
    table["Verdict"] = _marked(frame)
    table["p (Holm)"] = frame["p_holm"].map(p_value)
    table["p (clustered)"] = frame["p_clustered"].map(p_value)
    table["p (McNemar)"] = frame["p_mcnemar"].map(p_value)
    table["Detectable pp"] = _shares(frame["minimum_detectable_pp"])
    table["Change %"] = [NOTHING if pd.isna(value) else signed(value) for value in frame["percent_change"]]
    table["Gained / lost"] = [f"{row.gained:.0f} / {row.lost:.0f}" for row in frame.itertuples()]
    return table


def _exchange(frame: pd.DataFrame, notes: Notes) -> Sheet:
    title = f"Exchange rate of forgetting for learning: {notes.study}"
    if frame.empty:
        return Sheet(title, [], [NO_ADAPTERS])
    table = _heads(frame)
    table["Execution accuracy gained pp (interval)"] = _signed_intervals(
        frame, "gain_pp", "gain_ci_low_pp", "gain_ci_high_pp"
    )
    table["MMLU lost pp (interval)"] = _signed_intervals(frame, "loss_pp", "loss_ci_low_pp", "loss_ci_high_pp")
    table["Rate (interval)"] = [
        f"n/a: {row.note}" if row.note else f"{row.exchange_rate:.2f} ({row.ci_low:.2f} to {row.ci_high:.2f})"
        for row in frame.itertuples()
    ]
    return Sheet(
        title,
        [Block(table)],
        [
            "Rate: percentage points of MMLU lost for one point of execution accuracy gained; below 0 where MMLU rose. "
            "No loss is shown where its interval reaches down to 0. It is given where the gain is shown (verdict "
            f"better in the comparison with the base). Intervals: {notes.percent}, of the differences as there, of the "
            "rate by Fieller (1954).",
            notes.spider,
            notes.mmlu,
        ],
    )


def _factors(frame: pd.DataFrame, notes: Notes) -> Sheet:
    title = f"Swept settings against each other: {notes.study}"
    if frame.empty:
        return Sheet(
            title, [], ["This study sweeps no setting, the seed aside: no two settings can be set side by side."]
        )
    table = pd.DataFrame({"Model": frame["model"], "Setting": frame["axis"].map(setting_name)})
    table["Levels"] = [f"{row.low} → {row.high}" for row in frame.itertuples()]
    table["Measure"] = frame["measure"].map(MEASURES)
    table["Pairs"] = frame["pairs"].map("{:.0f}".format)
    table["n (clusters)"] = _clusters(frame)
    table["First % → second %"] = [
        f"{row.low_accuracy_pct:.1f} → {row.high_accuracy_pct:.1f}" for row in frame.itertuples()
    ]
    table["Difference pp (interval)"] = _signed_intervals(frame, "difference_pp", "ci_low_pp", "ci_high_pp")
    table["Verdict"] = _marked(frame)
    table["p (Holm)"], table["p"] = frame["p_holm"].map(p_value), frame["p"].map(p_value)
    table["Detectable pp"] = _shares(frame["minimum_detectable_pp"])
    return Sheet(
        title,
        [Block(table, "", {"Difference pp (interval)": _bars(frame, "difference_pp", "ci_low_pp", "ci_high_pp")})],
        [
            "Two levels of one setting, averaged over the adapters that are alike in all others (and over seeds); "
            "pairs: how many of these each level has. All pairs of up to four levels; of more, each against the first. "
            "Difference: second level minus first. Intervals and p as in the comparison with the base; p (Holm): "
            f"adjusted for the {len(frame)} comparisons of this table. The chance of training is in the interval "
            "only as far as seeds were swept.",
            notes.spider,
            notes.mmlu,
            *_few(frame, "one adapter a level is tested by McNemar's exact test"),
        ],
    )


def _seeds(frame: pd.DataFrame, notes: Notes) -> Sheet:
    title = f"Seeds: {notes.study}"
    if frame.empty:
        return Sheet(
            title, [], ["This study trains no adapter with more than one seed: what a seed changes is not known."]
        )
    table = pd.DataFrame({"Model": frame["model"], "Setting": frame["setting"]})
    table["Measure"] = frame["measure"].map(MEASURES)
    table["Seeds"] = frame["seeds"].map("{:.0f}".format)
    table["n (clusters)"] = _clusters(frame)
    table["Mean %"] = _shares(frame["mean_accuracy_pct"])
    table["SD pp"] = _shares(frame["sd_pp"])
    table["Least to most %"] = [
        f"{row.min_accuracy_pct:.1f} to {row.max_accuracy_pct:.1f}" for row in frame.itertuples()
    ]
    table["Difference to base pp (interval)"] = _signed_intervals(
        frame, "mean_difference_pp", "ci_low_pp", "ci_high_pp"
    )
    table["Verdict"], table["p (Holm)"] = _marked(frame), frame["p_holm"].map(p_value)
    table["Seed SD pp"], table["Question SD pp"] = _shares(frame["seed_sd_pp"]), _shares(frame["question_sd_pp"])
    table["Seed's share of variance %"] = [
        NOTHING if pd.isna(value) else f"{value:.0f}" for value in frame["seed_share_pct"]
    ]
    bars = _bars(frame, "mean_difference_pp", "ci_low_pp", "ci_high_pp")
    return Sheet(
        title,
        [Block(table, "", {"Difference to base pp (interval)": bars})],
        [
            "Adapters that differ in their seed alone. SD: standard deviation of their accuracies, on the same "
            f"questions. The {notes.percent} interval of the mean difference is for other seeds and other questions. "
            "The variance of one run's difference is split: what the seed makes of it (crossed two-way random model; 0 "
            "where the estimate is negative), and what the choice of questions, by databases or subjects, makes of it. "
            f"p (Holm): adjusted for the {len(frame)} comparisons of this table.",
            notes.spider,
            notes.mmlu,
            *_few(frame, ""),
        ],
    )


def _execution_accuracy(frame: pd.DataFrame, notes: Notes) -> Sheet:
    whole = frame[frame["questions"] == ALL]
    headline = _heads(whole)
    headline["Right"] = _counts(whole["correct"], whole["n"])
    headline["Accuracy % (interval)"] = _intervals(whole)
    sides = []
    for raw in ("", "_raw"):
        side = _heads(whole)
        for name in SEMANTICS:
            side[f"{NAMES[name]} %"] = _shares(whole[f"{name}{raw}_pct"])
        sides.append(side)
    parts = _heads(whole)
    for name in (*HARDNESS, GOLD_NOT_EMPTY, GOLD_EMPTY):
        part = frame[frame["questions"] == name].set_axis(whole.index)
        if part["n"].any():
            parts[f"{name.replace('_', ' ').capitalize()} % (n = {int(part['n'].iloc[0])})"] = _shares(
                part["accuracy_pct"]
            )
    semantics = NAMES[notes.semantics].lower()
    return Sheet(
        f"Execution accuracy on Spider ({semantics} semantics): {notes.study}",
        [
            Block(headline, "", {"Accuracy % (interval)": _bars(whole, "accuracy_pct", "ci_low", "ci_high")}),
            Block(sides[0], "Under every semantics, for the SQL taken out of the answer:"),
            Block(sides[1], "Under every semantics, for the answer as it is, without taking the SQL out of it:"),
            Block(
                parts,
                f"Parts of the questions, under {semantics} semantics: by hardness, and by whether the gold query "
                "gives any rows (where it gives none, any query without rows is right):",
            ),
        ],
        [
            notes.spider,
            notes.wilson,
            "An answer is right, under\n\n" + "\n".join(f"- {NAMES[name]}: {MEANINGS[name]}." for name in SEMANTICS),
        ],
    )


def _databases(frame: pd.DataFrame, notes: Notes) -> Sheet:
    runs = frame[["model", "variant"]].drop_duplicates()
    databases = dict(iter(frame.groupby("db_id")))
    labels = [f"{name} (n = {part['n'].iloc[0]:.0f})" for name, part in databases.items()]
    if len(runs) > len(databases):
        table = _heads(runs)
        for label, part in zip(labels, databases.values(), strict=True):
            table[f"{label} %"] = _shares(part["accuracy_pct"])
    else:
        table = pd.DataFrame({"Database": labels})
        several = runs["model"].nunique() > 1
        for (model, variant), part in frame.groupby(["model", "variant"], sort=False):
            heading = f"{model} {variant} %" if several else f"{variant} %"
            table[heading] = _shares(part.set_index("db_id")["accuracy_pct"].loc[list(databases)])
    return Sheet(
        f"Execution accuracy by database ({NAMES[notes.semantics].lower()} semantics): {notes.study}",
        [Block(table)],
        [notes.spider, "Intervals and the change against the base stand in the CSV file."],
    )


def _mmlu(frame: pd.DataFrame, notes: Notes) -> Sheet:
    whole = frame["category"] == ALL
    # Where all subjects have as many questions the two averages are one.
    uneven = (frame["macro_accuracy_pct"] - frame["accuracy_pct"]).abs().max() > 1e-6
    averages = (
        f"Accuracy is the share of all questions (micro average, as the benchmark's authors report it); macro is the "
        f"mean over the {int(frame['subjects'].max())} subjects, each of the same weight. Its interval takes the "
        "questions of each subject as drawn at random (Zou, Huang & Zhang 2009), that of its difference to the base "
        "model what the comparison with the base takes."
    )
    blocks = []
    for part, above in ((frame[whole], ""), (frame[~whole], "By category:")):
        table = _heads(part)
        if above:
            table["Category"] = part["category"]
        table["Right"] = _counts(part["correct"], part["n"])
        table["Accuracy % (interval)"] = _intervals(part)
        if uneven:
            table["Macro % (interval)"] = _intervals(part, "macro_accuracy_pct", "macro_ci_low", "macro_ci_high")
            limits = ("macro_difference_ci_low_pp", "macro_difference_ci_high_pp")
            table["Macro, tuned minus base pp (interval)"] = _signed_intervals(part, "macro_difference_pp", *limits)
        table["Generated % (interval)"] = _intervals(
            part, "accuracy_generated_pct", "generated_ci_low", "generated_ci_high"
        )
        table["Invalid % (interval)"] = _intervals(part, "invalid_pct", "invalid_ci_low", "invalid_ci_high")
        blocks.append(Block(table, above, {"Accuracy % (interval)": _bars(part, "accuracy_pct", "ci_low", "ci_high")}))
    unasked = ""
    if is_prompted(frame).any():
        unasked = "Rows of base@shots repeat those of the base, which answered these prompts once. "
    return Sheet(
        f"MMLU: {notes.study}",
        blocks,
        [
            notes.mmlu,
            f"{unasked}{notes.wilson} Accuracy is that of the letter with the highest probability; chance is 25%. "
            '"Generated" reads a letter from generated text instead, where "invalid" texts, which give no plain '
            "letter, count as wrong.",
            *([averages] if uneven else []),
        ],
    )


def _errors(frame: pd.DataFrame, notes: Notes) -> Sheet:
    first = frame[frame["error_class"] == ERROR_CLASSES[0]]
    table = _heads(first)
    for name in ERROR_CLASSES:
        counts = frame.loc[frame["error_class"] == name, "n"]
        if counts.any():
            table[f"`{name}`"] = [f"{count:.0f}" for count in counts]
    return Sheet(
        f"What became of the SQL: {notes.study}",
        [Block(table)],
        [
            f"{notes.questions} {notes.hash}",
            "Number of questions in each class, for the SQL taken out of the answer; a class that "
            "never occurs is left out. `ok` is right as a bag of rows and, where the gold query sorts, in its order; "
            "`wrong_order_only` is right as a bag, `duplicate_only` as a set; the other classes that begin with "
            "`wrong`, and `extra_or_missing_columns`, ran and gave other rows or columns. The classes do not depend on "
            "the headline's semantics.",
        ],
    )


def _flips(frame: pd.DataFrame, notes: Notes) -> Sheet:
    title = f"Answers gained and lost: {notes.study}"
    if frame.empty:
        return Sheet(title, [], [NO_ADAPTERS])
    blocks = []
    shown = frame[frame["part"].isin((ALL, "hardness", "category"))]
    for whole, above in ((True, ""), (False, "By hardness and by category:")):
        part = shown[(shown["part"] == ALL) == whole]
        table = _heads(part)
        table["Measure"] = [
            MEASURES[row.measure] + ("" if row.part == ALL else f", {row.value}") for row in part.itertuples()
        ]
        table["n"] = part["n"].map("{:.0f}".format)
        for column in ("both_right", "gained", "lost", "both_wrong"):
            table[column.replace("_", " ").capitalize()] = part[column].map("{:.0f}".format)
        blocks.append(Block(table, above))
    return Sheet(
        title,
        blocks,
        [
            "Gained: the base model is wrong and the adapter right; lost: the reverse. By database and by subject: in "
            "the CSV file.",
            notes.spider,
            notes.mmlu,
        ],
    )


def _confusion(frame: pd.DataFrame, notes: Notes) -> Sheet:
    title = f"What became of each class of answers: {notes.study}"
    if frame.empty:
        return Sheet(title, [], [NO_ADAPTERS])
    adapters = len(frame[["model", "variant"]].drop_duplicates())
    if adapters > MOST_CONFUSIONS:
        text = f"The counts of {adapters} adapters stand in the CSV file."
        return Sheet(title, [], [f"{notes.questions} {notes.hash}", text])
    order = {name: number for number, name in enumerate(ERROR_CLASSES)}
    blocks = []
    for (model, variant), part in frame.groupby(["model", "variant"], sort=False):
        counts = part.pivot(index="base_class", columns="tuned_class", values="n").fillna(0)
        counts = counts.sort_index(key=lambda names: names.map(order)).sort_index(axis=1, key=lambda n: n.map(order))
        table = pd.DataFrame({"Base class": [f"`{name}`" for name in counts.index]})
        for name in counts:
            table[f"`{name}`"] = [f"{count:.0f}" for count in counts[name]]
        blocks.append(Block(table, f"{model} {variant}: rows are the base model's classes, columns the adapter's."))
    return Sheet(
        title,
        blocks,
        [
            f"{notes.questions} {notes.hash}",
            "Classes as in the table of what became of the SQL, under every semantics.",
        ],
    )


def _cost(frame: pd.DataFrame, notes: Notes | None = None) -> Sheet:
    first = frame[["model", "variant"]].drop_duplicates()
    runs = frame.set_index(["model", "variant", "task"])
    table = _heads(first)
    keys = list(first.itertuples(index=False, name=None))

    def cells(task: str, column: str, form: str) -> list[str]:
        values = runs[column].to_dict()
        return [
            NOTHING if pd.isna(value := values.get((*key, task))) else form.format(value).replace(",", " ")
            for key in keys
        ]

    for task, name in TASKS.items():
        if task not in set(frame["task"]):
            continue
        table[f"{name} s"] = cells(task, "seconds", "{:,.0f}")
        if task != "predict_mmlu":
            table[f"{name} tokens/s"] = cells(task, "tokens_per_second", "{:,.0f}")
        if task != "train":
            table[f"{name} questions/s"] = cells(task, "rows_per_second", "{:,.1f}")
        table[f"{name} GiB"] = [
            text if text == NOTHING else f"{float(text) / 1024:.1f}"
            for text in cells(task, "peak_memory_mib", "{:.1f}")
        ]
    for column, heading in (("gpu_hours", "GPU-hours"), ("cpu_hours", "CPU-hours")):
        sums = frame.groupby(["model", "variant"], sort=False)[column].agg(lambda part: part.sum(skipna=False))
        table[heading] = [NOTHING if pd.isna(value) else f"{value:.3f}" for value in sums.loc[keys]]
    resumed = int(frame["resumed"].sum())
    lines = [
        f"In all {_total(frame['gpu_hours'])} GPU-hours and {_total(frame['cpu_hours'])} CPU-hours, training and "
        "answers of all runs, from the start of each job to its end with the loading of the model. Seconds, rates and "
        "memory are of the work itself: tokens trained on or generated; the most memory, on the GPU where there is "
        f"one. Devices: {', '.join(dict.fromkeys(frame['device']))}.",
    ]
    if frame["job_seconds"].isna().any():
        lines.append("n/a: the file in benchmarks/ that holds a job's time is not there.")
    if resumed:
        lines.append(
            f"{resumed} jobs were cut off and went on where they were: their times are of the last part alone "
            "(`resumed` in the CSV file)."
        )
    return Sheet("Cost", [Block(table)], lines)


def _recommendation(frame: pd.DataFrame, notes: Notes) -> Sheet:
    first = frame.iloc[0]
    # The base itself has no interval to draw.
    drawn = frame.assign(difference_pp=frame["difference_pp"].where(frame["ci_low_pp"].notna()))
    report, validation = (
        drawn[frame["half"] == "report"],
        drawn[drawn["half"].eq("validation") & drawn["variant"].ne(BASE)],
    )
    table = _heads(report)
    table["Measure"] = report["measure"].map(MEASURES)
    table["n (clusters)"] = _clusters(report)
    table["Base % → tuned %"] = [
        f"{row.base_accuracy_pct:.1f} → {row.tuned_accuracy_pct:.1f}" for row in report.itertuples()
    ]
    table["Difference pp (interval)"] = _changes(report)
    table["Verdict"], table["p"] = _marked(report), report["p"].map(p_value)
    table["Gained / lost"] = [f"{row.gained:.0f} / {row.lost:.0f}" for row in report.itertuples()]
    gain, loss = (validation[validation["measure"] == measure] for measure in MEASURES)
    chosen = _heads(gain)
    for part, heading in ((gain, "Execution accuracy pp (interval)"), (loss, "MMLU pp (interval)")):
        chosen[heading] = _changes(part)
    chosen["Detectable loss pp"] = _shares(loss["minimum_detectable_pp"])
    chosen["Choice"] = gain["choice"]
    bars = {"ci": ("difference_pp", "ci_low_pp", "ci_high_pp")}
    cap = first["max_loss_pp"]
    admitted = (
        "MMLU is not shown to be lost (a loss that is not told from none; at a small n nearly every loss is such a "
        "one: "
        '"Detectable loss" is the least that this half finds with 80% probability)'
        if pd.isna(cap)
        else f"the {notes.percent} interval of the loss of MMLU does not reach beyond {cap:g} pp (where this half has "
        "too few questions to show that, the base is recommended)"
    )
    each = {"execution_accuracy": "database", "mmlu": "subject"}
    divided = ", ".join(
        f"{MEASURES[row.measure]} by "
        + (f"the questions of each {each[row.measure]}" if row.divided == "question" else f"whole {row.divided}s")
        for row in report.drop_duplicates("measure").itertuples()
    )
    return Sheet(
        f"Recommendation: {notes.study}",
        [
            Block(
                table,
                "On the report half, which had no part in the choice:",
                {"Difference pp (interval)": _bars(report, *bars["ci"])},
            ),
            Block(
                chosen,
                "What the validation half says of every candidate. Its figures chose: that of the recommended one is "
                "more likely too high than too low.",
                {
                    "Execution accuracy pp (interval)": _bars(gain, *bars["ci"]),
                    "MMLU pp (interval)": _bars(loss, *bars["ci"]),
                },
            ),
        ],
        [
            f"The questions are divided in two with seed {first['seed']:.0f}: {divided}. Candidates: all adapters of a "
            "model, their strengths and steps, and soups. Recommended is the one that gains most on the validation "
            f"half among those that are shown to gain execution accuracy there, and of which {admitted}; of equal "
            "gains, the least loss of MMLU. If there is none, the base.",
            f"Difference, interval, p, unit and verdict as in the comparison with the base, {notes.percent} and level "
            f"{notes.alpha}, p not adjusted: on the report half there is one candidate of each model. Of several "
            "models, none is chosen.",
            *_few(frame, "p and verdict follow McNemar's test, and Detectable is by Connor (1987)"),
            f"Both halves together: {notes.spider}",
            f"Both halves together: {notes.mmlu}",
        ],
    )


def _harness(frame: pd.DataFrame, notes: Notes | None = None) -> Sheet:
    table = _heads(frame)
    table["Measure"] = [
        f"{row.task}, {row.metric}" + ("" if row.filter == "none" else f" ({row.filter})") for row in frame.itertuples()
    ]
    table["n"] = frame["n"].map("{:.0f}".format)
    table["Value"] = frame["score"].map("{:.4g}".format)
    table["Standard error"] = [NOTHING if pd.isna(value) else f"{value:.2g}" for value in frame["stderr"]]
    percent = {name: 100 * frame[name] for name in ("difference", "ci_low", "ci_high")}
    table["Difference pp (interval)"] = _signed_intervals(frame.assign(**percent), *percent)
    table["Verdict"] = frame["verdict"].fillna("")
    table["p (Holm)"] = frame["p_holm"].map(p_value)
    shots = ", ".join(f"{row.task} {row.shots:.0f}" for row in frame.drop_duplicates("task").itertuples())
    return Sheet(
        "Tasks of lm-evaluation-harness",
        [Block(table)],
        [
            f"lm-evaluation-harness {frame['lm_eval'].iloc[0]} with its own prompts and no chat template; solved "
            f"examples: {shots}. Value: as the harness gives it. Difference: tuned minus base on the same questions, "
            f"with its {100 * frame['confidence_level'].iloc[0]:g}% interval; the questions are taken as drawn at "
            "random. p (Holm): adjusted for the comparisons of all adapters with all tasks and metrics; those of other "
            "points apart.",
        ],
    )


def _changes(frame: pd.DataFrame) -> list[str]:
    """Return differences with their intervals; n/a for the base itself."""
    texts = _signed_intervals(frame, "difference_pp", "ci_low_pp", "ci_high_pp")
    return [NOTHING if pd.isna(low) else text for low, text in zip(frame["ci_low_pp"], texts, strict=True)]


NOTHING = "n/a"


def _total(values: pd.Series) -> str:
    return NOTHING if values.isna().any() else f"{values.sum():.2f}"


def _heads(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the columns that say which run a row is about; a variant's name holds its swept settings."""
    return pd.DataFrame({"Model": frame["model"], "Variant": frame["variant"]})


def _clusters(frame: pd.DataFrame) -> list[str]:
    return [f"{row.n:.0f} ({row.clusters:.0f})" for row in frame.itertuples()]


def _marked(frame: pd.DataFrame) -> list[str]:
    """Return the verdicts, with a dagger where they hold for these databases or subjects alone."""
    return [f"{row.verdict}{' †' if row.unit == 'question' else ''}" for row in frame.itertuples()]


def _few(frame: pd.DataFrame, besides: str) -> list[str]:
    """Return what the dagger means, if there is one."""
    if "question" not in set(frame["unit"]):
        return []
    return [
        "† Questions of fewer than five databases or subjects: the questions are taken as drawn at random from these. "
        "Interval and verdict hold for these databases or subjects alone and say nothing of others"
        + (f"; {besides}." if besides else ".")
    ]


def _bars(frame: pd.DataFrame, middle: str, low: str, high: str) -> list[tuple[float, float, float]]:
    return list(zip(frame[low], frame[middle], frame[high], strict=True))


def _counts(correct: pd.Series, n: pd.Series) -> list[str]:
    """Return "12 / 40" for each row."""
    return [f"{k:.0f} / {total:.0f}" for k, total in zip(correct, n, strict=True)]


def _intervals(
    frame: pd.DataFrame, middle: str = "accuracy_pct", low: str = "ci_low", high: str = "ci_high"
) -> list[str]:
    """Return "30.0 (18.1 to 45.4)" for each row."""
    return [
        NOTHING if pd.isna(value) else f"{value:.1f} ({below:.1f} to {above:.1f})"
        for below, value, above in _bars(frame, middle, low, high)
    ]


def _signed_intervals(frame: pd.DataFrame, middle: str, low: str, high: str) -> list[str]:
    """Return "+3.0 (-1.8 to +7.8)" for each row."""
    return [
        NOTHING if pd.isna(value) else f"{signed(value)} ({signed(below)} to {signed(above)})"
        for below, value, above in _bars(frame, middle, low, high)
    ]


def _shares(values: pd.Series) -> list[str]:
    """Return "30.0" for each value, n/a for one that is missing."""
    return [NOTHING if pd.isna(value) else f"{value:.1f}" for value in values]


def signed(value: float) -> str:
    """Return a number with one digit and its sign; zero has none."""
    text = f"{value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def setting_name(axis: str) -> str:
    """Return the name of a setting as PEFT or TRL has it, without its section; those of replay keep theirs."""
    return axis.removeprefix("lora.").removeprefix("training.")


def p_value(p: float) -> str:
    """Return a p value as journals print it."""
    if pd.isna(p):
        return NOTHING
    return "< .001" if p < 0.001 else "1" if p >= 0.9995 else f"{p:.3f}".removeprefix("0")


def escape(text: object) -> str:
    """Return a name that cannot break a Markdown table."""
    return str(text).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def markdown(sheet: Sheet) -> str:
    """Return a sheet as a Markdown page: the first table, the notes, the other tables."""
    parts = [f"# {sheet.title}"]
    for number, block in enumerate(sheet.blocks):
        parts += [block.above] if block.above else []
        parts.append(markdown_table(block.table))
        if number == 0:
            parts += sheet.notes
    return "\n\n".join(parts if sheet.blocks else [*parts, *sheet.notes]) + "\n"


def markdown_table(table: pd.DataFrame) -> str:
    """Return a table as Markdown, words to the left and numbers to the right."""
    aligned = ["left" if column in WORDS else "right" for column in table]
    cells = table.map(escape).rename(columns=escape)
    return cells.to_markdown(index=False, disable_numparse=True, colalign=aligned)


SHEETS = {
    "recommendation": _recommendation,
    "regression": _regression,
    "exchange": _exchange,
    "factors": _factors,
    "seeds": _seeds,
    "execution_accuracy": _execution_accuracy,
    "databases": _databases,
    "mmlu": _mmlu,
    "errors": _errors,
    "flips": _flips,
    "confusion": _confusion,
    "cost": _cost,
    "harness": _harness,
}
