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

/* As it is now; raises an error when there is none. */
extern Current *delivery_load(int64 connector_id);

/* What decides which events are in which file, with so many bytes of log to send. */
extern void
delivery_choose_settings(const Current *current, uint64 backlog, CurrentBatch *settings);

/* Records an error, outside of transactions, and gives up the slot; each may be NULL but the error. */
extern void delivery_fail(const Current *current, Batch *batch, const ErrorData *error);

#endif /* DELIVERY_INTERNAL_H */
