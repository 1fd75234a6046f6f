/*-------------------------------------------------------------------------
 *
 * progress_api.c
 *	  The SQL function below the view of running exports.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/acl.h"

#include "api/result_row.h"
#include "base/compat.h"
#include "ipc/pipe.h"

SQL_FUNCTION(s3export_job_progress);

/* A number that is not known is negative. */
static void
add_if_known(ResultRow *row, int64 number)
{
	if (number < 0)
		result_row_add_null(row);
	else
		result_row_add_int8(row, number);
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
	ResultRow      row = {0};

	if (job_id <= 0 || pipe <= 0 || pipe > PG_UINT32_MAX || !pipe_report((uint32) pipe, &report) ||
		report.job_id != job_id || !has_privs_of_role(GetUserId(), report.owner))
		PG_RETURN_NULL();

	result_row_add_text(&row, report.phase);
	result_row_add_text(&row, report.waiting_for);
	result_row_add_int8(&row, report.rows);
	result_row_add_int8(&row, report.bytes_made);
	result_row_add_int8(&row, report.bytes_sent);
	result_row_add_int4(&row, report.parts);
	result_row_add_int4(&row, report.files);
	result_row_add_int4(&row, report.retries);
	add_if_known(&row, report.rate);
	if (report.percent < 0)
		result_row_add_null(&row);
	else
		result_row_add_float8(&row, report.percent);
	add_if_known(&row, report.seconds_left);
	PG_RETURN_DATUM(result_row_datum(fcinfo, &row));
}
