"""The names of all metrics and of all kinds of events."""

from __future__ import annotations

from typing import Final

TRAIN_QUERY_LOSS: Final = "train/query_loss"
TRAIN_QUERY_ACCURACY: Final = "train/query_accuracy"
TRAIN_SUPPORT_LOSS: Final = "train/support_loss"
OUTER_GRAD_NORM: Final = "outer/grad_norm"
OUTER_LR: Final = "outer/lr"
STEP_S: Final = "time/step_s"
DRIVER_BUSY: Final = "time/driver_busy"
TASKS_PER_S: Final = "tasks_per_s"
VAL_LOSS: Final = "val/loss"
VAL_ACCURACY: Final = "val/accuracy"
VAL_ACCURACY_CI95: Final = "val/accuracy_ci95"
VAL_MSE: Final = "val/mse"
VAL_MSE_CI95: Final = "val/mse_ci95"
ARCHITECTURE: Final = "architecture/"
"""What names of operations' shares in an architecture begin with."""
OPERATION_SHARES: Final = tuple(
    f"{ARCHITECTURE}{operation}"
    for operation in (
        *("none", "skip", "max_pool_3", "avg_pool_3"),
        *("sep_conv_3", "sep_conv_5", "dil_conv_3", "dil_conv_5"),
    )
)
AUGMENTATION: Final = "augmentation/"
"""What names of operations' shares of changed images begin with."""
OPERATION_USES: Final = tuple(
    f"{AUGMENTATION}{operation}"
    for operation in (
        *("shear_x", "shear_y", "translate_x", "translate_y", "rotate"),
        *("brightness", "contrast", "invert"),
    )
)

METRICS: Final = (
    TRAIN_QUERY_LOSS,
    TRAIN_QUERY_ACCURACY,
    TRAIN_SUPPORT_LOSS,
    OUTER_GRAD_NORM,
    OUTER_LR,
    STEP_S,
    DRIVER_BUSY,
    TASKS_PER_S,
    VAL_LOSS,
    VAL_ACCURACY,
    VAL_ACCURACY_CI95,
    VAL_MSE,
    VAL_MSE_CI95,
    *OPERATION_SHARES,
    *OPERATION_USES,
)
"""Every metric there is; columns of `metrics.jsonl`, of data frames and of TensorBoard are these."""
EVENT_KINDS: Final = (
    "started",
    "resumed",
    "checkpoint",
    "validation",
    "best",
    "testing",
    "cluster",
    "data",
    "vectorize",
    "compile",
    "compiled",
    "chunk_halved",
    "worker_lost",
    "worker_hung",
    "worker_preempted",
    "worker_joined",
    "workers_waiting",
    "shard_copied",
    "shard_retried",
    "result_lost",
    "note",
    "warning",
    "stopped",
    "finished",
    "failed",
)
"""Every kind of event there is."""
FAULT_KINDS: Final = (
    "chunk_halved",
    "worker_lost",
    "worker_hung",
    "worker_preempted",
    "workers_waiting",
    "shard_retried",
    "result_lost",
)
"""Events that tell of something that went wrong on a worker; the run goes on."""
