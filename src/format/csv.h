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
#include "tcop/dest.h"

#include "format/csv_block.h"
#include "format/csv_options.h"

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
