/*-------------------------------------------------------------------------
 *
 * compress.c
 *	  Pieces of CSV, compressed with gzip, zstd or lz4.
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

#include "format/compress_internal.h"

/*
 * What the library is given at once, in bytes.  A row larger than a block is
 * compressed in several turns, so that a cancel does not wait for all of it.
 */
#define TURN_SIZE COMPRESS_BLOCK_SIZE

typedef struct CompressCodec
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

	/* What follows depends on nothing before; NULL: nothing ever does. */
	void (*restart)(Compressor *compressor);
} CompressCodec;

struct Compressor
{
	const CompressCodec  *method;
	int                   level;
	MemoryContext         context;
	MemoryContextCallback callback;
	void                 *state;     /* the library's */
	bool                  restarted; /* nothing has been compressed since */
	PieceHead             head;      /* of the piece that is being made */
	char                 *piece;     /* "used" bytes, of which the first are for the head */
	size_t                used;
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

/*
 * The "stateless" compressor stores what does not become smaller.  The flush is an
 * empty stored block, and some bits more.
 */
static size_t
gzip_bound(size_t len)
{
	return len + (len / STORED_BLOCK + 3) * STORED_BLOCK_HEADER;
}

/*
 * Each call makes blocks that end at a byte, so that they can be joined into one member.  The
 * uploader writes the member's head and its CRC.
 */
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
	stream->gzip_flag = IGZIP_DEFLATE;
	stream->flush = FULL_FLUSH;
	stream->next_in = (uint8 *) unconstify(char *, data);
	stream->avail_in = (uint32) len;
	stream->next_out = (uint8 *) out;
	stream->avail_out = (uint32) room;
	result = isal_deflate_stateless(stream);
	if (result != COMP_OK || stream->avail_in != 0)
		raise_failure(compressor, psprintf("isa-l's error %d", result));
	compressor->head.crc = crc32_gzip_refl(compressor->head.crc, (const unsigned char *) data, len);
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
zstd_set(Compressor *compressor, ZSTD_cParameter parameter, int value)
{
	(void) zstd_check(compressor,
					  ZSTD_CCtx_setParameter((ZSTD_CCtx *) compressor->state, parameter, value));
}

static void
zstd_restart(Compressor *compressor)
{
	(void) zstd_check(compressor,
					  ZSTD_CCtx_reset((ZSTD_CCtx *) compressor->state, ZSTD_reset_session_only));
}

/* A frame does not say how long its content is, as that is not known when the frame begins. */
static void
zstd_open(Compressor *compressor)
{
	ZSTD_CCtx *context = ZSTD_createCCtx();

	/* What the library itself takes for the first levels; 0 means 3. */
	bool fast = compressor->level < 0 || compressor->level == 1;

	if (context == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	compressor->state = context;
	compressor->callback.func = zstd_close;
	compressor->callback.arg = context;
	MemoryContextRegisterResetCallback(compressor->context, &compressor->callback);

	zstd_set(compressor, ZSTD_c_compressionLevel, compressor->level);
	zstd_set(compressor, ZSTD_c_windowLog,
			 fast ? COMPRESS_ZSTD_WINDOW_LOG - 1 : COMPRESS_ZSTD_WINDOW_LOG);
	zstd_set(compressor, ZSTD_c_contentSizeFlag, 0);
	zstd_restart(compressor);
}

static size_t
zstd_bound(size_t len)
{
	return ZSTD_compressBound(len) + COMPRESS_ZSTD_HEADER;
}

/* What the library begins a frame with is left out. */
static size_t
zstd_compress(Compressor *compressor, const char *data, size_t len, char *out, size_t room)
{
	ZSTD_inBuffer  input = {.src = data, .size = len};
	ZSTD_outBuffer output = {.dst = out, .size = room};
	size_t         rest;

	do
	{
		rest = zstd_check(compressor, ZSTD_compressStream2((ZSTD_CCtx *) compressor->state, &output,
														   &input, ZSTD_e_flush));
	} while (rest > 0 && output.pos < output.size);
	if (rest > 0)
		raise_failure(compressor, "its output is larger than it says");
	if (!compressor->restarted)
		return output.pos;
	memmove(out, out + COMPRESS_ZSTD_HEADER, output.pos - COMPRESS_ZSTD_HEADER);
	return output.pos - COMPRESS_ZSTD_HEADER;
}

#endif

/* ---- lz4 ---- */

#ifdef S3EXPORT_HAVE_LIBLZ4

/*
 * Blocks of one frame do not depend on each other, and each call makes whole
 * ones.  No checksum of the content: unlike those of the other methods it costs
 * a quarter of the speed, and S3 checks what it is sent by checksums of its own.
 */
static LZ4F_preferences_t
lz4_preferences(int level)
{
	LZ4F_preferences_t preferences;

	memset(&preferences, 0, sizeof(preferences));
	preferences.frameInfo.blockSizeID = LZ4F_max1MB;
	preferences.frameInfo.blockMode = LZ4F_blockIndependent;
	preferences.compressionLevel = level;
	preferences.autoFlush = 1;
	return preferences;
}

static size_t
lz4_check(Compressor *compressor, size_t result)
{
	if (LZ4F_isError(result))
		raise_failure(compressor, LZ4F_getErrorName(result));
	return result;
}

static void
lz4_close(void *arg)
{
	(void) LZ4F_freeCompressionContext((LZ4F_cctx *) arg);
}

/* The frame that the library thinks it makes never ends, and its head is not used. */
static void
lz4_open(Compressor *compressor)
{
	LZ4F_preferences_t preferences = lz4_preferences(compressor->level);
	char               start[LZ4F_HEADER_SIZE_MAX];
	LZ4F_cctx         *context;

	(void) lz4_check(compressor, LZ4F_createCompressionContext(&context, LZ4F_VERSION));
	compressor->state = context;
	compressor->callback.func = lz4_close;
	compressor->callback.arg = context;
	MemoryContextRegisterResetCallback(compressor->context, &compressor->callback);
	(void) lz4_check(compressor, LZ4F_compressBegin(context, start, sizeof(start), &preferences));
}

static size_t
lz4_bound(size_t len)
{
	LZ4F_preferences_t preferences = lz4_preferences(0);

	return LZ4F_compressBound(len, &preferences);
}

static size_t
lz4_compress(Compressor *compressor, const char *data, size_t len, char *out, size_t room)
{
	return lz4_check(compressor, LZ4F_compressUpdate((LZ4F_cctx *) compressor->state, out, room,
													 data, len, NULL));
}

#endif

/* ---- all methods ---- */

static const CompressCodec methods[] = {
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
					   .bound = zstd_bound,
					   .compress = zstd_compress,
					   .restart = zstd_restart
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
					  .open = lz4_open,
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
check_level(const CompressCodec *method, int level)
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
	const CompressCodec *method;

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

bool
compress_depends_on_before(CompressMethod method)
{
	return methods[method].restart != NULL;
}

static void
begin_piece(Compressor *compressor)
{
	compressor->head = (PieceHead){.independent = compressor->restarted};
	compressor->used = sizeof(PieceHead);
}

Compressor *
compress_open(const CompressOptions *options)
{
	MemoryContext context =
		AllocSetContextCreate(CurrentMemoryContext, "s3export compressor", ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Compressor   *compressor = palloc0(sizeof(Compressor));

	compressor->method = &methods[options->method];
	compressor->level = options->level;
	compressor->context = context;
	compressor->method->open(compressor);
	compressor->restarted = true;
	begin_piece(compressor);
	MemoryContextSwitchTo(old);
	return compressor;
}

void
compress_close(Compressor *compressor)
{
	MemoryContextDelete(compressor->context);
}

static void
make_room(Compressor *compressor, size_t needed)
{
	if (needed <= compressor->allocated)
		return;
	if (compressor->piece == NULL)
		compressor->piece = MemoryContextAllocHuge(compressor->context, needed);
	else
	{
		needed = Max(needed, compressor->allocated * 2);
		compressor->piece = repalloc_huge(compressor->piece, needed);
	}
	compressor->allocated = needed;
}

void
compress_add(Compressor *compressor, const char *data, size_t len)
{
	const CompressCodec *method = compressor->method;

	while (len > 0)
	{
		size_t turn = Min(len, TURN_SIZE);
		size_t bound = method->bound(turn);

		make_room(compressor, compressor->used + bound);
		compressor->used +=
			method->compress(compressor, data, turn, compressor->piece + compressor->used, bound);
		compressor->restarted = false;
		compressor->head.len += turn;
		data += turn;
		len -= turn;
		CHECK_FOR_INTERRUPTS();
	}
}

uint64
compress_added(const Compressor *compressor)
{
	return compressor->head.len;
}

size_t
compress_size(const Compressor *compressor)
{
	return compressor->used;
}

size_t
compress_bound(const Compressor *compressor, size_t len)
{
	return compressor->method->bound(len);
}

void
compress_take(Compressor *compressor, const char **piece, size_t *len)
{
	make_room(compressor, sizeof(PieceHead));
	memcpy(compressor->piece, &compressor->head, sizeof(PieceHead));
	*piece = compressor->piece;
	*len = compressor->used;
	begin_piece(compressor);
}

void
compress_restart(Compressor *compressor)
{
	Assert(compressor->head.len == 0);
	if (compressor->method->restart != NULL)
		compressor->method->restart(compressor);
	compressor->restarted = true;
	begin_piece(compressor);
}
