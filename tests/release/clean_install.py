"""Install the wheel of a folder into clean environments, and check ``reference`` in each.

    python tests/release/clean_install.py DIST [--lowest]

One environment for each Python from 3.11 to 3.13 that is there, itself last if it is none of these.
``--lowest`` installs every requirement at its lower bound, in the oldest of them alone. torch and
triton are left out: the reference needs neither, and a new torch is gigabytes.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from email import message_from_bytes
from pathlib import Path

VERSIONS = ("3.11", "3.12", "3.13")
LARGE = ("torch", "triton")


def pythons() -> dict[str, str]:
    """Return the interpreters that are there and start, by version."""
    places = [*os.environ["PATH"].split(os.pathsep)]
    places += map(str, sorted(Path.home().glob(".pyenv/versions/*/bin")))
    found = {}
    for version in VERSIONS:
        candidates = [shutil.which(f"python{version}", path=place) for place in places]
        starting = [each for each in candidates if each and version == _version(each)]
        if starting:
            found[version] = starting[0]
    return found


def _version(python: str) -> str:
    program = "import sys; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([python, "-c", program], capture_output=True, text=True)
    return done.stdout.strip()


def requirements(wheel: Path) -> list[str]:
    """Return what a wheel requires without extras, but for what is large."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        named = message_from_bytes(archive.read(name)).get_all("Requires-Dist") or []
    plain = [each for each in named if "extra ==" not in each]
    return [each for each in plain if re.split(r"[^\w-]", each)[0] not in LARGE]


def lowest(requirement: str) -> str:
    """Return a requirement at its lower bound."""
    return requirement.replace(">=", "==")


def installed(wheel: Path, python: str, folder: Path, wanted: Sequence[str]) -> Path:
    """Make an environment with a wheel and what it needs, and return its folder of programs."""
    subprocess.run([python, "-m", "venv", folder], check=True)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    pip = [programs / "python", "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, *wanted], check=True)
    subprocess.run([*pip, "--no-deps", wheel], check=True)
    return programs


def run(programs: Path, folder: Path, *words: str) -> None:
    """Run the installed command in a folder of its own, without this project's on any path."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    subprocess.run([programs / "moe-routing", *words], cwd=folder, env=kept, check=True)


def main() -> None:
    """Try every Python; an error of any ends the program with it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dist", type=Path)
    parser.add_argument("--lowest", action="store_true")
    arguments = parser.parse_args()
    (wheel,) = arguments.dist.resolve().glob("*.whl")
    tried = pythons() or {_version(sys.executable): sys.executable}
    wanted = requirements(wheel)
    if arguments.lowest:
        tried, wanted = dict([next(iter(tried.items()))]), list(map(lowest, wanted))
    for version, python in tried.items():
        print(f"Python {version}: {', '.join(wanted)}", flush=True)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            programs = installed(wheel, python, folder / "environment", wanted)
            run(programs, folder, "--version")
            run(programs, folder, "check", "reference", "--profile", "smoke", "-q")
    missing = [each for each in VERSIONS if each not in tried]
    print(f"installed and checked on {', '.join(tried)}; not tried: {', '.join(missing) or 'none'}")


if __name__ == "__main__":
    main()
