/*-------------------------------------------------------------------------
 *
 * delivery.c
 *	  One delivery of a current, in the worker that does it.
 *
 * A delivery is a sequence of batches.  Before any file of a batch can appear,
 * it is recorded what the batch consists of; when all of them are in place, the
 * position moves past it; then the slot does.
 *
 *	  filled --> recorded --> files in place --> position moved --> slot told
 *
 * A crash before "recorded" leaves nothing that could appear.  After a crash between
 * "recorded" and "position moved", the next delivery writes the recorded batch once
 * more as it was: the same files with the same contents.  After a crash before "slot
 * told", the slot keeps more WAL than is needed, and the position decides what is sent.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "currents/batch.h"
#include "currents/decoder.h"
#include "currents/delivery_internal.h"
#include "format/compress.h"
#include "tables/advisory_lock.h"
#include "uploader/files.h"

/* So much WAL that has not been sent, in bytes, is a backlog: its files have more events. */
#define BACKLOG (UINT64CONST(64) * 1024 * 1024)
#define BACKLOG_EVENTS_PER_FILE 100000

/* For the blocks of all tables together, and of one; bytes */
#define BLOCKS_MEMORY (16 * 1024 * 1024)
#define MIN_BLOCK (32 * 1024)

/* A batch with events ends at the latest after so long, even if it is small; ms */
#define MAX_BATCH_TIME 10000

/*
 * While there are no events, the position moves after so many bytes of WAL, or so many ms:
 * what is cut short again and again gets ahead, and the slot lets go of WAL and catalog
 * rows on the way.
 */
#define QUIET_BYTES (4 * 1024 * 1024)
#define QUIET_TIME 5000

/*
 * A batch with events ends after so many bytes of WAL without another one, or after QUIET_TIME:
 * a delivery that is cut short in a long stretch without events has sent what it found before.
 */
#define QUIET_BATCH_BYTES (64 * 1024 * 1024)

/* So soon after a complete delivery another that has found nothing is not recorded; ms */
#define SETTLED_TIME 60000

/* How often the clock is looked at; bytes of WAL */
#define LOOK_EVERY (256 * 1024)

void
delivery_choose_settings(const Current *current, uint64 backlog, CurrentBatch *settings)
{
	int tables = Max(current->ntables, 1);

	memset(settings, 0, sizeof(*settings));
	settings->compression = current->compression;
	settings->format = current->format;
	settings->last_gap = current->gaps != NIL ? ((CurrentGap *) llast(current->gaps))->gap_id : 0;
	settings->tables = current->tables;
	settings->versions = current->versions;
	settings->sender = current->connector->owner;
	settings->sendable = current->relids;
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
		delivery->seen_younger = true;
	if (delivery->seen_younger)
		return false;
	batch_begin(delivery->batch, transaction);
	return true;
}

static void
take_change(void *arg, const DecodeChange *change)
{
	batch_put(((Delivery *) arg)->batch, change);
}

static void
take_end(void *arg, const DecodeTransaction *transaction)
{
	batch_end(((Delivery *) arg)->batch, transaction);
}

static const DecodeSink *
make_sink(Delivery *delivery)
{
	DecodeSink *sink = palloc(sizeof(DecodeSink));

	*sink = (DecodeSink){.begin = take_transaction,
						 .change = take_change,
						 .end = take_end,
						 .arg = delivery,
						 .local_only = delivery->current->local_only};
	return sink;
}

static void
open_decoder(Delivery *delivery)
{
	MemoryContext old;

	if (delivery->decoder != NULL)
		return;
	/* It outlives the batch. */
	old = MemoryContextSwitchTo(MemoryContextGetParent(delivery->context));
	delivery->decoder = decoder_open(delivery->current->delivered, make_sink(delivery));
	MemoryContextSwitchTo(old);
}

static void
close_decoder(Delivery *delivery)
{
	if (delivery->decoder != NULL)
		decoder_close(delivery->decoder);
	delivery->decoder = NULL;
}

/* ---- batches ---- */

/* How far a batch has been filled. */
typedef struct Filling
{
	uint64      events;   /* when they were counted last */
	XLogRecPtr  event;    /* position when there was another one */
	TimestampTz event_at; /* and the time */
	XLogRecPtr  looked;   /* position when the clock was looked at last */
	XLogRecPtr  moved;    /* position that has been recorded last */
	TimestampTz since;    /* when it began, or the position has moved */
} Filling;

static bool
is_over(TimestampTz since, int ms)
{
	return TimestampDifferenceExceeds(since, GetCurrentTimestamp(), ms);
}

/* Before the position moves past them. */
static void
tell_withheld(Delivery *delivery)
{
	List  *tables;
	uint64 events = batch_take_withheld(delivery->batch, &tables);

	if (events > 0)
		current_withheld(delivery->current, tables, events);
}

/*
 * The position is recorded first: the slot is never told what could still be asked for.  A
 * batch that is written again would begin here.
 */
static void
move_position(Delivery *delivery, Filling *filling)
{
	filling->moved = decoder_position(delivery->decoder);
	filling->since = GetCurrentTimestamp();
	if (filling->moved <= delivery->current->delivered)
		return;
	current_moved(delivery->current, filling->moved);
	decoder_confirm(filling->moved);
	delivery->outcome->position = filling->moved;
	decoder_forget_catalogs();
	batch_forget_sources(delivery->batch);
}

static void
note_event(Filling *filling, uint64 events, XLogRecPtr position)
{
	filling->events = events;
	filling->event = position;
	filling->event_at = GetCurrentTimestamp();
}

/* After each record of the WAL: has the batch enough?  Moves the position where it is empty. */
static bool
is_filled(Delivery *delivery, Filling *filling)
{
	XLogRecPtr position = decoder_position(delivery->decoder);
	uint64     events = batch_events(delivery->batch);

	if (events != filling->events)
		note_event(filling, events, position);
	else if (position - filling->looked < LOOK_EVERY)
		return false;
	filling->looked = position;
	if (!batch_is_empty(delivery->batch))
		return batch_is_full(delivery->batch) || is_over(filling->since, MAX_BATCH_TIME) ||
			   position - filling->event >= QUIET_BATCH_BYTES ||
			   is_over(filling->event_at, QUIET_TIME);
	if (position - filling->moved >= QUIET_BYTES || is_over(filling->since, QUIET_TIME))
		move_position(delivery, filling);
	return false;
}

/* Up to a transaction's end; "again": exactly up to where that batch ended. */
static void
fill_batch(Delivery *delivery, const CurrentBatch *again)
{
	XLogRecPtr end = again != NULL ? again->end : delivery->target;
	XLogRecPtr start = Max(decoder_position(delivery->decoder), delivery->current->delivered);
	Filling    filling = {.looked = start, .moved = start, .since = GetCurrentTimestamp()};

	while (decoder_position(delivery->decoder) < end)
	{
		decoder_next(delivery->decoder);
		if (again == NULL && is_filled(delivery, &filling))
			break;
	}
}

/*
 * A batch is recorded before its files may appear, unless it was recorded before.  Its position
 * moves when all of its files are in place.
 */
static void
send_batch(Delivery *delivery, CurrentBatch *settings, bool again)
{
	Current        *current = delivery->current;
	Batch          *batch = delivery->batch;
	CurrentProgress progress = {.position = decoder_position(delivery->decoder)};

	if (!again)
	{
		settings->end = progress.position;
		settings->tables = batch_tables_before(batch);
		current_take_versions(current, batch_versions(batch));
		settings->events = batch_events(batch);
		settings->committed_at = batch_committed_at(batch);
		current_begin_batch(current, settings, batch_take_gaps(batch), delivery->context);
	}
	batch_seal(batch, progress.position, decoder_timeline(delivery->decoder, progress.position));
	batch_finish(batch, &progress);
	current_delivered(current, &progress);
	delivery->outcome->events += progress.events;
	delivery->outcome->files += progress.files;
	delivery->outcome->bytes += progress.bytes;
	delivery->outcome->batch =
		MemoryContextStrdup(MemoryContextGetParent(delivery->context), progress.batch_uri);
}

/* What a batch that is written again consists of has been recorded, and is in the WAL. */
static void
require_same_events(const Delivery *delivery, const CurrentBatch *again)
{
	uint64 events = batch_events(delivery->batch);

	if (events != again->events)
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
						errmsg("the interrupted batch that ends at %X/%X cannot be written again",
							   LSN_FORMAT_ARGS(again->end)),
						errdetail("It had " UINT64_FORMAT " events, and has " UINT64_FORMAT " now.",
								  again->events, events),
						errhint("Stop the connector with s3export.stop(), and launch it again with "
								"copy_existing => true.")));
}

/* Has it to tell something, though there may be no event? */
static bool
owes_batch(const Current *current)
{
	return current->gaps != NIL ||
		   (current->heartbeat >= 0 &&
			TimestampDifferenceExceeds(current->last_batch_at, GetCurrentTimestamp(),
									   (int) Min(current->heartbeat, INT_MAX)));
}

/*
 * Fills a batch and sends it.  A batch that was begun before is filled with the same settings,
 * and must come to the same events.
 */
static void
run_batch(Delivery *delivery)
{
	Current     *current = delivery->current;
	bool         again = current->batch.end > current->delivered;
	CurrentBatch settings = current->batch;
	XLogRecPtr   start;
	bool         sends;

	open_decoder(delivery);
	decoder_forget_catalogs();
	start = Max(decoder_position(delivery->decoder), current->delivered);
	if (!again)
		delivery_choose_settings(current, delivery->target > start ? delivery->target - start : 0,
								 &settings);
	delivery->batch = batch_open(current, &settings, start);
	fill_batch(delivery, again ? &current->batch : NULL);
	if (again)
		require_same_events(delivery, &current->batch);
	else
		tell_withheld(delivery);
	sends = again || !batch_is_empty(delivery->batch) || owes_batch(current);
	if (sends)
		send_batch(delivery, &settings, again);
	delivery->outcome->position = decoder_position(delivery->decoder);
	if (sends)
		decoder_confirm(delivery->outcome->position);
	batch_close(delivery->batch);
	delivery->batch = NULL;
}

/* ---- what is too old ---- */

/* A batch that was interrupted may have files in place: all of it is given up, or nothing. */
static void
drop_batch(Delivery *delivery)
{
	Current *current = delivery->current;

	if (current->batch.events > 0 && current->batch.committed_at >= delivery->cutoff)
	{
		delivery->seen_younger = true;
		return;
	}
	delivery->outcome->events_dropped += current->batch.events;
	delivery->outcome->position = current->batch.end;
	/* Of gaps, or a heartbeat: there is nothing to drop, and the next batch tells the same. */
	if (current->batch.events == 0)
		current_forget_batch(current, current->batch.end);
	else
		current_dropped(current, current->batch.end, current->batch.events);
	delivery->current = delivery_load(delivery->connector_id);
}

/*
 * Reads what is older than drop_after, to count its events, and moves the position past it.  The
 * gaps of what was dropped are kept for the next batch.
 */
static void
drop_events(Delivery *delivery)
{
	Current     *current = delivery->current;
	XLogRecPtr   position = current->delivered;
	XLogRecPtr   forgotten = position;
	CurrentBatch settings;
	uint64       events;

	delivery_choose_settings(current, 0, &settings);
	delivery->batch = batch_open_to_count(current, &settings, position);
	open_decoder(delivery);
	while (decoder_position(delivery->decoder) < delivery->target)
	{
		decoder_next(delivery->decoder);
		if (delivery->seen_younger)
			break;
		position = decoder_position(delivery->decoder);
		if (position - forgotten < QUIET_BYTES)
			continue;
		batch_forget_sources(delivery->batch);
		forgotten = position;
	}
	events = batch_events(delivery->batch);
	tell_withheld(delivery);
	current_keep_gaps(current, batch_take_gaps(delivery->batch));
	batch_close(delivery->batch);
	delivery->batch = NULL;
	close_decoder(delivery);

	/* The WAL goes where it had no event, too, or where a batch has just been given up. */
	if (position <= current->delivered)
		return;
	delivery->outcome->position = position;
	if (events > 0)
	{
		delivery->outcome->events_dropped += events;
		current_dropped(current, position, events);
		delivery->current = delivery_load(delivery->connector_id);
	}
	else
		current_moved(current, position);
	decoder_confirm(position);
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
	delivery->target = decoder_wal_end();
	delivery->cutoff = GetCurrentTimestamp() - current->drop_after * 1000;
	if (current->batch.end != InvalidXLogRecPtr)
		drop_batch(delivery);
	if (!delivery->seen_younger)
		drop_events(delivery);
}

/* ---- a delivery ---- */

void
delivery_exclude_others(int64 connector_id)
{
	if (!advisory_lock_try_current(connector_id))
		ereport(ERROR, (errcode(ERRCODE_OBJECT_IN_USE),
						errmsg("connector \"%s\" is being delivered or launched",
							   delivery_load(connector_id)->connector->name),
						errhint("Try again when that has ended.  Nothing is lost meanwhile.")));
}

/* "reason": a sentence for people, which is recorded; "copy": this may be a copy of a server. */
COMPAT_NORETURN static void
raise_lost(Delivery *delivery, bool copy, const char *reason)
{
	const Current *current = delivery->current;

	current_lost(current, reason);
	delivery->current = NULL;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("connector \"%s\" has lost its place in the WAL", current->connector->name),
			 errdetail("%s", reason),
			 errhint("Launch the connector again with s3export.launch(), with copy_existing => "
					 "true where rows that were missed matter.%s",
					 copy ? "  If this server is a copy of another that goes on, give the "
							"connector a folder of its own first, with "
							"s3export.alter_connector()."
						  : "")));
}

/*
 * The slot is ours by its name, database and plugin.  It is the one that was launched,
 * and nobody has advanced it, if it has been told nothing beyond the position but what
 * deliveries themselves have recorded.
 */
static void
check_position(Delivery *delivery)
{
	const Current *current = delivery->current;
	XLogRecPtr     confirmed = decoder_confirmed();

	if (current->elsewhere)
	{
		current_upgraded(current, confirmed);
		return;
	}
	if (confirmed <= current->delivered || decoder_is_own(current->delivered, confirmed))
		return;
	decoder_release();
	raise_lost(
		delivery, false,
		psprintf("Replication slot \"%s\" has been advanced from %X/%X to %X/%X by somebody else; "
				 "the changes in between were not delivered.",
				 current->slot, LSN_FORMAT_ARGS(current->delivered), LSN_FORMAT_ARGS(confirmed)));
}

/* What is lost is recorded here, and is no failure besides. */
static void
acquire_slot(Delivery *delivery)
{
	const Current *current = delivery->current;

	switch (decoder_acquire(current_slot_name(current->connector->connector_id)))
	{
		case DECODE_SLOT_ACQUIRED:
			check_position(delivery);
			break;
		case DECODE_SLOT_INVALID:
			raise_lost(delivery, false,
					   psprintf("The server has removed WAL that had not been delivered, or has "
								"invalidated replication slot \"%s\" for another reason: see "
								"\"max_slot_wal_keep_size\" and pg_replication_slots.",
								current->slot));
		case DECODE_SLOT_MISSING:
			if (current->elsewhere)
			{
				current_skipped(current);
				delivery->current = NULL;
				current_refuse_delivery(current);
			}
			raise_lost(
				delivery, true,
				psprintf("Replication slot \"%s\" does not exist on this server, or another has "
						 "been put in its place.",
						 current->slot));
	}
}

/*
 * All has been read.  Where nothing was found but what deliveries themselves have recorded,
 * that is not recorded again and again: so after a second delivery the slots have consumed
 * all WAL, which pg_upgrade requires.
 */
static void
settle_idle_position(Delivery *delivery, TimestampTz since)
{
	XLogRecPtr position = delivery->outcome->position;
	Current   *current = delivery->current;

	if (delivery->outcome->events == 0 && current->failures == 0 &&
		current->last_delivery_at != 0 &&
		!TimestampDifferenceExceeds(current->caught_up_at, since, SETTLED_TIME) &&
		decoder_is_own(current->delivered, position))
	{
		decoder_confirm(position);
		return;
	}
	current_caught_up(current, position, since);
	decoder_confirm(decoder_is_own(position, XactLastCommitEnd) ? XactLastCommitEnd : position);
}

/* What a person has not launched, has paused or stopped: false.  Raises an error about the others. */
static bool
can_be_delivered(const Current *current)
{
	switch (current->state)
	{
		case CURRENT_RUNNING:
		case CURRENT_SUSPENDED:
		case CURRENT_ELSEWHERE: /* unless the slot has come along */
			return true;
		case CURRENT_CREATED:
		case CURRENT_PAUSED:
		case CURRENT_STOPPED:
			current_skipped(current);
			return false;
		default:
			current_skipped(current);
			current_refuse_delivery(current);
	}
}

/*
 * The end is read before anything else is known of the current but that it has its slot: what
 * is added later is committed later.  Each batch has what it allocates in a context of its own.
 */
static void
deliver_changes(Delivery *delivery)
{
	TimestampTz since = GetCurrentTimestamp();

	current_end_waits(delivery->current);
	delivery->target = decoder_wal_end();
	delivery->current = delivery_load(delivery->connector_id);
	delivery->outcome->position = delivery->current->delivered;
	if (delivery->current->state == CURRENT_SUSPENDED && !current_may_try(delivery->current))
		current_warn(delivery->current);
	while (current_may_try(delivery->current) &&
		   (delivery->outcome->position < delivery->target || owes_batch(delivery->current)))
	{
		/* So that no two batches end at one place, which names those without events. */
		if (delivery->outcome->position >= delivery->target)
			delivery->target = decoder_wal_end();
		current_check(delivery->current, false);
		run_batch(delivery);
		delivery->current = NULL;
		MemoryContextReset(delivery->context);
		delivery->current = delivery_load(delivery->connector_id);
	}
	close_decoder(delivery);
	if (delivery->outcome->position >= delivery->target)
		settle_idle_position(delivery, since);
}

/* What is wrong with state or slot is recorded here, and is no failure. */
static void
check_and_deliver(Delivery *delivery)
{
	Current *current = delivery_load(delivery->connector_id);

	if (!can_be_delivered(current))
	{
		delivery->current = current;
		return;
	}
	delivery->current = current;
	acquire_slot(delivery);
	deliver_changes(delivery);
}

void
delivery_catch_up(Delivery *delivery)
{
	acquire_slot(delivery);
	deliver_changes(delivery);
	current_moved(delivery->current, delivery->outcome->position);
	decoder_release();
	delivery->current = delivery_load(delivery->connector_id);
}

/* What a person or a shutdown did says nothing about the current. */
static bool
is_failure(const ErrorData *error)
{
	return error->sqlerrcode != ERRCODE_QUERY_CANCELED &&
		   error->sqlerrcode != ERRCODE_ADMIN_SHUTDOWN;
}

/*
 * That something is in use is said of the connector alone, which others deliver meanwhile: here
 * something else keeps it from being delivered.
 */
static void
record_failure(Delivery *delivery, ErrorData *error)
{
	bool suspends = error->sqlerrcode == ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION;

	if (error->sqlerrcode == ERRCODE_OBJECT_IN_USE)
		error->sqlerrcode = ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
	if (delivery->current == NULL || !is_failure(error))
		return;
	current_failed(delivery->current, error, suspends);
	if (suspends)
		look_at_clock(delivery);
}

void
delivery_attempt(Delivery *delivery, void (*work)(Delivery *delivery),
				 void (*undo)(Delivery *delivery, ErrorData *error))
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData *volatile error = NULL;

	delivery->context = AllocSetContextCreate(context, "s3export delivery", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(delivery->context);
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
	MemoryContextSwitchTo(context);
	if (error != NULL)
	{
		/* What the delivery had open is not to be used any more. */
		if (delivery->batch != NULL)
			batch_set_error(delivery->batch, error);
		delivery->batch = NULL;
		delivery->decoder = NULL;
		undo(delivery, error);
	}
	decoder_release();
	/* Whoever hears how this ended may begin another at once. */
	advisory_lock_release_current(delivery->connector_id);
	if (error != NULL)
		ReThrowError(error);
	delivery->outcome->state = pstrdup(current_state_name(delivery->current->state));
}

void
delivery_run(int64 connector_id, DeliveryOutcome *outcome)
{
	Delivery delivery = {.connector_id = connector_id, .outcome = outcome};

	delivery_exclude_others(connector_id);
	delivery_attempt(&delivery, check_and_deliver, record_failure);
}
