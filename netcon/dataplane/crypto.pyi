"""The crypto leaf: identities' work, agreement, signatures, armour, HELLO field encryption, LZ4 (vl1 §2, §3.5).

Over libsodium, OpenSSL 3 and liblz4. Releases the GIL where a call takes longer than some microseconds. Keys are wiped when
their object goes. Every failure is a `CryptoError`.
"""

class CryptoError(Exception):
    """Wrong lengths, a library failure, bad LZ4 data."""

class AuthenticationError(CryptoError):
    """A packet, or a value that must be authentic, is not."""

def address_digest(public: bytes) -> bytes:
    """The memory-hard 64-byte digest D of a 64-byte public block (vl1 §2.2). 2 MiB, 10 to 50 ms; GIL released."""

def generate_identity(seed: bytes) -> tuple[int, bytes, bytes]:
    """From 64 random bytes: (address, public 64, secret 64). Deterministic for a seed. Up to a second; GIL released."""

def public_from_secret(secret: bytes) -> bytes:
    """The 64-byte public block of a 64-byte secret block (X25519 scalar, Ed25519 seed)."""

def agree(secret: bytes, public: bytes) -> bytes:
    """48-byte peer key K (vl1 §2.3). AuthenticationError for a low-order point (all-zero shared secret)."""

def sign(secret: bytes, public: bytes, message: bytes) -> bytes:
    """96-byte signature (vl1 §2.4)."""

def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` (any length; must be 96) is by the holder of `public` over `message`."""

def lz4_compress(data: bytes) -> bytes:
    """LZ4 block, raw."""

def lz4_decompress(data: bytes, limit: int) -> bytes:
    """CryptoError if the block is bad or longer than `limit` when decompressed."""

class PeerKeys:
    """The key schedule of one pair of identities, from the 48-byte K: Salsa20 base key, both AES keys (vl1 §2.5)."""

    def __init__(self, key: bytes) -> None: ...
    def seal(self, packet: bytes | bytearray, suite: int) -> bytes:
        """Armour a whole packet (27-byte header, verb byte, data, in clear; packet id, destination, source, fragmented flag
        0x40 already set, hops 0) with suite 0, 1 or 3: sets the suite bits, the 0x80 mark, MAC and, for suite 3, the packet id."""

    def open(self, packet: bytes | bytearray) -> bytes:
        """Verify and decrypt a whole packet of suite 0, 1 or 3 as received (any hop count); returns it with the header
        unchanged and the body in clear. AuthenticationError otherwise (also for suites 2 and 4 to 7)."""

    def crypt_field(self, packet: bytes | bytearray, offset: int) -> bytes:
        """HELLO field encryption (its own inverse): the packet with bytes from `offset` to the end XORed (vl1 §2.6)."""
