"""A case of any kind: a configuration with inputs, and the recipe that made its numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from moe_routing.conformance.calls.memory import packed, unpacked


@dataclass(frozen=True, kw_only=True, eq=False)
class AnyCase:
    """A call to check against the reference.

    ``kind`` is the name of its entry in ``cases.kinds``. ``inputs`` have a method ``arrays``;
    unless a kind says otherwise, also a field ``hidden``, whose length is the number of tokens,
    and a field ``dtype``.
    """

    kind: ClassVar[str]

    config: Any
    inputs: Any
    recipe: str = field(default="given")

    @property
    def num_tokens(self) -> int:
        """T, the number of tokens."""
        return len(self.inputs.hidden)

    @property
    def dtype(self) -> str:
        """The dtype in which the inputs are stored."""
        return str(self.inputs.dtype)

    @property
    def contained(self) -> AnyCase:
        """The call of another kind that it contains, or itself where that has the same fields."""
        return self

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes by letter, in the order in which messages show them."""
        tokens, hidden = self.inputs.hidden.shape
        return {"T": tokens, "H": hidden}

    @property
    def size(self) -> str:
        """The sizes, as messages show them."""
        return " ".join(f"{letter}={n}" for letter, n in self.sizes.items())

    def arguments(self, inputs: Any) -> tuple[Any, ...]:
        """Return what the method is called with, given the inputs in memory of their own."""
        return self.config, inputs

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self.config, *packed(self.inputs), self.recipe)


def _restored(made: type[AnyCase], config: Any, bare: Any, arrays: Any, recipe: str) -> AnyCase:
    return made(config=config, inputs=unpacked(bare, arrays), recipe=recipe)
