/*-------------------------------------------------------------------------
 *
 * parallel.c
 *	  A query whose rows leave from several processes at once.
 *
 * A node of our own, the sink, is put between Gather and the plan below it,
 * which each process runs a copy of.  The sink takes all rows of its process,
 * sends them to the uploader, and returns none; so Gather starts workers, runs
 * the plan in the leader too, and waits for all, but has no row to move.
 *
 * The order of the rows is nobody's: Gather promises none, and plans that keep
 * an order begin with another node.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/parallel.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/extensible.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/paths.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "base/message.h"
#include "export/parallel.h"

/* Also what EXPLAIN calls the node, as auto_explain may. */
#define SINK_NAME "s3export"

/* The planner numbers its nodes from 0, and the numbers must differ. */
#define SINK_NODE_ID (-1)

typedef struct Sink
{
	CustomScanState node;
	Output         *output; /* of a worker: NULL before the first row is asked for */
} Sink;

/* ---- the plan ---- */

static void
set_for_planning(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0,
							 false);
}

/*
 * Rows that do not pass through the leader cost nothing there.  What workers
 * cost to start is left out, as the planner weighs it against the scan of a
 * row, and formatting and sending one takes far longer.
 */
static PlannedStmt *
plan_for_sinks(Query *query, const char *text, int workers)
{
	int          nest_level = NewGUCNestLevel();
	PlannedStmt *plan;

	set_for_planning("max_parallel_workers_per_gather", psprintf("%d", workers));
	set_for_planning("parallel_tuple_cost", "0");
	set_for_planning("parallel_setup_cost", "0");
	plan = pg_plan_query(copyObject(query), text, CURSOR_OPT_PARALLEL_OK, NULL);
	AtEOXact_GUC(true, nest_level);
	return plan;
}

/*
 * Gather computes what only a leader may.  Where it does, or drops columns, the
 * rows below it are not the query's.  A column asked for twice is found in the
 * first place for both.
 */
static bool
gather_returns_rows_as_they_are(const Gather *gather)
{
	List     *below = outerPlan(gather)->targetlist;
	ListCell *cell;

	if (list_length(gather->plan.targetlist) != list_length(below))
		return false;
	foreach (cell, gather->plan.targetlist)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, cell);
		Var         *column = (Var *) entry->expr;
		TargetEntry *same = list_nth_node(TargetEntry, below, foreach_current_index(cell));

		if (entry->resjunk || !IsA(column, Var) || column->varno != OUTER_VAR)
			return false;
		if (column->varattno != same->resno &&
			!equal(same->expr, list_nth_node(TargetEntry, below, column->varattno - 1)->expr))
			return false;
	}
	return true;
}

/*
 * A result is worth workers when it is about as large as a table must be.  This
 * is asked as children of a partitioned table, however small, need not be.
 */
static bool
is_worth_workers(const Gather *gather)
{
	return gather->plan.plan_rows * gather->plan.plan_width >=
		   (double) min_parallel_table_scan_size * BLCKSZ;
}

/* Whoever takes part can send what it makes: nothing has to be done to all rows at last. */
static bool
may_end_with_gather(const Query *query)
{
	return query->sortClause == NIL && query->groupClause == NIL && query->distinctClause == NIL &&
		   query->groupingSets == NIL && query->havingQual == NULL && query->limitCount == NULL &&
		   query->limitOffset == NULL && !query->hasAggs && !query->hasWindowFuncs;
}

static int
allowed_workers(int workers)
{
	return Min(workers, Min(max_parallel_workers, max_worker_processes));
}

/*
 * Planning can take as long as a small export, and is done once where that is possible.  A
 * plan without workers is the same whatever workers cost.  One with workers that cannot
 * send would be chosen by costs that are not its own.
 */
PlannedStmt *
parallel_plan(Query *query, const char *text, int workers, int *senders)
{
	int max_senders = allowed_workers(workers);

	*senders = 0;
	if (max_senders > 0 && may_end_with_gather(query))
	{
		PlannedStmt *plan = plan_for_sinks(query, text, max_senders);
		Gather      *gather = (Gather *) plan->planTree;

		if (!plan->parallelModeNeeded)
			return plan;
		if (IsA(gather, Gather) && !gather->single_copy && is_worth_workers(gather) &&
			gather_returns_rows_as_they_are(gather))
		{
			/* A planner's hook may want more than the planner was allowed. */
			*senders = gather->num_workers = Min(gather->num_workers, max_senders);
			return plan;
		}
	}
	return pg_plan_query(copyObject(query), text, CURSOR_OPT_PARALLEL_OK, NULL);
}

/* ---- the sink's private data ---- */

enum
{
	PRIVATE_PIPE,
	PRIVATE_FORMAT
};

#define MEMBER(member) MESSAGE_MEMBER(OutputFormat, member)

/* The leader has sent the header. */
static const MessageMember format_members[] = {
	MEMBER(csv.delimiter),
	MEMBER(csv.quote),
	MEMBER(csv.escape),
	MEMBER(csv.null_print),
	MEMBER(csv.force_quote_all),
	MEMBER(csv.force_quote),
	MEMBER(csv.encoding),
	MEMBER(csv.partition_column),
	MEMBER(csv.max_rows_per_file),
	MEMBER(compression.method),
	MEMBER(compression.level),
	MEMBER(partition_by),
	MEMBER(max_file_size),
};

/* A plan has nodes only, and its strings have no zero bytes: so the message is one in hex. */
static List *
private_data(const OutputFormat *format, Pipe *pipe)
{
	StringInfoData message;
	char          *hex;

	initStringInfo(&message);
	message_put_struct(&message, format, format_members);
	hex = palloc(message.len * 2 + 1);
	hex[hex_encode(message.data, message.len, hex)] = '\0';
	return list_make2(makeInteger((int) pipe_handle(pipe)), makeString(hex));
}

static OutputFormat *
private_format(List *data)
{
	OutputFormat  *format = palloc0(sizeof(OutputFormat));
	const char    *hex = strVal(list_nth(data, PRIVATE_FORMAT));
	StringInfoData message;

	initStringInfo(&message);
	enlargeStringInfo(&message, (int) strlen(hex));
	message.len = (int) hex_decode(hex, strlen(hex), message.data);
	message_get_struct(&message, format, format_members);
	return format;
}

/* ---- the sink ---- */

static void
sink_begin(CustomScanState *node, EState *estate, int eflags)
{
	outerPlanState(node) = ExecInitNode(outerPlan(node->ss.ps.plan), estate, eflags);
}

static void
send_rows(Sink *sink)
{
	PlanState    *below = outerPlanState(sink);
	DestReceiver *receiver = row_sender_receiver(sink->output);

	csv_receiver_watch(receiver, below);
	while (!row_sender_is_lost(sink->output))
	{
		TupleTableSlot *slot;

		CHECK_FOR_INTERRUPTS();
		slot = ExecProcNode(below);
		if (TupIsNull(slot))
			break;
		(void) receiver->receiveSlot(slot, receiver);
	}
}

/*
 * A worker whose uploader has gone just stops: the leader is told why, and
 * raises that error.
 */
static void
scan_and_send(Sink *sink)
{
	CustomScanState *node = &sink->node;
	List            *data = castNode(CustomScan, node->ss.ps.plan)->custom_private;
	Pipe *pipe = pipe_join((uint32) intVal(list_nth(data, PRIVATE_PIPE)), ParallelWorkerNumber);
	DestReceiver *receiver;

	sink->output = row_sender_open(private_format(data), pipe);
	receiver = row_sender_receiver(sink->output);
	receiver->rStartup(receiver, CMD_SELECT, ExecGetResultType(&node->ss.ps));
	send_rows(sink);
	receiver->rShutdown(receiver);
	ereport(DEBUG1, (errmsg_internal("parallel worker %d has sent " UINT64_FORMAT " rows",
									 ParallelWorkerNumber, row_sender_rows(sink->output))));
	row_sender_close(sink->output);
	pipe_leave(pipe);
}

static TupleTableSlot *
sink_execute(CustomScanState *node)
{
	Sink *sink = (Sink *) node;

	if (sink->output != NULL)
		send_rows(sink);
	else
		scan_and_send(sink);
	return NULL;
}

static void
sink_end(CustomScanState *node)
{
	ExecEndNode(outerPlanState(node));
}

/* Nothing is above Gather that could ask for a second scan. */
static void
sink_rescan(CustomScanState *node pg_attribute_unused())
{
	elog(ERROR, "rows that have been sent cannot be scanned again");
}

static const CustomExecMethods sink_exec_methods = {
	.CustomName = SINK_NAME,
	.BeginCustomScan = sink_begin,
	.ExecCustomScan = sink_execute,
	.EndCustomScan = sink_end,
	.ReScanCustomScan = sink_rescan,
};

static Node *
sink_create(CustomScan *plan pg_attribute_unused())
{
	Sink *sink = (Sink *) newNode(sizeof(Sink), T_CustomScanState);

	sink->node.methods = &sink_exec_methods;
	return (Node *) sink;
}

static const CustomScanMethods sink_methods = {
	.CustomName = SINK_NAME,
	.CreateCustomScanState = sink_create,
};

void
parallel_init(void)
{
	RegisterCustomScanMethods(&sink_methods);
}

/* ---- the leader ---- */

static TargetEntry *
copy_entry(const TargetEntry *entry, int varno, const char *name)
{
	Node *expr = (Node *) entry->expr;
	Var  *column =
		makeVar(varno, entry->resno, exprType(expr), exprTypmod(expr), exprCollation(expr), 0);

	return makeTargetEntry((Expr *) column, entry->resno, name ? pstrdup(name) : NULL, false);
}

/* Workers look for force_quote in the names of the columns, which only Gather has. */
static void
insert_sink(Gather *gather, List *data)
{
	CustomScan *sink = makeNode(CustomScan);
	Plan       *below = outerPlan(gather);
	Plan       *plan = &sink->scan.plan;
	ListCell   *entry;
	ListCell   *named;

	plan->startup_cost = below->startup_cost;
	plan->total_cost = below->total_cost;
	plan->plan_rows = below->plan_rows;
	plan->plan_width = below->plan_width;
	plan->parallel_safe = true;
	plan->plan_node_id = SINK_NODE_ID;
	plan->extParam = bms_copy(below->extParam);
	plan->allParam = bms_copy(below->allParam);
	outerPlan(plan) = below;
	forboth(entry, below->targetlist, named, gather->plan.targetlist)
	{
		const char *name = lfirst_node(TargetEntry, named)->resname;

		plan->targetlist = lappend(plan->targetlist, copy_entry(lfirst(entry), INDEX_VAR, name));
		sink->custom_scan_tlist =
			lappend(sink->custom_scan_tlist, copy_entry(lfirst(entry), OUTER_VAR, name));
	}
	sink->custom_private = data;
	sink->methods = &sink_methods;
	outerPlan(gather) = plan;
}

void
parallel_execute(PlannedStmt *plan, const char *text, const OutputFormat *format, Pipe *pipe,
				 Output *output)
{
	QueryDesc *query;

	insert_sink(castNode(Gather, plan->planTree), private_data(format, pipe));

	/* The receiver sends the header before workers are started, and the last block. */
	query = CreateQueryDesc(plan, text, GetActiveSnapshot(), InvalidSnapshot,
							row_sender_receiver(output), NULL, NULL, 0);
	ExecutorStart(query, 0);
	((Sink *) outerPlanState(query->planstate))->output = output;
	compat_executor_run(query);
	ereport(DEBUG1, (errmsg_internal("the leader has sent " UINT64_FORMAT " rows",
									 row_sender_rows(output))));
	ExecutorFinish(query);
	ExecutorEnd(query);
	FreeQueryDesc(query);
}
