/*-------------------------------------------------------------------------
 *
 * publication.c
 *	  What a publication says of a table, as the catalogs of the moment have it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "catalog/catalog.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_publication.h"
#include "catalog/pg_publication_rel.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "currents/publication.h"

/* ---- what has been heard of changes ---- */

static uint64 generation = 1;
static uint64 members = 1;

static void
relation_changes(Datum arg pg_attribute_unused(), Oid relid pg_attribute_unused())
{
	generation++;
}

static void
catalog_changes(Datum arg pg_attribute_unused(), int cacheid pg_attribute_unused(),
				uint32 hashvalue pg_attribute_unused())
{
	generation++;
}

static void
members_change(Datum arg pg_attribute_unused(), int cacheid pg_attribute_unused(),
			   uint32 hashvalue pg_attribute_unused())
{
	generation++;
	members++;
}

/* Names of schemas and types are in the descriptions of tables. */
static void
register_callbacks(void)
{
	static const int publications[] = {PUBLICATIONOID, PUBLICATIONRELMAP, PUBLICATIONNAMESPACEMAP};
	static const int caches[] = {NAMESPACEOID, TYPEOID, AUTHOID, AUTHMEMROLEMEM};

	CacheRegisterRelcacheCallback(relation_changes, (Datum) 0);
	for (size_t i = 0; i < lengthof(publications); i++)
		CacheRegisterSyscacheCallback(publications[i], members_change, (Datum) 0);
	for (size_t i = 0; i < lengthof(caches); i++)
		CacheRegisterSyscacheCallback(caches[i], catalog_changes, (Datum) 0);
}

static void
listen_once(void)
{
	static bool listens = false;

	if (!listens)
		register_callbacks();
	listens = true;
}

uint64
publication_generation(void)
{
	listen_once();
	return generation;
}

uint64
publication_members(void)
{
	listen_once();
	return members;
}

/* ---- the publication ---- */

static bool
publication_exists(Oid oid)
{
	return OidIsValid(oid) && SearchSysCacheExists1(PUBLICATIONOID, ObjectIdGetDatum(oid));
}

Oid
publication_resolve(Oid oid, Oid next, const char *name)
{
	if (publication_exists(oid))
		return oid;
	if (publication_exists(next))
		return next;
	return get_publication_oid(name, true);
}

Oid
publication_owner(Oid oid)
{
	HeapTuple tuple = SearchSysCache1(PUBLICATIONOID, ObjectIdGetDatum(oid));
	Oid       owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for publication %u", oid);
	owner = ((Form_pg_publication) GETSTRUCT(tuple))->pubowner;
	ReleaseSysCache(tuple);
	return owner;
}

static int
operations_of(const PublicationActions *actions)
{
	return (actions->pubinsert ? OPERATION_BIT(DECODE_INSERT) : 0) |
		   (actions->pubupdate ? OPERATION_BIT(DECODE_UPDATE) : 0) |
		   (actions->pubdelete ? OPERATION_BIT(DECODE_DELETE) : 0) |
		   (actions->pubtruncate ? OPERATION_BIT(DECODE_TRUNCATE) : 0);
}

/* ---- its tables ---- */

static bool
has_schema_of(Oid oid, Oid relid)
{
	return SearchSysCacheExists2(PUBLICATIONNAMESPACEMAP,
								 ObjectIdGetDatum(get_rel_namespace(relid)), ObjectIdGetDatum(oid));
}

static bool
is_member(Oid oid, Oid relid)
{
	return SearchSysCacheExists2(PUBLICATIONRELMAP, ObjectIdGetDatum(relid),
								 ObjectIdGetDatum(oid)) ||
		   has_schema_of(oid, relid);
}

/* The table itself or the ancestor by which it is in the publication, the topmost first. */
static Oid
find_member(const Publication *publication, Oid relid, bool partition)
{
	Oid member = publication->alltables || is_member(publication->oid, relid) ? relid : InvalidOid;
	ListCell *cell;

	if (!partition)
		return member;
	foreach (cell, get_partition_ancestors(relid))
	{
		if (publication->alltables || is_member(publication->oid, lfirst_oid(cell)))
			member = lfirst_oid(cell);
	}
	return member;
}

/*
 * The extension's own tables tell where secrets are, and change with each delivery.  Without
 * "publish_via_partition_root" the rows are those of the partitions.
 */
static bool
may_publish(const Publication *publication, Oid relid, Form_pg_class relation)
{
	if (IsCatalogRelationOid(relid) || relid < FirstNormalObjectId ||
		relation->relpersistence != RELPERSISTENCE_PERMANENT ||
		relation->relnamespace == get_namespace_oid("s3export", true))
		return false;
	return relation->relkind == RELKIND_RELATION ||
		   (relation->relkind == RELKIND_PARTITIONED_TABLE && publication->pubviaroot);
}

static bool
is_owned_by(Oid relid, Oid role)
{
	HeapTuple tuple;
	Oid       owner;

	if (superuser_arg(role))
		return true;
	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relid);
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return has_privs_of_role(role, owner);
}

/* Column list and row filter of a table that is in the publication by its own name. */
static void
read_lists(Oid oid, PublishedTable *published)
{
	HeapTuple tuple = SearchSysCache2(PUBLICATIONRELMAP, ObjectIdGetDatum(published->relid),
									  ObjectIdGetDatum(oid));
	Datum     value;
	bool      isnull;

	if (!HeapTupleIsValid(tuple))
		return;
	value = SysCacheGetAttr(PUBLICATIONRELMAP, tuple, Anum_pg_publication_rel_prattrs, &isnull);
	if (!isnull)
		published->columns = pub_collist_to_bitmapset(NULL, value, NULL);
	value = SysCacheGetAttr(PUBLICATIONRELMAP, tuple, Anum_pg_publication_rel_prqual, &isnull);
	if (!isnull)
		published->filter = stringToNode(TextDatumGetCString(value));
	ReleaseSysCache(tuple);
}

Oid
publication_find_table(Oid oid, Oid relid)
{
	const Publication *publication = GetPublication(oid);
	HeapTuple          tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Form_pg_class      relation;
	Oid                table = InvalidOid;

	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	relation = (Form_pg_class) GETSTRUCT(tuple);
	if (may_publish(publication, relid, relation))
		table = find_member(publication, relid, relation->relispartition);
	ReleaseSysCache(tuple);
	return OidIsValid(table) && !publication->pubviaroot ? relid : table;
}

bool
publication_is_outsider(Oid oid, Oid relid)
{
	const Publication *publication = GetPublication(oid);

	return !publication->alltables && GetPublicationSchemas(oid) == NIL &&
		   !OidIsValid(find_member(publication, relid, get_rel_relispartition(relid)));
}

void
publication_describe(Oid oid, Oid sender, Relation relation, PublishedTable *published)
{
	const Publication *publication = GetPublication(oid);
	Oid                owner = publication_owner(oid);
	Oid                relid = RelationGetRelid(relation);
	Oid                member;

	memset(published, 0, sizeof(*published));
	if (!may_publish(publication, relid, relation->rd_rel))
		return;
	member = find_member(publication, relid, relation->rd_rel->relispartition);
	if (!OidIsValid(member))
		return;
	published->operations = operations_of(&publication->pubactions);
	published->relid = publication->pubviaroot ? member : relid;
	published->generated = compat_publishes_generated(publication);
	published->withheld =
		(OidIsValid(sender) && !has_privs_of_role(sender, owner)) || !is_owned_by(member, owner);
	if (!publication->alltables && !has_schema_of(oid, published->relid))
		read_lists(oid, published);
}
