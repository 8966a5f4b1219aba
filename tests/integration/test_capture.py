"""`netcon capture` and the API behind it: a network's frames, while programs talk on it."""

from __future__ import annotations

import os
import select
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from netcon.service.client import RequestFailed
from netcon.service.detach import service_environment
from tests.integration.lab import Lab, running_lab
from tests.pcapng import INBOUND, OUTBOUND, parse
from tests.service.running import RunningService, wait_until

DEADLINE_S = 60


def netcon(member: RunningService, *words: str) -> list[str]:
    return [sys.executable, "-P", "-m", "netcon.cli.main", "-D", str(member.home), *words]


def run(member: RunningService, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        netcon(member, *words), env=service_environment(), capture_output=True, text=True, timeout=DEADLINE_S, check=False, **more
    )


def ping(lab: Lab, count: int = 3) -> None:
    assert run(lab.b, "ping", "-c", str(count), "-i", "0.01", lab.address).returncode == 0


def start(member: RunningService, network: str, *words: str, **more: Any) -> subprocess.Popen[str]:
    """A capture that has begun."""
    begun = subprocess.Popen(
        netcon(member, "capture", network, *words), env=service_environment(), stderr=subprocess.PIPE, text=True, **more
    )
    wait_until(lambda: any(entry["reading"] for entry in member.client.get("/capture")), "the capture")
    return begun


def end(process: subprocess.Popen[str]) -> str:
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    with process.stderr:
        told = process.stderr.read()
    assert process.wait(DEADLINE_S) == 0, told
    return told


def icmp(data: bytes) -> tuple[int, int] | None:
    """(type, sequence) of an ICMP echo over IPv4."""
    if data[12:14] != b"\x08\x00" or data[23] != 1:
        return None
    return data[34], int.from_bytes(data[40:42], "big")


def test_a_ping_is_in_the_file_with_both_directions(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "frames.pcapng"
    process = start(lab.b, lab.network, "-o", str(path))
    ping(lab)
    told = end(process)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    capture = parse(path.read_bytes())
    echoes = [(packet.direction, icmp(packet.data)) for packet in capture.packets if icmp(packet.data)]
    for direction, kind in ((OUTBOUND, 8), (INBOUND, 0)):
        assert [echo for echo in echoes if echo[0] == direction] == [(direction, (kind, number)) for number in (1, 2, 3)]
    assert capture.interface.startswith("zt")
    assert capture.statistics is not None
    assert told.startswith(f"{len(capture.packets)} frames captured of {len(capture.packets)} seen")
    assert capture.statistics[4] == len(capture.packets)
    wait_until(lambda: lab.b.client.get("/capture") == [], "the end of the capture")
    assert list((lab.b.home / "run").glob("capture-*")) == []


def test_tcpdump_reads_along_and_may_end_first(lab: Lab) -> None:
    words = netcon(lab.b, "capture", lab.network, "--ethertype", "ip")
    process = subprocess.Popen(words, env=service_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    dumped = subprocess.Popen(
        ["tcpdump", "-n", "-c", "2", "-r", "-"], stdin=process.stdout, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.close()
    wait_until(lambda: any(entry["reading"] for entry in lab.b.client.get("/capture")), "the capture")
    ping(lab)
    output, _ = dumped.communicate(timeout=DEADLINE_S)
    assert f"{lab.address_b} > {lab.address}: ICMP echo request" in output
    ping(lab)  # now the command finds that nobody reads
    _, told = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, told
    wait_until(lambda: lab.b.client.get("/capture") == [], "the end of the capture")


def test_scapy_reads_it(lab: Lab, tmp_path: Path) -> None:
    from scapy.all import ICMP, rdpcap

    path = tmp_path / "frames.pcapng"
    process = start(lab.b, lab.network, "-o", str(path), "--host", lab.address)
    ping(lab)
    end(process)
    assert sorted(packet[ICMP].seq for packet in rdpcap(str(path)) if ICMP in packet) == [1, 1, 2, 2, 3, 3]


def test_it_ends_by_itself_after_a_count(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "two.pcapng"
    process = start(lab.b, lab.network, "-o", str(path), "-c", "2", "--host", lab.address, "--ethertype", "ip", "-s", "40")
    ping(lab)
    _, told = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0
    assert told.startswith("2 frames captured of ")
    capture = parse(path.read_bytes())
    assert [len(packet.data) for packet in capture.packets] == [40, 40]
    assert capture.statistics is not None


def test_several_at_once(lab: Lab, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    first = start(lab.b, lab.network, "-o", str(one))
    second = start(lab.b, lab.network, "-o", str(two), "--ethertype", "ip6")
    wait_until(lambda: sum(entry["reading"] for entry in lab.b.client.get("/capture")) == 2, "both")
    ping(lab)
    end(second)
    ping(lab)
    end(first)
    assert len([data for data in parse(one.read_bytes()).frames if icmp(data)]) == 12
    assert {data[12:14] for data in parse(two.read_bytes()).frames} <= {b"\x86\xdd"}


def test_an_existing_file_is_not_touched(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "there"
    path.write_text("mine")
    done = run(lab.b, "capture", lab.network, "-o", str(path))
    assert (done.returncode, path.read_text()) == (1, "mine")
    assert "exists already" in done.stderr
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    assert run(lab.b, "capture", lab.network, "-o", str(tmp_path / "link")).returncode == 1
    assert not (tmp_path / "elsewhere").exists()
    assert run(lab.b, "capture", "1122334455112233", "-o", str(tmp_path / "new")).returncode == 1
    assert not (tmp_path / "new").exists(), "nothing is left of one that never began"
    assert lab.b.client.get("/capture") == []


def test_wrong_requests_are_told(lab: Lab) -> None:
    assert "is not joined" in run(lab.b, "capture", "1122334455112233").stderr
    assert "is not an IP address" in run(lab.b, "capture", lab.network, "--host", "nobody").stderr
    assert "no EtherType" in run(lab.b, "capture", lab.network, "--ethertype", "ipx").stderr
    numbers = ({"snaplen": 0}, {"port": 70000}, {"frames": -1}, {"frames": "x"}, {"limit": 1 << 60})
    for wrong in (*numbers, {"host": "x"}, {"unknown": 1}):
        with pytest.raises(RequestFailed) as refused:
            lab.b.client.post(f"/network/{lab.network}/capture", wrong)
        assert refused.value.status == 400
    for request in (lambda: lab.b.client.get("/capture/999"), lambda: lab.b.client.delete("/capture/999")):
        with pytest.raises(RequestFailed) as refused:
            request()
        assert refused.value.status == 404


def test_there_is_a_limit_and_one_that_nobody_reads_can_be_ended(lab: Lab) -> None:
    made = [lab.b.client.post(f"/network/{lab.network}/capture", {}) for _ in range(16)]
    with pytest.raises(RequestFailed, match="16 captures run already"):
        lab.b.client.post(f"/network/{lab.network}/capture", {})
    assert all(stat.S_IMODE(os.stat(entry["socket"]).st_mode) == 0o600 for entry in made)
    for entry in made:
        lab.b.client.delete(f"/capture/{entry['id']}")
    wait_until(lambda: lab.b.client.get("/capture") == [], "their end")


def test_a_reader_that_stalls_does_not_hold_the_network_up(lab: Lab) -> None:
    made = lab.b.client.post(f"/network/{lab.network}/capture", {})
    with socket.socket(socket.AF_UNIX) as reader:
        reader.connect(made["socket"])
        wait_until(lambda: lab.b.client.get(f"/capture/{made['id']}")["reading"], "the reader")
        # 6 MB both ways: more than the buffer and the socket hold.
        assert run(lab.b, "ping", "-c", "100", "-i", "0.005", "-s", "30000", "-q", lab.address).returncode == 0
        assert lab.b.client.get(f"/capture/{made['id']}")["dropped"] > 0
        lab.b.client.delete(f"/capture/{made['id']}")
        wait_until(lambda: lab.b.client.get("/capture") == [], "the end, though it does not read")


def test_leaving_the_network_or_stopping_the_service_ends_it_well(tmp_path: Path) -> None:
    with running_lab(tmp_path) as lab:
        left = start(lab.b, lab.network, "-o", str(tmp_path / "left"))
        stopped = start(lab.a, lab.network, "-o", str(tmp_path / "stopped"))
        ping(lab)
        lab.b.client.delete(f"/network/{lab.network}")
        assert left.communicate(timeout=DEADLINE_S) is not None
        assert left.returncode == 0
        # The number of its port may be used again at once.
        lab.b.client.post(f"/network/{lab.network}", {})
        lab.a.stop()
        assert stopped.communicate(timeout=DEADLINE_S) is not None
        for name in ("left", "stopped"):
            capture = parse((tmp_path / name).read_bytes())
            assert len([data for data in capture.frames if icmp(data)]) == 6
            assert capture.statistics is not None


def test_a_terminal_is_no_place_for_it(lab: Lab) -> None:
    master, slave = os.openpty()
    try:
        words = netcon(lab.b, "capture", lab.network)
        done = subprocess.run(
            words, env=service_environment(), stdout=slave, stderr=subprocess.PIPE, timeout=DEADLINE_S, check=False
        )
        assert done.returncode == 2
        assert b"is a terminal" in done.stderr
        assert select.select([master], [], [], 0)[0] == []
    finally:
        os.close(master)
        os.close(slave)
