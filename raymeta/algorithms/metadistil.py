"""MetaDistil: a teacher that learns to teach."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from raymeta.algorithms.distillation import Distillation, is_teacher
from raymeta.options import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MetaDistil(Distillation):
    """Zhou, Xu, McAuley. BERT Learns to Teach: Knowledge Distillation with Meta Learning. ACL 2022, arXiv:2106.04570.

    With student S, teacher T, ℓ(S, T) = α KD(S, T) + (1 − α) CE on the training batch (support), and the quiz (query),
    a step after the teacher's own training (`teacher_steps`) is:
    1. S'(T) = S − λ ∇_S ℓ(S, T);
    2. T ← T − μ ∇_T CE(S'(T); quiz), differentiated through 1.: −λ ∇_T ⟨∇_S ℓ(S, T), ∇CE(S'; quiz)⟩;
    3. S ← S − η ∇_S ℓ(S, T) with the new T, on the same batch (the paper's pilot update).
    With `teach: false` the teacher stays as it is: distillation from a fixed teacher, the reference. What is tested is
    S on the queries; classes mean the same in every task.

    Differences from the paper:
    1. The teacher is trained by the run itself, in its first `teacher_steps` steps, at the rate at which it is taught
       later. Momentum of the one goes over into the other.
    2. The virtual step is a plain gradient step, whatever the outer optimiser, its momentum and decay.
    3. A teacher's step looks at one batch, as in the authors' script for CIFAR-100; the paper allows several.
    4. Batch norm has no running statistics here: every pass uses those of its batch.
    """

    teach: bool = True
    """whether the teacher learns to teach; false for distillation from a fixed teacher"""

    @property
    def looks_ahead(self) -> bool:
        return self.teach

    def is_meta(self, name: str) -> bool:
        return is_teacher(name)
