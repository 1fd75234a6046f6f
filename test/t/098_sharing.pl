# Credentials that connectors share: who may use them, for how long, and who sees it; and
# grants to roles that are gone.
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
my %keys = scripted_user($s3);
my $node = currents_node('main', q(s3export.retry_timeout = '0'), q(s3export.allowed_endpoints = ') . $s3->url . q('));

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

sub export { return "SELECT s3export.copy_to('$_[0]', 'VALUES (1)', 'x.csv', if_exists => 'overwrite')"; }

my %place = (bucket => 'exports', endpoint_url => $s3->url);
my $from = "endpoint_url => '" . $s3->url . "', credentials_from => 'al'";

sql("CREATE ROLE $_ LOGIN; GRANT EXECUTE ON FUNCTION s3export.create_connector TO $_") foreach qw(alice dave erin);
sql('SELECT ' . connector_sql('al', %place, %keys), 'alice');
sql('GRANT alice TO dave');
sql("SELECT s3export.create_connector('dv', 'exports', $from)", 'dave');
is(sqlstate(export('dv'), 'dave'), 'none', 'a member shares credentials');
sql("SELECT s3export.create_connector('er', 'exports', $from)");
sql(q(SELECT s3export.alter_connector('er', owner => 'erin')));
is(sqlstate(export('er'), 'erin'), 'none', 'and so does who was lent them by a superuser');
is(sql('SELECT * FROM s3export.shared_credentials ORDER BY connector', 'alice'), "alice|al|alice|f|t\nalice|dv|dave|f|t\nalice|er|erin|t|t", 'their owner sees all of them');
is(sql('SELECT connector FROM s3export.shared_credentials', 'erin'), 'er', 'who shares them sees himself');
is(sqlstate(q(SELECT s3export.alter_connector('dv', owner => 'erin', validate => false)), 'dave'), '42501', 'a member cannot pass them on');

sql('REVOKE alice FROM dave');
foreach my $statement (export('dv'), q(SELECT s3export.alter_connector('dv', folder_path => '')), q(SELECT * FROM s3export.test_credentials('dv')))
{
	is(sqlstate($statement, 'dave'), '42501', "not when he is no member any more: $statement");
}
sql('GRANT erin TO dave; GRANT EXECUTE ON FUNCTION s3export.create_connector TO dave');
is(sqlstate(q(SELECT s3export.alter_connector('dv', owner => 'erin', validate => false)), 'dave'), '42501', 'nor given to somebody else');
is(sql(q(SELECT connector FROM s3export.shared_credentials WHERE NOT usable), 'alice'), 'dv', 'which their owner sees');
sql('SELECT s3export.set_credentials(\'al\', ' . join(', ', map { "$_ => " . sql_literal($keys{$_}) } sort keys %keys) . ')', 'alice');
is(sqlstate(export('dv'), 'dave'), '42501', 'rotation does not let him in again');
is(sqlstate(export('er'), 'erin'), 'none', 'but those who were lent them');
sql('SELECT s3export.set_credentials(\'dv\', unshare => true, ' . join(', ', map { "$_ => " . sql_literal($keys{$_}) } sort keys %keys) . ')', 'dave');
is(sqlstate(export('dv'), 'dave'), 'none', 'with credentials of his own the connector works again');

# ---- grants to roles that are gone
sql(q(SELECT s3export.grant_usage('al', 'dave'); SELECT s3export.grant_usage('al', 'erin'); CREATE ROLE gone; SELECT s3export.grant_usage('al', 'gone'); DROP ROLE gone), scalar(getpwuid($>)));
is(sql('SELECT connector, grantee, role_exists FROM s3export.connector_grants WHERE role_exists', 'alice'), "al|dave|t\nal|erin|t", 'the owner sees the grants');
like(sql('SELECT grantee FROM s3export.connector_grants WHERE NOT role_exists'), qr/^\d+$/, 'those to a dropped role too');
is(sql('SELECT connector FROM s3export.connector_grants', 'erin'), 'al', 'a grantee sees his own');
sql(q(SELECT s3export.revoke_usage('al', 'erin')), 'alice');
is(sql('SELECT string_agg(grantee::text, \' \') FROM s3export.connector_grants'), 'dave', 'the next change of grants removes that of the dropped role');

# ---- places of connectors that were never validated
{
	my %made_up = (access_key_id => 'AKIAIOSFODNN7EXAMPLE', secret_access_key => 'made-up-secret-made-up');
	my $squat = sub { return sqlstate('SELECT ' . connector_sql($_[0], %place, %made_up, folder_path => $_[1], validate => \'false', @_[ 2 .. $#_ ]), 'dave'); };

	is($squat->('squat', 'wanted'), 'none', 'a connector that is not validated is saved');
	is($squat->('squat2', 'wanted'), '42710', 'another one that is not, cannot be saved at the same place');
	is(sqlstate('SELECT ' . connector_sql('rightful', %place, %keys, folder_path => 'wanted'), 'alice'), 'none', 'one that is validated takes the place');
	is(sqlstate(export('rightful'), 'alice'), 'none', 'and writes there');
	is(sqlstate(export('squat'), 'dave'), '42710', 'the other one cannot any more');
	is(sqlstate(q(SELECT s3export.copy_to('squat', 'VALUES (1)', wait => false)), 'dave'), '42710', 'nor queue');
	is(sqlstate('SELECT s3export.set_credentials(\'squat\', ' . join(', ', map { "$_ => " . sql_literal($keys{$_}) } sort keys %keys) . ')', 'dave'), '42710', 'nor be validated');
	is(sqlstate(q(SELECT s3export.alter_connector('squat')), 'dave'), '42710', 'by its name alone neither');
	is($squat->('squat3', 'wanted'), '42710', 'the place is reserved');
	is(sqlstate('SELECT s3export.set_credentials(\'rightful\', validate => false, ' . join(', ', map { "$_ => " . sql_literal($keys{$_}) } sort keys %keys) . ')', 'alice'), 'none', 'keys that are not tested');
	is(sqlstate(export('squat'), 'dave'), '42710', 'do not give it up');
	sql(q(SELECT s3export.alter_connector('rightful', folder_path => 'moved', validate => false)), 'alice');
	is(sqlstate(q(SELECT s3export.alter_connector('rightful', folder_path => 'wanted', validate => false)), 'alice'), '42710', 'who leaves it without being tested elsewhere, has given it up');

	sql('SELECT ' . connector_sql('flow', %place, %keys, kind => 'currents', folder_path => 'flows', validate => \'false'));
	is(sqlstate(q(SELECT s3export.launch('flow'))), 'none', 'a current that is not validated can be launched');
	is(sqlstate('SELECT ' . connector_sql('inflow', %place, %keys, folder_path => 'flows/inside'), 'alice'), 'none', 'but reserves nothing inside its folder');
	is(sqlstate('SELECT ' . connector_sql('around', %place, %keys, kind => 'currents', folder_path => 'flows')), '42710', 'where one that is validated cannot be');
	like(sql_error($node, q(SELECT s3export.deliver('flow')))->{hint}, qr/saved without being validated/, 'nor is it delivered any more');
	sql(q(SELECT s3export.stop('flow')));

	is(sqlstate('SELECT ' . connector_sql('lone', %place, %keys, folder_path => 'lone', validate => \'false'), 'alice'), 'none', 'a place that nobody else wants');
	is(sqlstate(export('lone'), 'alice'), 'none', 'is of use without being reserved');
	is(sqlstate(q(SELECT s3export.alter_connector('lone')), 'alice'), 'none', 'its name alone validates a connector');
	is(sqlstate('SELECT ' . connector_sql('late', %place, %keys, folder_path => 'lone')), '42710', 'and reserves its place');
}

# ---- a transaction that has saved a connector, and stays open
{
	my $make = connector_sql('%s', %place, %keys, kind => 'currents', folder_path => '%s', validate => \'false');
	my $session = $node->background_psql('postgres');

	$session->query('BEGIN; SELECT ' . sprintf($make, 'open', 'open'));
	is(sqlstate("SET lock_timeout = '2s'; SELECT " . (sprintf($make, 'elsewhere', 'elsewhere') =~ s/'exports'/'other'/r)), 'none', 'keeps nobody from other buckets');
	is(sqlstate("SET lock_timeout = '1s'; SELECT " . sprintf($make, 'open/inside', 'inside')), '55P03', 'in its own one others wait');
	$session->query('COMMIT');
	is(sqlstate('SELECT ' . sprintf($make, 'open/inside', 'inside')), '42710', 'to see what it has saved');
	$session->quit;
}

$node->stop;
done_testing();
