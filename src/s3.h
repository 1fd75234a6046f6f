/*-------------------------------------------------------------------------
 *
 * s3.h
 *	  The S3 requests that s3export makes, and what S3 answers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S3_H
#define S3_H

#include "credentials.h"

typedef enum S3Addressing
{
	S3_ADDRESSING_AUTO,			/* virtual on AWS where the name allows it, else path */
	S3_ADDRESSING_PATH,
	S3_ADDRESSING_VIRTUAL
} S3Addressing;

typedef struct S3Config
{
	char	   *endpoint_url;	/* normalised; NULL: AWS */
	char	   *bucket;
	char	   *region;			/* NULL: found out (AWS), "us-east-1" (others) */
	S3Addressing addressing;
	char	   *server_side_encryption; /* NULL: off */
} S3Config;

typedef struct S3Session S3Session;

#endif							/* S3_H */
