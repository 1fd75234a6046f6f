/*-------------------------------------------------------------------------
 *
 * current_args.c
 *	  The arguments of create_connector and alter_connector about currents.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/rel.h"
#include "utils/varlena.h"

#include "base/args.h"
#include "aws/aws_names.h"
#include "currents/current_args.h"
#include "format/csv.h"
#include "tables/connector_args.h"

#define MAX_EVENTS_PER_FILE 10000000

/* Further than any interval that makes sense, and no overflow; ms */
#define MAX_INTERVAL (INT64CONST(1000) * SECS_PER_YEAR * 1000)

enum
{
	ARG_PUBLICATION,
	ARG_TABLES,
	ARG_OPERATIONS,
	ARG_COMPRESSION,
	ARG_MAX_EVENTS_PER_FILE,
	ARG_DROP_AFTER,
	ARG_FEED,
	ARG_ORIGIN,
	ARG_HEADER,
	ARG_NULL,
	ARG_FORCE_QUOTE,
	ARG_HEARTBEAT
};

static const char *const names[ARGS_CURRENT] = {
	[ARG_PUBLICATION] = "publication",
	[ARG_TABLES] = "tables",
	[ARG_OPERATIONS] = "operations",
	[ARG_COMPRESSION] = "compression",
	[ARG_MAX_EVENTS_PER_FILE] = "max_events_per_file",
	[ARG_DROP_AFTER] = "drop_after",
	[ARG_FEED] = "feed",
	[ARG_ORIGIN] = "origin",
	[ARG_HEADER] = "header",
	[ARG_NULL] = "null",
	[ARG_FORCE_QUOTE] = "force_quote",
	[ARG_HEARTBEAT] = "heartbeat",
};

/* Locked until the transaction ends, so that they stay. */
static List *
read_tables(FunctionCallInfo fcinfo, int number)
{
	List     *relids = NIL;
	ListCell *cell;

	foreach (cell, args_list(fcinfo, number, names[ARG_TABLES]))
	{
		RangeVar *name =
			makeRangeVarFromNameList(textToQualifiedNameList(cstring_to_text(lfirst(cell))));

		relids = list_append_unique_oid(relids, RangeVarGetRelid(name, AccessShareLock, false));
	}
	return relids;
}

static int
read_operation(const char *name)
{
	static const char *const operations[] = {"insert", "update", "delete", "truncate"};

	for (int i = 0; i < (int) lengthof(operations); i++)
	{
		if (strcmp(name, operations[i]) == 0)
			return OPERATION_BIT(i);
	}
	args_invalid_value(names[ARG_OPERATIONS], name,
					   "They are \"insert\", \"update\", \"delete\" and \"truncate\".");
}

static int
read_operations(FunctionCallInfo fcinfo, int number)
{
	int       operations = 0;
	ListCell *cell;

	StaticAssertStmt(DECODE_INSERT == 0 && DECODE_TRUNCATE == 3, "the order of operations");
	foreach (cell, args_list(fcinfo, number, names[ARG_OPERATIONS]))
		operations |= read_operation(lfirst(cell));
	if (operations == 0)
		args_invalid_value(names[ARG_OPERATIONS], "{}", "There must be at least one.");
	return operations;
}

static const char *
read_compression(FunctionCallInfo fcinfo, int number)
{
	CompressOptions options;

	compress_options(&options, args_text(fcinfo, number), NULL, NULL);
	return compress_name(options.method);
}

static int
read_events_per_file(FunctionCallInfo fcinfo, int number)
{
	int events = PG_GETARG_INT32(number);

	if (events < 1 || events > MAX_EVENTS_PER_FILE)
		args_invalid_value(names[ARG_MAX_EVENTS_PER_FILE], psprintf("%d", events),
						   psprintf("It is between 1 and %d.", MAX_EVENTS_PER_FILE));
	return events;
}

/* In ms, -1: "infinity".  Infinite intervals, of PostgreSQL 17 and later, are far too long. */
static int64
read_interval(FunctionCallInfo fcinfo, int number, int argument)
{
	char     *value = args_text(fcinfo, number);
	Interval *interval;
	double    ms;

	if (pg_strcasecmp(value, "infinity") == 0)
		return -1;
	interval = DatumGetIntervalP(DirectFunctionCall3(
		interval_in, CStringGetDatum(value), ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
	ms = interval->time / 1000.0 +
		 (interval->day + (double) DAYS_PER_MONTH * interval->month) * SECS_PER_DAY * 1000.0;
	if (!(ms >= 1 && ms <= MAX_INTERVAL))
		args_invalid_value(names[argument], value,
						   "It is an interval between 1 millisecond and 1000 years, or "
						   "\"infinity\".");
	return (int64) ms;
}

static const char *
read_feed(FunctionCallInfo fcinfo, int number)
{
	const char *feed = args_text(fcinfo, number);
	const char *wrong = NULL;

	if (feed[0] == '\0')
		wrong = "It is the name of a folder, and not empty.";
	else if (strpbrk(feed, "/{}") != NULL)
		wrong = "It is the name of one folder, and has neither slashes nor braces.";
	else
		wrong = aws_names_check_key(feed);
	if (wrong != NULL)
		args_invalid_value(names[ARG_FEED], feed, wrong);
	return feed;
}

static const char *
read_origin(FunctionCallInfo fcinfo, int number)
{
	const char *origin = args_text(fcinfo, number);

	if (strcmp(origin, "any") != 0 && strcmp(origin, "none") != 0)
		args_invalid_value(
			names[ARG_ORIGIN], origin,
			"It is \"any\", or \"none\" for what was not replicated from elsewhere.");
	return origin;
}

/* What COPY says of it. */
static const char *
read_null(FunctionCallInfo fcinfo, int number)
{
	return csv_options(true, NULL, NULL, NULL, args_text(fcinfo, number), NIL, NULL)->null_print;
}

/* Tables have different columns: all are meant. */
static bool
read_force_quote(FunctionCallInfo fcinfo, int number)
{
	List *columns = args_list(fcinfo, number, names[ARG_FORCE_QUOTE]);

	if (columns == NIL)
		return false;
	if (list_length(columns) > 1 || strcmp(linitial(columns), "*") != 0)
		args_invalid_value(names[ARG_FORCE_QUOTE], linitial(columns),
						   "Of a connector of kind \"currents\" it is \"{*}\", or \"{}\".");
	return true;
}

/* What a publication has is said with CREATE PUBLICATION where the connector does not make it. */
static void
refuse_both(const CurrentSettings *settings)
{
	if (settings->publication == NULL || (!settings->set_tables && settings->operations == 0))
		return;
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("argument \"publication\" excludes \"tables\" and \"operations\""),
					errhint("Change what the publication has with ALTER PUBLICATION.")));
}

/* Places and formats of files. */
static void
read_feed_settings(CurrentSettings *settings, FunctionCallInfo fcinfo, int first)
{
	if (!PG_ARGISNULL(first + ARG_FEED))
		settings->feed = read_feed(fcinfo, first + ARG_FEED);
	if (!PG_ARGISNULL(first + ARG_ORIGIN))
		settings->origin = read_origin(fcinfo, first + ARG_ORIGIN);
	settings->set_header = !PG_ARGISNULL(first + ARG_HEADER);
	if (settings->set_header)
		settings->header = PG_GETARG_BOOL(first + ARG_HEADER);
	if (!PG_ARGISNULL(first + ARG_NULL))
		settings->null_print = read_null(fcinfo, first + ARG_NULL);
	settings->set_force_quote = !PG_ARGISNULL(first + ARG_FORCE_QUOTE);
	if (settings->set_force_quote)
		settings->force_quote = read_force_quote(fcinfo, first + ARG_FORCE_QUOTE);
	settings->set_heartbeat = !PG_ARGISNULL(first + ARG_HEARTBEAT);
	if (settings->set_heartbeat)
		settings->heartbeat = read_interval(fcinfo, first + ARG_HEARTBEAT, ARG_HEARTBEAT);
}

bool
current_args_read(CurrentSettings *settings, FunctionCallInfo fcinfo, int first,
				  const Connector *connector)
{
	bool any = false;

	memset(settings, 0, sizeof(*settings));
	for (int i = 0; i < ARGS_CURRENT; i++)
	{
		if (PG_ARGISNULL(first + i))
			continue;
		any = true;
		if (connector->kind != CONNECTOR_CURRENTS)
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("argument \"%s\" requires a connector of kind \"currents\"",
								   names[i])));
	}
	settings->publication = args_text(fcinfo, first + ARG_PUBLICATION);
	settings->set_tables = !PG_ARGISNULL(first + ARG_TABLES);
	if (settings->set_tables)
		settings->tables = read_tables(fcinfo, first + ARG_TABLES);
	if (!PG_ARGISNULL(first + ARG_OPERATIONS))
		settings->operations = read_operations(fcinfo, first + ARG_OPERATIONS);
	if (!PG_ARGISNULL(first + ARG_COMPRESSION))
		settings->compression = read_compression(fcinfo, first + ARG_COMPRESSION);
	if (!PG_ARGISNULL(first + ARG_MAX_EVENTS_PER_FILE))
		settings->events_per_file = read_events_per_file(fcinfo, first + ARG_MAX_EVENTS_PER_FILE);
	refuse_both(settings);
	settings->set_drop_after = !PG_ARGISNULL(first + ARG_DROP_AFTER);
	if (settings->set_drop_after)
		settings->drop_after = read_interval(fcinfo, first + ARG_DROP_AFTER, ARG_DROP_AFTER);
	read_feed_settings(settings, fcinfo, first);
	return any;
}
