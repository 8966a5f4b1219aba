/* resolver.c: see resolver.h. */
#include "resolver.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/socket.h>

#include "environment.h"
#include "kernel.h"
#include "memory.h"
#include "policy.h"
#include "rpc.h"

#define HOSTS_FILE "/etc/hosts"
#define HOSTS_LINE 1024 /* what is longer is no line that a person wrote */

_Static_assert(sizeof(struct netcon_resolved_address) == 20 && sizeof(struct netcon_resolve_reply) == 8, "as the service has it");

extern void *dlsym(void *restrict handle, const char *restrict symbol) __attribute__((weak));

void *resolver_real(const char *symbol) { return dlsym ? dlsym(RTLD_NEXT, symbol) : NULL; }

/* ---- /etc/hosts ---- */

/* What is looked for: a name, or (`name` NULL) an address. */
struct search {
    const char *name;
    size_t name_length; /* without a final dot */
    int family;
    const void *ip;
    struct resolved *out;
};

typedef int pton_function(int, const char *, void *);

static int parse_address(const char *text, uint8_t *ip) {
    pton_function *function = NULL;
    *(void **)&function = resolver_real("inet_pton");
    if (!function) return 0;
    if (function(AF_INET, text, ip) == 1) return AF_INET;
    return function(AF_INET6, text, ip) == 1 ? AF_INET6 : 0;
}

static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c; }

static bool same_name(const char *text, const char *name, size_t length) {
    size_t i = 0;
    while (i < length && text[i] && lower(text[i]) == lower(name[i]))
        i++;
    return i == length && (!text[i] || (text[i] == '.' && !text[i + 1]));
}

/* The next word of a line, ended in place. NULL: no more. */
static char *next_word(char **at) {
    char *start = *at;
    while (*start == ' ' || *start == '\t' || *start == '\r')
        start++;
    if (!*start || *start == '#') return NULL;
    char *end = start;
    while (*end && *end != ' ' && *end != '\t' && *end != '\r' && *end != '#')
        end++;
    bool comment = *end == '#';
    *at = *end && !comment ? end + 1 : end;
    *end = 0;
    return start;
}

static void add_address(struct resolved *out, int family, const uint8_t *ip) {
    if (out->count == RESOLVER_ADDRESSES) return;
    struct netcon_resolved_address *entry = &out->addresses[out->count++];
    *entry = (struct netcon_resolved_address){.family = (uint16_t)family};
    memcpy(entry->ip, ip, resolver_width(family));
}

static void set_name(struct resolved *out, const char *name) {
    if (!out->name[0]) append(out->name, out->name + sizeof out->name - 1, name);
}

static void read_line(const struct search *search, char *line) {
    char *at = line, *address = next_word(&at), *first = NULL, *word;
    uint8_t ip[16];
    if (!address) return;
    int family = parse_address(address, ip);
    if (!family) return;
    if (!search->name) {
        if (family == search->family && memcmp(ip, search->ip, resolver_width(family)) == 0 && (word = next_word(&at)))
            set_name(search->out, word);
        return;
    }
    while ((word = next_word(&at))) {
        if (!first) first = word;
        if (!same_name(word, search->name, search->name_length)) continue;
        set_name(search->out, first);
        if (!search->family || search->family == family) add_address(search->out, family, ip);
        return;
    }
}

/* True: found, `out` is filled. */
static bool search_hosts(const struct search *search) {
    char line[HOSTS_LINE], block[1024];
    size_t used = 0;
    bool whole = true;
    long file = raw(SYS_openat, AT_FDCWD, HOSTS_FILE, O_RDONLY | O_CLOEXEC), length;
    if (file < 0) return false;
    while ((length = raw(SYS_read, file, block, sizeof block)) > 0 || length == -EINTR)
        for (long i = 0; i < length; i++) {
            if (block[i] != '\n') {
                if (used + 1 < sizeof line)
                    line[used++] = block[i];
                else
                    whole = false;
                continue;
            }
            line[used] = 0;
            if (whole) read_line(search, line);
            used = 0;
            whole = true;
        }
    line[used] = 0;
    if (whole) read_line(search, line);
    close_descriptor((int)file);
    if (!search->out->name[0]) return false;
    search->out->status = search->name && !search->out->count ? NETCON_RESOLVE_NO_DATA : NETCON_RESOLVE_FOUND;
    return true;
}

/* ---- the service ---- */

static long ask(int question, int family, int flags, const void *data, size_t length, struct rpc_call *call) {
    static const struct netcon_name_program of_family[] = {{0}, {.family = AF_INET}, {.family = AF_INET6}};
    uint32_t room = call->reply_room;
    *call = (struct rpc_call){.operation = NETCON_RPC_RESOLVE,
                              .network = settings.network,
                              .descriptor = -1,
                              .about = &of_family[family == AF_INET    ? 1
                                                  : family == AF_INET6 ? 2
                                                                       : 0],
                              .data = data,
                              .data_length = (uint32_t)length,
                              .reply = call->reply,
                              .reply_room = room};
    call->args[0] = question;
    call->args[1] = flags;
    if (question == NETCON_RESOLVE_MESSAGE) call->args[2] = (int32_t)room;
    long done = rpc_call(call);
    close_descriptor(call->reply_descriptor);
    call->value = (int32_t)policy_names((unsigned)call->value);
    return done;
}

static long ask_names(int question, int family, int flags, const void *data, size_t length, struct resolved *out) {
    uint8_t reply[NETCON_RPC_DATA_MAX];
    struct netcon_resolve_reply head;
    struct rpc_call call = {.reply = reply, .reply_room = sizeof reply};
    long done = ask(question, family, flags, data, length, &call);
    if (done < 0) return done;
    out->status = (unsigned)call.value;
    out->count = 0;
    out->name[0] = 0;
    if (call.reply_length < sizeof head) return 0;
    memcpy(&head, reply, sizeof head);
    size_t at = sizeof head, left = call.reply_length - sizeof head;
    if ((size_t)head.count * sizeof *out->addresses + head.name_length > left) return -EPROTO;
    out->count = head.count < RESOLVER_ADDRESSES ? head.count : RESOLVER_ADDRESSES;
    memcpy(out->addresses, reply + at, out->count * sizeof *out->addresses);
    at += (size_t)head.count * sizeof *out->addresses;
    size_t name = head.name_length < sizeof out->name ? head.name_length : sizeof out->name - 1;
    memcpy(out->name, reply + at, name);
    out->name[name] = 0;
    return 0;
}

long resolver_name(const char *name, int family, int flags, struct resolved *out) {
    size_t length = strlen(name);
    *out = (struct resolved){.status = NETCON_RESOLVE_NOT_FOUND};
    if (!length || length > NETCON_RESOLVE_NAME_MAX) return 0;
    struct search search = {.name = name, .name_length = length - (name[length - 1] == '.'), .family = family, .out = out};
    if (search.name_length && search_hosts(&search)) return 0;
    return ask_names(NETCON_RESOLVE_NAME, family, flags, name, length, out);
}

static bool is_mapped(const uint8_t *ip) {
    static const uint8_t prefix[12] = {[10] = 0xff, 0xff};
    return memcmp(ip, prefix, sizeof prefix) == 0;
}

long resolver_address(int family, const void *ip, struct resolved *out) {
    if (family == AF_INET6 && is_mapped(ip)) {
        family = AF_INET;
        ip = (const uint8_t *)ip + 12;
    }
    *out = (struct resolved){.status = NETCON_RESOLVE_NOT_FOUND};
    struct search search = {.family = family, .ip = ip, .out = out};
    if (search_hosts(&search)) return 0;
    struct netcon_address address = {.family = (uint16_t)family};
    memcpy(address.ip, ip, resolver_width(family));
    return ask_names(NETCON_RESOLVE_ADDRESS, family, 0, &address, sizeof address, out);
}

long resolver_message(const void *query, size_t length, int flags, void *response, size_t room) {
    uint8_t small[NETCON_RPC_DATA_MAX];
    bool fits = room > sizeof small;
    if (room > NETCON_RESOLVE_MESSAGE_MAX) room = NETCON_RESOLVE_MESSAGE_MAX;
    struct rpc_call call = {.reply = fits ? response : small, .reply_room = fits ? (uint32_t)room : sizeof small};
    if (length > NETCON_RPC_DATA_MAX) return -EMSGSIZE;
    long done = ask(NETCON_RESOLVE_MESSAGE, 0, flags, query, length, &call);
    if (done < 0) return done;
    if (call.value == NETCON_RESOLVE_HOST) return -EREMOTE;
    if (!call.reply_length) return -ETIMEDOUT;
    if (!fits) memcpy(response, small, call.reply_length < room ? call.reply_length : room);
    return (long)call.reply_length;
}
