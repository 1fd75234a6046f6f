/*-------------------------------------------------------------------------
 *
 * current_tables.c
 *	  The tables of currents: which may be, and their rows.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/transam.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "miscadmin.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "compat.h"
#include "current_internal.h"

/* ---------------------------------------------------------------- checks */

static void
require_owner(Oid relid, Oid role)
{
	if (compat_owns_table(relid, role))
		return;
	ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					errmsg("must be owner of table %s", get_rel_name(relid)),
					role == GetUserId() ? 0
										: errdetail("Role \"%s\" owns the connector.",
													GetUserNameFromId(role, false))));
}

static void
refuse(Relation table, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("cannot send changes of relation \"%s\"", RelationGetRelationName(table)),
			 detail ? errdetail("%s", detail)
					: errdetail_relkind_not_supported(table->rd_rel->relkind)));
}

/* As check_publication_add_relation(). */
static void
require_sendable(Relation table)
{
	if (table->rd_rel->relkind != RELKIND_RELATION &&
		table->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		refuse(table, NULL);
	if (RelationGetRelid(table) < FirstNormalObjectId)
		refuse(table, "This operation is not supported for system tables.");
	if (RelationGetNamespace(table) == get_namespace_oid("s3export", false))
		refuse(table, "This operation is not supported for tables of extension \"s3export\".");
	if (table->rd_rel->relpersistence == RELPERSISTENCE_TEMP)
		refuse(table, "This operation is not supported for temporary tables.");
	if (table->rd_rel->relpersistence == RELPERSISTENCE_UNLOGGED)
		refuse(table, "This operation is not supported for unlogged tables.");
}

/* The changes of a partition would be sent twice. */
static void
require_no_ancestor(Relation table, List *relids)
{
	ListCell *cell;

	if (!table->rd_rel->relispartition)
		return;
	foreach (cell, get_partition_ancestors(RelationGetRelid(table)))
	{
		if (list_member_oid(relids, lfirst_oid(cell)))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("cannot send changes of table \"%s\" and of its partition \"%s\"",
							get_rel_name(lfirst_oid(cell)), RelationGetRelationName(table)),
					 errdetail("Changes of a partitioned table are those of its partitions.")));
	}
}

/* Without one the log does not say which row an update or a delete was of. */
static void
require_identity(Relation table)
{
	if (table->rd_rel->relkind == RELKIND_PARTITIONED_TABLE ||
		table->rd_rel->relreplident == REPLICA_IDENTITY_FULL ||
		OidIsValid(RelationGetReplicaIndex(table)))
		return;
	ereport(
		ERROR,
		(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		 errmsg("cannot send updates and deletes of table \"%s\"", RelationGetRelationName(table)),
		 errdetail("It has no replica identity: neither a primary key nor another one."),
		 errhint("Add a primary key, or set one with ALTER TABLE ... REPLICA IDENTITY.")));
}

/* Rows are logged as those of the partitions that they are in. */
static void
require_identities(Oid relid)
{
	ListCell *cell;

	foreach (cell, find_all_inheritors(relid, AccessShareLock, NULL))
	{
		Relation table = relation_open(lfirst_oid(cell), NoLock);

		if (table->rd_rel->relispartition || lfirst_oid(cell) == relid)
			require_identity(table);
		relation_close(table, NoLock);
	}
}

static void
check_new_tables(const Connector *connector, List *relids)
{
	ListCell *cell;

	foreach (cell, relids)
	{
		Relation table = relation_open(lfirst_oid(cell), AccessShareLock);

		require_owner(lfirst_oid(cell), GetUserId());
		require_owner(lfirst_oid(cell), connector->owner);
		require_sendable(table);
		require_no_ancestor(table, relids);
		relation_close(table, NoLock);
	}
}

/* OIDs of the tables that exist. */
static List *
existing_tables(const Current *current)
{
	List     *relids = NIL;
	ListCell *cell;

	foreach (cell, current->tables)
	{
		const CurrentTable *table = lfirst(cell);

		if (table->removed_lsn == InvalidXLogRecPtr && get_rel_name(table->relid) != NULL)
			relids = lappend_oid(relids, table->relid);
	}
	return relids;
}

void
current_check(Connector *connector, const CurrentSettings *settings, bool new_owner)
{
	List     *relids = settings->tables;
	int       operations = settings->operations;
	ListCell *cell;

	if (settings->set_tables)
		check_new_tables(connector, relids);
	if (connector->connector_id != 0)
	{
		const Current *current = current_get(connector, false);

		if (!settings->set_tables)
			relids = existing_tables(current);
		if (operations == 0)
			operations = current->operations;
	}
	foreach (cell, relids)
	{
		if (new_owner)
			require_owner(lfirst_oid(cell), connector->owner);
		if ((operations & (CURRENT_UPDATE | CURRENT_DELETE)) != 0 &&
			(settings->set_tables || settings->operations != 0))
			require_identities(lfirst_oid(cell));
	}
}

/* ------------------------------------------------------------------- rows */

#define OID_OF_NAME                                  \
	"(SELECT c.oid FROM pg_class c"                  \
	" JOIN pg_namespace n ON n.oid = c.relnamespace" \
	" WHERE c.relname = t.table_name AND n.nspname = t.schema_name)"

List *
current_append_table(List *tables, uint64 row, MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	CurrentTable *table = palloc(sizeof(CurrentTable));

	*table = (CurrentTable){
		.relid = (Oid) catalog_int64(row, "relid", NULL),
		.version = (int) catalog_int64(row, "version", NULL),
		.columns = catalog_text(row, "columns"),
		.removed_lsn = (XLogRecPtr) catalog_int64(row, "removed_lsn", NULL),
	};
	tables = lappend(tables, table);
	MemoryContextSwitchTo(old);
	return tables;
}

List *
current_read_tables(int64 connector_id, bool here, XLogRecPtr delivered, MemoryContext context)
{
	List  *tables = NIL;
	uint64 rows = catalog_execute_latest(
		"SELECT CASE WHEN $2 THEN relid ELSE coalesce(" OID_OF_NAME ", 0) END AS relid, version,"
		" columns, removed_lsn FROM s3export.current_table t"
		" WHERE connector_id = $1 AND (removed_lsn IS NULL OR removed_lsn > $3)"
		" ORDER BY schema_name, table_name, relid",
		"ibl", connector_id, here, delivered);

	for (uint64 i = 0; i < rows; i++)
		tables = current_append_table(tables, i, context);
	return tables;
}

void
current_resolve_tables(int64 connector_id)
{
	(void) catalog_execute("UPDATE s3export.current_table t SET relid = coalesce(" OID_OF_NAME
						   ", 0) WHERE connector_id = $1",
						   "i", connector_id);
}

static char *
oids_to_array(List *relids)
{
	StringInfoData array;
	ListCell      *cell;

	initStringInfo(&array);
	appendStringInfoChar(&array, '{');
	foreach (cell, relids)
		appendStringInfo(&array, "%s%u", array.len > 1 ? "," : "", lfirst_oid(cell));
	appendStringInfoChar(&array, '}');
	return array.data;
}

bool
current_replace_tables(const Connector *connector, List *relids, bool here, bool launched)
{
	int64       id = connector->connector_id;
	const char *array = oids_to_array(relids);
	uint64      changes;

	if (!here)
		current_resolve_tables(id);
	changes = catalog_execute("UPDATE s3export.current_table SET removed_lsn ="
							  " CASE WHEN $3 THEN pg_current_wal_insert_lsn() ELSE '0/0' END"
							  " WHERE connector_id = $1 AND removed_lsn IS NULL"
							  " AND relid <> ALL ($2::oid[])",
							  "itb", id, array, launched);
	changes += catalog_execute("UPDATE s3export.current_table SET removed_lsn = NULL"
							   " WHERE connector_id = $1 AND removed_lsn IS NOT NULL"
							   " AND relid = ANY ($2::oid[])",
							   "it", id, array);
	changes += catalog_execute("INSERT INTO s3export.current_table"
							   " (connector_id, relid, schema_name, table_name)"
							   " SELECT $1, c.oid, n.nspname, c.relname"
							   " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
							   " WHERE c.oid = ANY ($2::oid[]) AND NOT EXISTS"
							   " (SELECT FROM s3export.current_table t"
							   " WHERE t.connector_id = $1 AND t.relid = c.oid)",
							   "it", id, array);
	return changes > 0;
}

char *
current_tables_to_json(List *tables)
{
	StringInfoData json;
	ListCell      *cell;

	initStringInfo(&json);
	appendStringInfoChar(&json, '[');
	foreach (cell, tables)
	{
		const CurrentTable *table = lfirst(cell);

		appendStringInfo(&json, "%s{\"relid\": %u, \"version\": %d", json.len > 1 ? ", " : "",
						 table->relid, table->version);
		if (table->columns != NULL)
		{
			appendStringInfoString(&json, ", \"columns\": ");
			escape_json(&json, table->columns);
		}
		if (table->removed_lsn != InvalidXLogRecPtr)
			appendStringInfo(&json, ", \"removed_lsn\": \"%X/%X\"",
							 LSN_FORMAT_ARGS(table->removed_lsn));
		appendStringInfoChar(&json, '}');
	}
	appendStringInfoChar(&json, ']');
	return json.data;
}

/* ---- in the worker ---- */

void
current_require_tables(const Current *current)
{
	CatalogTransaction transaction;
	uint64             rows;

	catalog_begin_transaction(&transaction);
	rows = catalog_execute(
		"SELECT CASE WHEN $2 THEN relid ELSE coalesce(" OID_OF_NAME ", 0) END AS relid,"
		" format('%I.%I', schema_name, table_name) AS name"
		" FROM s3export.current_table t WHERE connector_id = $1 AND removed_lsn IS NULL"
		" ORDER BY schema_name, table_name",
		"ib", current->connector->connector_id, current->here);
	if (rows == 0)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("connector \"%s\" has no tables", current->connector->name),
						errhint("Name some with s3export.alter_connector(tables => ...).")));
	for (uint64 i = 0; i < rows; i++)
	{
		Oid relid = (Oid) catalog_int64(i, "relid", NULL);

		if (get_rel_name(relid) == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_TABLE),
					 errmsg("table \"%s\" of connector \"%s\" does not exist",
							catalog_text(i, "name"), current->connector->name),
					 errhint("Name those that do with s3export.alter_connector(tables => ...).")));
		require_owner(relid, current->connector->owner);
	}
	catalog_commit_transaction(&transaction);
}

/* Within a transaction: the tables that have been dropped, by their names. */
static List *
find_dropped(const Current *current, const CatalogTransaction *transaction)
{
	List  *dropped = NIL;
	uint64 rows = catalog_execute("SELECT relid, format('%I.%I', schema_name, table_name) AS name"
								  " FROM s3export.current_table"
								  " WHERE connector_id = $1 AND removed_lsn IS NULL"
								  " ORDER BY schema_name, table_name",
								  "i", current->connector->connector_id);

	for (uint64 i = 0; i < rows; i++)
	{
		Oid           relid = (Oid) catalog_int64(i, "relid", NULL);
		char         *name = catalog_text(i, "name");
		MemoryContext old;

		if (get_rel_name(relid) != NULL)
		{
			require_owner(relid, current->connector->owner);
			continue;
		}
		old = MemoryContextSwitchTo(transaction->context);
		dropped = lappend(dropped, name);
		MemoryContextSwitchTo(old);
	}
	return dropped;
}

void
current_check_tables(const Current *current)
{
	const Connector   *connector = current->connector;
	CatalogTransaction transaction;
	List              *dropped;
	ListCell          *cell;

	catalog_begin_transaction(&transaction);
	dropped = find_dropped(current, &transaction);
	if (dropped != NIL)
	{
		(void) catalog_execute(
			"UPDATE s3export.current_table t SET removed_lsn = pg_current_wal_insert_lsn()"
			" WHERE connector_id = $1 AND removed_lsn IS NULL"
			" AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = t.relid)",
			"i", connector->connector_id);
		current_record(connector, "tables_changed", current->state, NULL);
	}
	catalog_commit_transaction(&transaction);

	foreach (cell, dropped)
		ereport(WARNING, (errmsg("table %s of connector \"%s\" has been dropped",
								 (char *) lfirst(cell), connector->name),
						  errdetail("What was committed before is delivered; the connector goes on "
									"without it.")));
}
