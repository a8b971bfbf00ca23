"""How numbers, intervals, p values and verdicts are written. Every output uses this module and no other way.

There is one minus sign (U+2212), one way to print p, and one dagger. CSV files hold plain numbers at full precision;
only what a person reads passes through here.
"""

from collections.abc import Sequence
from typing import Any

from present.words import read_words

MINUS = "\N{MINUS SIGN}"
DAGGER = "\N{DAGGER}"
# What the tables call a verdict, and its key in the words.
VERDICTS = {
    "better": "better",
    "worse": "worse",
    "not distinguishable at this n": "same",
    "higher": "higher",
    "lower": "lower",
}


def missing(value: Any) -> bool:
    """Tell whether a value is None, NaN or pandas' NA."""
    return value is None or value != value or type(value).__name__ in ("NAType", "NaTType")


class Say:
    """Numbers and shared words of one language.

    The methods are the filters of the templates, the formats of the catalogue's columns, and the labels of axes.

    Args:
        language: one of `present.words.LANGUAGES`.
    """

    def __init__(self, language: str):
        self.language, self.words = language, read_words(language)

    def word(self, key: str, /, **values: Any) -> str:
        """Return the words at a dotted key such as `verdicts.better`, with `values` filled in.

        Raises:
            KeyError: there is no such key.
        """
        found: Any = self.words
        for part in key.split("."):
            found = found[part]
        return found.format(**values) if values else found

    def number(self, value: float, digits: int = 1) -> str:
        """Return a number with so many decimals; a negative zero has no sign, a missing value is n/a."""
        if missing(value):
            return self.word("numbers.missing")
        text = f"{value:,.{digits}f}"
        if not float(text.replace(",", "")):
            text = text.removeprefix("-")
        marks = {",": self.word("numbers.thousands"), ".": self.word("numbers.decimal"), "-": MINUS}
        return "".join(marks.get(letter, letter) for letter in text)

    def count(self, value: float) -> str:
        """Return a whole number with its thousands apart."""
        return self.number(value, 0)

    def short(self, value: float) -> str:
        """Return a setting with no more digits than it needs: `0.75`, `12`."""
        return f"{value:g}".replace("-", MINUS).replace(".", self.word("numbers.decimal"))

    def signed(self, value: float, digits: int = 1) -> str:
        """Return a number with its sign; what rounds to zero has none."""
        text = self.number(value, digits)
        return f"+{text}" if not missing(value) and value > 0 and any(c in "123456789" for c in text) else text

    def interval(self, value: float, low: float, high: float, sign: bool = False, digits: int = 1) -> str:
        """Return `12.3 (10.0 to 14.6)`; without the part in brackets where there is no interval."""
        write = self.signed if sign else self.number
        if missing(value) or missing(low) or missing(high):
            return write(value, digits)
        return f"{write(value, digits)} ({write(low, digits)} {self.word('numbers.to')} {write(high, digits)})"

    def p(self, value: float) -> str:
        """Return a p value: `< 0.001`, `0.042`, `1`."""
        if missing(value):
            return self.word("numbers.missing")
        if value >= 0.9995:
            return "1"
        return ("< " if value < 0.001 else "") + self.number(max(value, 0.001), 3)

    def p_is(self, value: float) -> str:
        """Return a p value as it stands in a sentence: `p = 0.042`, `p < 0.001`."""
        text = self.p(value)
        return f"p {text}" if text.startswith("<") else f"p = {text}"

    def level(self, value: float) -> str:
        """Return a confidence level such as `95%`."""
        return f"{100 * value:g}%".replace(".", self.word("numbers.decimal"))

    def seconds(self, value: float) -> str:
        """Return a duration in whole seconds."""
        return self.count(value)

    def verdict(self, name: str, unit: str = "") -> str:
        """Return the words of a verdict, with a dagger where it holds for these databases or subjects alone.

        Args:
            name: as the tables have it, a key of `VERDICTS`.
            unit: what was taken as drawn at random; `question` brings the dagger.

        Raises:
            KeyError: no verdict has this name.
        """
        words = self.word(f"verdicts.{VERDICTS[name]}")
        return f"{words} {DAGGER}" if unit == "question" else words

    def listed(self, names: Sequence[str], most: int = 4) -> str:
        """Return names as a list in a sentence: `a, b and c`; of more than `most`, how many more there are."""
        shown = [*names] if len(names) <= most else [*names[:most], self.word("numbers.more", n=len(names) - most)]
        return f" {self.word('numbers.and')} ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
