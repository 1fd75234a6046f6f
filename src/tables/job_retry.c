/*-------------------------------------------------------------------------
 *
 * job_retry.c
 *	  Queued jobs that are tried again (retry_for).
 *
 * What an attempt has left in the bucket is settled before the next one begins, so a
 * job has the files of one attempt.  One of which a file is in place, or may be, is not
 * tried again: the next attempt would find it in the way, or replace what readers have.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "tables/catalog.h"
#include "tables/job.h"

/* Seconds between two attempts: twice as long each time, and more or less by a fifth. */
#define FIRST_PAUSE "30"
#define LAST_PAUSE "900"
#define DOUBLINGS "5"

bool
job_error_passes(int sqlerrcode)
{
	switch (sqlerrcode)
	{
		case ERRCODE_CONFIGURATION_LIMIT_EXCEEDED:
			return false;
		case ERRCODE_OBJECT_IN_USE:
		case ERRCODE_ADMIN_SHUTDOWN:
		case ERRCODE_CRASH_SHUTDOWN:
		case ERRCODE_CANNOT_CONNECT_NOW:
			return true;
		default:
			return ERRCODE_TO_CATEGORY(sqlerrcode) == ERRCODE_INSUFFICIENT_RESOURCES;
	}
}

/* A queued job has not had its attempt counted by job_claim. */
bool
job_try_again(int64 job_id, const char *code, const char *message, const char *detail,
			  const char *hint)
{
	return catalog_execute(
			   "UPDATE s3export.job SET state = 'queued', waiting_for = '" JOB_RESTS "',"
			   " attempts = attempts + (state = 'queued')::integer,"
			   " next_attempt_at = least(retry_until, pg_catalog.clock_timestamp()"
			   " + pg_catalog.make_interval(secs => (0.8 + 0.4 * pg_catalog.random())"
			   " * least(" LAST_PAUSE ", " FIRST_PAUSE " * 2 ^ least(" DOUBLINGS
			   ", attempts - (state <> 'queued')::integer)))),"
			   " started_at = NULL, leader_pid = NULL, uploader_pid = NULL, pipe = NULL,"
			   " error_code = $2, error_message = $3, error_detail = $4, error_hint = $5"
			   " WHERE job_id = $1 AND state IN ('queued', 'running', 'completing')"
			   " AND retry_until > pg_catalog.clock_timestamp() AND NOT EXISTS (SELECT"
			   " FROM s3export.job_file f WHERE f.job_id = $1 AND f.state IN ('done', 'completing'))",
			   param_int8(job_id), param_text(code), param_text(message), param_text(detail),
			   param_text(hint)) > 0;
}

void
job_forget_files(int64 job_id)
{
	CatalogTransaction transaction;

	catalog_begin_transaction(&transaction);
	(void) catalog_execute("DELETE FROM s3export.job_file WHERE job_id = $1"
						   " AND state = 'aborted'",
						   param_int8(job_id));
	catalog_commit_transaction(&transaction);
}
