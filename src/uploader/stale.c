/*-------------------------------------------------------------------------
 *
 * stale.c
 *	  Files of earlier exports to a path that the last one has not written again.
 *
 * Who reads a folder would add them to the new ones.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "postmaster/interrupt.h"
#include "utils/timestamp.h"

#include "tables/job.h"
#include "tables/utf8.h"
#include "uploader/stale.h"

/* The export has succeeded, so that its caller waits for no more than this; ms */
#define REQUEST_TIMEOUT 15000
#define ALL_TIMEOUT 60000

/* Files that the warning names. */
#define NAMED_FILES 5

typedef enum Fate
{
	FILE_REMOVED,
	FILE_REPLACED, /* by an object that is not the job's */
	FILE_LEFT
} Fate;

static Fate
remove_file(S3Session *s3, const JobFile *file, S3Error *error)
{
	char  *key = utf8_from_database(file->key);
	S3Call head = {.verb = S3_HEAD_OBJECT, .key = key};
	S3Call removal = {.verb = S3_DELETE_OBJECT, .key = key};

	if (!s3_perform_until(s3, &head, REQUEST_TIMEOUT))
	{
		*error = head.error;
		return head.error.http_status == 404 ? FILE_REMOVED : FILE_LEFT;
	}
	if (!s3_object_is_of(&head.found, file->token))
		return FILE_REPLACED;
	if (s3_perform_until(s3, &removal, REQUEST_TIMEOUT) || removal.error.http_status == 404)
		return FILE_REMOVED;
	*error = removal.error;
	return FILE_LEFT;
}

static void
warn_of_objects_left(const List *left, const char *why)
{
	int            count = list_length(left);
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < Min(count, NAMED_FILES); i++)
		appendStringInfo(&names, "%s\"%s\"", i > 0 ? ", " : "",
						 ((const JobFile *) list_nth(left, i))->uri);
	ereport(WARNING,
			(errmsg_plural("%d file of an earlier export to this path could not be removed",
						   "%d files of earlier exports to this path could not be removed", count,
						   count),
			 errdetail("%s  It is %s%s.", why, names.data, count > NAMED_FILES ? ", ..." : ""),
			 errhint("Readers of the folder find old rows there.  Allow s3:DeleteObject and export "
					 "again, or remove what s3export.job_files has as \"done\" of earlier jobs.")));
}

void
stale_remove(HttpClient *http, S3Session *s3, int64 job_id, Oid exporter)
{
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ALL_TIMEOUT);
	List       *stale = job_stale_files(job_id, exporter);
	List       *removed = NIL;
	List       *left = NIL;
	const char *why = NULL;
	ListCell   *cell;

	http_set_watch(http, NULL, NULL);
	foreach (cell, stale)
	{
		JobFile *file = lfirst(cell);
		S3Error  error;
		Fate     fate = FILE_LEFT;

		/* What one file is refused, all are. */
		if (why == NULL && (ShutdownRequestPending || GetCurrentTimestamp() >= deadline))
			why = "There was no time for more.";
		else if (why == NULL)
		{
			fate = remove_file(s3, file, &error);
			if (fate == FILE_LEFT)
				why = s3_error_detail(&error);
		}
		if (fate == FILE_REMOVED)
			removed = lappend(removed, file);
		else if (fate == FILE_LEFT)
			left = lappend(left, file);
	}
	job_files_removed(job_id, removed);
	if (left != NIL)
		warn_of_objects_left(left, why);
}
