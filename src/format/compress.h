/*-------------------------------------------------------------------------
 *
 * compress.h
 *	  Pieces of CSV, compressed with gzip, zstd or lz4.
 *
 * Several processes compress pieces of one file side by side; the uploader makes
 * the file of them.  Pieces of gzip and lz4 depend on nothing
 * before them.  One of zstd depends on the pieces that the same Compressor has
 * made before, back to the last compress_restart, and follows them in the file.
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

/* The method's name in the argument "compression". */
extern const char *compress_name(CompressMethod method);

/* What names of compressed files end with: ".gz"; "" for COMPRESS_NONE. */
extern const char *compress_suffix(CompressMethod method);

/* The media type of a compressed file; "text/csv" for COMPRESS_NONE. */
extern const char *compress_content_type(CompressMethod method);

/* Appends the methods of this build, with the versions of their libraries. */
extern void compress_describe(StringInfo buf);

typedef struct Compressor Compressor;

/* Do pieces depend on those before them? */
extern bool compress_depends_on_before(CompressMethod method);

/*
 * Opens a Compressor, which belongs to the current memory context.  The method is not COMPRESS_NONE.
 * The functions below raise errors; after one the Compressor is of no more use.
 */
extern Compressor *compress_open(const CompressOptions *options);
extern void        compress_close(Compressor *compressor);

/* Compresses more of the piece. */
extern void compress_add(Compressor *compressor, const char *data, size_t len);

/* The size of the piece so far: bytes of CSV that were added, and bytes that the piece takes. */
extern uint64 compress_added(const Compressor *compressor);
extern size_t compress_size(const Compressor *compressor);

/* The most by which "len" bytes of CSV make it larger. */
extern size_t compress_bound(const Compressor *compressor, size_t len);

/* Ends the piece, which is valid until the next call; the next one begins. */
extern void compress_take(Compressor *compressor, const char **piece, size_t *len);

/* Lets the next piece depend on nothing before it; called after compress_take. */
extern void compress_restart(Compressor *compressor);

/* ---- a file of pieces ---- */

/*
 * Many readers stop, without an error, at the end of the first gzip member or
 * frame.  So a file is one gzip member (RFC 1952), whose deflate blocks the
 * pieces bring; one LZ4 frame of independent blocks; or, of zstd (RFC 8878), one
 * frame for each run of pieces that depend on each other.  What is not compressed
 * becomes stored blocks, of which all three have some.
 */
typedef struct CompressFile
{
	CompressMethod method;
	uint64         len;    /* of the CSV */
	uint32         crc;    /* of it, for gzip */
	int            frames; /* begun */
	bool           used;   /* the last frame has a piece */
} CompressFile;

/* The most that a file has beside its header and pieces, where it has one piece; bytes */
#define COMPRESS_FILE_MAX 64

/*
 * Each of these appends to "buf" what is to be written to the file.  Where the
 * method is COMPRESS_NONE, a piece is CSV as it is.
 */
extern void compress_file_begin(CompressFile *file, CompressMethod method, StringInfo buf);

/* Puts CSV that is not compressed. */
extern void compress_file_store(CompressFile *file, const char *data, size_t len, StringInfo buf);

/*
 * Puts the piece that begins with these bytes, the head included, and may go on:
 * *data and *len become what is to be written after "buf".
 */
extern void compress_file_put(CompressFile *file, const char **data, size_t *len, StringInfo buf);

extern void compress_file_end(CompressFile *file, StringInfo buf);

/*
 * Where all of an ended file is in "buf": writes the length of the content into
 * the zstd frame, if there is only one.  Some readers take no other.
 */
extern void compress_file_set_length(const CompressFile *file, StringInfo buf);

#endif /* COMPRESS_H */
