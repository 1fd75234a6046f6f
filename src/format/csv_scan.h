/*-------------------------------------------------------------------------
 *
 * csv_scan.h
 *	  Rows of a sequential scan, a page at a time.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CSV_SCAN_H
#define CSV_SCAN_H

#include "nodes/execnodes.h"
#include "storage/buf.h"
#include "tcop/dest.h"

typedef struct CsvScan CsvScan;

/* NULL if the rows of the plan are not those of a scan that this knows. */
extern CsvScan *csv_scan_create(DestReceiver *receiver, PlanState *plan, MemoryContext context);

/*
 * Gives the receiver a row that the plan has returned, and those that it would
 * return next as far as they are on the same page.
 */
extern void csv_scan_page(CsvScan *scan, TupleTableSlot *slot);

/* What the receiver does with one row. */
extern void csv_receive_slot(DestReceiver *self, TupleTableSlot *slot);

/* From one buffer to the next, if that is a step up or down; else 0. */
static inline int
csv_stride(Buffer buffer, Buffer next)
{
	return next - buffer == 1 || next - buffer == -1 ? next - buffer : 0;
}

#endif /* CSV_SCAN_H */
