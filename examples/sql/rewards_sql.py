"""A reward of your own: SQL answers, checked against a database that each process opens once."""

import sqlite3

from rewards.define import reward

SCHEMA = """
CREATE TABLE books (id INTEGER PRIMARY KEY, title TEXT, author TEXT, year INTEGER, price REAL);
INSERT INTO books (title, author, year, price) VALUES
 ('Emma', 'Austen', 1815, 7.5), ('Persuasion', 'Austen', 1817, 6.0), ('Ulysses', 'Joyce', 1922, 12.0),
 ('Dubliners', 'Joyce', 1914, 8.0), ('Orlando', 'Woolf', 1928, 9.5), ('The Waves', 'Woolf', 1931, 9.0);
"""
ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}


@reward(timeout_s=5, concurrency=2)
class SameRows:
    """1.0 where the query returns the reference's rows, in any order; queries may read and nothing else."""

    def __init__(self) -> None:
        self.database = sqlite3.connect(":memory:")
        self.database.executescript(SCHEMA)
        self.database.set_authorizer(lambda action, *_: 0 if action in ALLOWED else 1)

    def __call__(self, prompt: str, completion: str, *, reference: str) -> float:
        query = completion.rpartition("```sql")[2].partition("```")[0]
        try:
            found = self.database.execute(query).fetchmany(1000)
        except (sqlite3.Error, sqlite3.Warning, ValueError):
            return 0.0
        return float(sorted(found, key=repr) == sorted(self.database.execute(reference).fetchall(), key=repr))
