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
#define NETCON_RPC_DATA_MAX 512u /* of any request but SENDTO, and of any reply */

/* Versions. HELLO is refused with EPROTO unless both speak the same NETCON_RPC_VERSION. It changes when a layout or a meaning
 * changes that an older side relies on; a new operation, option or flag does not change it: a service that lacks an operation says
 * EOPNOTSUPP, and one without datagram sockets EPROTONOSUPPORT to SOCKET. Unknown flags and reserved fields are sent as 0, and
 * ignored by who receives them. */

enum netcon_rpc_operation {
    /* No subject. Reply data: struct netcon_rpc_hello. Refused with EPROTO when the version is not ours. data: nothing, or ids of
     * networks, 8 bytes each: from now on these are what requests of this connection with `network` 0 mean, instead of the path's
     * default. EINVAL: one of them is 0, or the service has no room for another list. */
    NETCON_RPC_HELLO = 1,
    /* Subject: the *service's* end S of a new pair whose end P the program holds, already named (kind P). `socket` is the
     * cookie of P. Usually posted. `family`, `type`, `protocol` of the header say what it is: SOCK_STREAM is a pair of type
     * SOCK_STREAM; SOCK_DGRAM (UDP, ICMP, ICMPv6) and SOCK_RAW (by policy) a pair of type SOCK_SEQPACKET. Wait for the reply for
     * all but TCP and UDP: EACCES, EPERM, EPROTONOSUPPORT are policy. */
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
    NETCON_RPC_SHUTDOWN = 10,  /* args: how. Needed for listeners, and for datagram sockets (before the native shutdown) */
    NETCON_RPC_IOCTL = 11, /* args: low 32 bits of the request. data/reply data: the argument. SIOCOUTQ, SIOCATMARK, SIOCGIF* … */
    /* Datagram sockets: send one datagram to the address in its header, whatever the mode (sendto with an address on a connected
     * socket), and learn the true errno. data: struct netcon_datagram_header, then the payload, NETCON_RPC_SENDTO_MAX in all. It
     * goes after what was written to P before. Reply value: bytes of payload. */
    NETCON_RPC_SENDTO = 12,
    /* No subject. args: index of the first entry wanted. Reply value: number of entries there are; data: as many struct
     * netcon_interface from there on as fit. */
    NETCON_RPC_INTERFACES = 13,
    /* No subject. A question about a name or an address; see "names and addresses". Header: family of the addresses wanted, 0: any.
     * args: enum netcon_resolve_question, enum netcon_resolve_flags, and for MESSAGE the bytes of an answer that fit (0: 512; its
     * reply alone may be longer than NETCON_RPC_DATA_MAX). The reply may take some seconds, and others overtake it.
     * Errors: EAGAIN (too many questions of this user are open), EOPNOTSUPP (this service does not resolve), EINVAL. Otherwise the
     * reply's value is an enum netcon_resolve_status. */
    NETCON_RPC_RESOLVE = 16,
};

enum netcon_rpc_flags {
    NETCON_RPC_POSTED = 1u,  /* no reply end is attached and none is expected */
    NETCON_RPC_VIRTUAL = 2u, /* BIND, CONNECT, SENDTO: the run's policy wants a loopback address to be the virtual one */
    /* CONNECT, SENDTO: the run's policy says whose the host's name servers are (`names`); without either the service's does. */
    NETCON_RPC_NAMES_HOST = 4u,
    NETCON_RPC_NAMES_REFUSE = 8u,
};

/* Reply error of BIND, CONNECT and SENDTO, above every errno: the service's policy gives this address to the host. The caller makes
 * a socket of the kernel, in its own namespace; the service has changed nothing. */
#define NETCON_RPC_TO_HOST 4096

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
    uint64_t network; /* 0: the networks of HELLO, or the RPC path's default, or whichever fits the destination */
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

enum netcon_rpc_policy {
    NETCON_RPC_POLICY_VIRTUAL = 1u, /* loopback is virtual */
    NETCON_RPC_POLICY_HOST = 2u,    /* some destinations but loopback are the host's: ask with SENDTO */
};

struct netcon_rpc_reply {
    uint16_t magic;
    uint16_t version;
    uint16_t operation;
    uint16_t policy; /* bits of netcon_rpc_policy: what datagrams, which have no reply, must know beforehand */
    int32_t error;   /* errno, 0 for success */
    int32_t value;   /* what the call returns when it succeeds */
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

/* ---- datagrams ----
 * UDP, ICMP and raw sockets: one message on the SOCK_SEQPACKET pair is one datagram. How it looks is the socket's *mode*, which the
 * service keeps in SO_PRIORITY of P (inert on AF_UNIX; the library only reads it, and sends the program's own SO_PRIORITY as
 * SETSOCKOPT). The mode changes only inside CONNECT and SETSOCKOPT, before their reply; what is queued in P then is changed with
 * it.
 *
 *   0 framed            the header below, then the payload. Not connected.
 *   1 bare              the payload alone: plain read and write work. Connected, and no ancillary data was asked for.
 *   2 framed, connected as 0; what goes out needs no PEER flag. Connected, and a recv option (IP_PKTINFO …) is on.
 *
 * To the program, `peer` and `port` are the sender, PEER is always set, and LOCAL, TTL, TOS are set when the program has switched
 * on the option that asks for them: a flag is a cmsg to deliver (of the socket's family, or of IPv4 on an AF_INET6 socket whose
 * peer is IPv4-mapped). From the program, PEER says the datagram has a destination (required in mode 0), LOCAL gives the source
 * address
 * (`local` 0: any) and interface (0: any) of IP_PKTINFO or IPV6_PKTINFO; TTL and TOS are those of a cmsg. A message from the
 * program that is shorter than the header or lacks the magic (a plain write to a socket that never connected) is dropped and
 * counted.
 *
 * Errors that arrive (ICMP: ECONNREFUSED, EHOSTUNREACH …) for a connected socket are kept as its SO_ERROR, and a *nudge* is queued
 * to P, once: framed, a header with ERROR and no payload; bare, an empty message. Whoever receives a nudge asks GETSOCKOPT
 * SOL_SOCKET SO_ERROR and returns that errno; 0 means the bare message was an empty datagram, or that a framed nudge is to be
 * skipped. GETSOCKOPT SO_ERROR clears the error and takes a nudge that is still queued out of P's queue. A sender that wants
 * the pending error as a kernel reports it looks first: recv(P, NULL, 0, MSG_PEEK|MSG_DONTWAIT|MSG_TRUNC) says 0 (bare) at a nudge.
 *
 * End of file (0 with POLLHUP): the service is gone, ENETDOWN. What P's queue has no room for is dropped, as a kernel drops. */
#define NETCON_DATAGRAM_MAGIC 0xd7u
#define NETCON_DATAGRAM_PAYLOAD_MAX 65507u  /* IPv4 UDP; EMSGSIZE beyond */
#define NETCON_DATAGRAM_PAYLOAD6_MAX 65471u /* IPv6 UDP: 56 less than a kernel's: lwIP counts headers, too, in 16 bits */
#define NETCON_RPC_SENDTO_MAX (sizeof(struct netcon_datagram_header) + 65535u)

enum netcon_datagram_mode {
    NETCON_DATAGRAM_FRAMED = 0,
    NETCON_DATAGRAM_BARE = 1,
    NETCON_DATAGRAM_FRAMED_CONNECTED = 2,
};

enum netcon_datagram_flags {
    NETCON_DATAGRAM_PEER = 1u,      /* `peer`, `port` */
    NETCON_DATAGRAM_LOCAL = 2u,     /* `local`, `interface`: IP_PKTINFO, IPV6_PKTINFO */
    NETCON_DATAGRAM_TTL = 4u,       /* `ttl`: IP_TTL, IPV6_HOPLIMIT */
    NETCON_DATAGRAM_TOS = 8u,       /* `tos`: IP_TOS, IPV6_TCLASS */
    NETCON_DATAGRAM_STAMP = 16u,    /* to the program: SO_TIMESTAMP or SO_TIMESTAMPNS is on; the time is now */
    NETCON_DATAGRAM_STAMP_NS = 32u, /* with STAMP: as SCM_TIMESTAMPNS */
    NETCON_DATAGRAM_VIRTUAL = 64u,  /* from the program: as NETCON_RPC_VIRTUAL */
    NETCON_DATAGRAM_ERROR = 128u,   /* to the program: a nudge, nothing else in it counts */
};

/* Addresses of both families have 16 bytes: IPv4 is IPv4-mapped (::ffff:a.b.c.d), whatever the socket's family. 40 bytes. */
struct netcon_datagram_header {
    uint8_t magic;
    uint8_t flags;
    uint8_t ttl;   /* or hop limit */
    uint8_t tos;   /* or traffic class */
    uint16_t port; /* of the peer, host order; 0 for ICMP and raw sockets */
    uint16_t
        interface; /* index (as if_nametoindex): where it came in, or is to go out; the scope of a link-local `peer` too. 0: any */
    uint8_t peer[16];
    uint8_t local[16]; /* to the program: the packet's destination (a group or broadcast address too); from it: the source */
};

/* ---- interfaces ----
 * The virtual interface of a network is named as ZeroTier names it ("zt" and eight letters) and has an index from 2 on, the same
 * for as long as the service lives (1 is "lo", the loopback of the host or of the network). Subject of IOCTL SIOCGIF*: any socket
 * of the service; data and reply data: struct ifreq. INTERFACES has what getifaddrs and if_nameindex want. */
struct netcon_interface {
    uint64_t network;
    uint32_t index;
    uint32_t flags; /* IFF_* */
    uint32_t mtu;
    uint8_t prefix; /* of the address, in bits */
    uint8_t reserved[3];
    char name[16];
    uint8_t mac[6];
    uint16_t reserved2;
    struct netcon_address address; /* one entry for each; an interface without any has one entry, of family 0 */
    uint32_t reserved3;            /* makes it 80 bytes */
};

/* ---- names and addresses (RESOLVE) ----
 * The answer to NAME and ADDRESS is struct netcon_resolve_reply, then `count` of struct netcon_resolved_address, best first, then
 * the name, without NUL. The one to MESSAGE is a DNS message, cut to what fits with its TC bit set.
 *
 * The host's name servers (the addresses of /etc/resolv.conf, 127.0.0.53 and 127.0.0.11; port 53) are answered by the service
 * in the place of the host, unless policy gives them to it: a datagram is a MESSAGE, and of a connection the service's end of the
 * pair goes to who answers (docs/decisions/0011). */
#define NETCON_RESOLVE_NAME_MAX 254u
#define NETCON_RESOLVE_MESSAGE_MAX 65535u

enum netcon_resolve_question {
    NETCON_RESOLVE_NAME = 1,    /* data: a name, in bytes, without NUL. Answer: its addresses and its canonical name */
    NETCON_RESOLVE_ADDRESS = 2, /* data: struct netcon_address. Answer: its name */
    NETCON_RESOLVE_MESSAGE = 3, /* data: a DNS query (RFC 1035 §4) */
};

enum netcon_resolve_flags {
    NETCON_RESOLVE_CONFIGURED = 1u, /* only addresses of families that the networks have given us an address of */
    NETCON_RESOLVE_IDN = 2u,        /* the name is UTF-8, to be encoded (IDNA) */
    NETCON_RESOLVE_SEARCH = 4u,     /* MESSAGE: of one label, in the networks' domains first, as NAME does */
};

enum netcon_resolve_status {
    NETCON_RESOLVE_FOUND = 0,
    NETCON_RESOLVE_NOT_FOUND = 1, /* there is no such name */
    NETCON_RESOLVE_NO_DATA = 2,   /* there is, without an address of the family */
    NETCON_RESOLVE_AGAIN = 3,     /* the network's servers do not answer */
    NETCON_RESOLVE_FAILED = 4,    /* they refuse, or answer nonsense */
    NETCON_RESOLVE_HOST = 5,      /* no network's; by policy the program may ask the host's resolver */
    NETCON_RESOLVE_REFUSED = 6,   /* no network's; by policy it may not */
};

struct netcon_resolved_address {
    uint16_t family;
    uint16_t reserved;
    uint8_t ip[16]; /* as in struct netcon_address */
};

struct netcon_resolve_reply {
    uint32_t ttl; /* seconds that the answer holds */
    uint16_t count;
    uint16_t name_length;
};

/* ---- names ----
 * Abstract AF_UNIX names, bound once, read with getsockname and getpeername. After the leading NUL byte:
 *
 *   offset length
 *        0      4  "znc1"
 *        4      1  kind: 'P' the program's end; 'L' 'C' 'F' 'D' the service's end: listening, connected, failed, datagrams
 *        5      n  base64url, without padding, of the packed struct below
 *
 * kind P is struct netcon_name_program; L, C, F, D are struct netcon_name_service. D is bound when SOCKET is handled and has only
 * serial and tag: addresses of datagram sockets change, ask GETSOCKNAME and GETPEERNAME. */
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
