"""The order of the packages: every import, late ones too, leads to one at or below its own."""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

import layers
import pytest
from layers import FOLDERS, ORDER, House, circles, imports_of, read_house, room

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(
    not (ROOT / FOLDERS[0]).is_dir(), reason="the source tree is not here"
)


@pytest.fixture(scope="module")
def tree() -> House:
    """The house of this checkout."""
    return read_house(ROOT)


def test_order_names_every_package_once_and_nothing_else(tree: House) -> None:
    rooms = {room(module) for module in tree.modules}
    assert Counter(ORDER) == Counter(rooms), "a new package needs its place in ORDER (layers.py)"


def test_an_import_leads_to_a_package_at_or_below_its_own(tree: House) -> None:
    up = [each for each in tree.imports if each.points_up]
    assert not up, "\n".join(f"{e}, which stands above {room(e.module)} in ORDER" for e in up)


def test_what_lies_in_a_package_imports_in_no_circle(tree: House) -> None:
    found = []
    for package in tree.packages:
        graph = tree.inside(package)
        for circle in circles(graph):
            around = imports_of(graph, graph.subgraph(circle).edges)
            found += [f"a circle of {', '.join(circle)}:", *map(str, around)]
    assert not found, "\n".join(found)


def test_only_the_face_imports_by_a_computed_name(tree: House) -> None:
    computed = re.compile(r"(import_module|__import__)\((?!\"\w)")
    found = [
        name
        for name, path in tree.modules.items()
        if room(name) not in FOLDERS[:2] and computed.search(path.read_text(encoding="utf-8"))
    ]
    assert found == ["conformance"], f"{found}: such an import has no place in the figures"


# The checker itself, on small houses.


CLIMB = "moe_routing.conformance.zoo"
"""What stands above the judge, whose module imports it in one way or another."""


def house(tmp_path: Path, texts: dict[str, str]) -> House:
    """A house of these modules, and of the packages that they need."""
    for name, text in texts.items():
        path = tmp_path.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        for folder in path.relative_to(tmp_path).parents:
            if folder.parts:
                (tmp_path / folder / "__init__.py").touch()
    return read_house(tmp_path)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        (f"import {CLIMB}", "zoo"),
        (f"import {CLIMB}.mutants as wrong", "zoo.mutants"),
        (f"from {CLIMB} import mutants", "zoo.mutants"),
        ("from moe_routing.conformance import zoo", "zoo"),
        (f"from {CLIMB}.mutants import WRONG", "zoo.mutants"),
        (f"def late():\n    from {CLIMB} import mutants", "zoo.mutants"),
        (f"if TYPE_CHECKING:\n    from {CLIMB}.mutants import Mutant", "zoo.mutants"),
        (f"try:\n    import {CLIMB}\nexcept ImportError: ...", "zoo"),
        (f"import_module('{CLIMB}.mutants')", "zoo.mutants"),
        (f"ZOO = {{'mutants': '{CLIMB}.mutants:WRONG'}}", "zoo.mutants"),
        (f"import {CLIMB}; import moe_routing.reference", "zoo"),
        ("from moe_routing.conformance import check", ""),  # the face
    ],
)
def test_an_upward_import_is_found_however_it_is_written(
    tmp_path: Path, text: str, target: str
) -> None:
    found = house(
        tmp_path,
        {
            "conformance.judge.verdict": text,
            "conformance.zoo.mutants": "WRONG = 1",
            "reference.routing": "",
        },
    )
    (up,) = [each for each in found.imports if each.points_up]
    line = 1 + text.count("\n", 0, text.index("moe_routing"))
    where = f"conformance/judge/verdict.py:{line}"
    assert str(up) == f"{where} imports conformance.{target}".rstrip(".")


@pytest.mark.parametrize(
    "text",
    [
        "import torch",
        "from moe_routing.conformance.judge import bounds",
        "from moe_routing.conformance.generators.axes import AXES",
        "import moe_routing.reference",
        f"'''Unlike {CLIMB}.'''",
    ],
)
def test_an_import_of_its_own_level_or_below_is_not(tmp_path: Path, text: str) -> None:
    found = house(
        tmp_path,
        {
            "conformance.judge.verdict": text,
            "conformance.judge.bounds": "",
            "conformance.generators.axes": "AXES = ()",
            "conformance.zoo.mutants": "",
            "reference.routing": "",
        },
    )
    assert not [each for each in found.imports if each.points_up]


def test_a_package_without_a_place_is_found_where_it_is_imported(tmp_path: Path) -> None:
    text = "from moe_routing.conformance.attic import box"
    found = house(
        tmp_path,
        {"conformance.cli.check": text, "conformance.attic.box": "", "conformance.attic.a": text},
    )
    up = [each.module for each in found.imports if each.points_up]
    assert up == ["conformance.cli.check"]


def test_circles_are_found_where_they_are(tmp_path: Path) -> None:
    found = house(
        tmp_path,
        {
            "conformance.run.engine": "from moe_routing.conformance.run.isolation import watch",
            "conformance.run.isolation.watch": "from moe_routing.conformance.run.jobs import Jobs",
            "conformance.run.jobs": "def late():\n    import moe_routing.conformance.run.engine",
            "conformance.run.seat": "from moe_routing.conformance.run import engine",
        },
    )
    three = ["conformance.run.engine", "conformance.run.isolation", "conformance.run.jobs"]
    assert circles(found.inside("conformance.run")) == [three]
    assert not circles(found.inside("conformance.run.isolation"))
    assert not circles(found.rooms())


OLD = {
    "conformance.engine": "from moe_routing.conformance.writers.text import printable, counts",
    "conformance.writers.text": "from moe_routing.conformance import zoo",
    "conformance.writers.html": "def late():\n    from moe_routing.conformance import zoo",
    "conformance.zoo.census": "from moe_routing.conformance.engine import run",
    "conformance.zoo.matrix": "from moe_routing.conformance.engine import Plan",
    "conformance.runs": "from moe_routing.conformance import engine",
    "implementations.eager": "from moe_routing.reference.routing import route",
    "reference.routing": "",
}
"""Its circle is thinnest, by the imports that make an arrow, from the engine to the writers."""


def test_figures_of_a_layout_that_order_does_not_know(tmp_path: Path) -> None:
    lines = list(layers.figures(house(tmp_path, OLD)))
    assert lines == [
        "  13 modules in 5 packages",
        "   7 rooms",
        "   2 layers",
        "   5 arrows",
        "   1 upward arrows, by the circles they close",
        "   1 circles of rooms",
        "   0 circles within a room",
        "upward: conformance/engine.py:1 imports conformance.writers.text",
        "circle: engine, writers, zoo",
    ]


def test_the_figures_are_printed_for_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "from moe_routing.conformance.zoo import mutants"
    house(tmp_path, {"conformance.judge.verdict": text, "conformance.zoo.mutants": ""})
    monkeypatch.setattr(sys, "argv", ["layers.py", str(tmp_path)])
    layers.main()
    printed = capsys.readouterr().out
    assert "1 upward arrows, by ORDER" in printed
    assert "upward: conformance/judge/verdict.py:1 imports conformance.zoo.mutants" in printed
