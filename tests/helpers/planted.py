"""Bugs planted in a case, and the case made smaller while it has them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from moe_routing.conformance import Case
from moe_routing.conformance.cases.kinds import kind_of
from moe_routing.conformance.generators.reducer import reduce_case
from moe_routing.reference import (
    stages,
)


def reduced(case: Any, still_fails: Callable[[Any], bool]) -> Any:
    """Make a case of any kind smaller."""
    return reduce_case(case, kind_of(case).reductions, still_fails)


def ignores_bias(case: Case) -> bool:
    """Whether a router that ignores the selection bias is wrong."""
    plain = replace(case, inputs=replace(case.inputs, selection_bias=None))
    ids = [np.sort(stages(c.config, c.inputs).expert_ids) for c in (case, plain)]
    return bool((ids[0] != ids[1]).any())


def fills_with_zero(case: Case) -> bool:
    """Whether a router that fills excluded groups with 0.0 is wrong."""
    groups = case.config.groups
    if groups is None or groups.fill == 0.0:
        return False
    filled = replace(case, config=replace(case.config, groups=replace(groups, fill=0.0)))
    ids = [np.sort(stages(c.config, c.inputs).expert_ids) for c in (case, filled)]
    return bool((ids[0] != ids[1]).any())


def last_expert_wins(case: Case) -> bool:
    """Whether the last of several experts is selected."""
    ids = stages(case.config, case.inputs).expert_ids
    return case.config.num_experts > 1 and bool((ids == case.config.num_experts - 1).any())


def two_tokens_choose_alike(case: Case) -> bool:
    """Whether two tokens have the same experts."""
    ids = np.sort(stages(case.config, case.inputs).expert_ids)
    return len(np.unique(ids, axis=0)) < len(ids)
