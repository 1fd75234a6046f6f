/*-------------------------------------------------------------------------
 *
 * export.c
 *	  The leader of an export: it runs the query where it was asked for.
 *
 * The query runs in the session that called, so it sees what its caller sees:
 * rows not committed yet, temporary tables, settings, row security.  Its rows
 * become CSV in the executor's receiver, are compressed if that is asked for,
 * and leave by the pipe.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>

#include "access/relation.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"
#include "parser/parse_relation.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/plancache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/varlena.h"

#include "base/compat.h"
#include "export/export.h"
#include "export/parallel.h"
#include "uploader/manifest.h"

/*
 * No query is a list of identifiers joined by dots, and every table's name
 * is one, so the two need no mark to tell them apart.  SplitIdentifierString
 * lets more into an identifier than the grammar does: "VALUES(1)", say.
 */
static bool
is_table_name(const char *source, List **names)
{
	bool quoted = false;

	for (const char *c = source; *c; c++)
	{
		if (*c == '"')
			quoted = !quoted;
		else if (!quoted && !isalnum((unsigned char) *c) && !IS_HIGHBIT_SET(*c) &&
				 strchr("_$. \t\n\r\f", *c) == NULL)
			return false;
	}
	return SplitIdentifierString(pstrdup(source), '.', names) && *names != NIL;
}

/* InvalidOid: there is none, which the query on it will say better. */
static Oid
find_table(List *names)
{
	List     *strings = NIL;
	ListCell *cell;

	if (list_length(names) > 3)
		return InvalidOid;
	foreach (cell, names)
		strings = lappend(strings, makeString(lfirst(cell)));
	return RangeVarGetRelid(makeRangeVarFromNameList(strings), AccessShareLock, true);
}

/* COPY leaves out what it could not be given back. */
static void
append_columns(StringInfo query, TupleDesc desc)
{
	const char *separator = "";

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);

		if (column->attisdropped || column->attgenerated != '\0')
			continue;
		appendStringInfo(query, "%s%s", separator, quote_identifier(NameStr(column->attname)));
		separator = ", ";
	}
}

/* What COPY of the table gives: no generated columns, no rows of tables that inherit from it. */
static char *
query_on_table(List *names)
{
	Oid            relid = find_table(names);
	Relation       table = OidIsValid(relid) ? relation_open(relid, NoLock) : NULL;
	StringInfoData query;
	ListCell      *cell;
	const char    *separator = "";

	initStringInfo(&query);
	appendStringInfoString(&query, "SELECT ");
	if (table != NULL)
		append_columns(&query, RelationGetDescr(table));
	else
		appendStringInfoChar(&query, '*');
	appendStringInfoString(&query, " FROM ");
	if (table != NULL && table->rd_rel->relkind == RELKIND_RELATION)
		appendStringInfoString(&query, "ONLY ");
	foreach (cell, names)
	{
		appendStringInfo(&query, "%s%s", separator, quote_identifier(lfirst(cell)));
		separator = ".";
	}
	if (table != NULL)
		relation_close(table, NoLock);
	return query.data;
}

/* What a made file name begins with: plain characters, whatever the table's. */
static char *
make_stem(List *names)
{
	char *stem = pstrdup(names == NIL ? "query" : llast(names));

	for (char *c = stem; *c; c++)
		if (!((*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9')))
			*c = '_';
	return stem;
}

static void
refuse_source(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("cannot export this source"),
			 errdetail("%s", detail),
			 errhint("Give one SELECT, VALUES or TABLE statement, or the name of a table.")));
}

/* Does it lock rows, itself or in a part of it, be that a view's? */
static bool
locks_rows(Node *node, void *context)
{
	Query *query = (Query *) node;

	if (node == NULL)
		return false;
	if (!IsA(node, Query))
		return expression_tree_walker(node, locks_rows, context);
	return query->rowMarks != NIL || query_tree_walker(query, locks_rows, context, 0);
}

/* An export must change nothing, and must know its rows before it starts. */
static void
check_plan(SPIPlanPtr plan)
{
	List             *sources = SPI_plan_get_plan_sources(plan);
	CachedPlanSource *source;
	Query            *query;

	if (sources == NIL)
		refuse_source("It is empty.");
	if (list_length(sources) > 1)
		refuse_source("It is more than one statement.");

	source = linitial(sources);
	if (source->raw_parse_tree == NULL || !IsA(source->raw_parse_tree->stmt, SelectStmt))
		refuse_source("It is not a query.");

	query = linitial_node(Query, source->query_list);
	if (query->commandType != CMD_SELECT)
		refuse_source("SELECT INTO makes a table.");
	if (query->hasModifyingCTE)
		refuse_source("A WITH clause in it modifies data.");
	if (locks_rows((Node *) query, NULL))
		refuse_source("It locks rows with FOR UPDATE or FOR SHARE.");
}

/* InvalidOid: it is a view, which the query does not have any more. */
static Oid
exported_table(SPIPlanPtr plan)
{
	CachedPlanSource *source = linitial(SPI_plan_get_plan_sources(plan));
	Query            *query = linitial_node(Query, source->query_list);
	RangeTblEntry    *entry = linitial_node(RangeTblEntry, query->rtable);

	return entry->rtekind == RTE_RELATION ? entry->relid : InvalidOid;
}

static SPIPlanPtr
prepare_source(const char *source, char **stem, Oid *relid)
{
	List             *names = NIL;
	bool              is_table = is_table_name(source, &names);
	SPIPrepareOptions options = {.cursorOptions = CURSOR_OPT_PARALLEL_OK};
	SPIPlanPtr        plan;

	plan = SPI_prepare_extended(is_table ? query_on_table(names) : source, &options);
	if (plan == NULL)
		elog(ERROR, "could not prepare the query: %s", SPI_result_code_string(SPI_result));
	check_plan(plan);
	*stem = make_stem(is_table ? names : NIL);
	*relid = is_table ? exported_table(plan) : InvalidOid;
	return plan;
}

/* The column of a result that has this name. */
static int
find_column(TupleDesc desc, const char *name)
{
	int found = 0;

	for (int i = 0; i < desc->natts; i++)
	{
		if (strcmp(NameStr(TupleDescAttr(desc, i)->attname), name) != 0)
			continue;
		if (found > 0)
			ereport(ERROR, (errcode(ERRCODE_AMBIGUOUS_COLUMN),
							errmsg("cannot partition by column \"%s\"", name),
							errdetail("The query has more than one column of that name.")));
		found = i + 1;
	}
	if (found == 0)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_COLUMN),
						errmsg("cannot partition by column \"%s\"", name),
						errdetail("The query has no column of that name.")));
	if (desc->natts == 1)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("cannot partition by column \"%s\"", name),
						errdetail("The column is left out of the files, and it is the only one.")));
	return found;
}

/* What is to be known of the query's columns. */
static void
describe_columns(SPIPlanPtr plan, Oid relid, OutputFormat *format, ExportRequest *request)
{
	CachedPlanSource *source = linitial(SPI_plan_get_plan_sources(plan));
	ManifestSource    described = {
		   .text = request->source, .relid = relid, .desc = source->resultDesc};
	const char *header = request->files.header_once ? "first" : "all";

	if (format->partition_by != NULL)
		format->csv.partition_column = find_column(source->resultDesc, format->partition_by);
	if (request->manifest)
		request->description = manifest_describe(&described, &format->csv, &format->compression,
												 format->csv.header ? header : "none");
}

/* A plan of the query, and how many parallel workers send its rows: 0, the leader sends all. */
static PlannedStmt *
plan_query(SPIPlanPtr prepared, int workers, int *senders)
{
	CachedPlanSource *source = linitial(SPI_plan_get_plan_sources(prepared));
	Query            *query = linitial_node(Query, source->query_list);

	return parallel_plan(query, source->query_string, workers, senders);
}

static void
execute_alone(PlannedStmt *plan, const char *text, Output *output)
{
	DestReceiver *receiver = row_sender_receiver(output);
	QueryDesc    *execution =
		CreateQueryDesc(plan, text, GetActiveSnapshot(), InvalidSnapshot, receiver, NULL, NULL, 0);

	ExecutorStart(execution, 0);
	csv_receiver_watch(receiver, execution->planstate);
	compat_executor_run(execution);
	ExecutorFinish(execution);
	ExecutorEnd(execution);
	FreeQueryDesc(execution);
}

static void
execute_query(SPIPlanPtr prepared, PlannedStmt *plan, int senders, OutputFormat *format, Pipe *pipe)
{
	CachedPlanSource *source = linitial(SPI_plan_get_plan_sources(prepared));
	const char       *text = source->query_string;
	Output           *output;

	pg_atomic_write_u64(&pipe_progress(pipe)->expected_rows, (uint64) plan->planTree->plan_rows);
	format->alone = senders == 0;
	output = row_sender_open(format, pipe);
	if (senders > 0)
		parallel_execute(plan, text, format, pipe, output);
	else
		execute_alone(plan, text, output);
	row_sender_close(output);
}

/*
 * On a standby nothing but a conflict with recovery has this SQLSTATE.  An export
 * runs longer than other queries, so it meets more of them.
 */
static void
explain_conflict(ErrorData *error)
{
	if (RecoveryInProgress() && error->sqlerrcode == ERRCODE_T_R_SERIALIZATION_FAILURE &&
		error->hint == NULL)
		error->hint =
			pstrdup("Export again; if it happens often, raise \"max_standby_streaming_delay\" on "
					"this standby, or set \"hot_standby_feedback\", with which the primary keeps "
					"the row versions that its queries need.");
}

void
export_check(OutputFormat *format, ExportRequest *request)
{
	SPIPlanPtr        plan;
	CachedPlanSource *plan_source;
	char             *stem;
	Oid               relid;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	plan = prepare_source(request->source, &stem, &relid);
	describe_columns(plan, relid, format, request);
	plan_source = linitial(SPI_plan_get_plan_sources(plan));
	if (isQueryUsingTempRelation(linitial_node(Query, plan_source->query_list)))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot queue an export of temporary tables"),
				 errdetail("They exist in this session alone."), errhint("Use wait => true.")));
	SPI_finish();
}

void
export_run(const Connector *connector, OutputFormat *format, int workers, ExportRequest *request,
		   JobTotals *totals)
{
	MemoryContext context = CurrentMemoryContext;
	Pipe *volatile pipe = NULL;
	SPIPlanPtr prepared;
	Oid        relid;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	prepared = prepare_source(request->source, &request->stem, &relid);
	describe_columns(prepared, relid, format, request);

	PG_TRY();
	{
		int          senders;
		PlannedStmt *plan = plan_query(prepared, workers, &senders);

		pipe = uploader_start_export(connector, request, senders, relid);
		execute_query(prepared, plan, senders, format, pipe);
		MemoryContextSwitchTo(context);
		uploader_finish_export(pipe, totals);
	}
	PG_CATCH();
	{
		ErrorData *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		explain_conflict(error);
		if (pipe != NULL)
			pipe_set_error(pipe, error);
		ReThrowError(error);
	}
	PG_END_TRY();
	SPI_finish();
}
