/*-------------------------------------------------------------------------
 *
 * utf8.h
 *	  Text of the database as S3 wants it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef UTF8_H
#define UTF8_H

/* In UTF-8, within a transaction or without one; palloc'd, or "text" itself. */
extern char *utf8_from_database(const char *text);

#endif /* UTF8_H */
