/*-------------------------------------------------------------------------
 *
 * batch_event.c
 *	  What the events of a table consist of.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/sysattr.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "executor/executor.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "currents/batch_internal.h"

/*
 * A value that takes more than this may be too large for CSV, where each byte can take two, and
 * then two quotes; bytes.
 */
#define LARGE_VALUE (MaxAllocSize / 4)

/* ---- rows ---- */

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

/* ---- keys ---- */

/* The primary key's columns, as RelationGetIdentityKeyBitmap() has those of the identity. */
static Bitmapset *
primary_key(Relation relation)
{
	Oid        oid = compat_primary_key(relation);
	Bitmapset *key = NULL;
	Relation   index;

	if (!OidIsValid(oid))
		return NULL;
	index = RelationIdGetRelation(oid);
	if (!RelationIsValid(index))
		elog(ERROR, "could not open relation with OID %u", oid);
	for (int i = 0; i < index->rd_index->indnkeyatts; i++)
		key = bms_add_member(key, index->rd_index->indkey.values[i]);
	RelationClose(index);
	return key;
}

Bitmapset *
event_key(Relation relation)
{
	Bitmapset *identity;
	Bitmapset *key = NULL;
	int        bit = -1;

	if (relation->rd_rel->relreplident == REPLICA_IDENTITY_FULL)
		return primary_key(relation);
	/* The first is for changes that are decoded alone, the second for rows that are copied. */
	identity = HistoricSnapshotActive()
				   ? RelationGetIdentityKeyBitmap(relation)
				   : RelationGetIndexAttrBitmap(relation, INDEX_ATTR_BITMAP_IDENTITY_KEY);
	while ((bit = bms_next_member(identity, bit)) >= 0)
		key = bms_add_member(key, bit + FirstLowInvalidHeapAttributeNumber);
	bms_free(identity);
	return key;
}

static bool
is_equal(Form_pg_attribute attribute, const EventRow *old_row, const EventRow *new_row)
{
	int att = attribute->attnum - 1;

	if (new_row->missing[att])
		return true;
	if (old_row->nulls[att] || new_row->nulls[att])
		return old_row->nulls[att] && new_row->nulls[att];
	return datum_image_eq(old_row->values[att], new_row->values[att], attribute->attbyval,
						  attribute->attlen);
}

/* Without a key each update names the row as it was, which nothing else does. */
bool
event_changes_key(Relation relation, const Bitmapset *key, const EventRow *old_row,
				  const EventRow *new_row)
{
	TupleDesc desc = RelationGetDescr(relation);
	int       attnum = -1;

	while ((attnum = bms_next_member(key, attnum)) >= 0)
	{
		if (!is_equal(TupleDescAttr(desc, attnum - 1), old_row, new_row))
			return true;
	}
	return key == NULL;
}

bool
event_lacks_values(const Target *target, const Source *source, const EventRow *row)
{
	for (int i = 0; i < target->ncolumns; i++)
	{
		int att = source->attnums[target->attnums[i] - 1] - 1;

		if (att >= 0 && row->missing[att])
			return true;
	}
	return false;
}

/* ---- texts that no file can have ---- */

/* Has each character a place in UTF-8? */
static bool
converts_to_utf8(const char *text, int len)
{
	int            encoding = GetDatabaseEncoding();
	Oid            function = FindDefaultConversionProc(encoding, PG_UTF8);
	Size           size = (Size) len * MAX_CONVERSION_GROWTH + 1;
	unsigned char *buf;
	int            converted;

	if (!OidIsValid(function))
		return false;
	buf = MemoryContextAllocHuge(CurrentMemoryContext, size);
	converted = pg_do_encoding_conversion_buf(function, encoding, PG_UTF8, (unsigned char *) text,
											  len, buf, (int) Min(size, INT_MAX), true);
	pfree(buf);
	return converted == len;
}

static bool
is_utf8(const char *text)
{
	int len = (int) strlen(text);

	if (GetDatabaseEncoding() == PG_UTF8)
		return true;
	if (GetDatabaseEncoding() == PG_SQL_ASCII)
		return pg_verify_mbstr(PG_UTF8, text, len, true);
	return converts_to_utf8(text, len);
}

static void
append_hex(StringInfo buf, const char *bytes)
{
	size_t len = strlen(bytes);

	enlargeStringInfo(buf, (int) len * 2 + 2);
	buf->data[buf->len++] = '"';
	buf->len += (int) hex_encode(bytes, len, buf->data + buf->len);
	appendStringInfoChar(buf, '"');
}

/* ---- what _meta says ---- */

static char *
text_of(Oid type, Datum value)
{
	Oid  output;
	bool is_varlena;

	getTypeOutputInfo(type, &output, &is_varlena);
	return OidOutputFunctionCall(output, value);
}

/* Begins a member: its name, or another element of the one that has begun. */
static void
begin_member(StringInfo meta, const char *name, char bracket, bool *begun)
{
	if (*begun)
		appendStringInfoChar(meta, ',');
	else
		appendStringInfo(meta, "%s\"%s\":%c", meta->len > 0 ? "," : "", name, bracket);
	*begun = true;
}

static void
say_missing(Target *target, const Source *source, const EventRow *row)
{
	bool begun = false;

	for (int i = 0; i < target->ncolumns; i++)
	{
		int att = source->attnums[target->attnums[i] - 1] - 1;

		if (att < 0 || !row->missing[att])
			continue;
		begin_member(&target->meta, "unchanged", '[', &begun);
		escape_json(&target->meta, target->names[i]);
	}
	if (begun)
		appendStringInfoChar(&target->meta, ']');
}

static void
append_key_value(StringInfo meta, const char *text)
{
	if (is_utf8(text))
	{
		escape_json(meta, text);
		return;
	}
	appendStringInfoString(meta, "{\"bytes\":");
	append_hex(meta, text);
	appendStringInfoChar(meta, '}');
}

/*
 * The values that the key had before the update, for rows whose unchanged values the WAL does
 * not have.
 */
static void
say_old_key(Target *target, const Source *source, const EventRow *old)
{
	bool begun = false;

	for (int i = 0; i < target->ncolumns; i++)
	{
		int att = source->attnums[target->attnums[i] - 1] - 1;
		Oid type = TupleDescAttr(target->desc, EVENT_COLUMNS + i)->atttypid;

		if (att < 0 || !bms_is_member(att + 1, source->key))
			continue;
		begin_member(&target->meta, "old_key", '{', &begun);
		escape_json(&target->meta, target->names[i]);
		appendStringInfoChar(&target->meta, ':');
		if (old->nulls[att])
			appendStringInfoString(&target->meta, "null");
		else
			append_key_value(&target->meta, text_of(type, old->values[att]));
	}
	if (begun)
		appendStringInfoChar(&target->meta, '}');
}

/* ---- values ---- */

void
event_set_values(Target *target, const Source *source, const EventRow *row, const EventRow *old)
{
	Datum *values = target->slot->tts_values + EVENT_COLUMNS;
	bool  *nulls = target->slot->tts_isnull + EVENT_COLUMNS;
	bool   missing = false;

	resetStringInfo(&target->meta);
	for (int i = 0; i < target->ncolumns; i++)
	{
		int att = row == NULL ? -1 : source->attnums[target->attnums[i] - 1] - 1;

		nulls[i] = att < 0 || row->nulls[att] || row->missing[att];
		if (!nulls[i])
			values[i] = row->values[att];
		else
			missing |= att >= 0 && row->missing[att];
	}
	if (missing)
		say_missing(target, source, row);
	if (old != NULL)
		say_old_key(target, source, old);
}

void
event_set_copied(Target *target, TupleTableSlot *row)
{
	resetStringInfo(&target->meta);
	slot_getallattrs(row);
	memcpy(target->slot->tts_values + EVENT_COLUMNS, row->tts_values,
		   target->ncolumns * sizeof(Datum));
	memcpy(target->slot->tts_isnull + EVENT_COLUMNS, row->tts_isnull,
		   target->ncolumns * sizeof(bool));
}

/* ---- values that no file can have ---- */

static bool
is_large(Form_pg_attribute attribute, Datum value)
{
	const struct varlena *data = (struct varlena *) DatumGetPointer(value);

	if (attribute->attlen != -1 || (VARATT_IS_SHORT(data) && !VARATT_IS_EXTERNAL(data)))
		return false;
	if (!VARATT_IS_EXTENDED(data))
		return VARSIZE(data) > LARGE_VALUE;
	return toast_raw_datum_size(value) > LARGE_VALUE;
}

/* NULL: the value is so large that its text cannot be made. */
static char *
text_or_null(Form_pg_attribute attribute, Datum value)
{
	MemoryContext context = CurrentMemoryContext;
	char *volatile text = NULL;

	if (!is_large(attribute, value))
		return text_of(attribute->atttypid, value);
	PG_TRY();
	{
		text = text_of(attribute->atttypid, value);
	}
	PG_CATCH();
	{
		int code = geterrcode();

		/* Core has an internal error for what no palloc can give. */
		if (code != ERRCODE_OUT_OF_MEMORY && code != ERRCODE_PROGRAM_LIMIT_EXCEEDED &&
			code != ERRCODE_INTERNAL_ERROR)
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		FlushErrorState();
	}
	PG_END_TRY();
	return text;
}

/* Is the row such that a look at each value pays? */
static bool
is_suspicious(const Target *target)
{
	if (GetDatabaseEncoding() != PG_UTF8)
		return true;
	for (int i = EVENT_COLUMNS; i < EVENT_COLUMNS + target->ncolumns; i++)
	{
		if (!target->slot->tts_isnull[i] &&
			is_large(TupleDescAttr(target->desc, i), target->slot->tts_values[i]))
			return true;
	}
	return false;
}

/* A value that is left out; true: its bytes are told. */
static bool
leave_out(Target *target, int column, const char *text, bool *begun)
{
	target->slot->tts_isnull[EVENT_COLUMNS + column] = true;
	if (text == NULL || strlen(text) > LARGE_VALUE)
		return false;
	begin_member(&target->meta, "bytes", '{', begun);
	escape_json(&target->meta, target->names[column]);
	appendStringInfoChar(&target->meta, ':');
	append_hex(&target->meta, text);
	return true;
}

List *
event_check_values(Target *target)
{
	List *unsent = NIL;
	Size  room = LARGE_VALUE;
	bool  begun = false;

	if (!is_suspicious(target))
		return NIL;
	for (int i = 0; i < target->ncolumns; i++)
	{
		int         column = EVENT_COLUMNS + i;
		const char *text;

		if (target->slot->tts_isnull[column])
			continue;
		text = text_or_null(TupleDescAttr(target->desc, column), target->slot->tts_values[column]);
		if (text != NULL && strlen(text) <= room && is_utf8(text))
			room -= strlen(text);
		else if (!leave_out(target, i, text != NULL && is_utf8(text) ? NULL : text, &begun))
			unsent = lappend(unsent, target->names[i]);
	}
	if (begun)
		appendStringInfoChar(&target->meta, '}');
	begun = false;
	for (int i = 0; i < list_length(unsent); i++)
	{
		begin_member(&target->meta, "unsent", '[', &begun);
		escape_json(&target->meta, list_nth(unsent, i));
	}
	if (begun)
		appendStringInfoChar(&target->meta, ']');
	return unsent;
}
