"""Get Omniglot: `python -m raymeta.omniglot download [FOLDER]`, `python -m raymeta.omniglot pack TREE OUT.npz`."""

from __future__ import annotations

import sys

from raymeta.tasks.images.omniglot.__main__ import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
