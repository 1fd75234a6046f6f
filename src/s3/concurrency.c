/*-------------------------------------------------------------------------
 *
 * concurrency.c
 *	  How many parts to send at the same time.
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include "s3/concurrency.h"

static void
begin_round(Concurrency *pace, bool settling, int64 now)
{
	pace->settling = settling;
	pace->waited = false;
	pace->done = 0;
	pace->bytes = 0;
	pace->began_at = now;
}

static void
change_parts(Concurrency *pace, int parts, int64 now)
{
	pace->parts = parts;
	begin_round(pace, true, now);
}

/*
 * Were the parts that were added worth it?  Each has to bring a quarter of what
 * those before it do: much less than where connections do not share anything,
 * and more than what chance makes of connections that share everything.
 */
static bool
paid_off(const Concurrency *pace, double rate)
{
	double added = (double) (pace->parts - pace->fewer) / pace->fewer;

	return rate >= pace->before * (1 + added / 4);
}

static void
judge_round(Concurrency *pace, int most, int64 now)
{
	double rate = (double) pace->bytes / Max(now - pace->began_at, 1);

	if (pace->fewer > 0 && pace->waited && !paid_off(pace, rate))
	{
		int fewer = pace->fewer;

		pace->fewer = 0;
		pace->rest_until = now + PACE_PAUSE;
		change_parts(pace, fewer, now);
		return;
	}
	pace->fewer = 0;
	if (pace->waited && pace->parts < most && now >= pace->rest_until)
	{
		pace->fewer = pace->parts;
		pace->before = rate;
		change_parts(pace, Min(pace->parts * 2, most), now);
	}
	else
		begin_round(pace, false, now);
}

void
concurrency_begin(Concurrency *pace, int64 now)
{
	memset(pace, 0, sizeof(*pace));
	change_parts(pace, PACE_FIRST, now);
}

void
concurrency_waited(Concurrency *pace)
{
	pace->waited = true;
}

void
concurrency_part_done(Concurrency *pace, size_t bytes, int most, int64 now)
{
	pace->bytes += bytes;
	if (++pace->done < Min(pace->parts, most))
		return;
	if (pace->settling)
		begin_round(pace, false, now);
	else
		judge_round(pace, most, now);
}
