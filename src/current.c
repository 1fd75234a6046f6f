/*-------------------------------------------------------------------------
 *
 * current.c
 *	  The rows of currents: what they are called, and how they are read.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"

#include "current_internal.h"

static const char *const state_names[] = {"created", "running", "paused", "suspended", "lost"};

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

static CompressMethod
parse_compression(const char *name)
{
	CompressOptions options;

	compress_options(&options, name, NULL, NULL);
	return options.method;
}

bool
current_read(Current *current, MemoryContext context)
{
	int64 connector_id = current->connector->connector_id;
	bool  never;

	if (catalog_execute_latest(
			"SELECT operations, compression, max_events_per_file, state, slot_name, delivered_lsn,"
			" (extract(epoch FROM drop_after) * 1000)::bigint AS drop_after, suspended_at,"
			" next_try_at, failures, warned, events_sent, events_dropped,"
			" current_database() AS database_name,"
			" (system_identifier, data_directory, database, timeline) = ($2, $3, $4, $5) AS here"
			" FROM s3export.current WHERE connector_id = $1",
			"iiton", connector_id, CATALOG_THIS_SERVER) == 0)
		return false;
	current->operations = (int) catalog_int64(0, "operations", NULL);
	current->compression = parse_compression(catalog_text(0, "compression"));
	current->events_per_file = (int) catalog_int64(0, "max_events_per_file", NULL);
	current->drop_after = catalog_int64(0, "drop_after", &never);
	if (never)
		current->drop_after = -1;
	current->slot = catalog_text(0, "slot_name");
	current->database = catalog_text(0, "database_name");
	current->here = catalog_int64(0, "here", NULL) != 0;
	current->state = current_parse_state(catalog_text(0, "state"));
	if (!current->here && current->state != CURRENT_CREATED)
		current->state = CURRENT_PAUSED;
	current->delivered = (XLogRecPtr) catalog_int64(0, "delivered_lsn", NULL);
	current->suspended_at = catalog_int64(0, "suspended_at", NULL);
	current->next_try_at = catalog_int64(0, "next_try_at", NULL);
	current->failures = (int) catalog_int64(0, "failures", NULL);
	current->warned = (int) catalog_int64(0, "warned", NULL);
	current->events_sent = (uint64) catalog_int64(0, "events_sent", NULL);
	current->events_dropped = (uint64) catalog_int64(0, "events_dropped", NULL);
	current->tables = current_read_tables(connector_id, current->here, current->delivered, context);
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
						"i", connector_id);

	for (uint64 i = 0; i < rows; i++)
		tables = current_append_table(tables, i, context);
	return tables;
}

/* Within a scope. */
static void
read_batch(Current *current, MemoryContext context)
{
	int64         connector_id = current->connector->connector_id;
	CurrentBatch *batch = &current->batch;

	if (catalog_execute("SELECT end_lsn, operations, events_per_file, open_files, block_size,"
						" compression, events, committed_at FROM s3export.current_batch"
						" WHERE connector_id = $1",
						"i", connector_id) == 0)
		return;
	*batch = (CurrentBatch){
		.end = (XLogRecPtr) catalog_int64(0, "end_lsn", NULL),
		.operations = (int) catalog_int64(0, "operations", NULL),
		.events_per_file = (int) catalog_int64(0, "events_per_file", NULL),
		.open_files = (int) catalog_int64(0, "open_files", NULL),
		.block_size = (int) catalog_int64(0, "block_size", NULL),
		.compression = parse_compression(catalog_text(0, "compression")),
		.events = (uint64) catalog_int64(0, "events", NULL),
		.committed_at = catalog_int64(0, "committed_at", NULL),
	};
	batch->tables = read_batch_tables(connector_id, context);
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
		read_batch(current, transaction.context);
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
