/*-------------------------------------------------------------------------
 *
 * batch_members.c
 *	  Which tables a transaction brings to the publication, and which it takes away.
 *
 * Readers have the rows of a table from the events since it has been published, so that
 * rows from before, and rows of a table that goes, are gaps.  A transaction that changes the
 * catalogs is looked at twice: with the catalogs as they were before it, and as it leaves
 * them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_class.h"
#include "catalog/partition.h"
#include "catalog/pg_inherits.h"
#include "storage/smgr.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "batch_internal.h"
#include "path.h"
#include "publication.h"

/* A relation that was there before the transaction. */
typedef struct Member
{
	Oid   relid;
	Oid   table; /* whose changes its were; 0: it was not published */
	char *name;  /* as folders have it, if it was */
} Member;

static char *
name_of(Oid relid)
{
	return path_table(get_namespace_name(get_rel_namespace(relid)), get_rel_name(relid));
}

static bool
exists(Oid relid)
{
	return SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid));
}

/* ---- before ---- */

static List *
list_all_relations(void)
{
	Relation    pg_class = table_open(RelationRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(pg_class, InvalidOid, false, NULL, 0, NULL);
	List       *relids = NIL;
	HeapTuple   tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		relids = lappend_oid(relids, ((Form_pg_class) GETSTRUCT(tuple))->oid);
	systable_endscan(scan);
	table_close(pg_class, AccessShareLock);
	/* A batch that is written again finds them in the same order. */
	list_sort(relids, list_oid_cmp);
	return relids;
}

static List *
list_changed(const DecodeTransaction *transaction)
{
	List *relids = NIL;

	if (transaction->nchanged > 0 && !OidIsValid(transaction->changed[0]))
		return list_all_relations();
	for (int i = 0; i < transaction->nchanged; i++)
		relids = lappend_oid(relids, transaction->changed[i]);
	return relids;
}

/* The table whose changes the relation's are; 0: none, as for partitions that have partitions. */
static Oid
find_table(Batch *batch, Oid relid)
{
	Oid publication = batch_find_publication(batch);
	Oid table = OidIsValid(publication) ? publication_find_table(publication, relid) : InvalidOid;

	return table == relid || get_rel_relkind(relid) == RELKIND_RELATION ? table : InvalidOid;
}

static void
add_member(Batch *batch, Oid relid, Oid table)
{
	MemoryContext old = MemoryContextSwitchTo(batch->members_context);
	Member       *member = palloc(sizeof(Member));

	*member = (Member){.relid = relid, .table = table};
	if (OidIsValid(table))
		member->name = name_of(relid);
	batch->members = lappend(batch->members, member);
	MemoryContextSwitchTo(old);
}

/*
 * A relation that is altered again and again has as many rows in the catalogs, and each look-up
 * passes all of them.  So one that is known to be nobody's is not looked up, unless the
 * transaction changes the publication, or a table that is published: it may become its
 * partition.
 */
static bool
is_outsider(const Batch *batch, Oid relid)
{
	const Source *source = batch_peek_source(batch, relid);

	return source != NULL && source->outsider == publication_members();
}

/* Temporary tables come and go. */
static void
note_outsider(Batch *batch, Oid relid)
{
	Oid  publication = batch_find_publication(batch);
	char kind = get_rel_relkind(relid);

	if (OidIsValid(publication) &&
		(kind == RELKIND_RELATION || kind == RELKIND_PARTITIONED_TABLE) &&
		get_rel_persistence(relid) != RELPERSISTENCE_TEMP &&
		publication_is_outsider(publication, relid))
		batch_enter_source(batch, relid)->outsider = publication_members();
}

static bool
any_is_published(Batch *batch, List *relids)
{
	ListCell *cell;

	foreach (cell, relids)
	{
		if (!is_outsider(batch, lfirst_oid(cell)) &&
			OidIsValid(find_table(batch, lfirst_oid(cell))))
			return true;
	}
	return false;
}

static void
add_members(Batch *batch, List *relids)
{
	ListCell *cell;

	foreach (cell, relids)
	{
		if (is_outsider(batch, lfirst_oid(cell)))
			add_member(batch, lfirst_oid(cell), InvalidOid);
		else if (exists(lfirst_oid(cell)))
			add_member(batch, lfirst_oid(cell), find_table(batch, lfirst_oid(cell)));
	}
}

void
batch_begin_members(Batch *batch, const DecodeTransaction *transaction)
{
	MemoryContext caller = MemoryContextSwitchTo(batch->event_context);
	List         *relids;

	MemoryContextReset(batch->members_context);
	MemoryContextReset(batch->event_context);
	batch->members = NIL;
	relids = list_changed(transaction);
	/* What is cached is of others, which may have begun after the transaction. */
	batch->looks = any_is_published(batch, relids);
	if (batch->looks)
		decode_forget_catalogs();
	add_members(batch, relids);
	MemoryContextSwitchTo(caller);
}

/* They are in the order of their OIDs. */
static const Member *
find_member(const Batch *batch, Oid relid)
{
	int low = 0;
	int high = list_length(batch->members);

	while (low < high)
	{
		int           middle = (low + high) / 2;
		const Member *member = list_nth(batch->members, middle);

		if (member->relid == relid)
			return member;
		if (member->relid < relid)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

/* ---- rows that are no events ---- */

/* Has the transaction written the row of the catalogs, which is released?  There may be none. */
static bool
is_written(const DecodeTransaction *transaction, HeapTuple tuple)
{
	bool found =
		HeapTupleIsValid(tuple) && decode_is_of(transaction, HeapTupleHeaderGetXmin(tuple->t_data));

	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return found;
}

/* No command changes the row of the column "ctid" after it has made the table. */
static bool
is_new(const DecodeTransaction *transaction, Oid relid)
{
	return is_written(transaction, SearchSysCache2(ATTNUM, ObjectIdGetDatum(relid),
												   Int16GetDatum(SelfItemPointerAttributeNumber)));
}

/*
 * Is the relation's file, as the catalogs of the moment have it, that of today?  One that is not
 * stays as an empty file for a while.
 */
static bool
is_todays_file(Relation relation)
{
	Relation    pg_class = table_open(RelationRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple   tuple;
	bool        same;

	ScanKeyInit(&key, Anum_pg_class_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(RelationGetRelid(relation)));
	scan = systable_beginscan(pg_class, ClassOidIndexId, true, SnapshotSelf, 1, &key);
	tuple = systable_getnext(scan);
	same = HeapTupleIsValid(tuple) &&
		   ((Form_pg_class) GETSTRUCT(tuple))->relfilenode == relation->rd_rel->relfilenode;
	systable_endscan(scan);
	table_close(pg_class, AccessShareLock);
	return same;
}

/* A file that is gone by now may have had rows. */
static bool
has_pages(Oid relid)
{
	Relation relation = RelationIdGetRelation(relid);
	bool     found = false;

	if (!RelationIsValid(relation))
		return true;
	if (RELKIND_HAS_STORAGE(relation->rd_rel->relkind))
		found = !is_todays_file(relation) || !smgrexists(RelationGetSmgr(relation), MAIN_FORKNUM) ||
				smgrnblocks(RelationGetSmgr(relation), MAIN_FORKNUM) > 0;
	RelationClose(relation);
	return found;
}

/* May the relation have rows, at the end of the transaction, of which there was no event? */
static bool
may_have_rows(Batch *batch, const DecodeTransaction *transaction, Oid relid)
{
	const Source *source = batch_peek_source(batch, relid);

	if (source != NULL && source->missed)
		return true;
	if (is_new(transaction, relid) || (source != NULL && source->born))
		return false;
	return has_pages(relid);
}

static bool
any_has_rows(Batch *batch, const DecodeTransaction *transaction, Oid table)
{
	ListCell *cell;

	foreach (cell, find_all_inheritors(table, NoLock, NULL))
	{
		if (get_rel_relkind(lfirst_oid(cell)) == RELKIND_RELATION &&
			may_have_rows(batch, transaction, lfirst_oid(cell)))
			return true;
		if (get_rel_relkind(table) != RELKIND_PARTITIONED_TABLE)
			break; /* children by inheritance are tables of their own */
	}
	return false;
}

/* ---- after ---- */

/* A relation whose membership the transaction may have changed. */
typedef struct Change
{
	Oid           relid;
	const Member *before; /* NULL: it was not there */
	Oid           after;  /* the table whose changes its are now; 0: it is not published */
} Change;

static bool
is_unlogged(Oid relid)
{
	return exists(relid) && get_rel_persistence(relid) == RELPERSISTENCE_UNLOGGED;
}

/* Has the table come by s3export.add_table()?  Then its rows are copied. */
static bool
is_copied(const Batch *batch, const DecodeTransaction *transaction, Oid table)
{
	const CurrentTable *known = batch_find_table(batch, table);

	return known != NULL && transaction->lsn < known->since_lsn;
}

/* A table that goes is no loss to readers who have never heard of it. */
static void
tell_gone(Batch *batch, const Change *change)
{
	char *table = batch_name_sent(batch, change->before->table);
	bool  partition = change->before->table != change->relid;
	char *reason;

	if (table == NULL)
		return;
	if (is_unlogged(change->relid))
		reason = psprintf("%s is unlogged", change->before->name);
	else if (!partition)
		reason =
			exists(change->relid) ? "the table has left the publication" : "the table was dropped";
	else
		reason = psprintf(exists(change->relid) ? "partition %s was detached"
												: "partition %s was dropped",
						  change->before->name);
	batch_note_gap(batch, table, reason, !is_unlogged(change->relid));
}

static bool
is_attached_here(const DecodeTransaction *transaction, Oid relid)
{
	Relation    pg_inherits = table_open(InheritsRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple   tuple;
	bool        found;

	ScanKeyInit(&key, Anum_pg_inherits_inhrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relid));
	scan = systable_beginscan(pg_inherits, InheritsRelidSeqnoIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	found =
		HeapTupleIsValid(tuple) && decode_is_of(transaction, HeapTupleHeaderGetXmin(tuple->t_data));
	systable_endscan(scan);
	table_close(pg_inherits, AccessShareLock);
	return found;
}

/*
 * Is it the transaction that has a relation published?  Another one may have made the relation
 * after this one had begun, and before it came to change it.
 */
static bool
is_published_here(Batch *batch, const DecodeTransaction *transaction, Oid relid)
{
	Datum     publication = ObjectIdGetDatum(batch_find_publication(batch));
	List     *relids = list_make1_oid(relid);
	ListCell *cell;

	if (is_written(transaction, SearchSysCache1(PUBLICATIONOID, publication)))
		return true;
	if (get_rel_relispartition(relid))
		relids = list_concat(relids, get_partition_ancestors(relid));
	foreach (cell, relids)
	{
		Datum table = ObjectIdGetDatum(lfirst_oid(cell));
		Datum schema = ObjectIdGetDatum(get_rel_namespace(lfirst_oid(cell)));

		if (is_attached_here(transaction, lfirst_oid(cell)) ||
			is_written(transaction, SearchSysCache2(PUBLICATIONRELMAP, table, publication)) ||
			is_written(transaction, SearchSysCache2(PUBLICATIONNAMESPACEMAP, schema, publication)))
			return true;
	}
	return false;
}

static void
tell_come(Batch *batch, const DecodeTransaction *transaction, const Change *change)
{
	bool    partition = change->after != change->relid;
	Source *source = batch_peek_source(batch, change->relid);

	if (is_copied(batch, transaction, change->after) ||
		(change->before == NULL && !is_new(transaction, change->relid) &&
		 !is_published_here(batch, transaction, change->relid)) ||
		!any_has_rows(batch, transaction, change->relid))
		return;
	batch_note_gap(batch, name_of(change->after),
				   partition ? psprintf("partition %s has joined without the rows that it had",
										name_of(change->relid))
							 : "the table has joined the publication without the rows that it had",
				   false);
	if (source != NULL)
		source->missed = false;
}

/* Changes were made while the transaction itself had taken the relation out. */
static bool
has_missed(Batch *batch, Oid relid)
{
	const Source *source = batch_peek_source(batch, relid);

	return source != NULL && source->missed;
}

/* "whole": tables that come or go with all of their partitions, which are told with them. */
static void
tell_change(Batch *batch, const DecodeTransaction *transaction, const Change *change, List **whole)
{
	Oid  before = change->before != NULL ? change->before->table : InvalidOid;
	bool partition = before != change->relid && change->after != change->relid;

	if (before == change->after && !has_missed(batch, change->relid))
		return;
	if (!partition)
		*whole = lappend_oid(*whole, change->relid);
	if (OidIsValid(before) && before != change->after &&
		(before == change->relid || !list_member_oid(*whole, before)))
		tell_gone(batch, change);
	if (OidIsValid(change->after) &&
		(change->after == change->relid || !list_member_oid(*whole, change->after)))
		tell_come(batch, transaction, change);
}

/* Of a table that is made here, and is not published yet, no change will be overlooked. */
static void
note_birth(Batch *batch, const DecodeTransaction *transaction, Oid relid)
{
	if (exists(relid) && get_rel_relkind(relid) == RELKIND_RELATION &&
		get_rel_persistence(relid) == RELPERSISTENCE_PERMANENT && is_new(transaction, relid))
		batch_enter_source(batch, relid)->born = true;
}

static List *
list_changes(Batch *batch, const DecodeTransaction *transaction)
{
	List     *changes = NIL;
	ListCell *cell;

	foreach (cell, list_changed(transaction))
	{
		Change *change;

		if (!batch->looks && is_outsider(batch, lfirst_oid(cell)))
			continue;
		change = palloc(sizeof(Change));
		*change = (Change){.relid = lfirst_oid(cell),
						   .before = find_member(batch, lfirst_oid(cell)),
						   .after = find_table(batch, lfirst_oid(cell))};
		if (OidIsValid(change->after) ||
			(change->before != NULL && OidIsValid(change->before->table)))
			changes = lappend(changes, change);
		else
		{
			note_birth(batch, transaction, change->relid);
			note_outsider(batch, change->relid);
			pfree(change);
		}
	}
	return changes;
}

List *
batch_end_members(Batch *batch, const DecodeTransaction *transaction, bool *changed)
{
	List     *changes = list_changes(batch, transaction);
	List     *whole = NIL;
	List     *tables = NIL;
	ListCell *cell;

	/* Tables first, then their partitions. */
	foreach (cell, changes)
	{
		const Change *change = lfirst(cell);

		if (change->after == change->relid ||
			(change->before != NULL && change->before->table == change->relid))
			tell_change(batch, transaction, change, &whole);
		if (change->after == change->relid)
			tables = lappend_oid(tables, change->relid);
	}
	foreach (cell, changes)
	{
		const Change *change = lfirst(cell);

		if (change->after != change->relid &&
			(change->before == NULL || change->before->table != change->relid))
			tell_change(batch, transaction, change, &whole);
	}
	*changed = changes != NIL;
	return tables;
}
