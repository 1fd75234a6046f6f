/*-------------------------------------------------------------------------
 *
 * row_mac.h
 *	  Rows that only the extension's functions can have written.
 *
 * What decides who runs what, and where it goes, is in rows with a column "mac": a
 * code (mac.h) over the columns that decide, the table and the database.  A trigger
 * makes it (row_api.c).  Whoever acts on a row checks it first.
 *
 * Privileges on tables and triggers keep others from writing.  This is for whoever
 * gets past them.  A row that was right once, and is put back as it was, is not found
 * out.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ROW_MAC_H
#define ROW_MAC_H

#include "access/htup_details.h"
#include "lib/stringinfo.h"

#include "base/mac.h"

/* What a row says, and its code; it may travel to another process. */
typedef struct RowProof
{
	char  *table;   /* NULL: there is no row to prove */
	bytea *content; /* of the columns that decide */
	bytea *mac;     /* NULL: none */
} RowProof;

/* The row of a table of the extension's, palloc'd. */
extern void row_proof_of(RowProof *proof, const char *table, HeapTuple tuple, TupleDesc desc);

/*
 * Within a scope: a column that is a whole row, of a row of SPI's result.  What is
 * palloc'd outlives the scope.
 */
extern void row_proof_read(RowProof *proof, const char *table, uint64 row, const char *column);

extern MacVerdict row_proof_check(const RowProof *proof, bool writing);

/*
 * Raises ERRCODE_DATA_CORRUPTED when the row is not as the extension's functions wrote
 * it.  Reads the key file.  Sessions do that only where they are "writing": where there is
 * no file then, no row is right.
 */
extern void row_require_proof(const RowProof *proof, bool writing);

extern void row_proof_serialize(StringInfo buf, const RowProof *proof);
extern void row_proof_deserialize(StringInfo buf, RowProof *proof);

#endif /* ROW_MAC_H */
