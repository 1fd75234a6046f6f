/*-------------------------------------------------------------------------
 *
 * compress_internal.h
 *	  What those who make pieces and those who join them have to agree about.
 *
 *-------------------------------------------------------------------------
 */
#ifndef COMPRESS_INTERNAL_H
#define COMPRESS_INTERNAL_H

#include "format/compress.h"

/* What a piece begins with, unaligned. */
typedef struct PieceHead
{
	uint64 len;         /* of the CSV */
	uint32 crc;         /* of that, as gzip computes it; of gzip alone */
	uint32 independent; /* of the pieces before */
} PieceHead;

/*
 * The window of each zstd frame: 1 MiB, so that a high level takes no more memory
 * here, nor where files are read.  A frame's header is that of RFC 8878 3.1.1.1
 * with a window descriptor alone.
 */
#define COMPRESS_ZSTD_WINDOW_LOG 20
#define COMPRESS_ZSTD_HEADER 6

#endif /* COMPRESS_INTERNAL_H */
