/*-------------------------------------------------------------------------
 *
 * uploader.h
 *	  The uploader: the process that holds the secret and talks to S3.
 *
 * It runs no code of users and reads none of their tables; its requests and
 * its blocks come through a pipe (ipc/pipe.h).
 *
 *	  leader: a session, or the          request, blocks         uploader: one for
 *	  worker of a queued job     ---------------------------->   each export or check
 *	  runs the query                                              opens the secret
 *	  parallel workers           ---------------------------->   commits the job's rows
 *	  format the rows                       blocks                        |
 *	                                                                      v
 *	  leader                     <----------------------------     S3, STS: https
 *	                               begun, results, errors
 *
 *-------------------------------------------------------------------------
 */
#ifndef UPLOADER_H
#define UPLOADER_H

#include "uploader/recovery.h"
#include "uploader/export_job.h"

/*
 * Starts an uploader and waits until its job has begun: credentials are at
 * hand, and nothing is in the way of the object.  The caller then sends blocks
 * and PIPE_END, and calls uploader_finish, which closes the pipe.  "workers" is
 * as for pipe_open, "relid" as for pipe_begin_progress.
 */
extern Pipe *uploader_start_export(const Connector *connector, const ExportRequest *ordered,
								   int workers, Oid relid);

/*
 * Has uploader_start_export just failed for a queued job, as there was no background worker
 * (53000) or as its role runs as many exports as it may (53400)?  Others can raise such errors.
 */
extern bool uploader_was_refused(int64 job_id);
extern void uploader_finish_export(Pipe *pipe, JobTotals *totals);

/*
 * Checks a connector, saved or not, in an uploader started for that.  Returns
 * a list of PermissionResult, palloc'd; "wait" and *region as permission_check_all says.
 */
extern List *uploader_check(const Connector *connector, int wait, char **region);

/* Whom STS takes the keys of a connector for; palloc'd. */
typedef struct UploaderIdentity
{
	char *account;
	char *arn; /* NULL: it could not be found out, and the rest says why */
	int   sqlerrcode;
	char *detail;
	char *hint; /* NULL: none */
} UploaderIdentity;

extern UploaderIdentity *uploader_identity(const Connector *connector);

/*
 * The URI of an object in the connector's folder, palloc'd; NULL: there is none, or the store
 * does not say.
 */
extern char *uploader_find_object(const Connector *connector);

/* Settles what crashes have left, as recovery_run; a list of RecoveryRow, palloc'd. */
extern List *uploader_recover(Oid role);

#endif /* UPLOADER_H */
