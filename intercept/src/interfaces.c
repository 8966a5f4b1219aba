/* interfaces.c: getifaddrs, if_nameindex, if_nametoindex, if_indextoname and SIOCGIFCONF from the networks' view.
 *
 * The C library's own ask the kernel, which tells of the host's interfaces. What is given to the program is allocated in one block
 * by the program's own malloc, and freed by its free. The interfaces are walked twice, to count and to fill; if there are more the
 * second time, again.
 */
#include "interfaces.h"

#include <dlfcn.h>
#include <ifaddrs.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/in.h>

#include "address.h"
#include "environment.h"
#include "kernel.h"
#include "memory.h"
#include "rpc.h"
#include "trace.h"
#include "wrapped.h"

#define ETHERNET_ADDRESS 6
#define LOOPBACK_INDEX 1

extern void *malloc(size_t size) __attribute__((weak));
extern void free(void *block) __attribute__((weak));
extern void *dlsym(void *restrict handle, const char *restrict symbol) __attribute__((weak));

union any_address {
    struct sockaddr any;
    struct sockaddr_in ipv4;
    struct sockaddr_in6 ipv6;
    struct sockaddr_ll link;
};

#define VIEW_ENTRIES (NETCON_RPC_DATA_MAX / sizeof(struct netcon_interface))

/* Called for every interface once without address, then for each of its addresses. */
typedef void visit(void *state, const struct netcon_interface *interface, const struct netcon_address *address);

/* The host's loopback, on which programs are as they are without the library. */
static void visit_loopback(visit *each, void *state) {
    struct netcon_interface loopback = {.index = LOOPBACK_INDEX, .flags = IFF_UP | IFF_LOOPBACK | IFF_RUNNING, .mtu = 65536};
    memcpy(loopback.name, "lo", 3);
    each(state, &loopback, NULL);
    loopback.prefix = 8;
    each(state, &loopback, &(struct netcon_address){.family = AF_INET, .ip = {127, 0, 0, 1}});
    loopback.prefix = 128;
    each(state, &loopback, &(struct netcon_address){.family = AF_INET6, .ip = {[15] = 1}});
}

/* The service has one entry for each address; those of one interface follow each other. */
static long walk(visit *each, void *state) {
    struct netcon_interface view[VIEW_ENTRIES];
    uint32_t next = 0, last = 0;
    bool first = true;
    for (;;) {
        struct rpc_call call = {.operation = NETCON_RPC_INTERFACES, .network = settings.network, .descriptor = -1};
        call.args[0] = (int32_t)next;
        call.reply = view;
        call.reply_room = sizeof view;
        long done = rpc_call(&call);
        close_descriptor(call.reply_descriptor);
        if (done < 0) return done;
        if (first) visit_loopback(each, state);
        first = false;
        uint32_t count = call.reply_length / sizeof *view;
        for (uint32_t i = 0; i < count; i++) {
            if (view[i].index == LOOPBACK_INDEX) continue;
            view[i].name[sizeof view[i].name - 1] = 0;
            if (view[i].index != last) each(state, &view[i], NULL);
            last = view[i].index;
            if (view[i].address.family) each(state, &view[i], &view[i].address);
        }
        next += count;
        if (!count || (int32_t)next >= call.value) return 0;
    }
}

static void set_mask(uint8_t *mask, size_t size, unsigned prefix) {
    for (size_t i = 0; i < size; i++, prefix -= prefix < 8 ? prefix : 8)
        mask[i] = prefix >= 8 ? 0xff : (uint8_t)(0xff << (8 - prefix));
}

/* The function of the C library that this one takes the place of. */
static void *real(const char *symbol) { return dlsym ? dlsym(RTLD_NEXT, symbol) : NULL; }

/* ---- getifaddrs ---- */

/* An entry of the list with what it points to. */
struct entry {
    struct ifaddrs item; /* first, so that the address of the first entry is the one of the block */
    char name[16];
    union any_address address, mask, broadcast;
};

struct list {
    struct entry *entries;
    size_t room, count;
};

static void fill_ipv4(struct entry *entry, const struct netcon_interface *interface, const struct netcon_address *address) {
    entry->address.ipv4.sin_family = entry->mask.ipv4.sin_family = entry->broadcast.ipv4.sin_family = AF_INET;
    memcpy(&entry->address.ipv4.sin_addr, address->ip, 4);
    set_mask((uint8_t *)&entry->mask.ipv4.sin_addr, 4, interface->prefix);
    uint32_t mask = entry->mask.ipv4.sin_addr.s_addr;
    entry->broadcast.ipv4.sin_addr.s_addr = entry->address.ipv4.sin_addr.s_addr | ~mask;
    if (entry->item.ifa_flags & IFF_BROADCAST)
        entry->item.ifa_broadaddr = &entry->broadcast.any;
    else if (entry->item.ifa_flags & IFF_LOOPBACK)
        entry->item.ifa_dstaddr = &entry->address.any; /* as the kernel's lo */
}

static void fill_ipv6(struct entry *entry, const struct netcon_interface *interface, const struct netcon_address *address) {
    entry->address.ipv6.sin6_family = entry->mask.ipv6.sin6_family = AF_INET6;
    memcpy(&entry->address.ipv6.sin6_addr, address->ip, 16);
    if (address->ip[0] == 0xfe && (address->ip[1] & 0xc0) == 0x80) entry->address.ipv6.sin6_scope_id = interface->index;
    set_mask((uint8_t *)&entry->mask.ipv6.sin6_addr, 16, interface->prefix);
}

static void fill_link(struct entry *entry, const struct netcon_interface *interface) {
    bool loopback = interface->flags & IFF_LOOPBACK;
    struct sockaddr_ll link = {.sll_family = AF_PACKET,
                               .sll_ifindex = (int)interface->index,
                               .sll_hatype = loopback ? ARPHRD_LOOPBACK : ARPHRD_ETHER,
                               .sll_halen = ETHERNET_ADDRESS};
    memcpy(link.sll_addr, interface->mac, ETHERNET_ADDRESS);
    entry->address.link = link;
    memset(link.sll_addr, loopback ? 0 : 0xff, ETHERNET_ADDRESS);
    entry->broadcast.link = link;
    entry->item.ifa_broadaddr = &entry->broadcast.any;
}

static void visit_entry(void *state, const struct netcon_interface *interface, const struct netcon_address *address) {
    struct list *list = state;
    if (list->count++ >= list->room) return;
    struct entry *entry = &list->entries[list->count - 1];
    memset(entry, 0, sizeof *entry);
    memcpy(entry->name, interface->name, sizeof entry->name);
    entry->item.ifa_name = entry->name;
    entry->item.ifa_flags = interface->flags;
    entry->item.ifa_addr = &entry->address.any;
    if (!address) {
        fill_link(entry, interface);
    } else {
        entry->item.ifa_netmask = &entry->mask.any;
        if (address->family == AF_INET)
            fill_ipv4(entry, interface, address);
        else
            fill_ipv6(entry, interface, address);
    }
    if (list->count > 1) entry[-1].item.ifa_next = &entry->item;
}

static long list_addresses(struct ifaddrs **out) {
    struct list list = {0};
    if (!malloc || !free) return -ENOMEM;
    for (;;) {
        list.count = 0;
        long done = walk(visit_entry, &list);
        if (done == 0 && list.count <= list.room) break;
        if (list.entries) free(list.entries);
        if (done < 0) return done;
        list.room = list.count;
        list.entries = malloc(list.room * sizeof *list.entries);
        if (!list.entries) return -ENOMEM;
    }
    *out = list.count ? &list.entries->item : NULL;
    return 0;
}

typedef int getifaddrs_function(struct ifaddrs **);

int wrapped_getifaddrs(struct ifaddrs **list) {
    static const struct trace_form form = {.call = "getifaddrs", .count = 1};
    if (is_active()) {
        struct trace_call call;
        bool traced = is_traced();
        if (traced) trace_begin(&call, &form, (const long[6]){(long)list});
        long done = list_addresses(list);
        if (traced) trace_end(&call, done);
        return (int)result(done);
    }
    getifaddrs_function *function = NULL;
    *(void **)&function = real("getifaddrs");
    return function ? function(list) : (int)result(-ENOSYS);
}

typedef void freeifaddrs_function(struct ifaddrs *);

void wrapped_freeifaddrs(struct ifaddrs *list) {
    freeifaddrs_function *function = NULL;
    if (!is_active()) *(void **)&function = real("freeifaddrs");
    if (function)
        function(list);
    else if (list && free)
        free(list);
}

/* ---- names and indexes ---- */

struct name_list {
    struct if_nameindex *entries; /* ended by one of index 0; behind it the names, 16 bytes each */
    size_t room, count;
};

static void visit_name(void *state, const struct netcon_interface *interface, const struct netcon_address *address) {
    struct name_list *list = state;
    if (address || list->count++ >= list->room) return;
    char *name = (char *)(list->entries + list->room + 1) + (list->count - 1) * sizeof interface->name;
    memcpy(name, interface->name, sizeof interface->name);
    list->entries[list->count - 1] = (struct if_nameindex){interface->index, name};
}

static long list_names(struct if_nameindex **out) {
    struct name_list list = {0};
    if (!malloc || !free) return -ENOMEM;
    for (;;) {
        list.count = 0;
        long done = walk(visit_name, &list);
        if (done == 0 && list.entries && list.count <= list.room) break;
        if (list.entries) free(list.entries);
        if (done < 0) return done;
        list.room = list.count;
        list.entries = malloc((list.room + 1) * sizeof *list.entries + list.room * sizeof((struct netcon_interface *)0)->name);
        if (!list.entries) return -ENOMEM;
    }
    list.entries[list.count] = (struct if_nameindex){0, NULL};
    *out = list.entries;
    return 0;
}

typedef struct if_nameindex *nameindex_function(void);

struct if_nameindex *wrapped_if_nameindex(void) {
    struct if_nameindex *list = NULL;
    nameindex_function *function = NULL;
    if (!is_active()) {
        *(void **)&function = real("if_nameindex");
        return function ? function() : NULL;
    }
    static const struct trace_form form = {.call = "if_nameindex"};
    struct trace_call call;
    bool traced = is_traced();
    if (traced) trace_begin(&call, &form, (const long[6]){0});
    long done = list_names(&list);
    if (traced) trace_end(&call, done);
    return result(done) < 0 ? NULL : list;
}

typedef void freenameindex_function(struct if_nameindex *);

void wrapped_if_freenameindex(struct if_nameindex *list) {
    freenameindex_function *function = NULL;
    if (!is_active()) *(void **)&function = real("if_freenameindex");
    if (function)
        function(list);
    else if (list && free)
        free(list);
}

struct search {
    const char *name;
    uint32_t index;
    char found[16];
};

static void visit_search(void *state, const struct netcon_interface *interface, const struct netcon_address *address) {
    struct search *search = state;
    if (address) return;
    if (search->name) {
        if (strlen(search->name) == strlen(interface->name) && starts_with(search->name, interface->name))
            search->index = interface->index;
    } else if (search->index == interface->index) {
        memcpy(search->found, interface->name, sizeof search->found);
    }
}

typedef unsigned nametoindex_function(const char *);

unsigned wrapped_if_nametoindex(const char *name) {
    nametoindex_function *function = NULL;
    if (!is_active()) {
        *(void **)&function = real("if_nametoindex");
        return function ? function(name) : 0;
    }
    static const struct trace_form form = {.call = "if_nametoindex", .count = 1, .shown = TRACE_TEXT};
    struct trace_call call;
    bool traced = is_traced();
    if (traced) trace_begin(&call, &form, (const long[6]){(long)name});
    struct search search = {.name = name};
    long done = walk(visit_search, &search);
    if (done == 0 && !search.index) done = -ENODEV;
    if (traced) trace_end(&call, done < 0 ? done : (long)search.index);
    return result(done) < 0 ? 0 : search.index;
}

typedef char *indextoname_function(unsigned, char *);

char *wrapped_if_indextoname(unsigned index, char *name) {
    indextoname_function *function = NULL;
    if (!is_active()) {
        *(void **)&function = real("if_indextoname");
        return function ? function(index, name) : NULL;
    }
    static const struct trace_form form = {.call = "if_indextoname", .count = 2};
    struct trace_call call;
    bool traced = is_traced();
    if (traced) trace_begin(&call, &form, (const long[6]){index, (long)name});
    struct search search = {.index = index};
    long done = walk(visit_search, &search);
    if (done == 0 && !search.found[0]) done = -ENXIO;
    if (traced) trace_end(&call, done);
    if (result(done) < 0) return NULL;
    memcpy(name, search.found, sizeof search.found);
    return name;
}

/* ---- SIOCGIFCONF ---- */

struct configuration {
    char *at;
    size_t room, count;
};

static void visit_configuration(void *state, const struct netcon_interface *interface, const struct netcon_address *address) {
    struct configuration *out = state;
    struct ifreq request = {0};
    if (!address || address->family != AF_INET) return;
    out->count++;
    if (!out->at || out->room < sizeof request) return;
    struct sockaddr_in in = {.sin_family = AF_INET};
    memcpy(&in.sin_addr, address->ip, 4);
    memcpy(request.ifr_name, interface->name, sizeof request.ifr_name);
    memcpy(&request.ifr_addr, &in, sizeof in);
    memcpy(out->at, &request, sizeof request);
    out->at += sizeof request;
    out->room -= sizeof request;
}

long interfaces_configuration(void *argument) {
    struct ifconf wanted;
    if (!argument) return -EFAULT;
    memcpy(&wanted, argument, sizeof wanted);
    if (wanted.ifc_len < 0) return -EINVAL;
    struct configuration out = {.at = wanted.ifc_buf, .room = wanted.ifc_buf ? (size_t)wanted.ifc_len : 0};
    long done = walk(visit_configuration, &out);
    if (done < 0) return done;
    wanted.ifc_len = wanted.ifc_buf ? (int)(out.at - wanted.ifc_buf) : (int)(out.count * sizeof(struct ifreq));
    memcpy(argument, &wanted, sizeof wanted);
    return 0;
}
