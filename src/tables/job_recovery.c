/*-------------------------------------------------------------------------
 *
 * job_recovery.c
 *	  The rows of what crashes have left behind, and of jobs long over.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/guc.h"
#include "tables/catalog.h"
#include "tables/job.h"

/* Rows that one call removes, so that no export waits for it. */
#define FORGET_LIMIT 1000

/* How long to let a job be that could not be settled. */
#define PATIENCE "10 min"

#define INTERRUPTED_MESSAGE "the export was interrupted"
#define INTERRUPTED_DETAIL \
	"The server stopped, or the uploader ended, before the outcome was recorded."

#define IS_OURS "(system_identifier, data_directory, database, timeline) = ($1, $2, $3, $4)"

int64
job_writing_to(int64 connector_id, const char *uri, int64 job_id)
{
	CatalogTransaction transaction;
	int64              other = 0;

	catalog_begin_transaction(&transaction);
	if (catalog_execute("SELECT job_id FROM s3export.job WHERE " IS_OURS
						" AND state IN ('running', 'completing') AND connector_id = $5"
						" AND uri = $6 AND job_id <> $7 ORDER BY job_id LIMIT 1",
						CATALOG_THIS_SERVER, param_int8(connector_id), param_text(uri),
						param_int8(job_id)) > 0)
		other = catalog_int64(0, "job_id", NULL);
	catalog_commit_transaction(&transaction);
	return other;
}

bool
job_any_of(Oid role)
{
	CatalogScope scope;
	bool         any;

	catalog_enter(&scope);
	any = catalog_execute_latest("SELECT FROM s3export.job"
								 " WHERE $1 = 0::oid OR pg_has_role($1, owner, 'USAGE') LIMIT 1",
								 param_oid(role)) > 0;
	catalog_leave(&scope);
	return any;
}

/* In the transaction, whose context the list is in. */
static List *
take_ids(const CatalogTransaction *transaction, uint64 rows)
{
	List *ids = NIL;

	MemoryContextSwitchTo(transaction->context);
	for (uint64 i = 0; i < rows; i++)
	{
		int64 *id = palloc(sizeof(int64));

		*id = catalog_int64(i, "job_id", NULL);
		ids = lappend(ids, id);
	}
	return ids;
}

/* Each export asks this, and mostly in vain: so it is no more than two small indexes tell. */
List *
job_find_suspects(int64 connector_id, int64 own_job_id)
{
	CatalogTransaction transaction;
	List              *ids;
	uint64             rows;

	catalog_begin_transaction(&transaction);
	rows = catalog_execute("SELECT job_id FROM s3export.job"
						   " WHERE state IN ('queued', 'running', 'completing')"
						   " AND NOT (state = 'queued' AND " IS_OURS ")"
						   " AND connector_id = $5 AND job_id <> $6"
						   " UNION ALL SELECT job_id FROM s3export.job_file"
						   " WHERE upload_id IS NOT NULL OR state = 'completing'",
						   CATALOG_THIS_SERVER, param_int8(connector_id), param_int8(own_job_id));
	ids = take_ids(&transaction, rows);
	catalog_commit_transaction(&transaction);
	return ids;
}

List *
job_find_remains(const JobScope *scope)
{
	CatalogTransaction transaction;
	List              *ids;
	uint64             rows;

	catalog_begin_transaction(&transaction);
	rows = catalog_execute("SELECT job_id FROM s3export.job WHERE " IS_OURS
						   " AND state IN ('running', 'completing', 'failed', 'cancelled')"
						   " AND job_id IN (SELECT job_id FROM s3export.job"
						   " WHERE state IN ('running', 'completing')"
						   " UNION SELECT job_id FROM s3export.job_file"
						   " WHERE upload_id IS NOT NULL OR state = 'completing')"
						   " AND ($5 = 0 OR connector_id = $5) AND job_id <> $6"
						   " AND ($7 = 0::oid OR pg_has_role($7, owner, 'USAGE'))"
						   " AND (NOT $8 OR checked_at IS NULL"
						   " OR checked_at < clock_timestamp() - interval '" PATIENCE "')"
						   " ORDER BY job_id",
						   CATALOG_THIS_SERVER, param_int8(scope->connector_id),
						   param_int8(scope->own_job_id), param_oid(scope->role),
						   param_bool(scope->skip_recent));
	ids = take_ids(&transaction, rows);
	catalog_commit_transaction(&transaction);
	return ids;
}

/* The files whose fate nobody has recorded. */
static void
load_remnants(const CatalogTransaction *transaction, JobRemains *remains)
{
	uint64 rows = catalog_execute(
		"SELECT file_no, key, uri, state = 'completing' AS completing, upload_id, token, rows,"
		" bytes, parts FROM s3export.job_file"
		" WHERE job_id = $1 AND state IN ('uploading', 'completing') ORDER BY file_no",
		param_int8(remains->job_id));

	MemoryContextSwitchTo(transaction->context);
	for (uint64 i = 0; i < rows; i++)
	{
		JobRemnant *remnant = palloc0(sizeof(JobRemnant));

		remnant->file = (JobFile){
			.number = (int) catalog_int64(i, "file_no", NULL),
			.key = catalog_text(i, "key"),
			.uri = catalog_text(i, "uri"),
			.upload_id = catalog_text(i, "upload_id"),
			.token = catalog_text(i, "token"),
			.begun = true,
			.rows = (uint64) catalog_int64(i, "rows", NULL),
			.bytes = (uint64) catalog_int64(i, "bytes", NULL),
			.parts = (int) catalog_int64(i, "parts", NULL),
		};
		remnant->completing = catalog_int64(i, "completing", NULL) != 0;
		remains->completing |= remnant->completing;
		remains->remnants = lappend(remains->remnants, remnant);
	}
}

static JobRemains *
load_job(uint64 row)
{
	JobRemains *remains = palloc0(sizeof(JobRemains));

	remains->job_id = catalog_int64(row, "job_id", NULL);
	remains->connector_id = catalog_int64(row, "connector_id", NULL);
	remains->connector = catalog_text(row, "connector");
	remains->endpoint_url = catalog_text(row, "endpoint_url");
	remains->uri = catalog_text(row, "uri");
	remains->finished = catalog_int64(row, "finished", NULL) != 0;
	remains->completing = catalog_int64(row, "completing", NULL) != 0;
	return remains;
}

#define REMAINS_COLUMNS                                                                        \
	"job_id, connector_id, connector, endpoint_url, uri, finished_at IS NOT NULL AS finished," \
	" state = 'completing' AS completing"

JobRemains *
job_load_remains(int64 job_id)
{
	CatalogTransaction transaction;
	JobRemains        *remains = NULL;

	catalog_begin_transaction(&transaction);
	if (catalog_execute("SELECT " REMAINS_COLUMNS " FROM s3export.job WHERE " IS_OURS
						" AND job_id = $5"
						" AND state IN ('running', 'completing', 'failed', 'cancelled')",
						CATALOG_THIS_SERVER, param_int8(job_id)) > 0)
	{
		MemoryContextSwitchTo(transaction.context);
		remains = load_job(0);
		load_remnants(&transaction, remains);
		if (remains->finished && remains->remnants == NIL)
			remains = NULL;
	}
	catalog_commit_transaction(&transaction);
	return remains;
}

/* Within a transaction; returns whether the job may be in place as a whole yet. */
static bool
put_fates(const JobRemains *remains)
{
	bool      in_doubt = false;
	ListCell *cell;

	foreach (cell, remains->remnants)
	{
		const JobRemnant *remnant = lfirst(cell);

		if (remnant->fate == JOB_FILE_LEFT)
			in_doubt |= remnant->completing;
		else
			(void) catalog_execute("UPDATE s3export.job_file SET state = $3, upload_id = NULL,"
								   " etag = $4, finished_at = pg_catalog.clock_timestamp()"
								   " WHERE job_id = $1 AND file_no = $2",
								   param_int8(remains->job_id), param_int4(remnant->file.number),
								   param_text(remnant->fate == JOB_FILE_DONE ? "done" : "aborted"),
								   param_text(remnant->file.etag));
	}
	return in_doubt;
}

/* Within a transaction, for a job of which all rows had been taken. */
static bool
put_success(int64 job_id)
{
	return catalog_execute(
			   "UPDATE s3export.job j SET state = 'succeeded', rows = f.rows, bytes = f.bytes,"
			   " files = f.files, finished_at = clock_timestamp(), pipe = NULL,"
			   " error_code = NULL, error_message = NULL, error_detail = NULL, error_hint = NULL,"
			   " checked_at = NULL, recovered_at = clock_timestamp()"
			   " FROM (SELECT count(*) FILTER (WHERE file_no > 0) AS files, sum(rows) AS rows,"
			   " coalesce(sum(bytes) FILTER (WHERE file_no > 0), 0) AS bytes,"
			   " bool_and(state = 'done') AS done"
			   " FROM s3export.job_file WHERE job_id = $1) f"
			   " WHERE job_id = $1 AND f.done",
			   param_int8(job_id)) > 0;
}

/* Within a transaction.  A job that has an error of its own keeps it. */
static void
put_failure(const JobRemains *remains, const char *detail, bool in_doubt, bool left)
{
	(void) catalog_execute(
		"UPDATE s3export.job SET state = CASE WHEN finished_at IS NOT NULL OR $5 THEN state"
		" ELSE 'failed' END,"
		" error_code = coalesce(error_code, $2), error_message = coalesce(error_message, $3),"
		" error_detail = CASE WHEN finished_at IS NULL THEN $4 WHEN $6 THEN error_detail"
		" ELSE concat_ws('  ', error_detail, $4) END,"
		" pipe = CASE WHEN $5 THEN pipe END,"
		" finished_at = CASE WHEN $5 THEN finished_at"
		" ELSE coalesce(finished_at, clock_timestamp()) END,"
		" recovered_at = CASE WHEN $5 OR $6 AND finished_at IS NOT NULL THEN recovered_at"
		" ELSE clock_timestamp() END,"
		" checked_at = CASE WHEN $6 THEN clock_timestamp() END WHERE job_id = $1",
		param_int8(remains->job_id), param_text(unpack_sql_state(ERRCODE_CRASH_SHUTDOWN)),
		param_text(INTERRUPTED_MESSAGE),
		param_text(remains->finished ? detail : psprintf("%s  %s", INTERRUPTED_DETAIL, detail)),
		param_bool(in_doubt), param_bool(left));
}

static bool
any_left(const JobRemains *remains)
{
	ListCell *cell;

	foreach (cell, remains->remnants)
	{
		if (((const JobRemnant *) lfirst(cell))->fate == JOB_FILE_LEFT)
			return true;
	}
	return false;
}

/* Within a transaction. */
static JobSettlement
settle_job(const JobRemains *remains, const char *detail, bool again)
{
	bool in_doubt = put_fates(remains);

	if (remains->completing && put_success(remains->job_id))
	{
		job_notify(remains->job_id, "succeeded");
		return JOB_SETTLED_SUCCEEDED;
	}
	if (!remains->finished &&
		job_try_again(remains->job_id, unpack_sql_state(ERRCODE_CRASH_SHUTDOWN),
					  INTERRUPTED_MESSAGE, psprintf("%s  %s", INTERRUPTED_DETAIL, detail), NULL))
		return JOB_SETTLED_QUEUED;
	put_failure(remains, detail, in_doubt && again && !remains->finished, any_left(remains));
	if (!(remains->finished || (in_doubt && again)))
		job_notify(remains->job_id, "failed");
	return JOB_SETTLED_FAILED;
}

JobSettlement
job_settle(const JobRemains *remains, const char *detail, bool again)
{
	CatalogTransaction transaction;
	JobSettlement      settlement;

	catalog_begin_transaction(&transaction);
	settlement = settle_job(remains, detail, again);
	catalog_commit_transaction(&transaction);
	return settlement;
}

bool
job_settle_attempt(const JobRemains *remains)
{
	CatalogTransaction transaction;

	catalog_begin_transaction(&transaction);
	(void) put_fates(remains);
	catalog_commit_transaction(&transaction);
	return !any_left(remains);
}

List *
job_disown(const JobScope *scope)
{
	CatalogTransaction transaction;
	List              *disowned = NIL;
	uint64             rows;

	catalog_begin_transaction(&transaction);
	rows = catalog_execute(
		"UPDATE s3export.job SET state = 'failed', finished_at = clock_timestamp(), pipe = NULL,"
		" error_code = $8, error_message = '" INTERRUPTED_MESSAGE "',"
		" error_detail = 'The job belongs to another server or database, of which this one is a"
		" copy; what it has in the bucket was not touched.',"
		" recovered_at = clock_timestamp()"
		" WHERE NOT " IS_OURS " AND state IN ('queued', 'running', 'completing')"
		" AND ($5 = 0 OR connector_id = $5) AND job_id <> $6"
		" AND ($7 = 0::oid OR pg_has_role($7, owner, 'USAGE'))"
		" RETURNING " REMAINS_COLUMNS,
		CATALOG_THIS_SERVER, param_int8(scope->connector_id), param_int8(scope->own_job_id),
		param_oid(scope->role), param_text(unpack_sql_state(ERRCODE_CRASH_SHUTDOWN)));
	MemoryContextSwitchTo(transaction.context);
	for (uint64 i = 0; i < rows; i++)
		disowned = lappend(disowned, load_job(i));
	catalog_commit_transaction(&transaction);
	return disowned;
}

/*
 * What is owed by another server, or through a connector that is no more, will
 * never be settled here.
 */
void
job_forget(void)
{
	CatalogTransaction transaction;

	if (guc_job_retention < 0)
		return;
	catalog_begin_transaction(&transaction);
	(void) catalog_execute(
		"DELETE FROM s3export.job WHERE job_id IN (SELECT job_id FROM s3export.job j"
		" WHERE finished_at < clock_timestamp() - make_interval(mins => $5)"
		" AND state IN ('succeeded', 'failed', 'cancelled')"
		" AND NOT (" IS_OURS " AND EXISTS (SELECT FROM s3export.job_file f"
		" WHERE f.job_id = j.job_id AND (f.upload_id IS NOT NULL OR f.state = 'completing'))"
		" AND EXISTS (SELECT FROM s3export.connector c WHERE c.connector_id = j.connector_id))"
		" ORDER BY finished_at LIMIT $6 FOR UPDATE SKIP LOCKED)",
		CATALOG_THIS_SERVER, param_int4((int32) guc_job_retention),
		param_int4((int32) FORGET_LIMIT));
	catalog_commit_transaction(&transaction);
}
