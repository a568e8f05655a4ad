# Added by `limask install`; `limask uninstall` takes it out again, unless you edited it.
# Maskers by their name in `lim.masker.name`. To add one of yours, derive it from limask.masking.Masker in a
# file beside this one, import it here and name it: REGISTRY["mine"] = MyMasker
from limask.masking import REGISTRY

__all__ = ["REGISTRY"]
