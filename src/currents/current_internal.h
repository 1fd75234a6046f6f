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

#include "currents/current.h"
#include "tables/catalog.h"

extern CurrentState current_parse_state(const char *name);

#define CURRENT_LAUNCH_AGAIN                                                         \
	"Launch it again with s3export.launch(), with copy_existing => true where rows " \
	"that were missed matter."

/* What a success makes of the columns of an UPDATE. */
#define CURRENT_FORGET_FAILURES                                           \
	" suspended_at = NULL, warned = 0, next_try_at = NULL, failures = 0," \
	" error_code = NULL, error_message = NULL, error_detail = NULL, error_hint = NULL "

/* Puts all of the row but the batch into a struct that has its connector; false: there is none. */
extern bool current_read(Current *current, MemoryContext context);

/* Reads the gaps that the next batch is to tell, into "context". */
extern void current_read_gaps(Current *current, MemoryContext context);

/* ---- tables: current_tables.c ---- */

/* The tables that have a version or a copy, as CurrentTable in "context". */
extern List *current_read_tables(int64 connector_id, MemoryContext context);

/* Appends row "row" of SPI's results, which has columns as CURRENT_TABLES_FROM_JSON. */
extern List *current_append_table(List *tables, uint64 row, MemoryContext context);

/* For a JSON column, palloc'd; and back, as a set that SQL can select from. */
extern char *current_tables_to_json(List *tables);
#define CURRENT_TABLES_FROM_JSON(json)                                    \
	"jsonb_to_recordset(" json                                            \
	") AS p (relid oid, version integer, columns text, added_lsn pg_lsn," \
	" since_lsn pg_lsn)"

/* ---- what the worker records: current_rows.c ---- */

/* The next batch tells it; "table" as folders have it, NULL: of all tables. */
extern void current_add_gap(const Current *current, const char *table, const char *reason);

/* ---- publications: current_publication.c; not within a scope ---- */

/*
 * Statements on the connector's own publication, as the current user, whose it is; they
 * check that its changes can be sent.  The first returns the name, palloc'd.
 */
extern char *current_make_publication(const Connector *connector, const CurrentSettings *settings);
extern void  current_alter_publication(const Current *current, const CurrentSettings *settings);
extern void  current_change_owner(const Current *current);
extern void  current_drop_publication(const Current *current);

/* Raises an error unless the publication's changes are the owner's to send, and can be sent. */
extern void current_require_changes(const Current *current);

/* Raises an error when the publication is gone, or is not the owner's to send; returns its OID. */
extern Oid current_require_publication(const Current *current);

/*
 * The relations that the publication $1 has, but for the extension's own, and the partitions
 * below them, for an SQL statement: published (relid, parent, schema_name, table_name, relkind,
 * relpersistence, relowner, relreplident).  "parent" is 0 for what is no partition of another
 * one.
 */
#define CURRENT_PUBLISHED                                                                      \
	"WITH RECURSIVE member AS ("                                                               \
	"SELECT r.prrelid AS relid FROM pg_publication_rel r JOIN pg_class c ON c.oid = r.prrelid" \
	" WHERE r.prpubid = $1 AND c.relnamespace <> 's3export'::regnamespace"                     \
	" UNION "                                                                                  \
	"SELECT c.oid FROM pg_class c JOIN pg_publication p ON p.oid = $1"                         \
	" WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND c.oid >= 16384"             \
	" AND c.relnamespace <> 's3export'::regnamespace"                                          \
	" AND (p.puballtables OR EXISTS (SELECT FROM pg_publication_namespace s"                   \
	" WHERE s.pnpubid = p.oid AND s.pnnspid = c.relnamespace))),"                              \
	" tree (relid, parent) AS ("                                                               \
	"SELECT relid, 0::oid FROM member"                                                         \
	" UNION "                                                                                  \
	"SELECT i.inhrelid, i.inhparent FROM tree t"                                               \
	" JOIN pg_inherits i ON i.inhparent = t.relid"                                             \
	" JOIN pg_class c ON c.oid = i.inhrelid WHERE c.relispartition),"                          \
	" published AS ("                                                                          \
	"SELECT c.oid AS relid, t.parent, n.nspname AS schema_name,"                               \
	" c.relname AS table_name, c.relkind, c.relpersistence, c.relowner, c.relreplident"        \
	" FROM (SELECT relid, max(parent) AS parent FROM tree GROUP BY relid) t"                   \
	" JOIN pg_class c ON c.oid = t.relid JOIN pg_namespace n ON n.oid = c.relnamespace) "

/* ---- slots: current_slot.c ---- */

/* Drops the slot when the transaction commits, if it is ours. */
extern void current_drop_slot_at_commit(int64 connector_id);

/* ---- events: current_events.c ---- */

/*
 * What an event has to say, name by name; "detail" begins empty.  Texts are cut
 * after 1,000 bytes; NULL and 0 are left out.
 */
extern void current_say_text(StringInfo detail, const char *name, const char *value);
extern void current_say_number(StringInfo detail, const char *name, int64 value);
extern void current_say_time(StringInfo detail, const char *name, TimestampTz value);
extern void current_say_lsn(StringInfo detail, const char *name, XLogRecPtr value);

/*
 * Records an event, and notifies listeners when the transaction commits.  "detail" may be
 * NULL.  An event that is as the last one was is counted there.
 */
extern void current_record(const Connector *connector, const char *event, CurrentState state,
						   const StringInfoData *detail);

#endif /* CURRENT_INTERNAL_H */
