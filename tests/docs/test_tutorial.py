"""The tutorial, carried out as it stands, and what its CI job would run."""

from __future__ import annotations

from pathlib import Path

import pytest
from documented import Command, carry_out, shell, steps

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"
WHO = {
    f"GIT_{role}_{part}": "test@example.org"
    for role in ("AUTHOR", "COMMITTER")
    for part in ("NAME", "EMAIL")
}
EVERY_PLUGIN = {"PYTEST_ADDOPTS": ""}

pytest.importorskip("torch")


@pytest.mark.skipif(not PAGE.is_file(), reason="the docs are not here")
def test_the_tutorial_does_what_it_says_and_ends_in_a_green_job(tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml", reason="needs pyyaml")
    todo = list(steps(PAGE))
    assert sum(isinstance(step, Command) for step in todo) == 10
    for step in todo:
        carry_out(step, tmp_path, **WHO, **EVERY_PLUGIN)
    job = yaml.safe_load((tmp_path / ".github/workflows/my-gate.yml").read_text())
    (command,) = (s["run"] for s in job["jobs"]["routing"]["steps"] if s.get("name") == "Check")
    done = shell(f"git clone --quiet . fresh && cd fresh && {command} --profile smoke", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


class TestDocumented:
    """The helper itself: it takes what it should, and nothing else."""

    PAGE = "    $ printf 'a 1.5\\nb\\nc\\n'\n{output}\ntext\n"

    def test_a_command_without_output_may_say_nothing(self, tmp_path: Path) -> None:
        page = tmp_path / "page.md"
        page.write_text("    $ echo wrong >&2\n\ntext\n")
        (step,) = steps(page)
        with pytest.raises(AssertionError, match="wrong"):
            carry_out(step, tmp_path)

    @pytest.mark.parametrize(
        ("output", "right"),
        [
            ("    a 1.5\n    b\n    c", True),
            ("    ...\n    c", True),
            ("    a 1.5\n    ...", True),
            ("    a 1.5\n    c", False),
            ("    a 1.5\n    b", False),
            ("    ...\n    d", False),
            ("", False),
        ],
    )
    def test_output_is_held_against_the_page(
        self, output: str, right: bool, tmp_path: Path
    ) -> None:
        page = tmp_path / "page.md"
        page.write_text(self.PAGE.format(output=output))
        (step,) = steps(page)
        try:
            carry_out(step, tmp_path)
        except AssertionError:
            assert not right, "the output is the page's"
        else:
            assert right, "the output is not the page's"
