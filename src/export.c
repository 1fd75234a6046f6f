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

#include "executor/spi.h"
#include "nodes/parsenodes.h"
#include "parser/parse_relation.h"
#include "utils/builtins.h"
#include "utils/plancache.h"
#include "utils/varlena.h"

#include "export.h"
#include "parallel.h"

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

static char *
query_on_table(List *names)
{
	StringInfoData query;
	ListCell      *cell;
	const char    *separator = "";

	initStringInfo(&query);
	appendStringInfoString(&query, "SELECT * FROM ");
	foreach (cell, names)
	{
		appendStringInfo(&query, "%s%s", separator, quote_identifier(lfirst(cell)));
		separator = ".";
	}
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
refuse(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("cannot export this source"),
			 errdetail("%s", detail),
			 errhint("Give one SELECT, VALUES or TABLE statement, or the name of a table.")));
}

/* An export must change nothing, and must know its rows before it starts. */
static void
check_plan(SPIPlanPtr plan)
{
	List             *sources = SPI_plan_get_plan_sources(plan);
	CachedPlanSource *source;
	Query            *query;

	if (sources == NIL)
		refuse("It is empty.");
	if (list_length(sources) > 1)
		refuse("It is more than one statement.");

	source = linitial(sources);
	if (source->raw_parse_tree == NULL || !IsA(source->raw_parse_tree->stmt, SelectStmt))
		refuse("It is not a query.");

	query = linitial_node(Query, source->query_list);
	if (query->commandType != CMD_SELECT)
		refuse("SELECT INTO makes a table.");
	if (query->hasModifyingCTE)
		refuse("A WITH clause in it modifies data.");
	if (query->rowMarks != NIL)
		refuse("It locks rows with FOR UPDATE or FOR SHARE.");
}

static SPIPlanPtr
prepare(const char *source, char **stem)
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
	return plan;
}


static void
execute_alone(SPIPlanPtr plan, Output *output)
{
	SPIExecuteOptions options = {
		.read_only = true,
		.dest = output_receiver(output),
	};
	int result = SPI_execute_plan_extended(plan, &options);

	if (result < 0)
		elog(ERROR, "could not execute the query: %s", SPI_result_code_string(result));
}

static void
execute(SPIPlanPtr plan, int workers, const OutputFormat *format, Pipe *pipe)
{
	CachedPlanSource *source = linitial(SPI_plan_get_plan_sources(plan));
	Output           *output = output_open(format, pipe);
	PlannedStmt      *parallel = NULL;

	if (workers > 0)
		parallel =
			parallel_plan(linitial_node(Query, source->query_list), source->query_string, workers);
	if (parallel != NULL)
		parallel_execute(parallel, source->query_string, format, pipe, output);
	else
		execute_alone(plan, output);
	output_close(output);
}

void
export_check(const char *source)
{
	SPIPlanPtr        plan;
	CachedPlanSource *plan_source;
	char             *stem;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	plan = prepare(source, &stem);
	plan_source = linitial(SPI_plan_get_plan_sources(plan));
	if (isQueryUsingTempRelation(linitial_node(Query, plan_source->query_list)))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot queue an export of temporary tables"),
				 errdetail("They exist in this session alone."), errhint("Use wait => true.")));
	SPI_finish();
}

void
export_run(const Connector *connector, const OutputFormat *format, int workers,
		   TransferRequest *export, TransferTotals *totals)
{
	MemoryContext context = CurrentMemoryContext;
	SPIPlanPtr    plan;
	Pipe         *pipe;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	plan = prepare(export->source, &export->stem);

	pipe = uploader_start_export(connector, export, workers);
	PG_TRY();
	{
		execute(plan, workers, format, pipe);
		MemoryContextSwitchTo(context);
		uploader_finish_export(pipe, totals);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		pipe_set_error(pipe, CopyErrorData());
		PG_RE_THROW();
	}
	PG_END_TRY();
	SPI_finish();
}
