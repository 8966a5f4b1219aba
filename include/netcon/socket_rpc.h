/* socket_rpc.h: what the intercept library and the socket server say to each other.
 *
 * Transport: SOCK_SEQPACKET on an AF_UNIX path; one message is one request. A message carries, as SCM_RIGHTS, the
 * *subject* (the socket that the call is about, one end of a pair, never the pair's other end unless the operation says
 * so) and then, unless the request is posted, the *reply end*: one end of a fresh SOCK_SEQPACKET pair on which exactly one
 * reply message comes. Because every waiting call brings its own reply end, threads and forked processes may share one RPC
 * socket without a lock. Posted and waiting requests on one RPC socket are handled in order.
 *
 * The caller's credentials are the kernel's word (SCM_CREDENTIALS, added by the receiver's SO_PASSCRED), never a field.
 *
 * All integers are in host order: both ends are on one machine. Addresses are struct netcon_address, not sockaddr.
 *
 * The names that make a descriptor describe itself (intercept.md, "The one idea") are specified at the end.
 */
#ifndef NETCON_SOCKET_RPC_H
#define NETCON_SOCKET_RPC_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NETCON_RPC_MAGIC 0x4e43u /* "NC" */
#define NETCON_RPC_VERSION 1u
#define NETCON_RPC_DATA_MAX 512u

enum netcon_rpc_operation {
    /* No subject. Reply data: struct netcon_rpc_hello. Refused with EPROTO when the version is not ours. */
    NETCON_RPC_HELLO = 1,
    /* Subject: the *service's* end S of a new pair whose end P the program holds, already named (kind P). `socket` is the
     * cookie of P. Usually posted. args: family, type, protocol. */
    NETCON_RPC_SOCKET = 2,
    /* Subject of all that follow: P, or a duplicate. */
    NETCON_RPC_BIND = 3,   /* data: struct netcon_address */
    NETCON_RPC_LISTEN = 4, /* args: backlog */
    /* data: struct netcon_address (family 0 is AF_UNSPEC: disconnect). Answers at once: EINPROGRESS, EISCONN, EALREADY, or an
     * error. args: 1 if the caller will wait (blocking). A reply with a descriptor: P was spent by an earlier failure, a
     * disconnect, or the shutdown() of a listener; the caller dup3()s the new P over the old number, with the old flags. LISTEN may
     * reply with a descriptor in the same way. */
    NETCON_RPC_CONNECT = 5,
    NETCON_RPC_GETSOCKNAME = 6, /* reply data: struct netcon_address */
    NETCON_RPC_GETPEERNAME = 7,
    NETCON_RPC_SETSOCKOPT = 8, /* args: level, name. data: value. Often posted */
    NETCON_RPC_GETSOCKOPT = 9, /* args: level, name, capacity. Reply data: value */
    NETCON_RPC_SHUTDOWN = 10,  /* args: how. Needed for listeners only */
    NETCON_RPC_IOCTL = 11,     /* args: low 32 bits of the request. data/reply data: the argument. SIOCOUTQ, SIOCATMARK … */
};

enum netcon_rpc_flags {
    NETCON_RPC_POSTED = 1u, /* no reply end is attached and none is expected */
};

/* A socket address. `family` is AF_INET or AF_INET6 (or 0: none). IPv4 uses the first 4 bytes of `ip`. `port` in host
 * order; `scope` is the IPv6 scope id, `flow` the flow label. */
struct netcon_address {
    uint16_t family;
    uint16_t port;
    uint32_t scope;
    uint32_t flow;
    uint8_t ip[16];
};

struct netcon_rpc_request {
    uint16_t magic;
    uint16_t version;
    uint16_t operation;
    uint16_t flags;
    uint64_t network; /* 0: the RPC path's default network, or whichever fits the destination */
    uint64_t socket;  /* socket id: the SO_COOKIE of P; 0 for HELLO */
    uint16_t family;  /* of the socket, as in its name; so that no request needs a look-up to be checked */
    uint16_t type;    /* without SOCK_NONBLOCK, SOCK_CLOEXEC */
    uint16_t protocol;
    uint16_t status; /* SOCK_NONBLOCK | SOCK_CLOEXEC of the descriptor, at the time of the call, shifted right by 4 */
    int32_t args[4];
    uint32_t data_length;
    uint32_t reserved; /* 0; makes the offset of `data` and the size of the struct the same */
    uint8_t data[];    /* data_length bytes; the message ends there */
};

struct netcon_rpc_reply {
    uint16_t magic;
    uint16_t version;
    uint16_t operation;
    uint16_t reserved;
    int32_t error; /* errno, 0 for success */
    int32_t value; /* what the call returns when it succeeds */
    uint32_t data_length;
    uint8_t data[];
};

struct netcon_rpc_hello {
    uint64_t service; /* persistent id of the service's home */
    uint64_t epoch;   /* random at each start */
    uint64_t network; /* default network of this path, 0 if none */
};

/* ---- accept ----
 * A pending connection is one message on the listener's pair: this record and the new P as SCM_RIGHTS. 64 bytes, so that
 * a record is always the same size whatever the family. Read with recvmsg and a 64-byte buffer, never with read.
 * Whoever takes the record binds the new P's name: that is what accepting means. A P that is closed without a name was never
 * accepted (its listener was closed), and its connection is reset. */
#define NETCON_ACCEPT_MAGIC 0x4e43414343455054ull /* "NCACCEPT" */
struct netcon_accept_record {
    uint64_t magic;
    struct netcon_address peer;
    uint8_t reserved[64 - 8 - sizeof(struct netcon_address)];
};

/* ---- names ----
 * Abstract AF_UNIX names, bound once, read with getsockname and getpeername. After the leading NUL byte:
 *
 *   offset length
 *        0      4  "znc1"
 *        4      1  kind: 'P' the program's end; 'L' 'C' 'F' the service's end: listening, connected, failed
 *        5      n  base64url, without padding, of the packed struct below
 *
 * kind P is struct netcon_name_program; L, C, F are struct netcon_name_service. */
#define NETCON_NAME_PREFIX "znc1"
#define NETCON_NAME_PREFIX_LENGTH 4

struct netcon_name_program {
    uint64_t service;  /* of the service that the socket belongs to */
    uint64_t socket;   /* the cookie of P, for accepted sockets too */
    uint16_t family;   /* AF_INET, AF_INET6 */
    uint16_t type;     /* SOCK_STREAM … */
    uint16_t protocol; /* IPPROTO_TCP … (never 0) */
    uint16_t reserved; /* any: makes another name where one has been taken */
} __attribute__((packed));

struct netcon_name_service {
    uint64_t serial; /* unique within the service's epoch, see `tag` */
    uint32_t tag;    /* low half of the epoch: makes the name unique on the host */
    int32_t error;   /* kind F: the true errno */
    uint16_t family;
    uint16_t local_port;
    uint16_t remote_port;
    uint16_t scope;
    uint8_t local_ip[16];
    uint8_t remote_ip[16];
} __attribute__((packed));

#ifdef __cplusplus
}
#endif
#endif
