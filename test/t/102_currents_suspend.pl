# Currents whose credentials fail: they are suspended, tried again ever less often,
# warned of, and in the end their oldest events are given up.  The server's clock is
# set forward (clock.c), and with it the times of commits and what files are named by.
use strict;
use warnings;
use lib 'test/lib';
use IPC::Run;
use JSON::PP ();
use PostgreSQL::Test::Utils;
use S3Currents;
use S3Export;
use S3Faults;
use ScriptedS3;
use Test::More;

my $s3 = scripted_s3();
my $node = with_clock(sub { currents_node('main', "s3export.retry_timeout = '1s'", "s3export.connect_timeout = '1s'") });
my %keys = scripted_user($s3);
my %folder;
my $hour = 3600;
my $launched; # clock_forward() when the newest current was launched

$s3->call('configure', max_skew => 1e9);

sub sql { return $node->safe_psql('postgres', @_); }

# A current of a table of its own, launched; %keys and more are arguments of create_connector.
sub flow
{
	my ($name, %more) = @_;

	$folder{$name} = unique_folder();
	sql("CREATE TABLE $name (id int PRIMARY KEY, note text)");
	create_connector($node, $name, at_endpoint($s3), folder_path => $folder{$name}, kind => 'currents', tables => "{$name}", validate => \'false', %more);
	launch($node, $name);
	$launched = clock_forward();
	return;
}

# Rows from..to of its table, in one transaction.
sub insert
{
	my ($name, $from, $to) = @_;

	sql("INSERT INTO $name SELECT i, 'row ' || i FROM generate_series($from, $to) i");
	return;
}

# deliver(), with the clock set forward to so many seconds after the newest current was
# launched: (row as text, messages).  Without a name errors are in the rows.
sub deliver_at
{
	my ($offset, $name) = @_;

	set_clock_forward($launched + $offset - clock_forward());
	my ($status, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\nSELECT connector, state, events, events_dropped FROM s3export.deliver("
		  . (defined $name ? sql_literal($name) : '"raise" => false') . ')');

	return ($out, $err);
}

# The SQLSTATE that it fails with, or nothing.
sub fails_at
{
	my ($out, $err) = deliver_at(@_);

	return $err =~ /ERROR:  ([0-9A-Z]{5}):/ ? $1 : '';
}

sub ids
{
	my ($name) = @_;

	return join ' ', map { $_->{values}{id} } events(files_in_scripted($s3, $folder{$name}));
}

# "dropped": keys of files whose batch was dropped.
sub fine
{
	my ($name, $what, @dropped) = @_;
	my @files = files_in_scripted($s3, $folder{$name});

	is_deeply([ wrong_files(@files), wrong_events(all_events(@files)), wrong_batches(objects_in_scripted($s3, $folder{$name})) ], [ map { "$_: in no batch" } @dropped ], "$what: the files");
	return;
}

# The events of a connector in the table, the last ones first: event, repeats and detail.
sub recorded
{
	my ($name, $number) = @_;

	return @{ JSON::PP->new->decode(sql("SELECT coalesce(json_agg(e), '[]') FROM (SELECT event, repeats, detail FROM s3export.current_events WHERE connector = '$name' ORDER BY at DESC LIMIT $number) e")) };
}

# New credentials, which are tested: there is nothing more to wait for.
sub wake
{
	my ($name) = @_;

	$s3->call('clear_faults');
	sql("SELECT s3export.set_credentials('$name', access_key_id => '$keys{access_key_id}', secret_access_key => '$keys{secret_access_key}')");
	return;
}

sub state { return current_of($node, $_[0], 'state'); }

# ---- a session that listens
my ($listen_in, $listen_out, $marks) = ("LISTEN s3export;\n", '', 0);
my $listener = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres') ], '<', \$listen_in, '>', \$listen_out, '2>&1');

# What has been notified since the last call, of one connector.
sub notified
{
	my ($name) = @_;
	my @events;

	$marks++;
	$listen_in .= "SELECT 'mark $marks';\n";
	# What a commit has notified is there, as this session begins later.
	poll_until(sub { $listener->pump_nb; $listen_out =~ /^mark $marks$/m }, 'the session that listens');
	$listen_in .= "SELECT 'mark $marks again';\n";
	poll_until(sub { $listener->pump_nb; $listen_out =~ /^mark $marks again$/m }, 'the session that listens');
	while ($listen_out =~ /notification "s3export" with payload "(\{.*\})" received/g)
	{
		my $notified = JSON::PP->new->decode($1);

		push @events, $notified unless join(' ', sort keys %$notified) eq 'job_id state';
	}
	$listen_out = '';
	# Every role may listen.
	is_deeply([ grep { join(' ', sort keys %$_) ne 'connector_id event state' } @events ], [], 'a notification tells ids, event and state alone') if @events;
	my $id = current_of($node, $name, 'connector_id');
	return grep { $_->{connector_id} == $id } @events;
}

# ---- the clock itself
{
	my $session = start_psql($node, q(DO $$BEGIN WHILE clock_timestamp() < now() + interval '5 hours' LOOP PERFORM pg_sleep(0.01); END LOOP; END$$));
	my $seconds = 'SELECT extract(epoch FROM clock_timestamp())';

	poll_until(sub { sql(q(SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'DO %' AND state = 'active')) == 1 }, 'a session that waits for a time');
	my $before = sql($seconds);
	set_clock_forward(5 * $hour);
	cmp_ok(sql($seconds) - $before, '>=', 5 * $hour, 'the clock of the server is set forward');
	is_deeply([ finish_psql($session) ], [ 0, '', '' ], 'also for who has been waiting');
}

# ---- what suspends, and what is said of it
# With each: how credentials break, how they are mended, the code of S3's that the error names.
my %role_keys = scripted_user($s3);
sql('SELECT s3export.set_identity(' . join(', ', map { sql_literal($role_keys{$_}) } qw(access_key_id secret_access_key)) . ')');
my $role = scripted_role($s3, 'flow');
my %session = scripted_session($s3, $role);
my $user_arn;
my @cases = (
	[ 'unknown', 'InvalidAccessKeyId', { scripted_user($s3) }, sub { $s3->call('remove_user', access_key_id => $_[0]{access_key_id}) } ],
	[ 'mismatch', 'SignatureDoesNotMatch', { scripted_user($s3) }, sub { sql("SELECT s3export.set_credentials('mismatch', access_key_id => '$_[0]{access_key_id}', secret_access_key => '" . 'x' x 40 . "', validate => false)") } ],
	[ 'expired', 'ExpiredToken', {%session}, sub { $s3->call('expire_sessions') } ],
	[ 'denied', 'AccessDenied', { scripted_user($s3, policy => allow('s3:*')) }, sub { $s3->call('add_fault', do => 'error', code => 'AccessDenied', match => { access_key_id => $_[0]{access_key_id} }, times => undef) } ],
	[ 'refused', 'AccessDenied', { access_key_id => undef, secret_access_key => undef, role_arn => $role, sts_endpoint_url => $s3->url }, sub { $s3->call('set_trust', arn => $role, trust => trust('sts:ExternalId' => 'another')) } ]);
foreach my $case (@cases)
{
	my ($name, $code, $keys, $break) = @$case;
	my ($suspended_at, $since, @events);

	flow($name, %$keys);
	insert($name, 1, 2);
	is(deliver($node, $name)->{events}, 2, "$name: works at first");
	notified($name);
	$break->($keys);
	insert($name, 3, 4);
	error_like($node, "SELECT s3export.deliver('$name')", { sqlstate => '28000', detail => qr/$code/ }, "$name: the delivery fails");
	is(current_of($node, $name, q(state, failures, error_code, error_message IS NOT NULL, error_detail ~ ') . $code . q(', deadline - suspended_at = interval '48 hours',
		next_try_at - suspended_at BETWEEN interval '29 s' AND interval '31 s', lag_bytes > 0, lag_seconds >= 0)), 'suspended|1|28000|t|t|t|t|t|t', "$name: is suspended, with the reason");
	$suspended_at = current_of($node, $name, 'suspended_at');
	@events = notified($name);
	is_deeply([ map { "$_->{event} $_->{state}" } @events ], ['suspended suspended'], "$name: NOTIFY");
	my ($recorded) = recorded($name, 1);
	is_deeply([ @$recorded{qw(event repeats)}, @{ $recorded->{detail} }{qw(state code)} ], [ 'suspended', 1, 'suspended', '28000' ], "$name: an event in the table");
	like($recorded->{detail}{message}, qr/could not|refused/, "$name: which says what");

	$since = $s3->log;
	my $waits = "it is not tried again yet after: $recorded->{detail}{message}";
	my ($rows, $messages) = deliver_and_listen($node);
	is_deeply([ grep { $_->{connector} eq $name } @$rows ], [ { connector => $name, state => 'suspended', events => 0, files => 0, bytes => 0, events_dropped => 0, batch => undef, error => $waits } ], "$name: is not due");
	like($messages, qr/WARNING:  55000: nothing is delivered to connector "$name": \Q$waits\E\nHINT: .* s3export.resume\(\)/, "$name: which is a warning");
	error_like($node, 'SELECT s3export.deliver()', { sqlstate => '55000', message => qr/^could not deliver the changes of 1 of \d+ connectors?$/, detail => qq(connector "$name": $waits) }, "$name: and an error of deliver()");
	error_like($node, "SELECT s3export.deliver('$name')", { sqlstate => '55000', message => qq(connector "$name" is suspended), detail => qr/tried again from/, hint => qr/set_credentials/ }, "$name: nor tried by its name, which is said");
	($rows, $messages) = deliver_and_listen($node, name => $name);
	is($rows->[0]{error}, qq(connector "$name" is suspended), "$name: without an error, too");
	is(scalar($s3->log), $since, "$name: no request was sent");
	is(current_of($node, $name, 'failures'), 1, "$name: nor was that a failure");
	is(fails_at(32, $name), '28000', "$name: after 30 s it is");
	is(current_of($node, $name, "state, failures, suspended_at = '$suspended_at', next_try_at - suspended_at BETWEEN interval '91 s' AND interval '95 s'"), 'suspended|2|t|t', "$name: then after twice as long; the clock goes on");
	is(join(' ', map { $_->{event} } notified($name)), 'failed', "$name: NOTIFY of another failure");
	$since = $s3->log;
	my ($row, $err) = deliver_at(200);
	like($row, qr/^$name\|suspended\|0\|0$/m, "$name: deliver() tries it, too");
	like($err, qr/WARNING:  28000: could not deliver the changes of connector "$name"/, "$name: and warns");
	cmp_ok(scalar($s3->log), '>', $since, "$name: by a request");

	# New credentials wake it at once.
	my %new = scripted_user($s3);
	notified($name);
	sql(qq(SELECT s3export.set_credentials('$name', access_key_id => '$new{access_key_id}', secret_access_key => '$new{secret_access_key}')));
	is(current_of($node, $name, 'state, suspended_at, next_try_at, failures, deadline'), 'running|||0|', "$name: set_credentials ends it");
	is(join(' ', map { $_->{event} } notified($name)), 'recovered', "$name: NOTIFY");
	is(deliver($node, $name)->{events}, 2, "$name: nothing is missing");
	is(ids($name), '1 2 3 4', "$name: each event once");
	fine($name, $name);
	is(current_of($node, $name, 'error_code, error_message, events_dropped'), '||0', "$name: it is forgotten");
}

# ---- mended elsewhere; longer and longer pauses
{
	flow('policy', %keys);
	insert('policy', 1, 1);
	my $fault = $s3->call('add_fault', do => 'error', code => 'AccessDenied', match => { key => $folder{policy} }, times => undef);
	my @pauses;
	my $offset = 0;

	foreach my $try (1 .. 9)
	{
		is(fails_at($offset, 'policy'), '28000', "try $try");
		my $next = current_of($node, 'policy', 'ceil(extract(epoch FROM next_try_at - now()))');
		push @pauses, int(($next + 3) / 10) * 10;
		$offset += $next + 1;
	}
	is_deeply([ map { "$_->{event} $_->{repeats}" } reverse recorded('policy', 100) ], [ 'launched 1', 'suspended 1', 'failed 8' ], 'failures that are the same are one event');
	is("@pauses", '30 60 120 240 480 960 1920 3600 3600', 'pauses are doubled, up to an hour');
	$s3->call('clear_faults');
	notified('policy');
	is((deliver_at($offset, 'policy'))[0], 'policy|running|1|0', 'it goes on by itself when S3 accepts the credentials again');
	is(join(' ', map { $_->{event} } notified('policy')), 'recovered', 'NOTIFY');
	is(current_of($node, 'policy', 'suspended_at, next_try_at, failures, error_code'), '||0|', 'and all is forgotten');
}

# ---- what is no matter of credentials
{
	flow('network', %keys);
	my %wrong = (
		'S3 is overloaded' => [ sub { $s3->call('add_fault', do => 'slow_down', match => { key => $folder{network} }, times => undef) }, sub { $s3->call('clear_faults') } ],
		'S3 has an internal error' => [ sub { $s3->call('add_fault', do => 'internal_error', match => { key => $folder{network} }, times => undef) }, sub { $s3->call('clear_faults') } ],
		'S3 is out of reach' => [ sub { $s3->call('listen', on => ScriptedS3::false) }, sub { $s3->call('listen', on => ScriptedS3::true) } ]);
	my ($id, $offset) = (0, 0);

	foreach my $what (sort keys %wrong)
	{
		my ($begin, $end) = @{ $wrong{$what} };

		$id++;
		insert('network', $id, $id);
		$begin->();
		notified('network');
		isnt(fails_at($offset, 'network'), '', "$what: the delivery fails");
		is(current_of($node, 'network', q(failures, next_try_at - now() BETWEEN '20 s' AND '30 s')), '1|t', "$what: and is not tried again at once");
		my $since = $s3->log;
		my ($row) = grep { $_->{connector} eq 'network' } deliver_all($node);
		is($row->{state}, 'running', "$what: it is running still");
		like($row->{error}, qr/^it is not tried again yet after: /, "$what: deliver() leaves it alone");
		is(scalar($s3->log), $since, "$what: and sends no request");
		$offset += 100 * $hour;
		isnt(fails_at($offset, 'network'), '', "$what: and days later");
		is(current_of($node, 'network', q(state, failures, suspended_at, deadline, events_dropped, error_code IS NOT NULL, next_try_at - now() BETWEEN '50 s' AND '60 s')), 'running|2|||0|t|t', "$what: which suspends nothing");
		is(join(' ', map { "$_->{event} $_->{state}" } notified('network')), 'failed running failed running', "$what: NOTIFY");
		$end->();
		is((deliver_at($offset, 'network'))[0], 'network|running|1|0', "$what: by its name it is tried at once");
		is(current_of($node, 'network', 'failures, next_try_at, error_code'), '0||', "$what: that was all");
		is(join(' ', map { "$_->{event} $_->{state}" } notified('network')), 'recovered running', "$what: NOTIFY that it is over");
	}
	is(ids('network'), '1 2 3', 'nothing is missing');

	# While suspended they change nothing, either.
	insert('network', 4, 4);
	$s3->call('add_fault', do => 'error', code => 'AccessDenied', match => { key => $folder{network} }, times => undef);
	is(fails_at($offset, 'network'), '28000', 'then credentials fail');
	my $suspended_at = current_of($node, 'network', 'suspended_at');
	$s3->call('clear_faults');
	$s3->call('listen', on => ScriptedS3::false);
	isnt(fails_at($offset + 32, 'network'), '28000', 'then the network');
	is(current_of($node, 'network', "state, failures, suspended_at = '$suspended_at', next_try_at > suspended_at + interval '80 s'"), 'suspended|2|t|t', 'the clock goes on');
	$s3->call('listen', on => ScriptedS3::true);
	is((deliver_at($offset + 200, 'network'))[0], 'network|running|1|0', 'and ends with the next success');
	$offset += 200;

	# Pauses are shorter than those of credentials, as the network comes back by itself.
	my @pauses;
	insert('network', 5, 5);
	$s3->call('listen', on => ScriptedS3::false);
	foreach my $try (1 .. 6)
	{
		isnt(fails_at($offset, 'network'), '', "out of reach, try $try");
		my $next = current_of($node, 'network', 'ceil(extract(epoch FROM next_try_at - now()))');
		push @pauses, int(($next + 3) / 10) * 10;
		$offset += $next + 1;
	}
	is("@pauses", '30 60 120 240 300 300', 'pauses are doubled, up to five minutes');
	$s3->call('listen', on => ScriptedS3::true);
	like((deliver_at($offset))[0], qr/^network\|running\|1\|0$/m, 'it goes on by itself');
	is(ids('network'), '1 2 3 4 5', 'nothing is missing');
}

# ---- the clock: warnings, a restart, the end
{
	flow('clock', %keys);
	insert('clock', 1, 3);
	insert('clock', 4, 5);
	$s3->call('add_fault', do => 'error', code => 'AccessDenied', match => { key => $folder{clock} }, times => undef);
	is(fails_at(0, 'clock'), '28000', 'the clock starts');
	my $suspended_at = current_of($node, 'clock', 'suspended_at');
	notified('clock');
	unlike(join('', deliver_at(23 * $hour, 'clock')), qr/WARNING/, 'no warning before half of the time');
	my (undef, $err) = deliver_at(24 * $hour + 60, 'clock');
	like($err, qr/WARNING:  01000: connector "clock" will drop events unless it gets working credentials\nDETAIL: .* 50 % of the time/, 'a warning at 50 %');
	is(join(' ', map { "$_->{event} $_->{state}" } grep { $_->{event} ne 'failed' } notified('clock')), 'warning suspended', 'NOTIFY');
	is_deeply([ map { $_->{detail}{percent} } grep { $_->{event} eq 'warning' } recorded('clock', 100) ], [50], 'an event in the table');
	unlike((deliver_at(30 * $hour, 'clock'))[1], qr/WARNING/, 'once');
	$listener->kill_kill;

	$node->stop('immediate');
	with_clock(sub { $node->start });
	is(current_of($node, 'clock', "state, suspended_at = '$suspended_at'"), 'suspended|t', 'the clock survives a crash');
	($listen_in, $listen_out) = ("LISTEN s3export;\n", '');
	$listener = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres') ], '<', \$listen_in, '>', \$listen_out, '2>&1');
	notified('clock');
	unlike((deliver_at(31 * $hour, 'clock'))[1], qr/WARNING/, 'and what has been warned of');
	# Without a name, and before its next try.
	($err) = (deliver_at(43 * $hour + 12 * 60 + 60))[1];
	like($err, qr/WARNING:  01000: connector "clock" will drop events unless it gets working credentials\nDETAIL: .* 90 % of the time/, 'a warning at 90 %');
	is(join(' ', map { "$_->{event} $_->{state}" } grep { $_->{event} ne 'failed' } notified('clock')), 'warning suspended', 'NOTIFY');
	is_deeply([ map { $_->{detail}{percent} } grep { $_->{event} eq 'warning' } recorded('clock', 100) ], [ 90, 50 ], 'an event in the table');
	is(current_of($node, 'clock', 'events_dropped'), 0, 'nothing is dropped yet');
	my $position = current_of($node, 'clock', 'position');
	($err) = (deliver_at(48 * $hour + 60))[1];
	like($err, qr/WARNING: .*events of connector "clock" have been dropped for good/, 'then events are dropped');
	is(current_of($node, 'clock', "state, events_dropped, position > '$position', suspended_at = '$suspended_at'"), 'suspended|5|t|t', 'and counted');
	is(join(' ', map { $_->{event} } grep { $_->{event} eq 'dropped' } notified('clock')), 'dropped', 'NOTIFY');
	is(sql(q(SELECT count(*) FROM s3export.current_events WHERE connector = 'clock' AND event = 'dropped')), 1, 'an event in the table');
	my $slot = current_of($node, 'clock', 'slot_name');
	is(sql("SELECT confirmed_flush_lsn > '$position' FROM pg_replication_slots WHERE slot_name = '$slot'"), 't', 'the slot lets the log go');
	insert('clock', 6, 6);
	wake('clock');
	is((deliver_at(60 * $hour, 'clock'))[0], 'clock|running|1|0', 'what comes later is delivered');
	is(ids('clock'), '6', 'and nothing of what was dropped');
	is(current_of($node, 'clock', 'state, events_sent, events_dropped'), 'running|1|5', 'in the view');
	fine('clock', 'the clock');

	# What was lost stays known.
	sql(q(DO $$BEGIN FOR i IN 1 .. 60 LOOP PERFORM s3export.pause('clock'); PERFORM s3export.resume('clock'); END LOOP; END$$));
	is(sql(q(SELECT event = 'dropped', count(*) FROM s3export.current_events WHERE connector = 'clock' GROUP BY 1 ORDER BY 1)), "f|100\nt|1", 'other events do not push it out');
}

# ---- warnings come without a request; what S3 does not refuse is not given up
{
	flow('unasked', %keys);
	insert('unasked', 1, 1);
	$s3->call('add_fault', do => 'error', code => 'AccessDenied', match => { key => $folder{unasked} }, times => undef);
	is(fails_at(0, 'unasked'), '28000', 'suspended');
	$s3->call('clear_faults');
	$s3->call('listen', on => ScriptedS3::false);
	sql(q(UPDATE s3export.current_state SET next_try_at = suspended_at + interval '100 hours' WHERE state = 'suspended'));
	is(current_of($node, 'unasked', 'deadline - suspended_at, next_try_at - suspended_at'), '2 days|4 days 04:00:00', 'the next try is far away');

	# The rows and the messages that deliver() has of it.
	my $delivers = sub {
		my ($out, $err) = deliver_at(@_);

		return join "\n", grep({ /^unasked\|/ } split /\n/, $out), grep { /WARNING|NOTICE|ERROR/ } split /\n/, $err =~ s/^.*(?=(?:WARNING|NOTICE|ERROR):  )//rmg;
	};
	my $message = current_of($node, 'unasked', 'error_message');
	my $row = 'unasked|suspended|0|0';
	my $waits = qq(WARNING:  55000: nothing is delivered to connector "unasked": it is not tried again yet after: $message);
	my $suspended = qq(WARNING:  55000: could not deliver the changes of connector "unasked": connector "unasked" is suspended);
	my $warned = qq(WARNING:  01000: connector "unasked" will drop events unless it gets working credentials);

	is($delivers->(0), "$row\n$waits", 'nothing is due');
	is($delivers->(0, 'unasked'), qq(ERROR:  55000: connector "unasked" is suspended), 'which is an error where it is named');
	is($delivers->(23 * $hour), "$row\n$waits", 'nothing is due before half of the time');
	is($delivers->(25 * $hour), "$row\n$warned\n$suspended", 'a warning at 50 %');
	is($delivers->(25 * $hour), "$row\n$waits", 'once');
	is($delivers->(44 * $hour, 'unasked'), qq($warned\nERROR:  55000: connector "unasked" is suspended), 'a warning at 90 %, also where it is named');
	is($delivers->(44 * $hour), "$row\n$waits", 'once');
	like($delivers->(49 * $hour), qr/^\Q$row\E\nWARNING:  08006: could not deliver the changes of connector "unasked": [^\n]*$/, 'when the time is over S3 is asked, and does not answer');
	is(current_of($node, 'unasked', 'state, events_sent, events_dropped'), 'suspended|0|0', 'nothing is dropped');
	is(sql(q(SELECT event, detail - '{position,suspended_at,deadline,lag_bytes,message,detail}'::text[] FROM s3export.current_events WHERE connector = 'unasked' ORDER BY at)), <<'EVENTS' =~ s/\n$//r, 'events in the table');
launched|{"state": "running"}
suspended|{"code": "28000", "state": "suspended"}
warning|{"state": "suspended", "percent": 50}
warning|{"state": "suspended", "percent": 90}
failed|{"code": "08006", "state": "suspended"}
EVENTS
	$s3->call('listen', on => ScriptedS3::true);
	is((deliver_at(300 * $hour, 'unasked'))[0], 'unasked|running|1|0', 'all of it is delivered when S3 answers again');
}

# ---- only the oldest events are given up
{
	flow('age', %keys, drop_after => '1 hour');
	$s3->call('add_fault', do => 'error', code => 'AccessDenied', match => { key => $folder{age} }, times => undef);
	insert('age', 1, 1);
	is(fails_at(0, 'age'), '28000', 'suspended');
	insert('age', 2, 4);
	insert('age', 5, 5);
	set_clock_forward(2);
	my $middle = sql('SELECT clock_timestamp()');
	set_clock_forward(5);
	insert('age', 6, 9);
	insert('age', 10, 12);
	set_clock_forward(sql("SELECT ceil(extract(epoch FROM timestamptz '$middle' + interval '1 hour' - clock_timestamp()))"));
	my ($status, $out, $err) = $node->psql('postgres', q(SELECT connector, events_dropped FROM s3export.deliver('age')));
	is(current_of($node, 'age', 'state, events_dropped'), 'suspended|5', 'those that are older than drop_after are dropped') or diag("$out$err");
	wake('age');
	is((deliver_at(2 * $hour, 'age'))[0], 'age|running|7|0', 'those that are younger are delivered');
	is(ids('age'), join(' ', 6 .. 12), 'all of them');
	is(current_of($node, 'age', 'events_sent, events_dropped'), '7|5', 'as the view says');
	fine('age', 'drop_after');
}

# ---- never
{
	flow('never', %keys, drop_after => 'infinity');
	is(current_of($node, 'never', 'drop_after'), 'infinity', 'drop_after may be infinity');
	insert('never', 1, 3);
	$s3->call('add_fault', do => 'error', code => 'AccessDenied', match => { key => $folder{never} }, times => undef);
	is(fails_at(0, 'never'), '28000', 'suspended');
	my $err = (deliver_at(10000 * $hour, 'never'))[1];
	unlike($err, qr/WARNING/, 'no warning');
	is(current_of($node, 'never', 'state, deadline, events_dropped'), 'suspended||0', 'no deadline, and nothing is dropped');
	$s3->call('clear_faults');
	is((deliver_at(20000 * $hour, 'never'))[0], 'never|running|3|0', 'a year later all is delivered');
	sql(q(SELECT s3export.alter_connector('never', drop_after => '2 days', validate => false)));
	is(current_of($node, 'never', q(drop_after::interval = '2 days')), 't', 'it may be altered');
}

# ---- a batch that was interrupted, and is dropped
{
	flow('pending', %keys, max_events_per_file => \'10', drop_after => '1 hour');
	insert('pending', 1, 95);
	# Some of its files are there when the credentials fail.
	$s3->call('add_fault', do => 'error', code => 'AccessDenied', match => { key => $folder{pending}, operation => [ 'PutObject', 'CompleteMultipartUpload' ] }, skip => 4, times => undef);
	is(fails_at(0, 'pending'), '28000', 'a batch is interrupted');
	my @there = map { $_->[0] } files_in_scripted($s3, $folder{pending});
	my $there = @there;
	cmp_ok($there, '>', 0, "when $there files are there");
	cmp_ok($there, '<', 10, 'and not all');
	is(scalar(batches(objects_in_scripted($s3, $folder{pending}))), 0, 'but no batch');
	insert('pending', 96, 99);
	deliver_at(2 * $hour, 'pending');
	my ($dropped) = current_of($node, 'pending', 'events_dropped');
	cmp_ok($dropped + 10 * $there, '>=', 99, "$dropped events are dropped");
	cmp_ok($dropped, '<=', 99, 'and none is counted twice');
	wake('pending');
	insert('pending', 100, 105);
	is((deliver_at(4 * $hour, 'pending'))[0], 'pending|running|6|0', 'the next events are delivered');
	like(ids('pending'), qr/100 101 102 103 104 105$/, 'and follow');
	fine('pending', 'an interrupted batch', @there);
	my ($batch) = batches(objects_in_scripted($s3, $folder{pending}));
	cmp_ok(scalar(@{ $batch->{gaps} }), '>', 0, 'an interrupted batch: readers are told that events were dropped');
	note(map { "$_->{reason}\n" } @{ $batch->{gaps} });

	# One that is not dropped is written again, under the same names.
	insert('pending', 201, 295);
	$s3->call('add_fault', do => 'error', code => 'AccessDenied', match => { key => $folder{pending}, operation => [ 'PutObject', 'CompleteMultipartUpload' ] }, skip => 4, times => undef);
	is(fails_at(4 * $hour, 'pending'), '28000', 'a batch is interrupted again');
	sql(q(SELECT s3export.alter_connector('pending', max_events_per_file => 50, compression => 'gzip', validate => false)));
	insert('pending', 301, 302);
	$s3->call('clear_faults');
	sql(q(SELECT s3export.resume('pending')));
	deliver($node, 'pending');
	is(ids('pending') =~ s/.* 105 //r, join(' ', 201 .. 295, 301, 302), 'and written again as it was, although settings have changed');
	fine('pending', 'a batch that is written again', @there);
}

# ---- shared credentials
{
	my %old = scripted_user($s3);
	my %new = scripted_user($s3);

	flow('shared1', %old);
	$folder{shared2} = unique_folder();
	sql('CREATE TABLE shared2 (id int PRIMARY KEY, note text)');
	create_connector($node, 'shared2', at_endpoint($s3), folder_path => $folder{shared2}, kind => 'currents', tables => '{shared2}', validate => \'false', credentials_from => 'shared1', access_key_id => undef, secret_access_key => undef);
	launch($node, 'shared2');
	$s3->call('remove_user', access_key_id => $old{access_key_id});
	insert($_, 1, 1) foreach 'shared1', 'shared2';
	is(fails_at(0, $_), '28000', "$_ is suspended") foreach 'shared1', 'shared2';
	sql(qq(SELECT s3export.set_credentials('shared1', access_key_id => '$new{access_key_id}', secret_access_key => '$new{secret_access_key}', validate => false)));
	is(state('shared1') . ' ' . current_of($node, 'shared2', 'state, coalesce(next_try_at, now()) <= now()'), 'suspended suspended|t', 'credentials that were not tested wake both, to be tried');
	is(join(' ', sort map { "$_->{connector} $_->{state} $_->{events}" } grep { $_->{connector} =~ /shared/ } deliver_all($node)), 'shared1 running 1 shared2 running 1', 'at once');
}

# ---- a person's part in it
{
	flow('person', %keys);
	insert('person', 1, 1);
	$s3->call('add_fault', do => 'error', code => 'AccessDenied', match => { key => $folder{person} }, times => undef);
	is(fails_at(0, 'person'), '28000', 'suspended');
	sql(q(SELECT s3export.resume('person')));
	is(fails_at(0, 'person'), '28000', 'resume: the next try is at once');
	sql(q(SELECT s3export.pause('person')));
	is(current_of($node, 'person', 'state, suspended_at, next_try_at, deadline, failures'), 'paused||||0', 'a pause ends the suspension');
	is(join("\n", (deliver_at(100 * $hour, 'person'))[1] =~ /(?:WARNING|NOTICE|ERROR):  .*/g), 'WARNING:  55000: nothing is delivered to connector "person": it is paused', 'there is no clock in it');
	is(current_of($node, 'person', 'events_dropped'), 0, 'nothing is dropped');
	sql(q(SELECT s3export.resume('person')));
	is(state('person'), 'running', 'resumed');
	$s3->call('clear_faults');
	is((deliver_at(100 * $hour, 'person'))[0], 'person|running|1|0', 'nothing is missing');
	sql(q(SELECT s3export.pause('person'); SELECT s3export.resume('person'))) foreach 1 .. 60;
	is(sql(q(SELECT count(*) FROM s3export.current_events WHERE connector = 'person')), 100, 'the last 100 events of a connector are kept');
	is_deeply([ map { $_->{event} } recorded('person', 2) ], [ 'resumed', 'paused' ], 'the last ones');
}

# ---- log that the server has removed
{
	flow('lost', %keys);
	insert('lost', 1, 2);
	deliver($node, 'lost');
	sql('CREATE TABLE filler (data text)');
	notified('lost');
	my $other = sql(q(SELECT string_agg(name, ',') FROM s3export.currents WHERE name <> 'lost'));
	sql("SELECT s3export.drop_connector('$_')") foreach split /,/, $other;
	insert('lost', 3, 4);
	$node->append_conf('postgresql.conf', "max_slot_wal_keep_size = '16MB'");
	$node->reload;
	sql(q(INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, 1000); SELECT pg_switch_wal())) foreach 1 .. 5;
	sql('CHECKPOINT');
	is(sql('SELECT wal_status FROM pg_replication_slots'), 'lost', 'the server has removed log');
	is(state('lost'), 'lost', 'the view says so');
	error_like($node, q(SELECT s3export.deliver('lost')), { sqlstate => '55000', message => 'connector "lost" has lost its place in the WAL', detail => qr/removed WAL/, hint => qr/[Ll]aunch/ }, 'a delivery, too, with a hint');
	is(join(' ', map { "$_->{event} $_->{state}" } notified('lost')), 'lost lost', 'NOTIFY');
	my ($lost) = recorded('lost', 1);
	is("$lost->{event} $lost->{detail}{position}", 'lost ' . current_of($node, 'lost', 'position'), 'an event in the table, with the place');
	like($lost->{detail}{message}, qr/removed WAL/, 'and the reason');
	foreach my $time (1, 2)
	{
		my ($rows, $messages) = deliver_and_listen($node);

		is_deeply($rows, [ { connector => 'lost', state => 'lost', events => 0, files => 0, bytes => 0, events_dropped => 0, batch => undef, error => 'connector "lost" has lost its place in the WAL' } ], "deliver() says so in a row, time $time");
		like($messages, qr/WARNING:  55000: could not deliver the changes of connector "lost": .*\nHINT:  Launch it again/, "and in a warning, time $time");
	}
	error_like($node, 'SELECT s3export.deliver()', { sqlstate => '55000', message => 'could not deliver the changes of 1 of 1 connector' }, 'and by an error');
	is_deeply([ map { "$_->{event} $_->{repeats}" } recorded('lost', 2) ], [ 'skipped 3', 'lost 1' ], 'each time is counted among the events');
	error_like($node, "SELECT s3export.$_('lost')", { sqlstate => '55000', detail => 'It is lost.', hint => qr/[Ll]aunch/ }, "there is nothing to $_") foreach 'pause', 'resume';
	sql(q(ALTER SYSTEM SET max_slot_wal_keep_size = -1; SELECT pg_reload_conf()));
	launch($node, 'lost', copy_existing => 1);
	insert('lost', 5, 5);
	is(deliver($node, 'lost')->{events}, 1, 'launched again');
	is(join(' ', map { "$_->{op} $_->{values}{id}" } events(files_in_scripted($s3, $folder{lost}))), 'insert 1 insert 2 copy 1 copy 2 copy 3 copy 4 insert 5', 'with a copy of what is there');
	fine('lost', 'a lost slot');
	is(sql('SELECT count(*) FROM pg_replication_slots'), 1, 'the old slot is gone');

	# Somebody drops the slot.
	my $slot = current_of($node, 'lost', 'slot_name');
	sql("SELECT pg_drop_replication_slot('$slot')");
	is(state('lost'), 'lost', 'a slot that somebody has dropped is lost as well');
	error_like($node, q(SELECT s3export.deliver('lost')), { sqlstate => '55000', detail => qr/"$slot" does not exist/, hint => qr/[Ll]aunch/ }, 'with the same hint');
	launch($node, 'lost');
	is(state('lost'), 'running', 'and the same remedy');

	# Somebody puts another slot in its place.
	insert('lost', 6, 6);
	sql("SELECT pg_drop_replication_slot('$slot'); SELECT pg_create_logical_replication_slot('$slot', 'test_decoding')");
	insert('lost', 7, 7);
	is(state('lost'), 'lost', 'a slot of another plugin is not its');
	error_like($node, q(SELECT s3export.deliver('lost')), { sqlstate => '55000', detail => qr/another has been put in its place/, hint => qr/[Ll]aunch/ }, 'nor delivered from');
	error_like($node, q(SELECT s3export.launch('lost')), { sqlstate => '42710', message => qq(replication slot "$slot" already exists), hint => qr/pg_drop_replication_slot/ }, 'and in the way of another launch');
	is(state('lost'), 'lost', 'which changes nothing');
	sql("SELECT pg_drop_replication_slot('$slot')");
	error_like($node, "SELECT pg_create_logical_replication_slot('$slot', 's3export')", { sqlstate => '55000', hint => qr/s3export\.launch/ }, 'one of its plugin is made by launch() alone');
	launch($node, 'lost', copy_existing => 1);
	insert('lost', 8, 8);
	is(deliver($node, 'lost')->{events}, 1, 'launched again');
	is(ids('lost') =~ s/.* (?=1 2 3 4 5 6 7 8$)//r, '1 2 3 4 5 6 7 8', 'with a copy of what was missed');
	fine('lost', 'a slot that was replaced');
}

# ---- no secret is told
{
	my $told = sql('SELECT string_agg(detail::text, $$ $$) FROM s3export.current_events') . sql('SELECT string_agg(c::text, $$ $$) FROM s3export.currents c');

	is(scalar(grep { index($told, $_) >= 0 } @{ $s3->call('secrets')->{secrets} }), 0, 'no secret in the events');
	is(sql(q(SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 's3export%')), 0, 'no worker stays');
}

$listener->kill_kill;
keep_secrets($s3);
$node->stop;
$s3->stop;
done_testing();
