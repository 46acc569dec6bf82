"""The house: what the wheel holds, what it may import from outside, what is documented."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from for_each import for_each
from layers import FOLDERS, imported, read

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
OTHERS = sorted(p for name in ("tests", "benchmarks", "docs") for p in (ROOT / name).rglob("*.py"))
PYTHON = [*SOURCES, *OTHERS, ROOT / "conftest.py"]
BACKENDS = r"scattermoe|sonicmoe|megatron|axolotl|torchtitan|deepspeed"
OURS = "moe_routing"

pytestmark = pytest.mark.skipif(
    not (ROOT / "pyproject.toml").is_file() or not SOURCES, reason="the source tree is not here"
)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def named(paths: Iterable[Path]) -> dict[str, Path]:
    return {name_of(path): path for path in paths}


def within(name: str, *packages: str) -> bool:
    return any((name + ".").startswith(package + ".") for package in packages)


# One namespace; which package may import which is in test_layers.py.


@for_each(named(PYTHON))
def test_code_imports_by_the_installed_name(path: Path) -> None:
    for name, line in imported(path):
        where = f"{name_of(path)}:{line} imports {name}"
        assert not within(name, *FOLDERS, "tests"), f"{where}: say moe_routing.{name}"
        if within(name, OURS):
            assert within(name, *(f"{OURS}.{folder}" for folder in FOLDERS)), where


PROTOCOL = (
    "balances",
    "capabilities",
    "claims",
    "common",
    "computes",
    "contradictions",
    "differentiates",
    "drops",
    "expanded",
    "from_two",
    "group_rule",
    "layouts",
    "limits",
    "loading",
    "pads",
    "patience",
    "models",
    "permitted",
    "permutes",
    "replays",
    "promises",
    "protocol",
    "ranks",
    "registry",
    "shards",
    "tensors",
    "traces",
    "unsupported",
)
FRAMEWORKS = ("torch", "triton", "hypothesis", "pytest")


def in_folder(folder: str) -> dict[str, Path]:
    return named(path for path in SOURCES if path.is_relative_to(ROOT / folder))


@for_each(in_folder("reference"))
def test_the_reference_imports_no_framework(path: Path) -> None:
    for name, line in imported(path):
        assert not within(name, *FRAMEWORKS), f"{name_of(path)}:{line} imports {name}"


@for_each(in_folder("conformance"))
def test_the_suite_imports_no_single_adapter(path: Path) -> None:
    home = f"{OURS}.implementations"
    for name, line in imported(path):
        if within(name, home):
            part = name.removeprefix(home).lstrip(".").partition(".")[0]
            public = (*PROTOCOL, *importlib.import_module(home).__all__)
            assert part in public, f"{name_of(path)}:{line} imports {name}, a single adapter"


@for_each(in_folder("conformance"))
def test_the_suite_names_no_backend_and_starts_without_torch(path: Path) -> None:
    cites = path.is_relative_to(ROOT / "conformance" / "zoo")  # bugs, by where they happened
    found = [] if cites else re.findall(BACKENDS, path.read_text(), re.IGNORECASE)
    assert not found, f"{name_of(path)} names {found}: the suite serves every backend alike"
    for name, line in imported(path, at_start=True):
        assert not within(name, "torch", "triton"), f"{name_of(path)}:{line} imports {name}"
        if path.name != "strategies.py":  # whose strategies only the drawing process needs
            assert not within(name, "hypothesis"), f"{name_of(path)}:{line} imports {name}"


@for_each(named(SOURCES))
def test_backends_and_frameworks_are_imported_inside_functions(path: Path) -> None:
    for name, line in imported(path, at_start=True):
        heavy = within(name, "torch", "triton", "axolotl", "transformers", "megatron", "deepspeed")
        assert not heavy, f"{name_of(path)}:{line} imports {name} when it is imported"


@for_each(named(SOURCES))
def test_nothing_is_configured_from_the_environment_at_import(path: Path) -> None:
    lines = [line for name, line in read(path).attributes if name in ("environ", "getenv")]
    assert not lines, f"{name_of(path)}:{lines} reads the environment"


# The wheel.


def builds() -> bool:
    try:
        return int(version("setuptools").partition(".")[0]) >= 77
    except PackageNotFoundError:
        return False


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The files of a wheel that is built from a clean copy of the tree."""
    if not builds():
        pytest.skip("setuptools>=77 is not installed, and nothing is downloaded for a test")
    copy, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    junk = shutil.ignore_patterns("__pycache__", "*.pyc", "*.egg-info", "build")
    for folder in (*FOLDERS, "tests"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=junk)
    for name in ("pyproject.toml", "README.md", "LICENSE", "conftest.py"):
        shutil.copy(ROOT / name, copy / name)
    program = "import sys, setuptools.build_meta as b; print(b.build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", program, str(out)],
        cwd=copy,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (path,) = out.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist())


class TestWheel:
    def test_holds_every_module_and_data_file_of_the_three_folders(self, wheel: set[str]) -> None:
        kept = {".py", ".toml", ".json", ".typed", ".css", ".js", ".yml"}
        tree = {
            f"{OURS}/{name_of(path)}"
            for folder in FOLDERS
            for path in (ROOT / folder).rglob("*")
            if path.is_file() and (path.suffix in kept or path.name == "py.typed")
        }
        assert tree, "the tree should have files"
        missing = sorted(tree - wheel)
        assert not missing, f"the wheel lacks {missing}: name them in pyproject.toml"

    def test_holds_nothing_else(self, wheel: set[str]) -> None:
        others = {name for name in wheel if not name.startswith(f"{OURS}/")}
        strange = [name for name in others if ".dist-info/" not in name]
        assert not strange, f"the wheel installs {strange} next to {OURS}"
        assert not [name for name in wheel if "tests/" in name or "__pycache__" in name]
        unknown = [
            name for name in wheel - others if not (ROOT / name.removeprefix(f"{OURS}/")).is_file()
        ]
        assert not unknown, f"{unknown} are not in the tree"

    def test_leaves_the_namespace_open(self, wheel: set[str]) -> None:
        assert f"{OURS}/__init__.py" not in wheel, f"{OURS} is a namespace that others may share"

    def test_is_typed_licensed_and_a_command(self, wheel: set[str]) -> None:
        assert {f"{OURS}/{folder}/py.typed" for folder in FOLDERS} <= wheel
        assert any(name.endswith("licenses/LICENSE") for name in wheel)
        assert any(name.endswith("entry_points.txt") for name in wheel)

    def test_every_package_of_the_tree_is_in_pyproject(self) -> None:
        text = (ROOT / "pyproject.toml").read_text()
        for init in (path for path in SOURCES if path.name == "__init__.py"):
            package = f"{OURS}.{'.'.join(init.parent.relative_to(ROOT).parts)}"
            assert f'"{package}"' in text, f"pyproject.toml does not list {package}"


# What is public is documented.


def public_modules() -> Iterator[str]:
    for folder in FOLDERS:
        package = importlib.import_module(f"{OURS}.{folder}")
        yield package.__name__
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not any(part.startswith("_") for part in found.name.split(".")):
                yield found.name


@for_each(lambda: {name: name for name in public_modules()})
def test_a_module_and_what_it_exports_have_docstrings(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} does not say what it is"
    exported = getattr(module, "__all__", ())
    assert len(set(exported)) == len(exported), f"{name}.__all__ repeats names"
    for each in exported:
        value = getattr(module, each)
        if not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        doc = inspect.getdoc(value) or ""
        assert doc, f"{name}.{each} has no docstring"
        assert not doc.startswith(f"{each}("), f"{name}.{each} has only dataclass's own docstring"
        first = doc.split("\n\n")[0]
        assert first.rstrip().endswith((".", ":")), f"{name}.{each} begins with no sentence"


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_exports_what_it_says(folder: str) -> None:
    package = importlib.import_module(f"{OURS}.{folder}")
    missing = [name for name in package.__all__ if not hasattr(package, name)]
    assert not missing, f"{OURS}.{folder}.__all__ names {missing}"


@for_each(named(PYTHON))
def test_a_line_has_100_characters_at_most(path: Path) -> None:
    long = [i for i, line in enumerate(path.read_text().splitlines(), 1) if len(line) > 100]
    assert not long, f"{name_of(path)}: lines {long}"
