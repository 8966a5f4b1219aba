"""The crypto leaf against the golden vectors (vl1 §2, §3.5): identity, agreement, signature, packet_armor, and vl1 appendix A."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netcon.dataplane.crypto import (
    AuthenticationError,
    CryptoError,
    PeerKeys,
    address_digest,
    agree,
    generate_identity,
    lz4_compress,
    lz4_decompress,
    public_from_secret,
    sign,
    verify,
)

VECTORS = Path(__file__).parent.parent / "vectors"
HEADER = 27
#: Largest verb data after decompression (vl1 §3.5).
MAXIMUM_DATA = 9996


def load(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_text())


def h(text: str) -> bytes:
    return bytes.fromhex(text)


def blocks(identity: str) -> tuple[bytes, bytes]:
    """(public, secret) blocks of an identity string; secret may be empty. Digits beyond the 128th do not count (vl1 §2.1)."""
    fields = identity.split(":")
    return h(fields[2][:128]), h(fields[3][:128]) if len(fields) > 3 else b""


def cases(items: list[Any]) -> Any:
    return pytest.mark.parametrize("case", items, ids=[str(item.get("name", n)) for n, item in enumerate(items)])


IDENTITY, AGREEMENT, SIGNATURE, ARMOUR = load("identity"), load("agreement"), load("signature"), load("packet_armor")
KEYS = PeerKeys(h(ARMOUR["keys"]["key48"]))


def address_is_good(address: bytes, public: bytes) -> bool:
    digest = address_digest(public)
    return digest[0] < 17 and digest[59:] == address and any(address) and address[0] != 0xFF


def packet(packet_id: bytes, destination: str, source: str, body: bytes, *, fragmented: bool = False) -> bytes:
    return packet_id + h(destination) + h(source) + bytes([0x40 if fragmented else 0]) + bytes(8) + body


# -- identities --


@cases(IDENTITY["valid"])
def test_address_digest_of_valid_identity(case: Any) -> None:
    assert address_digest(h(case["public_key"])) == h(case["work_digest"])
    assert address_is_good(h(case["address"]), h(case["public_key"]))
    assert public_from_secret(h(case["private_key"])) == h(case["public_key"])


@cases([c for c in IDENTITY["text_cases"] if c["parses"]])
def test_work_of_text_case(case: Any) -> None:
    public, _ = blocks(case["string"].strip())
    assert address_is_good(h(case["parsed_address"]), public) is case["valid"]


@cases([c for c in IDENTITY["binary_cases"] if c["parses"]])
def test_work_of_binary_case(case: Any) -> None:
    data = h(case["bytes"])
    assert address_is_good(data[:5], data[6:70]) is case["valid"]


@cases(IDENTITY["insufficient_work"])
def test_insufficient_work(case: Any) -> None:
    public, _ = blocks(case["string"])
    assert address_digest(public) == h(case["work_digest"])
    assert address_digest(public)[59:] == h(case["parsed_address"])
    assert not address_is_good(h(case["parsed_address"]), public)


def test_address_digest_of_appendix_a1() -> None:
    public = h(
        "3f6681a99e5ad1895e9fba33e6212d4454e168bcec7112101bf000956ed8e92e42892cb6f2ec410881a84ab19da50e1287ba3d926c3a1f755cccf299a1207055"
    )
    assert address_digest(public).hex() == (
        "0e5ccaab9587909f674c6e47aca40a30899dc3d7c540d1ed759340a684cc225b4c61febf707cf1ded389d89ea0135c3572cbb83337d2f8b0974774778cde7190"
    )


def test_generated_identity_is_valid_and_follows_from_its_seed() -> None:
    seed = hashlib.sha512(b"netcon").digest()
    address, public, secret = generate_identity(seed)
    assert address_is_good(address.to_bytes(5, "big"), public)
    assert public_from_secret(secret) == public
    assert secret[32:] == seed[32:], "the signing half is the seed's"
    assert generate_identity(seed) == (address, public, secret)
    assert generate_identity(hashlib.sha512(b"other").digest())[0] != address


@pytest.mark.parametrize("work", [generate_identity, address_digest])
def test_work_runs_without_the_gil(work: Callable[[bytes], object]) -> None:
    """Another thread gets to run while the work is under way: threads are never switched by force here, only where one lets go."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e6)
    try:
        for n in range(1000):
            started, finished = threading.Event(), threading.Event()

            def search(seed: bytes, started: threading.Event, finished: threading.Event) -> None:
                started.set()
                work(seed)
                finished.set()

            thread = threading.Thread(target=search, args=(bytes([n % 256] * 64), started, finished))
            thread.start()
            started.wait()
            overlapped = not finished.is_set()
            thread.join()
            if overlapped:
                return
    finally:
        sys.setswitchinterval(interval)
    pytest.fail("the GIL was held throughout the work")


# -- agreement --


@cases(AGREEMENT["pairs"])
def test_agreement(case: Any) -> None:
    (a_public, a_secret), (b_public, b_secret) = blocks(case["a_secret"]), blocks(case["b_secret"])
    key = agree(a_secret, b_public)
    assert key == agree(b_secret, a_public) == h(case["key48"])
    assert key[:32] == h(case["key32"])
    for label, name in ((0x30, "siv_k0"), (0x31, "siv_k1")):
        derived = hmac.new(key, bytes([0, 0, 0, 0, 0x5A, 0x54, label, 0, 0, 0, 0, 1, 0x80]), hashlib.sha384).digest()
        assert derived == h(case[f"{name}_48"])
        assert derived[:32] == h(case[f"{name}_aes256"])


@cases(AGREEMENT["odd_public_keys"])
def test_agreement_with_odd_point(case: Any) -> None:
    """Low-order points are refused (vl1 §2.3 allows it); unreduced ones give what the reference gives."""
    secret, public, key = h(case["private_key"]), h(case["their_public_key"]), h(case["key48"])
    if key == hashlib.sha512(bytes(32)).digest()[:48]:
        with pytest.raises(AuthenticationError, match="low order"):
            agree(secret, public)
    else:
        assert agree(secret, public) == key


def test_odd_points_of_both_kinds_are_among_the_vectors() -> None:
    zero = hashlib.sha512(bytes(32)).hexdigest()[:96]
    assert len({case["key48"] == zero for case in AGREEMENT["odd_public_keys"]}) == 2


@cases(AGREEMENT["salsa_packet_keys"])
def test_packet_key(case: Any) -> None:
    """The packet key shows in the MAC: Poly1305 of the body under the first block of its stream, which a base key equal to the
    packet key and a header of zeros must reproduce."""
    length, header = case["total_packet_length"], h(case["header_first_19_bytes"])
    data = header + bytes(8) + bytes(length - HEADER)
    if header[18] & 0x38 > 0x08:
        pytest.fail("vector for a suite without packet key")
    suite = header[18] >> 3 & 7
    expected = bytearray(h(case["key32"]))
    for i in range(18):
        expected[i] ^= header[i]
    expected[18] ^= header[18] & 0xF8
    expected[19] ^= length & 0xFF
    expected[20] ^= length >> 8
    assert bytes(expected) == h(case["packet_key"])
    sealed = PeerKeys(h(case["key32"]) + bytes(16)).seal(data, suite)
    # The same stream from the packet key itself: undo what the header of that packet mixes in.
    again = bytearray(expected)
    for i in range(18):
        again[i] ^= sealed[i]
    again[18] ^= sealed[18] & 0xF8
    again[19] ^= length & 0xFF
    again[20] ^= length >> 8
    assert PeerKeys(bytes(again) + bytes(16)).open(sealed) == sealed[:HEADER] + bytes(length - HEADER)


def test_agreement_of_appendix_a2() -> None:
    a, b = bytes(range(64)), bytes(range(64, 128))
    key = "67712f5cc59aa48df7fb5c2d1b3c3717bf71dc9b551613c0de02a9b54d087af1e3032df505d4c5ae1b1745e708fb516d"
    assert agree(a, public_from_secret(b)).hex() == agree(b, public_from_secret(a)).hex() == key


# -- signatures --


@cases(SIGNATURE["valid"])
def test_signature(case: Any) -> None:
    public, secret = blocks(case["signer_secret"])
    message, signature = h(case["message"]), h(case["signature"])
    assert sign(secret, public, message) == signature
    assert verify(public, message, signature) is True


@cases(SIGNATURE["invalid"])
def test_invalid_signature(case: Any) -> None:
    public, _ = blocks(case["signer_public"])
    assert verify(public, h(case["message"]), h(case["signature"])) is False


@cases(SIGNATURE["implementation_defined"])
def test_unreduced_signature_is_refused(case: Any) -> None:
    public, _ = blocks(case["signer_public"])
    assert verify(public, h(case["message"]), h(case["signature"])) is False


def test_signature_of_appendix_a3() -> None:
    secret = bytes(range(64))
    assert sign(secret, public_from_secret(secret), b"hello").hex() == (
        "011800f12e441a81f9b531fa0db5a5fd1b052c1d7929c07ba053440c33eacc8581ff9c9c7f339ba74c4df5d6214ca884aaf788fb98a79b5e590eb25dc9623403"
        "9b71d224bd62f3785d96d46ad3ea3d73319bfbc2890caadae2dff72519673ca7"
    )


def test_signing_with_a_foreign_public_block_is_refused() -> None:
    secret = bytes(range(64))
    with pytest.raises(CryptoError, match="does not belong"):
        sign(secret, public_from_secret(bytes(64)), b"hello")


# -- armour --


@cases(ARMOUR["valid"])
def test_armour(case: Any) -> None:
    body = h(case["plaintext"])
    clear = packet(h(case["packet_id_before"]), case["destination"], case["source"], body, fragmented=case["fragmented_flag"])
    armoured = h(case["armored"])
    assert KEYS.seal(clear, case["suite_id"]) == armoured
    assert KEYS.open(armoured) == armoured[:HEADER] + body
    assert armoured[18] == int(case["flags_byte"], 16)


@cases(ARMOUR["hop_count_changed_in_transit"])
def test_hop_count_may_change_in_transit(case: Any) -> None:
    armoured = h(case["armored"])
    assert armoured[18] & 7 == case["hops"]
    assert KEYS.open(armoured) == armoured[:HEADER] + h(case["plaintext"])


@cases(ARMOUR["invalid"])
def test_invalid_packet(case: Any) -> None:
    armoured = h(case["armored"])
    with pytest.raises(CryptoError) as caught:
        KEYS.open(armoured)
    assert isinstance(caught.value, AuthenticationError) is (len(armoured) >= 28)


@cases(ARMOUR["trusted_path"])
def test_trusted_path_packet_does_not_authenticate(case: Any) -> None:
    with pytest.raises(AuthenticationError):
        KEYS.open(h(case["armored"]))


@cases(ARMOUR["compression"])
def test_compression(case: Any) -> None:
    plain = h(case["payload_plain"])
    for field in ("armored_aes_gmac_siv", "armored_salsa2012"):
        opened = KEYS.open(h(case[field]))
        verb, data = opened[HEADER], opened[HEADER + 1 :]
        assert verb == int(str(case["verb_byte_after"]), 16)
        assert data == h(case["payload_after"])
        assert bool(verb & 0x80) is case["compressed"]
        assert verb & 0x1F == case["verb"]
        assert (lz4_decompress(data, MAXIMUM_DATA) if verb & 0x80 else data) == plain
    ours = lz4_compress(plain)
    assert lz4_decompress(ours, len(plain)) == plain
    assert (len(plain) > 64 and len(ours) < len(plain)) is case["compressed"]


@cases(ARMOUR["compression_invalid_or_edge"])
def test_decompression_edge(case: Any) -> None:
    data = h(case["payload_with_compressed_flag"])
    if case["decompresses"]:
        assert lz4_decompress(data, MAXIMUM_DATA) == h(case["result"])
    else:
        with pytest.raises(CryptoError):
            lz4_decompress(data, MAXIMUM_DATA)


@cases(ARMOUR["field_encryption"])
def test_field_encryption(case: Any) -> None:
    plain, encrypted = h(case["plain"]), h(case["encrypted"])
    before = h(case["packet_id"]) + bytes(case["offset"] - 8)
    assert KEYS.crypt_field(before + plain, case["offset"]) == before + encrypted
    assert KEYS.crypt_field(before + encrypted, case["offset"]) == before + plain


@cases(ARMOUR["fragmentation"])
def test_fragmented_packet(case: Any) -> None:
    datagrams, mtu = [h(d) for d in case["datagrams"]], case["mtu"]
    head, pieces = datagrams[0], datagrams[1:]
    assert 1 + len(pieces) == case["fragments_total"]
    assert bool(head[18] & 0x40) is bool(pieces)
    for number, piece in enumerate(pieces, 1):
        assert piece[:13] == head[:13]
        assert piece[13] == 0xFF
        assert piece[14] == len(datagrams) << 4 | number
    assembled = head + b"".join(piece[16:] for piece in pieces)
    assert hashlib.sha512(assembled).hexdigest() == case["assembled_sha512"]
    body = h(case["plaintext"])
    assert KEYS.open(assembled) == assembled[:HEADER] + body
    suite = {"poly1305_none": 0, "salsa2012_poly1305": 1, "poly1305_salsa2012": 1, "aes_gmac_siv": 3}[case["suite"]]
    destination, source = head[8:13].hex(), head[13:18].hex()
    sealed = KEYS.seal(packet(h(case["packet_id_before"]), destination, source, body, fragmented=bool(pieces)), suite)
    assert sealed == assembled
    assert sealed[:mtu] == head


def test_armour_of_appendix_a4() -> None:
    keys = PeerKeys(bytes(range(48)))
    clear = packet(h("0102030405060708"), "1122334455", "aabbccddee", b"\x08hello world")
    assert keys.seal(clear, 0).hex() == "01020304050607081122334455aabbccddee0031bac958770f5bcd0868656c6c6f20776f726c64"
    assert keys.seal(clear, 1).hex() == "01020304050607081122334455aabbccddee88eca8e295c98b11a369612fce3c558a7eccfd6243"
    assert keys.seal(clear, 3).hex() == "a044dd40e76648fd1122334455aabbccddee18eb24805201d745e8b3be17d723250f48d0f6b614"
    field = keys.crypt_field(h("010203040506070f") + bytes(20 + 20), 28)
    assert field == h("010203040506070f") + bytes(20) + h("fde149eefe4697c623feb1378b1add2ab7da7e2f")


def test_hello_of_appendix_a5() -> None:
    hello = h(
        "88776655443322110a0b0c0d0e010203040500d4f37b803ce24eff010c010e00010000018bcfe568000102030405008f40c5adb68f25624ae5b214ea767a6ec9"
        "4d829d3d7b5e1ad1ba6f3e2138285f29acbae141bccaf0b22e1a94d34d0bc7361e526d0bfe12c89794bc9322966dd70004cb00710727090000000008eac90a00"
        "00017ee95760cd431c"
    )
    keys = PeerKeys(agree(bytes(range(64)), public_from_secret(bytes(range(64, 128)))))
    opened = keys.open(hello)
    assert opened == hello
    assert keys.crypt_field(opened, 135)[135:] == bytes(2)


# -- properties --

PACKETS = st.builds(
    lambda identifier, destination, source, fragmented, body: (
        identifier + destination + source + bytes([0x40 if fragmented else 0]) + bytes(8) + body
    ),
    st.binary(min_size=8, max_size=8),
    st.binary(min_size=5, max_size=5),
    st.binary(min_size=5, max_size=5),
    st.booleans(),
    st.binary(min_size=1, max_size=300),
)
SUITES = st.sampled_from([0, 1, 3])


@given(key=st.binary(min_size=48, max_size=48), clear=PACKETS, suite=SUITES, hops=st.integers(0, 7))
@settings(deadline=None)
def test_what_is_sealed_opens_after_any_number_of_hops(key: bytes, clear: bytes, suite: int, hops: int) -> None:
    sealed = bytearray(PeerKeys(key).seal(clear, suite))
    sealed[18] |= hops
    opened = PeerKeys(key).open(sealed)
    assert opened[:HEADER] == bytes(sealed[:HEADER])
    assert opened[HEADER:] == clear[HEADER:]
    assert opened[8:18] == clear[8:18]
    assert opened[18] >> 3 & 7 == suite


@given(clear=PACKETS, suite=SUITES, where=st.integers(0))
@settings(deadline=None)
def test_any_flipped_bit_outside_the_hop_count_is_noticed(clear: bytes, suite: int, where: int) -> None:
    sealed = bytearray(KEYS.seal(clear, suite))
    byte, bit = divmod(where % (8 * len(sealed)), 8)
    sealed[byte] ^= 1 << bit
    if byte == 18 and bit < 3:
        assert KEYS.open(sealed)[HEADER:] == clear[HEADER:]
    else:
        with pytest.raises(AuthenticationError):
            KEYS.open(sealed)


@pytest.mark.parametrize("suite", [0, 1, 3])
def test_every_bit_of_a_packet_is_protected(suite: int) -> None:
    sealed = KEYS.seal(packet(bytes(range(8)), "1122334455", "aabbccddee", b"\x06" + bytes(range(40))), suite)
    for where in range(8 * len(sealed)):
        byte, bit = divmod(where, 8)
        if byte == 18 and bit < 3:
            continue
        bad = bytearray(sealed)
        bad[byte] ^= 1 << bit
        with pytest.raises(AuthenticationError):
            KEYS.open(bad)


@given(data=st.binary(max_size=400))
@settings(deadline=None)
def test_opening_junk_is_a_typed_error(data: bytes) -> None:
    with pytest.raises(CryptoError):
        KEYS.open(data)


@given(data=st.binary(max_size=2000))
@settings(deadline=None)
def test_lz4_round_trip_and_junk(data: bytes) -> None:
    if data:
        assert lz4_decompress(lz4_compress(data), len(data)) == data
    with contextlib.suppress(CryptoError):
        assert len(lz4_decompress(data, 500)) <= 500


@given(secret=st.binary(min_size=64, max_size=64), message=st.binary(max_size=200), where=st.integers(0))
@settings(deadline=None)
def test_signature_property(secret: bytes, message: bytes, where: int) -> None:
    public = public_from_secret(secret)
    signature = bytearray(sign(secret, public, message))
    assert verify(public, message, bytes(signature))
    byte, bit = divmod(where % (8 * 96), 8)
    signature[byte] ^= 1 << bit
    assert not verify(public, message, bytes(signature))


# -- misuse and sharing --


def test_sealing_leaves_its_argument_alone() -> None:
    clear = packet(bytes(8), "1122334455", "aabbccddee", b"\x08data")
    for argument in (clear, bytearray(clear), memoryview(clear)):
        sealed = KEYS.seal(argument, 3)  # type: ignore[arg-type]
        assert bytes(argument) == clear
        assert KEYS.open(bytearray(sealed))[HEADER:] == clear[HEADER:]


@pytest.mark.parametrize("suite", [-1, 2, 4, 5, 6, 7, 8])
def test_sealing_with_another_suite_is_refused(suite: int) -> None:
    with pytest.raises(CryptoError, match="suite"):
        KEYS.seal(bytes(40), suite)


def test_wrong_lengths_are_refused() -> None:
    for length in (0, 1, 27):
        with pytest.raises(CryptoError, match="28"):
            KEYS.seal(bytes(length), 3)
        with pytest.raises(CryptoError, match="28"):
            KEYS.open(bytes(length))
    for offset in (-1, 0, 27, 41):
        with pytest.raises(CryptoError, match="begin"):
            KEYS.crypt_field(bytes(40), offset)
    assert KEYS.crypt_field(bytes(40), 40) == bytes(40)
    short = bytes(63)
    for call in (
        lambda: address_digest(short),
        lambda: generate_identity(short),
        lambda: public_from_secret(short),
        lambda: agree(short, bytes(64)),
        lambda: agree(bytes(64), short),
        lambda: sign(short, bytes(64), b""),
        lambda: verify(short, b"", bytes(96)),
        lambda: PeerKeys(bytes(47)),
        lambda: lz4_decompress(b"\x00", -1),
    ):
        with pytest.raises(CryptoError):
            call()
    assert verify(bytes(64), b"", bytes(95)) is False


def test_large_packets_may_be_sealed_by_several_threads_at_once() -> None:
    """Large packets are worked on without the GIL; the contexts of a key are still used by one thread at a time."""
    clears = [packet(bytes([n] * 8), "1122334455", "aabbccddee", bytes([n]) * 9000) for n in range(4)]
    expected = [KEYS.seal(clear, 3) for clear in clears]
    failures: list[int] = []

    def work(n: int) -> None:
        for _ in range(200):
            if KEYS.seal(clears[n], 3) != expected[n] or KEYS.open(expected[n])[HEADER:] != clears[n][HEADER:]:
                failures.append(n)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
