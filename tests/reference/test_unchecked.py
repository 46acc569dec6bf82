"""Configurations made without checks, which test whether a backend refuses them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from refusals import assert_refused, shown

from moe_routing.reference import (
    RouterConfig,
)

ROUTER = {"num_experts": 8, "top_k": 2}


def test_unchecked_takes_any_value_and_fills_in_the_defaults() -> None:
    nonsense = {"num_experts": -1, "top_k": "six", "score": None, "groups": {"count": 0}}
    config = RouterConfig.unchecked(**nonsense)
    assert {name: getattr(config, name) for name in nonsense} == nonsense
    assert (config.scale, config.weights_from, config.renormalize) == (1.0, "scores", None)
    assert isinstance(config, RouterConfig)


def test_unchecked_makes_what_the_constructor_makes() -> None:
    assert RouterConfig.unchecked(num_experts=8, top_k=2, scale=2.5) == RouterConfig(
        **ROUTER, scale=2.5
    )


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({**ROUTER, "topk": 2}, "topk"),
        ({"num_experts": 8}, "top_k"),
        ({"top_k": 2}, "num_experts"),
        ({}, "num_experts"),
    ],
    ids=shown,
)
def test_unchecked_refuses_unknown_and_missing_fields(fields: dict[str, Any], name: str) -> None:
    with pytest.raises(TypeError, match=rf"'{name}'"):
        RouterConfig.unchecked(**fields)


def test_a_checked_copy_of_an_unchecked_configuration_is_checked() -> None:
    config = RouterConfig.unchecked(num_experts=8, top_k=9)
    assert_refused(lambda: replace(config, scale=2.0), "top_k=9 > num_experts=8")
