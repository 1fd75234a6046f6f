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
	CurrentTable *table;
	MemoryContext context; /* of this version; NULL: none has been seen yet */
	char         *folder;  /* "event_type=public.orders" */
	char         *name;    /* of the table, as file names have it */
	TupleDesc     desc;    /* of its events */
	int           ncolumns;
	AttrNumber   *attnums;   /* of the columns in the table */
	char        **names;     /* of the columns */
	bool          unchanged; /* the last column of events says which values are missing */

	TupleTableSlot *slot;
	DestReceiver   *receiver;
	StringInfoData  header;

	/* the file that events go to; NULL: the next event begins one */
	char      *file;
	int64      hour;   /* since 2000-01-01 */
	uint64     events; /* in it */
	bool       begun;  /* the uploader knows of it */
	dlist_node node;   /* of files that have begun */
	Batch     *batch;
} Target;

/* A table whose changes are decoded: a target itself, or a partition of one. */
typedef struct Source
{
	Oid         relid;   /* the hash table's key */
	uint64      seen;    /* the state of the relation cache that this is of */
	Target     *target;  /* NULL: its changes are no events */
	AttrNumber *attnums; /* of the target's columns in this table; 0: it has none such */
} Source;

/*
 * The source of a relation, as it is now.  Where the columns of its target have
 * changed, "changed" is called before the target takes the new version.
 */
extern void    batch_init_sources(void);
extern Source *batch_find_source(struct HTAB *sources, List *targets, Relation relation,
								 int operations, void (*changed)(Target *target));

/* The values of an event: they belong to the current context. */
extern void event_set_values(Target *target, const Source *source, Relation relation,
							 HeapTuple tuple, HeapTuple older);

/* Does an update change what tells the row from others?  Then "old" has its key. */
extern bool event_changes_identity(Relation relation, HeapTuple old, HeapTuple new);

#endif /* BATCH_INTERNAL_H */
