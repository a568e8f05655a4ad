"""What a newcomer types, as the pages print it, in an EPyMARL checkout. Only the trainings are shorter.

What can be typed without a checkout is typed elsewhere: ``test_api`` has the page on Python.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from checkout_parts import NAMED

from limask.install.families import family_of

ROOT = Path(__file__).resolve().parents[1]
EPYMARL = [path for path in NAMED if family_of(path).key == "epymarl"]
#: EPyMARL imports it whatever it trains on.
HAS_SMACLITE = importlib.util.find_spec("smaclite") is not None

#: limask is installed already; and nobody waits for two million steps.
_SHORTER = """
set -eu
pip() { echo "pip $*"; }
python() { command python "$@" t_max=600 batch_size=8 test_interval=500 test_nepisode=8 save_model=True; }
"""


def block(page: str, beginning: str) -> str:
    """The page's block of commands that begins so."""
    blocks = re.findall(r"^```bash\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)
    (found,) = (text for text in blocks if text.startswith(beginning))
    return str(found)


def command(page: str, beginning: str) -> str:
    """The page's first line of commands that begins so."""
    return next(line for line in (ROOT / page).read_text().splitlines() if line.startswith(beginning))


@pytest.mark.skipif(not EPYMARL, reason="LIMASK_TEST_HOSTS names no checkout of EPyMARL: it is not tested")
@pytest.mark.skipif(not HAS_SMACLITE, reason="needs smaclite, as EPyMARL does")
def test_what_the_pages_print_works_in_epymarl(tmp_path: Path) -> None:
    copy = tmp_path / "src/epymarl"
    shutil.copytree(EPYMARL[0], copy, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "results"))
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = os.environ | {"HOME": str(tmp_path), "PATH": tools, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}

    def typed(*lines: str) -> str:
        script = "\n".join((_SHORTER, *lines))
        done = subprocess.run(
            ["bash", "-c", script], cwd=ROOT, env=env, text=True, capture_output=True, timeout=400
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
        return done.stdout + done.stderr

    typed(block("README.md", "pip install"))
    assert (copy / "results/sacred/qmix_lim/2s3z/1/metrics.json").stat().st_size > 1000
    assert "--config=qmix_lim --env-config=smax" in typed("limask doctor ~/src/epymarl")
    typed(
        "cd ~/src/epymarl",
        "python src/main.py --config=qmix_entity --env-config=smax with env_args.map_name=3m",
        f"{command('docs/evaluation.md', 'limask evaluate ~/src')} --episodes 8",
    )
    (csv,) = copy.glob("evaluation/qmix_entity_3m_seed_*_8m/evaluate.csv")  # EPyMARL draws the seed
    assert len(csv.read_text().splitlines()) == 2
    typed(command("docs/install.md", "limask uninstall"))
    status = subprocess.run(
        ["git", "status", "--short"], cwd=copy, capture_output=True, text=True, check=True
    )
    assert "limask" not in status.stdout
