"""A forward and a backward pass of a model, with its blocks watched and nothing of it changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from moe_routing.implementations.models.finding import Looks, Site, find_sites
from moe_routing.implementations.models.heard import Heard
from moe_routing.implementations.models.observing import seen_of
from moe_routing.implementations.models.seen import Seen, Unjudged
from moe_routing.implementations.models.watching import Call, Watch


class CannotAudit(Exception):
    """A model or a batch that cannot be audited; the message says why and what to do."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pass:
    """A model after its pass: its blocks, their calls, and what only looks like a block."""

    sites: list[Site]
    looks: list[Looks]
    calls: list[Call]
    ungraded: str

    def seen(self) -> Iterator[Seen | Unjudged]:
        """Yield what each call shows, one part at a time, then what cannot be judged."""
        times = Counter(module for call in self.calls for module in call.ran)
        for call in self.calls:
            yield from seen_of(Heard(call, self.ungraded, times))
        called = {call.site.path for call in self.calls}
        for site in self.sites:
            if site.path not in called:
                yield Unjudged(
                    path=site.path, block=site.path, part=None, reason="the pass did not call it"
                )
        for each in self.looks:
            yield Unjudged(path=each.path, block=each.path, part=None, reason=each.reason)


@contextmanager
def passing(model: Any, batch: Mapping[str, Any], *, backward: bool) -> Iterator[Pass]:
    """Run ``model(**batch)``, and back from its output; the gradients stand inside the block.

    The model's own gradients, its mode and torch's random numbers are as before afterwards.
    Errors: ``CannotAudit``; whatever the model raises.
    """
    import torch

    if torch.is_autocast_enabled() or torch.is_autocast_enabled("cpu"):
        raise CannotAudit("Cannot audit inside torch.autocast: call audit outside of it")
    sites, looks = find_sites(model)
    watch = Watch(sites)
    saved = [(each, each.grad) for each in model.parameters()]
    with torch.random.fork_rng(), summed_in_float32(), _uncached(model):
        try:
            for each, _ in saved:
                each.grad = None
            with watch.hooked(), torch.set_grad_enabled(backward), said("The model"):
                output = model(**batch)
                watch.on = False
                ungraded = _back(output, backward)
            yield Pass(sites=sites, looks=looks, calls=watch.calls, ungraded=ungraded)
        finally:
            for each, gradient in saved:
                each.grad = gradient


def _back(output: Any, backward: bool) -> str:
    """Go back from an output by a random cotangent; return why not, where that cannot be."""
    import torch

    if not backward:
        return "no backward pass was asked for"
    target = _target(output)
    if target is None or not target.requires_grad:
        return "nothing in the model needs a gradient"
    made = torch.Generator(device="cpu").manual_seed(0)
    cotangent = torch.randn(target.shape, generator=made).to(target)
    torch.autograd.backward(target, cotangent)
    return ""


def _target(output: Any) -> Any:
    """Return the tensor to go back from: logits, hidden states, or a loss alone."""
    for name in ("logits", "last_hidden_state", "loss"):
        if (found := getattr(output, name, None)) is not None:
            return found
    if isinstance(output, (tuple, list)) and output:
        return output[0]
    return output if hasattr(output, "requires_grad") else None


@contextmanager
def _uncached(model: Any) -> Iterator[None]:
    """Have the model keep no cache: nothing is generated."""
    config: Any = getattr(model, "config", None)
    whole = [config] if config is not None else []
    whole += [config.get_text_config()] if hasattr(config, "get_text_config") else []
    before = [(each, each.use_cache) for each in whole if hasattr(each, "use_cache")]
    try:
        for each, _ in before:
            each.use_cache = False
        yield
    finally:
        for each, value in before:
            each.use_cache = value


@contextmanager
def said(what: str) -> Iterator[None]:
    """Say in one line what a model's own code raised, which may be anything."""
    try:
        yield
    except CannotAudit:
        raise
    except Exception as error:
        words = " ".join(str(error).split())[:300]
        raise CannotAudit(f"{what} raised {type(error).__name__}: {words}") from error


@contextmanager
def summed_in_float32() -> Iterator[None]:
    """Have parts of a 16-bit product on a GPU added in float32: docs/findings.md says why."""
    import torch

    products = torch.backends.cuda.matmul
    names = (
        "allow_bf16_reduced_precision_reduction",
        "allow_fp16_reduced_precision_reduction",
    )
    before = {name: getattr(products, name) for name in names}
    try:
        for name in names:
            setattr(products, name, False)
        yield
    finally:
        for name, value in before.items():
            setattr(products, name, value)


def facts_of(model: Any) -> str:
    """Return a model in words: its class, dtypes, device, mode and experts implementation."""
    plain = getattr(model, "_orig_mod", model)
    dtypes = sorted({str(each.dtype).rpartition(".")[2] for each in plain.parameters()})
    devices = sorted({str(each.device) for each in plain.parameters()})
    config = getattr(plain, "config", None)
    experts = getattr(config, "_experts_implementation", None)
    parts = [
        f"{type(plain).__name__} in {' and '.join(dtypes)} on {' and '.join(devices)}",
        "training" if plain.training else "evaluation",
        *([f"experts: {experts}"] if isinstance(experts, str) else []),
        *(["compiled"] if plain is not model else []),
    ]
    return ", ".join(parts)
