/*-------------------------------------------------------------------------
 *
 * current_internal.h
 *	  What the files of the current module share.
 *
 * All of these run within a catalog scope, unless they say otherwise.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CURRENT_INTERNAL_H
#define CURRENT_INTERNAL_H

#include "lib/stringinfo.h"

#include "catalog.h"
#include "current.h"

extern CurrentState current_parse_state(const char *name);

/* What a success makes of the columns of an UPDATE. */
#define CURRENT_FORGET_FAILURES                                           \
	" suspended_at = NULL, warned = 0, next_try_at = NULL, failures = 0," \
	" error_code = NULL, error_message = NULL, error_detail = NULL, error_hint = NULL "

/* Puts all of the row but the batch into a struct that has its connector; false: there is none. */
extern bool current_read(Current *current, MemoryContext context);

/* ---- tables: current_tables.c ---- */

/*
 * Those whose changes may be sent, as CurrentTable in "context"; where the rows are
 * not "here" their OIDs are those that the names have now, 0: none.
 */
extern List *
current_read_tables(int64 connector_id, bool here, XLogRecPtr delivered, MemoryContext context);

/* Appends row "row" of SPI's results, which has columns as CURRENT_TABLES_FROM_JSON. */
extern List *current_append_table(List *tables, uint64 row, MemoryContext context);

/* Makes "relids" the tables; true: that was a change. */
extern bool
current_replace_tables(const Connector *connector, List *relids, bool here, bool launched);

/* OIDs are those that the names have now. */
extern void current_resolve_tables(int64 connector_id);

/* For a JSON column, palloc'd; and back, as a set that SQL can select from. */
extern char *current_tables_to_json(List *tables);
#define CURRENT_TABLES_FROM_JSON(json) \
	"jsonb_to_recordset(" json         \
	") AS p (relid oid, version integer, columns text, removed_lsn pg_lsn)"

/* ---- events: current_events.c ---- */

/*
 * What an event has to say, name by name; "detail" begins empty.  Texts are cut
 * where they would be too long for a notification; NULL and 0 are left out.
 */
extern void current_say_text(StringInfo detail, const char *name, const char *value);
extern void current_say_number(StringInfo detail, const char *name, int64 value);
extern void current_say_time(StringInfo detail, const char *name, TimestampTz value);
extern void current_say_lsn(StringInfo detail, const char *name, XLogRecPtr value);

/* Records an event, and notifies who listens when the transaction commits.  "detail" may be NULL. */
extern void current_record(const Connector *connector, const char *event, CurrentState state,
						   const StringInfoData *detail);

#endif /* CURRENT_INTERNAL_H */
