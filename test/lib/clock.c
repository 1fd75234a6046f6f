/*
 * clock.c: a clock that runs faster, for a server that is started with this library
 * in LD_PRELOAD and TEST_CLOCK="BASE FACTOR" in its environment: at BASE
 * (seconds since 1970) it shows the real time, and FACTOR seconds pass in one from then on.
 * Only the time of day; waits and the monotonic clock are as they are.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long long base; /* nanoseconds */
static long long factor = 1;

__attribute__((constructor)) static void
read_clock_setting(void)
{
	const char *setting = getenv("TEST_CLOCK");
	char       *rest;

	if (setting == NULL)
		return;
	base = strtoll(setting, &rest, 10) * 1000000000LL;
	factor = strtoll(rest, NULL, 10);
}

int
clock_gettime(clockid_t clock, struct timespec *time)
{
	long long now;

	if (syscall(SYS_clock_gettime, clock, time) != 0)
		return -1;
	if (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE)
		return 0;
	now = time->tv_sec * 1000000000LL + time->tv_nsec;
	now = base + (now - base) * factor;
	time->tv_sec = now / 1000000000LL;
	time->tv_nsec = now % 1000000000LL;
	return 0;
}

int
gettimeofday(struct timeval *time, void *zone)
{
	struct timespec now;

	(void) zone;
	if (clock_gettime(CLOCK_REALTIME, &now) != 0)
		return -1;
	time->tv_sec = now.tv_sec;
	time->tv_usec = now.tv_nsec / 1000;
	return 0;
}

time_t
time(time_t *at)
{
	struct timespec now;

	if (clock_gettime(CLOCK_REALTIME, &now) != 0)
		return (time_t) -1;
	if (at != NULL)
		*at = now.tv_sec;
	return now.tv_sec;
}
