/*-------------------------------------------------------------------------
 *
 * current.c
 *	  The rows of currents: what they are called, and how they are read.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/syscache.h"

#include "currents/current_internal.h"

static const char *const state_names[] = {"created", "launching", "running",
										  "paused",  "stopped",   "suspended",
										  "lost",    "elsewhere", "orphaned"};

TimestampTz
current_deadline(const Current *current)
{
	return current->drop_after < 0
			   ? DT_NOEND
			   : TimestampTzPlusMilliseconds(current->suspended_at, current->drop_after);
}

bool
current_clock_has_run_out(const Current *current)
{
	return current->suspended_at != 0 && current->drop_after >= 0 &&
		   GetCurrentTimestamp() - current->suspended_at >= current->drop_after * 1000;
}

bool
current_may_try(const Current *current)
{
	return current->state == CURRENT_RUNNING ||
		   (current->state == CURRENT_SUSPENDED &&
			(current->next_try_at <= GetCurrentTimestamp() || current_clock_has_run_out(current)));
}

/* Slots of all databases share one namespace, and ids are of one database. */
char *
current_slot_name(int64 connector_id)
{
	return psprintf("s3export_%u_" INT64_FORMAT, MyDatabaseId, connector_id);
}

const char *
current_state_name(CurrentState state)
{
	return state_names[state];
}

CurrentState
current_parse_state(const char *name)
{
	for (int i = 0; i < (int) lengthof(state_names); i++)
	{
		if (strcmp(state_names[i], name) == 0)
			return (CurrentState) i;
	}
	elog(ERROR, "unexpected state of a current: \"%s\"", name);
}

void
current_refuse_delivery(const Current *current)
{
	const char *name = current->connector->name;

	switch (current->state)
	{
		case CURRENT_LAUNCHING:
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("the launch of connector \"%s\" was interrupted", name),
					 errdetail("Some files of its copy may be in place.  Its replication slot goes "
							   "with the next launch."),
					 errhint("Launch it again with s3export.launch(), with copy_existing => true "
							 "for a whole copy.")));
		case CURRENT_LOST:
			ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
							errmsg("connector \"%s\" has lost its place in the WAL", name),
							errhint(CURRENT_LAUNCH_AGAIN)));
		case CURRENT_ELSEWHERE:
			ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
							errmsg("connector \"%s\" was launched elsewhere", name),
							errdetail("Its rows were copied from another server or database, and "
									  "its replication slot is not here."),
							errhint("If the original goes on, give this connector a folder of its "
									"own with s3export.alter_connector(), then launch it with "
									"s3export.launch().  If this is of no use here, drop it with "
									"s3export.drop_connector().")));
		case CURRENT_ORPHANED:
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("owner of connector \"%s\" does not exist", name),
					 errdetail("The role was dropped, or does not exist on this server."),
					 errhint("Give the connector an owner with s3export.alter_connector(owner => "
							 "...), or drop it with s3export.drop_connector().")));
		default:
			ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
							current->state == CURRENT_STOPPED
								? errmsg("connector \"%s\" is stopped", name)
								: errmsg("connector \"%s\" has not been launched", name),
							errhint("Launch it with s3export.launch().")));
	}
}

/* ---- reading ---- */

static CompressMethod
parse_compression(const char *name)
{
	CompressOptions options;

	compress_options(&options, name, NULL, NULL);
	return options.method;
}

/* What belongs to the launch is null where there has been none. */
static void
read_launch(Current *current)
{
	const char *state = catalog_text(0, "state");

	current->state = state != NULL ? current_parse_state(state) : CURRENT_CREATED;
	current->slot = catalog_text(0, "slot_name");
	current->elsewhere = state != NULL && catalog_int64(0, "here", NULL) == 0;
	if (!current->elsewhere)
	{
		current->publication_oid = (Oid) catalog_int64(0, "publication_oid", NULL);
		current->next_publication_oid = (Oid) catalog_int64(0, "next_publication_oid", NULL);
	}
	current->delivered = (XLogRecPtr) catalog_int64(0, "delivered_lsn", NULL);
	current->caught_up_at = catalog_int64(0, "caught_up_at", NULL);
	current->last_delivery_at = catalog_int64(0, "last_delivery_at", NULL);
	current->timelines = (int) catalog_int64(0, "timelines", NULL);
	current->suspended_at = catalog_int64(0, "suspended_at", NULL);
	current->next_try_at = catalog_int64(0, "next_try_at", NULL);
	current->failures = (int) catalog_int64(0, "failures", NULL);
	current->warned = (int) catalog_int64(0, "warned", NULL);
	current->has_sent = catalog_int64(0, "files_sent", NULL) > 0;
	current->events_dropped = (uint64) catalog_int64(0, "events_dropped", NULL);
	current->last_batch = catalog_text(0, "last_batch");
	current->last_batch_at = catalog_int64(0, "last_batch_at", NULL);
}

/* Of the settings and of a batch. */
static CurrentFormat
read_format(void)
{
	return (CurrentFormat){
		.header = catalog_int64(0, "header", NULL) != 0,
		.null_print = catalog_text(0, "null_string"),
		.force_quote = catalog_int64(0, "force_quote", NULL) != 0,
	};
}

static void
read_feed(Current *current)
{
	bool none;

	current->feed = catalog_text(0, "feed");
	current->local_only = strcmp(catalog_text(0, "origin"), "none") == 0;
	current->format = read_format();
	current->heartbeat = catalog_int64(0, "heartbeat", &none);
	if (none)
		current->heartbeat = -1;
}

/* What is not seen from the stored state alone. */
static CurrentState
state_seen(const Current *current)
{
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(current->connector->owner)))
		return CURRENT_ORPHANED;
	if (current->elsewhere && current->state != CURRENT_STOPPED)
		return CURRENT_ELSEWHERE;
	return current->state;
}

bool
current_read(Current *current, MemoryContext context)
{
	int64 connector_id = current->connector->connector_id;
	bool  never;

	if (catalog_execute_latest(
			"SELECT u.publication, u.owns_publication, u.compression, u.max_events_per_file,"
			" (extract(epoch FROM u.drop_after) * 1000)::bigint AS drop_after, u.versions,"
			" current_database() AS database_name, s.state, s.slot_name, s.publication_oid,"
			" s.next_publication_oid,"
			" s.delivered_lsn, s.caught_up_at, s.last_delivery_at, s.timelines,"
			" s.suspended_at, s.next_try_at, s.failures, s.warned, s.events_dropped, s.files_sent,"
			" u.feed, u.origin, u.header, u.null_string, u.force_quote,"
			" (extract(epoch FROM u.heartbeat) * 1000)::bigint AS heartbeat,"
			" s.last_batch, s.last_batch_at,"
			" (s.system_identifier, s.slot_name) = ($2, $3) AS here"
			" FROM s3export.current u LEFT JOIN s3export.current_state s USING (connector_id)"
			" WHERE connector_id = $1",
			param_int8(connector_id), param_int8((int64) GetSystemIdentifier()),
			param_text(current_slot_name(connector_id))) == 0)
		return false;
	current->publication = catalog_text(0, "publication");
	current->owns_publication = catalog_int64(0, "owns_publication", NULL) != 0;
	current->compression = parse_compression(catalog_text(0, "compression"));
	current->events_per_file = (int) catalog_int64(0, "max_events_per_file", NULL);
	current->drop_after = catalog_int64(0, "drop_after", &never);
	if (never)
		current->drop_after = -1;
	current->versions = (int) catalog_int64(0, "versions", NULL);
	read_feed(current);
	current->database = catalog_text(0, "database_name");
	read_launch(current);
	current->state = state_seen(current);
	current->tables = current_read_tables(connector_id, context);
	return true;
}

/* Within a scope; replaces SPI's results. */
static List *
read_batch_tables(int64 connector_id, MemoryContext context)
{
	List  *tables = NIL;
	uint64 rows =
		catalog_execute("SELECT p.* FROM s3export.current_batch b,"
						" " CURRENT_TABLES_FROM_JSON("b.tables") " WHERE b.connector_id = $1",
						param_int8(connector_id));

	for (uint64 i = 0; i < rows; i++)
		tables = current_append_table(tables, i, context);
	return tables;
}

/* Within a scope; replaces SPI's results. */
static List *
read_sendable(int64 connector_id, MemoryContext context)
{
	uint64 rows = catalog_execute("SELECT unnest(sendable) AS relid FROM s3export.current_batch"
								  " WHERE connector_id = $1",
								  param_int8(connector_id));

	return catalog_oids(rows, "relid", context);
}

/* Within a scope. */
static void
read_batch(Current *current, MemoryContext context)
{
	int64         connector_id = current->connector->connector_id;
	CurrentBatch *batch = &current->batch;

	if (catalog_execute("SELECT end_lsn, events_per_file, open_files, block_size, compression,"
						" versions, events, committed_at, sender, header, null_string, force_quote,"
						" last_gap FROM s3export.current_batch"
						" WHERE connector_id = $1",
						param_int8(connector_id)) == 0)
		return;
	*batch = (CurrentBatch){
		.end = (XLogRecPtr) catalog_int64(0, "end_lsn", NULL),
		.events_per_file = (int) catalog_int64(0, "events_per_file", NULL),
		.open_files = (int) catalog_int64(0, "open_files", NULL),
		.block_size = (int) catalog_int64(0, "block_size", NULL),
		.compression = parse_compression(catalog_text(0, "compression")),
		.versions = (int) catalog_int64(0, "versions", NULL),
		.events = (uint64) catalog_int64(0, "events", NULL),
		.committed_at = catalog_int64(0, "committed_at", NULL),
		.sender = (Oid) catalog_int64(0, "sender", NULL),
		.format = read_format(),
		.last_gap = catalog_int64(0, "last_gap", NULL),
	};
	batch->tables = read_batch_tables(connector_id, context);
	batch->sendable = read_sendable(connector_id, context);
}

void
current_read_gaps(Current *current, MemoryContext context)
{
	uint64 rows = catalog_execute("SELECT gap_id, table_name, reason FROM s3export.current_gap"
								  " WHERE connector_id = $1 ORDER BY gap_id",
								  param_int8(current->connector->connector_id));

	current->gaps = NIL;
	for (uint64 i = 0; i < rows; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(context);
		CurrentGap   *gap = palloc0(sizeof(CurrentGap));

		current->gaps = lappend(current->gaps, gap);
		MemoryContextSwitchTo(old);
		gap->gap_id = catalog_int64(i, "gap_id", NULL);
		gap->table = catalog_text(i, "table_name");
		gap->reason = catalog_text(i, "reason");
	}
}

/* Within a scope; replaces SPI's results. */
static void
require_proof(const Connector *connector)
{
	RowProof proof;

	connector_require_proof(connector, false);
	connector_require_share(connector);
	connector_require_place(connector);
	(void) catalog_execute("SELECT u AS row FROM s3export.current u WHERE connector_id = $1",
						   param_int8(connector->connector_id));
	row_proof_read(&proof, "current", 0, "row");
	row_require_proof(&proof, false);
}

Current *
current_load(int64 connector_id)
{
	Current           *current = palloc0(sizeof(Current));
	CatalogTransaction transaction;
	bool               found;

	current->connector = connector_find(connector_id);
	if (current->connector == NULL)
		return NULL;
	catalog_begin_transaction(&transaction);
	found = current_read(current, transaction.context);
	if (found)
	{
		require_proof(current->connector);
		current_read_gaps(current, transaction.context);
		read_batch(current, transaction.context);
	}
	catalog_commit_transaction(&transaction);
	return found ? current : NULL;
}

Current *
current_get(Connector *connector, bool missing_ok)
{
	Current      *current = palloc0(sizeof(Current));
	MemoryContext context = CurrentMemoryContext;
	CatalogScope  scope;
	bool          found;

	current->connector = connector;
	catalog_enter(&scope);
	found = current_read(current, context);
	catalog_leave(&scope);
	if (found)
		return current;
	if (!missing_ok)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("connector \"%s\" does not exist", connector->name)));
	return NULL;
}
