/*-------------------------------------------------------------------------
 *
 * pending.c
 *	  What is to be done when the running transaction commits.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "pending.h"

List *
pending_add(List *list, int64 id)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);
	Pending      *pending = palloc(sizeof(Pending));

	pending->id = id;
	pending->subtransaction = GetCurrentSubTransactionId();
	list = lappend(list, pending);
	MemoryContextSwitchTo(old);
	return list;
}

bool
pending_has(const List *list, int64 id)
{
	ListCell *cell;

	foreach (cell, list)
	{
		if (((Pending *) lfirst(cell))->id == id)
			return true;
	}
	return false;
}

List *
pending_end_subtransaction(List *list, SubXactEvent event, SubTransactionId mine,
						   SubTransactionId parent)
{
	ListCell *cell;

	if (event != SUBXACT_EVENT_COMMIT_SUB && event != SUBXACT_EVENT_ABORT_SUB)
		return list;
	foreach (cell, list)
	{
		Pending *pending = lfirst(cell);

		if (pending->subtransaction != mine)
			continue;
		if (event == SUBXACT_EVENT_COMMIT_SUB)
			pending->subtransaction = parent;
		else
			list = foreach_delete_current(list, cell);
	}
	return list;
}
