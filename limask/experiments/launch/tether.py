"""A command that does not outlive whoever started it, whatever ends them; run as a script by ``jobs``.

``tether.py COMMAND…`` becomes the command. Before, it leaves a guard in its process group that waits for the
end of standard input, a pipe of which only the starter holds the other end: when the starter closes it or
dies (SIGKILL included), the guard kills its own group, and so nothing that was not started here.
"""

import os
import signal
import sys


def main() -> None:
    """Become the command ``sys.argv[1:]``; the process has to lead its group."""
    if os.fork() == 0:
        _guard()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.execvp(sys.argv[1], sys.argv[1:])


def _guard() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
