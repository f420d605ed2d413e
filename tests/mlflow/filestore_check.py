#!/usr/bin/env python3
"""Whether two servers told the same but for the ids of experiments.

    python3 filestore_check.py --before A.json --after B.json --ids MAP.json [--spans-kept] [--address OLD=NEW]...

A and B are answers of `answers.py`: A of the server on the store as it was, B of the server on its copy whose
experiments got other ids. MAP is a JSON object of texts, {"490770468155569826": "1", ...}; ids that are not in it
stayed. A's ids are replaced where an experiment's id belongs - never by searching texts for digits - then both are
sorted anew, as the order of lists goes by what is in them, and compared byte by byte. Experiments of equal age are
told in the order of their ids, so the copy's ids have to be in the order of the old ones.

A span can say for which experiment it was started. Spans that are in the database are to say the new id; those that
are in files, of a file store and of 2.x, cannot but say the old one. With --spans-kept all of them say the old one.

With --address, A's texts that are OLD or begin with OLD/ begin with NEW instead: for a copy whose artifacts have
moved. All else, artifact addresses too, has to be as it was.

An old id of nine digits or more that B still tells outside an address is an error as well, wherever it stands: it
finds the places that neither this script nor the copy knows. Only the standard library is used.

Prints one JSON object; exit code 0 if they are the same, 1 if not, 2 if the map is no map of the answers.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator

from answers import canonical

# Sections of the answers that are objects by an experiment's id.
BY_EXPERIMENT = ("datasets", "logged models", "traces", "scorers", "reviews", "issues")
# Fields that hold an id: a text, or a number (of scorers).
ID_FIELDS = {"experiment_id", "experimentId"}
# An attribute of spans that holds one: a text, or a text of JSON.
SPAN_FIELD = "mlflow.experimentId"
IN_DATABASE = ("mlflow.trace.spansLocation", "TRACKING_STORE")
LIST_FIELDS = {"experiment_ids"}
# A tag that holds ids as ",1,2,".
LIST_TAG = "_mlflow_experiment_ids"
DISTINCTIVE = 9
SHOWN = 10


class Mapped:
    """Answers with the ids and addresses of the copy."""

    def __init__(self, ids: dict[str, str], addresses: list[tuple[str, str]], *, spans: bool):
        self.ids = ids
        self.addresses = addresses
        self.spans = spans

    def id(self, value: object) -> object:
        """One id, in the form in which it came."""
        if isinstance(value, int):
            return int(self.ids.get(str(value), value))
        if not isinstance(value, str):
            return self.value(value)
        if value.startswith('"') and value.endswith('"'):
            return f'"{self.id(value[1:-1])}"'
        return self.ids.get(value, value)

    def ids_of(self, value: object) -> object:
        if isinstance(value, dict):
            return {name: self.ids_of(below) for name, below in value.items()}
        return [self.id(item) for item in value] if isinstance(value, list) else value

    def tag(self, value: str) -> str:
        return ",".join(self.ids.get(part, part) for part in value.split(","))

    def text(self, value: str) -> str:
        for old, new in self.addresses:
            if value == old or value.startswith(f"{old}/"):
                return new + value[len(old) :]
        return value

    def field(self, name: str, value: object) -> object:
        if name in ID_FIELDS or (name == SPAN_FIELD and self.spans):
            return self.id(value)
        if name in LIST_FIELDS:
            return self.ids_of(value)
        if name == LIST_TAG and isinstance(value, str):
            return self.tag(value)
        return self.value(value)

    def pair(self, pair: dict) -> dict:
        """What changes in an object of a key and a value: of tags, and of spans in the form of OpenTelemetry."""
        value = pair.get("value")
        if pair["key"] == LIST_TAG and isinstance(value, str):
            return {"value": self.tag(value)}
        if pair["key"] == SPAN_FIELD and self.spans and isinstance(value, dict):
            return {"value": {kind: self.id(below) for kind, below in value.items()}}
        return {}

    def value(self, value: object) -> object:
        if isinstance(value, dict):
            mapped = {name: self.field(name, below) for name, below in value.items()}
            return mapped | self.pair(mapped) if "key" in mapped else mapped
        if isinstance(value, list):
            return [self.value(item) for item in value]
        return self.text(value) if isinstance(value, str) else value

    def trace(self, trace: dict) -> dict:
        """A trace's own location is a row; its spans are rows only where its tags say so."""
        location, rows = IN_DATABASE
        in_database = trace["searched"].get("tags", {}).get(location) == rows
        return Mapped(self.ids, self.addresses, spans=self.spans and in_database).value(trace)

    def answers(self, answers: dict) -> dict:
        """The whole document: beside fields, there are objects by id and lists of nothing but ids."""
        mapped = self.value({name: below for name, below in answers.items() if name != "traces"})
        if "traces" in answers:
            mapped["traces"] = {
                number: {trace_id: self.trace(trace) for trace_id, trace in traces.items()}
                for number, traces in answers["traces"].items()
            }
        for section in BY_EXPERIMENT:
            if section in mapped:
                mapped[section] = {self.id(number): below for number, below in mapped[section].items()}
        mapped["experiments"]["by view"] = self.ids_of(mapped["experiments"]["by view"])
        mapped["ordered"]["experiments"] = self.ids_of(mapped["ordered"]["experiments"])
        return mapped


def leaves(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """Everything in it with its place; an object's names are told as its leaves too."""
    if isinstance(value, dict):
        for name, below in value.items():
            yield (*path, "(name)"), name
            yield from leaves(below, (*path, name))
    elif isinstance(value, list):
        for place, below in enumerate(value):
            yield from leaves(below, (*path, str(place)))
    else:
        yield path, value


def leftovers(answers: dict, ids: dict[str, str]) -> list[str]:
    """Places that still tell an old id, but for the folders of addresses and for spans."""
    old = [number for number, new in ids.items() if len(number) >= DISTINCTIVE and number != new]
    if not old:
        return []
    # In an address an id is a folder: after a slash (or a backslash), and before one or at the end.
    outside = re.compile(rf"(?<![/\\\d])({'|'.join(map(re.escape, old))})(?!\d)")
    return [
        f"{'/'.join(path)}: {str(value)[:200]}"
        for path, value in leaves(answers)
        if outside.search(str(value)) and not (path[0] == "traces" and "spans" in path)
    ]


def difference(before: dict, after: dict) -> tuple[int, str, str] | None:
    """The first line that differs, with the number of the lines that do."""
    first, second = (json.dumps(told, sort_keys=True, indent=1).splitlines() for told in (before, after))
    if first == second:
        return None
    pairs = list(zip(first, second))
    return next(
        ((line + 1, a, b) for line, (a, b) in enumerate(pairs) if a != b),
        (len(pairs) + 1, *((told[len(pairs) :] or ["(end)"])[0] for told in (first, second))),
    )


def place(before: object, after: object, path: tuple[str, ...] = ()) -> str:
    """Where two documents part, as names from the top."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted(before.keys() | after.keys()):
            if name not in before or name not in after:
                return "/".join((*path, name)) + (" (only before)" if name in before else " (only after)")
            if before[name] != after[name]:
                return place(before[name], after[name], (*path, name))
    if isinstance(before, list) and isinstance(after, list):
        for number, (a, b) in enumerate(zip(before, after)):
            if a != b:
                return place(a, b, (*path, str(number)))
        return "/".join(path) + f" ({len(before)} and {len(after)} items)"
    return "/".join(path)


def read_ids(path: str, answers: dict) -> dict[str, str]:
    """The map, if it is one: of digits, onto different ids, of experiments that the first server told of."""
    with open(path) as handle:
        ids = json.load(handle)
    wrong = not isinstance(ids, dict) or any(
        not isinstance(number, str) or not number.isdigit() for pair in ids.items() for number in pair
    )
    known = set(answers["experiments"]["by view"]["ALL"])
    if wrong or len({ids.get(number, number) for number in known}) != len(known) or not ids.keys() <= known:
        print(f"filestore_check: {path} is no map of these answers' experiments", file=sys.stderr)
        raise SystemExit(2)
    return ids


def main() -> None:
    parser = argparse.ArgumentParser(description="compare two servers' answers but for the ids of experiments")
    parser.add_argument("--before", required=True, help="answers of the server on the store as it was")
    parser.add_argument("--after", required=True, help="answers of the server on the copy")
    parser.add_argument("--ids", required=True, help="JSON object of texts: old id to new id")
    parser.add_argument("--spans-kept", action="store_true", help="the copy left what spans say as it was")
    parser.add_argument("--address", action="append", default=[], metavar="OLD=NEW")
    options = parser.parse_args()
    documents = []
    for path in (options.before, options.after):
        with open(path) as handle:
            documents.append(json.load(handle))
    before, after = documents
    ids = read_ids(options.ids, before)
    addresses = [tuple(pair.rstrip("/") for pair in given.split("=", 1)) for given in options.address]
    mapped = Mapped(ids, addresses, spans=not options.spans_kept).answers(before)
    before, after = canonical(mapped, set()), canonical(after, set())
    report = {
        "same": True,
        "ids": len(ids),
        "lines": json.dumps(after, indent=1).count("\n") + 1,
        "old ids left": (left := leftovers(after, ids))[:SHOWN],
    }
    if found := difference(before, after):
        line, first, second = found
        report |= {"line": line, "place": place(before, after), "before": first.strip(), "after": second.strip()}
    report["same"] = not found and not left
    print(json.dumps(report, ensure_ascii=False, indent=1))
    raise SystemExit(0 if report["same"] else 1)


if __name__ == "__main__":
    main()
