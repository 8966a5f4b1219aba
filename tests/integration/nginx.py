"""nginx as its users configure it, in a folder of its own: two workers, HTTP on port 80 of the virtual network."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from tests.integration.programs import server, wait_for_port
from tests.service.running import RunningService, wait_until

_CONFIGURATION = """\
{user}
daemon off;
worker_processes 2;
pid {folder}/pid;
error_log {folder}/error.log notice;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    default_type text/plain;
    keepalive_requests 100000;
    client_body_temp_path {folder}/body;
    client_max_body_size 1g;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 80 backlog=511;
        listen [::]:80 backlog=511;
        root {folder}/site;
    }}
}}
"""


class Nginx:
    """A running nginx; `site` is what it serves."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.site = folder / "site"
        self.site.mkdir(parents=True)
        (self.site / "index.html").write_text("served by nginx on a virtual network\n")
        user = "user root;" if os.geteuid() == 0 else ""  # its default, nobody, could not enter the test's folder
        (folder / "nginx.conf").write_text(_CONFIGURATION.format(folder=folder, user=user))

    @property
    def master(self) -> int:
        return int((self.folder / "pid").read_text())

    def workers(self) -> set[int]:
        return {int(pid) for pid in Path(f"/proc/{self.master}/task/{self.master}/children").read_text().split()}

    def says(self, text: str) -> int:
        """How often the error log contains `text`."""
        return (self.folder / "error.log").read_text().count(text)


@contextlib.contextmanager
def running_nginx(member: RunningService, network: str, folder: Path, client: RunningService, address: str) -> Iterator[Nginx]:
    """nginx under the intercept on `member`, once `client` reaches it."""
    nginx = Nginx(folder)
    words = ("nginx", "-e", "stderr", "-p", str(folder), "-c", "nginx.conf")
    with server(member, network, *words, log=folder / "nginx.log"):
        wait_until(lambda: (folder / "pid").exists() and len(nginx.workers()) == 2, "nginx's two workers")
        wait_for_port(client, network, address, 80)
        yield nginx
