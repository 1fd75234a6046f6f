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

#include "utils/timestamp.h"

typedef struct JobRequest
{
	Oid         owner; /* the role that the query runs as */
	int64       connector_id;
	const char *connector;
	const char *source; /* the query, or the table's name */
	const char *bucket;
	int         leader_pid;
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
} JobTotals;

typedef struct JobFile
{
	const char *uri;
	uint64      rows;
	uint64      bytes;
	int         parts;
	const char *etag;   /* NULL: none */
	const char *crc32c; /* base64, as S3 writes it; NULL: not computed */
} JobFile;

/* A new id, which may become part of the object's name. */
extern int64 job_new_id(void);

extern void job_begin(int64 job_id, const JobRequest *request, const char *key, const char *uri);

/* Committed before the first part is sent, so that a crash leaves its trace. */
extern void job_set_upload_id(int64 job_id, const char *upload_id);

/* From here on the object may appear at any moment. */
extern void job_set_completing(int64 job_id);

/* "file" is NULL when no object was made. */
extern void job_succeed(int64 job_id, const JobTotals *totals, const JobFile *file);

/*
 * "upload_left" says that the multipart upload could not be aborted: its id
 * stays in the row.
 */
extern void job_fail(int64 job_id, JobState state, const JobTotals *totals, const ErrorData *error,
					 bool upload_left);

#endif /* JOB_H */
