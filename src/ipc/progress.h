/*-------------------------------------------------------------------------
 *
 * progress.h
 *	  How far an export is: counted in shared memory, told to those who ask.
 *
 * The counters lie in the segment of the export's pipe.  Each is written by the
 * process that knows, without locks; whoever reads them disturbs nobody.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S3EXPORT_PROGRESS_H
#define S3EXPORT_PROGRESS_H

#include "port/atomics.h"
#include "utils/timestamp.h"

typedef enum ProgressPhase
{
	PROGRESS_STARTING,  /* credentials, and what is in the way of the object */
	PROGRESS_READING,   /* rows of the query come */
	PROGRESS_SENDING,   /* all rows are made */
	PROGRESS_COMPLETING /* the object is being put in place */
} ProgressPhase;

/* What the uploader waits for, or has last waited for. */
typedef enum ProgressWait
{
	PROGRESS_FOR_STORE,
	PROGRESS_FOR_ROWS
} ProgressWait;

typedef struct Progress
{
	Oid         owner;      /* the role that exports; set before there is a job_id */
	TimestampTz started_at; /* never changes */

	/* by scan processes */
	pg_atomic_uint64 rows;
	pg_atomic_uint64 bytes_made;    /* compressed, where that is asked for */
	pg_atomic_uint64 first_rows_at; /* 0: there are none yet */

	/* by the leader */
	pg_atomic_uint64 expected_rows; /* 0: unknown */

	/* by the uploader */
	pg_atomic_uint64 job_id;           /* 0: the job has no row */
	pg_atomic_uint64 bytes_sent;       /* those that S3 has acknowledged */
	pg_atomic_uint64 retry_at;         /* when all that can be done is to try again; 0: it is not */
	pg_atomic_uint32 parts;            /* acknowledged */
	pg_atomic_uint32 files;            /* in place */
	pg_atomic_uint32 files_made;       /* of which all rows are there, when they are to appear */
	pg_atomic_uint64 completing_since; /* 0: they are not yet */
	pg_atomic_uint32 retries;          /* requests sent again after a failure that can pass */
	pg_atomic_uint32 phase;
	pg_atomic_uint32 wait;
} Progress;

/* For whoever has made the segment, as the role that exports. */
extern void progress_init(Progress *progress);

/* A block is on its way from a scan process to the uploader. */
extern void progress_add_block(Progress *progress, uint64 rows, size_t bytes);

/* All rows are with the uploader: so many files are to appear. */
extern void progress_complete(Progress *progress, int files);

/* What a person is told.  Strings are constants, or palloc'd. */
typedef struct ProgressReport
{
	int64       job_id;
	Oid         owner;
	const char *phase;
	char       *waiting_for;
	int64       rows;
	int64       bytes_made;
	int64       bytes_sent;
	int         parts;
	int         files;
	int         files_made; /* to be put in place; 0: it is not known how many */
	int         retries;
	int64       rate;         /* bytes sent per second, since the first rows; -1: unknown */
	double      percent;      /* rows made, of those that the planner expects; -1: unknown */
	int64       seconds_left; /* if all goes on as it did; -1: unknown */
} ProgressReport;

extern void progress_report(Progress *progress, ProgressReport *report);

/* ---- the leader, who tells its own user ---- */

typedef struct ProgressDisplay
{
	Progress   *progress;
	Oid         relid;
	bool        notices;
	TimestampTz next_notice;
} ProgressDisplay;

/*
 * From here on the backend has a row in pg_stat_progress_copy, unless a command
 * around this one has it, and its client gets notices as s3export.progress_notice
 * says.  "relid" is the table that is exported; InvalidOid: it is a query.
 */
extern void progress_begin(ProgressDisplay *display, Progress *progress, Oid relid);

/*
 * To be called again and again: after each block, and before each wait.  Returns
 * how long the next wait may be: ms, or -1 for ever.
 */
extern long progress_update(ProgressDisplay *display);

/* Ends the display.  After an error the server does this itself. */
extern void progress_end(const ProgressDisplay *display);

#endif /* S3EXPORT_PROGRESS_H */
