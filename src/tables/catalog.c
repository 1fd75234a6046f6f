/*-------------------------------------------------------------------------
 *
 * catalog.c
 *	  SQL on the extension's own tables, as their owner.
 *
 * Users have no rights on these tables; what a user may do is decided in C
 * before a scope is entered.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "replication/origin.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/pg_lsn.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "tables/catalog.h"

#define MAX_PARAMETERS 40

/* The owner is asked for each time: it may change, and the extension may be dropped. */
static Oid
tables_owner(void)
{
	Oid       schema = get_namespace_oid("s3export", true);
	Oid       relid = OidIsValid(schema) ? get_relname_relid("connector", schema) : InvalidOid;
	HeapTuple tuple;
	Oid       owner;

	tuple = OidIsValid(relid) ? SearchSysCache1(RELOID, ObjectIdGetDatum(relid)) : NULL;
	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("could not find the tables of extension \"s3export\""),
				 errdetail("They do not exist in database \"%s\", or the transaction that creates "
						   "them has not committed yet.",
						   get_database_name(MyDatabaseId)),
				 errhint("Run CREATE EXTENSION s3export, and commit, first.")));
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

void
catalog_enter(CatalogScope *scope)
{
	Oid owner = tables_owner();

	GetUserIdAndSecContext(&scope->userid, &scope->sec_context);
	SetUserIdAndSecContext(owner, scope->sec_context | SECURITY_LOCAL_USERID_CHANGE |
									  SECURITY_RESTRICTED_OPERATION);
	scope->guc_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
}

void
catalog_leave(CatalogScope *scope)
{
	SPI_finish();
	AtEOXact_GUC(false, scope->guc_level);
	SetUserIdAndSecContext(scope->userid, scope->sec_context);
}

static bool caches_are_doubtful = false;

void
catalog_doubt_caches(void)
{
	caches_are_doubtful = true;
}

void
catalog_begin_transaction(CatalogTransaction *transaction)
{
	transaction->context = CurrentMemoryContext;
	transaction->owner = CurrentResourceOwner;
	if (caches_are_doubtful)
		InvalidateSystemCaches();
	caches_are_doubtful = false;
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();

	/* Whatever the database, or a job's owner, has for a default. */
	XactReadOnly = RecoveryInProgress();
	XactIsoLevel = XACT_READ_COMMITTED;
	PushActiveSnapshot(GetTransactionSnapshot());
	MemoryContextSwitchTo(transaction->context);
	catalog_enter(&transaction->scope);
}

void
catalog_commit_transaction(CatalogTransaction *transaction)
{
	catalog_leave(&transaction->scope);
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(transaction->context);
	CurrentResourceOwner = transaction->owner;
}

typedef struct Setting
{
	const char *name;
	const char *value;
} Setting;

/* Not every server has all of them. */
static void
apply_settings(const Setting *settings, size_t count)
{
	for (size_t i = 0; i < count; i++)
	{
		if (GetConfigOption(settings[i].name, true, false) != NULL)
			SetConfigOption(settings[i].name, settings[i].value, PGC_SUSET, PGC_S_OVERRIDE);
	}
}

void
catalog_settle_connection(void)
{
	const Setting settings[] = {
		{"client_encoding", GetDatabaseEncodingName()},
		{"client_min_messages", "notice"},
		{"exit_on_error", "off"},
		{"role", "none"},
		{"default_transaction_deferrable", "off"},
	};

	apply_settings(settings, lengthof(settings));
}

void
catalog_settle_session(const char *application_name)
{
	static const Setting settings[] = {
		{"lock_timeout", CATALOG_LOCK_TIMEOUT},
		{"statement_timeout", "0"},
		{"transaction_timeout", "0"},
		{"idle_in_transaction_session_timeout", "0"},
		{"synchronous_commit", "local"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_isolation", "read committed"},
		{"session_replication_role", "origin"},
		{"standard_conforming_strings", "on"},
		{"transform_null_equals", "off"},
		{"jit", "off"},
	};

	catalog_settle_connection();
	apply_settings(settings, lengthof(settings));
	pgstat_report_appname(application_name);

	/* Logical replication can tell these commits from those of users. */
	replorigin_session_origin = DoNotReplicateId;
}

static bool executing = false;

bool
catalog_is_executing(void)
{
	return executing;
}

/* SPI's result code. */
static int
execute_statement(const char *sql, bool latest, int nargs, Oid *argtypes, Datum *values,
				  const char *nulls)
{
	SPIPlanPtr plan;

	if (!latest)
		return SPI_execute_with_args(sql, nargs, argtypes, values, nulls, false, 0);
	plan = SPI_prepare(sql, nargs, argtypes);
	if (plan == NULL)
		elog(ERROR, "could not prepare \"%s\": %s", sql, SPI_result_code_string(SPI_result));
	return SPI_execute_snapshot(plan, values, nulls, GetLatestSnapshot(), InvalidSnapshot, false,
								true, 0);
}

uint64
catalog_execute_params(const char *sql, bool latest, int count, const CatalogParam *params)
{
	Oid   argtypes[MAX_PARAMETERS];
	Datum values[MAX_PARAMETERS];
	char  nulls[MAX_PARAMETERS];
	int volatile result = 0;
	bool within = executing; /* of a trigger of another statement of ours */

	Assert(count <= MAX_PARAMETERS);
	for (int i = 0; i < count; i++)
	{
		argtypes[i] = params[i].type;
		values[i] = params[i].value;
		nulls[i] = params[i].isnull ? 'n' : ' ';
	}

	executing = true;
	PG_TRY();
	{
		result = execute_statement(sql, latest, count, argtypes, values, nulls);
	}
	PG_FINALLY();
	{
		executing = within;
	}
	PG_END_TRY();
	if (result < 0)
		elog(ERROR, "could not execute \"%s\": %s", sql, SPI_result_code_string(result));
	return SPI_processed;
}

Oid
catalog_table(const char *table)
{
	return get_relname_relid(table, get_namespace_oid("s3export", false));
}

static int
column_number(const char *column)
{
	int number = SPI_fnumber(SPI_tuptable->tupdesc, column);

	if (number == SPI_ERROR_NOATTRIBUTE)
		elog(ERROR, "column \"%s\" is not in the result", column);
	return number;
}

char *
catalog_text(uint64 row, const char *column)
{
	char *value =
		SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column_number(column));
	char *copy;

	if (value == NULL)
		return NULL;
	/* SPI_palloc is the context that SPI_connect found. */
	copy = SPI_palloc(strlen(value) + 1);
	strcpy(copy, value);
	pfree(value);
	return copy;
}

bytea *
catalog_bytea(uint64 row, const char *column)
{
	bool  null;
	Datum value =
		SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column_number(column), &null);
	bytea *plain;
	bytea *copy;

	if (null)
		return NULL;
	plain = DatumGetByteaPP(value);
	copy = SPI_palloc(VARHDRSZ + VARSIZE_ANY_EXHDR(plain));
	SET_VARSIZE(copy, VARHDRSZ + VARSIZE_ANY_EXHDR(plain));
	memcpy(VARDATA(copy), VARDATA_ANY(plain), VARSIZE_ANY_EXHDR(plain));
	return copy;
}

int64
catalog_int64(uint64 row, const char *column, bool *isnull)
{
	bool  null;
	int   number = column_number(column);
	Oid   type = SPI_gettypeid(SPI_tuptable->tupdesc, number);
	Datum value = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, number, &null);

	if (isnull != NULL)
		*isnull = null;
	if (null)
		return 0;
	switch (type)
	{
		case INT8OID:
		case TIMESTAMPTZOID:
			return DatumGetInt64(value);
		case PG_LSNOID:
			return (int64) DatumGetLSN(value);
		case INT4OID:
			return DatumGetInt32(value);
		case BOOLOID:
			return DatumGetBool(value);
		default:
			return (int64) DatumGetObjectId(value);
	}
}

List *
catalog_oids(uint64 rows, const char *column, MemoryContext context)
{
	List *oids = NIL;

	for (uint64 i = 0; i < rows; i++)
	{
		Oid           oid = (Oid) catalog_int64(i, column, NULL);
		MemoryContext old = MemoryContextSwitchTo(context);

		oids = lappend_oid(oids, oid);
		MemoryContextSwitchTo(old);
	}
	return oids;
}
