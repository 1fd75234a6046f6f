/*-------------------------------------------------------------------------
 *
 * encoding.h
 *	  Text of the database as S3 wants it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENCODING_H
#define ENCODING_H

/* In UTF-8, within a transaction or without one; palloc'd, or "text" itself. */
extern char *encoding_to_utf8(const char *text);

#endif /* ENCODING_H */
