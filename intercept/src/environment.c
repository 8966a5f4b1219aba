/* environment.c: see environment.h. */
#include "environment.h"

#include <fcntl.h>
#include <stdatomic.h>

#include "kernel.h"
#include "memory.h"
#include "names.h"
#include "policy.h"
#include "wrapped.h"

struct settings settings;
const char *kept_variables[KEPT_MAX];
int kept_count;
bool kept_too_much;

/* LD_PRELOAD, a path and a policy may each be 4 KiB long. */
static char kept_text[16384];
static size_t kept_used;
static atomic_flag complained = ATOMIC_FLAG_INIT;

extern char **environ __attribute__((weak));
extern const char *gnu_get_libc_version(void) __attribute__((weak));

char **current_environment(void) { return &environ ? environ : NULL; }

static void keep(const char *variable) {
    size_t length = strlen(variable) + 1;
    if (kept_count == KEPT_MAX || length > sizeof kept_text - kept_used) {
        kept_too_much = true;
        return;
    }
    char *copy = memcpy(kept_text + kept_used, variable, length);
    kept_used += length;
    kept_variables[kept_count++] = copy;
}

/* Parses a network id of 1 to 16 hexadecimal digits up to a comma or the end, where *text is left. Returns 0, which is no network,
 * for anything else. */
static uint64_t parse_id(const char **text) {
    uint64_t network = 0;
    int digits = 0;
    for (; **text && **text != ','; (*text)++, digits++) {
        char lower = (char)(**text | 0x20);
        if (**text >= '0' && **text <= '9')
            network = network << 4 | (uint64_t)(**text - '0');
        else if (lower >= 'a' && lower <= 'f')
            network = network << 4 | (uint64_t)(lower - 'a' + 10);
        else
            return 0;
    }
    return digits <= 16 ? network : 0;
}

static uint64_t parse_network(const char *text) {
    uint64_t network = parse_id(&text);
    return *text ? 0 : network;
}

/* A list goes to settings.networks. Returns the first id; 0 if any is none, or there are too many. */
static uint64_t parse_networks(const char *text) {
    uint64_t first = 0;
    unsigned count = 0;
    for (;; text++) {
        uint64_t network = parse_id(&text);
        if (!network || count == NETWORKS_MAX) return 0;
        if (!count) first = network;
        settings.networks[count++] = network;
        if (!*text) break;
    }
    settings.network_count = count > 1 ? count : 0;
    return first;
}

static void set_path(struct service_path *path, const char *folder, const char *file, bool trusted) {
    char whole[4096];
    char *end = append(append(whole, whole + sizeof whole, folder), whole + sizeof whole, file);
    if ((size_t)(end - whole) >= sizeof path->text) {
        settings.fault = "the path of the service's socket is longer than 107 bytes";
        return;
    }
    memcpy(path->text, whole, (size_t)(end - whole) + 1);
    path->trusted = trusted;
}

/* A program that changes its folder must still find a relative NETCON_SOCK. */
static void set_given_path(const char *given) {
    char folder[4096];
    long length = 1;
    folder[0] = 0;
    if (given[0] != '/') {
        length = raw(SYS_getcwd, folder, sizeof folder - 1);
        if (length > 0) append(folder + length - 1, folder + sizeof folder, "/");
    }
    if (length > 0)
        set_path(&settings.paths[0], folder, given, true);
    else
        settings.fault = "NETCON_SOCK is relative and the working folder is gone";
}

static void set_well_known_paths(const char *runtime, uint64_t network) {
    char file[] = "/.ztnc_0000000000000000";
    for (int digit = 0; digit < 16; digit++)
        file[sizeof file - 2 - (size_t)digit] = "0123456789abcdef"[network >> 4 * digit & 15];
    if (runtime && runtime[0] == '/') {
        set_path(&settings.paths[0], runtime, file, false);
        settings.fault = NULL; /* if that one is too long the other is not */
    }
    set_path(&settings.paths[settings.paths[0].text[0] ? 1 : 0], "/tmp", file, false);
}

bool read_environment(char **environment) {
    if (!environment) return false; /* too early: the C library has not set it up, and nothing can have used a socket */
    const char *network = "", *given = "", *preset = "", *trace = "", *policy = NULL, *runtime = NULL;
    kept_count = 0;
    kept_used = 0;
    kept_too_much = false;
    for (char **variable = environment; *variable; variable++) {
        if (starts_with(*variable, "ZT_NC_NWID="))
            network = *variable + 11;
        else if (starts_with(*variable, "NETCON_SOCK="))
            given = *variable + 12;
        else if (starts_with(*variable, "NETCON_NETWORK="))
            preset = *variable + 15;
        else if (starts_with(*variable, "NETCON_POLICY="))
            policy = *variable + 14;
        else if (starts_with(*variable, "NETCON_TRACE="))
            trace = *variable + 13;
        else if (starts_with(*variable, "XDG_RUNTIME_DIR="))
            runtime = *variable + 16;
        if (starts_with(*variable, "LD_PRELOAD=") || starts_with(*variable, "ZT_NC_") || starts_with(*variable, "NETCON_"))
            keep(*variable);
    }
    if (!*network && !*given) {
        settings.activity = ACTIVITY_NONE;
        return false;
    }
    settings.musl = !gnu_get_libc_version;
    uint64_t first = *network ? parse_networks(network) : 0;
    settings.network = settings.network_count ? 0 : first;
    if (*network && !first)
        settings.fault = "ZT_NC_NWID is not a network id (16 hexadecimal digits), nor a list of up to 16 with commas between";
    else if (*given)
        set_given_path(given);
    else
        set_well_known_paths(runtime, first);
    if (*preset) {
        settings.network_count = 0;
        settings.network = parse_network(preset);
        if (!settings.network) settings.fault = "NETCON_NETWORK is not a network id (16 hexadecimal digits)";
    }
    if (policy && !policy_read(policy))
        settings.fault = "NETCON_POLICY is not a policy, sockets fail with ENETDOWN (netcon run --policy makes it)";
    if (kept_too_much)
        settings.fault = "LD_PRELOAD, ZT_NC_* and NETCON_* are more than 32 variables or 16 KiB, sockets fail with ENETDOWN";
    if (*trace == '/' && strlen(trace) < sizeof settings.trace_path) memcpy(settings.trace_path, trace, strlen(trace) + 1);
    settings.activity = ACTIVITY_FULL;
    return true;
}

/* glibc gives constructors the arguments of main, and may run this one before `environ` is set; musl gives none, and has set
 * it. */
__attribute__((constructor)) static void constructed(int count, char **arguments, char **environment) {
    (void)count, (void)arguments;
    if (settings.activity == ACTIVITY_UNKNOWN) read_environment(current_environment() ? current_environment() : environment);
}

void complain_always(const char *where, const char *why) {
    char line[512];
    char *end = line + sizeof line - 1;
    struct sockaddr_storage name;
    socklen_t length = sizeof name;
    if (raw(SYS_getsockname, 2, &name, &length) == 0 &&
        (name.ss_family == AF_INET || name.ss_family == AF_INET6 || names_program(2, &(struct netcon_name_program){0})))
        return;
    char *at = append(line, end, "netcon: ");
    if (where && *where) {
        at = append(at, end, where);
        at = append(at, end, ": ");
    }
    at = append(at, end, why);
    *at++ = '\n';
    raw(SYS_write, 2, line, at - line);
}

void complain(const char *where, const char *why) {
    if (!atomic_flag_test_and_set(&complained)) complain_always(where, why);
}
