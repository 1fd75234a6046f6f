/*-------------------------------------------------------------------------
 *
 * current_slot.c
 *	  The replication slots of currents, as sessions see and drop them.
 *
 * A slot is no part of a transaction.  The slot of a connector that is dropped or
 * stopped goes when the transaction has committed, so that a transaction that fails, at
 * whatever point, leaves all slots.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "replication/slot.h"
#include "storage/lwlock.h"

#include "base/compat.h"
#include "currents/current_internal.h"
#include "tables/at_commit.h"

CurrentSlot
current_find_slot(int64 connector_id)
{
	const char      *name = current_slot_name(connector_id);
	ReplicationSlot *slot;
	CurrentSlot      found = CURRENT_SLOT_NONE;

	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	slot = SearchNamedReplicationSlot(name, false);
	if (slot != NULL)
	{
		SpinLockAcquire(&slot->mutex);
		if (slot->data.database == MyDatabaseId &&
			strcmp(NameStr(slot->data.plugin), "s3export") == 0)
			found = compat_slot_is_invalidated(slot) ? CURRENT_SLOT_LOST : CURRENT_SLOT_USABLE;
		SpinLockRelease(&slot->mutex);
	}
	LWLockRelease(ReplicationSlotControlLock);
	return found;
}

/* ---- at the end of a transaction ---- */

/*
 * The transaction has committed, and no error may leave this function: the server would
 * panic.  What ReplicationSlotDrop holds when it fails is given up as an abort would.
 */
static void
drop_slot(int64 connector_id)
{
	char   name[NAMEDATALEN];
	uint32 holdoff = InterruptHoldoffCount;

	snprintf(name, sizeof(name), "s3export_%u_" INT64_FORMAT, MyDatabaseId, connector_id);
	PG_TRY();
	{
		if (current_find_slot(connector_id) != CURRENT_SLOT_NONE)
			ReplicationSlotDrop(name, true);
	}
	PG_CATCH();
	{
		InterruptHoldoffCount = holdoff;
		LWLockReleaseAll();
		pgstat_report_wait_end();
		FlushErrorState();
		if (MyReplicationSlot != NULL)
			ReplicationSlotRelease();
		ereport(WARNING,
				(errmsg("could not drop replication slot \"%s\"", name),
				 errdetail("Another process uses it, or its files could not be removed."),
				 errhint("Drop it with pg_drop_replication_slot(), so that the server can remove "
						 "WAL.")));
	}
	PG_END_TRY();
}

static void
drop_slots(const List *entries)
{
	ListCell *cell;

	foreach (cell, entries)
		drop_slot(((Pending *) lfirst(cell))->id);
}

/* The connectors whose slots go */
static PendingList doomed = {
	.committed = drop_slots,
	.refusal = "cannot PREPARE a transaction that has dropped or stopped a connector of kind "
			   "\"currents\"",
};

void
current_drop_slot_at_commit(int64 connector_id)
{
	at_commit_add(&doomed, connector_id);
}
