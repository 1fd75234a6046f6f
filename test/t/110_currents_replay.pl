# A reader that has nothing but the files of a feed has the tables of the source in the end, row by row.
#
# Three sessions change all kinds of tables, and the tables themselves, while deliveries and test/consumer.py are killed.
# Each round has a seed, which decides what the sessions do; S3EXPORT_REPLAY_SEEDS is the number of rounds,
# S3EXPORT_TEST_SEED the first seed, S3EXPORT_REPLAY_SECONDS how long a round takes.  What a feed calls a gap is no part
# of it: partitions are not detached, for one.  In the end the last feed and its copy are broken, to see that the test
# finds it.
use strict;
use warnings;
use lib 'test/lib';
use Cwd qw(abs_path);
use File::Basename qw(dirname);
use IO::Uncompress::Gunzip qw(gunzip $GunzipError);
use IPC::Run;
use JSON::PP ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use S3Currents;
use S3Export;
use Test::More;
use Time::HiRes qw(sleep time);

s3_or_skip();
my $python = '/usr/bin/python3';
my $consumer = dirname(abs_path(__FILE__)) . '/../consumer.py';
plan skip_all => 'python3-boto3 and python3-psycopg2 are not installed' if system("$python -c 'import boto3, psycopg2' 2>/dev/null") != 0;

my $rounds = $ENV{S3EXPORT_REPLAY_SEEDS} // 2;
my $first_seed = $ENV{S3EXPORT_TEST_SEED} // int(rand(1_000_000));
my $seconds = $ENV{S3EXPORT_REPLAY_SECONDS} // 20;
my $node = currents_node('main', 'restart_after_crash = on', 'max_connections = 60', 'log_min_messages = debug1', 'max_wal_size = 2GB',
	'max_prepared_transactions = 20', "deadlock_timeout = '100ms'", "lock_timeout = '3s'", "s3export.retry_timeout = '20s'",
	# Neither is what a feed has.
	"timezone = 'America/New_York'", "datestyle = 'sql, dmy'");
my ($source, $copy, $uri);

# ------------------------------------------------------------------ processes

# psql in the background, in the source; with a file, its statements, whatever becomes of each.
sub start_session
{
	my (@arguments) = @_;
	my %session = (out => '', err => '');

	$session{handle} = IPC::Run::start([ 'psql', '-XAtq', '-v', 'VERBOSITY=verbose', '-d', $node->connstr($source), @arguments ], '<', \undef, '>', \$session{out}, '2>', \$session{err});
	return \%session;
}

sub start_consumer
{
	my ($database) = @_;
	my %session = (out => '', err => '');

	local @ENV{qw(AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_DEFAULT_REGION AWS_EC2_METADATA_DISABLED)} = (@S3{qw(ACCESS_KEY_ID SECRET_ACCESS_KEY REGION)}, 'true');
	$session{handle} = IPC::Run::start([ $python, $consumer, $uri, $node->connstr($database), $S3{ENDPOINT} ], '<', \undef, '>', \$session{out}, '2>', \$session{err});
	return \%session;
}

# Whether it has ended.  One that ends meanwhile is an error to IPC::Run.
sub ended
{
	my ($session) = @_;

	eval { $session->{handle}->pump_nb if $session->{handle}->pumpable };
	return !$session->{handle}->pumpable;
}

# Its exit status.
sub end_of
{
	my ($session) = @_;

	eval { $session->{handle}->finish };
	return ($session->{handle}->full_results)[0];
}

sub try { return try_query($node, @_); }

sub server_is_up
{
	poll_until(sub { server_answers($node) }, 'the server', 60);
	return;
}

# ----------------------------------------------------------------- the source

my $tables = <<'SQL';
CREATE SCHEMA other;
-- The key and the unchanged value, with each way to tell rows apart.
CREATE TABLE plain (id int PRIMARY KEY, a text, body text, n numeric, at timestamptz, bin bytea, f float8, b bool, j jsonb, l int[], i interval);
CREATE TABLE full_key (id int PRIMARY KEY, a text, body text);
ALTER TABLE full_key REPLICA IDENTITY FULL;
CREATE TABLE full_late (id int PRIMARY KEY DEFERRABLE, a text, body text);
ALTER TABLE full_late REPLICA IDENTITY FULL;
CREATE TABLE full_free (id int, a text, body text);
ALTER TABLE full_free REPLICA IDENTITY FULL;
CREATE TABLE by_index (id int NOT NULL, a text, body text, code text NOT NULL, PRIMARY KEY (id), UNIQUE (code, id));
ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_code_id_key;
CREATE TABLE parted (id int, region int, a text, body text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE parted_0 PARTITION OF parted FOR VALUES IN (0);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1) PARTITION BY RANGE (id);
CREATE TABLE parted_1_low PARTITION OF parted_1 FOR VALUES FROM (MINVALUE) TO (20);
CREATE TABLE parted_1_high PARTITION OF parted_1 FOR VALUES FROM (20) TO (MAXVALUE);
CREATE TABLE coming (id int PRIMARY KEY, a text, body text);
CREATE TABLE shaped (id int PRIMARY KEY, a text, body text);
CREATE TABLE "Moving 1" (id int PRIMARY KEY, a text, body text);
CREATE TABLE other."moving.2" (id int PRIMARY KEY, a text, body text);
CREATE TABLE still (id int PRIMARY KEY, a text, body text, _id int, "per%cent" text, _meta text);
CREATE TABLE empty (id int PRIMARY KEY);
DO $$ DECLARE t regclass; BEGIN
	FOR t IN SELECT attrelid::regclass FROM pg_attribute JOIN pg_class c ON c.oid = attrelid WHERE attname = 'body' AND relkind IN ('r', 'p') LOOP
		EXECUTE format('ALTER TABLE %s ALTER body SET STORAGE EXTERNAL', t);
	END LOOP;
END $$;

-- Tables that change their names are found by others.
CREATE TABLE alias (name text PRIMARY KEY, oid oid);
INSERT INTO alias SELECT 'moving_' || right(relname, 1), oid FROM pg_class WHERE relname ~* '^moving.[12]$';
CREATE FUNCTION named(text) RETURNS regclass LANGUAGE sql AS 'SELECT coalesce((SELECT oid::regclass FROM alias WHERE name = $1), $1::regclass)';
CREATE FUNCTION some_region(n int) RETURNS int LANGUAGE sql AS $$
	SELECT r[1 + n % array_length(r, 1)] FROM (SELECT array_agg(substring(relname FROM '^parted_(\d+)$')::int ORDER BY relname) FROM pg_class JOIN pg_inherits ON inhrelid = pg_class.oid WHERE inhparent = 'parted'::regclass) p (r)
$$;

CREATE FUNCTION rename_table(alias text, n int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('ALTER TABLE %s SET SCHEMA %I', named(alias), CASE WHEN n % 3 = 0 THEN 'other' ELSE 'public' END);
	EXECUTE format('ALTER TABLE %s RENAME TO %I', named(alias), (ARRAY['Moving', 'moving.x', 'mov"ing', 'mov%2Eing', 'möving', 'moving/y z'])[1 + n % 6] || right(alias, 1));
END $$;
CREATE FUNCTION swap_tables() RETURNS void LANGUAGE plpgsql AS $$
DECLARE one oid := named('moving_1'); two oid := named('moving_2'); a record; b record;
BEGIN
	SELECT relname, nspname INTO a FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE c.oid = one;
	SELECT relname, nspname INTO b FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE c.oid = two;
	EXECUTE format('ALTER TABLE %s RENAME TO between', one::regclass);
	EXECUTE format('ALTER TABLE %s SET SCHEMA %I', two::regclass, a.nspname);
	EXECUTE format('ALTER TABLE %s RENAME TO %I', two::regclass, a.relname);
	EXECUTE format('ALTER TABLE %s SET SCHEMA %I', one::regclass, b.nspname);
	EXECUTE format('ALTER TABLE %s RENAME TO %I', one::regclass, b.relname);
END $$;

-- Columns that come and go begin with an x, and have values that are numbers, whatever their type.
CREATE FUNCTION x_columns(t regclass) RETURNS TABLE (name text, type text) LANGUAGE sql AS $$
	SELECT quote_ident(attname), format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = t AND attnum > 0 AND attname LIKE 'x%' AND NOT attisdropped ORDER BY attnum
$$;
CREATE FUNCTION fill_x(t regclass, wanted int, n int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE c record;
BEGIN
	FOR c IN SELECT * FROM x_columns(t) LOOP
		EXECUTE format('UPDATE %s SET %s = %L WHERE id = %s', t, c.name, n, wanted);
	END LOOP;
END $$;
CREATE FUNCTION change_shape(t regclass, what text, n int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	x text[] := ARRAY(SELECT name FROM x_columns(t));
	one text := x[1 + n % greatest(array_length(x, 1), 1)];
	new text := quote_ident('x' || n || CASE WHEN n % 4 = 0 THEN ' "ü",' ELSE '' END);
BEGIN
	IF what LIKE 'add%' AND array_length(x, 1) > 5 THEN
		what := 'drop';
	ELSIF what NOT LIKE 'add%' AND what <> 'identity' AND one IS NULL THEN
		what := 'add';
	END IF;
	CASE what
		WHEN 'add' THEN EXECUTE format('ALTER TABLE %s ADD %s text', t, new);
		WHEN 'add default' THEN EXECUTE format('ALTER TABLE %s ADD %s bigint NOT NULL DEFAULT %s', t, new, n);
		WHEN 'add volatile' THEN EXECUTE format('ALTER TABLE %s ADD %s numeric DEFAULT random()', t, new);
		WHEN 'add two' THEN
			EXECUTE format('ALTER TABLE %s ADD y text DEFAULT 1, ADD %s int DEFAULT 3', t, new);
			EXECUTE format('ALTER TABLE %s DROP y', t);
		WHEN 'drop' THEN EXECUTE format('ALTER TABLE %s DROP %s', t, one);
		WHEN 'rename' THEN EXECUTE format('ALTER TABLE %s RENAME %s TO %s', t, one, new);
		WHEN 'swap' THEN
			IF array_length(x, 1) > 1 THEN
				EXECUTE format('ALTER TABLE %s RENAME %s TO between', t, x[1]);
				EXECUTE format('ALTER TABLE %s RENAME %s TO %s', t, x[2], x[1]);
				EXECUTE format('ALTER TABLE %s RENAME between TO %s', t, x[2]);
			END IF;
		WHEN 'replace' THEN
			EXECUTE format('ALTER TABLE %s DROP %s', t, one);
			EXECUTE format('ALTER TABLE %s ADD %s int DEFAULT 7', t, one);
		WHEN 'type' THEN
			EXECUTE format('ALTER TABLE %s ALTER %s DROP DEFAULT, ALTER %2$s DROP NOT NULL, ALTER %2$s TYPE %3$s USING (%2$s::numeric + 1)::%3$s', t, one, (ARRAY['text', 'numeric', 'bigint', 'float8'])[1 + n % 4]);
		WHEN 'not null' THEN
			EXECUTE format('ALTER TABLE %s ALTER %s SET DEFAULT 5', t, one);
			EXECUTE format('UPDATE %s SET %s = 5 WHERE %2$s IS NULL', t, one);
			EXECUTE format('ALTER TABLE %s ALTER %s SET NOT NULL', t, one);
		WHEN 'null' THEN EXECUTE format('ALTER TABLE %s ALTER %s DROP NOT NULL', t, one);
		WHEN 'identity' THEN EXECUTE format('ALTER TABLE %s REPLICA IDENTITY %s', t, CASE WHEN n % 2 = 0 THEN 'FULL' ELSE 'DEFAULT' END);
	END CASE;
END $$;
SQL

# ---------------------------------------------------------------- the workload

my @keyed = qw(plain full_key full_late by_index coming shaped moving_1 moving_2 still);
my @shaped = qw(shaped shaped shaped full_key full_free moving_1 parted);
my @texts = ('', 'plain', q(it's "quoted"), "two\nlines", "cr\r\nlf", '\\N', 'back\\slash\\', "a\ttab", 'größe', '日本語', "\xf0\x9f\x98\x80", '\\.', ',', '"', '""', ' lead ', 'NULL', '{x}%s', "'", ';');

sub one_of { return $_[ rand @_ ]; }
sub number { return 1 + int rand $_[0]; }
sub some_id { return number(40); }

sub a_text
{
	return rand() < 0.15 ? 'NULL' : sql_literal(one_of(@texts) . (rand() < 0.3 ? number(99) : ''));
}

# Mostly one that is stored out of line.
sub a_body
{
	my $chance = rand;

	return $chance < 0.1 ? 'NULL' : $chance < 0.25 ? a_text() : sprintf 'repeat(%s, %d)', sql_literal(one_of(@texts) . number(1_000_000)), 400 + number(400);
}

# SQL that finds one table by the name that it has now; psql has it in a variable.
sub now_called { return $_[0] =~ /^moving/ ? ":$_[0]" : $_[0]; }

sub more_columns
{
	my ($table, $id) = @_;

	return (', code', ', ' . sql_literal(one_of('c', 'd"', ''))) if $table eq 'by_index';
	return (', _id, "per%cent", _meta', ', ' . number(9) . ', ' . a_text() . ', ' . a_text()) if $table eq 'still';
	return (', n, at, bin, f, b, j, l, i', ', ' . join ', ', one_of('1.50', '1e30', 'NULL', q('NaN')), one_of(q('2026-01-02 03:04:05.678901+05'), q('infinity'), q('0044-03-15 BC')), one_of(q('\\x00ff22'), q('')), one_of(q('0.1'), q('1e-300'), q('-Infinity'), '1.0/3'),
		one_of(qw(true false NULL)), one_of(q('{"a": "\\"q\\"\\n", "b": null}'), 'NULL'), one_of(q('{1,NULL,3}'), q('{}')), one_of(q('1 year -2 days 03:00'), 'NULL'))
	  if $table eq 'plain';
	return ('', '');
}

sub change_keyed
{
	my $table = shift // one_of(@keyed);
	my $name = now_called($table);
	my ($id, $other) = (some_id(), some_id());
	my $chance = rand;

	if ($chance < 0.3)
	{
		my ($columns, $values) = more_columns($table);
		# A deferrable key settles no conflict.
		return "INSERT INTO $name (id, a, body$columns) SELECT $id, " . a_text() . ', ' . a_body() . "$values WHERE NOT EXISTS (SELECT FROM $name WHERE id = $id);";
	}
	return "UPDATE $name SET a = " . a_text() . " WHERE id = $id;" if $chance < 0.4;
	return "UPDATE $name SET a = " . a_text() . " WHERE id % 3 = 1;" if $chance < 0.45;
	return "UPDATE $name SET body = " . a_body() . " WHERE id = $id;" if $chance < 0.52;
	return "UPDATE $name SET a = a WHERE id IN ($id, $other);" if $chance < 0.54;
	return "UPDATE $name SET id = $other" . one_of('', ', a = ' . a_text(), ', body = ' . a_body()) . " WHERE id = $id AND NOT EXISTS (SELECT FROM $name WHERE id = $other);" if $chance < 0.64;
	return "UPDATE $name SET id = -1000 WHERE id = $id; UPDATE $name SET id = $id WHERE id = $other; UPDATE $name SET id = $other WHERE id = -1000;" if $chance < 0.72;
	return "UPDATE full_late SET id = 41 - id WHERE id BETWEEN 1 AND 40;" if $chance < 0.75;
	return "UPDATE by_index SET code = " . sql_literal(one_of('c', 'e,', "\\N")) . one_of('', ', a = ' . a_text()) . " WHERE id = $id;" if $chance < 0.79;
	return "SELECT fill_x(" . sql_literal($table) . "::text::regclass, $id, " . number(1000) . ");" if $chance < 0.84 && $table !~ /^moving/;
	return "DELETE FROM $name WHERE id = $id;" if $chance < 0.96;
	return "DELETE FROM $name WHERE id % 5 = 2;" if $chance < 0.98;
	return one_of("TRUNCATE $name;", "TRUNCATE $name, full_free;", "TRUNCATE parted;", "BEGIN; TRUNCATE $name; ROLLBACK;") =~ s/^BEGIN; (.*) ROLLBACK;/SAVEPOINT t; $1 ROLLBACK TO t;/r;
}

# Rows that are there more than once, and NULLs.
sub change_free
{
	my $id = one_of(1 .. 4, 'NULL');
	my $where = $id eq 'NULL' ? 'id IS NULL' : "id = $id";
	my $chance = rand;

	return "INSERT INTO full_free SELECT $id, " . one_of(a_text(), "''", 'NULL') . ', ' . one_of('NULL', a_body()) . ' FROM generate_series(1, ' . number(2) . ');' if $chance < 0.5;
	return "UPDATE full_free SET a = " . a_text() . " WHERE ctid = (SELECT min(ctid) FROM full_free WHERE $where);" if $chance < 0.6;
	return "UPDATE full_free SET a = a WHERE $where;" if $chance < 0.65;
	return "UPDATE full_free SET id = " . one_of(1 .. 4, 'NULL') . " WHERE ctid = (SELECT max(ctid) FROM full_free WHERE $where);" if $chance < 0.72;
	return "SELECT fill_x('full_free', $id, 8);" if $chance < 0.76 && $id ne 'NULL';
	return "DELETE FROM full_free WHERE ctid = (SELECT min(ctid) FROM full_free WHERE $where);" if $chance < 0.92;
	return "DELETE FROM full_free WHERE $where;";
}

sub change_parted
{
	my $id = some_id();
	my $new = 2 + int rand 6;
	my $region = 'some_region(' . number(1000) . ')';
	my $chance = rand;

	return "INSERT INTO parted (id, region, a, body) VALUES ($id, $region, " . a_text() . ', ' . a_body() . ') ON CONFLICT DO NOTHING;' if $chance < 0.4;
	return "UPDATE parted SET a = " . a_text() . " WHERE id = $id;" if $chance < 0.5;
	return "UPDATE parted p SET region = $region WHERE id = $id AND NOT EXISTS (SELECT FROM parted q WHERE q.id = p.id AND q.region <> p.region);" if $chance < 0.65;
	return "UPDATE parted p SET id = " . some_id() . " WHERE ctid IN (SELECT ctid FROM parted WHERE id = $id LIMIT 1);" if $chance < 0.75;
	return "SELECT fill_x('parted', $id, " . number(1000) . ");" if $chance < 0.8;
	return "CREATE TABLE IF NOT EXISTS parted_$new PARTITION OF parted FOR VALUES IN ($new);" if $chance < 0.83;
	return "DELETE FROM parted WHERE id = $id;";
}

sub change_tables
{
	my $table = one_of(@shaped);
	my $n = number(100_000);
	my $chance = rand;

	return "SELECT rename_table('" . one_of('moving_1', 'moving_2') . "', $n);" if $chance < 0.15;
	return 'SELECT swap_tables();' if $chance < 0.2;
	return "SELECT change_shape('shaped', 'identity', $n);" if $chance < 0.25;
	return "SELECT change_shape(named('$table'), " . sql_literal(one_of('add', 'add default', 'add volatile', 'add two', 'drop', 'rename', 'swap', 'replace', 'type', 'not null', 'null')) . ", $n);";
}

sub change
{
	my $chance = rand;

	return $chance < 0.65 ? change_keyed() : $chance < 0.8 ? change_free() : $chance < 0.95 ? change_parted() : change_tables();
}

sub transaction
{
	my ($session) = @_;
	my @changes = map { change() } 1 .. number(5);
	my $names = join ', ', map { "named('$_') AS $_" } qw(moving_1 moving_2);
	my $gid = "replay $session " . number(1_000_000_000);
	my $chance = rand;
	my @end = $chance < 0.75 ? ('COMMIT;') : $chance < 0.8 ? ('ROLLBACK;') : ("PREPARE TRANSACTION '$gid';", 'SELECT pg_sleep(' . (rand() < 0.3 ? 0.1 : 0) . ');', ($chance < 0.95 ? 'COMMIT' : 'ROLLBACK') . " PREPARED '$gid';");

	# What is rolled back to a savepoint, or released.
	if (rand() < 0.35)
	{
		my $at = int rand @changes;

		splice @changes, $at, 0, 'SAVEPOINT a;', change(), 'SAVEPOINT b;', change(), rand() < 0.5 ? 'RELEASE b;' : 'ROLLBACK TO b;', change(), rand() < 0.5 ? 'RELEASE a;' : 'ROLLBACK TO a;';
	}
	return ("SELECT $names \\gset", 'BEGIN;', @changes, @end, 'SELECT pg_sleep(0.03);');
}

# The file of a chunk of transactions.  Those that the last one has left prepared are finished first.
sub chunk
{
	my ($seed, $session, $chunk) = @_;
	my $path = $node->basedir . "/$source.$session.$chunk.sql";
	my $chance = int rand 2**31;

	srand $seed * 1_000_003 + $session * 10_007 + $chunk;
	open my $file, '>', $path or die "could not write $path: $!";
	print $file "SELECT format('COMMIT PREPARED %L', gid) FROM pg_prepared_xacts WHERE database = current_database() AND gid LIKE 'replay $session %' \\gexec\n";
	print $file join("\n", transaction($session)), "\n" foreach 1 .. 15;
	close $file;
	srand $chance;
	return $path;
}

# ------------------------------------------------------------------ one round

my (%count, @complaints);

# A process that lives for a moment, if it can be caught within a few seconds.
sub catch_process
{
	my ($condition, $function) = @_;
	my $until = time + 4;

	while (time < $until)
	{
		my ($status, $pid) = try('SELECT min(pid) FROM pg_stat_activity WHERE ' . $condition);

		go_on(0.01);
		next unless $status == 0 && $pid;
		sleep rand 0.1;
		if ($function ? (try("SELECT $function(pid) FROM pg_stat_activity WHERE pid = $pid AND $condition"))[1] eq 't' : kill 'KILL', $pid)
		{
			server_is_up();
			return 1;
		}
	}
	return 0;
}

my @happenings = ('delivered', 'read', 'reader killed', 'publication changed', 'format changed');
my $caller = q(state = 'active' AND query ~ '^SELECT s3export.deliver');
my %fault = (
	'uploader killed' => sub { catch_process(q(backend_type = 's3export uploader')) },
	'worker killed' => sub { catch_process(q(backend_type = 's3export current')) },
	'worker terminated' => sub { catch_process(q(backend_type = 's3export current'), 'pg_terminate_backend') },
	'caller terminated' => sub { catch_process($caller, 'pg_terminate_backend') },
	'caller cancelled' => sub { catch_process($caller, 'pg_cancel_backend') });

my ($seed, @loads, @chunks, $delivery, $publishing, $reader, $reader_until, $next_reader, $next_delivery, $next_publishing);

sub keep_loading
{
	foreach my $session (0 .. 2)
	{
		next if $loads[$session] && !ended($loads[$session]);
		if ($loads[$session])
		{
			end_of($loads[$session]);
			$count{"error $1"}++ while $loads[$session]{err} =~ /(?:ERROR|FATAL):  ([0-9A-Z]{5})/g;
			push @complaints, "$1 in a session: $2" while $loads[$session]{err} =~ /ERROR:  (XX...|42601|42804|42883): (.*)/g;
			sleep 0.2 if $loads[$session]{err} =~ /could not connect|connection to server/;
		}
		$loads[$session] = start_session('-f', chunk($seed, $session, $chunks[$session]++));
	}
	return;
}

sub keep_delivering
{
	if ($delivery && ended($delivery))
	{
		end_of($delivery);
		$count{ $delivery->{err} =~ /(?:ERROR|FATAL|PANIC):  ([0-9A-Z]{5})/ ? "delivery $1" : $delivery->{err} =~ /connection|server/ ? 'delivery lost' : 'delivered' }++;
		undef $delivery;
		return;
	}
	return if $delivery || $publishing || time < $next_delivery;
	$delivery = start_session('-c', one_of('SELECT s3export.deliver()', q(SELECT s3export.deliver('replay'))));
	$next_delivery = time + rand 0.6;
	return;
}

# Ways to write the same.
sub some_format
{
	my %format = (header => one_of('true', 'false'), '"null"' => sql_literal(one_of('', '\\N', 'NULL')), force_quote => sql_literal(one_of('{}', '{*}')), heartbeat => sql_literal(one_of('1 s', 'infinity')), compression => sql_literal(one_of('none', 'gzip')));

	return map { $_ => \$format{$_} } sort keys %format;
}

# The table "coming" leaves the publication, and comes back with its rows, for which no delivery may run.  Or the
# format changes.
sub keep_publishing
{
	return if $publishing && !ended($publishing);
	if ($publishing)
	{
		$count{ $publishing->{what} . (end_of($publishing) == 0 ? ' changed' : ' not changed') }++;
		undef $publishing;
		$next_publishing = time + 0.5 + rand 2;
	}
	return if time < $next_publishing;
	my ($status, $there) = published();

	return if $status != 0;
	if (rand() < 0.3)
	{
		my %format = some_format();

		$publishing = start_session('-c', "SELECT s3export.alter_connector('replay', " . join(', ', map { "$_ => ${ $format{$_} }" } sort keys %format) . ')');
		$publishing->{what} = 'format';
		return;
	}
	return if $delivery && !$there;
	$publishing = start_session('-v', 'ON_ERROR_STOP=1', '-c', $there ? 'ALTER PUBLICATION s3export_replay DROP TABLE coming' : q(SELECT s3export.add_table('replay', 'coming')));
	$publishing->{what} = 'publication';
	return;
}

sub published
{
	my ($status, $out, $err) = (0, '', '');

	$status = IPC::Run::run([ 'psql', '-XAtq', '-d', $node->connstr($source), '-c', q(SELECT count(*) FROM pg_publication_tables WHERE tablename = 'coming') ], '<', \undef, '>', \$out, '2>', \$err) ? 0 : 1;
	return ($status, $out + 0);
}

# The reader is killed half of the time, if it lives so long; Python needs 0.3 seconds to begin.
sub keep_reading
{
	if (!$reader)
	{
		return if time < $next_reader;
		$reader = start_consumer($copy);
		$reader_until = time + (rand() < 0.5 ? 0.25 + rand 0.4 : 60);
		return;
	}
	if (ended($reader))
	{
		$count{ end_of($reader) == 0 ? 'read' : 'reader failed' }++;
		judge_reader($reader);
	}
	elsif (time < $reader_until)
	{
		return;
	}
	else
	{
		$reader->{handle}->signal('KILL');
		$count{'reader killed'}++;
		end_of($reader);
	}
	undef $reader;
	$next_reader = time + rand 1.5;
	return;
}

# A copy of the table that comes and goes may be interrupted.
sub may_be
{
	my ($table, $gap) = @_;

	return $table eq 'public.coming';
}

sub none
{
	my ($what, @wrong) = @_;

	return is(join("\n", splice @wrong, 0, 10), '', "seed $seed: no $what");
}

# A server that has gone is the only trouble that a reader may have.
sub judge_reader
{
	my ($session) = @_;
	my @lines = grep { !/^warning: \S+: (.*?): (.*)$/ || !may_be($1, $2) } split /\n/, $session->{err};

	return if !@lines || $session->{err} =~ /OperationalError|InterfaceError|AdminShutdown|CrashShutdown|server closed the connection/;
	push @complaints, "reader: $session->{err}";
	return;
}

sub go_on
{
	my ($for) = @_;
	my $until = time + $for;

	do
	{
		keep_loading();
		keep_delivering();
		keep_publishing();
		keep_reading();
		sleep 0.02;
	} while (time < $until);
	return;
}

sub round
{
	($seed, my $last) = @_;
	my $folder = unique_folder();

	diag("S3EXPORT_TEST_SEED=$seed");
	srand $seed;
	(%count, @complaints, @loads, @chunks) = ();
	@chunks = (0, 0, 0);
	($source, $copy) = ("source_$seed", "copy_$seed");
	$node->safe_psql('postgres', "CREATE DATABASE $_") foreach $source, $copy;
	$node->safe_psql($source, "CREATE EXTENSION s3export; $tables");
	# Rows that are there before.
	system_log_load(chunk($seed, 9, 0)) foreach 1;
	$node->safe_psql($source, 'SELECT ' . connector_sql('replay', kind => 'currents', folder_path => $folder, max_events_per_file => \one_of(50, 15000), some_format(),
			tables => '{' . join(',', qw(plain full_key full_late full_free by_index parted coming shaped still empty), map { '"' . s/(["\\])/\\$1/gr . '"' } split /\n/, $node->safe_psql($source, "SELECT named('moving_1') UNION ALL SELECT named('moving_2')")) . '}'));
	launch($node, 'replay', copy_existing => 1, dbname => $source);
	$uri = $node->safe_psql($source, 'SELECT uri FROM s3export.currents');
	($delivery, $publishing, $reader, $next_reader, $next_delivery, $next_publishing) = (undef, undef, undef, 0, 0, 0);

	my $started = time;
	my @plan = sort { rand() <=> 0.5 } sort keys %fault;

	# Where the machine is slow, faults find nobody: they are tried again.
	my $few = sub { grep({ $count{$_} } keys %fault) < 3 };
	while (@plan || time < $started + $seconds || time < $started + 5 * $seconds && ($few->() || grep { !$count{$_} } @happenings))
	{
		go_on(0.3 + rand 2);
		@plan = sort { rand() <=> 0.5 } sort keys %fault if !@plan && time < $started + 5 * $seconds && $few->();
		my $fault = shift @plan // next;

		$count{$fault}++ if $fault{$fault}->();
	}
	come_to_rest();
	note(join ', ', map { "$_: $count{$_}" } sort keys %count);
	none('complaints', @complaints);
	none('objects beside the feed', grep { !/\/s3export\.source_/ } s3_list("$folder/"));
	none('faults of the feed', faults_of_feed());
	none('differences', differences($copy));
	cmp_ok($count{$_} // 0, '>', 0, "seed $seed: $_") foreach @happenings;
	cmp_ok(scalar(grep { $count{$_} } keys %fault), '>=', 3, "seed $seed: faults have happened");
	check_breaks() if $last;
	$node->safe_psql($source, q(SELECT s3export.drop_connector('replay')));
	$node->safe_psql('postgres', "DROP DATABASE $_ WITH (FORCE)") foreach $source, $copy;
	return;
}

sub system_log_load
{
	my ($file) = @_;
	my $session = start_session('-f', $file);

	end_of($session);
	push @complaints, "$1 at first: $2" while $session->{err} =~ /ERROR:  (XX...|42601|42804|42883): (.*)/g;
	return;
}

# The sessions end, all is delivered, and all of it read.
sub come_to_rest
{
	end_of($_) foreach grep { defined } @loads, $delivery, $publishing;
	$reader->{handle}->signal('KILL') if $reader;
	end_of($reader) if $reader;
	foreach my $gid (split /\n/, $node->safe_psql($source, 'SELECT gid FROM pg_prepared_xacts WHERE database = current_database()'))
	{
		$node->safe_psql($source, "COMMIT PREPARED '$gid'");
	}
	# For check_breaks().
	$node->safe_psql($source, q(INSERT INTO plain (id) VALUES (50); INSERT INTO still (id) VALUES (50); INSERT INTO by_index (id, code) VALUES (50, 'c')));
	# A copy of it may have been interrupted: then its rows are missing, as a gap has said.
	$node->safe_psql($source, 'ALTER PUBLICATION s3export_replay DROP TABLE coming') if (published())[1];
	poll_until(sub { eval { $node->safe_psql($source, q(SELECT s3export.deliver('replay'); SELECT s3export.add_table('replay', 'coming'))); 1 } }, 'a copy of the table that comes and goes');
	poll_until(sub { eval { deliver($node, 'replay', dbname => $source)->{events} == 0 } }, 'the last events');
	is(deliver($node, 'replay', dbname => $source)->{events}, 0, "seed $seed: nothing is left to deliver");
	foreach my $time ('once more', 'again, with nothing to do')
	{
		my $last = start_consumer($copy);

		is(end_of($last), 0, "seed $seed: the reader reads $time");
		judge_reader($last);
		push @complaints, "reader: $last->{err}" if $last->{err} =~ /Error/;
	}
	return;
}

# What has been read as JSON, in the bytes that it had: IPC::Run takes a string for the bytes that Perl keeps it in.
sub bytes_of
{
	my ($data) = @_;

	return { map { bytes_of($_) } %$data } if ref $data eq 'HASH';
	return [ map { bytes_of($_) } @$data ] if ref $data eq 'ARRAY';
	utf8::downgrade($data) if defined $data && !ref $data;
	return $data;
}

# What is wrong with the feed: its batches are one chain, have each file once, and say what is in it.
sub faults_of_feed
{
	my ($prefix) = $uri =~ m{^s3://[^/]+/(.*)$};
	my %data = map { substr($_->[0], length $prefix) => $_->[1] } s3_get_all($prefix);
	my %times = map { $_ => 0 } grep { /^_table=/ } keys %data;
	my ($previous, @wrong);

	foreach my $path (sort grep { /^_batches\// } keys %data)
	{
		my $batch = bytes_of(JSON::PP->new->decode($data{$path}));
		my %sum = (files => 0, rows => 0, bytes => 0);

		push @wrong, "$path is called $batch->{batch}" if $path ne "_batches/$batch->{batch}.json";
		push @wrong, "$batch->{batch} follows " . ($batch->{previous} // 'none') . ', not ' . ($previous ? $previous->{batch} : 'none') unless follows($batch, $previous);
		$previous = $batch;
		foreach my $file (@{ $batch->{files} })
		{
			push @wrong, faults_of_file($file, $data{ $file->{path} });
			push @wrong, "$file->{path}: no $file->{schema}" unless exists $data{ $file->{schema} };
			$times{ $file->{path} }++;
			$sum{files}++;
			$sum{$_} += $file->{$_} foreach 'rows', 'bytes';
		}
		push @wrong, "$batch->{batch}: totals" if grep { $batch->{totals}{$_} != $sum{$_} } keys %sum;
		push @wrong, "$batch->{batch}: $batch->{events} events, $sum{rows} rows" if $batch->{events} != $sum{rows};
		push @wrong, "$batch->{batch}: gap of " . ($_->{table} // 'all') . ": $_->{reason}" foreach grep { !may_be($_->{table} // 'all', $_->{reason}) } @{ $batch->{gaps} };
	}
	push @wrong, 'there is no batch' unless defined $previous;
	push @wrong, map { "$_ is in $times{$_} batches" } grep { $times{$_} != 1 } sort keys %times;
	note(sprintf '%d files', scalar keys %times);
	return @wrong;
}

sub faults_of_file
{
	my ($file, $data) = @_;

	return "$file->{path} is not there" unless defined $data;
	return "$file->{path} is not $file->{uri}" if $file->{uri} ne "$uri$file->{path}";
	return "$file->{path}: " . length($data) . " bytes, not $file->{bytes}" if length $data != $file->{bytes};
	if ($file->{path} =~ /\.gz$/)
	{
		gunzip(\$data => \my $plain, MultiStream => 1) or return "$file->{path}: $GunzipError";
		$data = $plain;
	}
	my @ids = $data =~ /^"?([0-9A-F]{8}-[0-9A-F]{16}-[0-9A-F]{10})"?,/mg;

	return "$file->{path}: " . scalar(@ids) . " rows, not $file->{rows}" if @ids != $file->{rows};
	return "$file->{path}: $ids[0] to $ids[-1], not $file->{first_id} to $file->{last_id}" if $ids[0] ne $file->{first_id} || $ids[-1] ne $file->{last_id};
	return;
}

# What COPY writes of a table, as a list of sorted lines: it is the output function's text, as in a feed.
sub lines_of
{
	my ($database, $query) = @_;
	my $text = $node->safe_psql($database, "SET DateStyle = 'ISO'; SET TimeZone = 'UTC'; SET extra_float_digits = 1; SET IntervalStyle = 'postgres'; SET bytea_output = 'hex'; COPY ($query) TO STDOUT");

	return sort split /\n/, $text;
}

sub quote_name { return '"' . ($_[0] =~ s/"/""/gr) . '"'; }

# In what a copy differs from the source, row by row, as multisets.
sub differences
{
	my ($database) = @_;
	my $json = JSON::PP->new;
	my %copies = map { ("$_->{schema_name}\0$_->{table_name}" => $_->{table}) } grep { $_->{table} !~ / \(version \d+\)$/ }
	  values %{ bytes_of($json->decode($node->safe_psql($database, q(SELECT coalesce(json_object_agg(key, value), '{}') FROM consumer_position, jsonb_each(versions::jsonb))))) };
	my $tables = bytes_of($json->decode($node->safe_psql($source, <<'SQL')));
SELECT json_agg(json_build_object('schema', schemaname, 'name', tablename, 'columns', ARRAY(SELECT attname FROM pg_attribute WHERE attrelid = format('%I.%I', schemaname, tablename)::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum)))
FROM pg_publication_tables WHERE pubname = 's3export_replay'
SQL
	my @wrong = @$tables == 12 ? () : (scalar(@$tables) . ' tables are sent');
	my $all = 0;

	foreach my $table (@$tables)
	{
		my $name = delete $copies{"$table->{schema}\0$table->{name}"};

		if (!defined $name)
		{
			push @wrong, "$table->{schema}.$table->{name} has no copy";
			next;
		}
		my @names = map { s/^(?=_+(?:id|op|committed_at|meta)$)/_/r } @{ $table->{columns} };
		my $columns = $node->safe_psql($database, "SELECT string_agg(attname, ' ' ORDER BY attname COLLATE \"C\") FROM pg_attribute WHERE attrelid = " . sql_literal(quote_name($name)) . '::regclass AND attnum > 0 AND NOT attisdropped');

		if ($columns ne join ' ', sort @names)
		{
			push @wrong, "$name has columns $columns, not " . join ' ', sort @names;
			next;
		}
		my @wanted = lines_of($source, 'SELECT ' . join(', ', map { quote_name($_) } @{ $table->{columns} }) . " FROM " . quote_name($table->{schema}) . '.' . quote_name($table->{name}));
		my %difference;

		$all += @wanted;
		$difference{$_}++ foreach @wanted;
		$difference{$_}-- foreach lines_of($database, 'SELECT ' . join(', ', map { quote_name($_) } @names) . ' FROM ' . quote_name($name));
		push @wrong, map { "$name: only in the " . ($difference{$_} > 0 ? 'source' : 'copy') . ': ' . substr $_, 0, 300 } grep { $difference{$_} } sort keys %difference;
	}
	push @wrong, map { "$_ is a copy of nothing" } sort values %copies;
	note("$all rows");
	return @wrong;
}

# --------------------------------------------------------------- broken feeds

# A new reader of all of the feed.
sub read_again
{
	$node->safe_psql('postgres', $_) foreach 'DROP DATABASE IF EXISTS again', 'CREATE DATABASE again';
	my $session = start_consumer('again');

	return (end_of($session), $session->{err} =~ s/^warning: .*\n//mgr);
}

# The test notices what it is made for.
sub check_breaks
{
	my ($prefix) = $uri =~ m{^s3://[^/]+/(.*)$};
	my ($status, $error) = read_again();

	is($status, 0, 'the feed can be read from its beginning') or diag($error);
	none('differences then', differences('again'));
	$node->safe_psql($copy, 'DELETE FROM "public.still" WHERE ctid = (SELECT min(ctid) FROM "public.still"); INSERT INTO "public.by_index" SELECT * FROM "public.by_index" LIMIT 1; UPDATE "public.plain" SET a = coalesce(a || \'.\', \'\')');
	my $found = join "\n", differences($copy);

	like($found, qr/^public\.still: only in the source: /m, 'a row that is missing is found');
	like($found, qr/^public\.by_index: only in the copy: /m, 'so is one that is there twice');
	like($found, qr/^public\.plain: only in the copy: /m, 'and a value that is wrong');

	my @batches = s3_list("${prefix}_batches/");
	my $removed = s3_get($batches[ @batches / 2 ]);

	s3_remove($batches[ @batches / 2 ]);
	like(join("\n", faults_of_feed()), qr/ follows /, 'a batch that is missing is found');
	($status, $error) = read_again();
	isnt($status, 0, 'a reader stops there');
	like($error, qr/ follows .*, but the last one applied is /, 'and says why');
	s3_put($batches[ @batches / 2 ], $removed);

	# The first two files of the version that has the most.
	my %files;

	push @{ $files{ s{_hour=.*}{}r } }, $_ foreach s3_list("${prefix}_table=");
	my ($one, $two) = @{ (sort { @$b <=> @$a } values %files)[0] };
	my @swapped = map { s3_get($_) } $one, $two;

	s3_put($one, $swapped[1]);
	s3_put($two, $swapped[0]);
	like(join("\n", faults_of_feed()), qr/\Q@{[ substr $one, length $prefix ]}\E: /, 'files that have changed places are found');
	($status, $error) = read_again();
	isnt($status, 0, 'a reader stops there');
	like($error, qr/ is not what its batch and its schema say/, 'and says why');
	return;
}

round($first_seed + $_, $_ == $rounds - 1) foreach 0 .. $rounds - 1;
$node->stop;
done_testing();
