/*-------------------------------------------------------------------------
 *
 * transfer.h
 *	  One export in the uploader: blocks in, objects and job rows out.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TRANSFER_H
#define TRANSFER_H

#include "format/compress.h"
#include "ipc/pipe.h"
#include "tables/connector.h"

typedef enum TransferOnEmpty
{
	ON_EMPTY_FILE, /* an object with the header, or an empty one */
	ON_EMPTY_SKIP, /* no object */
	ON_EMPTY_ERROR
} TransferOnEmpty;

typedef struct TransferRequest
{
	int64          job_id;   /* of a queued job; 0: a new one is made */
	Oid            owner;    /* the role that exports */
	const char    *exporter; /* its name */
	int            places;   /* so many exports the role may run at a time; 0: any number */
	char          *source;   /* as the user wrote it */
	char          *path; /* below the connector's folder, with placeholders; NULL: a name is made */
	char          *stem; /* what a made name begins with */
	const char    *suffix;      /* and what it ends with: ".csv", ".csv.gz" */
	CompressMethod compression; /* of the blocks */
	bool           overwrite;
	bool           own_only; /* but not what others than the owner have exported */
	TransferOnEmpty on_empty;
	bool            header_once;   /* if there is one, in the first file alone */
	bool            partitioned;   /* blocks name their partitions */
	bool            named;         /* or, of these, the rest of their files' names */
	bool            proven;        /* the place: nothing is asked of S3 before there are rows */
	int             max_open;      /* files_max_open of those who name them; 0: our own */
	uint64          max_file_size; /* bytes as stored; 0: no limit */
	uint64          rows_per_file; /* at most; 0: no limit */
	bool            manifest;
	char           *description; /* manifest_describe, when there is to be one */

	/*
	 * Where files are named: the name, in the path's folder, of a manifest that says
	 * what blocks of PIPE_DESCRIPTION say, also when there are no files; NULL: none.
	 */
	char *manifest_name;
} TransferRequest;

typedef struct TransferTotals
{
	int64       job_id; /* JOB_UNRECORDED: there is no row */
	char       *uri;    /* of the file, or of the folder of several; NULL: no file was made */
	uint64      rows;
	uint64      bytes;
	int         files;
	const char *manifest_uri; /* NULL: there is none */
} TransferTotals;

/* How a request travels between the processes. */
extern void transfer_serialize(StringInfo buf, const TransferRequest *request);
extern void transfer_deserialize(StringInfo buf, TransferRequest *request);

/*
 * Runs an export, and calls "begun" when credentials are at hand and nothing is
 * in the way of the first file: blocks may come then.  Returns true with *totals
 * when all files are in place and the job's row, or on a standby the server's
 * log, says so.  When the leader has
 * failed, undoes all and returns false; raises the uploader's own errors when
 * it has done the same.
 */
extern bool transfer_run(Pipe *pipe, Connector *connector, const TransferRequest *request,
						 void (*begun)(Pipe *pipe), TransferTotals *totals);

#endif /* TRANSFER_H */
