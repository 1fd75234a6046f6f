/*-------------------------------------------------------------------------
 *
 * manifest.c
 *	  The JSON document that says what an export consists of.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/json.h"

#include "encoding.h"
#include "json_member.h"
#include "manifest.h"
#include "path.h"

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
	appendStringInfoChar(buf, '{');
	json_member_append(buf, "name", NameStr(column->attname));
	appendStringInfoString(buf, ", ");
	json_member_append(buf, "type", format_type_with_typemod(column->atttypid, column->atttypmod));
	appendStringInfoChar(buf, '}');
}

static void
append_columns(StringInfo buf, TupleDesc desc, int left_out)
{
	const char *separator = "";

	appendStringInfoString(buf, "  \"columns\": [");
	for (int i = 0; i < desc->natts; i++)
	{
		if (i == left_out)
			continue;
		appendStringInfo(buf, "%s\n    ", separator);
		append_column(buf, TupleDescAttr(desc, i));
		separator = ",";
	}
	appendStringInfoString(buf, "\n  ]");
}

char *
manifest_describe(TupleDesc desc, const CsvOptions *csv, const CompressOptions *compression,
				  const char *header)
{
	int            left_out = csv->partition_column - 1;
	StringInfoData buf;

	initStringInfo(&buf);
	append_columns(&buf, desc, left_out);
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
		append_column(&buf, TupleDescAttr(desc, left_out));
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
	char *column = path_hive_value(psprintf("=%.*s", (int) strcspn(folder, "="), folder));

	appendStringInfoString(buf, ", \"partition\": {");
	json_member_append(buf, column, path_hive_value(folder));
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
	return encoding_to_utf8(buf.data);
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
	return encoding_to_utf8(buf.data);
}
