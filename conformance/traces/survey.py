"""A look at a trace before it is judged: precisions, sizes, dense layers, what can be judged.

It reads a few windows of tokens, the same whoever judges the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from moe_routing.conformance.traces.dtypes import AnyArray, format_of_kind
from moe_routing.conformance.traces.errors import TraceError
from moe_routing.conformance.traces.known_router import Known
from moe_routing.conformance.traces.pieces import Files, named
from moe_routing.conformance.traces.precision import precision_of
from moe_routing.conformance.traces.router import Router, Singles
from moe_routing.conformance.traces.sampling import numbers_in_words, windows
from moe_routing.conformance.traces.shares import shares_for_logits
from moe_routing.conformance.traces.trace import Field, Layer, Trace, read_own
from moe_routing.reference import RouterConfig
from moe_routing.reference.formats import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, FloatFormat


@dataclass(frozen=True, kw_only=True, eq=False)
class Surveyed:
    """A trace and the routers of its layers; ``notes`` say what cannot be judged, and why."""

    letter: str
    trace: Trace
    routers: dict[int, Router]
    notes: tuple[str, ...]


def survey(
    letter: str,
    trace: Trace,
    *,
    known: Known,
    config: RouterConfig,
    files: Files,
    dtype: str | None,
    forced: bool,
) -> Surveyed:
    """Look at a trace, and make the router of each of its layers. Errors: ``TraceError``."""
    trace, notes = _without_dense(trace, files)
    forms = {layer.number: _forms(layer, trace, files) for layer in trace.layers}
    hidden = [_form(layer, "hidden", trace, files) for layer in trace.layers]
    every = [*hidden, *(form for each in forms.values() for form in each)]
    dtypes = (dtype,) if dtype else input_dtypes(every, config)
    routers = {
        layer.number: _router(layer, known, config, forms[layer.number], dtypes, forced, files)
        for layer in trace.layers
    }
    notes = [*notes, *_limits(trace, known, routers), *shares_for_logits(trace, files)]
    return Surveyed(letter=letter, trace=trace, routers=routers, notes=tuple(notes))


def config_of(known: Known, traces: Sequence[Trace]) -> RouterConfig:
    """Return the configuration that traces are judged by. Errors: ``TraceError``."""
    logits = [field for each in traces if (field := each.part("logits"))]
    slots = [
        field for each in traces for part in ("expert_ids", "weights") if (field := each.part(part))
    ]
    config = known.sized(_experts(traces), slots[0].width if slots else None)
    for name, fields, size in (
        ("num_experts", logits, config.num_experts),
        ("top_k", slots, config.top_k),
    ):
        for field in fields:
            _check_size(field, name, size, known, fields[0])
    return config


def _experts(traces: Sequence[Trace]) -> int | None:
    """Return E, as the logits or else the gates have it; None where there are neither."""
    found = [field.width for each in traces if (field := each.part("logits"))]
    gates = [x.own["gate_weight"] for each in traces for x in each.layers if "gate_weight" in x.own]
    return next(iter([*found, *(each.shape[0] for each in gates)]), None)


def _check_size(field: Field, name: str, size: int, known: Known, first: Field) -> None:
    """Raise ``TraceError`` where an array does not have the E or K of its router."""
    if field.width == size:
        return
    if known.config is None or name in known.open_sizes:
        raise TraceError(f"{field.name} has rows of {field.width}, and {first.name} of {size}")
    raise TraceError(
        f"{field.name} has rows of {field.width}, but {known.name} has {name}={size}: is it "
        "another model's? --config takes a config.json with other sizes"
    )


def _without_dense(trace: Trace, files: Files) -> tuple[Trace, list[str]]:
    """Leave out layers whose record names one expert in all slots: sglang counts dense layers."""
    dense = [layer.number for layer in trace.layers if _is_dense(layer, trace, files)]
    if not dense or len(dense) == len(trace.layers):
        return trace, []
    words = f"layers without routes, left out: {numbers_in_words(dense)} (dense, as it seems)"
    return trace.without(dense), [words]


def _is_dense(layer: Layer, trace: Trace, files: Files) -> bool:
    ids = layer.fields.get("expert_ids")
    if ids is None or ids.width < 2 or "logits" in layer.fields or "hidden" in layer.fields:
        return False
    return all(
        bool((found == found[:, :1]).all() and (found[:, 0] == found[0, 0]).all())
        for start, stop in windows(trace.tokens)
        for found in [ids.read(files, start, stop)]
    )


Forms = tuple[FloatFormat | None, FloatFormat | None]


def _forms(layer: Layer, trace: Trace, files: Files) -> Forms:
    """Return the precisions of a layer's logits and of its weights."""
    return _form(layer, "logits", trace, files), _form(layer, "weights", trace, files)


def _form(layer: Layer, part: str, trace: Trace, files: Files) -> FloatFormat | None:
    field = layer.fields.get(part)
    if field is None:
        return None
    seen = [field.read(files, start, stop) for start, stop in windows(trace.tokens)]
    return precision_of(np.concatenate(seen), field.kind)


def input_dtypes(forms: Sequence[FloatFormat | None], config: RouterConfig) -> tuple[str, ...]:
    """Return the dtypes that the hidden states may have, by what was recorded.

    Numbers of 16 bits may come from either format, or from another than they are recorded in. So
    may scores that a router stores in the dtype of its inputs, though nothing recorded shows it.
    """
    narrow = any(each is not None and each.precision < FLOAT32.precision for each in forms)
    if narrow or config.scores_dtype == "input":
        return BFLOAT16.name, FLOAT16.name
    return (FLOAT32.name,)


def _router(
    layer: Layer,
    known: Known,
    config: RouterConfig,
    forms: Forms,
    dtypes: tuple[str, ...],
    forced: bool,
    files: Files,
) -> Router:
    own: dict[str, Any] = {part: _own(layer, part, config, files) for part in layer.own}
    if not known.selection_bias:
        own.pop("selection_bias", None)
    if not known.per_expert_scale:
        own.pop("per_expert_scale", None)
    logits = layer.fields.get("logits")
    evidence = logits is not None or ("hidden" in layer.fields and "gate_weight" in own)
    if logits is None and known.gate_bias and "gate_bias" not in own:
        evidence = False
    judged = known.config is not None and evidence and not known.expert_table
    return Router(
        config=config,
        dtypes=dtypes,
        logits=forms[0],
        weights=forms[1],
        own_logits=FLOAT64 if logits is None else format_of_kind(logits.kind),
        own_weights=FLOAT64 if forms[1] is None else format_of_kind(layer.fields["weights"].kind),
        selects=judged and (not known.selection_bias or "selection_bias" in own),
        weighs=judged
        and forms[1] is not None
        and (not known.per_expert_scale or "per_expert_scale" in own),
        forced=forced,
        numerics=known.numerics,
        **own,
    )


def _own(layer: Layer, part: str, config: RouterConfig, files: Files) -> Singles:
    piece = layer.own[part]
    found: AnyArray = read_own(piece, files)
    experts = part != "hidden_scale"
    if experts and len(found) != config.num_experts:
        raise TraceError(
            f"{named(piece)} has {len(found)} rows, but the router {config.num_experts} experts"
        )
    if np.isnan(found).any():
        raise TraceError(f"{named(piece)} has a NaN at {int(np.argmax(np.isnan(found)))}")
    return found


def _limits(trace: Trace, known: Known, routers: dict[int, Router]) -> Iterator[str]:
    """Yield what cannot be judged, and what would have to be recorded."""
    if known.config is None:
        yield "no router was named (--preset, --config): only that ids are distinct is judged"
        return
    if known.expert_table:
        yield f"{known.name} chooses by a table of token ids: only ids are judged"
        return
    missing = [x.number for x in trace.layers if not {"logits", "hidden"} & set(x.fields)]
    if missing:
        layers = numbers_in_words(missing)
        yield f"layers {layers} have no logits: only that their ids are distinct and in range"
    gateless = [
        x.number
        for x in trace.layers
        if "logits" not in x.fields and "hidden" in x.fields and "gate_weight" not in x.own
    ]
    if gateless:
        yield f"layers {numbers_in_words(gateless)} have hidden states and no gate_weight"
    for name in ("selection_bias", "per_expert_scale"):
        bare = [x.number for x in trace.layers if name not in x.own]
        if getattr(known, name) and bare:
            what = "which experts were chosen" if name == "selection_bias" else "weights"
            yield (
                f"not judged in layers {numbers_in_words(bare)}: {what}; {known.name} has a "
                f"{name}, which the trace lacks"
            )
