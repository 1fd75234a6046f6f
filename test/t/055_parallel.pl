# Exports whose rows are sent by several processes: the same rows as COPY's, what
# must stay in one process does, and every way to end leaves nothing behind.
use strict;
use warnings;
use lib 'test/lib';
use IO::Uncompress::Gunzip ();
use PostgreSQL::Test::Utils;
use S3Export;
use S3Faults;
use Test::More;
use Time::HiRes qw(time sleep);

s3_or_skip();
my $node = s3export_node('main', 'max_worker_processes = 16', 'max_parallel_workers = 8', 's3export.part_size = 5MB', 'autovacuum = off');
my $folder = unique_folder();
my $number = 0;

create_connector($node, 'lake', folder_path => $folder);

# Small tables are worth workers; the second makes sure that workers do it all.
my $small = 'SET min_parallel_table_scan_size = 0';
my $workers_only = "$small; SET parallel_leader_participation = off";

sub sorted
{
	return join '', sort split /^/, $_[0];
}

# Exports "source".  Returns a hash: bytes of the object, rows as copy_to returns them,
# workers and leader: how many rows each worker, and the leader, has sent;
# leader is undef when the query ran in one process.  Options: arguments of
# copy_to, before and after (SQL).
sub export
{
	my ($source, %options) = @_;
	my $arguments = $options{arguments} // 'header => false';
	my $key = $options{key} // 'object' . ++$number . '.csv';
	my ($status, $out, $err) = $node->psql('postgres', join('; ', $options{before} // 'SELECT',
			'SET client_min_messages = debug1',
			"SELECT 'rows', rows FROM s3export.copy_to('lake', " . sql_literal($source) . ", '$key', $arguments)",
			$options{after} // 'SELECT'), on_error_stop => 1);
	my %result = (workers => {}, messages => $err);

	die "copy_to failed: $err" if $status != 0;
	($result{rows}) = $out =~ /^rows\|(\d+)$/m;
	$result{workers}{$1} = $2 while $err =~ /parallel worker (\d+) has sent (\d+) rows/g;
	$result{leader} = $1 if $err =~ /the leader has sent (\d+) rows/;
	$result{by_workers} = eval join '+', 0, values %{ $result{workers} };
	$result{bytes} = s3_get("$folder/$key") unless $options{absent};
	return \%result;
}

# A table that is named, as COPY has it: without generated columns.
sub query_of
{
	my ($source) = @_;

	return 'SELECT id, customer, note, amount, at, added FROM orders' if $source eq 'orders';
	return $source =~ /^\w+$/ ? "SELECT * FROM $source" : $source;
}

# Two tests: all rows are sent by workers, and they are COPY's.
sub parallel_ok
{
	my ($source, $name, %options) = @_;
	my $before = $options{before} // 'SELECT';
	my $result = export($source, %options, before => "$before; $workers_only");

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok(sorted($result->{bytes}) eq sorted(copy_oracle($node, query_of($source), $options{copy}, $before)), "$name: the rows are COPY's");
	ok(keys %{ $result->{workers} } == 2 && $result->{leader} == 0 && $result->{by_workers} == $result->{rows},
		"$name: workers have sent them") or diag("rows $result->{rows}, workers: " . join(' ', %{ $result->{workers} }));
	return $result;
}

# Two tests: one process sends the rows, in the order of COPY's.
sub serial_ok
{
	my ($source, $name, %options) = @_;
	my $before = $options{before} // 'SELECT';
	my $result = export($source, %options, before => "$before; $small");

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok($result->{bytes} eq copy_oracle($node, $source, $options{copy}, $before), "$name: what COPY writes");
	is($result->{leader}, undef, "$name: in one process");
	return;
}

$node->safe_psql('postgres', <<'SQL');
CREATE FUNCTION slowly(i int) RETURNS int LANGUAGE plpgsql PARALLEL SAFE AS $$BEGIN PERFORM pg_sleep(0.1); RETURN i; END$$;
CREATE TABLE orders (id int PRIMARY KEY, customer text, note text, amount numeric, at timestamptz,
	twice numeric GENERATED ALWAYS AS (amount * 2) STORED, gone int);
INSERT INTO orders (id, customer, note, amount, at) SELECT i, 'customer ' || i % 100, CASE i % 4 WHEN 0 THEN NULL WHEN 1 THEN ''
	WHEN 2 THEN 'a "quoted", note; \N' ELSE 'ünïcödé' END, i * 1.25, '2026-01-01Z'::timestamptz + i * interval '1 minute'
	FROM generate_series(1, 20000) i;
ALTER TABLE orders DROP COLUMN gone;
ALTER TABLE orders ADD COLUMN added text DEFAULT 'late, but here';
CREATE TABLE customers AS SELECT 'customer ' || i AS name, i AS number FROM generate_series(0, 99) i;
CREATE TABLE measures (d date, v int, note text) PARTITION BY RANGE (d);
CREATE TABLE measures_1 PARTITION OF measures FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE measures_2 (v int, note text, d date);
ALTER TABLE measures ATTACH PARTITION measures_2 FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
INSERT INTO measures SELECT '2026-01-05'::date + i % 50, i, 'm' || i FROM generate_series(1, 10000) i;
CREATE MATERIALIZED VIEW stored AS SELECT id, customer FROM orders;
CREATE VIEW seen AS SELECT id * 2 AS twice, note FROM orders WHERE id % 3 = 0;
CREATE TABLE nothing (a int, b text);
ANALYZE;
SQL

# ---- the same rows
parallel_ok('orders', 'a table');
parallel_ok('SELECT * FROM orders WHERE amount > 10000 AND note IS NOT NULL', 'WHERE');
parallel_ok(q(SELECT upper(customer) AS c, id + 1, note || '!', now() IS NULL, current_user FROM orders), 'expressions');
parallel_ok('SELECT id, id, customer, id FROM orders', 'columns that are asked for twice');
parallel_ok('SELECT o, ROW(id, note), ARRAY[id, 1] FROM orders o', 'composite values');
parallel_ok('SELECT tableoid::regclass, ctid, xmin IS NULL, id FROM orders', 'system columns');
parallel_ok('SELECT FROM orders', 'no column at all');
parallel_ok('measures', 'a partitioned table');
parallel_ok('stored', 'a materialized view');
parallel_ok('seen', 'a view');
parallel_ok('SELECT o.id, c.number FROM orders o JOIN customers c ON c.name = o.customer', 'a join');
parallel_ok('SELECT id, customer FROM orders UNION ALL SELECT v, note FROM measures', 'UNION ALL');
parallel_ok('SELECT id FROM orders WHERE amount > (SELECT avg(amount) FROM orders)', 'a subquery that the leader computes first');
parallel_ok('WITH big AS (SELECT * FROM orders WHERE id > 50) SELECT id, at FROM big', 'a WITH clause');
parallel_ok('SELECT id, generate_series(1, 2) FROM orders', 'a function that returns sets');

my $header = export('orders', before => $workers_only, arguments => 'header => true')->{bytes};
like($header, qr/\Aid,customer,note,amount,at,added\n/, 'the header is the first line');
is(scalar(() = $header =~ /^id,customer/mg), 1, 'and there is one');
ok(sorted($header) eq sorted(copy_oracle($node, query_of('orders'), 'HEADER')), 'above the rows');

my $both = export('SELECT * FROM orders, generate_series(1, 20)', before => $small);
ok(sorted($both->{bytes}) eq sorted(copy_oracle($node, 'SELECT * FROM orders, generate_series(1, 20)')),
	'leader and workers: the rows are COPY\'s');
is($both->{leader} + $both->{by_workers}, 400000, 'leader and workers: each row once');
cmp_ok($both->{leader}, '>', 0, 'the leader sends rows too');
is($both->{rows}, 400000, 'and the total is that of all');

# ---- options and settings
foreach my $options (
	[ q(delimiter => ';', "null" => 'NULL'), q(DELIMITER ';', NULL 'NULL') ],
	[ q(quote => '''', escape => '\\'), q(QUOTE '''', ESCAPE '\\') ],
	[ q("null" => '\\N'), q(NULL '\\N') ],
	[ q("null" => ''), q(NULL '') ],
	[ q("null" => ' a "(b) '), q(NULL ' a "(b) ', QUOTE '|'), q(, quote => '|') ],
	[ q(force_quote => '{*}'), 'FORCE_QUOTE *' ],
	[ q(force_quote => '{note,renamed}'), 'FORCE_QUOTE (note, renamed)' ],
	[ q(encoding => 'LATIN1'), q(ENCODING 'LATIN1') ])
{
	my ($ours, $theirs, $more) = @$options;

	parallel_ok('SELECT id AS renamed, customer, note, at FROM orders', "as COPY: $ours",
		arguments => "header => false, $ours" . ($more // ''), copy => $theirs);
}
error_like($node, "$workers_only; SELECT s3export.copy_to('lake', 'orders', 'wrong.csv', force_quote => '{absent}')",
	{ sqlstate => '42703', message => qr/"absent"/ }, 'an unknown column in force_quote');
parallel_ok(q(SELECT at, id / 3.0::float8, convert_to(note, 'UTF8'), interval '1 day 2:03' * id FROM orders), 'the settings of the session',
	before => q(SET datestyle = 'SQL, DMY'; SET timezone = 'Asia/Kolkata'; SET extra_float_digits = -5; SET bytea_output = 'escape'; SET intervalstyle = 'sql_standard'));

SKIP:
{
	skip 'gzip is not in this build', 3 if $node->safe_psql('postgres', 'SELECT s3export.version()') !~ /\bgzip \(/;

	my $packed = export('SELECT * FROM orders, generate_series(1, 20)', before => $workers_only, key => 'packed.csv.gz', arguments => 'header => true');
	my $plain;

	IO::Uncompress::Gunzip::gunzip(\$packed->{bytes} => \$plain, MultiStream => 1);
	ok(sorted($plain) eq sorted(copy_oracle($node, 'SELECT * FROM orders, generate_series(1, 20)', 'HEADER')), 'workers compress');
	like($plain, qr/\Aid,/, 'the header comes first');
	is($packed->{by_workers}, 400000, 'and they have sent all');
}

# ---- how many workers
is_deeply([ keys %{ export('orders', before => $small, arguments => 'parallel => 1')->{workers} } ], [0], 'parallel => 1');
is(export('orders', before => $small, arguments => 'parallel => 0')->{leader}, undef, 'parallel => 0');
is_deeply([ sort keys %{ export('orders', before => "$small; SET s3export.max_parallel_workers = 1", arguments => 'parallel => 4')->{workers} } ],
	[0], 'the setting limits the argument');
is(export('orders', before => "$small; SET s3export.max_parallel_workers = 0")->{leader}, undef, 'and 0 turns it off');
is(export('orders', before => "$workers_only; SET max_parallel_workers_per_gather = 0")->{by_workers}, 20000,
	'it is a setting of its own, as rows cost more to format than to gather');
is(export('orders')->{leader}, undef, 'a small table is not worth workers');
is(export('measures')->{leader}, undef, 'nor are small partitions');
error_like($node, q(SELECT s3export.copy_to('lake', 'orders', 'wrong.csv', parallel => -1)),
	{ sqlstate => '22023', message => 'invalid value for argument "parallel": -1' }, 'parallel => -1');

is(export('orders', before => "$small; SET max_parallel_workers = 0")->{leader}, undef, 'a session that may have no workers plans none');
is_deeply([ keys %{ export('orders', before => "$small; SET max_parallel_workers = 1")->{workers} } ], [0], 'and no more than it may have');

# ---- workers that somebody else has
{
	my $busy = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', $small, '-c', 'SET parallel_setup_cost = 0', '-c',
			'SELECT count(*) FROM orders WHERE slowly(id) < 0' ], '<', \undef, '>', \my $out, '2>', \my $err);

	poll_until(sub { $node->safe_psql('postgres', q(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'parallel worker')) == 2 }, 'workers of others');
	my $alone = export('orders', before => "$small; SET max_parallel_workers = 2", arguments => 'header => true');
	is($alone->{leader}, 20000, 'no worker is to be had: the leader sends all rows');
	ok($alone->{bytes} eq copy_oracle($node, query_of('orders'), 'HEADER'), 'and they are COPY\'s');
	is(export('orders', before => "$workers_only; SET max_parallel_workers = 2")->{leader}, 20000, 'also when it was not to');
	is_deeply(export('orders', before => "$workers_only; SET max_parallel_workers = 3")->{workers}, { 0 => 20000 }, 'fewer than asked for');
	$node->safe_psql('postgres', q(SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE '%slowly(id)%' AND pid <> pg_backend_pid()));
	$busy->finish;
	poll_until(sub { $node->safe_psql('postgres', q(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'parallel worker')) == 0 }, 'the end of others');
}

# ---- empty results
my $empty = 'SELECT * FROM orders WHERE amount < 0';
is(export('nothing', before => $workers_only, arguments => 'header => true')->{bytes}, "a,b\n", 'an empty table');
is(export($empty, before => "$workers_only; SET enable_indexscan = off")->{bytes}, '', 'no row matches');
export($empty, before => $workers_only, arguments => q(on_empty => 'skip'), key => 'skipped.csv', absent => 1);
is_deeply([ s3_list("$folder/skipped.csv") ], [], 'on_empty => skip');
error_like($node, "$workers_only; SELECT s3export.copy_to('lake', " . sql_literal($empty) . ", 'none.csv', on_empty => 'error')",
	{ sqlstate => 'P0002' }, 'on_empty => error');

# ---- what stays in one process
$node->safe_psql('postgres', <<'SQL');
CREATE SEQUENCE counter;
CREATE FUNCTION unsafe(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN $1 + 1; END';
CREATE FUNCTION restricted(int) RETURNS int LANGUAGE plpgsql PARALLEL RESTRICTED AS 'BEGIN RETURN $1 + 1; END';
SQL
serial_ok('SELECT * FROM orders ORDER BY note, id DESC', 'ORDER BY');
serial_ok('SELECT * FROM (SELECT id, at FROM orders ORDER BY amount DESC, id) s', 'ORDER BY in a subquery');
serial_ok('SELECT * FROM orders ORDER BY id LIMIT 1000 OFFSET 5', 'LIMIT');
serial_ok('SELECT count(*), sum(amount) FROM orders', 'aggregates');
serial_ok('SELECT customer, count(*) FROM orders GROUP BY 1 ORDER BY 1', 'GROUP BY');
serial_ok('SELECT id, row_number() OVER (ORDER BY id) FROM orders', 'window functions');
serial_ok('SELECT * FROM scratch', 'a temporary table', before => 'CREATE TEMP TABLE scratch AS SELECT * FROM orders ORDER BY id; ANALYZE scratch');
serial_ok('SELECT unsafe(id) FROM orders', 'a function that is not safe');
serial_ok('SELECT restricted(id) FROM orders', 'one that only the leader may call', before => 'SET max_parallel_workers_per_gather = 0');
serial_ok('SELECT id, (SELECT min(number) FROM customers WHERE name = o.customer) FROM orders o', 'a subquery for each row', before => 'SET max_parallel_workers_per_gather = 0');
serial_ok('SELECT id FROM orders WHERE unsafe(id) > 7', 'such a function in WHERE');
serial_ok('SELECT 1 AS a UNION SELECT 1', 'UNION');
is(export(q(SELECT id, nextval('counter') FROM orders), before => $small)->{leader}, undef, 'nextval: in one process');
is(export(q(SELECT restricted(id) FROM orders), before => "$small; SET parallel_tuple_cost = 0; SET parallel_setup_cost = 0")->{rows}, 20000,
	'the caller\'s own settings may still choose Gather');
is(export('orders', before => "$small; SET force_parallel_mode = on; SET parallel_leader_participation = off")->{by_workers},
	20000, 'force_parallel_mode');

# ---- what the caller sees
parallel_ok('SELECT * FROM fresh', 'rows not committed yet, of a table not committed and locked',
	before => q(BEGIN; CREATE TABLE fresh AS SELECT g FROM generate_series(1, 5000) g; SAVEPOINT s; INSERT INTO fresh VALUES (-1);
		DELETE FROM fresh WHERE g = 7; UPDATE fresh SET g = -g WHERE g % 2 = 0; LOCK fresh));
parallel_ok('SELECT id, amount, note FROM orders', 'rows updated and deleted, not committed',
	before => q(BEGIN; UPDATE orders SET note = 'hot' WHERE id % 5 = 0; UPDATE orders SET id = -id WHERE id % 7 = 0; DELETE FROM orders WHERE id % 11 = 0));
$node->safe_psql('postgres', q(UPDATE orders SET note = 'hot' WHERE id % 5 = 0; UPDATE orders SET id = -id WHERE id % 7 = 0; DELETE FROM orders WHERE id % 11 = 0));
parallel_ok('orders', 'rows updated and deleted');
parallel_ok('orders', 'SERIALIZABLE', before => 'BEGIN ISOLATION LEVEL SERIALIZABLE');
parallel_ok('SELECT * FROM things', 'search_path',
	before => q(CREATE SCHEMA IF NOT EXISTS elsewhere; CREATE TABLE IF NOT EXISTS elsewhere.things AS SELECT g FROM generate_series(1, 1000) g; SET search_path = elsewhere));
is(export('VALUES (1)', before => $workers_only, after => q(DO $$ BEGIN BEGIN
	PERFORM s3export.copy_to('lake', 'SELECT 1 / (amount - 12.5) FROM orders', 'block.csv');
	EXCEPTION WHEN division_by_zero THEN PERFORM s3export.copy_to('lake', 'orders', 'block.csv'); END; END $$))->{by_workers}, 18182,
	'in a block, after a failure in another');

{
	my $before = copy_oracle($node, query_of('orders'));
	my ($in, $out, $err) = ('', '', '');
	my $handle = IPC::Run::start([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres') ], '<', \$in, '>', \$out, '2>', \$err);

	$in = "$workers_only; BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 'ready', count(*) FROM customers;\n";
	$handle->pump until $out =~ /ready/ || $err;
	$node->safe_psql('postgres', q(DELETE FROM orders WHERE id % 2 = 0; INSERT INTO orders (id) SELECT 100000 + i FROM generate_series(1, 1000) i));
	$in = "SELECT s3export.copy_to('lake', 'orders', 'repeatable.csv', header => false);\n\\q\n";
	$handle->finish;
	ok(sorted(s3_get("$folder/repeatable.csv")) eq sorted($before), 'REPEATABLE READ: rows as of the first query') or diag($err);
}

# ---- rights
$node->safe_psql('postgres', <<'SQL');
CREATE ROLE reader LOGIN;
GRANT pg_write_server_files TO reader; -- for COPY to compare with
SELECT s3export.grant_usage('lake', 'reader');
CREATE TABLE accounts (owner name, balance int);
INSERT INTO accounts SELECT CASE WHEN i % 3 = 0 THEN 'reader' ELSE 'postgres' END, i FROM generate_series(1, 9000) i;
ALTER TABLE accounts ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON accounts USING (owner = current_user);
GRANT SELECT ON accounts, measures TO reader;
CREATE FUNCTION leak(name, int) RETURNS bool LANGUAGE plpgsql COST 0.0001 PARALLEL SAFE AS
	$$ BEGIN IF $1 <> 'reader' THEN RAISE NOTICE 'leaked %', $2; END IF; RETURN true; END $$;
ANALYZE accounts;
SQL
parallel_ok('accounts', 'row security', before => 'SET ROLE reader');
unlike(parallel_ok('SELECT * FROM accounts WHERE leak(owner, balance)', 'row security and a function that leaks',
		before => 'SET ROLE reader')->{messages}, qr/leaked/, 'the function does not see other rows');
parallel_ok('measures', 'rights on the parent alone', before => 'SET ROLE reader');
error_like($node, "SET ROLE reader; $workers_only; SELECT s3export.copy_to('lake', 'orders', 'stolen.csv')",
	{ sqlstate => '42501', message => 'permission denied for table orders' }, 'no rights');
error_like($node, "SET ROLE reader; $workers_only; SELECT s3export.copy_to('lake', 'measures_1', 'stolen.csv')",
	{ sqlstate => '42501', message => 'permission denied for table measures_1' }, 'no rights on a partition itself');

# ---- while others write: balances move between rows, and the sum stays
$node->safe_psql('postgres', 'CREATE TABLE moves AS SELECT i AS id, 100 AS balance FROM generate_series(1, 5000) i; ANALYZE moves');
{
	my $stop = $node->basedir . '/stop';
	my $writer = IPC::Run::start([ 'bash', '-c', 'while [ ! -e "$1" ]; do psql -Xqd "$0" "${@:2}" || exit 1; done', $node->connstr('postgres'), $stop,
			'-c', 'UPDATE moves SET balance = balance + CASE WHEN id % 2 = 0 THEN -1 ELSE 1 END WHERE id % 50 < 25 AND id % 50 > 4 AND id > 0',
			'-c', q(INSERT INTO moves SELECT -nextval('counter'), 0 FROM generate_series(1, 100)), '-c', 'VACUUM moves' ],
		'<', \undef, '>', \my $out, '2>', \my $err);
	my ($wrong, $workers) = (0, 0);

	foreach my $round (1 .. 10)
	{
		my $result = export('SELECT id, balance FROM moves', before => $round % 2 ? $small : $workers_only, key => "moves$round.csv");
		my ($sum, %seen) = (0);

		foreach (split /\n/, $result->{bytes})
		{
			my ($id, $balance) = split /,/;

			$sum += $balance;
			$seen{$id}++;
		}
		$wrong++ if $sum != 500000 || grep({ $_ != 1 } values %seen) || keys %seen != $result->{rows};
		$workers += $result->{by_workers};
	}
	open my $file, '>', $stop;
	close $file;
	$writer->finish;
	is("$wrong$err", '0', 'while a table is updated, grows and is vacuumed, each export is of one snapshot');
	cmp_ok($workers, '>', 0, 'of rows sent by workers');
	cmp_ok($node->safe_psql('postgres', 'SELECT count(*) FROM moves WHERE id < 0'), '>', 0, 'the table has grown');
}

# ---- however it ends
my $endless = 'SELECT o.*, repeat(md5(o.id::text || g), 20) FROM orders o, generate_series(1, 1000000) g';

sub job
{
	my ($name, $columns) = @_;

	return $node->safe_psql('postgres', "SELECT $columns FROM s3export.jobs WHERE uri LIKE '%/$folder/$name' ORDER BY job_id DESC LIMIT 1");
}

sub nothing_left
{
	my ($name, $state, $fault, $error) = @_;
	my (@objects, @uploads);

	poll_until(sub { job($name, 'state') eq $state }, "the end of $name");
	poll_until(sub { $node->safe_psql('postgres', q(SELECT count(*) FROM pg_stat_activity WHERE backend_type IN ('parallel worker', 's3export uploader'))) == 0 },
		"the end of the processes of $name");
	@objects = s3_list("$folder/$name");
	@uploads = s3_uploads("$folder/$name");
	is_deeply([ @objects, @uploads ], [], "$name: no process, object or upload is left");
	fault_outcome($fault, caller_cell($error), job_cell($node, $name), bucket_cell($objects[0], undef, scalar @uploads)) if defined $fault;
	return;
}

foreach my $end (
	[ 'cancelled.csv', qr/ERROR:  57014: canceling statement due to user request/, 'pg_cancel_backend(leader_pid)' ],
	[ 'terminated.csv', qr/FATAL:  57P01/, 'pg_terminate_backend(leader_pid)' ],
	[ 'worker.csv', qr/(ERROR|FATAL):  57P01/, q((SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'parallel worker' LIMIT 1)) ],
	[ 'uploader.csv', qr/ERROR:  57P01: terminating the uploader/, 'pg_terminate_backend(uploader_pid)' ])
{
	my ($name, $message, $action) = @$end;

	foreach my $settings ($small, $workers_only)
	{
		my $error = '';
		my $handle = IPC::Run::start([ 'psql', '-XAtq', '-v', 'VERBOSITY=verbose', '-d', $node->connstr('postgres'), '-c', $settings,
				'-c', "SELECT s3export.copy_to('lake', " . sql_literal($endless) . ", '$name')" ], '>', \my $out, '2>', \$error);
		my $started;

		poll_until(sub { job($name, 'state') eq 'running' && job($name, 'open_uploads') eq '1' && s3_uploads("$folder/$name") }, "the upload of $name");
		is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_stat_activity WHERE backend_type = \'parallel worker\' AND leader_pid = ' . job($name, 'leader_pid')),
			2, "$name: two workers");
		$started = time;
		job($name, $action);
		$handle->finish;
		cmp_ok(time - $started, '<', 5, "$name: soon");
		like($error, $message, "$name: the caller's error");
		nothing_left($name, 'cancelled');
	}
}

{
	my $error = sql_error($node, "$workers_only; SELECT s3export.copy_to('lake', 'SELECT repeat(md5(o.id::text), 60), 1 / (o.id - 19997) FROM orders o, generate_series(1, 5)', 'failed.csv')");

	is("$error->{sqlstate} $error->{message}", '22012 division by zero', 'an error in a worker: the caller\'s error');
	nothing_left('failed.csv', 'failed', 'a query that fails at its last rows, in a parallel worker', $error);
}
is(job('failed.csv', 'error_code, error_message'), '22012|division by zero', 'an error in a worker: the reason is kept');

# ---- others who look at plans
{
	my $offset = -s $node->logfile;

	export('SELECT customer, id FROM orders', before => "$workers_only; LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_verbose = on; "
		  . 'SET auto_explain.log_analyze = on; SET auto_explain.log_nested_statements = on');
	like(PostgreSQL::Test::Utils::slurp_file($node->logfile, $offset), qr/Gather.*Custom Scan \(s3export\).*Output: customer, id.*Parallel Seq Scan on public\.orders/s,
		'auto_explain can show the plan');
}
$node->stop;

# ---- worker slots: one is the logical replication launcher's, one the uploader's
$node->append_conf('postgresql.conf', 'max_worker_processes = 2');
$node->start;
is(export('orders', before => $workers_only)->{leader}, $node->safe_psql('postgres', 'SELECT count(*) FROM orders'), 'worker slots exhausted: the leader sends all rows');

$node->stop;
s3_clear($folder);
done_testing();
