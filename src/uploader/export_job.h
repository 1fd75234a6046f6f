/*-------------------------------------------------------------------------
 *
 * export_job.h
 *	  One export in the uploader: blocks in, objects and job rows out.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EXPORT_JOB_H
#define EXPORT_JOB_H

#include "uploader/export_request.h"

/*
 * Runs an export, and calls "begun" when credentials are at hand and nothing is
 * in the way of the first file: blocks may come then.  Returns true with *totals
 * when all files are in place and the job's row, or on a standby the server's
 * log, says so.  When the leader has
 * failed, undoes all and returns false; raises the uploader's own errors when
 * it has done the same.
 */
extern bool export_job_run(Pipe *pipe, Connector *connector, const ExportRequest *request,
						   void (*begun)(Pipe *pipe), JobTotals *totals);

#endif /* EXPORT_JOB_H */
