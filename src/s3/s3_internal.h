/*-------------------------------------------------------------------------
 *
 * s3_internal.h
 *	  What s3.c, which asks, and s3_answer.c, which judges, have in common.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S3_INTERNAL_H
#define S3_INTERNAL_H

#include "aws/aws_names.h"
#include "s3/s3.h"

/* Tells an upload of ours from what others have put under the same key. */
#define S3_TOKEN_HEADER "x-amz-meta-s3export-upload"

typedef enum RegionState
{
	REGION_KNOWN, /* or taken to be */
	REGION_UNKNOWN,
	REGION_ASKED, /* a HeadBucket is under way */
	REGION_FAILED /* and got no answer */
} RegionState;

struct S3Session
{
	HttpClient     *http;
	const S3Config *config;
	Credentials    *credentials;
	S3Timeouts      timeouts;
	NamesEndpoint   endpoint; /* not AWS */
	MemoryContext   context;
	MemoryContext   scratch; /* of one step of one call */

	RegionState region_state;
	const char *region;           /* requests are signed for it */
	bool        region_found;     /* S3 has named it */
	bool        region_corrected; /* which is done once only */
	bool        region_was_asked;
	S3Call      region_call;
};

struct S3CallState
{
	S3Session               *session;
	HttpRequest              http;
	MemoryContext            context;
	char                    *path; /* of the key, encoded, with its slash; "/": none */
	char                    *query;
	const char              *action; /* what IAM calls the permission */
	char                    *resource;
	char                     body_sha256[SIGV4_SHA256_HEX_LEN + 1];
	const char              *payload_hash;
	const char              *region_used; /* by the last attempt */
	const CredentialFailure *credential_failure;
	bool                     gave_up;    /* nothing was sent */
	bool                     unanswered; /* an attempt is under way */
	int                      renewals;
	bool                     clock_corrected;
	bool                     digest_retried;
};

/* Is it AWS, where regions differ and TLS is given? */
static inline bool
s3_is_aws(const S3Session *session)
{
	return session->config->endpoint_url == NULL;
}

/*
 * HttpRequest.judge: takes the answer into the call and says whether it is
 * worth another attempt.
 */
extern HttpVerdict s3_judge(HttpRequest *request, const HttpResponse *response);

#endif /* S3_INTERNAL_H */
