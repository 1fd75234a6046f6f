/*-------------------------------------------------------------------------
 *
 * batch_unpublished.c
 *	  What is remembered of relations that the publication does not have.
 *
 * Such a relation may join the publication later.  Readers then miss the rows that it had
 * before: here is remembered whether it had any.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/pg_class.h"
#include "storage/smgr.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "currents/batch_internal.h"
#include "currents/publication.h"

/* So many are remembered from one transaction to the next. */
#define MAX_UNPUBLISHED 10000

/*
 * What follows from a transaction's own changes must not depend on how many relations it
 * changes: nothing is forgotten before its end.
 */
typedef struct Unpublished
{
	Oid        relid;    /* the hash table's key */
	bool       emptied;  /* it was empty, when it was made or truncated */
	bool       missed;   /* rows have been written to it since, which are no events */
	XLogRecPtr sent;     /* the first transaction since that has written events to it; 0: none */
	XLogRecPtr changed;  /* by this transaction last */
	uint64     outsider; /* publication_members() when it was found to be none; 0: it was not */
} Unpublished;

void
batch_make_unpublished(Batch *batch)
{
	HASHCTL control = {.keysize = sizeof(Oid), .entrysize = sizeof(Unpublished)};

	control.hcxt = AllocSetContextCreate(batch->context, "s3export unpublished relations",
										 ALLOCSET_DEFAULT_SIZES);
	batch->unpublished_context = control.hcxt;
	batch->unpublished = hash_create("s3export unpublished relations", 64, &control,
									 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

void
batch_begin_unpublished(Batch *batch)
{
	if (hash_get_num_entries(batch->unpublished) > MAX_UNPUBLISHED)
	{
		MemoryContextDelete(batch->unpublished_context);
		batch_make_unpublished(batch);
	}
	MemoryContextReset(batch->passed_context);
	batch->passed = NIL;
	batch->passed_seen = publication_generation();
}

static Unpublished *
enter_unpublished(Batch *batch, Oid relid)
{
	bool         found;
	Unpublished *entry = hash_search(batch->unpublished, &relid, HASH_ENTER, &found);

	if (!found)
		*entry = (Unpublished){.relid = relid};
	return entry;
}

static Unpublished *
find_unpublished(const Batch *batch, Oid relid)
{
	return hash_search(batch->unpublished, &relid, HASH_FIND, NULL);
}

/* ---- its changes ---- */

void
batch_pass_over(Batch *batch, const DecodeChange *change)
{
	Oid          relid = RelationGetRelid(change->relation);
	Unpublished *entry = enter_unpublished(batch, relid);

	if (entry->changed != change->transaction->lsn)
	{
		MemoryContext old = MemoryContextSwitchTo(batch->passed_context);

		batch->passed = lappend_oid(batch->passed, relid);
		MemoryContextSwitchTo(old);
	}
	entry->changed = change->transaction->lsn;
	if (change->operation == DECODE_TRUNCATE)
	{
		entry->emptied = true;
		entry->sent = InvalidXLogRecPtr;
	}
	entry->missed = change->operation != DECODE_TRUNCATE;
}

static List *
list_missed(const Batch *batch)
{
	List              *relids = NIL;
	HASH_SEQ_STATUS    status;
	const Unpublished *entry;

	hash_seq_init(&status, batch->unpublished);
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		if (entry->missed)
			relids = lappend_oid(relids, entry->relid);
	}
	list_sort(relids, list_oid_cmp);
	return relids;
}

/*
 * None can have been published meanwhile if the process has heard of no change, and the
 * transaction sees what the others before it have left.
 */
List *
batch_list_passed(const Batch *batch, bool all)
{
	if (all)
		return list_missed(batch);
	return batch->older || batch->passed_seen != publication_generation() ? batch->passed : NIL;
}

void
batch_note_sent(Batch *batch, Oid relid)
{
	Unpublished *entry = find_unpublished(batch, relid);

	if (entry != NULL && entry->sent == InvalidXLogRecPtr)
		entry->sent = batch->transaction.lsn;
}

bool
batch_has_missed(const Batch *batch, Oid relid)
{
	const Unpublished *entry = find_unpublished(batch, relid);

	return entry != NULL && entry->missed;
}

void
batch_forget_missed(Batch *batch, Oid relid)
{
	Unpublished *entry = find_unpublished(batch, relid);

	if (entry != NULL)
		entry->missed = false;
}

void
batch_note_birth(Batch *batch, Oid relid)
{
	Unpublished *entry = enter_unpublished(batch, relid);

	entry->emptied = true;
	entry->sent = InvalidXLogRecPtr;
}

/* ---- outsiders ---- */

/* Temporary tables come and go. */
void
batch_note_outsider(Batch *batch, Oid relid)
{
	Oid  publication = batch_find_publication(batch);
	char kind = get_rel_relkind(relid);

	if (OidIsValid(publication) &&
		(kind == RELKIND_RELATION || kind == RELKIND_PARTITIONED_TABLE) &&
		get_rel_persistence(relid) != RELPERSISTENCE_TEMP &&
		publication_is_outsider(publication, relid))
		enter_unpublished(batch, relid)->outsider = publication_members();
}

bool
batch_is_outsider(const Batch *batch, Oid relid)
{
	const Unpublished *entry = find_unpublished(batch, relid);

	return entry != NULL && entry->outsider == publication_members();
}

void
batch_forget_outsider(Batch *batch, Oid relid)
{
	Unpublished *entry = find_unpublished(batch, relid);

	if (entry != NULL)
		entry->outsider = 0;
}

/* ---- its rows ---- */

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

bool
batch_may_have_rows(const Batch *batch, Oid relid, bool is_new)
{
	const Unpublished *entry = find_unpublished(batch, relid);

	if (entry != NULL && entry->missed)
		return true;
	/* Readers of another table have got its rows of earlier transactions. */
	if (entry != NULL && entry->emptied &&
		(entry->sent == InvalidXLogRecPtr || entry->sent == batch->transaction.lsn))
		return false;
	return !is_new && has_pages(relid);
}
