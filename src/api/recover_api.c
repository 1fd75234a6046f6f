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
#include "utils/builtins.h"

#include "base/compat.h"
#include "tables/dispatcher.h"
#include "tables/job.h"
#include "uploader/uploader.h"

SQL_FUNCTION(s3export_recover);

static void
put_row(ReturnSetInfo *rsinfo, const RecoveryRow *row)
{
	const char *texts[] = {row->uri, row->action, row->detail};
	Datum       values[1 + lengthof(texts)];
	bool        nulls[1 + lengthof(texts)];

	values[0] = Int64GetDatum(row->job_id);
	nulls[0] = false;
	for (size_t i = 0; i < lengthof(texts); i++)
	{
		nulls[i + 1] = texts[i] == NULL;
		values[i + 1] = nulls[i + 1] ? (Datum) 0 : CStringGetTextDatum(texts[i]);
	}
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
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
		put_row((ReturnSetInfo *) fcinfo->resultinfo, lfirst(cell));
	dispatcher_start();
	return (Datum) 0;
}
