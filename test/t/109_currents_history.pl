# What a current sends when types, columns, publications, owners and slots become others on the way.
use strict;
use warnings;
use lib 'test/lib';
use IPC::Run;
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
my $node = currents_node('main', 'max_slot_wal_keep_size = 10GB');
my %folder;

sub sql { return $node->safe_psql('postgres', @_); }

sub flow
{
	my ($name, %more) = @_;

	$folder{$name} = unique_folder();
	create_connector($node, $name, at_endpoint($s3), %keys, folder_path => $folder{$name}, kind => 'currents', validate => \'false', %more);
	return;
}

sub files { return files_in_scripted($s3, $folder{ $_[0] }); }

# "insert 1, delete 2" of a connector, in the order of a table's events; of some columns, "insert 1/a".
sub short
{
	my ($name, $type, @columns) = @_;

	@columns = ('id') unless @columns;
	return join ', ', map { my $event = $_; "$event->{op} " . join('/', map { $event->{values}{$_} // '-' } @columns) } grep { !defined $type || $_->{type} eq $type } events(files($name));
}

# How many versions the events of a table have.
sub versions
{
	my ($name) = @_;
	my %versions = map { $_->{file}{version} => 1 } events(files($name));

	return scalar keys %versions;
}

# What a statement says: its rows and its messages, with their SQLSTATEs.
sub said
{
	my ($statement, $user) = @_;
	my ($status, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\n$statement", extra_params => [ defined $user ? ('-U', $user) : () ]);

	return ($out, $err);
}

# The number of events, or the error, and the messages.
sub deliver_loudly
{
	my ($name, $user) = @_;

	return said("SELECT coalesce(error, events::text) FROM s3export.deliver('$name', \"raise\" => false)", $user);
}

sub events_of
{
	my ($name) = @_;

	return sql("SELECT coalesce(string_agg(event, ' ' ORDER BY event_id), '') FROM (SELECT row_number() OVER (ORDER BY at) AS event_id, event FROM s3export.current_events WHERE connector = '$name') e");
}

# S3 refuses the connector's files while the block runs.
sub refusing
{
	my ($name, $block) = @_;

	$s3->call('add_fault', do => 'error', code => 'AccessDenied', match => { key => $folder{$name} }, times => undef);
	$block->();
	$s3->call('clear_faults');
	return;
}

# A transaction that has run these statements and goes on for so many seconds.
sub open_transaction
{
	my ($seconds, @statements) = @_;
	my $sleep = "SELECT pg_sleep($seconds) AS open_" . int(rand 1e9);
	my $session = start_psql($node, 'BEGIN', @statements, $sleep, 'COMMIT');

	poll_until(sub { sql("SELECT count(*) FROM pg_stat_activity WHERE query = '$sleep'") > 0 }, 'an open transaction');
	return $session;
}

# ---- row filters, with changes of other tables in between
sql('CREATE TABLE wide (id int PRIMARY KEY, ' . join(', ', map { "c$_ int DEFAULT 257" } 1 .. 400) . ')');
sql(<<'SQL');
CREATE TABLE t (id int, k text, PRIMARY KEY (id, k));
CREATE PUBLICATION pt FOR TABLE t WHERE (k = 'eu'), wide;
CREATE TABLE p (id int, k text, PRIMARY KEY (id, k)) PARTITION BY RANGE (id);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (100);
CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (100) TO (200);
CREATE PUBLICATION pp FOR TABLE p WHERE (k = 'a') WITH (publish_via_partition_root = true);
SQL
flow('filter', publication => 'pt');
flow('leaf', publication => 'pp');
launch($node, $_) foreach 'filter', 'leaf';
sql($_) foreach q(INSERT INTO t VALUES (1, 'eu')), q(INSERT INTO wide VALUES (1)), q(INSERT INTO t VALUES (2, 'eu'), (3, 'us')), q(DELETE FROM t WHERE id = 1),
  q(INSERT INTO p VALUES (1, 'a')), q(INSERT INTO p VALUES (101, 'a'), (102, 'b')), q(INSERT INTO p VALUES (2, 'a'), (3, 'b'));
deliver($node, $_) foreach 'filter', 'leaf';
is(short('filter', 'public.t'), 'insert 1, insert 2, delete 1', 'a row filter with a text, changes of another table in between');
is(short('leaf'), 'insert 1, insert 101, insert 2', 'a row filter of a root with two partitions');

# ---- a type that is made anew under its name
sql('CREATE DOMAIN status AS text; CREATE TABLE b (id int PRIMARY KEY, s status)');
flow('type', tables => '{b}');
launch($node, 'type');
sql(q(INSERT INTO b VALUES (1, 'new')));
sql(q(BEGIN; ALTER DOMAIN status RENAME TO status_old; CREATE TYPE status AS ENUM ('new', 'done'); ALTER TABLE b ALTER s TYPE status USING s::text::status; COMMIT));
sql(q(INSERT INTO b VALUES (2, 'done')));
is((deliver_loudly('type'))[0], '2', 'a domain that becomes an enum of the same name');
is(short('type', undef, 'id', 's'), 'insert 1/new, insert 2/done', 'each value by its own type');
is(versions('type'), 2, 'in two versions');

# ---- a column that is made anew under its name
sql('CREATE TABLE c (id int PRIMARY KEY, v text, d int GENERATED ALWAYS AS (id * 2) STORED)');
flow('column', tables => '{c}');
launch($node, 'column');
sql($_) foreach q(INSERT INTO c VALUES (1, 'one')), 'ALTER TABLE c DROP COLUMN v; ALTER TABLE c ADD COLUMN v text', q(INSERT INTO c (id, v) VALUES (2, 'two')), q(UPDATE c SET v = 'uno' WHERE id = 1);
deliver($node, 'column');
is(short('column', undef, 'id', 'v'), 'insert 1/one, insert 2/two, update 1/uno', 'a column that is dropped and added again has its values');
is(versions('column'), 2, 'in two versions');
sql('CREATE TABLE g (id int PRIMARY KEY, d int GENERATED ALWAYS AS (id * 2) STORED); CREATE PUBLICATION pg FOR TABLE g');
flow('generated', tables => '{g}');
launch($node, 'generated');
sql($_) foreach 'INSERT INTO g VALUES (1)', 'ALTER TABLE g DROP COLUMN d; ALTER TABLE g ADD d int GENERATED ALWAYS AS (id * 3) STORED', 'INSERT INTO g VALUES (2)';
deliver($node, 'generated');
SKIP:
{
	skip 'the server publishes no generated columns', 2 unless grep { $_ eq 'd' } @{ (events(files('generated')))[0]{file}{header} };
	is(short('generated', undef, 'id', 'd'), 'insert 1/2, insert 2/6', 'a generated column that is made anew has its values');
	is(versions('generated'), 2, 'in two versions');
}

#MORE#

keep_secrets($s3);
$node->stop;
$s3->stop;
done_testing();
