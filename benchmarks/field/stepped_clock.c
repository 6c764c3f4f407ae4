// The clock of the wall, moved: preloaded into a process, it adds to the Unix time the seconds that the file
// $STEPPED_CLOCK holds, at every look, as setting the clock of the machine would for all its processes. The boot time
// in /proc/stat, which the kernel reckons back from the wall, moves along. Clocks that nobody can set stay as they are.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile long *offset;

__attribute__((constructor)) static void attach(void) {
    const char *path = getenv("STEPPED_CLOCK");
    int file = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY) : -1;
    if (file < 0) return;
    void *page = mmap(NULL, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
    if (page != MAP_FAILED) offset = page;
    close(file);
}

static long step(void) { return offset ? *offset : 0; }

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += step();
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec precise;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &precise)) return -1;
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *result) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (result) *result = now.tv_sec;
    return now.tv_sec;
}

// /proc/stat with its boot time moved.
static int proc_stat(void) {
    char line[65536];
    int raw = (int)syscall(SYS_openat, AT_FDCWD, "/proc/stat", O_RDONLY | O_CLOEXEC);
    FILE *source = raw < 0 ? NULL : fdopen(raw, "r");
    int made = memfd_create("stat", MFD_CLOEXEC);
    while (source && fgets(line, sizeof line, source)) {
        long boot;
        if (sscanf(line, "btime %ld", &boot) == 1) snprintf(line, sizeof line, "btime %ld\n", boot + step());
        if (write(made, line, strlen(line)) < 0) break;
    }
    if (source) fclose(source);
    lseek(made, 0, SEEK_SET);
    return made;
}

#define OPEN(name)                                                                          \
    int name(const char *path, int flags, ...) {                                            \
        mode_t mode = 0;                                                                    \
        if (flags & (O_CREAT | O_TMPFILE)) {                                                \
            va_list more;                                                                   \
            va_start(more, flags);                                                          \
            mode = va_arg(more, mode_t);                                                    \
            va_end(more);                                                                   \
        }                                                                                   \
        if (!strcmp(path, "/proc/stat")) return proc_stat();                                \
        return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);                       \
    }

OPEN(open)
OPEN(open64)
