/*-------------------------------------------------------------------------
 *
 * job_api.c
 *	  SQL functions about jobs that run elsewhere.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/array.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "api/result_row.h"
#include "base/args.h"
#include "base/compat.h"
#include "tables/advisory_lock.h"
#include "tables/dispatcher.h"
#include "tables/job.h"

SQL_FUNCTION(s3export_wait);
SQL_FUNCTION(s3export_wait_all);
SQL_FUNCTION(s3export_cancel);

/* ms between two looks at a job */
#define FIRST_LOOK 100
#define LAST_LOOK 1000

static bool
may_see(Oid owner)
{
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(owner)))
		return superuser();
	return has_privs_of_role(GetUserId(), owner);
}

static void
get_status(int64 job_id, JobStatus *status)
{
	if (!job_get_status(job_id, status) || !may_see(status->owner))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("job " INT64_FORMAT " does not exist", job_id),
						errhint("View s3export.jobs lists those that you may see.")));
}

static int64
job_argument(FunctionCallInfo fcinfo)
{
	args_require_not_null(fcinfo, 0, "job_id");
	return PG_GETARG_INT64(0);
}

static bool
is_queued(const JobStatus *status)
{
	return strcmp(status->state, "queued") == 0;
}

static bool
has_ended(const JobStatus *status)
{
	return !is_queued(status) && strcmp(status->state, "running") != 0 &&
		   strcmp(status->state, "completing") != 0;
}

/* Of the leaders only those that are workers of a queued job share its advisory lock. */
static bool
has_process(int64 job_id, const JobStatus *status)
{
	return advisory_lock_is_held_by(job_id, status->uploader_pid) ||
		   advisory_lock_is_held_by(job_id, status->leader_pid);
}

/* ---------------------------------------------------------------- waiting */

/* When to stop; the end of time when the argument is null. */
static TimestampTz
deadline_argument(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(1))
		return DT_NOEND;
	return DatumGetTimestampTz(DirectFunctionCall2(
		timestamptz_pl_interval, TimestampTzGetDatum(GetCurrentTimestamp()), PG_GETARG_DATUM(1)));
}

static void
wait_a_while(long ms)
{
	static uint32 wait_event = 0;

	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, ms,
					 compat_wait_event(wait_event, "S3exportWait"));
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/*
 * Between two looks at its row a job may have ended, so one whose processes are
 * gone is looked at again before it is given up.
 */
static void
require_process(int64 job_id, JobStatus *status)
{
	if (is_queued(status) || has_ended(status) || has_process(job_id, status))
		return;
	get_status(job_id, status);
	if (is_queued(status) || has_ended(status) || has_process(job_id, status))
		return;
	ereport(ERROR, (errcode(ERRCODE_CONNECTION_FAILURE),
					errmsg("the processes of job " INT64_FORMAT " have died", job_id),
					errhint("s3export.recover() finds out what became of it.")));
}

/* The status lives in a context of the last look, in the current one. */
static void
wait_for_end(int64 job_id, TimestampTz deadline, JobStatus *status)
{
	MemoryContext look =
		AllocSetContextCreate(CurrentMemoryContext, "s3export look", ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(look);
	long          pause = FIRST_LOOK;

	for (;;)
	{
		long left;

		MemoryContextReset(look);
		get_status(job_id, status);
		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);
		if (has_ended(status) || left <= 0)
			break;
		require_process(job_id, status);
		if (is_queued(status))
			dispatcher_start();
		wait_a_while(Min(pause, left));
		pause = Min(pause * 3 / 2, LAST_LOOK);
	}
	MemoryContextSwitchTo(caller);
}

/* Which job, as a session that waits may have several. */
static int
context_of(int64 job_id, const JobStatus *status)
{
	if (status->uri == NULL)
		return errcontext("export job " INT64_FORMAT, job_id);
	return errcontext("export job " INT64_FORMAT " to \"%s\"", job_id, status->uri);
}

static void
raise_error_of(int64 job_id, const JobStatus *status)
{
	int code = ERRCODE_INTERNAL_ERROR;

	if (status->error_code != NULL && strlen(status->error_code) == 5)
		code = MAKE_SQLSTATE(status->error_code[0], status->error_code[1], status->error_code[2],
							 status->error_code[3], status->error_code[4]);
	ereport(ERROR, (errcode(code),
					errmsg_internal("%s", status->error_message ? status->error_message : ""),
					status->error_detail ? errdetail_internal("%s", status->error_detail) : 0,
					status->error_hint ? errhint("%s", status->error_hint) : 0,
					context_of(job_id, status)));
}

static void
require_committed(int64 job_id)
{
	if (dispatcher_is_of_transaction(job_id))
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("cannot wait for job " INT64_FORMAT, job_id),
						errdetail("This transaction has queued it, and it starts when the "
								  "transaction commits."),
						errhint("Commit first.")));
}

static void
add_status(ResultRow *row, int64 job_id, const JobStatus *status)
{
	result_row_add_int8(row, job_id);
	result_row_add_text(row, status->state);
	result_row_add_text(row, status->uri);
	result_row_add_int8(row, status->rows);
	result_row_add_int8(row, status->files);
	result_row_add_int8(row, status->bytes);
}

static Datum
status_row(FunctionCallInfo fcinfo, int64 job_id, const JobStatus *status)
{
	ResultRow row = {0};

	add_status(&row, job_id, status);
	return result_row_datum(fcinfo, &row);
}

Datum
s3export_wait(PG_FUNCTION_ARGS)
{
	int64       job_id = job_argument(fcinfo);
	TimestampTz deadline = deadline_argument(fcinfo);
	JobStatus   status;

	PreventCommandIfParallelMode("s3export.wait()");
	require_committed(job_id);
	wait_for_end(job_id, deadline, &status);
	if (has_ended(&status) && strcmp(status.state, "succeeded") != 0)
		raise_error_of(job_id, &status);
	PG_RETURN_DATUM(status_row(fcinfo, job_id, &status));
}

/* The ids, in their order. */
static List *
jobs_argument(FunctionCallInfo fcinfo)
{
	List  *ids = NIL;
	Datum *values;
	bool  *nulls;
	int    count;

	args_require_not_null(fcinfo, 0, "job_ids");
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), INT8OID, sizeof(int64), FLOAT8PASSBYVAL,
					  TYPALIGN_DOUBLE, &values, &nulls, &count);
	for (int i = 0; i < count; i++)
	{
		int64 *id = palloc(sizeof(int64));

		if (nulls[i])
			args_null_element("job_ids");
		*id = DatumGetInt64(values[i]);
		require_committed(*id);
		ids = lappend(ids, id);
	}
	return ids;
}

static void
put_status(FunctionCallInfo fcinfo, int64 job_id, const JobStatus *status)
{
	ResultRow row = {0};

	add_status(&row, job_id, status);
	result_row_add_text(&row, status->error_code);
	result_row_add_text(&row, status->error_message);
	result_row_add_text(&row, status->error_detail);
	result_row_add_text(&row, status->error_hint);
	result_row_put(fcinfo, &row);
}

/* An error comes when all have ended, and is that of the first that has one. */
Datum
s3export_wait_all(PG_FUNCTION_ARGS)
{
	List       *ids = jobs_argument(fcinfo);
	TimestampTz deadline = deadline_argument(fcinfo);
	bool        raise = !PG_ARGISNULL(2) && PG_GETARG_BOOL(2);
	JobStatus   failed;
	int64       failed_id = 0;
	ListCell   *cell;

	InitMaterializedSRF(fcinfo, 0);
	foreach (cell, ids)
	{
		int64         job_id = *(int64 *) lfirst(cell);
		JobStatus     status;
		MemoryContext look =
			AllocSetContextCreate(CurrentMemoryContext, "s3export job", ALLOCSET_SMALL_SIZES);
		MemoryContext caller = MemoryContextSwitchTo(look);

		wait_for_end(job_id, deadline, &status);
		put_status(fcinfo, job_id, &status);
		if (failed_id == 0 && has_ended(&status) && strcmp(status.state, "succeeded") != 0)
		{
			failed = status;
			failed_id = job_id;
		}
		MemoryContextSwitchTo(caller);
		/* What is told at the end lives as long. */
		if (failed_id != job_id)
			MemoryContextDelete(look);
	}
	if (raise && failed_id != 0)
		raise_error_of(failed_id, &failed);
	return (Datum) 0;
}

/* -------------------------------------------------------------- cancelling */

/*
 * To the process and what it has started, as pg_cancel_backend does it; false:
 * it has nothing to do with the job.
 */
static bool
interrupt_process(int64 job_id, int pid)
{
	if (!advisory_lock_is_held_by(job_id, pid))
		return false;
#ifdef HAVE_SETSID
	return kill(-pid, SIGINT) == 0;
#else
	return kill(pid, SIGINT) == 0;
#endif
}

Datum
s3export_cancel(PG_FUNCTION_ARGS)
{
	int64     job_id = job_argument(fcinfo);
	JobStatus status;
	bool      interrupted;

	PreventCommandIfParallelMode("s3export.cancel()");
	PreventCommandDuringRecovery("s3export.cancel()");
	get_status(job_id, &status);
	if (is_queued(&status))
	{
		if (job_cancel_queued(job_id))
			PG_RETURN_BOOL(true);
		get_status(job_id, &status);
	}
	if (has_ended(&status))
		PG_RETURN_BOOL(false);

	/* The uploader first: it records why, and the leader may send nothing for long. */
	interrupted = interrupt_process(job_id, status.uploader_pid);
	interrupted |= interrupt_process(job_id, status.leader_pid);

	/* It may have failed right now, and be queued again. */
	PG_RETURN_BOOL(job_cancel_queued(job_id) || interrupted);
}
