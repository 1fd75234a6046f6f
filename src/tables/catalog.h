/*-------------------------------------------------------------------------
 *
 * catalog.h
 *	  SQL on the extension's own tables, as their owner.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S3EXPORT_CATALOG_H
#define S3EXPORT_CATALOG_H

#include "access/xlog.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/pg_lsn.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

/*
 * Between enter and leave the current user is the owner of the extension's
 * tables, restricted, and the search_path is pg_catalog, so that no object of
 * another user can be called.  An error in between restores both.
 */
typedef struct CatalogScope
{
	Oid userid;
	int sec_context;
	int guc_level;
} CatalogScope;

extern void catalog_enter(CatalogScope *scope);
extern void catalog_leave(CatalogScope *scope);

/* What a short transaction changes of its surroundings. */
typedef struct CatalogTransaction
{
	CatalogScope  scope;
	MemoryContext context;
	ResourceOwner owner;
} CatalogTransaction;

/*
 * A transaction and a scope, for processes of ours that have none.  SPI leaves
 * its own memory context current after each statement: what is to stay is made
 * in transaction->context.
 */
extern void catalog_begin_transaction(CatalogTransaction *transaction);
extern void catalog_commit_transaction(CatalogTransaction *transaction);

/*
 * What this process has cached of the catalogs is of another time, as after a look at them
 * through a historic snapshot: the next such transaction begins without it.
 */
extern void catalog_doubt_caches(void);

/*
 * Which server, of all that may have a copy of a row, this is: system_identifier,
 * data_directory, database and timeline.  A copy that was promoted has a
 * timeline of its own.
 */
#define CATALOG_THIS_SERVER                                                                  \
	param_int8((int64) GetSystemIdentifier()), param_text(DataDir), param_oid(MyDatabaseId), \
		param_int4((int32) GetWALInsertionTimeLine())

/*
 * In every background worker when it has connected, whatever the database and the role set:
 * messages are for another process of the server, in the database's encoding, and few enough
 * to fit a queue; the user is who the worker is connected as; no transaction waits for others
 * to end, of which one may wait for the worker.
 */
extern void catalog_settle_connection(void);

/*
 * The same, in a background worker whose transactions touch the extension's own tables
 * alone: they must not wait for ever for a lock that whoever waits for the worker
 * may hold, nor depend on what the database sets for its users.  Their commits are marked in
 * the WAL as not to be replicated.
 */
#define CATALOG_LOCK_TIMEOUT "10s"
extern void catalog_settle_session(const char *application_name);

/* The value of a parameter of a statement. */
typedef struct CatalogParam
{
	Oid   type;
	Datum value;
	bool  isnull;
} CatalogParam;

static inline CatalogParam
param_int4(int32 value)
{
	return (CatalogParam){.type = INT4OID, .value = Int32GetDatum(value)};
}

static inline CatalogParam
param_int8(int64 value)
{
	return (CatalogParam){.type = INT8OID, .value = Int64GetDatum(value)};
}

static inline CatalogParam
param_bool(bool value)
{
	return (CatalogParam){.type = BOOLOID, .value = BoolGetDatum(value)};
}

/* The OID of a role or of anything else. */
static inline CatalogParam
param_oid(Oid value)
{
	return (CatalogParam){.type = OIDOID, .value = ObjectIdGetDatum(value)};
}

static inline CatalogParam
param_timestamptz(TimestampTz value)
{
	return (CatalogParam){.type = TIMESTAMPTZOID, .value = TimestampTzGetDatum(value)};
}

/* InvalidXLogRecPtr: null. */
static inline CatalogParam
param_lsn(XLogRecPtr value)
{
	return (CatalogParam){PG_LSNOID, LSNGetDatum(value), value == InvalidXLogRecPtr};
}

/* NULL: null; so it is for a bytea. */
static inline CatalogParam
param_text(const char *value)
{
	return (CatalogParam){TEXTOID, value != NULL ? CStringGetTextDatum(value) : (Datum) 0,
						  value == NULL};
}

static inline CatalogParam
param_bytea(const bytea *value)
{
	return (CatalogParam){BYTEAOID, PointerGetDatum(value), value == NULL};
}

/*
 * catalog_execute(sql, param_..., ...) runs one statement within a scope, with SPI's results in
 * SPI_tuptable.  Returns SPI's count of processed rows.
 */
#define catalog_execute(...) CATALOG_EXECUTE(false, __VA_ARGS__, {0})

/*
 * catalog_execute_latest also sees what has been committed by now where the snapshot of the
 * transaction is older.
 */
#define catalog_execute_latest(...) CATALOG_EXECUTE(true, __VA_ARGS__, {0})

/* The last parameter is a mark of the end, so that there may be none. */
#define CATALOG_EXECUTE(latest, sql, ...)                                              \
	catalog_execute_params(sql, latest, lengthof(((CatalogParam[]){__VA_ARGS__})) - 1, \
						   (CatalogParam[]){__VA_ARGS__})

extern uint64
catalog_execute_params(const char *sql, bool latest, int count, const CatalogParam *params);

/* Is one of these statements running?  For triggers on the tables. */
extern bool catalog_is_executing(void);

/* The OID of one of the extension's tables. */
extern Oid catalog_table(const char *table);

/* A column of a result row; NULL when null, palloc'd in the caller's context. */
extern char  *catalog_text(uint64 row, const char *column);
extern bytea *catalog_bytea(uint64 row, const char *column);
extern int64  catalog_int64(uint64 row, const char *column, bool *isnull);

/* A column of OIDs of all "rows" result rows, as a list in "context". */
extern List *catalog_oids(uint64 rows, const char *column, MemoryContext context);

#endif /* S3EXPORT_CATALOG_H */
