/*-------------------------------------------------------------------------
 *
 * at_commit.c
 *	  What is to be done when the running transaction commits.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "tables/at_commit.h"

/*
 * A prepared transaction would be committed by another session, which knows nothing of the list.
 */
static void
end_transaction(XactEvent event, void *arg)
{
	PendingList *list = arg;
	List        *entries = list->entries;

	if (entries == NIL)
		return;
	switch (event)
	{
		case XACT_EVENT_PRE_PREPARE:
			ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED), errmsg("%s", list->refusal)));
			break;
		case XACT_EVENT_COMMIT:
			list->entries = NIL;
			list->committed(entries);
			break;
		case XACT_EVENT_ABORT:
			list->entries = NIL;
			break;
		default:
			break;
	}
}

/* Keeps what a subtransaction leaves behind, and no more. */
static void
end_subtransaction(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	PendingList *list = arg;
	ListCell    *cell;

	if (event != SUBXACT_EVENT_COMMIT_SUB && event != SUBXACT_EVENT_ABORT_SUB)
		return;
	foreach (cell, list->entries)
	{
		Pending *pending = lfirst(cell);

		if (pending->subtransaction != mine)
			continue;
		if (event == SUBXACT_EVENT_COMMIT_SUB)
			pending->subtransaction = parent;
		else
			list->entries = foreach_delete_current(list->entries, cell);
	}
}

void
at_commit_add(PendingList *list, int64 id)
{
	MemoryContext old;
	Pending      *pending;

	if (!list->registered)
	{
		RegisterXactCallback(end_transaction, list);
		RegisterSubXactCallback(end_subtransaction, list);
		list->registered = true;
	}
	old = MemoryContextSwitchTo(TopTransactionContext);
	pending = palloc(sizeof(Pending));
	pending->id = id;
	pending->subtransaction = GetCurrentSubTransactionId();
	list->entries = lappend(list->entries, pending);
	MemoryContextSwitchTo(old);
}

bool
at_commit_has(const PendingList *list, int64 id)
{
	ListCell *cell;

	foreach (cell, list->entries)
	{
		if (((Pending *) lfirst(cell))->id == id)
			return true;
	}
	return false;
}
