"""Draws kept.png, of perturbed.csv beside it: python docs/results/choosing/kept.py"""

from pathlib import Path

from limask.experiments.evaluation.evaluate_output import read_csv, write_png

HERE = Path(__file__).parent
NAMES = {
    "entity": "qmix_entity",
    "entity_burst": "... on lost sightings",
    "sightings_burst": "... with a memory",
    "entity_belief_burst": "qmix_lim_robust",
}

rows = [
    row._replace(arm=name, run=f"{arm} {row.seed}")
    for arm, name in NAMES.items()
    for row in read_csv(HERE / "perturbed.csv")
    if (row.arm, row.environment) == (arm, "2s3z") and row.perturbation in ("dropout", "nearest")
]
write_png(HERE / "kept.png", rows)
