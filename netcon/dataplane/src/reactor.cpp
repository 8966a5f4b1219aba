/* reactor.cpp: the event loop; its theory of operation is in reactor.hpp. */
#include "reactor.hpp"

#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <new>
#include <system_error>

namespace {

uint64_t monotonic_us() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1'000'000 + static_cast<uint64_t>(now.tv_nsec) / 1'000;
}

} // namespace

netcon_reactor::netcon_reactor(bool manual)
    : manual_(manual), epoll_(epoll_create1(EPOLL_CLOEXEC)), posted_event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      now_(manual ? 0 : monotonic_us()) {
    using R = netcon_reactor;
    api_ = {
        .abi_version = NETCON_REACTOR_ABI,
        .size = sizeof(netcon_reactor_api),
        .reactor = this,
        .now_us = [](R *r) { return r->now(); },
        .watch = [](R *r, int fd, uint32_t events, netcon_fd_fn fn, void *context) { return r->watch(fd, events, fn, context); },
        .rewatch = [](R *r, int fd, uint32_t events) { return r->rewatch(fd, events); },
        .unwatch = [](R *r, int fd) { r->unwatch(fd); },
        .timer_new = [](R *r, netcon_task_fn fn, void *context) { return r->timer_new(fn, context); },
        .timer_set = [](netcon_timer *t, uint64_t deadline_us) { t->reactor->timer_set(t, deadline_us); },
        .timer_free = [](netcon_timer *t) { t->reactor->timer_free(t); },
        .defer = [](R *r, netcon_task_fn fn, void *context) { r->defer(fn, context); },
        .post = [](R *r, netcon_task_fn fn, void *context) { return r->post(fn, context); },
        .call = [](R *r, netcon_task_fn fn, void *context) { return r->call(fn, context); },
    };
    if (!epoll_ || !posted_event_) {
        opened_ = -errno;
        return;
    }
    epoll_event event{.events = EPOLLIN, .data = {.u64 = UINT64_MAX}};
    if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, posted_event_.get(), &event) < 0) opened_ = -errno;
}

netcon_reactor::~netcon_reactor() {
    stop();
    for (Watch &watch : watches_)
        if (watch.fn) --netcon::live.watches;
}

/* ---- life ---- */

int netcon_reactor::start() {
    if (manual_) return -EINVAL;
    std::lock_guard lock(mutex_);
    if (state_ == State::running) return -EALREADY;
    if (state_ != State::made) return -ESHUTDOWN;
    /* Signals are for Python's main thread. The mask is inherited. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int result = 0;
    try {
        thread_ = std::thread(&netcon_reactor::run, this);
        thread_id_ = thread_.get_id();
        pthread_setname_np(thread_.native_handle(), "netcon-reactor");
        state_ = State::running;
    } catch (const std::system_error &) {
        result = -EAGAIN;
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return result;
}

void netcon_reactor::stop() {
    {
        std::unique_lock lock(mutex_);
        if (state_ == State::stopping) called_or_stopped_.wait(lock, [this] { return state_ == State::stopped; });
        if (state_ == State::stopped) return;
        state_ = State::stopping;
    }
    if (thread_.joinable()) {
        eventfd_write(posted_event_.get(), 1);
        thread_.join();
    } else {
        finish();
    }
    std::lock_guard lock(mutex_);
    state_ = State::stopped;
    thread_id_ = {};
    called_or_stopped_.notify_all();
}

void netcon_reactor::run() {
    for (;;) {
        {
            std::lock_guard lock(mutex_);
            if (state_ == State::stopping) break;
        }
        batch(time_to_wait());
    }
    finish();
}

/* finish: nothing is accepted any more; run what was. */
void netcon_reactor::finish() {
    run_posted();
    for (int rounds = 0; rounds < turn_batches_max && run_deferred(); ++rounds)
        continue;
}

uint64_t netcon_reactor::turn(uint64_t now_us) {
    now_ = std::max(now_, now_us);
    for (int count = 0; count < turn_batches_max; ++count)
        if (!batch(0)) return timers_.empty() ? NETCON_NEVER : timers_.front()->deadline;
    return now_;
}

/* ---- a batch ---- */

std::optional<uint64_t> netcon_reactor::time_to_wait() const {
    if (!deferred_.empty()) return 0;
    if (timers_.empty()) return std::nullopt;
    uint64_t now = monotonic_us(), deadline = timers_.front()->deadline;
    return deadline > now ? deadline - now : 0;
}

/* wait: epoll_pwait2 counts in nanoseconds; where it is missing or forbidden, milliseconds, rounded up. */
int netcon_reactor::wait(epoll_event *events, std::optional<uint64_t> timeout_us) {
    if (precise_wait_ && timeout_us && *timeout_us) {
        timespec timeout{static_cast<time_t>(*timeout_us / 1'000'000), static_cast<long>(*timeout_us % 1'000'000 * 1'000)};
        int count = epoll_pwait2(epoll_.get(), events, events_max, &timeout, nullptr);
        if (count >= 0 || (errno != ENOSYS && errno != EPERM)) return count;
        precise_wait_ = false;
    }
    int timeout_ms = timeout_us ? static_cast<int>(std::min<uint64_t>((*timeout_us + 999) / 1'000, INT32_MAX)) : -1;
    return epoll_wait(epoll_.get(), events, events_max, timeout_ms);
}

/* batch: returns whether it found anything to do. */
bool netcon_reactor::batch(std::optional<uint64_t> timeout_us) {
    epoll_event events[events_max];
    int count = std::max(wait(events, timeout_us), 0); /* an error is EINTR: a debugger's signal, nothing else gets here */
    batches.fetch_add(1, std::memory_order_relaxed);
    if (timeout_us != 0) wakeups.fetch_add(1, std::memory_order_relaxed);
    if (!manual_) now_ = monotonic_us();

    for (int i = 0; i < count; ++i) {
        uint64_t name = events[i].data.u64;
        if (name == UINT64_MAX) {
            eventfd_t value;
            eventfd_read(posted_event_.get(), &value);
            run_posted();
            continue;
        }
        int fd = static_cast<int>(name & UINT32_MAX);
        Watch watch = watches_[fd]; /* a copy: the call may grow the table */
        if (watch.fn && watch.generation == name >> 32) watch.fn(watch.context, fd, events[i].events);
    }
    bool timed = run_timers();
    bool deferred = run_deferred();
    return count > 0 || timed || deferred;
}

bool netcon_reactor::run_timers() {
    uint64_t end = timer_order_;
    bool any = false;
    while (!timers_.empty()) {
        netcon_timer *timer = timers_.front();
        if (timer->deadline > now_ || timer->order >= end) break;
        timer_remove(timer);
        timer->fn(timer->context); /* may free it */
        any = true;
    }
    return any;
}

bool netcon_reactor::run_deferred() {
    deferred_now_.swap(deferred_);
    for (Task &task : deferred_now_)
        task.fn(task.context);
    bool any = !deferred_now_.empty();
    deferred_now_.clear();
    return any;
}

void netcon_reactor::run_posted() {
    {
        std::lock_guard lock(mutex_);
        posted_now_.swap(posted_);
    }
    for (Task &task : posted_now_)
        task.fn(task.context);
    posted_now_.clear();
}

/* ---- descriptors ---- */

int netcon_reactor::control(int operation, int fd, uint32_t events) {
    epoll_event event{.events = events, .data = {.u64 = uint64_t{watches_[fd].generation} << 32 | static_cast<uint32_t>(fd)}};
    return epoll_ctl(epoll_.get(), operation, fd, &event) < 0 ? -errno : 0;
}

int netcon_reactor::watch(int fd, uint32_t events, netcon_fd_fn fn, void *context) {
    if (fd < 0) return -EBADF;
    try {
        if (static_cast<size_t>(fd) >= watches_.size()) watches_.resize(fd + 1);
    } catch (const std::bad_alloc &) {
        return -ENOMEM;
    }
    Watch &watch = watches_[fd];
    if (watch.fn) return -EEXIST;
    ++watch.generation;
    if (int result = control(EPOLL_CTL_ADD, fd, events); result < 0) return result;
    watch.fn = fn;
    watch.context = context;
    ++netcon::live.watches;
    return 0;
}

int netcon_reactor::rewatch(int fd, uint32_t events) {
    if (fd < 0 || static_cast<size_t>(fd) >= watches_.size() || !watches_[fd].fn) return -ENOENT;
    return control(EPOLL_CTL_MOD, fd, events);
}

void netcon_reactor::unwatch(int fd) {
    if (fd < 0 || static_cast<size_t>(fd) >= watches_.size() || !watches_[fd].fn) return;
    control(EPOLL_CTL_DEL, fd, 0);
    watches_[fd].fn = nullptr;
    --netcon::live.watches;
}

/* ---- timers: a binary heap whose members know their position ---- */

bool netcon_reactor::timer_before(const netcon_timer *a, const netcon_timer *b) const {
    return a->deadline != b->deadline ? a->deadline < b->deadline : a->order < b->order;
}

void netcon_reactor::timer_place(size_t position, netcon_timer *timer) {
    timers_[position] = timer;
    timer->position = position;
}

void netcon_reactor::timer_up(size_t position) {
    netcon_timer *timer = timers_[position];
    for (; position > 0; position = (position - 1) / 2) {
        netcon_timer *parent = timers_[(position - 1) / 2];
        if (!timer_before(timer, parent)) break;
        timer_place(position, parent);
    }
    timer_place(position, timer);
}

void netcon_reactor::timer_down(size_t position) {
    netcon_timer *timer = timers_[position];
    for (size_t child; (child = 2 * position + 1) < timers_.size(); position = child) {
        if (child + 1 < timers_.size() && timer_before(timers_[child + 1], timers_[child])) ++child;
        if (!timer_before(timers_[child], timer)) break;
        timer_place(position, timers_[child]);
    }
    timer_place(position, timer);
}

void netcon_reactor::timer_remove(netcon_timer *timer) {
    size_t position = timer->position;
    if (position == netcon_timer::unarmed) return;
    timer->position = netcon_timer::unarmed;
    netcon_timer *last = timers_.back();
    timers_.pop_back();
    if (last == timer) return;
    timer_place(position, last);
    timer_up(position);
    timer_down(last->position);
}

netcon_timer *netcon_reactor::timer_new(netcon_task_fn fn, void *context) {
    /* Room in the heap is made here, so that setting a timer cannot fail. */
    try {
        if (timers_.capacity() == timer_count_) timers_.reserve(std::max<size_t>(64, 2 * timer_count_));
    } catch (const std::bad_alloc &) {
        return nullptr;
    }
    netcon_timer *timer = new (std::nothrow) netcon_timer{this, fn, context, NETCON_NEVER, 0, netcon_timer::unarmed, {}};
    if (timer) ++timer_count_;
    return timer;
}

void netcon_reactor::timer_set(netcon_timer *timer, uint64_t deadline_us) {
    timer_remove(timer);
    timer->deadline = deadline_us == NETCON_NEVER ? NETCON_NEVER : std::max(deadline_us, now_);
    if (deadline_us == NETCON_NEVER) return;
    timer->order = timer_order_++;
    timers_.push_back(timer);
    timer_up(timers_.size() - 1);
}

void netcon_reactor::timer_free(netcon_timer *timer) {
    if (!timer) return;
    timer_remove(timer);
    delete timer;
    --timer_count_;
}

/* ---- tasks from other threads ---- */

int netcon_reactor::post(netcon_task_fn fn, void *context) {
    bool first;
    {
        std::lock_guard lock(mutex_);
        if (state_ == State::stopping || state_ == State::stopped) return -ESHUTDOWN;
        first = posted_.empty();
        try {
            posted_.push_back({fn, context});
        } catch (const std::bad_alloc &) {
            return -ENOMEM;
        }
    }
    if (first) eventfd_write(posted_event_.get(), 1);
    return 0;
}

int netcon_reactor::call(netcon_task_fn fn, void *context) {
    struct Call {
        netcon_reactor *reactor;
        netcon_task_fn fn;
        void *context;
        bool done = false;
    } call{this, fn, context};
    {
        std::unique_lock lock(mutex_);
        if (std::this_thread::get_id() == thread_id_) {
            lock.unlock();
            fn(context);
            return 0;
        }
        if (state_ == State::stopping) called_or_stopped_.wait(lock, [this] { return state_ == State::stopped; });
        if (state_ == State::stopped) return -ESHUTDOWN;
        if (state_ == State::made) { /* no thread: manual, or not yet */
            lock.unlock();
            if (!manual_) now_ = monotonic_us();
            fn(context);
            return 0;
        }
    }
    auto run = [](void *self) {
        Call *call = static_cast<Call *>(self);
        call->fn(call->context);
        std::lock_guard lock(call->reactor->mutex_);
        call->done = true;
        call->reactor->called_or_stopped_.notify_all();
    };
    int result = post(run, &call);
    std::unique_lock lock(mutex_);
    if (result == 0) called_or_stopped_.wait(lock, [&call] { return call.done; });
    if (result == -ESHUTDOWN) called_or_stopped_.wait(lock, [this] { return state_ == State::stopped; });
    return result;
}
