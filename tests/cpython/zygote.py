"""Run classes of CPython's own tests, each in a process of its own: `zygote.py MODULE...`, by the Python whose tests they are.

Loads the modules once and opens no socket. The first line on standard output is what there is:
`[[MODULE, CLASS, [TEST, ...]], ...]`. For each line on standard input, `[MODULE, CLASS, [TEST, ...], SECONDS]`, it forks a child
that leads its own session and runs these tests in this order, and prints one line, `{TEST: [RESULT, TEXT]}`. RESULT is passed,
skipped, failed, hung (no test may take more than SECONDS) or died; TEXT is the reason, in one line. What a hang has kept from
running is run in another child.

Runs alone, without this package, with Debian's Python and its standard library only.
"""

import contextlib
import faulthandler
import importlib
import json
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import traceback
import unittest


class Reporter(unittest.TestResult):
    """Writes a line for each beginning, `[TEST]`, and each result, `[TEST, RESULT, TEXT]`. TEST is None: of the whole class."""

    def __init__(self, writer):
        super().__init__()
        self.writer = writer
        self.outcome = None

    def tell(self, *line):
        os.write(self.writer, json.dumps(line).encode() + b"\n")

    def startTest(self, test):
        super().startTest(test)
        self.outcome = ("passed", "")
        self.tell(name(test))

    def stopTest(self, test):
        super().stopTest(test)
        self.tell(name(test), *self.outcome)

    def bad(self, test, error, prefix=""):
        text = traceback.format_exception_only(*error[:2])[-1].strip().splitlines()[0]
        traceback.print_exception(*error)
        if not isinstance(test, unittest.TestCase):
            self.tell(None, "failed", text)  # setUpClass, setUpModule and their like
        elif self.outcome[0] != "failed":
            self.outcome = ("failed", prefix + text)

    def addError(self, test, error):
        self.bad(test, error)

    def addFailure(self, test, error):
        self.bad(test, error)

    def addSubTest(self, test, subtest, error):
        if error is not None:
            self.bad(test, error, subtest._subDescription() + ": ")

    def addSkip(self, test, reason):
        if isinstance(test, unittest.TestCase):
            if self.outcome[0] == "passed":
                self.outcome = ("skipped", reason)
        else:
            self.tell(None, "skipped", reason)

    def addUnexpectedSuccess(self, test):
        self.outcome = ("failed", "unexpected success")


def name(test):
    return test._testMethodName


def flatten(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from flatten(test)
        else:
            yield test


def load(modules):
    """{(module, class name): (class, [test, ...])}, in the order of the loader."""
    found = {}
    for module in modules:
        for test in flatten(unittest.defaultTestLoader.loadTestsFromModule(importlib.import_module(module))):
            kind = type(test)
            if kind.__module__ != module:
                continue  # a class that the module has imported, or a failure to load
            found.setdefault((module, kind.__name__), (kind, []))[1].append(name(test))
    return found


def child(writer, kind, tests, log):
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(nothing)
    faulthandler.enable(log, all_threads=True)
    random.seed()
    folder = tempfile.mkdtemp()
    os.chdir(folder)
    unittest.TestSuite([kind(test) for test in tests]).run(Reporter(writer))
    os.chdir("/")
    shutil.rmtree(folder, ignore_errors=True)


def where(log):
    """Where the threads of a process that has dumped them are: the innermost line of the tests' own, or of all."""
    os.lseek(log, 0, os.SEEK_SET)
    with open(os.dup(log), errors="replace") as file:
        lines = [line.strip() for line in file if line.startswith("  File ")]
    return (lines or ["nowhere"])[0]


def attempt(kind, tests, seconds, results):
    """Run `tests` in one child; what came out goes into `results`. Returns how it ended: done, hung or died."""
    reader, writer = os.pipe()
    with tempfile.TemporaryFile() as log:
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            child(writer, kind, tests, log.fileno())
            sys.stdout.flush()
            os._exit(0)
        os.close(writer)
        current, whole, pending, ended = None, None, b"", "done"
        while True:
            if not select.select([reader], [], [], seconds)[0]:
                ended = "hung"
                os.kill(pid, signal.SIGABRT)
                break
            chunk = os.read(reader, 65536)
            if not chunk:
                break
            *lines, pending = (pending + chunk).split(b"\n")
            for line in map(json.loads, lines):
                if line[0] is None:
                    whole = line[1:]
                elif len(line) == 1:
                    current = line[0]
                else:
                    results[line[0]] = line[1:]
                    current = None
            # Processes that the tests left behind may hold the pipe, too.
        os.close(reader)
        _, status = os.waitpid(pid, 0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        if ended == "done" and status != 0:
            ended = "died"
        if ended != "done":
            text = where(log.fileno()) if ended == "hung" else f"status {os.waitstatus_to_exitcode(status)}"
            results[current or tests[-1]] = [ended, text]
        elif whole:
            for test in tests:
                results.setdefault(test, whole)
        if "ZYGOTE_LOG" in os.environ:
            log.seek(0)
            with open(os.environ["ZYGOTE_LOG"], "ab") as copy:
                copy.write(log.read())
    return ended


def run(kind, tests, seconds):
    results = {}
    left = list(tests)
    while left:
        ended = attempt(kind, left, seconds, results)
        left = [test for test in left if test not in results]
        if ended == "done":
            break
    for test in left:
        results[test] = ["died", "no result"]
    return results


def main():
    from test import support

    os.chdir(tempfile.gettempdir())  # some tests look when they are loaded whether a socket can be bound here
    support.use_resources = ["network", "cpu"]
    support.verbose = 0
    found = load(sys.argv[1:])
    print(json.dumps([[module, kind, tests] for (module, kind), (_, tests) in found.items()]), flush=True)
    for line in sys.stdin:
        module, kind, tests, seconds = json.loads(line)
        print(json.dumps(run(found[module, kind][0], tests, seconds)), flush=True)


if __name__ == "__main__":
    main()
