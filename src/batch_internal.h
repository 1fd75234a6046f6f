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

#include "batch.h"

/* The columns that events have before those of the table. */
enum
{
	EVENT_ID,
	EVENT_OPERATION,
	EVENT_COMMITTED_AT,
	EVENT_COLUMNS
};

/* "00000001-00000000016B3748-00000001" */
#define EVENT_ID_LENGTH (8 + 1 + 16 + 1 + 8)

/* A table whose changes are events, in one version of its columns. */
typedef struct Target
{
	Oid           relid;
	CurrentTable  before;  /* the table as it was before the batch */
	CurrentTable *table;   /* and as it is now */
	MemoryContext context; /* of the columns as they are; NULL: they have not been looked at */
	char        *columns; /* described for comparison; table->columns are those of the last event */
	char        *folder;  /* "event_type=public.orders" */
	char        *name;    /* of the table, as file names have it */
	TupleDesc    desc;    /* of its events */
	int          ncolumns;
	AttrNumber  *attnums;     /* of the columns in the table */
	char       **names;       /* of the columns in events */
	bool         unchanged;   /* the last column of events says which values are missing */
	ExprState   *filter;      /* the publication's condition on rows; NULL: none */
	char        *filter_text; /* what it is, for comparison; NULL: none */
	ExprContext *filter_context;
	TupleTableSlot *filter_slot; /* a row of the table */

	TupleTableSlot *slot;
	DestReceiver   *receiver;
	StringInfoData  header;

	/* the file that events go to; NULL: the next event begins one */
	char      *file;
	int64      hour;   /* since 2000-01-01 */
	uint64     events; /* in it */
	bool       used;   /* there has been an event in the batch */
	bool       begun;  /* the uploader knows of it */
	dlist_node node;   /* of files that have begun */
	Batch     *batch;
} Target;

/* A table whose changes are decoded: a target itself, or a partition of one. */
typedef struct Source
{
	Oid         relid;      /* the hash table's key */
	uint64      seen;       /* publication_generation() that this is of */
	int         operations; /* that are events, OPERATION_BITs; 0: none, and there is no target */
	bool        withheld;   /* they are not sent, and told of */
	Target     *target;
	AttrNumber *attnums; /* of the target table's columns, by their numbers there less 1, in this
						  * table; 0: it has none such */
} Source;

/* The row of a change, in the columns of its table. */
typedef struct EventRow
{
	Datum *values;
	bool  *nulls;
	bool  *missing; /* stored out of line and unchanged: the WAL does not have the value */
} EventRow;

/* ---- batch.c ---- */

/* The target of a table: get makes one when there is none yet, find returns NULL. */
extern Target *batch_get_target(Batch *batch, Oid relid);
extern Target *batch_find_target(const Batch *batch, Oid relid);

/* Before a target takes another version. */
extern void batch_end_file(Target *target);

/* ---- batch_source.c ---- */

/*
 * How the changes of a relation are published, as the catalogs of the moment have it.  What
 * it allocates for good is in "context"; the current context is for what may go.
 */
extern void batch_refresh_source(Batch *batch, Source *source, Relation relation, Oid publication,
								 Oid sender, MemoryContext context);

/* ---- batch_event.c ---- */

/*
 * Takes the row of a tuple apart, in the current context; "older" fills in what the
 * tuple does not have, and may be NULL.
 */
extern void event_read(EventRow *row, Relation relation, HeapTuple tuple, const EventRow *older);

/* Does the publication's condition let the row through? */
extern bool event_matches(const Target *target, const Source *source, const EventRow *row);

/* The values of an event; with "row" NULL they are all null. */
extern void event_set_values(Target *target, const Source *source, const EventRow *row);

/* Does an update change what tells the row from others?  Then "old" has its key. */
extern bool
event_changes_identity(Relation relation, const EventRow *old_row, const EventRow *new_row);

#endif /* BATCH_INTERNAL_H */
