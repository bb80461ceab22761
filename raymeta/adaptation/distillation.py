"""What a student is told by a teacher: soft labels at a temperature each."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F


class Temperatures(NamedTuple):
    """What logits are divided by before the softmax."""

    teacher: float | Tensor
    student: float | Tensor


def soft_loss(student_nC: Tensor, teacher_nC: Tensor, by: Temperatures) -> Tensor:
    """KD(S, T) = τ_T τ_S · mean over n of KL(softmax(T / τ_T) ‖ softmax(S / τ_S)), of logits.

    At equal temperatures the factor is Hinton's τ², which keeps the size of gradients as τ grows.
    """
    told, heard = (teacher_nC / by.teacher).log_softmax(1), (student_nC / by.student).log_softmax(1)
    loss: Tensor = by.teacher * by.student * F.kl_div(heard, told, reduction="batchmean", log_target=True)
    return loss
