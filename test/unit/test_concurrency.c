/*-------------------------------------------------------------------------
 *
 * test_concurrency.c
 *	  How many parts to send at the same time, by stores of several kinds.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include "s3/concurrency.h"
#include "tap.h"

#define PART (8 * 1024 * 1024)
#define MOST 16

/* MB/s, as is everything that has a speed here */
typedef struct Store
{
	double connection; /* of each connection */
	double all;        /* of all together */
	int64  delay;      /* us of each request, in which nothing moves */
	double source;     /* how fast data come */
} Store;

typedef struct Run
{
	Concurrency concurrency;
	int64       now;
	int         sending;
	double      left[64];  /* bytes of each part on its way */
	int64       delay[64]; /* us until it is answered, when all are sent */
	double      ready;     /* bytes that have come and are in no part */
	int         highest;
} Run;

static void
begin(Run *run)
{
	memset(run, 0, sizeof(*run));
	concurrency_begin(&run->concurrency, 0);
}

static void
end_part(Run *run, int i, int most)
{
	run->sending--;
	run->left[i] = run->left[run->sending];
	run->delay[i] = run->delay[run->sending];
	concurrency_part_done(&run->concurrency, PART, most, run->now);
}

/* One ms: data come if there is room for them, full parts leave, bytes move. */
static void
step(Run *run, const Store *store, int most)
{
	int    parts = Min(run->concurrency.parts, most);
	double speed = Min(store->connection, store->all / Max(run->sending, 1));

	if (run->ready >= PART && run->sending >= parts)
		concurrency_waited(&run->concurrency);
	else
		run->ready += store->source * 1000;
	while (run->ready >= PART && run->sending < parts)
	{
		run->ready -= PART;
		run->left[run->sending] = PART;
		run->delay[run->sending++] = store->delay;
	}
	run->now += 1000;
	for (int i = run->sending - 1; i >= 0; i--)
	{
		if (run->left[i] > 0)
			run->left[i] -= speed * 1000;
		else if ((run->delay[i] -= 1000) <= 0)
			end_part(run, i, most);
	}
	run->highest = Max(run->highest, run->concurrency.parts);
}

static void
run_for(Run *run, const Store *store, int most, int ms)
{
	for (int i = 0; i < ms; i++)
		step(run, store, most);
}

static void
test_far_store(void)
{
	Store store = {.connection = 90, .all = 1e9, .delay = 30000, .source = 1e9};
	Run   run;

	begin(&run);
	ok(run.concurrency.parts == CONCURRENCY_FIRST, "an upload begins with few parts");
	run_for(&run, &store, MOST, 1500);
	ok(run.concurrency.parts == MOST, "a store that is slow per connection gets all: %d",
	   run.concurrency.parts);

	begin(&run);
	run_for(&run, &store, 11, 3000);
	ok(run.concurrency.parts == 11, "and no more than may be: %d", run.concurrency.parts);

	begin(&run);
	run_for(&run, &store, 1, 3000);
	ok(run.concurrency.parts == CONCURRENCY_FIRST, "nothing is tried where one is the most");
}

static void
test_near_store(void)
{
	Store store = {.connection = 1e9, .all = 700, .delay = 1000, .source = 1e9};
	Run   run;

	begin(&run);
	run_for(&run, &store, MOST, 2000);
	ok(run.concurrency.parts == CONCURRENCY_FIRST, "a fast store gets few: %d",
	   run.concurrency.parts);
	ok(run.highest == 2 * CONCURRENCY_FIRST, "after one attempt with more: %d", run.highest);
	run_for(&run, &store, MOST, 1000);
	ok(run.concurrency.rest_until > run.now, "which is not repeated at once");

	/* what was near is far now */
	store.connection = 50;
	run_for(&run, &store, MOST, 10000);
	ok(run.concurrency.parts == MOST, "but later: %d", run.concurrency.parts);
}

static void
test_shared_limit(void)
{
	Store store = {.connection = 90, .all = 360, .delay = 0, .source = 1e9};
	Run   run;

	begin(&run);
	run_for(&run, &store, MOST, 4000);
	ok(run.concurrency.parts == 4, "no more than fill the line: %d", run.concurrency.parts);
	ok(run.highest == 8, "as one attempt has shown: %d", run.highest);
}

static void
test_slow_source(void)
{
	Store store = {.connection = 90, .all = 1e9, .delay = 30000, .source = 60};
	Run   run;

	begin(&run);
	run_for(&run, &store, MOST, 10000);
	ok(run.highest == CONCURRENCY_FIRST, "nothing is tried while no data wait: %d", run.highest);

	store.source = 250;
	run_for(&run, &store, MOST, 10000);
	ok(run.concurrency.parts >= 4 && run.concurrency.parts <= 8, "and no more than they need: %d",
	   run.concurrency.parts);
}

int
main(void)
{
	test_far_store();
	test_near_store();
	test_shared_limit();
	test_slow_source();
	return done_testing();
}
