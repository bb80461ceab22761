"""Whether an error says that memory ran short, of the host or of a GPU."""

from __future__ import annotations

import torch

_SYMPTOMS = ("can't allocate memory", "not enough memory", "out of memory")


def is_memory_error(error: BaseException) -> bool:
    """Whether `error` says that memory could not be had, of the host or of a GPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(symptom in str(error) for symptom in _SYMPTOMS)
