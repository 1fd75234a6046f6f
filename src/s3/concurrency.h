/*-------------------------------------------------------------------------
 *
 * concurrency.h
 *	  How many parts to send at the same time.
 *
 * A store that is far away, or that gives each connection a share of its own,
 * takes more through more connections; one that is near does not, and then each
 * further buffer only pushes others out of the processor's cache.  So an upload
 * begins with few and tries twice as many while data wait, keeps them if that
 * brought more through, and goes back if not.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CONCURRENCY_H
#define CONCURRENCY_H

#define CONCURRENCY_FIRST 2                     /* parts */
#define CONCURRENCY_PAUSE (INT64CONST(5000000)) /* us from an attempt in vain to the next */

typedef struct Concurrency
{
	int    parts;  /* to send at the same time */
	int    fewer;  /* before the attempt that is under way; 0: none is */
	double before; /* bytes per us that got through with those */
	int64  rest_until;

	/* a round: as many parts as are sent at the same time */
	bool   settling; /* the first with another number: connections have to warm up */
	bool   waited;
	int    done; /* parts */
	uint64 bytes;
	int64  began_at;
} Concurrency;

/* Times are us of any steady clock. */
extern void concurrency_begin(Concurrency *concurrency, int64 now);

/* Data had to wait because all buffers were taken. */
extern void concurrency_waited(Concurrency *concurrency);

/* A part got through; there may be "most" at the same time, at least 1. */
extern void concurrency_part_done(Concurrency *concurrency, size_t bytes, int most, int64 now);

#endif /* CONCURRENCY_H */
