/*-------------------------------------------------------------------------
 *
 * export_request.h
 *	  What an uploader is asked to export, and how that travels to it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EXPORT_REQUEST_H
#define EXPORT_REQUEST_H

#include "uploader/files.h"

typedef enum ExportOnEmpty
{
	ON_EMPTY_FILE, /* an object with the header, or an empty one */
	ON_EMPTY_SKIP, /* no object */
	ON_EMPTY_ERROR
} ExportOnEmpty;

typedef struct ExportRequest
{
	int64         job_id;   /* of a queued job; 0: a new one is made */
	Oid           owner;    /* the role that exports */
	const char   *exporter; /* its name */
	int           places;   /* so many exports the role may run at a time; 0: any number */
	char         *source;   /* as the user wrote it */
	char         *path; /* below the connector's folder, with placeholders; NULL: a name is made */
	char         *stem; /* what a made name begins with */
	const char   *suffix;   /* and what it ends with: ".csv", ".csv.gz" */
	bool          own_only; /* do not replace what others than the owner have exported */
	ExportOnEmpty on_empty;
	bool          proven;      /* the place: nothing is asked of S3 before there are rows */
	bool          manifest;    /* one that says what the query was, and the files */
	char         *description; /* manifest_describe, when there is to be one */

	/*
	 * Of these only what describes the files is the request's to say: compression, overwrite,
	 * partitioned, named, manifest_name, max_open, header_once and the two limits.
	 */
	FilesOptions files;
} ExportRequest;

extern void export_request_serialize(StringInfo buf, const ExportRequest *request);
extern void export_request_deserialize(StringInfo buf, ExportRequest *request);

#endif /* EXPORT_REQUEST_H */
