"""How numbers, intervals, p values and verdicts are written, in each language."""

import math

import pandas as pd
import pytest

from _study import MEASURES
from present.format import DAGGER, MINUS, VERDICTS, Say
from present.values import NOT_LOST, SAME, UNDECIDED

EN, PT = Say("en", MEASURES), Say("pt", MEASURES)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (EN.number(-1234.56), f"{MINUS}1,234.6"),
        (PT.number(-1234.56), f"{MINUS}1.234,6"),
        (EN.number(-0.04), "0.0"),
        (EN.count(1034), "1,034"),
        (EN.signed(0.04), "0.0"),
        (EN.signed(-0.04), "0.0"),
        (EN.signed(2.5), "+2.5"),
        (PT.signed(-2.5), f"{MINUS}2,5"),
        (EN.interval(30, 18.14, 45.44), "30.0 (18.1 to 45.4)"),
        (PT.interval(30, 18.14, 45.44), "30,0 (18,1 a 45,4)"),
        (EN.interval_pp(3, -1.8, 7.8), f"+3.0 ({MINUS}1.8 to +7.8)"),
        (EN.interval_pp(math.nan, math.nan, math.nan), "n/a"),
        (EN.percents(43, 66.8), "43.0 → 66.8"),
        (EN.span(37.5, 42.5), "37.5 to 42.5"),
        (EN.counts(12, 1040), "12 / 1,040"),
        (EN.counts(math.nan, 40), "n/a"),
        (EN.counts(pd.NA, 40), "n/a"),
        (EN.clusters(1034, 20), "1,034 (20)"),
        (EN.p(0.0004), "< 0.001"),
        (EN.p(0.0421), "0.042"),
        (PT.p(0.0421), "0,042"),
        (EN.p(0.9996), "1"),
        (EN.p(math.nan), "n/a"),
        (EN.score(0.5), "0.5"),
        (EN.score(12.34567), "12.35"),
        (PT.error(0.01234), "0,012"),
        (EN.hours(0.1), "0.100"),
        (EN.gib(2048), "2.0"),
        (EN.level(0.95), "95%"),
        (EN.measure("mmlu", "stem"), "MMLU, STEM"),
        (EN.measure("mmlu"), "MMLU"),
        (PT.measure("spider", ""), "Acurácia de execução no Spider"),
        (PT.cluster("spider")["many"], "bancos de dados"),
        (EN.listed([]), ""),
        (EN.listed(["a"]), "a"),
        (EN.listed(["a", "b", "c"]), "a, b and c"),
        (EN.printed(9.5, "change", 2), "+9.50"),
        (EN.printed(51, "accuracy", 0), "51"),
        (EN.compared(9.5, math.nan, math.nan, "change"), "+9.5"),
        (EN.allowed(None), "?"),
        (EN.allowed(False), "**no**"),
        (PT.held(True), "sim"),
        (EN.held(math.nan), "n/a"),
    ],
)
def test_numbers(text, wanted):
    assert text == wanted


def test_a_verdict_that_holds_for_these_databases_alone_has_a_dagger():
    assert EN.verdict("worse", "question") == f"worse {DAGGER}"
    assert EN.verdict("worse", "database") == "worse"
    assert PT.verdict(SAME, "question") == f"não distinguível com este n {DAGGER}"
    assert EN.margin(NOT_LOST, unit="question") == f"no more than the margin lost {DAGGER}"
    assert EN.margin(UNDECIDED, 1200, "question", 8) == "undecided: 1,200 questions or 8 seeds a setting would decide"
    assert EN.margin(UNDECIDED, float("nan"), "database", float("nan")) == "undecided"
    assert EN.verdict("") == EN.verdict(math.nan) == ""
    with pytest.raises(KeyError):
        EN.verdict("excellent")
    assert all(EN.verdict(name) and PT.verdict(name) for name in VERDICTS)
