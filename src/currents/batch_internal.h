/*-------------------------------------------------------------------------
 *
 * batch_internal.h
 *	  What the files of the batch module share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BATCH_INTERNAL_H
#define BATCH_INTERNAL_H

#include "access/attnum.h"
#include "lib/ilist.h"
#include "lib/stringinfo.h"
#include "nodes/execnodes.h"
#include "tcop/dest.h"
#include "utils/hsearch.h"
#include "utils/resowner.h"

#include "currents/batch.h"
#include "format/csv.h"
#include "ipc/pipe.h"

/* The columns that events have before those of the table; another one comes after them. */
enum
{
	EVENT_ID,
	EVENT_OPERATION,
	EVENT_COMMITTED_AT,
	EVENT_COLUMNS
};

/* "00000001-00000000016B3748-0000000001" */
#define EVENT_ID_LENGTH (8 + 1 + 16 + 1 + 10)

/* What events are called; the first are those of DecodeOperation. */
enum
{
	OPERATION_INSERT = DECODE_INSERT,
	OPERATION_UPDATE = DECODE_UPDATE,
	OPERATION_DELETE = DECODE_DELETE,
	OPERATION_TRUNCATE = DECODE_TRUNCATE,
	OPERATION_COPY,     /* the row is there */
	OPERATION_SNAPSHOT, /* only the rows that follow as OPERATION_COPY are there */
	OPERATION_ALTER,    /* the columns are others from here on */
	OPERATIONS
};

/* A table whose changes are events, in one version of its columns. */
typedef struct Target
{
	Oid           relid;
	CurrentTable  before;  /* the table as it was before the batch */
	CurrentTable *table;   /* and as it is now */
	MemoryContext context; /* of the columns as they are; NULL: they have not been looked at */
	char        *columns; /* described for comparison; table->columns are those of the last event */
	char        *name;    /* "public.orders", as folders have it */
	char        *schema;  /* the schema object, but for what is known with its first event */
	TupleDesc    desc;    /* of its events */
	int          ncolumns;
	AttrNumber  *attnums; /* of the columns in the table */
	char       **names;   /* of the columns in events */
	Bitmapset   *key;     /* of the table, as event_key() has it, or of its partitions */
	ExprState   *filter;  /* the publication's condition on rows; NULL: none */
	ExprContext *filter_context;
	TupleTableSlot *filter_slot; /* a row of the table */

	TupleTableSlot *slot;
	StringInfoData  meta; /* members of the event's _meta */
	DestReceiver   *receiver;
	StringInfoData  header;

	/* ALTER TABLE's rewrite whose rows came last; rewrite_lsn 0: something else came since */
	XLogRecPtr rewrite_lsn;  /* its transaction */
	Oid        rewrite;      /* DecodeChange's */
	bool       rewrite_sent; /* its rows are events */
	List      *rewritten;    /* OIDs of the relations that are sent since the snapshot */


	/* the file that events go to; NULL: the next event begins one */
	char       *file;
	int64       hour;   /* since 2000-01-01 */
	uint64      events; /* in it */
	char        first_id[EVENT_ID_LENGTH + 1];
	char        last_id[EVENT_ID_LENGTH + 1];
	bool        used;       /* there has been an event in the batch */
	bool        begun;      /* the uploader knows of it */
	Compressor *compressor; /* of a file that has begun; NULL: none */
	dlist_node  node;       /* of files that have begun */
	Batch      *batch;
} Target;

/* A table whose changes are decoded: a target itself, or a partition of one. */
typedef struct Source
{
	Oid         relid;      /* the hash table's key */
	uint64      seen;       /* publication_generation() that this is of */
	int         operations; /* that are events, OPERATION_BITs; 0: none, and there is no target */
	bool        withheld;   /* they are not sent, and told of */
	Target     *target;
	AttrNumber *attnums;    /* of the target table's columns, by their numbers there less 1, in this
						  * table; 0: it has none such */
	Bitmapset  *key;        /* attribute numbers of what tells rows apart; NULL: all columns */
	bool        identified; /* updates and deletes say which row of the target they are of */
} Source;

struct Batch
{
	const Current      *current;
	const CurrentBatch *settings;
	XLogRecPtr          start;
	bool                counts; /* and does nothing else */
	MemoryContext       context;
	MemoryContext       event_context;
	ResourceOwner       owner;

	/* batch_source.c */
	HTAB         *sources;          /* of Source, by relid */
	MemoryContext sources_context;  /* of the table and what its entries have */
	List         *targets;          /* of Target */
	Target       *copied;           /* the one whose rows are copied */
	int           versions;         /* given to columns of tables so far */
	Oid           publication;      /* 0: there was none at this place of the WAL */
	uint64        publication_seen; /* publication_generation() that this is of */

	/*
	 * Where the last transaction is that has changed what is published.  One whose first change
	 * is before that, the catalogs of which it sees, is older.
	 */
	XLogRecPtr changed;
	bool       older; /* the transaction is */

	/* batch_unpublished.c */
	HTAB         *unpublished; /* of Unpublished, by relid */
	MemoryContext unpublished_context;
	List         *passed;      /* OIDs of those that the transaction has changed */
	uint64        passed_seen; /* publication_generation() when it began */
	MemoryContext passed_context;

	/* batch_members.c: those of the transaction, by their OIDs */
	MemoryContext members_context;
	List         *members;             /* of Member */
	bool          looks;               /* one of them was published */
	uint64        members_seen;        /* publication_members() when the transaction began */
	Oid           members_publication; /* batch_find_publication(), if it changes relations */

	List  *withheld_tables; /* names (char *) */
	uint64 withheld;
	List  *gaps; /* of CurrentGap */

	DecodeTransaction transaction;
	uint64            number; /* of the last event of the transaction */
	TimestampTz       committed_at;
	uint64            rows_copied;
	uint64            events;

	/* batch_file.c */
	uint64          bytes; /* of CSV */
	uint64          files;
	char           *name;      /* _id of its first event; NULL: no event yet */
	char           *last_file; /* begun */
	CsvOptions     *csv;
	CompressOptions compression;
	Pipe           *pipe;  /* NULL: nothing has been sent */
	dlist_head      begun; /* used last is first */
	int             nbegun;

	text *operations[OPERATIONS];

	/* the identity of the event that is being written, as a text */
	union
	{
		int32 aligned;
		text  value;
		char  bytes[VARHDRSZ + EVENT_ID_LENGTH + 1];
	} id;
};

/* The row of a change, in the columns of its table. */
typedef struct EventRow
{
	Datum *values;
	bool  *nulls;
	bool  *missing; /* stored out of line and unchanged: the WAL does not have the value */
} EventRow;

/* ---- batch.c ---- */

/* Its columns are others than those of its last event: what of that readers cannot see is gaps. */
extern void batch_note_reasons(Batch *batch, const Target *target);

/* Readers of a table miss something, which they are told once for each reason. */
extern void batch_note_gap(Batch *batch, const char *table, const char *reason, bool told);

/* ---- batch_members.c ---- */

/*
 * Before the first change of a transaction, and after its last: what it makes readers miss is
 * gaps.  The second returns the OIDs of the tables that it has changed, and that are published.
 */
extern void  batch_begin_members(Batch *batch, const DecodeTransaction *transaction);
extern List *batch_end_members(Batch *batch, const DecodeTransaction *transaction);

/* ---- batch_unpublished.c ---- */

extern void batch_make_unpublished(Batch *batch);
extern void batch_begin_unpublished(Batch *batch);

/* A change of a relation that is not published is no event. */
extern void batch_pass_over(Batch *batch, const DecodeChange *change);

/*
 * OIDs of those that the transaction has changed, if one of them may be published by now; "all":
 * of all that have rows that are no events.
 */
extern List *batch_list_passed(const Batch *batch, bool all);

/* Notes that the batch has events of the table. */
extern void batch_note_sent(Batch *batch, Oid relid);

/* Have rows been written to it that are no events?  When that is told, it may be forgotten. */
extern bool batch_has_missed(const Batch *batch, Oid relid);
extern void batch_forget_missed(Batch *batch, Oid relid);

/* The transaction has made the relation, which is not published. */
extern void batch_note_birth(Batch *batch, Oid relid);

/*
 * A relation that is altered again and again has as many rows in the catalogs, and each look-up
 * passes all of them.  One that is no member of the publication, whatever is done to it, need
 * not be looked up, unless the transaction changes the publication, or a table that is
 * published: the relation may become its partition.
 */
extern void batch_note_outsider(Batch *batch, Oid relid);
extern bool batch_is_outsider(const Batch *batch, Oid relid);
extern void batch_forget_outsider(Batch *batch, Oid relid);

/* May it have rows, at the end of the transaction, that are no events?  "is_new": it has made it. */
extern bool batch_may_have_rows(const Batch *batch, Oid relid, bool is_new);

/* ---- batch_source.c ---- */

extern void batch_make_sources(Batch *batch);

/*
 * How changes of the relation are published, as the catalogs of the moment have it.  Valid
 * until the next call.
 */
extern Source *batch_find_source(Batch *batch, Relation relation);

/* The publication of this place in the WAL; 0: there is none. */
extern Oid batch_find_publication(Batch *batch);

/* A table as its last event has left it; NULL: nothing is known of it. */
extern const CurrentTable *batch_find_table(const Batch *batch, Oid relid);

/* The name that a table had when it was sent last; NULL: it was never sent. */
extern char *batch_name_sent(const Batch *batch, Oid relid);

/* The target of a table: get makes one when there is none yet, find returns NULL. */
extern Target *batch_get_target(Batch *batch, Oid relid);
extern Target *batch_find_target(const Batch *batch, Oid relid);

/* ---- batch_schema.c ---- */

/*
 * Describes the columns of events of a table in the current context: for comparison, and
 * as the schema object has them.  "key": as in Source, of this table.
 */
extern char *batch_describe_columns(const Batch *batch, Relation relation,
									const PublishedTable *published, const Bitmapset *key);
extern char *batch_describe_schema(const Batch *batch, const Target *target, Relation relation);

/* Are two such descriptions alike but for the format of the files? */
extern bool batch_is_same_table(const char *before, const char *now);

/*
 * Why rows that a reader has may not be as they would be sent now, though no event says so
 * (sentences, char *): from one description of a table to the next.
 */
extern List *batch_list_reasons(const char *before, const char *now);

/* Does an event have the column?  And how is it called there? */
extern bool  batch_has_column(const PublishedTable *published, Form_pg_attribute attribute);
extern char *batch_name_column(const char *name);

/*
 * The schema object of a target's version: where it is below the feed's folder, and what it is.
 * "previous": the version before, if it has columns.
 */
extern char *batch_schema_path(const Target *target);
extern char *
batch_schema_object(const Target *target, const CurrentTable *previous, const char *from_id);

/* ---- batch_file.c ---- */

/* Writes the event whose values of the table's columns are in the target's slot. */
extern void batch_put_event(Batch *batch, Target *target, int operation);

/* Before a target takes another version; and when there are no more events. */
extern void batch_end_file(Target *target);
extern void batch_end_files(Batch *batch);

/* What the batch object says of the batch, which ends at "end". */
extern void batch_send_description(Batch *batch, XLogRecPtr end);

/* In the _ids of its events. */
extern TimeLineID batch_timeline(const Batch *batch);

/* ---- batch_event.c ---- */

/*
 * Takes the row of a tuple apart, in the current context; "older" fills in what the
 * tuple does not have, and may be NULL.
 */
extern void event_read(EventRow *row, Relation relation, HeapTuple tuple, const EventRow *older);

/* Does the publication's condition let the row through? */
extern bool event_matches(const Target *target, const Source *source, const EventRow *row);

/*
 * The values of an event, and what _meta says of them; with "row" NULL they are all null.
 * "old": the row as it was, if its key is to be told.
 */
extern void
event_set_values(Target *target, const Source *source, const EventRow *row, const EventRow *old);
extern void event_set_copied(Target *target, TupleTableSlot *row);

/*
 * Values in the target's slot that no file can have go to _meta as bytes.  Returns the
 * columns (char *) of those that are too large for that, which are not sent.
 */
extern List *event_check_values(Target *target);

/*
 * What tells a relation's rows apart: attribute numbers, in the current context.  NULL: there is
 * nothing but all of its columns.
 */
extern Bitmapset *event_key(Relation relation);

/* Does an update change that? */
extern bool event_changes_key(Relation relation, const Bitmapset *key, const EventRow *old_row,
							  const EventRow *new_row);

/* Is there a value that the WAL does not have, in a column that the target has? */
extern bool event_lacks_values(const Target *target, const Source *source, const EventRow *row);

#endif /* BATCH_INTERNAL_H */
