"""Environments that limask brings to a host, host-blind.

``VECTOR_REGISTRY`` maps the name of an environment to a class that steps many copies of it in one
call; the ``vector`` runner looks it up by ``args.env``.
"""

from limask.envs.smax import SmaxVector

VECTOR_REGISTRY = {"smax": SmaxVector}
