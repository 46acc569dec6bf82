"""The page of the smallest errors is that of today, and the errors are as small as it was said."""

from __future__ import annotations

from pathlib import Path

import pytest

from moe_routing.conformance.pages.smallest_errors import page, smallest_error
from moe_routing.reference import Renormalize, RouterConfig

PAGE = Path(__file__).parents[2] / "docs" / "smallest-errors.md"
NARROW = dict.fromkeys(("logits_dtype", "scores_dtype", "weights_dtype"), "input")


@pytest.mark.skipif(not PAGE.is_file(), reason="the docs are not here")
def test_the_page_is_made_anew() -> None:
    command = "python -m moe_routing.conformance.pages.smallest_errors docs/smallest-errors.md"
    assert PAGE.read_text() == page(), f"run `{command}`"


def test_what_is_caught_does_not_grow_with_the_number_of_experts_selected() -> None:
    errors = [
        smallest_error(
            RouterConfig(num_experts=8 * k, top_k=k, renormalize=Renormalize(), **NARROW),
            "bfloat16",
        )
        for k in (8, 32)
    ]
    assert errors[1] < 1.1 * errors[0]
