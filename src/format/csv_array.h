/*-------------------------------------------------------------------------
 *
 * csv_array.h
 *	  Arrays of numbers and the like as CSV values.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CSV_ARRAY_H
#define CSV_ARRAY_H

#include "format/csv_block.h"
#include "format/csv_text.h"

/* How the arrays of a column are written. */
typedef struct CsvArray CsvArray;

/*
 * NULL if the type is no array of such elements, or these options do not allow
 * it.  In the current memory context.
 */
extern CsvArray *csv_array_create(Oid type, const CsvMarks *marks, const char *null_print);

/*
 * Writes a value as CSV; returns the end.  The row may move.  NULL if this
 * value is left to its output function: then nothing is written, but the row
 * begins, as always, at block->row, and what was written of it before is there
 * still.
 */
extern char *
csv_put_array(CsvBlock *block, char *dst, Datum value, CsvArray *array, bool force_quote);

#endif /* CSV_ARRAY_H */
