/* reactor.hpp: the event loop behind include/netcon/reactor.h.
 *
 * Theory of operation
 *
 * One epoll instance, one heap of timers, one list of deferred tasks, one queue of posted tasks with an eventfd. A batch
 * is: wait; read the clock; call the watchers of ready descriptors; run due timers; run what was deferred. Posted tasks
 * run where their eventfd turns up among the ready descriptors.
 *
 * - A watch is named in epoll by its descriptor and a generation. An event whose generation is not that of the present
 *   watch is stale (unwatched, or the number was closed and used again, earlier in the same batch) and is ignored.
 * - Timers are ordered by (deadline, order of setting). A deadline in the past is raised to the present, so a timer that
 *   sets itself again comes after all that were due before it, and runs in the next batch: no timer starves the others.
 * - What a deferred task defers runs in the next batch, which then does not wait. So do timers set to the present.
 * - With neither timers nor deferred tasks the wait is without end: an idle reactor does not wake up.
 *
 * Life: made -> running (threaded only) -> stopped, and never back. While there is no thread (before start, in manual
 * mode, after stop) the functions that belong to the reactor thread may be called from any thread, one at a time. `post`
 * and `call` are refused from the moment of `stop`, but everything they accepted runs; a `call` that comes during a stop
 * returns -ESHUTDOWN only when the thread is gone, so that its caller may then do the work itself.
 */
#pragma once

#include <sys/epoll.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "fd.hpp"
#include "live.hpp"
#include "netcon/reactor.h"

struct netcon_timer {
    netcon_reactor *reactor;
    netcon_task_fn fn;
    void *context;
    uint64_t deadline;
    uint64_t order;
    size_t position; /* in the heap; `unarmed` if not there */

    static constexpr size_t unarmed = SIZE_MAX;
    netcon::Counted<&netcon::LiveObjects::timers> counted;
};

struct netcon_reactor {
  public:
    explicit netcon_reactor(bool manual);
    ~netcon_reactor();
    netcon_reactor(const netcon_reactor &) = delete;
    netcon_reactor &operator=(const netcon_reactor &) = delete;

    /* 0, or -errno if the constructor could not get its descriptors. Nothing else may be called then. */
    int opened() const { return opened_; }
    const netcon_reactor_api *api() const { return &api_; }

    /* Start the thread. -EINVAL in manual mode, -EALREADY when it runs, -ESHUTDOWN once stopped, -EAGAIN: no thread to be had. */
    int start();
    /* Run what was posted, end the thread and join it. Idempotent; not for the reactor thread itself. */
    void stop();
    /* Manual mode: set the clock (never back) and run batches until one finds nothing to do. Returns the next deadline,
     * which is `now` when it gave up after `turn_batches_max` batches with work still there, or NETCON_NEVER. */
    uint64_t turn(uint64_t now_us);

    uint64_t now() const { return now_; }
    int watch(int fd, uint32_t events, netcon_fd_fn fn, void *context);
    int rewatch(int fd, uint32_t events);
    void unwatch(int fd);
    netcon_timer *timer_new(netcon_task_fn fn, void *context);
    void timer_set(netcon_timer *timer, uint64_t deadline_us);
    void timer_free(netcon_timer *timer);
    void defer(netcon_task_fn fn, void *context) noexcept { deferred_.push_back({fn, context}); }
    int post(netcon_task_fn fn, void *context);
    int call(netcon_task_fn fn, void *context);

    std::atomic<uint64_t> batches{0};
    std::atomic<uint64_t> wakeups{0}; /* returns from a wait that could have slept */

    static constexpr int events_max = 64;
    static constexpr int turn_batches_max = 64;

  private:
    enum class State { made, running, stopping, stopped };
    struct Watch {
        netcon_fd_fn fn = nullptr; /* null: not watched */
        void *context = nullptr;
        uint32_t generation = 0;
    };
    struct Task {
        netcon_task_fn fn;
        void *context;
    };

    int control(int operation, int fd, uint32_t events);
    void run();
    void finish();
    bool batch(std::optional<uint64_t> timeout_us);
    int wait(epoll_event *events, std::optional<uint64_t> timeout_us);
    bool run_timers();
    bool run_deferred();
    void run_posted();
    std::optional<uint64_t> time_to_wait() const;

    bool timer_before(const netcon_timer *a, const netcon_timer *b) const;
    void timer_place(size_t position, netcon_timer *timer);
    void timer_up(size_t position);
    void timer_down(size_t position);
    void timer_remove(netcon_timer *timer);

    const bool manual_;
    int opened_ = 0;
    netcon::Fd epoll_;
    netcon::Fd posted_event_;
    uint64_t now_ = 0;
    std::vector<Watch> watches_; /* by descriptor */
    std::vector<netcon_timer *> timers_;
    size_t timer_count_ = 0; /* armed or not */
    uint64_t timer_order_ = 0;
    std::vector<Task> deferred_;
    std::vector<Task> deferred_now_;
    bool precise_wait_ = true; /* epoll_pwait2 exists */

    std::mutex mutex_; /* guards what follows */
    std::condition_variable called_or_stopped_;
    State state_ = State::made;
    std::vector<Task> posted_;
    std::vector<Task> posted_now_; /* reactor thread's own */
    std::thread thread_;
    std::thread::id thread_id_; /* beside thread_, which is join's during a stop */
    netcon_reactor_api api_;
    netcon::Counted<&netcon::LiveObjects::reactors> counted_;
};
