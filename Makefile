# s3export: exports query results and tables to S3 from inside PostgreSQL.

EXTENSION = s3export
MODULE_big = s3export
DATA = $(wildcard sql/s3export--*.sql)
PGFILEDESC = "s3export - exports query results and tables to S3"
DOCS = README.md $(wildcard docs/*.md)
EXTVERSION := $(shell sed -n 's/^   "version": "\([0-9.]*\)".*/\1/p' META.json)

OBJS = \
	src/s3export.o \
	src/api/connector_api.o \
	src/api/setup_api.o \
	src/api/result_row.o \
	src/api/role_api.o \
	src/api/row_api.o \
	src/api/copy_api.o \
	src/export/copy_args.o \
	src/api/current_api.o \
	src/currents/current_args.o \
	src/api/job_api.o \
	src/export/job_worker.o \
	src/tables/dispatcher.o \
	src/tables/job_settings.o \
	src/api/progress_api.o \
	src/api/recover_api.o \
	src/export/export.o \
	src/export/parallel.o \
	src/export/row_sender.o \
	src/currents/current_worker.o \
	src/currents/delivery.o \
	src/currents/delivery_launch.o \
	src/currents/batch.o \
	src/currents/batch_event.o \
	src/currents/batch_file.o \
	src/currents/batch_schema.o \
	src/currents/batch_members.o src/currents/batch_source.o src/currents/batch_unpublished.o \
	src/currents/publication.o \
	src/currents/decoder.o \
	src/tables/connector_args.o \
	src/tables/connector_args_credentials.o \
	src/tables/connector.o \
	src/tables/connector_credentials.o \
	src/tables/connector_tags.o \
	src/tables/connector_wire.o \
	src/currents/current.o \
	src/currents/current_events.o \
	src/currents/current_publication.o \
	src/currents/current_rows.o \
	src/currents/current_session.o \
	src/currents/current_slot.o \
	src/currents/current_tables.o \
	src/tables/job.o \
	src/tables/job_queue.o \
	src/tables/job_recovery.o \
	src/tables/job_retry.o \
	src/tables/catalog.o \
	src/tables/row_mac.o \
	src/tables/utf8.o \
	src/tables/at_commit.o \
	src/tables/advisory_lock.o \
	src/aws/aws_names.o \
	src/base/object_path.o \
	src/format/csv.o \
	src/format/csv_options.o \
	src/format/csv_scan.o \
	src/format/csv_layout.o \
	src/format/csv_types.o \
	src/format/csv_numeric.o \
	src/format/csv_time.o \
	src/format/csv_jsonb.o \
	src/format/csv_array.o \
	src/format/csv_text.o \
	src/format/csv_text_x86.o \
	src/format/csv_toast.o \
	src/format/csv_block.o \
	src/format/csv_partition.o \
	src/format/compress.o \
	src/format/compress_file.o \
	src/ipc/pipe.o \
	src/ipc/progress.o \
	src/uploader/uploader.o \
	src/uploader/export_job.o \
	src/uploader/export_request.o \
	src/uploader/recovery.o \
	src/uploader/manifest.o \
	src/uploader/stale.o \
	src/uploader/files.o \
	src/uploader/files_end.o \
	src/uploader/s3_client.o \
	src/uploader/permission_check.o \
	src/aws/iam_policy.o \
	src/aws/refusal_codes.o \
	src/s3/upload.o \
	src/s3/upload_end.o \
	src/s3/concurrency.o \
	src/base/crc32c.o \
	src/s3/s3.o \
	src/s3/s3_answer.o \
	src/s3/s3_error.o \
	src/base/s3_xml.o \
	src/aws/credentials.o \
	src/aws/ambient_credentials.o \
	src/aws/aws_config.o \
	src/aws/sts.o \
	src/aws/instance_metadata.o \
	src/aws/aws_session.o \
	src/base/json_member.o \
	src/base/json_text.o \
	src/base/text_file.o \
	src/http/http.o \
	src/http/http_wire.o \
	src/http/socket_set.o \
	src/http/address.o \
	src/aws/sigv4.o \
	src/base/args.o \
	src/base/guc.o \
	src/base/message.o \
	src/base/mac.o \
	src/base/secret.o

# Methods of compression, one for each library that is there.
COMPRESSION_LIBS := $(shell for lib in libisal libzstd liblz4; do pkg-config --exists $$lib && echo $$lib; done)
LIBS_USED = libcurl libcrypto expat $(COMPRESSION_LIBS)

# Hidden by default: a server process loads many libraries into one namespace,
# and names as plain as ours must not meet theirs.
PG_CPPFLAGS = -I$(srcdir)/src -DS3EXPORT_VERSION='"$(EXTVERSION)"' \
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

# Each object depends on all headers.  That is simple, and no object is ever stale.
$(OBJS) $(OBJS:.o=.bc): $(wildcard src/*.h src/*/*.h)

.PHONY: lint format check-unit
lint check-unit:
	bash test/check.sh $(@:check-%=%)
format:
	clang-format --style=file -i src/*.[ch] src/*/*.[ch] $(wildcard test/*/*.[ch])

# The pages have plain names: a folder of their own keeps them from those of other extensions.
docmoduledir = s3export
