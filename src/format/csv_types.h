/*-------------------------------------------------------------------------
 *
 * csv_types.h
 *	  Common types as text, written without a call of their output functions.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CSV_TYPES_H
#define CSV_TYPES_H

#include "fmgr.h"

/*
 * Writes what the output function would return, and returns the end; or NULL
 * if this value, or a setting as it is now, is left to the output function.
 * "state" is the column's own, zeros at first.
 */
typedef char *(*CsvWrite)(char *dst, Datum value, void *state);

typedef struct CsvType
{
	PGFunction  output; /* the server's function that this stands in for */
	CsvWrite    write;
	size_t      width; /* bytes it may touch at "dst" */
	size_t      state_size;
	const char *alphabet; /* all characters that it can write */
} CsvType;

/*
 * How values are written whose output function is "output"; NULL if there is
 * no other way.  The function and not the type decides: domains share it with
 * their base type, and one that is wrapped by the server (SECURITY DEFINER,
 * SET) is another.
 */
extern const CsvType *csv_type_find(PGFunction output);

#endif /* CSV_TYPES_H */
