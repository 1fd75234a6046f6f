/*-------------------------------------------------------------------------
 *
 * csv_options.h
 *	  COPY's options of CSV, checked as COPY does.  csv_options is in csv.h.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CSV_OPTIONS_H
#define CSV_OPTIONS_H

#include "access/tupdesc.h"

#include "format/csv.h"

/* The numbers of the columns in force_quote, from 1; raises COPY's error about a name that is none. */
extern List *csv_forced_columns(const CsvOptions *options, TupleDesc desc);

#endif /* CSV_OPTIONS_H */
