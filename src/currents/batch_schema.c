/*-------------------------------------------------------------------------
 *
 * batch_schema.c
 *	  What the columns of a table's events are, for comparison and for readers.
 *
 * All of it is as the catalogs of the moment have it.  A version stands for one
 * description; its schema object tells readers what it is.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "nodes/nodes.h"
#include "parser/parse_coerce.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "base/json_member.h"
#include "base/object_path.h"
#include "currents/batch_internal.h"

bool
batch_has_column(const PublishedTable *published, Form_pg_attribute attribute)
{
	if (attribute->attisdropped)
		return false;
	if (published->columns != NULL)
		return bms_is_member(attribute->attnum, published->columns);
	/* Virtual generated columns are in no row. */
	return attribute->attgenerated == '\0' ||
		   (attribute->attgenerated == 's' && published->generated);
}

/*
 * A column called like one of the events' own, or like that with more underscores before
 * it, gets another underscore: so no two columns have one name.
 */
char *
batch_name_column(const char *name)
{
	static const char *const own[] = {"id", "op", "committed_at", "meta"};
	const char              *rest = name + strspn(name, "_");

	for (size_t i = 0; rest > name && i < lengthof(own); i++)
	{
		if (strcmp(rest, own[i]) == 0)
			return psprintf("_%s", name);
	}
	return pstrdup(name);
}

/* The worker's search_path is pg_catalog: types of users are qualified. */
static char *
type_name(Form_pg_attribute attribute)
{
	return format_type_with_typemod(attribute->atttypid, attribute->atttypmod);
}

/* ---- for comparison ---- */

/*
 * Number and type OID are there as well as the names: a column or a type that was made anew
 * under its name is another one.
 */
static void
append_column(StringInfo columns, Form_pg_attribute attribute, bool in_key)
{
	appendStringInfo(columns, "%d %u %s %s%s%s\n", attribute->attnum, attribute->atttypid,
					 quote_identifier(NameStr(attribute->attname)), type_name(attribute),
					 attribute->attnotnull ? " not null" : "", in_key ? " key" : "");
}

static uint32
hash_of(Node *filter)
{
	const char *text = filter != NULL ? nodeToString(filter) : "";

	return hash_bytes((const unsigned char *) text, (int) strlen(text));
}

/*
 * Its first line is the table's name, the second what is published of it, the last the format of
 * the files, without a newline.
 */
char *
batch_describe_columns(const Batch *batch, Relation relation, const PublishedTable *published,
					   const Bitmapset *key)
{
	const CurrentFormat *format = &batch->settings->format;
	TupleDesc            desc = RelationGetDescr(relation);
	StringInfoData       columns;

	initStringInfo(&columns);
	appendStringInfo(&columns, "%s\n%c %d %d %u\n",
					 object_path_table(get_namespace_name(RelationGetNamespace(relation)),
									   RelationGetRelationName(relation)),
					 relation->rd_rel->relreplident, published->operations,
					 published->columns != NULL, hash_of(published->filter));
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		if (batch_has_column(published, attribute))
			append_column(&columns, attribute, bms_is_member(attribute->attnum, key));
	}
	appendStringInfo(&columns, "%s%s %s", format->header ? "header" : "",
					 format->force_quote ? " quotes" : "", format->null_print);
	return columns.data;
}

bool
batch_is_same_table(const char *before, const char *now)
{
	size_t len = strrchr(now, '\n') - now;

	return (size_t) (strrchr(before, '\n') - before) == len && strncmp(before, now, len) == 0;
}

/* The second line of a description. */
typedef struct PublishedBefore
{
	int    operations;
	int    listed; /* there is a column list */
	uint32 filter;
} PublishedBefore;

static PublishedBefore
parse_published(const char *columns)
{
	PublishedBefore published = {0};

	if (sscanf(strchr(columns, '\n') + 1, "%*c %d %d %u", &published.operations, &published.listed,
			   &published.filter) != 3)
		elog(ERROR, "unexpected description of a table");
	return published;
}

/* The next line of a column, from "*line" on; false: there is none. */
static bool
next_column(const char **line, int *attnum, Oid *type)
{
	const char *end;

	while ((end = strchr(*line, '\n')) != NULL)
	{
		bool found = sscanf(*line, "%d %u ", attnum, type) == 2;

		*line = end + 1;
		if (found)
			return true;
	}
	return false;
}

static const char *
first_column(const char *columns)
{
	return strchr(strchr(columns, '\n') + 1, '\n') + 1;
}

/* The type of a column; 0: there is none of this number. */
static Oid
find_type(const char *columns, int wanted)
{
	const char *line = first_column(columns);
	int         attnum;
	Oid         type;

	while (next_column(&line, &attnum, &type))
	{
		if (attnum == wanted)
			return type;
	}
	return InvalidOid;
}

static bool
is_time(Oid type)
{
	return type == TIMESTAMPOID || type == TIMESTAMPTZOID;
}

/* May values have another text by now, though their rows were not written anew? */
static bool
changes_text(Oid before, Oid now)
{
	if (before == now ||
		(TypeCategory(before) == TYPCATEGORY_STRING && TypeCategory(now) == TYPCATEGORY_STRING))
		return false;
	return IsBinaryCoercible(before, now) || (is_time(before) && is_time(now));
}

List *
batch_list_reasons(const char *before, const char *now)
{
	PublishedBefore earlier = parse_published(before);
	PublishedBefore later = parse_published(now);
	const char     *line = first_column(now);
	bool            joins = false;
	bool            changes = false;
	List           *reasons = NIL;
	int             attnum;
	Oid             type;

	while (next_column(&line, &attnum, &type))
	{
		Oid type_before = find_type(before, attnum);

		if (OidIsValid(type_before))
			changes |= changes_text(type_before, type);
		else
			joins |= earlier.listed || later.listed;
	}
	if (earlier.operations & ~later.operations)
		reasons = lappend(reasons, "some operations are not published any more");
	if (earlier.filter != later.filter)
		reasons = lappend(reasons, "the row filter has changed");
	if (joins)
		reasons = lappend(reasons, "columns have joined the column list");
	if (changes)
		reasons = lappend(reasons, "a column's type has changed, and no row was written anew");
	return reasons;
}

/* ---- for readers ---- */

/* The text of pg_attribute.attmissingval; NULL: it has none. */
static char *
missing_value(Oid relid, AttrNumber attnum)
{
	HeapTuple tuple = SearchSysCache2(ATTNUM, ObjectIdGetDatum(relid), Int16GetDatum(attnum));
	Form_pg_attribute attribute;
	Datum             array;
	bool              isnull;
	char             *text = NULL;

	if (!HeapTupleIsValid(tuple))
		return NULL;
	attribute = (Form_pg_attribute) GETSTRUCT(tuple);
	array = SysCacheGetAttr(ATTNUM, tuple, Anum_pg_attribute_attmissingval, &isnull);
	if (!isnull && attribute->atthasmissing)
	{
		int   one = 1;
		bool  is_varlena;
		Oid   output;
		Datum value = array_get_element(array, 1, &one, -1, attribute->attlen, attribute->attbyval,
										attribute->attalign, &isnull);

		getTypeOutputInfo(attribute->atttypid, &output, &is_varlena);
		if (!isnull)
			text = OidOutputFunctionCall(output, value);
	}
	ReleaseSysCache(tuple);
	return text;
}

/* What rows have that were there before the column: of a partitioned table, its partitions know. */
static char *
find_missing_value(Relation relation, Form_pg_attribute attribute)
{
	ListCell *cell;

	if (relation->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		return missing_value(RelationGetRelid(relation), attribute->attnum);
	foreach (cell, find_all_inheritors(RelationGetRelid(relation), NoLock, NULL))
	{
		AttrNumber attnum = get_attnum(lfirst_oid(cell), NameStr(attribute->attname));
		char      *text = missing_value(lfirst_oid(cell), attnum);

		if (text != NULL)
			return text;
	}
	return NULL;
}

/* Columns that join a list, or that a list has left out, have had values before. */
static bool
is_listed(const Target *target)
{
	const char *before = target->table->columns;

	return parse_published(target->columns).listed ||
		   (before != NULL && parse_published(before).listed);
}

/*
 * A reader brings a table from one version to the next by these numbers, which a renamed column
 * keeps.
 */
static void
append_columns(StringInfo buf, const Target *target, Relation relation)
{
	bool listed = is_listed(target);

	appendStringInfoString(buf, "\"columns\": [");
	for (int i = 0; i < target->ncolumns; i++)
	{
		Form_pg_attribute attribute =
			TupleDescAttr(RelationGetDescr(relation), target->attnums[i] - 1);

		appendStringInfo(buf, "%s\n  {", i > 0 ? "," : "");
		json_member_append(buf, "name", target->names[i]);
		appendStringInfoString(buf, ", ");
		json_member_append(buf, "column", NameStr(attribute->attname));
		appendStringInfo(buf, ", \"number\": %d, ", attribute->attnum);
		json_member_append(buf, "type", type_name(attribute));
		appendStringInfo(buf, ", \"nullable\": %s, ", attribute->attnotnull ? "false" : "true");
		json_member_append(buf, "missing", listed ? NULL : find_missing_value(relation, attribute));
		appendStringInfoChar(buf, '}');
	}
	appendStringInfoChar(buf, ']');
}

/* Null also where events do not have all of its columns. */
static void
append_key(StringInfo buf, const Target *target)
{
	StringInfoData names;
	int            found = 0;

	initStringInfo(&names);
	for (int i = 0; i < target->ncolumns; i++)
	{
		if (!bms_is_member(target->attnums[i], target->key))
			continue;
		appendStringInfoString(&names, found++ > 0 ? ", " : "");
		escape_json(&names, target->names[i]);
	}
	if (found > 0 && found == bms_num_members(target->key))
		appendStringInfo(buf, "\"key\": [%s]", names.data);
	else
		appendStringInfoString(buf, "\"key\": null");
}

static const char *
identity_name(char identity)
{
	switch (identity)
	{
		case REPLICA_IDENTITY_DEFAULT:
			return "default";
		case REPLICA_IDENTITY_INDEX:
			return "index";
		case REPLICA_IDENTITY_FULL:
			return "full";
		default:
			return "nothing";
	}
}

static void
append_csv(StringInfo buf, const CurrentFormat *format)
{
	appendStringInfoString(buf, "\"csv\": {\"delimiter\": \",\", \"quote\": \"\\\"\", "
								"\"escape\": \"\\\"\", ");
	json_member_append(buf, "null", format->null_print);
	appendStringInfo(buf,
					 ", \"force_quote\": %s, \"header\": %s, \"encoding\": \"UTF8\","
					 "\n  \"datestyle\": \"ISO\", \"timezone\": \"UTC\", \"intervalstyle\": "
					 "\"postgres\", \"bytea_output\": \"hex\"}",
					 format->force_quote ? "true" : "false", format->header ? "true" : "false");
}

char *
batch_describe_schema(const Batch *batch, const Target *target, Relation relation)
{
	StringInfoData buf;

	initStringInfo(&buf);
	json_member_append(&buf, "schema_name", get_namespace_name(RelationGetNamespace(relation)));
	appendStringInfoString(&buf, ",\n");
	json_member_append(&buf, "table_name", RelationGetRelationName(relation));
	appendStringInfoString(&buf, ",\n");
	json_member_append(&buf, "replica_identity", identity_name(relation->rd_rel->relreplident));
	appendStringInfoString(&buf, ",\n");
	append_key(&buf, target);
	appendStringInfoString(&buf, ",\n");
	append_columns(&buf, target, relation);
	appendStringInfoString(&buf, ",\n");
	append_csv(&buf, &batch->settings->format);
	return buf.data;
}

/* ---- the object ---- */

char *
batch_schema_path(const Target *target)
{
	return psprintf("_schema/%s/%04d.json", target->name, target->table->version);
}

char *
batch_schema_object(const Target *target, const CurrentTable *previous, const char *from_id)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoString(&buf, "{\"format\": 1,\n");
	json_member_append(&buf, "table", target->name);
	appendStringInfo(&buf, ",\n\"version\": %d,\n", target->table->version);
	json_member_append(&buf, "from_id", from_id);
	appendStringInfoString(&buf, ",\n\"previous\": ");
	if (previous->columns != NULL)
	{
		appendStringInfoChar(&buf, '{');
		json_member_append(&buf, "table",
						   pnstrdup(previous->columns, strcspn(previous->columns, "\n")));
		appendStringInfo(&buf, ", \"version\": %d}", previous->version);
	}
	else
		appendStringInfoString(&buf, "null");
	appendStringInfo(&buf, ",\n\"path\": \"_table=%s/_version=%04d/\",\n%s}\n", target->name,
					 target->table->version, target->schema);
	return buf.data;
}
