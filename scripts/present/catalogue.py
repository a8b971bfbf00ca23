"""Every table and figure: its name, when there is one, which rows and columns it shows, and its notes.

Headings, titles, captions and notes stand in `words.<language>.yaml` under the keys given here; how a cell is written
is a method of `format.Say`. The rules read this module when they are parsed, so it imports no pandas.

To add a table: a `Table` here, its words in each language, and the step that writes its CSV file. To add a figure: a
`Figure` here, its words, and the function that draws it.
"""

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from present.format import Say
from present.values import ALL, CLASSES, GOLD, RIGHT, THIS_RUN, is_point, is_prompted

if TYPE_CHECKING:
    from pandas import DataFrame

WORDS = (
    "text", "code", "class_of", "level_of", "axis", "measure", "job", "verdict", "choice", "change", "margin",
    "allowed", "held", "of_setting", "effect", "chance",
)  # fmt: skip
# Nobody reads the counts of each class for more adapters than this.
MOST_CONFUSIONS = 40


@dataclass(frozen=True)
class Column:
    """One column as it is shown.

    `format` is the method of `Say` that writes a cell, and `of` the columns of the rows that it takes: `key` itself, if
    there are none. The heading is `columns.<heading>` of the words (`columns.<key>`, if empty) with `fill` filled in.
    With `bar` the page draws the interval into the cell; `of` is then value, low, high. With `link` the page links the
    cell to the answers that it counts: the fields of the page of answers that show them, beside task and run of a row.
    """

    key: str
    format: str = "text"
    of: Sequence[str] = ()
    heading: str = ""
    fill: Mapping[str, str] = field(default_factory=dict)
    bar: bool = False
    link: Mapping[str, str] = field(default_factory=dict)

    @property
    def words(self) -> bool:
        """Whether it holds words, which stand to the left, or numbers, which stand to the right."""
        return self.format in WORDS

    def title(self, say: Say) -> str:
        """Its heading."""
        return say.word(f"columns.{self.heading or self.key}").format(**self.fill)

    def values(self, row: Mapping[str, Any]) -> list[Any]:
        """What its format takes of a row."""
        return [row[name] for name in self.of or (self.key,)]

    def text(self, row: Mapping[str, Any], say: Say) -> str:
        """The cell of a row."""
        return getattr(say, self.format)(*self.values(row))


@dataclass(frozen=True)
class Block:
    """Rows under one line of headings; over it `tables.<name>.above.<above>` of the words, filled in, or nothing."""

    columns: Sequence[Column]
    rows: "DataFrame"
    above: str = ""
    fill: Mapping[str, str] = field(default_factory=dict)


Shown = tuple[Sequence[Block], Mapping[str, Any]]


@dataclass(frozen=True)
class Table:
    """One table: a CSV file, a Markdown page, and a chapter of the page of all tables."""

    key: str  # `tables.<key>` of the words; of a table about one task the form of the task, which gives the name
    shown: "Callable[[DataFrame, Say], Shown]"  # its blocks, made of the frame, and facts for its notes
    # Keys of `tables.<key>`, or of `notes` for those of several tables. One whose fact of the same name is empty is
    # left out. `questions`, and `criteria` with the criterion, are of each task.
    notes: str
    empty: str = ""  # the note of a table without rows
    rule: str = "tables"  # which writes it
    when: str = ""  # what a study must have for it; see `HAS` in rules/common.smk


@dataclass(frozen=True)
class Figure:
    """One figure: its name, `figures.<key>` of the words, and what a study must have for it."""

    key: str
    when: str = ""


SHARE = ("accuracy_pct", "ci_low", "ci_high")
# All columns by their format: `name`, or `name=a,b` where the format takes the columns a and b of the rows.
FORMATS = {
    "text": (
        "model variant setting why task_metric shown where=table of=what part by commit precision batch "
        "device version what criterion_name"
    ),
    "code": "run=name factor=name model_name=name of_what parameter value source sha256 library",
    "level_of": "category",
    "of_setting": "setting_about=setting,about",
    "measure": "measure=task measure_category=task,category measure_value=task,value",
    "effect": "effect=task,category,measure",
    "margin": "margin_verdict=margin_verdict,units_to_decide,unit,seeds_to_decide margin_alone=margin_verdict",
    "chance": "seed_variance",
    "change": "levels=low,high",
    "axis": "swept=axis",
    "choice": "choice",
    "job": "job=task",
    "verdict": "verdict=verdict,unit verdict_alone=verdict",
    "count": (
        "n pairs seeds both_right gained lost both_wrong seconds token_rate=tokens_per_second rows databases steps "
        "answered missing turned=flips questions_to_certify seeds_to_certify failed empty rows_open order_open "
        "doubtful asked_again now_run now_right"
    ),
    "counts": "right=correct,n gained_lost=gained,lost trainable=trainable_parameters,all_parameters",
    "clusters": "n_clusters=n,clusters",
    "number": (
        "seed_sd=seed_sd_pp macro_pct=macro_accuracy_pct generated_pct=accuracy_generated_pct invalid_pct "
        "detectable=minimum_detectable_pp row_rate=rows_per_second last_loss=loss,digits gpu_time=gpu_hours,digits "
        "gain=gain_pp"
    ),
    "signed": "change=percent_change apart=difference_pp",
    "percents": (
        "base_tuned=base_accuracy_pct,tuned_accuracy_pct own_other=base_accuracy_pct,tuned_accuracy_pct "
        "first_second=low_accuracy_pct,high_accuracy_pct first_after=first_accuracy_pct,accuracy_pct"
    ),
    "interval": (
        "accuracy=accuracy_pct,ci_low,ci_high bounds=accuracy_pct,low_pct,high_pct "
        "macro=macro_accuracy_pct,macro_ci_low,macro_ci_high "
        "generated=accuracy_generated_pct,generated_ci_low,generated_ci_high "
        "invalid=invalid_pct,invalid_ci_low,invalid_ci_high "
        "right_to_wrong=right_to_wrong_pct,right_to_wrong_low_pct,right_to_wrong_high_pct "
        "wrong_to_right=wrong_to_right_pct,wrong_to_right_low_pct,wrong_to_right_high_pct "
        "turned_pct=flips_pct,ci_low,ci_high"
    ),
    "interval_pp": (
        "difference=difference_pp,ci_low_pp,ci_high_pp "
        "macro_difference=macro_difference_pp,macro_difference_ci_low_pp,macro_difference_ci_high_pp"
    ),
    "p": "p p_holm p_mcnemar",
    "rate": "exchange_rate",
    "hours": "gpu_hours cpu_hours",
    "gib": "memory=peak_memory_mib",
    "score": "score",
    "error": "stderr",
    "allowed": "possible=possible",
    "printed": "published=published,kind,decimals",
    "compared": "ours=ours,ci_low,ci_high,kind",
    "held": "held=published_in_ci",
}
# Columns under the heading of another, and those with a bar.
HEADINGS = {
    "measure_category": "measure", "measure_value": "measure", "task_metric": "measure", "effect": "measure",
    "run": "variant", "shown": "variant", "setting_about": "setting", "factor": "setting", "swept": "setting",
    "margin_alone": "margin_verdict", "verdict_alone": "verdict", "model_name": "model", "of_what": "of",
    "by": "levels", "gpu_time": "gpu_hours",
}  # fmt: skip
BARS = ("accuracy", "difference")
COLUMNS = {
    name: Column(name, form, of.split(",") if of else (), HEADINGS.get(name, ""), bar=name in BARS)
    for form, entries in FORMATS.items()
    for name, _, of in (entry.partition("=") for entry in entries.split())
}


def columns(names: str) -> tuple[Column, ...]:
    """The columns of these names."""
    return tuple(COLUMNS[name] for name in names.split())


RUN = columns("model variant")


def crossed(
    frame: "DataFrame", heads: Sequence[Column], across: str, values: Sequence[str], shown: Mapping[str, Column]
) -> Block:
    """A row for each value of `heads`, a column for each value of the column `across` that is in `shown`.

    The format of a cell takes the columns `values`, which are 0 for a pair that has no row.
    """
    wide = frame.pivot_table(list(values), [head.key for head in heads], across, "first", fill_value=0, sort=False)
    wide.columns = [f"{value} at {name}" for value, name in wide.columns]
    wide = wide.reset_index()
    cells = [replace(one, of=tuple(f"{value} at {name}" for value in values)) for name, one in shown.items()]
    return Block([*heads, *cells], wide)


def share(name: str, n: str = "", form: str = "number") -> Column:
    """A column of percentages of something that is named, and how many questions it has."""
    return Column("share", form, (), "named_n_pct" if n else "named_pct", {"name": name, "n": n})


def shares(
    frame: "DataFrame", column: str, names: Mapping[str, str], say: Say, form: str = "number"
) -> dict[str, Column]:
    """A column of percentages for each part of the questions that has any; `names`: what the parts are called."""
    sizes = frame[frame["n"] > 0].drop_duplicates(column).set_index(column)["n"]
    return {part: share(name, say.count(sizes[part]), form) for part, name in names.items() if part in sizes}


def class_columns(names: Container[str], say: Say) -> dict[str, Column]:
    """A column of counts for each of these classes of answers, in their order."""
    shown = [name for name in CLASSES if name in names]
    return {name: Column("class", "count", (), "named", {"name": say.class_of(name)}) for name in shown}


def criterion_columns(say: Say, raw: str = "") -> list[Column]:
    """A column of percentages under each criterion; with `raw` "_raw", of the whole answers, nothing extracted."""
    return [replace(share(one["name"]), of=(f"{key}{raw}_pct",)) for key, one in say.words["criteria"].items()]


# -- what single tables show, and what their notes say -------------------------------------------------------------


def recommendation(frame: "DataFrame", say: Say) -> Shown:
    """All candidates, with what decided about each. The facts are the margin and the yardsticks."""
    shown = columns(
        "model setting_about choice measure seeds n_clusters base_tuned difference p_holm verdict margin_alone "
        "questions_to_certify seeds_to_certify"
    )
    tasks = list(dict.fromkeys(frame["task"]))
    chosen, margin = frame["choice"] == "recommended", say.short(frame["margin_pp"].iloc[0])
    losses = say.listed([say.measure(task) for task in tasks[1:]]) if tasks[1:] else ""
    kept = say.word("tables.recommendation.kept", margin=margin, yardsticks=losses) if losses else ""
    facts = {"kept": kept, "comparisons": len(frame), "nothing": not chosen.any()}
    return [Block(shown, frame[chosen], "recommended"), Block(shown, frame[~chosen], "others")], facts


def settings(frame: "DataFrame", say: Say) -> Shown:
    """All questions, probabilities, points, and parts. The facts are about the families, the margin and the seeds."""
    told = "difference verdict p_holm margin_verdict detectable"
    shown = columns(f"model setting_about effect seeds n_clusters base_tuned {told} change exchange_rate seed_variance")
    few = columns(f"model setting_about effect seeds n_clusters base_tuned {told}")
    whole, right, point = frame["category"] == ALL, frame["measure"] == RIGHT, is_point(frame)
    # On the target a gain is held against the margin, elsewhere a loss.
    target = frame["task"] == next(iter(say.measures))
    frame = frame.assign(margin_verdict=frame["gain_margin_verdict"].where(target, frame["margin_verdict"]))
    frame[["units_to_decide", "seeds_to_decide"]] = frame[["units_to_decide", "seeds_to_decide"]].where(~target)
    sds = seed_sds(frame[whole & right & ~point], say)
    facts = {
        "margin": say.short(frame["margin_pp"].iloc[0]),
        "headline": int((whole & right & ~point).sum()),
        "explored": bool(point.any()),
        "headline_explored": int((whole & right & point).sum()),
        "this_run": bool((frame["about"] == THIS_RUN).any()),
        "seeds": bool(sds),
        "seed_sds": say.listed(sds, 9) if sds else "",
        "disagree": bool(frame["methods_disagree"].astype(str).eq("True").any()),
        "differ": bool(frame["seeds_differ_more"].astype(str).eq("True").any()),
        "chances": say.listed([f"{say.level(one.chance)} {say.measure(task)}" for task, one in say.measures.items()]),
    }
    return [
        Block(shown, frame[whole & right & ~point]),
        Block(few, frame[whole & ~right & ~point], "probability"),
        Block(few, frame[whole & right & point], "explored"),
        Block(few, frame[~whole & ~point], "categories"),
    ], facts


def seed_sds(frame: "DataFrame", say: Say) -> list[str]:
    """What training seeds alone differ in, of each model and task: the standard deviation and how sure it is."""
    known = frame[frame["seed_sd_pp"].notna()].drop_duplicates(["model", "task"])
    return [
        say.word("tables.settings.seed_sd", measure=say.measure(task), sd=say.number(sd), df=say.count(df))
        for task, sd, df in zip(known["task"], known["seed_sd_pp"], known["seed_df"], strict=True)
    ]


def regression(frame: "DataFrame", say: Say) -> Shown:
    """All questions, then their parts, of each single run. The fact is what guessing gets right."""
    shown = columns("model variant measure_category n_clusters base_tuned difference p_mcnemar change gained_lost")
    whole = frame["category"] == ALL
    chances = [f"{say.level(one.chance)} {say.measure(task)}" for task, one in say.measures.items()]
    facts = {"chances": say.listed(chances), "explored": bool(is_point(frame).any())}
    return [Block(shown, frame[whole]), Block(shown, frame[~whole], "categories")], facts


def sql(frame: "DataFrame", say: Say) -> Shown:
    """All questions under the headline's criterion and under each, then the parts of the questions."""
    whole = frame[frame["questions"] == ALL]
    names = {name: say.level_of(name, title=True) for name in dict.fromkeys(frame["questions"]) if name != ALL}
    parts = crossed(frame, RUN, "questions", SHARE[:1], shares(frame, "questions", names, say))
    return [
        Block([*RUN, *columns("right accuracy")], whole),
        Block([*RUN, *criterion_columns(say)], whole, "extracted"),
        Block([*RUN, *criterion_columns(say, "_raw")], whole, "raw"),
        replace(parts, above="parts"),
    ], {}


def databases(frame: "DataFrame", say: Say) -> Shown:
    """Of each task, runs down and databases across, or the other way, whichever makes the longer table."""
    blocks = []
    for task, rows in frame.groupby("task", sort=False):
        rows = rows.sort_values("db_id", kind="stable")
        sizes = {row.db_id: say.count(row.n) for row in rows.drop_duplicates("db_id").itertuples()}
        if len(rows.drop_duplicates(["model", "variant"])) > len(sizes):
            block = crossed(rows, RUN, "db_id", SHARE[:1], {name: share(name, n) for name, n in sizes.items()})
        else:
            labels = {name: say.word("columns.named_n", name=name, n=n) for name, n in sizes.items()}
            names = rows["model"] + " " + rows["variant"] if rows["model"].nunique() > 1 else rows["variant"]
            rows = rows.assign(run=names, database=rows["db_id"].map(labels))
            block = crossed(rows, [Column("database")], "run", SHARE[:1], {name: share(name) for name in names})
        blocks.append(replace(block, above="task", fill={"measure": say.measure(task)}))
    return blocks, {}


def uneven(frame: "DataFrame") -> bool:
    """Tell whether the two averages differ; where all subjects have as many questions they are one."""
    return bool((frame["macro_accuracy_pct"] - frame["accuracy_pct"]).abs().max() > 1e-6)


def choice(frame: "DataFrame", say: Say) -> Shown:
    """All questions, and each category; the macro average where it is another, and what generated text says.

    The facts are whether a base was not asked anew, and over how many subjects is averaged.
    """
    further = "macro macro_difference " if uneven(frame) else ""
    shown = columns(f"right accuracy {further}" + ("generated invalid" if "invalid" in frame else ""))
    whole, category = frame["category"] == ALL, COLUMNS["category"]
    blocks = [Block([*RUN, *shown], frame[whole]), Block([*RUN, category, *shown], frame[~whole], "categories")]
    facts = {"unasked": bool(is_prompted(frame).any()), "averages": bool(further)}
    return blocks, facts | {"subjects": int(frame["subjects"].max())}


def errors(frame: "DataFrame", say: Say) -> Shown:
    """A column for each class that occurs, of each task apart."""
    occur = class_columns(set(frame.loc[frame["n"] > 0, "error_class"]), say)
    blocks = []
    for task, rows in frame.groupby("task", sort=False):
        cells = {name: replace(one, link={"task": task, "class": name}) for name, one in occur.items()}
        block = crossed(rows, RUN, "error_class", ["n"], cells)
        blocks.append(replace(block, above="task", fill={"measure": say.measure(task)}))
    return blocks, {}


def flips(frame: "DataFrame", say: Say) -> Shown:
    """All questions, then their parts; databases and subjects, which may be many, are in the CSV file alone."""
    changes = {"both_right": "both", "gained": "gained", "lost": "lost", "both_wrong": "neither"}
    shown = [
        replace(one, link={"change": changes[one.key]}) if one.key in changes else one
        for one in columns("model variant measure_value n both_right gained lost both_wrong")
    ]
    many = {"database", *(one.cluster for one in say.measures.values() if one.cluster not in one.reported)}
    few = frame[~frame["part"].isin({ALL, *many})]
    return [Block(shown, frame[frame["part"] == ALL]), Block(shown, few, "parts")], {}


def confusion(frame: "DataFrame", say: Say) -> Shown:
    """A block for each adapter and task; none of too many."""
    adapters, blocks = len(frame[["model", "variant"]].drop_duplicates()), []
    many, runs = adapters > MOST_CONFUSIONS, frame.groupby(["task", "model", "variant"], sort=False)
    for (task, model, variant), rows in runs if not many else ():
        shown = class_columns(set(rows["tuned_class"]), say)
        block = crossed(rows, [Column("base_class", "class_of")], "tuned_class", ["n"], shown)
        fill = {"model": model, "variant": variant, "measure": say.measures[task].name}
        blocks.append(replace(block, above="run", fill=fill))
    return blocks, {"adapters": adapters, "many": many, "classes": not many}


def scored(frame: "DataFrame") -> "DataFrame":
    """The rows with the name of each measure, and differences in percentage points."""
    filters = frame["filter"].where(frame["filter"] == "none", " (" + frame["filter"] + ")").replace("none", "")
    percent = {f"{name}_pp": 100 * frame[name] for name in ("difference", "ci_low", "ci_high")}
    return frame.assign(task_metric=frame["task"] + ", " + frame["metric"] + filters, **percent)


def harness(frame: "DataFrame", say: Say) -> Shown:
    """The facts are the harness's version, and the examples in the prompts of each task."""
    shown = columns("model variant task_metric n score stderr difference verdict_alone p_holm")
    first, tasks = frame.iloc[0], frame.drop_duplicates("task").itertuples()
    shots = ", ".join(f"{row.task} {say.count(row.shots)}" for row in tasks)
    facts = {"version": str(first["lm_eval"]), "shots": shots, "level": say.level(first["confidence_level"])}
    return [Block(shown, scored(frame))], facts


def gold(frame: "DataFrame", say: Say) -> Shown:
    """The gold queries as answers, by every criterion; then each run, by the study's."""
    frame = frame.assign(criterion_name=[say.words["criteria"][key]["name"] for key in frame["criterion"]])
    own, worth = frame["variant"] == GOLD, "failed empty rows_open order_open doubtful"
    shown = columns("measure criterion_name right bounds")
    return [Block([*shown, *columns(worth)], frame[own]), Block([*RUN, *shown], frame[~own], "runs")], {}


def noise(frame: "DataFrame", say: Say) -> Shown:
    """A row for each run that was repeated, and each task."""
    frame = frame.assign(what=[say.words["repeats"][how] for how in frame["how"]])
    return [Block(columns("model variant what measure n turned turned_pct gained lost apart"), frame)], {}


def repair(frame: "DataFrame", say: Say) -> Shown:
    """A row for each run whose failed answers were given again."""
    return [Block(columns(f"model variant n {REPAIRED}"), frame)], {"comparisons": say.count(len(frame))}


def cost(frame: "DataFrame", say: Say) -> Shown:
    """A row for each job. The facts: all hours (not known if one is not), where, and how many jobs were cut off."""
    shown = columns("model variant job seconds token_rate row_rate memory gpu_hours cpu_hours")
    facts = {name: say.number(frame[name].sum(skipna=False), 2) for name in ("gpu_hours", "cpu_hours")}
    facts |= {"devices": ", ".join(dict.fromkeys(frame["device"])), "resumed": int(frame["resumed"].sum())}
    return [Block(shown, frame)], facts | {"unknown": bool(frame["job_seconds"].isna().any())}


# -- all of them, in the order in which a reader wants them --------------------------------------------------------


def plain(names: str, above: str = "") -> "Callable[[DataFrame, Say], Shown]":
    """All rows with these columns."""
    return lambda frame, say: ([Block(columns(names), frame, above)], {})


REPAIRED = "asked_again now_run now_right first_after difference p_holm"
CONTRASTS = "model swept levels measure pairs n_clusters first_second difference verdict p_holm p detectable"
TURNED = "model setting measure seeds n right_to_wrong wrong_to_right"
TABLES = (
    Table("recommendation", recommendation, "how holds nothing few criteria", "no_adapters", "recommend", "recommend"),
    Table(
        "settings",
        settings,
        "what drawn seeds this_run adjusted margin change rate explored disagree differ criteria few",
        "no_adapters",
    ),
    Table("contrasts", plain(CONTRASTS), "pairs criteria few", "empty"),
    Table("equal_gain", plain("model measure levels gain difference"), "how criteria", "empty", when="ways"),
    Table("transitions", plain(TURNED), "how criteria", "no_adapters"),
    Table("sql", sql, "criteria wilson meanings"),
    Table("databases", databases, "criteria csv", when="sql"),
    Table("gold", gold, "how bounds questions", rule="gold", when="sql"),
    Table("choice", choice, "criteria unasked letters averages"),
    Table("match", choice, "criteria unasked wilson averages"),
    Table("errors", errors, "questions classes", when="sql"),
    Table("regression", regression, "single difference change criteria few", "no_adapters"),
    Table("flips", flips, "gained criteria", "no_adapters"),
    Table("confusion", confusion, "questions classes many", "no_adapters", when="sql"),
    Table("noise", noise, "how criteria", rule="noise", when="noise"),
    Table("repair", repair, "how adjusted criteria few", rule="repair", when="repair"),
    Table("harness", harness, "how", rule="harness_table", when="harness"),
    Table("cost", cost, "hours unknown resumed", rule="cost"),
    Table(
        "published",
        plain("where shown of published possible why ours right apart held", "report"),
        "how findings stated",
        rule="compare_published",
        when="published",
    ),
)
# Tables that are about one task, by its form.
FORMS = ("sql", "choice", "match")
FIGURES = (
    *map(Figure, ("tradeoff", "differences")),
    Figure("equal_gain", when="ways"),
    *(Figure(key, when="sql") for key in ("hardness", "databases", "error_flow")),
    Figure("loss", when="trained"),
    *(Figure(key, when=key) for key in ("seeds", "strength")),
    Figure("trajectory", when="step"),
    Figure("shots", when="shots"),
)


def names(entries: Sequence[Table | Figure], has: Mapping[str, Any], rule: str = "") -> list[str]:
    """The names of those tables or figures that a study has, of one rule or of all.

    `has` tells of each condition whether the study meets it, and as `tasks` the form of each task.
    """
    found = [one.key for one in entries if (not one.when or has[one.when]) and (not rule or one.rule == rule)]
    tasks = {form: [task for task, of in has["tasks"].items() if of == form] for form in FORMS}
    return [name for key in found for name in tasks.get(key, [key])]


def table_of(name: str, say: Say) -> Table:
    """The table of a name: a task's is that of its form."""
    key = say.measures[name].form if name in say.measures else name
    return next(table for table in TABLES if table.key == key)
