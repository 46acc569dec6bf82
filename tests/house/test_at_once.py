"""Commands at once: what one of them says of a failure is shown, and tox sees its code."""

from __future__ import annotations

import sys
import time

import pytest
from at_once import main


def saying(words: str, *, code: int = 0) -> list[str]:
    script = f"import sys; print({words!r}); print('a warning', file=sys.stderr); sys.exit({code})"
    return [sys.executable, "-S", "-E", "-c", script]


def test_each_ends_in_the_line_that_it_ends_in_alone(capfd: pytest.CaptureFixture[str]) -> None:
    assert main([*saying("1\n2"), "--and", *saying("3\n4")]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[1::2] == ["2", "4"]
    assert all(line.startswith(f"$ {sys.executable} ") for line in lines[::2])


def test_all_that_a_failing_one_says_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    assert main([*saying("1\n2"), "--and", *saying("3\n4", code=5)]) == 5
    assert capfd.readouterr().out.splitlines()[-3:] == ["3", "4", "a warning"]
    assert main([*saying("wrong", code=3), "--and", *saying("4")]) == 3
    assert "wrong" in capfd.readouterr().out


def test_the_first_that_fails_ends_the_others() -> None:
    sleeps = [sys.executable, "-S", "-E", "-c", "import time; time.sleep(60)"]
    began = time.monotonic()
    assert main([*saying("no", code=1), "--and", *sleeps]) == 1
    assert time.monotonic() - began < 30
