# What a current sends is what its publication publishes, at each place of the WAL.
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
my $node = currents_node('main', 'log_min_messages = debug1', 'max_slot_wal_keep_size = 10GB', 'backtrace_functions = AllocSetFree');
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

# "insert 1, delete 2" of a connector, in the order of a table's events.
sub short
{
	my ($name, $type, $column) = @_;

	return join ', ', map { "$_->{op} " . ($_->{values}{ $column // 'id' } // '-') } grep { !defined $type || $_->{type} eq $type } events(files($name));
}

sub fine
{
	my ($name, $what) = @_;
	my @files = files($name);

	is_deeply([ wrong_files(@files), wrong_events(events(@files)) ], [], "$what: the files");
	return;
}

# ---- a publication of the connector's own
sql('CREATE TABLE a (id int PRIMARY KEY, v text); CREATE TABLE b (id int PRIMARY KEY, v text)');
flow('own', tables => '{a}');
is(current_of($node, 'own', 'publication, tables, operations'), 's3export_own|{public.a}|{insert,update,delete,truncate}', 'tables make a publication, with all operations');
launch($node, 'own');
sql(q(INSERT INTO a VALUES (1, 'x'); UPDATE a SET v = 'y'; DELETE FROM a; INSERT INTO b VALUES (1, 'not yet')));
sql(q(ALTER PUBLICATION s3export_own ADD TABLE b));
sql(q(INSERT INTO b VALUES (2, 'now')));
sql(q(ALTER PUBLICATION s3export_own DROP TABLE a));
sql(q(INSERT INTO a VALUES (3, 'no more'); INSERT INTO b VALUES (4, 'and'); ALTER PUBLICATION s3export_own SET (publish = 'insert')));
sql(q(DELETE FROM b WHERE id = 2; INSERT INTO b VALUES (5, 'last')));
is((deliver($node, 'own') // {})->{events}, 6, 'changes of the publication take effect where they are in the WAL');
is(short('own', 'public.a'), 'insert 1, update 1, delete 1', 'a table that is dropped from it');
is(short('own', 'public.b'), 'insert 2, insert 4, insert 5', 'and one that is added');
fine('own', 'own');
done_testing();
