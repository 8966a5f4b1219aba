"""Names: members' names for unmodified programs, from the controller over the network; DNS and mDNS between members."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from netcon.service.detach import service_environment
from netcon.service.paths import rpc_socket
from netcon.sockets import resolve
from tests.integration.lab import Lab
from tests.integration.programs import command, find, output, run, server, wait_for_port
from tests.integration.test_forwards import curl, port_in, running
from tests.service.running import RunningService, World, wait_until

DOMAIN = "lab.example"


def configure(home: Path, policy: str = "", **names: object) -> None:
    """Settings of names and the policy in local.conf, before the service starts."""
    path = home / "local.conf"
    conf = json.loads(path.read_text())
    conf["settings"] |= {"names": names, "policy": policy}
    path.write_text(json.dumps(conf))


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """As `lab`, but the controller's node is a member, too, and the network's DNS server; its members are `web` and `b`."""
    world = World(tmp_path_factory.mktemp("names"), 2)
    network = f"{int((world.root_home / 'identity.secret').read_text()[:10], 16):010x}00abcd"
    configure(world.root_home, "names host", serve=[network])  # for the programs on that node
    configure(world.homes[1], hosts={"printer.home.arpa": ["10.147.0.77", "fd77::77"]})
    with RunningService(world.root_home) as root, RunningService(world.homes[0]) as a, RunningService(world.homes[1]) as b:
        settings = {
            "routes": [{"target": "10.147.0.0/24", "via": None}],
            "ipAssignmentPools": [{"ipRangeStart": "10.147.0.1", "ipRangeEnd": "10.147.0.254"}],
            "v4AssignMode": {"zt": True},
            "v6AssignMode": {"rfc4193": True},
        }
        root.client.post(f"/controller/network/{network}", settings)
        dns = world.join(root, root, network)[0]
        root.client.post(f"/controller/network/{network}", {"dns": {"domain": DOMAIN, "servers": [dns]}})
        for member, name in ((root, "Controller"), (a, "Web"), (b, "b")):
            root.client.post(f"/controller/network/{network}/member/{member.address}", {"authorized": True, "name": name})
        address, address6 = world.join(root, a, network)
        address_b, _ = world.join(root, b, network)
        yield Lab(world, root, a, b, network, address, address6, address_b)


def python(lab: Lab, script: str, member: RunningService | None = None) -> str:
    text = output(member or lab.b, lab.network, find("python3"), "-c", "import socket, sys\n" + script)
    return text.decode().strip()


def test_curl_finds_a_member_by_its_name(named: Lab, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("by name\n")
    log = tmp_path / "log"
    with server(named.a, named.network, "python3", "-m", "http.server", "--bind", "::", "-d", str(tmp_path), "80", log=log):
        wait_for_port(named.b, named.network, named.address, 80)
        for name in (f"web.{DOMAIN}", "web", f"zt-{named.a.address}.{DOMAIN}", f"WEB.{DOMAIN}."):
            assert output(named.b, named.network, "curl", "-sS", "--fail", f"http://{name}/") == b"by name\n"


def test_programs_that_are_not_intercepted_name_a_member_to_a_forward_or_a_proxy(named: Lab, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("by name\n")
    log = tmp_path / "log"
    with (
        server(named.a, named.network, "python3", "-m", "http.server", "--bind", "::", "-d", str(tmp_path), "80", log=log),
        running(named, "forward", "-L", f"0:web.{DOMAIN}:80") as (forward,),
        running(named, "proxy", "--socks", "0", "--http", "0") as (socks, http),
    ):
        wait_for_port(named.b, named.network, named.address, 80)
        for words in (
            [f"http://127.0.0.1:{port_in(forward)}/"],
            ["--socks5-hostname", f"127.0.0.1:{port_in(socks)}", f"http://web.{DOMAIN}/"],
            ["-x", f"http://127.0.0.1:{port_in(http)}", f"http://web.{DOMAIN}/"],
        ):
            assert curl(*words) == b"by name\n"


@pytest.fixture(scope="module", params=["gcc", "musl-gcc"])
def asker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """names.c, for glibc and for musl."""
    target = tmp_path_factory.mktemp("asker") / f"names-{request.param}"
    source = Path(__file__).parents[1] / "intercept" / "programs" / "names.c"
    libraries = ["-lresolv"] if request.param == "gcc" else []
    subprocess.run([request.param, "-O1", "-Wall", "-Wextra", "-Werror", "-o", str(target), str(source), *libraries], check=True)
    return str(target)


def ask(lab: Lab, asker: str, *words: str, member: RunningService | None = None) -> list[str]:
    return output(member or lab.b, lab.network, asker, *words).decode().splitlines()


def test_getaddrinfo_on_both_c_libraries(named: Lab, asker: str) -> None:
    name = f"web.{DOMAIN}"
    both = [f"{kind} {address} 80 -" for address in (named.address, named.address6) for kind in (1, 2, 3)]
    lines = ask(named, asker, "addresses", name, "80")
    assert [line for line in lines if line.startswith("1 ")] == [line for line in both if line.startswith("1 ")]
    assert ask(named, asker, "addresses", name, "http", "4", "2")[0] == f"1 {named.address} 80 {name}"
    assert ask(named, asker, "addresses", "web", "", "6", "2")[0] == f"1 {named.address6} 0 {name}"


def test_getaddrinfo_maps_ipv4_where_it_is_asked_to(named: Lab, asker: str) -> None:
    v4_mapped, everything, numeric_host, numeric_service = 8, 0x10, 4, 0x400
    name = f"b.{DOMAIN}"
    v4 = f"::ffff:{named.address_b}"
    assert any(v4 in line for line in ask(named, asker, "addresses", name, "", "6", str(v4_mapped | everything)))
    assert not any(v4 in line for line in ask(named, asker, "addresses", name, "", "6", str(v4_mapped)))
    assert any("::ffff:10.147.0.77" in line for line in ask(named, asker, "addresses", "10.147.0.77", "", "6", str(v4_mapped)))
    assert ask(named, asker, "addresses", name, "", "4", str(numeric_host)) == ["NONAME"]
    assert ask(named, asker, "addresses", name, "http", "4", str(numeric_service)) == ["NONAME"]
    assert ask(named, asker, "addresses", name, "no-such-service", "4") == ["SERVICE"]


def test_what_is_not_there(named: Lab, asker: str) -> None:
    assert ask(named, asker, "addresses", f"nobody.{DOMAIN}") == ["NONAME"]
    assert ask(named, asker, "addresses", "www.example.org") == ["NONAME"]  # not ours, and policy refuses the host's resolver
    assert ask(named, asker, "addresses", "a..b") == ["NONAME"]
    assert ask(named, asker, "host", f"nobody.{DOMAIN}", "4") == ["plain h_errno 1", "reentrant h_errno 1"]


def test_gethostbyname_and_its_reentrant_form(named: Lab, asker: str) -> None:
    expected = [f"plain web.{DOMAIN} {named.address}", f"reentrant web.{DOMAIN} {named.address}", "small ERANGE"]
    assert ask(named, asker, "host", f"web.{DOMAIN}", "4") == expected
    assert ask(named, asker, "host", "web", "6")[0] == f"plain web.{DOMAIN} {named.address6}"
    assert ask(named, asker, "host", "127.0.0.1", "4")[0] == "plain 127.0.0.1 127.0.0.1"


def test_addresses_have_names(named: Lab, asker: str) -> None:
    for address in (named.address, named.address6):
        # An IPv6 address is computed from the node's: whose it is, every member knows; its name, the controller alone.
        label = "web" if address == named.address else f"zt-{named.a.address}"
        lines = ask(named, asker, "reverse", address)
        assert lines[0].startswith(f"plain {label}.{DOMAIN} ")
        assert lines[1].startswith(f"reentrant {label}.{DOMAIN} ")
        assert lines[2:] == [f"name {label}.{DOMAIN}", f"required {label}.{DOMAIN}", "narrow OVERFLOW"]
    assert ask(named, asker, "reverse", "10.147.0.250")[1:] == ["name 10.147.0.250", "required NONAME", "narrow OVERFLOW"]


def test_res_query(named: Lab, asker: str) -> None:
    assert ask(named, asker, "query", f"web.{DOMAIN}", "1") == ["rcode 0 answers 1"]
    assert ask(named, asker, "query", f"nobody.{DOMAIN}", "1") == ["h_errno 1"]
    assert ask(named, asker, "query", f"web.{DOMAIN}", "15") == ["h_errno 4"]
    assert ask(named, asker, "query", "www.example.org", "1") == ["h_errno 3"]


def test_hosts_of_the_owner_are_names_for_his_programs_alone(named: Lab) -> None:
    lines = output(named.b, named.network, "getent", "ahosts", "printer.home.arpa").decode()
    assert "10.147.0.77" in lines
    assert "fd77::77" in lines
    assert run(named.a, named.network, "getent", "ahosts", "printer.home.arpa").returncode == 2


def test_getent(named: Lab) -> None:
    assert output(named.b, named.network, "getent", "hosts", f"web.{DOMAIN}").split() == [
        named.address6.encode(),
        f"web.{DOMAIN}".encode(),
    ]
    assert named.address.encode() in output(named.b, named.network, "getent", "ahostsv4", "web")


def test_python_and_asyncio(named: Lab) -> None:
    script = f"""
import asyncio
print(socket.gethostbyname('web'), socket.getfqdn({named.address!r}), socket.gethostbyname_ex('web.{DOMAIN}')[2])
async def main():
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo('web.{DOMAIN}', 80, type=socket.SOCK_STREAM)
    print(*[entry[4][0] for entry in found])
    print((await loop.getnameinfo(({named.address!r}, 80)))[0])
asyncio.run(main())
try:
    socket.getaddrinfo('nobody.{DOMAIN}', 80)
except socket.gaierror as error:
    print(error.errno == socket.EAI_NONAME)
"""
    assert python(named, script).splitlines() == [
        f"{named.address} web.{DOMAIN} ['{named.address}']",
        f"{named.address} {named.address6}",
        f"web.{DOMAIN}",
        "True",
    ]


def test_many_threads_ask_at_once(named: Lab) -> None:
    script = f"""
from concurrent.futures import ThreadPoolExecutor
names = ['web.{DOMAIN}', 'b.{DOMAIN}', 'controller.{DOMAIN}', 'nobody.{DOMAIN}'] * 25
def one(name):
    try:
        return socket.gethostbyname(name)
    except socket.gaierror as error:
        return error.errno
with ThreadPoolExecutor(40) as pool:
    print(len(set(pool.map(one, names))))
"""
    assert python(named, script) == "4"


def test_a_link_local_address_with_the_name_of_its_interface(named: Lab) -> None:
    script = """
name = [name for _, name in socket.if_nameindex() if name != 'lo'][0]
sockaddr = socket.getaddrinfo(f'fe80::1%{name}', 80, type=socket.SOCK_STREAM)[0][4]
print(sockaddr[3] == socket.if_nametoindex(name), socket.getnameinfo(sockaddr, socket.NI_NUMERICHOST)[0] == f'fe80::1%{name}')
"""
    assert python(named, script) == "True True"


def dig(member: RunningService, network: str, *words: str) -> list[str]:
    return output(member, network, "dig", "+short", "+tries=2", *words).decode().splitlines()


def test_dig_at_the_member_that_serves_names(named: Lab) -> None:
    dns = named.b.client.get(f"/network/{named.network}")["dns"]["servers"][0]
    assert dig(named.b, named.network, f"@{dns}", f"web.{DOMAIN}") == [named.address]
    assert dig(named.b, named.network, f"@{dns}", "+tcp", f"web.{DOMAIN}", "AAAA") == [named.address6]
    assert dig(named.b, named.network, f"@{dns}", "-x", named.address) == [f"web.{DOMAIN}."]
    refused = output(named.b, named.network, "dig", f"@{dns}", "www.example.org").decode()
    assert "status: REFUSED" in refused
    assert "status: NXDOMAIN" in output(named.b, named.network, "dig", f"@{dns}", f"nobody.{DOMAIN}").decode()


def test_programs_with_a_resolver_of_their_own(named: Lab) -> None:
    """They ask the host's name servers, and get the network's names; nothing else leaves."""
    assert dig(named.b, named.network, f"web.{DOMAIN}") == [named.address]
    assert dig(named.b, named.network, "+tcp", f"web.{DOMAIN}", "AAAA") == [named.address6]
    assert dig(named.b, named.network, "-x", named.address) == [f"web.{DOMAIN}."]
    for at in ("127.0.0.53", "127.0.0.11"):
        assert dig(named.b, named.network, f"@{at}", f"web.{DOMAIN}") == [named.address]
        assert dig(named.b, named.network, f"@{at}", "+tcp", "+keepopen", f"web.{DOMAIN}") == [named.address]
    assert "status: REFUSED" in output(named.b, named.network, "dig", "www.example.org").decode()
    assert named.address in output(named.b, named.network, "host", "-t", "A", f"web.{DOMAIN}").decode()
    script = f"""
import dns.asyncresolver, asyncio
print(dns.resolver.resolve('web.{DOMAIN}', 'A')[0], dns.resolver.resolve('web.{DOMAIN}', 'A', tcp=True)[0])
print(asyncio.run(dns.asyncresolver.resolve('web.{DOMAIN}', 'AAAA'))[0])
"""
    found = output(named.b, named.network, sys.executable, "-c", script).decode().split()
    assert found == [named.address, named.address, named.address6]


@pytest.fixture
def other_domain(named: Lab, tmp_path: Path) -> Iterator[str]:
    """A DNS server under the intercept on port 53 of member a, which the network then names for `other.example`."""
    script = str(Path(__file__).with_name("dns_server.py"))
    records = ["www.other.example=10.147.0.99", "other.example=10.147.0.98"]
    controller = f"/controller/network/{named.network}"
    before = named.root.client.get(controller)["dns"]

    def configured(dns: object) -> None:
        named.root.client.post(controller, {"dns": dns})
        wait_until(lambda: named.b.client.get(f"/network/{named.network}")["dns"] == dns, "the network's new DNS configuration")

    with server(named.a, named.network, sys.executable, script, named.address, *records, log=tmp_path / "log"):
        wait_for_port(named.b, named.network, named.address, 53)
        configured({"domain": "other.example", "servers": [named.address]})
        yield "other.example"
        configured(before)


def test_a_dns_server_under_the_intercept(named: Lab, other_domain: str, asker: str) -> None:
    at = f"@{named.address}"
    assert dig(named.b, named.network, at, f"www.{other_domain}") == ["10.147.0.99"]
    assert len(dig(named.b, named.network, at, f"long.{other_domain}", "TXT")[0]) > 2000  # dig goes over to TCP
    # The service does, too, when it asks for somebody; the answer is whole where there is room, and else dig asks again by TCP.
    assert len(dig(named.b, named.network, f"long.{other_domain}", "TXT")[0]) > 2000
    assert ask(named, asker, "query", f"long.{other_domain}", "16") == ["rcode 0 answers 1"]
    assert ask(named, asker, "search", "www", "1") == ["rcode 0 answers 1"]
    assert ask(named, asker, "query", "www", "1") == ["h_errno 3"]
    assert ask(named, asker, "host", f"www.{other_domain}", "4")[0] == f"plain www.{other_domain} 10.147.0.99"
    assert ask(named, asker, "host", "www", "4")[0] == f"plain www.{other_domain} 10.147.0.99"
    assert ask(named, asker, "addresses", f"alias.www.{other_domain}", "", "4", "2")[0] == f"1 10.147.0.99 0 www.{other_domain}"
    assert ask(named, asker, "host", f"www.{other_domain}", "6")[0] == "plain h_errno 4"
    assert ask(named, asker, "host", f"nobody.{other_domain}", "4")[0] == "plain h_errno 1"
    found = named.b.client.get(f"/names/www.{other_domain}")
    assert found["source"] == f"DNS server {named.address} of network {named.network}"


def test_names_are_of_nobody_while_the_networks_server_is_silent(named: Lab, other_domain: str) -> None:
    controller = f"/controller/network/{named.network}"
    gone = {"domain": other_domain, "servers": [named.address_b]}  # nothing listens there
    named.root.client.post(controller, {"dns": gone})
    wait_until(lambda: named.b.client.get(f"/network/{named.network}")["dns"] == gone, "the silent server")
    script = f"""
try:
    socket.gethostbyname('fresh.{other_domain}')
except socket.gaierror as error:
    print(error.errno == socket.EAI_AGAIN)
"""
    assert python(named, script, named.a) == "True"


def test_netcon_names_shows_and_explains(named: Lab) -> None:
    def names(member: RunningService, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-m", "netcon.cli.main", "-D", str(member.home), "names", *words]
        return subprocess.run(command, env=service_environment(), capture_output=True, text=True, timeout=60, check=False)

    listed = names(named.root).stdout
    assert f"web.{DOMAIN}" in listed
    assert "the controller" in listed
    assert "the host resolves them" in listed
    assert "other names: refused" in names(named.b).stdout
    assert names(named.b, f"web.{DOMAIN}").stdout.startswith(f"{named.address}  (web.{DOMAIN}, DNS server ")
    assert f"zt-{named.a.address}.{DOMAIN}" in names(named.b, named.address6).stdout
    refused = names(named.b, "www.example.org")
    assert refused.returncode == 1
    assert "names host" in refused.stderr


@pytest.mark.parametrize("version", ["4", "6"])
def test_multicast_dns_between_two_members(named: Lab, version: str, tmp_path: Path) -> None:
    script, log = str(Path(__file__).with_name("mdns.py")), tmp_path / "log"
    with server(named.a, named.network, sys.executable, "-u", script, "serve", named.address, "web.local", log=log):
        wait_until(lambda: "READY" in log.read_text(), "the responder")
        assert (
            output(named.b, named.network, sys.executable, script, f"ask{version}", "web.local").decode().strip() == named.address
        )


def test_the_zeroconf_library_unchanged(named: Lab, tmp_path: Path) -> None:
    log = tmp_path / "log"
    register = f"""
import socket, time
from zeroconf import ServiceInfo, Zeroconf
own = Zeroconf(interfaces=[{named.address!r}])
kind = "_http._tcp.local."
own.register_service(ServiceInfo(kind, "shop." + kind, 80, addresses=[socket.inet_aton({named.address!r})], server="web.local."))
print("READY", flush=True)
time.sleep(1000)
"""
    look = f"""
from zeroconf import Zeroconf
with Zeroconf(interfaces=[{named.address_b!r}]) as own:
    info = own.get_service_info("_http._tcp.local.", "shop._http._tcp.local.", timeout=60_000)
    print(info.parsed_addresses()[0], info.port)
"""
    with server(named.a, named.network, sys.executable, "-c", register, log=log):
        wait_until(lambda: "READY" in log.read_text(), "the registration")
        assert output(named.b, named.network, sys.executable, "-c", look).decode().split() == [named.address, "80"]


def test_other_names_go_to_the_hosts_resolver_where_policy_says_so(named: Lab, tmp_path: Path) -> None:
    """The library asks the C library's own function, found behind it, in the program's process; the service asks nobody."""
    library = tmp_path / "host_resolver.so"
    source = Path(__file__).with_name("host_resolver.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o", str(library), str(source), "-ldl"], check=True)
    script = f"""
import socket
for name in ('www.example.org', 'web.{DOMAIN}', 'nobody.{DOMAIN}'):
    try:
        print(socket.getaddrinfo(name, 80, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])
    except socket.gaierror as error:
        print(socket.EAI_NONAME == error.errno)
print(socket.getnameinfo(('192.0.2.80', 80), 0)[0], socket.getnameinfo(({named.address!r}, 80), 0)[0])
"""

    def names(member: RunningService, *policy: str) -> list[str]:
        environment = service_environment() | {"LD_PRELOAD": str(library)}
        words = command(member, named.network, find("python3"), "-c", script)
        at = words.index("--network")
        words[at:at] = policy
        return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()

    ours = [named.address, "True"]
    assert names(named.b) == ["True", *ours, f"192.0.2.80 web.{DOMAIN}"]
    by_host = ["192.0.2.80", *ours, f"host.example.org web.{DOMAIN}"]
    assert names(named.root) == by_host
    assert names(named.b, "--policy", "names host") == by_host
    assert names(named.root, "--policy", "names refuse") == names(named.b)


async def test_our_own_parts_resolve_as_programs_do(named: Lab) -> None:
    path, network = rpc_socket(named.b.home), int(named.network, 16)
    assert await resolve(path, f"web.{DOMAIN}") == [named.address, named.address6]
    assert await resolve(path, "web", socket.AF_INET6, network) == [named.address6]
    assert await resolve(path, "10.0.0.1") == ["10.0.0.1"]
    for name in (f"nobody.{DOMAIN}", "www.example.org", "", "a..b"):
        with pytest.raises(socket.gaierror, match="netcon names"):
            await resolve(path, name)


def test_garbage_at_port_53_changes_nothing(named: Lab) -> None:
    dns = named.b.client.get(f"/network/{named.network}")["dns"]["servers"][0]
    script = f"""
import os
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in range(200):
    udp.sendto(os.urandom(number), ({dns!r}, 53))
for wire in (b'', b'\\0', b'\\0\\5abc', b'\\xff\\xff' + os.urandom(100)):
    with socket.create_connection(({dns!r}, 53)) as tcp:
        tcp.sendall(wire)
"""
    python(named, script)
    assert dig(named.b, named.network, f"@{dns}", f"web.{DOMAIN}") == [named.address]
    assert "a defect in netcon" not in named.root.log.read_text()
