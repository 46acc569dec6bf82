"""The order of the packages, and the figures of the house: who imports whom.

    python tests/helpers/layers.py [FOLDER]

prints them for the checkout in FOLDER, or else for this one. A room is a package, with all that
is in it, or a module that lies flat in ``conformance/``. An arrow goes from one room to another
if any module there imports any module here: late imports count, and so do those for types and
strings that name a module. The face, ``conformance/__init__.py``, is a room of its own. Templates
are no modules.
"""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import networkx as nx

FOLDERS = ("reference", "implementations", "conformance")
"""The packages of the namespace; each lies in the folder of its name."""

ORDER = (
    "reference",
    "implementations",
    "calls",
    "generators",
    "judge",
    "trial",
    "cases",
    "events",
    "explain",
    "clauses",
    "known",
    "checking",
    "run",
    "report",
    "compare",
    "traces",
    "auditing",
    "pytest_plugin",
    "zoo",
    "scaffold",
    "cli",
    "pages",
    "conformance",
)
"""The rooms, from the bottom up; one imports from itself and from those before it, no other."""

_OURS = "moe_routing."
_MODULE = re.compile(r"moe_routing(\.\w+)+(:\w+)?")
_HEIGHT = {room: height for height, room in enumerate(ORDER)}

Arrow = tuple[str, str]


@dataclass(frozen=True, order=True)
class Import:
    """An import of one module of the house by another."""

    file: str
    line: int
    module: str
    target: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.target}"

    @property
    def points_up(self) -> bool:
        """Whether it leads to a room that stands above its own, or that ORDER does not know."""
        here, there = room(self.module), room(self.target)
        return here != there and _HEIGHT.get(there, len(ORDER)) > _HEIGHT.get(here, -1)


# What a file imports.

Named = tuple[str, int]
"""A name and the line that it is on."""


@dataclass(frozen=True)
class Read:
    """What is read off a file: names with their lines.

    ``imports`` are all it imports, ``starting`` those that run when it is imported, and
    ``attributes`` what it reads of objects then. ``spelled`` are the modules that strings name:
    for importlib, ``python -m``, a table of adapters.
    """

    imports: tuple[Named, ...]
    starting: tuple[Named, ...]
    attributes: tuple[Named, ...]
    spelled: tuple[Named, ...]


@cache
def read(path: Path) -> Read:
    """Read a file, once. Relative imports are not read: the house has none."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    every, first = list(ast.walk(tree)), list(started(tree))
    return Read(
        imports=tuple(_imported(every, path)),
        starting=tuple(_imported(first, path)),
        attributes=tuple((n.attr, n.lineno) for n in first if isinstance(n, ast.Attribute)),
        spelled=tuple(_spelled(every)),
    )


def imported(path: Path, *, at_start: bool = False) -> tuple[Named, ...]:
    """Return what a file imports; ``at_start``: only what runs when it is imported."""
    return read(path).starting if at_start else read(path).imports


def _imported(nodes: Iterable[ast.AST], path: Path) -> Iterator[Named]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def started(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield everything but the bodies of functions and of ``if TYPE_CHECKING``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node
        yield from started(node)


def _spelled(nodes: Iterable[ast.AST]) -> Iterator[Named]:
    for node in nodes:
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and _MODULE.fullmatch(node.value)
        ):
            yield node.value.partition(":")[0], node.lineno


# The house.


@dataclass(frozen=True)
class House:
    """The modules of a checkout, each by its name within the namespace, and their imports."""

    modules: dict[str, Path]
    imports: tuple[Import, ...]

    @property
    def packages(self) -> list[str]:
        """Every package, those within packages too."""
        return sorted(name for name, path in self.modules.items() if path.name == "__init__.py")

    def rooms(self) -> nx.DiGraph:
        """Return the rooms and their arrows."""
        return self._drawn(room)

    def inside(self, package: str) -> nx.DiGraph:
        """Return what lies in a package and its arrows; a package within it counts as one."""
        depth = package.count(".") + 2

        def place(module: str) -> str:
            within = f"{module}.".startswith(f"{package}.")
            return ".".join(module.split(".")[:depth]) if within else ""

        return self._drawn(place)

    def _drawn(self, place: Callable[[str], str]) -> nx.DiGraph:
        graph = nx.DiGraph()
        graph.add_nodes_from(sorted({place(module) for module in self.modules} - {""}))
        for each in self.imports:
            arrow = place(each.module), place(each.target)
            if "" not in arrow and len(set(arrow)) == 2:
                graph.add_edge(*arrow)
                graph.edges[arrow].setdefault("imports", []).append(each)
        return graph


def read_house(root: Path) -> House:
    """Read the modules of a checkout, and which of them import which."""
    found = (path for folder in FOLDERS for path in sorted((root / folder).rglob("*.py")))
    modules = {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for path in found
        if (path.parent / "__init__.py").is_file()
    }
    imports = {
        Import(str(path.relative_to(root)), line, module, target)
        for module, path in modules.items()
        for name, line in (*read(path).imports, *read(path).spelled)
        if (target := _target(name, modules)) not in ("", module)
    }
    return House(modules=modules, imports=tuple(sorted(imports)))


def room(module: str) -> str:
    """Return the room that a module is in."""
    folder, _, rest = module.partition(".")
    return rest.partition(".")[0] if folder == "conformance" and rest else folder


def _target(name: str, modules: Iterable[str]) -> str:
    """Return the module that a name leads to: itself, or the one that it is an attribute of."""
    parts = name.removeprefix(_OURS).split(".") if name.startswith(_OURS) else []
    while parts and ".".join(parts) not in modules:
        parts.pop()
    return ".".join(parts)


# Figures.


def circles(graph: nx.DiGraph) -> list[list[str]]:
    """Return the groups of rooms, or of modules, that all lead to each other."""
    groups = nx.strongly_connected_components(graph)
    return sorted(sorted(group) for group in groups if len(group) > 1)


def layers(graph: nx.DiGraph) -> int:
    """Return how many rooms the longest chain of arrows has; a circle counts as one."""
    return int(nx.dag_longest_path_length(nx.condensation(graph))) + 1


def upward(graph: nx.DiGraph) -> list[Arrow]:
    """Return the arrows that lead up, or where ORDER lacks a room, those that close circles."""
    if not set(graph) <= set(ORDER):
        return _closing(graph)
    return [arrow for arrow in graph.edges if any(e.points_up for e in imports_of(graph, [arrow]))]


def imports_of(graph: nx.DiGraph, arrows: Iterable[Arrow]) -> list[Import]:
    """Return the imports that make arrows."""
    return [each for arrow in arrows for each in graph.edges[arrow]["imports"]]


def _closing(graph: nx.DiGraph) -> list[Arrow]:
    """Take of one circle after another the arrow with the fewest imports, until none is left."""
    rest, cut = graph.copy(), []
    while circles(rest):
        cut.append(min(nx.find_cycle(rest), key=lambda arrow: len(imports_of(graph, [arrow]))))
        rest.remove_edge(*cut[-1])
    return cut


def figures(house: House) -> Iterator[str]:
    """Yield the figures, and then the imports that should not be."""
    rooms = house.rooms()
    inner = [house.inside(each) for each in house.packages if each != "conformance"]
    up, known = upward(rooms), set(rooms) <= set(ORDER)
    yield f"{len(house.modules):4} modules in {len(house.packages)} packages"
    yield f"{len(rooms):4} rooms"
    yield f"{layers(rooms):4} layers"
    yield f"{len(rooms.edges):4} arrows"
    yield f"{len(up):4} upward arrows, {'by ORDER' if known else 'by the circles they close'}"
    yield f"{len(circles(rooms)):4} circles of rooms"
    yield f"{sum(len(circles(graph)) for graph in inner):4} circles within a room"
    yield from (f"upward: {each}" for each in imports_of(rooms, up))
    for graph in (rooms, *inner):
        yield from (f"circle: {', '.join(circle)}" for circle in circles(graph))


def main() -> None:
    """Print the figures of a checkout."""
    parser = argparse.ArgumentParser(description="Print the figures of the house.")
    here = Path(__file__).parents[2]
    parser.add_argument("folder", type=Path, nargs="?", default=here, help="a checkout; this one")
    print(*figures(read_house(parser.parse_args().folder)), sep="\n")


if __name__ == "__main__":
    main()
