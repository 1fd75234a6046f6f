/*-------------------------------------------------------------------------
 *
 * text_file.c
 *	  Small files of others, read while requests are under way.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "storage/fd.h"

#include "base/text_file.h"

/* Returns the length, or -1. */
static ssize_t
read_all(int fd, char *buf, size_t size)
{
	size_t len = 0;

	while (len < size)
	{
		ssize_t n = read(fd, buf + len, size - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		if (n == 0)
			break;
		len += n;
	}
	return (ssize_t) len;
}

/*
 * One byte more than allowed is read, to tell a file that is too long.  The text may be a
 * secret, so it is wiped when it is refused.
 */
static char *
read_file(int fd, size_t max)
{
	struct stat status;
	char       *text;
	ssize_t     len;
	int         reason = 0;

	if (fstat(fd, &status) != 0)
		return NULL;
	if (!S_ISREG(status.st_mode))
	{
		errno = ENODEV;
		return NULL;
	}
	text = palloc0(max + 2);
	len = read_all(fd, text, max + 1);
	if (len < 0)
		reason = errno;
	else if ((size_t) len > max)
		reason = EFBIG;
	else if (memchr(text, '\0', len) != NULL)
		reason = EILSEQ;
	if (reason == 0)
		return text;

	explicit_bzero(text, max + 2);
	pfree(text);
	errno = reason;
	return NULL;
}

/*
 * Not by AllocateFile or OpenTransientFile, which raise an error when the
 * process has too many files of theirs open.
 */
char *
text_file_read(const char *path, size_t max)
{
	int   fd = BasicOpenFile(path, O_RDONLY | O_NONBLOCK | PG_BINARY);
	char *text;
	int   saved_errno;

	if (fd < 0)
		return NULL;
	text = read_file(fd, max);
	saved_errno = errno;
	close(fd);
	errno = saved_errno;
	return text;
}

void
text_file_free(char *text)
{
	if (text == NULL)
		return;
	explicit_bzero(text, strlen(text));
	pfree(text);
}
