/*-------------------------------------------------------------------------
 *
 * s3_client.h
 *	  What every request of the uploader needs to talk to S3.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S3_CLIENT_H
#define S3_CLIENT_H

#include "tables/connector.h"

/* A person waits for a check, and a mistyped host will not come to life; ms */
#define STORE_CHECK_RETRY_TIMEOUT 5000

/* A client with the session's settings, palloc'd. */
extern HttpClient *s3_client_open_http(int connections, int retry_timeout);

extern S3Timeouts s3_client_timeouts(void);

/*
 * A handler of SIGINT: cancels the export, or the check, in this process unless
 * it has come so far that its outcome is S3's to decide.
 */
extern void s3_client_handle_cancel(SIGNAL_ARGS);
extern bool s3_client_cancel_requested(void);

/*
 * The credentials of a connector for one job: a role's session may do no more
 * than exporting to "key", which is UTF-8, needs, or with "is_prefix" to keys that
 * begin so.  Raises what credentials_open does.
 */
extern Credentials *
s3_client_open_credentials(HttpClient *http, const Connector *connector, const char *label,
						   const char *key, bool is_prefix, bool may_delete);

/*
 * Watches for http_set_watch.  The first raises an error when the server is
 * stopping, or when somebody has terminated this process; the second, whose
 * argument is the Pipe, also when somebody has cancelled it, and when nobody
 * waits for the outcome any more: the leader's error, if it said why.
 */
extern void s3_client_watch_shutdown(void *arg);
extern void s3_client_watch_leader(void *pipe);

#endif /* S3_CLIENT_H */
