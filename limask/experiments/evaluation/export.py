"""``limask export``: trained agents as a small folder, to be handed on and to be used as the run itself."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from limask.errors import LimaskError
from limask.experiments.evaluation.runs import read_run
from limask.files import write_json

#: Options that are places on the machine where a run was trained, or accounts.
_PLACES = ("checkpoint_path", "local_results_path", "unique_token", "wandb")


def export(run: Path, output: Path) -> None:
    """Write what ``limask evaluate``, ``watch`` and ``inspect`` need of a run, and ``limask.load``: its
    options, and its last checkpoint without the state of the optimisers.

    The folder holds ``config.json`` and ``models/STEPS``. It knows of no checkout: it acts in pymarlzooplus
    unless ``--host`` says another.

    Args:
        run: see ``runs.read_run``.
        output: a folder that is not there yet, or is empty.

    Raises:
        LimaskError: see ``runs.read_run``; ``output`` holds something; or a file of the checkpoint is
            damaged. Nothing has been written then.
    """
    found = read_run(run)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise LimaskError(f"--output={output} holds something already: expected a new folder")
    import torch

    from limask.learning.checkpoints import load, whole

    config = {name: value for name, value in found.config.items() if name not in _PLACES}
    config["name"] = found.arm  # which its campaign alone knows
    if "lim" in config:
        config["lim"] = {**config["lim"], "start_from": ""}
    with whole(str(output)) as folder:
        models = Path(folder, "models", found.checkpoint.name)
        models.mkdir(parents=True)
        for file in sorted(found.checkpoint.iterdir()):
            if file.suffix == ".th":
                torch.save(_without_optimisers(load(file, "cpu")), models / file.name)
            else:
                shutil.copyfile(file, models / file.name)
        write_json(Path(folder, "config.json"), config)
    size = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    print(f"Written: {output} ({found.name} after {found.steps:,} steps, {size / 1000:,.0f} kB)")


def _without_optimisers(saved: Any) -> Any:
    """``saved`` with every optimiser's state as it was before its first step."""
    if not isinstance(saved, dict):
        return saved
    if saved.keys() == {"state", "param_groups"}:
        return {**saved, "state": {}}
    # Weights stay in the kind of table that they were saved in.
    return type(saved)((name, _without_optimisers(part)) for name, part in saved.items())
