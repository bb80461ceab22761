"""An exported model put on a Hugging Face hub, by its own package."""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from raymeta.errors import ConfigError, EnvironmentProblem
from raymeta.system.reading import first_line
from raymeta.system.signals import raise_if_interrupt


def require_hub(repo: str) -> None:
    """Raises `EnvironmentProblem` without the package, and `ConfigError` where `repo` is no OWNER/NAME."""
    if find_spec("huggingface_hub") is None:
        raise EnvironmentProblem("--push needs huggingface_hub: pip install 'raymeta[hub]'")
    owner, _, name = repo.partition("/")
    if not owner or not name or "/" in name:
        raise ConfigError(f"--push {repo}: name a repository as OWNER/NAME")


def push(folder: Path, repo: str) -> str:
    """Upload every file of `folder` to the repository `repo`; returns its address.

    The hub is that of `HF_ENDPOINT`, and the token the one that `hf auth login` or `HF_TOKEN` left. A repository that
    is not there yet is made, private.

    Raises `EnvironmentProblem` where the hub refuses, and the folder stays.
    """
    require_hub(repo)
    api: Any = import_module("huggingface_hub").HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    try:
        address = api.create_repo(repo, private=True, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=folder, commit_message=f"Model {folder.name}")
    except Exception as error:  # its package raises errors of several others
        raise_if_interrupt(error)
        raise EnvironmentProblem(
            f"--push {repo}: {first_line(error)[:300]}. {folder} is written: log in with `hf auth login`, and try "
            f"again with raymeta export {folder} --push {repo} --out ANOTHER"
        ) from error
    return str(address)
