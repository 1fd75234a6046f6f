/*-------------------------------------------------------------------------
 *
 * delivery_launch.c
 *	  The launch of a current, and tables that join it, in the worker that does it.
 *
 * The slot's snapshot is where its changes begin from: the rows that it sees and
 * the changes that follow are all there is, each once.  A launch is recorded before any file
 * of its copy can appear, and the slot made to stay in the same step; a launch that fails
 * leaves no slot behind.
 *
 * A table that joins with its rows goes the same way, with a slot of its own that lives as
 * long as the copy.  When that slot is made, the table is in the publication already, and
 * every transaction that ran before has ended: so what commits before the slot's position
 * is in the copy, and what commits later is in the WAL as published.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/timeline.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "replication/origin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#include "currents/decoder.h"
#include "currents/delivery_internal.h"
#include "tables/catalog.h"

/* Takes the rows of one table. */
typedef struct CopyReceiver
{
	DestReceiver pub;
	Batch       *batch;
} CopyReceiver;

static bool
receive_row(TupleTableSlot *slot, DestReceiver *self)
{
	CopyReceiver *receiver = (CopyReceiver *) self;

	batch_put_copy(receiver->batch, slot);
	return true;
}

static void
copy_startup(DestReceiver *self pg_attribute_unused(), int operation pg_attribute_unused(),
			 TupleDesc desc pg_attribute_unused())
{
}

static void
copy_shutdown(DestReceiver *self pg_attribute_unused())
{
}

/* ---- the rows that are there ---- */

/* A partition's rows are asked for by its root; those of tables that inherit are their own. */
static char *
query_on(Relation relation, const char *columns, const char *filter)
{
	const char *only = relation->rd_rel->relkind == RELKIND_PARTITIONED_TABLE ? "" : "ONLY ";

	return psprintf("SELECT %s FROM %s%s%s%s", columns, only,
					quote_qualified_identifier(get_namespace_name(RelationGetNamespace(relation)),
											   RelationGetRelationName(relation)),
					filter != NULL ? " WHERE " : "", filter != NULL ? filter : "");
}

/*
 * Sends the rows that the snapshot of the new slot sees, through the publication's column list
 * and row filter.
 */
static void
copy_table(Batch *batch, const CurrentSourceTable *table)
{
	CopyReceiver      receiver = {.pub = {.receiveSlot = receive_row,
										  .rStartup = copy_startup,
										  .rShutdown = copy_shutdown,
										  .rDestroy = copy_shutdown,
										  .mydest = DestNone},
								  .batch = batch};
	SPIExecuteOptions options = {.read_only = true, .dest = &receiver.pub};
	Relation          relation = relation_open(table->relid, AccessShareLock);
	const char       *columns = batch_begin_copy(batch, relation);
	int               result;

	if (columns == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("table %s has left the publication while its copy began", table->name),
				 errhint("Try again.")));
	result = SPI_execute_extended(query_on(relation, columns, table->filter), &options);
	if (result < 0)
		elog(ERROR, "could not read the table: %s", SPI_result_code_string(result));
	relation_close(relation, NoLock);
}

/* As the owner of the connector, with no way to act as anybody else. */
static void
copy_tables(const Current *current, Batch *batch, List *tables)
{
	Oid       userid;
	int       sec_context;
	int       nest_level;
	ListCell *cell;

	GetUserIdAndSecContext(&userid, &sec_context);
	SetUserIdAndSecContext(current->connector->owner, sec_context | SECURITY_LOCAL_USERID_CHANGE |
														  SECURITY_RESTRICTED_OPERATION);
	nest_level = NewGUCNestLevel();
	/* Rows that are hidden from the owner would be missing. */
	(void) set_config_option("row_security", "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
							 true, 0, false);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	foreach (cell, tables)
	{
		const CurrentSourceTable *table = lfirst(cell);

		if (table->copied)
			copy_table(batch, table);
	}
	SPI_finish();
	AtEOXact_GUC(false, nest_level);
	SetUserIdAndSecContext(userid, sec_context);
}

/*
 * Locks all tables at once, so that none changes while others are copied.  The locks come
 * after the snapshot: while the slot waits for running transactions, they would keep out
 * whatever wants to alter a table, and all that waits behind it.  A table that was
 * rewritten or truncated in between would look empty to the snapshot.
 */
static void
lock_tables(List *tables)
{
	ListCell *cell;

	foreach (cell, tables)
		LockRelationOid(((CurrentSourceTable *) lfirst(cell))->relid, AccessShareLock);
	foreach (cell, tables)
	{
		const CurrentSourceTable *table = lfirst(cell);

		if (!current_is_stored_in(table->relid, table->filenode))
			ereport(ERROR, (errcode(ERRCODE_OBJECT_IN_USE),
							errmsg("table %s was rewritten, truncated or dropped as its copy began",
								   table->name),
							errhint("Try again.")));
	}
}

/*
 * Its events come before all that commit at "start" or later.  No commit record is there: each
 * begins at a multiple of 8.
 */
static DecodeTransaction
copy_as_transaction(XLogRecPtr start)
{
	return (DecodeTransaction){.lsn = start - 1,
							   .base = start - 1,
							   .timeline = GetWALInsertionTimeLine(),
							   .committed_at = GetCurrentTimestamp()};
}

/*
 * In a transaction whose snapshot is the slot's: sends the rows of the tables that the
 * publication has, or of those that "joined" names.  Returns the slot's position.
 */
static XLogRecPtr
create_slot_and_copy(Delivery *delivery, const char *slot, Oid joined)
{
	const Current    *current = delivery->current;
	MemoryContext     context = CurrentMemoryContext;
	ResourceOwner     owner = CurrentResourceOwner;
	DecodeTransaction transaction;
	List             *tables;
	XLogRecPtr        start;

	StartTransactionCommand();
	XactIsoLevel = XACT_REPEATABLE_READ;
	XactReadOnly = true;
	start = decoder_create_slot(slot, true);
	MemoryContextSwitchTo(context);
	transaction = copy_as_transaction(OidIsValid(joined) ? current->delivered : start);
	PushActiveSnapshot(GetTransactionSnapshot());
	tables = current_source_tables(current, joined);
	if (OidIsValid(joined) && tables == NIL)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_IN_USE),
						errmsg("the table has left the publication as its copy began"),
						errhint("Try again.")));
	lock_tables(tables);
	batch_begin(delivery->batch, &transaction);
	copy_tables(current, delivery->batch, tables);
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return start;
}

static void
open_copy(Delivery *delivery, CurrentBatch *settings)
{
	delivery_choose_settings(delivery->current, PG_UINT64_MAX, settings);
	delivery->batch = batch_open(delivery->current, settings, InvalidXLogRecPtr);
}

static void
finish_copy(Delivery *delivery, CurrentProgress *progress)
{
	batch_finish(delivery->batch, progress);
	delivery->outcome->events = progress->copied;
	delivery->outcome->files = progress->files;
	delivery->outcome->bytes = progress->bytes;
}

/*
 * A slot waits for the transactions that run, a copy for locks on its tables, and what has
 * been copied in hours for whoever has the connector's rows: a session that has launched
 * something has changed none of them.
 */
static void
wait_for_locks(bool wait)
{
	SetConfigOption("lock_timeout", wait ? "0" : CATALOG_LOCK_TIMEOUT, PGC_SUSET, PGC_S_OVERRIDE);
}

/* ---- the launch ---- */

/* Tables may come later; but whoever expects changes to be sent now should know. */
static void
warn_of_no_tables(const Current *current)
{
	if (current->ntables == 0)
		ereport(WARNING,
				(errmsg("publication \"%s\" of connector \"%s\" has no tables",
						current->publication, current->connector->name),
				 errdetail("Nothing is sent until it has some."),
				 errhint("Add some with ALTER PUBLICATION %s ADD TABLE, or with their rows "
						 "by s3export.add_table().",
						 quote_identifier(current->publication))));
}

/*
 * The slot is kept in the same step that records the launch.  If anything fails before that, the
 * slot goes with the process.
 */
static void
launch_current(Delivery *delivery)
{
	Current        *current;
	CurrentProgress progress = {0};
	CurrentBatch    settings;
	bool            sends;
	XLogRecPtr      position;

	delivery->current = current = delivery_load(delivery->connector_id);
	current_require_not_launched(current);
	current->slot = current_slot_name(delivery->connector_id);
	current_check(current, true);
	warn_of_no_tables(current);
	decoder_discard(current->slot);
	wait_for_locks(true);
	if (delivery->copies)
	{
		current->gaps = NIL;
		open_copy(delivery, &settings);
		position = create_slot_and_copy(delivery, current->slot, InvalidOid);
	}
	else
		position = decoder_create_slot(current->slot, false);

	sends = delivery->copies && batch_events(delivery->batch) > 0;
	if (sends)
	{
		batch_seal(delivery->batch, position, GetWALInsertionTimeLine());
		current_take_versions(current, batch_versions(delivery->batch));
	}
	current->delivered = position;
	current_launching(current, position, delivery->copies, sends);
	delivery->begun = true;
	decoder_keep_slot();
	if (sends)
	{
		finish_copy(delivery, &progress);
		current_launched(current, &progress);
	}
	wait_for_locks(false);
	current->state = CURRENT_RUNNING;
	delivery->outcome->position = position;
}

/* The server ends a process whose slot keeps too much WAL as if somebody had cancelled it. */
static void
explain_cancel(ErrorData *error)
{
	if (error->sqlerrcode != ERRCODE_QUERY_CANCELED || !decoder_needs_too_much())
		return;
	error->sqlerrcode = ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
	error->message = pstrdup("the launch needs more WAL than the server may keep");
	error->hint = pstrdup("Give \"max_slot_wal_keep_size\" room for what is written while the rows "
						  "are copied, and launch again.");
}

static void
undo_launch(Delivery *delivery, ErrorData *error)
{
	explain_cancel(error);
	decoder_drop_slot();
	wait_for_locks(false);
	if (!delivery->begun)
		return;
	if (delivery->copies)
		ereport(
			WARNING,
			(errmsg("some files of the copy for connector \"%s\" may be in place",
					delivery->current->connector->name),
			 errdetail("Another launch with copy_existing sends all rows again, in other files."),
			 errhint("See s3export.job_files for those that are in place.")));
	current_launch_failed(delivery->current, error);
}

void
delivery_launch(int64 connector_id, bool copy_existing, DeliveryOutcome *outcome)
{
	Delivery delivery = {.connector_id = connector_id, .outcome = outcome, .copies = copy_existing};

	delivery_exclude_others(connector_id);
	delivery_attempt(&delivery, launch_current, undo_launch);
}

/* ---- a table that joins ---- */

/*
 * In a transaction of its own, as the user, whose rights on publication and table decide.  Event
 * triggers may write to tables of users, which are replicated.
 */
static void
alter_publication(Delivery *delivery, void (*alter)(const Current *current, Oid relid))
{
	ResourceOwner owner = CurrentResourceOwner;
	MemoryContext context = CurrentMemoryContext;
	RepOriginId   origin = replorigin_session_origin;
	Oid           userid;
	int           sec_context;

	replorigin_session_origin = InvalidRepOriginId;
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	GetUserIdAndSecContext(&userid, &sec_context);
	SetUserIdAndSecContext(delivery->userid, sec_context | SECURITY_LOCAL_USERID_CHANGE);
	alter(delivery->current, delivery->relid);
	SetUserIdAndSecContext(userid, sec_context);
	PopActiveSnapshot();
	CommitTransactionCommand();
	replorigin_session_origin = origin;
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
}

static char *
name_copy_slot(const Delivery *delivery)
{
	return psprintf("%s_copy", current_slot_name(delivery->connector_id));
}

/*
 * The table joins the publication first.  A slot of its own then gives a snapshot: the copy has
 * what that sees, and the stream has what commits later.
 */
static void
add_table(Delivery *delivery)
{
	Current        *current;
	CurrentProgress progress = {0};
	CurrentBatch    settings;
	XLogRecPtr      position;

	current = delivery_load(delivery->connector_id);
	if (current->state != CURRENT_RUNNING)
		current_refuse_delivery(current);
	delivery->current = current;
	current_check(current, false);
	current_require_unpublished(current, delivery->relid);
	/* The copy is one batch, and those that follow must have later events. */
	delivery_catch_up(delivery);
	current = delivery->current;
	if (current->state != CURRENT_RUNNING)
		current_refuse_delivery(current);
	current_check(current, false);
	current_begin_table(current, delivery->relid);
	alter_publication(delivery, current_add_table);
	delivery->added = XactLastCommitEnd;
	delivery->begun = true;
	wait_for_locks(true);
	open_copy(delivery, &settings);
	position = create_slot_and_copy(delivery, name_copy_slot(delivery), delivery->relid);
	decoder_release();
	current_take_versions(current, batch_versions(delivery->batch));
	current_table_copying(current, delivery->relid, delivery->added, position);
	if (batch_events(delivery->batch) > 0)
	{
		/* Changes of other tables from there on follow. */
		batch_seal(delivery->batch, current->delivered, GetWALInsertionTimeLine());
		finish_copy(delivery, &progress);
	}
	current_table_copied(current, delivery->relid, position, &progress);
	wait_for_locks(false);
	delivery->outcome->position = position;
}

/*
 * The table leaves the publication again, so that it can be added another time.  It waits for
 * nobody: a shutdown would wait for it.
 */
static void
undo_add_table(Delivery *delivery, ErrorData *error)
{
	const Current *current = delivery->current;

	decoder_release();
	wait_for_locks(false);
	if (current == NULL)
		return;
	if (!delivery->begun)
	{
		current_forget_table(current, delivery->relid);
		return;
	}
	alter_publication(delivery, current_remove_table);
	current_table_failed(current, delivery->relid, delivery->added, error);
}

void
delivery_add_table(int64 connector_id, Oid relid, Oid userid, DeliveryOutcome *outcome)
{
	Delivery delivery = {.connector_id = connector_id,
						 .outcome = outcome,
						 .copies = true,
						 .relid = relid,
						 .userid = userid};

	delivery_exclude_others(connector_id);
	delivery_attempt(&delivery, add_table, undo_add_table);
}
