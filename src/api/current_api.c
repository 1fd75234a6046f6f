/*-------------------------------------------------------------------------
 *
 * current_api.c
 *	  SQL functions about currents.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "commands/event_trigger.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "replication/slot.h"
#include "storage/lwlock.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"
#include "utils/resowner.h"

#include "api/result_row.h"
#include "base/args.h"
#include "base/compat.h"
#include "base/object_path.h"
#include "currents/current.h"
#include "currents/current_worker.h"
#include "tables/catalog.h"
#include "tables/connector_args.h"
#include "uploader/uploader.h"

SQL_FUNCTION(s3export_launch);
SQL_FUNCTION(s3export_pause);
SQL_FUNCTION(s3export_resume);
SQL_FUNCTION(s3export_stop);
SQL_FUNCTION(s3export_add_table);
SQL_FUNCTION(s3export_deliver);
SQL_FUNCTION(s3export_refuse_drop_extension);

static void
require_currents(const Connector *connector)
{
	if (connector->kind != CONNECTOR_CURRENTS)
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("connector \"%s\" is not of kind \"currents\"", connector->name)));
}

/* ----------------------------------------------------------------- launch */

/*
 * The new slot waits for every transaction that has changed something, also for one that waits
 * for a lock of this transaction: nothing would find out that they wait for each other.
 */
static void
require_no_transaction(const char *function)
{
	if (wal_level < WAL_LEVEL_LOGICAL)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("currents require wal_level = logical"),
						errhint("Set \"wal_level\" to \"logical\", and restart the server.")));
	if (IsInTransactionBlock(true) || TransactionIdIsValid(GetTopTransactionIdIfAny()))
		ereport(ERROR, (errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
						errmsg("%s cannot run inside a transaction block", function),
						errhint("Run it as a statement of its own.")));
}

/* What a current that is not delivered holds back is limited by this alone. */
static void
warn_of_unlimited_slots(const Connector *connector)
{
	if (max_slot_wal_keep_size_mb < 0)
		ereport(
			WARNING,
			(errmsg("the server keeps WAL for connector \"%s\" without a limit", connector->name),
			 errdetail("Whatever keeps its changes from being delivered can fill the disk."),
			 errhint("Set \"max_slot_wal_keep_size\" to what the disk can spare.")));
}

/* Is the object one of those that a launch has left that failed as they appeared? */
static bool
is_left_of_launch(const Current *current, const char *uri)
{
	return current->state == CURRENT_STOPPED &&
		   strstr(uri, psprintf("/%s/", current->feed)) != NULL;
}

/* Readers of the folder would take the files of two writers for those of one. */
static void
warn_of_other_files(const Current *current)
{
	const Connector *connector = current->connector;
	const char      *uri;

	if (current->has_sent && !current->elsewhere)
		return;
	uri = uploader_find_object(connector);
	if (uri != NULL && !is_left_of_launch(current, uri))
		ereport(
			WARNING,
			(errmsg("the folder of connector \"%s\" has objects that are not its own",
					connector->name),
			 errdetail("One of them is \"%s\".", uri),
			 errhint("Where another server or another connector still writes to the folder, stop "
					 "this connector with s3export.stop(), and give it a folder of its own "
					 "with s3export.alter_connector(folder_path => ...).")));
}

Datum
s3export_launch(PG_FUNCTION_ARGS)
{
	Connector      *connector;
	const Current  *current;
	DeliveryOutcome outcome = {0};
	bool            copy_existing;

	PreventCommandIfParallelMode("s3export.launch()");
	PreventCommandDuringRecovery("s3export.launch()");
	connector = connector_load(args_required_text(fcinfo, 0, "connector"), CONNECTOR_OWNER);
	copy_existing = args_required_bool(fcinfo, 1, "copy_existing");
	require_currents(connector);
	require_no_transaction("launch()");
	current = current_get(connector, false);
	current_require_sendable(current);
	current_require_not_launched(current);
	connector_require_credentials(connector);
	connector_require_place(connector);
	warn_of_unlimited_slots(connector);
	warn_of_other_files(current);
	current_worker_launch(connector->connector_id, copy_existing, &outcome);
	PG_RETURN_LSN(outcome.position);
}

/* -------------------------------------------------------------- add_table */

Datum
s3export_add_table(PG_FUNCTION_ARGS)
{
	Connector      *connector;
	const Current  *current;
	DeliveryOutcome outcome = {0};

	PreventCommandIfParallelMode("s3export.add_table()");
	PreventCommandDuringRecovery("s3export.add_table()");
	connector = connector_load(args_required_text(fcinfo, 0, "connector"), CONNECTOR_OWNER);
	args_require_not_null(fcinfo, 1, "relation");
	require_currents(connector);
	current = current_get(connector, false);
	if (!args_required_bool(fcinfo, 2, "copy_existing"))
		current_add_table(current, PG_GETARG_OID(1));
	else
	{
		require_no_transaction("add_table() with copy_existing");
		if (current->state != CURRENT_RUNNING)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("cannot copy a table for connector \"%s\"", connector->name),
					 current->state == CURRENT_CREATED
						 ? errdetail("It has not been launched.")
						 : errdetail("It is %s.", current_state_name(current->state)),
					 errhint("A table is added without its rows with copy_existing => false.  "
							 "launch() with copy_existing copies all tables.")));
		current_worker_add_table(connector->connector_id, PG_GETARG_OID(1), &outcome);
	}
	PG_RETURN_INT64((int64) outcome.events);
}

/* -------------------------------------------------- pause, resume and stop */

static Connector *
lock_argument(FunctionCallInfo fcinfo, const char *function)
{
	Connector *connector;

	PreventCommandIfParallelMode(function);
	PreventCommandDuringRecovery(function);
	connector = connector_lock(args_required_text(fcinfo, 0, "connector"), false);
	require_currents(connector);
	return connector;
}

Datum
s3export_pause(PG_FUNCTION_ARGS)
{
	Connector *connector = lock_argument(fcinfo, "s3export.pause()");

	current_pause(connector);
	ereport(
		NOTICE,
		(errmsg("the server keeps WAL for connector \"%s\" while it is paused", connector->name),
		 errdetail("It keeps old rows of the system catalogs, too.  Nothing is dropped, however "
				   "long the pause is, unless \"max_slot_wal_keep_size\" limits it."),
		 errhint("A connector that is stopped with s3export.stop() keeps nothing.")));
	PG_RETURN_VOID();
}

Datum
s3export_stop(PG_FUNCTION_ARGS)
{
	current_stop(lock_argument(fcinfo, "s3export.stop()"));
	PG_RETURN_VOID();
}

Datum
s3export_resume(PG_FUNCTION_ARGS)
{
	current_resume(lock_argument(fcinfo, "s3export.resume()"));
	PG_RETURN_VOID();
}

/* ---------------------------------------------------------------- deliver */

static void
return_outcome(FunctionCallInfo fcinfo, const char *name, const DeliveryOutcome *outcome,
			   const char *error)
{
	ResultRow row = {0};

	result_row_add_text(&row, name);
	result_row_add_text(&row, outcome->state);
	result_row_add_int8(&row, (int64) outcome->events);
	result_row_add_int8(&row, outcome->files);
	result_row_add_int8(&row, (int64) outcome->bytes);
	result_row_add_int8(&row, (int64) outcome->events_dropped);
	result_row_add_text(&row, outcome->batch);
	result_row_add_text(&row, error);
	result_row_put(fcinfo, &row);
}

/*
 * What a person has decided is no error, but nothing is delivered: whoever looks at
 * a session's messages alone is told.
 */
static void
warn_of_state(const char *name, const char *state)
{
	bool paused = strcmp(state, current_state_name(CURRENT_PAUSED)) == 0;

	if (!paused && strcmp(state, current_state_name(CURRENT_STOPPED)) != 0 &&
		strcmp(state, current_state_name(CURRENT_CREATED)) != 0)
		return;
	ereport(WARNING, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					  errmsg("nothing is delivered to connector \"%s\": it is %s", name,
							 paused || strcmp(state, current_state_name(CURRENT_STOPPED)) == 0
								 ? state
								 : "not launched"),
					  paused ? errhint("Continue it with s3export.resume().")
							 : errhint("Launch it with s3export.launch().")));
}

/* Its clock has been looked at all the same. */
COMPAT_NORETURN static void
refuse_suspended(const Current *current)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("connector \"%s\" is suspended", current->connector->name),
			 current_may_try(current)
				 ? errdetail("Its credentials were refused, and there is nothing to try them with.")
				 : errdetail("Its credentials were refused.  It will be tried again from %s on.",
							 timestamptz_to_str(current->next_try_at)),
			 errhint("Give it working credentials with s3export.set_credentials().  "
					 "s3export.resume() has those that it has tried at once.")));
}

static void
deliver_current(Connector *connector, bool alone, DeliveryOutcome *outcome)
{
	const Current *current;

	require_currents(connector);
	current = current_get(connector, false);
	if (alone && (current->state == CURRENT_CREATED || current->state == CURRENT_STOPPED))
		current_refuse_delivery(current);
	current_worker_deliver(connector->connector_id, outcome);
	/* A person may have paused it while it was delivered. */
	if (outcome->events == 0)
		warn_of_state(connector->name, outcome->state);
	if (strcmp(outcome->state, current_state_name(CURRENT_SUSPENDED)) == 0)
		refuse_suspended(current_get(connector, false));
}

/* What a person, or the end of the server, has interrupted. */
static bool
is_interruption(int sqlerrcode)
{
	return sqlerrcode == ERRCODE_QUERY_CANCELED || sqlerrcode == ERRCODE_ADMIN_SHUTDOWN ||
		   sqlerrcode == ERRCODE_CRASH_SHUTDOWN;
}

static void
warn_of_failure(const char *name, const ErrorData *error)
{
	ereport(WARNING,
			(errcode(error->sqlerrcode),
			 errmsg("could not deliver the changes of connector \"%s\": %s", name, error->message),
			 error->detail ? errdetail_internal("%s", error->detail) : 0,
			 error->hint ? errhint("%s", error->hint) : 0));
}

/* Returns the error, with what it has left behind in *outcome; NULL: there was none. */
static ErrorData *
try_deliver(const char *name, DeliveryOutcome *outcome)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	Connector *volatile connector = NULL;
	ErrorData *volatile error = NULL;
	const Current *current;
	uint64 volatile dropped = 0;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		connector = connector_load(name, CONNECTOR_OWNER);
		dropped = current_get(connector, false)->events_dropped;
		deliver_current(connector, false, outcome);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	if (error != NULL && is_interruption(error->sqlerrcode))
		ReThrowError(error);
	if (error == NULL || connector == NULL)
		return error;
	current = current_get(connector, true);
	if (current != NULL)
	{
		outcome->state = pstrdup(current_state_name(current->state));
		outcome->events_dropped = current->events_dropped - dropped;
	}
	return error;
}

/* What deliver() has not delivered, for the error at its end. */
typedef struct Undelivered
{
	int            connectors; /* that were met */
	int            failed;
	int            sqlerrcode; /* of the first */
	StringInfoData detail;
} Undelivered;

static void
add_undelivered(Undelivered *undelivered, const char *name, int sqlerrcode, const char *message)
{
	if (undelivered->failed++ == 0)
		undelivered->sqlerrcode = sqlerrcode;
	appendStringInfo(&undelivered->detail, "%sconnector \"%s\": %s",
					 undelivered->detail.len > 0 ? "\n" : "", name, message);
}

/* It failed before, and is left alone for a while. */
static void
report_not_tried(FunctionCallInfo fcinfo, const CurrentDue *current, Undelivered *undelivered)
{
	DeliveryOutcome outcome = {.state = current->state};
	const char     *message = psprintf("it is not tried again yet after: %s",
                                   current->message ? current->message : "an error");

	ereport(WARNING,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("nothing is delivered to connector \"%s\": %s", current->name, message),
			 errhint("s3export.deliver('%s') has it tried at once%s.", current->name,
					 strcmp(current->state, "suspended") == 0 ? " after s3export.resume()" : "")));
	return_outcome(fcinfo, current->name, &outcome, message);
	add_undelivered(undelivered, current->name, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, message);
}

/* Of a connector that is being delivered already nobody needs to be warned. */
static void
deliver_and_report(FunctionCallInfo fcinfo, const char *name, Undelivered *undelivered)
{
	DeliveryOutcome  outcome = {0};
	const ErrorData *error = try_deliver(name, &outcome);

	if (error != NULL && error->sqlerrcode != ERRCODE_OBJECT_IN_USE)
	{
		warn_of_failure(name, error);
		add_undelivered(undelivered, name, error->sqlerrcode, error->message);
	}
	return_outcome(fcinfo, name, &outcome, error ? error->message : NULL);
}

/*
 * A current that failed a moment ago is left alone until it is due, unless its slot is gone: the
 * sooner that is told, the better.
 */
static void
deliver_all(FunctionCallInfo fcinfo, Undelivered *undelivered)
{
	List     *currents = current_list();
	ListCell *cell;

	if (currents == NIL)
		ereport(WARNING,
				(errcode(ERRCODE_NO_DATA), errmsg("there is no connector to deliver"),
				 errdetail("Role \"%s\" has the privileges of the owner of no connector of kind "
						   "\"currents\".",
						   GetUserNameFromId(GetUserId(), false))));
	foreach (cell, currents)
	{
		const CurrentDue *current = lfirst(cell);

		CHECK_FOR_INTERRUPTS();
		undelivered->connectors++;
		if (current->due || current_find_slot(current->connector_id) != CURRENT_SLOT_USABLE)
			deliver_and_report(fcinfo, current->name, undelivered);
		else
			report_not_tried(fcinfo, current, undelivered);
	}
}

/*
 * The worker would wait for this transaction to end, which waits for the worker.
 */
static void
require_unlocked(void)
{
	if (current_is_locked_here())
		ereport(ERROR, (errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
						errmsg("deliver() cannot run in a transaction that has changed a connector "
							   "of kind \"currents\""),
						errhint("Commit first.")));
}

/* What was delivered stays: it was committed by the workers. */
Datum
s3export_deliver(PG_FUNCTION_ARGS)
{
	char           *name = args_text(fcinfo, 0);
	bool            raises = args_required_bool(fcinfo, 1, "raise");
	DeliveryOutcome outcome = {0};
	Undelivered     undelivered = {0};

	PreventCommandIfParallelMode("s3export.deliver()");
	PreventCommandDuringRecovery("s3export.deliver()");
	require_unlocked();
	InitMaterializedSRF(fcinfo, 0);
	initStringInfo(&undelivered.detail);
	if (name == NULL)
		deliver_all(fcinfo, &undelivered);
	else if (!raises)
		deliver_and_report(fcinfo, name, &undelivered);
	else
	{
		deliver_current(connector_load(name, CONNECTOR_OWNER), true, &outcome);
		return_outcome(fcinfo, name, &outcome, NULL);
	}
	if (raises && undelivered.failed > 0)
		ereport(ERROR,
				(errcode(undelivered.sqlerrcode),
				 errmsg_plural("could not deliver the changes of %d of %d connector",
							   "could not deliver the changes of %d of %d connectors",
							   undelivered.connectors, undelivered.failed, undelivered.connectors),
				 errdetail("%s", undelivered.detail.data),
				 errhint("See s3export.currents and s3export.current_events.")));
	return (Datum) 0;
}

/* ---------------------------------------------------------- DROP EXTENSION */

/* How many slots of the extension this database has. */
static int
count_slots(void)
{
	int count = 0;

	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	for (int i = 0; i < max_replication_slots; i++)
	{
		const ReplicationSlot *slot = &ReplicationSlotCtl->replication_slots[i];

		if (slot->in_use && slot->data.database == MyDatabaseId &&
			strcmp(NameStr(slot->data.plugin), "s3export") == 0)
			count++;
	}
	LWLockRelease(ReplicationSlotControlLock);
	return count;
}

static Oid
owner_of_extension(void)
{
	CatalogScope scope;
	Oid          owner;

	catalog_enter(&scope);
	(void) catalog_execute("SELECT extowner FROM pg_extension WHERE extname = 's3export'");
	owner = (Oid) catalog_int64(0, "extowner", NULL);
	catalog_leave(&scope);
	return owner;
}

static bool
drops_by_name(const DropStmt *statement)
{
	ListCell *cell;

	if (statement->removeType != OBJECT_EXTENSION)
		return false;
	foreach (cell, statement->objects)
	{
		if (strcmp(strVal(lfirst(cell)), "s3export") == 0)
			return true;
	}
	return false;
}

static bool
drops_by_owner(const DropOwnedStmt *statement)
{
	Oid       owner = owner_of_extension();
	ListCell *cell;

	foreach (cell, statement->roles)
	{
		if (get_rolespec_oid(lfirst_node(RoleSpec, cell), true) == owner)
			return true;
	}
	return false;
}

static bool
drops_extension(const Node *statement)
{
	if (IsA(statement, DropStmt))
		return drops_by_name((const DropStmt *) statement);
	return IsA(statement, DropOwnedStmt) && drops_by_owner((const DropOwnedStmt *) statement);
}

/* An event trigger: slots are no part of an extension, and would keep WAL for ever. */
Datum
s3export_refuse_drop_extension(PG_FUNCTION_ARGS)
{
	const EventTriggerData *data = (const EventTriggerData *) fcinfo->context;

	if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("function \"%s\" can only be called as an event trigger",
							   "refuse_drop_extension")));
	if (count_slots() > 0 && drops_extension(data->parsetree))
		ereport(
			ERROR,
			(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
			 errmsg("cannot drop extension \"s3export\" while it has replication slots"),
			 errdetail(
				 "%d of its replication slots exist in this database, and would keep WAL for ever.",
				 count_slots()),
			 errhint("Drop the connectors of kind \"currents\" with s3export.drop_connector(), or "
					 "stop them with s3export.stop(); drop slots that none of them has "
					 "with pg_drop_replication_slot().")));
	PG_RETURN_NULL();
}
