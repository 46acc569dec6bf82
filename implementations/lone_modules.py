"""Importing one module of a package whose neighbours cannot be imported.

A module of a serving engine routes in twenty lines of torch and imports compiled kernels, a
scheduler and a web server. It is executed here as it is, from the installed package; what it
imports of its own package is a stub unless it is named as real, and stubs are gone again
afterwards. No code is copied, and none is replaced but by its absence: a function that calls a
stub raises, unless it asks whether something is there (``is_cuda``), which it is not.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from moe_routing.implementations.protocol import BackendMissing

_ASKS = ("is_", "has_")
"""How functions begin that say whether something is there."""

_importing: list[str] = []
"""The modules that are being imported, whose decorators may be stubs."""


class _OfStubs(type):
    """What makes a stub: any attribute is another, and a call gives back what it decorates."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _stub(name)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if not cls.__dict__.get("is_stub"):
            return super().__call__(*args, **kwargs)
        if cls.__name__.startswith(_ASKS):
            return False
        if not _importing:
            raise NotImplementedError(
                f"{cls.__name__} is a stub: its module was imported without its neighbours"
            )
        if len(args) == 1 and not kwargs and isinstance(args[0], (type, FunctionType)):
            return args[0]  # it decorates
        return cls

    def __bool__(cls) -> bool:
        return not cls.__dict__.get("is_stub")

    def __iter__(cls) -> Iterator[Any]:
        return iter(())

    def __getitem__(cls, key: Any) -> Any:
        return cls  # in an annotation

    def __lt__(cls, other: object) -> bool:
        return False

    __gt__ = __le__ = __ge__ = __lt__


def _stub(name: str) -> Any:
    return _OfStubs(name, (), {"is_stub": True})


class _StubModule(ModuleType):
    """A module of which every name can be imported."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        whole = f"{self.__name__}.{name}"  # `from package import module`, of one that is real
        real = _importing and whole in self.__dict__.get("wanted", ())
        return importlib.import_module(whole) if real else _stub(name)


class _Finder(MetaPathFinder, Loader):
    """Finds stubs for a package's modules, but for those that are wanted and the way to them."""

    def __init__(self, folder: Path, wanted: Iterable[str], absent: Iterable[str]) -> None:
        self._root, self._folder = folder.name, folder.parent
        self._wanted, self._absent = set(wanted), tuple(absent)
        self.made: list[str] = []

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        root = fullname.partition(".")[0]
        if root != self._root and root not in self._absent:
            return None
        self.made.append(fullname)
        if fullname in self._wanted:
            file = self._folder.joinpath(*fullname.split("."))
            within = file / "__init__.py"
            found = within if within.is_file() else file.with_suffix(".py")
            return importlib.util.spec_from_file_location(fullname, found)
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = _StubModule(spec.name)
        folder = self._folder.joinpath(*spec.name.split("."))
        module.__path__ = [str(folder)]
        module.__dict__["wanted"] = self._wanted
        return module

    def exec_module(self, module: ModuleType) -> None:
        pass


def lone_module(
    name: str,
    *,
    install: str,
    real: Iterable[str] = (),
    kept: Iterable[str] = (),
    absent: Iterable[str] = (),
) -> ModuleType:
    """Import the module ``name`` without its neighbours, but for those in ``real`` and ``kept``.

    ``kept`` are imported as well and stay, for functions that import them when they are called.
    ``absent`` are other packages that it imports, which are stubs too, installed or not: what
    they need in turn must not decide what can be imported. ``torch.compile`` compiles nothing
    meanwhile: its functions are then the same, run eagerly. Errors:
    ``BackendMissing`` with the command that installs the package, or names what else is missing.
    """
    root = name.partition(".")[0]
    spec = importlib.util.find_spec(root)
    if spec is None or not spec.submodule_search_locations:
        raise BackendMissing(f"{root} is not installed: {install}")
    folder = Path(next(iter(spec.submodule_search_locations)))
    file = folder.parent.joinpath(*name.split("."))
    if not any(file.with_suffix(end).is_file() for end in _ENDS) and not file.is_dir():
        raise BackendMissing(f"the installed {root} has no {name}: {install}")
    lasting: dict[str, ModuleType] = {}
    with _alone(folder, {name, *real, *kept}, absent):
        _importing.append(name)
        try:
            module = importlib.import_module(name)
            lasting = {each: importlib.import_module(each) for each in kept}
        except ModuleNotFoundError as error:
            lacks = f"{root} needs {error.name}, which is missing: {install}"
            raise BackendMissing(lacks) from error
        finally:
            _importing.pop()
    sys.modules.update(lasting)
    return module


_ENDS = (".py", ".so")


@contextmanager
def _alone(folder: Path, wanted: set[str], absent: Iterable[str]) -> Iterator[None]:
    """Have the finder come first, and take away what it found when the block ends."""
    import torch

    roots = (folder.name, *absent)
    there = {name: each for name, each in sys.modules.items() if _is_of(name, roots)}
    finder, compiled = _Finder(folder, wanted, roots[1:]), torch.compile
    for name in there:
        del sys.modules[name]
    sys.meta_path.insert(0, finder)
    torch.compile = _eagerly  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.compile = compiled
        sys.meta_path.remove(finder)
        for name in finder.made:
            sys.modules.pop(name, None)
        sys.modules.update(there)


def _is_of(name: str, roots: Iterable[str]) -> bool:
    return name.partition(".")[0] in roots


def _eagerly(function: Any = None, **options: Any) -> Any:
    """Return what ``torch.compile`` is given, as a decorator or as a call."""
    return (lambda given: given) if function is None else function
