"""Photographs as the web serves them, and a server on loopback that is never what a downloader waits for.

The photos are crops, flips and resamples of the few that lie inside scikit-image and scikit-learn, saved as JPEG of
100 to 300 kB and 0.6 to 1.5 megapixels: the sizes that a crawl finds. They are made once and kept in a folder. The
server is a process of its own with one loop that hands files to the kernel (`sendfile`), so that its share of the
cores is as small as it can be and the same for every client. Any query after a file's name is ignored: one file
stands for as many URLs as are asked for.

Run by hand, `python photo_server.py FOLDER` serves a folder and prints its port; it ends when its stdin does.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import selectors
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

PACKED = {
    "skimage": [
        *("data/astronaut.png", "data/chelsea.png", "data/coffee.png", "data/rocket.jpg", "data/retina.jpg"),
        *("data/hubble_deep_field.jpg", "data/motorcycle_left.png", "data/motorcycle_right.png", "data/ihc.png"),
        *("data/gravel.png", "data/grass.png", "data/brick.png"),
    ],
    "sklearn": ["datasets/images/china.jpg", "datasets/images/flower.jpg"],
}
"""Package → its photographs."""

MIN_BYTES, MAX_BYTES = 100_000, 300_000
MIN_PIXELS, MAX_PIXELS = 600_000, 1_500_000
QUALITIES = (88, 80, 92, 70, 95, 60, 97, 50, 99)
"""JPEG qualities in the order in which they are tried until the size fits."""

MAX_REQUEST_BYTES = 65_536
SEND_BYTES = 1 << 20


def make_photos(folder: Path, count: int, seed: int = 0) -> list[Path]:
    """`count` different photos in `folder`, made where they are not there yet; the same for the same seed."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{seed}-{i:06d}.jpg" for i in range(count)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(functools.partial(_make, seed), paths, range(count)))
    return paths


@functools.cache
def _sources() -> list[np.ndarray]:
    """The packed photos as RGB arrays."""
    import cv2

    found = []
    for package, files in PACKED.items():
        spec = importlib.util.find_spec(package)
        assert spec is not None and spec.origin is not None, f"{package} is not installed"
        for file in files:
            pixels = cv2.imread(str(Path(spec.origin).parent / file))
            assert pixels is not None, f"{package} has no {file}"
            found.append(pixels[:, :, ::-1])
    return found


def _make(seed: int, path: Path, number: int) -> None:
    if path.exists():
        return
    rng = np.random.default_rng((seed, number))
    part = path.with_suffix(".part")
    part.write_bytes(next(filter(None, (_photo(rng) for _ in range(100)))))
    part.replace(path)


def _photo(rng: np.random.Generator) -> bytes | None:
    """One photo as JPEG; None where no quality brings this cut to the wanted size."""
    import cv2
    import simplejpeg

    source = _sources()[rng.integers(len(_sources()))]
    height, width = (int(side * rng.uniform(0.6, 1)) for side in source.shape[:2])
    top, left = (int(rng.integers(side - cut + 1)) for side, cut in zip(source.shape, (height, width), strict=False))
    cut = source[top : top + height, left : left + width, :: rng.choice([1, -1])]
    scale = (rng.uniform(MIN_PIXELS, MAX_PIXELS) / (width * height)) ** 0.5
    size = (round(width * scale), round(height * scale))
    pixels = cv2.resize(np.ascontiguousarray(cut), size, interpolation=cv2.INTER_CUBIC)
    for quality in QUALITIES:
        encoded = simplejpeg.encode_jpeg(pixels, quality=quality, colorsubsampling="420", fastdct=True)
        if MIN_BYTES <= len(encoded) <= MAX_BYTES:
            return encoded
    return None


@contextmanager
def serving(folder: Path) -> Iterator[list[str]]:
    """Serve a folder from a process of its own; yields the URLs of its JPEGs in the order of their names."""
    command = [sys.executable, __file__, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None and server.stdin is not None
        port = int(server.stdout.readline())
        try:
            yield [f"http://127.0.0.1:{port}/{path.name}" for path in sorted(folder.glob("*.jpg"))]
        finally:
            server.stdin.close()
            server.wait(10)


@dataclass
class Connection:
    """One client: what it has asked, and what it still has to get."""

    socket: socket.socket
    asked: bytes = b""
    head: bytes = b""
    file: int = -1
    offset: int = 0
    end: int = 0
    is_last: bool = False

    @property
    def is_idle(self) -> bool:
        """Nothing is left to send."""
        return not self.head and self.offset == self.end


@dataclass
class Server:
    """Answers GET with the files of one folder, from one thread."""

    folder: Path
    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    files: dict[bytes, tuple[int, int, bytes]] = field(default_factory=dict)
    """Path → open file, its size, the answer's head."""

    def serve(self, listener: socket.socket) -> None:
        """Serve until stdin ends."""
        listener.setblocking(False)
        self.selector.register(listener, selectors.EVENT_READ, None)
        self.selector.register(sys.stdin, selectors.EVENT_READ, None)
        while True:
            for key, _ in self.selector.select():
                if key.data is not None:
                    self._go_on(key.data)
                elif key.fileobj is listener:
                    self._accept(listener)
                else:
                    return

    def _accept(self, listener: socket.socket) -> None:
        with suppress(BlockingIOError):
            while True:
                client, _ = listener.accept()
                client.setblocking(False)
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.selector.register(client, selectors.EVENT_READ, Connection(client))

    def _go_on(self, to: Connection) -> None:
        """Read or send as far as it goes without waiting."""
        try:
            if to.is_idle and not self._read(to):
                return
            self._send(to)
        except BlockingIOError:
            self._watch(to, selectors.EVENT_WRITE)
        except OSError:
            self._close(to)

    def _read(self, to: Connection) -> bool:
        """Take what came; True once a whole request is there, which is then being answered."""
        data = to.socket.recv(MAX_REQUEST_BYTES)
        to.asked += data
        if not data or len(to.asked) > MAX_REQUEST_BYTES:
            self._close(to)
            return False
        return self._next(to)

    def _next(self, to: Connection) -> bool:
        """Begin to answer the next of the requests that have come; False when none is whole."""
        request, end, rest = to.asked.partition(b"\r\n\r\n")
        if not end:
            return False
        to.asked = rest
        first, _, headers = request.partition(b"\r\n")
        to.is_last = first.endswith(b"HTTP/1.0") or b"connection: close" in headers.lower()
        to.file, to.end, to.head = self._found(first.split(b" ")[1].partition(b"?")[0])
        to.offset = 0
        return True

    def _found(self, path: bytes) -> tuple[int, int, bytes]:
        if path not in self.files:
            file = self.folder / Path(path.decode()).name
            if not file.is_file():
                return -1, 0, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
            size = file.stat().st_size
            head = f"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {size}\r\n\r\n".encode()
            self.files[path] = (os.open(file, os.O_RDONLY), size, head)
        return self.files[path]

    def _send(self, to: Connection) -> None:
        while True:
            if to.head:
                flag = socket.MSG_MORE if to.end else 0
                to.head = to.head[to.socket.send(to.head, flag) :]
            while to.offset < to.end:
                sent = os.sendfile(to.socket.fileno(), to.file, to.offset, min(SEND_BYTES, to.end - to.offset))
                to.offset += sent
            if to.is_last:
                self._close(to)
                return
            if not self._next(to):
                self._watch(to, selectors.EVENT_READ)
                return

    def _watch(self, to: Connection, events: int) -> None:
        if self.selector.get_key(to.socket).events != events:
            self.selector.modify(to.socket, events, to)

    def _close(self, to: Connection) -> None:
        self.selector.unregister(to.socket)
        to.socket.close()


def main() -> None:
    """Serve the folder that is named on the command line."""
    import resource

    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    Server(Path(sys.argv[1])).serve(listener)


if __name__ == "__main__":
    main()
