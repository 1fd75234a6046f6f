# Currents and copies of servers and databases: what was restored, cloned, promoted
# or copied says that it does not deliver, and why; it leaves the original's slot and
# files alone, and can be launched anew.  A server that has its slot goes on.
use strict;
use warnings;
use lib 'test/lib';
use Cwd qw(abs_path);
use File::Basename qw(dirname);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use S3Currents;
use S3Export;
use S3Faults;
use ScriptedS3;
use Test::More;

my $s3 = scripted_s3();
my %keys = scripted_user($s3);
my $folder = unique_folder();
my @settings = ('log_min_messages = debug1', 'max_connections = 40', 'hot_standby = on');
my $node = currents_node('main', @settings);

$node->safe_psql('postgres', 'CREATE SCHEMA app; CREATE TABLE app.orders (id int PRIMARY KEY, note text); CREATE TABLE app.gone (id int PRIMARY KEY)');
create_connector($node, 'flow', at_endpoint($s3), %keys, folder_path => $folder, kind => 'currents', validate => \'false',
	tables => '{app.orders,app.gone}', operations => '{insert,delete}', max_events_per_file => \'123', drop_after => '1 day', compression => 'gzip');
launch($node, 'flow');
$node->safe_psql('postgres', q(INSERT INTO app.orders VALUES (1, 'one')));
deliver($node, 'flow');

my $settings = 'publication, tables, operations, compression, max_events_per_file, drop_after';
my $original = current_of($node, 'flow', $settings);
my $slot = current_of($node, 'flow', 'slot_name');

sub ids { return join ' ', map { "$_->{op} $_->{values}{id}" } events(files_in_scripted($s3, $folder)); }

sub in_order
{
	my ($where, $what) = @_;
	my @files = files_in_scripted($s3, $where);

	is_deeply([ wrong_files(@files), wrong_events(all_events(@files)), wrong_batches(objects_in_scripted($s3, $where)) ], [], $what);
	return;
}

# What every copy is like before anything was done to it: nothing is delivered, which is told
# in each way that there is.  "first": what the first delivery says besides.
sub starts_idle
{
	my ($copy, $what, $state, $reason, %options) = @_;
	my %more = defined $options{dbname} ? (dbname => $options{dbname}) : ();
	my $before = ids();
	my $fails = $state ne 'created';
	my %row = (connector => 'flow', state => $state, events => 0, files => 0, bytes => 0, events_dropped => 0, batch => undef);

	is(current_of($copy, 'flow', 'state', %more), $state, "$what: it is $state");
	is(current_of($copy, 'flow', $settings, %more), $original, "$what: with its settings");
	error_like($copy, q(SELECT s3export.deliver('flow')), { sqlstate => '55000', message => $reason, hint => qr/s3export\.launch\(\)/, %{ $options{first} // {} } }, "$what: it is not delivered, and why", %more);
	is(current_of($copy, 'flow', 'state', %more), $state, "$what: it stays so");
	my ($rows, $messages) = deliver_and_listen($copy, %more);
	is_deeply($rows, [ { %row, error => $fails ? $reason : undef } ], "$what: deliver() has it in its result");
	like($messages, $fails ? qr/WARNING:  55000: could not deliver the changes of connector "flow": \Q$reason\E\n.*HINT: .*s3export\.launch\(\)/s
		: qr/WARNING:  55000: nothing is delivered to connector "flow": it is not launched\nHINT:  Launch it/, "$what: and a warning");
	error_like($copy, 'SELECT s3export.deliver()', { sqlstate => '55000', message => 'could not deliver the changes of 1 of 1 connector', detail => qr/^connector "flow": \Q$reason\E/ }, "$what: and an error", %more) if $fails;
	is($copy->safe_psql($more{dbname} // 'postgres', q(SELECT repeats > 0, detail FROM s3export.current_events WHERE event = 'skipped' ORDER BY at DESC LIMIT 1)), qq(t|{"state": "$state"}), "$what: and an event");
	error_like($copy, "SELECT s3export.$_('flow')", { sqlstate => '55000', detail => $fails ? "It is $state." : 'It has not been launched.', hint => qr/[Ll]aunch/ }, "$what: there is nothing to $_", %more) foreach 'pause', 'resume';
	is(ids(), $before, "$what: nothing was sent");
	return;
}

sub credentials
{
	return "SELECT s3export.set_credentials('flow', access_key_id => '$keys{access_key_id}', secret_access_key => '$keys{secret_access_key}', validate => false)";
}

# Launched with a folder of its own, as the original goes on; "again": after a stop.
sub launch_copy
{
	my ($copy, $what, %options) = @_;
	my $again = delete $options{again};
	my $database = $options{dbname} // 'postgres';
	my $new = unique_folder();

	$copy->safe_psql($database, q(SELECT s3export.stop('flow'))) if $again;
	$copy->safe_psql($database, "SELECT s3export.alter_connector('flow', folder_path => '$new', validate => false)");
	my ($status, $out, $err) = $copy->psql($database, q(SELECT s3export.launch('flow', copy_existing => true)));
	is($status, 0, "$what: it can be launched") or diag($err);
	is(current_of($copy, 'flow', 'state', %options), 'running', "$what: and runs");
	$copy->safe_psql($database, q(INSERT INTO app.orders VALUES (1001, 'copy')));
	is((deliver($copy, 'flow', %options) // {})->{events}, 1, "$what: it delivers");
	my @events = events(files_in_scripted($s3, $new));
	is(join(' ', map { "$_->{op} $_->{values}{id}" } grep { $_->{type} eq 'app.orders' } @events),
		$copy->safe_psql($database, q(SELECT string_agg((CASE WHEN id = 1001 THEN 'insert ' ELSE 'copy ' END) || id, ' ' ORDER BY id) FROM app.orders)), "$what: what was there, and what came");
	in_order($new, "$what: its files");
	return @events;
}

# ---- dump and restore, in the same server and in another
{
	my $dump = $node->basedir . '/dump.sql';

	$node->command_ok([ 'pg_dump', '-f', $dump, 'postgres' ], 'pg_dump');
	like(slurp_file($dump), qr/^COPY s3export\.current /m, 'a dump has currents');
	unlike(slurp_file($dump), qr/^COPY s3export\.current_(?:state|table|batch|gap|event) /m, 'but nothing of their past');
	like(slurp_file($dump), qr/^CREATE PUBLICATION s3export_flow /m, 'and their publications');
	$node->safe_psql('postgres', 'CREATE DATABASE restored');
	$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', $dump, 'restored' ], 'a restore');
	$node->safe_psql('restored', 'SELECT s3export.adopt();' . credentials());
	starts_idle($node, 'a restored database', 'created', 'connector "flow" has not been launched', dbname => 'restored');
	error_like($node, q(SELECT s3export.stop('flow')), { sqlstate => '55000', detail => 'It has not been launched.' }, 'a restored database: there is nothing to stop', dbname => 'restored');
	$node->safe_psql('restored', 'ALTER TABLE app.gone RENAME TO went');
	is(current_of($node, 'flow', 'tables', dbname => 'restored'), '{app.orders,app.went}', 'a restored database: a table that is renamed stays');
	$node->safe_psql('restored', 'ALTER TABLE app.went RENAME TO gone; ALTER PUBLICATION s3export_flow RENAME TO another');
	error_like($node, q(SELECT s3export.launch('flow')), { sqlstate => '42704', message => 'publication "s3export_flow" of connector "flow" does not exist', hint => qr/CREATE PUBLICATION/ }, 'a restored database: a publication that is missing is named', dbname => 'restored');
	is(current_of($node, 'flow', 'state, tables, operations', dbname => 'restored'), 'created|{}|{}', 'a restored database: the view shows that nothing is sent');
	$node->safe_psql('restored', 'ALTER PUBLICATION another RENAME TO s3export_flow');
	launch_copy($node, 'a restored database', dbname => 'restored');
	is(current_of($node, 'flow', "state, slot_name = '$slot'"), 'running|t', 'a restored database: the original is as it was');
	isnt(current_of($node, 'flow', 'slot_name', dbname => 'restored'), $slot, 'a restored database: it has a slot of its own');

	my $second = currents_node('second', @settings);
	$second->safe_psql('postgres', 'DROP EXTENSION s3export');
	# OIDs are others there.
	$second->safe_psql('postgres', 'CREATE TABLE noise (id int)');
	$second->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', $dump, '-d', $second->connstr('postgres') ], 'a restore in another server');
	$second->safe_psql('postgres', 'SELECT s3export.adopt();' . credentials());
	starts_idle($second, 'another server', 'created', 'connector "flow" has not been launched');
	launch_copy($second, 'another server');
	$second->stop;
}

# ---- a dump without publications
{
	my $dump = $node->basedir . '/dump2.sql';

	$node->command_ok([ 'pg_dump', '--no-publications', '-f', $dump, 'postgres' ], 'pg_dump --no-publications');
	$node->safe_psql('postgres', 'CREATE DATABASE unpublished');
	$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', $dump, 'unpublished' ], 'a restore');
	$node->safe_psql('unpublished', 'SELECT s3export.adopt();' . credentials());
	is(current_of($node, 'flow', 'state, publication, tables', dbname => 'unpublished'), 'created|s3export_flow|{}', 'without its publication: the connector is there');
	error_like($node, q(SELECT s3export.launch('flow')), { sqlstate => '42704', message => 'publication "s3export_flow" of connector "flow" does not exist', hint => qr/CREATE PUBLICATION/ }, 'without its publication: it cannot be launched', dbname => 'unpublished');
	$node->safe_psql('unpublished', q(CREATE PUBLICATION s3export_flow FOR TABLE app.orders, app.gone WITH (publish = 'insert, delete')));
	is(current_of($node, 'flow', $settings, dbname => 'unpublished'), $original, 'without its publication: one that is made has its place');
	launch_copy($node, 'without its publication', dbname => 'unpublished');
	$node->safe_psql('unpublished', q(DROP PUBLICATION s3export_flow; SELECT s3export.drop_connector('flow')));
	is($node->safe_psql('unpublished', 'SELECT count(*) FROM pg_replication_slots WHERE database = current_database()'), 0, 'without its publication: it can be dropped');
}

# ---- a copy of the database
{
	$node->safe_psql('template1', 'CREATE DATABASE twin TEMPLATE postgres');
	error_like($node, q(SELECT s3export.deliver('flow')), { sqlstate => 'XX001', hint => qr/adopt/ }, 'a copy of the database: nobody vouches for its rows', dbname => 'twin');
	$node->safe_psql('twin', 'SELECT s3export.adopt()');
	starts_idle($node, 'a copy of the database', 'elsewhere', 'connector "flow" was launched elsewhere', dbname => 'twin', first => { hint => qr/folder of its own/ });
	$node->safe_psql('twin', q(BEGIN; SELECT s3export.drop_connector('flow'); ROLLBACK));
	$node->safe_psql('twin', q(BEGIN; SELECT s3export.stop('flow'); COMMIT));
	is(current_of($node, 'flow', 'state, slot_name', dbname => 'twin'), 'stopped|', 'a copy of the database: it can be stopped');
	is($node->safe_psql('postgres', "SELECT count(*) FROM pg_replication_slots WHERE slot_name = '$slot'"), 1, 'a copy of the database: which leaves the slot of the original');
	launch_copy($node, 'a copy of the database', dbname => 'twin');
	$node->safe_psql('twin', q(SELECT s3export.drop_connector('flow')));
	is($node->safe_psql('postgres', "SELECT count(*) FROM pg_replication_slots WHERE slot_name = '$slot'"), 1, 'a copy of the database: its end leaves the slot of the original');
	is($node->safe_psql('twin', q(SELECT count(*) FROM pg_publication)), 0, 'a copy of the database: and takes its own publication along');
}
$node->safe_psql('postgres', q(INSERT INTO app.orders VALUES (2, 'two')));
is((deliver($node, 'flow') // {})->{events}, 1, 'the original goes on');
is(ids(), 'insert 1 insert 2', 'as if nothing had been');

# ---- a clone of the server
$node->backup('base');
{
	my $clone = PostgreSQL::Test::Cluster->new('clone');

	$clone->init_from_backup($node, 'base');
	chmod 0600, $clone->data_dir . '/s3export.key';
	$clone->start;
	is($clone->safe_psql('postgres', 'SELECT count(*) FROM pg_replication_slots'), 0, 'a clone has no slots');
	starts_idle($clone, 'a clone', 'lost', 'connector "flow" has lost its place in the WAL', first => { detail => qr/"$slot" does not exist on this server/, hint => qr/folder of its own/ });
	is($clone->safe_psql('postgres', q(SELECT count(*) FROM s3export.current_events WHERE event = 'lost')), 1, 'a clone: that is an event');
	launch_copy($clone, 'a clone');
	$clone->stop;
}

# ---- a standby
{
	my $standby = PostgreSQL::Test::Cluster->new('standby');

	$standby->init_from_backup($node, 'base', has_streaming => 1);
	chmod 0600, $standby->data_dir . '/s3export.key';
	$standby->start;
	$node->safe_psql('postgres', q(INSERT INTO app.orders VALUES (3, 'three')));
	is((deliver($node, 'flow') // {})->{events}, 1, 'the primary goes on');
	$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
	foreach my $call ("launch('flow')", "deliver('flow')", 'deliver()', "pause('flow')", "resume('flow')", "stop('flow')", "add_table('flow', 'app.gone')", "add_table('flow', 'app.gone', copy_existing => false)")
	{
		error_like($standby, "SELECT s3export.$call", { sqlstate => '25006' }, "a standby: $call");
	}
	is(current_of($standby, 'flow', 'state, lag_bytes, lag_seconds'), 'running||', 'a standby: the view works');
	$node->safe_psql('postgres', q(INSERT INTO app.orders VALUES (4, 'not delivered')));
	$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
	$node->stop;
	$standby->promote;
	starts_idle($standby, 'a standby that was promoted', 'lost', 'connector "flow" has lost its place in the WAL', first => { detail => qr/"$slot" does not exist on this server/ });

	# Where the primary was, in the same folder.
	launch($standby, 'flow', copy_existing => 1);
	$standby->safe_psql('postgres', q(INSERT INTO app.orders VALUES (5, 'five')));
	is((deliver($standby, 'flow') // {})->{events}, 1, 'a standby that was promoted: launched again');
	is(ids(), 'insert 1 insert 2 insert 3 copy 1 copy 2 copy 3 copy 4 insert 5', 'a standby that was promoted: with a copy of what is there');
	my @events = events(files_in_scripted($s3, $folder));
	in_order($folder, 'a standby that was promoted: its files and batches follow those of the primary');
	is(join(' ', map { substr $_->{id}, 0, 8 } @events), join(' ', ('00000001') x 3, ('00000002') x 5), 'a standby that was promoted: the timeline is in each _id');
	$standby->stop;
}

# ---- the server again, as it was restored in its own place
{
	$node->set_standby_mode;
	$node->start;
	$node->promote;
	is($node->safe_psql('postgres', "SELECT count(*) FROM pg_replication_slots WHERE slot_name = '$slot'"), 1, 'a server on another timeline: its slot is there');
	is(current_of($node, 'flow', 'state'), 'running', 'a server on another timeline: it runs');
	$node->safe_psql('postgres', q(INSERT INTO app.orders VALUES (6, 'six')));
	my ($rows, $messages) = deliver_and_listen($node);
	is(join(' ', map { "$_->{connector} $_->{state} $_->{events} " . ($_->{error} // '') } @$rows), 'flow running 2 ', 'a server on another timeline: and goes on');
	unlike($messages, qr/WARNING/, 'a server on another timeline: without a word');
	my @events = grep { $_->{values}{id} =~ /^[46]$/ && $_->{op} eq 'insert' } events(files_in_scripted($s3, $folder));
	is(join(' ', map { substr($_->{id}, 0, 8) . " $_->{values}{id}" } @events), '00000001 4 00000002 6', 'a server on another timeline: which is in each _id');
}

# ---- pg_upgrade
SKIP:
{
	my $bin = $node->config_data('--bindir');

	skip 'there is no pg_upgrade', 1 unless -x "$bin/pg_upgrade";
	my $old = currents_node('old', @settings);
	my $new = PostgreSQL::Test::Cluster->new('new');

	$old->safe_psql('postgres', 'CREATE SCHEMA app; CREATE TABLE app.orders (id int PRIMARY KEY, note text); CREATE TABLE app.gone (id int PRIMARY KEY)');
	$folder = unique_folder();
	create_connector($old, 'flow', at_endpoint($s3), %keys, folder_path => $folder, kind => 'currents', validate => \'false',
		tables => '{app.orders,app.gone}', operations => '{insert,delete}', max_events_per_file => \'123', drop_after => '1 day', compression => 'gzip');
	launch($old, 'flow');
	$old->safe_psql('postgres', q(INSERT INTO app.orders VALUES (1, 'one'), (2, 'two'); DELETE FROM app.orders WHERE id = 2));
	is(deliver($old, 'flow')->{events}, 3, 'before pg_upgrade');
	# From 17 on the slot comes along, if all has been delivered.
	deliver($old, 'flow') foreach 1, 2;
	$old->stop;
	$new->init(extra => [ '--encoding=UTF8', '--locale=C.UTF-8' ]);
	$new->append_conf('postgresql.conf', "$_\n") foreach currents_settings(), 'max_wal_senders = 10', 'max_replication_slots = 10', 'max_worker_processes = 16';
	my $directory = PostgreSQL::Test::Utils::tempdir();
	chdir $directory or die "could not enter $directory: $!";
	command_ok([ 'pg_upgrade', '--no-sync', '-d', $old->data_dir, '-D', $new->data_dir, '-b', $bin, '-B', $bin, '-s', $new->host, '-p', $old->port, '-P', $new->port ], 'pg_upgrade');
	$new->start;
	my %missing = (sqlstate => '58P01', message => qr/^key file ".*" does not exist$/, detail => qr/sha256sum/, hint => qr/pg_upgrade/);
	error_like($new, q(SELECT s3export.set_credentials('flow', 'AKIAXXXXXXXXXXXXXXXX', 'x', validate => false)), \%missing, 'after pg_upgrade no new key is made');
	$new->stop;
	{
		local @ENV{qw(OLD_DATA NEW_DATA)} = ($old->data_dir, $new->data_dir);
		my ($step) = slurp_file(dirname(abs_path(__FILE__)) . '/../../docs/upgrading.md') =~ /^## pg_upgrade\n.*?^ *```sh\n(.*?)^ *```/ms;
		PostgreSQL::Test::Utils::system_or_bail('sh', '-c', $step);
	}
	$new->start;
	my @before = events(files_in_scripted($s3, $folder));
	if ($new->pg_version < 17)
	{
		starts_idle($new, 'a server after pg_upgrade', 'elsewhere', 'connector "flow" was launched elsewhere', first => { hint => qr/launch/ });
		launch($new, 'flow', copy_existing => 1);
	}
	else
	{
		is(current_of($new, 'flow', 'state'), 'running', 'a server after pg_upgrade: it runs');
		is(deliver($new, 'flow')->{events}, 0, 'a server after pg_upgrade: nothing comes twice');
		is($new->safe_psql('postgres', q(SELECT count(*) FROM s3export.current_events WHERE event = 'upgraded')), 1, 'a server after pg_upgrade: that is an event');
	}
	$new->safe_psql('postgres', q(INSERT INTO app.orders VALUES (3, 'three')));
	is(deliver($new, 'flow')->{events}, 1, 'a server after pg_upgrade: it goes on, in the same folder');
	is(ids(), 'insert 1 insert 2 delete 2 ' . ($new->pg_version < 17 ? 'copy 1 ' : '') . 'insert 3', 'a server after pg_upgrade: with all events');
	my %seen = map { $_->{id} => 1 } @before;
	my @after = grep { !$seen{ $_->{id} } } events(files_in_scripted($s3, $folder));
	is(scalar(@after), $new->pg_version < 17 ? 2 : 1, 'a server after pg_upgrade: its own events');
	is_deeply([ grep { $_->{id} le $before[-1]{id} } @after ], [], 'a server after pg_upgrade: _ids go on growing');
	in_order($folder, 'a server after pg_upgrade: its files');
	launch_copy($new, 'a server after pg_upgrade', again => 1);
	$new->stop;
}

# ---- the end of the extension
{
	error_like($node, 'DROP EXTENSION s3export', { sqlstate => '2BP01', detail => qr/^1 of its replication slots/, hint => qr/drop_connector.*stop/ }, 'an extension with a slot is not dropped', dbname => $_) foreach 'restored', 'postgres';
	error_like($node, 'DROP EXTENSION IF EXISTS pg_trgm, s3export CASCADE', { sqlstate => '2BP01' }, 'nor with others');
	is(current_of($node, 'flow', 'state', dbname => $_), 'running', "nothing has changed: $_") foreach 'restored', 'postgres';
	$node->safe_psql('restored', q(SELECT s3export.drop_connector('flow')));
	is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_replication_slots'), 1, 'a connector that is dropped takes its slot along');
	$node->safe_psql('restored', 'DROP EXTENSION s3export');
	is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_replication_slots'), 1, 'slots of other databases do not keep an extension');
	$node->safe_psql('postgres', q(SELECT s3export.stop('flow')));
	is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_replication_slots'), 0, 'one that is stopped gives its slot back');
	$node->safe_psql('postgres', 'DROP EXTENSION s3export');
	is($node->safe_psql('postgres', q(SELECT (SELECT count(*) FROM pg_event_trigger WHERE evtname ~ 's3export'), (SELECT count(*) FROM pg_namespace WHERE nspname = 's3export'))), '0|0', 'and the extension goes');
	is($node->safe_psql('postgres', q(SELECT count(*) FROM pg_publication WHERE pubname = 's3export_flow')), 1, 'a publication stays, as a thing of its own');
}

keep_secrets($s3);
$node->stop;
$s3->stop;
done_testing();
