/*-------------------------------------------------------------------------
 *
 * current_tables.c
 *	  The rows of the tables that currents send, and how they change between deliveries.
 *
 * The publication decides which changes are sent.  The rows here keep the versions
 * of tables' columns, and what the publication had when it was last looked at, so that
 * a table that is not sent any more can be named.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_class.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/syscache.h"

#include "base/object_path.h"
#include "currents/current_internal.h"

/* ---- rows ---- */

List *
current_append_table(List *tables, uint64 row, MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	CurrentTable *table = palloc(sizeof(CurrentTable));

	*table = (CurrentTable){
		.relid = (Oid) catalog_int64(row, "relid", NULL),
		.version = (int) catalog_int64(row, "version", NULL),
		.columns = catalog_text(row, "columns"),
		.added_lsn = (XLogRecPtr) catalog_int64(row, "added_lsn", NULL),
		.since_lsn = (XLogRecPtr) catalog_int64(row, "since_lsn", NULL),
	};
	tables = lappend(tables, table);
	MemoryContextSwitchTo(old);
	return tables;
}

List *
current_read_tables(int64 connector_id, MemoryContext context)
{
	List  *tables = NIL;
	uint64 rows = catalog_execute_latest("SELECT relid, version, columns, added_lsn, since_lsn"
										 " FROM s3export.current_table WHERE connector_id = $1"
										 " AND (version > 0 OR since_lsn IS NOT NULL)"
										 " ORDER BY relid",
										 param_int8(connector_id));

	for (uint64 i = 0; i < rows; i++)
		tables = current_append_table(tables, i, context);
	return tables;
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
		if (table->since_lsn != InvalidXLogRecPtr)
			appendStringInfo(&json, ", \"added_lsn\": \"%X/%X\", \"since_lsn\": \"%X/%X\"",
							 LSN_FORMAT_ARGS(table->added_lsn), LSN_FORMAT_ARGS(table->since_lsn));
		appendStringInfoChar(&json, '}');
	}
	appendStringInfoChar(&json, ']');
	return json.data;
}

/* ---- the tables of a copy ---- */

/*
 * With "publish_via_partition_root" the rows are asked for by the root, else by each
 * partition.  The partitions of a root are listed for their files' sake.
 */
#define SOURCE_TABLES                                                               \
	CURRENT_PUBLISHED                                                               \
	", joined (relid) AS (SELECT $2::oid UNION"                                     \
	" SELECT i.inhrelid FROM joined j JOIN pg_inherits i ON i.inhparent = j.relid)" \
	" SELECT p.relid, format('%I.%I', p.schema_name, p.table_name) AS name,"        \
	" CASE WHEN p.relkind = 'r' THEN c.relfilenode ELSE 0 END AS filenode,"         \
	" CASE WHEN l.pubviaroot THEN p.parent = 0 ELSE p.relkind = 'r' END AS copied," \
	" (SELECT pg_get_expr(r.prqual, r.prrelid) FROM pg_publication_rel r"           \
	" WHERE r.prpubid = $1 AND r.prrelid = p.relid AND NOT l.puballtables"          \
	" AND NOT EXISTS (SELECT FROM pg_publication_namespace n"                       \
	" WHERE n.pnpubid = $1 AND n.pnnspid = c.relnamespace)) AS filter"              \
	" FROM published p JOIN pg_class c ON c.oid = p.relid"                          \
	" JOIN pg_publication l ON l.oid = $1"                                          \
	" WHERE p.schema_name <> 's3export' AND p.relpersistence = 'p'"                 \
	" AND ($2 = 0 OR p.relid IN (SELECT relid FROM joined)) ORDER BY name"

List *
current_source_tables(const Current *current, Oid joined)
{
	MemoryContext context = CurrentMemoryContext;
	List         *tables = NIL;
	CatalogScope  scope;
	uint64        rows;

	catalog_enter(&scope);
	rows = catalog_execute(SOURCE_TABLES, param_oid(current->published), param_oid(joined));
	for (uint64 i = 0; i < rows; i++)
	{
		MemoryContext       old = MemoryContextSwitchTo(context);
		CurrentSourceTable *table = palloc(sizeof(CurrentSourceTable));

		*table = (CurrentSourceTable){.relid = (Oid) catalog_int64(i, "relid", NULL),
									  .filenode = (Oid) catalog_int64(i, "filenode", NULL),
									  .copied = catalog_int64(i, "copied", NULL) != 0};
		MemoryContextSwitchTo(old);
		table->name = catalog_text(i, "name");
		table->filter = catalog_text(i, "filter");
		MemoryContextSwitchTo(context);
		tables = lappend(tables, table);
		MemoryContextSwitchTo(old);
	}
	catalog_leave(&scope);
	return tables;
}

/* A copy of a table whose changes are sent already would come between them. */
void
current_require_unpublished(const Current *current, Oid relid)
{
	CatalogTransaction transaction;

	catalog_begin_transaction(&transaction);
	if (catalog_execute(
			"WITH RECURSIVE joined (relid) AS (SELECT $2::oid UNION"
			" SELECT i.inhrelid FROM joined j JOIN pg_inherits i ON i.inhparent = j.relid)"
			" SELECT format('%I.%I', t.schema_name, t.table_name) AS name,"
			" t.waits_for IS NOT NULL AS waits"
			" FROM s3export.current_table t WHERE t.connector_id = $1"
			" AND t.relid IN (SELECT relid FROM joined) AND t.since_lsn > $3"
			" ORDER BY name LIMIT 1",
			param_int8(current->connector->connector_id), param_oid(relid),
			param_lsn(current->delivered)) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("changes of table %s from when it was added last are still to be delivered",
						catalog_text(0, "name")),
				 catalog_int64(0, "waits", NULL) != 0
					 ? errhint("Run s3export.deliver() when all transactions have ended that ran "
							   "when its copy failed.")
					 : errhint("Run s3export.deliver() first.")));
	if (catalog_execute(
			CURRENT_PUBLISHED
			", joined (relid) AS (SELECT $2::oid UNION"
			" SELECT i.inhrelid FROM joined j JOIN pg_inherits i ON i.inhparent = j.relid)"
			" SELECT format('%I.%I', schema_name, table_name) AS name FROM published"
			" WHERE relid IN (SELECT relid FROM joined) ORDER BY name LIMIT 1",
			param_oid(current->published), param_oid(relid)) > 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_DUPLICATE_OBJECT),
			 errmsg("table %s is already in publication \"%s\"", catalog_text(0, "name"),
					current->publication),
			 errdetail("It is there by itself, by its schema, or by the table that it is a "
					   "partition of."),
			 errhint("To send its rows again, take it out with ALTER PUBLICATION ... DROP TABLE "
					 "first.  launch() with copy_existing sends the rows of all tables.")));
	catalog_commit_transaction(&transaction);
}

bool
current_is_stored_in(Oid relid, Oid filenode)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	bool      same;

	if (!HeapTupleIsValid(tuple))
		return false;
	same = filenode == InvalidOid || ((Form_pg_class) GETSTRUCT(tuple))->relfilenode == filenode;
	ReleaseSysCache(tuple);
	return same;
}

/* ---- changes of the publication ---- */

/* Has another table the name that the table had, and is not published? */
#define HAS_NAMESAKE                                                                 \
	"t.relid IS NOT NULL AND t.gone_lsn IS NULL AND EXISTS (SELECT FROM pg_class c"  \
	" JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = t.schema_name" \
	" AND c.relname = t.table_name"                                                  \
	" AND NOT EXISTS (SELECT FROM published o WHERE o.relid = c.oid))"

#define CHANGES                                                                           \
	CURRENT_PUBLISHED                                                                     \
	"SELECT CASE WHEN t.relid IS NULL OR t.gone_lsn IS NOT NULL THEN 'added'"             \
	" WHEN p.relid IS NULL AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = t.relid)" \
	" THEN 'dropped'"                                                                     \
	" WHEN p.relid IS NULL AND EXISTS (SELECT FROM pg_class c WHERE c.oid = t.relid"      \
	" AND c.relpersistence <> 'p') THEN 'unlogged'"                                       \
	" WHEN p.relid IS NULL THEN 'removed' ELSE 'renamed' END AS change,"                  \
	" format('%I.%I', coalesce(p.schema_name, t.schema_name),"                            \
	" coalesce(p.table_name, t.table_name)) AS name,"                                     \
	" CASE WHEN t.relid IS NOT NULL"                                                      \
	" THEN format('%I.%I', t.schema_name, t.table_name) END AS old_name,"                 \
	" " HAS_NAMESAKE " AS namesake"                                                       \
	" FROM published p FULL JOIN (SELECT * FROM s3export.current_table"                   \
	" WHERE connector_id = $2) t ON t.relid = p.relid"                                    \
	" WHERE (t.relid IS NULL OR p.relid IS NULL OR t.gone_lsn IS NOT NULL"                \
	" OR (t.schema_name, t.table_name) <> (p.schema_name, p.table_name))"                 \
	" AND (p.relid IS NOT NULL OR t.gone_lsn IS NULL) ORDER BY change, name"

/* A table that came or went. */
typedef struct TableChange
{
	char *change; /* "added", "dropped", "removed", "renamed", "unlogged" */
	char *name;
	char *old_name; /* where it is renamed */
	bool  namesake; /* another table has the old name now, and is not published */
} TableChange;

/* Within a scope; what it returns is in "context". */
static List *
find_changes(const Current *current, Oid publication, MemoryContext context)
{
	List  *changes = NIL;
	uint64 rows = catalog_execute(CHANGES, param_oid(publication),
								  param_int8(current->connector->connector_id));

	for (uint64 i = 0; i < rows; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(context);
		TableChange  *change = palloc(sizeof(TableChange));

		*change = (TableChange){
			.change = catalog_text(i, "change"),
			.name = catalog_text(i, "name"),
			.old_name = catalog_text(i, "old_name"),
			.namesake = catalog_int64(i, "namesake", NULL) != 0,
		};
		changes = lappend(changes, change);
		MemoryContextSwitchTo(old);
	}
	return changes;
}

/* Within a scope: the rows are as the publication is. */
static void
put_published(const Current *current, Oid publication)
{
	(void) catalog_execute(
		CURRENT_PUBLISHED
		"INSERT INTO s3export.current_table AS t"
		" (connector_id, relid, schema_name, table_name)"
		" SELECT $2, relid, schema_name, table_name FROM published"
		" ON CONFLICT (connector_id, relid) DO UPDATE SET schema_name = excluded.schema_name,"
		" table_name = excluded.table_name, gone_lsn = NULL"
		" WHERE t.gone_lsn IS NOT NULL"
		" OR (t.schema_name, t.table_name) <> (excluded.schema_name, excluded.table_name)",
		param_oid(publication), param_int8(current->connector->connector_id));
	(void) catalog_execute(
		CURRENT_PUBLISHED
		"UPDATE s3export.current_table t SET gone_lsn = pg_current_wal_insert_lsn()"
		" WHERE connector_id = $2 AND gone_lsn IS NULL"
		" AND NOT EXISTS (SELECT FROM published p WHERE p.relid = t.relid)",
		param_oid(publication), param_int8(current->connector->connector_id));
}

/* "added": "public.a, public.b" */
static void
say_changes(StringInfo detail, List *changes, const char *kind)
{
	StringInfoData names;
	ListCell      *cell;

	initStringInfo(&names);
	foreach (cell, changes)
	{
		const TableChange *change = lfirst(cell);

		if (strcmp(change->change, kind) != 0)
			continue;
		appendStringInfoString(&names, names.len > 0 ? ", " : "");
		if (strcmp(kind, "renamed") == 0)
			appendStringInfo(&names, "%s to ", change->old_name);
		appendStringInfoString(&names, change->name);
	}
	if (names.len > 0)
		current_say_text(detail, kind, names.data);
}

static void
record_changes(const Current *current, List *changes)
{
	static const char *const kinds[] = {"added", "dropped", "removed", "renamed", "unlogged"};
	StringInfoData           detail;

	initStringInfo(&detail);
	for (size_t i = 0; i < lengthof(kinds); i++)
		say_changes(&detail, changes, kinds[i]);
	current_record(current->connector, "tables_changed", current->state, &detail);
}

/* Only of what a reader of the files will miss, and cannot know from the publication. */
static void
warn_of_change(const Current *current, const TableChange *change)
{
	const char *connector = current->connector->name;
	const char *add = psprintf("Add it with ALTER PUBLICATION %s ADD TABLE %s, or with its rows by "
							   "s3export.add_table().",
							   quote_identifier(current->publication),
							   change->old_name ? change->old_name : change->name);

	if (strcmp(change->change, "dropped") == 0)
		ereport(
			WARNING,
			(errmsg("table %s of connector \"%s\" has been dropped", change->name, connector),
			 change->namesake
				 ? errdetail("Another table has its name now, and is not in publication \"%s\".",
							 current->publication)
				 : errdetail("What was committed before is delivered; the connector goes on "
							 "without it."),
			 change->namesake ? errhint("%s", add) : 0));
	else if (strcmp(change->change, "unlogged") == 0)
		ereport(WARNING,
				(errmsg("table %s of connector \"%s\" is unlogged now", change->name, connector),
				 errdetail("Its changes are not in the WAL, and are not sent.")));
	else if (strcmp(change->change, "renamed") == 0 && change->namesake)
		ereport(WARNING, (errmsg("table %s of connector \"%s\" is called %s now", change->old_name,
								 connector, change->name),
						  errdetail("Another table has the name %s now, and is not in publication "
									"\"%s\".",
									change->old_name, current->publication),
						  errhint("%s", add)));
}

/* Within a scope. */
static int
count_tables(const Current *current)
{
	(void) catalog_execute("SELECT count(*) FROM s3export.current_table"
						   " WHERE connector_id = $1 AND gone_lsn IS NULL",
						   param_int8(current->connector->connector_id));
	return (int) catalog_int64(0, "count", NULL);
}

/* Within a scope; the list is in "context". */
static List *
list_published(const Current *current, MemoryContext context)
{
	uint64 rows = catalog_execute("SELECT relid FROM s3export.current_table"
								  " WHERE connector_id = $1 AND gone_lsn IS NULL",
								  param_int8(current->connector->connector_id));

	return catalog_oids(rows, "relid", context);
}

/* Within a scope: a copy that a crash has interrupted is told once. */
static void
forget_interrupted_copies(const Current *current, StringInfo names, MemoryContext context)
{
	uint64         rows = catalog_execute("UPDATE s3export.current_table SET copying = false"
												  " WHERE connector_id = $1 AND copying"
												  " RETURNING schema_name, table_name",
										  param_int8(current->connector->connector_id));
	List          *tables = NIL;
	StringInfoData detail;
	ListCell      *cell;

	for (uint64 i = 0; i < rows; i++)
	{
		const char   *schema = catalog_text(i, "schema_name");
		const char   *table = catalog_text(i, "table_name");
		MemoryContext old = MemoryContextSwitchTo(context);

		appendStringInfo(names, "%s%s", names->len > 0 ? ", " : "",
						 quote_qualified_identifier(schema, table));
		tables = lappend(tables, object_path_table(schema, table));
		MemoryContextSwitchTo(old);
	}
	if (tables == NIL)
		return;
	initStringInfo(&detail);
	current_say_text(&detail, "tables", names->data);
	current_record(current->connector, "copy_failed", current->state, &detail);
	foreach (cell, tables)
		current_add_gap(current, lfirst(cell), "the copy of its rows was interrupted");
}

/*
 * Within a scope: the publication has the name that it has now.  One that has taken the place of
 * another is taken over when everything that the other published has been delivered.
 */
static void
put_publication(const Current *current, bool replaced)
{
	if (replaced)
		(void) catalog_execute(
			"UPDATE s3export.current_state SET next_publication_oid = $2,"
			" replaced_lsn = pg_current_wal_insert_lsn() WHERE connector_id = $1",
			param_int8(current->connector->connector_id), param_oid(current->published));
	(void) catalog_execute("UPDATE s3export.current_state SET publication_oid = $2"
						   " WHERE connector_id = $1 AND publication_oid = 0",
						   param_int8(current->connector->connector_id),
						   param_oid(current->published));
	(void) catalog_execute(
		"UPDATE s3export.current u SET publication = p.pubname FROM pg_publication p"
		" WHERE u.connector_id = $1 AND p.oid = $2 AND u.publication <> p.pubname",
		param_int8(current->connector->connector_id), param_oid(current->published));
}

/* Within a scope: another publication has the name of the one that was there. */
static void
record_replacement(const Current *current)
{
	StringInfoData detail;

	initStringInfo(&detail);
	current_say_text(&detail, "publication", current->publication);
	current_record(current->connector, "publication_replaced", current->state, &detail);
	current_add_gap(current, NULL, "the publication was dropped and made again");
}

static void
warn_of_replacement(const Current *current)
{
	ereport(WARNING,
			(errmsg("publication \"%s\" of connector \"%s\" was dropped and made again",
					current->publication, current->connector->name),
			 errdetail("Changes that were made while there was none are not sent."),
			 errhint("Where they matter, stop the connector with s3export.stop(), and launch it "
					 "again with copy_existing => true.")));
}

void
current_check(Current *current, bool first)
{
	MemoryContext      context = CurrentMemoryContext;
	bool               replaced;
	CatalogTransaction transaction;
	List              *changes;
	StringInfoData     interrupted;
	ListCell          *cell;

	initStringInfo(&interrupted);
	catalog_begin_transaction(&transaction);
	MemoryContextSwitchTo(context);
	current_require_sendable(current);
	current->published = current_require_publication(current);
	if (first || !OidIsValid(current->publication_oid))
		current->publication_oid = current->published;
	replaced = current->published != current->publication_oid &&
			   current->published != current->next_publication_oid;
	if (replaced)
	{
		record_replacement(current);
		current->next_publication_oid = current->published;
	}
	changes = find_changes(current, current->published, context);
	if (changes != NIL)
		put_published(current, current->published);
	if (changes != NIL && !first)
		record_changes(current, changes);
	if (!first)
		forget_interrupted_copies(current, &interrupted, context);
	current->ntables = count_tables(current);
	current->relids = list_published(current, context);
	put_publication(current, replaced);
	current_read_gaps(current, context);
	catalog_commit_transaction(&transaction);

	if (replaced)
		warn_of_replacement(current);
	foreach (cell, first ? NIL : changes)
		warn_of_change(current, lfirst(cell));
	if (interrupted.len > 0)
		ereport(WARNING, (errmsg("the copy of table %s of connector \"%s\" was interrupted",
								 interrupted.data, current->connector->name),
						  errdetail("Its changes are sent.  The rows that it had before are not."),
						  errhint("Remove it from publication \"%s\", and add it again with "
								  "s3export.add_table().",
								  current->publication)));
}
