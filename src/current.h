/*-------------------------------------------------------------------------
 *
 * current.h
 *	  The rows of currents: what a connector keeps flowing, how far it is, how it fares.
 *
 * A current is what a connector of kind 'currents' has besides being a connector:
 * tables, a replication slot, and a position in the write-ahead log up to which
 * everything has been delivered.  That position is this module's, committed
 * with what was delivered; the slot only keeps the log, and may lag behind.
 *
 * Functions that say so run and commit a transaction of their own, in the
 * background worker that delivers; all others belong to the caller's transaction.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CURRENT_H
#define CURRENT_H

#include "access/xlogdefs.h"
#include "nodes/pg_list.h"
#include "utils/timestamp.h"

#include "compress.h"
#include "connector.h"

/* Which changes are events; bits. */
#define CURRENT_INSERT 1
#define CURRENT_UPDATE 2
#define CURRENT_DELETE 4
#define CURRENT_TRUNCATE 8

typedef enum CurrentState
{
	CURRENT_CREATED, /* it has no slot yet */
	CURRENT_RUNNING,
	CURRENT_PAUSED,    /* by a person, or as its rows came from another server */
	CURRENT_SUSPENDED, /* S3 refuses its credentials; it is tried again */
	CURRENT_LOST       /* the server has removed log that was not delivered */
} CurrentState;

/* A table whose changes are events. */
typedef struct CurrentTable
{
	Oid   relid;
	int   version; /* of its columns, as last delivered; 0: none yet */
	char *columns; /* what that version consists of, for comparison; NULL: none yet */
	XLogRecPtr
		removed_lsn; /* changes committed from here on are no events any more; 0: it has not been removed */
} CurrentTable;

/*
 * What decides which events are in which file.  Kept from before the first file of
 * a batch can appear until all of them are known to be in place, so that a batch
 * that was interrupted is written again with the same names and the same contents.
 */
typedef struct CurrentBatch
{
	XLogRecPtr     end; /* every transaction that commits before it; 0: there is no such batch */
	int            operations;
	int            events_per_file;
	int            open_files; /* files that are written to at the same time */
	int            block_size; /* bytes of CSV */
	CompressMethod compression;
	List          *tables; /* of CurrentTable */
	uint64         events;
	TimestampTz    committed_at; /* of its last transaction */
} CurrentBatch;

typedef struct Current
{
	Connector     *connector;
	CurrentState   state;
	int            operations;
	CompressMethod compression;
	int            events_per_file;
	int64          drop_after;   /* ms; -1: never */
	List          *tables;       /* of CurrentTable, those being removed too */
	char          *database;     /* the name of this one */
	char          *slot;         /* NULL: none */
	bool           here;         /* it was launched on this server, in this database */
	XLogRecPtr     delivered;    /* 0: not launched */
	CurrentBatch   batch;        /* that was interrupted */
	TimestampTz    suspended_at; /* 0: credentials are in order */
	TimestampTz    next_try_at;  /* 0: at once */
	int            failures;     /* in a row, of whatever kind */
	int            warned;       /* percent of drop_after: 0, 50, 90, 100 */
	uint64         events_sent;
	uint64         events_dropped;
} Current;

/* What one batch has brought; for current_delivered. */
typedef struct CurrentProgress
{
	XLogRecPtr  position;     /* everything before it is delivered */
	TimestampTz committed_at; /* of the last transaction in it; 0: no event */
	uint64      events;
	int         files;
	uint64      bytes; /* as stored */
	int64       job_id;
	char       *last_file; /* its URI */
	List       *tables;    /* of CurrentTable: versions as they are now */
} CurrentProgress;

/* Has a suspended one been owing something for longer than drop_after? */
extern bool current_clock_has_run_out(const Current *current);

/*
 * Is S3 to be asked?  Of a suspended one when it is time; and always when the
 * clock has run out: nothing is dropped before it has been tried to send it.
 */
extern bool current_may_try(const Current *current);

/* The name of the slot of a connector's current; palloc'd. */
extern char *current_slot_name(int64 connector_id);

/* When drop_after is over for one that is suspended; the end of time: never. */
extern TimestampTz current_deadline(const Current *current);

/* As the view and messages name them: "running". */
extern const char *current_state_name(CurrentState state);

/* ---- in the session of a user: connectors of kind 'currents' alone ---- */

/* What create_connector and alter_connector say of a current; see current_args.h. */
typedef struct CurrentSettings
{
	bool        set_tables;      /* what is not set stays as it is, or gets its default */
	List       *tables;          /* OIDs */
	int         operations;      /* 0: not set */
	int         events_per_file; /* 0: not set */
	bool        set_drop_after;
	int64       drop_after;
	const char *compression; /* NULL: not set */
} CurrentSettings;

/*
 * The current user and the owner must own the tables, and they must be such that
 * their changes can be decoded; raises what CREATE PUBLICATION would.  What is not
 * set is as the connector's row has it, unless it is not saved yet.
 */
extern void current_check(Connector *connector, const CurrentSettings *settings, bool new_owner);

/* For settings that have been checked. */
extern void current_insert(const Connector *connector, const CurrentSettings *settings);
extern void current_update(const Connector *connector, const CurrentSettings *settings);

/* Removes the rows; the slot goes when the transaction commits. */
extern void current_delete(const Connector *connector);

/*
 * Whoever shares the credentials is tried again with the next delivery; "validated":
 * those of this connector are known to be right.  The connector may be of any kind.
 */
extern void current_wake(const Connector *connector, bool validated);

/* The base identity is another one: currents whose roles it assumes are tried again. */
extern void current_wake_roles(void);

/* Raise ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE when there is nothing to pause or resume. */
extern void current_pause(const Connector *connector);
extern void current_resume(const Connector *connector);

/*
 * As it is by now, whatever the transaction's snapshot, without its batch.  NULL when
 * it is gone and "missing_ok"; raises ERRCODE_UNDEFINED_OBJECT otherwise.
 */
extern Current *current_get(Connector *connector, bool missing_ok);

/*
 * Raises ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE when it has been launched and can go
 * on.  Drops, at once, a slot that is left of an earlier time.
 */
extern void current_prepare_launch(const Current *current);

/* Has this transaction changed rows that a delivery, too, would change, and wait for? */
extern bool current_is_locked_here(void);

/* Names (char *) of the connectors that deliver() is to serve for the current user, in order. */
extern List *current_list_due(void);

/* ---- in the worker: each in a transaction of its own ---- */

/* NULL: there is none of that id.  All that it returns is palloc'd in the current context. */
extern Current *current_load(int64 connector_id);

/* Raises ERRCODE_INSUFFICIENT_PRIVILEGE when the owner of the connector does not own a table any more. */
extern void current_require_tables(const Current *current);

/* The same for one that is launched; it goes on without the tables that have been dropped. */
extern void current_check_tables(const Current *current);

/* It has a slot from here on, and delivers what commits from "position" on. */
extern void
current_launched(const Current *current, XLogRecPtr position, const CurrentProgress *copied);

/* Before the first file of a batch can appear. */
extern void current_begin_batch(const Current *current, const CurrentBatch *batch);

/*
 * All files of a batch are in place: the position moves, versions and totals
 * grow, the batch is forgotten.  Whatever was wrong is over.
 */
extern void current_delivered(const Current *current, const CurrentProgress *progress);

/* Everything up to the target of this delivery is delivered: there is no lag. */
extern void current_caught_up(const Current *current, TimestampTz since);

/*
 * A delivery has failed.  "suspends": S3 refused the credentials, which starts the
 * clock of drop_after if it does not run yet.  What a person did (a cancelled
 * query, a shutdown) is no failure.
 */
extern void current_failed(const Current *current, const ErrorData *error, bool suspends);

/* The oldest events have been given up: "events" of them, up to "position". */
extern void current_dropped(const Current *current, XLogRecPtr position, uint64 events);

/* Warnings of the clock, when one is due: at 50 % and 90 %. */
extern void current_warn(const Current *current);

/* The server has removed log that was needed. */
extern void current_lost(const Current *current);

#endif /* CURRENT_H */
