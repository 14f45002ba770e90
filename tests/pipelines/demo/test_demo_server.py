"""The demo's web on loopback: each way of serving is met with a plain HTTP client."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpusmith.pipelines.demo.pictures import ROWS_SCHEMA, prepare
from corpusmith.pipelines.demo.server import DEFAULT_PORT, HOST, DemoServer, Way, write_table
from corpusmith.schemas.errors import UserError

KEY = "icons/solid/star.png"
BODY = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40
SLOW_S = 0.4


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    picture = tmp_path / "pictures" / KEY
    picture.parent.mkdir(parents=True)
    picture.write_bytes(BODY)
    (tmp_path / "secret.png").write_bytes(b"not to be served")
    rows = [
        {"path": f"{way}/{KEY}", "caption": text, "source": "test", "license": "CC0-1.0"}
        for way, text in ((Way.PLAIN, "Star"), (Way.MIRROR, None))
    ]
    write_table(tmp_path / "rows.parquet", pa.Table.from_pylist(rows, schema=ROWS_SCHEMA))
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[DemoServer]:
    with DemoServer(folder, port=0, slow_s=SLOW_S) as running:
        yield running


def ask(server: DemoServer, path: str) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection(HOST, server.port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def test_plain_mirror_and_opted_out_give_the_same_bytes(server: DemoServer) -> None:
    for way in (Way.PLAIN, Way.MIRROR, Way.OPTED_OUT):
        response, body = ask(server, f"/{way}/{KEY}")
        assert (response.status, response.headers["Content-Type"], body) == (200, "image/png", BODY)
        assert response.headers["ETag"]
        assert ("noai" in response.headers.get("X-Robots-Tag", "")) == (way == Way.OPTED_OUT)


def test_gone_unknown_and_outside_paths_are_not_found(server: DemoServer) -> None:
    paths = (
        f"/{Way.GONE}/{KEY}",
        f"/{Way.PLAIN}/icons/none.png",
        f"/{Way.PLAIN}/../secret.png",
        f"/{Way.PLAIN}/%2e%2e/secret.png",
        f"/{Way.PLAIN}/..%2fsecret.png",
        f"/unheard-of/{KEY}",
        "/",
    )
    assert {path: ask(server, path)[0].status for path in paths} == dict.fromkeys(paths, 404)


def test_flaky_fails_once_and_then_serves(server: DemoServer) -> None:
    path = f"/{Way.FLAKY}/{KEY}"
    assert [ask(server, path)[0].status for _ in range(3)] == [500, 200, 200]
    assert server.requests[path] == 3


def test_moved_leads_to_the_plain_address(server: DemoServer) -> None:
    response, _ = ask(server, f"/{Way.MOVED}/{KEY}")
    assert (response.status, response.headers["Location"]) == (302, f"/{Way.PLAIN}/{KEY}")


def test_elsewhere_leads_to_loopback_under_another_name(server: DemoServer) -> None:
    response, _ = ask(server, f"/{Way.ELSEWHERE}/{KEY}")
    assert response.status == 302
    assert response.headers["Location"].startswith("http://[::1]:")


def test_truncated_promises_more_than_it_sends(server: DemoServer) -> None:
    with pytest.raises(http.client.IncompleteRead) as caught:
        ask(server, f"/{Way.TRUNCATED}/{KEY}")
    assert caught.value.partial == BODY[: len(BODY) // 2]
    assert caught.value.expected == len(BODY) - len(BODY) // 2


def test_slow_takes_its_time_and_holds_nobody_else_back(server: DemoServer) -> None:
    bodies: list[bytes] = []
    started = time.monotonic()
    slow = threading.Thread(target=lambda: bodies.append(ask(server, f"/{Way.SLOW}/{KEY}")[1]))
    slow.start()
    ask(server, f"/{Way.PLAIN}/{KEY}")
    assert time.monotonic() - started < SLOW_S
    slow.join(timeout=5)
    assert time.monotonic() - started >= SLOW_S
    assert bodies == [BODY]


def test_pages_are_html_with_either_type(server: DemoServer) -> None:
    answers = [ask(server, f"/{Way.PAGE}/icons/{i}.jpg") for i in range(20)]
    assert all(response.status == 200 and b"<html" not in body and b"<title>" in body for response, body in answers)
    assert {response.headers["Content-Type"].split(";")[0] for response, _ in answers} == {"image/jpeg", "text/html"}


def test_requests_are_counted_by_path(server: DemoServer) -> None:
    for _ in range(2):
        ask(server, f"/{Way.PLAIN}/{KEY}")
    ask(server, f"/{Way.MIRROR}/{KEY}")
    assert server.requests == {f"/{Way.PLAIN}/{KEY}": 2, f"/{Way.MIRROR}/{KEY}": 1}


def test_it_stops_within_a_slow_answer_and_leaves_no_thread(folder: Path) -> None:
    with DemoServer(folder, port=0, slow_s=60) as server:
        port = server.port
        hanging = http.client.HTTPConnection(HOST, port, timeout=10)
        hanging.request("GET", f"/{Way.SLOW}/{KEY}")
        started = time.monotonic()
    assert time.monotonic() - started < 5
    hanging.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "demo-server" and thread.is_alive()]
    with pytest.raises(ConnectionRefusedError):
        http.client.HTTPConnection(HOST, port, timeout=2).connect()
    with pytest.raises(RuntimeError, match="not running"):
        _ = server.port


def test_a_given_port_that_is_taken_is_an_error_and_the_usual_one_is_not(server: DemoServer, folder: Path) -> None:
    with pytest.raises(UserError, match="cannot listen"), DemoServer(folder, port=server.port):
        pass
    with DemoServer(folder) as first, DemoServer(folder) as second:
        assert DEFAULT_PORT != second.port != first.port


def test_the_table_of_urls_depends_on_rows_and_address_alone(server: DemoServer, folder: Path) -> None:
    first = server.write_urls("http://127.0.0.1:8799").read_bytes()
    assert server.write_urls("http://127.0.0.1:8799/").read_bytes() == first
    other = server.write_urls()
    assert other.read_bytes() != first
    table = pq.read_table(other)
    assert table.schema.names == ["url", "caption", "source", "license"]
    assert table["url"].to_pylist() == [f"{server.base_url}/{way}/{KEY}" for way in (Way.PLAIN, Way.MIRROR)]
    assert table["caption"].to_pylist() == ["Star", None]


def test_every_url_of_a_prepared_demo_is_answered_in_its_way(tmp_path: Path) -> None:
    prepare(tmp_path, limit=60, clipart_folder=tmp_path / "absent")
    served = {Way.PLAIN, Way.MIRROR, Way.OPTED_OUT, Way.SLOW}
    with DemoServer(tmp_path, port=0, slow_s=0.01) as server:
        for url in dict.fromkeys(pq.read_table(server.write_urls())["url"].to_pylist()):
            path = url.removeprefix(server.base_url)
            _, way, key = path.split("/", 2)
            if way in served:
                assert ask(server, path)[1] == (tmp_path / "pictures" / key).read_bytes()
        assert set(server.requests.values()) == {1}
