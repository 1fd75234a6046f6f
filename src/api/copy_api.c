/*-------------------------------------------------------------------------
 *
 * copy_api.c
 *	  SQL functions about exports.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_authid.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "tcop/utility.h"
#include "utils/syscache.h"

#include "api/result_row.h"
#include "base/compat.h"
#include "export/copy_args.h"
#include "export/export.h"
#include "tables/dispatcher.h"
#include "tables/job.h"
#include "tables/job_settings.h"

SQL_FUNCTION(s3export_copy_to);

/* A job that is only queued has an id, and the rest is null. */
static Datum
totals_row(FunctionCallInfo fcinfo, const JobTotals *totals, bool queued)
{
	ResultRow row = {0};

	if (queued || totals->job_id != JOB_UNRECORDED)
		result_row_add_int8(&row, totals->job_id);
	else
		result_row_add_null(&row);
	result_row_add_text(&row, queued ? NULL : totals->uri);
	for (int column = 0; queued && column < 3; column++)
		result_row_add_null(&row);
	if (!queued)
	{
		result_row_add_int8(&row, (int64) totals->rows);
		result_row_add_int8(&row, totals->files);
		result_row_add_int8(&row, (int64) totals->bytes);
	}
	result_row_add_text(&row, queued ? NULL : totals->manifest_uri);
	return result_row_datum(fcinfo, &row);
}

/*
 * A worker connects as the role that exports, which is not always the one that
 * has logged in here.
 */
static void
require_login(Oid role)
{
	HeapTuple tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(role));
	bool      may_login;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for role %u", role);
	may_login = ((Form_pg_authid) GETSTRUCT(tuple))->rolcanlogin;
	ReleaseSysCache(tuple);
	if (COMPAT_CONNECT_FLAGS == 0 && !may_login)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot queue an export of role \"%s\", which is not permitted to log in",
						GetUserNameFromId(role, false)),
				 errdetail("A background worker runs it, and before PostgreSQL 17 it cannot "
						   "connect as such a role."),
				 errhint("Use wait => true, or ALTER ROLE ... LOGIN, for which the role needs no "
						 "password.")));
}

/* Whether the export may be queued, before anything is asked about it. */
static void
check_queueing(void)
{
	PreventCommandDuringRecovery("s3export.copy_to(wait => false)");
	PreventCommandIfReadOnly("s3export.copy_to(wait => false)");

	/* What runs there must leave nothing behind that runs with other restrictions, or none. */
	if (InSecurityRestrictedOperation())
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("cannot queue an export within security-restricted operation")));
	require_login(GetUserId());
}

/*
 * Queues a job that starts when the transaction commits.  The query is planned here, so that its
 * errors reach the caller and not only the job's row.
 */
static int64
enqueue_export(FunctionCallInfo fcinfo, CopyArguments *arguments, TimestampTz retry_until)
{
	const Connector *connector = arguments->connector;
	JobOrder         order = {
				.owner = arguments->request.owner,
				.connector_id = connector->connector_id,
				.connector = connector->name,
				.endpoint_url = connector->s3.endpoint_url,
				.source = arguments->request.source,
				.path = arguments->request.path,
				.arguments = copy_args_to_pairs(fcinfo),
				.settings = job_settings_collect(copy_args_settings(fcinfo)),
				.retry_until = retry_until,
    };
	int64 job_id;

	export_check(&arguments->format, &arguments->request);
	job_id = job_enqueue(&order);
	dispatcher_start_at_commit(job_id);
	return job_id;
}

Datum
s3export_copy_to(PG_FUNCTION_ARGS)
{
	CopyArguments arguments;
	JobTotals     totals = {0};
	TimestampTz   retry_until;
	bool          wait;

	/* A function that calls this may be marked wrongly. */
	PreventCommandIfParallelMode("s3export.copy_to()");
	wait = copy_args_wait(fcinfo);
	retry_until = copy_args_retry_until(fcinfo);
	if (!wait)
		check_queueing();

	copy_args_get(fcinfo, 0, &arguments);
	if (wait)
	{
		export_run(arguments.connector, &arguments.format, arguments.workers, &arguments.request,
				   &totals);
		dispatcher_start();
	}
	else
		totals.job_id = enqueue_export(fcinfo, &arguments, retry_until);
	PG_RETURN_DATUM(totals_row(fcinfo, &totals, !wait));
}
