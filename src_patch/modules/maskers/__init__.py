# Added by `limask install`; `limask uninstall` takes it out again.
from limask.masking import REGISTRY

__all__ = ["REGISTRY"]
