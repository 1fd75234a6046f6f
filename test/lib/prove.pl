# prove.pl TOTALS JOBS TEST...: runs TAP tests as prove does, and writes "passed
# failed" to the file TOTALS, and the file of each failed test on a line after
# that.  A file that dies, has no plan, or is skipped whole counts as one failure:
# here every test is meant to run.
use strict;
use warnings;

use TAP::Harness;

my ($totals, $jobs, @tests) = @ARGV;
my $harness = TAP::Harness->new(
    { jobs => $jobs, timer => 1, failures => 1, merge => 0, color => 0 });
my $result = $harness->runtests(@tests);
my ($passed, $failed) = (0, 0);
my @failed_files;

foreach my $test ($result->descriptions)
{
    my ($parser) = $result->parsers($test);
    my $bad = $parser->failed;

    $passed += $parser->passed - $parser->skipped;
    if (defined $parser->skip_all)
    {
        print "$test was skipped: " . $parser->skip_all . "\n";
        $bad++;
    }
    $bad = 1 if !$bad && $parser->has_problems;
    $failed += $bad;
    push @failed_files, $test if $bad;
}

open my $out, '>', $totals or die "could not write $totals: $!";
print $out "$_\n" foreach "$passed $failed", @failed_files;
close $out;
exit($failed ? 1 : 0);
