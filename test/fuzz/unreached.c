/*-------------------------------------------------------------------------
 *
 * unreached.c
 *	  Names that modules under test ask a server for, and that no target uses.
 *
 * It includes no header, so the types need not be those of the server.
 *
 *-------------------------------------------------------------------------
 */
#include <stdlib.h>

#define UNREACHED(name)     \
	extern void name(void); \
	void        name(void)  \
	{                       \
		abort();            \
	}

UNREACHED(AcquireExternalFD)
UNREACHED(BasicOpenFile)
UNREACHED(CloseTransientFile)
UNREACHED(OpenTransientFile)
UNREACHED(OpenTransientFilePerm)
UNREACHED(ProcessProcSignalBarrier)
UNREACHED(RecoveryInProgress)
UNREACHED(ReleaseExternalFD)
UNREACHED(fsync_fname_ext)
UNREACHED(pg_fsync)
UNREACHED(pg_re_throw)
UNREACHED(socket_set_create)
UNREACHED(socket_set_free)
UNREACHED(socket_set_ready)
UNREACHED(socket_set_wait)
UNREACHED(socket_set_watch)

void *DataDir;
void *PG_exception_stack;
void *error_context_stack;
void *guc_key_file;
int   MyProcPid;
int   ProcSignalBarrierPending;
int   guc_request_timeout;
