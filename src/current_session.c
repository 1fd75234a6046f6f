/*-------------------------------------------------------------------------
 *
 * current_session.c
 *	  What users do to currents, in their own transactions.
 *
 * A slot is no part of a transaction, so the slot of a connector that is dropped
 * goes when the transaction is about to commit.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "replication/slot.h"
#include "utils/memutils.h"

#include "current_internal.h"
#include "pending.h"

/* What is so when a connector says nothing about it. */
#define DEFAULT_OPERATIONS CURRENT_INSERT
#define DEFAULT_EVENTS_PER_FILE 15000
#define DEFAULT_DROP_AFTER (INT64CONST(48) * 60 * 60 * 1000)

/* The last transaction that changed a row which workers write, too. */
static TransactionId changed_by = InvalidTransactionId;

static void
note_change(void)
{
	changed_by = GetTopTransactionId();
}

bool
current_is_locked_here(void)
{
	return TransactionIdIsValid(changed_by) && changed_by == GetTopTransactionIdIfAny();
}

/* --------------------------------------------------------------- settings */

#define INTERVAL_OF_MS(ms) "CASE WHEN " ms " >= 0 THEN make_interval(secs => " ms " / 1000.0) END"

void
current_insert(const Connector *connector, const CurrentSettings *settings)
{
	CatalogScope scope;

	note_change();
	catalog_enter(&scope);
	(void) catalog_execute(
		"INSERT INTO s3export.current (system_identifier, data_directory, database, timeline,"
		" connector_id, operations, compression, max_events_per_file, drop_after)"
		" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, " INTERVAL_OF_MS("$9") ")",
		"itonintni", CATALOG_THIS_SERVER, connector->connector_id,
		settings->operations != 0 ? settings->operations : DEFAULT_OPERATIONS,
		settings->compression ? settings->compression : compress_name(COMPRESS_NONE),
		settings->events_per_file != 0 ? settings->events_per_file : DEFAULT_EVENTS_PER_FILE,
		settings->set_drop_after ? settings->drop_after : DEFAULT_DROP_AFTER);
	(void) current_replace_tables(connector, settings->tables, true, false);
	catalog_leave(&scope);
}

/*
 * Within a scope: can what was launched go on?  *confirmed is as far as the slot
 * has been told; 0 when there is none.
 */
static bool
slot_is_usable(int64 connector_id, XLogRecPtr *confirmed)
{
	*confirmed = InvalidXLogRecPtr;
	if (catalog_execute("SELECT wal_status = 'lost' AS lost, confirmed_flush_lsn"
						" FROM pg_replication_slots WHERE slot_name = $1"
						" AND database = current_database() AND plugin = 's3export'",
						"t", current_slot_name(connector_id)) == 0)
		return false;
	*confirmed = (XLogRecPtr) catalog_int64(0, "confirmed_flush_lsn", NULL);
	return catalog_int64(0, "lost", NULL) == 0;
}

/*
 * Within a scope: reads the row after whoever is changing it has ended.  It may have
 * lost its slot without having noticed yet.
 */
static Current *
lock_row(const Connector *connector, MemoryContext context)
{
	Current   *current = MemoryContextAllocZero(context, sizeof(Current));
	XLogRecPtr confirmed;

	note_change();
	(void) catalog_execute("SELECT FROM s3export.current WHERE connector_id = $1 FOR UPDATE", "i",
						   connector->connector_id);
	current->connector = unconstify(Connector *, connector);
	if (!current_read(current, context))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("connector \"%s\" does not exist", connector->name)));
	if ((current->state == CURRENT_RUNNING || current->state == CURRENT_SUSPENDED) &&
		!slot_is_usable(connector->connector_id, &confirmed))
		current->state = CURRENT_LOST;
	return current;
}

void
current_update(const Connector *connector, const CurrentSettings *settings)
{
	MemoryContext  context = CurrentMemoryContext;
	const Current *current;
	CatalogScope   scope;

	catalog_enter(&scope);
	current = lock_row(connector, context);
	(void) catalog_execute(
		"UPDATE s3export.current SET operations = coalesce(nullif($2, 0), operations),"
		" compression = coalesce($3, compression),"
		" max_events_per_file = coalesce(nullif($4, 0), max_events_per_file),"
		" drop_after = CASE WHEN $5 THEN " INTERVAL_OF_MS("$6") " ELSE drop_after END"
																" WHERE connector_id = $1",
		"intnbi", connector->connector_id, settings->operations, settings->compression,
		settings->events_per_file, settings->set_drop_after, settings->drop_after);
	if (settings->set_tables &&
		current_replace_tables(connector, settings->tables, current->here,
							   current->delivered != InvalidXLogRecPtr) &&
		current->state != CURRENT_CREATED)
		current_record(connector, "tables_changed", current->state, NULL);
	catalog_leave(&scope);
}

/* ------------------------------------------------------------------ slots */

static List *doomed = NIL; /* the connectors that the running transaction has dropped */

static bool
slot_is_ours(const char *name)
{
	ReplicationSlot *slot = SearchNamedReplicationSlot(name, true);

	return slot != NULL && slot->data.database == MyDatabaseId &&
		   strcmp(NameStr(slot->data.plugin), "s3export") == 0;
}

/* Raises ERRCODE_OBJECT_IN_USE while somebody uses it. */
static void
drop_slot(int64 connector_id)
{
	char *name = current_slot_name(connector_id);

	if (slot_is_ours(name))
		ReplicationSlotDrop(name, true);
}

static void
transaction_ends(XactEvent event, void *arg pg_attribute_unused())
{
	ListCell *cell;

	if (doomed == NIL)
		return;
	switch (event)
	{
		case XACT_EVENT_PRE_PREPARE:
			ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
							errmsg("cannot PREPARE a transaction that has dropped a connector of "
								   "kind \"currents\"")));
			break;
		case XACT_EVENT_PRE_COMMIT:
			foreach (cell, doomed)
				drop_slot(((Pending *) lfirst(cell))->id);
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
			doomed = NIL;
			break;
		default:
			break;
	}
}

static void
subtransaction_ends(SubXactEvent event, SubTransactionId mine, SubTransactionId parent,
					void *arg pg_attribute_unused())
{
	doomed = pending_end_subtransaction(doomed, event, mine, parent);
}

static void
drop_slot_at_commit(int64 connector_id)
{
	static bool registered = false;

	if (!registered)
	{
		RegisterXactCallback(transaction_ends, NULL);
		RegisterSubXactCallback(subtransaction_ends, NULL);
		registered = true;
	}
	doomed = pending_add(doomed, connector_id);
}

void
current_delete(const Connector *connector)
{
	int64        id = connector->connector_id;
	CatalogScope scope;

	note_change();
	catalog_enter(&scope);
	(void) catalog_execute("DELETE FROM s3export.current_event WHERE connector_id = $1", "i", id);
	(void) catalog_execute("DELETE FROM s3export.current_batch WHERE connector_id = $1", "i", id);
	(void) catalog_execute("DELETE FROM s3export.current_table WHERE connector_id = $1", "i", id);
	(void) catalog_execute("DELETE FROM s3export.current WHERE connector_id = $1", "i", id);
	catalog_leave(&scope);
	drop_slot_at_commit(id);
}

void
current_prepare_launch(const Current *current)
{
	const Connector *connector = current->connector;
	XLogRecPtr       confirmed;
	CatalogScope     scope;
	bool             usable;

	catalog_enter(&scope);
	usable = slot_is_usable(connector->connector_id, &confirmed);
	catalog_leave(&scope);
	if (usable && current->state != CURRENT_CREATED && current->state != CURRENT_LOST)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("connector \"%s\" is already launched", connector->name),
				 current->state == CURRENT_PAUSED ? errhint("Continue it with s3export.resume().")
												  : 0));
	drop_slot(connector->connector_id);
}

/* ----------------------------------------------------------------- states */

static void
refuse_state(const Current *current, const char *what)
{
	static const char *const hints[] = {
		[CURRENT_CREATED] = "Launch it with s3export.launch().",
		[CURRENT_LOST] = "Launch it again with s3export.launch(), with copy_existing => true where "
						 "what was missed matters.",
	};
	const char *hint = current->state < lengthof(hints) ? hints[current->state] : NULL;

	ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					errmsg("cannot %s connector \"%s\"", what, current->connector->name),
					current->state == CURRENT_CREATED
						? errdetail("It has not been launched.")
						: errdetail("It is %s.", current_state_name(current->state)),
					hint ? errhint("%s", hint) : 0));
}

void
current_pause(const Connector *connector)
{
	MemoryContext  context = CurrentMemoryContext;
	const Current *current;
	CatalogScope   scope;

	catalog_enter(&scope);
	current = lock_row(connector, context);
	if (current->state != CURRENT_RUNNING && current->state != CURRENT_SUSPENDED)
		refuse_state(current, "pause");
	(void) catalog_execute("UPDATE s3export.current SET state = 'paused'," CURRENT_FORGET_FAILURES
						   "WHERE connector_id = $1",
						   "i", connector->connector_id);
	current_record(connector, "paused", CURRENT_PAUSED, NULL);
	catalog_leave(&scope);
}

/* Within a scope.  The slot may have been moved on where the rows come from. */
static void
continue_paused(const Connector *connector)
{
	XLogRecPtr confirmed;

	if (!slot_is_usable(connector->connector_id, &confirmed))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot resume connector \"%s\"", connector->name),
				 confirmed == InvalidXLogRecPtr
					 ? errdetail("Its replication slot does not exist on this server.")
					 : errdetail("The server has removed log that was not delivered."),
				 errhint("Launch it again with s3export.launch(), with copy_existing => true where "
						 "what was missed matters.")));
	(void) catalog_execute("UPDATE s3export.current SET state = 'running', system_identifier = $1,"
						   " data_directory = $2, database = $3, timeline = $4, slot_name = $6,"
						   " delivered_lsn = greatest(delivered_lsn, $7)," CURRENT_FORGET_FAILURES
						   "WHERE connector_id = $5",
						   "itonitl", CATALOG_THIS_SERVER, connector->connector_id,
						   current_slot_name(connector->connector_id), confirmed);
	current_record(connector, "resumed", CURRENT_RUNNING, NULL);
}

void
current_resume(const Connector *connector)
{
	MemoryContext  context = CurrentMemoryContext;
	const Current *current;
	CatalogScope   scope;

	catalog_enter(&scope);
	current = lock_row(connector, context);
	if (current->state == CURRENT_PAUSED)
		continue_paused(connector);
	else if (current->state == CURRENT_SUSPENDED)
		(void) catalog_execute("UPDATE s3export.current SET next_try_at = NULL"
							   " WHERE connector_id = $1",
							   "i", connector->connector_id);
	else
		refuse_state(current, "resume");
	catalog_leave(&scope);
}

/*
 * Only the connector that was tested is known to be right: others that share its
 * credentials may be of another bucket, or have other rights.
 */
void
current_wake(const Connector *connector, bool validated)
{
	CatalogScope scope;

	catalog_enter(&scope);
	if (validated &&
		catalog_execute("UPDATE s3export.current SET state = 'running'," CURRENT_FORGET_FAILURES
						"WHERE connector_id = $1 AND state = 'suspended'",
						"i", connector->connector_id) > 0)
	{
		note_change();
		current_record(connector, "recovered", CURRENT_RUNNING, NULL);
	}
	if (catalog_execute("UPDATE s3export.current u SET next_try_at = NULL"
						" FROM s3export.connector c WHERE c.connector_id = u.connector_id"
						" AND c.credential_id = $1 AND u.state = 'suspended'",
						"i", connector->credential_id) > 0)
		note_change();
	catalog_leave(&scope);
}

void
current_wake_roles(void)
{
	CatalogScope scope;

	catalog_enter(&scope);
	if (catalog_execute(
			"UPDATE s3export.current u SET next_try_at = NULL"
			" FROM s3export.connector c JOIN s3export.credential k USING (credential_id)"
			" WHERE c.connector_id = u.connector_id AND k.role_arn IS NOT NULL"
			" AND u.state = 'suspended'",
			"") > 0)
		note_change();
	catalog_leave(&scope);
}

/* ---------------------------------------------------------------- the due */

List *
current_list_due(void)
{
	MemoryContext context = CurrentMemoryContext;
	List         *names = NIL;
	CatalogScope  scope;
	uint64        rows;

	catalog_enter(&scope);
	rows = catalog_execute_latest(
		"SELECT c.name FROM s3export.connector c JOIN s3export.current u USING (connector_id)"
		" WHERE (system_identifier, data_directory, database, timeline) = ($1, $2, $3, $4)"
		" AND pg_has_role($5, c.owner, 'USAGE') AND (u.state = 'running' OR u.state = 'suspended'"
		" AND (next_try_at IS NULL OR next_try_at <= $6 OR suspended_at + drop_after <= $6"
		" OR warned < 50 AND suspended_at + 0.5 * drop_after <= $6"
		" OR warned < 90 AND suspended_at + 0.9 * drop_after <= $6))"
		" ORDER BY c.name",
		"itonoz", CATALOG_THIS_SERVER, scope.userid, GetCurrentTimestamp());
	for (uint64 i = 0; i < rows; i++)
	{
		char         *name = catalog_text(i, "name");
		MemoryContext old = MemoryContextSwitchTo(context);

		names = lappend(names, name);
		MemoryContextSwitchTo(old);
	}
	catalog_leave(&scope);
	return names;
}
