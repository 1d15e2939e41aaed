"""Tensors of PyTorch in items: of a view only the view is sent, and copied.

PyTorch pickles, and deep-copies, the whole storage of a tensor: a row of a matrix takes all the matrix
along. So a plain one (dense, in main memory) that is a view of a larger storage is sent as an array, and is
a tensor over the memory of that array where it arrives. All others go as PyTorch sends them.

PyTorch is never imported here, but looked for among the modules that are there.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["Reduced", "is_tensor", "private", "reduced"]

Reduced = tuple[Callable[..., object], tuple[Any, ...]]
"""A function and its arguments, of which it makes an object again."""


def is_tensor(value: object) -> bool:
    """Whether this is a tensor, and of no subclass."""
    torch = sys.modules.get("torch")
    return torch is not None and type(value) is getattr(torch, "Tensor", None)


def private(tensor: Any) -> Any:
    """Return a copy of a tensor that shares no memory with it; the tensor itself if it cannot be copied."""
    try:
        if not tensor.is_leaf:
            return tensor.clone()
        mine = tensor.detach().clone().requires_grad_(tensor.requires_grad)
        vars(mine).update(copy.deepcopy(vars(tensor)))
    except Exception:  # it can't be copied, so it is shared
        return tensor
    return mine


def reduced(tensor: Any) -> Reduced | None:
    """Return how a tensor is made again; None if as PyTorch's own pickle does it."""
    try:
        if not _is_part(tensor):
            return None
        part = tensor.detach().resolve_conj().resolve_neg()
        try:
            array = part.numpy()
        except TypeError:  # NumPy has no such type
            integer = f"int{8 * part.element_size()}"
            array = part.view(getattr(sys.modules["torch"], integer)).numpy()
    except Exception:
        return None
    return _tensor, (array, str(tensor.dtype), tensor.requires_grad, vars(tensor) or None)


def _is_part(tensor: Any) -> bool:
    """Whether a tensor is a plain one, and a view of a larger storage."""
    return bool(
        str(tensor.layout) == "torch.strided"
        and tensor.device.type == "cpu"
        and not tensor.is_quantized
        and not tensor._backward_hooks
        and tensor.untyped_storage().nbytes() > tensor.numel() * tensor.element_size()
    )


def _tensor(array: Any, dtype: str, requires_grad: bool, attributes: dict[str, Any] | None) -> Any:
    import torch  # type: ignore[import-not-found,unused-ignore]  # an extra

    tensor = torch.from_numpy(array).view(getattr(torch, dtype.removeprefix("torch.")))
    if attributes:
        vars(tensor).update(attributes)
    return tensor.requires_grad_(requires_grad)
