"""``limask inspect``: what a run's masker hides in a test episode, and how well that is reconstructed."""

from __future__ import annotations

from pathlib import Path

from limask.experiments.display import say
from limask.experiments.evaluation import inspection_output
from limask.experiments.evaluation.inspection_output import Inspection
from limask.experiments.evaluation.runs import check_seed, common_host, extras_of, named, read_run
from limask.files import check_free, make_folder
from limask.requirements import require_host


def inspect(
    folder: Path, *, seed: int, output: Path | None = None, host: str | None = None, force: bool = False
) -> Inspection:
    """Let the last checkpoint of a run fight once, always taking the best action, and draw masks for the
    episode; print a summary, write ``inspect.csv`` and ``inspect.png``.

    The masks, and what drives them, come from the learner itself: it looks at copies of the episode, at the
    checkpoint's step.

    Args:
        folder: see ``runs.read_run``.
        seed: of the battle.
        output: folder for the files; None is ``inspection/RUN``.
        host: ``pymarlzooplus`` or a checkout that the run is to act in, or None for the one that it was
            trained in.
        force: whether files in ``output`` are written anew.

    Raises:
        LimaskError: a package is missing, the run has no autoencoder of entities or no checkpoint, or
            ``output`` holds such files; nothing has been written then.
    """
    check_seed(seed)
    run = read_run(folder)
    output = output or named("inspection", [run])
    check_free(output, inspection_output.NAMES, force=force)
    where = common_host([run], host)
    require_host(where, *extras_of([run]), "report")
    say(f"Loading {where} and its environment: up to half a minute …")
    from limask.experiments.evaluation.look import looked_at

    inspection = looked_at(where, run, seed)
    make_folder(output)
    print("\n".join(inspection_output.summary(inspection)))
    inspection_output.write_csv(output / inspection_output.CSV, inspection)
    print(f"Written: {output / inspection_output.CSV}")
    inspection_output.write_png(output / inspection_output.PNG, inspection)
    print(f"Picture: {output / inspection_output.PNG}")
    return inspection
