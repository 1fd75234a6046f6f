/*-------------------------------------------------------------------------
 *
 * csv_layout.h
 *	  Where the columns of a receiver are in the rows of a table, as stored.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CSV_LAYOUT_H
#define CSV_LAYOUT_H

#include "access/htup_details.h"
#include "access/tupmacs.h"
#include "nodes/pg_list.h"
#include "tcop/dest.h"

typedef struct CsvAttribute
{
	int16 len; /* as pg_attribute's attlen */
	bool  byval;
	uint8 align_mask;
	int   column; /* of the receiver; -1: none */
} CsvAttribute;

typedef struct CsvLayout
{
	int          natts; /* those after the last that is a column do not count */
	CsvAttribute attributes[FLEXIBLE_ARRAY_MEMBER];
} CsvLayout;

/* The layout of rows that have the receiver's columns, and nothing else. */
extern CsvLayout *csv_layout_of_desc(TupleDesc desc, MemoryContext context);

/*
 * The layout of rows from which a target list takes columns.  NULL if it does anything else
 * with them, or takes none, or in another order.
 */
extern CsvLayout *csv_layout_of_targets(TupleDesc desc, const List *targets, MemoryContext context);

/* Takes a row that fits the layout. */
extern void csv_receive_tuple(DestReceiver *self, const CsvLayout *layout, HeapTupleHeader tuple);

/* Not if the row is older than one of the columns. */
static inline bool
csv_layout_fits(const CsvLayout *layout, HeapTupleHeader tuple)
{
	return (int) HeapTupleHeaderGetNatts(tuple) >= layout->natts;
}

/* A value begins where its type is aligned; a short text begins at once, with a byte not 0. */
static inline const char *
csv_attribute_align(const CsvAttribute *attribute, const char *data)
{
	if (attribute->len == -1 && VARATT_NOT_PAD_BYTE(data))
		return data;
	return (const char *) (((uintptr_t) data + attribute->align_mask) &
						   ~(uintptr_t) attribute->align_mask);
}

static inline const char *
csv_attribute_skip(const CsvAttribute *attribute, const char *data)
{
	const char *value = csv_attribute_align(attribute, data);

	return att_addlength_pointer(value, attribute->len, value);
}

#endif /* CSV_LAYOUT_H */
