/*-------------------------------------------------------------------------
 *
 * csv_options.h
 *	  COPY's options of CSV, checked as COPY does.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CSV_OPTIONS_H
#define CSV_OPTIONS_H

#include "access/tupdesc.h"
#include "nodes/pg_list.h"

typedef struct CsvOptions
{
	bool  header;
	char  delimiter;
	char  quote;
	char  escape;
	char *null_print; /* in the server's encoding */
	bool  force_quote_all;
	List *force_quote; /* of char *, column names */
	int   encoding;    /* of the output */

	/* how rows are put into blocks */
	int    partition_column;  /* left out: the rows of a block share its value; from 1, 0: none */
	uint64 max_rows_per_file; /* no block goes beyond a multiple of this; 0: no matter */
} CsvOptions;

/*
 * Checks options as COPY does, with COPY's messages and SQLSTATEs.  NULL means
 * "not given"; the encoding is UTF8 then.  "force_quote" is a list of char *;
 * one "*" alone means all.  Allocated in the current memory context.
 */
extern CsvOptions *
csv_options(bool header, const char *delimiter, const char *quote, const char *escape,
			const char *null_print, List *force_quote, const char *encoding);

/* The numbers of the columns in force_quote, from 1; raises COPY's error about a name that is none. */
extern List *csv_forced_columns(const CsvOptions *options, TupleDesc desc);

#endif /* CSV_OPTIONS_H */
