"""Results go into regular files that a person named, through links, or to standard output, and never over a device."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from raymeta.__main__ import main
from raymeta.errors import ConfigError
from raymeta.system.outputs import require_output, write_output


def test_a_file_is_replaced_and_a_link_stays_one(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    write_output(link, "new", "-o")
    assert link.is_symlink()
    assert target.read_text() == "new"


@pytest.mark.parametrize("kind", ["pipe", "folder", "link to a pipe"])
def test_what_is_no_regular_file_is_refused_and_stays(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "it"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        os.mkfifo(tmp_path / "pipe")
        path.symlink_to(tmp_path / "pipe")
    before = path.lstat()
    with pytest.raises(ConfigError, match=r"-o .* is no regular file: .* - for standard output"):
        write_output(path, "x", "-o")
    assert (path.lstat().st_ino, stat.S_IFMT(path.lstat().st_mode)) == (before.st_ino, stat.S_IFMT(before.st_mode))


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"there is no folder {tmp_path / 'gone'}"):
        require_output(tmp_path / "gone" / "file", "--json")


def test_a_hyphen_is_standard_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_output(Path("-"), "whole\n", "-o")
    write_output(Path("-"), b"bytes\n", "-o")
    assert capsys.readouterr().out == "whole\nbytes\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "command",
    [
        ["bench", "sinusoid-maml", "--json", "PIPE"],
        ["transfer", "--root", "nowhere", "--output", "PIPE"],
        ["omniglot", "pack", "nowhere", "PIPE"],
    ],
    ids=lambda command: command[0],
)
def test_commands_look_before_they_compute(
    tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert main([str(tmp_path / "pipe") if word == "PIPE" else word for word in command]) == 2
    assert "is no regular file" in capsys.readouterr().err
