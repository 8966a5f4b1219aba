"""Where lwIP's source comes from: it is not copied into this repository, the build takes it.

In this order, and saying which it took:

1. `LWIP_SOURCE`: a directory or tarball named by the builder, who vouches for it;
2. a cached tarball (`$XDG_CACHE_HOME/netcon`, or `build/`) whose SHA-256 is pinned below;
3. the distribution's source package, through a *private* apt state: the machine's own package archives, its own trusted keys,
   but our lists, cache and configuration, so that neither root nor a change of the system is needed. Apt's signature check makes
   the index trustworthy, the index's hash the tarball; that the tarball is *the* one we know is then our own pin;
4. an error that names `LWIP_SOURCE`.

Standard library only: it runs before anything of ours is built. `python lwip/source.py` prints the source tree's path.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent

# SHA-256 of the distribution's orig tarballs, in order of preference.
PINNED = {
    "83729c274c499d3348e9fbbe043a3113f3fa8953e7efddc7c21c7fcbb1f2b7b1": "2.2.1",
}
DEBIAN_ALIASES = ("stable", "oldstable", "testing", "unstable", "sid")
# What `apt-get source` may take at most, update included.
APT_SECONDS = 300
# A Debian older than 13 has lwIP 2.1.3, which sends resets out of the wrong interface: ask the same archive for this suite too.
DEBIAN_SUITE_WITH_LWIP = ("trixie", 13)

APT_CONFIGURATION = """\
Dir::State "{state}";
Dir::State::status "{state}/status";
Dir::Cache "{cache}";
Dir::Etc::sourcelist "{sources}";
Dir::Etc::sourceparts "-";
Dir::Etc::preferences "-";
Dir::Etc::preferencesparts "-";
APT::Default-Release "";
APT::Sandbox::User "";
APT::Get::AllowUnauthenticated "false";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowDowngradeToInsecureRepositories "false";
Acquire::Languages "none";
Acquire::http::Timeout "20";
Acquire::https::Timeout "20";
Acquire::Retries "2";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
"""


class SourceError(Exception):
    """lwIP's source could not be obtained; the text says what to do."""


def say(text: str) -> None:
    print(f"lwip source: {text}", file=sys.stderr, flush=True)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_source_tree(path: Path) -> bool:
    return (path / "src" / "core" / "tcp.c").is_file() and (path / "src" / "include" / "lwip" / "init.h").is_file()


def cache_folders(environment: Mapping[str, str], build: Path) -> list[Path]:
    """Where a tarball may be kept, best first: a cache that survives `git clean`, then the build folder."""
    folders = []
    if home := environment.get("XDG_CACHE_HOME"):
        folders.append(Path(home) / "netcon")
    elif home := environment.get("HOME"):
        folders.append(Path(home) / ".cache" / "netcon")
    return [*folders, build]


def unpack(tarball: Path, into: Path) -> Path:
    """The tree in `tarball`, unpacked below `into` once; its folder is named by the tarball's hash."""
    target = into / f"lwip-{sha256(tarball)[:16]}"
    if is_source_tree(target):
        return target
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into, prefix="unpack-") as scratch:
        try:
            with tarfile.open(tarball) as archive:
                # Regular files below the folder only (Python 3.11's first releases have no extraction filter).
                members = [m for m in archive if m.isfile() and not m.name.startswith("/") and ".." not in m.name.split("/")]
                archive.extractall(scratch, members)
        except (tarfile.TarError, OSError) as error:
            raise SourceError(f"{tarball} cannot be unpacked: {error}") from error
        trees = [tree for tree in (Path(scratch), *Path(scratch).iterdir()) if is_source_tree(tree)]
        if not trees:
            raise SourceError(f"{tarball} does not contain lwIP's source (no src/core/tcp.c)")
        try:
            trees[0].rename(target)
        except OSError:
            if not is_source_tree(target):  # another build was faster
                raise
    return target


def from_environment(environment: Mapping[str, str], build: Path) -> Path | None:
    given = environment.get("LWIP_SOURCE")
    if not given:
        return None
    path = Path(given).resolve()
    if path.is_dir():
        if not is_source_tree(path):
            raise SourceError(f"LWIP_SOURCE={given}: no lwIP source there (src/core/tcp.c is missing)")
        say(f"LWIP_SOURCE, the directory {path}")
        return path
    if not path.is_file():
        raise SourceError(f"LWIP_SOURCE={given}: no such directory or tarball")
    known = PINNED.get(sha256(path))
    what = f"lwIP {known}" if known else "not one of the pinned ones: trusted because you named it"
    say(f"LWIP_SOURCE, the tarball {path} ({what})")
    return unpack(path, build)


def verified(tarball: Path) -> bool:
    found = sha256(tarball)
    if found in PINNED:
        return True
    say(f"{tarball} is refused: its SHA-256 {found} is not one of the pinned ones")
    return False


def from_cache(environment: Mapping[str, str], build: Path) -> Path | None:
    for folder in cache_folders(environment, build):
        for tarball in sorted(folder.glob("lwip_*.orig.tar.*")):
            if tarball.suffix != ".asc" and verified(tarball):
                say(f"cached {tarball}")
                return unpack(tarball, build)
    return None


def one_line_entries(text: str) -> Iterator[tuple[str, str, list[str], list[str]]]:
    """(options, uri, suites, components) of each `deb` line (sources.list(5), one-line style)."""
    for line in text.splitlines():
        words = line.split("#", 1)[0].split()
        if not words or words[0] != "deb":
            continue
        rest = " ".join(words[1:])
        options = ""
        if rest.startswith("[") and "]" in rest:
            options, rest = rest[1:].split("]", 1)
        fields = rest.split()
        if len(fields) >= 2:
            yield options.strip(), fields[0], [fields[1]], fields[2:]


def deb822_entries(text: str) -> Iterator[tuple[str, str, list[str], list[str]]]:
    """The same for deb822 stanzas. An embedded key in Signed-By is left out: apt then uses the machine's keyrings."""
    stanza: dict[str, str] = {}
    name = ""
    for line in [*text.splitlines(), ""]:
        if line.startswith("#"):
            continue
        if line[:1] in (" ", "\t") and name:
            stanza[name] += " " + line.strip()
        elif ":" in line:
            name, value = line.split(":", 1)
            name = name.strip().lower()
            stanza[name] = value.strip()
        elif not line.strip():
            if "deb" in stanza.get("types", "").split() and stanza.get("enabled", "yes").lower() not in ("no", "false", "0"):
                key = stanza.get("signed-by", "")
                options = f"signed-by={key.replace(' ', ',')}" if key.startswith("/") else ""
                for uri in stanza.get("uris", "").split():
                    yield options, uri, stanza.get("suites", "").split(), stanza.get("components", "").split()
            stanza, name = {}, ""


def source_list(etc: Path, release: Mapping[str, str]) -> str:
    """A `deb-src` list of the distribution's own archives: third parties' suites are not named after the distribution's release."""
    codename = release.get("VERSION_CODENAME", "")
    entries: list[tuple[str, str, list[str], list[str]]] = []
    for path in [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*.list"))]:
        if path.is_file():
            entries += one_line_entries(path.read_text(errors="replace"))
    for path in sorted((etc / "sources.list.d").glob("*.sources")):
        entries += deb822_entries(path.read_text(errors="replace"))
    newer, version = DEBIAN_SUITE_WITH_LWIP
    old_debian = release.get("ID") == "debian" and release.get("VERSION_ID", "").isdigit() and int(release["VERSION_ID"]) < version
    lines: dict[str, None] = {}
    for options, uri, suites, components in entries:
        for suite in suites:
            if (
                suite != codename
                and not suite.startswith(f"{codename}-")
                and suite not in ("stable", "oldstable", "testing", "unstable", "sid")
            ):
                continue
            words = " ".join(components)
            prefix = f"deb-src [{options}] {uri}" if options else f"deb-src {uri}"
            lines[f"{prefix} {suite} {words}"] = None
            if old_debian and suite == codename:
                lines[f"{prefix} {newer} {words}"] = None
    return "".join(f"{line}\n" for line in lines)


def os_release(path: Path = Path("/etc/os-release")) -> dict[str, str]:
    if not path.is_file():
        return {}
    pairs = (line.split("=", 1) for line in path.read_text().splitlines() if "=" in line)
    return {name: value.strip("\"'") for name, value in pairs}


def from_apt(environment: Mapping[str, str], build: Path, etc: Path = Path("/etc/apt")) -> Path | None:
    apt = shutil.which("apt-get", path=environment.get("PATH"))
    if apt is None:
        say("no apt-get on this machine")
        return None
    sources = source_list(etc, os_release())
    if not sources:
        say(f"{etc} names no package archive of this distribution")
        return None
    with tempfile.TemporaryDirectory(prefix="netcon-apt-") as folder:
        scratch = Path(folder)
        state, cache = scratch / "state", scratch / "cache"
        (state / "lists" / "partial").mkdir(parents=True)
        (cache / "archives" / "partial").mkdir(parents=True)
        (state / "status").touch()
        (scratch / "sources.list").write_text(sources)
        configuration = scratch / "apt.conf"
        configuration.write_text(APT_CONFIGURATION.format(state=state, cache=cache, sources=scratch / "sources.list"))
        # Read first (APT_CONFIG), so that no default is needed, and last (-c), so that the system's hooks are gone.
        command = [apt, "-q", "-c", str(configuration)]
        apt_environment = {**environment, "APT_CONFIG": str(configuration), "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
        log = ""
        for arguments in (["update"], ["source", "--download-only", "--tar-only", "lwip"]):
            try:
                done = subprocess.run(
                    [*command, *arguments],
                    cwd=scratch,
                    env=apt_environment,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    timeout=APT_SECONDS,
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                say(f"apt-get {arguments[0]}: {error}")
                return None
            # One unreachable archive must not stop the others: whether the source came is what counts.
            log += done.stdout + done.stderr
        tarballs = [path for path in sorted(scratch.glob("lwip_*.orig.tar.*")) if path.suffix != ".asc"]
        if not tarballs:
            say("apt-get source lwip brought nothing; it said:\n" + "\n".join(log.splitlines()[-8:]))
            return None
        if not verified(tarballs[0]):
            return None
        say(f"the distribution's source package, {tarballs[0].name}")
        kept = keep(tarballs[0], cache_folders(environment, build))
        return unpack(kept or tarballs[0], build)


def keep(tarball: Path, folders: list[Path]) -> Path | None:
    """Copy a verified tarball into the first cache folder that can be written."""
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=folder, delete=False) as copy:
                copy.write(tarball.read_bytes())
            target = folder / tarball.name
            Path(copy.name).chmod(0o644)
            Path(copy.name).replace(target)
        except OSError:
            continue
        return target
    return None


def obtain(build: Path = HERE.parent / "build", environment: Mapping[str, str] = os.environ) -> Path:
    """lwIP's source tree (the folder that contains src/). SourceError if there is no way to get it."""
    build = build.resolve()
    for way in (from_environment, from_cache, from_apt):
        if tree := way(environment, build):
            return tree
    raise SourceError(
        "lwIP's source was not found: no cached tarball, and apt could not bring the distribution's source package.\n"
        "Set LWIP_SOURCE to a directory or tarball of lwIP 2.2.1 (for instance lwip_2.2.1+dfsg1.orig.tar.xz of Debian 13) and "
        "build again."
    )


if __name__ == "__main__":
    try:
        print(obtain())
    except SourceError as failure:
        sys.exit(f"error: {failure}")
