/*-------------------------------------------------------------------------
 *
 * current.h
 *	  The rows of currents: what a connector keeps flowing, how far it is, how it fares.
 *
 * A current is what a connector of kind 'currents' has besides being a connector:
 * a publication, whose changes it sends, a replication slot, and a position in the
 * WAL up to which everything has been delivered.  The position is kept here and
 * committed with what was delivered.  The slot only keeps the WAL: it is told a
 * position after that has been committed, and so is never ahead of it.
 *
 *	  created --launch--> launching --> running <--> suspended
 *	  running, suspended --pause--> paused --resume--> running
 *	  any but created --stop--> stopped --launch--> ...
 *	  running, suspended --the slot is gone--> lost --launch--> ...
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

#include "base/compat.h"
#include "currents/publication.h"
#include "format/compress.h"
#include "tables/connector.h"

typedef enum CurrentState
{
	CURRENT_CREATED,   /* it has never been launched in this database */
	CURRENT_LAUNCHING, /* the files of its copy may be appearing */
	CURRENT_RUNNING,
	CURRENT_PAUSED,    /* by a person */
	CURRENT_STOPPED,   /* by a person, who gave the slot back */
	CURRENT_SUSPENDED, /* S3 refuses its credentials; it is tried again */
	CURRENT_LOST,      /* changes that were not delivered cannot be read any more */

	/* not stored, but seen when the row is read */
	CURRENT_ELSEWHERE, /* it was launched on another server or in another database */
	CURRENT_ORPHANED   /* the role that owned the connector does not exist */
} CurrentState;

/* A table whose changes are, or have been, events. */
typedef struct CurrentTable
{
	Oid        relid;
	int        version;   /* of its columns, as last delivered; 0: none yet */
	char      *columns;   /* what that version consists of, for comparison; NULL: none yet */
	XLogRecPtr added_lsn; /* it joined the publication with its rows; 0: it did not */
	XLogRecPtr since_lsn; /* what commits from added_lsn to here is in the copy, and no event */
} CurrentTable;

/* How files are written, besides what all of them have in common. */
typedef struct CurrentFormat
{
	bool  header;
	char *null_print;
	bool  force_quote; /* of all values that are not null */
} CurrentFormat;

/*
 * What decides which events are in which file.  Kept from before the first file of
 * a batch can appear until all of them are known to be in place, so that a batch
 * that was interrupted is written again with the same names and the same contents.
 */
typedef struct CurrentBatch
{
	XLogRecPtr     end; /* every transaction that commits before it; 0: there is no such batch */
	int            events_per_file;
	int            open_files; /* files that are written to at the same time */
	int            block_size; /* bytes of CSV */
	CompressMethod compression;
	CurrentFormat  format;
	int64          last_gap; /* of Current's gaps, that its object tells */
	List          *tables;   /* of CurrentTable, as before the batch */
	int            versions; /* given to columns of tables before the batch */
	uint64         events;
	TimestampTz    committed_at; /* of its last transaction */
	Oid            sender;       /* whose rights decide which changes are sent, but for */
	List          *sendable; /* tables (OIDs) whose owners have been checked as they are today */
} CurrentBatch;

/* What readers may have missed. */
typedef struct CurrentGap
{
	int64 gap_id;
	char *table; /* as folders have it; NULL: all */
	char *reason;
	bool  told; /* in another way to whoever delivers */
} CurrentGap;

typedef struct Current
{
	Connector     *connector;
	char          *database; /* the name of this one */
	char          *publication;
	bool           owns_publication; /* the connector made it, and drops it */
	CompressMethod compression;
	int            events_per_file;
	int64          drop_after; /* ms; -1: never */
	char          *feed;       /* the folder within the connector's */
	bool           local_only; /* nothing that was replicated from elsewhere */
	CurrentFormat  format;
	int64          heartbeat; /* ms; -1: none */
	int            versions;  /* given to columns of tables so far */

	/* of the launch */
	CurrentState state;
	char        *slot;            /* NULL: none */
	bool         elsewhere;       /* the row was written on another server or in another database */
	Oid          publication_oid; /* at the position; 0: to be found by the name */
	Oid          next_publication_oid; /* that has taken its place, further on; 0: none */
	Oid          published;            /* as current_check found it */
	List        *relids;               /* OIDs of its tables and their partitions then */
	XLogRecPtr   delivered;            /* 0: it has no slot */
	TimestampTz  caught_up_at;         /* all that had been committed then is delivered; 0: never */
	TimestampTz  last_delivery_at;     /* 0: never */
	int          timelines;            /* to be added to the server's, so that _ids go on growing */
	List        *tables;               /* of CurrentTable, those that have a version or a copy */
	int          ntables;              /* in the publication, when they were last looked at */
	char        *last_batch;           /* the name of its object; NULL: none is in the folder */
	TimestampTz  last_batch_at;
	List        *gaps;         /* of CurrentGap, in the order of their ids */
	CurrentBatch batch;        /* that was interrupted */
	TimestampTz  suspended_at; /* 0: credentials are in order */
	TimestampTz  next_try_at;  /* 0: at once */
	int          failures;     /* in a row, of whatever kind */
	int          warned;       /* percent of drop_after: 0, 50, 90, 100 */
	bool         has_sent;     /* files of its own are in the folder */
	uint64       events_dropped;
} Current;

/* What one batch has brought; for current_delivered. */
typedef struct CurrentProgress
{
	XLogRecPtr  position;     /* everything before it is delivered */
	TimestampTz committed_at; /* of the last transaction in it; 0: no event */
	uint64      copied;       /* of the events, rows of a copy */
	uint64      events;
	int         files;
	uint64      bytes; /* as stored */
	int64       job_id;
	char       *last_file; /* its URI; NULL: there is none */
	char       *batch;     /* the name of its object */
	char       *batch_uri; /* its URI */
	int64       last_gap;  /* of Current's gaps, that it has told */
	List       *tables;   /* of CurrentTable: versions as they are now, of the tables with events */
	int         versions; /* given to columns of tables by now */
	int         timeline; /* in the _id of the last event */
} CurrentProgress;

/* Has a suspended current been owing something for longer than drop_after? */
extern bool current_clock_has_run_out(const Current *current);

/*
 * Is S3 to be asked by a delivery?  Of a suspended current when it is time; and always when
 * the clock has run out: nothing is dropped before it has been tried to send it.
 */
extern bool current_may_try(const Current *current);

/* The name of the slot of a connector's current; palloc'd. */
extern char *current_slot_name(int64 connector_id);

/* The time at which drop_after is over for a suspended current; DT_NOEND: never. */
extern TimestampTz current_deadline(const Current *current);

/* The state's name in views and messages, such as "running". */
extern const char *current_state_name(CurrentState state);

/* Raises the error that says why a current in this state is not delivered, and what to do. */
COMPAT_NORETURN extern void current_refuse_delivery(const Current *current);

/* ---- in the session of a user: connectors of kind 'currents' alone ---- */

/* What create_connector and alter_connector say of a current; see current_args.h. */
typedef struct CurrentSettings
{
	bool        set_tables;      /* what is not set stays as it is, or gets its default */
	List       *tables;          /* OIDs */
	char       *publication;     /* NULL: not set */
	int         operations;      /* OPERATION_BITs; 0: not set */
	int         events_per_file; /* 0: not set */
	bool        set_drop_after;
	int64       drop_after;
	const char *compression; /* NULL: not set; so are feed, origin and null_print */
	const char *feed;
	const char *origin;
	bool        set_header;
	bool        header;
	const char *null_print;
	bool        set_force_quote;
	bool        force_quote;
	bool        set_heartbeat;
	int64       heartbeat; /* ms; -1: none */
} CurrentSettings;

/*
 * Saves the settings of a connector that has just been saved itself, and makes a publication
 * for it unless the settings name one.  Raises what CREATE PUBLICATION would, and
 * errors about tables whose changes cannot be sent.
 */
extern void current_insert(Connector *connector, const CurrentSettings *settings);

/*
 * Changes the settings, and the connector's own publication; with "new_owner" the publication
 * follows the connector to its owner.
 */
extern void current_update(Connector *connector, const CurrentSettings *settings, bool new_owner);

/*
 * The connector has another bucket or folder: there, everything begins anew.  Raises
 * ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE while a batch has files in the one that it had.
 */
extern void current_move(Connector *connector);

/*
 * Removes the rows and the connector's own publication; the slot goes when the
 * transaction commits.  Raises ERRCODE_OBJECT_IN_USE during a delivery.
 */
extern void current_delete(Connector *connector);

/*
 * Currents that share the connector's credentials are tried again with the next delivery;
 * "validated": those of this connector are known to be right.  It may be of any kind.
 */
extern void current_wake(const Connector *connector, bool validated);

/* The base identity is another one: currents whose roles it assumes are tried again. */
extern void current_wake_roles(void);

/* Raise ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE when there is nothing to pause, resume or stop. */
extern void current_pause(Connector *connector);
extern void current_resume(Connector *connector);

/* Gives the slot back when the transaction commits.  Raises ERRCODE_OBJECT_IN_USE during a delivery. */
extern void current_stop(Connector *connector);

/*
 * The current as it is by now, whatever the transaction's snapshot, without its batch.
 * NULL when it is gone and "missing_ok"; raises ERRCODE_UNDEFINED_OBJECT otherwise.
 */
extern Current *current_get(Connector *connector, bool missing_ok);

/* What can be made of a current's slot, seen from outside of it. */
typedef enum CurrentSlot
{
	CURRENT_SLOT_NONE, /* there is none of that name, or it is not of this extension and database */
	CURRENT_SLOT_LOST, /* the server has removed WAL that it needs */
	CURRENT_SLOT_USABLE
} CurrentSlot;

extern CurrentSlot current_find_slot(int64 connector_id);

/* Raises ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE when it has been launched and can go on. */
extern void current_require_not_launched(const Current *current);

/*
 * Raises an error unless owner, publication and tables are such that the changes can be
 * read and sent.  Also in the worker, within a transaction.
 */
extern void current_require_sendable(const Current *current);

/* Adds a table to the publication, or removes it, as the current user. */
extern void current_add_table(const Current *current, Oid relid);
extern void current_remove_table(const Current *current, Oid relid);

/* Has this transaction changed rows that a delivery, too, would change, and wait for? */
extern bool current_is_locked_here(void);

/* A current that deliver() meets. */
typedef struct CurrentDue
{
	int64 connector_id;
	char *name;
	bool  due;     /* false: it failed, and it is not time yet to try it again */
	char *state;   /* as current_state_name */
	char *message; /* of its last failure; NULL: none */
} CurrentDue;

/*
 * The currents (CurrentDue *) that deliver() meets for the current user: first those
 * that did not fail last time, each group by name.
 */
extern List *current_list(void);

/* ---- in the worker: each in a transaction of its own ---- */

/* NULL: there is none of that id.  All that it returns is palloc'd in the current context. */
extern Current *current_load(int64 connector_id);

/*
 * current_require_sendable, and compares the tables of the publication with those
 * that it had: what came, went, was renamed or attached with rows is recorded as an
 * event, and warned of where changes will be missing.  "first": there is nothing to
 * compare with.  Sets current->published and current->ntables.
 */
extern void current_check(Current *current, bool first);

/*
 * The current has a slot, and delivers what commits from "position" on.  "sends": the files of
 * the copy may appear from here on; otherwise the launch is done.  Without "copies", readers
 * miss the rows that are there.
 */
extern void current_launching(const Current *current, XLogRecPtr position, bool copies, bool sends);

/* The files of the copy are in place. */
extern void current_launched(const Current *current, const CurrentProgress *copied);

/* The launch has failed after current_launching: the current has no slot any more. */
extern void current_launch_failed(const Current *current, const ErrorData *error);

/* A table, or a partition of a table, that a copy reads. */
typedef struct CurrentSourceTable
{
	Oid   relid;
	Oid   filenode; /* 0: it stores no rows itself */
	char *name;     /* qualified and quoted */
	char *filter;   /* the publication's condition on rows; NULL: none */
	bool  copied;   /* its rows are asked for by its own name */
} CurrentSourceTable;

/*
 * In a transaction, as its snapshot has them: the tables of the publication, or of those only
 * table "joined" and what is below it, with their partitions.
 */
extern List *current_source_tables(const Current *current, Oid joined);

/* Is the table stored in the file that it was stored in?  As the catalog is now. */
extern bool current_is_stored_in(Oid relid, Oid filenode);

/* Raises ERRCODE_DUPLICATE_OBJECT when the publication has the table, or one below it. */
extern void current_require_unpublished(const Current *current, Oid relid);

/*
 * How a table joins with its rows: before it is added to the publication; before the files
 * of the copy of it, and of all tables below it, can appear; when they are in place.  Changes
 * that commit between "added" and "position" are in the copy.
 */
extern void current_begin_table(const Current *current, Oid relid);
extern void
current_table_copying(const Current *current, Oid relid, XLogRecPtr added, XLogRecPtr position);
extern void current_table_copied(const Current *current, Oid relid, XLogRecPtr position,
								 const CurrentProgress *copied);

/*
 * The copy has failed, and the table has left the publication; or it never joined.  What was
 * published since "added", by transactions that may still run, is never sent.
 */
extern void
current_table_failed(const Current *current, Oid relid, XLogRecPtr added, const ErrorData *error);
extern void current_forget_table(const Current *current, Oid relid);

/*
 * Looks whether the transactions have ended that current_table_failed speaks of: before a
 * delivery reads how far the WAL is.
 */
extern void current_end_waits(const Current *current);

/* Records that version numbers up to "versions" are given; call it before a file with one appears. */
extern void current_take_versions(const Current *current, int versions);

/*
 * Before the first file of a batch can appear.  Also records "gaps" (CurrentGap *), which its
 * changes have, and warns of them; sets current->gaps and the batch's last_gap: all that its
 * object is to tell.
 */
extern void
current_begin_batch(Current *current, CurrentBatch *batch, List *gaps, MemoryContext context);

/*
 * All files of a batch are in place: the position moves, versions and totals
 * grow, the batch is forgotten.  Whatever was wrong is over.
 */
extern void current_delivered(const Current *current, const CurrentProgress *progress);

/* Records that nothing was to be delivered up to "position". */
extern void current_moved(const Current *current, XLogRecPtr position);

/* Everything up to "position", where this delivery ends, is delivered: there is no lag. */
extern void current_caught_up(const Current *current, XLogRecPtr position, TimestampTz since);

/* Records that pg_upgrade has brought the current here; its slot begins at "position". */
extern void current_upgraded(const Current *current, XLogRecPtr position);

/*
 * A delivery has failed.  "suspends": S3 refused the credentials, which starts the
 * clock of drop_after if it does not run yet.  What a person did (a cancelled
 * query, a shutdown) is no failure.
 */
extern void current_failed(const Current *current, const ErrorData *error, bool suspends);

/* A delivery has met it in a state in which nothing is sent. */
extern void current_skipped(const Current *current);

/* A batch that was interrupted, and has no events up to "position", is not to be written again. */
extern void current_forget_batch(const Current *current, XLogRecPtr position);

/* Warns of gaps (CurrentGap *) that this delivery has found, and records that the next batch tells them. */
extern void current_keep_gaps(const Current *current, List *gaps);

/* Rows of tables that the publication's owner did not own were not sent. */
extern void current_withheld(const Current *current, List *tables, uint64 events);

/* The oldest events have been given up: "events" of them, up to "position". */
extern void current_dropped(const Current *current, XLogRecPtr position, uint64 events);

/* Warnings of the clock, when one is due: at 50 % and 90 %. */
extern void current_warn(const Current *current);

/* Changes that were not delivered cannot be read any more: "reason" says why. */
extern void current_lost(const Current *current, const char *reason);

#endif /* CURRENT_H */
