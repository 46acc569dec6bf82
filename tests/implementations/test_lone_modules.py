"""Modules without their neighbours: what they import is a stub, and none of it stays."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from moe_routing.implementations import BackendMissing
from moe_routing.implementations.lone_modules import lone_module

torch = pytest.importorskip("torch")

FILES = {
    "enginery/__init__.py": "raise RuntimeError('the package should not be executed')",
    "enginery/layers/__init__.py": "raise RuntimeError('nor one within it')",
    "enginery/envs.py": "FAST = False",
    "enginery/layers/gate.py": """
import torch
import wires_that_nobody_has
from enginery import envs
from enginery.kernels import fused, registry, Base
from enginery.layers.helpers import halved
from enginery.platforms import current

class Gate(Base):
    \"\"\"A class below a stub.\"\"\"

@registry.register("gate")
@torch.compile(dynamic=True, backend=current.backend)
def route(logits, fast: "bool | None" = None, kind: Base["of", 2] | None = None):
    if envs.FAST or current.is_cuda():
        return fused(logits)
    return logits.softmax(-1)

def broken(logits):
    return halved(logits)
""",
}
INSTALL = "python -m pip install enginery"


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    return lone_module(
        "enginery.layers.gate",
        install=INSTALL,
        real=["enginery.envs"],
        absent=["wires_that_nobody_has"],
    )


def test_its_own_code_runs_without_a_compiler(engine: Any) -> None:
    assert engine.route(torch.zeros(2)).tolist() == [0.5, 0.5]
    assert engine.Gate.__doc__ == "A class below a stub."


def test_a_stub_that_is_called_raises(engine: Any) -> None:
    with pytest.raises(NotImplementedError, match="halved is a stub"):
        engine.broken(torch.zeros(2))


def test_nothing_of_it_stays(engine: Any) -> None:
    assert not [name for name in sys.modules if name.startswith(("enginery", "wires_that"))]
    assert "compile" in torch.compile.__qualname__
    with pytest.raises(RuntimeError, match="the package should not be executed"):
        importlib.import_module("enginery")


def test_what_is_missing_is_said_in_one_line(
    engine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BackendMissing, match=f"^no_such_engine is not installed: {INSTALL}$"):
        lone_module("no_such_engine.gate", install=INSTALL)
    with pytest.raises(BackendMissing, match=r"^the installed enginery has no enginery.router: "):
        lone_module("enginery.router", install=INSTALL)
    with pytest.raises(BackendMissing, match=r"^enginery needs wires_that_nobody_has, which is"):
        lone_module("enginery.layers.gate", install=INSTALL)


def test_what_functions_import_when_they_are_called_can_be_kept(
    engine: Any, tmp_path: Path
) -> None:
    """A package may be the module, and a function may import a neighbour in its body."""
    file = tmp_path / "enginery" / "late" / "__init__.py"
    file.parent.mkdir()
    file.write_text("def route():\n    from enginery.envs import FAST\n    return FAST\n")
    late = lone_module("enginery.late", install=INSTALL, kept=["enginery.envs"])
    assert late.route() is False
    del sys.modules["enginery.envs"]
    with pytest.raises(RuntimeError, match="the package should not be executed"):
        late.route()


def test_an_absent_package_is_a_stub_where_it_is_installed_too(
    engine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wires_that_nobody_has.py").write_text("raise RuntimeError('not this one')")
    monkeypatch.setitem(sys.modules, "wires_that_nobody_has.cable", torch)
    args = {"install": INSTALL, "real": ["enginery.envs"], "absent": ["wires_that_nobody_has"]}
    assert lone_module("enginery.layers.gate", **args).route(torch.zeros(2)).tolist() == [0.5, 0.5]
    assert sys.modules["wires_that_nobody_has.cable"] is torch
