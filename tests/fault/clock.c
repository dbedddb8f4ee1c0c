/* A machine's wall clock, for its processes: LD_PRELOAD, and in FAULT_CLOCK a file with how far it is ahead, 8 bytes, in ns.
 *
 * The monotonic clock, sleeps and the times of files stay as they are. libfaketime would do, but that of Debian 12 makes
 * clock_nanosleep fail, and with it Python's time.sleep. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL

static volatile int64_t *ahead_ns;
static int (*real)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("FAULT_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *found = mmap(NULL, sizeof *ahead_ns, PROT_READ, MAP_SHARED, file, 0);
    if (found != MAP_FAILED)
        ahead_ns = found;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *at)
{
    if (!real)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, at);
    if (failed || !ahead_ns || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE))
        return failed;
    int64_t now = at->tv_sec * SECOND + at->tv_nsec + *ahead_ns;
    at->tv_sec = now / SECOND;
    at->tv_nsec = now % SECOND;
    return 0;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone)
{
    struct timespec now;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &now))
        return -1;
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at)
{
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME_COARSE, &now))
        return -1;
    if (at)
        *at = now.tv_sec;
    return now.tv_sec;
}
