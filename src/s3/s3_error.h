/*-------------------------------------------------------------------------
 *
 * s3_error.h
 *	  What S3 or STS refused, and how it is told.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S3_ERROR_H
#define S3_ERROR_H

#include "aws/credentials.h"

/*
 * All of it is fit to be shown: lengths are bounded, control characters are
 * gone, text is valid in the database's encoding, and of S3's answer only the
 * fields below are kept, since some answers repeat what was signed.
 */
typedef struct S3Error
{
	int         http_status;       /* 0: no answer came */
	int         attempts;          /* requests sent */
	const char *service;           /* that was asked for credentials; NULL: S3 was asked */
	const char *action;            /* IAM's name of what was asked: "s3:PutObject" */
	const char *encryption;        /* the encryption asked for; NULL: none */
	bool        exhausted;         /* no memory or file descriptor was left */
	Refusal     refusal;           /* of the credentials, in an error document of the service's */
	bool        foreign;           /* something else than the service has answered */
	bool        stalled;           /* the server took too long to take data or to answer */
	bool        aws;               /* S3 is AWS's */
	bool        region_assumed;    /* and not given, where it is not */
	bool        unsigned_body;     /* one was sent to a store that may not take it */
	char        code[128];         /* S3's or STS's, or made from the status of S3's; "": none */
	char        message[1024 + 1]; /* S3's, or the transport's; "": none */
	char        principal[256];    /* the role's session that asked; "": not a role */
	char        request_id[128];
	char        host_id[128];
	char        region[64];                  /* the bucket's, when S3 named one; a valid region */
	char        hint[1024 + 1];              /* where the credentials know better; "": none */
	char        resource[63 + 1 + 1024 + 1]; /* "bucket/key" or "bucket" */
} S3Error;

/* From an answer that is not a success, or from none; keeps nothing of before. */
extern void s3_error_set(S3Error *error, const HttpResponse *response, const char *method,
						 const char *action, const char *resource);

/* From credentials that could not be had. */
extern void
s3_error_set_credentials(S3Error *error, const CredentialFailure *failure, const char *resource);

extern bool s3_error_is(const S3Error *error, const char *code);

/* Does the error say that an object is where none must be?  Stores say so with different statuses. */
extern bool s3_error_is_precondition(const S3Error *error);

extern int s3_error_sqlstate(const S3Error *error);

/* Sentences, palloc'd; a hint is NULL when nothing is known that would help. */
extern char *s3_error_detail(const S3Error *error);
extern char *s3_error_hint(const S3Error *error);

/* Reports 'what "s3://bucket/key"', where "what" is like "could not upload object". */
extern void s3_report(int elevel, const S3Error *error, const char *what);

/* Copies UTF-8 of any origin so that it is fit to be shown. */
extern void s3_clean_text(char *dst, size_t dst_size, const char *src);

#endif /* S3_ERROR_H */
