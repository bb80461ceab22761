"""Published accuracies of the methods on Omniglot, one shot, each with how it is known.

"source": read in the paper or the authors' code. "quoted": read in another document that quotes the table. "recalled":
from memory of the paper, for orientation only. What a paper does not tell is left out.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Evidence = Literal["source", "quoted", "recalled"]


class Published(NamedTuple):
    """A published accuracy from 0 to 1."""

    value: float
    evidence: Evidence
    remark: str = ""


PUBLISHED: dict[str, dict[str, Published]] = {
    "omniglot-5w1s": {
        "maml": Published(0.987, "quoted"),
        "maml_pp": Published(0.9947, "quoted", "five checkpoints together"),
        "imaml": Published(0.9916, "recalled", "with gradient descent"),
        "meta_sgd": Published(0.995, "quoted"),
        "reptile": Published(0.9768, "quoted", "with transduction"),
        "protonet": Published(0.988, "quoted"),
        "matching": Published(0.981, "quoted"),
        "siamese": Published(0.973, "quoted", "run by later papers"),
        "relation": Published(0.996, "quoted", "checkpoint chosen on test classes"),
        "mann": Published(0.828, "quoted", "of the second instance"),
        "snail": Published(0.9907, "source"),
        "cnp": Published(0.953, "recalled"),
    },
    "omniglot-20w1s": {
        "maml": Published(0.958, "quoted", "91 to 93 % in replications"),
        "maml_pp": Published(0.9765, "quoted", "five checkpoints together"),
        "imaml": Published(0.9446, "recalled", "with gradient descent"),
        "anil": Published(0.962, "recalled"),
        "meta_sgd": Published(0.959, "quoted"),
        "reptile": Published(0.8943, "quoted", "with transduction"),
        "protonet": Published(0.96, "quoted"),
        "matching": Published(0.938, "quoted"),
        "siamese": Published(0.882, "quoted", "run by later papers"),
        "relation": Published(0.976, "quoted", "checkpoint chosen on test classes"),
        "snail": Published(0.9764, "source"),
        "cnp": Published(0.899, "recalled"),
    },
    "emoji-5w1s": {},
}
