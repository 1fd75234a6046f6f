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

/*
 * Runs the checks in order and hands each to "emit", in the uploader.  A check
 * that an earlier failure makes pointless is emitted as not ok, with a message
 * that says why.  Leaves no object and no open upload behind; where the right
 * to abort uploads is missing, the message of "put object" says what is left.
 * "key_prefix" is "" or ends in '/'.  *region is set to the bucket's region if
 * S3 has named it, else NULL.  While a role refuses to be assumed, it is tried
 * again for "wait" ms: AWS needs a while to know a new one.  Raises what credentials_open and http_drive do.
 */
extern void
permission_check_all(HttpClient *http, const S3Config *s3, const CredentialConfig *credentials,
					 const S3Timeouts *timeouts, int wait, const char *key_prefix, bool need_delete,
					 void (*emit)(void *arg, const PermissionResult *result), void *arg,
					 char **region);

#endif /* PERMISSION_CHECK_H */
