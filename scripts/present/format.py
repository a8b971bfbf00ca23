"""How numbers, intervals, p values and verdicts are written. Every output uses this module and no other way.

There is one minus sign (U+2212), one way to print p, and one dagger. CSV files hold plain numbers at full precision;
only what a person reads passes through here.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partialmethod, reduce
from operator import getitem
from pathlib import Path
from typing import Any

import yaml

from present.values import ALL, RIGHT, SAME, THIS_RUN, UNDECIDED, setting_name

LANGUAGES = ("en", "pt")
MINUS = "\N{MINUS SIGN}"
DAGGER = "\N{DAGGER}"
# What the tables call a verdict, and its key in the words.
VERDICTS = {name: name for name in ("gained", "lost", "undecided", "better", "worse", "higher", "lower")}
VERDICTS |= {SAME: "same"}


def missing(value: Any) -> bool:
    """Tell whether a value is None, NaN or pandas' NA."""
    return value is None or type(value).__name__ in ("NAType", "NaTType") or value != value


@cache
def read_words(language: str) -> dict[str, Any]:
    """The words of a language, one of `LANGUAGES`: `words.<language>.yaml` as nested mappings of text."""
    return yaml.safe_load(Path(__file__).with_name(f"words.{language}.yaml").read_text(encoding="utf-8"))


class Say:
    """Numbers and shared words of one of the `LANGUAGES`, with the measures of the tasks (`tasks.base.Measure`).

    The methods are the filters of the templates, the formats of the catalogue's columns, and the labels of axes.
    """

    def __init__(self, language: str, measures: Mapping[str, Any] | None = None):
        self.language, self.words, self.measures = language, read_words(language), measures or {}

    def word(self, key: str, /, **values: Any) -> str:
        """The words at a dotted key such as `verdicts.better`, with `values` filled in."""
        found = reduce(getitem, key.split("."), self.words)
        return found.format(**values) if values else found

    def heading(self, table: str, **values: Any) -> str:
        """What a table is called where there is little room, by its key in the catalogue."""
        words = self.words["tables"][table]
        return words.get("short", words["title"]).format(**values)

    def number(self, value: float, digits: int = 1) -> str:
        """A number with so many decimals; a negative zero has no sign, a missing value is n/a."""
        if missing(value):
            return self.word("numbers.missing")
        text = f"{value:,.{digits}f}"
        return self.marked(text if float(text.replace(",", "")) else text.removeprefix("-"))

    def marked(self, text: str) -> str:
        """A number as Python writes it with the marks of the language."""
        marks = {",": self.word("numbers.thousands"), ".": self.word("numbers.decimal"), "-": MINUS}
        return "".join(marks.get(letter, letter) for letter in text)

    def score(self, value: float, digits: int = 4) -> str:
        """A number of unknown size with so many significant digits."""
        return self.word("numbers.missing") if missing(value) else self.marked(f"{value:.{digits}g}")

    # A standard error, a number of hours, and a whole number with its thousands apart.
    error = partialmethod(score, digits=2)
    hours = partialmethod(number, digits=3)
    count = partialmethod(number, digits=0)

    def gib(self, mebibytes: float) -> str:
        """An amount of memory in GiB."""
        return self.number(mebibytes / 1024)

    def short(self, value: float) -> str:
        """A setting with no more digits than it needs: `0.75`, `12`."""
        return self.marked(f"{value:g}")

    def signed(self, value: float, digits: int = 1) -> str:
        """A number with its sign; what rounds to zero has none."""
        text = self.number(value, digits)
        return f"+{text}" if not missing(value) and value > 0 and any(c in "123456789" for c in text) else text

    def interval(self, value: float, low: float, high: float, sign: bool = False, digits: int = 1) -> str:
        """`12.3 (10.0 to 14.6)`; without the part in brackets where there is no interval."""
        write = self.signed if sign else self.number
        if missing(value) or missing(low) or missing(high):
            return write(value, digits)
        return f"{write(value, digits)} ({write(low, digits)} {self.word('numbers.to')} {write(high, digits)})"

    # A difference with its interval.
    interval_pp = partialmethod(interval, sign=True)

    rate = partialmethod(number, digits=2)

    def chance(self, name: str) -> str:
        """Where the variance between training seeds comes from."""
        return self.words["seed_variances"][name] if name else ""

    def change(self, before: str, after: str) -> str:
        """What became of what."""
        return f"{before} → {after}"

    def percents(self, before: float, after: float) -> str:
        """Two shares, one become the other."""
        return self.change(self.number(before), self.number(after))

    def span(self, low: float, high: float) -> str:
        """A range of numbers."""
        return f"{self.number(low)} {self.word('numbers.to')} {self.number(high)}"

    def counts(self, part: float, whole: float) -> str:
        """Two counts, such as the right answers and all."""
        return f"{self.count(part)} / {self.count(whole)}" if not missing(part) else self.word("numbers.missing")

    def clusters(self, n: float, clusters: float) -> str:
        """A number of questions and, in brackets, on how many databases or subjects they are."""
        return f"{self.count(n)} ({self.count(clusters)})"

    def p(self, value: float) -> str:
        """A p value: `< 0.001`, `0.042`, `1`."""
        if missing(value):
            return self.word("numbers.missing")
        if value >= 0.9995:
            return "1"
        return ("< " if value < 0.001 else "") + self.number(max(value, 0.001), 3)

    def p_is(self, value: float) -> str:
        """A p value as it stands in a sentence: `p = 0.042`, `p < 0.001`."""
        text = self.p(value)
        return f"p {text}" if text.startswith("<") else f"p = {text}"

    def level(self, value: float) -> str:
        """A confidence level such as `95%`."""
        return self.marked(f"{100 * value:g}%")

    def verdict(self, name: str, unit: str = "") -> str:
        """The words of a verdict, a key of `VERDICTS`; nothing where nothing was compared.

        A dagger says that questions alone were taken as drawn at random: it holds for these databases or subjects.
        """
        if missing(name) or not name:
            return ""
        return self.word(f"verdicts.{VERDICTS[name]}") + (f" {DAGGER}" if unit == "question" else "")

    def margin(self, name: str, units: float = float("nan"), unit: str = "", seeds: float = float("nan")) -> str:
        """The verdict on a loss against the margin; where it is open, how many units or seeds would decide it."""
        if missing(name) or not name:
            return ""
        needs = [self.counted(int(n), noun) for n, noun in ((units, unit), (seeds, "seed")) if not missing(n)]
        if name != UNDECIDED or not needs:
            return self.words["margins"][name] + (f" {DAGGER}" if unit == "question" and name != UNDECIDED else "")
        return self.word("margins.needs", needs=f" {self.word('numbers.or')} ".join(needs))

    def of_setting(self, name: str, about: str = "") -> str:
        """The name of a setting; of one training alone, that it is about this run."""
        return self.word("this_run", name=name) if about == THIS_RUN else name

    def choice(self, name: str) -> str:
        """What is said of a candidate of the recommendation."""
        return self.words["choices"][name]

    def level_of(self, name: str, title: bool = False) -> str:
        """A part of the questions, such as a level of hardness; one that no word is for by its name."""
        words = self.words["levels"].get(name)
        return (words[:1].upper() + words[1:] if title else words) if words else name

    def class_of(self, name: str) -> str:
        """What became of the SQL of an answer, such as `wrong rows`."""
        return self.words["classes"][name]

    def about(self, words: str, measure: Any, **values: str) -> str:
        """Words on a task of text-to-SQL, which has a criterion of equality, or on another one."""
        if measure.form != "sql":
            return self.word(f"{words}.other", name=measure.name, **values)
        criterion = self.word("criterion", name=self.words["criteria"][measure.criterion]["name"].lower())
        return self.word(f"{words}.sql", name=measure.name, criterion=criterion, **values)

    def measure(self, task: str, part: str = ALL, words: str = "forms.cell") -> str:
        """What a task measures, and the part of its questions."""
        text = self.about(words, self.measures[task])
        return text if part in ("", ALL) else f"{text}, {self.level_of(part)}"

    def job(self, name: str) -> str:
        """What a job did: the training, or the answers to a task."""
        task = name.removeprefix("predict_")
        return self.word("jobs.train") if task == "train" else self.word("jobs.answers", name=self.measures[task].name)

    def cluster(self, task: str) -> dict[str, str]:
        """What the questions of a task have in common, as `one` and `many`: database and databases."""
        name = {"db_id": "database", "id": "question"}.get(cluster := self.measures[task].cluster, cluster)
        return dict(zip(("one", "many"), self.words["nouns"].get(name, (name, name)), strict=True))

    def counted(self, n: int, noun: str) -> str:
        """How many of something there are: `one adapter`, `12 adapters`."""
        one, many = self.words["nouns"].get(noun, (noun, noun))
        return f"{self.word('numbers.one')} {one}" if n == 1 else f"{self.count(n)} {many}"

    def told(self, reasons: Sequence, marked: Callable[[str], str] = str, between: str = "; ") -> str:
        """Write why a printed figure can be or not: keys of the words, each with what is filled in.

        `marked` writes a number with its marks.
        """

        def value(one: str | Sequence) -> str:
            if not isinstance(one, str):
                return self.told(one, marked, ", ")
            return one if any(letter.isalpha() for letter in one) else marked(one)

        return between.join(
            self.word(f"tables.published.why.{key}", **{name: value(one) for name, one in values.items()})
            for key, values in reasons
        )

    def printed(self, value: float, kind: str, decimals: int) -> str:
        """A figure as a report printed it: a change has its sign."""
        return (self.signed if kind == "change" else self.number)(value, int(decimals))

    def compared(self, value: float, low: float, high: float, kind: str) -> str:
        """Our figure beside a printed one; a change has its sign and no interval."""
        return self.interval(value, low, high, sign=kind == "change")

    def allowed(self, value: bool | None) -> str:
        """Whether a printed figure is possible, or that this cannot be told."""
        return self.word("allowed.unknown" if missing(value) else f"allowed.{'yes' if value else 'no'}")

    def held(self, value: bool | None) -> str:
        """Whether our interval holds a printed figure."""
        return self.word("numbers.missing" if missing(value) else f"held.{'yes' if value else 'no'}")

    # A name as it is.
    text = staticmethod(str)

    def axis(self, name: str) -> str:
        """A setting without its section; without a name, settings as a whole."""
        return setting_name(name) or self.word("columns.setting").lower()

    def effect(self, task: str, part: str = ALL, measure: str = RIGHT) -> str:
        """What a row of the table of settings measures."""
        text = self.measure(task, part)
        return text if measure == RIGHT else self.word("probability", measure=text)

    def code(self, value: str) -> str:
        """A name as code."""
        return f"`{value}`"

    def listed(self, names: Sequence[str], most: int = 4) -> str:
        """Names as a list in a sentence: `a, b and c`; of more than `most`, how many more there are."""
        shown = [*names] if len(names) <= most else [*names[:most], self.word("numbers.more", n=len(names) - most)]
        return f" {self.word('numbers.and')} ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def defects(known: Sequence[str], accepted: Sequence[str], say: Say) -> str:
    """What must stand under every result of a study with known defects, as Markdown; nothing for one without."""
    text = ""
    if accepted:
        text += f"\n**{say.word('defects.accepted', names=', '.join(accepted))} {say.word('defects.where')}**\n"
    if known:
        text += f"\n{say.word('defects.known')}:\n\n" + "".join(f"* {sentence}\n" for sentence in known)
    return text
