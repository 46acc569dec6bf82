"""Hooks on the blocks of a model: what goes in and out of each, and what comes back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from moe_routing.implementations.models.finding import Site

Heard = dict[str, Any]

_EXPERTS = {"hidden": "experts.hidden", "weights": "experts.weights"}


@dataclass(kw_only=True, eq=False)
class Call:
    """One call of a block on a device: what its modules were given and returned, copied.

    ``back`` are the gradients that came back, ``ran`` the routers and experts that it called, each
    as often as it did, ``strangers`` the paths of those among them that are other blocks'.
    """

    site: Site
    device: str = "cpu"
    hidden: Any = None
    output: Any = None
    router_hidden: Any = None
    router_others: tuple[Any, ...] = ()
    returned: Any = None
    experts_given: Heard = field(default_factory=dict)
    experts_output: Any = None
    back: Heard = field(default_factory=dict)
    ran: list[int] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)


class Watch:
    """Collects the calls of every block while it is ``on``."""

    def __init__(self, sites: Sequence[Site]) -> None:
        self.calls: list[Call] = []
        self.on = True
        self._sites, self._open = sites, list[Call]()
        self._of_router = {id(each.router): each for each in sites}
        self._of_experts = {id(each.experts): each for each in sites if each.experts is not None}

    @contextmanager
    def hooked(self) -> Iterator[Watch]:
        """Hook the modules inside the block."""
        handles = [*self._hook_all()]
        try:
            yield self
        finally:
            for each in handles:
                each.remove()

    def _hook_all(self) -> Iterator[Any]:
        seen: set[int] = set()
        for site in self._sites:
            parts = (
                (site.block, self._enter, self._leave),
                (site.router, self._to_router, self._from_router),
                (site.experts, self._to_experts, self._from_experts),
            )
            for part, (module, before, after) in enumerate(parts):
                if module is None or (id(module) * 3 + part) in seen:
                    continue
                seen.add(id(module) * 3 + part)
                yield module.register_forward_pre_hook(_bound(before, site), with_kwargs=True)
                yield module.register_forward_hook(_bound(after, site), with_kwargs=True)

    # The block.

    def _enter(self, site: Site, module: Any, given: Any, named: Any) -> None:
        hidden = _first(given, named)
        device = str(getattr(hidden, "device", "cpu"))
        call = Call(site=site, device=device, hidden=_kept(hidden))
        if self.on:
            self.calls.append(call)
            self._open.append(call)

    def _leave(self, site: Site, module: Any, given: Any, named: Any, output: Any) -> None:
        if not self.on:
            return
        call = self._open[-1]
        if call.site.block is not call.site.router:
            self._open.pop()
        call.output = _kept(output[0] if isinstance(output, tuple) else output)

    # The router.

    def _to_router(self, site: Site, module: Any, given: Any, named: Any) -> Any:
        if (call := self._current(site, module)) is None:
            return None
        call.ran.append(id(module))
        if call.site.router is not module:
            call.strangers.append(site.router_path)
        call.router_hidden = _kept(_first(given, named))
        call.router_others = tuple(_kept(each) for each in given[1:])
        return _aliased(call, given, named, {"hidden": "hidden"})

    def _from_router(self, site: Site, module: Any, given: Any, named: Any, output: Any) -> None:
        if (call := self._current(site, module)) is None:
            return
        call.returned = _kept(output)
        parts = output if isinstance(output, tuple) else (output,)
        for k, each in enumerate(parts):
            _listen(call, f"returned.{k}", each)

    # The experts.

    def _to_experts(self, site: Site, module: Any, given: Any, named: Any) -> Any:
        if (call := self._current(site, module)) is None:
            return None
        call.ran.append(id(module))
        if call.site.experts is not module:
            call.strangers.append(site.experts_path)
        whole = [*given, *named.values()]
        call.experts_given = {r: _kept(v) for r, v in zip(roles(whole), whole, strict=True) if r}
        return _aliased(call, given, named, _EXPERTS)

    def _from_experts(self, site: Site, module: Any, given: Any, named: Any, output: Any) -> None:
        if (call := self._current(site, module)) is None:
            return
        whole = output[0] if isinstance(output, tuple) else output
        call.experts_output = _kept(whole)
        _listen(call, "experts.output", whole)
        if call.site.block is call.site.router:
            self._open = [each for each in self._open if each is not call]

    def _current(self, site: Site, module: Any) -> Call | None:
        """Return the call of the block that is being run."""
        if not self.on or not self._open:
            return None
        return self._open[-1]


def _bound(function: Any, site: Site) -> Any:
    return lambda *arguments: function(site, *arguments)


def _first(given: Any, named: Any) -> Any:
    """Return the hidden states of a call: the first argument, by place or by name."""
    if given:
        return given[0]
    return named.get("hidden_states", next(iter(named.values()), None))


def _kept(value: Any) -> Any:
    """Return copies of tensors, off their graph and their device, that nothing writes over."""
    if hasattr(value, "detach"):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, (tuple, list)):
        return tuple(_kept(each) for each in value)
    return value


def _aliased(call: Call, given: Any, named: Any, names: Mapping[str, str]) -> Any:
    """Replace what needs a gradient by views of itself, so that its own gradient is heard."""
    whole = [*given, *named.values()]
    views = [
        _alias(call, names.get(role, ""), value)
        for role, value in zip(roles(whole), whole, strict=True)
    ]
    return tuple(views[: len(given)]), dict(zip(named, views[len(given) :], strict=True))


def roles(values: Sequence[Any]) -> list[str]:
    """Return what each argument of a call of experts is, whatever its name: by its dtype."""
    found = []
    for value in values:
        floating = getattr(value, "is_floating_point", None)
        if floating is None:
            found.append("")
        elif not floating():
            found.append("ids")
        else:
            found.append("weights" if "hidden" in found else "hidden")
    return found


def _alias(call: Call, name: str, value: Any) -> Any:
    if not name or not getattr(value, "requires_grad", False):
        return value
    view = value.view_as(value)
    _listen(call, name, view)
    return view


def _listen(call: Call, name: str, value: Any) -> None:
    """Keep the gradient of a tensor when it comes; sums of several, as torch adds them up."""
    if getattr(value, "requires_grad", False) and value.is_floating_point():
        value.register_hook(lambda gradient: call.back.__setitem__(name, _kept(gradient)))
