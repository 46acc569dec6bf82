"""What depends on the kind of a case, in one value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.generators.reducer import Reduction
from moe_routing.conformance.generators.sizes import Size
from moe_routing.conformance.trial.base import AnyTrial
from moe_routing.implementations import Capabilities, Numerics


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of case.

    In a case file: ``config`` and ``inputs`` rebuild the two parts of a ``case``; ``words``
    are the fields of the inputs that are no arrays, ``integers`` those that are no float32.
    ``methods`` are the adapter's methods that are called with it, in a ``trial``.
    ``facts`` returns what events are read off. ``reductions`` propose smaller cases; of these,
    the ones come first whose answers the specification defines, which ``defined`` reads off facts.
    ``sizes`` are what a failure may begin at. ``claimed`` says whether capabilities claim a case,
    and ``refusals`` what they lack for it, in phrases. A region of a known divergence may name the
    ``axes`` of its inputs; a region that is too wide is described by ``compared``. A call may
    contain one of another kind, whose known divergences it then shares: ``contains`` returns, by
    the name of that kind, the facts of that call. ``routes`` says that its tokens choose experts,
    so that a token can be drawn.
    """

    case: type[AnyCase]
    config: Callable[..., Any]
    inputs: type[Any]
    words: tuple[str, ...] = ("dtype",)
    integers: tuple[str, ...] = ()
    methods: tuple[str, ...]
    trial: type[AnyTrial]
    facts: Callable[[Any, Numerics], Any] = lambda case, numerics: case
    reductions: tuple[Reduction, ...]
    sizes: tuple[Size, ...] = ()
    defined: Callable[[Any], bool] = lambda facts: True
    claimed: Callable[[Any, Capabilities], bool] = lambda case, capabilities: True
    refusals: Callable[[Any, Capabilities], list[str]] = lambda case, capabilities: []
    axes: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    compared: tuple[str, ...] = ("dtype", "tokens")
    contains: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    routes: bool = False

    @property
    def name(self) -> str:
        """The name of the kind, as case files have it."""
        return self.case.kind
