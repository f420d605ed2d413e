#!/usr/bin/env python3
"""Whether fill.py has left a row in every table.

    python3 coverage.py --database FILE.db

Prints JSON: the rows of each table, and why a table is empty. Exit code 1 if a table is empty without a reason, or has
rows in spite of one.
"""

import argparse
import json
import sqlite3
import sys

# Tables that a filled store of 3.17.2 has and that nothing in that release writes; 2.9.2 and 3.4.0 leave none empty.
EMPTY = {
    "span_metrics": "3.17.2 keeps costs in columns of `spans`; releases between 3.4 and 3.17 wrote them here",
    "trace_metrics": "3.17.2 keeps tokens in columns of `trace_info`; releases between 3.4 and 3.17 wrote them here",
}


def rows(database: str) -> dict[str, int]:
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        tables = [
            name
            for (name,) in connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
            )
        ]
        return {table: connection.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0] for table in tables}


def main() -> int:
    parser = argparse.ArgumentParser(description="rows of every table of a filled SQLite store")
    parser.add_argument("--database", required=True)
    options = parser.parse_args()
    counts = rows(options.database)
    wrong = [table for table, count in counts.items() if (count == 0) != (table in EMPTY)]
    empty = {table: EMPTY.get(table) for table, count in counts.items() if count == 0}
    print(json.dumps({"rows": counts, "empty": empty, "wrong": wrong}, indent=1))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
