/*-------------------------------------------------------------------------
 *
 * instance_metadata.h
 *	  Sessions that the machine hands out: to containers, to EC2 instances.
 *
 *-------------------------------------------------------------------------
 */
#ifndef INSTANCE_METADATA_H
#define INSTANCE_METADATA_H

#include "aws/aws_session.h"

/*
 * The container's, of ECS and of EKS pod identity, at a whole URL.  The token
 * that authorizes the request is read from its file for each attempt, or else
 * is "token", or else (both NULL) there is none.  Plain http goes only to the
 * addresses that AWS has for this, and to this machine.  NULL with *wrong, a
 * sentence without the URL in it, when that is not one.
 *
 * https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html
 */
extern SessionSource *
instance_metadata_of_container(HttpClient *http, const char *url, const char *token_file,
							   const char *token, const char **wrong);

/*
 * The instance's, by version 2 of its metadata service only, at the endpoint
 * ("http://169.254.169.254").  NULL with *wrong as above.
 *
 * https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html
 */
extern SessionSource *
instance_metadata_of_instance(HttpClient *http, const char *endpoint, const char **wrong);

#endif /* INSTANCE_METADATA_H */
