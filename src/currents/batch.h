/*-------------------------------------------------------------------------
 *
 * batch.h
 *	  The events of one batch of a current: rows of CSV, in files of their tables.
 *
 * A file has events of one table, of one hour and of one version of the table's
 * columns, and is called after its first event.  Which event is in which file
 * follows from the settings of the batch and the WAL alone, so that a batch that
 * is written again has the same files.  All of them appear at the end, those of a table
 * in their order, and then the object that says what the batch consists of.
 *
 *	  <feed>/_schema/<schema.table>/<version>.json
 *	  <feed>/_table=<schema.table>/_version=<version>/_hour=<hour>/<first _id>.csv
 *	  <feed>/_batches/<first _id>.json
 *
 *-------------------------------------------------------------------------
 */
#ifndef BATCH_H
#define BATCH_H

#include "executor/tuptable.h"

#include "currents/current.h"
#include "currents/decoder.h"

typedef struct Batch Batch;

/*
 * Belongs to the current memory context, and what it opens to the current
 * resource owner; "current" and "settings" must live as long.  "start" is where it
 * begins, for the job's row; 0: with rows that are there.  The uploader starts when there is
 * something to send.
 */
extern Batch *batch_open(const Current *current, const CurrentBatch *settings, XLogRecPtr start);

/* Opens a batch that only counts its events: no uploader starts, and nothing is sent. */
extern Batch *
batch_open_to_count(const Current *current, const CurrentBatch *settings, XLogRecPtr start);

/* The functions of a decoder's sink: they put the events of each change, if it has any. */
extern void batch_begin(Batch *batch, const DecodeTransaction *transaction);
extern void batch_put(Batch *batch, const DecodeChange *change);
extern void batch_end(Batch *batch, const DecodeTransaction *transaction);

/*
 * Rows that were there before the first change: "operation" copy.  The first begins with a
 * table that the publication has by its own name, and returns the columns of its events as
 * a list for SELECT, quoted, which may be empty; NULL: the publication does not have the table.
 * The second takes a row of these columns.
 */
extern char *batch_begin_copy(Batch *batch, Relation relation);
extern void  batch_put_copy(Batch *batch, TupleTableSlot *slot);

/*
 * Forgets which tables are published: a long stretch of the WAL may have changes of any
 * number of tables that come and go.
 */
extern void batch_forget_sources(Batch *batch);

extern uint64 batch_events(const Batch *batch);

/* How many versions columns of tables have been given, by this batch and before it. */
extern int batch_versions(const Batch *batch);

/* When the batch's last transaction with events was committed. */
extern TimestampTz batch_committed_at(const Batch *batch);

/*
 * The tables (CurrentTable *) that decide how the batch is written again, as they were
 * before it.
 */
extern List *batch_tables_before(const Batch *batch);

/*
 * How many changes were passed over since it was asked last, as the owners did not allow them to
 * be sent or the WAL lacks the row, and the names of their tables (char *).
 */
extern uint64 batch_take_withheld(Batch *batch, List **tables);

/* Has it as many events, bytes or files as are to appear together? */
extern bool batch_is_full(const Batch *batch);

/*
 * What readers have missed (CurrentGap *), found since the batch began, for whoever records it:
 * the object of the batch takes it from there.
 */
extern List *batch_take_gaps(Batch *batch);

/* Has it neither events nor gaps? */
extern bool batch_is_empty(const Batch *batch);

/* Ends the batch: sends what is left of its events, and what its batch object says. */
extern void batch_seal(Batch *batch, XLogRecPtr end, TimeLineID timeline);

/* All files appear, and the object; fills in what is known of them, but for the position. */
extern void batch_finish(Batch *batch, CurrentProgress *progress);

/* Tells the uploader why there will be no batch. */
extern void batch_set_error(Batch *batch, const ErrorData *error);

/* Closes a batch after batch_finish, or a batch that had no event. */
extern void batch_close(Batch *batch);

#endif /* BATCH_H */
