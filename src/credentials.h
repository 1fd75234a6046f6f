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
	int64		credential_id;	/* what "sealed" is bound to */
	char	   *access_key_id;	/* of the keys, or of the identity that assumes the role */
	bytea	   *sealed;			/* NULL: the secret is missing */
	char	   *role_arn;		/* NULL: the keys sign S3 requests themselves */
	char	   *external_id;
	char	   *sts_endpoint_url;	/* NULL: AWS's regional one */
	char	   *region;			/* of STS */
} CredentialConfig;

#endif /* CREDENTIALS_H */
