/*-------------------------------------------------------------------------
 *
 * delivery_internal.h
 *	  What the files of the delivery module share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DELIVERY_INTERNAL_H
#define DELIVERY_INTERNAL_H

#include "currents/batch.h"
#include "currents/delivery.h"

typedef struct Delivery
{
	int64            connector_id;
	Current         *current; /* as it was before the batch */
	MemoryContext    context; /* of the batch, and of "current" */
	XLogRecPtr       target;  /* where this delivery ends */
	Decoder         *decoder; /* NULL: to be opened */
	Batch           *batch;
	TimestampTz      cutoff;       /* changes committed before it are dropped; 0: none */
	bool             seen_younger; /* a younger one has been seen */
	DeliveryOutcome *outcome;
	bool             records; /* errors, too */
	bool             copies;  /* of a launch: rows that are there */
	bool             begun;   /* of a launch: current_launching has been called */
	Oid              relid;   /* of the table that is added */
	XLogRecPtr       added;   /* when it was in the publication */
	Oid              userid;  /* who adds it */
} Delivery;

/* Loads the current as it is now; raises an error when there is none. */
extern Current *delivery_load(int64 connector_id);

/* What decides which events are in which file, with so many bytes of WAL to send. */
extern void
delivery_choose_settings(const Current *current, uint64 backlog, CurrentBatch *settings);

/*
 * Raises ERRCODE_OBJECT_IN_USE while somebody else delivers, launches, stops or drops it.  To be
 * called before the current is loaded, so that its position is what the slot was told last.
 */
extern void delivery_exclude_others(int64 connector_id);

/*
 * Within such work: sends all that has been committed by now, and gives up the slot.  Whatever is
 * sent later commits at delivery->current->delivered or after it.
 */
extern void delivery_catch_up(Delivery *delivery);

/*
 * Does the work, which acquires the slot, and gives up the slot and the exclusion of others;
 * an error is told to the uploader, recorded or undone by "undo", and raised again.
 */
extern void delivery_attempt(Delivery *delivery, void (*work)(Delivery *delivery),
							 void (*undo)(Delivery *delivery, ErrorData *error));

#endif /* DELIVERY_INTERNAL_H */
