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
use Time::HiRes qw(sleep);

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

	is_deeply([ wrong_files(@files), wrong_events(all_events(@files)) ], [], "$what: the files");
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
	like(last_event($name, 'state', 'message'), qr/^lost\|lost\|$reason$/, "$what: the event");
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
my $missing = qr/Replication slot "s3export_\d+_\d+" does not exist on this server, or another has been put in its place\./;
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

# ---- launches that fail
sub slots { return sql(q(SELECT count(*) FROM pg_replication_slots WHERE slot_name = ) . sql_literal($_[0])); }

# Requests for the connector's files wait: those that make one appear, or others.
sub hold
{
	my ($name, @operations) = @_;

	$s3->call('add_fault', do => 'hold', match => { key => $folder{$name}, operation => @operations ? \@operations : [ 'PutObject', 'CompleteMultipartUpload' ] }, times => undef);
	return;
}

sub let_go
{
	$s3->call('clear_faults');
	$s3->call('release');
	return;
}

sub in_state
{
	my ($name, $state) = @_;

	poll_until(sub { current_of($node, $name, 'state') eq $state }, "connector \"$name\" to be $state");
	return;
}

my $copy_warning = qr/^psql.*WARNING:  01000: some files of the copy for connector "\w+" may be in place$/m;

sub copied_flow
{
	my ($name) = @_;

	sql("CREATE TABLE $name (id int PRIMARY KEY, note text); INSERT INTO $name SELECT i, 'row' FROM generate_series(1, 3) i");
	flow($name);
	return slot_of($name);
}

# It works, and has all rows.
sub copies_all
{
	my ($name, $what) = @_;
	my $before = ids($name);

	launch($node, $name, copy_existing => 1);
	is(current_of($node, $name, "state, slot_name = '" . slot_of($name) . q(')), 'running|t', "$what: then it can be launched");
	is(last_event($name, 'copied'), 'launched|3', "$what: as an event says");
	sql("INSERT INTO $name VALUES (4, 'new')");
	is((deliver($node, $name) // {})->{events}, 1, "$what: and delivers");
	is(ids($name), join(' ', $before || (), 'copy 1 copy 2 copy 3 insert 4'), "$what: with all rows, once");
	fine($name, $what);
	sql("SELECT s3export.drop_connector('$name')");
	return;
}

# Before anything can be in place.
{
	my $slot;

	{
		local $ENV{PGUSER} = 'alice';
		$slot = copied_flow('forced');
	}
	sql(q(ALTER TABLE forced ENABLE ROW LEVEL SECURITY; ALTER TABLE forced FORCE ROW LEVEL SECURITY));
	my ($out, $err) = said(q(SELECT s3export.launch('forced', copy_existing => true)), user => 'alice');
	like($err, qr/ERROR:  42501: /, 'rows that cannot be read: the launch fails');
	unlike($err, $copy_warning, 'rows that cannot be read: nothing is in place');
	is(slots($slot), 0, 'rows that cannot be read: there is no slot');
	is(current_of($node, 'forced', 'state, slot_name, position'), 'created||', 'rows that cannot be read: the state is as before');
	is(scalar(files('forced')), 0, 'rows that cannot be read: no file');
	sql(q(ALTER TABLE forced NO FORCE ROW LEVEL SECURITY));
	copies_all('forced', 'rows that cannot be read');
}

# When the launch has been recorded.
{
	my $slot = copied_flow('refused');

	$s3->call('add_fault', do => 'error', code => 'AccessDenied', match => { key => $folder{refused}, operation => [ 'PutObject', 'CompleteMultipartUpload' ] }, times => undef);
	my ($out, $err) = said(q(SELECT s3export.launch('refused', copy_existing => true)));
	like($err, qr/ERROR:  28000: /, 'files that cannot be put in place: the launch fails');
	like($err, $copy_warning, 'files that cannot be put in place: with a warning');
	is(slots($slot), 0, 'files that cannot be put in place: there is no slot');
	is(current_of($node, 'refused', 'state, slot_name, position, lag_bytes'), 'stopped|||', 'files that cannot be put in place: the state says so');
	is(last_event('refused', 'state', 'code'), 'launch_failed|stopped|28000', 'files that cannot be put in place: and an event');
	like((said(q(SELECT * FROM s3export.deliver("raise" => false))))[0], qr/^refused\|stopped\|0\|0\|0\|0\|\|$/m, 'files that cannot be put in place: nothing is delivered');
	$s3->call('clear_faults');
	copies_all('refused', 'files that cannot be put in place');
}

# A session changes settings meanwhile, and takes its time.
{
	my $slot = copied_flow('altered');
	hold('altered');
	my $launch = start_psql($node, q(SELECT s3export.launch('altered', copy_existing => true)));
	my $other = $node->background_psql('postgres');

	in_state('altered', 'launching');
	is(current_of($node, 'altered', 'slot_name'), $slot, 'a launch that goes on: its slot is shown');
	error_like($node, q(SELECT s3export.launch('altered')), { sqlstate => '55006', message => 'connector "altered" is being delivered or launched', hint => qr/./ }, 'a launch that goes on: another one is refused');
	error_like($node, q(SELECT s3export.stop('altered')), { sqlstate => '55006', message => 'connector "altered" is being delivered or launched' }, 'a launch that goes on: nor is it stopped');
	error_like($node, q(SELECT s3export.drop_connector('altered')), { sqlstate => '55006', message => 'connector "altered" is being delivered or launched' }, 'a launch that goes on: or dropped');
	$other->query_safe(q(BEGIN; SELECT s3export.alter_connector('altered', max_events_per_file => 1000, validate => false)));
	let_go();
	poll_until(sub { sql(q(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 's3export current' AND wait_event_type = 'Lock')) eq '1' }, 'the launch to wait for the other session');
	# Longer than what a delivery waits for.
	sleep 10.5;
	$other->query_safe('COMMIT');
	$other->quit;
	is((finish_psql($launch))[0], 0, 'a launch that goes on: waits for a session that changes the connector') or diag($launch->{err});
	is(current_of($node, 'altered', 'state, max_events_per_file'), 'running|1000', 'a launch that goes on: both have their way');
	is(ids('altered'), 'copy 1 copy 2 copy 3', 'a launch that goes on: the rows are sent once');
	is(slots($slot), 1, 'a launch that goes on: it has its slot');
	sql(q(SELECT s3export.drop_connector('altered')));
	is(slots($slot), 0, 'a launch that goes on: until it is dropped');
}

# Cancelled.
foreach my $case ([ 'before the copy', 'created' ], [ 'when files can be in place', 'stopped' ])
{
	my ($what, $state) = @$case;
	my $name = $what =~ s/\W/_/gr;
	my $slot = copied_flow($name);
	my $blocker = $node->background_psql('postgres');

	$blocker->query_safe('BEGIN');
	$state eq 'created' ? $blocker->query_safe('SELECT pg_current_xact_id()') : hold($name);
	my $launch = start_psql($node, "SELECT s3export.launch('$name', copy_existing => true)");
	$state eq 'created' ? poll_until(sub { slots($slot) eq '1' }, 'the slot') : in_state($name, 'launching');
	sql("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT s3export.launch(%'");
	my (undef, undef, $err) = finish_psql($launch);
	like($err, qr/ERROR:  57014: /, "cancelled $what: the launch ends");
	poll_until(sub { slots($slot) eq '0' }, 'the slot to go');
	$blocker->query_safe('ROLLBACK');
	$blocker->quit;
	in_state($name, $state);
	is(current_of($node, $name, 'state, slot_name, position'), "$state||", "cancelled $what: nothing is left");
	is(last_event($name, 'state', 'code'), $state eq 'created' ? '' : 'launch_failed|stopped|57014', "cancelled $what: the event");
	let_go();
	poll_until(sub { sql(q(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 's3export uploader')) eq '0' }, 'the end of the uploader');
	is(ids($name), $state eq 'created' ? '' : 'copy 1 copy 2 copy 3', "cancelled $what: what is in place");
	copies_all($name, "cancelled $what");
}

# Another launch, which has been let through before the first was done.
{
	launched_flow('twice');
	my $slot = slot_of('twice');
	my ($postmaster) = slurp_file($node->data_dir . '/postmaster.pid') =~ /^(\d+)/;
	my $blocker = $node->background_psql('postgres');
	my $waiting = q{SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT s3export.launch(''twice'')' AND state = 'active'};

	sql(q(SELECT s3export.stop('twice')));
	$blocker->query_safe('BEGIN; SELECT pg_current_xact_id(), pg_advisory_lock(1)');
	my $second = start_psql($node, 'SELECT pg_advisory_lock(1)', q(SELECT s3export.launch('twice')));
	poll_until(sub { sql(q(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)) eq '1' }, 'the second session');
	my $first = start_psql($node, q(SELECT s3export.launch('twice')));
	poll_until(sub { slots($slot) eq '1' }, 'the slot');

	# No worker starts while the postmaster sleeps.
	kill 'STOP', $postmaster;
	my $done = eval {
		$blocker->query_safe('SELECT pg_advisory_unlock(1)');
		poll_until(sub { $blocker->query_safe("SELECT pg_stat_clear_snapshot(); $waiting") =~ /^2$/m }, 'the second launch to wait for its worker');
		$blocker->query_safe('COMMIT');
		poll_until(sub { $blocker->query_safe(q(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 's3export current')) eq '0' }, 'the end of the first launch');
	};
	kill 'CONT', $postmaster;
	die $@ unless $done;
	is((finish_psql($first))[0], 0, 'two launches at once: the first') or diag($first->{err});
	like((finish_psql($second))[2], qr/ERROR:  55000: connector "twice" is already launched$/m, 'two launches at once: the second');
	$blocker->quit;
	is(current_of($node, 'twice', "state, position = '$first->{out}'"), 'running|t', 'two launches at once: the position is that of the first');
	sql(q(INSERT INTO twice VALUES (4, 'new')));
	is((deliver($node, 'twice') // {})->{events}, 1, 'two launches at once: it delivers');
	sql(q(SELECT s3export.drop_connector('twice')));
}

# A delivery that looked at the connector before another one had ended.
{
	launched_flow('overlap');
	my $slot = slot_of('overlap');
	my $locker = $node->background_psql('postgres');
	my $workers = q(SELECT pid FROM pg_stat_activity WHERE backend_type = 's3export current');

	sql(q(INSERT INTO overlap VALUES (1, 'one')));
	hold('overlap');
	my $first = start_psql($node, q(SELECT events FROM s3export.deliver('overlap')));
	poll_until(sub { sql('SELECT count(*) FROM s3export.current_batch') eq '1' }, 'the first delivery');
	my $pid = sql($workers);
	$locker->query_safe('BEGIN; LOCK TABLE s3export.current_batch IN ACCESS EXCLUSIVE MODE');
	my $second = start_psql($node, q(SELECT state, events, error FROM s3export.deliver('overlap', "raise" => false)));
	my $other = poll_until(sub { sql("$workers AND pid <> $pid AND wait_event_type = 'Lock'") || !$second->{handle}->pumpable }, 'the second delivery');
	kill 'STOP', $other if $other > 1;
	$locker->query_safe('COMMIT');
	$locker->quit;
	let_go();
	is((finish_psql($first))[1], '1', 'two deliveries at once: the first');
	kill 'CONT', $other if $other > 1;
	like((finish_psql($second))[1], qr/^(?:running\|0\||running\|0\|connector "overlap" is being delivered or launched)$/, 'two deliveries at once: the second finds nothing to do');
	is(current_of($node, 'overlap', 'state'), 'running', 'two deliveries at once: it goes on');
	sql(q(SELECT s3export.drop_connector('overlap')));
}

# What is launched is what has been asked for.
{
	my $slot = copied_flow('published');
	hold('published');
	my $launch = start_psql($node, q(SELECT s3export.launch('published', copy_existing => true)));

	sql('CREATE PUBLICATION another FOR TABLE published');
	in_state('published', 'launching');
	error_like($node, q(SELECT s3export.alter_connector('published', publication => 'another', validate => false)), { sqlstate => '55000' }, 'no other publication while it is launched');
	let_go();
	is((finish_psql($launch))[0], 0, 'no other publication while it is launched: the launch') or diag($launch->{err});
	sql(q(SELECT s3export.stop('published')));

	# It waits for a transaction, and its state is the one before.
	my $blocker = $node->background_psql('postgres');
	$blocker->query_safe('BEGIN; SELECT pg_current_xact_id()');
	$launch = start_psql($node, q(SELECT s3export.launch('published')));
	poll_until(sub { slots($slot) eq '1' }, 'the slot');
	error_like($node, q(SELECT s3export.alter_connector('published', publication => 'another', validate => false)), { sqlstate => '55006', message => 'connector "published" is being delivered or launched' }, 'nor before it has its slot');
	$blocker->query_safe('COMMIT');
	$blocker->quit;
	is((finish_psql($launch))[0], 0, 'nor before it has its slot: the launch') or diag($launch->{err});
	is(current_of($node, 'published', 'state, publication'), 'running|s3export_published', 'nor before it has its slot: it sends what it did');
	sql(q(SELECT s3export.drop_connector('published'); DROP PUBLICATION another));
}

# ---- the worker of a launch is killed
{
	my %after = (
		launch => sub { copies_all($_[0], 'killed, then launched') },
		stop => sub { sql("SELECT s3export.stop('$_[0]')"); is(current_of($node, $_[0], 'state, slot_name'), 'stopped|', 'killed, then stopped'); copies_all($_[0], 'killed, then stopped') },
		drop => sub { sql("SELECT s3export.drop_connector('$_[0]')") });
	my (%slot, %session);
	my $blocker = $node->background_psql('postgres');

	foreach my $after (sort(keys %after), 'early')
	{
		my $name = "killed_$after";

		$slot{$name} = copied_flow($name);
		hold($name);
		$blocker->query_safe('BEGIN; SELECT pg_current_xact_id()') if $after eq 'early';
		$session{$name} = start_psql($node, "SELECT s3export.launch('$name', copy_existing => true)");
		$after eq 'early' ? poll_until(sub { slots($slot{$name}) eq '1' }, 'the slot') : in_state($name, 'launching');
	}
	kill 'KILL', worker_pid($node);
	isnt((finish_psql($_))[0], 0, 'a worker is killed: the launches end') foreach values %session;
	eval { $blocker->quit };
	poll_until(sub { server_answers($node) }, 'the server');
	let_go();

	is(current_of($node, 'killed_early', 'state, slot_name') . slots($slot{killed_early}), 'created|0', 'killed before the copy: nothing is left');
	copies_all('killed_early', 'killed before the copy');
	foreach my $after (sort keys %after)
	{
		my $name = "killed_$after";

		is(current_of($node, $name, 'state, slot_name, lag_bytes > 0'), "launching|$slot{$name}|t", "killed before $after: the view shows the slot") if slots($slot{$name});
		my ($out, $err) = said(qq(SELECT state, error FROM s3export.deliver('$name', "raise" => false)));
		is($out, qq(launching|the launch of connector "$name" was interrupted), "killed before $after: nothing is delivered");
		like($err, qr/WARNING:  55000: could not deliver the changes of connector "$name": the launch of connector "$name" was interrupted\nDETAIL:  .*slot.*\nHINT:  Launch it again/, "killed before $after: with a warning");
		is(last_event($name, 'state'), 'skipped|launching', "killed before $after: and an event");
		$after{$after}->($name);
		is(slots($slot{$name}), 0, "killed before $after: the slot is gone");
	}
}

# ---- tables that are rewritten while a copy begins
# The worker waits for a lock: of a transaction, or of a table.
sub waits_for
{
	my ($type) = @_;

	poll_until(sub { sql("SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE a.backend_type = 's3export current' AND NOT l.granted AND l.locktype = '$type'") eq '1' }, "a worker to wait for a lock: $type");
	return;
}

foreach my $case ([ 'rewritten', 'ALTER TABLE rewritten ALTER id TYPE bigint' ], [ 'truncated', 'TRUNCATE truncated' ])
{
	my ($name, $statement) = @$case;
	my $slot = copied_flow($name);
	my @blockers = map { $node->background_psql('postgres') } 1 .. 3;
	my @xids;

	# The slot waits for the first, then for the second; the third begins when its changes begin.
	push @xids, $blockers[0]->query_safe("BEGIN; SELECT pg_current_xact_id()");
	my $launch = start_psql($node, "SELECT s3export.launch('$name', copy_existing => true)");
	foreach my $i (0, 1)
	{
		poll_until(sub { sql("SELECT count(*) FROM pg_locks WHERE locktype = 'transactionid' AND transactionid = '$xids[$i]' AND NOT granted") eq '1' }, "a launch that waits for transaction $xids[$i]");
		push @xids, $blockers[ $i + 1 ]->query_safe('BEGIN; SELECT pg_current_xact_id()');
		$blockers[2]->query_safe($statement) if $i == 1;
		$blockers[$i]->query_safe('COMMIT');
	}
	waits_for('relation');
	$blockers[2]->query_safe('COMMIT');
	$_->quit foreach @blockers;
	my ($status, $out, $err) = finish_psql($launch);
	like($err, qr/ERROR:  55006: table public\.$name was rewritten, truncated or dropped as its copy began\nHINT:  Try again\./, "$name as its copy begins: the launch fails");
	is(slots($slot) . current_of($node, $name, 'state, slot_name') . files($name), '0created|0', "$name as its copy begins: nothing is left");
	sql("INSERT INTO $name SELECT i, 'row' FROM generate_series(1, 3) i") if $name eq 'truncated';
	copies_all($name, "$name as its copy begins");
}

# And while others are copied.
{
	sql(q(CREATE TABLE a_wide (id int PRIMARY KEY, note text); INSERT INTO a_wide SELECT i, repeat(md5(i::text), 32) FROM generate_series(1, 24000) i));
	sql(q(CREATE TABLE b_narrow (id int PRIMARY KEY, note text); INSERT INTO b_narrow SELECT i, 'row' FROM generate_series(1, 3) i));
	flow('narrow', tables => '{a_wide,b_narrow}');
	hold('narrow', 'CreateMultipartUpload');
	my $launch = start_psql($node, q(SET s3export.upload_memory = '10MB'), q(SET s3export.part_size = '5MB'), q(SELECT s3export.launch('narrow', copy_existing => true)));
	poll_until(sub { grep { $_->{used} } @{ $s3->call('list_faults')->{faults} } }, 'a copy that waits');
	is(sql(q(SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE a.backend_type = 's3export current' AND l.relation IN ('a_wide'::regclass, 'b_narrow'::regclass))), 2, 'while one table is copied, all are locked');
	error_like($node, q(SET lock_timeout = '100ms'; ALTER TABLE b_narrow ALTER id TYPE bigint), { sqlstate => '55P03' }, 'while others are copied, a table cannot be rewritten');
	my $alter = start_psql($node, 'ALTER TABLE b_narrow ALTER id TYPE bigint');
	poll_until(sub { sql(q(SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'ALTER TABLE b_narrow%')) eq '1' }, 'the statement to wait');
	let_go();
	is((finish_psql($launch))[0], 0, 'while others are copied: the launch') or diag($launch->{err});
	is((finish_psql($alter))[0], 0, 'while others are copied: the statement follows') or diag($alter->{err});
	sql(q(INSERT INTO b_narrow VALUES (10000000000, 'big')));
	is((deliver($node, 'narrow') // {})->{events}, 5, 'while others are copied: and changes, with the rows that were written anew');
	my @events = all_events(files('narrow'));
	is(join(' ', map { "$_->{op} " . ($_->{values}{id} // '-') } grep { $_->{type} eq 'public.b_narrow' } @events), 'snapshot - copy 1 copy 2 copy 3 snapshot - copy 1 copy 2 copy 3 insert 10000000000', 'while others are copied: all rows are sent');
	is(scalar(grep { $_->{type} eq 'public.a_wide' && $_->{op} eq 'copy' } @events), 24000, 'while others are copied: of all tables');
	fine('narrow', 'while others are copied');
	sql(q(SELECT s3export.drop_connector('narrow')));
}

# ---- ends that fail
launched_flow($_) foreach 'one', 'two', 'three';
sub exist { return join ' ', map { slots(slot_of($_)) } @_; }
{
	sql(q(INSERT INTO two VALUES (1, 'one')));
	hold('two');
	my $delivery = start_psql($node, q(SELECT events FROM s3export.deliver('two')));
	poll_until(sub { sql('SELECT count(*) FROM s3export.current_batch') eq '1' }, 'the delivery');
	foreach my $statement ("drop_connector('two')", "stop('two')")
	{
		error_like($node, "BEGIN; SELECT s3export.drop_connector('one'); SELECT s3export.$statement; COMMIT",
			{ sqlstate => '55006', message => 'connector "two" is being delivered or launched', hint => qr/./ }, "$statement is refused during a delivery");
	}
	is(exist('one', 'two'), '1 1', 'which leaves all slots');
	let_go();
	is((finish_psql($delivery))[1], '1', 'and the delivery goes on');
	is(current_of($node, $_, 'state'), 'running', "$_ runs") foreach 'one', 'two';
}

# A transaction that fails when it commits.
{
	my @sessions = map { $node->background_psql('postgres', on_error_stop => 0) } 1, 2;

	sql('CREATE TABLE doctor (id int PRIMARY KEY, on_call bool); INSERT INTO doctor VALUES (1, true), (2, true)');
	$_->query_safe('BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM doctor WHERE on_call') foreach @sessions;
	$sessions[0]->query_safe(q(UPDATE doctor SET on_call = false WHERE id = 1; SELECT s3export.drop_connector('one'), s3export.stop('two')));
	$sessions[1]->query_safe('UPDATE doctor SET on_call = false WHERE id = 2; COMMIT');
	$sessions[0]->query('COMMIT');
	like($sessions[0]->{stderr}, qr/could not serialize access/, 'a transaction that cannot be serialized');
	$_->quit foreach @sessions;
	is(exist('one', 'two'), '1 1', 'leaves all slots');

	sql(q(CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'no'; END$$));
	sql('CREATE CONSTRAINT TRIGGER fail AFTER INSERT ON doctor DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION fail()');
	error_like($node, q(BEGIN; SELECT s3export.stop('one'), s3export.drop_connector('two'); INSERT INTO doctor VALUES (3, true); COMMIT), { message => 'no' }, 'a constraint that fails at the commit');
	is(exist('one', 'two'), '1 1', 'leaves all slots');
	error_like($node, q(BEGIN; SELECT s3export.drop_connector('one'), s3export.stop('two'); PREPARE TRANSACTION 'ends'), { sqlstate => '0A000' }, 'PREPARE TRANSACTION is refused');
	is(exist('one', 'two'), '1 1', 'and leaves all slots');
	is(sql('SELECT count(*) FROM pg_prepared_xacts'), 0, 'and no transaction');
	sql(q(BEGIN; SELECT s3export.drop_connector('one'), s3export.stop('two'); ROLLBACK));
	is(exist('one', 'two'), '1 1', 'so does ROLLBACK');
}

# Savepoints.
{
	my $session = $node->background_psql('postgres');
	my %slot = map { $_ => slot_of($_) } 'one', 'two', 'three';

	$session->query_safe(q(BEGIN; SAVEPOINT a; SELECT s3export.drop_connector('one'), s3export.stop('two'); ROLLBACK TO a; SAVEPOINT b; SELECT s3export.drop_connector('three'); RELEASE b));
	is((deliver($node, 'one') // {})->{state}, 'running', 'ROLLBACK TO SAVEPOINT: it can be delivered at once');
	is(exist('one', 'two', 'three'), '1 1 1', 'before the commit all slots are there');
	$session->query_safe('COMMIT');
	$session->quit;
	is(join(' ', map { slots($slot{$_}) } 'one', 'two', 'three'), '1 1 0', 'after it those of what has been dropped are not');
	is((deliver($node, $_) // {})->{state}, 'running', "$_ goes on") foreach 'one', 'two';
}

# The files of the slot cannot be removed.
{
	my $slot = slot_of('one');
	my $directory = $node->data_dir . '/pg_replslot';

	chmod 0500, $directory or die "could not protect $directory: $!";
	my ($out, $err) = said(q(SELECT s3export.drop_connector('one')));
	chmod 0700, $directory or die "could not open $directory: $!";
	like($err, qr/WARNING:  01000: could not drop replication slot "$slot"\nDETAIL:  .*\nHINT:  .*pg_drop_replication_slot/, 'a slot that cannot be dropped: a warning');
	is(sql(q(SELECT count(*) FROM s3export.currents WHERE name = 'one')) . slots($slot), '01', 'a slot that cannot be dropped: the transaction has committed');
	sql("SELECT pg_drop_replication_slot('$slot')");
}

# ---- stop
{
	my $slot = slot_of('two');

	is(current_of($node, 'two', 'events_sent'), 1, 'stop: one event was sent');
	sql(q(BEGIN; SELECT s3export.stop('two'); ROLLBACK));
	is(current_of($node, 'two', 'state') . slots($slot), 'running1', 'stop: rolled back');
	sql(q(SELECT s3export.stop('two')));
	is(current_of($node, 'two', 'state, slot_name, position, lag_bytes, lag_seconds, events_sent, failures') . slots($slot), 'stopped|||||1|00', 'stop: the slot is given back, and the rest kept');
	is(last_event('two', 'state'), 'stopped|stopped', 'stop: an event');
	error_like($node, q(SELECT s3export.stop('two')), { sqlstate => '55000', message => 'cannot stop connector "two"', detail => 'It is stopped.' }, 'stop: once');
	error_like($node, q(SELECT * FROM s3export.deliver('two')), { sqlstate => '55000', message => 'connector "two" is stopped', hint => qr/launch/ }, 'stop: nothing is delivered');
	sql(q(INSERT INTO two VALUES (2, 'missed')));
	launch($node, 'two');
	sql(q(INSERT INTO two VALUES (3, 'new')));
	deliver($node, 'two');
	is(ids('two'), 'insert 1 insert 3', 'stop: launched again, it sends what follows');
	is(current_of($node, 'two', "state, slot_name = '$slot', events_sent, files_sent"), 'running|t|2|2', 'stop: and counts on');
	fine('two', 'stop');
}

# ---- no lag
{
	deliver($node, 'two');
	poll_until(sub { deliver($node, 'two'); current_of($node, 'two', 'lag_bytes, lag_seconds') eq '0|0' }, 'a lag of 0');
	sql('CREATE TABLE noise (id int, note text); INSERT INTO noise VALUES (1)');
	is(current_of($node, 'two', 'lag_bytes > 0, lag_seconds < 60'), 't|t', 'what others write is a lag, until the next delivery');
	deliver($node, 'two');
	deliver($node, 'two');
	is(current_of($node, 'two', 'lag_bytes < 1000, lag_seconds < 60'), 't|t', 'which has nothing left');
}

# ---- the owner may not replicate any more
{
	local $ENV{PGUSER} = 'alice';
	launched_flow('revoked');
	local $ENV{PGUSER} = 'postgres';
	sql(q(ALTER ROLE alice NOREPLICATION; INSERT INTO revoked VALUES (1, 'one')));
	my ($out, $err) = said(q(SELECT state, events, error FROM s3export.deliver('revoked', "raise" => false)), user => 'alice');
	is($out, 'running|0|permission denied to send changes to connector "revoked"', 'REPLICATION revoked: nothing is delivered');
	like($err, qr/WARNING:  42501: could not deliver the changes of connector "revoked": .*\nDETAIL:  .*\nHINT:  .*ALTER ROLE alice REPLICATION/, 'REPLICATION revoked: with a warning');
	is(current_of($node, 'revoked', 'state, failures, error_code'), 'running|1|42501', 'REPLICATION revoked: and a failure');
	is(last_event('revoked', 'code'), 'failed|42501', 'REPLICATION revoked: and an event');
	error_like($node, 'SELECT * FROM s3export.deliver()', { sqlstate => '55000', message => qr/^could not deliver the changes of 1 of \d connectors$/, detail => qr/connector "revoked": it is not tried again yet after: permission denied/ }, 'REPLICATION revoked: and an error of deliver()');
	sql('ALTER ROLE alice REPLICATION');
	is((deliver($node, 'revoked') // {})->{events}, 1, 'REPLICATION given back: nothing is missing');
	sql(q(SELECT s3export.stop('revoked'); ALTER ROLE alice NOREPLICATION));
	error_like($node, q(SELECT s3export.launch('revoked')), { sqlstate => '42501', hint => qr/ALTER ROLE alice REPLICATION/ }, 'REPLICATION revoked: it cannot be launched', user => 'alice');
	sql(q(SELECT s3export.drop_connector('revoked')));
}

# ---- unlimited slots
{
	my (undef, $err) = said(q(SELECT s3export.stop('two'); SELECT s3export.launch('two')));

	like($err, qr/WARNING:  01000: the server keeps WAL for connector "two" without a limit\nDETAIL:  .*\nHINT:  Set "max_slot_wal_keep_size"/, 'launch warns of slots without a limit');
	$node->append_conf('postgresql.conf', "max_slot_wal_keep_size = '10GB'");
	$node->reload;
	poll_until(sub { sql('SHOW max_slot_wal_keep_size') eq '10GB' }, 'the setting');
	(undef, $err) = said(q(SELECT s3export.stop('two'); SELECT s3export.launch('two')));
	is($err, '', 'and of none with a limit');
}

# ---- the same server, by another path
{
	my $link = PostgreSQL::Test::Utils::tempdir() . '/link';
	my @control = ('pg_ctl', '-D', $link, '-w', '-l', $node->logfile);

	sql(q(INSERT INTO two VALUES (4, 'before')));
	deliver($node, 'two');
	sql(q(INSERT INTO two VALUES (5, 'not yet')));
	$node->stop;
	symlink $node->data_dir, $link or die "could not make $link: $!";
	{
		local %ENV = $node->_get_env();
		PostgreSQL::Test::Utils::system_or_bail(@control, 'start');
	}
	is(sql('SHOW data_directory'), $link, 'another path of the data directory');
	is(current_of($node, 'two', 'state, lag_bytes > 0'), 'running|t', 'another path: the current runs');
	is((deliver($node, 'two') // {})->{events}, 1, 'another path: and delivers');
	is(ids('two'), 'insert 1 insert 3 insert 4 insert 5', 'another path: each event once');
	PostgreSQL::Test::Utils::system_or_bail(@control, '-m', 'fast', 'stop');
	$node->start;
	is((deliver($node, 'two') // {})->{state}, 'running', 'and back');
}

# ---- WAL that has no events
# In transactions of 1 MB; the records of a checkpoint are what a slot can restart from.
sub noise
{
	my ($megabytes) = @_;

	return sql(<<"SQL");
DO \$\$
BEGIN
	FOR i IN 1 .. $megabytes LOOP
		INSERT INTO noise SELECT i, repeat('x', 1000) FROM generate_series(1, 930);
		COMMIT;
		IF i % 8 = 0 THEN
			CHECKPOINT;
		END IF;
	END LOOP;
END
\$\$;
SQL
}

sub slot_state { return split /\|/, sql('SELECT pg_current_wal_lsn() - restart_lsn, pg_current_wal_lsn() - confirmed_flush_lsn, catalog_xmin, pg_current_xact_id() FROM pg_replication_slots WHERE slot_name = ' . sql_literal($_[0])); }

{
	my $slot = slot_of('two');
	my @names = ('WAL after restart_lsn', 'WAL after confirmed_flush_lsn', 'catalog_xmin', 'next xid');

	deliver($node, 'two');
	noise(52);
	my @before = slot_state($slot);
	deliver($node, 'two');
	my @after = slot_state($slot);
	note("$names[$_]: $before[$_] before, $after[$_] after one delivery") foreach 0 .. 3;
	cmp_ok($before[0], '>', 45_000_000, '50 MB of WAL without an event');
	cmp_ok($after[0], '<=', 20 * 1024 * 1024, 'one delivery lets go of all but 20 MB');
	cmp_ok($after[1], '<=', 1000, 'it has read all of it');
	cmp_ok($after[2], '>', $before[2], 'and lets go of catalog rows');
}

# ---- deliveries that are cut short, with longer and longer timeouts until the position moves
{
	my ($timeout, $tries) = (20, 0);
	my @positions;
	my $count = () = files('two');

	noise(98);
	sql(q(INSERT INTO two VALUES (6, 'at the end')));
	push @positions, current_of($node, 'two', 'position');
	while ($tries++ < 100)
	{
		my (undef, $err) = said("SET statement_timeout = '$timeout ms'; SELECT * FROM s3export.deliver('two')");
		my $position = current_of($node, 'two', 'position');

		last unless $err;
		like($err, qr/ERROR:  57014: /, "a delivery is cut short after $timeout ms") if $position ne $positions[-1];
		$position ne $positions[-1] ? push @positions, $position : ($timeout += 10);
	}
	note('98 MB of WAL without an event: positions ' . join(' ', @positions) . " with timeouts of up to $timeout ms");
	cmp_ok(scalar @positions, '>', 2, 'deliveries that are cut short move the position');
	cmp_ok($tries, '<', 100, 'until one has all');
	is(current_of($node, 'two', 'failures'), 0, 'which are no failures');
	like(ids('two'), qr/ insert 5 insert 6$/, 'and sends what comes then');

	# What is found before such a stretch does not wait for its end.
	deliver($node, 'two');
	sql(q(INSERT INTO two VALUES (7, 'first')));
	noise(70);
	sql(q(INSERT INTO two VALUES (8, 'last')));
	is_deeply([ @{ deliver($node, 'two') }{qw(events files)} ], [ 2, 2 ], 'what is found before a long stretch without events is sent before it is read');
	fine('two', 'WAL without events');
}

# ---- DROP EXTENSION
{
	my $refused = { sqlstate => '2BP01', message => 'cannot drop extension "s3export" while it has replication slots', detail => qr/^1 /, hint => qr/drop_connector.*stop/ };
	my $slot = slot_of('two');

	is(sql(q(SELECT string_agg(slot_name, ' ') FROM pg_replication_slots)), $slot, 'there is one slot');
	error_like($node, $_, $refused, "$_ is refused") foreach 'DROP EXTENSION s3export', 'DROP EXTENSION IF EXISTS plpgsql, s3export CASCADE';
	is(slots($slot) . current_of($node, 'two', 'state'), '1running', 'and all is as it was');
	unlike((said('DROP OWNED BY alice', user => 'alice'))[1], qr/ERROR/, 'what others own is dropped as ever');
	# Those of other databases are others'.
	sql(q(CREATE ROLE dba SUPERUSER LOGIN));
	said('CREATE EXTENSION s3export', dbname => 'other', user => 'dba');
	$node->safe_psql('other', 'DROP EXTENSION s3export');
	is(slots($slot), 1, 'in another database it is dropped, and the slot stays');

	# By the end of its owner.
	said('CREATE EXTENSION s3export; CREATE TABLE mine (id int PRIMARY KEY)', dbname => 'other', user => 'dba');
	$node->safe_psql('other', 'SELECT ' . connector_sql('mine', at_endpoint($s3), %keys, kind => 'currents', validate => \'false', tables => '{mine}'));
	launch($node, 'mine', dbname => 'other');
	error_like($node, 'DROP OWNED BY dba', $refused, 'DROP OWNED BY its owner is refused', dbname => 'other');
	is($node->safe_psql('other', 'SELECT state FROM s3export.currents'), 'running', 'DROP OWNED BY its owner: all is as it was');
	$node->safe_psql('other', q(SELECT s3export.stop('mine')));
	$node->safe_psql('other', 'DROP OWNED BY dba');
	is($node->safe_psql('other', q(SELECT count(*) FROM pg_extension WHERE extname = 's3export')), 0, 'DROP OWNED BY its owner: when there is no slot');

	sql(q(SELECT s3export.stop('two')));
	sql('DROP EXTENSION s3export');
	is(sql('SELECT count(*) FROM pg_replication_slots'), 0, 'after stop() it is dropped');
}
done_testing();
