/*-------------------------------------------------------------------------
 *
 * current_publication.c
 *	  The publications of currents: made and altered for a connector, and checked.
 *
 * PostgreSQL guards the tables of a publication: it refuses updates and deletes without a
 * replica identity, and ALTER TABLE ... SET UNLOGGED.  What is checked here is what that
 * leaves: partitions whose changes are not in the WAL, tables whose rows are on other
 * servers, and who owns what.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_publication.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "currents/current_internal.h"

static const char *const operation_names[] = {"insert", "update", "delete", "truncate"};

#define ALL_OPERATIONS ((1 << OPERATION_BITS) - 1)

/* ---- statements, as the current user ---- */

/* PostgreSQL checks what the current user may do to the publication and its tables. */
static void
run_statement(const char *statement)
{
	int result;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	result = SPI_execute(statement, false, 0);
	if (result != SPI_OK_UTILITY)
		elog(ERROR, "could not execute \"%s\": %s", statement, SPI_result_code_string(result));
	SPI_finish();
}

static char *
list_operations(int operations)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < OPERATION_BITS; i++)
	{
		if ((operations & OPERATION_BIT(i)) != 0)
			appendStringInfo(&list, "%s%s", list.len > 0 ? ", " : "", operation_names[i]);
	}
	return list.data;
}

/* "ONLY public.a, ONLY public.b": which tables inherit from these has been looked up. */
static char *
list_tables(List *relids)
{
	StringInfoData list;
	ListCell      *cell;

	initStringInfo(&list);
	foreach (cell, relids)
	{
		char *schema = get_namespace_name(get_rel_namespace(lfirst_oid(cell)));
		char *name = get_rel_name(lfirst_oid(cell));

		if (schema == NULL || name == NULL)
			ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
							errmsg("relation with OID %u does not exist", lfirst_oid(cell))));
		appendStringInfo(&list, "%sONLY %s", list.len > 0 ? ", " : "",
						 quote_qualified_identifier(schema, name));
	}
	return list.data;
}

/* With the tables that inherit from them, as CREATE PUBLICATION has it; not with partitions. */
static List *
with_inheritors(List *relids)
{
	List     *all = NIL;
	ListCell *cell;

	foreach (cell, relids)
	{
		if (get_rel_relkind(lfirst_oid(cell)) == RELKIND_RELATION)
			all = list_concat_unique_oid(
				all, find_all_inheritors(lfirst_oid(cell), AccessShareLock, NULL));
		else
			all = list_append_unique_oid(all, lfirst_oid(cell));
	}
	return all;
}

/* "s3export_shop"; what is too long for a name is cut between characters. */
static char *
choose_name(const Connector *connector)
{
	char *name = psprintf("s3export_%s", connector->name);

	name[pg_mbcliplen(name, (int) strlen(name), NAMEDATALEN - 1)] = '\0';
	return name;
}

/* ---- what the tables must be like ---- */

static const char *
why_not_sent(const char *problem)
{
	if (strcmp(problem, "foreign") == 0)
		return "It is a foreign table, whose changes are not in the WAL of this server.";
	if (strcmp(problem, "citus") == 0)
		return "It is a table of Citus, whose changes are in the WAL of the servers that have its "
			   "shards.";
	if (strcmp(problem, "extension") == 0)
		return "Tables of extension \"s3export\" are never sent.";
	return "It is unlogged, so that its changes are not in the WAL.";
}

/* PostgreSQL would refuse these only later, in the statements of applications. */
static void
refuse_table(const char *problem, const char *name)
{
	if (strcmp(problem, "identity") == 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("cannot send updates and deletes of table %s", name),
			 errdetail("It has no replica identity, so that PostgreSQL would refuse updates "
					   "and deletes in it while it is published."),
			 errhint("Add a primary key, set one with ALTER TABLE ... REPLICA IDENTITY, or send "
					 "inserts alone with operations => '{insert}'.")));
	if (strcmp(problem, "owner") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE), errmsg("must be owner of table %s", name),
				 errdetail("The owner of a publication must own the tables in it."),
				 errhint("Remove the table from the publication with ALTER PUBLICATION ... "
						 "DROP TABLE, or give the publication an owner who owns it.")));
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("cannot send changes of table %s", name),
			 errdetail_internal("%s", why_not_sent(problem)),
			 errhint("Leave it, or the table that it is a partition of, out of the publication%s.",
					 strcmp(problem, "unlogged") == 0 ? ", or set it LOGGED" : "")));
}

#define HAS_IDENTITY                                                              \
	"(p.relreplident = 'f' OR p.relkind <> 'r' OR EXISTS (SELECT FROM pg_index i" \
	" WHERE i.indrelid = p.relid AND i.indisvalid"                                \
	" AND CASE p.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident END))"

/*
 * Tables that are not in the WAL are no part of a publication of all tables, as in PostgreSQL; but
 * rows of such partitions would be copied with those of their root.
 */
static void
require_ordinary_tables(Oid publication, bool identities)
{
	if (catalog_execute(
			CURRENT_PUBLISHED
			"SELECT * FROM (SELECT format('%I.%I', p.schema_name, p.table_name) AS name,"
			" CASE WHEN p.relkind = 'f' AND (l.pubviaroot OR NOT l.puballtables) THEN 'foreign'"
			" WHEN p.relpersistence <> 'p' AND (l.pubviaroot OR NOT l.puballtables)"
			" THEN 'unlogged'"
			" WHEN p.parent = 0 AND NOT pg_has_role(l.pubowner, p.relowner, 'USAGE') THEN 'owner'"
			" WHEN $2 AND (l.pubupdate OR l.pubdelete) AND NOT " HAS_IDENTITY " THEN 'identity'"
			" END AS problem FROM published p CROSS JOIN pg_publication l WHERE l.oid = $1) o"
			" WHERE problem IS NOT NULL ORDER BY name LIMIT 1",
			param_oid(publication), param_bool(identities)) > 0)
		refuse_table(catalog_text(0, "problem"), catalog_text(0, "name"));
}

static void
require_no_table_of_citus(Oid publication)
{
	Oid catalog = get_relname_relid("pg_dist_partition", PG_CATALOG_NAMESPACE);

	if (OidIsValid(catalog) &&
		catalog_execute(CURRENT_PUBLISHED
						"SELECT format('%I.%I', p.schema_name, p.table_name) AS name"
						" FROM published p JOIN pg_catalog.pg_dist_partition d"
						" ON d.logicalrelid = p.relid ORDER BY name LIMIT 1",
						param_oid(publication)) > 0)
		refuse_table("citus", catalog_text(0, "name"));
}

/* Without this a table that somebody names would be missing from the files without a word. */
static void
require_no_table_of_extension(Oid publication)
{
	if (catalog_execute("SELECT format('s3export.%I', c.relname) AS name FROM pg_publication_rel r"
						" JOIN pg_class c ON c.oid = r.prrelid WHERE r.prpubid = $1"
						" AND c.relnamespace = 's3export'::regnamespace ORDER BY name LIMIT 1",
						param_oid(publication)) > 0)
		refuse_table("extension", catalog_text(0, "name"));
}

/*
 * Raises an error about the first table of the publication whose changes would be missing.
 * With "own", the connector has made the publication: its tables must not be the extension's,
 * and must not refuse updates and deletes once they are published.
 */
static void
require_tables(Oid publication, bool own)
{
	CatalogScope scope;

	catalog_enter(&scope);
	require_ordinary_tables(publication, own);
	require_no_table_of_citus(publication);
	if (own)
		require_no_table_of_extension(publication);
	catalog_leave(&scope);
}

/* ---- what owner and publication must be like ---- */

static void
require_role(const Connector *connector)
{
	if (has_rolreplication(connector->owner))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied to send changes to connector \"%s\"", connector->name),
			 errdetail("A replication slot can fill the server's disk: the connector's owner "
					   "must be a superuser or have the REPLICATION attribute."),
			 errhint("A superuser can give it: ALTER ROLE %s REPLICATION.",
					 quote_identifier(GetUserNameFromId(connector->owner, false)))));
}

static void
require_owner_of_publication(const Connector *connector, Oid publication)
{
	Oid         owner = publication_owner(publication);
	const char *name;

	if (has_privs_of_role(connector->owner, owner))
		return;
	name = GetUserNameFromId(owner, true);
	ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					errmsg("permission denied for publication \"%s\"",
						   get_publication_name(publication, false)),
					errdetail("Connector \"%s\" belongs to role \"%s\", which is not a member of "
							  "the publication's owner \"%s\".",
							  connector->name, GetUserNameFromId(connector->owner, false),
							  name ? name : "?")));
}

Oid
current_require_publication(const Current *current)
{
	Oid oid = publication_resolve(current->publication_oid, current->next_publication_oid,
								  current->publication);

	if (!OidIsValid(oid))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("publication \"%s\" of connector \"%s\" does not exist",
							   current->publication, current->connector->name),
						errdetail("The connector sends the changes of this publication."),
						errhint("Make it again with CREATE PUBLICATION, or stop the connector with "
								"s3export.stop() and give it another publication with "
								"s3export.alter_connector(publication => ...).")));
	require_owner_of_publication(current->connector, oid);
	return oid;
}

void
current_require_changes(const Current *current)
{
	require_tables(current_require_publication(current), false);
}

void
current_require_sendable(const Current *current)
{
	if (current->state == CURRENT_ORPHANED)
		current_refuse_delivery(current);
	require_role(current->connector);
	current_require_changes(current);
}

/* ---- the connector's own publication ---- */

/* PostgreSQL's own error does not say what it has to do with connectors. */
static void
require_right_to_publish(void)
{
	char *database = get_database_name(MyDatabaseId);

	if (compat_may_create_in_database(GetUserId()))
		return;
	ereport(
		ERROR,
		(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
		 errmsg("permission denied for database %s", database),
		 errdetail("A connector of kind \"currents\" makes a publication, which takes the CREATE "
				   "privilege on the database."),
		 errhint("Have it granted: GRANT CREATE ON DATABASE %s TO %s.  Or name a publication that "
				 "is there, with publication => ....",
				 quote_identifier(database),
				 quote_identifier(GetUserNameFromId(GetUserId(), false)))));
}

char *
current_make_publication(const Connector *connector, const CurrentSettings *settings)
{
	char *name = choose_name(connector);
	List *relids = with_inheritors(settings->tables);

	require_right_to_publish();
	if (OidIsValid(get_publication_oid(name, true)))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("publication \"%s\" already exists", name),
				 errhint("Drop it if it is of no use any more, or send it with publication => "
						 "'%s'.",
						 name)));
	/* Later changes of a table's partitions are its own, so that readers see one table. */
	run_statement(psprintf(
		"CREATE PUBLICATION %s%s%s WITH (publish = '%s',"
		" publish_via_partition_root = true" COMPAT_PUBLISH_GENERATED ")",
		quote_identifier(name), relids != NIL ? " FOR TABLE " : "", list_tables(relids),
		list_operations(settings->operations != 0 ? settings->operations : ALL_OPERATIONS)));
	require_tables(get_publication_oid(name, false), true);
	return name;
}

/* The tables that are in the publication by their own names. */
static List *
members_of(Oid publication)
{
	return GetPublicationRelations(publication, PUBLICATION_PART_ROOT);
}

static void
replace_tables(const char *name, Oid publication, List *tables)
{
	List *old = members_of(publication);
	List *wanted = with_inheritors(tables);
	List *added = list_difference_oid(wanted, old);
	List *dropped = list_difference_oid(old, wanted);

	if (dropped != NIL)
		run_statement(psprintf("ALTER PUBLICATION %s DROP TABLE %s", quote_identifier(name),
							   list_tables(dropped)));
	if (added != NIL)
		run_statement(psprintf("ALTER PUBLICATION %s ADD TABLE %s", quote_identifier(name),
							   list_tables(added)));
}

static void
require_own_publication(const Current *current, const char *argument)
{
	if (current->owns_publication)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("argument \"%s\" requires a publication of the connector's own", argument),
			 errdetail("Connector \"%s\" sends publication \"%s\", which it did not make.",
					   current->connector->name, current->publication),
			 errhint("Use ALTER PUBLICATION.")));
}

void
current_change_owner(const Current *current)
{
	Oid publication = publication_resolve(current->publication_oid, current->next_publication_oid,
										  current->publication);

	if (current->owns_publication && OidIsValid(publication))
		run_statement(
			psprintf("ALTER PUBLICATION %s OWNER TO %s",
					 quote_identifier(get_publication_name(publication, false)),
					 quote_identifier(GetUserNameFromId(current->connector->owner, false))));
	current_require_changes(current);
}

void
current_alter_publication(const Current *current, const CurrentSettings *settings)
{
	Oid   publication = current_require_publication(current);
	char *name = get_publication_name(publication, false);

	if (settings->set_tables)
	{
		require_own_publication(current, "tables");
		replace_tables(name, publication, settings->tables);
	}
	if (settings->operations != 0)
	{
		require_own_publication(current, "operations");
		run_statement(psprintf("ALTER PUBLICATION %s SET (publish = '%s')", quote_identifier(name),
							   list_operations(settings->operations)));
	}
	require_tables(publication, current->owns_publication);
}

/* Another publication may have got the name since the connector's own was dropped. */
void
current_drop_publication(const Current *current)
{
	Oid publication = publication_resolve(current->publication_oid, current->next_publication_oid,
										  current->publication);

	if (!current->owns_publication || !OidIsValid(publication))
		return;
	if (publication_owner(publication) == current->connector->owner)
		run_statement(psprintf("DROP PUBLICATION %s",
							   quote_identifier(get_publication_name(publication, false))));
	else
		ereport(NOTICE, (errmsg("publication \"%s\" stays, as it does not belong to the owner of "
								"connector \"%s\"",
								current->publication, current->connector->name)));
}

void
current_add_table(const Current *current, Oid relid)
{
	Oid   publication = current_require_publication(current);
	char *name = get_publication_name(publication, false);

	run_statement(psprintf("ALTER PUBLICATION %s ADD TABLE %s", quote_identifier(name),
						   list_tables(with_inheritors(list_make1_oid(relid)))));
	require_tables(publication, current->owns_publication);
}

/* Table or publication may have gone meanwhile: then there is nothing to remove. */
void
current_remove_table(const Current *current, Oid relid)
{
	Oid   publication = publication_resolve(current->publication_oid, current->next_publication_oid,
											current->publication);
	List *members;
	List *relids = NIL;
	ListCell *cell;

	if (!OidIsValid(publication))
		return;
	members = members_of(publication);
	foreach (cell, with_inheritors(list_make1_oid(relid)))
	{
		if (list_member_oid(members, lfirst_oid(cell)))
			relids = lappend_oid(relids, lfirst_oid(cell));
	}
	if (relids != NIL)
		run_statement(psprintf("ALTER PUBLICATION %s DROP TABLE %s",
							   quote_identifier(get_publication_name(publication, false)),
							   list_tables(relids)));
}
