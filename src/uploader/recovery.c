/*-------------------------------------------------------------------------
 *
 * recovery.c
 *	  What crashes have left in the bucket: settled from the rows of jobs.
 *
 * A Complete whose answer nobody has seen may still be at work while we look, so
 * the object is looked for once more when its upload has gone.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#include "base/guc.h"
#include "tables/advisory_lock.h"
#include "tables/job.h"
#include "tables/utf8.h"
#include "uploader/recovery.h"
#include "uploader/s3_client.h"

/* One request, its retries, and what it takes to have credentials; ms */
#define REQUEST_TIMEOUT 15000

/* What an export may be delayed by. */
#define PASSING_TIMEOUT 5000 /* ms */
#define PASSING_FILES 10

/* Files that the error of a job names. */
#define NAMED_FILES 5

typedef struct Recovery
{
	void (*report)(void *arg, const RecoveryRow *row);
	void (*watch)(void *arg);
	void       *arg;
	TimestampTz deadline;  /* TIMESTAMP_INFINITY: none */
	int         files;     /* looked at */
	int64       mute;      /* the connector of which nothing answers; 0: none */
	Connector  *connector; /* of the last job; NULL: it exists no more */
	const char *obstacle;  /* why nothing can be done for this job; NULL: nothing */
	bool        hopeless;  /* and never will */
	S3Session  *s3;        /* for one file */
} Recovery;


/* ----------
 * One file
 * ----------
 */

static int
time_left(const Recovery *recovery)
{
	long left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), recovery->deadline);

	return (int) Min(left, REQUEST_TIMEOUT);
}

/* What could not be done, and which upload that leaves. */
static void
leave_upload(JobRemnant *remnant, const char *why)
{
	const char *upload_id = remnant->file.upload_id;

	remnant->fate = JOB_FILE_LEFT;
	remnant->detail = psprintf("%s%s%s%s%s", remnant->completing ? "Its outcome is unknown.  " : "",
							   why, upload_id ? "  Its upload is \"" : "",
							   upload_id ? upload_id : "", upload_id ? "\"." : "");
}

static void
leave_after(Recovery *recovery, JobRemnant *remnant, const S3Error *error)
{
	if (error->http_status == 0)
		recovery->mute = recovery->connector->connector_id;
	leave_upload(remnant, s3_error_detail(error));
}

/*
 * Looks for the object of a file that may be in place.  Returns true when that
 * decides it, else *found says what there is.
 */
static bool
look_for_object(Recovery *recovery, JobRemnant *remnant, const char *key, const char **found)
{
	S3Call   head = {.verb = S3_HEAD_OBJECT, .key = key};
	JobFile *file = &remnant->file;

	(void) s3_perform_until(recovery->s3, &head, time_left(recovery));
	if (!head.ok && head.error.http_status != 404)
	{
		leave_after(recovery, remnant, &head.error);
		return true;
	}
	if (head.ok && s3_object_is_of(&head.found, file->token) &&
		head.found.size == (int64) file->bytes)
	{
		file->etag = head.found.etag;
		remnant->fate = JOB_FILE_DONE;
		remnant->detail = "The object is in place, with the token and the size of this job's.";
		return true;
	}
	*found = head.ok ? "The object there is not this job's." : "There is no such object.";
	return false;
}

/*
 * An object that may have appeared is looked for before its upload is aborted, and after that
 * once more: a Complete may have been under way.
 */
static void
settle_remnant(Recovery *recovery, JobRemnant *remnant)
{
	JobFile    *file = &remnant->file;
	char       *key = utf8_from_database(file->key);
	const char *found = NULL;
	S3Error     error;

	if (remnant->completing && look_for_object(recovery, remnant, key, &found))
		return;
	if (file->upload_id != NULL)
	{
		if (!s3_abort_upload(recovery->s3, key, file->upload_id, time_left(recovery), &error))
		{
			leave_after(recovery, remnant, &error);
			return;
		}
		if (remnant->completing && look_for_object(recovery, remnant, key, &found))
			return;
	}
	remnant->fate = JOB_FILE_ABORTED;
	remnant->detail =
		psprintf("%s%s%s", found ? found : "", found && file->upload_id ? "  " : "",
				 file->upload_id ? "Its upload was aborted." : (found ? "" : "It had no upload."));
}

/* A role's session may do no more than this file needs. */
static void
settle_in_session(Recovery *recovery, const JobRemains *remains, JobRemnant *remnant)
{
	Connector  *connector = recovery->connector;
	JobFile    *file = &remnant->file;
	S3Timeouts  limits = s3_client_timeouts();
	HttpClient *http = s3_client_open_http(2, Min(guc_retry_timeout, STORE_CHECK_RETRY_TIMEOUT));

	http_set_watch(http, recovery->watch, recovery->arg);
	connector_require_proof(connector, false);
	connector_require_credentials(connector);
	recovery->s3 =
		s3_open(http, &connector->s3,
				s3_client_open_credentials(http, connector, psprintf(INT64_FORMAT, remains->job_id),
										   utf8_from_database(file->key), false, false),
				&limits);
	settle_remnant(recovery, remnant);
}

/*
 * After an error: what the watch has raised it raises again; a request to cancel
 * is heard once, so it goes on as an error.  The rest is a sentence.
 */
static char *
take_error(const Recovery *recovery, MemoryContext context, ResourceOwner owner)
{
	ErrorData *error;

	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	AbortOutOfAnyTransaction();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED || error->sqlerrcode == ERRCODE_ADMIN_SHUTDOWN)
		PG_RE_THROW();
	FlushErrorState();
	recovery->watch(recovery->arg);
	return psprintf("It could not be settled: %s.%s%s", error->message, error->detail ? "  " : "",
					error->detail ? error->detail : "");
}

/*
 * An error of one file leaves that file as it is, and does not keep the others from being
 * settled.  A store that did not answer once is not waited for again.
 */
static void
settle_file(Recovery *recovery, const JobRemains *remains, JobRemnant *remnant)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	MemoryContext file_context;

	if (recovery->obstacle != NULL)
	{
		leave_upload(remnant, recovery->obstacle);
		return;
	}
	if (recovery->mute == recovery->connector->connector_id)
	{
		leave_upload(remnant,
					 "S3 did not answer when another file of the connector was looked at.");
		return;
	}
	if (time_left(recovery) <= 0)
	{
		leave_upload(remnant, "There was no time for it.");
		return;
	}
	recovery->files++;
	file_context = AllocSetContextCreate(context, "s3export remnant", ALLOCSET_DEFAULT_SIZES);
	PG_TRY();
	{
		MemoryContextSwitchTo(file_context);
		settle_in_session(recovery, remains, remnant);
		MemoryContextSwitchTo(context);
		remnant->detail = pstrdup(remnant->detail);
		if (remnant->file.etag != NULL)
			remnant->file.etag = pstrdup(remnant->file.etag);
	}
	PG_CATCH();
	{
		leave_upload(remnant, take_error(recovery, context, owner));
	}
	PG_END_TRY();
	MemoryContextDelete(file_context);
}


/* ----------
 * One job
 * ----------
 */

static bool
equal_or_null(const char *a, const char *b)
{
	return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

/* Whoever points a connector elsewhere leaves the uploads that are where it was. */
static bool
leads_elsewhere(const Connector *connector, const JobRemains *remains)
{
	const JobRemnant *remnant = linitial(remains->remnants);
	char             *bucket = connector_uri(connector, "");

	return !equal_or_null(connector->s3.endpoint_url, remains->endpoint_url) ||
		   strncmp(remnant->file.uri, bucket, strlen(bucket)) != 0;
}

static void
find_connector(Recovery *recovery, const JobRemains *remains)
{
	recovery->connector = connector_find(remains->connector_id);
	recovery->obstacle = NULL;
	recovery->hopeless = recovery->connector == NULL;
	if (recovery->connector == NULL)
		recovery->obstacle = psprintf("Connector \"%s\" exists no more.", remains->connector);
	else if (leads_elsewhere(recovery->connector, remains))
		recovery->obstacle =
			psprintf("Connector \"%s\" leads to another place now.", recovery->connector->name);
}

static void
report_row(const Recovery *recovery, int64 job_id, const char *uri, const char *action,
		   const char *detail)
{
	RecoveryRow row = {.job_id = job_id, .uri = uri, .action = action, .detail = detail};

	recovery->report(recovery->arg, &row);
}

static void
report_files(const Recovery *recovery, const JobRemains *remains)
{
	static const char *const actions[] = {
		[JOB_FILE_LEFT] = "left",
		[JOB_FILE_DONE] = "completed",
		[JOB_FILE_ABORTED] = "aborted",
	};
	ListCell *cell;

	foreach (cell, remains->remnants)
	{
		const JobRemnant *remnant = lfirst(cell);

		report_row(recovery, remains->job_id, remnant->file.uri, actions[remnant->fate],
				   remnant->detail);
	}
}

/* For the error of the job's row. */
static char *
describe_remains(const JobRemains *remains)
{
	int            files = list_length(remains->remnants);
	StringInfoData text;

	initStringInfo(&text);
	for (int i = 0; i < Min(files, NAMED_FILES); i++)
	{
		const JobRemnant *remnant = list_nth(remains->remnants, i);

		appendStringInfo(&text, "%s\"%s\": %s", i > 0 ? "  " : "", remnant->file.uri,
						 remnant->detail);
	}
	if (files > NAMED_FILES)
		appendStringInfo(&text, "  %d files more were looked at.", files - NAMED_FILES);
	return text.data;
}

/* Settles all files of a job whose processes are gone, then the job. */
static void
recover_claimed(Recovery *recovery, int64 job_id)
{
	static const char *const actions[] = {
		[JOB_SETTLED_FAILED] = "failed",
		[JOB_SETTLED_QUEUED] = "queued",
		[JOB_SETTLED_SUCCEEDED] = "completed",
	};
	JobRemains *remains = job_load_remains(job_id);
	ListCell   *cell;

	if (remains == NULL)
		return;
	if (remains->remnants == NIL)
	{
		const char *nothing = "No file of it was under way.";

		report_row(recovery, job_id, remains->uri, actions[job_settle(remains, nothing, false)],
				   nothing);
		return;
	}
	find_connector(recovery, remains);
	foreach (cell, remains->remnants)
		settle_file(recovery, remains, lfirst(cell));
	(void) job_settle(remains, describe_remains(remains), !recovery->hopeless);
	report_files(recovery, remains);
}

/* The lock is free only if no process of the job lives any more. */
static void
recover_job(Recovery *recovery, int64 job_id)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	MemoryContext job_context;

	if (!advisory_lock_try_exclusive(job_id))
		return;
	job_context = AllocSetContextCreate(context, "s3export recovery", ALLOCSET_DEFAULT_SIZES);
	PG_TRY();
	{
		MemoryContextSwitchTo(job_context);
		recover_claimed(recovery, job_id);
		MemoryContextSwitchTo(context);
	}
	PG_CATCH();
	{
		report_row(recovery, job_id, NULL, "left", take_error(recovery, context, owner));
	}
	PG_END_TRY();
	MemoryContextDelete(job_context);
	advisory_lock_release(job_id);
}


/* ----------
 * The interface
 * ----------
 */

static void
disown_jobs(Recovery *recovery, const JobScope *scope)
{
	ListCell *cell;

	foreach (cell, job_disown(scope))
	{
		const JobRemains *remains = lfirst(cell);

		report_row(recovery, remains->job_id, remains->uri, "failed",
				   "It belongs to another server or database, whose uploads were not touched.");
	}
}

static void
recover_all(Recovery *recovery, const JobScope *scope, int max_files)
{
	ListCell *cell;

	disown_jobs(recovery, scope);
	foreach (cell, job_find_remains(scope))
	{
		if (recovery->files >= max_files || time_left(recovery) <= 0)
			break;
		recover_job(recovery, *(int64 *) lfirst(cell));
	}
}

void
recovery_run(Oid role, void (*report)(void *arg, const RecoveryRow *row), void (*watch)(void *arg),
			 void *arg)
{
	JobScope scope = {.role = role};
	Recovery recovery = {
		.report = report,
		.watch = watch,
		.arg = arg,
		.deadline = DT_NOEND,
	};

	recover_all(&recovery, &scope, INT_MAX);
	job_forget();
}

void
recovery_of_attempt(int64 job_id, void (*watch)(void *arg), void *arg)
{
	Recovery    recovery = {.watch = watch, .arg = arg, .deadline = DT_NOEND};
	JobRemains *remains = job_load_remains(job_id);
	ListCell   *cell;

	if (remains != NULL && remains->remnants != NIL)
	{
		find_connector(&recovery, remains);
		foreach (cell, remains->remnants)
			settle_file(&recovery, remains, lfirst(cell));
		if (!job_settle_attempt(remains))
			ereport(ERROR, (errcode(ERRCODE_OBJECT_IN_USE),
							errmsg("could not remove what the last attempt has left in the bucket"),
							errdetail_internal("%s", describe_remains(remains))));
	}
	job_forget_files(job_id);
}

static void
log_row(void *arg pg_attribute_unused(), const RecoveryRow *row)
{
	ereport(LOG, (errmsg("recovery of job " INT64_FORMAT ": %s", row->job_id, row->action),
				  errdetail("%s%s%s%s", row->uri ? "\"" : "", row->uri ? row->uri : "",
							row->uri ? "\": " : "", row->detail)));
}

bool
recovery_is_due(const Connector *connector, int64 job_id)
{
	ListCell *cell;

	foreach (cell, job_find_suspects(connector->connector_id, job_id))
	{
		int64 other = *(int64 *) lfirst(cell);

		if (!advisory_lock_try_exclusive(other))
			continue;
		advisory_lock_release(other);
		return true;
	}
	return false;
}

void
recovery_in_passing(const Connector *connector, int64 job_id, void (*watch)(void *arg), void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	JobScope      scope = {
			 .connector_id = connector->connector_id,
			 .own_job_id = job_id,
			 .skip_recent = true,
    };
	Recovery recovery = {
		.report = log_row,
		.watch = watch,
		.arg = arg,
		.deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), PASSING_TIMEOUT),
	};

	PG_TRY();
	{
		recover_all(&recovery, &scope, PASSING_FILES);
	}
	PG_CATCH();
	{
		char *reason = take_error(&recovery, context, owner);

		ereport(LOG, (errmsg("could not recover earlier jobs of connector \"%s\"", connector->name),
					  errdetail_internal("%s", reason)));
	}
	PG_END_TRY();
}

void
recovery_forget(void)
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		job_forget();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		EmitErrorReport();
		FlushErrorState();
		AbortOutOfAnyTransaction();
	}
	PG_END_TRY();
}
