/*-------------------------------------------------------------------------
 *
 * job.h
 *	  Job and file rows: what was asked for, what became of it.
 *
 * Each function runs and commits a transaction of its own, in the uploader,
 * so that rows stay whatever the caller's transaction does.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JOB_H
#define JOB_H

#include "nodes/pg_list.h"
#include "utils/timestamp.h"

typedef struct JobRequest
{
	int64       job_id; /* of a queued job; 0: a new one */
	Oid         owner;  /* the role that the query runs as */
	int64       connector_id;
	const char *connector;
	const char *source; /* the query, or the table's name */
	const char *path;   /* as asked for; NULL: a name is made */
	int         leader_pid;
	uint32      pipe; /* pipe_handle */
} JobRequest;

typedef enum JobState
{
	JOB_SUCCEEDED,
	JOB_FAILED,
	JOB_CANCELLED
} JobState;

typedef struct JobTotals
{
	uint64 rows;
	uint64 bytes;
	int    files;
	int    attempts; /* requests that carried data or changed something */
	char  *uri;      /* of the file, or of the folder of all; NULL: as job_begin was told */
} JobTotals;

/* Strings are the caller's; those of the key and the URI are in the database's encoding. */
typedef struct JobFile
{
	int         number; /* from 1; 0: the manifest */
	const char *key;
	const char *uri;
	const char *upload_id; /* NULL: one PutObject */
	const char *token;     /* in the object's metadata */
	bool        begun;     /* has its row */
	uint64      rows;
	uint64      bytes;
	int         parts;
	const char *etag;   /* NULL: none */
	const char *crc32c; /* base64, as S3 writes it; NULL: not computed */
} JobFile;

/* A new id, which may become part of the object's name. */
extern int64 job_new_id(void);

/* Makes the row of a new job, or takes over that of a queued one. */
extern void job_begin(int64 job_id, const JobRequest *request, const char *uri);

/* Committed before the first part is sent, so that a crash leaves its trace. */
extern void job_file_begin(int64 job_id, JobFile *file);

/* From here on the files (a list of JobFile) may appear at any moment. */
extern void job_set_completing(int64 job_id, List *files);

/* The files are those that were put in place. */
extern void job_succeed(int64 job_id, const JobTotals *totals, List *files);

/* These are in place, whatever becomes of the others. */
extern void job_files_done(int64 job_id, List *files);

/*
 * A file keeps its upload_id if its upload could not be aborted, and its state
 * if it has been put in place.  "aborted" has the numbers of the others.
 */
extern void job_fail(int64 job_id, JobState state, const JobTotals *totals, const ErrorData *error,
					 List *aborted);

#endif /* JOB_H */
