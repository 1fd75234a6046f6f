/*-------------------------------------------------------------------------
 *
 * decoder.c
 *	  Committed changes, in commit order, from a replication slot of our own.
 *
 * The library is its own output plugin: what the server hands to the plugin's
 * callbacks goes to the sink of the decoder that is at work in this process.  The
 * way through the WAL is that of logicalfuncs.c, which reads slots in SQL.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/timeline.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlogreader.h"
#include "access/xlogrecord.h"
#include "access/xlog_internal.h"
#include "access/xlogutils.h"
#include "miscadmin.h"
#include "replication/decode.h"
#include "replication/logical.h"
#include "replication/origin.h"
#include "replication/output_plugin.h"
#include "replication/reorderbuffer.h"
#include "replication/slot.h"
#include "replication/snapbuild.h"
#include "storage/proc.h"
#include "storage/standby.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#include "lib/qunique.h"
#include "storage/sinval.h"

#include "base/compat.h"
#include "currents/decoder.h"
#include "tables/catalog.h"

/* So much WAL may be read twice; bytes */
#define RESTART_DISTANCE (16 * 1024 * 1024)

struct Decoder
{
	LogicalDecodingContext *context;
	MemoryContext           memory; /* the reader's buffers grow in the current context */
	const DecodeSink       *sink;
	DecodeTransaction       transaction; /* that is being replayed */
	Oid                    *changed;     /* its; NULL: none yet */
	TransactionId          *subxids;     /* its; NULL: none yet */
	bool                    wanted;
	List                   *history;      /* of the server's timelines */
	TimestampTz             committed_at; /* in the commit record that has been read last */
};

static XLogReaderRoutine routine = {
	.page_read = read_local_xlog_page,
	.segment_open = wal_segment_open,
	.segment_close = wal_segment_close,
};

/* The one whose callbacks are called; the server's context has no place for it before it is made. */
static Decoder *active = NULL;

extern PGDLLEXPORT void _PG_output_plugin_init(OutputPluginCallbacks *callbacks);

/* ---- the output plugin ---- */

/*
 * pg_upgrade makes the slots again under their names, and decodes nothing; nobody else can
 * make a slot with this plugin, so that a slot of the extension's name is the extension's.
 */
static void
plugin_startup(LogicalDecodingContext *context, OutputPluginOptions *options, bool is_init)
{
	if (active == NULL && !(is_init && IsBinaryUpgrade))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("output plugin \"%s\" is for the connectors of s3export alone", "s3export"),
				 errhint("Use s3export.launch() and s3export.deliver().")));
	options->output_type = OUTPUT_PLUGIN_TEXTUAL_OUTPUT;
	options->receive_rewrites = true;
	context->output_plugin_private = active;
}

static int
compare_oids(const void *a, const void *b)
{
	Oid left = *(const Oid *) a;
	Oid right = *(const Oid *) b;

	return (left > right) - (left < right);
}

/* What the transaction has the server forget of relations has been read with it. */
static void
list_changed(Decoder *decoder, const ReorderBufferTXN *txn)
{
	DecodeTransaction *transaction = &decoder->transaction;
	int                n = 0;

	if (decoder->changed != NULL)
		pfree(decoder->changed);
	decoder->changed = NULL;
	if (txn->ninvalidations > 0)
		decoder->changed =
			MemoryContextAllocHuge(decoder->memory, txn->ninvalidations * sizeof(Oid));
	for (uint32 i = 0; i < txn->ninvalidations; i++)
	{
		if (txn->invalidations[i].id == SHAREDINVALRELCACHE_ID)
			decoder->changed[n++] = txn->invalidations[i].rc.relId;
	}
	if (n > 0)
		qsort(decoder->changed, n, sizeof(Oid), compare_oids);
	transaction->changed = decoder->changed;
	transaction->nchanged =
		n > 0 ? (int) qunique(decoder->changed, n, sizeof(Oid), compare_oids) : 0;
}

bool
decoder_is_of(const DecodeTransaction *transaction, TransactionId xid)
{
	return transaction->xid == xid ||
		   (transaction->nsubxids > 0 && bsearch(&xid, transaction->subxids, transaction->nsubxids,
												 sizeof(TransactionId), xidComparator) != NULL);
}

/*
 * Sorted, so that whoever asks whether a subtransaction belongs to the transaction can search.
 */
static void
list_subxids(Decoder *decoder, ReorderBufferTXN *txn)
{
	dlist_iter iter;
	int        n = 0;

	if (decoder->subxids != NULL)
		pfree(decoder->subxids);
	decoder->subxids = NULL;
	if (txn->nsubtxns > 0)
		decoder->subxids =
			MemoryContextAllocHuge(decoder->memory, txn->nsubtxns * sizeof(TransactionId));
	dlist_foreach (iter, &txn->subtxns)
	{
		decoder->subxids[n++] = dlist_container(ReorderBufferTXN, node, iter.cur)->xid;
	}
	if (n > 0)
		qsort(decoder->subxids, n, sizeof(TransactionId), xidComparator);
	decoder->transaction.xid = txn->xid;
	decoder->transaction.subxids = decoder->subxids;
	decoder->transaction.nsubxids = n;
}

static void
plugin_begin(LogicalDecodingContext *context, ReorderBufferTXN *txn)
{
	Decoder *decoder = context->output_plugin_private;

	if (decoder == NULL)
		elog(ERROR, "no changes are expected here");
	list_changed(decoder, txn);
	list_subxids(decoder, txn);
	decoder->transaction.lsn = txn->final_lsn;
	decoder->transaction.base = txn->base_snapshot_lsn;
	decoder->transaction.timeline = tliOfPointInHistory(txn->final_lsn, decoder->history);
	decoder->transaction.committed_at = decoder->committed_at;
	decoder->wanted =
		decoder->sink != NULL && decoder->sink->begin(decoder->sink->arg, &decoder->transaction);
}

/*
 * The transient table that ALTER TABLE fills has the columns that its table has by now.  What
 * else it has comes to the table when it is full.
 */
static void
pass_rewrite(Decoder *decoder, DecodeChange *change)
{
	Form_pg_class transient = change->relation->rd_rel;
	Relation      table = RelationIdGetRelation(transient->relrewrite);

	if (!RelationIsValid(table))
		return;
	change->rewrite = RelationGetRelid(change->relation);
	change->moves = table->rd_rel->relpersistence != transient->relpersistence ||
					table->rd_rel->relam != transient->relam;
	change->relation = table;
	change->operation = DECODE_REWRITE;
	decoder->sink->change(decoder->sink->arg, change);
	RelationClose(table);
}

/*
 * A row of a relation that rewrites another one is no change of its own: it says that the table
 * was written anew.
 */
static void
plugin_change(LogicalDecodingContext *context, ReorderBufferTXN *txn pg_attribute_unused(),
			  Relation relation, ReorderBufferChange *change)
{
	Decoder     *decoder = context->output_plugin_private;
	DecodeChange decoded = {
		.transaction = &decoder->transaction,
		.relation = relation,
		.old_row = compat_decoded_tuple(change->data.tp.oldtuple),
		.new_row = compat_decoded_tuple(change->data.tp.newtuple),
	};

	if (!decoder->wanted)
		return;
	if (OidIsValid(relation->rd_rel->relrewrite))
	{
		pass_rewrite(decoder, &decoded);
		return;
	}
	switch (change->action)
	{
		case REORDER_BUFFER_CHANGE_INSERT:
			decoded.operation = DECODE_INSERT;
			break;
		case REORDER_BUFFER_CHANGE_UPDATE:
			decoded.operation = DECODE_UPDATE;
			break;
		case REORDER_BUFFER_CHANGE_DELETE:
			decoded.operation = DECODE_DELETE;
			break;
		default:
			return;
	}
	decoder->sink->change(decoder->sink->arg, &decoded);
}

/*
 * TRUNCATE of several tables is one change of each.  Each knows the others, since a partition
 * may be truncated with its table.
 */
static void
plugin_truncate(LogicalDecodingContext *context, ReorderBufferTXN *txn pg_attribute_unused(),
				int nrelations, Relation relations[],
				ReorderBufferChange *change pg_attribute_unused())
{
	Decoder *decoder = context->output_plugin_private;
	Oid     *relids = palloc(nrelations * sizeof(Oid));

	for (int i = 0; i < nrelations; i++)
		relids[i] = RelationGetRelid(relations[i]);
	for (int i = 0; i < nrelations && decoder->wanted; i++)
	{
		DecodeChange decoded = {
			.transaction = &decoder->transaction,
			.operation = DECODE_TRUNCATE,
			.relation = relations[i],
			.truncated = relids,
			.ntruncated = nrelations,
		};

		decoder->sink->change(decoder->sink->arg, &decoded);
	}
	pfree(relids);
}

static void
plugin_commit(LogicalDecodingContext *context, ReorderBufferTXN *txn pg_attribute_unused(),
			  XLogRecPtr commit_lsn pg_attribute_unused())
{
	Decoder *decoder = context->output_plugin_private;

	if (decoder->wanted)
		decoder->sink->end(decoder->sink->arg, &decoder->transaction);
}

static bool
plugin_filter_by_origin(LogicalDecodingContext *context, RepOriginId origin)
{
	Decoder *decoder = context->output_plugin_private;

	return origin != InvalidRepOriginId && decoder != NULL && decoder->sink != NULL &&
		   decoder->sink->local_only;
}

void
_PG_output_plugin_init(OutputPluginCallbacks *callbacks)
{
	callbacks->startup_cb = plugin_startup;
	callbacks->begin_cb = plugin_begin;
	callbacks->change_cb = plugin_change;
	callbacks->truncate_cb = plugin_truncate;
	callbacks->commit_cb = plugin_commit;
	callbacks->filter_by_origin_cb = plugin_filter_by_origin;
}

/* ---- reading ---- */

static bool
is_ours(const ReplicationSlot *slot)
{
	return slot->data.database == MyDatabaseId &&
		   strcmp(NameStr(slot->data.plugin), "s3export") == 0;
}

/*
 * Looked at before, as one that is not ours may be in use for ever; and once it is
 * acquired: until then anybody may put another in its place.
 */
DecodeSlot
decoder_acquire(const char *name)
{
	const ReplicationSlot *slot = SearchNamedReplicationSlot(name, true);
	DecodeSlot             found = DECODE_SLOT_ACQUIRED;

	if (slot == NULL || !is_ours(slot))
		return DECODE_SLOT_MISSING;
	/* Deliveries exclude each other: it is somebody else, and that is no reason to be silent. */
	if (slot->active_pid != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("replication slot \"%s\" is used by process %d", name, slot->active_pid),
				 errhint("Slots of s3export are for s3export.deliver() alone.")));
	compat_slot_acquire(name);
	if (!is_ours(MyReplicationSlot))
		found = DECODE_SLOT_MISSING;
	else if (compat_slot_is_invalidated(MyReplicationSlot))
		found = DECODE_SLOT_INVALID;
	if (found != DECODE_SLOT_ACQUIRED)
		decoder_release();
	return found;
}

XLogRecPtr
decoder_confirmed(void)
{
	return MyReplicationSlot->data.confirmed_flush;
}

static bool
is_commit(XLogReaderState *reader)
{
	uint8 info = XLogRecGetInfo(reader) & XLOG_XACT_OPMASK;

	return XLogRecGetRmid(reader) == RM_XACT_ID &&
		   (info == XLOG_XACT_COMMIT || info == XLOG_XACT_COMMIT_PREPARED);
}

/* Does the record that has just been read commit another transaction of this database? */
static bool
commits_another(XLogReaderState *reader)
{
	xl_xact_parsed_commit parsed;

	if (!is_commit(reader))
		return false;
	ParseCommitRecord(XLogRecGetInfo(reader), (xl_xact_commit *) XLogRecGetData(reader), &parsed);
	if (parsed.dbId != InvalidOid && parsed.dbId != MyDatabaseId)
		return false;
	return XLogRecGetOrigin(reader) != DoNotReplicateId;
}

/* A record that fills its page to the end is followed by the next page's header. */
static XLogRecPtr
after_page_header(XLogRecPtr lsn)
{
	if (lsn % XLOG_BLCKSZ != 0)
		return lsn;
	return lsn +
		   (XLogSegmentOffset(lsn, wal_segment_size) == 0 ? SizeOfXLogLongPHD : SizeOfXLogShortPHD);
}

/*
 * Both are in one segment of the WAL, which the slot keeps as long as it has been told
 * nothing beyond "to".
 */
bool
decoder_is_own(XLogRecPtr from, XLogRecPtr to)
{
	XLogReaderState *reader;
	char            *error = NULL;
	bool             own = true;

	if (from / wal_segment_size != to / wal_segment_size)
		return false;
	reader = XLogReaderAllocate(wal_segment_size, NULL, &routine, NULL);
	if (reader == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	XLogBeginRead(reader, after_page_header(from));
	while (own && reader->EndRecPtr < to)
		own = XLogReadRecord(reader, &error) != NULL && !commits_another(reader);
	XLogReaderFree(reader);
	if (error != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED), errmsg("could not read the WAL: %s", error)));
	return own;
}

void
decoder_release(void)
{
	if (MyReplicationSlot != NULL)
		ReplicationSlotRelease();
}

/*
 * The server takes a process that makes a decoding context outside a transaction for a
 * walsender (PROC_IN_LOGICAL_DECODING): its transactions are in no other process's snapshot, and
 * what they write is taken for aborted.  Whoever decodes here records it in transactions.
 */
typedef struct ContextScope
{
	MemoryContext context;
	ResourceOwner owner;
	bool          started;
} ContextScope;

static void
enter_transaction(ContextScope *scope)
{
	scope->context = CurrentMemoryContext;
	scope->owner = CurrentResourceOwner;
	scope->started = !IsTransactionState();
	if (scope->started)
		StartTransactionCommand();
	MemoryContextSwitchTo(scope->context);
}

static void
leave_transaction(const ContextScope *scope)
{
	if (!scope->started)
		return;
	CommitTransactionCommand();
	MemoryContextSwitchTo(scope->context);
	CurrentResourceOwner = scope->owner;
}

Decoder *
decoder_open(XLogRecPtr start, const DecodeSink *sink)
{
	Decoder     *decoder = palloc0(sizeof(Decoder));
	ContextScope scope;

	CheckLogicalDecodingRequirements();
	decoder->memory = CurrentMemoryContext;
	decoder->sink = sink;
	decoder->history = readTimeLineHistory(GetWALInsertionTimeLine());
	active = decoder;
	enter_transaction(&scope);
	decoder->context = CreateDecodingContext(start, NIL, false, &routine, NULL, NULL, NULL);
	leave_transaction(&scope);
	XLogBeginRead(decoder->context->reader, MyReplicationSlot->data.restart_lsn);

	/* What is cached is of now, not of then. */
	InvalidateSystemCaches();
	return decoder;
}

void
decoder_next(Decoder *decoder)
{
	XLogReaderState *reader = decoder->context->reader;
	ResourceOwner    owner = CurrentResourceOwner;
	MemoryContext    old = MemoryContextSwitchTo(decoder->memory);
	char            *error = NULL;
	XLogRecord      *record = XLogReadRecord(reader, &error);

	if (error != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED), errmsg("could not read the WAL: %s", error)));
	/* The server tells the plugin when a replicated transaction was committed at its origin. */
	if (record != NULL && is_commit(reader))
		decoder->committed_at = ((xl_xact_commit *) XLogRecGetData(reader))->xact_time;
	if (record != NULL)
		LogicalDecodingProcessRecord(decoder->context, reader);

	/*
	 * The tables of the extension that have changed there are cached as they were then, in
	 * files that they may have left: the server corrects that for its own catalogs alone.
	 */
	catalog_doubt_caches();

	/* The transactions in which changes are replayed leave none. */
	CurrentResourceOwner = owner;
	MemoryContextSwitchTo(old);
	CHECK_FOR_INTERRUPTS();
}

XLogRecPtr
decoder_position(const Decoder *decoder)
{
	return decoder->context->reader->EndRecPtr;
}

TimeLineID
decoder_timeline(const Decoder *decoder, XLogRecPtr position)
{
	return tliOfPointInHistory(position, decoder->history);
}

/* On disk at once, so that a crash does not have the WAL read again from further back. */
void
decoder_confirm(XLogRecPtr position)
{
	LogicalConfirmReceivedLocation(position);
	ReplicationSlotMarkDirty();
	ReplicationSlotSave();
}

void
decoder_forget_catalogs(void)
{
	InvalidateSystemCaches();
}

void
decoder_close(Decoder *decoder)
{
	FreeDecodingContext(decoder->context);
	active = NULL;
	if (decoder->changed != NULL)
		pfree(decoder->changed);
	pfree(decoder);
	InvalidateSystemCaches();
}

XLogRecPtr
decoder_wal_end(void)
{
	XLogRecPtr end;

	/*
	 * A slot restarts from one of the records of running transactions, which the
	 * background writer makes every 15 seconds: what is delivered more often than
	 * that would be read again and again.
	 */
	if (GetXLogInsertRecPtr() - MyReplicationSlot->data.restart_lsn > RESTART_DISTANCE)
		XLogFlush(LogStandbySnapshot());
	end = GetFlushRecPtr(NULL);

	/* What is sent must not be unknown to the standby that becomes the primary. */
	compat_wait_for_standbys(end);
	return end;
}

/* ---- making a slot ---- */

XLogRecPtr
decoder_create_slot(const char *name, bool use_snapshot)
{
	Decoder                 decoder = {0};
	LogicalDecodingContext *context;
	ContextScope            scope;
	XLogRecPtr              start;

	CheckLogicalDecodingRequirements();
	if (SearchNamedReplicationSlot(name, true) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("replication slot \"%s\" already exists", name),
				 errdetail("Somebody has made a slot with the name that this connector's has."),
				 errhint("Drop it with pg_drop_replication_slot().")));
	compat_slot_create(name);
	active = &decoder;
	enter_transaction(&scope);
	context = CreateInitDecodingContext("s3export", NIL, use_snapshot, InvalidXLogRecPtr, &routine,
										NULL, NULL, NULL);
	leave_transaction(&scope);
	DecodingContextFindStartpoint(context);
	if (use_snapshot)
		RestoreTransactionSnapshot(SnapBuildInitialSnapshot(context->snapshot_builder), MyProc);
	start = MyReplicationSlot->data.confirmed_flush;
	FreeDecodingContext(context);
	active = NULL;
	return start;
}

void
decoder_keep_slot(void)
{
	ReplicationSlotPersist();
}

bool
decoder_needs_too_much(void)
{
	WALAvailability availability;

	if (MyReplicationSlot == NULL)
		return false;
	availability = GetWALAvailability(MyReplicationSlot->data.restart_lsn);
	return availability == WALAVAIL_UNRESERVED || availability == WALAVAIL_REMOVED;
}

void
decoder_drop_slot(void)
{
	NameData name;

	if (MyReplicationSlot == NULL)
		return;
	name = MyReplicationSlot->data.name;
	/*
	 * A slot that was not made to stay goes with this.  Of another, the server may be waiting to
	 * invalidate it.
	 */
	ReplicationSlotRelease();
	if (SearchNamedReplicationSlot(NameStr(name), true) != NULL)
		ReplicationSlotDrop(NameStr(name), false);
}

void
decoder_discard(const char *name)
{
	if (decoder_acquire(name) != DECODE_SLOT_MISSING)
	{
		decoder_release();
		ReplicationSlotDrop(name, true);
	}
}
