"""The judge: an answer is right iff rounding at the permitted precision can explain it."""

from moe_routing.conformance.judge.bounds import Bounds
from moe_routing.conformance.judge.by_device import judge
from moe_routing.conformance.judge.intervals import Interval, JudgeError
from moe_routing.conformance.judge.rows import NONE
from moe_routing.conformance.judge.selection import may_select, only_selects
from moe_routing.conformance.judge.verdict import Answer, Verdict

__all__ = [
    "NONE",
    "Answer",
    "Bounds",
    "Interval",
    "JudgeError",
    "Verdict",
    "judge",
    "may_select",
    "only_selects",
]
