/*-------------------------------------------------------------------------
 *
 * job.h
 *	  Job and file rows: what was asked for, what became of it.
 *
 * Each function runs and commits a transaction of its own, in the uploader,
 * so that rows stay whatever the caller's transaction does.
 *
 * On a standby, which can record nothing, a job has the id JOB_UNRECORDED: the
 * functions do nothing then.
 *
 *	  queued --claimed--> running --all files sent--> completing --> succeeded
 *	    ^                    |                             |
 *	    +---- retry_for -----+-----------> failed, cancelled
 *
 * Recovery relies on the order of what is committed.  A job is 'running' only
 * while somebody holds its advisory lock (advisory_lock.h).  A file has its row, with its
 * upload's id, before its first part is sent; a file is 'completing' only when
 * its job is, and a job only when all of its rows have been taken, so that one
 * whose files are all in place has succeeded.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JOB_H
#define JOB_H

#include "nodes/pg_list.h"
#include "utils/timestamp.h"

#include "tables/row_mac.h"

#define JOB_UNRECORDED 0

typedef struct JobRequest
{
	int64       job_id; /* of a queued job; 0: a new one */
	Oid         owner;  /* the role that the query runs as */
	int64       connector_id;
	const char *connector;
	const char *endpoint_url; /* NULL: AWS */
	const char *source;       /* the query, or the table's name */
	const char *path;         /* as asked for; NULL: a name is made */
	const char *first_key;    /* of the first file, without its partition */
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
	int64       job_id; /* JOB_UNRECORDED: there is no row */
	uint64      rows;
	uint64      bytes;
	int         files;
	int         requests; /* that carried data or changed something */
	char       *uri;      /* of the file, or of the folder of all; NULL: as job_begin was told */
	const char *manifest_uri; /* NULL: none; not in the row */
} JobTotals;

/* Strings are the caller's; those of the key and the URI are in the database's encoding. */
typedef struct JobFile
{
	int         number; /* from 1; 0: the manifest; from -1 down: an object that is no file */
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

/* A new id, which may become part of the object's name; or JOB_UNRECORDED. */
extern int64 job_new_id(void);

/*
 * Makes the row of a new job, or takes over that of a queued one.  True: there was an
 * attempt before, which may have left files (job_load_remains).
 */
extern bool job_begin(int64 job_id, const JobRequest *request, const char *uri);

/* Committed before the first part is sent, so that a crash leaves its trace. */
extern void job_file_begin(int64 job_id, JobFile *file);

/* Does for a list of JobFile what job_file_begin does for one. */
extern void job_files_begin(int64 job_id, List *files);

/* From here on the files (a list of JobFile) may appear at any moment. */
extern void job_set_completing(int64 job_id, List *files);

/* The files are those that were put in place. */
extern void job_succeed(int64 job_id, const JobTotals *totals, List *files);

/* These are in place, whatever becomes of the others. */
extern void job_files_done(int64 job_id, List *files);

/*
 * A file keeps its upload_id if its upload could not be aborted, and its state
 * if it has been put in place.  "aborted" has the numbers of the others, and
 * "in_doubt" of those that have no upload any more and may appear all the same.
 * True: the job has not ended but is queued again, as it "may_pass" and retry_for is not over.
 */
extern bool job_fail(int64 job_id, JobState state, const JobTotals *totals, const ErrorData *error,
					 List *aborted, List *in_doubt, bool may_pass);

/* Forgets the files of an attempt of which nothing is left. */
extern void job_forget_files(int64 job_id);

/* Is it, whatever was being done, the state of the server that may pass? */
extern bool job_error_passes(int sqlerrcode);

/* waiting_for between two attempts */
#define JOB_RESTS "its next attempt"

/*
 * Within a transaction: queues a job again that has not ended, unless retry_for is over, or
 * was not given.  False: it is as it was.
 */
extern bool job_try_again(int64 job_id, const char *code, const char *message, const char *detail,
						  const char *hint);

/*
 * Files (a list of JobFile, palloc'd) that earlier jobs of the connector have put in
 * place for the same path and this one has not written again.  None that another
 * path or connector has written since, and none of a copy of this server.  Those of jobs
 * of "exporter" and of the roles that it is a member of; InvalidOid: of all.
 */
extern List *job_stale_files(int64 job_id, Oid exporter);

/* Was the last job that has written to "uri" one of that role, or of one it is a member of? */
extern bool job_was_exported_by(Oid role, const char *endpoint_url, const char *uri);

/* They are not there any more, whichever job wrote them. */
extern void job_files_removed(int64 job_id, List *files);

/* A job that writes to "uri" now, other than "job_id"; 0: none is known. */
extern int64 job_writing_to(int64 connector_id, const char *uri, int64 job_id);

/*
 * Within a transaction: tells sessions that listen on channel "s3export" that the job has
 * ended, and no more, as every role can listen.
 */
extern void job_notify(int64 job_id, const char *state);

/* ---- what crashes have left behind ---- */

/* Which jobs to look at. */
typedef struct JobScope
{
	int64 connector_id; /* 0: all */
	int64 own_job_id;   /* not this one; 0: there is none */
	Oid   role;         /* the jobs that this role sees; InvalidOid: all */
	bool  skip_recent;  /* not those that could not be settled a moment ago */
} JobScope;

/* What has become of a file. */
typedef enum JobFate
{
	JOB_FILE_LEFT, /* what it was; there is something to do yet */
	JOB_FILE_DONE,
	JOB_FILE_ABORTED
} JobFate;

/* A file that is neither in place nor aborted. */
typedef struct JobRemnant
{
	JobFile file;
	bool    completing; /* it may be in place */
	JobFate fate;       /* for job_settle */
	char   *detail;     /* a sentence about it */
} JobRemnant;

typedef struct JobRemains
{
	int64 job_id;
	int64 connector_id;
	char *connector;
	char *endpoint_url;
	char *uri;        /* NULL: it did not come so far */
	bool  finished;   /* its row has an error already */
	bool  completing; /* all of its rows had been taken */
	List *remnants;   /* of JobRemnant */
} JobRemains;

/*
 * In the caller's transaction: is there a job that this role sees?  InvalidOid:
 * any at all.
 */
extern bool job_any_of(Oid role);

/*
 * The ids (a list of int64 *) of all jobs that job_find_remains or job_disown could be
 * about for an export through the connector, and of some more: the latter two take longer.
 */
extern List *job_find_suspects(int64 connector_id, int64 own_job_id);

/*
 * The ids (a list of int64 *) of this server's jobs that may have left something:
 * those that have not ended, of which some may live, and those that have ended
 * with an upload left or a file in doubt.
 */
extern List *job_find_remains(const JobScope *scope);

/* With the job's advisory lock held exclusively; NULL: there is nothing left to do. */
extern JobRemains *job_load_remains(int64 job_id);

typedef enum JobSettlement
{
	JOB_SETTLED_FAILED, /* or it is in doubt yet */
	JOB_SETTLED_QUEUED, /* to be tried again */
	JOB_SETTLED_SUCCEEDED
} JobSettlement;

/*
 * Records the fates.  When all is in place the job has
 * succeeded; one with a file in doubt does not end while it can be tried
 * "again".  The detail goes to the row's error.
 */
extern JobSettlement job_settle(const JobRemains *remains, const char *detail, bool again);

/* Records the fates of an earlier attempt of a job that runs; false: something is left. */
extern bool job_settle_attempt(const JobRemains *remains);

/*
 * Ends the jobs that came here with a copy of another server or database, and
 * touches nothing of theirs.  Returns a list of JobRemains.
 */
extern List *job_disown(const JobScope *scope);

/*
 * Removes old jobs (s3export.job_retention) that owe nothing, a limited number at
 * a time.
 */
extern void job_forget(void);

/* ---- the queue ---- */

typedef struct JobPair
{
	char *name;
	char *value;
} JobPair;

/* A job that a worker is to run. */
typedef struct JobOrder
{
	Oid         owner;
	int64       connector_id;
	const char *connector;
	const char *endpoint_url;
	const char *source;
	const char *path;
	List       *arguments;   /* of copy_to that are not null, but for the source; JobPair */
	List       *settings;    /* JobPair */
	TimestampTz retry_until; /* DT_NOBEGIN: it is not tried again */
} JobOrder;

/*
 * Queues a job in the caller's transaction; returns its id.  Raises
 * ERRCODE_CONFIGURATION_LIMIT_EXCEEDED when there are s3export.max_queued_jobs, or as many
 * of the owner's as a role may have.
 */
extern int64 job_enqueue(const JobOrder *order);

/* Is a job of this server waiting?  In the caller's transaction. */
extern bool job_any_queued(void);

/* A job of this server that has not ended. */
typedef struct JobEntry
{
	int64 job_id;
	Oid   owner;
	bool  queued;      /* it runs otherwise */
	bool  background;  /* it is, or was, queued */
	bool  limited;     /* its owner is no superuser */
	char *waiting_for; /* NULL: nothing yet */
	int64 connector_id;
	char *path; /* NULL: one that no other job has */
	int   leader_pid;
	int   uploader_pid;
	bool  again;   /* it has been tried, and is to be tried again */
	bool  resting; /* but not yet */
	int   turn;    /* this and the next are the dispatcher's */
	int   served;  /* when its role has had a turn last; 0: never */
} JobEntry;

/* All of them, a list of JobEntry in the order of their ids. */
extern List *job_list_unfinished(void);

/* Is it queued, and is nobody about to cancel it? */
extern bool job_is_free(int64 job_id);

/* Writes waiting_for of these queued jobs (JobEntry). */
extern void job_set_waiting(List *entries);

typedef struct JobClaim
{
	RowProof proof; /* required before anything is done */
	int64    connector_id;
	char    *source;
	List    *arguments; /* JobPair, the source among them */
	List    *settings;
} JobClaim;

/*
 * Makes a queued job one that this process runs, as its leader.  False when it
 * is not queued any more, or is being cancelled.
 */
extern bool job_claim(int64 job_id, JobClaim *claim);

/*
 * Both for a job that this process has claimed and that no uploader has taken
 * over; others they leave alone.
 */
extern void job_put_back(int64 job_id, const char *waiting_for);
extern void job_fail_early(int64 job_id, JobState state, const ErrorData *error);

/* For a job that is queued, and that no worker can be had for. */
extern void job_fail_queued(int64 job_id, const ErrorData *error);

/* In the caller's transaction: cancels a job unless it is not queued any more. */
extern bool job_cancel_queued(int64 job_id);

typedef struct JobStatus
{
	Oid   owner;
	char *state;
	char *uri;
	int64 rows;
	int64 files;
	int64 bytes;
	int   leader_pid;   /* 0: none */
	int   uploader_pid; /* 0: none */
	char *error_code;   /* NULL, as the next: none */
	char *error_message;
	char *error_detail;
	char *error_hint;
} JobStatus;

/* Gets the status that a job has by now, whatever the transaction's snapshot; false: there is no such job. */
extern bool job_get_status(int64 job_id, JobStatus *status);

#endif /* JOB_H */
