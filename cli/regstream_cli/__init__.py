"""The `regstream` command: parses options, calls the engine, shows progress and results, and sets exit codes.

app.py: the command group and its error handling
init.py, run.py, plan.py, status.py, verify.py, evaluate.py, tune.py, bias.py, report.py, push.py: one command each
options.py: arguments and options that several commands share
run_status.py: the progress of a merge, read from disk
run_summary.py: what a run says at its end
next_command.py: the command that follows another
observers.py: attaches displays, JSON output and signal handling to the engine's events
progress_state.py: progress summed up from events
progress_bars.py, progress_grid.py: live progress bars on a terminal, and their rows
progress_lines.py: one log line per step
interrupt.py: Ctrl-C and SIGTERM
ranks.py: what a command does on several ranks
error_reporting.py: exceptions to messages and exit codes
streams.py: stdout for data, stderr for messages
architecture_lines.py: what was found in a model, for people
usage_errors.py: errors of usage to messages
manifest_source.py: the manifest of a command, and --set
from_mergekit.py: the manifest of a mergekit recipe, for init
status_lines.py, status_bars.py: a merge's status as lines and as bars; watch.py: follows it
tables.py, tuning_tables.py, rank_tables.py: tables for people
logging_setup.py: silences library logs
"""
