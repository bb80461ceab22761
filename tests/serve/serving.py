"""A model, pictures, and the service in a thread of this process, for the tests here."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from raymeta.serve.backend import InProcess
from raymeta.serve.classifiers import Classifiers
from raymeta.serve.door import application
from raymeta.serve.limits import Limits
from raymeta.serve.server import listening, server
from raymeta.serve.store import Store
from raymeta.use.pretrained import Pretrained

SMALL = replace(Limits(), body_bytes=400_000, file_bytes=300_000, pixels=1_000_000, examples=20, classes=4,
                name_letters=40, classifiers=3, head_s=1.0, body_s=1.0)  # fmt: skip
BOUNDARY = "----boundary"


def png(shape: str, place: int = 0, **options: Any) -> bytes:
    image = Image.new("L", (40, 40), 255)
    pen, box = ImageDraw.Draw(image), (8 + place, 8, 30 + place, 30)
    pen.ellipse(box, outline=0, width=4) if shape == "ring" else pen.line(box, fill=0, width=4)
    out = io.BytesIO()
    image.save(out, "PNG", **options)
    return out.getvalue()


def form(files: Sequence[tuple[str, str, bytes]]) -> tuple[bytes, dict[str, str]]:
    """Body and headers of (field, file name, content)."""
    parts = b"".join(
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'.encode()
        + content + b"\r\n"
        for field, name, content in files
    )  # fmt: skip
    return parts + f"--{BOUNDARY}--\r\n".encode(), {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def support(each: int = 3) -> list[tuple[str, str, bytes]]:
    return [(shape, f"{place}.png", png(shape, place)) for shape in ("ring", "line") for place in range(each)]


class Client:
    def __init__(self, port: int, token: str | None = None) -> None:
        self.port, self.token = port, token

    def ask(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Any:
        """Status, headers and the content of the answer."""
        sent = dict(headers or {})
        if self.token is not None:
            sent.setdefault("Authorization", f"Bearer {self.token}")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            data = answer.read()
            is_json = answer.getheader("Content-Type", "") == "application/json"
            return answer.status, answer.headers, json.loads(data) if is_json else data
        finally:
            connection.close()

    def create(self) -> str:
        status, _, made = self.ask("POST", "/api/classifiers", *form(support()))
        assert status == 201, made
        return str(made["id"])

    def predict(self, name: str, files: Sequence[tuple[str, str, bytes]]) -> Any:
        return self.ask("POST", f"/api/classifiers/{name}/predict", *form(files))


class Service(Client):
    """In a thread, without Ray."""

    def __init__(self, model: Pretrained, store: Path, *, token: str | None = None, limits: Limits = SMALL) -> None:
        held = Store(store)
        held.prepare()
        about = {"name": model.name, "kind": model.reader.kind, "item": model.reader.item}
        backend = InProcess(Classifiers(model, held, limits))
        self._server = server(application(backend, held, about, token=token, limits=limits), limits)
        self._socket = listening("127.0.0.1", 0)
        super().__init__(self._socket.getsockname()[1], token)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._server.serve([self._socket])))
        self._thread.start()

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()
