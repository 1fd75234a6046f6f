# Currents and copies of servers and databases: what was restored, cloned, promoted
# or copied starts paused, leaves the original's slot and files alone, and can be
# launched anew.
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
my $folder = unique_folder();
my @settings = ('log_min_messages = debug1', 'max_connections = 40', 'hot_standby = on');
my $node = currents_node('main', @settings);

$node->safe_psql('postgres', 'CREATE SCHEMA app; CREATE TABLE app.orders (id int PRIMARY KEY, note text); CREATE TABLE app.gone (id int PRIMARY KEY)');
create_connector($node, 'flow', at_endpoint($s3), %keys, folder_path => $folder, kind => 'currents', validate => \'false',
	tables => '{app.orders,app.gone}', operations => '{insert,delete}', max_events_per_file => \'123', drop_after => '1 day', compression => 'gzip');
launch($node, 'flow');
$node->safe_psql('postgres', q(INSERT INTO app.orders VALUES (1, 'one')));
deliver($node, 'flow');

my $settings = 'tables, operations, compression, max_events_per_file, drop_after';
my $original = current_of($node, 'flow', $settings);
my $slot = current_of($node, 'flow', 'slot_name');

sub ids { return join ' ', map { "$_->{op} $_->{values}{id}" } events(files_in_scripted($s3, $folder)); }

# What every copy is like before anything was done to it.
sub starts_paused
{
	my ($copy, $what, %options) = @_;
	my $before = ids();

	is(current_of($copy, 'flow', 'state', %options), 'paused', "$what: it starts paused");
	is(current_of($copy, 'flow', $settings, %options), $original, "$what: with its settings");
	is(scalar(deliver_all($copy, %options)), 0, "$what: it is not due");
	my ($status, $out, $err) = $copy->psql($options{dbname} // 'postgres', q(SELECT * FROM s3export.deliver('flow')));
	like($err, qr/NOTICE: .*paused/, "$what: nor delivered by its name");
	is(ids(), $before, "$what: nothing was sent");
	return;
}

sub credentials
{
	return "SELECT s3export.set_credentials('flow', access_key_id => '$keys{access_key_id}', secret_access_key => '$keys{secret_access_key}', validate => false)";
}

# Launched with a folder of its own, as the original goes on.
sub launch_copy
{
	my ($copy, $what, %options) = @_;
	my $database = $options{dbname} // 'postgres';
	my $new = unique_folder();

	$copy->safe_psql($database, "SELECT s3export.alter_connector('flow', folder_path => '$new', validate => false)");
	my ($status, $out, $err) = $copy->psql($database, q(SELECT s3export.launch('flow', copy_existing => true)));
	is($status, 0, "$what: it can be launched") or diag($err);
	is(current_of($copy, 'flow', 'state', %options), 'running', "$what: and runs");
	$copy->safe_psql($database, q(INSERT INTO app.orders VALUES (1001, 'copy')));
	is((deliver($copy, 'flow', %options) // {})->{events}, 1, "$what: it delivers");
	my @events = events(files_in_scripted($s3, $new));
	is(join(' ', map { "$_->{op} $_->{values}{id}" } grep { $_->{type} eq 'app.orders' } @events),
		$copy->safe_psql($database, q(SELECT string_agg((CASE WHEN id = 1001 THEN 'insert ' ELSE 'copy ' END) || id, ' ' ORDER BY id) FROM app.orders)), "$what: what was there, and what came");
	is_deeply([ wrong_files(files_in_scripted($s3, $new)), wrong_events(@events) ], [], "$what: its files");
	return @events;
}

# ---- dump and restore, in the same server and in another
{
	my $dump = $node->basedir . '/dump.sql';

	$node->command_ok([ 'pg_dump', '-f', $dump, 'postgres' ], 'pg_dump');
	like(slurp_file($dump), qr/^COPY s3export\.current /m, 'a dump has currents');
	unlike(slurp_file($dump), qr/^COPY s3export\.current_(?:batch|event) /m, 'but nothing of their past');
	$node->safe_psql('postgres', 'CREATE DATABASE restored');
	$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', $dump, 'restored' ], 'a restore');
	$node->safe_psql('restored', credentials());
	starts_paused($node, 'a restored database', dbname => 'restored');
	error_like($node, q(SELECT s3export.resume('flow')), { sqlstate => '55000', hint => qr/[Ll]aunch/ }, 'a restored database: there is nothing to resume', dbname => 'restored');
	$node->safe_psql('restored', 'ALTER TABLE app.gone RENAME TO went');
	error_like($node, q(SELECT s3export.launch('flow')), { message => qr/app\.gone/ }, 'a restored database: a table that is missing is named', dbname => 'restored');
	$node->safe_psql('restored', 'ALTER TABLE app.went RENAME TO gone');
	launch_copy($node, 'a restored database', dbname => 'restored');
	is(current_of($node, 'flow', "state, slot_name = '$slot'"), 'running|t', 'a restored database: the original is as it was');
	isnt(current_of($node, 'flow', 'slot_name', dbname => 'restored'), $slot, 'a restored database: it has a slot of its own');

	my $second = currents_node('second', @settings);
	$second->safe_psql('postgres', 'DROP EXTENSION s3export');
	# OIDs are others there.
	$second->safe_psql('postgres', 'CREATE TABLE noise (id int)');
	$second->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', $dump, '-d', $second->connstr('postgres') ], 'a restore in another server');
	$second->safe_psql('postgres', credentials());
	starts_paused($second, 'another server');
	launch_copy($second, 'another server');
	$second->stop;
}

# ---- a copy of the database
{
	$node->safe_psql('template1', 'CREATE DATABASE twin TEMPLATE postgres');
	starts_paused($node, 'a copy of the database', dbname => 'twin');
	error_like($node, q(SELECT s3export.resume('flow')), { sqlstate => '55000' }, 'a copy of the database: the slot of the original is not its', dbname => 'twin');
	$node->safe_psql('twin', q(BEGIN; SELECT s3export.drop_connector('flow'); ROLLBACK));
	launch_copy($node, 'a copy of the database', dbname => 'twin');
	$node->safe_psql('twin', q(SELECT s3export.drop_connector('flow')));
	is($node->safe_psql('postgres', "SELECT count(*) FROM pg_replication_slots WHERE slot_name = '$slot'"), 1, 'a copy of the database: its end leaves the slot of the original');
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
	starts_paused($clone, 'a clone');
	error_like($clone, q(SELECT s3export.resume('flow')), { sqlstate => '55000', hint => qr/[Ll]aunch/ }, 'a clone: it cannot be resumed');
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
	foreach my $function ('launch', 'deliver', 'pause', 'resume')
	{
		error_like($standby, "SELECT s3export.$function('flow')", { sqlstate => '25006' }, "a standby: $function");
	}
	is(current_of($standby, 'flow', 'lag_bytes'), '', 'a standby: the view works');
	$node->safe_psql('postgres', q(INSERT INTO app.orders VALUES (4, 'not delivered')));
	$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
	$node->stop;
	$standby->promote;
	starts_paused($standby, 'a standby that was promoted');
	error_like($standby, q(SELECT s3export.resume('flow')), { sqlstate => '55000', hint => qr/[Ll]aunch/ }, 'a standby that was promoted: its slot is missing');

	# Where the primary was, in the same folder.
	launch($standby, 'flow', copy_existing => 1);
	$standby->safe_psql('postgres', q(INSERT INTO app.orders VALUES (5, 'five')));
	is((deliver($standby, 'flow') // {})->{events}, 1, 'a standby that was promoted: launched again');
	is(ids(), 'insert 1 insert 2 insert 3 copy 1 copy 2 copy 3 copy 4 insert 5', 'a standby that was promoted: with a copy of what is there');
	my @events = events(files_in_scripted($s3, $folder));
	is_deeply([ wrong_files(files_in_scripted($s3, $folder)), wrong_events(@events) ], [], 'a standby that was promoted: its files sort after those of the primary');
	is(join(' ', map { substr $_->{id}, 0, 8 } @events), join(' ', ('00000001') x 3, ('00000002') x 5), 'a standby that was promoted: the timeline is in each _id');
	$standby->stop;
}

# ---- the server again, as it was restored in its own place
{
	$node->set_standby_mode;
	$node->start;
	$node->promote;
	starts_paused($node, 'a server on another timeline');
	is($node->safe_psql('postgres', "SELECT count(*) FROM pg_replication_slots WHERE slot_name = '$slot'"), 1, 'a server on another timeline: its slot is there');
	$node->safe_psql('postgres', q(SELECT s3export.resume('flow')));
	is(current_of($node, 'flow', 'state'), 'running', 'a server on another timeline: it can be resumed');
	$node->safe_psql('postgres', q(INSERT INTO app.orders VALUES (6, 'six')));
	ok((deliver($node, 'flow') // {})->{events} >= 1, 'a server on another timeline: and goes on');
}

# ---- pg_upgrade
SKIP:
{
	my $bin = $node->config_data('--bindir');

	skip 'there is no pg_upgrade', 1 unless -x "$bin/pg_upgrade";
	my $old = currents_node('old', @settings);
	my $new = PostgreSQL::Test::Cluster->new('new');

	$old->safe_psql('postgres', 'CREATE SCHEMA app; CREATE TABLE app.orders (id int PRIMARY KEY, note text); CREATE TABLE app.gone (id int PRIMARY KEY)');
	create_connector($old, 'flow', at_endpoint($s3), %keys, folder_path => unique_folder(), kind => 'currents', validate => \'false',
		tables => '{app.orders,app.gone}', operations => '{insert,delete}', max_events_per_file => \'123', drop_after => '1 day', compression => 'gzip');
	launch($old, 'flow');
	$old->safe_psql('postgres', q(INSERT INTO app.orders VALUES (1, 'one')));
	deliver($old, 'flow');
	$old->stop;
	$new->init(extra => [ '--encoding=UTF8', '--locale=C.UTF-8' ]);
	$new->append_conf('postgresql.conf', "$_\n") foreach currents_settings(), 'max_wal_senders = 10', 'max_replication_slots = 10', 'max_worker_processes = 16';
	my $directory = PostgreSQL::Test::Utils::tempdir();
	chdir $directory or die "could not enter $directory: $!";
	command_ok([ 'pg_upgrade', '--no-sync', '-d', $old->data_dir, '-D', $new->data_dir, '-b', $bin, '-B', $bin, '-s', $new->host, '-p', $old->port, '-P', $new->port ], 'pg_upgrade');
	PostgreSQL::Test::Utils::system_or_bail('cp', '-p', $old->data_dir . '/s3export.key', $new->data_dir);
	$new->start;
	starts_paused($new, 'a server after pg_upgrade');
	error_like($new, q(SELECT s3export.resume('flow')), { sqlstate => '55000', hint => qr/[Ll]aunch/ }, 'a server after pg_upgrade: it cannot be resumed') if $new->pg_version < 17;
	launch_copy($new, 'a server after pg_upgrade');
	$new->stop;
}

# ---- the end of the extension
{
	$node->safe_psql('restored', q(SELECT s3export.drop_connector('flow')));
	is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_replication_slots'), 1, 'a connector that is dropped takes its slot along');
	$node->safe_psql('postgres', q(DROP EXTENSION s3export));
	is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_replication_slots'), 1, 'an extension that is dropped leaves it');
	$node->safe_psql('postgres', q(SELECT slot_name, pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE plugin = 's3export'));
	is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_replication_slots'), 0, 'to be dropped by hand');
}

keep_secrets($s3);
$node->stop;
$s3->stop;
done_testing();
