/*-------------------------------------------------------------------------
 *
 * batch_event.c
 *	  What the events of a table consist of.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/relcache.h"

#include "batch_internal.h"
#include "compat.h"
#include "path.h"

/* Grows with every change of any relation that this process hears of. */
static uint64 relcache_state = 1;

static void
relcache_changes(Datum arg pg_attribute_unused(), Oid relid pg_attribute_unused())
{
	relcache_state++;
}

void
batch_init_sources(void)
{
	static bool registered = false;

	if (!registered)
		CacheRegisterRelcacheCallback(relcache_changes, (Datum) 0);
	registered = true;
}

/* ---- columns ---- */

/* Virtual generated columns are in no row. */
static bool
has_column(Form_pg_attribute attribute)
{
	return !attribute->attisdropped && attribute->attgenerated != 'v';
}

char *
batch_columns(Relation relation)
{
	TupleDesc      desc = RelationGetDescr(relation);
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		if (has_column(attribute))
			appendStringInfo(&list, "%s%s", list.len > 0 ? ", " : "",
							 quote_identifier(NameStr(attribute->attname)));
	}
	return list.len > 0 ? list.data : NULL;
}

/* What a version of a table's columns is told by. */
static char *
describe_columns(TupleDesc desc)
{
	StringInfoData columns;

	initStringInfo(&columns);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		if (has_column(attribute))
			appendStringInfo(
				&columns, "%s %s\n", quote_identifier(NameStr(attribute->attname)),
				format_type_extended(attribute->atttypid, attribute->atttypmod,
									 FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
	}
	return columns.data;
}

static void
set_columns(Target *target, TupleDesc table)
{
	int n = 0;

	target->attnums = palloc(Max(table->natts, 1) * sizeof(AttrNumber));
	target->names = palloc(Max(table->natts, 1) * sizeof(char *));
	for (int i = 0; i < table->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(table, i);

		if (!has_column(attribute))
			continue;
		target->names[n] = pstrdup(NameStr(attribute->attname));
		target->attnums[n++] = attribute->attnum;
	}
	target->ncolumns = n;
}

static TupleDesc
make_event_desc(const Target *target, TupleDesc table)
{
	int       natts = EVENT_COLUMNS + target->ncolumns + target->unchanged;
	TupleDesc desc = CreateTemplateTupleDesc(natts);

	TupleDescInitEntry(desc, EVENT_ID + 1, "_id", TEXTOID, -1, 0);
	TupleDescInitEntry(desc, EVENT_OPERATION + 1, "_op", TEXTOID, -1, 0);
	TupleDescInitEntry(desc, EVENT_COMMITTED_AT + 1, "_committed_at", TIMESTAMPTZOID, -1, 0);
	for (int i = 0; i < target->ncolumns; i++)
		TupleDescCopyEntry(desc, EVENT_COLUMNS + 1 + i, table, target->attnums[i]);
	if (target->unchanged)
		TupleDescInitEntry(desc, natts, "_unchanged", TEXTOID, -1, 0);
	return desc;
}

/* ---- tables ---- */

static Target *
find_target(List *targets, Oid relid)
{
	ListCell *cell;

	foreach (cell, targets)
	{
		Target *target = lfirst(cell);

		if (target->relid == relid)
			return target;
	}
	return NULL;
}

/* The table itself, or what it is a partition of. */
static Target *
choose_target(List *targets, Relation relation)
{
	Target   *target = find_target(targets, RelationGetRelid(relation));
	ListCell *cell;

	if (target != NULL || !relation->rd_rel->relispartition)
		return target;
	foreach (cell, get_partition_ancestors(RelationGetRelid(relation)))
	{
		target = find_target(targets, lfirst_oid(cell));
		if (target != NULL)
			break;
	}
	return target;
}

static void
take_version(Target *target, Relation relation, char *columns)
{
	CurrentTable *table = target->table;
	MemoryContext old;
	char         *event_type;

	if (target->context == NULL)
		target->context =
			AllocSetContextCreate(CurrentMemoryContext, "s3export event", ALLOCSET_DEFAULT_SIZES);
	else
		MemoryContextReset(target->context);
	if (table->columns == NULL || strcmp(table->columns, columns) != 0)
	{
		table->columns = columns;
		table->version++;
	}
	old = MemoryContextSwitchTo(target->context);
	event_type = psprintf("%s.%s", get_namespace_name(RelationGetNamespace(relation)),
						  RelationGetRelationName(relation));
	target->folder = path_hive_folder("event_type", event_type);
	target->name = path_encode(RelationGetRelationName(relation));
	set_columns(target, RelationGetDescr(relation));
	target->desc = make_event_desc(target, RelationGetDescr(relation));
	target->slot = MakeSingleTupleTableSlot(target->desc, &TTSOpsVirtual);
	initStringInfo(&target->header);
	target->receiver = NULL;
	MemoryContextSwitchTo(old);
}

/* Has it another name, or other columns? */
static bool
is_as_before(const Target *target, Relation relation, const char *columns)
{
	char *event_type;

	if (target->context == NULL || strcmp(target->table->columns, columns) != 0)
		return false;
	event_type = psprintf("%s.%s", get_namespace_name(RelationGetNamespace(relation)),
						  RelationGetRelationName(relation));
	return strcmp(target->folder, path_hive_folder("event_type", event_type)) == 0;
}

static void
refresh_target(Target *target, Relation relation, int operations, void (*changed)(Target *target))
{
	char *columns = describe_columns(RelationGetDescr(relation));

	if (is_as_before(target, relation, columns))
		return;
	if (target->context != NULL)
		changed(target);
	target->unchanged = (operations & CURRENT_UPDATE) != 0;
	take_version(target, relation, columns);
}

/* The target's columns by their names: a partition may have them in another order. */
static AttrNumber *
map_columns(const Target *target, Relation relation)
{
	TupleDesc   desc = RelationGetDescr(relation);
	AttrNumber *attnums = palloc0(Max(target->ncolumns, 1) * sizeof(AttrNumber));

	for (int i = 0; i < target->ncolumns; i++)
	{
		for (int a = 0; a < desc->natts && attnums[i] == 0; a++)
		{
			Form_pg_attribute attribute = TupleDescAttr(desc, a);

			if (has_column(attribute) && strcmp(NameStr(attribute->attname), target->names[i]) == 0)
				attnums[i] = attribute->attnum;
		}
	}
	return attnums;
}

static void
refresh_source(Source *source, List *targets, Relation relation, int operations,
			   void (*changed)(Target *target))
{
	Target *target = choose_target(targets, relation);

	if (source->attnums != NULL)
		pfree(source->attnums);
	source->attnums = NULL;
	source->target = target;
	if (target == NULL)
		return;
	if (target->relid == RelationGetRelid(relation))
		refresh_target(target, relation, operations, changed);
	else
	{
		Relation root = RelationIdGetRelation(target->relid);

		if (!RelationIsValid(root))
			elog(ERROR, "could not open relation with OID %u", target->relid);
		refresh_target(target, root, operations, changed);
		RelationClose(root);
	}
	source->attnums = map_columns(target, relation);
}

Source *
batch_find_source(HTAB *sources, List *targets, Relation relation, int operations,
				  void (*changed)(Target *target))
{
	Oid     relid = RelationGetRelid(relation);
	bool    found;
	Source *source = hash_search(sources, &relid, HASH_ENTER, &found);

	if (!found)
	{
		source->seen = 0;
		source->attnums = NULL;
	}
	if (source->seen != relcache_state)
	{
		/* Before, since what follows may hear of more. */
		uint64 state = relcache_state;

		refresh_source(source, targets, relation, operations, changed);
		source->seen = state;
	}
	return source;
}

/* ---- values ---- */

/* It is stored elsewhere, the log does not have it, and the row there may be gone. */
static bool
is_missing(Form_pg_attribute attribute, Datum value, bool isnull)
{
	return !isnull && attribute->attlen == -1 && VARATT_IS_EXTERNAL_ONDISK(DatumGetPointer(value));
}

static Datum
text_or_null(StringInfo text, bool *isnull)
{
	*isnull = text->data == NULL;
	return *isnull ? (Datum) 0 : PointerGetDatum(cstring_to_text_with_len(text->data, text->len));
}

void
event_set_values(Target *target, const Source *source, Relation relation, HeapTuple tuple,
				 HeapTuple older)
{
	TupleDesc      desc = RelationGetDescr(relation);
	Datum         *values = target->slot->tts_values + EVENT_COLUMNS;
	bool          *nulls = target->slot->tts_isnull + EVENT_COLUMNS;
	Datum         *row = palloc(desc->natts * sizeof(Datum));
	bool          *row_nulls = palloc(desc->natts * sizeof(bool));
	StringInfoData missing = {0};

	if (tuple != NULL)
		heap_deform_tuple(tuple, desc, row, row_nulls);
	for (int i = 0; i < target->ncolumns; i++)
	{
		int att = source->attnums[i] - 1;

		nulls[i] = tuple == NULL || att < 0 || row_nulls[att];
		if (nulls[i])
			continue;
		values[i] = row[att];
		if (!is_missing(TupleDescAttr(desc, att), values[i], false))
			continue;
		if (older != NULL)
			values[i] = heap_getattr(older, att + 1, desc, &nulls[i]);
		if (older == NULL || is_missing(TupleDescAttr(desc, att), values[i], nulls[i]))
			nulls[i] = true;
		if (!nulls[i])
			continue;
		if (missing.data == NULL)
			initStringInfo(&missing);
		appendStringInfo(&missing, "%s%s", missing.len > 0 ? "," : "",
						 quote_identifier(target->names[i]));
	}
	if (target->unchanged)
		values[target->ncolumns] = text_or_null(&missing, &nulls[target->ncolumns]);
}

bool
event_changes_identity(Relation relation, HeapTuple old, HeapTuple new)
{
	TupleDesc  desc = RelationGetDescr(relation);
	Bitmapset *key;
	int        bit = -1;

	/* With REPLICA IDENTITY FULL there is no key. */
	if (old == NULL || new == NULL || relation->rd_rel->relreplident == REPLICA_IDENTITY_FULL)
		return false;
	key = RelationGetIdentityKeyBitmap(relation);
	while ((bit = bms_next_member(key, bit)) >= 0)
	{
		AttrNumber        attnum = (AttrNumber) (bit + FirstLowInvalidHeapAttributeNumber);
		Form_pg_attribute attribute = TupleDescAttr(desc, attnum - 1);
		bool              old_null;
		bool              new_null;
		Datum             old_value = heap_getattr(old, attnum, desc, &old_null);
		Datum             new_value = heap_getattr(new, attnum, desc, &new_null);

		if (is_missing(attribute, new_value, new_null))
			continue;
		if (old_null != new_null ||
			(!old_null &&
			 !datum_image_eq(old_value, new_value, attribute->attbyval, attribute->attlen)))
			return true;
	}
	return false;
}
