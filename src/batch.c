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

#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#include "batch_internal.h"
#include "csv.h"
#include "path.h"
#include "publication.h"
#include "uploader.h"

/* What is to appear together; bytes of CSV, files. */
#define FULL_BYTES (UINT64CONST(256) * 1024 * 1024)
#define FULL_FILES 500

/* A transaction may have any number of events: its files become larger instead of many more. */
#define FILES_BEFORE_DOUBLING 1000

/* How many relations with changes are remembered, so that those that come and go take no memory. */
#define MAX_SOURCES 2000

struct Batch
{
	const Current      *current;
	const CurrentBatch *settings;
	XLogRecPtr          start;
	bool                counts; /* and does nothing else */
	MemoryContext       context;
	MemoryContext       event_context;
	ResourceOwner       owner;

	HTAB         *sources;          /* of Source, by relid */
	MemoryContext sources_context;  /* of the table and what its entries have */
	List         *targets;          /* of Target */
	Target       *copied;           /* the one whose rows are copied */
	int           versions;         /* given to columns of tables so far */
	Oid           publication;      /* 0: there was none at this place of the WAL */
	uint64        publication_seen; /* publication_generation() that this is of */
	List         *withheld_tables;  /* names (char *) */
	uint64        withheld;

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

void
batch_end_file(Target *target)
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
		batch_end_file(dlist_container(Target, node, dlist_tail_node(&batch->begun)));
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

/*
 * With the first event that has other columns: what was passed over before is not
 * read again where the batch is, and must not have taken a number.
 */
static void
choose_version(Batch *batch, Target *target)
{
	CurrentTable *table = target->table;

	if (table->columns != NULL && strcmp(table->columns, target->columns) == 0)
		return;
	table->columns = MemoryContextStrdup(batch->context, target->columns);
	table->version = ++batch->versions;
}

static void
choose_file(Batch *batch, Target *target)
{
	int64 hour = batch->transaction.committed_at / USECS_PER_HOUR;

	if (target->file != NULL && (target->hour != hour || target->events >= events_per_file(batch)))
		batch_end_file(target);
	if (target->file != NULL)
		return;
	choose_version(batch, target);
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

static TimeLineID
timeline_of(const Batch *batch)
{
	return batch->transaction.timeline + (TimeLineID) batch->current->timelines;
}

static void
next_id(Batch *batch)
{
	char *dst = batch->id.bytes + VARHDRSZ;

	batch->number++;
	dst = put_hex(dst, timeline_of(batch), 8);
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
	target->used = true;
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

/* ---- which tables ---- */

Target *
batch_find_target(const Batch *batch, Oid relid)
{
	ListCell *cell;

	foreach (cell, batch->targets)
	{
		Target *target = lfirst(cell);

		if (target->relid == relid)
			return target;
	}
	return NULL;
}

static const CurrentTable *
find_table(List *tables, Oid relid)
{
	ListCell *cell;

	foreach (cell, tables)
	{
		const CurrentTable *table = lfirst(cell);

		if (table->relid == relid)
			return table;
	}
	return NULL;
}

/* The settings keep the versions of the beginning: what changes is a copy. */
Target *
batch_get_target(Batch *batch, Oid relid)
{
	Target             *target = batch_find_target(batch, relid);
	const CurrentTable *table = find_table(batch->settings->tables, relid);
	MemoryContext       old;

	if (target != NULL)
		return target;
	old = MemoryContextSwitchTo(batch->context);
	target = palloc0(sizeof(Target));
	target->relid = relid;
	target->before = table != NULL ? *table : (CurrentTable){.relid = relid};
	target->table = palloc(sizeof(CurrentTable));
	*target->table = target->before;
	target->batch = batch;
	batch->targets = lappend(batch->targets, target);
	MemoryContextSwitchTo(old);
	return target;
}

static void
make_sources(Batch *batch)
{
	HASHCTL control = {.keysize = sizeof(Oid), .entrysize = sizeof(Source)};

	batch->sources_context =
		AllocSetContextCreate(batch->context, "s3export sources", ALLOCSET_DEFAULT_SIZES);
	control.hcxt = batch->sources_context;
	batch->sources =
		hash_create("s3export sources", 64, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/* Of tables that come and go in a long stretch of the WAL. */
static void
forget_unused_targets(Batch *batch)
{
	ListCell *cell;

	foreach (cell, batch->targets)
	{
		Target *target = lfirst(cell);

		if (target->used)
			continue;
		if (target->context != NULL)
			MemoryContextDelete(target->context);
		pfree(target->table);
		pfree(target);
		batch->targets = foreach_delete_current(batch->targets, cell);
	}
}

void
batch_forget_sources(Batch *batch)
{
	MemoryContextDelete(batch->sources_context);
	forget_unused_targets(batch);
	make_sources(batch);
}

/* The publication of this place in the WAL. */
static Oid
find_publication(Batch *batch, uint64 generation)
{
	if (batch->publication_seen != generation)
		batch->publication =
			publication_resolve(batch->current->publication_oid,
								batch->current->next_publication_oid, batch->current->publication);
	batch->publication_seen = generation;
	return batch->publication;
}

/*
 * Whose rights decide about changes of the table.  If it is published today, they have been
 * checked today, or when the batch began: owners that were others then would hold back what
 * is owed.
 */
static Oid
find_sender(const Batch *batch, Oid relid)
{
	const CurrentBatch *settings = batch->settings;

	return list_member_oid(settings->sendable, relid) ? InvalidOid : settings->sender;
}

/*
 * How changes of the relation are published.  What has been heard so far is noted
 * before, as the look-up may hear of more.
 */
static Source *
find_source(Batch *batch, Relation relation)
{
	Oid     relid = RelationGetRelid(relation);
	uint64  generation = publication_generation();
	bool    found;
	Source *source;

	if (hash_get_num_entries(batch->sources) >= MAX_SOURCES)
		batch_forget_sources(batch);
	source = hash_search(batch->sources, &relid, HASH_ENTER, &found);
	if (!found)
	{
		source->seen = 0;
		source->attnums = NULL;
	}
	if (source->seen != generation)
	{
		source->seen = 0;
		batch_refresh_source(batch, source, relation, find_publication(batch, generation),
							 find_sender(batch, relid), batch->sources_context);
		source->seen = generation;
	}
	return source;
}

/* ---- changes ---- */

static void
withhold(Batch *batch, Relation relation)
{
	MemoryContext old = MemoryContextSwitchTo(batch->context);
	char     *name = quote_qualified_identifier(get_namespace_name(RelationGetNamespace(relation)),
												RelationGetRelationName(relation));
	ListCell *cell;

	batch->withheld++;
	foreach (cell, batch->withheld_tables)
	{
		if (strcmp(lfirst(cell), name) == 0)
			break;
	}
	if (cell == NULL)
		batch->withheld_tables = lappend(batch->withheld_tables, name);
	else
		pfree(name);
	MemoryContextSwitchTo(old);
}

/*
 * Is the change an event?  A truncation is an event of the partitioned table only where all
 * of that is emptied.
 */
static bool
is_event(const Source *source, const DecodeChange *change)
{
	const Target *target = source->target;

	if (target == NULL || (source->operations & OPERATION_BIT(change->operation)) == 0)
		return false;
	if (change->transaction->lsn >= target->table->added_lsn &&
		change->transaction->lsn < target->table->since_lsn)
		return false;
	return change->operation != DECODE_TRUNCATE ||
		   target->relid == RelationGetRelid(change->relation);
}

static void
put_row(Batch *batch, const Source *source, DecodeOperation operation, const EventRow *row)
{
	if (batch->counts)
	{
		batch->events++;
		return;
	}
	event_set_values(source->target, source, row);
	put_event(batch, source->target, operation);
}

/*
 * A condition of the publication makes an insert of an update whose row comes to fulfil
 * it, and a delete where the row does not any more, as pgoutput does.  An update that changes
 * the key is a delete and an insert.
 */
static void
put_update(Batch *batch, const Source *source, const DecodeChange *change)
{
	EventRow old_row;
	EventRow new_row;
	bool     has_old = change->old_row != NULL;
	bool     was;
	bool     is;

	if (has_old)
		event_read(&old_row, change->relation, change->old_row, NULL);
	event_read(&new_row, change->relation, change->new_row, has_old ? &old_row : NULL);
	is = event_matches(source->target, source, &new_row);
	was = has_old ? event_matches(source->target, source, &old_row) : is;
	if (was && is && !(has_old && event_changes_identity(change->relation, &old_row, &new_row)))
	{
		put_row(batch, source, DECODE_UPDATE, &new_row);
		return;
	}
	if (was)
		put_row(batch, source, DECODE_DELETE, &old_row);
	if (is)
		put_row(batch, source, DECODE_INSERT, &new_row);
}

static void
put_change(Batch *batch, const Source *source, const DecodeChange *change)
{
	EventRow row;

	if (change->operation == DECODE_TRUNCATE)
	{
		put_row(batch, source, DECODE_TRUNCATE, NULL);
		return;
	}
	event_read(&row, change->relation,
			   change->operation == DECODE_DELETE ? change->old_row : change->new_row, NULL);
	if (event_matches(source->target, source, &row))
		put_row(batch, source, change->operation, &row);
}

/*
 * PostgreSQL refuses deletes without a replica identity in a table that publishes them.  But the
 * row may have been deleted before the table joined the publication, in a transaction that
 * committed afterwards.
 */
static bool
lacks_row(const DecodeChange *change)
{
	return change->operation == DECODE_DELETE && change->old_row == NULL;
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
	MemoryContext caller = MemoryContextSwitchTo(batch->event_context);
	Source       *source;

	MemoryContextReset(batch->event_context);
	source = find_source(batch, change->relation);
	if (source->withheld && (source->operations & OPERATION_BIT(change->operation)) != 0)
		withhold(batch, change->relation);
	else if (is_event(source, change))
	{
		if (lacks_row(change))
			withhold(batch, change->relation);
		else if (change->operation == DECODE_UPDATE)
			put_update(batch, source, change);
		else
			put_change(batch, source, change);
	}
	MemoryContextSwitchTo(caller);
}

char *
batch_begin_copy(Batch *batch, Relation relation)
{
	MemoryContext  caller = MemoryContextSwitchTo(batch->event_context);
	Target        *target = find_source(batch, relation)->target;
	TupleDesc      desc = RelationGetDescr(relation);
	StringInfoData list;

	MemoryContextSwitchTo(caller);
	if (target == NULL)
		return NULL;
	batch->copied = target;
	initStringInfo(&list);
	for (int i = 0; i < target->ncolumns; i++)
		appendStringInfo(
			&list, "%s%s", i > 0 ? ", " : "",
			quote_identifier(NameStr(TupleDescAttr(desc, target->attnums[i] - 1)->attname)));
	return list.data;
}

void
batch_put_copy(Batch *batch, TupleTableSlot *slot)
{
	MemoryContext caller = MemoryContextSwitchTo(batch->event_context);
	Target       *target = batch->copied;

	MemoryContextReset(batch->event_context);
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

int
batch_versions(const Batch *batch)
{
	return batch->versions;
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

Batch *
batch_open_to_count(const Current *current, const CurrentBatch *settings)
{
	static const char *const operations[] = {"insert", "update", "delete", "truncate", "copy"};

	Batch        *batch = palloc0(sizeof(Batch));
	MemoryContext old;

	batch->current = current;
	batch->settings = settings;
	batch->versions = settings->versions;
	batch->counts = true;
	batch->owner = CurrentResourceOwner;
	batch->context =
		AllocSetContextCreate(CurrentMemoryContext, "s3export batch", ALLOCSET_DEFAULT_SIZES);
	batch->event_context =
		AllocSetContextCreate(batch->context, "s3export event", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(batch->context);
	make_sources(batch);
	for (size_t i = 0; i < lengthof(operations); i++)
		batch->operations[i] = cstring_to_text(operations[i]);
	SET_VARSIZE(&batch->id.value, VARHDRSZ + EVENT_ID_LENGTH);
	dlist_init(&batch->begun);
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
			batch_end_file(target);
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

/* A table with a copy has changes that are no events, also where it has no target. */
List *
batch_tables_before(const Batch *batch)
{
	List     *tables = NIL;
	ListCell *cell;

	foreach (cell, batch->targets)
		tables = lappend(tables, &((Target *) lfirst(cell))->before);
	foreach (cell, batch->settings->tables)
	{
		CurrentTable *table = lfirst(cell);

		if (table->since_lsn != InvalidXLogRecPtr && batch_find_target(batch, table->relid) == NULL)
			tables = lappend(tables, table);
	}
	return tables;
}

uint64
batch_take_withheld(Batch *batch, List **tables)
{
	uint64 withheld = batch->withheld;

	*tables = batch->withheld_tables;
	batch->withheld_tables = NIL;
	batch->withheld = 0;
	return withheld;
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
	progress->versions = batch->versions;
	progress->timeline = (int) timeline_of(batch);
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
