"""Which requests are the page's own."""

import asyncio

import pytest

from lightning_modules.app.origin import OwnOrigin


@pytest.mark.parametrize(
    "name", ["localhost", "localhost:7860", "127.0.0.1:7860", "[::1]:7860", "LOCALHOST", "localhost."]
)
def test_this_machine_goes_by_its_usual_names(name):
    assert OwnOrigin(None, "127.0.0.1").accepts({"host": name})


@pytest.mark.parametrize(
    "name", ["", "evil.example", "127.0.0.1.evil.example", "192.168.0.9", "[::1", "a,b", "localhost,a"]
)
def test_other_names_are_refused(name):
    assert not OwnOrigin(None, "127.0.0.1").accepts({"host": name})


def test_a_page_for_everybody_may_be_asked_for_by_address_but_not_by_any_name():
    page = OwnOrigin(None, "0.0.0.0", ["depth.example"])
    for host in ("192.168.0.9:7860", "[fe80::1]:7860", "depth.example", "localhost:7860"):
        assert page.accepts({"host": host}), host
    assert not page.accepts({"host": "evil.example"})


def test_a_proxy_that_keeps_its_own_name_is_let_in_when_it_is_named():
    headers = {"host": "127.0.0.1:7860", "origin": "https://depth.example"}
    assert OwnOrigin(None, "127.0.0.1", ["depth.example"]).accepts(headers)
    assert not OwnOrigin(None, "127.0.0.1").accepts(headers)


def test_a_web_socket_of_another_page_is_closed():
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "websocket", "headers": [(b"host", b"localhost"), (b"origin", b"http://evil.example")]}
    asyncio.run(OwnOrigin(None, "127.0.0.1")(scope, None, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]
