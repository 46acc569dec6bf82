"""The public names of the suite: one list, the same for Python and for type checkers."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator

import pytest

from moe_routing import conformance


def names_for_type_checkers() -> Iterator[tuple[str, str]]:
    """The names that the package imports under ``if TYPE_CHECKING``, with their modules."""
    for node in ast.parse(inspect.getsource(conformance)).body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for imported in node.body:
                assert isinstance(imported, ast.ImportFrom)
                yield from ((alias.name, str(imported.module)) for alias in imported.names)


def test_type_checkers_see_every_public_name() -> None:
    assert sorted(name for name, _ in names_for_type_checkers()) == sorted(conformance.__all__)
    assert dir(conformance) == sorted(conformance.__all__)


@pytest.mark.parametrize(("name", "module"), list(names_for_type_checkers()))
def test_a_public_name_is_what_type_checkers_see(name: str, module: str) -> None:
    assert getattr(conformance, name) is getattr(importlib.import_module(module), name)


def test_no_other_name_is_there() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'chek'"):
        _ = conformance.chek
