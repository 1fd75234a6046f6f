/*-------------------------------------------------------------------------
 *
 * recover_api.c
 *	  The SQL function that settles what crashes have left behind.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "funcapi.h"
#include "miscadmin.h"
#include "tcop/utility.h"

#include "api/result_row.h"
#include "base/compat.h"
#include "tables/dispatcher.h"
#include "tables/job.h"
#include "uploader/uploader.h"

SQL_FUNCTION(s3export_recover);

static void
put_row(FunctionCallInfo fcinfo, const RecoveryRow *recovered)
{
	ResultRow row = {0};

	result_row_add_int8(&row, recovered->job_id);
	result_row_add_text(&row, recovered->uri);
	result_row_add_text(&row, recovered->action);
	result_row_add_text(&row, recovered->detail);
	result_row_put(fcinfo, &row);
}

Datum
s3export_recover(PG_FUNCTION_ARGS)
{
	Oid       role = superuser() ? InvalidOid : GetUserId();
	ListCell *cell;

	PreventCommandIfParallelMode("s3export.recover()");
	PreventCommandDuringRecovery("s3export.recover()");
	InitMaterializedSRF(fcinfo, 0);

	/* Everybody may call this: who has nothing to recover starts no process. */
	if (!job_any_of(role))
		return (Datum) 0;
	foreach (cell, uploader_recover(role))
		put_row(fcinfo, lfirst(cell));
	dispatcher_start();
	return (Datum) 0;
}
