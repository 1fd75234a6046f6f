/*-------------------------------------------------------------------------
 *
 * current_worker.h
 *	  Deliveries, launches and copies of tables, for the sessions that ask for them.
 *
 * Each is done by a background worker, in transactions of its own.  Its errors
 * are raised in the session; when the session gives up, so does the worker.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CURRENT_WORKER_H
#define CURRENT_WORKER_H

#include "currents/delivery.h"

/* Have a worker do what delivery_run, delivery_launch and delivery_add_table do, for the current user. */
extern void current_worker_deliver(int64 connector_id, DeliveryOutcome *outcome);
extern void current_worker_launch(int64 connector_id, bool copy_existing, DeliveryOutcome *outcome);
extern void current_worker_add_table(int64 connector_id, Oid relid, DeliveryOutcome *outcome);

#endif /* CURRENT_WORKER_H */
