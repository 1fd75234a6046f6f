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

#include "currents/current_internal.h"

/* Until the next try after a failure; s.  The network comes back sooner than credentials. */
#define FIRST_PAUSE "30"
#define LAST_PAUSE "300"
#define LAST_PAUSE_SUSPENDED "3600"

static void
expect_one(const Current *current, uint64 processed)
{
	if (processed != 1)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("connector \"%s\" has been dropped", current->connector->name)));
}

/*
 * Within a scope: locks the row and tells its state, and how many failures there were in
 * a row; replaces SPI's results.
 */
static CurrentState
lock_state(const Current *current, int64 *failures)
{
	expect_one(current, catalog_execute("SELECT state, failures FROM s3export.current_state"
										" WHERE connector_id = $1 FOR UPDATE",
										param_int8(current->connector->connector_id)));
	if (failures != NULL)
		*failures = catalog_int64(0, "failures", NULL);
	return current_parse_state(catalog_text(0, "state"));
}

/* Within a scope. */
static void
put_versions(const Current *current, int versions)
{
	(void) catalog_execute("UPDATE s3export.current SET versions = $2"
						   " WHERE connector_id = $1 AND versions < $2",
						   param_int8(current->connector->connector_id),
						   param_int4((int32) versions));
}

/* Within a scope. */
static void
put_tables(const Current *current, const CurrentProgress *progress)
{
	(void) catalog_execute(
		"UPDATE s3export.current_table t SET version = p.version, columns = p.columns"
		" FROM " CURRENT_TABLES_FROM_JSON(
			"$2::jsonb") " WHERE t.connector_id = $1"
						 " AND t.relid = p.relid AND t.version < p.version",
		param_int8(current->connector->connector_id),
		param_text(current_tables_to_json(progress->tables)));
	put_versions(current, progress->versions);
}

/* Within a scope. */
static void
forget_batch(const Current *current)
{
	(void) catalog_execute("DELETE FROM s3export.current_batch WHERE connector_id = $1",
						   param_int8(current->connector->connector_id));
}

void
current_add_gap(const Current *current, const char *table, const char *reason)
{
	(void) catalog_execute("INSERT INTO s3export.current_gap (connector_id, table_name, reason)"
						   " VALUES ($1, $2, $3)",
						   param_int8(current->connector->connector_id), param_text(table),
						   param_text(reason));
}

/* Within a scope: the batch has told of them. */
static void
forget_gaps(const Current *current, int64 last_gap)
{
	(void) catalog_execute("DELETE FROM s3export.current_gap"
						   " WHERE connector_id = $1 AND gap_id <= $2",
						   param_int8(current->connector->connector_id), param_int8(last_gap));
}

/* Within a scope. */
static void
put_totals(const Current *current, const CurrentProgress *progress)
{
	expect_one(
		current,
		catalog_execute("UPDATE s3export.current_state SET events_sent = events_sent + $2,"
						" files_sent = files_sent + $3, bytes_sent = bytes_sent + $4,"
						" last_file = coalesce($5, last_file), last_batch = $9, last_batch_at = $7,"
						" last_job_id = coalesce(nullif($6, 0), last_job_id),"
						" last_delivery_at = $7, last_timeline = greatest(last_timeline, $8)"
						" WHERE connector_id = $1",
						param_int8(current->connector->connector_id),
						param_int8((int64) progress->events), param_int8((int64) progress->files),
						param_int8((int64) progress->bytes), param_text(progress->last_file),
						param_int8(progress->job_id), param_timestamptz(GetCurrentTimestamp()),
						param_int4((int32) progress->timeline), param_text(progress->batch)));
	put_tables(current, progress);
	forget_gaps(current, progress->last_gap);
}

static void
say_error(StringInfo detail, const ErrorData *error)
{
	current_say_text(detail, "code", unpack_sql_state(error->sqlerrcode));
	current_say_text(detail, "message", error->message);
}

/* ---- launches ---- */

/*
 * The timelines of another server begin anew.  Those in _ids go on from the last, so that
 * _ids are in the order of the commits.
 */
#define NEXT_TIMELINES(row, system_identifier)                                           \
	" timelines = CASE WHEN " row ".system_identifier = " system_identifier " THEN " row \
	".timelines ELSE " row ".last_timeline END"

/* Within a scope. */
static void
record_launch(const Current *current, const CurrentProgress *copied)
{
	StringInfoData detail;

	initStringInfo(&detail);
	current_say_lsn(&detail, "position", current->delivered);
	if (copied != NULL)
		current_say_number(&detail, "copied", (int64) copied->copied);
	current_record(current->connector, "launched", CURRENT_RUNNING, &detail);
}

void
current_launching(const Current *current, XLogRecPtr position, bool copies, bool sends)
{
	int64              id = current->connector->connector_id;
	CatalogTransaction transaction;
	TimestampTz        now = GetCurrentTimestamp();

	catalog_begin_transaction(&transaction);
	expect_one(current, catalog_execute("SELECT FROM s3export.current WHERE connector_id = $1"
										" FOR KEY SHARE",
										param_int8(id)));
	(void) catalog_execute(
		"INSERT INTO s3export.current_state AS s (connector_id, state, slot_name,"
		" system_identifier, publication_oid, delivered_lsn, launched_at, caught_up_at)"
		" VALUES ($1, $2, $3, $4, $5, $6, $7, $7)"
		" ON CONFLICT (connector_id) DO UPDATE SET state = excluded.state,"
		" slot_name = excluded.slot_name, system_identifier = excluded.system_identifier,"
		" publication_oid = excluded.publication_oid, next_publication_oid = NULL,"
		" replaced_lsn = NULL, delivered_lsn = excluded.delivered_lsn,"
		" launched_at = excluded.launched_at," NEXT_TIMELINES(
			"s",
			"excluded.system_identifier") ","
										  " caught_up_at = excluded.caught_up_at," CURRENT_FORGET_FAILURES,
		param_int8(id), param_text(current_state_name(sends ? CURRENT_LAUNCHING : CURRENT_RUNNING)),
		param_text(current_slot_name(id)), param_int8((int64) GetSystemIdentifier()),
		param_oid(current->publication_oid), param_lsn(position), param_timestamptz(now));
	(void) catalog_execute("UPDATE s3export.current_table"
						   " SET added_lsn = NULL, since_lsn = NULL, copying = false"
						   " WHERE connector_id = $1",
						   param_int8(id));
	forget_batch(current);
	/* A copy of all rows mends what readers have missed. */
	(void) catalog_execute("DELETE FROM s3export.current_gap WHERE connector_id = $1 AND $2",
						   param_int8(id), param_bool(copies));
	if (!copies)
		current_add_gap(current, NULL, "it was launched without the rows that were there");
	if (!sends)
		record_launch(current, NULL);
	catalog_commit_transaction(&transaction);
}

void
current_launched(const Current *current, const CurrentProgress *copied)
{
	CatalogTransaction transaction;

	catalog_begin_transaction(&transaction);
	expect_one(current, catalog_execute("UPDATE s3export.current_state SET state = 'running'"
										" WHERE connector_id = $1 AND state = 'launching'",
										param_int8(current->connector->connector_id)));
	put_totals(current, copied);
	record_launch(current, copied);
	catalog_commit_transaction(&transaction);
}

void
current_launch_failed(const Current *current, const ErrorData *error)
{
	CatalogTransaction transaction;
	StringInfoData     detail;

	catalog_begin_transaction(&transaction);
	(void) catalog_execute("UPDATE s3export.current_state SET state = 'stopped', slot_name = NULL,"
						   " delivered_lsn = NULL, caught_up_at = NULL"
						   " WHERE connector_id = $1",
						   param_int8(current->connector->connector_id));
	initStringInfo(&detail);
	say_error(&detail, error);
	current_record(current->connector, "launch_failed", CURRENT_STOPPED, &detail);
	catalog_commit_transaction(&transaction);
}

/* ---- tables that are added with their rows ---- */

void
current_begin_table(const Current *current, Oid relid)
{
	CatalogTransaction transaction;

	catalog_begin_transaction(&transaction);
	(void) lock_state(current, NULL);
	(void) catalog_execute(
		"INSERT INTO s3export.current_table AS t"
		" (connector_id, relid, schema_name, table_name, copying)"
		" SELECT $1, c.oid, n.nspname, c.relname, true"
		" FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $2"
		" ON CONFLICT (connector_id, relid) DO UPDATE SET copying = true",
		param_int8(current->connector->connector_id), param_oid(relid));
	catalog_commit_transaction(&transaction);
}

/* Within a scope, for the table and all below it: what commits between the two is no event. */
static void
pass_over(const Current *current, Oid relid, XLogRecPtr added, XLogRecPtr since)
{
	(void) catalog_execute(
		"WITH RECURSIVE joined (relid) AS (SELECT $2::oid UNION"
		" SELECT i.inhrelid FROM joined j JOIN pg_inherits i ON i.inhparent = j.relid)"
		" INSERT INTO s3export.current_table AS t"
		" (connector_id, relid, schema_name, table_name, added_lsn, since_lsn)"
		" SELECT $1, c.oid, n.nspname, c.relname, $3, $4 FROM joined j"
		" JOIN pg_class c ON c.oid = j.relid JOIN pg_namespace n ON n.oid = c.relnamespace"
		" ON CONFLICT (connector_id, relid) DO UPDATE SET gone_lsn = NULL, waits_for = NULL,"
		" added_lsn = excluded.added_lsn, since_lsn = excluded.since_lsn",
		param_int8(current->connector->connector_id), param_oid(relid), param_lsn(added),
		param_lsn(since));
}

void
current_table_copying(const Current *current, Oid relid, XLogRecPtr added, XLogRecPtr position)
{
	CatalogTransaction transaction;

	catalog_begin_transaction(&transaction);
	pass_over(current, relid, added, position);
	catalog_commit_transaction(&transaction);
}

/* Within a scope: the table's name. */
static char *
end_copying(const Current *current, Oid relid)
{
	if (catalog_execute("UPDATE s3export.current_table SET copying = false"
						" WHERE connector_id = $1 AND relid = $2"
						" RETURNING format('%I.%I', schema_name, table_name) AS name",
						param_int8(current->connector->connector_id), param_oid(relid)) == 0)
		return NULL;
	return catalog_text(0, "name");
}

void
current_table_copied(const Current *current, Oid relid, XLogRecPtr position,
					 const CurrentProgress *copied)
{
	CatalogTransaction transaction;
	StringInfoData     detail;

	catalog_begin_transaction(&transaction);
	(void) lock_state(current, NULL);
	initStringInfo(&detail);
	current_say_text(&detail, "table", end_copying(current, relid));
	current_say_lsn(&detail, "position", position);
	current_say_number(&detail, "copied", (int64) copied->copied);
	if (copied->events > 0)
		put_totals(current, copied);
	current_record(current->connector, "table_added", current->state, &detail);
	catalog_commit_transaction(&transaction);
}

void
current_table_failed(const Current *current, Oid relid, XLogRecPtr added, const ErrorData *error)
{
	CatalogTransaction transaction;
	StringInfoData     detail;

	catalog_begin_transaction(&transaction);
	pass_over(current, relid, added, PG_UINT64_MAX);
	(void) catalog_execute("UPDATE s3export.current_table SET gone_lsn = since_lsn,"
						   " waits_for = pg_snapshot_xmax(pg_current_snapshot())"
						   " WHERE connector_id = $1 AND since_lsn = $2 AND waits_for IS NULL",
						   param_int8(current->connector->connector_id), param_lsn(PG_UINT64_MAX));
	initStringInfo(&detail);
	current_say_text(&detail, "table", end_copying(current, relid));
	say_error(&detail, error);
	current_record(current->connector, "copy_failed", current->state, &detail);
	catalog_commit_transaction(&transaction);
}

void
current_forget_table(const Current *current, Oid relid)
{
	CatalogTransaction transaction;

	catalog_begin_transaction(&transaction);
	(void) catalog_execute("DELETE FROM s3export.current_table WHERE connector_id = $1"
						   " AND relid = $2 AND copying AND version = 0 AND since_lsn IS NULL",
						   param_int8(current->connector->connector_id), param_oid(relid));
	(void) end_copying(current, relid);
	catalog_commit_transaction(&transaction);
}

/* ---- batches ---- */

void
current_take_versions(const Current *current, int versions)
{
	CatalogTransaction transaction;

	if (versions <= current->versions)
		return;
	catalog_begin_transaction(&transaction);
	put_versions(current, versions);
	catalog_commit_transaction(&transaction);
}

/* "{16384,16390}" */
static char *
oids_to_text(List *oids)
{
	StringInfoData text;
	ListCell      *cell;

	initStringInfo(&text);
	appendStringInfoChar(&text, '{');
	foreach (cell, oids)
		appendStringInfo(&text, "%s%u", text.len > 1 ? "," : "", lfirst_oid(cell));
	appendStringInfoChar(&text, '}');
	return text.data;
}

/* Within a scope. */
static void
record_gap(const Current *current, const CurrentGap *gap)
{
	StringInfoData detail;

	initStringInfo(&detail);
	current_say_text(&detail, "table", gap->table);
	current_say_text(&detail, "reason", gap->reason);
	current_record(current->connector, "gap", current->state, &detail);
}

/* Within a scope. */
static void
add_gaps(const Current *current, List *gaps)
{
	ListCell *cell;

	foreach (cell, gaps)
	{
		const CurrentGap *gap = lfirst(cell);

		current_add_gap(current, gap->table, gap->reason);
		if (!gap->told)
			record_gap(current, gap);
	}
}

static void
warn_of_gap(const Current *current, const CurrentGap *gap)
{
	ereport(WARNING,
			(errmsg("readers of connector \"%s\" miss changes of table %s",
					current->connector->name, gap->table),
			 errdetail("The reason: %s.", gap->reason),
			 errhint("The object of the batch says so.  Where it matters, take the table out of "
					 "the publication with ALTER PUBLICATION ... DROP TABLE, and add it again "
					 "with its rows by s3export.add_table().")));
}

static void
warn_of_gaps(const Current *current, List *gaps)
{
	ListCell *cell;

	foreach (cell, gaps)
	{
		if (!((CurrentGap *) lfirst(cell))->told)
			warn_of_gap(current, lfirst(cell));
	}
}

void
current_begin_batch(Current *current, CurrentBatch *batch, List *gaps, MemoryContext context)
{
	CatalogTransaction transaction;

	catalog_begin_transaction(&transaction);
	(void) lock_state(current, NULL);
	add_gaps(current, gaps);
	current_read_gaps(current, context);
	batch->last_gap = current->gaps != NIL ? ((CurrentGap *) llast(current->gaps))->gap_id : 0;
	forget_batch(current);
	(void) catalog_execute(
		"INSERT INTO s3export.current_batch (connector_id, end_lsn, events_per_file,"
		" open_files, block_size, compression, tables, versions, events, committed_at, sender,"
		" sendable, header, null_string, force_quote, last_gap)"
		" VALUES ($1, $2, $3, $4, $5, $6, $7::jsonb, $8, $9, $10, $11, $12::oid[], $13, $14,"
		" $15, $16)",
		param_int8(current->connector->connector_id), param_lsn(batch->end),
		param_int4(batch->events_per_file), param_int4(batch->open_files),
		param_int4(batch->block_size), param_text(compress_name(batch->compression)),
		param_text(current_tables_to_json(batch->tables)), param_int4(batch->versions),
		param_int8((int64) batch->events), param_timestamptz(batch->committed_at),
		param_oid(batch->sender), param_text(oids_to_text(batch->sendable)),
		param_bool(batch->format.header), param_text(batch->format.null_print),
		param_bool(batch->format.force_quote), param_int8(batch->last_gap));
	catalog_commit_transaction(&transaction);
	warn_of_gaps(current, gaps);
}

void
current_delivered(const Current *current, const CurrentProgress *progress)
{
	CatalogTransaction transaction;
	CurrentState       state;
	int64              failures;

	catalog_begin_transaction(&transaction);
	state = lock_state(current, &failures);
	put_totals(current, progress);
	(void) catalog_execute(
		"UPDATE s3export.current_state SET delivered_lsn = greatest(delivered_lsn, $2),"
		" state = CASE state WHEN 'suspended' THEN 'running' ELSE state END," CURRENT_FORGET_FAILURES
		"WHERE connector_id = $1",
		param_int8(current->connector->connector_id), param_lsn(progress->position));
	forget_batch(current);
	if (state == CURRENT_SUSPENDED || failures > 0)
		current_record(current->connector, "recovered",
					   state == CURRENT_SUSPENDED ? CURRENT_RUNNING : state, NULL);
	catalog_commit_transaction(&transaction);
}

/* Within a scope. */
static void
put_position(const Current *current, XLogRecPtr position)
{
	expect_one(current,
			   catalog_execute("UPDATE s3export.current_state"
							   " SET delivered_lsn = greatest(delivered_lsn, $2)"
							   " WHERE connector_id = $1",
							   param_int8(current->connector->connector_id), param_lsn(position)));
}

void
current_moved(const Current *current, XLogRecPtr position)
{
	CatalogTransaction transaction;

	catalog_begin_transaction(&transaction);
	put_position(current, position);
	catalog_commit_transaction(&transaction);
}

static bool
any_waits(const Current *current)
{
	ListCell *cell;

	foreach (cell, current->tables)
	{
		if (((CurrentTable *) lfirst(cell))->since_lsn == PG_UINT64_MAX)
			return true;
	}
	return false;
}

/* All that had been published has been written when the transactions of that time have ended. */
void
current_end_waits(const Current *current)
{
	CatalogTransaction transaction;

	if (!any_waits(current))
		return;
	catalog_begin_transaction(&transaction);
	(void) catalog_execute(
		"UPDATE s3export.current_table SET waits_for = NULL,"
		" since_lsn = pg_current_wal_insert_lsn(),"
		" gone_lsn = CASE WHEN gone_lsn IS NOT NULL THEN pg_current_wal_insert_lsn() END"
		" WHERE connector_id = $1 AND waits_for <= pg_snapshot_xmin(pg_current_snapshot())",
		param_int8(current->connector->connector_id));
	catalog_commit_transaction(&transaction);
}

/* Within a scope: versions of tables that are gone, with all of their changes, are of no use. */
static void
forget_gone_tables(const Current *current, XLogRecPtr position)
{
	(void) catalog_execute("DELETE FROM s3export.current_table"
						   " WHERE connector_id = $1 AND gone_lsn <= $2",
						   param_int8(current->connector->connector_id), param_lsn(position));
	(void) catalog_execute("UPDATE s3export.current_table SET added_lsn = NULL, since_lsn = NULL"
						   " WHERE connector_id = $1 AND since_lsn <= $2",
						   param_int8(current->connector->connector_id), param_lsn(position));
}

void
current_caught_up(const Current *current, XLogRecPtr position, TimestampTz since)
{
	CatalogTransaction transaction;
	CurrentState       state;
	int64              failures;

	catalog_begin_transaction(&transaction);
	state = lock_state(current, &failures);
	/* Where nothing was sent nothing is known about the credentials. */
	if (state != CURRENT_SUSPENDED && failures > 0)
	{
		(void) catalog_execute("UPDATE s3export.current_state SET" CURRENT_FORGET_FAILURES
							   "WHERE connector_id = $1",
							   param_int8(current->connector->connector_id));
		current_record(current->connector, "recovered", state, NULL);
	}
	(void) catalog_execute("UPDATE s3export.current_state SET caught_up_at = $2,"
						   " last_delivery_at = $3, delivered_lsn = greatest(delivered_lsn, $4)"
						   " WHERE connector_id = $1",
						   param_int8(current->connector->connector_id), param_timestamptz(since),
						   param_timestamptz(GetCurrentTimestamp()), param_lsn(position));
	(void) catalog_execute("UPDATE s3export.current_state SET publication_oid ="
						   " next_publication_oid, next_publication_oid = NULL, replaced_lsn = NULL"
						   " WHERE connector_id = $1 AND replaced_lsn <= $2",
						   param_int8(current->connector->connector_id), param_lsn(position));
	forget_gone_tables(current, position);
	catalog_commit_transaction(&transaction);
}

void
current_upgraded(const Current *current, XLogRecPtr position)
{
	CatalogTransaction transaction;

	catalog_begin_transaction(&transaction);
	(void) lock_state(current, NULL);
	(void) catalog_execute("UPDATE s3export.current_state s SET system_identifier = $2,"
						   " publication_oid = 0, delivered_lsn = $3," NEXT_TIMELINES(
							   "s", "$2") " WHERE connector_id = $1",
						   param_int8(current->connector->connector_id),
						   param_int8((int64) GetSystemIdentifier()), param_lsn(position));
	forget_batch(current);
	current_record(current->connector, "upgraded", current->state, NULL);
	catalog_commit_transaction(&transaction);
}

void
current_failed(const Current *current, const ErrorData *error, bool suspends)
{
	CatalogTransaction transaction;
	CurrentState       before;
	CurrentState       after;
	StringInfoData     detail;

	catalog_begin_transaction(&transaction);
	before = lock_state(current, NULL);
	after = suspends && before == CURRENT_RUNNING ? CURRENT_SUSPENDED : before;
	(void) catalog_execute(
		"UPDATE s3export.current_state SET state = $2, failures = failures + 1,"
		" suspended_at = CASE WHEN $3 THEN coalesce(suspended_at, $4) END,"
		" next_try_at = $4 + least(" FIRST_PAUSE " * 2 ^ least(failures, 20),"
		" CASE WHEN $3 THEN " LAST_PAUSE_SUSPENDED " ELSE " LAST_PAUSE " END) * interval '1 s',"
		" error_code = $5, error_message = $6, error_detail = $7, error_hint = $8"
		" WHERE connector_id = $1",
		param_int8(current->connector->connector_id), param_text(current_state_name(after)),
		param_bool(after == CURRENT_SUSPENDED), param_timestamptz(GetCurrentTimestamp()),
		param_text(unpack_sql_state(error->sqlerrcode)), param_text(error->message),
		param_text(error->detail), param_text(error->hint));
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
	state = lock_state(current, NULL);
	(void) catalog_execute("UPDATE s3export.current_state SET events_dropped = events_dropped + $2,"
						   " delivered_lsn = greatest(delivered_lsn, $3), warned = 100"
						   " WHERE connector_id = $1",
						   param_int8(connector->connector_id), param_int8((int64) events),
						   param_lsn(position));
	forget_batch(current);
	current_add_gap(current, NULL, psprintf(UINT64_FORMAT " events were dropped", events));
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
			   catalog_execute("UPDATE s3export.current_state SET warned = greatest(warned, $2)"
							   " WHERE connector_id = $1"
							   " RETURNING (pg_current_wal_lsn() - delivered_lsn)::bigint AS lag",
							   param_int8(connector->connector_id), param_int4((int32) percent)));
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
					   " bytes of WAL for it.",
					   pstrdup(timestamptz_to_str(current->suspended_at)), percent,
					   pstrdup(timestamptz_to_str(current_deadline(current))), lag),
			 errhint("Give it working credentials with s3export.set_credentials().")));
}

void
current_lost(const Current *current, const char *reason)
{
	CatalogTransaction transaction;
	StringInfoData     detail;

	catalog_begin_transaction(&transaction);
	(void) lock_state(current, NULL);
	(void) catalog_execute(
		"UPDATE s3export.current_state SET state = 'lost', error_code = $2,"
		" error_message = 'it has lost its place in the WAL',"
		" error_detail = $3, error_hint = '" CURRENT_LAUNCH_AGAIN "' WHERE connector_id = $1",
		param_int8(current->connector->connector_id),
		param_text(unpack_sql_state(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE)), param_text(reason));
	forget_batch(current);
	initStringInfo(&detail);
	current_say_lsn(&detail, "position", current->delivered);
	current_say_text(&detail, "message", reason);
	current_record(current->connector, "lost", CURRENT_LOST, &detail);
	catalog_commit_transaction(&transaction);
}

void
current_skipped(const Current *current)
{
	CatalogTransaction transaction;

	catalog_begin_transaction(&transaction);
	current_record(current->connector, "skipped", current->state, NULL);
	catalog_commit_transaction(&transaction);
}

void
current_forget_batch(const Current *current, XLogRecPtr position)
{
	CatalogTransaction transaction;

	catalog_begin_transaction(&transaction);
	put_position(current, position);
	forget_batch(current);
	catalog_commit_transaction(&transaction);
}

void
current_keep_gaps(const Current *current, List *gaps)
{
	CatalogTransaction transaction;

	if (gaps == NIL)
		return;
	catalog_begin_transaction(&transaction);
	add_gaps(current, gaps);
	catalog_commit_transaction(&transaction);
	warn_of_gaps(current, gaps);
}

void
current_withheld(const Current *current, List *tables, uint64 events)
{
	CatalogTransaction transaction;
	StringInfoData     names;
	StringInfoData     detail;
	ListCell          *cell;

	initStringInfo(&names);
	foreach (cell, tables)
		appendStringInfo(&names, "%s%s", names.len > 0 ? ", " : "", (char *) lfirst(cell));
	catalog_begin_transaction(&transaction);
	initStringInfo(&detail);
	current_say_text(&detail, "tables", names.data);
	current_say_number(&detail, "events", (int64) events);
	current_record(current->connector, "withheld", current->state, &detail);
	catalog_commit_transaction(&transaction);

	ereport(
		WARNING,
		(errmsg("changes of table %s were not sent to connector \"%s\"", names.data,
				current->connector->name),
		 errdetail(
			 "The owner of publication \"%s\" did not own the table, or the connector's "
			 "owner had not his rights, or there was no replica identity.  Changes: " UINT64_FORMAT
			 ".",
			 current->publication, events),
		 errhint("Where they matter, take the table out of the publication with ALTER "
				 "PUBLICATION ... DROP TABLE, and add it again with its rows by "
				 "s3export.add_table().")));
}
