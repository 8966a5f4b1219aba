/* core.c: the stack's entry points, its trap, its clock and its randomness; the table that C++ gets.
 *
 * Theory of operation: lwip_core.h. The trap is a setjmp in `core_enter` and `core_start`; lwIP's LWIP_ASSERT ends in
 * core_assertion_failed, which keeps the text and jumps. Randomness is SipHash-2-4 of a counter (ports, jitter) and of the
 * four-tuple (sequence numbers), keyed with what the owner drew from the kernel, or, in a simulation, from its seed.
 */
#include <setjmp.h>

#include "core_internal.h"
#include "lwip/inet_chksum.h"

uint64_t core_now_us;
struct lwip_core_config core_config;
struct lwip_core_counters core_count;

static jmp_buf trap;
static unsigned trap_depth;
static bool failed;
static char failure_text[256];

/* ---- the trap ---- */

void core_assertion_failed(const char *text, const char *file, int line) {
    const char *name = strrchr(file, '/');
    failed = true;
    if (line > 0)
        snprintf(failure_text, sizeof failure_text, "%s (%s:%d)", text, name ? name + 1 : file, line);
    else
        snprintf(failure_text, sizeof failure_text, "%s", text);
    if (trap_depth == 0) {
        /* lwIP was called past `enter`: an error of ours, and there is nowhere to go back to. */
        fprintf(stderr, "lwIP assertion outside of the stack's entry points: %s\n", failure_text);
        abort();
    }
    longjmp(trap, 1);
}

static bool core_enter(void (*fn)(void *context), void *context) {
    if (failed) return false;
    if (trap_depth > 0) {
        fn(context);
        return true;
    }
    trap_depth = 1;
    if (setjmp(trap) == 0) {
        core_timers_catch_up();
        fn(context);
        core_timers_activity();
    }
    trap_depth = 0;
    return !failed;
}

static const char *core_failure(void) { return failed ? failure_text : NULL; }

__attribute__((noreturn)) static void core_fail(const char *text) { core_assertion_failed(text, "", 0); }

/* ---- randomness ---- */

static uint64_t rotate(uint64_t x, int bits) { return (x << bits) | (x >> (64 - bits)); }

static void sip_round(uint64_t v[4]) {
    v[0] += v[1], v[1] = rotate(v[1], 13) ^ v[0], v[0] = rotate(v[0], 32);
    v[2] += v[3], v[3] = rotate(v[3], 16) ^ v[2];
    v[0] += v[3], v[3] = rotate(v[3], 21) ^ v[0];
    v[2] += v[1], v[1] = rotate(v[1], 17) ^ v[2], v[2] = rotate(v[2], 32);
}

/* SipHash-2-4 (Aumasson, Bernstein 2012) of whole 8-byte words. */
static uint64_t sip_hash(const uint64_t key[2], const uint64_t *words, size_t count) {
    uint64_t v[4] = {key[0] ^ 0x736f6d6570736575u, key[1] ^ 0x646f72616e646f6du, key[0] ^ 0x6c7967656e657261u,
                     key[1] ^ 0x7465646279746573u};
    for (size_t i = 0; i <= count; i++) {
        uint64_t word = i < count ? words[i] : (uint64_t)(count * 8) << 56;
        v[3] ^= word;
        sip_round(v), sip_round(v);
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    sip_round(v), sip_round(v), sip_round(v), sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

uint32_t core_random(void) {
    static uint64_t counter;
    counter++;
    return (uint32_t)sip_hash(core_config.key, &counter, 1);
}

u32_t core_initial_sequence(const ip_addr_t *local, u16_t local_port, const ip_addr_t *remote, u16_t remote_port) {
    uint64_t words[5] = {0};
    memcpy(&words[0], local, IP_IS_V6(local) ? 16 : 4);
    memcpy(&words[2], remote, IP_IS_V6(remote) ? 16 : 4);
    words[4] = (uint64_t)local_port << 32 | remote_port;
    return (u32_t)(sip_hash(core_config.key + 2, words, 5) + core_now_us / 4);
}

/* ---- time ---- */

u32_t sys_now(void) { return (u32_t)(core_now_us / 1000); }

static void core_set_time(uint64_t now_us) { core_now_us = now_us; }

static uint64_t core_time(void) { return core_now_us; }

/* ---- life ---- */

static bool core_start(const struct lwip_core_config *config) {
    core_config = *config;
    core_now_us = config->now_us;
    core_memory_limit = config->memory_limit;
    trap_depth = 1;
    if (setjmp(trap) == 0) {
        lwip_init();
        core_timers_start();
        core_link_start();
        core_loopback_start();
    }
    trap_depth = 0;
    return !failed;
}

static void core_drop(void) {
    if (!failed) snprintf(failure_text, sizeof failure_text, "the stack is closed");
    failed = true;
    core_memory_drop();
}

/* Packets to ourselves, then TCP output that found no room: a PCB whose segments were refused has data unsent and nothing that
 * would wake it. */
static bool core_poll(void) {
    struct netif *netif;
    bool did = core_loopback_poll();

    NETIF_FOREACH(netif) {
        did |= netif->loop_first != NULL;
        netif_poll(netif);
    }
    if (core_output_refused) {
        core_output_refused = false;
        did = true;
        for (struct tcp_pcb *pcb = tcp_active_pcbs, *next; pcb != NULL && !core_output_refused; pcb = next) {
            next = pcb->next;
            if (pcb->unsent != NULL || (pcb->flags & TF_ACK_NOW)) tcp_output(pcb);
        }
    }
    core_entry_was_quiet = !did;
    return did;
}

static uint32_t length_of(const struct tcp_pcb *pcb) {
    uint32_t count = 0;
    for (; pcb != NULL; pcb = pcb->next)
        count++;
    return count;
}

static void core_counters(struct lwip_core_counters *out) {
    *out = core_count;
    out->tcp_active = length_of(tcp_active_pcbs);
    out->tcp_time_wait = length_of(tcp_tw_pcbs);
    out->tcp_listening = 0;
    for (const struct tcp_pcb_listen *pcb = tcp_listen_pcbs.listen_pcbs; pcb != NULL; pcb = pcb->next)
        out->tcp_listening++;
}

#define FUNCTION_ENTRY(name) .name = name,

static struct lwip_core table = {.fingerprint = LWIP_CORE_FINGERPRINT,
                                 .start = core_start,
                                 .enter = core_enter,
                                 .failure = core_failure,
                                 .fail = core_fail,
                                 .drop = core_drop,
                                 .set_time = core_set_time,
                                 .run_timers = core_run_timers,
                                 .deadline = core_deadline,
                                 .receive = core_receive,
                                 .receive_end = core_merge_flush,
                                 .poll = core_poll,
                                 .add_address = core_add_address,
                                 .remove_address = core_remove_address,
                                 .addresses = core_addresses,
                                 .is_local = core_is_local,
                                 .set_routes = core_set_routes,
                                 .source_for = core_source_for,
                                 .set_mtu = core_set_mtu,
                                 .open_window = core_open_window,
                                 .read = core_read,
                                 .close_window = core_close_window,
                                 .true_size = core_true_size,
                                 .now_us = core_time,
                                 .watch_datagrams = core_watch_datagrams,
                                 .send_datagram = core_send_datagram,
                                 .is_broadcast = core_is_broadcast,
                                 .join_group = core_join_group,
                                 .leave_group = core_leave_group,
                                 .in_group = core_in_group,
                                 .groups = core_groups,
                                 .udp_checksum_is_right = core_udp_checksum_is_right,
                                 .icmp_checksum_is_right = core_icmp_checksum_is_right,
                                 .counters = core_counters,
                                 .netif = &core_netif,
                                 .tcp_active_pcbs = &tcp_active_pcbs,
                                 .tcp_tw_pcbs = &tcp_tw_pcbs,
                                 .tcp_bound_pcbs = &tcp_bound_pcbs,
                                 .tcp_listen_pcbs = &tcp_listen_pcbs,
                                 .udp_pcbs = &udp_pcbs,
                                 .stats = &lwip_stats,
                                 .any4 = &ip_addr_any,
                                 .any6 = &ip6_addr_any,
                                 .any_type = &ip_addr_any_type,
                                 .ip_data = &ip_data,
                                 LWIP_CORE_FUNCTIONS(FUNCTION_ENTRY)};

__attribute__((visibility("default"))) struct lwip_core *lwip_core_table(void);

struct lwip_core *lwip_core_table(void) {
    return &table;
}
