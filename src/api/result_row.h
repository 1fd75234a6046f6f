/*-------------------------------------------------------------------------
 *
 * result_row.h
 *	  Rows that SQL functions return.
 *
 * A row starts as {0}.  Each function below adds the next column.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RESULT_ROW_H
#define RESULT_ROW_H

#include "fmgr.h"

#define RESULT_ROW_MAX 16

typedef struct ResultRow
{
	int   count;
	Datum values[RESULT_ROW_MAX];
	bool  nulls[RESULT_ROW_MAX];
} ResultRow;

extern void result_row_add_null(ResultRow *row);
extern void result_row_add_bool(ResultRow *row, bool value);
extern void result_row_add_int4(ResultRow *row, int32 value);
extern void result_row_add_int8(ResultRow *row, int64 value);
extern void result_row_add_float8(ResultRow *row, double value);

/* A text; NULL adds a null. */
extern void result_row_add_text(ResultRow *row, const char *value);

/* The row as the value of a function that returns one row; all its columns have been added. */
extern Datum result_row_datum(FunctionCallInfo fcinfo, ResultRow *row);

/* Adds the row to the result of a function that has called InitMaterializedSRF(). */
extern void result_row_put(FunctionCallInfo fcinfo, ResultRow *row);

#endif /* RESULT_ROW_H */
