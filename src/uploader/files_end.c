/*-------------------------------------------------------------------------
 *
 * files_end.c
 *	  How the files of an export appear, or do not.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/guc.h"
#include "base/object_path.h"
#include "uploader/files_internal.h"

/* ---- their order ---- */

/* By the last component of their names; what else they have in common is the same each time. */
static int
compare_names(const ListCell *a, const ListCell *b)
{
	const char *left = ((const File *) lfirst(a))->partition->folder;
	const char *right = ((const File *) lfirst(b))->partition->folder;
	int         order = strcmp(object_path_name(left), object_path_name(right));

	return order != 0 ? order : strcmp(left, right);
}

List *
files_in_order(const Files *files)
{
	List *list = list_copy(files->list);

	if (files->options.named)
		list_sort(list, compare_names);
	return list;
}

/* ---- one after the other ---- */

static void
take_result(File *file)
{
	UploadResult result;

	upload_get_result(file->upload, &result);
	file->row.bytes = result.bytes;
	file->row.parts = result.parts;
	file->row.etag = result.etag;
	file->row.crc32c = result.crc32c;
}

static void
report_in_place(const File *file)
{
	Progress *progress = file->files->options.progress;

	if (file->row.number > 0)
		(void) pg_atomic_fetch_add_u32(&progress->files, 1);
	if (file->row.number >= 0 && file->row.parts == 0)
		(void) pg_atomic_fetch_add_u64(&progress->bytes_sent, (int64) file->row.bytes);
}

/* Recovery knows an object by its upload and its size. */
static void
send_whole(File *file)
{
	JobFile *row = &file->row;

	upload_write(file->upload, file->data, file->len);
	upload_seal(file->upload, true);
	upload_pool_flush(file->files->pool);
	if (row->upload_id == NULL && row->bytes == file->len)
		return;
	row->bytes = file->len;
	job_set_completing(file->files->options.job_id, list_make1(row));
}

/* What is sent as a whole takes a buffer; those under way give theirs back when they end. */
static bool
may_begin(Files *files, const File *file, const List *running)
{
	if (running == NIL)
		return true;
	return list_length(running) < guc_max_concurrent_parts &&
		   (file->data == NULL || upload_pool_ready(files->pool));
}

/* Those of "list", each followed by its next ones. */
static void
complete_files(Files *files, const List *list)
{
	List     *ready = list_copy(list);
	List     *running = NIL;
	File     *failed = NULL;
	ListCell *cell;
	int       next = 0;

	for (;;)
	{
		/* Whatever is done for one file drives the others too: they may be over by then. */
		bool moved = false;

		foreach (cell, running)
		{
			File *file = lfirst(cell);

			if (!upload_is_over(file->upload))
				continue;
			moved = true;
			running = foreach_delete_current(running, cell);
			if (upload_outcome(file->upload) == UPLOAD_IN_PLACE)
			{
				take_result(file);
				report_in_place(file);
				if (file->next != NULL)
					ready = lappend(ready, file->next);
			}
			else if (failed == NULL)
				failed = file;
		}
		while (failed == NULL && next < list_length(ready) &&
			   may_begin(files, list_nth(ready, next), running))
		{
			File *file = list_nth(ready, next++);

			moved = true;
			if (file->data != NULL)
				send_whole(file);
			upload_complete(file->upload);
			running = lappend(running, file);
		}
		if (running == NIL)
			break;
		http_drive(files->http, moved ? 0 : -1);
	}
	if (failed != NULL)
		upload_raise(failed->upload);
}

/* The length of what names a file's table. */
static size_t
table_len(const File *file)
{
	return strcspn(file->partition->folder, "/");
}

static bool
same_table(const File *a, const File *b)
{
	return table_len(a) == table_len(b) &&
		   strncmp(a->partition->folder, b->partition->folder, table_len(a)) == 0;
}

static int
compare_tables(const ListCell *a, const ListCell *b)
{
	const File *left = lfirst(a);
	const File *right = lfirst(b);
	size_t      left_len = table_len(left);
	size_t      right_len = table_len(right);
	int order = memcmp(left->partition->folder, right->partition->folder, Min(left_len, right_len));

	if (order == 0 && left_len != right_len)
		order = left_len < right_len ? -1 : 1;
	return order != 0 ? order : compare_names(a, b);
}

/*
 * Who reads a table's files in the order of their names must not meet one before
 * the files that precede it.  Returns the first of each table.
 */
static List *
chain_tables(const Files *files)
{
	List     *list = list_copy(files->list);
	List     *first = NIL;
	File     *previous = NULL;
	ListCell *cell;

	list_sort(list, compare_tables);
	foreach (cell, list)
	{
		File *file = lfirst(cell);

		if (previous != NULL && same_table(previous, file))
			previous->next = file;
		else
			first = lappend(first, file);
		previous = file;
	}
	return first;
}

void
files_complete(Files *files)
{
	files->completing = true;
	complete_files(files, files->objects);
	complete_files(files, files->options.named ? chain_tables(files) : files->list);
}

void
files_put_manifest(Files *files, const char *data, size_t len)
{
	File *manifest = files->manifest;

	manifest->data = data;
	manifest->len = len;
	complete_files(files, list_make1(manifest));
}

/* The deepest folder that has all files; of one file, its own URI. */
static char *
common_uri(const Files *files)
{
	const JobFile *first;
	size_t         len;

	if (files->list == NIL)
		return NULL;
	first = linitial(files->list);
	if (list_length(files->list) == 1)
		return pstrdup(first->uri);
	len = strlen(object_path_folder(first->uri));
	for (int i = 1; i < list_length(files->list); i++)
	{
		const JobFile *file = list_nth(files->list, i);

		while (strncmp(file->uri, first->uri, len) != 0)
			len = strlen(object_path_folder(pnstrdup(first->uri, len - 1)));
	}
	return pnstrdup(first->uri, len);
}

void
files_get_totals(const Files *files, JobTotals *totals)
{
	memset(totals, 0, sizeof(*totals));
	for (int i = 0; i < list_length(files->list); i++)
	{
		const JobFile *file = list_nth(files->list, i);

		totals->rows += file->rows;
		totals->bytes += file->bytes;
	}
	totals->files = list_length(files->list);
	totals->requests = upload_pool_attempts(files->pool);
	totals->uri = common_uri(files);
	totals->manifest_uri = files->manifest != NULL ? files->manifest->row.uri : NULL;
}

uint64
files_bytes_sent(const Files *files)
{
	uint64    bytes = upload_pool_bytes_sent(files->pool);
	ListCell *cell;

	foreach (cell, files->objects)
	{
		const File *object = lfirst(cell);

		if (upload_outcome(object->upload) == UPLOAD_IN_PLACE)
			bytes -= object->len;
	}
	return bytes;
}

/* ---- undoing ---- */

void
files_stop(Files *files, int timeout, int shutdown_timeout)
{
	ListCell *cell;

	upload_pool_stop(files->pool, timeout, shutdown_timeout);
	foreach (cell, files_list(files))
	{
		File *file = lfirst(cell);

		file->row.upload_id = upload_id(file->upload);
	}
}

List *
files_unrecorded(const Files *files)
{
	List     *unrecorded = NIL;
	List     *list = files_list(files);
	ListCell *cell;

	foreach (cell, list)
	{
		File *file = lfirst(cell);

		if (file->row.upload_id != NULL && !file->row.begun)
			unrecorded = lappend(unrecorded, file);
	}
	return unrecorded;
}

void
files_abort(Files *files)
{
	ListCell *cell;

	upload_pool_abort(files->pool);

	/* Some are in place of which nobody has asked since. */
	foreach (cell, files_in_place(files))
		take_result(lfirst(cell));
}

static List *
add_in_place(List *in_place, const List *list)
{
	ListCell *cell;

	foreach (cell, list)
	{
		File *file = lfirst(cell);

		if (upload_outcome(file->upload) == UPLOAD_IN_PLACE)
			in_place = lappend(in_place, file);
	}
	return in_place;
}

List *
files_in_place(const Files *files)
{
	return add_in_place(add_in_place(NIL, files->objects), files->list);
}

int
files_count_in_place(const Files *files)
{
	return list_length(add_in_place(NIL, files->list));
}

/* The numbers of files that have a row, are not in place, and have no upload any more. */
static List *
files_without_upload(const Files *files, bool in_doubt)
{
	List     *numbers = NIL;
	List     *list = files_list(files);
	ListCell *cell;

	foreach (cell, list)
	{
		const File   *file = lfirst(cell);
		UploadOutcome outcome = upload_outcome(file->upload);

		if (file->row.begun && outcome != UPLOAD_IN_PLACE && !upload_is_left(file->upload) &&
			(outcome == UPLOAD_IN_DOUBT) == in_doubt)
			numbers = lappend_int(numbers, file->row.number);
	}
	return numbers;
}

List *
files_aborted(const Files *files)
{
	return files_without_upload(files, false);
}

List *
files_in_doubt(const Files *files)
{
	return files_without_upload(files, true);
}

List *
files_left(const Files *files)
{
	List     *left = NIL;
	List     *list = files_list(files);
	ListCell *cell;

	foreach (cell, list)
	{
		File *file = lfirst(cell);

		if (upload_is_left(file->upload))
			left = lappend(left, file);
	}
	return left;
}

static const File *
first_in_doubt(const Files *files, int *count)
{
	const File *first = NULL;
	List       *list = files_list(files);
	ListCell   *cell;

	*count = 0;
	foreach (cell, list)
	{
		const File *file = lfirst(cell);

		if (upload_outcome(file->upload) != UPLOAD_IN_DOUBT)
			continue;
		if ((*count)++ == 0)
			first = file;
	}
	return first;
}

char *
files_describe(const Files *files)
{
	int            total = list_length(files->list);
	int            in_place = files_count_in_place(files);
	int            in_doubt;
	const File    *doubt = first_in_doubt(files, &in_doubt);
	StringInfoData buf;

	if (!files->completing)
		return NULL;
	initStringInfo(&buf);
	if (in_place == total && total == 1)
		appendStringInfo(&buf, "The file is in place: \"%s\".",
						 ((File *) linitial(files->list))->row.uri);
	else if (total > 1)
		appendStringInfo(&buf, "%d of the %d files are in place: see s3export.job_files.", in_place,
						 total);
	if (doubt == NULL)
		return buf.len > 0 ? buf.data : NULL;
	if (buf.len > 0)
		appendStringInfoString(&buf, "  ");
	if (in_doubt == 1)
		appendStringInfo(&buf,
						 "The object had been sent when this happened: it may or may not appear as "
						 "\"%s\".",
						 doubt->row.uri);
	else
		appendStringInfo(&buf,
						 "%d more had been sent when this happened: each may or may not appear.",
						 in_doubt);
	return buf.data;
}
