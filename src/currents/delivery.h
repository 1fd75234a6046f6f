/*-------------------------------------------------------------------------
 *
 * delivery.h
 *	  One delivery of a current, or its launch, in the worker that does it.
 *
 * Both raise errors after having recorded them, with the slot given up.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DELIVERY_H
#define DELIVERY_H

#include "currents/current.h"

typedef struct DeliveryOutcome
{
	char      *state; /* as it is now */
	uint64     events;
	int        files;
	uint64     bytes; /* as stored */
	uint64     events_dropped;
	XLogRecPtr position; /* everything that commits before it has been dealt with */
	char      *batch;    /* URI of the last batch's object; NULL: there was no batch */
} DeliveryOutcome;

/*
 * Sends all that has been committed by now.  Of a suspended current, drops what
 * is too old, warns, and sends nothing before it is to be tried again.  Raises
 * ERRCODE_OBJECT_IN_USE while another delivery is at it, and errors about a
 * current whose changes cannot be delivered.  A current that has been stopped by a person,
 * or never launched, is no error: outcome->state says so.
 */
extern void delivery_run(int64 connector_id, DeliveryOutcome *outcome);

/*
 * Makes the slot, and with "copy_existing" sends all rows that the tables have at
 * its position first.
 */
extern void delivery_launch(int64 connector_id, bool copy_existing, DeliveryOutcome *outcome);

/*
 * Adds a table to the publication of a current that is launched, as role "userid", and
 * sends the rows that it has.  Its changes are sent from the copy's position on.
 */
extern void delivery_add_table(int64 connector_id, Oid relid, Oid userid, DeliveryOutcome *outcome);

#endif /* DELIVERY_H */
