/*-------------------------------------------------------------------------
 *
 * job.c
 *	  Job and file rows: what was asked for, what became of it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#include "catalog.h"
#include "job.h"

/* What a short transaction changes of its surroundings. */
typedef struct JobTransaction
{
	CatalogScope  scope;
	MemoryContext context;
	ResourceOwner owner;
} JobTransaction;

static void
begin(JobTransaction *transaction)
{
	transaction->context = CurrentMemoryContext;
	transaction->owner = CurrentResourceOwner;
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	catalog_enter(&transaction->scope);
}

static void
commit(JobTransaction *transaction)
{
	catalog_leave(&transaction->scope);
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(transaction->context);
	CurrentResourceOwner = transaction->owner;
}

static void
expect_one(int64 job_id, uint64 processed)
{
	if (processed != 1)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("could not update the row of job " INT64_FORMAT, job_id),
						errdetail("It was removed while the export was running.")));
}

int64
job_new_id(void)
{
	JobTransaction transaction;
	int64          job_id;

	begin(&transaction);
	(void) catalog_execute("SELECT nextval('s3export.job_id_seq') AS job_id", "");
	job_id = catalog_int64(0, "job_id", NULL);
	commit(&transaction);
	return job_id;
}

void
job_begin(int64 job_id, const JobRequest *request, const char *key, const char *uri)
{
	JobTransaction transaction;

	begin(&transaction);
	(void) catalog_execute(
		"INSERT INTO s3export.job (job_id, owner, connector_id, connector, source,"
		" bucket, key, uri, leader_pid, uploader_pid)"
		" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
		"ioitttttnn", job_id, request->owner, request->connector_id, request->connector,
		request->source, request->bucket, key, uri, request->leader_pid, MyProcPid);
	commit(&transaction);
}

void
job_set_upload_id(int64 job_id, const char *upload_id)
{
	JobTransaction transaction;

	begin(&transaction);
	expect_one(job_id, catalog_execute("UPDATE s3export.job SET upload_id = $2 WHERE job_id = $1",
									   "it", job_id, upload_id));
	commit(&transaction);
}

void
job_set_completing(int64 job_id)
{
	JobTransaction transaction;

	begin(&transaction);
	expect_one(job_id, catalog_execute("UPDATE s3export.job SET state = 'completing'"
									   " WHERE job_id = $1",
									   "i", job_id));
	commit(&transaction);
}

void
job_succeed(int64 job_id, const JobTotals *totals, const JobFile *file)
{
	JobTransaction transaction;

	begin(&transaction);
	if (file != NULL)
		(void) catalog_execute("INSERT INTO s3export.job_file (job_id, file_no, uri, rows, bytes,"
							   " parts, etag, crc32c) VALUES ($1, 1, $2, $3, $4, $5, $6, $7)",
							   "itiintt", job_id, file->uri, (int64) file->rows,
							   (int64) file->bytes, file->parts, file->etag, file->crc32c);
	expect_one(job_id,
			   catalog_execute("UPDATE s3export.job SET state = 'succeeded', rows = $2,"
							   " bytes = $3, files = $4, attempts = $5, upload_id = NULL,"
							   " finished_at = pg_catalog.clock_timestamp() WHERE job_id = $1",
							   "iiinn", job_id, (int64) totals->rows, (int64) totals->bytes,
							   totals->files, totals->attempts));
	commit(&transaction);
}

void
job_fail(int64 job_id, JobState state, const JobTotals *totals, const ErrorData *error,
		 bool upload_left)
{
	JobTransaction transaction;

	begin(&transaction);
	expect_one(job_id, catalog_execute(
						   "UPDATE s3export.job SET state = $2, rows = $3, bytes = $4,"
						   " files = 0, attempts = $5, error_code = $6, error_message = $7,"
						   " error_detail = $8, error_hint = $9,"
						   " upload_id = CASE WHEN $10 THEN upload_id END,"
						   " finished_at = pg_catalog.clock_timestamp() WHERE job_id = $1",
						   "itiinttttb", job_id, state == JOB_CANCELLED ? "cancelled" : "failed",
						   (int64) totals->rows, (int64) totals->bytes, totals->attempts,
						   unpack_sql_state(error->sqlerrcode), error->message, error->detail,
						   error->hint, upload_left));
	commit(&transaction);
}
