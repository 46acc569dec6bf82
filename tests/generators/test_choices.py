"""The names of choices: all that are made are listed, and a misspelt one is refused."""

from __future__ import annotations

import ast
import inspect

import pytest

from moe_routing.conformance.generators import axes, choices
from moe_routing.conformance.generators.choices import Focus
from moe_routing.conformance.generators.construct import table_cases
from moe_routing.implementations import Capabilities

OF_SHARED_EXPERTS = {"kind", "gated", "gate logits", "width"}


def made() -> set[str]:
    """The names of the choices in the source of the two modules that make them."""
    return {
        node.args[0].value
        for module in (axes, choices)
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "choose"
        if isinstance(node.args[0], ast.Constant)
    }


def test_all_choices_are_listed() -> None:
    assert made() - OF_SHARED_EXPERTS == set(axes.CHOICES)


def test_a_misspelt_choice_of_a_focus_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Focus.offers names .*'num_expert'.* did you mean"):
        Focus(offers={"num_expert": lambda offered: offered[:1]})


def test_a_misspelt_choice_of_a_constructed_case_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"wants names the choice 'xyzzy', .* expected one of claim"
    ):
        next(table_cases(Capabilities(), [[1.0, 0.0]], top_k=1, wants={"xyzzy": 1}))
