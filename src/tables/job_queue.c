/*-------------------------------------------------------------------------
 *
 * job_queue.c
 *	  The rows of jobs that wait for a worker.
 *
 * A row that somebody is about to cancel is locked until his transaction ends.
 * Workers pass it over meanwhile: they must not wait for him.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/json.h"

#include "base/guc.h"
#include "tables/catalog.h"
#include "tables/job.h"

/* Of a job's arguments and settings; bytes */
#define MAX_ARGUMENTS (1024 * 1024)

/* A copy of these rows on another server is not this one's to run. */
#define IS_OURS \
	" system_identifier = $1 AND data_directory = $2 AND database = $3 AND timeline = $4 "

/* ---- in the caller's transaction ---- */

/*
 * Arguments are kept by name: a job that was queued before an upgrade is understood after it.
 */
static char *
pairs_to_json(List *pairs)
{
	StringInfoData json;
	ListCell      *cell;

	initStringInfo(&json);
	appendStringInfoChar(&json, '{');
	foreach (cell, pairs)
	{
		const JobPair *pair = lfirst(cell);

		if (json.len > 1)
			appendStringInfoChar(&json, ',');
		escape_json(&json, pair->name);
		appendStringInfoChar(&json, ':');
		escape_json(&json, pair->value);
	}
	appendStringInfoChar(&json, '}');
	return json.data;
}

/*
 * Transactions that run at the same time do not see each other's jobs, so there
 * may be a few more.
 */
static void
require_room(Oid owner)
{
	(void) catalog_execute_latest(
		"SELECT pg_catalog.count(*) AS queued, pg_catalog.count(*) FILTER (WHERE owner = $5) AS own"
		" FROM s3export.job WHERE state = 'queued' AND" IS_OURS,
		CATALOG_THIS_SERVER, param_oid(owner));
	if (catalog_int64(0, "own", NULL) >= guc_queued_jobs_of_role() && !superuser_arg(owner))
		ereport(
			ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("too many exports of role \"%s\" are queued", GetUserNameFromId(owner, false)),
			 errdetail("The limit is %d.", guc_queued_jobs_of_role()),
			 errhint("Wait until some have ended (see s3export.jobs), cancel some with "
					 "s3export.cancel(), or raise \"s3export.max_queued_jobs_per_role\".")));
	if (catalog_int64(0, "queued", NULL) >= guc_max_queued_jobs)
		ereport(ERROR, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
						errmsg("too many exports are queued"),
						errdetail("The limit is %d.", guc_max_queued_jobs),
						errhint("Wait until some have ended (see s3export.jobs), cancel some with "
								"s3export.cancel(), or raise \"s3export.max_queued_jobs\".")));
}

int64
job_enqueue(const JobOrder *order)
{
	char        *arguments = pairs_to_json(order->arguments);
	char        *settings = pairs_to_json(order->settings);
	CatalogScope scope;
	int64        job_id;

	if (strlen(arguments) + strlen(settings) > MAX_ARGUMENTS)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("arguments and settings of the export are too long"),
						errdetail("They have %zu bytes; the limit is %d.",
								  strlen(arguments) + strlen(settings), MAX_ARGUMENTS)));
	catalog_enter(&scope);
	require_room(order->owner);
	(void) catalog_execute("SELECT nextval('s3export.job_id_seq') AS job_id");
	job_id = catalog_int64(0, "job_id", NULL);
	(void) catalog_execute(
		"INSERT INTO s3export.job (system_identifier, data_directory, database, timeline, job_id,"
		" owner, connector_id, connector, endpoint_url, source, path, arguments, settings, state,"
		" queued_at, retry_until)"
		" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12::jsonb, $13::jsonb, 'queued',"
		" pg_catalog.clock_timestamp(), nullif($14, '-infinity'))",
		CATALOG_THIS_SERVER, param_int8(job_id), param_oid(order->owner),
		param_int8(order->connector_id), param_text(order->connector),
		param_text(order->endpoint_url), param_text(order->source), param_text(order->path),
		param_text(arguments), param_text(settings), param_timestamptz(order->retry_until));
	catalog_leave(&scope);
	return job_id;
}

bool
job_any_queued(void)
{
	CatalogScope scope;
	bool         any;

	catalog_enter(&scope);
	any = catalog_execute_latest("SELECT FROM s3export.job WHERE state = 'queued' AND" IS_OURS
								 " LIMIT 1",
								 CATALOG_THIS_SERVER) > 0;
	catalog_leave(&scope);
	return any;
}

bool
job_cancel_queued(int64 job_id)
{
	CatalogScope scope;
	bool         cancelled;

	catalog_enter(&scope);
	cancelled = catalog_execute_latest(
					"UPDATE s3export.job SET state = 'cancelled', waiting_for = NULL,"
					" error_code = $2, error_message = $3, error_detail = NULL,"
					" error_hint = NULL, next_attempt_at = NULL,"
					" finished_at = pg_catalog.clock_timestamp()"
					" WHERE job_id = $1 AND state = 'queued'",
					param_int8(job_id), param_text(unpack_sql_state(ERRCODE_QUERY_CANCELED)),
					param_text("canceling the export due to user request")) > 0;
	if (cancelled)
		job_notify(job_id, "cancelled");
	catalog_leave(&scope);
	return cancelled;
}

bool
job_get_status(int64 job_id, JobStatus *status)
{
	CatalogScope scope;
	bool         found;

	catalog_enter(&scope);
	found = catalog_execute_latest(
				"SELECT owner, state, uri, rows, files::bigint AS files, bytes, leader_pid,"
				" uploader_pid, error_code, error_message, error_detail, error_hint"
				" FROM s3export.job WHERE job_id = $1",
				param_int8(job_id)) > 0;
	if (found)
		*status = (JobStatus){
			.owner = (Oid) catalog_int64(0, "owner", NULL),
			.state = catalog_text(0, "state"),
			.uri = catalog_text(0, "uri"),
			.rows = catalog_int64(0, "rows", NULL),
			.files = catalog_int64(0, "files", NULL),
			.bytes = catalog_int64(0, "bytes", NULL),
			.leader_pid = (int) catalog_int64(0, "leader_pid", NULL),
			.uploader_pid = (int) catalog_int64(0, "uploader_pid", NULL),
			.error_code = catalog_text(0, "error_code"),
			.error_message = catalog_text(0, "error_message"),
			.error_detail = catalog_text(0, "error_detail"),
			.error_hint = catalog_text(0, "error_hint"),
		};
	catalog_leave(&scope);
	return found;
}

/* ---- in transactions of their own ---- */

List *
job_list_unfinished(void)
{
	CatalogTransaction transaction;
	List              *entries = NIL;
	uint64             rows;

	catalog_begin_transaction(&transaction);
	rows = catalog_execute(
		"SELECT job_id, owner, state = 'queued' AS queued,"
		" NOT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid = owner"
		" AND r.rolsuper) AS limited,"
		" arguments IS NOT NULL AS background, waiting_for, connector_id, path,"
		" leader_pid, uploader_pid, next_attempt_at IS NOT NULL AS again,"
		" next_attempt_at > pg_catalog.clock_timestamp() AS resting"
		" FROM s3export.job WHERE state IN ('queued', 'running', 'completing') AND" IS_OURS
		"ORDER BY job_id",
		CATALOG_THIS_SERVER);
	for (uint64 i = 0; i < rows; i++)
	{
		JobEntry *entry = SPI_palloc(sizeof(JobEntry));

		*entry = (JobEntry){
			.job_id = catalog_int64(i, "job_id", NULL),
			.owner = (Oid) catalog_int64(i, "owner", NULL),
			.queued = catalog_int64(i, "queued", NULL) != 0,
			.limited = catalog_int64(i, "limited", NULL) != 0,
			.background = catalog_int64(i, "background", NULL) != 0,
			.waiting_for = catalog_text(i, "waiting_for"),
			.connector_id = catalog_int64(i, "connector_id", NULL),
			.path = catalog_text(i, "path"),
			.leader_pid = (int) catalog_int64(i, "leader_pid", NULL),
			.uploader_pid = (int) catalog_int64(i, "uploader_pid", NULL),
			.again = catalog_int64(i, "again", NULL) != 0,
			.resting = catalog_int64(i, "resting", NULL) != 0,
		};
		MemoryContextSwitchTo(transaction.context);
		entries = lappend(entries, entry);
	}
	catalog_commit_transaction(&transaction);
	return entries;
}

bool
job_is_free(int64 job_id)
{
	CatalogTransaction transaction;
	bool               is_free;

	catalog_begin_transaction(&transaction);
	is_free = catalog_execute("SELECT FROM s3export.job WHERE job_id = $1 AND state = 'queued'"
							  " FOR UPDATE SKIP LOCKED",
							  param_int8(job_id)) > 0;
	catalog_commit_transaction(&transaction);
	return is_free;
}

void
job_set_waiting(List *entries)
{
	CatalogTransaction transaction;
	ListCell          *cell;

	catalog_begin_transaction(&transaction);
	foreach (cell, entries)
	{
		const JobEntry *entry = lfirst(cell);

		(void) catalog_execute("UPDATE s3export.job SET waiting_for = $2 WHERE job_id ="
							   " (SELECT job_id FROM s3export.job WHERE job_id = $1"
							   " AND state = 'queued' FOR UPDATE SKIP LOCKED)",
							   param_int8(entry->job_id), param_text(entry->waiting_for));
	}
	catalog_commit_transaction(&transaction);
}

/* Within a transaction; replaces SPI's results. */
static List *
pairs_from_json(const char *json, MemoryContext context)
{
	List  *pairs = NIL;
	uint64 rows = catalog_execute("SELECT key, value FROM pg_catalog.jsonb_each_text($1::jsonb)",
								  param_text(json));

	for (uint64 i = 0; i < rows; i++)
	{
		JobPair      *pair = SPI_palloc(sizeof(JobPair));
		MemoryContext old;

		pair->name = catalog_text(i, "key");
		pair->value = catalog_text(i, "value");
		old = MemoryContextSwitchTo(context);
		pairs = lappend(pairs, pair);
		MemoryContextSwitchTo(old);
	}
	return pairs;
}

/* The row has it in a column of its own alone. */
static void
add_source(JobClaim *claim, MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	JobPair      *pair = palloc(sizeof(JobPair));

	pair->name = "source";
	pair->value = claim->source;
	claim->arguments = lcons(pair, claim->arguments);
	MemoryContextSwitchTo(old);
}

bool
job_claim(int64 job_id, JobClaim *claim)
{
	CatalogTransaction transaction;
	bool               claimed;

	catalog_begin_transaction(&transaction);
	claimed = catalog_execute("UPDATE s3export.job j SET state = 'running', waiting_for = NULL,"
							  " attempts = attempts + 1, next_attempt_at = NULL,"
							  " started_at = pg_catalog.clock_timestamp(), leader_pid = $2"
							  " WHERE job_id = (SELECT job_id FROM s3export.job WHERE job_id = $1"
							  " AND state = 'queued' FOR UPDATE SKIP LOCKED)"
							  " RETURNING connector_id, source, arguments, settings, j AS row",
							  param_int8(job_id), param_int4(MyProcPid)) > 0;
	if (claimed)
	{
		char *arguments = catalog_text(0, "arguments");
		char *settings = catalog_text(0, "settings");

		row_proof_read(&claim->proof, "job", 0, "row");
		claim->connector_id = catalog_int64(0, "connector_id", NULL);
		claim->source = catalog_text(0, "source");
		claim->arguments = pairs_from_json(arguments, transaction.context);
		add_source(claim, transaction.context);
		claim->settings = pairs_from_json(settings, transaction.context);
	}
	catalog_commit_transaction(&transaction);
	return claimed;
}

void
job_put_back(int64 job_id, const char *waiting_for)
{
	CatalogTransaction transaction;

	catalog_begin_transaction(&transaction);
	(void) catalog_execute("UPDATE s3export.job SET state = 'queued', waiting_for = $2,"
						   " attempts = attempts - 1, started_at = NULL, leader_pid = NULL"
						   " WHERE job_id = $1 AND state = 'running' AND leader_pid = $3"
						   " AND uploader_pid IS NULL",
						   param_int8(job_id), param_text(waiting_for), param_int4(MyProcPid));
	catalog_commit_transaction(&transaction);
}

/* "state": that the job is in, with this process (0: none) for its leader. */
static void
fail_unbegun(int64 job_id, const char *state, int leader_pid, JobState end, const ErrorData *error)
{
	const char        *name = end == JOB_CANCELLED ? "cancelled" : "failed";
	const char        *code = unpack_sql_state(error->sqlerrcode);
	CatalogTransaction transaction;

	catalog_begin_transaction(&transaction);
	if (catalog_execute("SELECT FROM s3export.job WHERE job_id = $1 AND state = $2"
						" AND leader_pid IS NOT DISTINCT FROM nullif($3, 0)"
						" AND uploader_pid IS NULL FOR UPDATE",
						param_int8(job_id), param_text(state), param_int4(leader_pid)) > 0 &&
		!(job_error_passes(error->sqlerrcode) &&
		  job_try_again(job_id, code, error->message, error->detail, error->hint)))
	{
		(void) catalog_execute("UPDATE s3export.job SET state = $2, waiting_for = NULL,"
							   " next_attempt_at = NULL, error_code = $3, error_message = $4,"
							   " error_detail = $5, error_hint = $6,"
							   " finished_at = pg_catalog.clock_timestamp() WHERE job_id = $1",
							   param_int8(job_id), param_text(name), param_text(code),
							   param_text(error->message), param_text(error->detail),
							   param_text(error->hint));
		job_notify(job_id, name);
	}
	catalog_commit_transaction(&transaction);
}

void
job_fail_early(int64 job_id, JobState state, const ErrorData *error)
{
	fail_unbegun(job_id, "running", MyProcPid, state, error);
}

void
job_fail_queued(int64 job_id, const ErrorData *error)
{
	fail_unbegun(job_id, "queued", 0, JOB_FAILED, error);
}
