"""What the process imports whose copies are pymarlzooplus's workers with environments; nothing else does."""

from __future__ import annotations

import contextlib
import importlib
import os

import numpy as np

# What fails here fails in a worker again, which says so.
with contextlib.suppress(Exception):
    importlib.import_module("pymarlzooplus.runners.parallel_runner")
# An environment may draw from numpy's global numbers: all copies would draw the same.
os.register_at_fork(after_in_child=np.random.seed)
