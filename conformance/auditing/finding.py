"""What the audit found of one part of a block, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from moe_routing.conformance.explain.failure import Failure

Status = Literal["pass", "fail", "known", "unjudged"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A part of a block: whether it is right, of how many tokens, and by which clause.

    ``path`` is the module's, ``block`` that of the MoE block, ``part`` what was judged (empty: the
    module is not known). Of a failure, ``token`` is the number of its row in the batch; one that a
    known divergence covers is ``known``. ``reason`` says why something is not judged.
    """

    path: str
    block: str
    part: str
    status: Status
    tokens: int = 0
    clause: str = ""
    failure: Failure | None = None
    token: int | None = None
    reason: str = ""
    notes: tuple[str, ...] = ()
