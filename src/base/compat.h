/*-------------------------------------------------------------------------
 *
 * compat.h
 *	  Every difference between the server versions that s3export supports.
 *
 *-------------------------------------------------------------------------
 */
#ifndef COMPAT_H
#define COMPAT_H

#include "catalog/pg_class.h"
#include "fmgr.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
#include "utils/wait_event.h"

#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif
#if PG_VERSION_NUM >= 180000
#include "storage/waiteventset.h"
#endif

/*
 * Declares and registers a function that SQL calls.  Servers before 16 declare
 * it without visibility, and the module is compiled with everything hidden.
 */
#define SQL_FUNCTION(name)                           \
	extern PGDLLEXPORT Datum name(PG_FUNCTION_ARGS); \
	PG_FUNCTION_INFO_V1(name)

/* Membership comes without the right to SET ROLE from 16 on. */
#if PG_VERSION_NUM >= 160000
#define compat_can_set_role(member, role) member_can_set_role((member), (role))
#else
#define compat_can_set_role(member, role) is_member_of_role((member), (role))
#endif

/* Ownership of whatever has an owner is checked by one function from 16 on. */
#if PG_VERSION_NUM >= 160000
#define compat_owns_table(relid, role) object_ownercheck(RelationRelationId, (relid), (role))
#else
#define compat_owns_table(relid, role) pg_class_ownercheck((relid), (role))
#endif

#if PG_VERSION_NUM >= 160000
#define compat_may_create_in_database(role) \
	(object_aclcheck(DatabaseRelationId, MyDatabaseId, (role), ACL_CREATE) == ACLCHECK_OK)
#else
#define compat_may_create_in_database(role) \
	(pg_database_aclcheck(MyDatabaseId, (role), ACL_CREATE) == ACLCHECK_OK)
#endif

/* Runs a query once, to its end. */
#if PG_VERSION_NUM >= 180000
#define compat_executor_run(query) ExecutorRun((query), ForwardScanDirection, 0)
#else
#define compat_executor_run(query) ExecutorRun((query), ForwardScanDirection, 0, true)
#endif

/* WaitEventSets belong to a resource owner from 17 on. */
#if PG_VERSION_NUM >= 170000
#define compat_create_wait_event_set(n) CreateWaitEventSet(NULL, (n))
#else
#define compat_create_wait_event_set(n) CreateWaitEventSet(TopMemoryContext, (n))
#endif

/* Named wait events exist from 17 on; "cache" is a static uint32. */
#if PG_VERSION_NUM >= 170000
#define compat_wait_event(cache, name) \
	((cache) != 0 ? (cache) : ((cache) = WaitEventExtensionNew(name)))
#else
#define compat_wait_event(cache, name) ((void) (cache), PG_WAIT_EXTENSION)
#endif

/* A worker may connect as a role that may not log in, from 17 on. */
#if PG_VERSION_NUM >= 170000
#define COMPAT_CONNECT_FLAGS BGWORKER_BYPASS_ROLELOGINCHECK
#else
#define COMPAT_CONNECT_FLAGS 0
#endif

/* What a relation's files are called was renamed in 16. */
#if PG_VERSION_NUM >= 160000
#define compat_rel_locator(rel) ((rel)->rd_locator)
#else
#define compat_rel_locator(rel) ((rel)->rd_node)
#endif

/*
 * Until 16, a heap scan's state says which block comes next, and any block can
 * be made the current one; then blocks come from a stream.
 */
#if PG_VERSION_NUM >= 170000
#define COMPAT_HEAP_SCANS_BLOCKS false
#define compat_heapgetpage(scan, block) pg_unreachable()
#else
#define COMPAT_HEAP_SCANS_BLOCKS true
#define compat_heapgetpage(scan, block) heapgetpage((scan), (block))
#endif

/* old_snapshot_threshold, until 16: what a snapshot sees may be gone. */
#if PG_VERSION_NUM >= 170000
#define compat_snapshots_become_too_old false
#else
#define compat_snapshots_become_too_old (old_snapshot_threshold >= 0)
#endif

/* Decoded rows lost a wrapper in 17. */
#if PG_VERSION_NUM >= 170000
#define compat_decoded_tuple(tuple) (tuple)
#else
#define compat_decoded_tuple(buf) ((buf) != NULL ? &(buf)->tuple : NULL)
#endif

/* Takes a logical slot that nobody else has; whether it is of use is asked next. */
#if PG_VERSION_NUM >= 180000
#define compat_slot_acquire(name) ReplicationSlotAcquire((name), true, false)
#else
#define compat_slot_acquire(name) ReplicationSlotAcquire((name), true)
#endif
#if PG_VERSION_NUM >= 160000
#define compat_slot_is_invalidated(slot) ((slot)->data.invalidated != RS_INVAL_NONE)
#else
#define compat_slot_is_invalidated(slot)              \
	((slot)->data.restart_lsn == InvalidXLogRecPtr || \
	 (slot)->data.invalidated_at != InvalidXLogRecPtr)
#endif

/* OID of the index, 0: there is none that the server checks at once. */
#if PG_VERSION_NUM >= 180000
#define compat_primary_key(relation) RelationGetPrimaryKeyIndex((relation), false)
#else
#define compat_primary_key(relation) RelationGetPrimaryKeyIndex(relation)
#endif

/* What a publication says of stored generated columns is asked from 18 on; before, they are published. */
#if PG_VERSION_NUM >= 180000
#define compat_publishes_generated(publication) \
	((publication)->pubgencols_type == PUBLISH_GENCOLS_STORED)
#define COMPAT_PUBLISH_GENERATED ", publish_generated_columns = stored"
#else
#define compat_publishes_generated(publication) ((void) (publication), true)
#define COMPAT_PUBLISH_GENERATED ""
#endif

/*
 * The lock after "held" (NULL: the first) of those that a process holds in a partition of the
 * lock manager, whose LWLock the caller has; NULL: there is none.  The list got another type
 * in 16.
 */
static inline PROCLOCK *
compat_next_held(PGPROC *proc, uint32 partition, PROCLOCK *held)
{
#if PG_VERSION_NUM >= 160000
	dlist_head *locks = &proc->myProcLocks[partition];

	if (held == NULL)
		return dlist_is_empty(locks) ? NULL : dlist_head_element(PROCLOCK, procLink, locks);
	return dlist_has_next(locks, &held->procLink)
			   ? dlist_container(PROCLOCK, procLink, dlist_next_node(locks, &held->procLink))
			   : NULL;
#else
	SHM_QUEUE *locks = &proc->myProcLocks[partition];

	return (PROCLOCK *) SHMQueueNext(locks, held == NULL ? locks : &held->procLink,
									 offsetof(PROCLOCK, procLink));
#endif
}

/* Stands first in a declaration; the server's own word for it has changed in 18. */
#if PG_VERSION_NUM >= 180000
#define COMPAT_NORETURN pg_noreturn
#else
#define COMPAT_NORETURN pg_attribute_noreturn()
#endif

/* Failover slots came with 17: a standby that is promoted goes on with them. */
#if PG_VERSION_NUM >= 170000
#define compat_slot_create(name) \
	ReplicationSlotCreate((name), true, RS_EPHEMERAL, false, true, false)
#define compat_wait_for_standbys(position) WaitForStandbyConfirmation(position)
#else
#define compat_slot_create(name) ReplicationSlotCreate((name), true, RS_EPHEMERAL, false)
#define compat_wait_for_standbys(position) ((void) (position))
#endif

#endif /* COMPAT_H */
