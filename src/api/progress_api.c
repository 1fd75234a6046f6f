/*-------------------------------------------------------------------------
 *
 * progress_api.c
 *	  The SQL function below the view of running exports.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"

#include "base/compat.h"
#include "ipc/pipe.h"

SQL_FUNCTION(s3export_job_progress);

static void
set_int64(Datum *value, bool *null, int64 number)
{
	*value = Int64GetDatum(number);
	*null = number < 0;
}

/*
 * NULL where the segment is not, or no more, of this job, as after a crash.  The
 * view gives the arguments; whoever makes them up learns no more than the view
 * shows him.
 */
Datum
s3export_job_progress(PG_FUNCTION_ARGS)
{
	int64          job_id = PG_GETARG_INT64(0);
	int64          pipe = PG_GETARG_INT64(1);
	ProgressReport report;
	TupleDesc      tupdesc;
	Datum          values[11];
	bool           nulls[11] = {false};

	if (job_id <= 0 || pipe <= 0 || pipe > PG_UINT32_MAX || !pipe_report((uint32) pipe, &report) ||
		report.job_id != job_id || !has_privs_of_role(GetUserId(), report.owner))
		PG_RETURN_NULL();

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	values[0] = CStringGetTextDatum(report.phase);
	values[1] = CStringGetTextDatum(report.waiting_for);
	values[2] = Int64GetDatum(report.rows);
	values[3] = Int64GetDatum(report.bytes_made);
	values[4] = Int64GetDatum(report.bytes_sent);
	values[5] = Int32GetDatum(report.parts);
	values[6] = Int32GetDatum(report.files);
	values[7] = Int32GetDatum(report.retries);
	set_int64(&values[8], &nulls[8], report.rate);
	values[9] = Float8GetDatum(report.percent);
	nulls[9] = report.percent < 0;
	set_int64(&values[10], &nulls[10], report.seconds_left);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(tupdesc), values, nulls)));
}
