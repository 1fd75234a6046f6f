/*-------------------------------------------------------------------------
 *
 * delivery_internal.h
 *	  What the files of the delivery module share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DELIVERY_INTERNAL_H
#define DELIVERY_INTERNAL_H

#include "batch.h"
#include "delivery.h"

typedef struct Delivery
{
	int64            connector_id;
	Current         *current; /* as it was before the batch */
	XLogRecPtr       target;  /* where this delivery ends */
	Decoder         *decoder; /* NULL: to be opened */
	Batch           *batch;
	TimestampTz      cutoff; /* changes committed before it are dropped; 0: none */
	bool             beyond; /* a younger one has been seen */
	DeliveryOutcome *outcome;
	bool             records; /* errors, too */
	bool             copies;  /* of a launch: rows that are there */
} Delivery;

/* As it is now; raises an error when there is none. */
extern Current *delivery_load(int64 connector_id);

/* What decides which events are in which file, with so many bytes of log to send. */
extern void
delivery_choose_settings(const Current *current, uint64 backlog, CurrentBatch *settings);

/*
 * Does the work with the slot acquired, or to be acquired by it, and gives the slot
 * up; an error is told to the uploader, recorded, and raised again.
 */
extern void delivery_attempt(Delivery *delivery, void (*work)(Delivery *delivery));

#endif /* DELIVERY_INTERNAL_H */
