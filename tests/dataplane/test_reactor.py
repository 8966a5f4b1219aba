"""The reactor, as a native user sees it (include/netcon/reactor.h)."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import threading
import time

import pytest

from netcon.dataplane import reactor as dataplane

NEVER = 2**64 - 1

# ---- time ----


def test_manual_clock_is_what_turn_is_given_and_never_goes_back(host):
    reactor = host.reactor()
    user = host.user(reactor)
    reactor.turn(1000)
    assert user.now() == 1000
    reactor.turn(10)
    assert user.now() == 1000


def test_timers_run_by_deadline_then_by_order_of_setting(host):
    reactor = host.reactor()
    user = host.user(reactor)
    ran: list[str] = []
    timers = {name: user.timer(lambda name=name: ran.append(name)) for name in "abcde"}
    for name, deadline in zip("abcde", (30, 10, 20, 10, 99), strict=True):
        user.set_timer(timers[name], deadline)
    assert reactor.turn(9) == 10
    assert ran == []
    assert reactor.turn(30) == 99
    assert ran == ["b", "d", "c", "a"]
    user.free_timer(timers.pop("e"))
    assert reactor.turn(1000) is None
    assert len(ran) == 4
    for timer in timers.values():
        user.free_timer(timer)


def test_a_thousand_timers_set_and_reset_run_in_order(host):
    reactor = host.reactor()
    user = host.user(reactor)
    ran: list[int] = []
    timers = [user.timer(lambda i=i: ran.append(i)) for i in range(1000)]
    for i, timer in enumerate(timers):
        user.set_timer(timer, 1 + i * 7919 % 1000)
    for i in range(0, 1000, 3):
        user.set_timer(timers[i], NEVER)
    for i in range(0, 1000, 6):
        user.set_timer(timers[i], 2000 - i)
    reactor.turn(5000)
    armed = {i: (2000 - i if i % 6 == 0 else 1 + i * 7919 % 1000) for i in range(1000) if i % 3 or i % 6 == 0}
    assert ran == sorted(armed, key=lambda i: armed[i])
    for timer in timers:
        user.free_timer(timer)


def test_a_timer_disarms_itself_and_may_be_set_or_freed_in_its_own_callback(host):
    reactor = host.reactor()
    user = host.user(reactor)
    times: list[int] = []

    def tick() -> None:
        times.append(user.now())
        if len(times) < 3:
            user.set_timer(timer, user.now() + 10)
        else:
            user.free_timer(timer)

    timer = user.timer(tick)
    user.set_timer(timer, 10)
    deadline = reactor.turn(0)
    while deadline is not None:
        deadline = reactor.turn(deadline)
    assert times == [10, 20, 30]


def test_a_timer_that_is_always_due_starves_no_other(host):
    reactor = host.reactor()
    user = host.user(reactor)
    ran: list[str] = []

    def again() -> None:
        ran.append("again")
        user.set_timer(greedy, 0)

    greedy, modest = user.timer(again), user.timer(lambda: ran.append("modest"))
    user.set_timer(greedy, 5)
    user.set_timer(modest, 5)
    assert reactor.turn(5) == 5  # there is always more to do, and turn says so
    assert ran[:3] == ["again", "modest", "again"]
    user.free_timer(greedy)
    user.free_timer(modest)


def test_a_thread_runs_timers_at_their_time(host):
    user = host.user(host.reactor(manual=False))
    done = threading.Event()
    seen: dict[str, int] = {}

    def fire() -> None:
        seen["fired"] = user.now()
        user.free_timer(seen["timer"])
        done.set()

    def begin() -> None:
        seen["timer"] = user.timer(fire)
        seen["deadline"] = user.now() + 20_000
        user.set_timer(seen["timer"], seen["deadline"])

    assert user.call(begin) == 0
    assert done.wait(30)
    assert seen["fired"] >= seen["deadline"]


# ---- descriptors ----


def test_a_watched_descriptor_is_reported_until_unwatched(host):
    reactor = host.reactor()
    user = host.user(reactor)
    fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    seen: list[tuple[int, int]] = []

    def ready(fd: int, events: int) -> None:
        seen.append((fd, events))
        os.eventfd_read(fd)

    assert user.watch(fd, select.EPOLLIN, ready) == 0
    reactor.turn(0)
    assert seen == []
    os.eventfd_write(fd, 1)
    reactor.turn(0)
    assert seen == [(fd, select.EPOLLIN)]
    user.unwatch(fd)
    os.eventfd_write(fd, 1)
    reactor.turn(0)
    assert len(seen) == 1
    os.close(fd)


def test_rewatch_changes_events(host):
    reactor = host.reactor()
    user = host.user(reactor)
    fd = os.eventfd(1, os.EFD_CLOEXEC)
    seen: list[int] = []

    def ready(fd: int, events: int) -> None:
        seen.append(events)
        user.rewatch(fd, 0)

    user.watch(fd, select.EPOLLIN, ready)
    reactor.turn(0)
    assert seen == [select.EPOLLIN]
    assert user.rewatch(fd, select.EPOLLOUT) == 0
    reactor.turn(0)
    assert seen == [select.EPOLLIN, select.EPOLLOUT]
    user.unwatch(fd)
    os.close(fd)


def test_watching_twice_and_watching_nothing_are_errors(host):
    user = host.user(host.reactor())
    fd = os.eventfd(0, os.EFD_CLOEXEC)
    assert user.watch(fd, select.EPOLLIN, lambda *_: None) == 0
    assert user.watch(fd, select.EPOLLIN, lambda *_: None) == -17  # EEXIST
    user.unwatch(fd)
    os.close(fd)
    assert user.watch(fd, select.EPOLLIN, lambda *_: None) == -9  # EBADF
    assert user.rewatch(fd, select.EPOLLIN) == -2  # ENOENT
    assert user.watch(-1, select.EPOLLIN, lambda *_: None) == -9


def test_a_watch_removed_in_its_own_batch_does_not_fire(host):
    reactor = host.reactor()
    user = host.user(reactor)
    fds = [os.eventfd(1, os.EFD_CLOEXEC) for _ in range(4)]
    seen: list[int] = []

    def ready(fd: int, _: int) -> None:
        seen.append(fd)
        for other in fds:
            user.unwatch(other)

    for fd in fds:
        user.watch(fd, select.EPOLLIN, ready)
    reactor.turn(0)
    assert len(seen) == 1
    for fd in fds:
        os.close(fd)


def test_no_stale_event_for_a_descriptor_number_used_again_in_the_same_batch(host):
    reactor = host.reactor()
    user = host.user(reactor)
    fds = [os.eventfd(1, os.EFD_CLOEXEC) for _ in range(4)]
    seen: list[str] = []

    def first(fd: int, _: int) -> None:
        seen.append("old")
        for other in fds:
            user.unwatch(other)
            if other != fd:  # a new descriptor, not ready, under the old number, with a new watch
                fresh = os.eventfd(0, os.EFD_CLOEXEC)
                os.dup2(fresh, other, inheritable=False)
                os.close(fresh)
                assert user.watch(other, select.EPOLLIN, lambda *_: seen.append("new")) == 0

    for fd in fds:
        user.watch(fd, select.EPOLLIN, first)
    reactor.turn(0)
    assert seen == ["old"]
    for fd in fds:
        user.unwatch(fd)
        os.close(fd)


# ---- tasks ----


def test_deferred_tasks_run_after_all_else_of_the_batch(host):
    reactor = host.reactor()
    user = host.user(reactor)
    ran: list[str] = []
    timer = user.timer(lambda: ran.append("timer"))
    user.set_timer(timer, 1)

    def deferred() -> None:
        ran.append("deferred")
        user.defer(lambda: ran.append("next batch"))

    user.post(lambda: (ran.append("posted"), user.defer(deferred)))
    reactor.turn(1)
    assert ran == ["posted", "timer", "deferred", "next batch"]
    user.free_timer(timer)


def test_posts_from_many_threads_all_run_each_threads_in_order_on_one_thread(host):
    user = host.user(host.reactor(manual=False))
    ran: list[tuple[int, int]] = []
    on: set[int] = set()

    def poster(thread: int) -> None:
        for i in range(200):
            assert user.post(lambda i=i: (ran.append((thread, i)), on.add(threading.get_native_id()))) == 0

    threads = [threading.Thread(target=poster, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    user.call(lambda: None)  # in order: it comes after all
    assert len(ran) == 8 * 200
    for n in range(8):
        assert [i for thread, i in ran if thread == n] == list(range(200))
    assert len(on) == 1
    assert on != {threading.get_native_id()}


def test_call_waits_and_runs_at_once_on_the_reactor_thread_and_in_manual_mode(host):
    user = host.user(host.reactor(manual=False))
    ran: list[str] = []
    user.call(lambda: (user.call(lambda: ran.append("inner")), ran.append("outer")))
    assert ran == ["inner", "outer"]
    manual = host.user(host.reactor())
    manual.call(lambda: ran.append("manual"))
    assert ran[-1] == "manual"


def test_the_thread_has_a_name_and_blocks_signals(host):
    user = host.user(host.reactor(manual=False))
    status: list[str] = []

    def look() -> None:
        with open(f"/proc/self/task/{threading.get_native_id()}/status") as file:
            status.extend(file.read().splitlines())

    user.call(look)
    fields = dict(line.split(":\t", 1) for line in status if ":\t" in line)
    assert fields["Name"] == "netcon-reactor"
    blocked = int(fields["SigBlk"], 16)
    for signal_number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
        assert blocked >> (signal_number - 1) & 1


# ---- life ----


def test_stop_runs_what_was_posted_then_refuses(host):
    reactor = host.reactor(manual=False)
    user = host.user(reactor)
    ran: list[int] = []
    gate = threading.Event()
    user.post(lambda: gate.wait(30))
    for i in range(100):
        user.post(lambda i=i: ran.append(i))
    gate.set()
    reactor.stop()
    assert ran == list(range(100))
    assert user.post(lambda: None) == -108  # ESHUTDOWN
    assert user.call(lambda: None) == -108
    reactor.stop()


def test_stop_is_safe_while_watches_and_timers_are_registered(host):
    reactor = host.reactor(manual=False)
    user = host.user(reactor)
    fd = os.eventfd(1, os.EFD_CLOEXEC)  # always readable: the thread is busy with it
    fired = threading.Event()
    timers: list[int] = []
    user.call(lambda: user.watch(fd, select.EPOLLIN, lambda *_: fired.set()))
    user.call(lambda: timers.append(user.timer(lambda: None)))
    user.call(lambda: user.set_timer(timers[0], user.now() + 3_600_000_000))
    assert fired.wait(30)
    reactor.stop()
    fired.clear()
    user.unwatch(fd)
    user.free_timer(timers[0])
    os.close(fd)
    assert not fired.is_set()


def test_start_is_refused_in_manual_mode_when_running_and_after_stop(host):
    with pytest.raises(RuntimeError, match="turn"):
        host.reactor().start()
    reactor = host.reactor(manual=False)
    with pytest.raises(RuntimeError, match="already"):
        reactor.start()
    with pytest.raises(RuntimeError, match="thread"):
        reactor.turn(0)
    reactor.stop()
    with pytest.raises(RuntimeError, match="make a new one"):
        reactor.start()
    with pytest.raises(RuntimeError, match="make a new one"):
        reactor.bind_udp("127.0.0.1", 0)


def test_made_started_and_stopped_fifty_times_leaves_nothing(host):
    before, threads = len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))
    for _ in range(50):
        reactor = dataplane.Reactor()
        reactor.start()
        reactor.bind_udp("127.0.0.1", 0)
        reactor.stop()
        del reactor
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(os.listdir("/proc/self/task")) == threads
    assert set(dataplane.live_objects().values()) == {0}


def test_a_capsule_keeps_the_reactor_alive(host):
    reactor = dataplane.Reactor(manual=True)
    capsule = reactor.capsule()
    del reactor
    assert dataplane.live_objects()["reactors"] == 1
    del capsule
    assert dataplane.live_objects()["reactors"] == 0


def test_descriptors_are_close_on_exec(host):
    before = set(os.listdir("/proc/self/fd"))
    reactor = host.reactor(manual=False)
    reactor.bind_udp("127.0.0.1", 0)
    for fd in set(os.listdir("/proc/self/fd")) - before:
        if os.path.exists(f"/proc/self/fd/{fd}"):
            assert not os.get_inheritable(int(fd))


def test_an_idle_reactor_does_not_wake_up(host):
    reactor = host.reactor(manual=False)
    reactor.bind_udp("127.0.0.1", 0)
    user = host.user(reactor)
    threads: list[int] = []
    user.call(lambda: threads.append(threading.get_native_id()))

    def switches() -> str:
        with open(f"/proc/self/task/{threads[0]}/status") as file:
            return next(line for line in file if line.startswith("voluntary"))

    def quiet_interval() -> bool:
        before = reactor.stats()["wakeups"], switches()
        time.sleep(0.3)  # the interval that is measured
        return (reactor.stats()["wakeups"], switches()) == before

    # The first may begin before the thread has gone back to sleep.
    assert quiet_interval() or quiet_interval()


# ---- ABI ----


def test_an_ethernet_end_of_another_abi_is_an_import_error(host):
    class End(ctypes.Structure):
        _fields_ = (("abi_version", ctypes.c_uint32), ("size", ctypes.c_uint32), ("rest", ctypes.c_void_p * 4))

    make = ctypes.pythonapi.PyCapsule_New
    make.restype = ctypes.py_object
    make.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    reactor = host.reactor()
    ours = dataplane.MemoryEnd(reactor).capsule()
    for version, size in ((2, ctypes.sizeof(End)), (1, 8)):
        foreign = End(version, size)
        with pytest.raises(ImportError, match="ABI"):
            dataplane.connect(reactor, ours, make(ctypes.addressof(foreign), b"netcon.ethernet_end", None))
    with pytest.raises(ValueError):
        dataplane.connect(reactor, ours, reactor.capsule())
