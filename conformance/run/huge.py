"""What a huge call takes of this machine's memory."""

from __future__ import annotations

from moe_routing.conformance.run.isolation import watch

_GIB = {"cpu": 48, "other": 8}
"""On a CPU what lies between the products is there as well."""


def lacking(device: str) -> str | None:
    """Return how much memory a huge call takes and what there is, where that is less."""
    free, wanted = watch.available_memory(), _GIB["cpu" if device == "cpu" else "other"]
    if free is None or free >= wanted * 2**30:
        return None
    on_gpu = ", or a GPU (device cuda)" if device == "cpu" else ""
    return (
        f"takes {wanted} GiB of memory with device {device}, and {free // 2**30} GiB may be used "
        f"here: use a larger machine{on_gpu}"
    )
