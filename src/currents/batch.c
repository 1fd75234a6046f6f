/*-------------------------------------------------------------------------
 *
 * batch.c
 *	  The events of one batch of a current: which changes and rows are which events.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/relcache.h"

#include "base/object_path.h"
#include "currents/batch_internal.h"
#include "currents/publication.h"
#include "uploader/uploader.h"

/* What is to appear together; bytes of CSV, files. */
#define FULL_BYTES (UINT64CONST(256) * 1024 * 1024)
#define FULL_FILES 500

/* ---- what readers miss ---- */

static char *
folder_name(Relation relation)
{
	return object_path_table(get_namespace_name(RelationGetNamespace(relation)),
							 RelationGetRelationName(relation));
}

void
batch_note_gap(Batch *batch, const char *table, const char *reason, bool told)
{
	MemoryContext old;
	CurrentGap   *gap;
	ListCell     *cell;

	/* Those of a batch that is written again have been recorded. */
	if (batch->settings->end != InvalidXLogRecPtr)
		return;
	foreach (cell, batch->gaps)
	{
		gap = lfirst(cell);
		if (strcmp(gap->table, table) == 0 && strcmp(gap->reason, reason) == 0)
			return;
	}
	old = MemoryContextSwitchTo(batch->context);
	gap = palloc0(sizeof(CurrentGap));
	gap->table = pstrdup(table);
	gap->reason = pstrdup(reason);
	gap->told = told;
	batch->gaps = lappend(batch->gaps, gap);
	MemoryContextSwitchTo(old);
}

/* Readers know the changes of a partition as those of its table. */
static void
withhold_changes(Batch *batch, const Source *source, Relation relation)
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
	batch_note_gap(batch, source->target != NULL ? source->target->name : folder_name(relation),
				   "changes were withheld", true);
}

/* ---- changes ---- */

/* Was the change made while the copy of the table was prepared, which has it? */
static bool
is_in_copy(const Target *target, XLogRecPtr lsn)
{
	return lsn >= target->table->added_lsn && lsn < target->table->since_lsn;
}

static bool
is_published(const Source *source, DecodeOperation operation)
{
	/* A row that is written anew is what its updates would have made of it. */
	if (operation == DECODE_REWRITE)
		operation = DECODE_UPDATE;
	return (source->operations & OPERATION_BIT(operation)) != 0;
}

static void
check_values(Batch *batch, Target *target)
{
	ListCell *cell;

	foreach (cell, event_check_values(target))
		batch_note_gap(batch, target->name,
					   psprintf("a value of column %s was too large to be sent",
								quote_identifier(lfirst(cell))),
					   false);
}

static void
put_row(Batch *batch, const Source *source, int operation, const EventRow *row, const EventRow *old)
{
	Target *target = source->target;

	if (batch->counts)
	{
		batch->events++;
		return;
	}
	event_set_values(target, source, row, old);
	check_values(batch, target);
	batch_put_event(batch, target, operation);
}

/* The values that the WAL does not have are nowhere, where the reader has no row yet. */
static void
put_incoming(Batch *batch, const Source *source, const EventRow *row)
{
	if (event_lacks_values(source->target, source, row))
		batch_note_gap(batch, source->target->name,
					   "the row filter let in a row of which the WAL does not have all values",
					   false);
	put_row(batch, source, OPERATION_INSERT, row, NULL);
}

/* A row of which the WAL does not have all values must stay one row for readers. */
static void
put_new_key(Batch *batch, const Source *source, const EventRow *old_row, const EventRow *new_row)
{
	if (event_lacks_values(source->target, source, new_row))
	{
		put_row(batch, source, OPERATION_UPDATE, new_row, old_row);
		return;
	}
	put_row(batch, source, OPERATION_DELETE, old_row, NULL);
	put_row(batch, source, OPERATION_INSERT, new_row, NULL);
}

/*
 * A condition of the publication makes an insert of an update whose row comes to fulfil
 * it, and a delete where the row does not any more, as pgoutput does.
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
	if (was && is)
	{
		if (has_old && event_changes_key(change->relation, source->key, &old_row, &new_row))
			put_new_key(batch, source, &old_row, &new_row);
		else
			put_row(batch, source, OPERATION_UPDATE, &new_row, NULL);
	}
	else if (was)
		put_row(batch, source, OPERATION_DELETE, &old_row, NULL);
	else if (is)
		put_incoming(batch, source, &new_row);
}

static void
put_tuple(Batch *batch, const Source *source, int operation, Relation relation, HeapTuple tuple)
{
	EventRow row;

	event_read(&row, relation, tuple, NULL);
	if (event_matches(source->target, source, &row))
		put_row(batch, source, operation, &row, NULL);
}

/* Of a partitioned table only where all of it is emptied: readers do not know its partitions. */
static void
put_truncation(Batch *batch, const Source *source, const DecodeChange *change)
{
	const Target *target = source->target;

	if (target->relid == RelationGetRelid(change->relation))
	{
		put_row(batch, source, OPERATION_TRUNCATE, NULL, NULL);
		return;
	}
	for (int i = 0; i < change->ntruncated; i++)
	{
		if (change->truncated[i] == target->relid)
			return;
	}
	batch_note_gap(batch, target->name,
				   psprintf("partition %s was truncated", folder_name(change->relation)), false);
}

static void
add_rewritten(Batch *batch, Target *target, Oid relid)
{
	MemoryContext old = MemoryContextSwitchTo(batch->context);

	target->rewritten = lappend_oid(target->rewritten, relid);
	MemoryContextSwitchTo(old);
}

/*
 * With the first row of a rewrite: are its rows events?
 *
 * ALTER TABLE writes all partitions of a table anew, one after the other.  All of them together are
 * what the table has: a snapshot comes before the first.  Another one begins where one is
 * written once more, or where something has changed in between.
 */
static bool
begin_rewrite(Batch *batch, const Source *source, const DecodeChange *change)
{
	Target *target = source->target;
	Oid     relid = RelationGetRelid(change->relation);
	bool    same = target->table->columns != NULL &&
				batch_is_same_table(target->table->columns, target->columns);

	if (change->moves)
		return false;
	if (target->rewrite_lsn != change->transaction->lsn || !same ||
		list_member_oid(target->rewritten, relid))
	{
		put_row(batch, source, OPERATION_SNAPSHOT, NULL, NULL);
		list_free(target->rewritten);
		target->rewritten = NIL;
	}
	add_rewritten(batch, target, relid);
	return true;
}

static void
put_rewrite(Batch *batch, const Source *source, const DecodeChange *change)
{
	Target *target = source->target;

	if (target->rewrite_lsn != change->transaction->lsn || target->rewrite != change->rewrite)
	{
		target->rewrite_sent = begin_rewrite(batch, source, change);
		target->rewrite_lsn = change->transaction->lsn;
		target->rewrite = change->rewrite;
	}
	if (target->rewrite_sent)
		put_tuple(batch, source, OPERATION_COPY, change->relation, change->new_row);
}

/*
 * PostgreSQL refuses updates and deletes without a replica identity in a table that publishes
 * them.  But a statement that began before the table joined the publication goes on; and the
 * key of a partition may be another than that of its table.
 */
static bool
lacks_key(const Source *source, const DecodeChange *change)
{
	if (change->operation == DECODE_DELETE && change->old_row == NULL)
		return true;
	return (change->operation == DECODE_UPDATE || change->operation == DECODE_DELETE) &&
		   !source->identified;
}

/*
 * Sends a change if the publication has it, and if no copy of the table has the row already.  A
 * change that names no row is withheld.
 */
static void
put_change(Batch *batch, const Source *source, const DecodeChange *change)
{
	if (source->target == NULL || !is_published(source, change->operation) ||
		is_in_copy(source->target, change->transaction->lsn))
		return;
	if (change->operation != DECODE_REWRITE)
		source->target->rewrite_lsn = InvalidXLogRecPtr;
	if (lacks_key(source, change))
	{
		withhold_changes(batch, source, change->relation);
		return;
	}
	switch (change->operation)
	{
		case DECODE_INSERT:
			put_tuple(batch, source, OPERATION_INSERT, change->relation, change->new_row);
			break;
		case DECODE_UPDATE:
			put_update(batch, source, change);
			break;
		case DECODE_DELETE:
			put_tuple(batch, source, OPERATION_DELETE, change->relation, change->old_row);
			break;
		case DECODE_TRUNCATE:
			put_truncation(batch, source, change);
			break;
		case DECODE_REWRITE:
			put_rewrite(batch, source, change);
			break;
	}
}

void
batch_begin(Batch *batch, const DecodeTransaction *transaction)
{
	batch->transaction = *transaction;
	batch->number = 0;
	/* What is cached is of others, which have changed what was there when it began. */
	batch->older = transaction->base < batch->changed;
	if (batch->older)
		decoder_forget_catalogs();
	batch_begin_unpublished(batch);
	batch_begin_members(batch, transaction);
}

void
batch_put(Batch *batch, const DecodeChange *change)
{
	MemoryContext caller = MemoryContextSwitchTo(batch->event_context);
	Source       *source;

	MemoryContextReset(batch->event_context);
	source = batch_find_source(batch, change->relation);
	if (source->operations == 0)
		batch_pass_over(batch, change);
	else if (!source->withheld)
		put_change(batch, source, change);
	else if (is_published(source, change->operation))
		withhold_changes(batch, source, change->relation);
	MemoryContextSwitchTo(caller);
}

/* ---- columns that change without a row ---- */

void
batch_note_reasons(Batch *batch, const Target *target)
{
	ListCell *cell;

	foreach (cell, batch_list_reasons(target->table->columns, target->columns))
		batch_note_gap(batch, target->name, lfirst(cell), false);
}

/* A table that has been sent before is published otherwise by now, and no event has told it. */
static void
look_at_target(Batch *batch, const DecodeTransaction *transaction, Source *source)
{
	Target     *target = source->target;
	const char *before = target->table->columns;

	if (before == NULL || batch_is_same_table(before, target->columns) ||
		is_in_copy(target, transaction->lsn))
		return;
	if (batch->counts)
		batch_note_reasons(batch, target);
	else
		put_row(batch, source, OPERATION_ALTER, NULL, NULL);
}

static void
look_at_members(Batch *batch, const DecodeTransaction *transaction)
{
	MemoryContext caller = MemoryContextSwitchTo(batch->event_context);
	ListCell     *cell;

	MemoryContextReset(batch->event_context);
	foreach (cell, batch_end_members(batch, transaction))
	{
		Relation relation = RelationIdGetRelation(lfirst_oid(cell));
		Source  *source = RelationIsValid(relation) ? batch_find_source(batch, relation) : NULL;

		if (source != NULL && source->target != NULL)
			look_at_target(batch, transaction, source);
		if (RelationIsValid(relation))
			RelationClose(relation);
	}
	MemoryContextSwitchTo(caller);
}

void
batch_end(Batch *batch, const DecodeTransaction *transaction)
{
	look_at_members(batch, transaction);
	/* What it has seen before others had changed it is cached as well. */
	if (batch->older)
		decoder_forget_catalogs();
}

/* ---- copies ---- */

char *
batch_begin_copy(Batch *batch, Relation relation)
{
	MemoryContext  caller = MemoryContextSwitchTo(batch->event_context);
	Source        *source = batch_find_source(batch, relation);
	Target        *target = source->target;
	TupleDesc      desc = RelationGetDescr(relation);
	StringInfoData list;

	MemoryContextSwitchTo(caller);
	if (target == NULL)
		return NULL;
	batch->copied = target;
	caller = MemoryContextSwitchTo(batch->event_context);
	put_row(batch, source, OPERATION_SNAPSHOT, NULL, NULL);
	MemoryContextSwitchTo(caller);
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
	event_set_copied(target, slot);
	check_values(batch, target);
	batch_put_event(batch, target, OPERATION_COPY);
	batch->rows_copied++;
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
batch_open_to_count(const Current *current, const CurrentBatch *settings, XLogRecPtr start)
{
	static const char *const operations[OPERATIONS] = {"insert", "update",   "delete", "truncate",
													   "copy",   "snapshot", "alter"};

	Batch        *batch = palloc0(sizeof(Batch));
	MemoryContext old;

	batch->current = current;
	batch->settings = settings;
	batch->start = start;
	batch->changed = start;
	batch->versions = settings->versions;
	batch->counts = true;
	batch->owner = CurrentResourceOwner;
	batch->context =
		AllocSetContextCreate(CurrentMemoryContext, "s3export batch", ALLOCSET_DEFAULT_SIZES);
	batch->event_context =
		AllocSetContextCreate(batch->context, "s3export event", ALLOCSET_DEFAULT_SIZES);
	batch->members_context =
		AllocSetContextCreate(batch->context, "s3export members", ALLOCSET_SMALL_SIZES);
	batch->passed_context =
		AllocSetContextCreate(batch->context, "s3export passed", ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(batch->context);
	batch_make_sources(batch);
	batch_make_unpublished(batch);
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
	Batch        *batch = batch_open_to_count(current, settings, start);
	MemoryContext old = MemoryContextSwitchTo(batch->context);

	batch->counts = false;
	batch->csv = csv_options(settings->format.header, NULL, NULL, NULL, settings->format.null_print,
							 settings->format.force_quote ? list_make1("*") : NIL, NULL);
	compress_options(&batch->compression, compress_name(settings->compression), NULL, NULL);
	MemoryContextSwitchTo(old);
	return batch;
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

List *
batch_take_gaps(Batch *batch)
{
	List *gaps = batch->gaps;

	batch->gaps = NIL;
	return gaps;
}

bool
batch_is_empty(const Batch *batch)
{
	return batch->events == 0 && batch->gaps == NIL;
}

void
batch_seal(Batch *batch, XLogRecPtr end, TimeLineID timeline)
{
	batch_end_files(batch);
	if (batch->events == 0)
		batch->transaction.timeline = timeline;
	batch_send_description(batch, end);
}

static char *
uri_of(const Batch *batch, const char *path)
{
	const Current   *current = batch->current;
	const Connector *connector = current->connector;

	return connector_uri(connector,
						 psprintf("%s%s%s/%s", connector->folder_path,
								  connector->folder_path[0] ? "/" : "", current->feed, path));
}

void
batch_finish(Batch *batch, CurrentProgress *progress)
{
	PipeBlock end = {.kind = PIPE_END, .data = ""};
	JobTotals totals;

	(void) pipe_send(batch->pipe, &end);
	uploader_finish_export(batch->pipe, &totals);
	batch->pipe = NULL;
	progress->committed_at = batch->committed_at;
	progress->events = batch->events;
	progress->copied = batch->rows_copied;
	progress->files = totals.files;
	progress->bytes = totals.bytes;
	progress->job_id = totals.job_id;
	progress->last_file = batch->last_file != NULL ? uri_of(batch, batch->last_file) : NULL;
	progress->batch = batch->name;
	progress->batch_uri = uri_of(batch, psprintf("_batches/%s.json", batch->name));
	progress->last_gap = batch->settings->last_gap;
	progress->tables = list_tables(batch);
	progress->versions = batch->versions;
	progress->timeline = (int) batch_timeline(batch);
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
