/*
 * clock.c: another time of day, for a server that is started with this library in
 * LD_PRELOAD and TEST_CLOCK=FILE in its environment.
 *
 * The file holds a Clock.  At "base" (seconds since 1970) the server has the real
 * time, "forward" seconds added; "factor" seconds pass in one from then on.  Every
 * process of the server maps the file, and sees at once what is written to it.
 * Waits and the monotonic clock are as they are.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define NANOSECONDS INT64_C(1000000000)

typedef struct Clock
{
	int64_t forward;
	int64_t base;
	int64_t factor;
} Clock;

static Clock        real_time = {.factor = 1};
static const Clock *shown = &real_time;

__attribute__((constructor)) static void
map_clock(void)
{
	const char *name = getenv("TEST_CLOCK");
	void       *map = MAP_FAILED;
	int         file;

	if (name == NULL)
		return;
	file = open(name, O_RDONLY | O_CLOEXEC);
	if (file >= 0)
	{
		map = mmap(NULL, sizeof(Clock), PROT_READ, MAP_SHARED, file, 0);
		close(file);
	}
	if (map == MAP_FAILED)
	{
		perror(name);
		_exit(127);
	}
	shown = map;
}

/* All in nanoseconds. */
static int64_t
shown_at(int64_t now)
{
	int64_t base = shown->base * NANOSECONDS;
	int64_t forward = __atomic_load_n(&shown->forward, __ATOMIC_RELAXED) * NANOSECONDS;

	return base + (now - base) * shown->factor + forward;
}

int
clock_gettime(clockid_t clock, struct timespec *time)
{
	int64_t now;

	if (syscall(SYS_clock_gettime, clock, time) != 0)
		return -1;
	if (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE)
		return 0;
	now = shown_at(time->tv_sec * NANOSECONDS + time->tv_nsec);
	time->tv_sec = now / NANOSECONDS;
	time->tv_nsec = now % NANOSECONDS;
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
