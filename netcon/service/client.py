"""The commands' way to a running service: its HTTP API, over the Unix socket in the home folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from netcon.core.errors import NetconError
from netcon.service.paths import api_socket

_TIMEOUT_S = 30


class ServiceNotRunning(NetconError):
    """Nobody answers on the home folder's socket."""


class RequestFailed(NetconError):
    """The service answered with an error. `status` is the HTTP status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Client:
    """Requests to the service of one home folder."""

    def __init__(self, home: Path) -> None:
        self._home = home
        transport = httpx.HTTPTransport(uds=str(api_socket(home)))
        self._http = httpx.Client(transport=transport, base_url="http://localhost", timeout=_TIMEOUT_S, trust_env=False)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self._http.close()

    def raw(self, method: str, path: str, body: object = None) -> httpx.Response:
        """ServiceNotRunning."""
        try:
            api_socket(self._home).stat()
        except PermissionError as error:
            raise ServiceNotRunning(
                f"{error.filename}: {error.strerror}; only the service's own user can ask it; name another home folder with -D"
            ) from None
        except FileNotFoundError:
            raise self._not_running("none runs") from None
        except OSError as error:
            raise self._not_running(str(error.strerror)) from None
        try:
            return self._http.request(method, path, json=body) if body is not None else self._http.request(method, path)
        except httpx.TransportError as error:
            raise self._not_running(str(error)) from None

    def _not_running(self, reason: str) -> ServiceNotRunning:
        return ServiceNotRunning(
            f"no service answers in {self._home} ({reason}); start one with `netcon -D {self._home} service -d`, "
            "or name its home folder with -D"
        )

    def request(self, method: str, path: str, body: object = None) -> Any:
        """The parsed answer; RequestFailed for an HTTP error."""
        response = self.raw(method, path, body)
        if response.is_success:
            return response.json()
        text = response.text
        if response.headers.get("content-type", "").startswith("application/json") and text not in ("", "{}"):
            text = response.json().get("description", text)
        raise RequestFailed(response.status_code, text)

    def get(self, path: str) -> Any:
        return self.request("GET", path)

    def post(self, path: str, body: object) -> Any:
        return self.request("POST", path, body)

    def delete(self, path: str) -> Any:
        return self.request("DELETE", path)
