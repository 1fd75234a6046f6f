/*-------------------------------------------------------------------------
 *
 * ambient_credentials.h
 *	  The credentials that the server finds around itself.
 *
 *-------------------------------------------------------------------------
 */
#ifndef AMBIENT_CREDENTIALS_H
#define AMBIENT_CREDENTIALS_H

#include "aws/sigv4.h"

typedef enum AmbientKind
{
	AMBIENT_KEYS,         /* as they are */
	AMBIENT_WEB_IDENTITY, /* a role, by a token in a file */
	AMBIENT_CONTAINER,    /* of ECS or EKS pod identity, at "url" */
	AMBIENT_INSTANCE      /* of EC2, at "url" */
} AmbientKind;

/* A role to assume; names are NULL where nothing is said. */
typedef struct AmbientRole
{
	char *role_arn;
	char *session_name;
	char *external_id;
	int   duration; /* s, 0: nothing is said */
} AmbientRole;

/* All strings are palloc'd. */
typedef struct Ambient
{
	const char      *found_in; /* "the environment" */
	AmbientKind      kind;
	SigV4Credentials keys;
	AmbientRole      web_identity;
	char            *url;
	char            *token_file;
	char            *token; /* a container's, where it is in no file */

	AmbientRole role; /* to be assumed with all that; role_arn NULL: none */

	char *region;           /* of STS; NULL: nothing is said, as with the next */
	char *sts_endpoint_url; /* that the server's owner has chosen */
} Ambient;

/*
 * The first of: keys in the environment; a profile in the shared config and
 * credentials files; web identity; the container's; the instance's.  Looks at
 * the environment of the server, which all its processes share, and at files;
 * sends nothing.  Raises ERRCODE_CONFIG_FILE_ERROR when what it finds is
 * incomplete, or is of a kind that is not supported, or when there is nothing.
 *
 * https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html
 */
extern Ambient *ambient_credentials_find(void);

/* Overwrites the secrets in it. */
extern void ambient_credentials_wipe(Ambient *ambient);

#endif /* AMBIENT_CREDENTIALS_H */
