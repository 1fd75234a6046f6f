/*-------------------------------------------------------------------------
 *
 * csv_layout.c
 *	  Where the columns of a receiver are in the rows of a table, as stored.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "nodes/primnodes.h"

#include "base/compat.h"
#include "format/csv_layout.h"

static CsvLayout *
create_layout(TupleDesc desc, MemoryContext context)
{
	CsvLayout *layout = MemoryContextAlloc(context, offsetof(CsvLayout, attributes) +
														sizeof(CsvAttribute) * desc->natts);

	layout->natts = desc->natts;
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute stored = TupleDescAttr(desc, i);

		layout->attributes[i] =
			(CsvAttribute){.len = stored->attlen,
						   .byval = stored->attbyval,
						   .align_mask = att_align_nominal(1, stored->attalign) - 1,
						   .column = -1};
	}
	return layout;
}

CsvLayout *
csv_layout_of_desc(TupleDesc desc, MemoryContext context)
{
	CsvLayout *layout = create_layout(desc, context);

	for (int i = 0; i < layout->natts; i++)
		layout->attributes[i].column = i;
	return layout;
}

CsvLayout *
csv_layout_of_targets(TupleDesc desc, const List *targets, MemoryContext context)
{
	CsvLayout *layout = create_layout(desc, context);
	int        last = 0;
	ListCell  *cell;

	foreach (cell, targets)
	{
		TargetEntry *target = lfirst_node(TargetEntry, cell);
		Var         *column = (Var *) target->expr;

		if (!IsA(column, Var) || column->varattno <= last || target->resjunk)
		{
			pfree(layout);
			return NULL;
		}
		last = column->varattno;
		layout->attributes[last - 1].column = foreach_current_index(cell);
	}
	if (last == 0)
	{
		pfree(layout);
		return NULL;
	}
	layout->natts = last;
	return layout;
}
