/*-------------------------------------------------------------------------
 *
 * files.c
 *	  The files of an export: their names, which is open, which block goes where.
 *
 * A file is kept in memory until it fills a part, so that thousands of small ones
 * can be written to at the same time, and each needs one request at the end.  When
 * they take more memory than they may, the largest is sent and ended, as S3 takes
 * no part so small but the last.  A larger file is open: it takes a part's buffer,
 * so few are, and the one used longest ago is ended to make room for another.  Rows
 * of its partition that come later go to a file of their own.  Rows sorted by
 * partition need one file each.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"

#include "aws/aws_names.h"
#include "base/guc.h"
#include "base/object_path.h"
#include "tables/utf8.h"
#include "uploader/files_internal.h"

/* However much memory there is: buffers are searched. */
#define MAX_OPEN 256

/* Of the manifest and of other objects. */
#define OBJECT_TYPE "application/json"

/* ---- names ---- */

static char *
expand_path(const FilesOptions *options, int part)
{
	PathFields fields = {
		.started = options->started,
		.job = options->label,
		.connector = options->connector->name,
		.part = part,
	};

	return object_path_expand(options->path, &fields);
}

static char *
checked_key(const FilesOptions *options, const char *path)
{
	const char *folder = options->connector->folder_path;
	char       *key = folder[0] ? psprintf("%s/%s", folder, path) : pstrdup(path);
	const char *wrong = aws_names_check_key(key);

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
	return checked_key(options,
					   psprintf("%s%s", object_path_folder(expand_path(options, 1)), name));
}

char *
files_key(const FilesOptions *options, const char *folder, int part)
{
	if (folder != NULL && options->named)
		return named_key(options, folder);
	if (folder != NULL)
		return checked_key(options, object_path_in_folder(expand_path(options, part),
														  object_path_hive_place(folder)));
	return checked_key(options, expand_path(options, part));
}

char *
files_manifest_key(const FilesOptions *options)
{
	if (options->manifest_name != NULL)
		return named_key(options, options->manifest_name);
	return checked_key(options, object_path_of_manifest(expand_path(options, 1)));
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

bool
files_may_replace(const FilesOptions *options, const char *key)
{
	const Connector *connector = options->connector;

	return options->overwrite && (!OidIsValid(options->exporter) ||
								  job_was_exported_by(options->exporter, connector->s3.endpoint_url,
													  connector_uri(connector, key)));
}

static File *
create_file(Files *files, int number, char *key, const char *content_type)
{
	UploadOptions options = {
		.key = utf8_from_database(key),
		.fail_if_exists = number >= 0 && !files_may_replace(&files->options, key),
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

/* ---- bytes ---- */

static void
check_hash(bool ok)
{
	if (!ok)
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
						errmsg("could not compute the SHA-256 of a file")));
}

static void
begin_hash(File *file)
{
	file->hash = sigv4_hash_create();
	if (file->hash == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	check_hash(sigv4_hash_init(file->hash));
}

static void
end_hash(File *file)
{
	if (file->hash == NULL)
		return;
	check_hash(sigv4_hash_final(file->hash, file->sha256));
	sigv4_hash_free(file->hash);
	file->hash = NULL;
}

static void
send_bytes(File *file, const char *data, size_t len)
{
	if (file->hash != NULL)
		check_hash(sigv4_hash_update(file->hash, data, len));
	upload_write(file->upload, data, len);
}

static void
leave_memory(File *file)
{
	Files *files = file->files;

	if (files->options.checksums)
		begin_hash(file);
	send_bytes(file, file->bytes.data, file->bytes.len);
	dlist_delete(&file->node);
	files->kept -= file->bytes.maxlen;
	pfree(file->bytes.data);
	file->small = false;
}

static void
write_bytes(File *file, const char *data, size_t len)
{
	Files *files = file->files;

	if (!file->small)
	{
		send_bytes(file, data, len);
		return;
	}
	files->kept -= file->bytes.maxlen;
	appendBinaryStringInfo(&file->bytes, data, (int) len);
	files->kept += file->bytes.maxlen;
}

static uint64
bytes_of(const File *file)
{
	return file->small ? (uint64) file->bytes.len : upload_bytes_written(file->upload);
}

/* What the compressed file has besides its pieces. */
static void
write_frame(File *file, void (*append)(CompressFile *, StringInfo))
{
	StringInfoData buf;

	initStringInfo(&buf);
	append(&file->compressed, &buf);
	write_bytes(file, buf.data, buf.len);
	pfree(buf.data);
}

/* ---- ends ---- */

static void
end_file(File *file)
{
	if (file->ended)
		return;
	file->ended = true;
	file->partition->open = NULL;
	write_frame(file, compress_file_end);
}

static void
seal_file(File *file, bool may_put)
{
	end_file(file);
	if (file->small)
		return;
	dlist_delete(&file->node);
	file->files->nopen--;
	end_hash(file);
	upload_seal(file->upload, may_put);
}

static void
open_in_store(File *file)
{
	Files *files = file->files;

	if (files->nopen == files->max_open)
		seal_file(dlist_container(File, node, dlist_tail_node(&files->open)), false);
	leave_memory(file);
	dlist_push_head(&files->open, &file->node);
	files->nopen++;
}

/* An ended one costs no second file of its partition. */
static File *
to_leave_memory(Files *files)
{
	File      *found = NULL;
	dlist_iter iter;

	dlist_foreach (iter, &files->small)
	{
		File *file = dlist_container(File, node, iter.cur);

		if (file == files->current && !file->ended)
			continue;
		if (found == NULL || file->ended > found->ended ||
			(file->ended == found->ended && file->bytes.len > found->bytes.len))
			found = file;
	}
	return found;
}

/* What has a name of its own can have one file alone, which goes on. */
static void
free_memory(Files *files)
{
	File *file;

	while (files->kept > files->may_keep && (file = to_leave_memory(files)) != NULL)
	{
		if (!files->options.named)
			end_file(file);
		if (!file->ended)
		{
			open_in_store(file);
			continue;
		}
		leave_memory(file);
		end_hash(file);
		upload_seal(file->upload, false);
	}
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

static void
begin_bytes(File *file, bool header)
{
	const StringInfoData *line = &file->files->header;
	StringInfoData        buf;

	initStringInfo(&buf);
	compress_file_begin(&file->compressed, file->files->options.compression, &buf);
	if (header)
		compress_file_store(&file->compressed, line->data, line->len, &buf);
	write_bytes(file, buf.data, buf.len);
	pfree(buf.data);
}

/* The files of a folder are numbered together, whatever partitions they are of. */
static int
next_part(Files *files, Partition *partition)
{
	const char *folder = partition->folder;

	if (folder != NULL && !files->options.named)
		partition = find_partition(files, object_path_hive_place(folder));
	return ++partition->files;
}

/* A file begins small, in memory, and is sent in parts only when it outgrows that. */
static File *
begin_file(Files *files, Partition *partition)
{
	MemoryContext old = MemoryContextSwitchTo(files->context);
	int           number = list_length(files->list) + 1;
	File         *file;

	if (number > FILES_MAX)
		refuse_more(files);
	file = create_file(files, number,
					   files_key(&files->options, partition->folder, next_part(files, partition)),
					   compress_content_type(files->options.compression));
	file->partition = partition;
	file->small = true;
	initStringInfo(&file->bytes);
	files->kept += file->bytes.maxlen;
	dlist_push_head(&files->small, &file->node);
	partition->open = file;
	files->list = lappend(files->list, file);
	begin_bytes(file, number == 1 || !files->options.header_once);
	MemoryContextSwitchTo(old);
	return file;
}

static bool
has_room(const File *file, const PipeBlock *block)
{
	const FilesOptions *options = &file->files->options;

	if (file->row.rows == 0)
		return true;
	if (options->max_rows_per_file > 0 && file->row.rows + block->rows > options->max_rows_per_file)
		return false;
	return options->max_file_size == 0 ||
		   bytes_of(file) + block->whole + COMPRESS_FILE_MAX <= options->max_file_size;
}

static void
put_rows(File *file, const PipeBlock *block)
{
	const char    *data = block->data;
	size_t         len = block->len;
	StringInfoData buf;

	initStringInfo(&buf);
	compress_file_put(&file->compressed, &data, &len, &buf);
	write_bytes(file, buf.data, buf.len);
	write_bytes(file, data, len);
	pfree(buf.data);
	file->row.rows += block->rows;
}

static void
keep_limits(File *file)
{
	Files *files = file->files;

	if (!file->small)
		dlist_move_head(&files->open, &file->node);
	else if (bytes_of(file) >= UPLOAD_MIN_PART)
		open_in_store(file);
	free_memory(files);
}

void
files_put(Files *files, const PipeBlock *block)
{
	Partition *partition = find_partition(files, block->folder);
	File      *file = partition->open;

	if (file != NULL && !has_room(file, block))
	{
		seal_file(file, false);
		file = NULL;
	}
	if (file == NULL)
		file = begin_file(files, partition);
	files->current = file;
	put_rows(file, block);
	keep_limits(file);
}

void
files_put_more(Files *files, const PipeBlock *block)
{
	write_bytes(files->current, block->data, block->len);
	keep_limits(files->current);
}

void
files_end(Files *files, const char *folder)
{
	Partition *partition = find_partition(files, folder);

	if (partition->open != NULL)
		seal_file(partition->open, false);
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
files_put_nothing(Files *files)
{
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

/* It is sent by one request when it is to appear. */
static void
keep_whole(File *file)
{
	compress_file_set_length(&file->compressed, &file->bytes);
	file->data = file->bytes.data;
	file->len = file->bytes.len;
	if (file->files->options.checksums)
		check_hash(sigv4_sha256(file->data, file->len, file->sha256));
}

/* One file that fits one part needs no more than one request. */
void
files_seal(Files *files)
{
	bool alone = list_length(files->list) == 1;

	while (!dlist_is_empty(&files->open))
		seal_file(dlist_container(File, node, dlist_tail_node(&files->open)), alone);
	upload_pool_flush(files->pool);

	for (int i = 0; i < list_length(files->list); i++)
	{
		File *file = list_nth(files->list, i);

		end_file(file);
		if (file->small)
			keep_whole(file);
		file->row.bytes = bytes_of(file);
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

const char *
files_folder(const JobFile *file)
{
	const Partition *partition = ((const File *) file)->partition;

	return partition != NULL ? partition->folder : NULL;
}

const char *
files_sha256(const JobFile *file)
{
	return ((const File *) file)->sha256;
}

uint64
files_csv_bytes(const JobFile *file)
{
	const CompressFile *compressed = &((const File *) file)->compressed;

	return compressed->method == COMPRESS_NONE ? file->bytes : compressed->len;
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

/* ---- opening ---- */

static void
part_is_sent(void *arg, size_t bytes)
{
	Progress *progress = arg;

	(void) pg_atomic_fetch_add_u64(&progress->bytes_sent, (int64) bytes);
	(void) pg_atomic_fetch_add_u32(&progress->parts, 1);
}

/* Each takes the part that it fills, and as much is for parts in flight. */
static int
max_open(size_t memory)
{
	return Max((int) Min(memory / 2 / UPLOAD_MIN_PART, MAX_OPEN), 1);
}

int
files_max_open(void)
{
	return max_open((size_t) guc_upload_memory * 1024);
}

/* What open files leave of the memory is for small ones, or else what one of them may take. */
static void
choose_limits(Files *files, UploadLimits *limits)
{
	const FilesOptions *options = &files->options;

	limits->memory = (size_t) guc_upload_memory * 1024;
	limits->part_size = (size_t) guc_part_size * 1024;
	limits->max_concurrent_parts = guc_max_concurrent_parts;
	limits->max_open = 1;
	limits->part_sent = part_is_sent;
	limits->arg = options->progress;
	files->may_keep = UPLOAD_MIN_PART;
	if (options->partitioned)
	{
		size_t memory = limits->memory;

		limits->part_size = UPLOAD_MIN_PART;
		limits->max_open = options->max_open > 0 ? options->max_open : max_open(memory / 2);
		limits->memory = (size_t) limits->max_open * 2 * UPLOAD_MIN_PART;
		files->may_keep = memory > limits->memory ? memory - limits->memory : 0;
	}
	else if (options->max_file_size > 0)
		limits->part_size = Min(limits->part_size, Max(options->max_file_size, UPLOAD_MIN_PART));
	files->max_open = limits->max_open;
}

Files *
files_open(const FilesOptions *options, S3Session *s3)
{
	Files       *files = palloc0(sizeof(Files));
	UploadLimits limits;

	files->options = *options;
	choose_limits(files, &limits);
	files->context = CurrentMemoryContext;
	files->http = s3_http(s3);
	files->pool = upload_pool_open(s3, &limits);
	dlist_init(&files->small);
	dlist_init(&files->open);
	initStringInfo(&files->header);
	if (options->partitioned)
		files->partitions = create_partitions();
	return files;
}
