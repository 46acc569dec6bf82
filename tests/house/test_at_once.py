"""Commands at once: what one of them says of a failure is shown, and tox sees its code."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import at_once
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


@pytest.mark.skipif(sys.platform == "win32", reason="interrupts are sent in another way there")
def test_an_interrupt_ends_them_without_a_traceback(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    waits = f"import time; open({str(begun)!r}, 'w').close(); time.sleep(60)"
    run = subprocess.Popen(
        [sys.executable, at_once.__file__, sys.executable, "-S", "-E", "-c", waits],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while not begun.exists():
        assert run.poll() is None, run.communicate()
        time.sleep(0.02)
    run.send_signal(signal.SIGINT)
    assert run.communicate(timeout=30)[1] == "interrupted\n"
    assert run.returncode == 1
