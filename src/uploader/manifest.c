/*-------------------------------------------------------------------------
 *
 * manifest.c
 *	  The JSON document that says what an export consists of.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/sysattr.h"
#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "commands/dbcommands.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/bitmapset.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/syscache.h"

#include "base/json_member.h"
#include "base/object_path.h"
#include "tables/utf8.h"
#include "uploader/manifest.h"

#define MANIFEST_VERSION 1
#define NAMED_FORMAT 1

static void
append_char(StringInfo buf, const char *name, char value)
{
	char text[2] = {value, '\0'};

	json_member_append(buf, name, text);
	appendStringInfoString(buf, ", ");
}

static void
append_column(StringInfo buf, Form_pg_attribute column)
{
	json_member_append(buf, "name", NameStr(column->attname));
	appendStringInfoString(buf, ", ");
	json_member_append(buf, "type", format_type_with_typemod(column->atttypid, column->atttypmod));
}

/* Of the result of a query nothing says whether it may be null. */
static void
append_nullable(StringInfo buf, const ManifestSource *source, const char *name)
{
	HeapTuple   column = NULL;
	const char *nullable = "null";

	if (OidIsValid(source->relid))
		column = SearchSysCacheAttName(source->relid, name);
	if (HeapTupleIsValid(column))
	{
		nullable = ((Form_pg_attribute) GETSTRUCT(column))->attnotnull ? "false" : "true";
		ReleaseSysCache(column);
	}
	appendStringInfo(buf, ", \"nullable\": %s", nullable);
}

static void
append_columns(StringInfo buf, const ManifestSource *source, int left_out)
{
	const char *separator = "";

	appendStringInfoString(buf, "  \"columns\": [");
	for (int i = 0; i < source->desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(source->desc, i);

		if (i == left_out)
			continue;
		appendStringInfo(buf, "%s\n    {", separator);
		append_column(buf, column);
		append_nullable(buf, source, NameStr(column->attname));
		appendStringInfoChar(buf, '}');
		separator = ",";
	}
	appendStringInfoString(buf, "\n  ]");
}

/* Of a table without a primary key, or a query: null. */
static void
append_key(StringInfo buf, Oid relid)
{
	Relation    table = OidIsValid(relid) ? relation_open(relid, AccessShareLock) : NULL;
	Bitmapset  *key = NULL;
	const char *separator = "";
	int         number = -1;

	if (table != NULL)
		key = RelationGetIndexAttrBitmap(table, INDEX_ATTR_BITMAP_PRIMARY_KEY);
	appendStringInfo(buf, "  \"primary_key\": %s", key != NULL ? "[" : "null");
	while ((number = bms_next_member(key, number)) >= 0)
	{
		AttrNumber attribute = (AttrNumber) (number + FirstLowInvalidHeapAttributeNumber);

		appendStringInfoString(buf, separator);
		escape_json(buf, get_attname(relid, attribute, false));
		separator = ", ";
	}
	if (key != NULL)
		appendStringInfoChar(buf, ']');
	if (table != NULL)
		relation_close(table, AccessShareLock);
}

static char *
qualified_name(Oid relid)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
									  get_rel_name(relid));
}

/* What this was a view of: what a loader that also reads changes begins with. */
static void
append_source(StringInfo buf, const ManifestSource *source)
{
	bool       is_table = OidIsValid(source->relid);
	XLogRecPtr lsn = RecoveryInProgress() ? GetXLogReplayRecPtr(NULL) : GetXLogInsertRecPtr();

	appendStringInfoString(buf, "  \"source\": {");
	json_member_append(buf, "database", get_database_name(MyDatabaseId));
	appendStringInfoString(buf, ", ");
	json_member_append(buf, is_table ? "table" : "query",
					   is_table ? qualified_name(source->relid) : source->text);
	appendStringInfoString(buf, ", ");
	json_member_append(
		buf, "snapshot",
		OidOutputFunctionCall(F_PG_SNAPSHOT_OUT, OidFunctionCall0(F_PG_CURRENT_SNAPSHOT)));
	appendStringInfo(buf, ", \"lsn\": \"%X/%X\"},\n", LSN_FORMAT_ARGS(lsn));
}

/* Those that the text of values depends on. */
static void
append_settings(StringInfo buf)
{
	static const char *const names[] = {"DateStyle", "IntervalStyle", "TimeZone", "bytea_output",
										"extra_float_digits"};

	appendStringInfoString(buf, "  \"settings\": {");
	for (size_t i = 0; i < lengthof(names); i++)
	{
		appendStringInfoString(buf, i > 0 ? ", " : "");
		json_member_append(buf, names[i], GetConfigOption(names[i], false, false));
	}
	appendStringInfoString(buf, "},\n");
}

char *
manifest_describe(const ManifestSource *source, const CsvOptions *csv,
				  const CompressOptions *compression, const char *header)
{
	int            left_out = csv->partition_column - 1;
	StringInfoData buf;

	initStringInfo(&buf);
	append_source(&buf, source);
	append_settings(&buf);
	append_columns(&buf, source, left_out);
	appendStringInfoString(&buf, ",\n");
	append_key(&buf, source->relid);
	appendStringInfoString(&buf, ",\n  \"format\": {");
	append_char(&buf, "delimiter", csv->delimiter);
	append_char(&buf, "quote", csv->quote);
	append_char(&buf, "escape", csv->escape);
	json_member_append(&buf, "null", csv->null_print);
	appendStringInfoString(&buf, ", ");
	json_member_append(&buf, "encoding", pg_encoding_to_char(csv->encoding));
	appendStringInfoString(&buf, ", ");
	json_member_append(&buf, "header", header);
	appendStringInfoString(&buf, ", ");
	json_member_append(&buf, "compression", compress_name(compression->method));
	appendStringInfoString(&buf, ", \"partition_by\": ");
	if (left_out >= 0)
	{
		appendStringInfoChar(&buf, '{');
		append_column(&buf, TupleDescAttr(source->desc, left_out));
		appendStringInfoChar(&buf, '}');
	}
	else
		appendStringInfoString(&buf, "null");
	appendStringInfoChar(&buf, '}');
	return buf.data;
}

static void
append_time(StringInfo buf, const char *name, pg_time_t time)
{
	char stamp[32];

	pg_strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%SZ", pg_gmtime(&time));
	appendStringInfoString(buf, "  ");
	json_member_append(buf, name, stamp);
	appendStringInfoString(buf, ",\n");
}

/* The folder's name is encoded, and so is the column's in it. */
static void
append_partition(StringInfo buf, const char *folder)
{
	char *column = object_path_hive_value(psprintf("=%.*s", (int) strcspn(folder, "="), folder));

	appendStringInfoString(buf, ", \"partition\": {");
	json_member_append(buf, column, object_path_hive_value(folder));
	appendStringInfoChar(buf, '}');
}

static void
append_sums(StringInfo buf, const JobFile *file)
{
	appendStringInfo(buf, ", \"rows\": " UINT64_FORMAT ", \"bytes\": " UINT64_FORMAT ", ",
					 file->rows, file->bytes);
	json_member_append(buf, "etag", file->etag);
	appendStringInfoString(buf, ", ");
	json_member_append(buf, "crc32c", file->crc32c);
}

static void
append_file(StringInfo buf, const JobFile *file)
{
	json_member_append(buf, "uri", file->uri);
	append_sums(buf, file);
	appendStringInfoString(buf, ", ");
	json_member_append(buf, "sha256", files_sha256(file));
	appendStringInfo(buf, ", \"csv_bytes\": " UINT64_FORMAT, files_csv_bytes(file));
	if (files_folder(file) != NULL)
		append_partition(buf, files_folder(file));
}

static void
append_named_file(StringInfo buf, const JobFile *file)
{
	json_member_append(buf, "uri", file->uri);
	appendStringInfoString(buf, ", ");
	json_member_append(buf, "path", files_folder(file));
	if (files_description(file) != NULL)
		appendStringInfo(buf, ", %s", files_description(file));
	append_sums(buf, file);
}

static void
append_files(StringInfo buf, const List *files, void (*append)(StringInfo, const JobFile *))
{
	const char *separator = "";
	ListCell   *cell;

	appendStringInfoString(buf, "  \"files\": [");
	foreach (cell, files)
	{
		appendStringInfo(buf, "%s\n    {", separator);
		append(buf, lfirst(cell));
		appendStringInfoChar(buf, '}');
		separator = ",";
	}
	appendStringInfoString(buf, "\n  ],\n");
}

static void
append_totals(StringInfo buf, const Files *files)
{
	JobTotals totals;

	files_get_totals(files, &totals);
	appendStringInfo(buf,
					 "  \"totals\": {\"files\": %d, \"rows\": " UINT64_FORMAT
					 ", \"bytes\": " UINT64_FORMAT "}\n}\n",
					 totals.files, totals.rows, totals.bytes);
}

char *
manifest_make(const FilesOptions *options, const char *description, Files *files)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfo(&buf, "{\n  \"version\": %d,\n  \"job_id\": %s,\n  ", MANIFEST_VERSION,
					 options->job_id != JOB_UNRECORDED ? options->label : "null");
	json_member_append(&buf, "connector", options->connector->name);
	appendStringInfoString(&buf, ",\n");
	append_time(&buf, "started_at", (pg_time_t) options->started);
	append_time(&buf, "finished_at", (pg_time_t) time(NULL));
	appendStringInfo(&buf, "%s,\n", description);
	append_files(&buf, files_in_order(files), append_file);
	append_totals(&buf, files);
	return utf8_from_database(buf.data);
}

char *
manifest_make_named(const Files *files)
{
	const char    *description = files_whole_description(files);
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfo(&buf, "{\n  \"format\": %d,\n", NAMED_FORMAT);
	if (description != NULL)
		appendStringInfo(&buf, "  %s,\n", description);
	append_files(&buf, files_in_order(files), append_named_file);
	append_totals(&buf, files);
	return utf8_from_database(buf.data);
}
