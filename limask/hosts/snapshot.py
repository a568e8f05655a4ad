"""The state of a run's objects, captured and put back into objects built anew.

Hosts keep their state in attributes of their own, and no two families in the same ones. So nothing is
listed: whatever can be reached from the host's run loop is walked, through classes of the host's and of
limask's, and what changes is kept: numbers, tensors, weights, optimisers, streams of random numbers. What was
built the same way is walked the same way, and gets it back in place.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from limask.errors import LimaskError
from limask.protocols import State

#: What a value is written as: how it is to be put back, and with what.
Node = tuple[str, Any]

_PLAIN = (bool, int, float, complex, str, type(None))
_CONTAINERS = (list, tuple, dict, set, deque)
#: What torch keeps of a module in its attributes, beside weights.
_OF_TORCH = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")


class Snapshot:
    """Walks objects once each.

    Args:
        is_ours: whether objects of a class are walked through.
        leave_out: objects that are not.
    """

    def __init__(self, is_ours: Callable[[type], bool], leave_out: Iterable[object] = ()) -> None:
        self.is_ours = is_ours
        # Kept alive: the number of an object that is gone may be another's.
        self._known = {id(value): value for value in leave_out}

    def capture(self, value: Any) -> Node | None:
        """``value`` as plain data and tensors; None where it has no state, or has been walked already."""
        if isinstance(value, _PLAIN):
            return "plain", value
        if isinstance(value, np.generic):
            return "plain", value.item()
        if id(value) in self._known or isinstance(value, nn.Parameter):
            return None
        if isinstance(value, tuple) and type(value) is not tuple:
            return None  # named tuples are made once, and anew
        if isinstance(value, torch.Tensor):
            return "tensor", value.detach().clone()
        if _is_array(value):
            return "array", _bytes_of(value)
        if type(value) in _CONTAINERS or isinstance(value, dict):
            return type(value).__name__ if type(value) in _CONTAINERS else "dict", self._captured_items(value)
        self._known[id(value)] = value
        if isinstance(value, torch.Generator):
            return "torch.Generator", (str(value.device), value.get_state())
        if isinstance(value, np.random.Generator):
            return "numpy.Generator", value.bit_generator.state
        if isinstance(value, torch.optim.Optimizer):
            return "state_dict", (_copied(value.state_dict()), {})
        if isinstance(value, nn.Module):
            return "state_dict", (_copied(value.state_dict()), self._captured_attributes(value))
        if self.is_ours(type(value)):
            own = _copied(value.state_dict()) if hasattr(value, "load_state_dict") else None
            return "state_dict", (own, self._captured_attributes(value))
        return None

    def _captured_items(self, values: Any) -> Any:
        if isinstance(values, dict):
            return [(key, self.capture(value)) for key, value in values.items()]
        return [self.capture(value) for value in values]

    def _captured_attributes(self, value: Any) -> dict[str, Node]:
        nodes = ((name, self.capture(part)) for name, part in _attributes(value))
        return {name: node for name, node in nodes if node is not None}

    def restore(self, live: Any, node: Node | None) -> Any:
        """What is to stand where ``live`` stands: itself, changed in place, or where it cannot be changed,
        what ``node`` was captured from.

        Raises:
            LimaskError: it was captured from something else.
        """
        if node is None:
            return live
        kind, data = node
        if kind == "plain":
            return live if type(live) is type(data) and live == data else data
        if kind == "tensor":
            return _put(live, data)
        if kind == "array":
            return _array_of(data)
        if kind in {container.__name__ for container in _CONTAINERS}:
            return self._restored_items(live, kind, data)
        if kind == "torch.Generator":
            device, state = data
            live = torch.Generator(device) if live is None else live
            live.set_state(state)
        elif live is None:
            pass  # made when it is next needed, as it was
        elif kind == "numpy.Generator":
            live.bit_generator.state = data
        else:
            self._restore_object(live, *data)
        return live

    def _restored_items(self, live: Any, kind: str, data: Any) -> Any:
        if kind == "dict":
            table: dict[Any, Any] = {} if live is None else live
            nodes = dict(data)
            # What is only there now was not there then.
            for key in [key for key in table if key not in nodes]:
                del table[key]
            table.update(
                (key, self.restore(table.get(key), node)) for key, node in nodes.items() if node is not None
            )
            return table
        old = list(live) if isinstance(live, _CONTAINERS) and len(live) == len(data) else None
        if old is None and None in data:
            raise LimaskError(f"a list of {len(data)} objects was kept, and {live!r} stands in its place")
        values = [
            self.restore(before, node) for before, node in zip(old or [None] * len(data), data, strict=True)
        ]
        if isinstance(live, (list, deque)):
            live.clear()
            live.extend(values)
            return live
        if old is not None and all(before is after for before, after in zip(old, values, strict=True)):
            return live
        return {"list": list, "tuple": tuple, "set": set, "deque": deque}[kind](values)

    def _restore_object(self, live: Any, own: State | None, attributes: dict[str, Node]) -> None:
        if own is not None:
            try:
                live.load_state_dict(own)
            except (KeyError, RuntimeError, ValueError) as error:
                raise LimaskError(f"{type(live).__name__} is of another build ({error})") from error
        for name, node in attributes.items():
            before = getattr(live, name, None)  # some are made when they are first needed
            after = self.restore(before, node)
            if after is not before:
                setattr(live, name, after)


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    """Attributes of an object; of a module also the modules in it, which have state of their own."""
    for name, part in getattr(value, "__dict__", {}).items():
        if not (isinstance(value, nn.Module) and (name in _OF_TORCH or "_hooks" in name)):
            yield name, part
    if isinstance(value, nn.Module):
        yield from value.named_children()


def _copied(state: Any) -> Any:
    """A ``state_dict`` that no longer changes."""
    if isinstance(state, torch.Tensor):
        return state.detach().clone()
    if isinstance(state, dict):
        return {key: _copied(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(_copied(value) for value in state)
    return state


def _put(live: Any, data: torch.Tensor) -> torch.Tensor:
    is_same = isinstance(live, torch.Tensor) and live.shape == data.shape and live.dtype == data.dtype
    if not is_same or live.is_inference():
        device = live.device if isinstance(live, torch.Tensor) else data.device
        return data.to(device)
    with torch.no_grad():
        live.copy_(data)
    changed: torch.Tensor = live
    return changed


def _is_array(value: Any) -> bool:
    """Whether it is an array of numpy's or of jax's."""
    if isinstance(value, np.ndarray):
        return value.dtype != object
    return type(value).__module__.startswith("jax") and hasattr(value, "__array__")


def _bytes_of(value: Any) -> tuple[bool, str, list[int], torch.Tensor]:
    array = np.asarray(value)
    # As bytes: torch has not all kinds of numbers.
    content = torch.from_numpy(np.frombuffer(array.tobytes(), dtype=np.uint8).copy())
    return isinstance(value, np.ndarray), array.dtype.str, list(array.shape), content


def _array_of(data: tuple[bool, str, list[int], torch.Tensor]) -> Any:
    is_numpys, kind, shape, content = data
    array = np.frombuffer(content.numpy().tobytes(), dtype=kind).reshape(shape).copy()
    if is_numpys:
        return array
    import jax  # whose array it is

    return jax.numpy.asarray(array)


def random_state() -> State:
    """The global streams of random numbers."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: State) -> None:
    """Inverse of ``random_state``."""
    random.setstate(state["python"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
