"""Rules of capacity that need no router of their own, one adapter each: transformers', axolotl's.

Each adapter is an attribute of this module: a class.
"""

from __future__ import annotations

import importlib
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from moe_routing.implementations._axolotl import expert_parallel_module
from moe_routing.implementations.capabilities import Capabilities
from moe_routing.implementations.drops import Drops
from moe_routing.implementations.layouts import RoutingMap
from moe_routing.implementations.protocol import missing
from moe_routing.implementations.tensors import torch_tensor
from moe_routing.reference import CapacityConfig, Routes, Routing

if TYPE_CHECKING:
    from torch import Tensor

INSTALL = "python -m pip install transformers==5.23.0"
MEMBERS = ("axolotl", "nllb", "nllb_eval", "switch")
OUT_OF_SCOPE = {
    "nllb_prioritized": "experts take tokens in the order of their greatest weight "
    "(``batch_prioritized_routing``), second choices too: an order that no claim has",
}
_EXACT: dict[str, Any] = {"minimum": (0,), "zero": ("nothing",), "absent": (False,)}


class _Rule:
    """What these adapters share: a device, and one claim."""

    drops: Drops

    def __init__(self, device: str = "cpu") -> None:
        self.device = device

    def capabilities(self) -> Capabilities:
        """Claim what the rule can be set to."""
        return Capabilities(drops=self.drops)

    def _tensors(self, routes: Routes) -> tuple[Tensor, Tensor]:
        ids = torch_tensor("expert_ids", routes.expert_ids, dtype="int64", device=self.device)
        return ids, torch_tensor("weights", routes.weights, dtype="float32", device=self.device)

    def _logits(self, config: CapacityConfig, routes: Routes) -> Tensor:
        """Return the logarithms of the weights, in float64, and -inf where there is no route."""
        import torch

        ids, weights = self._tensors(routes)
        logits = weights.new_full(
            (routes.num_tokens, config.num_experts), -torch.inf, dtype=torch.float64
        )
        return logits.scatter(1, ids, weights.double().log())


class Axolotl(_Rule):
    """``_apply_expert_capacity``, which axolotl applies before DeepEP sends tokens to ranks."""

    name = "drops:axolotl"
    wraps = "axolotl"
    drops = Drops(
        share=("one",),
        minimum=(0,),
        zero=("nothing",),
        order=("weight",),
        survivors=("rescaled",),
    )

    def drop(self, config: CapacityConfig, routes: Routes) -> Routing:
        """Call the function. Errors: ``Unsupported``, ``BackendMissing``."""
        self.drops.require(config, routes)
        module = expert_parallel_module("experts_fn")
        ids, weights = module._apply_expert_capacity(*self._tensors(routes), int(config.factor))
        return Routing(weights=weights, expert_ids=ids)


class Switch(_Rule):
    """Switch's top-1 router, given its logits, on one sequence: it counts each by itself."""

    name = "drops:switch"
    wraps = "transformers"
    drops = Drops(
        share=("one",),
        order=("token",),
        survivors=("kept",),
        top_k=(1,),
        sums=("one",),
        **_EXACT,
    )

    def drop(self, config: CapacityConfig, routes: Routes) -> RoutingMap:
        """Call the router. Errors: as ``Axolotl.drop``."""
        self.drops.require(config, routes)
        router = _router(
            "switch_transformers", "SwitchTransformersTop1Router", config, router_jitter_noise=0.0
        )
        kept, weights, _ = router(self._logits(config, routes)[None])
        return RoutingMap(probs=(kept * weights)[0], routing_map=kept[0].bool())


class Nllb(_Rule):
    """NLLB's top-2 router in training: its capacity is a setting."""

    name = "drops:nllb"
    wraps = "transformers"
    trains = True
    drops = Drops(
        share=("one",),
        order=("slot",),
        survivors=("kept", "normalized"),
        top_k=(2,),
        sums=("one",),
        **_EXACT,
    )

    def drop(self, config: CapacityConfig, routes: Routes) -> RoutingMap:
        """Call ``route_tokens``. Errors: as ``Axolotl.drop``."""
        import torch

        self.drops.require(config, routes)
        router = _router(
            "nllb_moe",
            "NllbMoeTop2Router",
            config,
            second_expert_policy="all",
            normalize_router_prob_before_dropping=config.survivors == "kept",
            batch_prioritized_routing=False,
            moe_eval_capacity_token_fraction=config.factor / config.num_experts,
        ).train(self.trains)
        _, weights = router.route_tokens(self._logits(config, routes), torch.float32)
        return RoutingMap(probs=weights, routing_map=weights > 0)


class NllbEval(Nllb):
    """The same in evaluation: its capacity is a share of the tokens, of each expert."""

    name = "drops:nllb_eval"
    trains = False
    drops = Drops(
        share=("tokens",),
        rounding=("up",),
        factor=(0.25, 0.5, 1.0, 1.25, 2.0, 4.0),
        order=("slot",),
        survivors=("kept", "normalized"),
        top_k=(2,),
        sums=("one",),
        **_EXACT,
    )


axolotl, switch, nllb, nllb_eval = Axolotl, Switch, Nllb, NllbEval


def _router(model: str, name: str, config: CapacityConfig, **settings: Any) -> Any:
    """Return a router whose hidden states are its logits, in float64."""
    from torch import nn

    given = SimpleNamespace(
        num_experts=config.num_experts,
        hidden_size=config.num_experts,
        expert_capacity=int(config.factor),
        router_bias=False,
        router_ignore_padding_tokens=False,
        router_dtype="float64",
        **settings,
    )
    router = getattr(_module(model), name)(given)
    router.classifier = nn.Identity()
    return router


def _module(model: str) -> ModuleType:
    try:
        return importlib.import_module(f"transformers.models.{model}.modeling_{model}")
    except ModuleNotFoundError as error:
        raise missing("transformers", "transformers", error, INSTALL) from error
