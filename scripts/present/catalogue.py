"""Every table and figure: its name, when there is one, which rows and columns it shows, and its notes.

Headings, titles, captions and notes stand in `words.<language>.yaml` under the keys given here; how a cell is written
is a method of `format.Say`. The rules read this module when they are parsed, so it imports no pandas.

To add a table: a `Table` here, its words in each language, and the step that writes its CSV file. To add a figure: a
`Figure` here, its words, and the function that draws it.
"""

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from present.format import Say, missing
from present.values import ALL, BASE, CLASSES, MMLU, SPIDER, is_point, is_prompted, setting_name

if TYPE_CHECKING:
    from pandas import DataFrame

# Nobody reads the counts of each class for more adapters than this.
MOST_CONFUSIONS = 40


@dataclass(frozen=True)
class Column:
    """One column as it is shown.

    Args:
        key: its name here.
        format: the method of `Say` that writes a cell.
        of: the columns of the rows that the method takes; `key` itself if there are none.
        heading: `columns.<heading>` of the words; `key` if empty. `fill` is filled into it.
        bar: whether the page draws the interval into the cell; `of` is then value, low, high.
    """

    key: str
    format: str = "text"
    of: Sequence[str] = ()
    heading: str = ""
    fill: Mapping[str, str] = field(default_factory=dict)
    bar: bool = False


@dataclass(frozen=True)
class Block:
    """Rows under one line of headings: which columns, and which rows, made of the table's frame.

    Over it stands `tables.<name>.above.<above>` of the words, with `fill` filled in; nothing if empty.
    """

    columns: Sequence[Column]
    rows: Callable[["DataFrame"], "DataFrame"] = lambda frame: frame
    above: str = ""
    fill: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """One table: a CSV file, a Markdown page, and a chapter of the page of all tables.

    Args:
        key: its name; `tables.<key>` of the words.
        blocks: what is shown of it, or how that follows from the frame.
        notes: keys of its notes: `tables.<key>.notes`, or `notes` for those of several tables. One whose fact of the
            same name is empty or False is left out.
        facts: what the notes say of the frame, besides what `tables.read` gives to all.
        empty: the note of a table without rows.
        rule: which rule writes it.
        when: what a study must have for it; see `rules/common.smk`.
    """

    key: str
    blocks: Sequence[Block] | Callable[["DataFrame", Say], Sequence[Block]]
    notes: str
    facts: Callable[["DataFrame", Say], Mapping[str, Any]] = lambda frame, say: {}
    empty: str = ""
    rule: str = "tables"
    when: str = ""


@dataclass(frozen=True)
class Figure:
    """One figure: its name, `figure_list.<key>` of the words, and what a study must have for it."""

    key: str
    when: str = ""


SHARE = ("accuracy_pct", "ci_low", "ci_high")
CHANGE = ("difference_pp", "ci_low_pp", "ci_high_pp")
MEAN_CHANGE = ("mean_difference_pp", "ci_low_pp", "ci_high_pp")
MACRO_CHANGE = ("macro_difference_pp", "macro_difference_ci_low_pp", "macro_difference_ci_high_pp")
# Columns that are shown as they are, by their format.
PLAIN = {
    "text": "model variant setting category why",
    "count": "n pairs seeds both_right gained lost both_wrong",
    "p": "p p_holm p_clustered p_mcnemar",
    "hours": "gpu_hours cpu_hours",
    "measure": "measure",
    "choice": "choice",
    "score": "score",
    "error": "stderr",
    "number": "invalid_pct",
    "allowed": "possible",
}
COLUMNS = {
    column.key: column
    for column in (
        *(Column(name, form) for form, names in PLAIN.items() for name in names.split()),
        Column("measure_category", "measure", ("measure", "category"), "measure"),
        Column("measure_value", "measure", ("measure", "value"), "measure"),
        Column("task_metric", heading="measure"),
        Column("levels", "change", ("low", "high")),
        Column("n_clusters", "clusters", ("n", "clusters")),
        Column("right", "counts", ("correct", "n")),
        Column("gained_lost", "counts", ("gained", "lost")),
        Column("base_tuned", "percents", ("base_accuracy_pct", "tuned_accuracy_pct")),
        Column("first_second", "percents", ("low_accuracy_pct", "high_accuracy_pct")),
        Column("min_max", "span", ("min_accuracy_pct", "max_accuracy_pct")),
        Column("mean", "number", ("mean_accuracy_pct",)),
        Column("accuracy", "interval", SHARE, bar=True),
        Column("macro", "interval", ("macro_accuracy_pct", "macro_ci_low", "macro_ci_high")),
        Column("macro_difference", "interval_pp", MACRO_CHANGE),
        Column("generated", "interval", ("accuracy_generated_pct", "generated_ci_low", "generated_ci_high")),
        Column("invalid", "interval", ("invalid_pct", "invalid_ci_low", "invalid_ci_high")),
        Column("difference", "interval_pp", CHANGE, bar=True),
        Column("difference_to_base", "interval_pp", MEAN_CHANGE, bar=True),
        Column("gain", "interval_pp", ("gain_pp", "gain_ci_low_pp", "gain_ci_high_pp")),
        Column("loss", "interval_pp", ("loss_pp", "loss_ci_low_pp", "loss_ci_high_pp")),
        Column("gain_change", "interval_pp", CHANGE, bar=True),
        Column("loss_change", "interval_pp", tuple(f"{name}_mmlu" for name in CHANGE), bar=True),
        Column("rate", "rate", ("exchange_rate", "ci_low", "ci_high", "note")),
        Column("verdict", "verdict", ("verdict", "unit")),
        Column("verdict_alone", "verdict", ("verdict",), "verdict"),
        Column("detectable", "number", ("minimum_detectable_pp",)),
        Column("detectable_loss", "number", ("minimum_detectable_pp_mmlu",)),
        Column("change", "signed", ("percent_change",)),
        *(Column(name, "number", (f"{name}_pp",)) for name in ("sd", "seed_sd", "question_sd")),
        Column("seed_share", "count", ("seed_share_pct",)),
        # Of the tables in the report, whose rows have the `name` of their run.
        Column("run", "code", ("name",), "variant"),
        Column("factor", "code", ("name",), "setting"),
        Column("own_other", "percents", ("base_accuracy_pct", "tuned_accuracy_pct")),
        Column("macro_pct", "number", ("macro_accuracy_pct",)),
        Column("generated_pct", "number", ("accuracy_generated_pct",)),
        # Of the figures that a report printed.
        Column("where", of=("table",)),
        Column("shown", heading="variant"),
        Column("of", of=("what",)),
        Column("published", "printed", ("published", "kind", "decimals")),
        Column("ours", "compared", ("ours", "ci_low", "ci_high", "kind")),
        Column("apart", "signed", ("difference_pp",)),
        Column("held", "held", ("published_in_ci",)),
    )
}


def columns(names: str) -> tuple[Column, ...]:
    """The columns of these names."""
    return tuple(COLUMNS[name] for name in names.split())


RUN = columns("model variant")


def part(column: str, *values: str, out: bool = False) -> Callable[["DataFrame"], "DataFrame"]:
    """Rows whose column has one of these values; with `out`, all others."""
    return lambda frame: frame[frame[column].isin(values) != out]


NOT_ALL = part("category", ALL, out=True)


def crossed(
    frame: "DataFrame", heads: Sequence[Column], across: str, values: Sequence[str], shown: Mapping[str, Column]
) -> Block:
    """A row for each value of `heads`, a column for each name of `across`; a pair without a row was counted 0 times.

    Args:
        frame: one row for each pair.
        heads: the columns to the left.
        across: the column of the frame whose values become columns.
        values: the columns of the frame that the format of a cell takes.
        shown: those of the new columns that are shown, by the value of `across`.
    """
    wide = frame.pivot_table(list(values), [head.key for head in heads], across, "first", fill_value=0, sort=False)
    wide.columns = [f"{value} at {name}" for value, name in wide.columns]
    wide = wide.reset_index()
    cells = [replace(one, of=tuple(f"{value} at {name}" for value in values)) for name, one in shown.items()]
    return Block([*heads, *cells], lambda _: wide)


def share(name: str, n: str = "", form: str = "number") -> Column:
    """A column of percentages of something that is named, and how many questions it has."""
    return Column("share", form, (), "named_n_pct" if n else "named_pct", {"name": name, "n": n})


def shares(
    frame: "DataFrame", column: str, names: Mapping[str, str], say: Say, form: str = "number"
) -> dict[str, Column]:
    """A column of percentages for each part of the questions that has any; `names`: what the parts are called."""
    sizes = frame[frame["n"] > 0].drop_duplicates(column).set_index(column)["n"]
    return {part: share(name, say.count(sizes[part]), form) for part, name in names.items() if part in sizes}


def class_columns(names: Container[str]) -> dict[str, Column]:
    """A column of counts for each of these classes of answers, in their order."""
    return {name: Column("class", "count", (), "named", {"name": f"`{name}`"}) for name in CLASSES if name in names}


def criterion_columns(say: Say, raw: str = "") -> list[Column]:
    """A column of percentages under each criterion; with `raw` "_raw", of the whole answers, nothing extracted."""
    return [replace(share(one["name"]), of=(f"{key}{raw}_pct",)) for key, one in say.words["criteria"].items()]


# -- what single tables show, and what their notes say -------------------------------------------------------------


def drawn(frame: "DataFrame") -> "DataFrame":
    """The rows, where the base itself has no difference from the base."""
    return frame.assign(difference_pp=frame["difference_pp"].where(frame["ci_low_pp"].notna()))


def candidates(frame: "DataFrame") -> "DataFrame":
    """The validation half: a row for each candidate, with both measures."""
    found = drawn(frame[frame["half"].eq("validation") & frame["variant"].ne(BASE)])
    gain, loss = (found[found["measure"] == measure].set_index(["model", "variant"]) for measure in (SPIDER, MMLU))
    loss = loss[[*CHANGE, "minimum_detectable_pp"]].add_suffix("_mmlu")
    return gain.join(loss).reset_index()


def recommendation_facts(frame: "DataFrame", say: Say) -> dict[str, Any]:
    """How the questions were divided, and which loss was admitted."""
    first, words = frame.iloc[0], "tables.recommendation"
    halves = frame[frame["half"] == "report"].drop_duplicates("measure")
    divided = [
        say.word(f"{words}.divided.{measure}_{by}", measure=say.measure(measure))
        for measure, by in zip(halves["measure"], halves["divided"], strict=True)
    ]
    cap, limit = first["max_loss_pp"], {"percent": say.level(first["confidence_level"])}
    admitted = say.word(f"{words}.no_loss") if missing(cap) else say.word(f"{words}.cap", cap=say.score(cap), **limit)
    return {"seed": str(int(first["seed"])), "divided": ", ".join(divided), "admitted": admitted}


def regression_facts(frame: "DataFrame", say: Say) -> dict[str, Any]:
    """How many comparisons each family has."""
    whole, point, prompted = frame["category"] == ALL, is_point(frame), is_prompted(frame)
    families = {
        "headline": whole & ~point,
        "parts": ~whole & ~point,
        "headline_explored": whole & point & ~prompted,
        "parts_explored": ~whole & point,
    }
    said = say.word("tables.regression.prompted", n=say.count(prompted.sum())) if prompted.any() else ""
    counts = {name: int(rows.sum()) for name, rows in families.items()}
    return {**counts, "prompted": said, "explored": bool(point.any())}


def execution_accuracy(frame: "DataFrame", say: Say) -> Sequence[Block]:
    """All questions under the headline's criterion and under each, then the parts of the questions."""
    whole, parts = part("questions", ALL), shares(frame, "questions", say.words["parts"], say)
    return [
        Block([*RUN, *columns("right accuracy")], whole),
        Block([*RUN, *criterion_columns(say)], whole, "extracted"),
        Block([*RUN, *criterion_columns(say, "_raw")], whole, "raw"),
        replace(crossed(frame, RUN, "questions", SHARE[:1], parts), above="parts"),
    ]


def databases(frame: "DataFrame", say: Say) -> Sequence[Block]:
    """Runs down and databases across, or the other way, whichever makes the longer table."""
    frame = frame.sort_values("db_id", kind="stable")
    sizes = {row.db_id: say.count(row.n) for row in frame.drop_duplicates("db_id").itertuples()}
    runs = frame[["model", "variant"]].drop_duplicates()
    if len(runs) > len(sizes):
        shown = {name: share(name, n) for name, n in sizes.items()}
        return [crossed(frame, RUN, "db_id", SHARE[:1], shown)]
    several = runs["model"].nunique() > 1
    names = frame["model"] + " " + frame["variant"] if several else frame["variant"]
    labels = {name: say.word("columns.named_n", name=name, n=n) for name, n in sizes.items()}
    rows = frame.assign(run=names, database=frame["db_id"].map(labels))
    return [crossed(rows, [Column("database")], "run", SHARE[:1], {name: share(name) for name in names.unique()})]


def uneven(frame: "DataFrame") -> bool:
    """Tell whether the two averages differ; where all subjects have as many questions they are one."""
    return bool((frame["macro_accuracy_pct"] - frame["accuracy_pct"]).abs().max() > 1e-6)


def mmlu(frame: "DataFrame", say: Say) -> Sequence[Block]:
    """All questions, and each category; the macro average where it is another."""
    shown = columns(f"right accuracy {'macro macro_difference' if uneven(frame) else ''} generated invalid")
    category = Block([*RUN, COLUMNS["category"], *shown], NOT_ALL, "categories")
    return [Block([*RUN, *shown], part("category", ALL)), category]


def mmlu_facts(frame: "DataFrame", say: Say) -> dict[str, Any]:
    """Whether a base was not asked anew, and over how many subjects is averaged."""
    asked = {"unasked": bool(is_prompted(frame).any())}
    return asked | {"averages": uneven(frame), "subjects": int(frame["subjects"].max())}


def errors(frame: "DataFrame", say: Say) -> Sequence[Block]:
    """A column for each class that occurs."""
    occur = class_columns(set(frame.loc[frame["n"] > 0, "error_class"]))
    return [crossed(frame, RUN, "error_class", ["n"], occur)]


def confusion(frame: "DataFrame", say: Say) -> Sequence[Block]:
    """A block for each adapter; none of too many."""
    runs, heads = frame.groupby(["model", "variant"], sort=False), [Column("base_class", "code")]
    blocks = []
    for (model, variant), rows in runs if len(runs) <= MOST_CONFUSIONS else ():
        block = crossed(rows, heads, "tuned_class", ["n"], class_columns(set(rows["tuned_class"])))
        blocks.append(replace(block, above="run", fill={"model": model, "variant": variant}))
    return blocks


def confusion_facts(frame: "DataFrame", say: Say) -> dict[str, Any]:
    """How many adapters there are."""
    adapters = len(frame[["model", "variant"]].drop_duplicates())
    many = adapters > MOST_CONFUSIONS
    return {"adapters": adapters, "many": many, "classes": not many}


def scored(frame: "DataFrame") -> "DataFrame":
    """The rows with the name of each measure, and differences in percentage points."""
    filters = frame["filter"].where(frame["filter"] == "none", " (" + frame["filter"] + ")").replace("none", "")
    percent = {f"{name}_pp": 100 * frame[name] for name in ("difference", "ci_low", "ci_high")}
    return frame.assign(task_metric=frame["task"] + ", " + frame["metric"] + filters, **percent)


def harness_facts(frame: "DataFrame", say: Say) -> dict[str, str]:
    """The harness's version, and the examples in the prompts of each task."""
    first, tasks = frame.iloc[0], frame.drop_duplicates("task").itertuples()
    shots = ", ".join(f"{row.task} {say.count(row.shots)}" for row in tasks)
    return {"version": str(first["lm_eval"]), "shots": shots, "level": say.level(first["confidence_level"])}


# Of each job. Of answers to MMLU no tokens are counted, and of training no questions.
COSTS = (
    Column("seconds", "count", ("seconds",)),
    Column("token_rate", "count", ("tokens_per_second",)),
    Column("question_rate", "number", ("rows_per_second",)),
    Column("memory", "gib", ("peak_memory_mib",)),
)
UNCOUNTED = {("train", "question_rate"), ("predict_mmlu", "token_rate")}


def cost(frame: "DataFrame", say: Say) -> Sequence[Block]:
    """A row for each run, with what each of its jobs took."""
    runs = frame.set_index(["model", "variant"])
    wide, shown = runs[[]][~runs.index.duplicated()], []
    for job, word in say.words["jobs"].items():
        found = runs[runs["task"] == job].add_prefix(f"{job} ")
        for one in COSTS if len(found) else ():
            source = f"{job} {one.of[0]}"
            wide = wide.join(found[source])
            shown += [replace(one, of=(source,), fill={"job": word})] if (job, one.key) not in UNCOUNTED else []
    hours = runs[["gpu_hours", "cpu_hours"]].groupby(level=[0, 1], sort=False).agg(lambda one: one.sum(skipna=False))
    return [Block([*RUN, *shown, *columns("gpu_hours cpu_hours")], lambda _: wide.join(hours).reset_index())]


def cost_facts(frame: "DataFrame", say: Say) -> dict[str, Any]:
    """All hours, which are not known if one is not; where the work was done; how many jobs were cut off."""
    hours = {name: say.number(frame[name].sum(skipna=False), 2) for name in ("gpu_hours", "cpu_hours")}
    unknown, devices = bool(frame["job_seconds"].isna().any()), ", ".join(dict.fromkeys(frame["device"]))
    return hours | {"devices": devices, "unknown": unknown, "resumed": int(frame["resumed"].sum())}


# -- all of them, in the order in which a reader wants them --------------------------------------------------------

COMPARED = columns(
    "model variant measure_category n_clusters base_tuned difference verdict p_holm p_clustered p_mcnemar detectable "
    "change gained_lost"
)
FLIPPED = columns("model variant measure_value n both_right gained lost both_wrong")
REPORTED = columns("model variant measure n_clusters base_tuned difference verdict p gained_lost")
CANDIDATES = columns("model variant gain_change loss_change detectable_loss choice")
FACTORS = columns("model setting levels measure pairs n_clusters first_second difference verdict p_holm p detectable")
SEEDS = columns(
    "model setting measure seeds n_clusters mean sd min_max difference_to_base verdict p_holm seed_sd question_sd "
    "seed_share"
)
HARNESS = columns("model variant task_metric n score stderr difference verdict_alone p_holm")
PUBLISHED = columns("where shown of published possible why ours right apart held")
TABLES = (
    Table(
        "recommendation",
        (
            Block(REPORTED, lambda frame: drawn(frame[frame["half"] == "report"]), "report"),
            Block(CANDIDATES, candidates, "validation"),
        ),
        "how statistics few both_halves spider mmlu",
        recommendation_facts,
        rule="recommend",
        when="recommend",
    ),
    Table(
        "regression",
        (Block(COMPARED, part("category", ALL)), Block(COMPARED, NOT_ALL, "categories")),
        "spider mmlu difference clusters adjusted explored few",
        regression_facts,
        "no_adapters",
    ),
    Table("exchange", (Block(columns("model variant gain loss rate")),), "rate spider mmlu", empty="no_adapters"),
    Table(
        "factors",
        (Block(FACTORS, lambda frame: frame.assign(setting=frame["axis"].map(setting_name))),),
        "pairs spider mmlu few",
        empty="empty",
    ),
    Table("seeds", (Block(SEEDS),), "seeds spider mmlu few", empty="empty"),
    Table("execution_accuracy", execution_accuracy, "spider wilson criteria"),
    Table("databases", databases, "spider csv"),
    Table("mmlu", mmlu, "mmlu unasked letters averages", mmlu_facts),
    Table("errors", errors, "questions classes"),
    Table(
        "flips",
        (Block(FLIPPED, part("part", ALL)), Block(FLIPPED, part("part", "hardness", "category"), "parts")),
        "gained spider mmlu",
        empty="no_adapters",
    ),
    Table("confusion", confusion, "questions classes many", confusion_facts, "no_adapters"),
    Table("harness", (Block(HARNESS, scored),), "how", harness_facts, rule="harness_table", when="harness"),
    Table("cost", cost, "hours unknown resumed", cost_facts, rule="cost"),
    Table(
        "published",
        (Block(PUBLISHED, above="report"),),
        "how findings stated",
        rule="compare_published",
        when="published",
    ),
)

FIGURES = (
    *map(Figure, ("tradeoff", "differences", "hardness", "databases", "error_flow", "loss")),
    Figure("seeds", when="seeds"),
    Figure("strength", when="strength"),
    Figure("trajectory", when="step"),
    Figure("shots", when="shots"),
)


def names(entries: Sequence[Table | Figure], has: Mapping[str, Any], rule: str = "") -> list[str]:
    """The names of the tables or figures that a study has, of one rule or of all.

    Args:
        entries: `TABLES` or `FIGURES`.
        has: of each condition whether the study meets it.
        rule: the rule that writes them; all if empty.
    """
    return [one.key for one in entries if (not one.when or has[one.when]) and (not rule or one.rule == rule)]
