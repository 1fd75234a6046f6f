/*-------------------------------------------------------------------------
 *
 * current_rows.c
 *	  What the worker records about a current.
 *
 * Each function runs a transaction of its own.  A user may have paused the
 * current meanwhile: what has been delivered is recorded, and it stays paused.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "current_internal.h"

/* Until the next try after a failure; s */
#define FIRST_PAUSE "30"
#define LAST_PAUSE "3600"

static void
expect_one(const Current *current, uint64 processed)
{
	if (processed != 1)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("connector \"%s\" has been dropped", current->connector->name)));
}

/* Within a scope: locks the row and tells its state; replaces SPI's results. */
static CurrentState
lock_state(const Current *current)
{
	expect_one(current, catalog_execute("SELECT state FROM s3export.current"
										" WHERE connector_id = $1 FOR UPDATE",
										"i", current->connector->connector_id));
	return current_parse_state(catalog_text(0, "state"));
}

/* Within a scope. */
static void
put_tables(const Current *current, List *tables)
{
	(void) catalog_execute("UPDATE s3export.current_table t SET version = p.version,"
						   " columns = p.columns FROM " CURRENT_TABLES_FROM_JSON(
							   "$2::jsonb") " WHERE t.connector_id = $1 AND t.relid = p.relid"
											" AND t.version < p.version",
						   "it", current->connector->connector_id, current_tables_to_json(tables));
}

/* Within a scope. */
static void
forget_batch(const Current *current)
{
	(void) catalog_execute("DELETE FROM s3export.current_batch WHERE connector_id = $1", "i",
						   current->connector->connector_id);
}

/* Within a scope. */
static void
put_totals(const Current *current, const CurrentProgress *progress)
{
	expect_one(current, catalog_execute(
							"UPDATE s3export.current SET events_sent = events_sent + $2,"
							" files_sent = files_sent + $3, bytes_sent = bytes_sent + $4,"
							" last_file = coalesce($5, last_file),"
							" last_job_id = coalesce(nullif($6, 0), last_job_id),"
							" last_delivery_at = $7 WHERE connector_id = $1",
							"iiiitiz", current->connector->connector_id, (int64) progress->events,
							(int64) progress->files, (int64) progress->bytes, progress->last_file,
							progress->job_id, GetCurrentTimestamp()));
	put_tables(current, progress->tables);
}

void
current_launched(const Current *current, XLogRecPtr position, const CurrentProgress *copied)
{
	int64              id = current->connector->connector_id;
	CatalogTransaction transaction;
	StringInfoData     detail;

	catalog_begin_transaction(&transaction);
	(void) lock_state(current);
	if (!current->here)
		current_resolve_tables(id);
	(void) catalog_execute("UPDATE s3export.current SET state = 'running', slot_name = $6,"
						   " system_identifier = $1, data_directory = $2, database = $3,"
						   " timeline = $4, delivered_lsn = $7, launched_at = $8,"
						   " caught_up_at = $8," CURRENT_FORGET_FAILURES "WHERE connector_id = $5",
						   "itonitlz", CATALOG_THIS_SERVER, id, current_slot_name(id), position,
						   GetCurrentTimestamp());
	(void) catalog_execute("UPDATE s3export.current_table SET removed_lsn = least(removed_lsn, $2)"
						   " WHERE connector_id = $1 AND removed_lsn IS NOT NULL",
						   "il", id, position);
	forget_batch(current);
	if (copied != NULL)
		put_totals(current, copied);
	initStringInfo(&detail);
	current_say_lsn(&detail, "position", position);
	if (copied != NULL)
		current_say_number(&detail, "copied", (int64) copied->events);
	current_record(current->connector, "launched", CURRENT_RUNNING, &detail);
	catalog_commit_transaction(&transaction);
}

void
current_begin_batch(const Current *current, const CurrentBatch *batch)
{
	CatalogTransaction transaction;

	catalog_begin_transaction(&transaction);
	(void) lock_state(current);
	forget_batch(current);
	(void) catalog_execute(
		"INSERT INTO s3export.current_batch (connector_id, end_lsn, operations, events_per_file,"
		" open_files, block_size, compression, tables, events, committed_at)"
		" VALUES ($1, $2, $3, $4, $5, $6, $7, $8::jsonb, $9, $10)",
		"ilnnnnttiz", current->connector->connector_id, batch->end, batch->operations,
		batch->events_per_file, batch->open_files, batch->block_size,
		compress_name(batch->compression), current_tables_to_json(batch->tables),
		(int64) batch->events, batch->committed_at);
	catalog_commit_transaction(&transaction);
}

void
current_delivered(const Current *current, const CurrentProgress *progress)
{
	CatalogTransaction transaction;
	CurrentState       state;

	catalog_begin_transaction(&transaction);
	state = lock_state(current);
	put_totals(current, progress);
	(void) catalog_execute(
		"UPDATE s3export.current SET delivered_lsn = greatest(delivered_lsn, $2),"
		" state = CASE state WHEN 'suspended' THEN 'running' ELSE state END," CURRENT_FORGET_FAILURES
		"WHERE connector_id = $1",
		"il", current->connector->connector_id, progress->position);
	forget_batch(current);
	if (state == CURRENT_SUSPENDED)
		current_record(current->connector, "recovered", CURRENT_RUNNING, NULL);
	catalog_commit_transaction(&transaction);
}

/* The names of tables are what a dump is restored by. */
static void
refresh_names(const Current *current)
{
	(void) catalog_execute(
		"UPDATE s3export.current_table t SET schema_name = n.nspname, table_name = c.relname"
		" FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
		" WHERE t.connector_id = $1 AND c.oid = t.relid"
		" AND (t.schema_name <> n.nspname OR t.table_name <> c.relname)",
		"i", current->connector->connector_id);
}

void
current_caught_up(const Current *current, TimestampTz since)
{
	CatalogTransaction transaction;

	catalog_begin_transaction(&transaction);
	/* Where nothing was sent nothing is known about the credentials. */
	if (lock_state(current) != CURRENT_SUSPENDED)
		(void) catalog_execute("UPDATE s3export.current SET" CURRENT_FORGET_FAILURES
							   "WHERE connector_id = $1 AND failures > 0",
							   "i", current->connector->connector_id);
	(void) catalog_execute("UPDATE s3export.current SET caught_up_at = $2, last_delivery_at = $3"
						   " WHERE connector_id = $1",
						   "izz", current->connector->connector_id, since, GetCurrentTimestamp());
	refresh_names(current);
	catalog_commit_transaction(&transaction);
}

static void
say_error(StringInfo detail, const ErrorData *error)
{
	current_say_text(detail, "code", unpack_sql_state(error->sqlerrcode));
	current_say_text(detail, "message", error->message);
}

void
current_failed(const Current *current, const ErrorData *error, bool suspends)
{
	CatalogTransaction transaction;
	CurrentState       before;
	CurrentState       after;
	StringInfoData     detail;

	catalog_begin_transaction(&transaction);
	before = lock_state(current);
	after = suspends && before == CURRENT_RUNNING ? CURRENT_SUSPENDED : before;
	(void) catalog_execute(
		"UPDATE s3export.current SET state = $2, failures = failures + 1,"
		" suspended_at = CASE WHEN $3 THEN coalesce(suspended_at, $4) END,"
		" next_try_at = CASE WHEN $3 THEN $4 + least(" FIRST_PAUSE " * 2 ^ least(failures, 20),"
		" " LAST_PAUSE ") * interval '1 s' END,"
		" error_code = $5, error_message = $6, error_detail = $7, error_hint = $8"
		" WHERE connector_id = $1",
		"itbztttt", current->connector->connector_id, current_state_name(after),
		after == CURRENT_SUSPENDED, GetCurrentTimestamp(), unpack_sql_state(error->sqlerrcode),
		error->message, error->detail, error->hint);
	initStringInfo(&detail);
	say_error(&detail, error);
	current_record(current->connector, before != after ? "suspended" : "failed", after, &detail);
	catalog_commit_transaction(&transaction);
}

/* Within a scope: what the clock of a suspended current says. */
static void
say_clock(StringInfo detail, const Current *current)
{
	current_say_time(detail, "suspended_at", current->suspended_at);
	if (current->suspended_at != 0 && current->drop_after >= 0)
		current_say_time(detail, "deadline", current_deadline(current));
}

void
current_dropped(const Current *current, XLogRecPtr position, uint64 events)
{
	const Connector   *connector = current->connector;
	CatalogTransaction transaction;
	CurrentState       state;
	StringInfoData     detail;

	catalog_begin_transaction(&transaction);
	state = lock_state(current);
	(void) catalog_execute("UPDATE s3export.current SET events_dropped = events_dropped + $2,"
						   " delivered_lsn = greatest(delivered_lsn, $3), warned = 100"
						   " WHERE connector_id = $1",
						   "iil", connector->connector_id, (int64) events, position);
	forget_batch(current);
	initStringInfo(&detail);
	current_say_number(&detail, "events", (int64) events);
	current_say_lsn(&detail, "position", position);
	say_clock(&detail, current);
	current_record(connector, "dropped", state, &detail);
	catalog_commit_transaction(&transaction);

	ereport(WARNING,
			(errmsg("events of connector \"%s\" have been dropped for good", connector->name),
			 errdetail("S3 has refused its credentials since %s; " UINT64_FORMAT
					   " events up to position %X/%X will never be sent.",
					   pstrdup(timestamptz_to_str(current->suspended_at)), events,
					   LSN_FORMAT_ARGS(position)),
			 errhint("Give it working credentials with s3export.set_credentials().")));
}

/* 90, 50, or 0: no warning is due. */
static int
percent_due(const Current *current)
{
	double elapsed = (double) (GetCurrentTimestamp() - current->suspended_at) / 1000;

	if (current->state != CURRENT_SUSPENDED || current->drop_after < 0)
		return 0;
	if (elapsed >= 0.9 * current->drop_after && current->warned < 90)
		return 90;
	if (elapsed >= 0.5 * current->drop_after && current->warned < 50)
		return 50;
	return 0;
}

void
current_warn(const Current *current)
{
	const Connector   *connector = current->connector;
	int                percent = percent_due(current);
	CatalogTransaction transaction;
	int64              lag;
	StringInfoData     detail;

	if (percent == 0)
		return;
	catalog_begin_transaction(&transaction);
	expect_one(current,
			   catalog_execute("UPDATE s3export.current SET warned = greatest(warned, $2)"
							   " WHERE connector_id = $1"
							   " RETURNING (pg_current_wal_lsn() - delivered_lsn)::bigint AS lag",
							   "in", connector->connector_id, (int32) percent));
	lag = catalog_int64(0, "lag", NULL);
	initStringInfo(&detail);
	current_say_number(&detail, "percent", percent);
	say_clock(&detail, current);
	current_say_number(&detail, "lag_bytes", lag);
	current_record(connector, "warning", CURRENT_SUSPENDED, &detail);
	catalog_commit_transaction(&transaction);

	ereport(WARNING,
			(errmsg("connector \"%s\" will drop events unless it gets working credentials",
					connector->name),
			 errdetail("S3 has refused those that it has since %s: %d %% of the time allowed by "
					   "drop_after is over, and all of it at %s.  The server keeps " INT64_FORMAT
					   " bytes of write-ahead log for it.",
					   pstrdup(timestamptz_to_str(current->suspended_at)), percent,
					   pstrdup(timestamptz_to_str(current_deadline(current))), lag),
			 errhint("Give it working credentials with s3export.set_credentials().")));
}

void
current_lost(const Current *current)
{
	CatalogTransaction transaction;
	StringInfoData     detail;

	catalog_begin_transaction(&transaction);
	(void) lock_state(current);
	(void) catalog_execute("UPDATE s3export.current SET state = 'lost' WHERE connector_id = $1",
						   "i", current->connector->connector_id);
	forget_batch(current);
	initStringInfo(&detail);
	current_say_lsn(&detail, "position", current->delivered);
	current_record(current->connector, "lost", CURRENT_LOST, &detail);
	catalog_commit_transaction(&transaction);
}
