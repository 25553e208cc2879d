"""A web server on this machine that misbehaves on demand."""

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Web:
    """Serves a folder. Each entry of ``faults`` spoils one request for a shard; then all is well.

    A fault is a status code, "truncate" (announces all, sends half), "stall" (sends half, then nothing), or "short"
    (half of the file without announcing a length). Files that end like ``endless`` go on with zeros for ever.
    """

    def __init__(self, folder: Path, ranges: bool = True) -> None:
        self.faults: list[int | str] = []
        self.requests: list[tuple[str, str | None]] = []
        self.tag = "one"
        self.endless: str | None = None
        self.released = threading.Event()
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                web.answer(self, folder, ranges)

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *exception):
        self.released.set()
        self.server.shutdown()
        self.server.server_close()

    @property
    def shard_requests(self) -> list[tuple[str, str | None]]:
        return [request for request in self.requests if request[0].endswith(".tar")]

    def answer(self, handler: BaseHTTPRequestHandler, folder: Path, ranges: bool) -> None:
        wanted = handler.headers.get("Range")
        self.requests.append((handler.path, wanted))
        path = folder / handler.path.lstrip("/")
        fault = self.faults.pop(0) if self.faults and handler.path.endswith(".tar") else None
        if isinstance(fault, int) or not path.is_file():
            handler.send_error(fault if isinstance(fault, int) else 404)
            return
        data = path.read_bytes()
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and ranges else 0
        body = data[start:]
        handler.send_response(206 if start else 200)
        handler.send_header("ETag", f'"{self.tag}"')
        if self.endless is not None and handler.path.endswith(self.endless):
            handler.end_headers()
            self._go_on(handler, body)
            return
        if fault != "short":
            handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: len(body) // 2] if fault else body)
        handler.wfile.flush()
        if fault == "stall":
            self.released.wait(5)

    def _go_on(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        handler.close_connection = True
        with contextlib.suppress(OSError):  # the reader has had enough
            handler.wfile.write(body)
            while not self.released.is_set():
                handler.wfile.write(bytes(1 << 20))
