"""Adapters that check by hand what they can do, and forget one thing.

``Forgets`` answers, as the reference does, every call that only the axis named in its module
attribute keeps outside its claims. On the command line: ``forgetful_adapters.py:ForgetsScale``.
"""

from __future__ import annotations

from dataclasses import replace

from moe_routing.implementations import Capabilities, Claim, Limits, Unsupported
from moe_routing.reference import RouterConfig, RouterInputs, Routing, route

PLAIN = Claim.plain(name="plain")
SIZES = {"num_experts": "max_experts", "top_k": "max_top_k", "num_tokens": "max_tokens"}
LIMITS = Limits()


class Forgets:
    """Claims the plain router, and refuses all else but what one axis alone forbids."""

    name = "forgets"

    def __init__(self, axis: str = "", capabilities: Capabilities | None = None) -> None:
        self.axis = axis
        self.claimed = capabilities or Capabilities(
            claims=(PLAIN,), dtypes=("float32",), limits=Limits(max_experts=64, max_tokens=300)
        )

    def capabilities(self) -> Capabilities:
        return self.claimed

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        if not self._checks_out(config, inputs):
            raise Unsupported("not mine")
        return route(RouterConfig(**vars(config)), inputs)

    def _checks_out(self, config: RouterConfig, inputs: RouterInputs) -> bool:
        checked = self.claimed
        if self.axis in SIZES:
            limits = replace(checked.limits, **{SIZES[self.axis]: None})
            checked = replace(checked, limits=limits)
        elif self.axis.removeprefix("limits.") in vars(LIMITS):
            name = self.axis.removeprefix("limits.")
            limits = replace(checked.limits, **{name: getattr(LIMITS, name)})
            checked = replace(checked, limits=limits)
        elif self.axis == "dtype":
            checked = replace(checked, dtypes=Capabilities().dtypes)
        elif self.axis:
            open_ = {self.axis: getattr(Claim.whole(), self.axis)}
            checked = replace(checked, claims=tuple(replace(c, **open_) for c in checked.claims))
        return checked.admits(config, inputs)


class ForgetsScale(Forgets):
    """Has no scale, and does not look for one."""

    def __init__(self) -> None:
        super().__init__("scale")
