# Rows that did not come from the extension's functions: written past its triggers, or by a
# subscription, they are refused; and if they are there all the same, nobody acts on them.
use strict;
use warnings;
use lib 'test/lib';
use PostgreSQL::Test::Utils;
use S3Currents;
use S3Export;
use S3Faults;
use ScriptedS3;
use Test::More;

my $s3 = scripted_s3();
my $node = currents_node('main', q(s3export.retry_timeout = '0'));
my %keys = scripted_user($s3);
my $url = sql_literal($s3->url);

sub sql
{
	my ($statement, $user) = @_;

	return $node->safe_psql('postgres', $statement, extra_params => [ '-U', $user // getpwuid($>) ]);
}

sub sqlstate
{
	my ($statement, $user) = @_;

	return sql_error($node, $statement, defined $user ? (user => $user) : ())->{sqlstate} // 'none';
}

sql(q(
	CREATE ROLE writer LOGIN IN ROLE pg_read_all_data, pg_write_all_data;
	GRANT SET ON PARAMETER session_replication_role TO writer;));
create_connector($node, 'lake', bucket => 'exports', endpoint_url => $s3->url, %keys);
sql(q(SELECT s3export.copy_to('lake', 'VALUES (1)', 'first.csv')));

# ---- past the triggers of ordinary sessions
my @tables = split /\n/, sql(q(SELECT relname FROM pg_class WHERE relnamespace = 's3export'::regnamespace AND relkind = 'r' ORDER BY 1));
cmp_ok(scalar(@tables), '>=', 13, 'tables of the extension');
foreach my $table (@tables)
{
	my $column = sql("SELECT attname FROM pg_attribute WHERE attrelid = 's3export.$table'::regclass AND attnum = 1");

	foreach my $statement ("INSERT INTO s3export.$table OVERRIDING SYSTEM VALUE SELECT * FROM s3export.$table", "INSERT INTO s3export.$table DEFAULT VALUES", "UPDATE s3export.$table SET $column = DEFAULT", "DELETE FROM s3export.$table")
	{
		is(sqlstate("SET session_replication_role = replica; $statement", 'writer'), '42501', "refused: $statement");
	}
}

# ---- a subscription, whose owner is no superuser any more
{
	sql('CREATE DATABASE publisher');
	$node->safe_psql('publisher', q(
		CREATE SCHEMA s3export;
		CREATE TABLE s3export.connector_grant (connector_id bigint, grantee oid, PRIMARY KEY (connector_id, grantee));
		CREATE PUBLICATION p FOR TABLE s3export.connector_grant;
		SELECT pg_create_logical_replication_slot('s', 'pgoutput')));
	sql('CREATE ROLE subscriber SUPERUSER LOGIN IN ROLE pg_write_all_data, pg_read_all_data');
	sql('CREATE SUBSCRIPTION s CONNECTION ' . sql_literal($node->connstr('publisher')) . q( PUBLICATION p WITH (create_slot = false, slot_name = 's', copy_data = false)), 'subscriber');
	sql('ALTER ROLE subscriber NOSUPERUSER');
	my $offset = -s $node->logfile;

	$node->safe_psql('publisher', q(INSERT INTO s3export.connector_grant SELECT 1, oid FROM pg_roles WHERE rolname = 'writer'));
	poll_until(sub { slurp_file($node->logfile, $offset) =~ /ERROR:  permission denied for table connector_grant/ }, 'the refusal of a replicated row');
	is(sql('SELECT count(*) FROM s3export.connector_grant'), 0, 'a subscription cannot write rows either');
	sql('ALTER SUBSCRIPTION s DISABLE; ALTER SUBSCRIPTION s SET (slot_name = NONE); DROP SUBSCRIPTION s');
	$node->safe_psql('publisher', q(SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = 's'));
	poll_until(sub { $node->psql('publisher', q(SELECT pg_drop_replication_slot('s'))) == 0 }, 'the end of the slot');
}

done_testing();
