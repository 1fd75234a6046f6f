/*-------------------------------------------------------------------------
 *
 * decode.c
 *	  Committed changes, in commit order, from a replication slot of our own.
 *
 * The library is its own output plugin: what the server hands to the plugin's
 * callbacks goes to the sink of the decoder that is at work in this process.  The
 * way through the log is that of logicalfuncs.c, which reads slots in SQL.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/timeline.h"
#include "access/xlog.h"
#include "access/xlogreader.h"
#include "access/xlogrecord.h"
#include "access/xlogutils.h"
#include "miscadmin.h"
#include "replication/decode.h"
#include "replication/logical.h"
#include "replication/output_plugin.h"
#include "replication/reorderbuffer.h"
#include "replication/slot.h"
#include "replication/snapbuild.h"
#include "storage/proc.h"
#include "storage/standby.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "decode.h"

/* So much log may be read twice; bytes */
#define RESTART_DISTANCE (16 * 1024 * 1024)

struct Decoder
{
	LogicalDecodingContext *context;
	const DecodeSink       *sink;
	DecodeTransaction       transaction; /* that is being replayed */
	bool                    wanted;
	List                   *history; /* of the server's timelines */
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

static void
plugin_startup(LogicalDecodingContext *context, OutputPluginOptions *options,
			   bool is_init pg_attribute_unused())
{
	if (active == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("output plugin \"%s\" is for the connectors of s3export alone", "s3export"),
				 errhint("Use s3export.launch() and s3export.deliver().")));
	options->output_type = OUTPUT_PLUGIN_TEXTUAL_OUTPUT;
	context->output_plugin_private = active;
}

static void
plugin_begin(LogicalDecodingContext *context, ReorderBufferTXN *txn)
{
	Decoder *decoder = context->output_plugin_private;

	decoder->transaction.lsn = txn->final_lsn;
	decoder->transaction.timeline = tliOfPointInHistory(txn->final_lsn, decoder->history);
	decoder->transaction.committed_at = txn->xact_time.commit_time;
	decoder->wanted =
		decoder->sink != NULL && decoder->sink->begin(decoder->sink->arg, &decoder->transaction);
}

static void
plugin_change(LogicalDecodingContext *context, ReorderBufferTXN *txn pg_attribute_unused(),
			  Relation relation, ReorderBufferChange *change)
{
	Decoder     *decoder = context->output_plugin_private;
	DecodeChange decoded = {
		.transaction = &decoder->transaction,
		.relation = relation,
		.old = compat_decoded_tuple(change->data.tp.oldtuple),
		.new = compat_decoded_tuple(change->data.tp.newtuple),
	};

	if (!decoder->wanted)
		return;
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

static void
plugin_truncate(LogicalDecodingContext *context, ReorderBufferTXN *txn pg_attribute_unused(),
				int nrelations, Relation relations[],
				ReorderBufferChange *change pg_attribute_unused())
{
	Decoder *decoder = context->output_plugin_private;

	for (int i = 0; i < nrelations; i++)
	{
		DecodeChange decoded = {
			.transaction = &decoder->transaction,
			.operation = DECODE_TRUNCATE,
			.relation = relations[i],
		};

		if (decoder->wanted)
			decoder->sink->change(decoder->sink->arg, &decoded);
	}
}

/* The server demands it. */
static void
plugin_commit(LogicalDecodingContext *context pg_attribute_unused(),
			  ReorderBufferTXN *txn           pg_attribute_unused(),
			  XLogRecPtr commit_lsn           pg_attribute_unused())
{
}

void
_PG_output_plugin_init(OutputPluginCallbacks *callbacks)
{
	callbacks->startup_cb = plugin_startup;
	callbacks->begin_cb = plugin_begin;
	callbacks->change_cb = plugin_change;
	callbacks->truncate_cb = plugin_truncate;
	callbacks->commit_cb = plugin_commit;
}

/* ---- reading ---- */

bool
decode_acquire(const char *slot)
{
	if (SearchNamedReplicationSlot(slot, true) == NULL)
		return false;
	compat_slot_acquire(slot);
	if (!compat_slot_is_invalidated(MyReplicationSlot))
		return true;
	decode_release();
	return false;
}

void
decode_release(void)
{
	if (MyReplicationSlot != NULL)
		ReplicationSlotRelease();
}

Decoder *
decode_open(XLogRecPtr start, const DecodeSink *sink)
{
	Decoder *decoder = palloc0(sizeof(Decoder));

	CheckLogicalDecodingRequirements();
	decoder->sink = sink;
	decoder->history = readTimeLineHistory(GetWALInsertionTimeLine());
	active = decoder;
	decoder->context = CreateDecodingContext(start, NIL, false, &routine, NULL, NULL, NULL);
	XLogBeginRead(decoder->context->reader, MyReplicationSlot->data.restart_lsn);

	/* What is cached is of now, not of then. */
	InvalidateSystemCaches();
	return decoder;
}

void
decode_next(Decoder *decoder)
{
	XLogReaderState *reader = decoder->context->reader;
	ResourceOwner    owner = CurrentResourceOwner;
	char            *error = NULL;
	XLogRecord      *record = XLogReadRecord(reader, &error);

	if (error != NULL)
		ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED),
						errmsg("could not read the write-ahead log: %s", error)));
	if (record != NULL)
		LogicalDecodingProcessRecord(decoder->context, reader);

	/* The transactions in which changes are replayed leave none. */
	CurrentResourceOwner = owner;
	CHECK_FOR_INTERRUPTS();
}

XLogRecPtr
decode_position(const Decoder *decoder)
{
	return decoder->context->reader->EndRecPtr;
}

/* On disk at once, so that a crash does not have the log read again from further back. */
void
decode_confirm(XLogRecPtr position)
{
	LogicalConfirmReceivedLocation(position);
	ReplicationSlotMarkDirty();
	ReplicationSlotSave();
}

void
decode_close(Decoder *decoder)
{
	FreeDecodingContext(decoder->context);
	active = NULL;
	pfree(decoder);
	InvalidateSystemCaches();
}

XLogRecPtr
decode_log_end(void)
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
decode_create_slot(const char *name, bool use_snapshot)
{
	Decoder                 decoder = {0};
	LogicalDecodingContext *context;
	XLogRecPtr              start;

	CheckLogicalDecodingRequirements();
	compat_slot_create(name);
	active = &decoder;
	context = CreateInitDecodingContext("s3export", NIL, use_snapshot, InvalidXLogRecPtr, &routine,
										NULL, NULL, NULL);
	DecodingContextFindStartpoint(context);
	if (use_snapshot)
		RestoreTransactionSnapshot(SnapBuildInitialSnapshot(context->snapshot_builder), MyProc);
	start = MyReplicationSlot->data.confirmed_flush;
	FreeDecodingContext(context);
	active = NULL;
	return start;
}

void
decode_keep_slot(void)
{
	ReplicationSlotPersist();
}
