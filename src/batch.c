/*-------------------------------------------------------------------------
 *
 * batch.c
 *	  The events of one batch of a current: rows of CSV, in files of their tables.
 *
 * Rows gather in a block for each table.  A table whose events fit its block
 * costs the uploader nothing before the end, so that there is one file for each of
 * many tables; of the others only so many are written to at the same time, and
 * when another one begins, the file that was used longest ago is ended.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#include "batch_internal.h"
#include "csv.h"
#include "path.h"
#include "uploader.h"

/* What is to appear together; bytes of CSV, files. */
#define FULL_BYTES (UINT64CONST(256) * 1024 * 1024)
#define FULL_FILES 500

/* A transaction may have any number of events: its files become larger instead of many more. */
#define FILES_BEFORE_DOUBLING 1000

struct Batch
{
	const Current      *current;
	const CurrentBatch *settings;
	XLogRecPtr          start;
	bool                counts; /* and does nothing else */
	MemoryContext       context;
	MemoryContext       event_context;
	ResourceOwner       owner;

	HTAB *sources;
	List *targets; /* of Target */

	DecodeTransaction transaction;
	uint32            number; /* of the last event of the transaction */
	TimestampTz       committed_at;
	uint64            events;
	uint64            bytes; /* of CSV */
	uint64            files;
	char             *prefix;    /* of their names, below the connector's folder */
	char             *last_file; /* begun */

	CsvOptions *csv;
	Compressor *compressor; /* NULL: none */
	Pipe       *pipe;       /* NULL: nothing has been sent */
	dlist_head  begun;      /* used last is first */
	int         nbegun;

	text *operations[DECODE_TRUNCATE + 2];

	/* the identity of the event that is being written, as a text */
	union
	{
		int32 aligned;
		text  value;
		char  bytes[VARHDRSZ + EVENT_ID_LENGTH + 1];
	} id;
};

#define OPERATION_COPY (DECODE_TRUNCATE + 1)

/* ---- the uploader ---- */

static void
open_pipe(Batch *batch)
{
	const Current  *current = batch->current;
	MemoryContext   old = MemoryContextSwitchTo(batch->context);
	ResourceOwner   owner = CurrentResourceOwner;
	TransferRequest request = {
		.owner = current->connector->owner,
		.source = batch->start != InvalidXLogRecPtr
					  ? psprintf("changes after %X/%X", LSN_FORMAT_ARGS(batch->start))
					  : "rows that were there before",
		.path = psprintf("%sevents", batch->prefix),
		.stem = "events",
		.suffix = "",
		.content_type = compress_content_type(batch->settings->compression),
		.overwrite = true,
		.on_empty = ON_EMPTY_SKIP,
		.partitioned = true,
		.named = true,
		.max_open = batch->settings->open_files,
	};

	/* Changes come in transactions of their own, which the pipe outlives. */
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

	if (batch->compressor != NULL && len > 0)
		compress_block(batch->compressor, data, len, &block.data, &block.len);
	(void) pipe_send(batch->pipe, &block);
}

/* ---- files ---- */

static void
end_file(Target *target)
{
	Batch *batch = target->batch;

	if (target->file == NULL)
		return;
	csv_receiver_flush(target->receiver);
	dlist_delete(&target->node);
	batch->nbegun--;
	send_of(batch, target, PIPE_FILE_END, NULL, 0, 0);
	pfree(target->file);
	target->file = NULL;
	target->begun = false;
}

static void
begin_in_store(Target *target)
{
	Batch *batch = target->batch;

	if (batch->pipe == NULL)
		open_pipe(batch);
	if (batch->nbegun == batch->settings->open_files)
		end_file(dlist_container(Target, node, dlist_tail_node(&batch->begun)));
	dlist_push_head(&batch->begun, &target->node);
	batch->nbegun++;
	target->begun = true;
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

/* "2026-11-27-10" */
static void
format_hour(TimestampTz at, char *buf, size_t size)
{
	struct pg_tm tm;
	fsec_t       fsec;

	if (timestamp2tm(at, NULL, &tm, &fsec, NULL, NULL) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE), errmsg("timestamp out of range")));
	snprintf(buf, size, "%04d-%02d-%02d-%02d", tm.tm_year, tm.tm_mon, tm.tm_mday, tm.tm_hour);
}

static char *
name_file(const Batch *batch, const Target *target)
{
	char hour[MAXDATELEN];

	format_hour(batch->transaction.committed_at, hour, sizeof(hour));
	return MemoryContextStrdup(batch->context,
							   psprintf("%s/date=%s/%d/%s+%.*s.csv%s", target->folder, hour,
										target->table->version, target->name, EVENT_ID_LENGTH,
										batch->id.bytes + VARHDRSZ,
										compress_suffix(batch->settings->compression)));
}

static uint64
events_per_file(const Batch *batch)
{
	uint64 doublings = Min(batch->files / FILES_BEFORE_DOUBLING, 30);

	return (uint64) batch->settings->events_per_file << doublings;
}

static void
choose_file(Batch *batch, Target *target)
{
	int64 hour = batch->transaction.committed_at / USECS_PER_HOUR;

	if (target->file != NULL && (target->hour != hour || target->events >= events_per_file(batch)))
		end_file(target);
	if (target->file != NULL)
		return;
	target->file = name_file(batch, target);
	if (batch->last_file != NULL)
		pfree(batch->last_file);
	batch->last_file = MemoryContextStrdup(batch->context, target->file);
	target->hour = hour;
	target->events = 0;
	batch->files++;
}

/* ---- events ---- */

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
next_id(Batch *batch)
{
	char *dst = batch->id.bytes + VARHDRSZ;

	batch->number++;
	dst = put_hex(dst, batch->transaction.timeline, 8);
	*dst++ = '-';
	dst = put_hex(dst, batch->transaction.lsn, 16);
	*dst++ = '-';
	(void) put_hex(dst, batch->number, 8);
}

/* The values of the table's columns are in the slot. */
static void
put_event(Batch *batch, Target *target, int operation)
{
	TupleTableSlot *slot = target->slot;

	batch->events++;
	batch->committed_at = batch->transaction.committed_at;
	next_id(batch);
	if (target->receiver == NULL)
	{
		CsvSink       sink = {.header = keep_header, .block = send_block, .arg = target};
		MemoryContext old = MemoryContextSwitchTo(target->context);

		target->receiver = csv_receiver_create(batch->csv, &sink, batch->settings->block_size);
		target->receiver->rStartup(target->receiver, CMD_SELECT, target->desc);
		MemoryContextSwitchTo(old);
	}
	choose_file(batch, target);
	target->events++;
	slot->tts_values[EVENT_ID] = PointerGetDatum(&batch->id.value);
	slot->tts_values[EVENT_OPERATION] = PointerGetDatum(batch->operations[operation]);
	slot->tts_values[EVENT_COMMITTED_AT] = TimestampTzGetDatum(batch->transaction.committed_at);
	slot->tts_isnull[EVENT_ID] = false;
	slot->tts_isnull[EVENT_OPERATION] = false;
	slot->tts_isnull[EVENT_COMMITTED_AT] = false;
	ExecStoreVirtualTuple(slot);
	(void) target->receiver->receiveSlot(slot, target->receiver);
	ExecClearTuple(slot);
}

static void
put_row(Batch *batch, const Source *source, const DecodeChange *change, DecodeOperation operation,
		HeapTuple tuple)
{
	if (batch->counts)
	{
		batch->events++;
		return;
	}
	event_set_values(source->target, source, change->relation, tuple,
					 operation == DECODE_UPDATE ? change->old : NULL);
	put_event(batch, source->target, operation);
}

/* An event of the partitioned table only where all of it is emptied. */
static bool
is_event(const Batch *batch, const Source *source, const DecodeChange *change)
{
	const Target *target = source->target;

	if (target == NULL || (batch->settings->operations & (1 << change->operation)) == 0)
		return false;
	if (target->table->removed_lsn != InvalidXLogRecPtr &&
		change->transaction->lsn >= target->table->removed_lsn)
		return false;
	return change->operation != DECODE_TRUNCATE ||
		   target->relid == RelationGetRelid(change->relation);
}

void
batch_begin(Batch *batch, const DecodeTransaction *transaction)
{
	batch->transaction = *transaction;
	batch->number = 0;
}

void
batch_put(Batch *batch, const DecodeChange *change)
{
	MemoryContext caller = MemoryContextSwitchTo(batch->context);
	Source       *source = batch_find_source(batch->sources, batch->targets, change->relation,
											 batch->settings->operations, end_file);

	if (is_event(batch, source, change))
	{
		MemoryContextReset(batch->event_context);
		MemoryContextSwitchTo(batch->event_context);
		if (change->operation == DECODE_UPDATE &&
			event_changes_identity(change->relation, change->old, change->new))
		{
			put_row(batch, source, change, DECODE_DELETE, change->old);
			put_row(batch, source, change, DECODE_INSERT, change->new);
		}
		else
			put_row(batch, source, change, change->operation,
					change->operation == DECODE_DELETE ? change->old : change->new);
	}
	MemoryContextSwitchTo(caller);
}

void
batch_put_copy(Batch *batch, Relation relation, TupleTableSlot *slot)
{
	MemoryContext caller = MemoryContextSwitchTo(batch->context);
	Source       *source = batch_find_source(batch->sources, batch->targets, relation,
											 batch->settings->operations, end_file);
	Target       *target = source->target;

	MemoryContextReset(batch->event_context);
	MemoryContextSwitchTo(batch->event_context);
	slot_getallattrs(slot);
	memcpy(target->slot->tts_values + EVENT_COLUMNS, slot->tts_values,
		   target->ncolumns * sizeof(Datum));
	memcpy(target->slot->tts_isnull + EVENT_COLUMNS, slot->tts_isnull,
		   target->ncolumns * sizeof(bool));
	if (target->unchanged)
		target->slot->tts_isnull[EVENT_COLUMNS + target->ncolumns] = true;
	put_event(batch, target, OPERATION_COPY);
	MemoryContextSwitchTo(caller);
}

uint64
batch_events(const Batch *batch)
{
	return batch->events;
}

TimestampTz
batch_committed_at(const Batch *batch)
{
	return batch->committed_at;
}

bool
batch_is_full(const Batch *batch)
{
	return batch->bytes >= FULL_BYTES || batch->files >= FULL_FILES;
}

/* ---- beginning and end ---- */

static List *
make_targets(Batch *batch)
{
	List     *targets = NIL;
	ListCell *cell;

	foreach (cell, batch->settings->tables)
	{
		Target *target = palloc0(sizeof(Target));

		/* A copy: what is saved of the settings has the versions of the beginning. */
		target->table = palloc(sizeof(CurrentTable));
		*target->table = *(const CurrentTable *) lfirst(cell);
		target->relid = target->table->relid;
		target->batch = batch;
		targets = lappend(targets, target);
	}
	return targets;
}

Batch *
batch_open_to_count(const Current *current, const CurrentBatch *settings)
{
	static const char *const operations[] = {"insert", "update", "delete", "truncate", "copy"};

	Batch        *batch = palloc0(sizeof(Batch));
	HASHCTL       control = {.keysize = sizeof(Oid), .entrysize = sizeof(Source)};
	MemoryContext old;

	batch->current = current;
	batch->settings = settings;
	batch->counts = true;
	batch->owner = CurrentResourceOwner;
	batch->context =
		AllocSetContextCreate(CurrentMemoryContext, "s3export batch", ALLOCSET_DEFAULT_SIZES);
	batch->event_context =
		AllocSetContextCreate(batch->context, "s3export event", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(batch->context);
	control.hcxt = batch->context;
	batch->sources =
		hash_create("s3export sources", 64, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	batch->targets = make_targets(batch);
	for (size_t i = 0; i < lengthof(operations); i++)
		batch->operations[i] = cstring_to_text(operations[i]);
	SET_VARSIZE(&batch->id.value, VARHDRSZ + EVENT_ID_LENGTH);
	dlist_init(&batch->begun);
	batch_init_sources();
	MemoryContextSwitchTo(old);
	return batch;
}

Batch *
batch_open(const Current *current, const CurrentBatch *settings, XLogRecPtr start)
{
	Batch          *batch = batch_open_to_count(current, settings);
	MemoryContext   old = MemoryContextSwitchTo(batch->context);
	CompressOptions compression;

	batch->counts = false;
	batch->start = start;
	batch->prefix = psprintf("s3export.%s." INT64_FORMAT "/", path_encode(current->database),
							 current->connector->connector_id);
	batch->csv = csv_options(true, NULL, NULL, NULL, NULL, NIL, NULL);
	if (settings->compression != COMPRESS_NONE)
	{
		compress_options(&compression, compress_name(settings->compression), NULL, NULL);
		batch->compressor = compress_open(&compression);
	}
	MemoryContextSwitchTo(old);
	return batch;
}

/* Of few files the uploader may keep the last part, and needs one request for it. */
void
batch_seal(Batch *batch)
{
	bool      few = batch->files <= (uint64) batch->settings->open_files;
	ListCell *cell;

	foreach (cell, batch->targets)
	{
		Target *target = lfirst(cell);

		if (target->file != NULL && few)
			csv_receiver_flush(target->receiver);
		else
			end_file(target);
	}
}

static List *
list_tables(const Batch *batch)
{
	List     *tables = NIL;
	ListCell *cell;

	foreach (cell, batch->targets)
		tables = lappend(tables, ((Target *) lfirst(cell))->table);
	return tables;
}

static char *
last_uri(const Batch *batch)
{
	const Connector *connector = batch->current->connector;

	return connector_uri(connector, psprintf("%s%s%s%s", connector->folder_path,
											 connector->folder_path[0] ? "/" : "", batch->prefix,
											 batch->last_file));
}

void
batch_finish(Batch *batch, CurrentProgress *progress)
{
	PipeBlock      end = {.kind = PIPE_END, .data = ""};
	TransferTotals totals;

	(void) pipe_send(batch->pipe, &end);
	uploader_finish_export(batch->pipe, &totals);
	batch->pipe = NULL;
	progress->committed_at = batch->committed_at;
	progress->events = batch->events;
	progress->files = totals.files;
	progress->bytes = totals.bytes;
	progress->job_id = totals.job_id;
	progress->last_file = last_uri(batch);
	progress->tables = list_tables(batch);
}

void
batch_set_error(Batch *batch, const ErrorData *error)
{
	if (batch->pipe != NULL)
		pipe_set_error(batch->pipe, error);
}

void
batch_close(Batch *batch)
{
	MemoryContextDelete(batch->context);
	pfree(batch);
}
