/*-------------------------------------------------------------------------
 *
 * names.c
 *	  A resolver of names for tests, to be loaded into a server (LD_PRELOAD).
 *
 * What "loopback" and "metadata" begin resolves to the address of that kind, and
 * what "unanswered" begins has no answer for ten minutes; other names are the
 * system's affair.  Build: cc -shared -fPIC -o names.so names.c -ldl
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <string.h>
#include <unistd.h>

typedef int (*Resolver)(const char *node, const char *service, const struct addrinfo *hints,
						struct addrinfo **result);

static int
begins(const char *node, const char *label)
{
	size_t length = strlen(label);

	return node != NULL && strncmp(node, label, length) == 0 && node[length] == '.';
}

int
getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
			struct addrinfo **result)
{
	Resolver system = (Resolver) dlsym(RTLD_NEXT, "getaddrinfo");

	if (begins(node, "unanswered"))
	{
		sleep(600);
		return EAI_AGAIN;
	}
	if (begins(node, "loopback"))
		node = "127.0.0.1";
	else if (begins(node, "metadata"))
		node = "169.254.169.254";
	return system(node, service, hints, result);
}
