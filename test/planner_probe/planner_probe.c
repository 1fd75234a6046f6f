/*-------------------------------------------------------------------------
 *
 * planner_probe.c
 *	  What other people's planner hooks do, for tests.
 *
 * Each run of the planner is a notice with the query's text.  With
 * planner_probe.workers set, a plan that begins with Gather has so many workers,
 * whatever the planner was allowed, as with pg_hint_plan's Parallel(... hard).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "nodes/plannodes.h"
#include "optimizer/planner.h"
#include "utils/guc.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

static int               workers;
static planner_hook_type previous;

static PlannedStmt *
probe_planner(Query *query, const char *text, int options, ParamListInfo params)
{
	PlannedStmt *plan = previous != NULL ? previous(query, text, options, params)
										 : standard_planner(query, text, options, params);

	ereport(NOTICE, (errmsg_internal("planned: %s", text)));
	if (workers > 0 && IsA(plan->planTree, Gather))
		((Gather *) plan->planTree)->num_workers = workers;
	return plan;
}

void
_PG_init(void)
{
	DefineCustomIntVariable("planner_probe.workers", "Sets the workers of plans that have some.",
							NULL, &workers, 0, 0, 100, PGC_USERSET, 0, NULL, NULL, NULL);
	previous = planner_hook;
	planner_hook = probe_planner;
}
