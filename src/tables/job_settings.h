/*-------------------------------------------------------------------------
 *
 * job_settings.h
 *	  Settings that a queued job takes over from its session.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JOB_SETTINGS_H
#define JOB_SETTINGS_H

#include "nodes/pg_list.h"

/*
 * What the session has for the settings that decide what a query means and how
 * values are written, for s3export's, and for those in "named" (char *): a list
 * of JobPair.  Raises an error for a name that is unknown, or that the current
 * user may not set, or that is of the transaction or says who he is.
 */
extern List *job_settings_collect(List *named);

/* Sets them for the session, as far as the current user may. */
extern void job_settings_apply(List *settings);

#endif /* JOB_SETTINGS_H */
