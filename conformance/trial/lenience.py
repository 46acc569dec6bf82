"""Lenience: what a judge grants beyond what is permitted, to see what else is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from moe_routing.implementations import Numerics
from moe_routing.reference import RouterConfig


@dataclass(frozen=True, kw_only=True)
class Lenience:
    """Coarser arithmetic than a backend claims.

    ``numerics`` are fields of ``Numerics``, granted as if they were declared; ``dtypes`` are
    fields of ``RouterConfig``, such as ``scores_dtype``, with the format that is granted.
    """

    numerics: Mapping[str, Any] = field(default_factory=dict)
    dtypes: Mapping[str, str] = field(default_factory=dict)

    def applied(self, config: RouterConfig, declared: Numerics) -> tuple[RouterConfig, Numerics]:
        """Return the configuration and the numerics to judge by."""
        if self.dtypes:
            config = RouterConfig.unchecked(**{**vars(config), **self.dtypes})
        return config, replace(declared, **self.numerics) if self.numerics else declared


STRICT = Lenience()
"""Nothing is granted."""
