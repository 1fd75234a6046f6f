/*-------------------------------------------------------------------------
 *
 * http_wire.c
 *	  Single HTTP exchanges, side by side, over libcurl, which only this file
 *	  knows.
 *
 * Nothing here longjmps through libcurl, and what libcurl calls back only
 * fills malloc'd buffers: palloc may raise errors and is not thread-safe, and
 * libcurl often resolves names in a thread.  Everything that libcurl or malloc
 * owns is freed by one reset callback, whatever ends the memory context.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>
#include <curl/curl.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "lib/ilist.h"
#include "storage/fd.h"
#include "utils/memutils.h"

#include "http/address.h"
#include "http/http_internal.h"
#include "http/socket_set.h"

#define MAX_BODY (1024 * 1024)
#define MAX_HEAD (64 * 1024)
#define MAX_HEADER 8192
/* Interim answers and trailers included, kept or not. */
#define MAX_HEADS (1024 * 1024)

/* S3 closes idle connections after about five seconds. */
#define MAX_IDLE_CONNECTION 4 /* s */

/*
 * One for each connection that sends.  From 256 KiB to 2 MiB a GB takes the same
 * CPU time, over plain http and https; with libcurl's 64 KiB it takes more.
 */
#define UPLOAD_BUFFER_SIZE (512 * 1024)
#define SMALL_BODY (64 * 1024)

/* The pair by which libcurl wakes itself up. */
#define WIRE_FDS 2

#define NEVER PG_INT64_MAX

/* Filled within libcurl, so malloc'd; NUL-terminated once it has data. */
typedef struct Received
{
	char  *data;
	size_t len;
	size_t size;
} Received;

struct Exchange
{
	dlist_node    node; /* in HttpWire.exchanges */
	HttpWire     *wire;
	void         *owner;
	AddressPolicy addresses;
	bool          proxied;

	CURL              *easy; /* NULL: finished */
	struct curl_slist *headers;
	bool               told; /* by http_wire_finished */
	CURLcode           code;
	long               status;
	long               request_bytes; /* sent, of heads */

	/* set within libcurl */
	Received    head;
	Received    body;
	bool        overflow; /* the answer is longer than what is kept */
	size_t      heads;    /* bytes of all headers so far */
	bool        stopped;  /* by us */
	bool        out_of_memory;
	bool        out_of_files;
	bool        socket_opened;
	const char *refused; /* kind of the address that was refused */
	char        refused_address[ADDRESS_TEXT_LEN];
	char        curl_error[CURL_ERROR_SIZE];

	char           error[CURL_ERROR_SIZE + 128];
	StringInfoData head_text; /* "head" for readers */
};

struct HttpWire
{
	MemoryContext         context;
	MemoryContextCallback cleanup;
	HttpOptions           options;
	CURLM                *multi;
	dlist_head            exchanges;
	int                   external_fds; /* of WIRE_FDS */
	int64                 timer_due;    /* when libcurl wants to be called */
	SocketSet            *sockets;
	int                   socket_error; /* errno of a failure within libcurl */
};


static int64
now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/*
 * Threads that libcurl starts inherit the signal mask, and must never be the
 * ones that run the server's handlers.
 */
static void
block_signals(sigset_t *saved)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, saved);
}

static void
restore_signals(const sigset_t *saved)
{
	pthread_sigmask(SIG_SETMASK, saved, NULL);
}


/* ----------------------------------------------------------------
 * What a server answers; it may hold secrets
 * ----------------------------------------------------------------
 */

static void
received_free(Received *received)
{
	if (received->data != NULL)
	{
		explicit_bzero(received->data, received->size);
		free(received->data);
	}
	memset(received, 0, sizeof(*received));
}

/* Not by realloc, which may leave a copy behind. */
static bool
received_append(Received *received, const char *data, size_t len)
{
	if (received->len + len + 1 > received->size)
	{
		Received larger = {.len = received->len};

		larger.size = Max(Max(received->size * 2, received->len + len + 1), 1024);
		larger.data = malloc(larger.size);
		if (larger.data == NULL)
			return false;
		if (received->len > 0)
			memcpy(larger.data, received->data, received->len);
		received_free(received);
		*received = larger;
	}
	memcpy(received->data + received->len, data, len);
	received->len += len;
	received->data[received->len] = '\0';
	return true;
}

/* A returned length other than what was offered makes libcurl stop. */
static size_t
body_callback(char *data, size_t size, size_t n, void *arg)
{
	Exchange *exchange = arg;
	size_t    room = MAX_BODY - exchange->body.len;
	size_t    len = size * n;

	if (len > room)
		exchange->overflow = true;
	if (!received_append(&exchange->body, data, Min(len, room)))
	{
		exchange->out_of_memory = true;
		return 0;
	}
	return exchange->overflow ? 0 : len;
}

/*
 * One line of the answer's head, kept as "name: value\n".  Bytes that are not
 * ASCII mean nothing there, and might not be valid in the server's encoding.
 */
static size_t
header_callback(char *data, size_t size, size_t n, void *arg)
{
	Exchange   *exchange = arg;
	size_t      len = size * n;
	const char *end = data + len;
	const char *colon = memchr(data, ':', len);
	const char *value;
	char        line[MAX_HEADER];
	char       *p = line;

	exchange->heads += len;
	if (exchange->heads > MAX_HEADS)
		return 0;
	if (len >= 5 && memcmp(data, "HTTP/", 5) == 0)
	{
		/* The last of several heads is the answer. */
		received_free(&exchange->head);
		return len;
	}
	if (colon == NULL || len + 2 > sizeof(line) || exchange->head.len + len + 2 > MAX_HEAD)
		return len;

	for (const char *name = data; name < colon; name++)
		*p++ = pg_ascii_tolower((unsigned char) *name);
	*p++ = ':';
	*p++ = ' ';
	for (value = colon + 1; value < end && (*value == ' ' || *value == '\t'); value++)
		;
	while (end > value && isspace((unsigned char) end[-1]))
		end--;
	for (; value < end; value++)
		*p++ = (*value < ' ' || *value > '~') ? '?' : *value;
	*p++ = '\n';
	if (!received_append(&exchange->head, line, p - line))
	{
		exchange->out_of_memory = true;
		return 0;
	}
	return len;
}


/* ----------------------------------------------------------------
 * Sockets
 * ----------------------------------------------------------------
 */

/*
 * The address is judged here, after the name was resolved: a name cannot lead elsewhere between
 * the look and the connection.
 */
static curl_socket_t
open_socket_callback(void *arg, curlsocktype purpose pg_attribute_unused(),
					 struct curl_sockaddr *address)
{
	Exchange   *exchange = arg;
	const char *refused;
	int         fd;

	/* A proxy's address is the administrator's choice. */
	refused =
		address_refused(&address->addr, exchange->proxied ? ADDRESS_LOCAL : exchange->addresses);
	if (refused != NULL)
	{
		exchange->refused = refused;
		address_text(&address->addr, exchange->refused_address);
		return CURL_SOCKET_BAD;
	}
	if (!AcquireExternalFD())
	{
		exchange->out_of_files = true;
		return CURL_SOCKET_BAD;
	}
	fd = socket(address->family, address->socktype, address->protocol);
	if (fd < 0)
	{
		exchange->out_of_files = (errno == EMFILE || errno == ENFILE);
		ReleaseExternalFD();
		return CURL_SOCKET_BAD;
	}
	(void) fcntl(fd, F_SETFD, FD_CLOEXEC);
	exchange->socket_opened = true;
	return fd;
}

static int
close_socket_callback(void *arg pg_attribute_unused(), curl_socket_t fd)
{
	ReleaseExternalFD();
	return close(fd);
}

static int
timer_callback(CURLM *multi pg_attribute_unused(), long timeout, void *arg)
{
	HttpWire *wire = arg;

	/* Rounded up: libcurl does not repeat a timer that was answered too early. */
	if (timeout < 0)
		wire->timer_due = NEVER;
	else
		wire->timer_due = timeout == 0 ? 0 : now_ms() + timeout + 1;
	return 0;
}

static int
socket_callback(CURL *easy pg_attribute_unused(), curl_socket_t fd, int what, void *arg,
				void *socket_arg pg_attribute_unused())
{
	HttpWire *wire = arg;
	bool      readable = what == CURL_POLL_IN || what == CURL_POLL_INOUT;
	bool      writable = what == CURL_POLL_OUT || what == CURL_POLL_INOUT;

	if (!socket_set_watch(wire->sockets, fd, readable, writable))
		wire->socket_error = errno;
	return 0;
}

/* Hands libcurl the sockets that are ready, and its timer when that is due. */
static void
run_libcurl(HttpWire *wire)
{
	SocketEvent events[64];
	int         running;
	int         n;

	n = socket_set_ready(wire->sockets, events, lengthof(events));
	for (int i = 0; i < n; i++)
	{
		int mask = 0;

		if (events[i].readable)
			mask |= CURL_CSELECT_IN;
		if (events[i].writable)
			mask |= CURL_CSELECT_OUT;
		if (events[i].failed)
			mask |= CURL_CSELECT_ERR;
		/* libcurl ignores a socket that it has closed in the meantime. */
		curl_multi_socket_action(wire->multi, events[i].fd, mask, &running);
	}
	if (http_wire_is_due(wire))
	{
		wire->timer_due = NEVER;
		curl_multi_socket_action(wire->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	}
}

void
http_wire_wait(HttpWire *wire, long timeout, uint32 wait_event)
{
	if (wire->timer_due != NEVER)
	{
		long left = (long) Max(wire->timer_due - now_ms(), 0);

		timeout = timeout < 0 ? left : Min(timeout, left);
	}
	socket_set_wait(wire->sockets, timeout, wait_event);
}

void
http_wire_run(HttpWire *wire)
{
	sigset_t saved;

	block_signals(&saved);
	run_libcurl(wire);
	restore_signals(&saved);
	if (wire->socket_error != 0)
	{
		errno = wire->socket_error;
		wire->socket_error = 0;
		ereport(ERROR, (errcode_for_file_access(), errmsg("could not watch a network socket: %m")));
	}
}

bool
http_wire_is_due(HttpWire *wire)
{
	return wire->timer_due <= now_ms();
}


/* ----------------------------------------------------------------
 * Beginning an exchange
 * ----------------------------------------------------------------
 */

static bool
add_header(struct curl_slist **list, const char *line)
{
	struct curl_slist *longer = curl_slist_append(*list, line);

	if (longer == NULL)
		return false;
	*list = longer;
	return true;
}

static bool
is_header(const char *line, const char *name)
{
	size_t len = strlen(name);

	return pg_strncasecmp(line, name, len) == 0 && line[len] == ':';
}

/*
 * Hands over the lines of "lines", and takes back the headers that libcurl
 * would add by itself: the Content-Type of forms, and an Expect that some
 * servers never answer.  False: out of memory.
 */
static bool
build_headers(struct curl_slist **list, StringInfo lines)
{
	bool  content_type = false;
	bool  accept = false;
	bool  ok = add_header(list, "Expect:");
	char *next;

	for (char *line = lines->data; ok && *line != '\0'; line = next)
	{
		char *end = strchr(line, '\n');

		next = end != NULL ? end + 1 : line + strlen(line);
		if (end == NULL)
			end = next;
		*end = '\0';
		content_type |= is_header(line, "content-type");
		accept |= is_header(line, "accept");

		/* "name:" would be the wish to send none; "name;" sends it empty. */
		while (end > line && end[-1] == ' ')
			*--end = '\0';
		if (end > line && end[-1] == ':')
			end[-1] = ';';
		if (end > line)
			ok = add_header(list, line);
	}
	return ok && (content_type || add_header(list, "Content-Type:")) &&
		   (accept || add_header(list, "Accept:"));
}

/* libcurl has copied every line. */
static void
free_headers(struct curl_slist **list)
{
	for (struct curl_slist *header = *list; header != NULL; header = header->next)
		explicit_bzero(header->data, strlen(header->data));
	curl_slist_free_all(*list);
	*list = NULL;
}

#define SET(option, value)                                \
	do                                                    \
	{                                                     \
		if (code == CURLE_OK)                             \
			code = curl_easy_setopt(easy, option, value); \
	} while (0)

/*
 * Nothing of the environment of the postmaster decides where a request goes: no proxy, no
 * .netrc, no redirect.
 */
static CURLcode
set_connection_options(Exchange *exchange, const HttpRequest *request, bool fresh_connection)
{
	CURL              *easy = exchange->easy;
	const HttpOptions *options = &exchange->wire->options;
	CURLcode           code = CURLE_OK;

	SET(CURLOPT_NOSIGNAL, 1L);
#if LIBCURL_VERSION_NUM >= 0x075700
	/* Ending an exchange must not wait for a name server. */
	(void) curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
#endif
	SET(CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_1_1);
	SET(CURLOPT_FOLLOWLOCATION, 0L);
	SET(CURLOPT_NETRC, (long) CURL_NETRC_IGNORED);
	SET(CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
#if LIBCURL_VERSION_NUM >= 0x075500
	SET(CURLOPT_PROTOCOLS_STR, "http,https");
#else
	SET(CURLOPT_PROTOCOLS, (long) (CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif

	SET(CURLOPT_SSL_VERIFYPEER, 1L);
	SET(CURLOPT_SSL_VERIFYHOST, 2L);
	SET(CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);
	if (options->ca_file != NULL)
	{
		/* In place of the system's certificates, not beside them. */
		SET(CURLOPT_CAINFO, options->ca_file);
		SET(CURLOPT_CAPATH, NULL);
	}

	/* Unset, these would come from the postmaster's environment. */
	SET(CURLOPT_PROXY, exchange->proxied ? options->proxy : "");
	SET(CURLOPT_NOPROXY, "");
	SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);

	SET(CURLOPT_CONNECTTIMEOUT_MS, (long) options->connect_timeout);
	SET(CURLOPT_TCP_KEEPALIVE, 1L);
	SET(CURLOPT_MAXAGE_CONN, (long) MAX_IDLE_CONNECTION);
	/* The address of a connection is judged when it is made, not when it is used again. */
	SET(CURLOPT_FRESH_CONNECT, fresh_connection || request->direct ? 1L : 0L);
	SET(CURLOPT_FORBID_REUSE, request->direct ? 1L : 0L);
	SET(CURLOPT_OPENSOCKETFUNCTION, open_socket_callback);
	SET(CURLOPT_OPENSOCKETDATA, exchange);
	SET(CURLOPT_CLOSESOCKETFUNCTION, close_socket_callback);
	return code;
}

/* The URL and the headers are signed as they are, so libcurl must change neither. */
static CURLcode
set_request_options(Exchange *exchange, const HttpRequest *request, const char *url)
{
	CURL       *easy = exchange->easy;
	const char *method = request->method;
	CURLcode    code = CURLE_OK;

	SET(CURLOPT_PRIVATE, exchange);
	SET(CURLOPT_ERRORBUFFER, exchange->curl_error);
	SET(CURLOPT_URL, url);
	SET(CURLOPT_PATH_AS_IS, 1L);
	SET(CURLOPT_HTTPHEADER, exchange->headers);
	SET(CURLOPT_USERAGENT, "s3export/" S3EXPORT_VERSION " PostgreSQL/" PG_MAJORVERSION);
	SET(CURLOPT_TIMEOUT_MS, (long) request->timeout);
	SET(CURLOPT_WRITEFUNCTION, body_callback);
	SET(CURLOPT_WRITEDATA, exchange);
	SET(CURLOPT_HEADERFUNCTION, header_callback);
	SET(CURLOPT_HEADERDATA, exchange);

	if (strcmp(method, "HEAD") == 0)
		SET(CURLOPT_NOBODY, 1L);
	else if (request->body != NULL || strcmp(method, "PUT") == 0 || strcmp(method, "POST") == 0)
	{
		/*
		 * As a form's fields, which libcurl sends from where they are, and can
		 * send again by itself when a kept connection proves dead.
		 */
		const char *body = request->body != NULL ? request->body : "";
		curl_off_t  len = request->body != NULL ? (curl_off_t) request->body_len : 0;

		SET(CURLOPT_POSTFIELDSIZE_LARGE, len);
		SET(CURLOPT_POSTFIELDS, body);
		SET(CURLOPT_CUSTOMREQUEST, method);
		if (len > SMALL_BODY)
			SET(CURLOPT_UPLOAD_BUFFERSIZE, (long) UPLOAD_BUFFER_SIZE);
	}
	else if (strcmp(method, "GET") != 0)
		SET(CURLOPT_CUSTOMREQUEST, method);
	return code;
}

/* Takes the exchange out of libcurl; what it brought stays. */
static void
finish_exchange(Exchange *exchange, CURLcode code)
{
	exchange->code = code;
	if (exchange->easy != NULL)
	{
		curl_easy_getinfo(exchange->easy, CURLINFO_RESPONSE_CODE, &exchange->status);
		curl_easy_getinfo(exchange->easy, CURLINFO_REQUEST_SIZE, &exchange->request_bytes);
		curl_multi_remove_handle(exchange->wire->multi, exchange->easy);
		curl_easy_cleanup(exchange->easy);
		exchange->easy = NULL;
	}
	free_headers(&exchange->headers);
}

Exchange *
http_wire_send(HttpWire *wire, const HttpRequest *request, HttpAttempt *attempt,
			   bool fresh_connection, void *owner)
{
	Exchange *exchange = MemoryContextAllocZero(wire->context, sizeof(Exchange));
	CURLcode  code;

	exchange->wire = wire;
	exchange->owner = owner;
	exchange->addresses = request->addresses;
	exchange->proxied = wire->options.proxy != NULL && !request->direct;
	dlist_push_tail(&wire->exchanges, &exchange->node);

	exchange->easy = curl_easy_init();
	if (exchange->easy == NULL || !build_headers(&exchange->headers, &attempt->headers))
		code = CURLE_OUT_OF_MEMORY;
	else
		code = set_connection_options(exchange, request, fresh_connection);
	if (code == CURLE_OK)
		code = set_request_options(exchange, request, attempt->url.data);
	if (code == CURLE_OK && curl_multi_add_handle(wire->multi, exchange->easy) != CURLM_OK)
		code = CURLE_FAILED_INIT;
	if (code != CURLE_OK)
	{
		finish_exchange(exchange, code);
		wire->timer_due = 0; /* so that nobody waits before it is told */
	}
	return exchange;
}


/* ----------------------------------------------------------------
 * Its end
 * ----------------------------------------------------------------
 */

void *
http_wire_finished(HttpWire *wire)
{
	CURLMsg   *message;
	int        left;
	dlist_iter iter;

	while ((message = curl_multi_info_read(wire->multi, &left)) != NULL)
	{
		CURLcode  code = message->data.result;
		Exchange *exchange = NULL;

		if (message->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **) &exchange);
		finish_exchange(exchange, code);
	}
	dlist_foreach (iter, &wire->exchanges)
	{
		Exchange *exchange = dlist_container(Exchange, node, iter.cur);

		if (exchange->easy == NULL && !exchange->told)
		{
			exchange->told = true;
			return exchange->owner;
		}
	}
	return NULL;
}

void
exchange_stop(Exchange *exchange, const char *error)
{
	strlcpy(exchange->curl_error, error, sizeof(exchange->curl_error));
	exchange->stopped = true;
	finish_exchange(exchange, CURLE_OPERATION_TIMEDOUT);
}

int64
exchange_sent(Exchange *exchange)
{
	curl_off_t sent = 0;

	if (exchange->easy != NULL)
		curl_easy_getinfo(exchange->easy, CURLINFO_SIZE_UPLOAD_T, &sent);
	return sent;
}

/* Faults of the network and the peer, which may be over at the next attempt. */
static bool
is_transient(CURLcode code)
{
	switch (code)
	{
		case CURLE_COULDNT_RESOLVE_PROXY:
		case CURLE_COULDNT_RESOLVE_HOST:
		case CURLE_COULDNT_CONNECT:
		case CURLE_HTTP2:
		case CURLE_PARTIAL_FILE:
		case CURLE_OPERATION_TIMEDOUT:
		case CURLE_SSL_CONNECT_ERROR:
		case CURLE_GOT_NOTHING:
		case CURLE_SEND_ERROR:
		case CURLE_RECV_ERROR:
		case CURLE_SEND_FAIL_REWIND:
		case CURLE_AGAIN:
		case CURLE_HTTP2_STREAM:
			return true;
		default:
			return false;
	}
}

/* libcurl says the same of a line of the answer that is too long for it. */
static bool
has_long_line(const Exchange *exchange)
{
	return exchange->code == CURLE_OUT_OF_MEMORY && exchange->request_bytes > 0;
}

/* Puts the words for a failure into exchange->error. */
static void
describe_error(Exchange *exchange)
{
	CURLcode    code = exchange->code;
	char       *error = exchange->error;
	size_t      size = sizeof(exchange->error);
	const char *text = exchange->curl_error;

	if (text[0] == '\0')
		text = code == CURLE_OK ? "the server sent no final answer" : curl_easy_strerror(code);
	if (exchange->refused != NULL && !exchange->socket_opened)
		snprintf(error, size, "address %s is refused: it is %s", exchange->refused_address,
				 exchange->refused);
	else if (exchange->out_of_files)
		strlcpy(error, "out of file descriptors", size);
	else if (exchange->out_of_memory)
		strlcpy(error, "out of memory", size);
	else if (has_long_line(exchange))
		strlcpy(error, "a line of the answer is too long", size);
	else if (exchange->heads > MAX_HEADS)
		strlcpy(error, "the headers of the answer do not end", size);
	else if (code == CURLE_SSL_CACERT_BADFILE || strstr(text, "certificate problem") != NULL)
		snprintf(error, size, "%s (s3export.ca_file names the certificates to trust)", text);
	else
		strlcpy(error, text, size);

	/* The name in a certificate, for one, is any bytes that the peer likes. */
	for (char *p = error; *p != '\0'; p++)
		if (*p < ' ' || *p > '~')
			*p = '?';
}

void
exchange_response(Exchange *exchange, HttpResponse *response)
{
	int  status = exchange->status >= 200 ? (int) exchange->status : 0;
	/* To end a long answer is our own doing. */
	bool whole =
		exchange->code == CURLE_OK || (exchange->code == CURLE_WRITE_ERROR && exchange->overflow);

	memset(response, 0, sizeof(*response));
	exchange->head_text.data = exchange->head.data != NULL ? exchange->head.data : "";
	exchange->head_text.len = (int) exchange->head.len;
	response->headers = &exchange->head_text;
	response->body = exchange->body.data != NULL ? exchange->body.data : "";
	response->body_len = exchange->body.len;
	response->status = status;
	response->stalled = exchange->stopped;
	response->unsent = exchange->request_bytes == 0;
	response->truncated = status != 0 && (exchange->overflow || !whole);
	if (!whole || status == 0)
	{
		describe_error(exchange);
		response->transport_error = exchange->error;
		response->exhausted = exchange->out_of_files || exchange->out_of_memory ||
							  (exchange->code == CURLE_OUT_OF_MEMORY && !has_long_line(exchange));
		response->transport_final = (exchange->code != CURLE_OK && !is_transient(exchange->code)) ||
									(exchange->refused != NULL && !exchange->socket_opened);
	}
}

bool
exchange_out_of_files(const Exchange *exchange)
{
	return exchange->out_of_files;
}

void
exchange_free(Exchange *exchange)
{
	finish_exchange(exchange, exchange->code);
	received_free(&exchange->head);
	received_free(&exchange->body);
	dlist_delete(&exchange->node);
	pfree(exchange);
}


/* ----------------------------------------------------------------
 * The whole
 * ----------------------------------------------------------------
 */

static void
close_wire(void *arg)
{
	HttpWire          *wire = arg;
	dlist_mutable_iter iter;

	dlist_foreach_modify (iter, &wire->exchanges)
	{
		exchange_free(dlist_container(Exchange, node, iter.cur));
	}
	if (wire->multi != NULL)
		curl_multi_cleanup(wire->multi);
	if (wire->sockets != NULL)
		socket_set_free(wire->sockets);
	for (; wire->external_fds > 0; wire->external_fds--)
		ReleaseExternalFD();
}

/*
 * Once in a process, and only in one that sends something: some libraries
 * below libcurl start threads, which the postmaster must not have.
 */
static void
init_libcurl(void)
{
	static bool done = false;

	if (done)
		return;
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		ereport(ERROR, (errcode(ERRCODE_SYSTEM_ERROR), errmsg("could not initialize libcurl")));
	done = true;
	elog(DEBUG1, "using %s", curl_version());
}

char *
http_version(void)
{
	const curl_version_info_data *info = curl_version_info(CURLVERSION_NOW);

	return psprintf("libcurl %s (%s)", info->version,
					info->ssl_version != NULL ? info->ssl_version : "no TLS");
}

HttpWire *
http_wire_open(const HttpOptions *options)
{
	MemoryContext context =
		AllocSetContextCreate(CurrentMemoryContext, "s3export http", ALLOCSET_DEFAULT_SIZES);
	HttpWire     *wire = MemoryContextAllocZero(context, sizeof(HttpWire));
	MemoryContext caller;

	init_libcurl();
	wire->context = context;
	wire->options = *options;
	wire->timer_due = NEVER;
	dlist_init(&wire->exchanges);
	wire->cleanup.func = close_wire;
	wire->cleanup.arg = wire;
	MemoryContextRegisterResetCallback(context, &wire->cleanup);

	for (; wire->external_fds < WIRE_FDS; wire->external_fds++)
		if (!AcquireExternalFD())
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_RESOURCES), errmsg("out of file descriptors"),
					 errhint("You may need to increase \"max_files_per_process\".")));
	wire->multi = curl_multi_init();
	if (wire->multi == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));

	caller = MemoryContextSwitchTo(context);
	wire->sockets = socket_set_create();
	MemoryContextSwitchTo(caller);
	curl_multi_setopt(wire->multi, CURLMOPT_SOCKETFUNCTION, socket_callback);
	curl_multi_setopt(wire->multi, CURLMOPT_SOCKETDATA, wire);
	curl_multi_setopt(wire->multi, CURLMOPT_TIMERFUNCTION, timer_callback);
	curl_multi_setopt(wire->multi, CURLMOPT_TIMERDATA, wire);
	curl_multi_setopt(wire->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS,
					  (long) options->max_connections + 2);
	curl_multi_setopt(wire->multi, CURLMOPT_MAXCONNECTS, (long) options->max_connections + 2);
	return wire;
}

time_t
http_wire_parse_date(const char *value)
{
	return Max(curl_getdate(value, NULL), 0);
}
