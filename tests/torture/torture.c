/* torture.c: performs a script of socket and process operations, and says what each of them observed.
 *
 *   torture run SCRIPT SHARED EXPECTED ADDRESS
 *
 * A script is lines `AFTER ACTOR NAME ARGUMENT...`, made by model.py. An actor is a process or a thread; actor 0 is this process,
 * others come and go by operations (fork, vfork, spawn, thread; end and reap). Each performs its own lines in order, and each line
 * when AFTER lines have ended altogether: the script is one order for all, with lines of the same AFTER at the same time. What is
 * waited on is a word in a shared file, so that no descriptor, and no socket, is needed for it.
 *
 * Sockets are named by slots, of which each process has a table; ports are known to all. Standard output gets one line
 * `NUMBER TEXT` for each line that was performed, whose text has no port, no process id and no time: it must be the same on kernel
 * sockets and on ours. EXPECTED ("-": none) is such an output of a run before. What only looks is repeated until it is as
 * expected, for a while: networks take time, and the text is what they come to.
 */
#include "torture.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LINES 16384
#define FUTEX_WAIT 0 /* linux/futex.h, which musl-gcc does not see */
#define FUTEX_WAKE 1

struct shared *shared;
int fds[SLOTS];
bool loose;
sa_family_t family;
const char *own_path, *own_address;

static struct line *lines;
static int line_count;
static char **wanted; /* by number of line */
static char *arguments[6];
static pid_t children[ACTORS];
static pthread_t threads[ACTORS];
static bool is_thread[ACTORS];

int64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000ll + now.tv_nsec / 1000000;
}

void say(char *text, const char *format, ...) {
    size_t used = strlen(text);
    va_list list;
    va_start(list, format);
    vsnprintf(text + used, TEXT - used, format, list);
    va_end(list);
}

const char *expected(const struct line *line) { return wanted ? wanted[line->number] : NULL; }

void settle(const struct line *line, char *text, void (*look)(const struct line *, char *)) {
    int64_t end = now_ms() + PATIENCE_MS;
    for (;;) {
        *text = 0;
        look(line, text);
        if (!expected(line) || strcmp(text, expected(line)) == 0 || now_ms() > end) return;
        usleep(500);
    }
}

static void put(const struct line *line, const char *text) {
    char out[TEXT + 32];
    int length = snprintf(out, sizeof out, "%d %s\n", line->number, text);
    if (write(1, out, (size_t)length) != length) _exit(8);
}

static long futex(int operation, uint32_t value, const struct timespec *limit) {
    return syscall(SYS_futex, &shared->finished, operation, value, limit, NULL, 0);
}

static void finish(void) {
    atomic_fetch_add(&shared->finished, 1);
    futex(FUTEX_WAKE, INT32_MAX, NULL);
}

static void wait_for(const struct line *line) {
    int64_t end = now_ms() + STUCK_MS;
    uint32_t finished;
    while ((finished = atomic_load(&shared->finished)) < (uint32_t)line->after) {
        struct timespec second = {1, 0};
        futex(FUTEX_WAIT, finished, &second);
        if (now_ms() < end) continue;
        put(line, "stuck");
        kill(0, SIGKILL);
    }
}

static void run_actor(int actor, int from);

/* ---- processes and threads ---- */

/* The command line of a process that goes on as `actor` with the line behind `number`; slots travel as SLOT:DESCRIPTOR. */
struct command {
    char *words[16];
    char numbers[2][16], table[SLOTS * 10];
};

static void make_command(struct command *command, const char *mode, int actor, int number) {
    int n = 0;
    command->words[n++] = (char *)own_path;
    command->words[n++] = (char *)mode;
    for (int i = 0; i < 4; i++)
        command->words[n++] = arguments[i];
    snprintf(command->numbers[0], sizeof command->numbers[0], "%d", actor);
    snprintf(command->numbers[1], sizeof command->numbers[1], "%d", number);
    command->words[n++] = command->numbers[0];
    command->words[n++] = command->numbers[1];
    char *at = command->table;
    *at = 0;
    for (int slot = 0; slot < SLOTS; slot++)
        if (fds[slot] >= 0) at += sprintf(at, "%d:%d,", slot, fds[slot]);
    command->words[n++] = command->table;
    command->words[n] = NULL;
}

static void *thread_main(void *argument) {
    struct line *line = argument;
    run_actor((int)line->a[0], line->number + 1);
    return NULL;
}

extern char **environ;

static void start(struct line *line, char *text) {
    int actor = (int)line->a[0];
    pid_t pid = -1;
    struct command command;
    storm_pause(true);
    if (strcmp(line->name, "thread") == 0) {
        int error = pthread_create(&threads[actor], NULL, thread_main, line);
        is_thread[actor] = true;
        storm_pause(false);
        say(text, "%d", error);
        return;
    }
    if (strcmp(line->name, "fork") == 0) {
        pid = fork();
        if (pid == 0) {
            storm_forget();
            storm_pause(false);
            run_actor(actor, line->number + 1);
        }
    } else {
        make_command(&command, "spawned", actor, line->number);
        char *empty[] = {NULL}, **environment = line->a[1] & 1 ? empty : environ;
        if (strcmp(line->name, "vfork") == 0) {
            pid = vfork();
            if (pid == 0) {
                execve(own_path, command.words, environment);
                _exit(9);
            }
        } else {
            int error = (line->a[1] & 2 ? posix_spawnp : posix_spawn)(&pid, own_path, NULL, NULL, command.words, environment);
            if (error) errno = error, pid = -1;
        }
    }
    storm_pause(false);
    children[actor] = pid;
    if (pid < 0)
        say(text, "error %d", errno);
    else
        say(text, "started");
}

/* What of the slots' descriptors came over an exec. */
static void survivors(char *text) {
    for (int slot = 0; slot < SLOTS; slot++)
        if (fds[slot] >= 0) {
            if (fcntl(fds[slot], F_GETFD) < 0)
                fds[slot] = -1;
            else
                say(text, "%d ", slot);
        }
}

static void execute(const struct line *line, char *text) {
    struct command command;
    make_command(&command, "executed", line->actor, line->number);
    char *empty[] = {NULL}, **environment = line->a[0] & 1 ? empty : environ;
    int file;
    switch (line->a[1]) {
    case 0:
        execve(own_path, command.words, environment);
        break;
    case 1:
        execv(own_path, command.words);
        break;
    case 2:
        execvpe(own_path, command.words, environment);
        break;
    default:
        file = open(own_path, O_RDONLY | O_CLOEXEC);
        fexecve(file, command.words, environment);
    }
    say(text, "error %d", errno);
}

static void reap(const struct line *line, char *text) {
    int actor = (int)line->a[0], status;
    if (is_thread[actor]) {
        say(text, "joined %d", pthread_join(threads[actor], NULL));
        is_thread[actor] = false;
        return;
    }
    pid_t pid;
    if (strcmp(line->name, "kill") == 0) kill(children[actor], SIGKILL);
    do
        pid = waitpid(children[actor], &status, 0);
    while (pid < 0 && errno == EINTR);
    if (pid < 0)
        say(text, "error %d", errno);
    else
        say(text, WIFEXITED(status) ? "exit %d" : "signal %d", WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
}

static void limit(const struct line *line, char *text) {
    struct rlimit now;
    getrlimit(RLIMIT_NOFILE, &now);
    now.rlim_cur = (rlim_t)line->a[0];
    if (now.rlim_max < now.rlim_cur) now.rlim_max = now.rlim_cur;
    say(text, "%d", setrlimit(RLIMIT_NOFILE, &now));
}

/* Until SIGUSR2, of which another line of output tells that it is waited for. */
static void await_signal(const struct line *line, char *text) {
    sigset_t set;
    int number;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    sigprocmask(SIG_BLOCK, &set, NULL);
    put(line, "waiting");
    sigwait(&set, &number);
    say(text, "went on");
}

static bool perform_process(struct line *line, char *text) {
    const char *name = line->name;
    if (strcmp(name, "fork") == 0 || strcmp(name, "vfork") == 0 || strcmp(name, "spawn") == 0 || strcmp(name, "thread") == 0)
        start(line, text);
    else if (strcmp(name, "exec") == 0)
        execute(line, text);
    else if (strcmp(name, "reap") == 0 || strcmp(name, "kill") == 0)
        reap(line, text);
    else if (strcmp(name, "survivors") == 0)
        survivors(text);
    else if (strcmp(name, "limit") == 0)
        limit(line, text);
    else if (strcmp(name, "loose") == 0)
        loose = true;
    else if (strcmp(name, "pause") == 0)
        await_signal(line, text);
    else if (strcmp(name, "storm") == 0)
        line->a[0] ? storm_begin(line->a[1], text) : storm_end(text);
    else
        return false;
    return true;
}

static void run_actor(int actor, int from) {
    for (int i = from; i < line_count; i++) {
        struct line *line = &lines[i];
        char text[TEXT] = "";
        if (line->actor != actor) continue;
        wait_for(line);
        if (strcmp(line->name, "end") == 0) {
            bool thread = line->a[0];
            put(line, "");
            finish();
            if (thread) return;
            _exit(0);
        }
        if (!perform_process(line, text) && !perform_call(line, text) && !perform_crowd(line, text)) {
            fprintf(stderr, "torture: what is %s?\n", line->name);
            _exit(6);
        }
        put(line, text);
        /* The others of this script would only wait for what cannot come any more. */
        if (expected(line) && strcmp(text, expected(line)) != 0) kill(0, SIGKILL);
        finish();
    }
    for (;;) /* no line ends this actor: somebody kills it */
        pause();
}

/* ---- reading ---- */

static char *read_file(const char *path) {
    int file = open(path, O_RDONLY | O_CLOEXEC);
    off_t size = file < 0 ? -1 : lseek(file, 0, SEEK_END);
    char *text = malloc((size_t)size + 1);
    if (size < 0 || pread(file, text, (size_t)size, 0) != size) {
        perror(path);
        _exit(5);
    }
    text[size] = 0;
    close(file);
    return text;
}

static void read_script(const char *path) {
    char *save = NULL, *text = read_file(path);
    lines = calloc(LINES, sizeof *lines);
    for (char *row = strtok_r(text, "\n", &save); row && line_count < LINES; row = strtok_r(NULL, "\n", &save)) {
        struct line *line = &lines[line_count];
        int used = 0;
        line->number = line_count++;
        if (sscanf(row, "%d %d %19s%n", &line->after, &line->actor, line->name, &used) != 3) _exit(5);
        char *at = row + used, *end;
        for (long value = strtol(at, &end, 10); end != at && line->count < ARGUMENTS; value = strtol(at, &end, 10)) {
            line->a[line->count++] = value;
            at = end;
        }
    }
    free(text);
}

static void read_expected(const char *path) {
    if (strcmp(path, "-") == 0) return;
    char *save = NULL, *text = read_file(path);
    wanted = calloc(LINES, sizeof *wanted);
    for (char *row = strtok_r(text, "\n", &save); row; row = strtok_r(NULL, "\n", &save)) {
        char *rest;
        long number = strtol(row, &rest, 10);
        if (number >= 0 && number < LINES && *rest == ' ') wanted[number] = rest + 1;
    }
}

int main(int count, char **words) {
    if (count < 6 || (count < 9 && strcmp(words[1], "run") != 0)) return 5;
    own_path = words[0];
    for (int i = 0; i < 4; i++)
        arguments[i] = words[2 + i];
    signal(SIGPIPE, SIG_IGN);
    read_script(arguments[0]);
    int file = open(arguments[1], O_RDWR | O_CLOEXEC);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (shared == MAP_FAILED) return 5;
    close(file);
    read_expected(arguments[2]);
    family = strchr(arguments[3], ':') ? AF_INET6 : AF_INET;
    own_address = arguments[3];
    memset(fds, -1, sizeof fds);
    if (strcmp(words[1], "run") == 0) run_actor(0, 0);
    int number = atoi(words[7]), used;
    for (const char *at = words[8]; *at; at += used) {
        int slot, fd;
        if (sscanf(at, "%d:%d,%n", &slot, &fd, &used) != 2) return 5;
        fds[slot] = fd;
    }
    if (strcmp(words[1], "executed") == 0) {
        put(&lines[number], "executed");
        finish();
    }
    run_actor(atoi(words[6]), number + 1);
}
