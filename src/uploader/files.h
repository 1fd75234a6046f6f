/*-------------------------------------------------------------------------
 *
 * files.h
 *	  The files of an export: their names, which is open, which block goes where.
 *
 * Parts of all files are sent while the query runs, and the files appear
 * together, when all their parts are there.
 *
 *-------------------------------------------------------------------------
 */
#ifndef FILES_H
#define FILES_H

#include <time.h>

#include "format/compress.h"
#include "ipc/pipe.h"
#include "tables/connector.h"
#include "tables/job.h"

/* More would take too long to appear together, and nobody wants as many. */
#define FILES_MAX 10000

typedef struct FilesOptions
{
	int64            job_id; /* JOB_UNRECORDED: files get no rows */
	const char      *label;  /* what names call the job */
	Progress        *progress;
	const Connector *connector;
	const char      *path;        /* with placeholders, below the connector's folder */
	time_t           started;     /* for them */
	CompressMethod   compression; /* of the blocks */
	bool             overwrite;
	Oid              exporter;      /* whose files alone may be replaced; InvalidOid: all */
	bool             partitioned;   /* blocks have a folder each */
	bool             named;         /* which is the rest of a file's name, in the path's folder */
	const char      *manifest_name; /* there too; NULL: as the path says */
	int              max_open;      /* files that are written to at the same time; 0: what fits */
	bool             checksums;     /* files_sha256 will be asked for */
	bool             header_once;   /* in the first file alone */
	uint64           max_file_size; /* bytes as stored, of more than one row; 0: no limit */
	uint64           max_rows_per_file; /* 0: no limit */
} FilesOptions;

/*
 * Keys, palloc'd and in the database's encoding; "folder" is that of a
 * partition, NULL: none, and "part" counts from 1 within it.  An error says
 * that a key is none that S3 takes.
 */
extern char *files_key(const FilesOptions *options, const char *folder, int part);
extern char *files_manifest_key(const FilesOptions *options);

/* The most files of partitions that this session's upload_memory lets be written to at the same time. */
extern int files_max_open(void);

/* May there be an object by that key, which is replaced then? */
extern bool files_may_replace(const FilesOptions *options, const char *key);

typedef struct Files Files;

/* Palloc'd; "options" and what it refers to must outlive it, and so must "s3". */
extern Files *files_open(const FilesOptions *options, S3Session *s3);

/* The functions below raise what upload.h says; files_abort must follow then. */

/* Can a block be put without waiting for S3?  To be asked in every turn. */
extern bool files_ready(Files *files);

/* What each file begins with, or the first; before any rows. */
extern void files_add_header(Files *files, const char *data, size_t len);

/* Puts rows into the file that they belong to, PIPE_ROWS, and the rest of them, PIPE_MORE. */
extern void files_put(Files *files, const PipeBlock *block);
extern void files_put_more(Files *files, const PipeBlock *block);

/* No more rows come for the files of that folder. */
extern void files_end(Files *files, const char *folder);

/* What PIPE_OBJECT and PIPE_DESCRIPTION say. */
extern void files_add_object(Files *files, const PipeBlock *block);
extern void files_add_description(Files *files, const PipeBlock *block);

/* Makes a file without rows, where there is none. */
extern void files_put_nothing(Files *files);

/* No more comes: waits until S3 has everything. */
extern void files_seal(Files *files);

/* A manifest is to follow, which is a file too, but not counted as one. */
extern void files_announce_manifest(Files *files);

/*
 * All files (JobFile), the announced manifest and other objects included.  Their
 * rows, uploads and what S3 says of them are filled in as they become known.
 */
extern List *files_list(const Files *files);

/* The files alone: how many, and in the order in which a manifest has them. */
extern int   files_count(const Files *files);
extern List *files_in_order(const Files *files);

/* The folder of a file's partition, or the file's name; NULL: none. */
extern const char *files_folder(const JobFile *file);

/* In hex, of a file that has been sealed, and of its CSV how many bytes there are. */
extern const char *files_sha256(const JobFile *file);
extern uint64      files_csv_bytes(const JobFile *file);

/* What PIPE_DESCRIPTION has said; NULL: nothing. */
extern const char *files_description(const JobFile *file);
extern const char *files_whole_description(const Files *files);

/*
 * Makes objects appear, then the sealed files, several at a time.  Of named files
 * those with the same first component, a table's, appear one after the other, in
 * the order of their last components.  If one does not appear, the error is raised
 * when what was under way has ended, and no more are begun.
 */
extern void files_complete(Files *files);

extern void files_put_manifest(Files *files, const char *data, size_t len);

/* Bytes that S3 has acknowledged; objects in place are not counted. */
extern uint64 files_bytes_sent(const Files *files);

/* The totals of what was put; where there are several files, the URI is that of their folder. */
extern void files_get_totals(const Files *files, JobTotals *totals);

/*
 * Stops all uploads, for at most "timeout" ms, or "shutdown_timeout" ms when the server stops.
 * The first half of undoing; files_abort is the second.
 */
extern void files_stop(Files *files, int timeout, int shutdown_timeout);

/* Between files_stop and files_abort: the files (JobFile) that have an upload and no row. */
extern List *files_unrecorded(const Files *files);

/* Aborts the uploads of files that are not in place. */
extern void files_abort(Files *files);

/* ---- what the store has after files_abort ---- */

/* The files and other objects (JobFile) that are in place, and how many of them are files. */
extern List *files_in_place(const Files *files);
extern int   files_count_in_place(const Files *files);

/* The numbers of the files that have left nothing in the store. */
extern List *files_aborted(const Files *files);

/* The numbers of the files that have no upload any more, and may appear all the same. */
extern List *files_in_doubt(const Files *files);

/* The files (JobFile) with an upload that could not be aborted. */
extern List *files_left(const Files *files);

/* A sentence that says what the store has, or may have, of this export; NULL: nothing. */
extern char *files_describe(const Files *files);

#endif /* FILES_H */
