/*-------------------------------------------------------------------------
 *
 * copy_args.c
 *	  The arguments of copy_to, from SQL and from the row of a queued job.
 *
 * A job's row has them by name, as text, so that it does not depend on the
 * order in which a version of the extension declares them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "parser/parse_func.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "base/args.h"
#include "aws/aws_names.h"
#include "base/guc.h"
#include "base/object_path.h"
#include "export/copy_args.h"
#include "tables/connector_args.h"
#include "tables/job.h"

/* Of max_file_size: blocks become so small below it that they compress badly. */
#define MIN_FILE_SIZE (1024 * 1024)

/* Of a query, which is kept as long as the job's row; bytes */
#define MAX_SOURCE (1024 * 1024)

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
	ARG_MAX_FILE_SIZE,
	ARG_MAX_ROWS_PER_FILE,
	ARG_PARTITION_BY,
	ARG_MANIFEST,
	ARG_OBJECT, /* and the next, as args_set_object wants them */
	ARG_WAIT = ARG_OBJECT + ARGS_OBJECT,
	ARG_SETTINGS,
	ARG_RETRY_FOR
};

static char *
source_argument(FunctionCallInfo fcinfo)
{
	char *source = args_required_text(fcinfo, ARG_SOURCE, "source");

	if (strlen(source) > MAX_SOURCE)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("argument \"source\" is too long"),
				 errdetail("It has %zu bytes; the limit is %d.", strlen(source), MAX_SOURCE),
				 errhint("Make a view of the query.")));
	return source;
}

/* "all", "first" or "none" */
static const char *
header_argument(FunctionCallInfo fcinfo)
{
	args_require_not_null(fcinfo, ARG_HEADER, "header");
	return DatumGetCString(DirectFunctionCall1(enum_out, PG_GETARG_DATUM(ARG_HEADER)));
}

static const CsvOptions *
csv_arguments(FunctionCallInfo fcinfo, bool header)
{
	return csv_options(header, args_text(fcinfo, ARG_DELIMITER), args_text(fcinfo, ARG_QUOTE),
					   args_text(fcinfo, ARG_ESCAPE), args_text(fcinfo, ARG_NULL),
					   args_list(fcinfo, ARG_FORCE_QUOTE, "force_quote"),
					   args_text(fcinfo, ARG_ENCODING));
}

static CompressOptions
compression_arguments(FunctionCallInfo fcinfo)
{
	CompressOptions options;
	int level = PG_ARGISNULL(ARG_COMPRESSION_LEVEL) ? 0 : PG_GETARG_INT32(ARG_COMPRESSION_LEVEL);

	compress_options(&options, args_text(fcinfo, ARG_COMPRESSION),
					 PG_ARGISNULL(ARG_COMPRESSION_LEVEL) ? NULL : &level,
					 args_text(fcinfo, ARG_PATH));
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

static void
refuse_path(const char *path, const char *detail, const char *hint)
{
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("invalid value for argument \"path\": \"%s\"", path),
					errdetail("%s", detail), errhint("%s", hint)));
}

/* Whoever finds a file by such a name takes it for what it is not. */
static void
refuse_foreign_format(const char *path)
{
	const char *format = object_path_foreign_format(path);

	if (format != NULL)
		refuse_path(path, psprintf("Files named .%s are no CSV, and s3export writes CSV.", format),
					"Choose a name such as \"orders.csv\", or with \".gz\", \".zst\" or \".lz4\" "
					"added for a compressed file.");
}

/*
 * The path below the folder.  The whole key is what S3 limits, and is looked at
 * as that of the first job's first file.
 */
static char *
path_argument(FunctionCallInfo fcinfo, const Connector *connector)
{
	PathFields  fields = {.connector = connector->name, .job = "1", .part = 1};
	char       *path = args_text(fcinfo, ARG_PATH);
	const char *wrong;
	char       *key;

	if (path == NULL)
		return NULL;
	wrong = object_path_check(path);
	if (wrong != NULL)
		refuse_path(path, wrong, PATH_PLACEHOLDERS);
	refuse_foreign_format(path);
	key = object_path_expand(path, &fields);
	if (connector->folder_path[0])
		key = psprintf("%s/%s", connector->folder_path, key);
	wrong = aws_names_check_key(key);
	if (wrong != NULL)
		refuse_path(path, wrong,
					"The path is the object's name below the connector's folder, such as "
					"\"2026/orders.csv\".");
	return path;
}

/* Bytes, as other settings of size are written. */
static uint64
file_size_argument(FunctionCallInfo fcinfo)
{
	int64 size;

	if (PG_ARGISNULL(ARG_MAX_FILE_SIZE))
		return 0;
	size = DatumGetInt64(DirectFunctionCall1(pg_size_bytes, PG_GETARG_DATUM(ARG_MAX_FILE_SIZE)));
	if (size < MIN_FILE_SIZE)
		args_invalid_value("max_file_size", args_text(fcinfo, ARG_MAX_FILE_SIZE),
						   "It is at least 1 MB.");
	return (uint64) size;
}

static uint64
file_rows_argument(FunctionCallInfo fcinfo)
{
	int64 rows;

	if (PG_ARGISNULL(ARG_MAX_ROWS_PER_FILE))
		return 0;
	rows = PG_GETARG_INT64(ARG_MAX_ROWS_PER_FILE);
	if (rows < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for argument \"max_rows_per_file\": " INT64_FORMAT, rows),
				 errdetail("It is at least 1.")));
	return (uint64) rows;
}

/* How the result becomes files, and what each of them is. */
static void
file_arguments(FunctionCallInfo fcinfo, OutputFormat *format, ExportRequest *request)
{
	const char *header = header_argument(fcinfo);

	format->csv = *csv_arguments(fcinfo, strcmp(header, "none") != 0);
	format->compression = compression_arguments(fcinfo);
	format->partition_by = args_text(fcinfo, ARG_PARTITION_BY);
	format->max_file_size = request->files.max_file_size = file_size_argument(fcinfo);
	format->csv.max_rows_per_file = request->files.max_rows_per_file = file_rows_argument(fcinfo);
	request->files.header_once = strcmp(header, "first") == 0;
	request->files.partitioned = format->partition_by != NULL;
	request->manifest = !PG_ARGISNULL(ARG_MANIFEST) && PG_GETARG_BOOL(ARG_MANIFEST);
	request->suffix = psprintf(".csv%s", compress_suffix(format->compression.method));
	request->files.compression = format->compression.method;
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

/* A current's folder has its files alone, each event once. */
static void
require_data_export(const Connector *connector)
{
	if (connector->kind != CONNECTOR_DATA_EXPORT)
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("connector \"%s\" is not of kind \"data_export\"", connector->name),
						errdetail("Nothing but the changes of its tables goes to the folder of a "
								  "connector of kind \"%s\".",
								  connector_kind_name(connector->kind)),
						errhint("Use another connector, or create one with another folder_path and "
								"credentials_from => %s.",
								quote_literal_cstr(connector->name))));
}

bool
copy_args_wait(FunctionCallInfo fcinfo)
{
	return args_required_bool(fcinfo, ARG_WAIT, "wait");
}

TimestampTz
copy_args_retry_until(FunctionCallInfo fcinfo)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz until;

	if (PG_ARGISNULL(ARG_RETRY_FOR))
		return DT_NOBEGIN;
	if (copy_args_wait(fcinfo))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("argument \"retry_for\" requires \"wait\" to be false"),
						errdetail("An export that its caller waits for is not tried again."),
						errhint("Queue it with wait => false, and use s3export.wait() to wait.")));
	until = DatumGetTimestampTz(DirectFunctionCall2(
		timestamptz_pl_interval, TimestampTzGetDatum(now), PG_GETARG_DATUM(ARG_RETRY_FOR)));
	if (until <= now)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("argument \"retry_for\" must be greater than zero")));
	return until;
}

List *
copy_args_settings(FunctionCallInfo fcinfo)
{
	return args_list(fcinfo, ARG_SETTINGS, "settings");
}

void
copy_args_get(FunctionCallInfo fcinfo, int64 connector_id, CopyArguments *arguments)
{
	static const char *const if_exists[] = {"error", "overwrite", NULL};
	static const char *const on_empty[] = {"file", "skip", "error", NULL};
	ExportRequest           *request = &arguments->request;
	OutputFormat            *format = &arguments->format;
	char                    *name = args_required_text(fcinfo, ARG_CONNECTOR, "connector");

	memset(arguments, 0, sizeof(*arguments));
	request->owner = GetUserId();
	request->exporter = GetUserNameFromId(request->owner, false);
	request->places = superuser() ? 0 : Max(guc_exports_of_role(), 1);
	request->source = source_argument(fcinfo);
	request->files.overwrite = args_required_choice(fcinfo, ARG_IF_EXISTS, "if_exists", if_exists,
													"It is \"error\" or \"overwrite\".") == 1;
	request->on_empty = (ExportOnEmpty) args_required_choice(
		fcinfo, ARG_ON_EMPTY, "on_empty", on_empty, "It is \"file\", \"skip\" or \"error\".");
	file_arguments(fcinfo, format, request);
	arguments->workers = parallel_argument(fcinfo);

	arguments->connector = connector_id != 0 ? connector_load_by_id(connector_id, CONNECTOR_USAGE)
											 : connector_load(name, CONNECTOR_USAGE);
	require_data_export(arguments->connector);
	connector_require_credentials(arguments->connector);
	connector_require_place(arguments->connector);
	request->own_only = !arguments->connector->may_overwrite;
	override_object(fcinfo, arguments->connector);
	request->path = path_argument(fcinfo, arguments->connector);
}

/* ---- in the row of a job ---- */

/* The declaration of copy_to; returns how many arguments it has. */
static int
lookup_declaration(Oid function, Oid **types, char ***names)
{
	HeapTuple tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	char     *modes;
	int       count;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", function);
	(void) get_func_arg_info(tuple, types, names, &modes);
	count = ((Form_pg_proc) GETSTRUCT(tuple))->pronargs;
	ReleaseSysCache(tuple);
	return count;
}

List *
copy_args_to_pairs(FunctionCallInfo fcinfo)
{
	List  *pairs = NIL;
	Oid   *types;
	char **names;
	int    count = lookup_declaration(fcinfo->flinfo->fn_oid, &types, &names);

	for (int i = 0; i < count; i++)
	{
		JobPair *pair;
		Oid      output;
		bool     is_varlena;

		if (PG_ARGISNULL(i) || i == ARG_SOURCE || i == ARG_WAIT || i == ARG_SETTINGS ||
			i == ARG_RETRY_FOR)
			continue;
		getTypeOutputInfo(types[i], &output, &is_varlena);
		pair = palloc(sizeof(JobPair));
		pair->name = names[i];
		pair->value = OidOutputFunctionCall(output, PG_GETARG_DATUM(i));
		pairs = lappend(pairs, pair);
	}
	return pairs;
}

static const char *
value_of(List *pairs, const char *name)
{
	ListCell *cell;

	foreach (cell, pairs)
	{
		const JobPair *pair = lfirst(cell);

		if (strcmp(pair->name, name) == 0)
			return pair->value;
	}
	return NULL;
}

FunctionCallInfo
copy_args_from_pairs(List *pairs)
{
	List            *name = list_make2(makeString("s3export"), makeString("copy_to"));
	Oid              any = InvalidOid; /* not looked at, but asked for */
	Oid              function = LookupFuncName(name, -1, &any, false);
	Oid             *types;
	char           **names;
	int              count = lookup_declaration(function, &types, &names);
	FunctionCallInfo fcinfo = palloc(SizeForFunctionCallInfo(count));
	FmgrInfo        *flinfo = palloc(sizeof(FmgrInfo));

	fmgr_info(function, flinfo);
	InitFunctionCallInfoData(*fcinfo, flinfo, (short) count, InvalidOid, NULL, NULL);
	for (int i = 0; i < count; i++)
	{
		const char *value = value_of(pairs, names[i]);
		Oid         input;
		Oid         io_param;

		fcinfo->args[i].isnull = value == NULL;
		fcinfo->args[i].value = (Datum) 0;
		if (value == NULL)
			continue;
		getTypeInputInfo(types[i], &input, &io_param);
		fcinfo->args[i].value =
			OidInputFunctionCall(input, unconstify(char *, value), io_param, -1);
	}
	return fcinfo;
}
