/*-------------------------------------------------------------------------
 *
 * delivery_launch.c
 *	  The launch of a current, in the worker that does it.
 *
 * The slot's snapshot is where its changes begin from: the rows that it sees and
 * the changes that follow are all there is, each once.  A launch that fails leaves
 * no slot behind.
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
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#include "catalog.h"
#include "decode.h"
#include "delivery_internal.h"

/* Takes the rows of one table. */
typedef struct CopyReceiver
{
	DestReceiver pub;
	Batch       *batch;
	Relation     relation;
} CopyReceiver;

static bool
receive_row(TupleTableSlot *slot, DestReceiver *self)
{
	CopyReceiver *receiver = (CopyReceiver *) self;

	batch_put_copy(receiver->batch, receiver->relation, slot);
	return true;
}

static void
startup(DestReceiver *self pg_attribute_unused(), int operation pg_attribute_unused(),
		TupleDesc desc pg_attribute_unused())
{
}

static void
nothing(DestReceiver *self pg_attribute_unused())
{
}

/* The changes of a table's children are not its own; those of its partitions are. */
static char *
query_on(Relation relation)
{
	char       *columns = batch_columns(relation);
	const char *only = relation->rd_rel->relkind == RELKIND_PARTITIONED_TABLE ? "" : "ONLY ";

	return psprintf("SELECT %s FROM %s%s", columns != NULL ? columns : "", only,
					quote_qualified_identifier(get_namespace_name(RelationGetNamespace(relation)),
											   RelationGetRelationName(relation)));
}

static void
copy_table(Batch *batch, const CurrentTable *table)
{
	CopyReceiver      receiver = {.pub = {.receiveSlot = receive_row,
										  .rStartup = startup,
										  .rShutdown = nothing,
										  .rDestroy = nothing,
										  .mydest = DestNone},
								  .batch = batch};
	SPIExecuteOptions options = {.read_only = true, .dest = &receiver.pub};
	int               result;

	receiver.relation = relation_open(table->relid, AccessShareLock);
	result = SPI_execute_extended(query_on(receiver.relation), &options);
	if (result < 0)
		elog(ERROR, "could not read the table: %s", SPI_result_code_string(result));
	relation_close(receiver.relation, NoLock);
}

/* As the owner of the connector, with no way to act as anybody else. */
static void
copy_tables(const Current *current, Batch *batch)
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
	foreach (cell, current->tables)
	{
		const CurrentTable *table = lfirst(cell);

		/* One that was removed before this launch may be there no more. */
		if (table->removed_lsn == InvalidXLogRecPtr)
			copy_table(batch, table);
	}
	SPI_finish();
	AtEOXact_GUC(false, nest_level);
	SetUserIdAndSecContext(userid, sec_context);
}

/* No commit record is there: each begins at a multiple of 8. */
static DecodeTransaction
copy_as_transaction(XLogRecPtr start)
{
	return (DecodeTransaction){.lsn = start - 1,
							   .timeline = GetWALInsertionTimeLine(),
							   .committed_at = GetCurrentTimestamp()};
}

/* In a transaction whose snapshot is the slot's. */
static XLogRecPtr
create_slot_and_copy(const Current *current, Batch *batch)
{
	MemoryContext     context = CurrentMemoryContext;
	ResourceOwner     owner = CurrentResourceOwner;
	DecodeTransaction transaction;
	XLogRecPtr        start;

	StartTransactionCommand();
	XactIsoLevel = XACT_REPEATABLE_READ;
	XactReadOnly = true;
	start = decode_create_slot(current->slot, true);
	MemoryContextSwitchTo(context);
	transaction = copy_as_transaction(start);
	PushActiveSnapshot(GetTransactionSnapshot());
	batch_begin(batch, &transaction);
	copy_tables(current, batch);
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return start;
}

static void
send_copy(Delivery *delivery, CurrentProgress *progress)
{
	batch_seal(delivery->batch);
	batch_finish(delivery->batch, progress);
	delivery->outcome->events = progress->events;
	delivery->outcome->files = progress->files;
	delivery->outcome->bytes = progress->bytes;
}

static void
launch(Delivery *delivery)
{
	Current        *current = delivery->current;
	CurrentProgress progress = {0};
	CurrentBatch    settings;
	ResourceOwner   owner = CurrentResourceOwner;
	XLogRecPtr      position;

	/* A slot waits for the transactions that run, and a copy for locks on its tables. */
	SetConfigOption("lock_timeout", "0", PGC_SUSET, PGC_S_OVERRIDE);
	if (delivery->copies)
	{
		delivery_choose_settings(current, PG_UINT64_MAX, &settings);
		delivery->batch = batch_open(current, &settings, InvalidXLogRecPtr);
		position = create_slot_and_copy(current, delivery->batch);
		if (batch_events(delivery->batch) > 0)
			send_copy(delivery, &progress);
	}
	else
		position = decode_create_slot(current->slot, false);
	CurrentResourceOwner = owner;
	SetConfigOption("lock_timeout", CATALOG_LOCK_TIMEOUT, PGC_SUSET, PGC_S_OVERRIDE);

	decode_keep_slot();
	current_launched(current, position, progress.events > 0 ? &progress : NULL);
	current->state = CURRENT_RUNNING;
	delivery->outcome->position = position;
}

void
delivery_launch(int64 connector_id, bool copy_existing, DeliveryOutcome *outcome)
{
	Delivery delivery = {.connector_id = connector_id, .outcome = outcome, .copies = copy_existing};

	delivery.current = delivery_load(connector_id);
	delivery.current->slot = current_slot_name(connector_id);
	current_require_tables(delivery.current);
	delivery_attempt(&delivery, launch);
}
