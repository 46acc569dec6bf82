"""A full temporary folder, in which workers note the case of a call, and what they print."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import pytest

from moe_routing.conformance.cases.files import load_case
from moe_routing.conformance.cli import main
from moe_routing.conformance.run.isolation.journal import Journal, read_entry

DATA = Path(__file__).parents[1] / "data"
FULL = "No space left on device"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class TestTheTemporaryFolder:
    """Where workers note the case of a call, and what they print."""

    def test_without_space_is_named_with_what_to_do(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def write_bytes(path: Path, text: bytes) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(Path, "write_bytes", write_bytes)
        assert main(["replay", f"{DATA}/cases/grouped-sigmoid.json"]) == 2
        folder = tempfile.gettempdir()
        fix = "make space there, or name another one in TMPDIR"
        said = capsys.readouterr().err
        assert (
            said == f"moe-routing: Cannot write to the temporary folder {folder}: {FULL}; {fix}\n"
        )

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="files have no limit here")
    def test_without_space_for_a_case_goes_on_without_it(self) -> None:
        import resource

        (case, _), journal = load_case(DATA / "cases" / "grouped-sigmoid.json"), Journal(Path("j"))
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (40, limit[1]))
        try:
            journal.calling(case)
            called = read_entry(Path("j"))
            journal.returned()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        assert (called.state, called.case) == ("c", None)
        assert read_entry(Path("j")).state == "r"
        journal.calling(case)
        assert read_entry(Path("j")).case is not None
