/*-------------------------------------------------------------------------
 *
 * advisory_lock.h
 *	  Which jobs live, which paths are being written to, which currents are delivered.
 *
 * Session-level locks of the server's lock manager: a process that dies holds
 * none, whichever way it dies, and a server that crashes forgets them all.
 * They look like advisory locks (pg_locks shows them so), with a class that
 * pg_advisory_lock cannot name.  They belong to this database on this server, so
 * that no copy of either shares them.  None of these functions waits, but for an
 * instant; all of them work within a transaction, without one, and on a standby.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ADVISORY_LOCK_H
#define ADVISORY_LOCK_H

/*
 * Whoever takes part in a job shares its advisory lock from before its row says
 * 'running' until its end has been recorded.  In a process that also runs code
 * of users it does not suffice: pg_advisory_unlock_all() gives it up.  Raises
 * ERRCODE_OBJECT_IN_USE while somebody recovers the job.
 */
extern void advisory_lock_join(int64 job_id);
extern void advisory_lock_leave(int64 job_id);

/*
 * For whoever recovers a job: false when it lives, or somebody else is at it.
 * The job's row may have changed until then.  Not for a job that this process has
 * joined.
 */
extern bool advisory_lock_try_exclusive(int64 job_id);
extern void advisory_lock_release(int64 job_id);

/* Does that process share the job's advisory lock?  0 is no process. */
extern bool advisory_lock_is_held_by(int64 job_id, int pid);

/*
 * The right to write to "key" through a connector, of which there is one; false
 * when another process has it.
 */
extern bool advisory_lock_try_path(int64 connector_id, const char *key);
extern void advisory_lock_release_path(int64 connector_id, const char *key);

/*
 * Who has the path marks it as one that will be released soon, since nothing is
 * left to be done but to clean up.  The mark goes after the path; false: it could not
 * be made.
 */
extern bool advisory_lock_mark_path(int64 connector_id, const char *key);
extern void advisory_lock_unmark_path(int64 connector_id, const char *key);
extern bool advisory_lock_path_is_marked(int64 connector_id, const char *key);

/* Has nobody the path now?  For whoever would rather wait. */
extern bool advisory_lock_path_is_free(int64 connector_id, const char *key);

/*
 * The right to deliver, launch, stop or drop a current.  The first is held until it
 * is released, the second until the transaction ends.
 */
extern bool advisory_lock_try_current(int64 connector_id);
extern void advisory_lock_release_current(int64 connector_id);
extern bool advisory_lock_current(int64 connector_id);

/*
 * The right to save connectors of a bucket (endpoint_url NULL: AWS's), until the transaction
 * ends: "alone", or together with others who do not want it alone.  Waits.
 */
extern void advisory_lock_bucket(const char *endpoint_url, const char *bucket, bool alone);

/*
 * A place among the "places" that exports of a role have in all databases, until the process
 * ends; false: they are taken.
 */
extern bool advisory_lock_try_place_of_role(Oid role, int places);

/* The right to start this database's queued jobs. */
extern bool advisory_lock_try_queue(void);
extern void advisory_lock_release_queue(void);

#endif /* ADVISORY_LOCK_H */
