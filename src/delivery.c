/*-------------------------------------------------------------------------
 *
 * delivery.c
 *	  One delivery of a current, in the worker that does it.
 *
 * A delivery is a sequence of batches.  Before any file of a batch can appear,
 * it is recorded what the batch consists of; when all of them are in place, the
 * position moves past it; then the slot does.  Wherever this stops, the next
 * delivery goes on from the recorded position, and writes a batch that was
 * recorded and not finished once more as it was.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "batch.h"
#include "compress.h"
#include "decode.h"
#include "delivery_internal.h"
#include "files.h"

/* So much log that has not been sent, in bytes, is a backlog: its files have more events. */
#define BACKLOG (UINT64CONST(64) * 1024 * 1024)
#define BACKLOG_EVENTS_PER_FILE 100000

/* For the blocks of all tables together, and of one; bytes */
#define BLOCKS_MEMORY (16 * 1024 * 1024)
#define MIN_BLOCK (32 * 1024)

/* A batch ends after so long, at the next commit, even if it is small; ms */
#define MAX_BATCH_TIME 60000

void
delivery_choose_settings(const Current *current, uint64 backlog, CurrentBatch *settings)
{
	int tables = Max(list_length(current->tables), 1);

	memset(settings, 0, sizeof(*settings));
	settings->operations = current->operations;
	settings->compression = current->compression;
	settings->tables = current->tables;
	settings->open_files = Max(files_max_open(), 1);
	settings->block_size =
		Min(Max(BLOCKS_MEMORY / tables, MIN_BLOCK),
			current->compression == COMPRESS_NONE ? PIPE_BLOCK_SIZE : COMPRESS_BLOCK_SIZE);
	settings->events_per_file = current->events_per_file;
	if (backlog >= BACKLOG)
		settings->events_per_file = Max(settings->events_per_file, BACKLOG_EVENTS_PER_FILE);
}

Current *
delivery_load(int64 connector_id)
{
	Current *current = current_load(connector_id);

	if (current == NULL)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("the connector does not exist any more, or not yet"),
						errhint("A transaction that creates a connector must commit first.")));
	return current;
}

/* ---- what the decoder finds ---- */

static bool
take_transaction(void *arg, const DecodeTransaction *transaction)
{
	Delivery *delivery = arg;

	if (delivery->cutoff != 0 && transaction->committed_at >= delivery->cutoff)
		delivery->beyond = true;
	if (delivery->beyond)
		return false;
	batch_begin(delivery->batch, transaction);
	return true;
}

static void
take_change(void *arg, const DecodeChange *change)
{
	batch_put(((Delivery *) arg)->batch, change);
}

static const DecodeSink *
make_sink(Delivery *delivery)
{
	DecodeSink *sink = palloc(sizeof(DecodeSink));

	*sink = (DecodeSink){.begin = take_transaction, .change = take_change, .arg = delivery};
	return sink;
}

static void
open_decoder(Delivery *delivery)
{
	if (delivery->decoder == NULL)
		delivery->decoder = decode_open(delivery->current->delivered, make_sink(delivery));
}

static void
close_decoder(Delivery *delivery)
{
	if (delivery->decoder != NULL)
		decode_close(delivery->decoder);
	delivery->decoder = NULL;
}

/* ---- batches ---- */

static bool
is_time_up(TimestampTz since)
{
	return TimestampDifferenceExceeds(since, GetCurrentTimestamp(), MAX_BATCH_TIME);
}

/* Up to a transaction's end; "again": exactly up to where that batch ended. */
static void
fill_batch(Delivery *delivery, const CurrentBatch *again)
{
	TimestampTz since = GetCurrentTimestamp();
	XLogRecPtr  end = again != NULL ? again->end : delivery->target;
	uint64      events = 0;

	while (decode_position(delivery->decoder) < end)
	{
		decode_next(delivery->decoder);
		if (again != NULL || batch_events(delivery->batch) == events)
			continue;
		events = batch_events(delivery->batch);
		if (batch_is_full(delivery->batch) || is_time_up(since))
			break;
	}
}

static void
send_batch(Delivery *delivery, CurrentBatch *settings, bool again)
{
	Current        *current = delivery->current;
	Batch          *batch = delivery->batch;
	CurrentProgress progress = {.position = decode_position(delivery->decoder)};

	batch_seal(batch);
	if (!again)
	{
		settings->end = progress.position;
		settings->events = batch_events(batch);
		settings->committed_at = batch_committed_at(batch);
		current_begin_batch(current, settings);
	}
	batch_finish(batch, &progress);
	current_delivered(current, &progress);
	delivery->outcome->events += progress.events;
	delivery->outcome->files += progress.files;
	delivery->outcome->bytes += progress.bytes;
}

static void
run_batch(Delivery *delivery)
{
	Current     *current = delivery->current;
	bool         again = current->batch.end > current->delivered;
	CurrentBatch settings = current->batch;
	XLogRecPtr   start;

	open_decoder(delivery);
	start = Max(decode_position(delivery->decoder), current->delivered);
	if (!again)
		delivery_choose_settings(current, delivery->target > start ? delivery->target - start : 0,
								 &settings);
	delivery->batch = batch_open(current, &settings, start);
	fill_batch(delivery, again ? &current->batch : NULL);
	if (batch_events(delivery->batch) > 0)
		send_batch(delivery, &settings, again);
	else if (again)
		elog(ERROR, "the batch that ends at %X/%X has no events",
			 LSN_FORMAT_ARGS(current->batch.end));
	batch_close(delivery->batch);
	delivery->batch = NULL;
	delivery->outcome->position = decode_position(delivery->decoder);
	decode_confirm(delivery->outcome->position);
}

/* ---- what is too old ---- */

/* A batch that was interrupted may have files in place: all of it is given up, or nothing. */
static void
drop_batch(Delivery *delivery)
{
	Current *current = delivery->current;

	if (current->batch.committed_at >= delivery->cutoff)
	{
		delivery->beyond = true;
		return;
	}
	delivery->outcome->events_dropped += current->batch.events;
	delivery->outcome->position = current->batch.end;
	current_dropped(current, current->batch.end, current->batch.events);
	delivery->current = delivery_load(delivery->connector_id);
}

static void
drop_events(Delivery *delivery)
{
	Current     *current = delivery->current;
	XLogRecPtr   position = current->delivered;
	CurrentBatch settings;
	uint64       events;

	delivery_choose_settings(current, 0, &settings);
	delivery->batch = batch_open_to_count(current, &settings);
	open_decoder(delivery);
	while (decode_position(delivery->decoder) < delivery->target)
	{
		decode_next(delivery->decoder);
		if (delivery->beyond)
			break;
		position = decode_position(delivery->decoder);
	}
	events = batch_events(delivery->batch);
	batch_close(delivery->batch);
	delivery->batch = NULL;
	close_decoder(delivery);

	/* The log goes where it had no event, too, or where a batch has just been given up. */
	if (position <= current->delivered)
		return;
	delivery->outcome->position = position;
	if (events > 0)
	{
		delivery->outcome->events_dropped += events;
		current_dropped(current, position, events);
		delivery->current = delivery_load(delivery->connector_id);
	}
	decode_confirm(position);
}

/*
 * S3 has just refused the credentials once more: what has been owed for longer than
 * drop_after is dropped, or it may be time to warn.
 */
static void
look_at_clock(Delivery *delivery)
{
	Current *current = delivery_load(delivery->connector_id);

	delivery->current = current;
	if (current->state != CURRENT_SUSPENDED)
		return;
	if (!current_clock_has_run_out(current))
	{
		current_warn(current);
		return;
	}
	delivery->target = decode_log_end();
	delivery->cutoff = GetCurrentTimestamp() - current->drop_after * 1000;
	if (current->batch.end != InvalidXLogRecPtr)
		drop_batch(delivery);
	if (!delivery->beyond)
		drop_events(delivery);
}

/* ---- a delivery ---- */

static void
require_launched(const Current *current)
{
	if (current->here && current->slot != NULL)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("connector \"%s\" has not been launched here", current->connector->name),
			 current->slot != NULL
				 ? errdetail("It was launched on another server, in another database, or before a "
							 "standby became this server.")
				 : 0,
			 errhint("Use s3export.launch(), or s3export.resume() if its slot is here.")));
}

static void
acquire(const Current *current)
{
	if (decode_acquire(current->slot))
		return;
	current_lost(current);
	ereport(
		ERROR,
		(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		 errmsg("connector \"%s\" has lost its place in the write-ahead log",
				current->connector->name),
		 errdetail("Replication slot \"%s\" was dropped, or the server has removed log that had "
				   "not been delivered.",
				   current->slot),
		 errhint("Launch the connector again, with copy_existing => true where rows that were "
				 "missed matter.  Setting \"max_slot_wal_keep_size\" limits how much log is "
				 "kept.")));
}

static void
deliver(Delivery *delivery)
{
	TimestampTz since = GetCurrentTimestamp();

	/* Before anything else is known: what is added later is committed later. */
	delivery->target = decode_log_end();
	delivery->current = delivery_load(delivery->connector_id);
	delivery->outcome->position = delivery->current->delivered;
	if (delivery->current->state == CURRENT_SUSPENDED && !current_may_try(delivery->current))
		current_warn(delivery->current);
	while (current_may_try(delivery->current) && delivery->outcome->position < delivery->target)
	{
		current_check_tables(delivery->current);
		run_batch(delivery);
		delivery->current = delivery_load(delivery->connector_id);
	}
	close_decoder(delivery);
	if (delivery->outcome->position >= delivery->target)
		current_caught_up(delivery->current, since);
}

/* What a person or a shutdown did says nothing about the current. */
static bool
is_failure(const ErrorData *error)
{
	return error->sqlerrcode != ERRCODE_QUERY_CANCELED &&
		   error->sqlerrcode != ERRCODE_ADMIN_SHUTDOWN;
}

/* Outside of transactions; what the delivery had open is not to be used any more. */
static void
fail(Delivery *delivery, const ErrorData *error)
{
	bool suspends = error->sqlerrcode == ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION;

	if (delivery->batch != NULL)
		batch_set_error(delivery->batch, error);
	delivery->batch = NULL;
	delivery->decoder = NULL;
	if (!delivery->records || delivery->current == NULL || !is_failure(error))
		return;
	current_failed(delivery->current, error, suspends);
	if (suspends)
		look_at_clock(delivery);
}

void
delivery_attempt(Delivery *delivery, void (*work)(Delivery *delivery))
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData *volatile error = NULL;

	PG_TRY();
	{
		work(delivery);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		AbortOutOfAnyTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
	}
	PG_END_TRY();
	if (error != NULL)
		fail(delivery, error);
	decode_release();
	if (error != NULL)
		ReThrowError(error);
	delivery->outcome->state = pstrdup(current_state_name(delivery->current->state));
}

void
delivery_run(int64 connector_id, DeliveryOutcome *outcome)
{
	Delivery delivery = {.connector_id = connector_id, .outcome = outcome, .records = true};
	Current *current = delivery_load(connector_id);

	require_launched(current);
	acquire(current);
	delivery_attempt(&delivery, deliver);
}
