/*-------------------------------------------------------------------------
 *
 * current_args.h
 *	  The arguments of create_connector and alter_connector about currents.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CURRENT_ARGS_H
#define CURRENT_ARGS_H

#include "fmgr.h"

#include "currents/current.h"

/*
 * publication, tables, operations, compression, max_events_per_file, drop_after, feed, origin,
 * header, "null", force_quote and heartbeat, from "first" on.  Names of tables are looked up as the session would.  Any that is not null
 * is an error unless the connector is of kind 'currents'.  Returns whether any was.
 */
#define ARGS_CURRENT 12
extern bool current_args_read(CurrentSettings *settings, FunctionCallInfo fcinfo, int first,
							  const Connector *connector);

#endif /* CURRENT_ARGS_H */
