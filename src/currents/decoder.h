/*-------------------------------------------------------------------------
 *
 * decoder.h
 *	  Committed changes, in commit order, from a replication slot of our own.
 *
 * The slot is acquired by decoder_open or decoder_create_slot, and released by
 * decoder_close, by decoder_release after an error, or when the process ends.
 * To be used outside of transactions, but for decoder_create_slot; each decoded
 * transaction is replayed within one of its own, with the catalogs as they were
 * then.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S3EXPORT_DECODE_H
#define S3EXPORT_DECODE_H

#include "access/htup.h"
#include "access/transam.h"
#include "access/xlogdefs.h"
#include "datatype/timestamp.h"
#include "utils/relcache.h"

typedef struct DecodeTransaction
{
	XLogRecPtr  lsn;          /* of its commit record */
	XLogRecPtr  base;         /* of its first change, whose catalogs it begins with */
	TimeLineID  timeline;     /* that the record is on */
	TimestampTz committed_at; /* on this server, also where it was replicated from another */

	/* Relations whose rows in the catalogs it changes, ascending, once each; if 0 is first: all */
	const Oid *changed;
	int        nchanged;

	/* Its own ID, and those of its subtransactions, ascending */
	TransactionId        xid;
	const TransactionId *subxids;
	int                  nsubxids;
} DecodeTransaction;

typedef enum DecodeOperation
{
	DECODE_INSERT,
	DECODE_UPDATE,
	DECODE_DELETE,
	DECODE_TRUNCATE,
	DECODE_REWRITE /* a row that ALTER TABLE has written anew, as all others of its relation */
} DecodeOperation;

typedef struct DecodeChange
{
	const DecodeTransaction *transaction;
	DecodeOperation          operation;
	Relation                 relation;
	HeapTuple                old_row; /* NULL: the WAL has none */
	HeapTuple                new_row; /* NULL: the WAL has none */
	Oid                      rewrite; /* one rewrite of one relation; 0: it is none */
	bool                     moves; /* the rewrite is of this relation alone, and changes no row */
	const Oid               *truncated; /* all relations that are truncated with this one */
	int                      ntruncated;
} DecodeChange;

typedef struct DecodeSink
{
	/* Is anything of this transaction wanted?  Then "change" is called for its changes. */
	bool (*begin)(void *arg, const DecodeTransaction *transaction);
	void (*change)(void *arg, const DecodeChange *change);

	/* Is called after the last change of a wanted transaction, with the catalogs as the transaction leaves them. */
	void (*end)(void *arg, const DecodeTransaction *transaction);
	void *arg;

	/* Transactions that logical replication has brought from other servers are passed over. */
	bool local_only;
} DecodeSink;

typedef struct Decoder Decoder;

/* Is a transaction ID that of the transaction that is replayed, or of a subtransaction of it? */
extern bool decoder_is_of(const DecodeTransaction *transaction, TransactionId xid);

typedef enum DecodeSlot
{
	DECODE_SLOT_ACQUIRED,
	DECODE_SLOT_MISSING, /* there is none, or it is of another database or output plugin */
	DECODE_SLOT_INVALID  /* the server has removed WAL that it needs */
} DecodeSlot;

/* Acquires the slot if it can be used; raises ERRCODE_OBJECT_IN_USE when somebody else has it. */
extern DecodeSlot decoder_acquire(const char *name);

/* With the slot acquired: what it has been told last by decoder_confirm, or by somebody else. */
extern XLogRecPtr decoder_confirmed(void);

/*
 * Are all transactions of this database that commit between "from" and "to" ones that only
 * keep the extension's own rows (catalog_settle_session)?  False also where the two
 * are too far apart to look.
 */
extern bool decoder_is_own(XLogRecPtr from, XLogRecPtr to);

/*
 * With the slot acquired: all that commits at "start" or later, and not before
 * what decoder_confirm has confirmed.  "sink" must live as long.
 */
extern Decoder *decoder_open(XLogRecPtr start, const DecodeSink *sink);

/* Reads one record of the WAL, waiting for it if need be, and calls the sink for what it commits. */
extern void decoder_next(Decoder *decoder);

/* Whatever commits before it has been read. */
extern XLogRecPtr decoder_position(const Decoder *decoder);

/* The timeline that a position is on. */
extern TimeLineID decoder_timeline(const Decoder *decoder, XLogRecPtr position);

/* What commits before "position" will not be asked for again: the server may remove its WAL. */
extern void decoder_confirm(XLogRecPtr position);

/*
 * Forgets what is cached of the catalogs.  What is decoded next then depends on the WAL from
 * here on alone, as when it is decoded again from here.
 */
extern void decoder_forget_catalogs(void);

/* The slot stays acquired. */
extern void decoder_close(Decoder *decoder);

/* Gives the slot up; does nothing when there is none. */
extern void decoder_release(void);

/*
 * With the slot acquired: how far the WAL is on disk, here and on the standbys
 * that "synchronized_standby_slots" names.
 */
extern XLogRecPtr decoder_wal_end(void);

/*
 * Makes the slot, which is gone after an error or a crash until decoder_keep_slot.
 * Waits until all transactions that run now have ended, and so must be called
 * without one or, with "use_snapshot", as the first thing that a transaction
 * does, which is repeatable read: its snapshot is then what the changes begin
 * from.  Returns that position.
 */
extern XLogRecPtr decoder_create_slot(const char *name, bool use_snapshot);
extern void       decoder_keep_slot(void);

/*
 * Does the slot that is acquired need more WAL than max_slot_wal_keep_size lets the server keep?
 * False also without a slot.
 */
extern bool decoder_needs_too_much(void);

/* Drops the slot that is acquired; does nothing when there is none. */
extern void decoder_drop_slot(void);

/* Drops a slot of that name that nobody uses, if it is ours: what is left of an earlier launch. */
extern void decoder_discard(const char *name);

#endif /* S3EXPORT_DECODE_H */
