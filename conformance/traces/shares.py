"""Logits that are none: shares of a softmax, recorded in their place."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from moe_routing.conformance.traces.dtypes import AnyArray, format_of_kind
from moe_routing.conformance.traces.pieces import Files
from moe_routing.conformance.traces.sampling import numbers_in_words, windows
from moe_routing.conformance.traces.trace import Trace
from moe_routing.reference.formats import FLOAT32


def shares_for_logits(trace: Trace, files: Files) -> Iterator[str]:
    """Yield a line on layers whose logits are shares, in every token that is looked at."""
    layers = [
        layer.number
        for layer in trace.layers
        if (field := layer.fields.get("logits"))
        and all(_shares(field.read(files, *each), field.kind) for each in windows(trace.tokens))
    ]
    if layers:
        yield (
            f"the logits of layers {numbers_in_words(layers)} are no logits, as it seems, but "
            "shares: none is negative, and each row sums to 1; record what goes into the softmax"
        )


def _shares(values: AnyArray, kind: str) -> bool:
    """Return whether rows are shares: each is stored with one rounding, and none is negative."""
    unit = max(format_of_kind(kind).unit_roundoff, FLOAT32.unit_roundoff)
    sums = values.sum(axis=1, dtype=np.float64)
    off = np.abs(sums - 1.0) <= unit * values.shape[1]
    return values.shape[1] > 1 and bool((values >= 0).all() and off.all())
