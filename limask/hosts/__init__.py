"""Adapters to the hosts."""


def register_checkout() -> None:
    """See ``limask.hosts.registry``, which takes torch; the lines of ``limask install`` have this name."""
    from limask.hosts.registry import register_checkout

    register_checkout()
