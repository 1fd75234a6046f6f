# The slot of a current is a named thing that others can replace, advance or drop: what a
# DBA sees then, and of launches and ends that fail half way.
use strict;
use warnings;
use lib 'test/lib';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use S3Currents;
use S3Export;
use S3Faults;
use ScriptedS3;
use Test::More;

my $s3 = scripted_s3();
my %keys = scripted_user($s3);
my $node = currents_node('main', 'log_min_messages = debug1', 'max_connections = 40', 'max_prepared_transactions = 5', 'restart_after_crash = on',
	'checkpoint_timeout = 1h', 'autovacuum = off', "s3export.retry_timeout = '2s'", "s3export.connect_timeout = '2s'", "s3export.allowed_endpoints = '" . $s3->url . "'");
my %folder;

sub sql { return $node->safe_psql('postgres', @_); }

# psql's output and messages, whatever becomes of the statements.
sub said
{
	my ($statements, %options) = @_;

	local $ENV{PGUSER} = $options{user} if defined $options{user};
	my ($status, $out, $err) = $node->psql($options{dbname} // 'postgres', "\\set VERBOSITY verbose\n$statements", on_error_stop => 0);
	return ($out, $err);
}

# A connector with a folder of its own.
sub flow
{
	my ($name, %more) = @_;

	$folder{$name} = unique_folder();
	create_connector($node, $name, at_endpoint($s3), %keys, folder_path => $folder{$name}, kind => 'currents', validate => \'false', tables => "{$name}", %more);
	return;
}

# The same with a table of its name, launched.
sub launched_flow
{
	my ($name, %more) = @_;

	sql("CREATE TABLE $name (id int PRIMARY KEY, note text)");
	flow($name, %more);
	launch($node, $name);
	return;
}

sub slot_of { return sql("SELECT format('s3export_%s_%s', d.oid, c.connector_id) FROM s3export.currents c, pg_database d WHERE c.name = '$_[0]' AND d.datname = 'postgres'"); }

# "logical test_decoding postgres" of the slot that has the name of the connector's.
sub slot_is { return sql(q(SELECT concat_ws(' ', slot_type, plugin, database) FROM pg_replication_slots WHERE slot_name = ) . sql_literal($_[0])); }

sub files { return files_in_scripted($s3, $folder{ $_[0] }); }

sub ids { return join ' ', map { "$_->{op} $_->{values}{id}" } events(files($_[0])); }

sub fine
{
	my ($name, $what) = @_;
	my @files = files($name);

	is_deeply([ wrong_files(@files), wrong_events(events(@files)) ], [], "$what: the files");
	return;
}

# The last event: its name, and these of its details.
sub last_event
{
	my ($name, @details) = @_;
	my $columns = join ', ', 'event', map { "detail ->> '$_'" } @details;

	return sql("SELECT $columns FROM s3export.current_events WHERE connector = '$name' ORDER BY last_at DESC LIMIT 1");
}

# Each way in which a delivery says that the connector has lost its place.
sub is_lost
{
	my ($name, $reason, $what, %options) = @_;
	my $before = ids($name);
	my ($out, $err) = said(qq(SELECT connector, state, events, error FROM s3export.deliver('$name', "raise" => false)), %options);

	is($out, qq($name|lost|0|connector "$name" has lost its place in the WAL), "$what: the row");
	like($err, qr/^psql.*WARNING:  55000: could not deliver the changes of connector "$name": connector "$name" has lost its place in the WAL\nDETAIL:  $reason\nHINT:  Launch/m, "$what: the warning");
	is(current_of($node, $name, 'state'), 'lost', "$what: the view");
	like(last_event($name, 'state', 'reason'), qr/^lost\|lost\|$reason$/, "$what: the event");
	error_like($node, "SELECT * FROM s3export.deliver('$name')", { sqlstate => '55000', message => qq(connector "$name" has lost its place in the WAL), hint => qr/launch/ }, "$what: the error of the next delivery", %options);
	is(last_event($name, 'state'), 'skipped|lost', "$what: and its event");
	is(ids($name), $before, "$what: nothing was sent");
	return;
}

# ---- the slot is another one, or gone
sql(<<'SQL');
CREATE ROLE alice LOGIN REPLICATION;
CREATE ROLE mallory LOGIN REPLICATION;
GRANT CREATE ON DATABASE postgres TO alice;
GRANT CREATE ON SCHEMA public TO alice;
GRANT EXECUTE ON FUNCTION s3export.create_connector TO alice;
CREATE DATABASE other;
SQL
my $missing = qr/Replication slot "s3export_\d+_\d+" does not exist any more, or another has been put in its place\./;
foreach my $case (
	[ 'another plugin', 'postgres', q(SELECT pg_create_logical_replication_slot('%s', 'test_decoding')), 'logical test_decoding postgres' ],
	[ 'another database', 'other', q(SELECT pg_create_logical_replication_slot('%s', 'test_decoding')), 'logical test_decoding other' ],
	[ 'a physical one', 'postgres', q(SELECT pg_create_physical_replication_slot('%s', true)), 'physical' ],
	[ 'none', undef, undef, '' ])
{
	my ($what, $database, $make, $is) = @$case;
	my $name = $what =~ s/\W/_/gr;
	my $slot;

	{
		local $ENV{PGUSER} = 'alice';
		launched_flow($name);
	}
	$slot = slot_of($name);
	is(current_of($node, $name, 'owner, state, slot_name'), "alice|running|$slot", "$what: launched by a role that is no superuser");
	sql("INSERT INTO $name VALUES (1, 'one')");
	is((deliver($node, $name) // {})->{events}, 1, "$what: and delivered");
	said("SELECT pg_drop_replication_slot('$slot')", user => 'mallory');
	said(sprintf($make, $slot), dbname => $database, user => 'mallory') if $make;
	is(slot_is($slot), $is, "$what: the slot has been replaced");
	sql("INSERT INTO $name VALUES (2, 'two')");
	is(current_of($node, $name, 'state'), 'lost', "$what: which the view says at once");
	is_lost($name, $missing, $what, user => 'alice');
	is(slot_is($slot), $is, "$what: the other slot is left alone");
	if ($make)
	{
		error_like($node, "SELECT s3export.launch('$name')", { sqlstate => '42710', message => qq(replication slot "$slot" already exists), detail => qr/./, hint => qr/pg_drop_replication_slot/ },
			"$what: launch says who is in the way", user => 'alice');
		is(current_of($node, $name, 'state'), 'lost', "$what: and changes nothing");
		is(slot_is($slot), $is, "$what: nor the other slot");
		sql("SELECT s3export.stop('$name')");
		is(slot_is($slot), $is, "$what: nor does stop");
		said("SELECT pg_drop_replication_slot('$slot')", user => 'mallory');
	}
	launch($node, $name);
	sql("INSERT INTO $name VALUES (3, 'three')");
	is((deliver($node, $name) // {})->{events}, 1, "$what: launched again, it goes on");
	is(ids($name), 'insert 1 insert 3', "$what: without what was missed");
	fine($name, $what);
	sql("SELECT s3export.drop_connector('$name')");
	is(slot_is($slot), '', "$what: its end");
}

# One that is in use is no delivery of ours.
{
	launched_flow('in_use');
	my $slot = slot_of('in_use');
	sql("SELECT pg_drop_replication_slot('$slot')");
	my $reader = IPC::Run::start([ 'pg_recvlogical', '-d', $node->connstr('postgres'), '--slot', $slot, '--create-slot', '--start', '-P', 'test_decoding', '-f', '-' ], '<', \undef, '>', \my $read, '2>', \my $complaint);
	poll_until(sub { sql("SELECT active FROM pg_replication_slots WHERE slot_name = '$slot'") eq 't' }, 'somebody who reads the slot');
	is_lost('in_use', $missing, 'a slot of another plugin in use');
	error_like($node, q(SELECT s3export.launch('in_use')), { sqlstate => '42710', message => qq(replication slot "$slot" already exists) }, 'a slot of another plugin in use: launch says who is in the way');
	$reader->signal('INT');
	$reader->finish;
	sql("SELECT pg_drop_replication_slot('$slot')");
	error_like($node, "SELECT pg_create_logical_replication_slot('$slot', 's3export')", { sqlstate => '55000', hint => qr/launch/ }, 'nobody makes a slot with our plugin by hand');
	launched_flow('source');
	error_like($node, 'SELECT pg_copy_logical_replication_slot(' . sql_literal(slot_of('source')) . ", '$slot')", { sqlstate => '55000' }, 'nor by a copy of another');
	is(slot_is($slot), '', 'so that there is none');
	sql(q(SELECT s3export.drop_connector('in_use'), s3export.drop_connector('source')));
}

# ---- the slot has been advanced by hand
{
	launched_flow('advanced');
	my $slot = slot_of('advanced');

	sql(q(INSERT INTO advanced VALUES (1, 'one')));
	is((deliver($node, 'advanced') // {})->{events}, 1, 'advanced: delivered');
	# What a delivery records of itself is no event.
	deliver($node, 'advanced');
	sql("SELECT pg_replication_slot_advance('$slot', pg_current_wal_lsn())");
	is((deliver($node, 'advanced') // {})->{events}, 0, 'advanced past what deliveries record: it goes on');
	sql(q(INSERT INTO advanced VALUES (2, 'two')));
	is((deliver($node, 'advanced') // {})->{events}, 1, 'with all events');
	is(current_of($node, 'advanced', 'state'), 'running', 'and runs');
	sql(q(INSERT INTO advanced VALUES (3, 'three')));
	sql("SELECT pg_replication_slot_advance('$slot', pg_current_wal_lsn())");
	is_lost('advanced', qr/Replication slot "$slot" has been advanced from [0-9A-F\/]+ to [0-9A-F\/]+ by somebody else; the changes in between were not delivered\./, 'advanced past an event');
	launch($node, 'advanced');
	is(current_of($node, 'advanced', 'state, events_sent'), 'running|2', 'launched again');
	sql(q(INSERT INTO advanced VALUES (4, 'four')));
	deliver($node, 'advanced');
	is(ids('advanced'), 'insert 1 insert 2 insert 4', 'with what follows');
	sql(q(SELECT s3export.drop_connector('advanced')));
}
done_testing();
