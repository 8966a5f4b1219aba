/* addrinfo.c: getaddrinfo, freeaddrinfo, getnameinfo.
 *
 * Each entry of a list is one block of the program's malloc, and its canonical name another, as in glibc: a list of ours could even
 * be freed by glibc's own freeaddrinfo, and lists may be cut and joined. musl keeps a list in one block, so freeaddrinfo must know
 * whose an entry is: between the entry and its address ours have a mark, where both C libraries have the address itself.
 */
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "environment.h"
#include "kernel.h"
#include "memory.h"
#include "resolver.h"
#include "trace.h"
#include "wrapped.h"

extern void *malloc(size_t size) __attribute__((weak));
extern void free(void *block) __attribute__((weak));

typedef int getaddrinfo_function(const char *, const char *, const struct addrinfo *, struct addrinfo **);
typedef void freeaddrinfo_function(struct addrinfo *);
typedef int getnameinfo_function(const struct sockaddr *, socklen_t, char *, socklen_t, char *, socklen_t, int);

static const uint64_t entry_mark[2] = {0x6e6574636f6e2061ull, 0x646472696e666f21ull}; /* "netcon addrinfo!" */

struct entry {
    struct addrinfo item;
    uint64_t mark[2];
    union {
        struct sockaddr any;
        struct sockaddr_in ipv4;
        struct sockaddr_in6 ipv6;
    } address;
};

static bool is_ours(const struct addrinfo *item) {
    const struct entry *entry = (const struct entry *)item;
    return item->ai_addr == &entry->address.any && memcmp(entry->mark, entry_mark, sizeof entry_mark) == 0;
}

static int real_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **list) {
    getaddrinfo_function *function = NULL;
    *(void **)&function = resolver_real("getaddrinfo");
    return function ? function(node, service, hints, list) : EAI_FAIL;
}

static void real_freeaddrinfo(struct addrinfo *list) {
    freeaddrinfo_function *function = NULL;
    *(void **)&function = resolver_real("freeaddrinfo");
    if (function && list) function(list);
}

void wrapped_freeaddrinfo(struct addrinfo *list) {
    while (list) {
        if (is_ours(list)) {
            struct addrinfo *next = list->ai_next;
            if (list->ai_canonname) free(list->ai_canonname);
            free(list);
            list = next;
            continue;
        }
        struct addrinfo *last = list, *theirs = list;
        while (last->ai_next && !is_ours(last->ai_next))
            last = last->ai_next;
        list = last->ai_next;
        last->ai_next = NULL;
        real_freeaddrinfo(theirs);
    }
}

/* What getaddrinfo says when the service could not be asked. */
static int error_of(long done) {
    result(done);
    return done == -EMFILE || done == -ENFILE || done == -ENOMEM ? EAI_SYSTEM : done == -EOPNOTSUPP ? EAI_FAIL : EAI_AGAIN;
}

static int error_of_status(unsigned status) {
    switch (status) {
    case NETCON_RESOLVE_NO_DATA:
        return settings.musl ? EAI_NONAME : EAI_NODATA;
    case NETCON_RESOLVE_AGAIN:
        return EAI_AGAIN;
    case NETCON_RESOLVE_FAILED:
        return EAI_FAIL;
    default:
        return EAI_NONAME;
    }
}

static struct entry *new_entry(const struct addrinfo *kind, const struct netcon_resolved_address *found, bool mapped, int flags) {
    struct entry *entry = malloc(sizeof *entry);
    if (!entry) return NULL;
    *entry = (struct entry){.item = *kind, .mark = {entry_mark[0], entry_mark[1]}};
    in_port_t port = ((const struct sockaddr_in *)kind->ai_addr)->sin_port;
    entry->item.ai_flags = flags;
    entry->item.ai_addr = &entry->address.any;
    entry->item.ai_canonname = NULL;
    entry->item.ai_next = NULL;
    if (found->family == AF_INET && !mapped) {
        entry->address.ipv4 = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = port};
        memcpy(&entry->address.ipv4.sin_addr, found->ip, 4);
        entry->item.ai_family = AF_INET;
        entry->item.ai_addrlen = sizeof entry->address.ipv4;
        return entry;
    }
    entry->address.ipv6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = port};
    uint8_t *ip = entry->address.ipv6.sin6_addr.s6_addr;
    if (mapped) {
        ip[10] = ip[11] = 0xff;
        memcpy(ip + 12, found->ip, 4);
    } else {
        memcpy(ip, found->ip, 16);
    }
    entry->item.ai_family = AF_INET6;
    entry->item.ai_addrlen = sizeof entry->address.ipv6;
    return entry;
}

static char *copy_text(const char *text) {
    size_t length = strlen(text) + 1;
    char *copy = malloc(length);
    return copy ? memcpy(copy, text, length) : NULL;
}

/* Each address once for each of the kinds of socket. */
static int make_list(const struct addrinfo *kinds, const struct resolved *found, int family, int flags, const char *canonical,
                     struct addrinfo **list) {
    bool native = false;
    for (unsigned i = 0; i < found->count; i++)
        native |= found->addresses[i].family == AF_INET6;
    bool map = family == AF_INET6 && (flags & AI_V4MAPPED) && (!native || (flags & AI_ALL));
    struct addrinfo *first = NULL, **next = &first;
    for (unsigned i = 0; i < found->count; i++) {
        bool mapped = map && found->addresses[i].family == AF_INET;
        if (family && found->addresses[i].family != family && !mapped) continue;
        for (const struct addrinfo *kind = kinds; kind; kind = kind->ai_next) {
            struct entry *entry = new_entry(kind, &found->addresses[i], mapped, flags);
            if (entry) *next = &entry->item;
            bool named = entry && (next != &first || !(flags & AI_CANONNAME) || (entry->item.ai_canonname = copy_text(canonical)));
            if (!named) {
                wrapped_freeaddrinfo(first);
                return EAI_MEMORY;
            }
            next = &entry->item.ai_next;
        }
    }
    if (!first) return error_of_status(NETCON_RESOLVE_NO_DATA);
    *list = first;
    return 0;
}

/* The C library would look for the interface of "fe80::1%name" among the host's: it gets the index. */
static const char *with_scope_number(const char *node, char *buffer, size_t size) {
    const char *scope = node;
    while (*scope && *scope != '%')
        scope++;
    if (!*scope || (size_t)(scope - node) >= size / 2) return node;
    int *location = __errno_location ? __errno_location() : NULL, saved = location ? *location : 0;
    unsigned index = wrapped_if_nametoindex(scope + 1);
    if (location) *location = saved;
    if (!index) return node;
    memcpy(buffer, node, (size_t)(scope - node) + 1);
    append_number(buffer + (scope - node) + 1, buffer + size - 1, index);
    return buffer;
}

static int resolve(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **list) {
    /* POSIX leaves open what no hints mean; these are what glibc does, and musl's programs lose nothing by them. */
    struct addrinfo wanted = {.ai_flags = hints ? hints->ai_flags : settings.musl ? 0 : AI_V4MAPPED | AI_ADDRCONFIG};
    if (hints) {
        wanted.ai_family = hints->ai_family;
        wanted.ai_socktype = hints->ai_socktype;
        wanted.ai_protocol = hints->ai_protocol;
    }
    int flags = wanted.ai_flags;
    char numbered[128];
    if (node) node = with_scope_number(node, numbered, sizeof numbered);
    /* Numbers are the C library's. AI_ADDRCONFIG would look at the host's interfaces. */
    wanted.ai_flags = (flags | (node ? AI_NUMERICHOST : 0)) & ~AI_ADDRCONFIG;
    int done = real_getaddrinfo(node, service, &wanted, list);
    if (!node || done != EAI_NONAME || (flags & AI_NUMERICHOST)) return done;

    /* Which kinds of sockets and which port: the C library's answer for an address that is a number. */
    struct addrinfo *kinds = NULL, template = wanted;
    template.ai_flags = AI_NUMERICHOST | (flags & AI_NUMERICSERV);
    template.ai_family = AF_INET;
    done = real_getaddrinfo("0.0.0.0", service, &template, &kinds);
    if (done) return done;
    struct resolved found;
    int family = wanted.ai_family, asked = family == AF_INET6 && (flags & AI_V4MAPPED) ? 0 : family;
    int question = (flags & AI_ADDRCONFIG ? NETCON_RESOLVE_CONFIGURED : 0) | (flags & AI_IDN ? NETCON_RESOLVE_IDN : 0);
    long answered = malloc && free ? resolver_name(node, asked, question, &found) : -ENOMEM;
    if (answered < 0)
        done = error_of(answered);
    else if (found.status == NETCON_RESOLVE_FOUND)
        done = make_list(kinds, &found, family, flags, found.name[0] ? found.name : node, list);
    else if (found.status == NETCON_RESOLVE_HOST)
        done = real_getaddrinfo(node, service, hints, list);
    else
        done = error_of_status(found.status);
    real_freeaddrinfo(kinds);
    return done;
}

int wrapped_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **list) {
    static const struct trace_form form = {.call = "getaddrinfo", .count = 4, .shown = TRACE_TEXT};
    struct trace_call call;
    if (!is_active()) return real_getaddrinfo(node, service, hints, list);
    if (!is_traced()) return resolve(node, service, hints, list);
    trace_begin(&call, &form, (const long[6]){(long)node, (long)service, (long)hints, (long)list});
    return (int)trace_end(&call, resolve(node, service, hints, list));
}

/* ---- getnameinfo ---- */

struct name_request {
    const struct sockaddr *address;
    socklen_t length;
    char *host;
    socklen_t host_room;
    char *service;
    socklen_t service_room;
    int flags;
};

static int real_getnameinfo(const struct name_request *request) {
    getnameinfo_function *function = NULL;
    *(void **)&function = resolver_real("getnameinfo");
    return function ? function(request->address, request->length, request->host, request->host_room, request->service,
                               request->service_room, request->flags)
                    : EAI_FAIL;
}

/* The host as a number. The C library would name a link-local address's interface as the host does. */
static int numeric(struct name_request request) {
    struct sockaddr_in6 plain;
    request.flags |= NI_NUMERICHOST;
    if (!request.host || !request.host_room || request.length < sizeof plain || request.address->sa_family != AF_INET6)
        return real_getnameinfo(&request);
    memcpy(&plain, request.address, sizeof plain);
    uint32_t scope = plain.sin6_scope_id;
    plain.sin6_scope_id = 0;
    request.address = (const struct sockaddr *)&plain;
    request.length = sizeof plain;
    int done = real_getnameinfo(&request);
    if (done || !scope) return done;
    char name[32];
    int *location = __errno_location ? __errno_location() : NULL, saved = location ? *location : 0;
    if (!wrapped_if_indextoname(scope, name)) append_number(name, name + sizeof name - 1, scope);
    if (location) *location = saved;
    size_t used = strlen(request.host);
    if (used + 1 + strlen(name) + 1 > request.host_room) return EAI_OVERFLOW;
    request.host[used] = '%';
    memcpy(request.host + used + 1, name, strlen(name) + 1);
    return 0;
}

static int name_address(const struct name_request *request) {
    int family = request->length >= sizeof(sa_family_t) ? request->address->sa_family : 0;
    bool whole = (family == AF_INET && request->length >= sizeof(struct sockaddr_in)) ||
                 (family == AF_INET6 && request->length >= sizeof(struct sockaddr_in6));
    if (!whole) return real_getnameinfo(request); /* AF_UNIX, or an error; nothing to resolve */
    if (!request->host || !request->host_room || (request->flags & NI_NUMERICHOST)) return numeric(*request);
    const void *ip = family == AF_INET ? (const void *)&((const struct sockaddr_in *)request->address)->sin_addr
                                       : (const void *)&((const struct sockaddr_in6 *)request->address)->sin6_addr;
    struct resolved found;
    long done = resolver_address(family, ip, &found);
    if (done == 0 && found.status == NETCON_RESOLVE_HOST) return real_getnameinfo(request);
    if (done == 0 && found.status == NETCON_RESOLVE_FOUND && found.name[0]) {
        size_t length = strlen(found.name) + 1;
        if (length > request->host_room) return EAI_OVERFLOW;
        memcpy(request->host, found.name, length);
        struct name_request rest = *request;
        rest.host = NULL;
        rest.host_room = 0;
        return rest.service && rest.service_room ? real_getnameinfo(&rest) : 0;
    }
    if (request->flags & NI_NAMEREQD)
        return done < 0 ? error_of(done) : found.status == NETCON_RESOLVE_AGAIN ? EAI_AGAIN : EAI_NONAME;
    return numeric(*request);
}

int wrapped_getnameinfo(const struct sockaddr *address, socklen_t length, char *host, socklen_t host_room, char *service,
                        socklen_t service_room, int flags) {
    struct name_request request = {address, length, host, host_room, service, service_room, flags};
    static const struct trace_form form = {.call = "getnameinfo", .count = 6, .shown = TRACE_BYTES_IN};
    struct trace_call call;
    if (!is_active() || !address) return real_getnameinfo(&request);
    if (!is_traced()) return name_address(&request);
    trace_begin(&call, &form, (const long[6]){(long)address, length, (long)host, host_room, (long)service, service_room});
    return (int)trace_end(&call, name_address(&request));
}
