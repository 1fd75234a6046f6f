/*-------------------------------------------------------------------------
 *
 * credentials.h
 *	  Where the keys that sign requests come from, and how they are renewed.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CREDENTIALS_H
#define CREDENTIALS_H

#include "http.h"
#include "sigv4.h"

/* What is known before anything is opened; secrets are sealed here. */
typedef struct CredentialConfig
{
	int64  credential_id;    /* what "sealed" is bound to */
	char  *access_key_id;    /* of the keys, or of the identity that assumes the role */
	bytea *sealed;           /* NULL: the secret is missing */
	char  *role_arn;         /* NULL: the keys sign S3 requests themselves */
	char  *external_id;      /* NULL: none is sent */
	char  *sts_endpoint_url; /* NULL: AWS's regional one */
	char  *region;           /* of STS; NULL: us-east-1 */
} CredentialConfig;

typedef struct Credentials Credentials;

/*
 * Opens the sealed secret; sends nothing yet.  Raises an error when the secret
 * is missing or does not open.  "session_name" goes into AWS's logs
 * ("s3export-42"), "policy" is a session policy or NULL.  Secrets are
 * overwritten when the current memory context goes.
 */
extern Credentials *credentials_open(HttpClient *http, const CredentialConfig *config,
									 const char *session_name, const char *policy);

/* Why there are none; texts are ASCII and hold no secret. */
typedef struct CredentialFailure
{
	int         status; /* HTTP status, 0: no answer */
	int         attempts;
	const char *code; /* of STS, NULL: none */
	const char *message;
	const char *request_id; /* NULL: none */
	const char *hint;       /* what to do about it, NULL: nothing is known */
} CredentialFailure;

/*
 * The credentials to sign with now, valid until the next http_drive.  NULL
 * means none are at hand: with *failure NULL they are being fetched (answer
 * HTTP_NOT_YET), otherwise they could not be had, and will not be.  Starts a
 * renewal when one is due; returns at once.
 */
extern const SigV4Credentials *
credentials_current(Credentials *credentials, const CredentialFailure **failure);

/*
 * S3 said that the session token has expired: makes sure that it is renewed
 * before the next attempt.  Returns false when the keys cannot be renewed.  A
 * session that is younger than a minute is not renewed again: what has expired
 * was the one before.
 */
extern bool credentials_expired(Credentials *credentials);

/*
 * Signs with the keys in "config" from now on, of which the rest must be as
 * credentials_open was given it.  Those of a role's session are used as long as
 * they are valid.  Raises what credentials_open does.
 */
extern void credentials_replace(Credentials *credentials, const CredentialConfig *config);

/*
 * Whom STS takes the keys for, before any role is assumed.  False with
 * *failure: STS did not say.  Waits; raises interrupts only.
 */
extern bool credentials_caller_identity(Credentials *credentials, char **account, char **arn,
										const CredentialFailure **failure);

/* The role's session as AWS names it, once assumed; NULL: not a role. */
extern const char *credentials_assumed_arn(Credentials *credentials);

#endif /* CREDENTIALS_H */
