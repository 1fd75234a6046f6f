/*-------------------------------------------------------------------------
 *
 * guc.h
 *	  The settings of s3export.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S3EXPORT_GUC_H
#define S3EXPORT_GUC_H

#include "lib/stringinfo.h"
#include "utils/guc.h"

/* Defines all settings; once, when the library is loaded. */
extern void guc_define(void);

/* what an upload may take */
extern int guc_upload_memory;        /* kB, all part buffers of one export */
extern int guc_part_size;            /* kB, the first parts' size */
extern int guc_max_concurrent_parts; /* parts in flight, at most */

extern int guc_max_parallel_workers; /* of one export; 0: the leader scans alone */

/* queued exports of one database */
extern int guc_max_running_jobs; /* 0: they all stay queued */
extern int guc_max_queued_jobs;

/* of one role, unless it is a superuser; -1: what the functions below make of it */
extern int guc_max_running_jobs_per_role;
extern int guc_max_queued_jobs_per_role;
extern int guc_max_exports_per_role; /* in all databases, those that were not queued too */

/* The limits in force. */
extern int guc_running_jobs_of_role(void); /* leaves a place for other roles */
extern int guc_queued_jobs_of_role(void);  /* half of all */
extern int guc_exports_of_role(void);      /* half of the server's worker processes */

/* how long to wait for a server */
extern int guc_connect_timeout;  /* ms, one TCP and TLS handshake */
extern int guc_request_timeout;  /* ms, one request with a short answer */
extern int guc_stall_timeout;    /* ms without progress of a transfer */
extern int guc_complete_timeout; /* ms, CompleteMultipartUpload */
extern int guc_retry_timeout;    /* ms of retries without any progress */

/* whether the client of a long export is told how far it is */
typedef enum ProgressNotice
{
	PROGRESS_NOTICE_AUTO, /* psql's is */
	PROGRESS_NOTICE_ON,
	PROGRESS_NOTICE_OFF
} ProgressNotice;

extern int guc_progress_notice;

/* what the server's administrator decides */
extern char *guc_allowed_endpoints; /* comma separated URLs, or "*" */
extern char *guc_allowed_sts_endpoints;
extern char *guc_ca_file;  /* certificates to trust; "": libcurl's */
extern char *guc_proxy;    /* "": none */
extern char *guc_key_file; /* the key that seals secrets */
extern bool  guc_allow_ambient_credentials;
extern int   guc_job_retention; /* min; -1: for ever */

/* for developers: our own output routines for common types, or the types' own */
extern bool guc_fast_output;

/*
 * The settings of this session that an uploader needs, as name and value
 * pairs, and their use in the uploader.
 */
extern const char *const guc_session_settings[]; /* their names, then NULL */
extern void              guc_serialize(StringInfo buf);
extern void              guc_restore(StringInfo buf);

#endif /* S3EXPORT_GUC_H */
