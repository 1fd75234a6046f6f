/*-------------------------------------------------------------------------
 *
 * credentials.h
 *	  Where the keys that sign requests come from, and how they are renewed.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CREDENTIALS_H
#define CREDENTIALS_H

#include "aws/aws_session.h"

/*
 * What is known before anything is opened; secrets are sealed here.  There are
 * base keys, stored or ambient, and maybe a role that is assumed with them.
 */
typedef struct CredentialConfig
{
	int64  credential_id;    /* what "sealed" is bound to */
	char  *access_key_id;    /* of the keys, or of the identity that assumes the role */
	bytea *sealed;           /* NULL: the secret is missing */
	bool   ambient;          /* the keys are what the server finds around itself */
	char  *role_arn;         /* NULL: the keys sign S3 requests themselves */
	char  *external_id;      /* NULL: none is sent */
	char  *sts_endpoint_url; /* NULL: AWS's regional one */
	char  *region;           /* of STS; NULL: us-east-1 */
} CredentialConfig;

typedef struct Credentials Credentials;

/*
 * Opens the sealed secret, or looks for ambient ones; sends nothing yet.  Raises
 * an error when the secret is missing or does not open, when ambient ones are not
 * allowed here, and what ambient_credentials_find does.  "session_name" goes into AWS's logs
 * ("s3export-42"), "policy" is a session policy or NULL; both are for a role
 * only.  Secrets are overwritten when the current memory context goes.
 */
extern Credentials *credentials_open(HttpClient *http, const CredentialConfig *config,
									 const char *session_name, const char *policy);

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
 * session that is young is not renewed again: what has expired was the one
 * before.
 */
extern bool credentials_expired(Credentials *credentials);

/*
 * Takes the base keys from "config" from now on, of which the rest must be as
 * credentials_open was given it.  A role's session is used as long as it is
 * valid.  Raises what credentials_open does.
 */
extern void credentials_replace(Credentials *credentials, const CredentialConfig *config);

/*
 * Whom STS takes the base keys for; palloc'd.  False with *failure: it did not
 * say.  Drives the client, and so raises what http_drive does.
 */
extern bool credentials_caller_identity(Credentials *credentials, char **account, char **arn,
										const CredentialFailure **failure);

/* The role's session as AWS names it, once assumed; NULL: not a role. */
extern const char *credentials_assumed_arn(Credentials *credentials);

#endif /* CREDENTIALS_H */
