/*-------------------------------------------------------------------------
 *
 * csv_jsonb.h
 *	  jsonb as a CSV value, quotes and all, in one pass over its stored form.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CSV_JSONB_H
#define CSV_JSONB_H

#include "format/csv_block.h"
#include "format/csv_text.h"

/* Whether these options allow it; "null_print" is what no value may look like. */
extern bool csv_jsonb_suits(const CsvMarks *marks, const char *null_print);

/*
 * Writes a value as CSV; returns the end.  The row may move.  NULL if it is
 * nested too deeply: then nothing is written, but the row begins, as always,
 * at block->row, and what was written of it before is there still.
 */
extern char *
csv_put_jsonb(CsvBlock *block, char *dst, Datum value, const CsvMarks *marks, bool force_quote);

#endif /* CSV_JSONB_H */
