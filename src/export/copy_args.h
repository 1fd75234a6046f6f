/*-------------------------------------------------------------------------
 *
 * copy_args.h
 *	  The arguments of copy_to, from SQL and from the row of a queued job.
 *
 *-------------------------------------------------------------------------
 */
#ifndef COPY_ARGS_H
#define COPY_ARGS_H

#include "fmgr.h"

#include "export/row_sender.h"
#include "uploader/export_job.h"

typedef struct CopyArguments
{
	Connector    *connector;
	OutputFormat  format;
	int           workers;
	ExportRequest request; /* lacks the stem and the job's id */
} CopyArguments;

/*
 * Checks all of them as the current user.  The connector is the one with this
 * id, or if that is 0 the one that is named.
 */
extern void copy_args_get(FunctionCallInfo fcinfo, int64 connector_id, CopyArguments *arguments);

/* false: the export is to be queued. */
extern bool copy_args_wait(FunctionCallInfo fcinfo);

/*
 * Until when an export is to be tried again; DT_NOBEGIN: it is not.  Raises an error where it
 * is not to be queued.
 */
extern TimestampTz copy_args_retry_until(FunctionCallInfo fcinfo);

/* The names in "settings", a list of char *. */
extern List *copy_args_settings(FunctionCallInfo fcinfo);

/* The arguments that are not null, by name, as a list of JobPair. */
extern List *copy_args_to_pairs(FunctionCallInfo fcinfo);

/*
 * A call of copy_to with such arguments, palloc'd; it has no more than they say:
 * it waits.
 */
extern FunctionCallInfo copy_args_from_pairs(List *pairs);

#endif /* COPY_ARGS_H */
