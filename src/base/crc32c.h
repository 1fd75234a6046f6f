/*-------------------------------------------------------------------------
 *
 * crc32c.h
 *	  CRCs of long data, and of two pieces put together.
 *
 * CRC-32C is what port/pg_crc32c.h computes, finished: that of no bytes is 0.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRC32C_H
#define CRC32C_H

/* The CRC of what has "crc" followed by the "len" bytes of "data". */
extern uint32 crc32c_append(uint32 crc, const void *data, size_t len);

/*
 * The CRC of what has "first" followed by "len" bytes that have "second".  Takes
 * time with the logarithm of "len".
 */
extern uint32 crc32c_join(uint32 first, uint32 second, uint64 len);

/* Joins two checksums as crc32c_join does, for gzip's CRC-32. */
extern uint32 crc32_join(uint32 first, uint32 second, uint64 len);

#endif /* CRC32C_H */
