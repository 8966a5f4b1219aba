"""The images of the container tests: a Debian base made by debootstrap, and on it an installed netcon.

No registry is asked: the base comes from the package archive that this machine's apt uses.
"""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from pathlib import Path

import docker
from docker.errors import ImageNotFound

SUITE = "bookworm"
#: What a container needs at run time: netcon's libraries, and the programs under test.
PACKAGES = ["python3", "libsodium23", "libssl3", "liblz4-1", "nginx-light", "curl", "iproute2"]
BASE = "netcon-test-base:bookworm"


class ImageError(RuntimeError):
    """An image could not be made; the message carries the tool's last words."""


def mirror() -> str:
    """The address of the archive for `SUITE`, as this machine's apt knows it."""
    targets = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME)", "Created-By: Packages"],
        check=True,
        capture_output=True,
        text=True,
    )
    for line in targets.stdout.splitlines():
        address, _, codename = line.partition(" ")
        if codename == SUITE:
            return address
    raise ImageError(f"apt knows no archive for {SUITE}: add one to its sources and run apt-get update")


def base_image(client: docker.DockerClient) -> str:
    """Make the base image unless the engine has it; returns its tag."""
    try:
        client.images.get(BASE)
        return BASE
    except ImageNotFound:
        pass
    # Not below the default temporary folder: it may be mounted nodev, which debootstrap refuses.
    with tempfile.TemporaryDirectory(prefix="netcon-base-", dir="/var/tmp") as folder:
        root = Path(folder) / "root"
        made = subprocess.run(
            ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(root), mirror()],
            capture_output=True,
            text=True,
        )
        if made.returncode != 0:
            raise ImageError("debootstrap failed:\n" + "\n".join(made.stdout.splitlines()[-5:] + made.stderr.splitlines()[-5:]))
        subprocess.run(["chroot", str(root), "apt-get", "clean"], check=True)
        archive = Path(folder) / "root.tar"
        subprocess.run(["tar", "--numeric-owner", "-C", str(root), "-cf", str(archive), "."], check=True)
        repository, tag = BASE.split(":")
        client.api.import_image_from_file(str(archive), repository=repository, tag=tag)
    return BASE


def netcon_image(client: docker.DockerClient, prefix: Path, tag: str) -> str:
    """An image with the netcon that is installed in the virtual environment `prefix`, at the same path; returns `tag`.

    The environment uses the distribution's Python, which the base has too.
    """
    dockerfile = f"FROM {BASE}\nCOPY prefix {prefix}\nENV PATH={prefix}/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        tar.add(prefix, "prefix", filter=_readable)
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(dockerfile)
        tar.addfile(entry, io.BytesIO(dockerfile.encode()))
    context.seek(0)
    client.images.build(fileobj=context, custom_context=True, tag=tag, rm=True)
    return tag


def _readable(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Owned by root and readable by all; byte code is made again where it is used."""
    if "__pycache__" in entry.name:
        return None
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    return entry
