/*-------------------------------------------------------------------------
 *
 * probe.h
 *	  Does a connector have every permission it needs?  One check, one result.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PROBE_H
#define PROBE_H

#include "s3.h"

typedef struct ProbeResult
{
	const char *check;			/* "assume role", "bucket", "list bucket", ... */
	bool		ok;
	const char *action;			/* the IAM action, "s3:PutObject" */
	const char *code;			/* S3's code, NULL when ok */
	const char *request_id;
	const char *message;		/* what happened, a sentence */
	const char *hint;			/* what to do about it, NULL when ok */
} ProbeResult;

/*
 * Runs the checks in order and hands each to "emit", in the uploader.  Leaves
 * no object and no open upload behind.  "key_prefix" is "" or ends in '/'.
 * *region is set to the bucket's region if that was found out, else NULL.
 */
extern void probe_permissions(HttpClient *http, const S3Config *s3,
							  const CredentialConfig *credentials, const char *key_prefix,
							  bool need_delete,
							  void (*emit) (void *arg, const ProbeResult *result), void *arg,
							  char **region);

#endif /* PROBE_H */
