/*-------------------------------------------------------------------------
 *
 * advisory_lock.c
 *	  Which jobs live, which paths are being written to, which currents are delivered.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/procarray.h"

#include "base/compat.h"
#include "tables/advisory_lock.h"

/* The fourth field of an advisory lock's tag, which is 1 or 2 for users' locks. */
#define CLASS_JOB 0x5301
#define CLASS_PATH 0x5302
#define CLASS_QUEUE 0x5303
#define CLASS_CURRENT 0x5304
#define CLASS_PATH_MARK 0x5305
#define CLASS_BUCKET 0x5306
#define CLASS_ROLE 0x5307 /* roles are the same in all databases */

/* Of a lock that others hold no longer than it takes to find it free. */
#define MARK_TRIES 100

static LOCKTAG
make_tag(uint64 id, uint16 lock_class)
{
	LOCKTAG tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) (id >> 32), (uint32) id, lock_class);
	return tag;
}

static LOCKTAG
job_tag(int64 job_id)
{
	return make_tag((uint64) job_id, CLASS_JOB);
}

/* Of two paths with the same 64 bits one would have to wait, which is no harm. */
static LOCKTAG
path_tag(int64 connector_id, const char *key, uint16 lock_class)
{
	return make_tag(
		hash_bytes_extended((const unsigned char *) key, (int) strlen(key), (uint64) connector_id),
		lock_class);
}

static bool
try_lock(LOCKTAG tag, LOCKMODE mode)
{
	return LockAcquire(&tag, mode, true, true) != LOCKACQUIRE_NOT_AVAIL;
}

static void
release_lock(LOCKTAG tag, LOCKMODE mode)
{
	(void) LockRelease(&tag, mode, true);
}

void
advisory_lock_join(int64 job_id)
{
	if (!try_lock(job_tag(job_id), ShareLock))
		ereport(ERROR, (errcode(ERRCODE_OBJECT_IN_USE),
						errmsg("job " INT64_FORMAT " is being recovered", job_id)));
}

void
advisory_lock_leave(int64 job_id)
{
	release_lock(job_tag(job_id), ShareLock);
}

bool
advisory_lock_try_exclusive(int64 job_id)
{
	return try_lock(job_tag(job_id), ExclusiveLock);
}

void
advisory_lock_release(int64 job_id)
{
	release_lock(job_tag(job_id), ExclusiveLock);
}

bool
advisory_lock_try_path(int64 connector_id, const char *key)
{
	return try_lock(path_tag(connector_id, key, CLASS_PATH), ExclusiveLock);
}

static bool
is_free(LOCKTAG tag)
{
	if (!try_lock(tag, ShareLock))
		return false;
	release_lock(tag, ShareLock);
	return true;
}

bool
advisory_lock_mark_path(int64 connector_id, const char *key)
{
	LOCKTAG mark = path_tag(connector_id, key, CLASS_PATH_MARK);

	for (int i = 0; i < MARK_TRIES; i++)
	{
		if (try_lock(mark, ExclusiveLock))
			return true;
		pg_usleep(1000);
	}
	return false;
}

void
advisory_lock_unmark_path(int64 connector_id, const char *key)
{
	release_lock(path_tag(connector_id, key, CLASS_PATH_MARK), ExclusiveLock);
}

bool
advisory_lock_path_is_marked(int64 connector_id, const char *key)
{
	return !is_free(path_tag(connector_id, key, CLASS_PATH_MARK));
}

void
advisory_lock_release_path(int64 connector_id, const char *key)
{
	release_lock(path_tag(connector_id, key, CLASS_PATH), ExclusiveLock);
}

bool
advisory_lock_path_is_free(int64 connector_id, const char *key)
{
	return is_free(path_tag(connector_id, key, CLASS_PATH));
}

/*
 * The lock manager tells of one lock only who is in its way, and only of those in a
 * transaction.  What a process holds of one partition of the locks is a short list.
 */
bool
advisory_lock_is_held_by(int64 job_id, int pid)
{
	LOCKTAG   tag = job_tag(job_id);
	uint32    hash = LockTagHashCode(&tag);
	LWLock   *partition = LockHashPartitionLock(hash);
	PGPROC   *proc = BackendPidGetProc(pid);
	PROCLOCK *held = NULL;
	bool      found = false;

	if (proc == NULL)
		return false;
	LWLockAcquire(partition, LW_SHARED);
	while (!found && (held = compat_next_held(proc, LockHashPartition(hash), held)) != NULL)
		found = (held->holdMask & LOCKBIT_ON(ShareLock)) != 0 &&
				memcmp(&held->tag.myLock->tag, &tag, sizeof(LOCKTAG)) == 0;
	/* Its place may be another process's by now. */
	found = found && proc->pid == pid;
	LWLockRelease(partition);
	return found;
}

void
advisory_lock_bucket(const char *endpoint_url, const char *bucket, bool alone)
{
	char   *name = psprintf("%s %s", endpoint_url ? endpoint_url : "", bucket);
	LOCKTAG tag = make_tag(hash_bytes_extended((const unsigned char *) name, (int) strlen(name), 0),
						   CLASS_BUCKET);

	(void) LockAcquire(&tag, alone ? ExclusiveLock : ShareLock, false, false);
}

bool
advisory_lock_try_place_of_role(Oid role, int places)
{
	for (int i = 0; i < places; i++)
	{
		LOCKTAG tag;

		SET_LOCKTAG_ADVISORY(tag, InvalidOid, role, (uint32) i, CLASS_ROLE);
		if (try_lock(tag, ExclusiveLock))
			return true;
	}
	return false;
}

bool
advisory_lock_try_queue(void)
{
	return try_lock(make_tag(0, CLASS_QUEUE), ExclusiveLock);
}

void
advisory_lock_release_queue(void)
{
	release_lock(make_tag(0, CLASS_QUEUE), ExclusiveLock);
}

bool
advisory_lock_try_current(int64 connector_id)
{
	return try_lock(make_tag((uint64) connector_id, CLASS_CURRENT), ExclusiveLock);
}

void
advisory_lock_release_current(int64 connector_id)
{
	release_lock(make_tag((uint64) connector_id, CLASS_CURRENT), ExclusiveLock);
}

bool
advisory_lock_current(int64 connector_id)
{
	LOCKTAG tag = make_tag((uint64) connector_id, CLASS_CURRENT);

	return LockAcquire(&tag, ExclusiveLock, false, true) != LOCKACQUIRE_NOT_AVAIL;
}
