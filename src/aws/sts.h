/*-------------------------------------------------------------------------
 *
 * sts.h
 *	  AWS's Security Token Service: who we are, and sessions of roles.
 *
 * https://docs.aws.amazon.com/STS/latest/APIReference/welcome.html
 *
 *-------------------------------------------------------------------------
 */
#ifndef STS_H
#define STS_H

#include "aws/aws_session.h"

typedef struct Sts Sts;

/*
 * Sends nothing yet.  Without an endpoint it is AWS's regional one; without a
 * region that is us-east-1.  Raises an error when the endpoint is no URL.
 */
extern Sts *sts_open(HttpClient *http, const char *endpoint_url, const char *region);

/* Whose keys sign: answers as credentials_current does. */
typedef struct StsSigner
{
	const SigV4Credentials *(*keys)(void *arg, const CredentialFailure **failure);
	void *arg;
} StsSigner;

typedef struct StsRole
{
	const char *role_arn;
	const char *session_name; /* in AWS's logs */
	const char *external_id;  /* NULL: none is sent, as with the next */
	const char *policy;       /* what the session may do at most */
	int         duration;     /* s; 0: an hour, as long as a session of a session may be */
} StsRole;

/* The strings must stay; sources live in the current memory context. */
extern SessionSource *sts_assume_role(Sts *sts, const StsRole *role, const StsSigner *signer);

/* With a token of OpenID Connect, read from its file for each attempt. */
extern SessionSource *
sts_assume_role_with_web_identity(Sts *sts, const StsRole *role, const char *token_file);

/*
 * Whom STS takes the keys for; palloc'd.  False with *failure: it did not say.
 * Drives the client, and so raises what http_drive does.
 */
extern bool sts_caller_identity(Sts *sts, const StsSigner *signer, char **account, char **arn,
								const CredentialFailure **failure);

#endif /* STS_H */
