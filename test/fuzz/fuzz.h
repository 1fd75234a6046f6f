/*-------------------------------------------------------------------------
 *
 * fuzz.h
 *	  What fuzz targets share: input, checks, and just enough of a backend.
 *
 * A target is one file that defines fuzz_one.  It is compiled as part of a
 * server would be, and linked with fuzz.c, whose palloc takes each piece of
 * memory from malloc, so that AddressSanitizer knows its bounds.  What a run
 * leaves in its memory context is freed after it; the rest is a leak.  An
 * ereport(ERROR) ends the program: nothing that is fuzzed here may raise one.
 *
 *-------------------------------------------------------------------------
 */
#ifndef FUZZ_H
#define FUZZ_H

#include "postgres.h"

typedef struct FuzzInput
{
	const uint8 *data;
	size_t       left;
} FuzzInput;

/* The target. */
extern void fuzz_one(FuzzInput *input);

/* One byte; 0 when there is none left. */
extern uint8 fuzz_byte(FuzzInput *input);

/* The bytes up to a NUL, or all that are left; palloc'd to measure. */
extern char *fuzz_string(FuzzInput *input);

/* All that is left, palloc'd to measure and without a NUL after it. */
extern char *fuzz_rest(FuzzInput *input, size_t *len);

/* Ends the program unless it holds: a property that was not kept. */
#define FUZZ_CHECK(condition)                          \
	do                                                 \
	{                                                  \
		if (!(condition))                              \
			fuzz_fail(#condition, __FILE__, __LINE__); \
	} while (0)

extern void fuzz_fail(const char *condition, const char *file, int line) pg_attribute_noreturn();

/* ASCII without control characters */
extern bool fuzz_is_printable(const char *text);

/* Valid UTF-8 without control characters, those of C1 included */
extern bool fuzz_is_clean(const char *text);

/* What GetDatabaseEncoding says; PG_UTF8 at the start of each run. */
extern int fuzz_encoding;

/* How often a piece of memory grew in this run. */
extern int fuzz_repallocs;

#endif /* FUZZ_H */
