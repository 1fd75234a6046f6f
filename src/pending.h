/*-------------------------------------------------------------------------
 *
 * pending.h
 *	  What is to be done when the running transaction commits.
 *
 * A list of ids in TopTransactionContext, to be set to NIL by its owner's callback
 * when the transaction has ended.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PENDING_H
#define PENDING_H

#include "access/xact.h"
#include "nodes/pg_list.h"

typedef struct Pending
{
	int64            id;
	SubTransactionId subtransaction; /* that it goes with */
} Pending;

extern List *pending_add(List *list, int64 id);

extern bool pending_has(const List *list, int64 id);

/* For a SubXactCallback: keeps what a subtransaction leaves behind, and no more. */
extern List *pending_end_subtransaction(List *list, SubXactEvent event, SubTransactionId mine,
										SubTransactionId parent);

#endif /* PENDING_H */
