/*-------------------------------------------------------------------------
 *
 * batch_file.c
 *	  The files of a batch, and the objects beside them.
 *
 * Rows gather in a block for each table.  A table whose events fit its block
 * costs the uploader nothing before the end, so that there is one file for each of
 * many tables; of the others only so many are written to at the same time, and
 * when another one begins, the file that was used longest ago is ended.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/json_member.h"
#include "currents/batch_internal.h"
#include "tables/utf8.h"
#include "uploader/uploader.h"

/* A transaction may have any number of events: its files become larger instead of many more. */
#define FILES_BEFORE_DOUBLING 1000

/* ---- the uploader ---- */

/* Changes come in transactions of their own, which the pipe outlives. */
static void
open_pipe(Batch *batch)
{
	const Current *current = batch->current;
	MemoryContext  old = MemoryContextSwitchTo(batch->context);
	ResourceOwner  owner = CurrentResourceOwner;
	ExportRequest  request = {
		 .owner = current->connector->owner,
		 .source = batch->start != InvalidXLogRecPtr
					   ? psprintf("changes after %X/%X", LSN_FORMAT_ARGS(batch->start))
					   : "rows that were there before",
		 .path = psprintf("%s/_batches", current->feed),
		 .on_empty = ON_EMPTY_SKIP,
		 .proven = current->last_batch != NULL && current->failures == 0,
		 .files =
			 {
				 .compression = batch->settings->compression,
				 .overwrite = true,
				 .partitioned = true,
				 .named = true,
				 .max_open = batch->settings->open_files,
				 .manifest_name = psprintf("_batches/%s.json", batch->name),
            },
    };

	CurrentResourceOwner = batch->owner;
	batch->pipe = uploader_start_export(current->connector, &request, 0, InvalidOid);
	CurrentResourceOwner = owner;
	MemoryContextSwitchTo(old);
}

static void
send_of(Batch *batch, const Target *target, PipeBlockKind kind, const char *data, size_t len,
		uint64 rows)
{
	PipeBlock block = {
		.kind = kind, .folder = target->file, .data = data, .len = len, .rows = rows};

	if (target->compressor != NULL && kind == PIPE_ROWS)
	{
		compress_add(target->compressor, data, len);
		compress_take(target->compressor, &block.data, &block.len);
	}
	(void) pipe_send(batch->pipe, &block);
}

/* ---- events' identities ---- */

static char *
put_hex(char *dst, uint64 value, int digits)
{
	for (int i = digits - 1; i >= 0; i--)
	{
		dst[i] = "0123456789ABCDEF"[value & 0xF];
		value >>= 4;
	}
	return dst + digits;
}

static void
format_id(char *dst, TimeLineID timeline, XLogRecPtr lsn, uint64 number)
{
	dst = put_hex(dst, timeline, 8);
	*dst++ = '-';
	dst = put_hex(dst, lsn, 16);
	*dst++ = '-';
	dst = put_hex(dst, number, 10);
	*dst = '\0';
}

TimeLineID
batch_timeline(const Batch *batch)
{
	return batch->transaction.timeline + (TimeLineID) batch->current->timelines;
}

static const char *
current_id(const Batch *batch)
{
	return batch->id.bytes + VARHDRSZ;
}

static void
next_id(Batch *batch)
{
	batch->number++;
	format_id(batch->id.bytes + VARHDRSZ, batch_timeline(batch), batch->transaction.lsn,
			  batch->number);
	if (batch->name == NULL)
		batch->name = MemoryContextStrdup(batch->context, current_id(batch));
}

/* ---- files ---- */

/* What the batch object says of the file, besides what the uploader knows. */
static void
describe_file(Target *target)
{
	Batch         *batch = target->batch;
	StringInfoData members;

	initStringInfo(&members);
	json_member_append(&members, "table", target->name);
	appendStringInfo(&members, ", \"version\": %d, ", target->table->version);
	json_member_append(&members, "schema", batch_schema_path(target));
	appendStringInfo(&members, ", \"first_id\": \"%s\", \"last_id\": \"%s\"", target->first_id,
					 target->last_id);
	send_of(batch, target, PIPE_DESCRIPTION, members.data, members.len, 0);
	pfree(members.data);
}

void
batch_end_file(Target *target)
{
	Batch *batch = target->batch;

	if (target->file == NULL)
		return;
	csv_receiver_flush(target->receiver);
	dlist_delete(&target->node);
	batch->nbegun--;
	describe_file(target);
	send_of(batch, target, PIPE_FILE_END, NULL, 0, 0);
	if (target->compressor != NULL)
		compress_close(target->compressor);
	target->compressor = NULL;
	pfree(target->file);
	target->file = NULL;
	target->begun = false;
}

/* Of few files the uploader may keep the last part, and needs one request for it. */
void
batch_end_files(Batch *batch)
{
	bool      few = batch->files <= (uint64) batch->settings->open_files;
	ListCell *cell;

	foreach (cell, batch->targets)
	{
		Target *target = lfirst(cell);

		if (target->file != NULL && few)
		{
			csv_receiver_flush(target->receiver);
			describe_file(target);
		}
		else
			batch_end_file(target);
	}
}

static void
open_compressor(Target *target)
{
	const Batch  *batch = target->batch;
	MemoryContext old = MemoryContextSwitchTo(batch->context);

	if (batch->compression.method != COMPRESS_NONE)
		target->compressor = compress_open(&batch->compression);
	MemoryContextSwitchTo(old);
}

static void
begin_in_store(Target *target)
{
	Batch *batch = target->batch;

	if (batch->pipe == NULL)
		open_pipe(batch);
	if (batch->nbegun == batch->settings->open_files)
		batch_end_file(dlist_container(Target, node, dlist_tail_node(&batch->begun)));
	dlist_push_head(&batch->begun, &target->node);
	batch->nbegun++;
	target->begun = true;
	open_compressor(target);
	if (target->header.len > 0)
		send_of(batch, target, PIPE_ROWS, target->header.data, target->header.len, 0);
}

static void
keep_header(void *arg, const char *data, size_t len)
{
	appendBinaryStringInfo(&((Target *) arg)->header, data, (int) len);
}

static void
send_block(void *arg, const char *partition pg_attribute_unused(), const char *data, size_t len,
		   uint64 rows)
{
	Target *target = arg;
	Batch  *batch = target->batch;

	if (!target->begun)
		begin_in_store(target);
	dlist_move_head(&batch->begun, &target->node);
	batch->bytes += len;
	send_of(batch, target, PIPE_ROWS, data, len, rows);
}

/* "2026-11-27T10" */
static void
format_hour(TimestampTz at, char *buf, size_t size)
{
	struct pg_tm tm;
	fsec_t       fsec;

	if (timestamp2tm(at, NULL, &tm, &fsec, NULL, NULL) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE), errmsg("timestamp out of range")));
	snprintf(buf, size, "%04d-%02d-%02dT%02d", tm.tm_year, tm.tm_mon, tm.tm_mday, tm.tm_hour);
}

static char *
name_file(const Batch *batch, const Target *target)
{
	char hour[MAXDATELEN];

	format_hour(batch->transaction.committed_at, hour, sizeof(hour));
	return MemoryContextStrdup(batch->context,
							   psprintf("_table=%s/_version=%04d/_hour=%s/%s.csv%s", target->name,
										target->table->version, hour, current_id(batch),
										compress_suffix(batch->settings->compression)));
}

static uint64
events_per_file(const Batch *batch)
{
	uint64 doublings = Min(batch->files / FILES_BEFORE_DOUBLING, 30);

	return (uint64) batch->settings->events_per_file << doublings;
}

/* ---- versions ---- */

static void
send_schema(Batch *batch, const Target *target, const CurrentTable *previous)
{
	char     *object = utf8_from_database(batch_schema_object(target, previous, current_id(batch)));
	PipeBlock block = {.kind = PIPE_OBJECT,
					   .folder = batch_schema_path(target),
					   .data = object,
					   .len = strlen(object)};

	if (batch->pipe == NULL)
		open_pipe(batch);
	(void) pipe_send(batch->pipe, &block);
}

/*
 * With the first event that has other columns: what was passed over before is not
 * read again where the batch is, and must not have taken a number.
 */
static void
choose_version(Batch *batch, Target *target, int operation)
{
	CurrentTable *table = target->table;
	CurrentTable  previous = *table;

	if (table->columns != NULL && strcmp(table->columns, target->columns) == 0)
		return;
	/* All rows follow a snapshot, and what is copied is all rows. */
	if (table->columns != NULL && operation != OPERATION_SNAPSHOT && operation != OPERATION_COPY)
		batch_note_reasons(batch, target);
	table->columns = MemoryContextStrdup(batch->context, target->columns);
	table->version = ++batch->versions;
	send_schema(batch, target, &previous);
}

static void
choose_file(Batch *batch, Target *target, int operation)
{
	int64 hour = batch->transaction.committed_at / USECS_PER_HOUR;

	if (target->file != NULL && (target->hour != hour || target->events >= events_per_file(batch)))
		batch_end_file(target);
	if (target->file != NULL)
		return;
	choose_version(batch, target, operation);
	target->file = name_file(batch, target);
	if (batch->last_file != NULL)
		pfree(batch->last_file);
	batch->last_file = MemoryContextStrdup(batch->context, target->file);
	strlcpy(target->first_id, current_id(batch), sizeof(target->first_id));
	target->hour = hour;
	target->events = 0;
	batch->files++;
}

/* ---- events ---- */

static void
make_receiver(Batch *batch, Target *target)
{
	CsvSink       sink = {.header = keep_header, .block = send_block, .arg = target};
	MemoryContext old = MemoryContextSwitchTo(target->context);

	target->receiver = csv_receiver_create(batch->csv, &sink, batch->settings->block_size);
	target->receiver->rStartup(target->receiver, CMD_SELECT, target->desc);
	MemoryContextSwitchTo(old);
}

static void
set_own_columns(const Batch *batch, Target *target, int operation)
{
	TupleTableSlot *slot = target->slot;
	int             meta = EVENT_COLUMNS + target->ncolumns;

	slot->tts_values[EVENT_ID] = PointerGetDatum(&batch->id.value);
	slot->tts_values[EVENT_OPERATION] = PointerGetDatum(batch->operations[operation]);
	slot->tts_values[EVENT_COMMITTED_AT] = TimestampTzGetDatum(batch->transaction.committed_at);
	slot->tts_isnull[EVENT_ID] = false;
	slot->tts_isnull[EVENT_OPERATION] = false;
	slot->tts_isnull[EVENT_COMMITTED_AT] = false;
	slot->tts_isnull[meta] = target->meta.len == 0;
	if (target->meta.len > 0)
		slot->tts_values[meta] = CStringGetTextDatum(psprintf("{%s}", target->meta.data));
}

void
batch_put_event(Batch *batch, Target *target, int operation)
{
	batch->events++;
	batch->committed_at = batch->transaction.committed_at;
	next_id(batch);
	if (target->receiver == NULL)
		make_receiver(batch, target);
	choose_file(batch, target, operation);
	memcpy(target->last_id, current_id(batch), sizeof(target->last_id));
	target->used = true;
	target->events++;
	set_own_columns(batch, target, operation);
	ExecStoreVirtualTuple(target->slot);
	(void) target->receiver->receiveSlot(target->slot, target->receiver);
	ExecClearTuple(target->slot);
}

/* ---- the batch object ---- */

static void
append_line(StringInfo buf, const char *name, const char *value)
{
	json_member_append(buf, name, value);
	appendStringInfoString(buf, ",\n  ");
}

static void
append_gap(StringInfo buf, const CurrentGap *gap, const char *separator)
{
	appendStringInfo(buf, "%s\n    {", separator);
	json_member_append(buf, "table", gap->table);
	appendStringInfoString(buf, ", ");
	json_member_append(buf, "reason", gap->reason);
	appendStringInfoChar(buf, '}');
}

/* Those that have been recorded, and those of a copy, which are not. */
static void
append_gaps(StringInfo buf, const Batch *batch)
{
	const char *separator = "";
	ListCell   *cell;

	appendStringInfoString(buf, "\"gaps\": [");
	foreach (cell, batch->current->gaps)
	{
		const CurrentGap *gap = lfirst(cell);

		if (gap->gap_id > batch->settings->last_gap)
			continue;
		append_gap(buf, gap, separator);
		separator = ",";
	}
	foreach (cell, batch->gaps)
	{
		append_gap(buf, lfirst(cell), separator);
		separator = ",";
	}
	appendStringInfoChar(buf, ']');
}

/* What the batch object says of the batch as a whole. */
static void
append_facts(StringInfo buf, const Batch *batch, XLogRecPtr end)
{
	const Current *current = batch->current;
	bool           any = batch->events > 0;

	append_line(buf, "batch", batch->name);
	append_line(buf, "previous", current->last_batch);
	append_line(buf, "connector", current->connector->name);
	appendStringInfo(buf, "\"connector_id\": " INT64_FORMAT ",\n  ",
					 current->connector->connector_id);
	append_line(buf, "database", current->database);
	append_line(buf, "publication", current->publication);
	append_line(buf, "from_lsn",
				batch->start != InvalidXLogRecPtr ? psprintf("%X/%X", LSN_FORMAT_ARGS(batch->start))
												  : NULL);
	append_line(buf, "to_lsn", psprintf("%X/%X", LSN_FORMAT_ARGS(end)));
	append_line(buf, "first_id", any ? batch->name : NULL);
	append_line(buf, "last_id", any ? current_id(batch) : NULL);
	append_line(buf, "committed_at", any ? timestamptz_to_str(batch->committed_at) : NULL);
	appendStringInfo(buf, "\"events\": " UINT64_FORMAT ",\n  ", batch->events);
}

void
batch_send_description(Batch *batch, XLogRecPtr end)
{
	StringInfoData buf;
	PipeBlock      block = {.kind = PIPE_DESCRIPTION};

	if (batch->name == NULL)
	{
		char name[EVENT_ID_LENGTH + 1];

		/* The copy of a table that joins next is there, too, and comes after it. */
		format_id(name, batch_timeline(batch), end - 1, 0);
		batch->name = MemoryContextStrdup(batch->context, name);
	}
	if (batch->pipe == NULL)
		open_pipe(batch);
	initStringInfo(&buf);
	append_facts(&buf, batch, end);
	append_gaps(&buf, batch);
	block.data = buf.data;
	block.len = buf.len;
	(void) pipe_send(batch->pipe, &block);
	pfree(buf.data);
}
