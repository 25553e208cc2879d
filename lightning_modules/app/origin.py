"""Who may talk to the web page: browsers that show the page itself, under a name that it is meant to have."""

import ipaddress
import re
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # comes with Gradio, which may be missing
    from starlette.types import ASGIApp, Receive, Scope, Send

_THIS_MACHINE = frozenset({"localhost", "127.0.0.1", "::1"})
_EVERY_ADDRESS = frozenset({"0.0.0.0", "::", ""})
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([\w.-]+))(?::\d{1,5})?", re.ASCII | re.IGNORECASE)
_REFUSAL = "Refused: this page is not served under that name, or another page asks. See --allow_host.\n"


class OwnOrigin:
    """Refuses requests that come by another host name, or from another page.

    Any page of the web can have its name resolve to this machine (DNS rebinding), and can send requests here. Its name
    then stands in the headers that browsers add by themselves: ``Host``, ``Origin`` and ``Sec-Fetch-Site``.

    Args:
        app: what answers.
        host: address that is listened on.
        allowed: further names that the page may be asked for by.
    """

    def __init__(self, app: "ASGIApp", host: str, allowed: Iterable[str] = ()) -> None:
        self.app = app
        self.named = frozenset(name.lower().rstrip(".") for name in allowed)
        self.is_open = host in _EVERY_ADDRESS
        self.hosts = _THIS_MACHINE | {host.lower()} | self.named
        if self.is_open:
            self.hosts |= {socket.gethostname().lower(), socket.getfqdn().lower()}

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer a request, or refuse it with status 403."""
        if scope["type"] not in ("http", "websocket") or self.accepts(_headers(scope)):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            from starlette.responses import PlainTextResponse

            await PlainTextResponse(_REFUSAL, status_code=403)(scope, receive, send)

    def accepts(self, headers: dict[str, str]) -> bool:
        """Whether a request is one of the page's own.

        Args:
            headers: of the request, by names in lower case; one that was sent twice stands for both, with a comma.
        """
        host = headers.get("host", "")
        if not self._is_own(_name_of(host)):
            return False
        if "origin" in headers:
            _, _, origin = headers["origin"].rpartition("://")
            return origin.lower() == host.lower() or _name_of(origin) in self.named
        is_foreign = headers.get("sec-fetch-site") in ("cross-site", "same-site")
        return not is_foreign or headers.get("sec-fetch-mode") == "navigate"

    def _is_own(self, name: str) -> bool:
        """Whether a host name is one of ours. An address cannot be made to resolve to something else."""
        return bool(name) and (name in self.hosts or (self.is_open and _is_address(name)))


def _headers(scope: "Scope") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in scope["headers"]:
        name, text = key.decode("latin-1").lower(), value.decode("latin-1")
        found[name] = f"{found[name]},{text}" if name in found else text
    return found


def _name_of(host: str) -> str:
    """Return a host without its port; empty if it is none."""
    match = _HOST.fullmatch(host)
    return (match[1] or match[2]).lower().rstrip(".") if match else ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
