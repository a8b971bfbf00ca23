"""What fails on every engine in the same way, on a database with the tables animal (id, name) and keeper (id, name)."""

# Queries, and the class of each error.
FAILURES = [
    ("", "no_sql"),
    (" \n;\n-- nothing\n/* here */", "no_sql"),
    ("Here is the SQL you asked for", "no_sql"),
    ("SELECT (1", "syntax_error"),
    ("SELECT 'open", "syntax_error"),
    ("SELECT 1\0", "syntax_error"),
    ("SELECT '\ud800'", "syntax_error"),
    ("SELECT * FROM absent", "no_such_table"),
    ("SELECT * FROM absent.animal", "no_such_table"),
    ("SELECT age FROM animal", "no_such_column"),
    ("SELECT a.age FROM animal a", "no_such_column"),
    ("SELECT T2.name FROM animal AS T1", "no_such_column"),
    ("SELECT name FROM animal, keeper", "ambiguous_column"),
    ("SELECT absent(1)", "other_sql_error"),
    ("SELECT name, count(*) FROM animal", "other_sql_error"),
    ("SELECT 1" + " " * 200_000, "too_large"),
]
