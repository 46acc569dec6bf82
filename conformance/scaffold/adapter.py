"""The scaffold: the files that a repository needs to check a router of its own.

The templates, next to this file, are a working adapter named ``my-router``; another name
replaces that one.
"""

from __future__ import annotations

import importlib.util
import keyword
import os
import re
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from moe_routing.conformance.scaffold.like import Like
from moe_routing.implementations.registry import PROCESS, out_of_scope, registered

_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
_RULE = "a name is lower-case letters and digits with - or _ between, such as my-router"


class ScaffoldError(Exception):
    """The files cannot be written; the message names what is in the way, and the fix."""


@dataclass(frozen=True, kw_only=True)
class Names:
    """The names of a new adapter: in reports, as a module, and as a class."""

    name: str
    module: str
    adapter: str

    @property
    def reference(self) -> str:
        """How the command line names the adapter, from the folder of its file."""
        return f"{self.module}.py:{self.adapter}"

    def written(self, template: str) -> str:
        """Return a template, or the path of one, with these names in it."""
        for theirs, ours in (
            ("my_router", self.module),
            ("MyRouterAdapter", self.adapter),
            ("my-router", self.name),
        ):
            template = template.replace(theirs, ours)
        return template


ROUTER, LIKE = "my_router.py", "like.py"
"""The templates of a router: a plain one, and one that is like a shipped model's."""

PARTS = {"router": ROUTER, "experts": "experts.py", "layer": "layer.py"}
"""The template of an adapter, by the part of a model that it is of."""

FILES = {
    "test_my_router.py": "test_my_router.py",
    "known/my-router.toml": "known.toml",
    ".github/workflows/my-router.yml": "workflow.yml",
}
"""Where each template is written, but for that of the adapter."""


def names_for(name: str) -> Names:
    """Return the names that follow from an adapter's. Errors: ``ScaffoldError``."""
    if not _NAME.fullmatch(name):
        raise ScaffoldError(f"Cannot name an adapter {name!r}: {_RULE}")
    module = name.replace("-", "_")
    camel = "".join(word.capitalize() for word in module.split("_"))
    names = Names(name=name, module=module, adapter=f"{camel.removesuffix('Adapter')}Adapter")
    if keyword.iskeyword(module):
        raise ScaffoldError(f"Cannot name an adapter {name!r}: {module} is a Python keyword")
    if name in {each.partition(":")[0] for each in (*registered(), *out_of_scope(), PROCESS)}:
        raise ScaffoldError(
            f"Cannot name an adapter {name!r}: `moe-routing check {name}` already means "
            f"another one; use my-{name}, for example"
        )
    if importlib.util.find_spec(module) is not None:
        raise ScaffoldError(
            f"Cannot name an adapter {name!r}: {module}.py would hide the module {module}, "
            f"which is installed; use {name}-router, for example"
        )
    return names


def write_adapter(
    names: Names, folder: Path, adapter: str = ROUTER, like: Like | None = None
) -> list[Path]:
    """Write the files of a new adapter under ``folder``, all of them or none; return their paths.

    ``adapter`` is the template of its module, ``like`` the model in that. Errors:
    ``ScaffoldError`` where one is there already; ``OSError``.
    """
    templates = files(__package__) / "templates"
    texts = {
        folder / names.written(place): names.written((templates / name).read_text("utf-8"))
        for place, name in {ROUTER: adapter, **FILES}.items()
    }
    if like is not None:
        module = folder / names.written(ROUTER)
        texts[module] = like.written(texts[module])
    package = folder / names.module  # Python would import it in place of the module next to it
    for path in (*texts, package):
        if os.path.lexists(path):
            raise ScaffoldError(
                f"{path} already exists, and nothing was written: "
                "move it, or choose another name or --directory"
            )
    with ExitStack() as undo:
        for path, text in texts.items():
            _make_folder(path.parent, undo)
            with path.open("x", encoding="utf-8") as file:
                undo.callback(path.unlink)
                file.write(text)
        undo.pop_all()
    return list(texts)


def _make_folder(folder: Path, undo: ExitStack) -> None:
    """Make a folder and those above it, to be removed again where what follows fails."""
    if not folder.is_dir():
        _make_folder(folder.parent, undo)
        folder.mkdir()
        undo.callback(folder.rmdir)
