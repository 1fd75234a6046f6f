/*-------------------------------------------------------------------------
 *
 * result_row.c
 *	  Rows that SQL functions return.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "funcapi.h"
#include "utils/builtins.h"

#include "api/result_row.h"

static void
add_column(ResultRow *row, Datum value, bool isnull)
{
	Assert(row->count < RESULT_ROW_MAX);
	row->values[row->count] = value;
	row->nulls[row->count] = isnull;
	row->count++;
}

void
result_row_add_null(ResultRow *row)
{
	add_column(row, (Datum) 0, true);
}

void
result_row_add_bool(ResultRow *row, bool value)
{
	add_column(row, BoolGetDatum(value), false);
}

void
result_row_add_int4(ResultRow *row, int32 value)
{
	add_column(row, Int32GetDatum(value), false);
}

void
result_row_add_int8(ResultRow *row, int64 value)
{
	add_column(row, Int64GetDatum(value), false);
}

void
result_row_add_float8(ResultRow *row, double value)
{
	add_column(row, Float8GetDatum(value), false);
}

void
result_row_add_text(ResultRow *row, const char *value)
{
	add_column(row, value != NULL ? CStringGetTextDatum(value) : (Datum) 0, value == NULL);
}

Datum
result_row_datum(FunctionCallInfo fcinfo, ResultRow *row)
{
	TupleDesc desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	Assert(row->count == desc->natts);
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), row->values, row->nulls));
}

void
result_row_put(FunctionCallInfo fcinfo, ResultRow *row)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

	Assert(row->count == result->setDesc->natts);
	tuplestore_putvalues(result->setResult, result->setDesc, row->values, row->nulls);
}
