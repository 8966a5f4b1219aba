/* rpc.c: see rpc.h. The state below is a cache: any value of it is safe, whoever forks, closes or races. */
#include "rpc.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "environment.h"
#include "kept.h"
#include "kernel.h"
#include "memory.h"

/* The cached connection. */
static _Atomic uint64_t cached;
/* Of the service that was last dialled. */
static _Atomic uint64_t service_id;
static _Atomic uint16_t policy_bits; /* as of the latest reply */

_Static_assert(sizeof(struct netcon_rpc_request) == offsetof(struct netcon_rpc_request, data), "a request's head has no padding");
_Static_assert(sizeof(struct netcon_rpc_reply) == offsetof(struct netcon_rpc_reply, data), "a reply's head has no padding");

struct channel {
    int descriptor;
    uint64_t word; /* of the cache, or 0: to be closed after the call */
};

/* Sends one request; the descriptors are the subject and the reply end, as far as they are there. */
static long send_request(int channel, const struct rpc_call *call, int reply_end) {
    struct netcon_rpc_request request = {
        .magic = NETCON_RPC_MAGIC,
        .version = NETCON_RPC_VERSION,
        .operation = call->operation,
        .flags = (uint16_t)(call->flags | (reply_end < 0 ? NETCON_RPC_POSTED : 0)),
        .network = call->network,
        .data_length = call->data_length + call->tail_length,
    };
    if (call->about) {
        request.socket = call->about->socket;
        request.family = call->about->family;
        request.type = call->about->type;
        request.protocol = call->about->protocol;
    }
    if (call->descriptor >= 0 && reply_end >= 0) {
        long open_flags = raw(SYS_fcntl, call->descriptor, F_GETFL), close_flags = raw(SYS_fcntl, call->descriptor, F_GETFD);
        if (open_flags < 0 || close_flags < 0) return -EBADF;
        int status = (open_flags & O_NONBLOCK ? SOCK_NONBLOCK : 0) | (close_flags & FD_CLOEXEC ? SOCK_CLOEXEC : 0);
        request.status = (uint16_t)(status >> 4);
    }
    memcpy(request.args, call->args, sizeof call->args);

    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(2 * sizeof(int))];
    } control = {0};
    struct iovec parts[2 + call->tail_count];
    parts[0] = (struct iovec){&request, sizeof request};
    parts[1] = (struct iovec){(void *)call->data, call->data_length};
    for (size_t i = 0; i < call->tail_count; i++)
        parts[2 + i] = call->tail[i];
    struct msghdr sent = {.msg_iov = parts, .msg_iovlen = 2 + call->tail_count};
    int passed[2], count = 0;
    if (call->descriptor >= 0) passed[count++] = call->descriptor;
    if (reply_end >= 0) passed[count++] = reply_end;
    if (count) {
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
        memcpy(CMSG_DATA(&control.header), passed, (size_t)count * sizeof(int));
        sent.msg_control = &control;
        sent.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
    }
    long done;
    do
        done = raw(SYS_sendmsg, channel, &sent, MSG_NOSIGNAL);
    while (done == -EINTR);
    return done < 0 ? done : 0;
}

unsigned rpc_policy(void) { return atomic_load_explicit(&policy_bits, memory_order_relaxed); }

/* Waits for the one reply. */
static long receive_reply(int end, struct rpc_call *call) {
    struct netcon_rpc_reply head;
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    uint8_t data[NETCON_RPC_DATA_MAX];
    bool direct = call->reply_room > sizeof data; /* only of RESOLVE */
    struct iovec parts[2] = {{&head, sizeof head}, {direct ? call->reply : data, direct ? call->reply_room : sizeof data}};
    struct msghdr received = {.msg_iov = parts, .msg_iovlen = 2, .msg_control = &control, .msg_controllen = sizeof control};
    long length;
    call->reply_descriptor = -1;
    call->reply_length = 0;
    do
        length = raw(SYS_recvmsg, end, &received, MSG_CMSG_CLOEXEC);
    while (length == -EINTR);
    if (length >= 0 && received.msg_controllen >= sizeof control.header && control.header.cmsg_level == SOL_SOCKET &&
        control.header.cmsg_type == SCM_RIGHTS && control.header.cmsg_len == CMSG_LEN(sizeof(int)))
        memcpy(&call->reply_descriptor, CMSG_DATA(&control.header), sizeof(int));
    if (length < (long)sizeof head || head.magic != NETCON_RPC_MAGIC || head.version != NETCON_RPC_VERSION ||
        head.data_length > parts[1].iov_len || (long)(sizeof head + head.data_length) > length) {
        close_descriptor(call->reply_descriptor);
        call->reply_descriptor = -1;
        return -ENETDOWN;
    }
    call->value = head.value;
    call->reply_length = head.data_length < call->reply_room ? head.data_length : call->reply_room;
    if (call->reply && !direct) memcpy(call->reply, data, call->reply_length);
    atomic_store_explicit(&policy_bits, head.policy, memory_order_relaxed);
    return head.error > 0 && head.error <= NETCON_RPC_TO_HOST ? -head.error : 0;
}

/* A request with a reply over a given connection. `*sent` tells whether the request went out. */
static long exchange(int channel, struct rpc_call *call, bool *sent) {
    int ends[2];
    long done = raw(SYS_socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends);
    *sent = true;
    if (done < 0) return done;
    done = send_request(channel, call, ends[1]);
    *sent = done == 0;
    close_descriptor(ends[1]); /* so that the end of the service is the end of the wait */
    if (done == 0) done = receive_reply(ends[0], call);
    close_descriptor(ends[0]);
    return done;
}

/* Is the owner of a well-known path our user, or root? Anyone may have made a socket in /tmp. */
static bool owner_is_trusted(int channel) {
    struct ucred owner;
    socklen_t length = sizeof owner;
    if (raw(SYS_getsockopt, channel, SOL_SOCKET, SO_PEERCRED, &owner, &length) != 0) return false;
    return owner.uid == 0 || (long)owner.uid == raw(SYS_geteuid) || (long)owner.uid == raw(SYS_getuid);
}

static long dial_path(const struct service_path *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    long channel = raw(SYS_socket, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (channel < 0) return channel;
    memcpy(address.sun_path, path->text, sizeof path->text);
    long done;
    do
        done = raw(SYS_connect, channel, &address, sizeof address);
    while (done == -EINTR);
    if (done == 0 && !path->trusted && !owner_is_trusted((int)channel)) done = -EPERM;
    if (done == 0) return channel;
    close_descriptor((int)channel);
    return done;
}

static const char *reason(long error) {
    switch (-error) {
    case ENOENT:
        return "no service here, sockets fail with ENETDOWN (start it with 'netcon service', or unset ZT_NC_NWID and "
               "NETCON_SOCK)";
    case ECONNREFUSED:
        return "the service has ended, sockets fail with ENETDOWN (start it again with 'netcon service')";
    case EACCES:
        return "this user may not use the service, sockets fail with ENETDOWN (its owner may use it, and root)";
    case EPERM:
        return "belongs to another user and is not trusted, sockets fail with ENETDOWN (give the path by NETCON_SOCK if you "
               "trust it)";
    case ENOBUFS:
        return "the service keeps no more lists of networks for this user, sockets fail with ENETDOWN (use fewer different ones in "
               "ZT_NC_NWID, or start the service again)";
    case EPROTO:
        return "the service speaks another version of the socket protocol, sockets fail with ENETDOWN (update both)";
    default:
        return "the service does not answer, sockets fail with ENETDOWN";
    }
}

static long dial(struct channel *channel, bool optional) {
    const struct service_path *tried = NULL;
    long done = -ENOENT;
    if (settings.fault) {
        complain(NULL, settings.fault);
        return -ENETDOWN;
    }
    for (int i = 0; i < 2 && settings.paths[i].text[0] && done < 0; i++) {
        long next = dial_path(&settings.paths[i]);
        /* "Not there" in the second place does not hide why the first one cannot be used. */
        if (!tried || next != -ENOENT) {
            tried = &settings.paths[i];
            done = next;
        }
    }
    if (done == -EMFILE || done == -ENFILE) return done;
    if (done >= 0) {
        struct netcon_rpc_hello hello;
        struct rpc_call call = {.operation = NETCON_RPC_HELLO,
                                .descriptor = -1,
                                .data = settings.networks,
                                .data_length = settings.network_count * (uint32_t)sizeof settings.networks[0],
                                .reply = &hello,
                                .reply_room = sizeof hello};
        bool sent;
        *channel = (struct channel){(int)done, 0};
        done = exchange(channel->descriptor, &call, &sent);
        close_descriptor(call.reply_descriptor);
        if (done == 0 && call.reply_length == sizeof hello) {
            atomic_store(&service_id, hello.service);
            channel->descriptor = kept_put(&cached, channel->descriptor, &channel->word);
            return 0;
        }
        close_descriptor(channel->descriptor);
        if (done == -EMFILE || done == -ENFILE) return done;
        done = done ? done : -EPROTO;
    }
    if (!optional) complain(tried->text, reason(done));
    return -ENETDOWN;
}

static long open_channel(struct channel *channel, bool optional) {
    channel->descriptor = kept_get(&cached, &channel->word);
    return channel->descriptor >= 0 ? 0 : dial(channel, optional);
}

/* Performs a call over the cached connection or a new one; a cached one whose service has ended is replaced once. */
static long perform(struct rpc_call *call, bool waits) {
    for (int attempt = 0;; attempt++) {
        struct channel channel;
        bool sent;
        long done = open_channel(&channel, call->optional);
        if (done < 0) return done;
        /* Order holds on one connection only: over one that lives for this call nothing may be left unhandled. */
        if (waits || !channel.word) {
            done = exchange(channel.descriptor, call, &sent);
        } else {
            done = send_request(channel.descriptor, call, -1);
            sent = done == 0;
        }
        if (!channel.word) close_descriptor(channel.descriptor);
        if (sent) return done;
        if (done == -ETOOMANYREFS) return -ENFILE;
        if (done != -EPIPE && done != -ECONNRESET && done != -ENOTCONN) return done;
        if (channel.word) kept_forget(&cached, channel.word);
        if (attempt) return -ENETDOWN;
    }
}

long rpc_call(struct rpc_call *call) {
    call->reply_descriptor = -1;
    return perform(call, true);
}

long rpc_post(const struct rpc_call *call) {
    struct rpc_call posted = *call;
    posted.reply_descriptor = -1;
    long done = perform(&posted, false);
    close_descriptor(posted.reply_descriptor);
    return done;
}

uint64_t rpc_last_service(void) { return atomic_load(&service_id); }

long rpc_service(uint64_t *service) {
    struct channel channel;
    long done = open_channel(&channel, false);
    if (done < 0) return done;
    if (!channel.word) close_descriptor(channel.descriptor);
    *service = atomic_load(&service_id);
    return 0;
}
