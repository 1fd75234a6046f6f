/*-------------------------------------------------------------------------
 *
 * decode.h
 *	  Committed changes, in commit order, from a replication slot of our own.
 *
 * The slot is acquired by decode_open or decode_create_slot, and released by
 * decode_close, by decode_release after an error, or when the process ends.
 * To be used outside of transactions, but for decode_create_slot; each decoded
 * transaction is replayed within one of its own, with the catalogs as they were
 * then.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S3EXPORT_DECODE_H
#define S3EXPORT_DECODE_H

#include "access/htup.h"
#include "access/xlogdefs.h"
#include "datatype/timestamp.h"
#include "utils/relcache.h"

typedef struct DecodeTransaction
{
	XLogRecPtr  lsn;      /* of its commit record */
	TimeLineID  timeline; /* that the record is on */
	TimestampTz committed_at;
} DecodeTransaction;

typedef enum DecodeOperation
{
	DECODE_INSERT,
	DECODE_UPDATE,
	DECODE_DELETE,
	DECODE_TRUNCATE
} DecodeOperation;

typedef struct DecodeChange
{
	const DecodeTransaction *transaction;
	DecodeOperation          operation;
	Relation                 relation;
	HeapTuple                old; /* NULL: the log has none */
	HeapTuple new;                /* NULL: as above */
} DecodeChange;

typedef struct DecodeSink
{
	/* Is anything of this transaction wanted?  It has "change" called for it then, and "commit". */
	bool (*begin)(void *arg, const DecodeTransaction *transaction);
	void (*change)(void *arg, const DecodeChange *change);
	void (*commit)(void *arg, const DecodeTransaction *transaction);
	void *arg;
} DecodeSink;

typedef struct Decoder Decoder;

/*
 * Acquires the slot; raises ERRCODE_OBJECT_IN_USE when somebody else has it.
 * False when there is no such slot, or when it has lost log that it needs.
 */
extern bool decode_acquire(const char *slot);

/*
 * With the slot acquired: all that commits at "start" or later, and not before
 * what decode_confirm has confirmed.  "sink" must live as long.
 */
extern Decoder *decode_open(XLogRecPtr start, const DecodeSink *sink);

/* Reads one record of the log, waiting for it if need be, and calls the sink for what it commits. */
extern void decode_next(Decoder *decoder);

/* Whatever commits before it has been read. */
extern XLogRecPtr decode_position(const Decoder *decoder);

/* What commits before "position" will not be asked for again: the server may remove its log. */
extern void decode_confirm(XLogRecPtr position);

/* The slot stays acquired. */
extern void decode_close(Decoder *decoder);

/* Gives the slot up; does nothing when there is none. */
extern void decode_release(void);

/*
 * With the slot acquired: how far the log is on disk, here and on the standbys
 * that "synchronized_standby_slots" names.
 */
extern XLogRecPtr decode_log_end(void);

/*
 * Makes the slot, which is gone after an error or a crash until decode_keep_slot.
 * Waits until all transactions that run now have ended, and so must be called
 * without one or, with "use_snapshot", as the first thing that a transaction
 * does, which is repeatable read: its snapshot is then what the changes begin
 * from.  Returns that position.
 */
extern XLogRecPtr decode_create_slot(const char *name, bool use_snapshot);
extern void       decode_keep_slot(void);

#endif /* S3EXPORT_DECODE_H */
