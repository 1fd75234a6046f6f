/*-------------------------------------------------------------------------
 *
 * row_sender.h
 *	  From an executor's rows to the pipe: CSV, compressed where asked for.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ROW_SENDER_H
#define ROW_SENDER_H

#include "format/compress.h"
#include "format/csv.h"
#include "ipc/pipe.h"

typedef struct OutputFormat
{
	CsvOptions      csv;
	CompressOptions compression;
	char           *partition_by;  /* the name of csv.partition_column; NULL: there is none */
	uint64          max_file_size; /* blocks are small against it; bytes, 0: no limit */
	bool            alone;         /* no other process has rows of the same query */
} OutputFormat;

typedef struct Output Output;

/*
 * All of it belongs to the current memory context, but for "pipe" and "format",
 * which must live as long.
 */
extern Output *row_sender_open(const OutputFormat *format, Pipe *pipe);

/* Takes the rows of one query. */
extern DestReceiver *row_sender_receiver(Output *output);

/* Has the uploader gone?  In a leader that is an error at once. */
extern bool row_sender_is_lost(const Output *output);

/* Rows that the uploader was given. */
extern uint64 row_sender_rows(const Output *output);

/* Sends PIPE_END; the receiver has been shut down before. */
extern void row_sender_close(Output *output);

#endif /* ROW_SENDER_H */
