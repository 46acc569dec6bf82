"""Completion in shells: each script is one, and completes commands, adapters, clauses, files."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from moe_routing.conformance.cli import main
from moe_routing.conformance.cli.completion import SHELLS

TRIED = """
source {script}
complete_it() {{
    COMP_WORDS=(moe-routing "$@"); COMP_CWORD=$#; COMPREPLY=()
    $(complete -p moe-routing | sed 's/.*-F \\([^ ]*\\).*/\\1/')
    echo "${{COMPREPLY[@]}}"
}}
"""
WANTED = {
    "co": "compare completion",
    "check sca": "scattermoe scattermoe@gpt_oss scattermoe@lora",
    "check torch son": "sonicmoe sonic-moe",
    "check --profile s": "smoke soak",
    "check --clause groups.k": "groups.kept-only",
    "check --known mine.t": "mine.toml",
    "explain weights.sc": "weights.scale",
    "clauses groups.k": "groups.kept-only",
}


@pytest.fixture
def script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Path]:
    pytest.importorskip("shtab")
    made = {}
    for shell in SHELLS:
        assert main(["completion", shell]) == 0
        made[shell] = tmp_path / shell
        made[shell].write_text(capsys.readouterr().out)
    return made


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_can_read_its_script(shell: str, script: dict[str, Path]) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"no {shell}")
    subprocess.run([program, "-n", script[shell]], check=True, timeout=60)


def test_bash_completes_with_it(script: dict[str, Path]) -> None:
    (script["bash"].parent / "mine.toml").touch()
    tried = TRIED.format(script=script["bash"])
    tried += "\n".join(f"complete_it {words}" for words in WANTED)
    run = subprocess.run(
        ["bash", "-c", tried],
        cwd=script["bash"].parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert dict(zip(WANTED, run.stdout.splitlines(), strict=True)) == WANTED


def test_fish_completes_with_it(script: dict[str, Path]) -> None:
    if shutil.which("fish") is None:
        pytest.skip("no fish")
    tried = f"source {script['fish']}; complete -C 'moe-routing check transformers:glm4_moe_l'"
    run = subprocess.run(
        ["fish", "-c", tried], capture_output=True, text=True, timeout=60, check=True
    )
    assert run.stdout.split()[0] == "transformers:glm4_moe_lite"


def test_without_shtab_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("python -m pip install 'moe-routing-conformance[completion]'")
