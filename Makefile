# s3export: exports query results and tables to S3 from inside PostgreSQL.

EXTENSION = s3export
MODULE_big = s3export
DATA = $(wildcard sql/s3export--*.sql)
DOCS = README.md
EXTVERSION := $(shell sed -n 's/^   "version": "\([0-9.]*\)".*/\1/p' META.json)

OBJS = \
	src/s3export.o \
	src/connector_api.o \
	src/setup_api.o \
	src/role_api.o \
	src/row_api.o \
	src/copy_api.o \
	src/copy_args.o \
	src/current_api.o \
	src/current_args.o \
	src/job_api.o \
	src/leader.o \
	src/queue.o \
	src/carry.o \
	src/progress_api.o \
	src/recover_api.o \
	src/export.o \
	src/parallel.o \
	src/output.o \
	src/current_worker.o \
	src/delivery.o \
	src/delivery_launch.o \
	src/batch.o \
	src/batch_event.o \
	src/batch_file.o \
	src/batch_schema.o \
	src/batch_members.o src/batch_source.o src/batch_unpublished.o \
	src/publication.o \
	src/decode.o \
	src/connector_args.o \
	src/connector_args_credentials.o \
	src/connector.o \
	src/connector_credentials.o \
	src/connector_tags.o \
	src/connector_wire.o \
	src/current.o \
	src/current_events.o \
	src/current_publication.o \
	src/current_rows.o \
	src/current_session.o \
	src/current_slot.o \
	src/current_tables.o \
	src/job.o \
	src/job_queue.o \
	src/job_recovery.o \
	src/job_retry.o \
	src/catalog.o \
	src/row_mac.o \
	src/encoding.o \
	src/pending.o \
	src/lease.o \
	src/names.o \
	src/path.o \
	src/csv.o \
	src/csv_options.o \
	src/csv_scan.o \
	src/csv_layout.o \
	src/csv_types.o \
	src/csv_numeric.o \
	src/csv_time.o \
	src/csv_jsonb.o \
	src/csv_array.o \
	src/csv_text.o \
	src/csv_text_x86.o \
	src/csv_toast.o \
	src/csv_block.o \
	src/csv_partition.o \
	src/compress.o \
	src/compress_file.o \
	src/pipe.o \
	src/progress.o \
	src/uploader.o \
	src/transfer.o \
	src/recovery.o \
	src/manifest.o \
	src/stale.o \
	src/files.o \
	src/files_end.o \
	src/store.o \
	src/probe.o \
	src/policy.o \
	src/refusal.o \
	src/upload.o \
	src/upload_end.o \
	src/pace.o \
	src/crc32c.o \
	src/s3.o \
	src/s3_answer.o \
	src/s3_error.o \
	src/s3_xml.o \
	src/credentials.o \
	src/ambient.o \
	src/aws_config.o \
	src/sts.o \
	src/metadata.o \
	src/session.o \
	src/json_member.o \
	src/json_text.o \
	src/text_file.o \
	src/http.o \
	src/http_wire.o \
	src/socket_set.o \
	src/address.o \
	src/sigv4.o \
	src/mac.o \
	src/secret.o

# Methods of compression, one for each library that is there.
COMPRESSION_LIBS := $(shell for lib in libisal libzstd liblz4; do pkg-config --exists $$lib && echo $$lib; done)
LIBS_USED = libcurl libcrypto expat $(COMPRESSION_LIBS)

# Hidden by default: a server process loads many libraries into one namespace,
# and names as plain as ours must not meet theirs.
PG_CPPFLAGS = -DS3EXPORT_VERSION='"$(EXTVERSION)"' \
	-fvisibility=hidden '-DPGDLLEXPORT=__attribute__((visibility("default")))' \
	$(if $(filter libisal,$(COMPRESSION_LIBS)),-DS3EXPORT_HAVE_LIBISAL) \
	$(if $(filter libzstd,$(COMPRESSION_LIBS)),-DS3EXPORT_HAVE_LIBZSTD) \
	$(if $(filter liblz4,$(COMPRESSION_LIBS)),-DS3EXPORT_HAVE_LIBLZ4) \
	$(shell pkg-config --cflags $(LIBS_USED))
SHLIB_LINK = $(shell pkg-config --libs $(LIBS_USED))

REGRESS = $(basename $(notdir $(wildcard test/sql/*.sql)))
REGRESS_OPTS = --inputdir=test
# The TAP tests start servers of their own, which root cannot.
ifneq ($(shell id -u),0)
TAP_TESTS = 1
endif
PROVE_TESTS = test/t/*.pl

PG_CONFIG ?= pg_config
PG_MAJOR := $(shell $(PG_CONFIG) --version 2>/dev/null | sed -n 's/^PostgreSQL \([0-9]*\).*/\1/p')
ifeq ($(PG_MAJOR),)
$(error could not run "$(PG_CONFIG)": install PostgreSQL's development files, or set PG_CONFIG)
endif
# What a later server calls differently is known when it can be tried.
ifeq ($(filter $(PG_MAJOR),15 16 17 18),)
$(error s3export is for PostgreSQL 15 to 18; "$(PG_CONFIG)" is of $(PG_MAJOR))
endif
ifneq ($(shell pkg-config --exists libcurl libcrypto expat && echo yes),yes)
$(error could not find libcurl, libcrypto and expat with pkg-config: install their development files)
endif

PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)
