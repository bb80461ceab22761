"""Text without credentials. Every text that raymeta writes, and every error it prints, passes through here."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

HIDDEN = "***"
_MIN_LENGTH = 8  # shorter values are words such as `true`, which are no secrets and would spoil ordinary text

_USER = re.compile(r"(?<=://)(?!anonymous@)[^\s/?#@'\"]+@")
# A key with a bare `/` in it, which is no URI; the colon keeps paths with an @ in them as they are.
_BROKEN_USER = re.compile(r"(?<=://)[^\s/?#@:'\"]+:[^\s?@'\"]+@")
_QUERY = re.compile(r"(?i)([?&][\w.-]*(?:secret|token|password|signature|credential|key)[\w.-]*=)[^&\s'\"]+")
_NAME = re.compile(r"(?i)(?:secret|token|password|passwd|api_?key|access_?key(?:_id)?|account_?key|connection_string)$")


# As bytes where there are such, since decoding every name takes longer than all else that is done with a short text.
_ENVIRONMENT: Any = getattr(os, "environb", os.environ)


def without_secrets(text: str) -> str:
    """`text` without user names and keys in URIs, and without values of environment variables that are secrets.

    A variable is taken for a secret by its name: AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, HF_TOKEN, WANDB_API_KEY.
    """
    return redactor()(text)


def redactor() -> Callable[[str], str]:
    """`without_secrets` for many texts at once: reading the environment is what takes the time."""
    values = [os.fsdecode(_ENVIRONMENT.get(name, "")) for name in _ENVIRONMENT if _names_a_secret(name)]
    secrets = [value for value in values if len(value) >= _MIN_LENGTH]

    def clean(text: str) -> str:
        if "://" in text:
            text = _BROKEN_USER.sub("", _USER.sub("", text))
            text = _QUERY.sub(rf"\1{HIDDEN}", text)
        for secret in secrets:
            text = text.replace(secret, HIDDEN)
        return text

    return clean


@lru_cache(maxsize=4096)
def _names_a_secret(name: str | bytes) -> bool:
    return _NAME.search(os.fsdecode(name)) is not None
