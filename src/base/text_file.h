/*-------------------------------------------------------------------------
 *
 * text_file.h
 *	  Small files of others, read while requests are under way.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TEXT_FILE_H
#define TEXT_FILE_H

/*
 * The whole file as a string, palloc'd; it may hold a secret: see
 * text_file_free.  NULL with errno set when it could not be read, is not a
 * regular file (ENODEV), has a null byte (EILSEQ) or more than "max" bytes
 * (EFBIG).  Raises no error, and does not wait for whoever writes a pipe.
 */
extern char *text_file_read(const char *path, size_t max);

/* Overwrites the text, then frees it; NULL is allowed. */
extern void text_file_free(char *text);

#endif /* TEXT_FILE_H */
