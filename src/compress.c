/*-------------------------------------------------------------------------
 *
 * compress.c
 *	  Blocks of CSV as gzip members, zstd frames or lz4 frames.
 *
 * Speed decides the defaults, as the query waits for the compressor.  Levels
 * are what the libraries have; their limits are written down here so that an
 * argument is right or wrong whatever a build has.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#ifdef S3EXPORT_HAVE_LIBISAL
#include <isa-l.h>
#endif
#ifdef S3EXPORT_HAVE_LIBLZ4
#include <lz4.h>
#include <lz4frame.h>
#endif
#ifdef S3EXPORT_HAVE_LIBZSTD
#include <zstd.h>
#endif

#include "miscadmin.h"
#include "utils/memutils.h"

#include "compress.h"

/*
 * What one member or frame holds at most, in bytes.  A row larger than a block
 * becomes several, so that memory grows with what it is compressed to, and a
 * cancel does not wait for all of it.
 */
#define MEMBER_SIZE COMPRESS_BLOCK_SIZE

typedef struct Method
{
	const char *name;
	const char *suffix;
	const char *content_type;
	const char *library;
	int         min_level;
	int         max_level;
	int         default_level;

	/* NULL when the build lacks the library */
	const char *(*version)(void);
	void (*open)(Compressor *compressor);
	size_t (*bound)(size_t len);

	/* Compresses into "out", which has bound(len) bytes; returns how many it used. */
	size_t (*compress)(Compressor *compressor, const char *data, size_t len, char *out,
					   size_t room);
} Method;

struct Compressor
{
	const Method         *method;
	int                   level;
	MemoryContext         context;
	MemoryContextCallback callback;
	void                 *state; /* the library's */
	char                 *out;
	size_t                allocated;
};

static void
pg_attribute_unused() raise_failure(Compressor *compressor, const char *reason)
{
	ereport(ERROR, (errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
					errmsg("could not compress with %s: %s", compressor->method->name, reason)));
}

/* ---- gzip ---- */

#ifdef S3EXPORT_HAVE_LIBISAL

#define STORED_BLOCK 65535
#define STORED_BLOCK_HEADER 5
#define GZIP_WRAPPER (10 + 8)

static const char *
gzip_version(void)
{
	return psprintf("%d.%d.%d", ISAL_MAJOR_VERSION, ISAL_MINOR_VERSION, ISAL_PATCH_VERSION);
}

typedef struct GzipState
{
	struct isal_zstream stream;
	uint8              *buffer; /* what the level needs; NULL: nothing */
	uint32              buffer_size;
} GzipState;

static void
gzip_open(Compressor *compressor)
{
	static const uint32 buffer_sizes[] = {ISAL_DEF_LVL0_DEFAULT, ISAL_DEF_LVL1_DEFAULT,
										  ISAL_DEF_LVL2_DEFAULT, ISAL_DEF_LVL3_DEFAULT};
	/* The library does not set all of it, and limits the window by what it finds. */
	GzipState          *state = palloc0(sizeof(GzipState));

	state->buffer_size = buffer_sizes[compressor->level];
	state->buffer = state->buffer_size > 0 ? palloc(state->buffer_size) : NULL;
	compressor->state = state;
}

/* The "stateless" compressor stores what does not become smaller. */
static size_t
gzip_bound(size_t len)
{
	return len + (len / STORED_BLOCK + 1) * STORED_BLOCK_HEADER + GZIP_WRAPPER;
}

static size_t
gzip_compress(Compressor *compressor, const char *data, size_t len, char *out, size_t room)
{
	GzipState           *state = compressor->state;
	struct isal_zstream *stream = &state->stream;
	int                  result;

	/* Settings do not outlive a call: that a header is due, for one. */
	isal_deflate_stateless_init(stream);
	stream->level = compressor->level;
	stream->level_buf = state->buffer;
	stream->level_buf_size = state->buffer_size;
	stream->gzip_flag = IGZIP_GZIP;
	stream->end_of_stream = 1;
	stream->next_in = (uint8 *) unconstify(char *, data);
	stream->avail_in = (uint32) len;
	stream->next_out = (uint8 *) out;
	stream->avail_out = (uint32) room;
	result = isal_deflate_stateless(stream);
	if (result != COMP_OK || stream->avail_in != 0)
		raise_failure(compressor, psprintf("isa-l's error %d", result));
	return stream->total_out;
}

#endif

/* ---- zstd ---- */

#ifdef S3EXPORT_HAVE_LIBZSTD

static void
zstd_close(void *arg)
{
	ZSTD_freeCCtx((ZSTD_CCtx *) arg);
}

static size_t
zstd_check(Compressor *compressor, size_t result)
{
	if (ZSTD_isError(result))
		raise_failure(compressor, ZSTD_getErrorName(result));
	return result;
}

static void
zstd_open(Compressor *compressor)
{
	ZSTD_CCtx *context = ZSTD_createCCtx();

	if (context == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	compressor->state = context;
	compressor->callback.func = zstd_close;
	compressor->callback.arg = context;
	MemoryContextRegisterResetCallback(compressor->context, &compressor->callback);

	(void) zstd_check(compressor,
					  ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, compressor->level));
	(void) zstd_check(compressor, ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1));
}

static size_t
zstd_compress(Compressor *compressor, const char *data, size_t len, char *out, size_t room)
{
	return zstd_check(compressor,
					  ZSTD_compress2((ZSTD_CCtx *) compressor->state, out, room, data, len));
}

#endif

/* ---- lz4 ---- */

#ifdef S3EXPORT_HAVE_LIBLZ4

/*
 * No checksum of the content: unlike those of the other methods it costs a
 * quarter of the speed, and S3 checks what it is sent by checksums of its own.
 */
static LZ4F_preferences_t
lz4_preferences(int level)
{
	LZ4F_preferences_t preferences;

	memset(&preferences, 0, sizeof(preferences));
	preferences.frameInfo.blockSizeID = LZ4F_max1MB;
	preferences.compressionLevel = level;
	return preferences;
}

static size_t
lz4_bound(size_t len)
{
	LZ4F_preferences_t preferences = lz4_preferences(0);

	return LZ4F_compressFrameBound(len, &preferences);
}

/* Makes its state anew for each frame, which next to 1 MiB costs nothing. */
static size_t
lz4_compress(Compressor *compressor, const char *data, size_t len, char *out, size_t room)
{
	LZ4F_preferences_t preferences = lz4_preferences(compressor->level);
	size_t             result;

	preferences.frameInfo.contentSize = len;
	result = LZ4F_compressFrame(out, room, data, len, &preferences);
	if (LZ4F_isError(result))
		raise_failure(compressor, LZ4F_getErrorName(result));
	return result;
}

#endif

/* ---- all methods ---- */

static const Method methods[] = {
	[COMPRESS_NONE] = {.name = "none", .suffix = "", .content_type = "text/csv"},
	[COMPRESS_GZIP] = {.name = "gzip",
					   .suffix = ".gz",
					   .content_type = "application/gzip",
					   .library = "isa-l",
					   .min_level = 0,
					   .max_level = 3,
					   .default_level = 1,
#ifdef S3EXPORT_HAVE_LIBISAL
					   .version = gzip_version,
					   .open = gzip_open,
					   .bound = gzip_bound,
					   .compress = gzip_compress
#endif
	},
	[COMPRESS_ZSTD] = {.name = "zstd",
					   .suffix = ".zst",
					   .content_type = "application/zstd",
					   .library = "libzstd",
					   .min_level = -7,
					   .max_level = 22,
					   .default_level = 1,
#ifdef S3EXPORT_HAVE_LIBZSTD
					   .version = ZSTD_versionString,
					   .open = zstd_open,
					   .bound = ZSTD_compressBound,
					   .compress = zstd_compress
#endif
	},
	[COMPRESS_LZ4] = {.name = "lz4",
					  .suffix = ".lz4",
					  .content_type = "application/x-lz4",
					  .library = "liblz4",
					  .min_level = 0,
					  .max_level = 12,
					  .default_level = 0,
#ifdef S3EXPORT_HAVE_LIBLZ4
					  .version = LZ4_versionString,
					  .bound = lz4_bound,
					  .compress = lz4_compress
#endif
	},
};

static CompressMethod
method_of_name(const char *name)
{
	for (int i = 0; i < (int) lengthof(methods); i++)
		if (strcmp(name, methods[i].name) == 0)
			return (CompressMethod) i;
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("invalid value for argument \"compression\": \"%s\"", name),
					errdetail("It is \"none\", \"gzip\", \"zstd\" or \"lz4\".")));
}

static CompressMethod
method_of_path(const char *path)
{
	const char *extension = path != NULL ? strrchr(path, '.') : NULL;

	if (extension != NULL)
		for (int i = COMPRESS_NONE + 1; i < (int) lengthof(methods); i++)
			if (pg_strcasecmp(extension, methods[i].suffix) == 0)
				return (CompressMethod) i;
	return COMPRESS_NONE;
}

static void
check_level(const Method *method, int level)
{
	if (method == &methods[COMPRESS_NONE])
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("argument \"compression_level\" needs a compression method"),
						errhint("Use compression => 'gzip', 'zstd' or 'lz4', or a path that ends "
								"in \".gz\", \".zst\" or \".lz4\".")));
	if (level < method->min_level || level > method->max_level)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("invalid value for argument \"compression_level\": %d", level),
						errdetail("Levels of %s are %d to %d; the default is %d.", method->name,
								  method->min_level, method->max_level, method->default_level)));
}

void
compress_options(CompressOptions *options, const char *name, const int *level, const char *path)
{
	const Method *method;

	options->method = name != NULL ? method_of_name(name) : method_of_path(path);
	method = &methods[options->method];
	if (level != NULL)
		check_level(method, *level);
	options->level = level != NULL ? *level : method->default_level;

	if (options->method != COMPRESS_NONE && method->compress == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("compression method \"%s\" is not supported by this build of s3export",
						method->name),
				 errdetail("It was built without the library %s.", method->library),
				 errhint("Use another method, or install the library with its development "
						 "files and build s3export again.")));
}

const char *
compress_name(CompressMethod method)
{
	return methods[method].name;
}

const char *
compress_suffix(CompressMethod method)
{
	return methods[method].suffix;
}

const char *
compress_content_type(CompressMethod method)
{
	return methods[method].content_type;
}

void
compress_describe(StringInfo buf)
{
	for (int i = 0; i < (int) lengthof(methods); i++)
		if (methods[i].version != NULL)
			appendStringInfo(buf, ", %s (%s %s)", methods[i].name, methods[i].library,
							 methods[i].version());
}

Compressor *
compress_open(const CompressOptions *options)
{
	Compressor *compressor = palloc0(sizeof(Compressor));

	compressor->method = &methods[options->method];
	compressor->level = options->level;
	compressor->context = CurrentMemoryContext;
	if (compressor->method->open != NULL)
		compressor->method->open(compressor);
	return compressor;
}

static void
make_room(Compressor *compressor, size_t needed)
{
	if (needed <= compressor->allocated)
		return;
	if (compressor->out == NULL)
		compressor->out = MemoryContextAllocHuge(compressor->context, needed);
	else
	{
		needed = Max(needed, compressor->allocated * 2);
		compressor->out = repalloc_huge(compressor->out, needed);
	}
	compressor->allocated = needed;
}

void
compress_block(Compressor *compressor, const char *data, size_t len, const char **out,
			   size_t *out_len)
{
	const Method *method = compressor->method;
	size_t        used = 0;

	for (;;)
	{
		size_t part = Min(len, MEMBER_SIZE);
		size_t bound = method->bound(part);

		make_room(compressor, used + bound);
		used += method->compress(compressor, data, part, compressor->out + used, bound);
		data += part;
		len -= part;
		if (len == 0)
			break;
		CHECK_FOR_INTERRUPTS();
	}
	*out = compressor->out;
	*out_len = used;
}
