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
#include "access/syncscan.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/bufmgr.h"
#include "utils/rel.h"

#include "base/compat.h"
#include "format/csv_layout.h"
#include "format/csv_scan.h"

/* What memory is fetched by, on most machines. */
#define LINE 64

#ifdef __GNUC__
#define PREFETCH(address) __builtin_prefetch(address)
#else
#define PREFETCH(address) ((void) 0)
#endif

/*
 * How many pages to pass without a look at the next, after one that was not in
 * the buffers: what is read from disk or through a ring is in the cache anyway.
 */
#define PATIENCE 64

/* How many pages to give before the executor is asked again: it notices what ends a query. */
#define PAGES 64

struct CsvScan
{
	DestReceiver *receiver;
	PlanState    *plan;
	MemoryContext context;
	SeqScanState *node;   /* that the last row came from; NULL: none yet */
	CsvLayout    *layout; /* of its rows; NULL: they have to be computed */
	bool          moves;  /* to pages that follow, itself */
	Buffer        next;   /* that should have the next page; InvalidBuffer: not known */
	int           stride; /* from one page's buffer to the next one's; 0: not known */
	const char   *ahead;  /* of the next page, what has not been asked for */
	size_t        left;   /* bytes of it */
	size_t        step;   /* with each row */
	int           patience;
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

/*
 * In a serializable transaction, in recovery, and where rows are removed that a snapshot
 * still sees, heapam has more to look at than whether all rows of a page are visible.
 */
static bool
may_move(HeapScanDesc heap)
{
	return COMPAT_HEAP_SCANS_BLOCKS && !IsolationIsSerializable() &&
		   !compat_snapshots_become_too_old && !heap->rs_base.rs_snapshot->takenDuringRecovery &&
		   !RelationUsesLocalBuffers(heap->rs_base.rs_rd) &&
		   heap->rs_numblocks == InvalidBlockNumber;
}

static void
enter_scan(CsvScan *scan, SeqScanState *node)
{
	if (scan->layout != NULL)
		pfree(scan->layout);
	scan->node = node;
	scan->patience = 0;
	scan->stride = 0;
	scan->moves = may_move((HeapScanDesc) node->ss.ss_currentScanDesc);
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

/*
 * The buffer that should have the next page.  A table that was read in order is
 * in buffers one after the other, upwards or, where those of a dropped table were
 * used again, downwards, which saves the search for them.
 */
static Buffer
find_next(CsvScan *scan, HeapScanDesc heap)
{
	Buffer after = heap->rs_cbuf + scan->stride;
	Buffer next;

	if (heap->rs_cblock + 1 >= heap->rs_nblocks)
		return InvalidBuffer;
	/* only read_block finds out where that is not so */
	if (scan->moves && scan->stride != 0 && after > 0 && after <= NBuffers)
		return after;
	if (scan->patience > 0)
	{
		scan->patience--;
		return InvalidBuffer;
	}
	next = PrefetchBuffer(heap->rs_base.rs_rd, MAIN_FORKNUM, heap->rs_cblock + 1).recent_buffer;
	if (!BufferIsValid(next))
		scan->patience = PATIENCE;
	scan->stride = BufferIsValid(next) ? csv_stride(heap->rs_cbuf, next) : 0;
	return next;
}

/*
 * Most of a scan's time would go into waiting for memory.  So while the rows of
 * a page are written the next one is brought into the processor's cache, a few
 * lines with each row.  The executor will most likely go there; where it does
 * not, or where the page is evicted in between, nothing but time is lost.
 */
static void
look_ahead(CsvScan *scan, HeapScanDesc heap, int rows)
{
	scan->left = 0;
	scan->next = find_next(scan, heap);
	if (!BufferIsValid(scan->next))
		return;
	scan->ahead = (const char *) BufferGetBlock(scan->next);
	scan->left = BLCKSZ;
	scan->step = TYPEALIGN(LINE, BLCKSZ / Max(rows, 1));
}

static inline void
fetch_ahead(CsvScan *scan)
{
	size_t step = Min(scan->step, scan->left);

	for (size_t i = 0; i < step; i += LINE)
		PREFETCH(scan->ahead + i);
	scan->ahead += step;
	scan->left -= step;
}

/* Gives the rest of the page; returns the number of rows that were wanted. */
static uint64
give_rest(CsvScan *scan, HeapScanDesc heap)
{
	Page   page = BufferGetPage(heap->rs_cbuf);
	uint64 rows = 0;

	while (heap->rs_cindex + 1 < heap->rs_ntuples)
	{
		OffsetNumber number = heap->rs_vistuples[++heap->rs_cindex];
		ItemId       item = PageGetItemId(page, number);

		heap->rs_ctup.t_data = (HeapTupleHeader) PageGetItem(page, item);
		heap->rs_ctup.t_len = ItemIdGetLength(item);
		ItemPointerSet(&heap->rs_ctup.t_self, heap->rs_cblock, number);
		pgstat_count_heap_getnext(heap->rs_base.rs_rd);

		CHECK_FOR_INTERRUPTS();
		fetch_ahead(scan);
		if (give_row(scan, heap))
			rows++;
	}
	return rows;
}

/* The block that heapam would go to; InvalidBlockNumber if it would end the scan. */
static BlockNumber
next_block(HeapScanDesc heap)
{
	Relation    rel = heap->rs_base.rs_rd;
	BlockNumber block;

	if (heap->rs_base.rs_parallel != NULL)
		return table_block_parallelscan_nextpage(
			rel, heap->rs_parallelworkerdata,
			(ParallelBlockTableScanDesc) heap->rs_base.rs_parallel);
	block = heap->rs_cblock + 1 < heap->rs_nblocks ? heap->rs_cblock + 1 : 0;
	if (block == heap->rs_startblock)
		return InvalidBlockNumber;
	if ((heap->rs_base.rs_flags & SO_ALLOW_SYNC) != 0)
		ss_report_location(rel, block);
	return block;
}

static Buffer
read_block(CsvScan *scan, HeapScanDesc heap, BlockNumber block)
{
	Relation rel = heap->rs_base.rs_rd;

	if (BufferIsValid(scan->next) &&
		ReadRecentBuffer(compat_rel_locator(rel), MAIN_FORKNUM, block, scan->next))
	{
		pgstat_count_buffer_read(rel);
		pgstat_count_buffer_hit(rel);
		return scan->next;
	}
	scan->stride = 0;
	return ReadBufferExtended(rel, MAIN_FORKNUM, block, RBM_NORMAL, heap->rs_strategy);
}

/* Lists the rows of a page if all are visible. */
static bool
list_rows(HeapScanDesc heap, Buffer buffer)
{
	Page page = BufferGetPage(buffer);
	bool all_visible;
	int  count = 0;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	all_visible = PageIsAllVisible(page);
	if (all_visible)
	{
		OffsetNumber last = PageGetMaxOffsetNumber(page);

		for (OffsetNumber number = FirstOffsetNumber; number <= last; number++)
		{
			heap->rs_vistuples[count] = number;
			count += ItemIdIsNormal(PageGetItemId(page, number));
		}
	}
	LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
	heap->rs_ntuples = count;
	return all_visible;
}

/* Moves the scan before the first row of the next page; false at its end. */
static bool
move_to_next_page(CsvScan *scan, HeapScanDesc heap)
{
	BlockNumber block = next_block(heap);
	Buffer      buffer;

	if (block == InvalidBlockNumber)
		return false;
	buffer = read_block(scan, heap, block);
	if (list_rows(heap, buffer))
	{
		ReleaseBuffer(heap->rs_cbuf);
		heap->rs_cbuf = buffer;
		heap->rs_cblock = block;
	}
	else
	{
		ReleaseBuffer(buffer);
		compat_heapgetpage(&heap->rs_base, block);
	}
	heap->rs_cindex = -1;
	return true;
}

/* As if each node had returned the rows. */
static void
count_rows(PlanState *plan, uint64 rows)
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
csv_scan_page(CsvScan *scan, TupleTableSlot *slot)
{
	SeqScanState *node = node_of(scan->plan, slot);
	HeapScanDesc  heap;
	uint64        rows;

	if (node == NULL || !has_list(node))
	{
		csv_receive_slot(scan->receiver, slot);
		return;
	}
	if (node != scan->node)
		enter_scan(scan, node);
	heap = (HeapScanDesc) node->ss.ss_currentScanDesc;
	look_ahead(scan, heap, heap->rs_ntuples - heap->rs_cindex);
	fetch_ahead(scan);
	csv_receive_slot(scan->receiver, slot);
	rows = give_rest(scan, heap);
	for (int pages = 1; scan->moves && pages < PAGES && move_to_next_page(scan, heap); pages++)
	{
		look_ahead(scan, heap, heap->rs_ntuples);
		rows += give_rest(scan, heap);
	}
	count_rows(scan->plan, rows);
}
