"""A case of permutation: routes to be laid out by expert."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from moe_routing.conformance.calls.routes import RoutesCase
from moe_routing.reference import PermutationConfig


@dataclass(frozen=True, kw_only=True, eq=False)
class PermutationCase(RoutesCase):
    """A call of ``permute`` to check against the laws of a permutation."""

    kind: ClassVar[str] = "permutation"

    config: PermutationConfig
