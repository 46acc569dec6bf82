"""The functions of transformers' ExpertsInterface, one adapter each, found by their names.

``experts:grouped_mm`` runs one through Mixtral's module, ``experts:grouped_mm@gpt_oss`` through
another model's, whose weights lie otherwise. ``experts:MODULE:NAME`` imports a plug-in first.
"""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any

from moe_routing.implementations.experts.adapter import ExpertsFunction
from moe_routing.implementations.experts.models import MODELS, USUAL
from moe_routing.implementations.experts.registered import (
    built_in,
    function_of,
    out_of_scope,
    plugged_in,
    registered_by,
)
from moe_routing.implementations.experts.sorting import DeepGemmLayout, GroupedMm
from moe_routing.implementations.loading import AdapterError

_SORTS = {"grouped_mm": GroupedMm, "deepgemm_layout": DeepGemmLayout}

__all__ = ["MODELS", "ExpertsFunction"]


class NoSuchExperts(AdapterError, AttributeError):
    """No experts have this name: the module lacks an attribute, and compilers try for many."""


def finds(member: str) -> bool:
    """Return whether ``member`` may name a function that is none of ``MEMBERS``."""
    function, _, model = member.partition("@")
    return ":" in function or (
        function in (*built_in(), *plugged_in()) and (model or USUAL) in MODELS
    )


def matching(member: str) -> list[str]:
    """Return the members that ``MODULE:*`` stands for. Errors: ``AdapterError``."""
    location, _, pattern = member.rpartition(":")
    return registered_by(location) if location and pattern == "*" else []


def __getattr__(name: str) -> Any:
    if name == "MEMBERS":
        functions = (*built_in(), *plugged_in())
        named = (_member(each, model) for each, model in product(functions, MODELS))
        return (*named, *(name for name in _SORTS if name not in functions))
    if name == "OUT_OF_SCOPE":
        return out_of_scope()
    if name in _SORTS:
        return _SORTS[name]
    if name.startswith("_"):
        raise AttributeError(f"there is no {name}")
    function, _, model = name.partition("@")
    if model and model not in MODELS:
        raise NoSuchExperts(
            f"experts:{name} names no model {model!r}; there are {', '.join(MODELS)}"
        )
    try:
        return partial(ExpertsFunction, function_of(function), MODELS[model or USUAL])
    except AdapterError as error:
        raise NoSuchExperts(str(error)) from None


def _member(function: str, model: str) -> str:
    return function if model == USUAL else f"{function}@{model}"
