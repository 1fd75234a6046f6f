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
#include "access/sysattr.h"
#include "catalog/pg_class.h"
#include "executor/executor.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/relcache.h"

#include "batch_internal.h"
#include "compat.h"

/* Stored elsewhere: the WAL does not have the value, and the row there may be gone. */
static bool
is_missing(Form_pg_attribute attribute, Datum value, bool isnull)
{
	return attribute->attlen == -1 && !isnull && VARATT_IS_EXTERNAL_ONDISK(DatumGetPointer(value));
}

void
event_read(EventRow *row, Relation relation, HeapTuple tuple, const EventRow *older)
{
	TupleDesc desc = RelationGetDescr(relation);
	int       natts = desc->natts;

	row->values = palloc(natts * (sizeof(Datum) + 2 * sizeof(bool)));
	row->nulls = (bool *) (row->values + natts);
	row->missing = row->nulls + natts;
	heap_deform_tuple(tuple, desc, row->values, row->nulls);
	for (int i = 0; i < natts; i++)
	{
		row->missing[i] = is_missing(TupleDescAttr(desc, i), row->values[i], row->nulls[i]);
		if (!row->missing[i] || older == NULL || older->nulls[i] || older->missing[i])
			continue;
		row->values[i] = older->values[i];
		row->missing[i] = false;
	}
}

/* A missing value is of no column that the condition may name, as these are in the key. */
bool
event_matches(const Target *target, const Source *source, const EventRow *row)
{
	TupleTableSlot *slot = target->filter_slot;
	Datum           matches;
	bool            isnull;

	if (target->filter == NULL)
		return true;
	ExecClearTuple(slot);
	for (int i = 0; i < slot->tts_tupleDescriptor->natts; i++)
	{
		int att = source->attnums[i] - 1;

		slot->tts_isnull[i] = att < 0 || row->nulls[att] || row->missing[att];
		slot->tts_values[i] = slot->tts_isnull[i] ? (Datum) 0 : row->values[att];
	}
	ExecStoreVirtualTuple(slot);
	ResetExprContext(target->filter_context);
	matches = ExecEvalExprSwitchContext(target->filter, target->filter_context, &isnull);
	ExecClearTuple(slot);
	return !isnull && DatumGetBool(matches);
}

static Datum
text_or_null(StringInfo text, bool *isnull)
{
	*isnull = text->data == NULL;
	return *isnull ? (Datum) 0 : PointerGetDatum(cstring_to_text_with_len(text->data, text->len));
}

static void
append_missing(StringInfo missing, const char *name)
{
	if (missing->data == NULL)
		initStringInfo(missing);
	appendStringInfo(missing, "%s%s", missing->len > 0 ? "," : "", quote_identifier(name));
}

void
event_set_values(Target *target, const Source *source, const EventRow *row)
{
	Datum         *values = target->slot->tts_values + EVENT_COLUMNS;
	bool          *nulls = target->slot->tts_isnull + EVENT_COLUMNS;
	StringInfoData missing = {0};

	for (int i = 0; i < target->ncolumns; i++)
	{
		int att = source->attnums[target->attnums[i] - 1] - 1;

		nulls[i] = row == NULL || att < 0 || row->nulls[att] || row->missing[att];
		if (!nulls[i])
			values[i] = row->values[att];
		else if (row != NULL && att >= 0 && row->missing[att])
			append_missing(&missing, target->names[i]);
	}
	if (target->unchanged)
		values[target->ncolumns] = text_or_null(&missing, &nulls[target->ncolumns]);
}

bool
event_changes_identity(Relation relation, const EventRow *old_row, const EventRow *new_row)
{
	TupleDesc  desc = RelationGetDescr(relation);
	Bitmapset *key;
	int        bit = -1;

	/* With REPLICA IDENTITY FULL there is no key. */
	if (relation->rd_rel->relreplident == REPLICA_IDENTITY_FULL)
		return false;
	key = RelationGetIdentityKeyBitmap(relation);
	while ((bit = bms_next_member(key, bit)) >= 0)
	{
		int               att = bit + FirstLowInvalidHeapAttributeNumber - 1;
		Form_pg_attribute attribute = TupleDescAttr(desc, att);

		if (new_row->missing[att])
			continue;
		if (old_row->nulls[att] != new_row->nulls[att] ||
			(!old_row->nulls[att] && !datum_image_eq(old_row->values[att], new_row->values[att],
													 attribute->attbyval, attribute->attlen)))
			return true;
	}
	return false;
}
