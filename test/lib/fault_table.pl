# fault_table.pl print LOGS: the table of faults that the tests have stated (S3Faults.pm,
#	fault_outcome) in the files *.faults of that directory, to be put into docs/troubleshooting.md.
# fault_table.pl check LOGS PAGE: fails unless the table of the page, between its two
#	marker comments, is that one.
# fault_table.pl part LOGS PAGE: the same where not all tests were run: fails when
#	one of their lines is not in the table of the page.
use strict;
use warnings;

my ($command, $logs, $page) = @ARGV;
my @heading = ("| Fault | The caller sees | The job's row | The bucket |\n", "| --- | --- | --- | --- |\n");

sub lines_of
{
	my ($name) = @_;

	open my $file, '<', $name or die "could not read $name: $!\n";
	return readline $file;
}

sub table_of
{
	my ($name) = @_;
	my ($table) = join('', lines_of($name)) =~ /^<!-- faults -->\n(.*?)^<!-- end of faults -->\n/ms
	  or die "$name has no table of faults\n";

	return $table =~ /^(.*\n)/mg;
}

sub usage { die "usage: fault_table.pl print LOGS | check LOGS PAGE | part LOGS PAGE\n" }

usage() unless @ARGV == (($command // '') eq 'print' ? 2 : 3) && $command =~ /^(print|check|part)$/;

my @stated = map { lines_of($_) } sort glob "$logs/*.faults";
my %times;
my @twice = grep { $times{ (split / \| /)[0] }++ == 1 } @stated;

die 'stated twice: ', @twice if @twice;
if ($command eq 'print')
{
	print @heading, @stated;
	exit 0;
}

my @shown = table_of($page);
my %shown = map { $_ => 1 } @shown;
my %line = map { (split / \| /)[0] => $_ } @shown;

# A line that could not be tried is taken as it is shown.
@stated = map { /^(.*?) \| not tried here \|$/ && $line{$1} || $_ } @stated;

my %stated = map { $_ => 1 } @heading, @stated;
my @missing = grep { !$shown{$_} } @stated;
my @stale = $command eq 'check' ? grep { !$stated{$_} } @shown : ();

print "stated by a test, and not in $page:\n", @missing if @missing;
print "in $page, and stated by no test:\n", @stale if @stale;
print "the lines of $page are in another order than those of the tests\n"
  if $command eq 'check' && !@missing && !@stale && join('', @shown) ne join('', @heading, @stated);
exit(@missing || @stale || ($command eq 'check' && join('', @shown) ne join('', @heading, @stated)) ? 1 : 0);
