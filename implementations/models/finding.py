"""The MoE blocks of a model: those that the table knows, and modules that look like some."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from moe_routing.implementations.transformers.rows import Row
from moe_routing.implementations.transformers.table import ROWS, UNSERVED

_FAMILY = re.compile(r"transformers\.models\.(\w+)\.modeling_\w+$")
_LOOKS = re.compile(r"(Router|Gating|MoE|Moe|MOE|Experts|SparseMLP|SparseMoeBlock)$")
_SHARED = ("shared_expert", "shared_experts", "shared_mlp")


@dataclass(frozen=True, kw_only=True, eq=False)
class Site:
    """A block of the table in a model: its row, its modules and the configuration it is of.

    ``experts`` may be None, and ``router`` may be the block itself.
    """

    path: str
    row: Row
    block: Any
    router: Any
    router_path: str
    experts: Any
    experts_path: str
    config: Any


@dataclass(frozen=True, kw_only=True, eq=False)
class Looks:
    """A module that looks like a router or experts and is none that the table knows."""

    path: str
    module: Any
    reason: str


def find_sites(model: Any) -> tuple[list[Site], list[Looks]]:
    """Return the blocks of a model by path, and what only looks like some."""
    modules = dict(model.named_modules(remove_duplicate=False))
    sites = [
        site
        for path, module in modules.items()
        if (row := row_of(module)) is not None
        and (site := _site(modules, path, module, row)) is not None
    ]
    return sites, list(_others(modules, sites))


def row_of(module: Any) -> Row | None:
    """Return the row of a block, also where its class is derived from the model's own."""
    found = [row for name in _names(module) for row in _BY_CLASS.get(name, ())]
    for row in found:
        if all(_has(module, name) for name in row.arrays if "tid2eid" in name):
            hashed = any("tid2eid" in name for name in row.arrays)
            if hashed or not _has(module, "gate.tid2eid"):
                return row
    return None


def _by_class() -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in ROWS.values():
        found.setdefault(row.block, []).append(row)
    return found


_BY_CLASS = _by_class()
_REASONS = {each.router: each.reason for each in UNSERVED}


def _names(module: Any) -> Iterator[str]:
    """Yield ``file.Class`` of a module's class and of those that it is derived from."""
    for each in type(module).__mro__:
        if found := _FAMILY.match(each.__module__):
            yield f"{found.group(1)}.{each.__name__}"


def _has(module: Any, name: str) -> bool:
    path, _, attribute = name.rpartition(".")
    try:
        return hasattr(module.get_submodule(path), attribute)
    except AttributeError:
        return False


def _site(modules: dict[str, Any], path: str, block: Any, row: Row) -> Site | None:
    alone = row.calls == "router" and not row.router
    holder, at = (_parent(path), "") if alone else (path, row.router)
    router = block if alone else modules.get(_joined(path, at))
    if router is None:
        return None
    experts_path = _joined(holder, "experts")
    config = _config(modules, path)
    return Site(
        path=path,
        row=row,
        block=block,
        router=router,
        router_path=path if alone else _joined(path, at),
        experts=modules.get(experts_path),
        experts_path=experts_path,
        config=getattr(config, row.nested, config) if row.nested else config,
    )


def _config(modules: dict[str, Any], path: str) -> Any:
    """Return the configuration of the nearest model around a module, or its own."""
    while True:
        config = getattr(modules[path], "config", None)
        if hasattr(config, "to_dict"):
            return config
        if not path:
            return None
        path = _parent(path)


def _others(modules: dict[str, Any], sites: list[Site]) -> Iterator[Looks]:
    """Yield modules that look like a router or experts, the outermost of each, in no site."""
    known = [each.path for each in sites] + [each.experts_path for each in sites]
    inside = set(known)
    listed: list[str] = []
    for path, module in modules.items():
        if any(_within(path, each) for each in (*inside, *listed)):
            continue
        if reason := _reason(path, module):
            listed.append(path)
            yield Looks(path=path, module=module, reason=reason)


def _reason(path: str, module: Any) -> str:
    """Return why a module that looks like a router or experts is not judged; empty: it does not."""
    name, last = type(module).__name__, path.rpartition(".")[2]
    if last in _SHARED or not (last == "experts" or _LOOKS.search(name)):
        return ""
    inside = (each for part in module.modules() for each in _names(part))
    known = next((_REASONS[each] for each in inside if each in _REASONS), "")
    return f"{name}: {known or f'none of the {len(ROWS)} blocks that the table has'}"


def _within(path: str, other: str) -> bool:
    return path == other or path.startswith(f"{other}.")


def _parent(path: str) -> str:
    return path.rpartition(".")[0]


def _joined(*parts: str) -> str:
    return ".".join(part for part in parts if part)
