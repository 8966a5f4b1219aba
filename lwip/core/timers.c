/* timers.c: lwIP's cyclic timers without the cycles: an idle stack does not wake up.
 *
 * Theory of operation.
 *
 * TCP. lwIP counts in slow ticks of 20 ms (tcp_ticks, and `rtime` or `persist_cnt` of each PCB). Nothing happens at most of them,
 * and at which one something can happen next is written in the PCBs. So a scan computes `planned`, the number of ticks until then;
 * those before it are only counted (`advance`), when the time comes or when somebody enters the stack earlier. After any activity
 * one tick is planned, whose scan plans the next: a scan a tick at most while busy, none while idle. An established connection with
 * nothing in flight plans none at all. Delayed ACKs are the fast timer's; it is armed by activity too, 10 ms ahead.
 *
 * How long silence is endured. lwIP backs off by at most 2^7 from an RTO that is tiny here, and gives up after TCP_MAXRTX retries:
 * seconds. Instead the RTO doubles without that limit up to 120 s, and `nrtx` (and the count of zero-window probes) is held below
 * the limit until the silence has lasted as long as Linux endures it, or as TCP_USER_TIMEOUT says. SYNs double from 1 s, as
 * Linux's, and are repeated TCP_SYNCNT times. A PCB in LAST-ACK lives as long as its data is retransmitted (lwIP would drop it,
 * data in flight included, after 2 MSL).
 *
 * ARP, neighbour discovery, reassembly: once a second, at whole seconds, so that the stacks of one service wake together; only for
 * LINGER after the last activity, by when nothing is pending in them. What was missed is made up for at the next entry. Group
 * reports (IGMP, MLD): every 100 ms while a report is due.
 */
#include "core_internal.h"
#include "lwip/etharp.h"
#include "lwip/ip4_frag.h"
#include "lwip/ip6_frag.h"
#include "lwip/nd6.h"

#define TICK_US (TCP_SLOW_INTERVAL * 1000ull)
#define FAST_US (TCP_FAST_INTERVAL * 1000ull)
#define SECOND_US 1000000ull
#define GROUP_US 100000ull
#define LINGER_US (64 * SECOND_US) /* more than IPv6 reassembly's 60 s */
/* Missed seconds made up for at most: beyond the life of any entry (ARP's 300 s, neighbours' and destinations' less). */
#define MISSED_SECONDS_MAX 4096u
#define NEVER_TICKS UINT32_MAX

#define SILENCE_MAX_MS 924600u /* what Linux's tcp_retries2 = 15 amounts to */
#define RTO_MAX_TICKS (120000 / TCP_SLOW_INTERVAL)
#define RTO_INITIAL_TICKS (LWIP_TCP_RTO_TIME / TCP_SLOW_INTERVAL)
#define SYN_RETRIES 6u /* net.ipv4.tcp_syn_retries */
#define EXT_ARG 0

static uint64_t last_tick_us;
static uint32_t planned = NEVER_TICKS;
static uint64_t next_fast_us = LWIP_CORE_NEVER;
static uint64_t last_second_us;
static uint64_t next_second_us = LWIP_CORE_NEVER;
static uint64_t linger_until_us;
static uint64_t next_group_us = LWIP_CORE_NEVER;
bool core_entry_was_quiet;

/* A PCB's silence, in its ext arg: when it began (ms, never 0), how often the RTO has doubled, whether the coming tick is to
 * retransmit, `nrtx` before it (a segment that still waits for its neighbour's address is not retransmitted). */
#define SILENCE(since, doublings, fires, nrtx)                                                                                     \
    ((void *)((uintptr_t)(since) << 32 | (uintptr_t)(doublings) << 16 | (uintptr_t)(fires) << 8 | (nrtx)))
#define SILENCE_SINCE(data) ((uint32_t)((uintptr_t)(data) >> 32))
#define SILENCE_DOUBLINGS(data) (((uintptr_t)(data) >> 16) & 0xff)
#define SILENCE_FIRES(data) (((uintptr_t)(data) >> 8) & 1)
#define SILENCE_NRTX(data) ((uintptr_t)(data)&0xff)
_Static_assert(sizeof(uintptr_t) == 8, "the ext arg holds all of it");

void core_timers_start(void) {
    last_tick_us = core_now_us;
    last_second_us = core_now_us - core_now_us % SECOND_US;
    if (tcp_ext_arg_alloc_id() != EXT_ARG || tcp_ext_arg_alloc_id() != LWIP_CORE_EXT_ARG_SERVER ||
        tcp_ext_arg_alloc_id() != LWIP_CORE_EXT_ARG_CONNECTION)
        LWIP_ASSERT("ext args are ours", 0);
}

/* ---- TCP ---- */

/* Ticks until `idle` exceeds `limit`. */
static uint32_t ticks_beyond(uint32_t idle, uint32_t limit) { return idle > limit ? 1 : limit - idle + 1; }

static uint32_t smaller(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* Milliseconds until its program gives the silence up (TCP_USER_TIMEOUT); UINT32_MAX: it does not. */
static uint32_t patience_left(const struct tcp_pcb *pcb) {
    const struct lwip_core_connection *connection = core_connection_of(pcb);
    uint32_t since = SILENCE_SINCE(pcb->ext_args[EXT_ARG].data);
    if (connection == NULL || connection->user_timeout_ms == 0 || since == 0) return UINT32_MAX;
    uint32_t endured = (uint32_t)(core_now_us / 1000) - since;
    return endured < connection->user_timeout_ms ? connection->user_timeout_ms - endured : 0;
}

static bool has_user_timeout(const struct tcp_pcb *pcb) {
    const struct lwip_core_connection *connection = core_connection_of(pcb);
    return connection != NULL && connection->user_timeout_ms != 0;
}

static unsigned syn_retries(const struct tcp_pcb *pcb) {
    const struct lwip_core_connection *connection = core_connection_of(pcb);
    return connection != NULL && connection->syn_retries != 0 ? connection->syn_retries : SYN_RETRIES;
}

/* Slow ticks until something may happen to an active PCB (tcp_slowtmr, condition by condition). */
static uint32_t ticks_until(const struct tcp_pcb *pcb) {
    static const uint8_t persist_backoff[7] = {3, 6, 12, 24, 48, 96, 120}; /* tcp.c's */
    uint32_t ticks = NEVER_TICKS, idle = tcp_ticks - pcb->tmr;
    if (pcb->nrtx >= (pcb->state == SYN_SENT ? TCP_SYNMAXRTX : TCP_MAXRTX) || pcb->persist_probe >= TCP_MAXRTX)
        return 1; /* given up */
    if (pcb->persist_backoff > 0) {
        uint8_t limit = persist_backoff[pcb->persist_backoff - 1];
        ticks = pcb->persist_cnt < limit ? limit - pcb->persist_cnt : 1;
    } else if (pcb->rtime >= 0) {
        ticks = pcb->rtime < pcb->rto ? (uint32_t)(pcb->rto - pcb->rtime) : 1;
    } else if (pcb->unsent != NULL) {
        ticks = 1;
    }
    if (ip_get_option(pcb, SOF_KEEPALIVE) && (pcb->state == ESTABLISHED || pcb->state == CLOSE_WAIT))
        ticks = smaller(ticks, ticks_beyond(idle, (pcb->keep_idle + pcb->keep_cnt_sent * pcb->keep_intvl) / TCP_SLOW_INTERVAL));
    if (pcb->ooseq != NULL) ticks = smaller(ticks, ticks_beyond(idle, (uint32_t)pcb->rto * TCP_OOSEQ_TIMEOUT));
    if (pcb->state == FIN_WAIT_2 && (pcb->flags & TF_RXCLOSED))
        ticks = smaller(ticks, ticks_beyond(idle, TCP_FIN_WAIT_TIMEOUT / TCP_SLOW_INTERVAL));
    if (pcb->state == SYN_RCVD) ticks = smaller(ticks, ticks_beyond(idle, TCP_SYN_RCVD_TIMEOUT / TCP_SLOW_INTERVAL));
    if (pcb->state == LAST_ACK && pcb->unacked == NULL && pcb->unsent == NULL)
        ticks = smaller(ticks, ticks_beyond(idle, 2 * TCP_MSL / TCP_SLOW_INTERVAL));
    if (patience_left(pcb) != UINT32_MAX) ticks = smaller(ticks, patience_left(pcb) / TCP_SLOW_INTERVAL + 1);
    if (pcb->poll != NULL)
        ticks = smaller(ticks, pcb->polltmr < pcb->pollinterval ? (uint32_t)(pcb->pollinterval - pcb->polltmr) : 1);
    return ticks;
}

/* Plan: when is the next tick at which something may happen? Arms the fast timer too. */
static void scan(void) {
    planned = NEVER_TICKS;
    for (const struct tcp_pcb *pcb = tcp_active_pcbs; pcb != NULL; pcb = pcb->next) {
        planned = smaller(planned, ticks_until(pcb));
        if (next_fast_us == LWIP_CORE_NEVER && ((pcb->flags & (TF_ACK_DELAY | TF_CLOSEPEND)) || pcb->refused_data != NULL))
            next_fast_us = core_now_us + FAST_US;
    }
    for (const struct tcp_pcb *pcb = tcp_tw_pcbs; pcb != NULL; pcb = pcb->next)
        planned = smaller(planned, ticks_beyond(tcp_ticks - pcb->tmr, 2 * TCP_MSL / TCP_SLOW_INTERVAL));
}

/* Count ticks at which, by plan, nothing happens. */
static void advance(uint32_t ticks) {
    tcp_ticks += ticks;
    last_tick_us += ticks * TICK_US;
    if (planned != NEVER_TICKS) planned -= ticks;
    for (struct tcp_pcb *pcb = tcp_active_pcbs; pcb != NULL; pcb = pcb->next) {
        if (pcb->persist_backoff > 0)
            pcb->persist_cnt = (u8_t)smaller(pcb->persist_cnt + ticks, UINT8_MAX);
        else if (pcb->rtime >= 0)
            pcb->rtime = (s16_t)smaller((uint32_t)pcb->rtime + ticks, INT16_MAX);
        if (pcb->poll != NULL) pcb->polltmr = (u8_t)smaller(pcb->polltmr + ticks, UINT8_MAX);
    }
}

static void before_tick(struct tcp_pcb *pcb) {
    void **silence = &pcb->ext_args[EXT_ARG].data;
    if (pcb->nrtx == 0 && pcb->persist_probe == 0) *silence = NULL;
    bool fires = pcb->persist_backoff == 0 && pcb->rtime >= 0 && pcb->rtime + 1 >= pcb->rto;
    bool given_up = patience_left(pcb) == 0 || (pcb->state == SYN_SENT && fires && SILENCE_DOUBLINGS(*silence) >= syn_retries(pcb));
    if (given_up) pcb->nrtx = UINT8_MAX; /* the tick removes it */
    *silence = SILENCE(SILENCE_SINCE(*silence), SILENCE_DOUBLINGS(*silence), fires, pcb->nrtx);
    /* Linux's keep-alive waits while data is in flight: whether that is answered is known anyway. */
    if (ip_get_option(pcb, SOF_KEEPALIVE) && (pcb->unacked != NULL || pcb->unsent != NULL) && pcb->keep_cnt_sent == 0)
        pcb->tmr = tcp_ticks;
    if (pcb->state == LAST_ACK && (pcb->unacked != NULL || pcb->unsent != NULL)) pcb->tmr = tcp_ticks;
}

static void after_tick(struct tcp_pcb *pcb) {
    void **silence = &pcb->ext_args[EXT_ARG].data;
    uint32_t now_ms = (uint32_t)(core_now_us / 1000) | 1; /* never 0 */
    uint32_t since = SILENCE_SINCE(*silence);
    uintptr_t doublings = SILENCE_DOUBLINGS(*silence);
    if (pcb->nrtx == 0 && pcb->persist_probe == 0) return;
    uint32_t rto = pcb->state == SYN_SENT ? RTO_INITIAL_TICKS : (uint32_t)LWIP_MAX((pcb->sa >> 3) + pcb->sv, 1);
    /* It began when the first that was not answered left. */
    if (since == 0) since = (now_ms - (SILENCE_FIRES(*silence) ? rto * TCP_SLOW_INTERVAL : 0)) | 1;
    if (SILENCE_FIRES(*silence) && pcb->nrtx != SILENCE_NRTX(*silence)) {
        doublings = doublings < UINT8_MAX ? doublings + 1 : doublings;
        pcb->rto = (s16_t)smaller(rto << smaller((uint32_t)doublings, 15), RTO_MAX_TICKS);
    }
    *silence = SILENCE(since, doublings, 0, 0);
    if (pcb->state == SYN_SENT) { /* before_tick counts */
        if (pcb->nrtx >= TCP_SYNMAXRTX - 1) pcb->nrtx = TCP_SYNMAXRTX - 2;
    } else if (now_ms - since < SILENCE_MAX_MS || has_user_timeout(pcb)) {
        if (pcb->nrtx >= TCP_MAXRTX - 1) pcb->nrtx = TCP_MAXRTX - 2;
        if (pcb->persist_probe >= TCP_MAXRTX - 1) pcb->persist_probe = TCP_MAXRTX - 2;
    }
}

static void tick(void) {
    for (struct tcp_pcb *pcb = tcp_active_pcbs; pcb != NULL; pcb = pcb->next)
        before_tick(pcb);
    tcp_slowtmr(); /* counts tcp_ticks */
    last_tick_us += TICK_US;
    for (struct tcp_pcb *pcb = tcp_active_pcbs; pcb != NULL; pcb = pcb->next)
        after_tick(pcb);
    scan();
}

static void run_tcp(void) {
    if (core_now_us >= next_fast_us) {
        next_fast_us = LWIP_CORE_NEVER;
        tcp_fasttmr();
    }
    if (planned == NEVER_TICKS || core_now_us < last_tick_us + planned * TICK_US) return;
    advance(planned - 1);
    tick();
    /* Late by more than a tick: count what is left, but let nothing fire twice for one delay of ours. */
    uint32_t late = (uint32_t)((core_now_us - last_tick_us) / TICK_US);
    if (late > 0) {
        advance(smaller(late, planned - 1));
        uint32_t rest = (uint32_t)((core_now_us - last_tick_us) / TICK_US);
        tcp_ticks += rest;
        last_tick_us += rest * TICK_US;
    }
}

/* ---- once a second ---- */

static void run_seconds(void) {
    uint64_t missed = (core_now_us - last_second_us) / SECOND_US;
    last_second_us += missed * SECOND_US;
    if (missed > MISSED_SECONDS_MAX) missed = MISSED_SECONDS_MAX;
    for (; missed > 0; missed--) {
        etharp_tmr();
        nd6_tmr();
        core_solicit_again();
        ip_reass_tmr();
        ip6_reass_tmr();
    }
    core_give_up_unanswered();
}

static bool report_is_due(void) {
    for (const struct igmp_group *group = netif_igmp_data(&core_netif); group != NULL; group = group->next)
        if (group->timer > 0) return true;
    for (const struct mld_group *group = netif_mld6_data(&core_netif); group != NULL; group = group->next)
        if (group->timer > 0) return true;
    return false;
}

/* ---- called by core.c ---- */

void core_timers_catch_up(void) {
    uint32_t elapsed = (uint32_t)((core_now_us - last_tick_us) / TICK_US);
    uint32_t quiet = smaller(elapsed, planned == NEVER_TICKS ? elapsed : planned - 1);
    if (quiet > 0) advance(quiet);
    if (next_second_us == LWIP_CORE_NEVER && core_now_us >= last_second_us + SECOND_US) run_seconds();
}

void core_timers_activity(void) {
    if (core_entry_was_quiet) {
        core_entry_was_quiet = false;
        return;
    }
    if (tcp_active_pcbs != NULL || tcp_tw_pcbs != NULL) {
        planned = smaller(planned, 1);
        if (next_fast_us == LWIP_CORE_NEVER) next_fast_us = core_now_us + FAST_US;
    }
    linger_until_us = core_now_us + LINGER_US;
    if (next_second_us == LWIP_CORE_NEVER) next_second_us = last_second_us + SECOND_US;
    if (next_group_us == LWIP_CORE_NEVER && report_is_due()) next_group_us = core_now_us + GROUP_US;
}

void core_run_timers(void) {
    core_count.timer_runs++;
    run_tcp();
    if (core_now_us >= next_second_us) {
        run_seconds();
        next_second_us = core_now_us < linger_until_us ? last_second_us + SECOND_US : LWIP_CORE_NEVER;
    }
    if (core_now_us >= next_group_us) {
        igmp_tmr();
        mld6_tmr();
        next_group_us = report_is_due() ? core_now_us + GROUP_US : LWIP_CORE_NEVER;
    }
    core_entry_was_quiet = true;
}

uint64_t core_deadline(void) {
    uint64_t deadline = planned == NEVER_TICKS ? LWIP_CORE_NEVER : last_tick_us + planned * TICK_US;
    deadline = LWIP_MIN(deadline, next_fast_us);
    deadline = LWIP_MIN(deadline, next_second_us);
    return LWIP_MIN(deadline, next_group_us);
}
