"""What an audit found, as a value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from moe_routing.conformance.auditing.finding import Finding


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What an audit found, in the order of the pass; ``model`` is the model in words."""

    model: str
    tokens: int
    findings: Sequence[Finding]

    @cached_property
    def failures(self) -> list[Finding]:
        """The parts that are wrong."""
        return [each for each in self.findings if each.status == "fail"]

    @cached_property
    def judged(self) -> list[Finding]:
        """The parts that were judged, right or wrong."""
        return [each for each in self.findings if each.status != "unjudged"]

    @cached_property
    def blocks(self) -> list[str]:
        """The paths of the MoE blocks that the table knows, as they were called."""
        return list(dict.fromkeys(each.block for each in self.findings if each.part))

    @property
    def right(self) -> bool:
        """Whether something was judged, and all of that is right."""
        return bool(self.judged) and not self.failures

    @property
    def exit_code(self) -> int:
        """0: right; 1: not; 2: there is no MoE block in the model."""
        if not self.findings:
            return 2
        return 0 if self.right else 1
