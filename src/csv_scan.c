/*-------------------------------------------------------------------------
 *
 * csv_scan.c
 *	  Rows of a sequential scan, a page at a time.
 *
 * The scan is the executor's own: begun, moved to a page and ended by it.  When
 * heapam reads a page it decides on all rows of it at once, and keeps a list of
 * those that are visible.  It has pruned the page by then, checked it for
 * serialization conflicts (the whole table was locked for them when the scan
 * began) and told others of its position.  What is done here in heapam's stead
 * is to go through that list: rs_cindex is where it goes on.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/tableam.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/bufmgr.h"
#include "utils/rel.h"

#include "compat.h"
#include "csv_layout.h"
#include "csv_scan.h"

/* Memory that is fetched at once, on most machines. */
#define LINE 64

struct CsvScan
{
	DestReceiver *receiver;
	PlanState    *plan;
	MemoryContext context;
	SeqScanState *node;   /* that the last row came from; NULL: none yet */
	CsvLayout    *layout; /* of its rows; NULL: they have to be computed */
};

CsvScan *
csv_scan_create(DestReceiver *receiver, PlanState *plan, MemoryContext context)
{
	CsvScan *scan;

	if (!IsA(plan, SeqScanState) && !IsA(plan, AppendState))
		return NULL;
	scan = MemoryContextAllocZero(context, sizeof(CsvScan));
	scan->receiver = receiver;
	scan->plan = plan;
	scan->context = context;
	return scan;
}

/*
 * The scan that returned the row.  Append hands on the rows of the plan below it
 * that is in turn, or of one that it waits for, as the slot tells.
 */
static SeqScanState *
node_of(PlanState *plan, TupleTableSlot *slot)
{
	SeqScanState   *node;
	TupleTableSlot *result;

	while (IsA(plan, AppendState))
	{
		AppendState *append = (AppendState *) plan;

		if (append->as_whichplan < 0)
			return NULL;
		plan = append->appendplans[append->as_whichplan];
	}
	if (!IsA(plan, SeqScanState))
		return NULL;
	node = (SeqScanState *) plan;
	result = plan->ps_ProjInfo ? plan->ps_ProjInfo->pi_state.resultslot : node->ss.ss_ScanTupleSlot;
	return slot == result ? node : NULL;
}

/* Has the scan heapam's list of visible rows? */
static bool
has_list(const SeqScanState *node)
{
	TableScanDesc heap = node->ss.ss_currentScanDesc;

	return heap != NULL && heap->rs_rd->rd_tableam == GetHeapamTableAmRoutine() &&
		   (heap->rs_flags & SO_ALLOW_PAGEMODE) != 0 && heap->rs_nkeys == 0;
}

static void
enter(CsvScan *scan, SeqScanState *node)
{
	if (scan->layout != NULL)
		pfree(scan->layout);
	scan->node = node;
	scan->layout = csv_layout_of_targets(RelationGetDescr(node->ss.ss_currentRelation),
										 node->ss.ps.plan->targetlist, scan->context);
}

/* What ExecScan does with a row that a scan has returned; false if it is not wanted. */
static bool
give_row(CsvScan *scan, HeapScanDesc heap)
{
	PlanState      *plan = &scan->node->ss.ps;
	TupleTableSlot *slot = scan->node->ss.ss_ScanTupleSlot;
	ExprContext    *context = plan->ps_ExprContext;
	HeapTupleHeader row = heap->rs_ctup.t_data;
	bool            stored = scan->layout != NULL && csv_layout_fits(scan->layout, row);

	if (plan->qual != NULL || !stored)
	{
		ResetExprContext(context);
		context->ecxt_scantuple = ExecStoreBufferHeapTuple(&heap->rs_ctup, slot, heap->rs_cbuf);
	}
	if (plan->qual != NULL && !ExecQual(plan->qual, context))
	{
		InstrCountFiltered1(plan, 1);
		return false;
	}
	if (stored)
		csv_receive_tuple(scan->receiver, scan->layout, row);
	else
		csv_receive_slot(scan->receiver, plan->ps_ProjInfo ? ExecProject(plan->ps_ProjInfo) : slot);
	return true;
}

static uint64
give_rest(CsvScan *scan, HeapScanDesc heap)
{
	Page   page = BufferGetPage(heap->rs_cbuf);
	uint64 rows = 0;
	int left = heap->rs_ntuples - heap->rs_cindex - 1;
	const char *ahead = heap->rs_strategy == NULL && heap->rs_cbuf > 0 && heap->rs_cbuf < NBuffers ? (char *) BufferGetBlock(heap->rs_cbuf + 1) : NULL;
	int lines = ahead && left > 0 ? (BLCKSZ / LINE + left - 1) / left : 0;
	int line = 0;

	while (heap->rs_cindex + 1 < heap->rs_ntuples)
	{
		OffsetNumber number = heap->rs_vistuples[++heap->rs_cindex];
		ItemId       item = PageGetItemId(page, number);

		heap->rs_ctup.t_data = (HeapTupleHeader) PageGetItem(page, item);
		heap->rs_ctup.t_len = ItemIdGetLength(item);
		ItemPointerSet(&heap->rs_ctup.t_self, heap->rs_cblock, number);
		pgstat_count_heap_getnext(heap->rs_base.rs_rd);

		for (int n = 0; n < lines && line < BLCKSZ / LINE; n++)
			__builtin_prefetch(ahead + LINE * line++);
		CHECK_FOR_INTERRUPTS();
		if (give_row(scan, heap))
			rows++;
	}
	return rows;
}

/* As if each node had returned the rows. */
static void
count(PlanState *plan, uint64 rows)
{
	EState *estate = plan->state;

	if (plan->plan == estate->es_plannedstmt->planTree)
		estate->es_processed += rows;
	for (;;)
	{
		if (plan->instrument != NULL)
			plan->instrument->tuplecount += (double) rows;
		if (!IsA(plan, AppendState))
			break;
		plan = ((AppendState *) plan)->appendplans[((AppendState *) plan)->as_whichplan];
	}
}

void
csv_scan_rest_of_page(CsvScan *scan, TupleTableSlot *slot)
{
	SeqScanState *node = node_of(scan->plan, slot);

	if (node == NULL || !has_list(node))
		return;
	if (node != scan->node)
		enter(scan, node);
	count(scan->plan, give_rest(scan, (HeapScanDesc) node->ss.ss_currentScanDesc));
}
