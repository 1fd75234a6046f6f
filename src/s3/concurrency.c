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
begin_round(Concurrency *concurrency, bool settling, int64 now)
{
	concurrency->settling = settling;
	concurrency->waited = false;
	concurrency->done = 0;
	concurrency->bytes = 0;
	concurrency->began_at = now;
}

static void
change_parts(Concurrency *concurrency, int parts, int64 now)
{
	concurrency->parts = parts;
	begin_round(concurrency, true, now);
}

/*
 * Were the parts that were added worth it?  Each has to bring a quarter of what
 * those before it do: much less than where connections do not share anything,
 * and more than what chance makes of connections that share everything.
 */
static bool
paid_off(const Concurrency *concurrency, double rate)
{
	double added = (double) (concurrency->parts - concurrency->fewer) / concurrency->fewer;

	return rate >= concurrency->before * (1 + added / 4);
}

/*
 * Goes back to fewer parts where more have not paid off, and tries twice as many where data had
 * to wait.
 */
static void
judge_round(Concurrency *concurrency, int most, int64 now)
{
	double rate = (double) concurrency->bytes / Max(now - concurrency->began_at, 1);

	if (concurrency->fewer > 0 && concurrency->waited && !paid_off(concurrency, rate))
	{
		int fewer = concurrency->fewer;

		concurrency->fewer = 0;
		concurrency->rest_until = now + CONCURRENCY_PAUSE;
		change_parts(concurrency, fewer, now);
		return;
	}
	concurrency->fewer = 0;
	if (concurrency->waited && concurrency->parts < most && now >= concurrency->rest_until)
	{
		concurrency->fewer = concurrency->parts;
		concurrency->before = rate;
		change_parts(concurrency, Min(concurrency->parts * 2, most), now);
	}
	else
		begin_round(concurrency, false, now);
}

void
concurrency_begin(Concurrency *concurrency, int64 now)
{
	memset(concurrency, 0, sizeof(*concurrency));
	change_parts(concurrency, CONCURRENCY_FIRST, now);
}

void
concurrency_waited(Concurrency *concurrency)
{
	concurrency->waited = true;
}

void
concurrency_part_done(Concurrency *concurrency, size_t bytes, int most, int64 now)
{
	concurrency->bytes += bytes;
	if (++concurrency->done < Min(concurrency->parts, most))
		return;
	if (concurrency->settling)
		begin_round(concurrency, false, now);
	else
		judge_round(concurrency, most, now);
}
