"""Commands at once: two of one core each take as long as the longer one.

    python tests/helpers/at_once.py COMMAND --and COMMAND

What each of them says is shown in the order given: the last line of its output, or all of it, with
its errors, where it fails. The first that fails ends the others.
"""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from tempfile import TemporaryFile
from typing import IO

AND = "--and"


def main(words: Sequence[str]) -> int:
    """Run the commands, and return the code of the first that fails, or 0."""
    with ExitStack() as ended:
        started = []
        for command in commands(words):
            output, errors = (ended.enter_context(TemporaryFile("w+")) for _ in range(2))
            one = subprocess.Popen(command, stdout=output, stderr=errors)
            ended.callback(one.wait)
            ended.callback(one.kill)  # which comes first, and does nothing to one that has ended
            started.append((command, one, output, errors))
        for command, one, output, errors in started:
            code = one.wait()
            lines = lines_of(output)
            shown = [*lines, *lines_of(errors)] if code else lines[-1:]
            print(f"$ {shlex.join(command)}", *shown, sep="\n", flush=True)
            if code:
                return code
    return 0


def lines_of(file: IO[str]) -> list[str]:
    """Return all lines of a file that another process has written."""
    file.seek(0)
    return file.read().splitlines()


def commands(words: Sequence[str]) -> Iterator[list[str]]:
    """Yield the commands, which ``--and`` parts."""
    command: list[str] = []
    for word in words:
        if word == AND:
            yield command
            command = []
        else:
            command.append(word)
    yield command


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:  # which tox sends once more
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.exit("interrupted")
