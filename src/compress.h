/*-------------------------------------------------------------------------
 *
 * compress.h
 *	  Blocks of CSV as gzip members, zstd frames or lz4 frames.
 *
 * Each block becomes members or frames of its own, which depend on nothing
 * before them: several processes compress blocks of one object side by side,
 * in whatever order they are put together.  RFC 1952 (gzip), RFC 8878 (zstd)
 * and the LZ4 frame format all define a sequence of them as one stream.
 *
 * Each method needs a library that a build may lack.
 *
 *-------------------------------------------------------------------------
 */
#ifndef COMPRESS_H
#define COMPRESS_H

#include "lib/stringinfo.h"

/* Bytes of CSV to give at once: smaller blocks compress worse. */
#define COMPRESS_BLOCK_SIZE (1024 * 1024)

typedef enum CompressMethod
{
	COMPRESS_NONE,
	COMPRESS_GZIP,
	COMPRESS_ZSTD,
	COMPRESS_LZ4
} CompressMethod;

/* Flat: it may be copied to other processes as it is. */
typedef struct CompressOptions
{
	CompressMethod method;
	int            level;
} CompressOptions;

/*
 * What the arguments "compression" and "compression_level" of SQL ask for; NULL
 * means "not given".  Without a method, the extension of "path" decides
 * (NULL: there is none).  Raises errors about unknown methods, about levels
 * that the method does not have, and about methods that this build lacks.
 */
extern void
compress_options(CompressOptions *options, const char *method, const int *level, const char *path);

/* As the argument "compression" names it. */
extern const char *compress_name(CompressMethod method);

/* What names of compressed files end with: ".gz"; "" for COMPRESS_NONE. */
extern const char *compress_suffix(CompressMethod method);

/* The media type of a compressed file; "text/csv" for COMPRESS_NONE. */
extern const char *compress_content_type(CompressMethod method);

/* Appends the methods of this build, with the versions of their libraries. */
extern void compress_describe(StringInfo buf);

typedef struct Compressor Compressor;

/*
 * It and all it uses belong to the current memory context.  The method is not
 * COMPRESS_NONE.
 */
extern Compressor *compress_open(const CompressOptions *options);

/*
 * Compresses "data", which may be empty.  *out is valid until the next call.
 * Raises errors; after one the Compressor is of no more use.
 */
extern void compress_block(Compressor *compressor, const char *data, size_t len, const char **out,
						   size_t *out_len);

#endif /* COMPRESS_H */
