/*-------------------------------------------------------------------------
 *
 * batch_source.c
 *	  Which tables have events, and in which columns.
 *
 * All of it is as the catalogs of the moment have it: while changes are decoded, as
 * they were at the change's place in the WAL.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/relcache.h"

#include "base/object_path.h"
#include "currents/batch_internal.h"

/* How many relations with changes are remembered, so that those that come and go take no memory. */
#define MAX_SOURCES 2000

/* ---- targets ---- */

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
set_columns(Target *target, const PublishedTable *published, TupleDesc table)
{
	int n = 0;

	target->attnums = palloc(Max(table->natts, 1) * sizeof(AttrNumber));
	target->names = palloc(Max(table->natts, 1) * sizeof(char *));
	for (int i = 0; i < table->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(table, i);

		if (!batch_has_column(published, attribute))
			continue;
		target->names[n] = batch_name_column(NameStr(attribute->attname));
		target->attnums[n++] = attribute->attnum;
	}
	target->ncolumns = n;
}

static TupleDesc
make_event_desc(const Target *target, TupleDesc table)
{
	int       natts = EVENT_COLUMNS + target->ncolumns + 1;
	TupleDesc desc = CreateTemplateTupleDesc(natts);

	TupleDescInitEntry(desc, EVENT_ID + 1, "_id", TEXTOID, -1, 0);
	TupleDescInitEntry(desc, EVENT_OPERATION + 1, "_op", TEXTOID, -1, 0);
	TupleDescInitEntry(desc, EVENT_COMMITTED_AT + 1, "_committed_at", TIMESTAMPTZOID, -1, 0);
	for (int i = 0; i < target->ncolumns; i++)
	{
		TupleDescCopyEntry(desc, EVENT_COLUMNS + 1 + i, table, target->attnums[i]);
		namestrcpy(&TupleDescAttr(desc, EVENT_COLUMNS + i)->attname, target->names[i]);
	}
	TupleDescInitEntry(desc, natts, "_meta", TEXTOID, -1, 0);
	return desc;
}

/* As pgoutput does it; the condition calls nothing but immutable built-in functions. */
static void
set_filter(Target *target, const PublishedTable *published, TupleDesc table)
{
	EState *estate;

	target->filter = NULL;
	if (published->filter == NULL)
		return;
	estate = CreateExecutorState();
	target->filter_context = GetPerTupleExprContext(estate);
	/* Its constants must live as long as the target does. */
	target->filter = ExecPrepareExpr((Expr *) copyObject(published->filter), estate);
	target->filter_slot = MakeSingleTupleTableSlot(CreateTupleDescCopy(table), &TTSOpsVirtual);
	target->filter_context->ecxt_scantuple = target->filter_slot;
}

/*
 * Everything that depends on the table's columns is in one context, which goes when they change.
 */
static void
set_target(Target *target, Relation relation, const PublishedTable *published, const char *columns,
		   const Bitmapset *key)
{
	MemoryContext old;

	if (target->context == NULL)
		target->context = AllocSetContextCreate(GetMemoryChunkContext(target), "s3export table",
												ALLOCSET_DEFAULT_SIZES);
	else
		MemoryContextReset(target->context);
	old = MemoryContextSwitchTo(target->context);
	target->columns = pstrdup(columns);
	target->name = pnstrdup(columns, strcspn(columns, "\n"));
	set_columns(target, published, RelationGetDescr(relation));
	set_filter(target, published, RelationGetDescr(relation));
	target->key = bms_copy(key);
	target->schema = batch_describe_schema(target->batch, target, relation);
	target->desc = make_event_desc(target, RelationGetDescr(relation));
	target->slot = MakeSingleTupleTableSlot(target->desc, &TTSOpsVirtual);
	initStringInfo(&target->meta);
	initStringInfo(&target->header);
	target->receiver = NULL;
	MemoryContextSwitchTo(old);
}

/* The target table's columns by their names: a partition may have them in another order. */
static AttrNumber *
map_columns(TupleDesc table, TupleDesc source)
{
	AttrNumber *attnums = palloc0(Max(table->natts, 1) * sizeof(AttrNumber));

	for (int i = 0; i < table->natts; i++)
	{
		for (int a = 0; a < source->natts && attnums[i] == 0; a++)
		{
			if (!TupleDescAttr(table, i)->attisdropped && !TupleDescAttr(source, a)->attisdropped &&
				strcmp(NameStr(TupleDescAttr(table, i)->attname),
					   NameStr(TupleDescAttr(source, a)->attname)) == 0)
				attnums[i] = TupleDescAttr(source, a)->attnum;
		}
	}
	return attnums;
}

/* A partition's key, by the numbers of the table's columns. */
static Bitmapset *
map_key(Relation table, Relation partition)
{
	AttrNumber *attnums = map_columns(RelationGetDescr(table), RelationGetDescr(partition));
	Bitmapset  *theirs = event_key(partition);
	Bitmapset  *key = NULL;

	for (int i = 0; i < RelationGetDescr(table)->natts; i++)
	{
		if (attnums[i] != 0 && bms_is_member(attnums[i], theirs))
			key = bms_add_member(key, i + 1);
	}
	return key;
}

/*
 * What tells the table's rows apart.  A partitioned table may have no key where its partitions
 * do: it has that of the first then.
 */
static Bitmapset *
find_key(Relation table)
{
	Bitmapset *key = event_key(table);
	ListCell  *cell;

	if (key != NULL || table->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		return key;
	foreach (cell, find_all_inheritors(RelationGetRelid(table), NoLock, NULL))
	{
		Relation partition = RelationIdGetRelation(lfirst_oid(cell));

		if (!RelationIsValid(partition))
			continue;
		if (partition->rd_rel->relkind == RELKIND_RELATION)
			key = map_key(table, partition);
		RelationClose(partition);
		if (key != NULL)
			break;
	}
	return key;
}

static void
refresh_target(Target *target, Relation relation, const PublishedTable *published)
{
	Bitmapset *key = find_key(relation);
	char      *columns = batch_describe_columns(target->batch, relation, published, key);

	if (target->context != NULL && strcmp(target->columns, columns) == 0)
		return;
	if (target->context != NULL)
		batch_end_file(target);
	set_target(target, relation, published, columns, key);
}

/* ---- sources ---- */

/*
 * Does the old row, as far as the WAL has it, have the key by which readers find a row?  That
 * of a partition may be another than that of its table.
 */
static bool
is_identified(const Source *source, const Target *target, Relation relation)
{
	int attnum = -1;

	if (relation->rd_rel->relreplident == REPLICA_IDENTITY_FULL)
		return true;
	while ((attnum = bms_next_member(target->key, attnum)) >= 0)
	{
		if (!bms_is_member(source->attnums[attnum - 1], source->key))
			return false;
	}
	return target->key != NULL;
}

static void
use_target(Batch *batch, Source *source, Relation relation, Relation table,
		   const PublishedTable *published, MemoryContext context)
{
	MemoryContext old;

	source->target = batch_get_target(batch, published->relid);
	refresh_target(source->target, table, published);
	old = MemoryContextSwitchTo(context);
	source->attnums = map_columns(RelationGetDescr(table), RelationGetDescr(relation));
	source->key = event_key(relation);
	MemoryContextSwitchTo(old);
	source->identified = is_identified(source, source->target, relation);
}

/* What it allocates for good is in "context"; the current context is for what may go. */
static void
refresh_source(Batch *batch, Source *source, Relation relation, Oid publication, Oid sender,
			   MemoryContext context)
{
	PublishedTable published = {0};

	if (source->attnums != NULL)
		pfree(source->attnums);
	bms_free(source->key);
	source->attnums = NULL;
	source->key = NULL;
	source->target = NULL;
	if (OidIsValid(publication))
		publication_describe(publication, sender, relation, &published);
	source->operations = published.operations;
	source->withheld = published.withheld;
	if (source->operations == 0)
		return;
	batch_note_sent(batch, source->relid);
	if (source->withheld)
		return;
	if (published.relid == RelationGetRelid(relation))
		use_target(batch, source, relation, relation, &published, context);
	else
	{
		Relation table = RelationIdGetRelation(published.relid);

		if (!RelationIsValid(table))
			elog(ERROR, "could not open relation with OID %u", published.relid);
		use_target(batch, source, relation, table, &published, context);
		RelationClose(table);
	}
}

const CurrentTable *
batch_find_table(const Batch *batch, Oid relid)
{
	const Target *target = batch_find_target(batch, relid);

	return target != NULL ? target->table : find_table(batch->settings->tables, relid);
}

char *
batch_name_sent(const Batch *batch, Oid relid)
{
	const CurrentTable *table = batch_find_table(batch, relid);

	if (table == NULL || table->columns == NULL)
		return NULL;
	return pnstrdup(table->columns, strcspn(table->columns, "\n"));
}

void
batch_make_sources(Batch *batch)
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
	batch_make_sources(batch);
}

Oid
batch_find_publication(Batch *batch)
{
	uint64 generation = publication_generation();

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

static Source *
enter_source(Batch *batch, Oid relid)
{
	bool    found;
	Source *source;

	if (hash_get_num_entries(batch->sources) >= MAX_SOURCES)
		batch_forget_sources(batch);
	source = hash_search(batch->sources, &relid, HASH_ENTER, &found);
	if (!found)
	{
		memset(source, 0, sizeof(*source));
		source->relid = relid;
	}
	return source;
}

/* What has been heard so far is noted before, as the look-up may hear of more. */
Source *
batch_find_source(Batch *batch, Relation relation)
{
	Source *source = enter_source(batch, RelationGetRelid(relation));
	uint64  generation = publication_generation();

	if (source->seen != generation)
	{
		source->seen = 0;
		refresh_source(batch, source, relation, batch_find_publication(batch),
					   find_sender(batch, source->relid), batch->sources_context);
		source->seen = generation;
	}
	return source;
}
