/* Runs inside a box, linked with an answer in C: calls it once per test, each time in a fresh child.

   The host appends `assay_call` for the task's signature and compiles this file separately from the answer, so the
   answer's macros never touch it. Arguments come on standard input, records go to standard output in the form that
   driver_python.py documents. There is no expected value here.

   System calls are made directly: an answer may define its own `read` or `kill` without meaning harm. */

#include <signal.h>
#include <stddef.h>
#include <sys/poll.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>

enum { CUT_CPU = 1, CUT_WALL = 2, CUT_SIZE = 3, VALUE_BYTES = 64, TICK_MS = 10, READY = -2 };

static __int128 assay_call(const long long *at);

#if defined(__x86_64__)
static long call(long number, long a, long b, long c, long d, long e) {
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = 0;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}
#elif defined(__aarch64__)
static long call(long number, long a, long b, long c, long d, long e) {
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = 0;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                     : "memory");
    return x0;
}
#else
#error "no system calls for this machine"
#endif

static long long now_us(int clock) {
    struct timespec at = {0, 0};
    if (call(SYS_clock_gettime, clock, (long)&at, 0, 0, 0) != 0) return 0;
    return at.tv_sec * 1000000LL + at.tv_nsec / 1000;
}

static void write_all(int fd, const char *data, long size) {
    while (size > 0) {
        long done = call(SYS_write, fd, (long)data, size, 0, 0);
        if (done <= 0) call(SYS_exit_group, 1, 0, 0, 0, 0);
        data += done;
        size -= done;
    }
}

static char *put_number(char *to, __int128 value, int base, char after) {
    char digits[48];
    int count = 0;
    unsigned __int128 rest = value < 0 ? -(unsigned __int128)value : (unsigned __int128)value;
    if (value < 0) *to++ = '-';
    do digits[count++] = "0123456789abcdef"[rest % base]; while (rest /= base);
    while (count) *to++ = digits[--count];
    *to++ = after;
    return to;
}

static void record(long long index, long long status, long long cause, long long cpu_us, long long wall_us,
                   long long memory_kib, const char *data, long size) {
    char line[200], *to = line;
    to = put_number(to, index, 10, ' ');
    to = put_number(to, status, 10, ' ');
    to = put_number(to, cause, 10, ' ');
    to = put_number(to, cpu_us, 10, ' ');
    to = put_number(to, wall_us, 10, ' ');
    to = put_number(to, memory_kib, 10, ' ');
    to = put_number(to, size, 10, '\n');
    write_all(1, line, to - line);
    write_all(1, data, size);
}

static void child(const long long *at, int out, long long cpu_us) {
    char reply[VALUE_BYTES] = {'V', '[', '"', 'i', '"', ',', '"'}, *to = reply + 7;
    struct rlimit limit = {cpu_us / 1000000 + 1, cpu_us / 1000000 + 2};
    call(SYS_setsid, 0, 0, 0, 0, 0);
    call(SYS_prlimit64, 0, RLIMIT_CPU, (long)&limit, 0, 0);
    call(SYS_dup3, 2, 1, 0, 0, 0);
    to = put_number(to, assay_call(at), 16, '"');
    *to++ = ']';
    write_all(out, reply, to - reply);
    call(SYS_exit_group, 0, 0, 0, 0, 0);
}

static int watch(int pid, int in, long long cpu_us, long long wall_us, char *data, long *size) {
    long long deadline = now_us(CLOCK_MONOTONIC) + wall_us;
    int pidfd = (int)call(SYS_pidfd_open, pid, 0, 0, 0, 0), open = 1, cause = 0;
    while (!cause) {
        struct pollfd fds[2] = {{pidfd, POLLIN, 0}, {open ? in : -1, POLLIN, 0}};
        struct timespec tick = {0, TICK_MS * 1000000L};
        call(SYS_ppoll, (long)fds, 2, (long)&tick, 0, 0);
        if (fds[1].revents) {
            long got = call(SYS_read, in, (long)(data + *size), VALUE_BYTES - *size, 0, 0);
            if (got <= 0) open = 0;
            else if ((*size += got) == VALUE_BYTES) cause = CUT_SIZE;
        } else if (fds[0].revents) break;
        if (now_us((~pid << 3) | 2) > cpu_us) cause = CUT_CPU;
        else if (now_us(CLOCK_MONOTONIC) > deadline) cause = CUT_WALL;
    }
    call(SYS_close, pidfd, 0, 0, 0, 0);
    return cause;
}

static int run_test(int index, const long long *at, const long long *job) {
    int ends[2], status = 0, pid, cause;
    char data[VALUE_BYTES];
    long size = 0;
    struct rusage used;
    long long started = now_us(CLOCK_MONOTONIC), cpu_us;
    if (call(SYS_pipe2, (long)ends, 0, 0, 0, 0) != 0) call(SYS_exit_group, 1, 0, 0, 0, 0);
    pid = (int)call(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (pid < 0) call(SYS_exit_group, 1, 0, 0, 0, 0);
    if (pid == 0) {
        call(SYS_close, ends[0], 0, 0, 0, 0);
        child(at, ends[1], job[1]);
    }
    call(SYS_close, ends[1], 0, 0, 0, 0);
    cause = watch(pid, ends[0], job[1], job[2], data, &size);
    /* With a pid namespace of our own, -1 is everybody but us and the watcher. */
    call(SYS_kill, job[3] && call(SYS_getpid, 0, 0, 0, 0, 0) == 2 ? -1 : -pid, SIGKILL, 0, 0, 0);
    call(SYS_wait4, pid, (long)&status, 0, (long)&used, 0);
    call(SYS_close, ends[0], 0, 0, 0, 0);
    cpu_us = (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000LL + used.ru_utime.tv_usec + used.ru_stime.tv_usec;
    if (cpu_us > job[1] && !cause) cause = CUT_CPU;
    record(index, status, cause, cpu_us, now_us(CLOCK_MONOTONIC) - started, used.ru_maxrss, data, size);
    return cause;
}

/* Input, in 8-byte words: total words; cpu_us; wall_us; alone; stop on time-out; tests; per test its words, arguments. */
int main(void) {
    long long total = 0, done = 8;
    long long *job;
    if (call(SYS_read, 0, (long)&total, 8, 0, 0) != 8) return 1;
    /* 3 is PROT_READ | PROT_WRITE, 0x22 is MAP_PRIVATE | MAP_ANONYMOUS. */
    job = (long long *)call(SYS_mmap, 0, total * 8, 3, 0x22, -1);
    while (done < total * 8) {
        long got = call(SYS_read, 0, (long)((char *)job + done), total * 8 - done, 0, 0);
        if (got <= 0) return 1;
        done += got;
    }
    call(SYS_close, 0, 0, 0, 0, 0);
    call(SYS_openat, -100, (long)"/dev/null", 0, 0, 0);
    record(READY, 0, 0, 0, 0, 0, "", 0);
    const long long *at = job + 6;
    for (int index = 0; index < job[5]; index++) {
        long long words = *at++;
        int cause = run_test(index, at, job);
        if ((cause == CUT_CPU || cause == CUT_WALL) && job[4]) break;
        at += words;
    }
    call(SYS_exit_group, 0, 0, 0, 0, 0);
    return 0;
}
