/*-------------------------------------------------------------------------
 *
 * manifest.h
 *	  The JSON document that says what an export consists of.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MANIFEST_H
#define MANIFEST_H

#include "access/tupdesc.h"

#include "format/compress.h"
#include "format/csv.h"
#include "uploader/files.h"

/* What is exported. */
typedef struct ManifestSource
{
	const char *text;  /* as copy_to takes it */
	Oid         relid; /* the table; InvalidOid: it is a query, or a view */
	TupleDesc   desc;
} ManifestSource;

/*
 * What the leader knows of it, with the snapshot of the query active: members of the
 * whole, in the database's encoding.  "header" is as copy_to takes it.
 */
extern char *manifest_describe(const ManifestSource *source, const CsvOptions *csv,
							   const CompressOptions *compression, const char *header);

/* The whole, in UTF-8, when the files are in place. */
extern char *manifest_make(const FilesOptions *options, const char *description, Files *files);

/*
 * The manifest where files are named: what blocks have said and S3 says.  Nothing of the
 * job or the clock is in it: who writes the same files again makes the same bytes.
 */
extern char *manifest_make_named(const Files *files);

#endif /* MANIFEST_H */
