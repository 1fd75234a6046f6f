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
#include "catalog/pg_publication.h"
#include "catalog/pg_publication_namespace.h"
#include "catalog/pg_publication_rel.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "base/object_path.h"
#include "currents/batch_internal.h"
#include "currents/publication.h"

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
	return object_path_table(get_namespace_name(get_rel_namespace(relid)), get_rel_name(relid));
}

static bool
relation_exists(Oid relid)
{
	return SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid));
}

/* ---- rows of the catalogs ---- */

/* All versions of rows of a catalog with an OID that the slot keeps. */
typedef struct Versions
{
	Relation    relation;
	SysScanDesc scan;
} Versions;

static void
begin_versions(Versions *versions, Oid catalog, Oid index, AttrNumber attnum, Oid oid)
{
	ScanKeyData key;

	ScanKeyInit(&key, attnum, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(oid));
	versions->relation = table_open(catalog, AccessShareLock);
	versions->scan = systable_beginscan(versions->relation, index, true, SnapshotAny, 1, &key);
}

static void
end_versions(Versions *versions)
{
	systable_endscan(versions->scan);
	table_close(versions->relation, AccessShareLock);
}

/* Has the transaction written or deleted the version? */
static bool
is_of(const DecodeTransaction *transaction, HeapTuple tuple)
{
	return decoder_is_of(transaction, HeapTupleHeaderGetXmin(tuple->t_data)) ||
		   decoder_is_of(transaction, HeapTupleHeaderGetUpdateXid(tuple->t_data));
}

/* Has the transaction written or deleted rows of a catalog with the OID? */
static bool
is_touched(const DecodeTransaction *transaction, Oid catalog, Oid index, AttrNumber attnum, Oid oid)
{
	Versions  versions;
	HeapTuple tuple;
	bool      found = false;

	begin_versions(&versions, catalog, index, attnum, oid);
	while (!found && HeapTupleIsValid(tuple = systable_getnext(versions.scan)))
		found = is_of(transaction, tuple);
	end_versions(&versions);
	return found;
}

/*
 * Does the transaction give it another schema, which may be published, or make it logged or
 * unlogged?  At its beginning, and at its end.
 */
static bool
is_moved(const DecodeTransaction *transaction, Oid relid)
{
	Oid       schema = get_rel_namespace(relid);
	char      persistence = get_rel_persistence(relid);
	Versions  versions;
	HeapTuple tuple;
	bool      found = false;

	begin_versions(&versions, RelationRelationId, ClassOidIndexId, Anum_pg_class_oid, relid);
	while (!found && HeapTupleIsValid(tuple = systable_getnext(versions.scan)))
	{
		Form_pg_class row = (Form_pg_class) GETSTRUCT(tuple);

		found = (row->relnamespace != schema || row->relpersistence != persistence) &&
				is_of(transaction, tuple);
	}
	end_versions(&versions);
	return found;
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

/* Adds partitions whose rows in pg_inherits the transaction writes or deletes, with theirs. */
static List *
add_attached(List *relids, const DecodeTransaction *transaction, Oid parent)
{
	Versions  versions;
	HeapTuple tuple;
	List     *attached = NIL;
	ListCell *cell;

	begin_versions(&versions, InheritsRelationId, InheritsParentIndexId, Anum_pg_inherits_inhparent,
				   parent);
	while (HeapTupleIsValid(tuple = systable_getnext(versions.scan)))
	{
		if (is_of(transaction, tuple))
			attached = lappend_oid(attached, ((Form_pg_inherits) GETSTRUCT(tuple))->inhrelid);
	}
	end_versions(&versions);
	foreach (cell, attached)
	{
		if (relation_exists(lfirst_oid(cell)))
			relids = list_concat(relids, find_all_inheritors(lfirst_oid(cell), NoLock, NULL));
	}
	return relids;
}

/*
 * The server does not say of a partition that its table moves to another schema, that one above
 * it is attached or detached, or that its own DETACH CONCURRENTLY is half done.
 */
static List *
add_partitions(Batch *batch, const DecodeTransaction *transaction, List *relids, bool outsiders)
{
	List     *all = list_copy(relids);
	ListCell *cell;

	foreach (cell, relids)
	{
		Oid relid = lfirst_oid(cell);

		CHECK_FOR_INTERRUPTS();
		if ((!outsiders && batch_is_outsider(batch, relid)) ||
			get_rel_relkind(relid) != RELKIND_PARTITIONED_TABLE)
			continue;
		if (is_moved(transaction, relid))
			all = list_concat(all, find_all_inheritors(relid, NoLock, NULL));
		else
			all = add_attached(all, transaction, relid);
	}
	list_sort(all, list_oid_cmp);
	list_deduplicate_oid(all);
	return all;
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
add_member(Batch *batch, Oid relid)
{
	Member  member = {.relid = relid};
	Member *kept;

	if (!batch_is_outsider(batch, relid))
	{
		if (!relation_exists(relid))
			return;
		member.table = find_table(batch, relid);
		batch->looks |= get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE;
	}
	if (OidIsValid(member.table))
		member.name = MemoryContextStrdup(batch->members_context, name_of(relid));
	kept = MemoryContextAlloc(batch->members_context, sizeof(Member));
	*kept = member;
	batch->looks |= OidIsValid(member.table);
	batch->members = lappend(batch->members, kept);
}

void
batch_begin_members(Batch *batch, const DecodeTransaction *transaction)
{
	MemoryContext caller = MemoryContextSwitchTo(batch->event_context);
	List         *relids = add_partitions(batch, transaction, list_changed(transaction), false);
	ListCell     *cell;

	MemoryContextReset(batch->members_context);
	MemoryContextSwitchTo(batch->members_context);
	batch->members = NIL;
	batch->looks = false;
	batch->members_seen = publication_members();
	batch->members_publication = relids != NIL ? batch_find_publication(batch) : InvalidOid;
	foreach (cell, relids)
	{
		CHECK_FOR_INTERRUPTS();
		add_member(batch, lfirst_oid(cell));
	}
	MemoryContextReset(batch->event_context);
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

/* Has the transaction made the relation?  Then it has not found the row of somebody else. */
static bool
is_new(const DecodeTransaction *transaction, Oid relid)
{
	Versions  versions;
	HeapTuple tuple;
	bool      writes = false;
	bool      found = false;

	begin_versions(&versions, RelationRelationId, ClassOidIndexId, Anum_pg_class_oid, relid);
	while (!found && HeapTupleIsValid(tuple = systable_getnext(versions.scan)))
	{
		if (decoder_is_of(transaction, HeapTupleHeaderGetXmin(tuple->t_data)))
			writes = true;
		else
			found = decoder_is_of(transaction, HeapTupleHeaderGetUpdateXid(tuple->t_data));
	}
	end_versions(&versions);
	return writes && !found;
}

static bool
any_has_rows(const Batch *batch, const DecodeTransaction *transaction, Oid table)
{
	ListCell *cell;

	if (get_rel_relkind(table) != RELKIND_PARTITIONED_TABLE)
		return batch_may_have_rows(batch, table, is_new(transaction, table));
	foreach (cell, find_all_inheritors(table, NoLock, NULL))
	{
		CHECK_FOR_INTERRUPTS();
		if (get_rel_relkind(lfirst_oid(cell)) == RELKIND_RELATION &&
			batch_may_have_rows(batch, lfirst_oid(cell), is_new(transaction, lfirst_oid(cell))))
			return true;
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

static Oid
table_before(const Member *member)
{
	return member != NULL ? member->table : InvalidOid;
}

static bool
is_unlogged(Oid relid)
{
	return relation_exists(relid) && get_rel_persistence(relid) == RELPERSISTENCE_UNLOGGED;
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
		reason = relation_exists(change->relid) ? "the table has left the publication"
												: "the table was dropped";
	else
		reason = psprintf(relation_exists(change->relid) ? "partition %s was detached"
														 : "partition %s was dropped",
						  change->before->name);
	batch_note_gap(batch, table, reason, !is_unlogged(change->relid));
}

static bool
is_publication_touched(const DecodeTransaction *transaction, Oid publication)
{
	return is_touched(transaction, PublicationRelationId, PublicationObjectIndexId,
					  Anum_pg_publication_oid, publication);
}

/* A table, or a schema, that publications may have. */
static bool
is_membership_touched(const DecodeTransaction *transaction, Oid relid)
{
	return is_touched(transaction, PublicationRelRelationId, PublicationRelPrrelidPrpubidIndexId,
					  Anum_pg_publication_rel_prrelid, relid) ||
		   is_touched(transaction, PublicationNamespaceRelationId,
					  PublicationNamespacePnnspidPnpubidIndexId,
					  Anum_pg_publication_namespace_pnnspid, get_rel_namespace(relid)) ||
		   is_touched(transaction, InheritsRelationId, InheritsRelidSeqnoIndexId,
					  Anum_pg_inherits_inhrelid, relid);
}

/*
 * Is it the transaction that has the relation published, or not any more?  It sees the catalogs
 * of its first change: another one may have done that since.
 */
static bool
is_done_here(Batch *batch, const DecodeTransaction *transaction, const Change *change)
{
	List     *relids = list_make1_oid(change->relid);
	ListCell *cell;

	if (!relation_exists(change->relid) || is_new(transaction, change->relid) ||
		is_publication_touched(transaction, batch->members_publication) ||
		is_publication_touched(transaction, batch_find_publication(batch)))
		return true;
	if (get_rel_relispartition(change->relid))
		relids = list_concat(relids, get_partition_ancestors(change->relid));
	if (OidIsValid(table_before(change->before)))
		relids = list_append_unique_oid(relids, change->before->table);
	foreach (cell, relids)
	{
		if (is_membership_touched(transaction, lfirst_oid(cell)) ||
			is_moved(transaction, lfirst_oid(cell)))
			return true;
	}
	return false;
}

static void
tell_rows(Batch *batch, const DecodeTransaction *transaction, Oid relid, Oid table)
{
	if (is_copied(batch, transaction, table))
		return;
	batch_note_gap(batch, name_of(table),
				   relid != table ? psprintf("partition %s has joined without the rows that it had",
											 name_of(relid))
								  : "the table has joined the publication without the rows that it "
									"had",
				   false);
	batch_forget_missed(batch, relid);
}

/* "whole": tables that come or go with all of their partitions, which are told with them. */
static void
tell_change(Batch *batch, const DecodeTransaction *transaction, const Change *change, List **whole)
{
	Oid before = table_before(change->before);

	if (before == change->after || !is_done_here(batch, transaction, change))
		return;
	if (before == change->relid || change->after == change->relid)
		*whole = lappend_oid(*whole, change->relid);
	if (OidIsValid(before) && (before == change->relid || !list_member_oid(*whole, before)))
		tell_gone(batch, change);
	if (OidIsValid(change->after) &&
		(change->after == change->relid || !list_member_oid(*whole, change->after)) &&
		any_has_rows(batch, transaction, change->relid))
		tell_rows(batch, transaction, change->relid, change->after);
}

/*
 * Changes were passed over, as the relation was not published at their place, and it is
 * published now: the transaction has taken it out and in again, or is older than the one that
 * has published it.
 */
static void
tell_passed(Batch *batch, const DecodeTransaction *transaction)
{
	ListCell *cell;

	foreach (cell, batch_list_passed(batch, batch->members_seen != publication_members()))
	{
		Oid relid = lfirst_oid(cell);
		Oid table = relation_exists(relid) ? find_table(batch, relid) : InvalidOid;

		CHECK_FOR_INTERRUPTS();
		if (OidIsValid(table) &&
			(batch_has_missed(batch, relid) || table_before(find_member(batch, relid)) == table))
			tell_rows(batch, transaction, relid, table);
	}
}

static void
note_unpublished(Batch *batch, const DecodeTransaction *transaction, Oid relid)
{
	if (relation_exists(relid) && get_rel_relkind(relid) == RELKIND_RELATION &&
		get_rel_persistence(relid) == RELPERSISTENCE_PERMANENT && is_new(transaction, relid))
		batch_note_birth(batch, relid);
	batch_note_outsider(batch, relid);
}

/* Those that it has changed, with their partitions as they were and as they are. */
static List *
list_looked_at(Batch *batch, const DecodeTransaction *transaction, bool looks)
{
	List     *relids = list_changed(transaction);
	ListCell *cell;

	foreach (cell, batch->members)
		relids = lappend_oid(relids, ((const Member *) lfirst(cell))->relid);
	return add_partitions(batch, transaction, relids, looks);
}

/*
 * Which tables the transaction has made join, leave or change.  Where no catalog says that
 * anything changed, tables that were outsiders before are not looked up again.
 */
static List *
list_changes(Batch *batch, const DecodeTransaction *transaction)
{
	List     *changes = NIL;
	bool      looks = batch->looks || batch->members_seen != publication_members();
	ListCell *cell;

	foreach (cell, list_looked_at(batch, transaction, looks))
	{
		Change change = {.relid = lfirst_oid(cell)};

		CHECK_FOR_INTERRUPTS();
		if (!looks && batch_is_outsider(batch, change.relid))
			continue;
		change.before = find_member(batch, change.relid);
		change.after = find_table(batch, change.relid);
		if (OidIsValid(change.after))
			batch_forget_outsider(batch, change.relid);
		if (OidIsValid(change.after) || OidIsValid(table_before(change.before)))
			changes = lappend(changes, memcpy(palloc(sizeof(Change)), &change, sizeof(Change)));
		else
			note_unpublished(batch, transaction, change.relid);
	}
	return changes;
}

static bool
is_of_partition(const Change *change)
{
	return change->after != change->relid && table_before(change->before) != change->relid;
}

List *
batch_end_members(Batch *batch, const DecodeTransaction *transaction)
{
	List     *changes = list_changes(batch, transaction);
	List     *whole = NIL;
	List     *tables = NIL;
	ListCell *cell;

	/* Tables first, then their partitions. */
	foreach (cell, changes)
	{
		if (!is_of_partition(lfirst(cell)))
			tell_change(batch, transaction, lfirst(cell), &whole);
	}
	foreach (cell, changes)
	{
		const Change *change = lfirst(cell);

		if (is_of_partition(change))
			tell_change(batch, transaction, change, &whole);
		if (change->after == change->relid)
			tables = lappend_oid(tables, change->relid);
	}
	tell_passed(batch, transaction);
	if (changes != NIL || batch->members_seen != publication_members())
		batch->changed = transaction->lsn;
	return tables;
}
