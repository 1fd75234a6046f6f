/*-------------------------------------------------------------------------
 *
 * uploader.h
 *	  The uploader: the process that holds the secret and talks to S3.
 *
 *-------------------------------------------------------------------------
 */
#ifndef UPLOADER_H
#define UPLOADER_H

#include "connector.h"

/*
 * Checks a connector in an uploader started for that.  Returns a list of
 * ProbeResult, palloc'd; *region as probe_permissions says.
 */
extern List *uploader_check(const Connector *connector, char **region);

#endif /* UPLOADER_H */
