# distutils: language = c++
# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True
"""The crypto leaf over libsodium, OpenSSL 3 and liblz4; see crypto.pyi for the contract.

Armour and the memory-hard work are C++ (src/armour.hpp, src/identity_work.hpp), shared with the native data plane. This file checks
lengths, moves bytes, releases the GIL, and turns every failure into a `CryptoError` in one place, `check`.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcmp, memcpy
from libcpp.memory cimport unique_ptr

cdef extern from "<mutex>" namespace "std" nogil:
    cdef cppclass mutex:
        void lock()
        void unlock()

cdef extern from "sodium.h" nogil:
    int sodium_init()
    void sodium_memzero(void *, size_t)
    int sodium_memcmp(const void *, const void *, size_t)
    int crypto_scalarmult_curve25519(uint8_t *, const uint8_t *, const uint8_t *)
    int crypto_hash_sha512(uint8_t *, const uint8_t *, unsigned long long)
    int crypto_sign_seed_keypair(uint8_t *, uint8_t *, const uint8_t *)
    int crypto_sign_detached(uint8_t *, unsigned long long *, const uint8_t *, unsigned long long, const uint8_t *)
    int crypto_sign_verify_detached(const uint8_t *, const uint8_t *, unsigned long long, const uint8_t *)

cdef extern from "lz4.h" nogil:
    int LZ4_compressBound(int)
    int LZ4_compress_default(const char *, char *, int, int)
    int LZ4_decompress_safe(const char *, char *, int, int)

cdef extern from "armour.hpp" namespace "netcon" nogil:
    cdef enum class ArmourStatus "netcon::ArmourStatus":
        ok
        not_authentic
        too_short
        bad_suite
        bad_offset
        library

    cdef cppclass NativePeerKeys "netcon::PeerKeys":
        @staticmethod
        unique_ptr[NativePeerKeys] create(const uint8_t *)
        ArmourStatus seal(uint8_t *, size_t, unsigned)
        ArmourStatus open(uint8_t *, size_t)
        ArmourStatus crypt_field(uint8_t *, size_t, size_t)

cdef extern from "identity_work.hpp" namespace "netcon" nogil:
    cdef cppclass IdentityWork:
        IdentityWork() except +
        void digest(const uint8_t *, uint8_t *)
        uint64_t generate(const uint8_t *, uint8_t *, uint8_t *)
    void native_public_from_secret "netcon::public_from_secret" (const uint8_t *, uint8_t *)


class CryptoError(Exception):
    """Wrong lengths, a library failure, bad LZ4 data."""


class AuthenticationError(CryptoError):
    """A packet, or a value that must be authentic, is not."""


if sodium_init() < 0:
    raise ImportError("libsodium could not be initialised: the system has no source of randomness")

# From here a call takes longer than handing the GIL over does.
cdef enum:
    LARGE = 4096


cdef int check(ArmourStatus status) except -1:
    """The one translator from native status to exception."""
    if status == ArmourStatus.ok:
        return 0
    if status == ArmourStatus.not_authentic:
        raise AuthenticationError("packet is not authentic")
    if status == ArmourStatus.too_short:
        raise CryptoError("packet is shorter than 28 bytes")
    if status == ArmourStatus.bad_suite:
        raise CryptoError("packets are sealed with suite 0, 1 or 3")
    if status == ArmourStatus.bad_offset:
        raise CryptoError("the field to encrypt must begin within the verb's data")
    raise CryptoError("OpenSSL refused an operation on peer keys")


cdef const uint8_t *exactly(bytes data, Py_ssize_t length, str what) except NULL:
    if len(data) != length:
        raise CryptoError(f"{what} must be {length} bytes, not {len(data)}")
    return <const uint8_t *> PyBytes_AS_STRING(data)


cdef inline uint8_t *start(bytes data) noexcept:
    return <uint8_t *> PyBytes_AS_STRING(data)


cdef bytes blank(Py_ssize_t length):
    """A bytes object to be filled before anybody else sees it."""
    return PyBytes_FromStringAndSize(NULL, length)


cdef bytes copy_of(object data):
    """The contents of a bytes-like object in a bytes object of its own, that may be written to."""
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        # Of 0 or 1 bytes CPython hands out a shared object; natives refuse such packets before they write.
        return PyBytes_FromStringAndSize(<const char *> view.buf, view.len)
    finally:
        PyBuffer_Release(&view)


def address_digest(bytes public not None):
    cdef const uint8_t *block = exactly(public, 64, "a public block")
    cdef bytes digest = blank(64)
    cdef uint8_t *out = start(digest)
    cdef unique_ptr[IdentityWork] work
    work.reset(new IdentityWork())
    with nogil:
        work.get().digest(block, out)
    return digest


def generate_identity(bytes seed not None):
    cdef const uint8_t *random = exactly(seed, 64, "a seed")
    cdef bytes public = blank(64)
    cdef bytes secret = blank(64)
    cdef uint8_t *public_block = start(public)
    cdef uint8_t *secret_block = start(secret)
    cdef uint64_t address
    cdef unique_ptr[IdentityWork] work
    work.reset(new IdentityWork())
    with nogil:
        address = work.get().generate(random, public_block, secret_block)
    return address, public, secret


def public_from_secret(bytes secret not None):
    cdef const uint8_t *block = exactly(secret, 64, "a secret block")
    cdef bytes public = blank(64)
    native_public_from_secret(block, start(public))
    return public


def agree(bytes secret not None, bytes public not None):
    cdef const uint8_t *own = exactly(secret, 64, "a secret block")
    cdef const uint8_t *theirs = exactly(public, 64, "a public block")
    cdef uint8_t shared[32]
    cdef uint8_t digest[64]
    if crypto_scalarmult_curve25519(shared, own, theirs) != 0:
        raise AuthenticationError("the public key is a point of low order: no honest identity has one")
    crypto_hash_sha512(digest, shared, 32)
    cdef bytes key = PyBytes_FromStringAndSize(<const char *> digest, 48)
    sodium_memzero(shared, sizeof(shared))
    sodium_memzero(digest, sizeof(digest))
    return key


def sign(bytes secret not None, bytes public not None, bytes message not None):
    cdef const uint8_t *own = exactly(secret, 64, "a secret block")
    cdef const uint8_t *block = exactly(public, 64, "a public block")
    cdef uint8_t pair[64]
    cdef uint8_t derived[32]
    cdef uint8_t digest[64]
    cdef bytes signature = blank(96)
    crypto_sign_seed_keypair(derived, pair, own + 32)
    try:
        # Signing under a foreign public key would give the secret away.
        if memcmp(derived, block + 32, 32) != 0:
            raise CryptoError("the secret block does not belong to the public block")
        crypto_hash_sha512(digest, start(message), len(message))
        memcpy(start(signature) + 64, digest, 32)
        if crypto_sign_detached(start(signature), NULL, digest, 32, pair) != 0:
            raise CryptoError("libsodium could not sign")
    finally:
        sodium_memzero(pair, sizeof(pair))
    return signature


def verify(bytes public not None, bytes message not None, bytes signature not None):
    cdef const uint8_t *block = exactly(public, 64, "a public block")
    cdef uint8_t digest[64]
    if len(signature) != 96:
        return False
    crypto_hash_sha512(digest, start(message), len(message))
    if sodium_memcmp(digest, start(signature) + 64, 32) != 0:
        return False
    return crypto_sign_verify_detached(start(signature), digest, 32, block + 32) == 0


def lz4_compress(bytes data not None):
    cdef int bound = LZ4_compressBound(<int> len(data)) if len(data) <= 0x7e000000 else 0
    if bound <= 0:
        raise CryptoError("too much data for one LZ4 block")
    cdef bytes block = blank(bound)
    cdef int length = LZ4_compress_default(<const char *> start(data), <char *> start(block), <int> len(data), bound)
    if length <= 0:
        raise CryptoError("LZ4 could not compress")
    return block[:length]


def lz4_decompress(bytes data not None, int limit):
    if limit < 0 or len(data) > 0x7e000000:
        raise CryptoError("too much data for one LZ4 block")
    if not data:
        return b""  # The flag without data is tolerated (vl1 §3.5).
    cdef bytes out = blank(<Py_ssize_t> limit + 1)  # a byte object of 0 or 1 bytes would be a shared one
    cdef int length = LZ4_decompress_safe(<const char *> start(data), <char *> start(out), <int> len(data), limit)
    if length <= 0:
        raise CryptoError(f"bad LZ4 block, or more than {limit} bytes of data")
    return out[:length]


cdef class PeerKeys:
    # Contexts are working state, and calls on large packets run without the GIL: one at a time.
    cdef unique_ptr[NativePeerKeys] keys
    cdef mutex busy

    def __cinit__(self, bytes key not None):
        self.keys = NativePeerKeys.create(exactly(key, 48, "a peer key"))
        if self.keys.get() == NULL:
            raise CryptoError("OpenSSL could not set up AES-256 and HMAC-SHA-384; is its default provider active?")

    def seal(self, packet not None, int suite):
        cdef bytes sealed = copy_of(packet)
        cdef uint8_t *data = start(sealed)
        cdef size_t length = len(sealed)
        cdef ArmourStatus status
        if length < LARGE:
            status = self.run_seal(data, length, <unsigned> suite)
        else:
            with nogil:
                status = self.run_seal(data, length, <unsigned> suite)
        check(status)
        return sealed

    def open(self, packet not None):
        cdef bytes opened = copy_of(packet)
        cdef uint8_t *data = start(opened)
        cdef size_t length = len(opened)
        cdef ArmourStatus status
        if length < LARGE:
            status = self.run_open(data, length)
        else:
            with nogil:
                status = self.run_open(data, length)
        check(status)
        return opened

    def crypt_field(self, packet not None, Py_ssize_t offset):
        cdef bytes changed = copy_of(packet)
        if offset < 0:
            check(ArmourStatus.bad_offset)
        check(self.keys.get().crypt_field(start(changed), len(changed), offset))
        return changed

    cdef ArmourStatus run_seal(self, uint8_t *data, size_t length, unsigned suite) noexcept nogil:
        self.busy.lock()
        cdef ArmourStatus status = self.keys.get().seal(data, length, suite)
        self.busy.unlock()
        return status

    cdef ArmourStatus run_open(self, uint8_t *data, size_t length) noexcept nogil:
        self.busy.lock()
        cdef ArmourStatus status = self.keys.get().open(data, length)
        self.busy.unlock()
        return status
