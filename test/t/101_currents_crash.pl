# Delivery every second while eight clients write, and while processes, servers and
# the S3 server end in the middle of it: at the end the files have every committed
# event once, in the order of the commits, and nothing else.
#
# The order of the commits is told by another decoder, test_decoding, with a slot of
# its own over the same WAL.  What a publication that changes all the time publishes is told by
# PostgreSQL's own decoder, pgoutput.  S3EXPORT_TEST_SEED=number repeats a choice of faults,
# S3EXPORT_TEST_ROWS=number writes another number of rows.
use strict;
use warnings;
use lib 'test/lib';
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use S3Currents;
use S3Export;
use Test::More;
use Time::HiRes qw(sleep time);

s3_or_skip();
my $seed = $ENV{S3EXPORT_TEST_SEED} // int(rand(2**31));
my $wanted = $ENV{S3EXPORT_TEST_ROWS} // 200_000;
my $started = time;

srand $seed;
diag("S3EXPORT_TEST_SEED=$seed");

my $gateway = rgw_start();
my $folder = unique_folder();
my $node = currents_node('main', 'restart_after_crash = on', 'max_connections = 60', 'log_min_messages = debug1', 'max_wal_size = 2GB',
	"s3export.retry_timeout = '20s'", "s3export.connect_timeout = '2s'", "s3export.stall_timeout = '3s'");
my $base = $node->basedir;

sub try { return try_query($node, @_); }

sub server_is_up
{
	poll_until(sub { server_answers($node) }, 'the server', 60);
	return;
}

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE event (id bigint GENERATED ALWAYS AS IDENTITY (CACHE 100) PRIMARY KEY, client int, note text);
CREATE TABLE account (id int PRIMARY KEY, balance bigint, body text);
ALTER TABLE account ALTER body SET STORAGE EXTERNAL;
INSERT INTO account SELECT i, 0, repeat(md5(i::text), 100) FROM generate_series(1, 200) i;
CREATE SEQUENCE account_id START 1000;
SELECT pg_create_logical_replication_slot('oracle', 'test_decoding');

-- Comes into the publication and leaves it, and one for the oracle at the same time.
CREATE FUNCTION is_published() RETURNS bool LANGUAGE sql VOLATILE AS
	$$SELECT EXISTS (SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = prpubid WHERE pubname = 'oracle_extra')$$;
CREATE TABLE extra (id bigint GENERATED ALWAYS AS IDENTITY (CACHE 100) PRIMARY KEY, client int, published bool DEFAULT is_published());
CREATE PUBLICATION oracle_extra;
SELECT pg_create_logical_replication_slot('oracle_extra', 'pgoutput');
CREATE FUNCTION change_publication() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	name text := (SELECT pubname FROM pg_publication WHERE pubname <> 'oracle_extra');
	verb text := CASE WHEN EXISTS (SELECT FROM pg_publication_tables WHERE pubname = 'oracle_extra') THEN 'DROP' ELSE 'ADD' END;
BEGIN
	EXECUTE format('ALTER PUBLICATION %I %s TABLE extra', name, verb);
	EXECUTE format('ALTER PUBLICATION oracle_extra %s TABLE extra', verb);
	IF random() < 0.3 THEN
		EXECUTE format('ALTER PUBLICATION %I RENAME TO %I', name, CASE WHEN name = 'renamed' THEN 's3export_flow' ELSE 'renamed' END);
	END IF;
END
$$;

-- Waits for it a while, and looks more often than a session of psql's could.
CREATE FUNCTION find_process(condition text) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
	found int;
	patience timestamptz := clock_timestamp() + '0.3 s';
BEGIN
	LOOP
		PERFORM pg_stat_clear_snapshot();
		EXECUTE 'SELECT min(pid) FROM pg_stat_activity WHERE ' || condition INTO found;
		IF found IS NOT NULL OR clock_timestamp() > patience THEN
			RETURN found;
		END IF;
		PERFORM pg_sleep(0.002);
	END LOOP;
END
$$;
SQL
with_s3($gateway, sub {
	create_connector($node, 'flow', kind => 'currents', tables => '{event,account}', operations => '{insert,update,delete}', folder_path => $folder, max_events_per_file => \'5000');
});
my $position = launch($node, 'flow');

# ---- the load
my %script = (
	short => [ 60, <<'SQL' ],
BEGIN;
INSERT INTO event (client, note) SELECT :client_id, 'short ' || i FROM generate_series(1, 10) i;
COMMIT;
SQL
	account => [ 20, <<'SQL' ],
\set a random(1, 200)
BEGIN;
UPDATE account SET balance = balance + 1 WHERE id = :a;
INSERT INTO account VALUES (nextval('account_id'), 0, 'new');
UPDATE account SET id = id + 1000000 WHERE id = currval('account_id') AND id % 2 = 0;
DELETE FROM account WHERE id = currval('account_id') AND id % 3 = 0;
COMMIT;
SQL
	savepoints => [ 8, <<'SQL' ],
BEGIN;
INSERT INTO event (client, note) VALUES (:client_id, 'kept');
SAVEPOINT a;
INSERT INTO event (client, note) SELECT :client_id, 'rolled back' FROM generate_series(1, 20);
ROLLBACK TO a;
SAVEPOINT b;
INSERT INTO event (client, note) SELECT :client_id, 'released' FROM generate_series(1, 5);
SAVEPOINT c;
INSERT INTO event (client, note) VALUES (:client_id, 'rolled back');
ROLLBACK TO c;
RELEASE b;
COMMIT;
SQL
	extra => [ 10, <<'SQL' ],
BEGIN;
INSERT INTO extra (client) SELECT :client_id FROM generate_series(1, 3);
\sleep 20 ms
INSERT INTO extra (client) SELECT :client_id FROM generate_series(1, 3);
COMMIT;
SQL
	aborted => [ 8, <<'SQL' ],
BEGIN;
INSERT INTO event (client, note) SELECT :client_id, 'aborted' FROM generate_series(1, 50);
ROLLBACK;
SQL
	long => [ 1, <<'SQL' ],
BEGIN;
INSERT INTO event (client, note) SELECT :client_id, 'long' FROM generate_series(1, 50);
\sleep 2500 ms
INSERT INTO event (client, note) SELECT :client_id, 'longer' FROM generate_series(1, 500);
COMMIT;
SQL
	large => [ 1, <<'SQL' ]);
INSERT INTO event (client, note) SELECT :client_id, repeat('large ', 20) FROM generate_series(1, 3000);
SQL
my @load = ('pgbench', '-n', '-c', '8', '-j', '2', '-T', '1000', '-R', '130');

foreach my $name (sort keys %script)
{
	append_to_file("$base/$name.sql", $script{$name}[1]);
	push @load, '-f', "$base/$name.sql\@$script{$name}[0]";
}

# One that has lost its server is started again.
my $load;

sub keep_load
{
	return if $load && $load->{handle}->pumpable;
	$load->{handle}->finish if $load;
	$load = { out => '', err => '' };
	$load->{handle} = IPC::Run::start([ @load, $node->connstr('postgres') ], '<', \undef, '>', \$load->{out}, '2>', \$load->{err});
	return;
}

# ---- a delivery each second, by pg_cron's way: whatever becomes of it
my ($delivery, $next_delivery, %seen) = (undef, 0);

sub keep_delivering
{
	if ($delivery && !$delivery->{handle}->pumpable)
	{
		my (undef, undef, $err) = finish_psql($delivery);

		$seen{ $err =~ /(?:ERROR|FATAL|PANIC):  ([0-9A-Z]{5})/ ? $1 : $err =~ /server closed|connection to server|could not connect/ ? 'lost' : 'delivered' }++;
		undef $delivery;
	}
	if (!$delivery && time >= $next_delivery)
	{
		$delivery = start_psql($node, q(SELECT s3export.deliver('flow')));
		$next_delivery = time + 1;
	}
	# One that ends meanwhile is an error to IPC::Run.
	foreach my $session (grep { defined } $delivery, $load)
	{
		eval { $session->{handle}->pump_nb if $session->{handle}->pumpable };
	}
	return;
}

# The publication changes twice a second, as far as the server is up.
my ($changes, $next_change) = (0, 0);

sub keep_changing
{
	return if time < $next_change;
	$next_change = time + 0.5;
	$changes++ if (try('SELECT change_publication()'))[0] == 0;
	return;
}

sub go_on
{
	my ($seconds) = @_;
	my $until = time + $seconds;

	while (time < $until)
	{
		keep_load();
		keep_delivering();
		keep_changing();
		sleep 0.05;
	}
	return;
}

# ---- what is done to it
sub pid_of
{
	my ($condition) = @_;
	my ($status, $out) = try('SELECT find_process(' . sql_literal($condition) . ')');

	return $status == 0 && length $out ? $out : undef;
}

# Ends it, if it can be caught within a few seconds, at a moment that is not chosen: by SIGKILL, or by a function of the server's.
# Some live for a few hundredths of a second, others much longer.
sub catch_process
{
	my ($condition, $function) = @_;
	my $until = time + 15;

	while (time < $until)
	{
		my $pid = pid_of($condition);

		keep_delivering();
		next unless $pid;
		sleep rand rand 0.1;
		if ($function ? (try("SELECT $function(pid) FROM pg_stat_activity WHERE pid = $pid AND $condition"))[1] eq 't' : kill 'KILL', $pid)
		{
			server_is_up();
			return 1;
		}
	}
	return 0;
}

my $caller = q(state = 'active' AND query = 'SELECT s3export.deliver(''flow'')');
my %fault = (
	'the uploader is killed' => sub { catch_process(q(backend_type = 's3export uploader')) },
	'the worker is killed' => sub { catch_process(q(backend_type = 's3export current')) },
	'the caller is killed' => sub { catch_process($caller) },
	'the caller is terminated' => sub { catch_process($caller, 'pg_terminate_backend') },
	'the caller is cancelled' => sub { catch_process($caller, 'pg_cancel_backend') },
	'the server is stopped at once' => sub { $node->stop('immediate'); $node->start; 1 },
	'the server is restarted' => sub { $node->stop('fast'); $node->start; 1 },
	'the S3 server is killed' => sub { rgw_kill($gateway); go_on(1 + rand 3); rgw_resume($gateway); 1 });
my (%done, %tries);

# Each is done at least twice, in an order that chance has made.
my @plan;
foreach my $round (1 .. 2)
{
	my @names = sort keys %fault;

	push @plan, splice(@names, rand @names, 1) while @names;
}

keep_load();
my $rows = 0;
while (1)
{
	go_on(0.5 + rand 2);
	if (@plan)
	{
		my $fault = shift @plan;

		# On a busy machine there may be no such process just then.
		if ($fault{$fault}->()) { $done{$fault}++; }
		elsif ($tries{$fault}++ < 8) { push @plan, $fault; }
	}
	my ($status, $out) = try(q(SELECT max(id) FROM event));
	$rows = $out if $status == 0 && length $out;
	if (!@plan || $rows > $wanted)
	{
		($status, $out) = try(q(SELECT count(*) FROM event));
		$rows = $out if $status == 0 && length $out;
		last if !@plan && $rows >= $wanted;
	}
	die "only $rows rows after 300 s" if time - $started > 300;
}
$load->{handle}->kill_kill;
poll_until(sub { (try(q(SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgbench')))[1] eq '0' }, 'the end of the load');
finish_psql($delivery) if $delivery;
note(join ', ', map { "$_: $done{$_}" } sort keys %done);
note(join ', ', map { "$_: $seen{$_}" } sort keys %seen);
note(sprintf '%.0f s of load and faults', time - $started);
foreach my $name (sort keys %fault)
{
	cmp_ok($done{$name} // 0, '>=', 1, "$name: has happened");
}
cmp_ok($seen{delivered} // 0, '>=', 5, 'deliveries have succeeded meanwhile');

# ---- what has come of it
sub first_difference
{
	my ($got, $expected) = @_;
	my ($i) = grep { ($got->[$_] // '') ne ($expected->[$_] // '') } 0 .. ($#$got > $#$expected ? $#$got : $#$expected);
	my ($from, $to) = ($i > 5 ? $i - 5 : 0, $i + 20);

	return join "\n", "element $i of " . @$got . ' and ' . @$expected, 'got: ' . join(' ', grep { defined } @$got[ $from .. $to ]), 'expected: ' . join(' ', grep { defined } @$expected[ $from .. $to ]);
}

my $files_before = with_s3($gateway, sub { scalar(grep { m{/_table=} } s3_list("$folder/")) });
poll_until(sub { (try(q(SELECT s3export.deliver('flow'))))[0] == 0 }, 'a last delivery');
is(deliver($node, 'flow')->{events}, 0, 'nothing is left to deliver');
cmp_ok($files_before, '>', 5, 'files were written on the way');

my @objects = with_s3($gateway, sub { objects_in_bucket($folder) });
my @files = grep { $_->[0] !~ m{/_(?:batches|schema)/[^=]*\.json$} } @objects;
my @batches = batches(@objects);
my @events = events(@files);
my @all_events = all_events(@files);
my @inserted = grep { $_->{type} eq 'public.event' } @events;
my @accounts = grep { $_->{type} eq 'public.account' } @events;

note(sprintf '%d events in %d files of %d batches', scalar @events, scalar @files, scalar @batches);
is_deeply([ wrong_files(@files) ], [], 'names and contents of the files agree');
is_deeply([ wrong_events(@all_events) ], [], 'each event once, and in order within its table');
cmp_ok(scalar(@batches), '>', 5, 'there are several batches');
is_deeply([ wrong_batches(@objects) ], [], 'each file is in one batch, and each batch follows the one before');
is(scalar(grep { $_->{previous} } @batches), $#batches, 'the chain has one beginning');
cmp_ok(scalar(@inserted), '>=', $wanted, "at least $wanted rows");

# Nothing but what is committed, and all of it.
is(join(' ', sort { $a <=> $b } map { $_->{values}{id} } @inserted), $node->safe_psql('postgres', q(SELECT string_agg(id::text, ' ' ORDER BY id) FROM event)), 'the rows are those of the table');
is((grep { $_->{values}{note} =~ /rolled back|aborted/ } @inserted)[0], undef, 'nothing that was rolled back');

# In the order of the other decoder.  Its slot may go back to what had been confirmed, but it has confirmed nothing.
my (@expected_inserts, @expected_accounts);
foreach my $line (split /\n/, $node->safe_psql('postgres', q(SELECT data FROM pg_logical_slot_peek_changes('oracle', NULL, NULL, 'skip-empty-xacts', 'on') WHERE data ~ '^table public.(event|account):')))
{
	push @expected_inserts, $1 if $line =~ /^table public\.event: INSERT: id\[bigint\]:(\d+)/;
	push @expected_accounts, "insert $1" if $line =~ /^table public\.account: INSERT: id\[integer\]:(\d+)/;
	push @expected_accounts, "delete $1" if $line =~ /^table public\.account: DELETE: id\[integer\]:(\d+)/;
	push @expected_accounts, $1 eq '' ? "update $2" : "delete $1 insert $2"
	  if $line =~ /^table public\.account: UPDATE: (?|old-key: id\[integer\]:(\d+) new-tuple: id\[integer\]:(\d+)|()id\[integer\]:(\d+))/;
}
ok(join(' ', map { $_->{values}{id} } @inserted) eq join(' ', @expected_inserts), 'inserts are in the order of their commits');
ok(join(' ', map { "$_->{op} $_->{values}{id}" } @accounts) eq join(' ', @expected_accounts), 'as are all changes of the other table');
# What was inserted while the publication had the table, as pgoutput has it: an insert is a message
# of 'I', OID, 'N', number of columns, and a kind, a length and a text for each.
my @expected_extra = map { /^49.{8}4e.{4}74(.{8})(.*)/ ? pack('H*', substr $2, 0, 2 * hex $1) : () } split /\n/,
  $node->safe_psql('postgres', q(SELECT encode(data, 'hex') FROM pg_logical_slot_peek_binary_changes('oracle_extra', NULL, NULL, 'proto_version', '1', 'publication_names', 'oracle_extra')));
my @extra = map { $_->{values}{id} } grep { $_->{type} eq 'public.extra' } @events;
note(sprintf '%d changes of the publication, %d events of its table, of %d rows', $changes, scalar @extra, $node->safe_psql('postgres', 'SELECT count(*) FROM extra'));
cmp_ok($changes, '>=', 10, 'the publication has changed meanwhile');
cmp_ok(scalar(@extra), '>', 0, 'the table that came and went has events');
cmp_ok(scalar(@extra), '<', $node->safe_psql('postgres', 'SELECT count(*) FROM extra'), 'and rows that are none');
# A transaction that was open when the publication changed may have rows on which the two differ: pgoutput goes by what
# it has cached of a transaction that came later in the WAL.  Which is right the rows say themselves.
my %published = map { split /\|/ } split /\n/, $node->safe_psql('postgres', 'SELECT id, published FROM extra');
my %sent = map { $_ => 1 } @extra;
my %expected = map { $_ => 1 } @expected_extra;
my @both = grep { $expected{$_} } @extra;
my @both_expected = grep { $sent{$_} } @expected_extra;
my @more = grep { !$expected{$_} } @extra;
my @less = grep { !$sent{$_} } @expected_extra;

note(sprintf '%d events that pgoutput lacks, %d that it has besides', scalar @more, scalar @less);
ok("@both" eq "@both_expected", 'events are the inserts that pgoutput has, in its order') or diag(first_difference(\@both, \@both_expected));
is("@{[ grep { $published{$_} ne 't' } @more ]}", '', 'what it lacks was published when it was written');
is("@{[ grep { $published{$_} ne 'f' } @less ]}", '', 'what it has besides was not');
cmp_ok(@more + @less, '<', @extra / 20, 'which are few');
my $replayed = eval {
	replay('id', (map { +{ op => 'insert', values => { id => $_, balance => 0 } } } 1 .. 200), @accounts);
};
is($@, '', 'whose events can be replayed');
ok(join(' ', map { "$_:$replayed->{$_}{balance}" } sort { $a <=> $b } keys %{ $replayed // {} }) eq $node->safe_psql('postgres', q(SELECT string_agg(id || ':' || balance, ' ' ORDER BY id) FROM account)), 'and give its rows');

is($node->safe_psql('postgres', q(SELECT events_sent, files_sent, events_dropped FROM s3export.currents)), join('|', scalar @all_events, scalar @files, 0), 'the view counts each once');
is($node->safe_psql('postgres', q(SELECT count(*) FROM s3export.recover() WHERE action = 'failed')), 0, 'recover() has nothing to complain of');
# An upload whose uploader, or whose S3 server, was killed before the row of the file could name it is nobody's to abort.
my @uploads = with_s3($gateway, sub { s3_uploads("$folder/") });
is($node->safe_psql('postgres', q(SELECT count(*) FROM s3export.job_files WHERE upload_id IS NOT NULL)), 0, 'no upload stays open that a row knows');
cmp_ok(scalar(@uploads), '<=', grep({ defined } @done{ 'the uploader is killed', 'the worker is killed', 'the caller is killed', 'the S3 server is killed', 'the server is stopped at once' }) * 3, scalar(@uploads) . ' stay open that none knows');
is($node->safe_psql('postgres', q(SELECT count(*) FROM s3export.jobs WHERE state IN ('running', 'completing'))), 0, 'no job is left as running');

is($node->safe_psql('postgres', "SELECT restart_lsn > '$position' FROM pg_replication_slots JOIN s3export.currents USING (slot_name)"), 't', 'the server may remove its log');

note(sprintf '%.0f s', time - $started);
$node->stop;
rgw_stop($gateway);
done_testing();
