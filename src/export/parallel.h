/*-------------------------------------------------------------------------
 *
 * parallel.h
 *	  A query whose rows leave from several processes at once.
 *
 * Of a plan that begins with Gather, each process that takes part sends its
 * own rows to the uploader; none pass through the leader.  Everything else is
 * the server's parallel query: what may run in parallel, the snapshot, rights,
 * row security, settings, errors and cancelling.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S3EXPORT_PARALLEL_H
#define S3EXPORT_PARALLEL_H

#include "nodes/plannodes.h"

#include "export/row_sender.h"

/* For _PG_init: workers find the plan's node by its name. */
extern void parallel_init(void);

/*
 * A plan of "query".  *senders is how many parallel workers will send rows, at most: no more
 * than "workers", nor than this server and this session allow.  When it is 0 the query
 * cannot, or had better not, run so, and the plan is an ordinary one.
 */
extern PlannedStmt *parallel_plan(Query *query, const char *text, int workers, int *senders);

/*
 * Runs a plan with senders in the current snapshot.  There may be fewer workers, or none.
 * When it returns, all have sent their rows; "output" is the leader's.
 */
extern void parallel_execute(PlannedStmt *plan, const char *text, const OutputFormat *format,
							 Pipe *pipe, Output *output);

#endif /* S3EXPORT_PARALLEL_H */
