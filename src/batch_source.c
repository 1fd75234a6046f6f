/*-------------------------------------------------------------------------
 *
 * batch_source.c
 *	  Which tables have events, in which columns, and how the columns are told.
 *
 * All of it is as the catalogs of the moment have it: while changes are decoded, as
 * they were at the change's place in the WAL.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/relcache.h"

#include "batch_internal.h"
#include "path.h"

/* ---- columns ---- */

static bool
has_column(const PublishedTable *published, Form_pg_attribute attribute)
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
 * Number and type OID are there as well as the names: a column or a type that was made anew
 * under its name is another one.  The type is qualified, so that nothing depends on the
 * search_path.
 */
static void
append_column(StringInfo columns, Form_pg_attribute attribute)
{
	appendStringInfo(columns, "%d %u %s %s\n", attribute->attnum, attribute->atttypid,
					 quote_identifier(NameStr(attribute->attname)),
					 format_type_extended(attribute->atttypid, attribute->atttypmod,
										  FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
}

/* What a version of a table's columns is told by. */
static char *
describe_columns(const PublishedTable *published, TupleDesc desc)
{
	StringInfoData columns;

	initStringInfo(&columns);
	for (int i = 0; i < desc->natts; i++)
	{
		if (has_column(published, TupleDescAttr(desc, i)))
			append_column(&columns, TupleDescAttr(desc, i));
	}
	return columns.data;
}

/*
 * A column called like one of the events' own, or like that with more underscores before
 * it, gets another underscore: so no two columns have one name.
 */
static char *
name_in_events(const char *name)
{
	static const char *const own[] = {"id", "op", "committed_at", "unchanged"};
	const char              *rest = name + strspn(name, "_");

	for (size_t i = 0; rest > name && i < lengthof(own); i++)
	{
		if (strcmp(rest, own[i]) == 0)
			return psprintf("_%s", name);
	}
	return pstrdup(name);
}

static void
set_columns(Target *target, const PublishedTable *published, TupleDesc table)
{
	int n = 0;

	target->attnums = palloc(Max(table->natts, 1) * sizeof(AttrNumber));
	target->names = palloc(Max(table->natts, 1) * sizeof(char *));
	for (int i = 0; i < table->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(table, i);

		if (!has_column(published, attribute))
			continue;
		target->names[n] = name_in_events(NameStr(attribute->attname));
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
	{
		TupleDescCopyEntry(desc, EVENT_COLUMNS + 1 + i, table, target->attnums[i]);
		namestrcpy(&TupleDescAttr(desc, EVENT_COLUMNS + i)->attname, target->names[i]);
	}
	if (target->unchanged)
		TupleDescInitEntry(desc, natts, "_unchanged", TEXTOID, -1, 0);
	return desc;
}

/* As pgoutput does it; the condition calls nothing but immutable built-in functions. */
static void
set_filter(Target *target, const PublishedTable *published, TupleDesc table)
{
	EState *estate;

	target->filter = NULL;
	target->filter_text = NULL;
	if (published->filter == NULL)
		return;
	target->filter_text = nodeToString(published->filter);
	estate = CreateExecutorState();
	target->filter_context = GetPerTupleExprContext(estate);
	/* Its constants must live as long as the target does. */
	target->filter = ExecPrepareExpr((Expr *) copyObject(published->filter), estate);
	target->filter_slot = MakeSingleTupleTableSlot(CreateTupleDescCopy(table), &TTSOpsVirtual);
	target->filter_context->ecxt_scantuple = target->filter_slot;
}

/* ---- targets ---- */

static char *
event_type_of(Relation relation)
{
	return path_hive_folder("event_type",
							psprintf("%s.%s", get_namespace_name(RelationGetNamespace(relation)),
									 RelationGetRelationName(relation)));
}

static void
set_target(Target *target, Relation relation, const PublishedTable *published, const char *columns)
{
	MemoryContext old;

	if (target->context == NULL)
		target->context = AllocSetContextCreate(GetMemoryChunkContext(target), "s3export table",
												ALLOCSET_DEFAULT_SIZES);
	else
		MemoryContextReset(target->context);
	old = MemoryContextSwitchTo(target->context);
	target->columns = pstrdup(columns);
	target->unchanged = (published->operations & OPERATION_BIT(DECODE_UPDATE)) != 0;
	target->folder = event_type_of(relation);
	target->name = path_encode(RelationGetRelationName(relation));
	set_columns(target, published, RelationGetDescr(relation));
	set_filter(target, published, RelationGetDescr(relation));
	target->desc = make_event_desc(target, RelationGetDescr(relation));
	target->slot = MakeSingleTupleTableSlot(target->desc, &TTSOpsVirtual);
	initStringInfo(&target->header);
	target->receiver = NULL;
	MemoryContextSwitchTo(old);
}

static bool
has_filter(const Target *target, Node *filter)
{
	if (filter == NULL || target->filter_text == NULL)
		return filter == NULL && target->filter_text == NULL;
	return strcmp(target->filter_text, nodeToString(filter)) == 0;
}

/* Has the table the name, the columns and the publication's settings that it had? */
static bool
is_as_before(const Target *target, Relation relation, const PublishedTable *published,
			 const char *columns)
{
	return target->context != NULL && strcmp(target->columns, columns) == 0 &&
		   strcmp(target->folder, event_type_of(relation)) == 0 &&
		   has_filter(target, published->filter) &&
		   target->unchanged == ((published->operations & OPERATION_BIT(DECODE_UPDATE)) != 0);
}

static void
refresh_target(Target *target, Relation relation, const PublishedTable *published)
{
	char *columns = describe_columns(published, RelationGetDescr(relation));

	if (is_as_before(target, relation, published, columns))
		return;
	if (target->context != NULL)
		batch_end_file(target);
	set_target(target, relation, published, columns);
}

/* ---- sources ---- */

/* The target table's columns by their names: a partition may have them in another order. */
static AttrNumber *
map_columns(TupleDesc table, TupleDesc source)
{
	AttrNumber *attnums = palloc0(Max(table->natts, 1) * sizeof(AttrNumber));

	for (int i = 0; i < table->natts; i++)
	{
		for (int a = 0; a < source->natts && attnums[i] == 0; a++)
		{
			if (!TupleDescAttr(table, i)->attisdropped && !TupleDescAttr(source, a)->attisdropped &&
				strcmp(NameStr(TupleDescAttr(table, i)->attname),
					   NameStr(TupleDescAttr(source, a)->attname)) == 0)
				attnums[i] = TupleDescAttr(source, a)->attnum;
		}
	}
	return attnums;
}

static void
use_target(Batch *batch, Source *source, Relation relation, Relation table,
		   const PublishedTable *published, MemoryContext context)
{
	MemoryContext old;

	source->target = batch_get_target(batch, published->relid);
	refresh_target(source->target, table, published);
	old = MemoryContextSwitchTo(context);
	source->attnums = map_columns(RelationGetDescr(table), RelationGetDescr(relation));
	MemoryContextSwitchTo(old);
}

void
batch_refresh_source(Batch *batch, Source *source, Relation relation, Oid publication, Oid sender,
					 MemoryContext context)
{
	PublishedTable published = {0};

	if (source->attnums != NULL)
		pfree(source->attnums);
	source->attnums = NULL;
	source->target = NULL;
	if (OidIsValid(publication))
		publication_describe(publication, sender, relation, &published);
	source->operations = published.operations;
	source->withheld = published.withheld;
	if (source->operations == 0 || source->withheld)
		return;
	if (published.relid == RelationGetRelid(relation))
		use_target(batch, source, relation, relation, &published, context);
	else
	{
		Relation table = RelationIdGetRelation(published.relid);

		if (!RelationIsValid(table))
			elog(ERROR, "could not open relation with OID %u", published.relid);
		use_target(batch, source, relation, table, &published, context);
		RelationClose(table);
	}
}
