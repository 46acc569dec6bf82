"""The page of performance: what a run measured, as a small JSON file and as Markdown tables.

``python benchmarks/bench_page.py docs`` writes the tables of the JSON files in a folder anew.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PAGE = "performance.md"

_MILLION = 1e6


def measured(raw: dict[str, Any]) -> dict[str, Any]:
    """Return what to save of pytest-benchmark's JSON: the machine, and a row per measurement."""
    rows = [
        {
            **each["extra_info"],
            "median_ms": _rounded(each["stats"]["median"] * 1e3),
            "iqr_ms": _rounded(each["stats"]["iqr"] * 1e3),
            "rounds": each["stats"]["rounds"],
        }
        for each in raw["benchmarks"]
        if "table" in each["extra_info"]  # else it failed before it was measured
    ]
    return {"environment": raw["environment"], "rows": rows}


def of_all(raws: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what several processes measured as if one had, in the order of the benchmarks."""
    order = {name: place for place, name in enumerate(raws[0]["order"])}
    rows = [each for raw in raws for each in raw["benchmarks"]]
    loads = [raw["environment"]["load"] for raw in raws]
    return {
        "environment": {**raws[0]["environment"], "load": max(loads)},
        "benchmarks": sorted(rows, key=lambda each: order[each["fullname"]]),
    }


def tables(found: dict[str, Any]) -> str:
    """Return the tables of a run as Markdown, under a line that says where it was made."""
    titles = dict.fromkeys(each["table"] for each in found["rows"])
    parts = [_made_on(found["environment"])]
    for title in titles:
        rows = [each for each in found["rows"] if each["table"] == title]
        parts.append(f"### {title}\n\n{_table(rows)}")
    return "\n\n".join(parts)


def write_page(folder: Path) -> None:
    """Write the tables of every ``performance*.json`` in ``folder`` into its page, each in place.

    A file's place is between two comments that name it; one without a place gets it at the end.
    """
    page = folder / PAGE
    text = page.read_text(encoding="utf-8") if page.exists() else "# Performance\n"
    for file in sorted(folder.glob("performance*.json")):
        text = with_tables(text, file.name, json.loads(file.read_text(encoding="utf-8")))
    page.write_text(text, encoding="utf-8")


def with_tables(text: str, name: str, found: dict[str, Any]) -> str:
    """Return the page with the tables of the file ``name`` in their place."""
    begin, end = f"<!-- tables of {name} -->", f"<!-- end of {name} -->"
    if begin not in text:
        text = f"{text.rstrip()}\n\n{begin}\n{end}\n"
    inside = f"{begin}\n\n{tables(found)}\n\n{end}"
    return re.sub(f"{re.escape(begin)}.*{re.escape(end)}", lambda _: inside, text, flags=re.S)


def _made_on(machine: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {found}" for name, found in machine["packages"].items())
    device = "" if machine["device"] == "cpu" else f"{machine['device']}; "
    threads = machine["threads"] or "the usual number of"
    jobs = machine.get("jobs", 1)
    at_once = "" if jobs == 1 else f", {jobs} benchmarks at a time, each on a core of its own"
    return (
        f"Made on {device}{machine['cpu']}, {machine['cpus']} cores, {threads} thread(s){at_once}, "
        f"a load of {machine['load']}; suite {machine['suite']}, Python {machine['python']}, "
        f"{packages}."
    )


def _table(rows: list[dict[str, Any]]) -> str:
    columns = list(dict.fromkeys(each["column"] for each in rows))
    cells: dict[str, dict[str, str]] = {}
    for each in rows:
        for name, cell in (*_cells(each), *_ratios(each, rows)):
            cells.setdefault(name, {})[each["column"]] = cell
    lines = [f"| | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for name, found in cells.items():
        lines.append(f"| {name} | {' | '.join(found.get(each, '') for each in columns)} |")
    return "\n".join(lines)


def _cells(row: dict[str, Any]) -> Iterable[tuple[str, str]]:
    """Yield what a measurement says: its time, its rate where it has one, or its parts."""
    if "parts" in row:
        yield from ((part, f"{share:.0%}") for part, share in row["parts"].items())
        yield row["row"], f"{row['median_ms'] / 1e3:.3g} s"
        return
    words = f"{_three_digits(row['median_ms'])} ms"
    if "least_bytes" in row:
        least_ms = row["least_bytes"] / row["copy_bandwidth"] * 1e3
        words += f" ({least_ms / row['median_ms']:.1%})" + "*" * row["whole_call"]
    yield row["row"], words
    if "token_routings" in row:
        rate = row["token_routings"] / row["median_ms"] * 1e3 / _MILLION
        yield f"{row['row']}, million token-routings a second", f"{rate:.2f}"


def _ratios(row: dict[str, Any], rows: list[dict[str, Any]]) -> Iterable[tuple[str, str]]:
    """Yield how many times the row takes what another of its column takes, if it names one."""
    for other in rows:
        if (other["row"], other["column"]) == (row.get("over"), row["column"]):
            yield (
                f"{row['row']}, times {other['row']}",
                f"{row['median_ms'] / other['median_ms']:.1f}",
            )


def _three_digits(value: float) -> str:
    """Return a number with three significant digits, never as a power of ten."""
    return f"{value:.0f}" if value >= 100.0 else f"{value:#.3g}"


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def main(given: list[str]) -> None:
    """Write the page of the folder that is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="docs, for example")
    folder = parser.parse_args(given).folder
    if not any(folder.glob("performance*.json")):
        parser.error(f"Expected a folder with performance*.json, but got {folder}")
    write_page(folder)


if __name__ == "__main__":
    main(sys.argv[1:])
