/*-------------------------------------------------------------------------
 *
 * job.c
 *	  Job and file rows: what was asked for, what became of it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "commands/async.h"
#include "commands/sequence.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"

#include "tables/catalog.h"
#include "tables/job.h"

static void
expect_one(int64 job_id, uint64 processed)
{
	if (processed != 1)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("could not update the row of job " INT64_FORMAT, job_id),
						errdetail("It was removed, or given up, while the export was running.")));
}

/* A queue of notifications that is full would undo what is recorded with them. */
void
job_notify(int64 job_id, const char *state)
{
	if (DatumGetFloat8(OidFunctionCall0(F_PG_NOTIFICATION_QUEUE_USAGE)) < 0.9)
		Async_Notify("s3export", psprintf("{\"job_id\" : " INT64_FORMAT ", \"state\" : \"%s\"}",
										  job_id, state));
}

int64
job_new_id(void)
{
	CatalogTransaction transaction;
	int64              job_id;

	if (RecoveryInProgress())
		return JOB_UNRECORDED;
	catalog_begin_transaction(&transaction);
	job_id = nextval_internal(catalog_table("job_id_seq"), false);
	catalog_commit_transaction(&transaction);
	return job_id;
}

bool
job_begin(int64 job_id, const JobRequest *request, const char *uri)
{
	CatalogTransaction transaction;
	bool               again = false;

	if (job_id == JOB_UNRECORDED)
		return false;
	catalog_begin_transaction(&transaction);
	if (request->job_id != 0)
	{
		expect_one(job_id, catalog_execute(
							   "UPDATE s3export.job SET uri = $2, uploader_pid = $3,"
							   " pipe = $4, endpoint_url = $5, first_key = $7"
							   " WHERE job_id = $1 AND state = 'running' AND leader_pid = $6"
							   " RETURNING attempts > 1 AS again",
							   param_int8(job_id), param_text(uri), param_int4(MyProcPid),
							   param_int8((int64) request->pipe), param_text(request->endpoint_url),
							   param_int4(request->leader_pid), param_text(request->first_key)));
		again = catalog_int64(0, "again", NULL) != 0;
	}
	else
		(void) catalog_execute(
			"INSERT INTO s3export.job (job_id, owner, connector_id, connector, endpoint_url, source,"
			" path, uri, system_identifier, data_directory, database, timeline, state, started_at,"
			" leader_pid, uploader_pid, pipe, first_key, attempts)"
			" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 'running',"
			" pg_catalog.clock_timestamp(), $13, $14, $15, $16, 1)",
			param_int8(job_id), param_oid(request->owner), param_int8(request->connector_id),
			param_text(request->connector), param_text(request->endpoint_url),
			param_text(request->source), param_text(request->path), param_text(uri),
			CATALOG_THIS_SERVER, param_int4(request->leader_pid), param_int4(MyProcPid),
			param_int8((int64) request->pipe), param_text(request->first_key));
	catalog_commit_transaction(&transaction);
	return again;
}

/* Within a transaction. */
static void
put_file(int64 job_id, JobFile *file, const char *state)
{
	(void) catalog_execute(
		"INSERT INTO s3export.job_file AS f (job_id, file_no, key, uri, state, upload_id, token,"
		" rows, bytes, parts, etag, crc32c)"
		" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
		" ON CONFLICT (job_id, file_no) DO UPDATE SET state = EXCLUDED.state,"
		" upload_id = CASE WHEN EXCLUDED.state <> 'done' THEN EXCLUDED.upload_id END,"
		" rows = EXCLUDED.rows, bytes = EXCLUDED.bytes, parts = EXCLUDED.parts,"
		" etag = EXCLUDED.etag, crc32c = EXCLUDED.crc32c,"
		" finished_at = CASE WHEN EXCLUDED.state = 'done' THEN pg_catalog.clock_timestamp() END",
		param_int8(job_id), param_int4(file->number), param_text(file->key), param_text(file->uri),
		param_text(state), param_text(file->upload_id), param_text(file->token),
		param_int8((int64) file->rows), param_int8((int64) file->bytes), param_int4(file->parts),
		param_text(file->etag), param_text(file->crc32c));
	file->begun = true;
}

static void
put_files(int64 job_id, List *files, const char *state)
{
	ListCell *cell;

	foreach (cell, files)
		put_file(job_id, lfirst(cell), state);
}

void
job_files_begin(int64 job_id, List *files)
{
	CatalogTransaction transaction;

	if (job_id == JOB_UNRECORDED)
		return;
	catalog_begin_transaction(&transaction);
	put_files(job_id, files, "uploading");
	catalog_commit_transaction(&transaction);
}

void
job_file_begin(int64 job_id, JobFile *file)
{
	job_files_begin(job_id, list_make1(file));
}

void
job_set_completing(int64 job_id, List *files)
{
	CatalogTransaction transaction;

	if (job_id == JOB_UNRECORDED)
		return;
	catalog_begin_transaction(&transaction);
	put_files(job_id, files, "completing");
	expect_one(job_id, catalog_execute("UPDATE s3export.job SET state = 'completing'"
									   " WHERE job_id = $1",
									   param_int8(job_id)));
	catalog_commit_transaction(&transaction);
}

void
job_files_done(int64 job_id, List *files)
{
	CatalogTransaction transaction;

	if (job_id == JOB_UNRECORDED)
		return;
	catalog_begin_transaction(&transaction);
	put_files(job_id, files, "done");
	catalog_commit_transaction(&transaction);
}

void
job_succeed(int64 job_id, const JobTotals *totals, List *files)
{
	CatalogTransaction transaction;

	if (job_id == JOB_UNRECORDED)
		return;
	catalog_begin_transaction(&transaction);
	put_files(job_id, files, "done");
	expect_one(job_id,
			   catalog_execute("UPDATE s3export.job SET state = 'succeeded', rows = $2,"
							   " bytes = $3, files = $4, requests = $5,"
							   " uri = coalesce($6, uri), pipe = NULL, error_code = NULL,"
							   " error_message = NULL, error_detail = NULL, error_hint = NULL,"
							   " finished_at = pg_catalog.clock_timestamp() WHERE job_id = $1",
							   param_int8(job_id), param_int8((int64) totals->rows),
							   param_int8((int64) totals->bytes), param_int4(totals->files),
							   param_int4(totals->requests), param_text(totals->uri)));
	job_notify(job_id, "succeeded");
	catalog_commit_transaction(&transaction);
}

/* Within a transaction. */
static void
put_failure(int64 job_id, JobState state, const JobTotals *totals, const ErrorData *error)
{
	const char *name = state == JOB_CANCELLED ? "cancelled" : "failed";

	expect_one(job_id,
			   catalog_execute(
				   "UPDATE s3export.job SET state = $2, rows = $3, bytes = $4,"
				   " files = $5, requests = $6, error_code = $7, error_message = $8,"
				   " error_detail = $9, error_hint = $10, pipe = NULL,"
				   " finished_at = pg_catalog.clock_timestamp() WHERE job_id = $1",
				   param_int8(job_id), param_text(name), param_int8((int64) totals->rows),
				   param_int8((int64) totals->bytes), param_int4(totals->files),
				   param_int4(totals->requests), param_text(unpack_sql_state(error->sqlerrcode)),
				   param_text(error->message), param_text(error->detail), param_text(error->hint)));
	job_notify(job_id, name);
}

bool
job_fail(int64 job_id, JobState state, const JobTotals *totals, const ErrorData *error,
		 List *aborted, List *in_doubt, bool may_pass)
{
	CatalogTransaction transaction;
	ListCell          *cell;
	bool               again;

	if (job_id == JOB_UNRECORDED)
		return false;
	catalog_begin_transaction(&transaction);
	foreach (cell, aborted)
		(void) catalog_execute("UPDATE s3export.job_file SET state = 'aborted', upload_id = NULL,"
							   " finished_at = pg_catalog.clock_timestamp()"
							   " WHERE job_id = $1 AND file_no = $2",
							   param_int8(job_id), param_int4(lfirst_int(cell)));
	foreach (cell, in_doubt)
		(void) catalog_execute("UPDATE s3export.job_file SET upload_id = NULL"
							   " WHERE job_id = $1 AND file_no = $2",
							   param_int8(job_id), param_int4(lfirst_int(cell)));
	again = may_pass && job_try_again(job_id, unpack_sql_state(error->sqlerrcode), error->message,
									  error->detail, error->hint);
	if (!again)
		put_failure(job_id, state, totals, error);
	catalog_commit_transaction(&transaction);
	return again;
}

/* ---- what earlier jobs have left ---- */

/* The connector may have been altered since: another store has objects of the same URIs. */
#define OF_SAME_PATH                                                             \
	" (j.connector_id, j.first_key) = (own.connector_id, own.first_key)"         \
	" AND (j.system_identifier, j.data_directory, j.database, j.timeline)"       \
	" = (own.system_identifier, own.data_directory, own.database, own.timeline)" \
	" AND j.endpoint_url IS NOT DISTINCT FROM own.endpoint_url"                  \
	" AND own.job_id = $1 AND j.job_id <> own.job_id AND f.state = 'done'"

/* Is the object one of this job's own files? */
#define WRITTEN_BY_IT                                                                 \
	" (SELECT FROM s3export.job_file o WHERE (o.job_id, o.uri) = (own.job_id, f.uri)" \
	" AND o.state IN ('done', 'completing'))"

/* Has another path's job written the object later? */
#define WRITTEN_SINCE                                                      \
	" (SELECT FROM s3export.job_file o JOIN s3export.job k USING (job_id)" \
	" WHERE o.uri = f.uri AND o.state IN ('done', 'completing')"           \
	" AND (o.finished_at IS NULL OR o.finished_at > f.finished_at)"        \
	" AND (k.connector_id, k.first_key) IS DISTINCT FROM (f.connector_id, f.first_key))"

/*
 * An object that is written again and again has a row of each time.  So the job's own files,
 * which most of these rows are about, are left out before anything is asked about a row: else
 * the time would grow with the square of the number of exports.
 */
List *
job_stale_files(int64 job_id, Oid exporter)
{
	List              *files = NIL;
	CatalogTransaction transaction;
	uint64             rows;

	if (job_id == JOB_UNRECORDED)
		return NIL;
	catalog_begin_transaction(&transaction);
	rows = catalog_execute(
		"WITH f AS MATERIALIZED (SELECT DISTINCT ON (f.uri) f.key, f.uri, f.token, f.finished_at,"
		" own.connector_id, own.first_key"
		" FROM s3export.job_file f JOIN s3export.job j USING (job_id), s3export.job own"
		" WHERE" OF_SAME_PATH " AND ($2 = 0::oid OR pg_has_role($2, j.owner, 'USAGE'))"
		" AND NOT EXISTS" WRITTEN_BY_IT " ORDER BY f.uri, f.finished_at DESC)"
		" SELECT key, uri, token FROM f WHERE NOT EXISTS" WRITTEN_SINCE,
		param_int8(job_id), param_oid(exporter));
	MemoryContextSwitchTo(transaction.context);
	for (uint64 i = 0; i < rows; i++)
	{
		JobFile *file = palloc0(sizeof(JobFile));

		file->key = catalog_text(i, "key");
		file->uri = catalog_text(i, "uri");
		file->token = catalog_text(i, "token");
		files = lappend(files, file);
	}
	catalog_commit_transaction(&transaction);
	return files;
}

bool
job_was_exported_by(Oid role, const char *endpoint_url, const char *uri)
{
	CatalogTransaction transaction;
	bool               own;

	catalog_begin_transaction(&transaction);
	own = catalog_execute("SELECT pg_has_role($1, j.owner, 'USAGE') AS own"
						  " FROM s3export.job_file f JOIN s3export.job j USING (job_id)"
						  " WHERE f.uri = $2 AND j.endpoint_url IS NOT DISTINCT FROM $3"
						  " AND f.state IN ('completing', 'done')"
						  " ORDER BY f.finished_at DESC NULLS FIRST LIMIT 1",
						  param_oid(role), param_text(uri), param_text(endpoint_url)) > 0 &&
		  catalog_int64(0, "own", NULL) != 0;
	catalog_commit_transaction(&transaction);
	return own;
}

void
job_files_removed(int64 job_id, List *files)
{
	CatalogTransaction transaction;
	ListCell          *cell;

	if (files == NIL)
		return;
	catalog_begin_transaction(&transaction);
	foreach (cell, files)
		(void) catalog_execute("UPDATE s3export.job_file f SET state = 'removed'"
							   " FROM s3export.job j, s3export.job own"
							   " WHERE j.job_id = f.job_id AND f.uri = $2 AND" OF_SAME_PATH,
							   param_int8(job_id),
							   param_text(((const JobFile *) lfirst(cell))->uri));
	catalog_commit_transaction(&transaction);
}
