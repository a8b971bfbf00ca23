"""Every table and figure: its name, when there is one, which rows and columns it shows, and its notes.

Headings, titles, captions and notes stand in `words.<language>.yaml` under the keys given here; how a cell is written
is a method of `format.Say`. The rules read this module when they are parsed, so it imports no pandas.

To add a table: a `Table` here, its words in each language, and the step that writes its CSV file. To add a figure: a
`Figure` here, its words, and the function that draws it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from present.format import Say
from present.values import (
    ALL,
    BASE,
    CLASSES,
    MMLU,
    SPIDER,
    is_point,
    is_prompted,
    setting_name,
)

if TYPE_CHECKING:
    import pandas as pd

# Nobody reads the counts of each class for more adapters than this.
MOST_CONFUSIONS = 40


@dataclass(frozen=True)
class Column:
    """One column as it is shown.

    Args:
        key: its heading, `columns.<key>` of the words.
        format: the method of `Say` that writes a cell.
        of: the columns of the rows that the method takes; `key` itself if there are none.
        bar: whether the page draws the interval into the cell; `of` is then value, low, high.
        fill: what is filled into the heading.
    """

    key: str
    format: str = "text"
    of: tuple[str, ...] = ()
    bar: bool = False
    fill: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Block:
    """Rows under one heading line.

    Args:
        columns: what is shown.
        rows: which rows, made of the table's frame.
        above: the line over it, `tables.<name>.above.<above>` of the words; none if empty.
        fill: what is filled into that line.
    """

    columns: Sequence[Column]
    rows: Callable[["pd.DataFrame"], "pd.DataFrame"] = lambda frame: frame
    above: str = ""
    fill: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """One table: a CSV file, a Markdown page, and a chapter of the page of all tables.

    Args:
        key: its name; `tables.<key>` of the words.
        blocks: what is shown of it, or how that follows from the frame.
        notes: keys of its notes: `tables.<key>.notes`, or `notes` for those of several tables. One whose fact of the
            same name is False is left out.
        facts: what the notes say, from the frame.
        empty: the note of a table without rows.
        rule: which rule writes it.
        when: what a study must have for it; see `rules/common.smk`.
    """

    key: str
    blocks: Sequence[Block] | Callable[["pd.DataFrame", Say], Sequence[Block]]
    notes: tuple[str, ...]
    facts: Callable[["pd.DataFrame", Say], Mapping[str, Any]] = lambda frame, say: {}
    empty: str = ""
    rule: str = "tables"
    when: str = ""


@dataclass(frozen=True)
class Figure:
    """One figure: its name, `figure_list.<key>` of the words, and what a study must have for it."""

    key: str
    when: str = ""


HEADS = (Column("model"), Column("variant"))
MEASURE = Column("measure", "measure")
N = Column("n", "count")
CLUSTERS = Column("n_clusters", "clusters", ("n", "clusters"))
VERDICT = Column("verdict", "verdict", ("verdict", "unit"))
P_HOLM = Column("p_holm", "p")
DETECTABLE = Column("detectable", "number", ("minimum_detectable_pp",))
BASE_TUNED = Column("base_tuned", "percents", ("base_accuracy_pct", "tuned_accuracy_pct"))
GAINED_LOST = Column("gained_lost", "counts", ("gained", "lost"))
CHANGE = ("difference_pp", "ci_low_pp", "ci_high_pp")
DIFFERENCE = Column("difference", "interval_pp", CHANGE, bar=True)
RIGHT = Column("right", "counts", ("correct", "n"))
ACCURACY = Column("accuracy", "interval", ("accuracy_pct", "ci_low", "ci_high"), bar=True)


def part(column: str, *values: str, out: bool = False) -> Callable[["pd.DataFrame"], "pd.DataFrame"]:
    """Rows whose column has one of these values; with `out`, all others."""
    return lambda frame: frame[frame[column].isin(values) != out]


def crossed(
    frame: "pd.DataFrame", heads: Sequence[Column], across: str, value: str, columns: Mapping[str, Column]
) -> Block:
    """A row for each value of `heads`, a column for each name of `across`; a pair without a row was counted 0 times."""
    index = [head.key for head in heads]
    pairs = zip(*(frame[name] for name in (*index, across)), strict=True)
    found = dict(zip(pairs, frame[value], strict=True))
    rows = frame[index].drop_duplicates()
    keys = list(rows.itertuples(index=False, name=None))
    wide = rows.assign(**{f"at {name}": [found.get((*key, name), 0) for key in keys] for name in columns})
    return Block([*heads, *(replace(one, of=(f"at {name}",)) for name, one in columns.items())], lambda _: wide)


def comparisons(frame: "pd.DataFrame", say: Say) -> dict[str, int]:
    """How many comparisons p was adjusted for, where all rows are one family."""
    return {"comparisons": len(frame)}


# -- recommendation ------------------------------------------------------------------------------------------------


def drawn(frame: "pd.DataFrame") -> "pd.DataFrame":
    """The rows, where the base itself has no difference."""
    return frame.assign(difference_pp=frame["difference_pp"].where(frame["ci_low_pp"].notna()))


def candidates(frame: "pd.DataFrame") -> "pd.DataFrame":
    """The validation half, a row for each candidate, with both measures."""
    found = frame[frame["half"].eq("validation") & frame["variant"].ne(BASE)]
    columns = [*CHANGE, "minimum_detectable_pp"]
    keys = ["model", "variant"]
    both = found[found["measure"] == SPIDER][[*keys, *CHANGE, "choice"]].merge(
        found[found["measure"] == MMLU][[*keys, *columns]], on=keys, suffixes=("", "_mmlu"), how="left"
    )
    return drawn(both)


def recommended_facts(frame: "pd.DataFrame", say: Say) -> dict[str, str]:
    """How the questions were divided, and which loss was admitted."""
    first, words = frame.iloc[0], "tables.recommendation"
    divided = [
        say.word(
            f"{words}.divided",
            measure=say.measure(row.measure),
            parts=say.word(
                f"{words}.each_{'database' if row.measure == SPIDER else 'subject'}"
                if row.divided == "question"
                else f"{words}.whole_{row.divided}"
            ),
        )
        for row in frame[frame["half"] == "report"].drop_duplicates("measure").itertuples()
    ]
    cap, percent = first["max_loss_pp"], say.level(first["confidence_level"])
    admitted = (
        say.word(f"{words}.cap", percent=percent, cap=say.score(cap)) if cap == cap else say.word(f"{words}.no_loss")
    )
    return {"seed": str(int(first["seed"])), "divided": ", ".join(divided), "admitted": admitted}


# -- against the base ----------------------------------------------------------------------------------------------

COMPARED = (
    *HEADS,
    Column("measure", "measure", ("measure", "category")),
    CLUSTERS,
    BASE_TUNED,
    DIFFERENCE,
    VERDICT,
    P_HOLM,
    Column("p_clustered", "p"),
    Column("p_mcnemar", "p"),
    DETECTABLE,
    Column("change", "signed", ("percent_change",)),
    GAINED_LOST,
)


def regression_facts(frame: "pd.DataFrame", say: Say) -> dict[str, Any]:
    """How many comparisons each family has."""
    whole, point, prompted = frame["category"] == ALL, is_point(frame), is_prompted(frame)
    asked = int(prompted.sum())
    return {
        "headline": int((whole & ~point).sum()),
        "parts": int((~whole & ~point).sum()),
        "headline_explored": int((whole & point & ~prompted).sum()),
        "parts_explored": int((~whole & point).sum()),
        "prompted": say.word("tables.regression.prompted", n=say.count(asked)) if asked else "",
        "explored": bool(point.any()),
    }


# -- execution accuracy --------------------------------------------------------------------------------------------


def execution_accuracy(frame: "pd.DataFrame", say: Say) -> Sequence[Block]:
    """All questions under the headline's criterion, under each, and the parts of the questions."""
    whole = part("questions", ALL)
    sides = {
        above: [
            Column("named_pct", "number", (f"{key}{raw}_pct",), fill={"name": one["name"]})
            for key, one in say.words["criteria"].items()
        ]
        for above, raw in (("extracted", ""), ("raw", "_raw"))
    }
    sizes = frame[frame["n"] > 0].drop_duplicates("questions").set_index("questions")["n"]
    parts = {
        name: Column("named_n_pct", "number", fill={"name": word, "n": say.count(sizes[name])})
        for name, word in say.words["parts"].items()
        if name in sizes
    }
    return [
        Block([*HEADS, RIGHT, ACCURACY], whole),
        *(Block([*HEADS, *columns], whole, above) for above, columns in sides.items()),
        replace(crossed(frame, HEADS, "questions", "accuracy_pct", parts), above="parts"),
    ]


def criteria_facts(frame: "pd.DataFrame", say: Say) -> dict[str, str]:
    """What makes an answer right, under each criterion."""
    found = say.words["criteria"].values()
    return {"criteria": "\n".join(f"- {one['name']}: {one['meaning']}." for one in found)}


def databases(frame: "pd.DataFrame", say: Say) -> Sequence[Block]:
    """Runs down and databases across, or the other way, whichever makes the longer table."""
    sizes = frame.drop_duplicates("db_id").set_index("db_id")["n"].sort_index()
    fill = {name: {"name": name, "n": say.count(n)} for name, n in sizes.items()}
    runs = frame[["model", "variant"]].drop_duplicates()
    if len(runs) > len(sizes):
        columns = {name: Column("named_n_pct", "number", fill=fill[name]) for name in fill}
        return [crossed(frame, HEADS, "db_id", "accuracy_pct", columns)]
    several = runs["model"].nunique() > 1
    names = frame["model"] + " " + frame["variant"] if several else frame["variant"]
    labels = frame["db_id"].map({name: say.word("columns.named_n", **one) for name, one in fill.items()})
    columns = {name: Column("named_pct", "number", fill={"name": name}) for name in names.unique()}
    rows = frame.assign(run=names, database=labels).sort_values("db_id", kind="stable")
    return [crossed(rows, [Column("database")], "run", "accuracy_pct", columns)]


# -- MMLU ----------------------------------------------------------------------------------------------------------


def uneven(frame: "pd.DataFrame") -> bool:
    """Tell whether the two averages differ; where all subjects have as many questions they are one."""
    return bool((frame["macro_accuracy_pct"] - frame["accuracy_pct"]).abs().max() > 1e-6)


def mmlu(frame: "pd.DataFrame", say: Say) -> Sequence[Block]:
    """All questions, and each category; the macro average where it is another."""
    macro = [
        Column("macro", "interval", ("macro_accuracy_pct", "macro_ci_low", "macro_ci_high")),
        Column(
            "macro_difference",
            "interval_pp",
            ("macro_difference_pp", "macro_difference_ci_low_pp", "macro_difference_ci_high_pp"),
        ),
    ]
    columns = [
        RIGHT,
        ACCURACY,
        *(macro if uneven(frame) else []),
        Column("generated", "interval", ("accuracy_generated_pct", "generated_ci_low", "generated_ci_high")),
        Column("invalid", "interval", ("invalid_pct", "invalid_ci_low", "invalid_ci_high")),
    ]
    return [
        Block([*HEADS, *columns], part("category", ALL)),
        Block([*HEADS, Column("category"), *columns], part("category", ALL, out=True), "categories"),
    ]


def mmlu_facts(frame: "pd.DataFrame", say: Say) -> dict[str, Any]:
    """Over how many subjects is averaged, and whether a base was not asked anew."""
    return {
        "unasked": bool(is_prompted(frame).any()),
        "averages": uneven(frame),
        "subjects": int(frame["subjects"].max()),
    }


# -- errors, gained and lost ---------------------------------------------------------------------------------------


def errors(frame: "pd.DataFrame", say: Say) -> Sequence[Block]:
    """A column for each class that occurs."""
    occur = set(frame.loc[frame["n"] > 0, "error_class"])
    columns = {name: Column("named", "count", fill={"name": f"`{name}`"}) for name in CLASSES if name in occur}
    return [crossed(frame, HEADS, "error_class", "n", columns)]


def confusion(frame: "pd.DataFrame", say: Say) -> Sequence[Block]:
    """A block for each adapter; none of too many."""
    runs = frame.groupby(["model", "variant"], sort=False)
    blocks = []
    for (model, variant), rows in runs if len(runs) <= MOST_CONFUSIONS else ():
        became = set(rows["tuned_class"])
        columns = {name: Column("named", "count", fill={"name": f"`{name}`"}) for name in CLASSES if name in became}
        ordered = rows.sort_values("base_class", key=lambda names: names.map(CLASSES.index), kind="stable")
        block = crossed(ordered, [Column("base_class", "code")], "tuned_class", "n", columns)
        blocks.append(replace(block, above="run", fill={"model": model, "variant": variant}))
    return blocks


def confusion_facts(frame: "pd.DataFrame", say: Say) -> dict[str, Any]:
    """How many adapters there are."""
    adapters = len(frame[["model", "variant"]].drop_duplicates())
    many = adapters > MOST_CONFUSIONS
    return {"adapters": adapters, "many": many, "classes": not many}


FLIPPED = (
    *HEADS,
    Column("measure", "measure", ("measure", "value")),
    N,
    *(Column(name, "count") for name in ("both_right", "gained", "lost", "both_wrong")),
)


# -- other tasks, cost, published figures --------------------------------------------------------------------------


def scored(frame: "pd.DataFrame") -> "pd.DataFrame":
    """The rows with the name of each measure, and differences in percentage points."""
    named = [
        f"{row.task}, {row.metric}" + ("" if row.filter == "none" else f" ({row.filter})") for row in frame.itertuples()
    ]
    percent = {f"{name}_pp": 100 * frame[name] for name in ("difference", "ci_low", "ci_high")}
    return frame.assign(measure=named, **percent)


def harness_facts(frame: "pd.DataFrame", say: Say) -> dict[str, str]:
    """The harness's version, and the examples in the prompts of each task."""
    tasks = frame.drop_duplicates("task").itertuples()
    return {
        "version": str(frame["lm_eval"].iloc[0]),
        "shots": ", ".join(f"{row.task} {say.count(row.shots)}" for row in tasks),
        "level": say.level(frame["confidence_level"].iloc[0]),
    }


COSTS = (
    ("seconds", "count", "seconds", ("train", "predict_spider", "predict_mmlu")),
    ("token_rate", "count", "tokens_per_second", ("train", "predict_spider")),
    ("question_rate", "number", "rows_per_second", ("predict_spider", "predict_mmlu")),
    ("memory", "gib", "peak_memory_mib", ("train", "predict_spider", "predict_mmlu")),
)


def cost(frame: "pd.DataFrame", say: Say) -> Sequence[Block]:
    """A row for each run, with what each of its jobs took."""
    keys = ["model", "variant"]
    rows = frame[keys].drop_duplicates()
    columns = []
    for job, word in say.words["jobs"].items():
        found = frame[frame["task"] == job]
        rows = rows.merge(found[[*keys, *(source for _, _, source, _ in COSTS)]], on=keys, how="left").rename(
            columns={source: f"{job} {source}" for _, _, source, _ in COSTS}
        )
        columns += [
            Column(key, form, (f"{job} {source}",), fill={"job": word})
            for key, form, source, jobs in COSTS
            if job in jobs and len(found)
        ]
    hours = ["gpu_hours", "cpu_hours"]
    sums = frame.groupby(keys, sort=False)[hours].agg(lambda values: values.sum(skipna=False)).reset_index()
    columns += [Column(key, "hours") for key in hours]
    return [Block([*HEADS, *columns], lambda _: rows.merge(sums, on=keys))]


def cost_facts(frame: "pd.DataFrame", say: Say) -> dict[str, Any]:
    """All hours, which are not known if one is not; where the work was done; how many jobs were cut off."""
    hours = {name: say.number(frame[name].sum(skipna=False), 2) for name in ("gpu_hours", "cpu_hours")}
    resumed = int(frame["resumed"].sum())
    return hours | {
        "devices": ", ".join(dict.fromkeys(frame["device"])),
        "unknown": bool(frame["job_seconds"].isna().any()),
        "resumed": resumed,
    }


PUBLISHED = (
    Column("where", of=("table",)),
    Column("variant", of=("shown",)),
    Column("of", of=("what",)),
    Column("published", "printed", ("published", "kind", "decimals")),
    Column("possible", "allowed"),
    Column("why"),
    Column("ours", "compared", ("ours", "ci_low", "ci_high", "kind")),
    Column("right", "counts", ("correct", "n")),
    Column("difference", "signed", ("difference_pp",)),
    Column("held", "held", ("published_in_ci",)),
)


# -- all of them, in the order in which a reader wants them --------------------------------------------------------

TABLES = (
    Table(
        "recommendation",
        (
            Block(
                [*HEADS, MEASURE, CLUSTERS, BASE_TUNED, DIFFERENCE, VERDICT, Column("p", "p"), GAINED_LOST],
                lambda frame: drawn(frame[frame["half"] == "report"]),
                "report",
            ),
            Block(
                [
                    *HEADS,
                    Column("gain_change", "interval_pp", CHANGE, bar=True),
                    Column("loss_change", "interval_pp", tuple(f"{name}_mmlu" for name in CHANGE), bar=True),
                    Column("detectable_loss", "number", ("minimum_detectable_pp",)),
                    Column("choice", "choice"),
                ],
                candidates,
                "validation",
            ),
        ),
        ("how", "statistics", "few", "both_halves", "spider", "mmlu"),
        recommended_facts,
        rule="recommend",
        when="recommend",
    ),
    Table(
        "regression",
        (
            Block(COMPARED, part("category", ALL)),
            Block(COMPARED, part("category", ALL, out=True), "categories"),
        ),
        ("spider", "mmlu", "difference", "clusters", "adjusted", "explored", "few"),
        regression_facts,
        empty="no_adapters",
    ),
    Table(
        "exchange",
        (
            Block(
                [
                    *HEADS,
                    Column("gain", "interval_pp", ("gain_pp", "gain_ci_low_pp", "gain_ci_high_pp")),
                    Column("loss", "interval_pp", ("loss_pp", "loss_ci_low_pp", "loss_ci_high_pp")),
                    Column("rate", "rate", ("exchange_rate", "ci_low", "ci_high", "note")),
                ]
            ),
        ),
        ("rate", "spider", "mmlu"),
        empty="no_adapters",
    ),
    Table(
        "factors",
        (
            Block(
                [
                    Column("model"),
                    Column("setting"),
                    Column("levels", "change", ("low", "high")),
                    MEASURE,
                    Column("pairs", "count"),
                    CLUSTERS,
                    Column("first_second", "percents", ("low_accuracy_pct", "high_accuracy_pct")),
                    DIFFERENCE,
                    VERDICT,
                    P_HOLM,
                    Column("p", "p"),
                    DETECTABLE,
                ],
                lambda frame: frame.assign(setting=frame["axis"].map(setting_name)),
            ),
        ),
        ("pairs", "spider", "mmlu", "few"),
        comparisons,
        empty="empty",
    ),
    Table(
        "seeds",
        (
            Block(
                [
                    Column("model"),
                    Column("setting"),
                    MEASURE,
                    Column("seeds", "count"),
                    CLUSTERS,
                    Column("mean", "number", ("mean_accuracy_pct",)),
                    Column("sd", "number", ("sd_pp",)),
                    Column("min_max", "span", ("min_accuracy_pct", "max_accuracy_pct")),
                    Column(
                        "difference_to_base", "interval_pp", ("mean_difference_pp", "ci_low_pp", "ci_high_pp"), bar=True
                    ),
                    VERDICT,
                    P_HOLM,
                    Column("seed_sd", "number", ("seed_sd_pp",)),
                    Column("question_sd", "number", ("question_sd_pp",)),
                    Column("seed_share", "count", ("seed_share_pct",)),
                ]
            ),
        ),
        ("seeds", "spider", "mmlu", "few"),
        comparisons,
        empty="empty",
    ),
    Table("execution_accuracy", execution_accuracy, ("spider", "wilson", "criteria"), criteria_facts),
    Table("databases", databases, ("spider", "csv")),
    Table("mmlu", mmlu, ("mmlu", "unasked", "letters", "averages"), mmlu_facts),
    Table("errors", errors, ("questions", "classes")),
    Table(
        "flips",
        (
            Block(FLIPPED, part("part", ALL)),
            Block(FLIPPED, part("part", "hardness", "category"), "parts"),
        ),
        ("gained", "spider", "mmlu"),
        empty="no_adapters",
    ),
    Table("confusion", confusion, ("questions", "classes", "many"), confusion_facts, empty="no_adapters"),
    Table(
        "harness",
        (
            Block(
                [
                    *HEADS,
                    Column("measure"),
                    N,
                    Column("score", "score"),
                    Column("stderr", "error"),
                    DIFFERENCE,
                    Column("verdict", "verdict", ("verdict",)),
                    P_HOLM,
                ],
                scored,
            ),
        ),
        ("how",),
        harness_facts,
        rule="harness_table",
        when="harness",
    ),
    Table("cost", cost, ("hours", "unknown", "resumed"), cost_facts, rule="cost"),
    Table(
        "published",
        (Block(PUBLISHED, above="report"),),
        ("how", "findings", "stated"),
        rule="compare_published",
        when="published",
    ),
)

FIGURES = (
    Figure("tradeoff"),
    Figure("differences"),
    Figure("hardness"),
    Figure("databases"),
    Figure("error_flow"),
    Figure("loss"),
    Figure("seeds", when="seeds"),
    Figure("strength", when="strength"),
    Figure("trajectory", when="step"),
    Figure("shots", when="shots"),
)


def shown(entries: Sequence[Any], has: Mapping[str, Any], **wanted: str) -> list[str]:
    """The names of the tables or figures that a study has, and whose fields have the wanted values."""
    return [
        one.key
        for one in entries
        if (not one.when or has[one.when]) and all(getattr(one, name) == value for name, value in wanted.items())
    ]
