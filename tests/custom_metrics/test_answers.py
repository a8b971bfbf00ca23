"""Answers as models write them: the query that a reader takes is the one that is taken."""

import html
import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from custom_metrics.extract import extract_sql
from custom_metrics.sandbox import Database

SCHEMA = """
CREATE TABLE stadium (Stadium_ID int, Location text, Name text, Capacity int, Average int);
CREATE TABLE singer (Singer_ID int, Name text, Country text, Song_Name text, Age int, "Song release year" text);
CREATE TABLE concert (concert_ID int, concert_Name text, Stadium_ID int, Year text);
CREATE TABLE singer_in_concert (concert_ID int, Singer_ID int);
"""
DRAFT = "SELECT Capacity FROM stadium"
QUERIES = [
    "SELECT count(*) FROM singer",
    "SELECT Name, Song_Name FROM singer WHERE Age >= 20 AND Country != 'France' ORDER BY Age DESC LIMIT 3",
    "SELECT T2.Name,\n       count(*) AS n\nFROM concert AS T1\nJOIN stadium AS T2 ON T1.Stadium_ID = T2.Stadium_ID\n"
    "GROUP BY T1.Stadium_ID\nHAVING count(*) > 1",
    "select Name from singer where Singer_ID not in (select Singer_ID from singer_in_concert)",
    "WITH old AS (\n  SELECT * FROM singer WHERE Age > 40\n)\n\nSELECT Country, avg(Age)\nFROM old\nGROUP BY Country",
    "SELECT Name FROM singer WHERE Country = 'Cote d''Ivoire'\nUNION\nSELECT Name FROM stadium\nWHERE Capacity < 900",
    "SELECT CASE WHEN Age < 30 THEN 'young; free' ELSE 'old' END, count(*) FROM singer GROUP BY 1",
]


@pytest.fixture(scope="module")
def check(tmp_path_factory):
    path = tmp_path_factory.mktemp("concert") / "concert.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(SCHEMA)
    database = Database(path)
    yield database.check
    database.close()


def filled(text: str, sql: str) -> str:
    """Return a template with a query in the places for it."""
    inside = json.dumps(sql)[1:-1]
    forms = {
        "Q": sql,
        "O": " ".join(sql.split()),
        "D": DRAFT,
        "J": inside,
        "JJ": json.dumps(inside)[1:-1],
        "H": html.escape(sql, quote=False),
        "L": " ".join(sql.split()).replace("_", r"\_"),
        "B": "> " + sql.replace("\n", "\n> "),
    }
    return re.sub("«([A-Z]+)»", lambda found: forms[found[1]], text)


def corpus():
    text = (Path(__file__).parent / "answers.txt").read_text(encoding="utf-8")
    number = 0
    for part in text.split("\n=== ")[1:]:
        name, _, template = part.partition("\n")
        for _ in range(3):
            sql = QUERIES[number % len(QUERIES)]
            number += 1
            yield pytest.param(filled(template.removesuffix("\n"), sql), sql, id=f"{name}-{number}")


CORPUS = list(corpus())


def same(sql: str) -> str:
    # The period of "LIMIT 3." is one of a number to SQLite, and does not matter.
    sql = re.sub(r"\s*/\*[^*]*\*/\Z", "", sql)  # nor does a comment
    return " ".join(sql.split()).removesuffix(";").removesuffix(".").rstrip()


@pytest.mark.parametrize(("answer", "sql"), CORPUS)
def test_the_query_is_the_one_that_a_reader_takes(answer, sql, check):
    assert same(re.sub(r"^-- .*\n", "", extract_sql(answer, check))) == same(sql)


@pytest.mark.parametrize(("answer", "sql"), CORPUS)
def test_the_same_without_a_database(answer, sql):
    assert same(re.sub(r"^-- .*\n", "", extract_sql(answer))) == same(sql)


def test_there_are_enough_of_them():
    assert len(CORPUS) >= 300
