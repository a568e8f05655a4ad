"""``limask run`` that is cut off at a certain step, not after some time: slow and fast machines stop alike.

    python tests/cut_run.py SIGTERM|SIGKILL STEPS [ARGUMENTS OF limask run]

The run sends itself the signal as it begins its first round of episodes at or after ``STEPS`` environment
steps. It may keep its state as often as it likes.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

from limask import cli
from limask.hosts import resume


def main(number: signal.Signals, steps: int, arguments: list[str]) -> int:
    begin_round = resume.Resumption._begin_round

    def cut_off(run: resume.Resumption, frame: FrameType) -> None:
        if run._is_training and frame.f_locals["runner"].t_env >= steps:
            os.kill(os.getpid(), number)
        begin_round(run, frame)

    resume.Resumption._begin_round, resume.SHARE = cut_off, 1e9  # type: ignore[method-assign]
    return cli.main(["run", *arguments])


if __name__ == "__main__":
    sys.exit(main(signal.Signals[sys.argv[1]], int(sys.argv[2]), sys.argv[3:]))
