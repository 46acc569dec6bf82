"""How often a call is made again where a clause repeats it, unless a run says otherwise."""

REPEATS = 256
