"""What a backend with a method ``route_padded`` claims of it: how it is told, what it answers."""

from __future__ import annotations

from dataclasses import dataclass

from moe_routing.implementations.permitted import Closed, check_values, one_of
from moe_routing.implementations.unsupported import Unsupported
from moe_routing.reference.checks import require_choice
from moe_routing.reference.padding import SENTINELS, TOLD, Padding, Sentinel


@dataclass(frozen=True, kw_only=True)
class Pads(Closed):
    """How a backend takes padding; without arguments in every way, with -1 for an answer.

    ``told`` lists how it may be told: by a ``count`` of the tokens before the padding, by a mask
    that is True for ``valid`` tokens, or by one that is True for ``padding``. ``sentinel`` is the
    id of no expert in its answers, ``minus-one`` or ``num-experts``. Errors: ``ValueError`` naming
    the field.
    """

    told: tuple[str, ...] = TOLD
    sentinel: Sentinel = "minus-one"

    def __post_init__(self) -> None:
        check_values("Pads.told", self.told, one_of("Pads.told", TOLD), repr(TOLD))
        require_choice("Pads.sentinel", self.sentinel, SENTINELS)

    def refusals(self, padding: Padding) -> list[str]:
        """Return what is not claimed of a call, one phrase each; empty: claimed."""
        return [] if padding.told in self.told else [f"pads.told={padding.told!r}"]

    def require(self, padding: Padding) -> None:
        """Raise ``Unsupported`` for padding that is told otherwise than claimed."""
        if refused := self.refusals(padding):
            raise Unsupported(f"not claimed: {', '.join(refused)}")
