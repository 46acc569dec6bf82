"""A backend in another process: every bit gets through, and every end is reported."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moe_routing.conformance.checking.plan import Plan
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.cli import main
from moe_routing.conformance.run.isolation import Isolated, Watch
from moe_routing.conformance.run.seat import CannotRun
from moe_routing.implementations import (
    AdapterError,
    BackendLost,
    BackendMissing,
    ProcessAdapter,
    Unsupported,
    load_adapter,
    wire,
)
from moe_routing.reference import Renormalize, RouterConfig, RouterInputs

DATA = Path(__file__).parents[1] / "data"
CONFIG = RouterConfig(num_experts=4, top_k=2, renormalize=Renormalize())
SPEAKER = f"{sys.executable} -S -E {DATA}/speaker.py"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def check(reference: str, *more: str) -> tuple[int, dict[str, Any]]:
    code = main(["check", reference, "--profile=smoke", "--json=report.json", *more])
    (adapter,) = json.loads(Path("report.json").read_text())["adapters"]
    return code, {each["id"]: each for each in adapter["clauses"]}


def inputs_of(logits: Any) -> RouterInputs:
    return RouterInputs.from_logits(logits)


class TestSpoken:
    """Through a speaker in Python, which says whatever a test wants said."""

    def adapter(self, *manner: str) -> ProcessAdapter:
        return ProcessAdapter([sys.executable, str(DATA / "speaker.py"), *manner])

    def test_what_it_receives_is_what_was_sent_bit_for_bit(self) -> None:
        values = np.array(
            [[1e-45, -0.0, 3.4028235e38, 0.1], [-1.17549435e-38, 2.0, -np.pi, 16777217.0]],
            dtype=np.float32,
        )
        adapter = self.adapter("echo")
        answer = adapter.route(CONFIG, inputs_of(values))
        assert answer.logits.dtype == np.float32
        assert answer.logits.tobytes() == values.tobytes(), "some bit was lost on the way"

    def test_infinities_and_nan_are_words(self) -> None:
        values = np.full((2, 4), np.nan, dtype=np.float32)
        values[1] = [0.0, -np.inf, np.inf, 1.0]
        inputs = RouterInputs(hidden=values, gate_weight=np.eye(4))
        echoed = self.adapter("echo").route(CONFIG, inputs).logits
        np.testing.assert_array_equal(echoed, values)

    @pytest.mark.parametrize("dtype", ["float16", "float64", "bfloat16"])
    def test_answers_come_in_the_dtype_that_they_say(self, dtype: str) -> None:
        answer = self.adapter("dtype", dtype).route(CONFIG, inputs_of(np.zeros((3, 4))))
        assert str(answer.weights.dtype).removeprefix("torch.") == dtype
        assert str(answer.expert_ids.dtype) == "int64"

    def test_it_may_refuse_and_it_may_fail_in_its_own_words(self) -> None:
        with pytest.raises(Unsupported, match=r"^not today$"):
            self.adapter("unsupported").route(CONFIG, inputs_of(np.zeros((3, 4))))
        with pytest.raises(wire.BackendError, match=r"^no gate$"):
            self.adapter("error").route(CONFIG, inputs_of(np.zeros((3, 4))))

    def test_a_call_that_is_not_claimed_reaches_it(self) -> None:
        """The audit is of the backend: nothing on this side refuses in its place."""
        config = RouterConfig(num_experts=4, top_k=2, score="sigmoid")
        answer = self.adapter("echo").route(config, inputs_of(np.zeros((3, 4))))
        assert answer.weights.shape == (3, 2)


# manner of the speaker, status, what the verdict says
ENDS = [
    ("dies", "crash", "was killed by SIGSEGV; it last wrote 'about to fall'"),
    ("exits", "crash", "exited with code 3"),
    ("hangs-up", "crash", "exited with code 0"),
    ("garbage", "error", "sent a reply that is not JSON, 'Hello, world': Expecting value"),
    ("literal-nan", "error", 'NaN is not JSON; write "nan", "inf" or "-inf"'),
    ("half", "crash", "exited with code 0"),
    ("list", "error", "sent a reply that is not a JSON object: '[1, 2]'"),
    ("other-id", "error", "sent a reply with id 7 to request 2"),
    ("nothing-known", "error", "; expected one of routing, flat_routing, routing_map, "),
    ("lacks-ids", "error", "sent routing without expert_ids"),
    ("extra", "error", "sent unknown keys ['colour'] in routing; expected only weights, "),
    ("vast", "error", "sent weights of shape [1099511627776, 1099511627776, 0]; no array can"),
    ("short", "error", "sent weights of shape [1, 1] with 0 values"),
    ("text", "error", "sent 'much' in weights, whose dtype is float32"),
    ("float-ids", "error", "sent 0.5 in expert_ids, whose dtype is int64"),
    ("huge-ids", "error", "sent a value in expert_ids that int32 cannot hold"),
    ("no-dtype", "error", "sent weights of dtype 'float8'; expected one of bfloat16, bool, "),
]


@pytest.mark.parametrize(("manner", "status", "words"), ENDS)
def test_a_backend_that_ends_or_breaks_the_protocol_is_a_verdict_with_its_case(
    manner: str, status: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    clauses = ("robustness.answers", "robustness.rejects-bad-config", "weights.match")
    where = [] if status == "crash" else ["--no-isolate"]
    wanted = (f"--clause={each}" for each in clauses)
    code, found = check(f"process:{SPEAKER} {manner}", *wanted, *where)
    assert code == 1
    for each in clauses:
        assert found[each]["status"] == status, found[each]["message"]
        assert words in found[each]["message"]
        assert Path(found[each]["case"]).is_file(), "the case should be kept"
    assert "Traceback" not in capsys.readouterr().out
    assert (
        main(["replay", found["weights.match"]["case"], f"process:{SPEAKER} {manner}", *where]) == 1
    )


def test_its_end_is_a_verdict_without_isolation_too() -> None:
    code, found = check(f"process:{SPEAKER} dies", "--clause=weights.match", "--no-isolate")
    assert (code, found["weights.match"]["status"]) == (1, "crash")
    assert "was killed by SIGSEGV" in found["weights.match"]["message"]


def test_what_it_takes_of_memory_is_what_its_worker_takes() -> None:
    clause = CLAUSES["weights.match"]
    plan, watch = Plan(clauses=[clause], max_examples=2), Watch(memory=2**29)
    seat = Isolated(f"process:{SPEAKER} leaks", plan, watch=watch, tries=0)
    result = seat.check(clause)
    seat.close()
    assert result.status == "crash"
    assert result.message.startswith("took more than 0.5 GiB of memory in a call")
    assert result.case is not None


def test_no_hello_is_reported_like_an_adapter_that_hangs_in_loading() -> None:
    seat = Isolated(f"process:{SPEAKER} waits", Plan(clauses=[]), watch=Watch(idle_seconds=2.0))
    with pytest.raises(CannotRun, match=r"no answer after 2 s while it was loaded") as error:
        seat.about()
    seat.close()
    assert error.value.status == "timeout"


def test_a_reply_too_many_is_not_taken_for_the_next_one() -> None:
    code, _ = check(f"process:{SPEAKER} twice", "--clause=weights.match")
    assert code == 1
    adapter = ProcessAdapter([sys.executable, str(DATA / "speaker.py"), "twice"])
    adapter.route(CONFIG, inputs_of(np.zeros((1, 4))))
    with pytest.raises(BackendLost, match="sent a reply with id 2 to request 3"):
        adapter.route(CONFIG, inputs_of(np.zeros((1, 4))))


HELLOS = [
    ("dumb", "exited with code 1; it last wrote 'no room'"),
    ("version-9", "speaks version 9 of the protocol, but this suite speaks 1: update this suite"),
    ("version-0", "speaks version 0 of the protocol, but this suite speaks 1: update the backend"),
    ("version-2-of-its-own", "speaks version 2 of the protocol, but this suite speaks 1: "),
    ("version-in-words", "has protocol='1'; expected the number 1"),
    ("nameless", "has name=''; expected a non-empty printable string"),
    ("unprintable", r"has name='two\nlines'; expected a non-empty printable string"),
    ("refuses-hello", "no such device"),
    ("no-capabilities", "sent hello without capabilities"),
    (
        "unknown-axis",
        "has capabilities that cannot be read: a claim has the unknown key",
        '"colour"',
    ),
    ("nearly-an-axis", 'a claim has the unknown key "scor"; did you mean score?'),
    ("unknown-limit", 'limits has the unknown key "max_expert"; did you mean max_experts?'),
    ("worded-scale", 'scale has "two", but should have a number'),
    ("one-claim", 'claims is {"score": ["softmax"]}, but should be a list: write [{"score": '),
    ("no-rule", "a rule for renormalize is true, but should be a JSON object"),
    ("unknown-score", "Expected Claim.score to list only 'softmax', 'sigmoid', "),
    ("bare-score", 'score is "softmax", but should be a list: write ["softmax"]'),
    (
        "unknown-dtype",
        "Expected dtypes to list only 'float32', 'bfloat16', 'float16' but got 'floa",
    ),
    ("no-hello", "replied to hello with keys ['id']; expected hello"),
]


@pytest.mark.parametrize(("manner", "words"), [(m, w) for m, *w in HELLOS])
def test_a_bad_hello_is_reported_in_one_line(
    manner: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", f"process:{SPEAKER} {manner}", "--clause=weights.match"]) == 2
    err = capsys.readouterr().err
    assert all(each in err for each in words), err
    assert err.count("\n") == 1, err


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("process:./no-such-router", "Cannot find the command ./no-such-router; looked from "),
        ("process:./data", "Cannot start ./data: not executable; run chmod +x ./data"),
        ("process:", "process: names no command; write, for example, process:./router"),
        ("process:./router 'x", "Cannot read the command of process:./router 'x: No closing"),
    ],
)
def test_a_command_that_cannot_start_is_reported_in_one_line(reference: str, words: str) -> None:
    Path("data").touch(mode=0o644)
    with pytest.raises(AdapterError) as error:
        load_adapter(reference)
    assert words in str(error.value)


def test_a_command_of_letters_is_refused_with_the_fix() -> None:
    with pytest.raises(ValueError, match=r"a list of words but got './router': write \['./router'"):
        ProcessAdapter("./router")
    with pytest.raises(BackendMissing, match=r"Cannot start \./router: No such file"):
        ProcessAdapter(["./router"])


def test_it_can_be_an_attribute_of_a_file_and_gets_its_device() -> None:
    words = [sys.executable, str(DATA / "speaker.py"), "echo"]
    Path("mine.py").write_text(
        "from moe_routing.implementations import ProcessAdapter\n"
        f"def make(device): return ProcessAdapter({words!r}, device)\n"
    )
    assert load_adapter("mine.py:make", device="cuda:1").name == "speaker on cuda:1"


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    return state != "Z"


def comes(true: Callable[[], bool]) -> bool:
    """Wait until something is so; False where it does not come."""
    until = time.monotonic() + 30
    while not true() and time.monotonic() < until:
        time.sleep(0.05)
    return true()


class TestNothingIsLeftBehind:
    def test_where_an_adapter_is_closed_or_forgotten(self) -> None:
        for end in ("close", "forget"):
            adapter = ProcessAdapter([sys.executable, str(DATA / "speaker.py"), "echo"])
            process = adapter._running._popen
            if end == "close":
                adapter.close()
                assert adapter.route(CONFIG, inputs_of(np.zeros((1, 4)))) is not None, "anew"
            del adapter
            assert process.returncode == -signal.SIGKILL, "it should be ended and waited for"

    def test_where_a_call_hangs(self) -> None:
        clause = CLAUSES["weights.match"]
        seat = Isolated(
            f"process:{SPEAKER} hangs",
            Plan(clauses=[clause], max_examples=2),
            watch=Watch(call_seconds=1.0),
        )
        result = seat.check(clause)
        seat.close()
        assert (result.status, result.message) == ("timeout", "no answer after 1 s in a call")
        assert result.case is not None
        process = int(Path("speaker.pid").read_text())
        assert comes(lambda: not alive(process)), "the backend should end with its worker"

    def test_where_the_run_is_killed_while_a_call_hangs(self) -> None:
        words = ["-m", "moe_routing.conformance.cli", "check", f"process:{SPEAKER} hangs"]
        run = subprocess.Popen([sys.executable, *words, "--clause=weights.match"])
        pid = Path("speaker.pid")
        was_called = comes(lambda: pid.exists() and bool(pid.read_text()))
        run.kill()
        run.wait()
        assert was_called, "the backend should have been called"
        process = int(pid.read_text())
        assert comes(lambda: not alive(process)), "nothing else is left to end the backend"

    def test_a_process_that_was_lost_is_started_anew(self) -> None:
        adapter = ProcessAdapter([sys.executable, str(DATA / "speaker.py"), "dies-once"])
        with pytest.raises(BackendLost, match="was killed by SIGSEGV"):
            adapter.route(CONFIG, inputs_of(np.zeros((1, 4))))
        assert adapter.route(CONFIG, inputs_of(np.zeros((1, 4)))).weights.shape == (1, 2)
