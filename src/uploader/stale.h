/*-------------------------------------------------------------------------
 *
 * stale.h
 *	  Files of earlier exports to a path that the last one has not written again.
 *
 *-------------------------------------------------------------------------
 */
#ifndef STALE_H
#define STALE_H

#include "s3/s3.h"

/*
 * Removes them from the store, where they are still what the earlier jobs have put
 * there: nothing else is touched.  For when all files of the job are in place and its
 * path is still claimed.  What cannot be removed is named by a WARNING; no failure
 * of the store is an error.  "exporter" as for job_stale_files.  The client's watch is taken off for good.
 */
extern void stale_remove(HttpClient *http, S3Session *s3, int64 job_id, Oid exporter);

#endif /* STALE_H */
