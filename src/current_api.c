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
#include "funcapi.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"
#include "utils/resowner.h"

#include "compat.h"
#include "connector_args.h"
#include "current.h"
#include "current_worker.h"

SQL_FUNCTION(s3export_launch);
SQL_FUNCTION(s3export_pause);
SQL_FUNCTION(s3export_resume);
SQL_FUNCTION(s3export_deliver);
SQL_FUNCTION(s3export_current_is_here);

static void
require_currents(const Connector *connector)
{
	if (strcmp(connector->kind, "currents") != 0)
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("connector \"%s\" is not of kind \"currents\"", connector->name)));
}

/* ----------------------------------------------------------------- launch */

/* A slot keeps as much log as it takes. */
static void
require_replication(const Connector *connector)
{
	if (!has_rolreplication(connector->owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to launch connector \"%s\"", connector->name),
				 errdetail("A replication slot can fill the server's disk: the connector's owner "
						   "must be a superuser or have the REPLICATION attribute."),
				 errhint("A superuser can give it: ALTER ROLE %s REPLICATION.",
						 quote_identifier(GetUserNameFromId(connector->owner, false)))));
}

static void
require_logical(void)
{
	if (wal_level < WAL_LEVEL_LOGICAL)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("currents require wal_level = logical"),
						errhint("Set \"wal_level\" to \"logical\", and restart the server.")));
	/* The new slot waits for every transaction that has changed something. */
	if (TransactionIdIsValid(GetTopTransactionIdIfAny()))
		ereport(ERROR, (errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
						errmsg("launch() cannot run in a transaction that has made changes"),
						errhint("Commit first.")));
}

Datum
s3export_launch(PG_FUNCTION_ARGS)
{
	Connector      *connector;
	const Current  *current;
	DeliveryOutcome outcome = {0};
	bool            copy_existing;

	PreventCommandDuringRecovery("s3export.launch()");
	connector = connector_load(args_required_text(fcinfo, 0, "connector"), CONNECTOR_OWNER);
	copy_existing = args_required_bool(fcinfo, 1, "copy_existing");
	require_currents(connector);
	require_replication(connector);
	require_logical();
	current = current_get(connector, false);
	if (current->tables == NIL)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("connector \"%s\" has no tables", connector->name),
						errhint("Name some with s3export.alter_connector(tables => ...).")));
	current_prepare_launch(current);
	current_worker_launch(connector->connector_id, copy_existing, &outcome);
	PG_RETURN_LSN(outcome.position);
}

/* ------------------------------------------------------- pause and resume */

static Connector *
lock_argument(FunctionCallInfo fcinfo, const char *function)
{
	Connector *connector;

	PreventCommandDuringRecovery(function);
	connector = connector_lock(args_required_text(fcinfo, 0, "connector"), false);
	require_currents(connector);
	return connector;
}

Datum
s3export_pause(PG_FUNCTION_ARGS)
{
	const Connector *connector = lock_argument(fcinfo, "s3export.pause()");

	current_pause(connector);
	ereport(NOTICE,
			(errmsg("the server keeps its write-ahead log for connector \"%s\" while it is paused",
					connector->name),
			 errdetail("Nothing is dropped, however long that is.")));
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
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Datum          values[7];
	bool           nulls[7] = {false};

	values[0] = CStringGetTextDatum(name);
	nulls[1] = outcome->state == NULL;
	values[1] = nulls[1] ? (Datum) 0 : CStringGetTextDatum(outcome->state);
	values[2] = Int64GetDatum((int64) outcome->events);
	values[3] = Int64GetDatum(outcome->files);
	values[4] = Int64GetDatum((int64) outcome->bytes);
	values[5] = Int64GetDatum((int64) outcome->events_dropped);
	nulls[6] = error == NULL;
	values[6] = nulls[6] ? (Datum) 0 : CStringGetTextDatum(error);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

static void
require_launched(const Current *current)
{
	if (current->state == CURRENT_CREATED)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("connector \"%s\" has not been launched", current->connector->name),
						errhint("Launch it with s3export.launch().")));
	if (current->state == CURRENT_LOST)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("connector \"%s\" has lost its place in the write-ahead log",
						current->connector->name),
				 errhint("Launch it again with s3export.launch(), with copy_existing => true where "
						 "what was missed matters.")));
}

/* Whoever asks for one connector is told why nothing is sent. */
static void
tell_why_not(const Current *current)
{
	const char *name = current->connector->name;

	if (current->state == CURRENT_PAUSED)
		ereport(NOTICE, (errmsg("connector \"%s\" is paused", name),
						 errhint("Continue it with s3export.resume().")));
	else if (current->state == CURRENT_SUSPENDED && !current_may_try(current))
		ereport(NOTICE, (errmsg("connector \"%s\" is suspended", name),
						 errdetail("It will be tried again from %s on.",
								   timestamptz_to_str(current->next_try_at)),
						 errhint("s3export.resume() has it tried at once.")));
}

static void
deliver(Connector *connector, bool alone, DeliveryOutcome *outcome)
{
	const Current *current;

	require_currents(connector);
	current = current_get(connector, false);
	require_launched(current);
	if (alone)
		tell_why_not(current);
	if (current->state == CURRENT_PAUSED)
		outcome->state = pstrdup(current_state_name(CURRENT_PAUSED));
	else
		current_worker_deliver(connector->connector_id, outcome);
}

/* What a person, or the end of the server, has interrupted. */
static bool
is_interruption(int sqlerrcode)
{
	return sqlerrcode == ERRCODE_QUERY_CANCELED || sqlerrcode == ERRCODE_ADMIN_SHUTDOWN ||
		   sqlerrcode == ERRCODE_CRASH_SHUTDOWN;
}

/* Of one that is being delivered already nobody needs to be warned. */
static void
warn(const char *name, const ErrorData *error)
{
	if (error->sqlerrcode == ERRCODE_OBJECT_IN_USE)
		return;
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
		deliver(connector, false, outcome);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		if (is_interruption(error->sqlerrcode))
			PG_RE_THROW();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
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

static void
deliver_due(FunctionCallInfo fcinfo)
{
	ListCell *cell;

	foreach (cell, current_list_due())
	{
		const char      *name = lfirst(cell);
		DeliveryOutcome  outcome = {0};
		const ErrorData *error;

		CHECK_FOR_INTERRUPTS();
		error = try_deliver(name, &outcome);
		if (error != NULL)
			warn(name, error);
		return_outcome(fcinfo, name, &outcome, error ? error->message : NULL);
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

Datum
s3export_deliver(PG_FUNCTION_ARGS)
{
	char           *name = args_text(fcinfo, 0);
	DeliveryOutcome outcome = {0};

	PreventCommandDuringRecovery("s3export.deliver()");
	require_unlocked();
	InitMaterializedSRF(fcinfo, 0);
	if (name == NULL)
		deliver_due(fcinfo);
	else
	{
		deliver(connector_load(name, CONNECTOR_OWNER), true, &outcome);
		return_outcome(fcinfo, name, &outcome, NULL);
	}
	return (Datum) 0;
}

/* -------------------------------------------------------------- the views */

/* As CATALOG_THIS_SERVER says it; NULL on a standby. */
Datum
s3export_current_is_here(PG_FUNCTION_ARGS)
{
	if (RecoveryInProgress())
		PG_RETURN_NULL();
	PG_RETURN_BOOL((uint64) PG_GETARG_INT64(0) == GetSystemIdentifier() &&
				   strcmp(text_to_cstring(PG_GETARG_TEXT_PP(1)), DataDir) == 0 &&
				   PG_GETARG_OID(2) == MyDatabaseId &&
				   PG_GETARG_INT32(3) == (int32) GetWALInsertionTimeLine());
}
