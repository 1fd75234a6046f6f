/*-------------------------------------------------------------------------
 *
 * copy_api.c
 *	  SQL functions about exports.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "compat.h"
#include "connector_args.h"
#include "export.h"
#include "guc.h"
#include "names.h"

SQL_FUNCTION(s3export_copy_to);

/* The arguments of copy_to, in the order of its declaration. */
enum
{
	ARG_CONNECTOR,
	ARG_SOURCE,
	ARG_PATH,
	ARG_HEADER,
	ARG_DELIMITER,
	ARG_QUOTE,
	ARG_ESCAPE,
	ARG_NULL,
	ARG_FORCE_QUOTE,
	ARG_ENCODING,
	ARG_COMPRESSION,
	ARG_COMPRESSION_LEVEL,
	ARG_IF_EXISTS,
	ARG_ON_EMPTY,
	ARG_PARALLEL,
	ARG_OBJECT /* and the next, as args_set_object wants them */
};

static char *
text_argument(FunctionCallInfo fcinfo, int number)
{
	return PG_ARGISNULL(number) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(number));
}

static char *
required_argument(FunctionCallInfo fcinfo, int number, const char *name)
{
	char *value = text_argument(fcinfo, number);

	if (value == NULL)
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("argument \"%s\" must not be null", name)));
	return value;
}

/* Which of "choices" (NULL-terminated) the argument is. */
static int
choice_argument(FunctionCallInfo fcinfo, int number, const char *name, const char *const *choices,
				const char *detail)
{
	char *value = required_argument(fcinfo, number, name);

	for (int i = 0; choices[i] != NULL; i++)
		if (strcmp(value, choices[i]) == 0)
			return i;
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("invalid value for argument \"%s\": \"%s\"", name, value),
					errdetail("%s", detail)));
}

static List *
list_argument(FunctionCallInfo fcinfo, int number)
{
	List  *list = NIL;
	Datum *values;
	bool  *nulls;
	int    count;

	if (PG_ARGISNULL(number))
		return NIL;
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(number), TEXTOID, -1, false, TYPALIGN_INT, &values,
					  &nulls, &count);
	for (int i = 0; i < count; i++)
	{
		if (nulls[i])
			ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
							errmsg("argument \"force_quote\" must not contain nulls")));
		list = lappend(list, TextDatumGetCString(values[i]));
	}
	return list;
}

static const CsvOptions *
csv_arguments(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(ARG_HEADER))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("argument \"header\" must not be null")));
	return csv_options(PG_GETARG_BOOL(ARG_HEADER), text_argument(fcinfo, ARG_DELIMITER),
					   text_argument(fcinfo, ARG_QUOTE), text_argument(fcinfo, ARG_ESCAPE),
					   text_argument(fcinfo, ARG_NULL), list_argument(fcinfo, ARG_FORCE_QUOTE),
					   text_argument(fcinfo, ARG_ENCODING));
}

static CompressOptions
compression_arguments(FunctionCallInfo fcinfo)
{
	CompressOptions options;
	int level = PG_ARGISNULL(ARG_COMPRESSION_LEVEL) ? 0 : PG_GETARG_INT32(ARG_COMPRESSION_LEVEL);

	compress_options(&options, text_argument(fcinfo, ARG_COMPRESSION),
					 PG_ARGISNULL(ARG_COMPRESSION_LEVEL) ? NULL : &level,
					 text_argument(fcinfo, ARG_PATH));
	return options;
}

/* Like VACUUM's option, the argument asks for less than the setting allows. */
static int
parallel_argument(FunctionCallInfo fcinfo)
{
	int workers;

	if (PG_ARGISNULL(ARG_PARALLEL))
		return guc_max_parallel_workers;
	workers = PG_GETARG_INT32(ARG_PARALLEL);
	if (workers < 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("invalid value for argument \"parallel\": %d", workers),
						errdetail("It is a number of parallel workers, or 0 for none.")));
	return Min(workers, guc_max_parallel_workers);
}

/* The path below the folder; the whole key is what S3 limits. */
static char *
path_argument(FunctionCallInfo fcinfo, const Connector *connector)
{
	char       *path = text_argument(fcinfo, ARG_PATH);
	const char *wrong;

	if (path == NULL)
		return NULL;
	wrong = names_check_key(
		connector->folder_path[0] ? psprintf("%s/%s", connector->folder_path, path) : path);
	if (wrong != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for argument \"path\": \"%s\"", path),
				 errdetail("%s", wrong),
				 errhint("The path is the object's name below the connector's folder, such as "
						 "\"2026/orders.csv\".")));
	return path;
}

/*
 * Who may use a connector decides what his objects are, but not who can read
 * them or whether they are encrypted: the connector's owner does.
 */
static void
override_object(FunctionCallInfo fcinfo, Connector *connector)
{
	static const struct
	{
		int         number;
		const char *name;
	} of_owner[] = {
		{ARG_OBJECT, "server_side_encryption"},
		{ARG_OBJECT + 1, "kms_key_id"},
		{ARG_OBJECT + 2, "bucket_key"},
		{ARG_OBJECT + 5, "acl"},
	};

	for (size_t i = 0; i < lengthof(of_owner); i++)
	{
		if (!PG_ARGISNULL(of_owner[i].number) && !has_privs_of_role(GetUserId(), connector->owner))
			ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
							errmsg("must be owner of connector \"%s\" to use argument \"%s\"",
								   connector->name, of_owner[i].name)));
	}
	(void) args_set_object(connector, fcinfo, ARG_OBJECT);
}

static Datum
totals_row(FunctionCallInfo fcinfo, const TransferTotals *totals)
{
	TupleDesc tupdesc;
	Datum     values[5];
	bool      nulls[5] = {false};

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	values[0] = Int64GetDatum(totals->job_id);
	nulls[1] = totals->uri == NULL;
	values[1] = nulls[1] ? (Datum) 0 : CStringGetTextDatum(totals->uri);
	values[2] = Int64GetDatum((int64) totals->rows);
	values[3] = Int64GetDatum(totals->files);
	values[4] = Int64GetDatum((int64) totals->bytes);
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(tupdesc), values, nulls));
}

Datum
s3export_copy_to(PG_FUNCTION_ARGS)
{
	static const char *const if_exists[] = {"error", "overwrite", NULL};
	static const char *const on_empty[] = {"file", "skip", "error", NULL};
	TransferRequest export = {0};
	TransferTotals totals;
	Connector     *connector;
	OutputFormat   format;
	char          *name;
	int            workers;

	PreventCommandDuringRecovery("s3export.copy_to()");

	name = required_argument(fcinfo, ARG_CONNECTOR, "connector");
	export.owner = GetUserId();
	export.source = required_argument(fcinfo, ARG_SOURCE, "source");
	export.overwrite = choice_argument(fcinfo, ARG_IF_EXISTS, "if_exists", if_exists,
									   "It is \"error\" or \"overwrite\".") == 1;
	export.on_empty = (TransferOnEmpty) choice_argument(fcinfo, ARG_ON_EMPTY, "on_empty", on_empty,
														"It is \"file\", \"skip\" or \"error\".");
	format.csv = *csv_arguments(fcinfo);
	format.compression = compression_arguments(fcinfo);
	export.suffix = psprintf(".csv%s", compress_suffix(format.compression.method));
	export.content_type = compress_content_type(format.compression.method);
	workers = parallel_argument(fcinfo);

	connector = connector_load(name, CONNECTOR_USAGE);
	connector_require_credentials(connector);
	override_object(fcinfo, connector);
	export.path = path_argument(fcinfo, connector);

	export_run(connector, &format, workers, &export, &totals);
	PG_RETURN_DATUM(totals_row(fcinfo, &totals));
}
