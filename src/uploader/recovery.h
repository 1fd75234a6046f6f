/*-------------------------------------------------------------------------
 *
 * recovery.h
 *	  What crashes have left in the bucket: settled from the rows of jobs.
 *
 * For jobs of this server that no process takes part in any more, uploads that
 * are open are aborted, and files whose request to appear had been sent are
 * looked for: only their token tells them from what others have put there.
 * Nothing is done to what is known from the bucket alone.
 *
 * In the uploader only; transactions of its own.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RECOVERY_H
#define RECOVERY_H

#include "tables/connector.h"

typedef struct RecoveryRow
{
	int64       job_id;
	const char *uri; /* NULL: none is known */
	const char *action;
	const char *detail;
} RecoveryRow;

/*
 * All jobs that "role" sees; InvalidOid: all.  What goes wrong with one job is
 * told in its row and does not keep the others.  Calls "report" for each file, or
 * job without one; "watch" may raise errors, as for http_set_watch.
 */
extern void recovery_run(Oid role, void (*report)(void *arg, const RecoveryRow *row),
						 void (*watch)(void *arg), void *arg);

/* May recovery_in_passing have something to do?  Takes less time to say no. */
extern bool recovery_is_due(const Connector *connector, int64 job_id);

/*
 * Before an export through "connector", whose job is "job_id": some of what is
 * left, in little time, told in the log.  Raises nothing but what "watch" raises.
 */
extern void
recovery_in_passing(const Connector *connector, int64 job_id, void (*watch)(void *arg), void *arg);

/* Removes rows of jobs that ended long ago; called after an export.  Logs what goes wrong. */
extern void recovery_forget(void);

/*
 * For a queued job that begins another attempt, and whose advisory lock we share: leaves nothing of the
 * last one.  Raises an error that may pass where that cannot be done; "watch" as above.
 */
extern void recovery_of_attempt(int64 job_id, void (*watch)(void *arg), void *arg);

#endif /* RECOVERY_H */
