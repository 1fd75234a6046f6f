/*-------------------------------------------------------------------------
 *
 * files.c
 *	  The files of an export: their names, which is open, which block goes where.
 *
 * A file that is open takes at least one part's buffer, so few are.  With
 * partitions, the one used longest ago is sealed to make room for another, and
 * rows of its value that come later go to a file of their own.  Rows sorted by
 * that value need one file each.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "lib/ilist.h"
#include "utils/hsearch.h"

#include "encoding.h"
#include "files.h"
#include "guc.h"
#include "names.h"
#include "path.h"
#include "upload.h"

/* However much memory there is: buffers are searched. */
#define MAX_OPEN 256

/* Of the manifest and of other objects. */
#define OBJECT_TYPE "application/json"

typedef struct Partition Partition;
typedef struct File      File;

struct File
{
	JobFile    row;
	Partition *partition;
	Upload    *upload;
	dlist_node node; /* of the open files */
	Files     *files;
	File      *next; /* to appear when this one has; NULL: none */

	/* of an object, the manifest too: all its bytes; NULL: they come in blocks */
	const char *data;
	size_t      len;
};

struct Partition
{
	const char *folder;      /* the hash table's key; NULL: there are no partitions */
	int         files;       /* so far */
	File       *open;        /* NULL: none */
	char       *description; /* NULL: none */
};

struct Files
{
	FilesOptions   options;
	MemoryContext  context;
	HttpClient    *http;
	UploadPool    *pool;
	StringInfoData header;

	HTAB      *partitions; /* NULL: there is one */
	Partition  whole;      /* that one */
	dlist_head open;       /* used last is first */
	int        nopen;
	int        max_open;

	List *objects;     /* of File, in the order in which they came */
	List *list;        /* of File, in the order of their numbers */
	File *manifest;    /* NULL: none */
	char *description; /* of the whole; NULL: none */
	bool  completing;
};

/* ---- names ---- */

static char *
expand(const FilesOptions *options, int part)
{
	PathFields fields = {
		.started = options->started,
		.job = options->label,
		.connector = options->connector->name,
		.part = part,
	};

	return path_expand(options->path, &fields);
}

static char *
checked_key(const FilesOptions *options, const char *path)
{
	const char *folder = options->connector->folder_path;
	char       *key = folder[0] ? psprintf("%s/%s", folder, path) : pstrdup(path);
	const char *wrong = names_check_key(key);

	if (wrong != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("cannot name a file of the export \"%s\"", key), errdetail("%s", wrong)));
	return key;
}

/* Of what has a name of its own in the path's folder. */
static char *
named_key(const FilesOptions *options, const char *name)
{
	return checked_key(options, psprintf("%s%s", path_folder(expand(options, 1)), name));
}

char *
files_key(const FilesOptions *options, const char *folder, int part)
{
	if (folder != NULL && options->named)
		return named_key(options, folder);
	if (folder != NULL)
		return checked_key(options, path_in_folder(expand(options, part), folder));
	return checked_key(options, expand(options, part));
}

char *
files_manifest_key(const FilesOptions *options)
{
	if (options->manifest_name != NULL)
		return named_key(options, options->manifest_name);
	return checked_key(options, path_of_manifest(expand(options, 1)));
}

/* ---- which file ---- */

static uint32
hash_folder(const void *key, Size size pg_attribute_unused())
{
	const char *folder = *(const char *const *) key;

	return hash_bytes((const unsigned char *) folder, (int) strlen(folder));
}

static int
compare_folders(const void *a, const void *b, Size size pg_attribute_unused())
{
	return strcmp(*(const char *const *) a, *(const char *const *) b);
}

static HTAB *
create_partitions(void)
{
	HASHCTL control = {
		.keysize = sizeof(const char *),
		.entrysize = sizeof(Partition),
		.hash = hash_folder,
		.match = compare_folders,
		.hcxt = CurrentMemoryContext,
	};

	return hash_create("s3export partitions", 256, &control,
					   HASH_ELEM | HASH_FUNCTION | HASH_COMPARE | HASH_CONTEXT);
}

static Partition *
find_partition(Files *files, const char *folder)
{
	Partition *partition = &files->whole;
	bool       found = true;

	if (folder != NULL)
		partition = hash_search(files->partitions, &folder, HASH_ENTER, &found);
	if (!found)
	{
		partition->folder = MemoryContextStrdup(files->context, folder);
		partition->files = 0;
		partition->open = NULL;
		partition->description = NULL;
	}
	return partition;
}

static void
upload_has_id(void *arg, const char *upload_id)
{
	File *file = arg;

	file->row.upload_id = upload_id;
	job_file_begin(file->files->options.job_id, &file->row);
}

static File *
create_file(Files *files, int number, char *key, const char *content_type)
{
	UploadOptions options = {
		.key = encoding_to_utf8(key),
		.fail_if_exists = number >= 0 && !files->options.overwrite,
		.content_type = content_type,
		.started = upload_has_id,
	};
	File *file = palloc0(sizeof(File));

	options.arg = file;
	file->files = files;
	file->upload = upload_begin(files->pool, &options);
	file->row.number = number;
	file->row.key = key;
	file->row.uri = connector_uri(files->options.connector, key);
	file->row.token = upload_token(file->upload);
	return file;
}

static void
seal(File *file, bool may_put)
{
	file->partition->open = NULL;
	dlist_delete(&file->node);
	file->files->nopen--;
	upload_seal(file->upload, may_put);
}

static void
refuse_more(const Files *files)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("the export would have more than %d files", FILES_MAX),
			 files->options.partitioned
				 ? errhint("Sort the query by the column of \"partition_by\", so that each of its "
						   "values needs one file, or export fewer values at once.")
				 : errhint("Use a larger \"max_file_size\" or \"max_rows_per_file\".")));
}

static File *
begin_file(Files *files, Partition *partition)
{
	MemoryContext old = MemoryContextSwitchTo(files->context);
	int           number = list_length(files->list) + 1;
	File         *file;

	if (number > FILES_MAX)
		refuse_more(files);
	if (files->nopen == files->max_open)
		seal(dlist_container(File, node, dlist_tail_node(&files->open)), false);
	file = create_file(files, number,
					   files_key(&files->options, partition->folder, ++partition->files),
					   files->options.content_type);
	file->partition = partition;
	partition->open = file;
	dlist_push_head(&files->open, &file->node);
	files->nopen++;
	files->list = lappend(files->list, file);
	if (number == 1 || !files->options.header_once)
		upload_write(file->upload, files->header.data, files->header.len);
	MemoryContextSwitchTo(old);
	return file;
}

static bool
has_room(const File *file, const PipeBlock *block)
{
	const FilesOptions *options = &file->files->options;

	if (file->row.rows == 0)
		return true;
	if (options->max_rows > 0 && file->row.rows + block->rows > options->max_rows)
		return false;
	return options->max_size == 0 ||
		   upload_bytes_written(file->upload) + block->len <= options->max_size;
}

void
files_put(Files *files, const PipeBlock *block)
{
	Partition *partition = find_partition(files, block->folder);
	File      *file = partition->open;

	if (file != NULL && !has_room(file, block))
	{
		seal(file, false);
		file = NULL;
	}
	if (file == NULL)
		file = begin_file(files, partition);
	dlist_move_head(&files->open, &file->node);
	upload_write(file->upload, block->data, block->len);
	file->row.rows += block->rows;
}

void
files_end(Files *files, const char *folder)
{
	Partition *partition = find_partition(files, folder);

	if (partition->open != NULL)
		seal(partition->open, false);
}

void
files_add_object(Files *files, const PipeBlock *block)
{
	MemoryContext old = MemoryContextSwitchTo(files->context);
	File         *object = create_file(files, -1 - list_length(files->objects),
									   named_key(&files->options, block->folder), OBJECT_TYPE);

	object->data = pnstrdup(block->data, block->len);
	object->len = block->len;
	object->row.bytes = block->len;
	files->objects = lappend(files->objects, object);
	MemoryContextSwitchTo(old);
}

void
files_add_description(Files *files, const PipeBlock *block)
{
	char **description = &files->description;

	if (block->folder != NULL)
	{
		Partition *partition = hash_search(files->partitions, &block->folder, HASH_FIND, NULL);

		if (partition == NULL)
			elog(ERROR, "there is no file \"%s\" to be described", block->folder);
		description = &partition->description;
	}
	if (*description != NULL)
		pfree(*description);
	*description = MemoryContextAlloc(files->context, block->len + 1);
	memcpy(*description, block->data, block->len);
	(*description)[block->len] = '\0';
}

void
files_put_nothing(Files *files, const char *data, size_t len)
{
	if (files->header.len == 0)
		files_add_header(files, data, len);
	(void) begin_file(files, &files->whole);
}

void
files_add_header(Files *files, const char *data, size_t len)
{
	appendBinaryStringInfo(&files->header, data, (int) len);
}

bool
files_ready(Files *files)
{
	return upload_pool_ready(files->pool);
}

/* ---- the end ---- */

/* One file that fits one part needs no more than one request. */
void
files_seal(Files *files)
{
	bool alone = list_length(files->list) == 1;

	while (!dlist_is_empty(&files->open))
		seal(dlist_container(File, node, dlist_tail_node(&files->open)), alone);
	upload_pool_flush(files->pool);

	for (int i = 0; i < list_length(files->list); i++)
	{
		File *file = list_nth(files->list, i);

		file->row.bytes = upload_bytes_written(file->upload);
	}
}

void
files_announce_manifest(Files *files)
{
	MemoryContext old = MemoryContextSwitchTo(files->context);

	files->manifest = create_file(files, 0, files_manifest_key(&files->options), OBJECT_TYPE);
	MemoryContextSwitchTo(old);
}

List *
files_list(const Files *files)
{
	List *list = list_concat_copy(files->objects, files->list);

	return files->manifest != NULL ? lappend(list, files->manifest) : list;
}

int
files_count(const Files *files)
{
	return list_length(files->list);
}

/* By the last component of their names; what else they have in common is the same each time. */
static int
compare_names(const ListCell *a, const ListCell *b)
{
	const char *left = ((const File *) lfirst(a))->partition->folder;
	const char *right = ((const File *) lfirst(b))->partition->folder;
	int         order = strcmp(path_name(left), path_name(right));

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

const char *
files_folder(const JobFile *file)
{
	const Partition *partition = ((const File *) file)->partition;

	return partition != NULL ? partition->folder : NULL;
}

const char *
files_description(const JobFile *file)
{
	const Partition *partition = ((const File *) file)->partition;

	return partition != NULL ? partition->description : NULL;
}

const char *
files_whole_description(const Files *files)
{
	return files->description;
}

static void
part_is_sent(void *arg, size_t bytes)
{
	Progress *progress = arg;

	(void) pg_atomic_fetch_add_u64(&progress->bytes_sent, (int64) bytes);
	(void) pg_atomic_fetch_add_u32(&progress->parts, 1);
}

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
complete(Files *files, const List *list)
{
	List     *ready = list_copy(list);
	List     *running = NIL;
	File     *failed = NULL;
	ListCell *cell;
	int       next = 0;

	for (;;)
	{
		foreach (cell, running)
		{
			File *file = lfirst(cell);

			if (!upload_is_over(file->upload))
				continue;
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

			if (file->data != NULL)
				send_whole(file);
			upload_complete(file->upload);
			running = lappend(running, file);
		}
		if (running == NIL)
			break;
		http_drive(files->http, -1);
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
	complete(files, files->objects);
	complete(files, files->options.named ? chain_tables(files) : files->list);
}

void
files_put_manifest(Files *files, const char *data, size_t len)
{
	File *manifest = files->manifest;

	manifest->data = data;
	manifest->len = len;
	complete(files, list_make1(manifest));
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
	len = strlen(path_folder(first->uri));
	for (int i = 1; i < list_length(files->list); i++)
	{
		const JobFile *file = list_nth(files->list, i);

		while (strncmp(file->uri, first->uri, len) != 0)
			len = strlen(path_folder(pnstrdup(first->uri, len - 1)));
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
	totals->attempts = upload_pool_attempts(files->pool);
	totals->uri = common_uri(files);
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
files_abort(Files *files, int timeout)
{
	ListCell *cell;

	upload_pool_abort(files->pool, timeout);

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
	int            doubtful;
	const File    *doubt = first_in_doubt(files, &doubtful);
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
	if (doubtful == 1)
		appendStringInfo(&buf,
						 "The object had been sent when this happened: it may or may not appear as "
						 "\"%s\".",
						 doubt->row.uri);
	else
		appendStringInfo(&buf,
						 "%d more had been sent when this happened: each may or may not appear.",
						 doubtful);
	return buf.data;
}

/* ---- opening ---- */

/* Half of the memory is for the part that each of them fills, half for parts in flight. */
int
files_max_open(void)
{
	return (int) Min((size_t) guc_upload_memory * 1024 / 2 / UPLOAD_MIN_PART, MAX_OPEN);
}

static void
choose_limits(const FilesOptions *options, UploadLimits *limits)
{
	limits->memory = (size_t) guc_upload_memory * 1024;
	limits->part_size = (size_t) guc_part_size * 1024;
	limits->max_concurrent_parts = guc_max_concurrent_parts;
	limits->max_open = 1;
	limits->part_sent = part_is_sent;
	limits->arg = options->progress;
	if (options->partitioned)
	{
		limits->part_size = UPLOAD_MIN_PART;
		limits->max_open = options->max_open > 0 ? options->max_open : files_max_open();
		limits->memory = Max(limits->memory, (size_t) limits->max_open * 2 * UPLOAD_MIN_PART);
	}
	else if (options->max_size > 0)
		limits->part_size = Min(limits->part_size, Max(options->max_size, UPLOAD_MIN_PART));
}

Files *
files_open(const FilesOptions *options, S3Session *s3)
{
	Files       *files = palloc0(sizeof(Files));
	UploadLimits limits;

	choose_limits(options, &limits);
	files->options = *options;
	files->context = CurrentMemoryContext;
	files->http = s3_http(s3);
	files->pool = upload_pool_open(s3, &limits);
	files->max_open = limits.max_open;
	dlist_init(&files->open);
	initStringInfo(&files->header);
	if (options->partitioned)
		files->partitions = create_partitions();
	return files;
}
