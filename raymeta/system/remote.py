"""A folder in a store that pyarrow reaches (s3, gs, hdfs, abfs, file): read, write, list, delete, in clear errors."""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from raymeta.errors import ConfigError, EnvironmentProblem
from raymeta.system.redact import without_secrets

SCHEMES = ("s3", "gs", "gcs", "hdfs", "abfs", "abfss", "file")
_PIECE = 8 * 2**20  # bytes of a large file that are in memory at once

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_REFUSED = re.compile(
    r"ACCESS_DENIED|FORBIDDEN|INVALID_ACCESS_KEY|INVALID_CLIENT_TOKEN|SIGNATURE_DOES_NOT_MATCH|EXPIRED|"
    r"HTTP status 40[13]|PERMISSION_DENIED|UNAUTHENTICATED|Permission denied",
    re.IGNORECASE,
)
_NO_BUCKET = re.compile(r"NO_SUCH_BUCKET|bucket does not exist|Bucket '.*' not found", re.IGNORECASE)
_UNREACHABLE = re.compile(r"NETWORK_CONNECTION|curlCode|REQUEST_TIMEOUT|UNAVAILABLE|Connection refused", re.IGNORECASE)


def is_uri(text: object) -> bool:
    """Whether `text` names a place in a store (`s3://bucket/prefix`) rather than a local folder."""
    return isinstance(text, str) and _URI.match(text) is not None


class Entry(NamedTuple):
    """A file in a store: its size in bytes and when it was written, in seconds since 1970."""

    size: int
    time: float


@dataclass(frozen=True, repr=False)
class Remote:
    """A folder in a store. As text it is its URI, without the credentials that the URI may hold."""

    uri: str
    _filesystem: Any
    _path: str

    @classmethod
    def open(cls, uri: str) -> Remote:
        """The folder that `uri` names; nothing is asked of the store yet.

        Raises `ConfigError` for an URI that is none of the kinds pyarrow knows, `EnvironmentProblem` without pyarrow.
        """
        try:
            from pyarrow import ArrowException
            from pyarrow.fs import FileSystem
        except ImportError as error:
            raise EnvironmentProblem(
                f"{without_secrets(uri)} needs pyarrow: pip install 'raymeta[storage]', or use a local folder"
            ) from error
        if (scheme := uri.partition("://")[0].lower()) not in SCHEMES:
            raise ConfigError(
                f"{without_secrets(uri)}: {scheme}:// is not known here; write one of {', '.join(SCHEMES)}"
            )
        try:
            filesystem, path = FileSystem.from_uri(_one_request_each(uri))
        except (ArrowException, ValueError) as error:
            remedy = "write %2F for / within a key" if re.search(r"://[^/]*:[^@]*/[^@]*@", uri) else "correct it"
            text = f"{without_secrets(uri)} is no URI that pyarrow reads ({_cause(error)}): {remedy}"
            raise ConfigError(text) from None  # the error's text may hold the key
        except OSError as error:
            raise _problem(uri, "cannot be opened", error) from error
        return cls(uri, filesystem, path.rstrip("/"))

    def __str__(self) -> str:
        return without_secrets(self.uri)

    __repr__ = __str__

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self._path.rpartition("/")[2]

    @property
    def parent(self) -> Remote:
        """The folder around this one."""
        parts = urlsplit(self.uri)
        uri = urlunsplit(parts._replace(path=parts.path.rstrip("/").rpartition("/")[0]))
        return Remote(uri, self._filesystem, self._path.rpartition("/")[0])

    def __truediv__(self, name: str) -> Remote:
        parts = urlsplit(self.uri)
        uri = urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}"))
        return Remote(uri, self._filesystem, f"{self._path}/{name}")

    def write(self, name: str, data: bytes | Path) -> None:
        """Replace the file `name` by bytes or by the content of a local file. Raises `EnvironmentProblem`.

        In an object store, readers see the old file or the new one. A local file that cannot be read raises `OSError`.
        """
        path = f"{self._path}/{name}"
        with BytesIO(data) if isinstance(data, bytes) else open(data, "rb") as source, _told(self, "cannot be written"):
            if self._filesystem.type_name == "local":  # the one that does not make folders by itself
                self._filesystem.create_dir(path.rpartition("/")[0])
            with self._filesystem.open_output_stream(path) as out:
                shutil.copyfileobj(source, out, _PIECE)

    def read(self, name: str) -> bytes | None:
        """The content of a file, or None if there is none. Raises `EnvironmentProblem`."""
        with _told(self, "cannot be read"):
            try:
                with self._filesystem.open_input_stream(f"{self._path}/{name}") as file:
                    content: bytes = file.read()
                    return content
            except FileNotFoundError:
                return None

    def download(self, name: str, target: Path) -> None:
        """Copy the file `name` to `target`, piece by piece. Raises `EnvironmentProblem`."""
        with open(target, "wb") as out:
            for piece in self._pieces(name):
                out.write(piece)

    def _pieces(self, name: str) -> Iterator[bytes]:
        with (
            _told(self / name, "cannot be read"),
            self._filesystem.open_input_stream(f"{self._path}/{name}") as file,
        ):
            while piece := file.read(_PIECE):
                yield piece

    def files(self) -> dict[str, Entry]:
        """All files below, by their path from here; none in a folder that is not there. Raises `EnvironmentProblem`."""
        return {
            info.path[len(self._path) + 1 :]: Entry(info.size, info.mtime_ns / 1e9 if info.mtime_ns else 0.0)
            for info in self._list(recursive=True)
            if info.is_file
        }

    def folders(self) -> list[str]:
        """Names of the folders directly below. Raises `EnvironmentProblem`."""
        return [info.base_name for info in self._list(recursive=False) if not info.is_file]

    def _list(self, *, recursive: bool) -> list[Any]:
        from pyarrow.fs import FileSelector

        with _told(self, "cannot be listed"):
            found: list[Any] = self._filesystem.get_file_info(
                FileSelector(self._path, recursive=recursive, allow_not_found=True)
            )
            return found

    def delete(self, name: str) -> None:
        """Delete the file `name`, if there is one. Raises `EnvironmentProblem`."""
        with _told(self, "cannot be written"):
            try:
                self._filesystem.delete_file(f"{self._path}/{name}")
            except FileNotFoundError:
                return

    def delete_folder(self, name: str) -> None:
        """Delete the folder `name` with all that is in it, if there is one. Raises `EnvironmentProblem`."""
        with _told(self, "cannot be written"):
            try:
                self._filesystem.delete_dir(f"{self._path}/{name}")
            except FileNotFoundError:
                return

    def check(self) -> None:
        """Make sure that files can be written, read and deleted here; raises `EnvironmentProblem` with what to do."""
        name = f".raymeta-{secrets.token_hex(4)}"
        self.write(name, b"raymeta looks whether it may write, read and delete here\n")
        try:
            self.read(name)
        finally:
            self.delete(name)


def _one_request_each(uri: str) -> str:
    """The URI with pyarrow's option to send a small file in one request in place of three, which S3 alone has."""
    if not uri.lower().startswith("s3://") or "allow_delayed_open" in uri:
        return uri
    return f"{uri}{'&' if '?' in uri else '?'}allow_delayed_open=true"


@contextmanager
def _told(remote: Remote, what: str) -> Iterator[None]:
    from pyarrow import ArrowException

    try:
        yield
    except (OSError, ArrowException) as error:
        raise _problem(remote.uri, what, error) from error


def _problem(uri: str, what: str, error: Exception) -> EnvironmentProblem:
    """The error to raise: what, where, why in the store's words, and what to do."""
    cause, place = _cause(error), without_secrets(uri)
    bucket = urlsplit(uri).netloc.rpartition("@")[2]
    if _NO_BUCKET.search(cause):
        remedy = f"there is no bucket «{bucket}»; create it, or correct the name"
    elif _REFUSED.search(cause):
        remedy = (
            "access was refused; give credentials that may list, read, write and delete there, as for other programs: "
            "in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, in a profile (AWS_PROFILE), or as the machine's role"
        )
    elif _UNREACHABLE.search(cause):
        remedy = "the store does not answer; check the network, and endpoint_override or AWS_ENDPOINT_URL"
    else:
        remedy = "check the URI, the credentials and the network"
    return EnvironmentProblem(f"{place} {what}: {remedy} ({cause})")


def _cause(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return without_secrets(lines[0])[:300]
