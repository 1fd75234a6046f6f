/*-------------------------------------------------------------------------
 *
 * csv.h
 *	  CSV, byte for byte what COPY writes, from an executor's rows to a sink.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CSV_H
#define CSV_H

#include "nodes/execnodes.h"
#include "nodes/pg_list.h"
#include "tcop/dest.h"

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
	int    partition_column; /* left out: the rows of a block share its value; from 1, 0: none */
	uint64 rows_per_file;    /* no block goes beyond a multiple of this; 0: no matter */
} CsvOptions;

/*
 * Checks options as COPY does, with COPY's messages and SQLSTATEs.  NULL means
 * "not given"; the encoding is UTF8 then.  "force_quote" is a list of char *;
 * one "*" alone means all.  Allocated in the current memory context.
 */
extern CsvOptions *
csv_options(bool header, const char *delimiter, const char *quote, const char *escape,
			const char *null_print, List *force_quote, const char *encoding);

/*
 * Where the bytes go.  "header" is called once, before any block, if there is
 * a header line; "block" is called with whole rows, usually of about the size
 * asked for, more only for a single row that is larger.  "partition" is the
 * text of the value in partition_column, in the server's encoding, NULL for a
 * null and where there is no such column.  The bytes are the receiver's again on
 * return.  Both may raise errors; what they allocate in
 * the current memory context is gone after the row.
 */
typedef struct CsvSink
{
	void (*header)(void *arg, const char *data, size_t len);
	void (*block)(void *arg, const char *partition, const char *data, size_t len, uint64 rows);
	void *arg;
} CsvSink;

/*
 * A receiver for ExecutorRun, in the current memory context, which must live
 * as long.  Column names in force_quote are looked up when the query starts;
 * an unknown one is COPY's error, before the sink is called.  rShutdown sends
 * the last block.  It may be used for one query.
 */
extern DestReceiver *
csv_receiver_create(const CsvOptions *options, const CsvSink *sink, size_t block_size);

/* Between rows: sends what there is, so that the next row begins a block. */
extern void csv_receiver_flush(DestReceiver *self);

/*
 * Says which plan the rows come from, whose nodes live as long; after
 * ExecutorStart, before the first row.  Where the plan is a scan of a table,
 * the receiver then takes along with each row all others of its page.  Rows are
 * counted, in statistics and by the executor, as if all had come one by one.
 */
extern void csv_receiver_watch(DestReceiver *self, PlanState *plan);

#endif /* CSV_H */
