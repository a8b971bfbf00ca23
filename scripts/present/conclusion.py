"""The answer of a study in a few sentences: what its settings gain, what they lose, and which one to use.

It is made from the verdicts of the table of settings and from the recommendation, and it is made here alone: report,
model card, README of the results, pages and terminal show these sentences.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from present.format import DAGGER, VERDICTS, Say, missing
from present.values import ALL, NOT_LOST, RECOMMENDED, RIGHT, SEED, THIS_RUN, is_point, setting_name

if TYPE_CHECKING:
    from pandas import DataFrame

Row = Mapping[str, Any]
# More settings than this are counted and not named.
MOST_NAMES = 3
# Effects that differ by less, in percentage points, are said to be about the same.
ALIKE = 1.5
# In which order a sentence tells of findings.
ORDER = ("gained", "lost", "undecided", "kept")


def finding(row: Row, target: str) -> str | None:
    """The key of a verdict; a loss that is undecided but within the margin is `kept`."""
    key = VERDICTS.get(row.get("verdict"))
    return "kept" if key == "undecided" and row["task"] != target and row.get("margin_verdict") == NOT_LOST else key


def conclusion(settings: "DataFrame", recommendation: "DataFrame | None", say: Say) -> list[str]:
    """The answer as Markdown, a line a sentence; of several models a line each, and what holds of all at the end.

    `settings` and `recommendation` are the tables of these names; None for a study that recommends nothing. `say` has
    the measures of the tasks, the target first.
    """
    shown = (settings["category"] == ALL) & (settings["measure"] == RIGHT) & ~is_point(settings)
    target = next(iter(say.measures))
    rows = [row | {"finding": finding(row, target)} for row in settings[shown].to_dict("records")]
    if not rows:
        return [say.word("notes.no_adapters")]
    chosen = [] if recommendation is None else recommendation.to_dict("records")
    models = list(dict.fromkeys(row["model"] for row in rows))
    lines = []
    for model in models:
        said = _Model([row for row in rows if row["model"] == model], say)
        sentences = said.sentences() + said.advice([row for row in chosen if row["model"] == model])
        lines += [f"{say.code(model)}: {' '.join(sentences)}"] if len(models) > 1 else sentences
    if len({row["setting"] for row in rows}) > 1 and any(row["about"] == THIS_RUN for row in rows):
        lines.append(say.word("conclusion.once"))
    return lines + [say.word("report.few")] * any(row["unit"] == "question" for row in rows)


class _Model:
    """The sentences about the settings of one model."""

    def __init__(self, rows: Sequence[Row], say: Say):
        self.rows, self.say, self.words = rows, say, say.words["conclusion"]
        self.target, *self.yardsticks = say.measures
        self.names = list(dict.fromkeys(row["setting"] for row in rows))
        self.margin = say.short(rows[0]["margin_pp"])
        # Where one thing alone was swept, settings are called by its value.
        axes = [name for name in rows[0] if "." in name and name != SEED]
        values = {axis: {row["setting"]: row[axis] for row in rows} for axis in axes}
        varied = [axis for axis, of in values.items() if len({*of.values()}) > 1]
        self.axis, self.values = "setting", {name: say.code(name) for name in self.names}
        found = values[varied[0]] if len(varied) == 1 else {}
        if "" not in found.values() and len({*found.values()}) == len(self.names) > 1:
            axis = setting_name(varied[0])
            if axis in self.words["axes"]:
                self.axis, self.values = axis, {name: say.short(float(value)) for name, value in found.items()}

    def sentences(self) -> list[str]:
        """A sentence on the target, and one on each yardstick."""
        return [self.sentence(task) for task in (self.target, *self.yardsticks)]

    def sentence(self, task: str) -> str:
        """What the settings changed on a task: a clause for each finding."""
        groups = {key: [row for row in self.rows if (row["task"], row["finding"]) == (task, key)] for key in ORDER}
        clauses: list[str] = []
        for key, rows in groups.items():
            clauses += [self.clause(task, key, rows, first=not clauses)] if rows else []
        said = "; ".join(clauses)
        return said[:1].upper() + said[1:] + "."

    def clause(self, task: str, key: str, rows: Sequence[Row], first: bool) -> str:
        """What some settings changed on a task, all with one finding; after the first clause with fewer words."""
        names = [row["setting"] for row in rows]
        gains = {row["setting"] for row in self.rows if row["task"] == self.target and row["finding"] == "gained"}
        measure = self.say.measure(task, words="forms.sentence")
        who = self.who(names, first)
        facts = {
            "who": who,
            "at": self.words["in_it"] if len(self.names) == 1 else self.words["axes"][self.axis]["at"].format(who=who),
            "it": self.words["it"][not first],
            "also": self.words["also"] if gains.issuperset(names) else "",
            "amount": self.amount(rows),
            "of": self.words["of"].format(measure=measure) if first else "",
            "measure": measure,
            "margin": self.margin,
            "interval": f" ({self.reach(rows)})" if len(rows) == 1 else "",
            "range": self.reach(rows),
        }
        if task == self.target:
            said = self.words["target"][key][len(names) > 1].format(**facts)
        else:
            said = self.words["yardstick"][key].format(**facts)
            within = key == "lost" and all(row["margin_verdict"] == NOT_LOST for row in rows)
            said += self.words["within"].format(**facts) if within else ""
        return said + f" {DAGGER}" * any(row["unit"] == "question" for row in rows)

    def who(self, names: Sequence[str], first: bool = True) -> str:
        """Some of the model's settings as the subject of a sentence; after the first clause by their values."""
        if len(self.names) == 1:
            once = self.rows[0]["about"] == THIS_RUN
            return self.words["this_run"].format(name=self.values[names[0]]) if once else self.values[names[0]]
        words, n = self.words["axes"][self.axis], len(self.names)
        if len(names) == n:
            return words["two" if n == 2 else "all"].format(n=n)
        if len(names) > MOST_NAMES:
            return words["part"].format(k=len(names), n=n)
        values = self.say.listed([self.values[name] for name in names])
        return words["many" if len(names) > 1 else "one"].format(values=values) if first else values

    def amount(self, rows: Sequence[Row]) -> str:
        """How much some settings changed: of several the least and the most."""
        say, values = self.say, [abs(row["difference_pp"]) for row in rows]
        low, high = min(values), max(values)
        digits = self.digits(values if len(rows) > 1 else [low, rows[0]["ci_low_pp"], rows[0]["ci_high_pp"]])
        if len(rows) > 1 and high - low >= ALIKE:
            return self.words["from_to"].format(low=say.number(low, digits), high=say.number(high, digits))
        value = say.number(sum(values) / len(values), digits)
        return self.words["one" if len(rows) == 1 else "about"].format(value=value)

    def reach(self, rows: Sequence[Row]) -> str:
        """From where to where the intervals of some settings reach."""
        low, high = min(row["ci_low_pp"] for row in rows), max(row["ci_high_pp"] for row in rows)
        digits = self.digits([low, high, *(row["difference_pp"] for row in rows if len(rows) == 1)])
        low, high = (self.say.signed(value, digits) for value in (low, high))
        return f"{low} {self.say.word('numbers.to')} {high}"

    @staticmethod
    def digits(values: Sequence[float]) -> int:
        """How many decimals effects and intervals need: none, unless one of them would round to nearly nothing."""
        return int(any(abs(value) < 1 for value in values if not missing(value)))

    def advice(self, rows: Sequence[Row]) -> list[str]:
        """What to use, by the rows of the recommendation on this model; nothing where nothing is recommended at all."""
        best = [row for row in rows if row["choice"] == RECOMMENDED]
        losses = [self.say.measure(task, words="forms.sentence") for task in self.yardsticks]
        facts = {"margin": self.margin, "yardsticks": self.say.listed(losses) if losses else ""}
        if best and best[0]["setting"] in self.values:
            one = self.words["axes"][self.axis]["one"].format(values=self.values[best[0]["setting"]])
            return [self.words["use"].format(name=one)]
        if best:
            facts |= {"name": self.say.code(best[0]["setting"]), "amount": self.amount(best[:1])}
            facts |= {"measure": self.say.measure(self.target, words="forms.sentence")}
            kept = self.words["use_point_kept"].format(**facts) if losses else ""
            return [self.words["use_point"].format(**facts, kept=kept)]
        gaining = any(row["finding"] == "gained" for row in self.rows)
        return [self.words["none_kept" if gaining and losses else "none_gained"].format(**facts)] if rows else []
