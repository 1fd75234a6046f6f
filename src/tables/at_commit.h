/*-------------------------------------------------------------------------
 *
 * at_commit.h
 *	  What is to be done when the running transaction commits.
 *
 * A list of ids of the running transaction, of which subtransactions that are rolled back
 * take theirs with them.  It is a static variable of whoever acts on it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef AT_COMMIT_H
#define AT_COMMIT_H

#include "access/xact.h"
#include "nodes/pg_list.h"

typedef struct Pending
{
	int64            id;
	SubTransactionId subtransaction; /* that it goes with */
} Pending;

typedef struct PendingList
{
	/* Is called after the commit of a transaction that has entries; it must raise no error. */
	void (*committed)(const List *entries);

	const char *refusal;    /* the error of PREPARE TRANSACTION */
	List       *entries;    /* of Pending, in TopTransactionContext */
	bool        registered; /* its callbacks are */
} PendingList;

extern void at_commit_add(PendingList *list, int64 id);

extern bool at_commit_has(const PendingList *list, int64 id);

#endif /* AT_COMMIT_H */
