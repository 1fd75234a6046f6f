/*-------------------------------------------------------------------------
 *
 * permission_check.h
 *	  Does a connector have every permission it needs?  One check, one result.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PERMISSION_CHECK_H
#define PERMISSION_CHECK_H

#include "s3/s3.h"

typedef struct PermissionResult
{
	const char *check; /* "assume role", "bucket", "list bucket", ... */
	bool        ok;
	bool        advisory; /* when not ok, the connector works all the same */
	bool        skipped;  /* not ok, but not tried either, as an earlier one failed */
	const char *action;   /* IAM's, "s3:PutObject" */
	int         sqlstate; /* when not ok and not skipped */
	const char *code;     /* S3's code, NULL when ok */
	const char *request_id;
	const char *message; /* what happened, a sentence */
	const char *hint;    /* what to do about it, NULL when ok */
} PermissionResult;

/* What is to be checked, and who hears of it. */
typedef struct PermissionCheck
{
	const S3Config         *s3;
	const CredentialConfig *credentials;
	const char             *key_prefix; /* of the objects; "", or it ends in '/' */
	bool                    need_delete;
	int wait; /* ms that a new role may refuse to be assumed; AWS needs a while */

	/* Is called with each result, in the uploader. */
	void (*emit)(void *arg, const PermissionResult *result);
	void *arg;
} PermissionCheck;

/*
 * Runs the checks in order.  If an earlier failure makes a check pointless, the check is emitted
 * as not ok, with a message that says why.  No object and no open upload is left behind; where
 * the right to abort uploads is missing, the message of "put object" says what is left.
 *
 * Returns the bucket's region, palloc'd, or NULL if S3 has not named it.  Raises what
 * credentials_open and http_drive raise.
 */
extern char *
permission_check_all(HttpClient *http, const S3Timeouts *timeouts, const PermissionCheck *check);

#endif /* PERMISSION_CHECK_H */
