# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_shepherd_global_optspecs
    string join \n h/help V/version
end

function __fish_shepherd_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_shepherd_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_shepherd_using_subcommand
    set -l cmd (__fish_shepherd_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c shepherd -n "__fish_shepherd_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c shepherd -n "__fish_shepherd_needs_command" -s V -l version -d 'Print version'
complete -c shepherd -n "__fish_shepherd_needs_command" -f -a "run" -d 'Bind sockets, start workers that inherit them; restart and reload them, in the foreground'
complete -c shepherd -n "__fish_shepherd_needs_command" -f -a "status" -d 'Show services and their workers: states, generations, restarts, connections, memory'
complete -c shepherd -n "__fish_shepherd_needs_command" -f -a "reload" -d 'Roll services to a new version without losing a request; wait for the outcome'
complete -c shepherd -n "__fish_shepherd_needs_command" -f -a "rollback" -d 'Go back to the version that served before; wait for the outcome'
complete -c shepherd -n "__fish_shepherd_needs_command" -f -a "scale" -d 'Change how many workers a service has'
complete -c shepherd -n "__fish_shepherd_needs_command" -f -a "restart" -d 'Stop services and start them anew; nothing serves in between. You probably want `reload`'
complete -c shepherd -n "__fish_shepherd_needs_command" -f -a "stop" -d 'Stop services, or without any the daemon with all of them; workers drain first'
complete -c shepherd -n "__fish_shepherd_needs_command" -f -a "start" -d 'Start services that were stopped'
complete -c shepherd -n "__fish_shepherd_needs_command" -f -a "kill" -d 'Send a signal to a worker\'s main process'
complete -c shepherd -n "__fish_shepherd_needs_command" -f -a "send" -d 'Send a worker a message, over its channel'
complete -c shepherd -n "__fish_shepherd_needs_command" -f -a "events" -d 'Show what happens, as it happens, until the daemon stops'
complete -c shepherd -n "__fish_shepherd_needs_command" -f -a "check" -d 'Find the mistakes in a configuration file, all of them at once; nothing is started'
complete -c shepherd -n "__fish_shepherd_needs_command" -f -a "plan" -d 'Say what applying a file would change about the running daemon; nothing is changed'
complete -c shepherd -n "__fish_shepherd_needs_command" -f -a "schema" -d 'Print the JSON schema of shepherd.yaml, by which an editor completes and checks it'
complete -c shepherd -n "__fish_shepherd_needs_command" -f -a "exec" -d 'Stamp LISTEN_PID with our own pid, then become COMMAND: for the end of a wrapper script'
complete -c shepherd -n "__fish_shepherd_needs_command" -f -a "completions" -d 'Print the completions for a shell'
complete -c shepherd -n "__fish_shepherd_needs_command" -f -a "man" -d 'Write the pages of the manual into a directory, such as `/usr/local/share/man/man1`'
complete -c shepherd -n "__fish_shepherd_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c shepherd -n "__fish_shepherd_using_subcommand run" -s c -l config -d 'The file that says what is run, such as shepherd.yaml; `shepherd check` finds the mistakes in it. Of the other options only --name, --logs, --lame-duck, --control, --admin and --pid-file go with it, and win over what it says' -r -F
complete -c shepherd -n "__fish_shepherd_using_subcommand run" -s n -l workers -d 'How many workers: a number, `auto` (the processors that the affinity mask and the cgroup\'s quota allow) or `max` (the processors of the machine)' -r
complete -c shepherd -n "__fish_shepherd_using_subcommand run" -s p -l listen -l port -d 'A socket to bind and hand over, `NAME=` before it if it is to have a name, options after it. Repeatable' -r
complete -c shepherd -n "__fish_shepherd_using_subcommand run" -l handoff -d 'How workers get their sockets: `auto`, `fds` or `node`' -r
complete -c shepherd -n "__fish_shepherd_using_subcommand run" -l balance -d 'How connections find a worker: `generation`, `slots` or `shared`' -r
complete -c shepherd -n "__fish_shepherd_using_subcommand run" -l upstreams -d 'Keep a file for a proxy in front: which slots have a ready worker, and where' -r
complete -c shepherd -n "__fish_shepherd_using_subcommand run" -l upstreams-reload -d 'The command of the shell that has the proxy read its file again, such as `nginx -s reload`' -r
complete -c shepherd -n "__fish_shepherd_using_subcommand run" -l ready -d 'What shows that a worker can serve: `auto`, `notify`, `listen`, `message`, `alive:D`, or a probe that it passes: `tcp`, `http:/PATH`, `exec:COMMAND`' -r
complete -c shepherd -n "__fish_shepherd_using_subcommand run" -l ready-timeout -d 'How long a worker may take to become ready; then it counts as failed' -r
complete -c shepherd -n "__fish_shepherd_using_subcommand run" -l on-failing -d 'What becomes of clients once ten workers in a row never got ready, until one does: `wait` or `refuse`' -r
complete -c shepherd -n "__fish_shepherd_using_subcommand run" -l ready-interval -d 'The longest pause between two probes; the first comes 20ms after the program runs, and each pause is twice the one before' -r
complete -c shepherd -n "__fish_shepherd_using_subcommand run" -l ready-probe-timeout -d 'How long one probe may take; a command that takes longer is killed with all it started' -r
complete -c shepherd -n "__fish_shepherd_using_subcommand run" -l before-stop -d 'How long a worker that gets no new connections may finish what it has before it gets the stop signal: `auto` or a duration; `0s` is not at all' -r
complete -c shepherd -n "__fish_shepherd_using_subcommand run" -l keepalive -d 'What becomes of idle kept-alive connections of a worker that gets no new ones, until it gets the stop signal: `close-idle` or `leave`' -r
complete -c shepherd -n "__fish_shepherd_using_subcommand run" -l surge -d 'How many workers of a new generation may run beside the old ones at a reload: a number, a part of the workers such as `25%`, or `auto`' -r
complete -c shepherd -n "__fish_shepherd_using_subcommand run" -l canary -d 'The part of new connections that a new generation gets at first at a reload, such as `5%` [default: all of them at once]' -r
complete -c shepherd -n "__fish_shepherd_using_subcommand run" -l canary-for -d 'For how long a new generation gets that part only [default: 30s]' -r
complete -c shepherd -n "__fish_shepherd_using_subcommand run" -l probation -d 'For how long after a reload the generation before is brought back by itself should a worker of the new one exit [default: not at all]' -r
complete -c shepherd -n "__fish_shepherd_using_subcommand run" -l stop-signal -d 'How a worker is asked to stop: a signal, or several with the time each is given, such as `TERM,INT:5s`. One without a time is given the drain timeout. SIGKILL follows the last' -r
complete -c shepherd -n "__fish_shepherd_using_subcommand run" -l drain-timeout -d 'How long a worker may take to finish what it has after the stop signal' -r
complete -c shepherd -n "__fish_shepherd_using_subcommand run" -l lame-duck -d 'How long everything serves on after a stop was asked for, before the workers get the stop signal: load balancers that watch /readyz see it fail, and send nothing more' -r
complete -c shepherd -n "__fish_shepherd_using_subcommand run" -l directory -d 'Where the workers run; a symbolic link is followed anew at each reload [default: here]' -r -F
complete -c shepherd -n "__fish_shepherd_using_subcommand run" -l user -d 'Run the workers as this user, with its groups and no privileges' -r
complete -c shepherd -n "__fish_shepherd_using_subcommand run" -l group -d 'The group of the workers [default: the user\'s]' -r
complete -c shepherd -n "__fish_shepherd_using_subcommand run" -l groups -d 'The supplementary groups of the workers, exactly these; `\'\'` is none [default: those that the user is a member of]' -r
complete -c shepherd -n "__fish_shepherd_using_subcommand run" -l umask -d 'The mask of the permissions of files that the workers make, such as `027`' -r
complete -c shepherd -n "__fish_shepherd_using_subcommand run" -l limit -d 'A limit for the workers, such as `nofile=65536`, `nofile=1024:65536` (soft and hard) or `core=unlimited`. Repeatable' -r
complete -c shepherd -n "__fish_shepherd_using_subcommand run" -l nice -d 'The niceness of the workers, from -20, which is favoured most, to 19' -r
complete -c shepherd -n "__fish_shepherd_using_subcommand run" -l env -d 'A variable for the workers; it wins over files and over what shepherd inherited. Repeatable' -r
complete -c shepherd -n "__fish_shepherd_using_subcommand run" -l env-file -d 'A file of NAME=VALUE lines for the workers, read anew at each reload; a later file wins over an earlier one. Repeatable' -r -F
complete -c shepherd -n "__fish_shepherd_using_subcommand run" -l logs -d 'Where the workers\' output leads: `inherit`, `prefix` or `json` [default: `prefix` when shepherd\'s stdout and stderr are both terminals, else `inherit`]' -r
complete -c shepherd -n "__fish_shepherd_using_subcommand run" -l name -d 'The name of the service and of this daemon; that it is taken is an error only when it was asked for [default: the program\'s, with a number if that is taken]' -r
complete -c shepherd -n "__fish_shepherd_using_subcommand run" -l control -d 'The unix path on which clients reach this daemon: HTTP with JSON, for the user that shepherd runs as and for root [default: `control.sock` in a directory of the daemon\'s name below $XDG_RUNTIME_DIR/shepherd, for root /run/shepherd]' -r -F
complete -c shepherd -n "__fish_shepherd_using_subcommand run" -l admin -d 'Where monitoring reaches this daemon by HTTP, read-only: /metrics for Prometheus, /healthz, /readyz; a bare port is 127.0.0.1:PORT [default: nowhere]' -r
complete -c shepherd -n "__fish_shepherd_using_subcommand run" -l pid-file -d 'A file for shepherd\'s own pid; it is removed at the end' -r -F
complete -c shepherd -n "__fish_shepherd_using_subcommand run" -l node-fork -d 'Send workers their sockets as a program of Node sends them to those that it forks'
complete -c shepherd -n "__fish_shepherd_using_subcommand run" -l no-new-privs -d 'Nothing that the workers run may gain privileges: set-uid programs run without theirs'
complete -c shepherd -n "__fish_shepherd_using_subcommand run" -l messages -d 'Each worker gets a channel for messages, as the descriptor that SHEPHERD_CHANNEL_FD names'
complete -c shepherd -n "__fish_shepherd_using_subcommand run" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c shepherd -n "__fish_shepherd_using_subcommand status" -l control -d 'The unix path on which the daemon listens [default: $SHEPHERD_CONTROL, if it is set]' -r -F
complete -c shepherd -n "__fish_shepherd_using_subcommand status" -l name -d 'The daemon\'s name [default: that of the only one that is running]' -r
complete -c shepherd -n "__fish_shepherd_using_subcommand status" -l json -d 'Print what `GET /v1/status` of the control API gives, on one line'
complete -c shepherd -n "__fish_shepherd_using_subcommand status" -l sockets -d 'Show the kernel\'s sockets behind each socket too: whose they are, what they get of new connections, and what waits there'
complete -c shepherd -n "__fish_shepherd_using_subcommand status" -l watch -d 'Look again every second: in place on a terminal, else one block after the other. Ctrl-C ends it'
complete -c shepherd -n "__fish_shepherd_using_subcommand status" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c shepherd -n "__fish_shepherd_using_subcommand reload" -l timeout -d 'How long to wait for the outcome, such as `30s` [default: as long as it takes]' -r
complete -c shepherd -n "__fish_shepherd_using_subcommand reload" -l control -d 'The unix path on which the daemon listens [default: $SHEPHERD_CONTROL, if it is set]' -r -F
complete -c shepherd -n "__fish_shepherd_using_subcommand reload" -l name -d 'The daemon\'s name [default: that of the only one that is running]' -r
complete -c shepherd -n "__fish_shepherd_using_subcommand reload" -l queue -d 'When a reload is under way, run next instead of being refused'
complete -c shepherd -n "__fish_shepherd_using_subcommand reload" -l json -d 'Print the outcome as one JSON object, and nothing on the way'
complete -c shepherd -n "__fish_shepherd_using_subcommand reload" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c shepherd -n "__fish_shepherd_using_subcommand rollback" -l timeout -d 'How long to wait for the outcome, such as `30s` [default: as long as it takes]' -r
complete -c shepherd -n "__fish_shepherd_using_subcommand rollback" -l control -d 'The unix path on which the daemon listens [default: $SHEPHERD_CONTROL, if it is set]' -r -F
complete -c shepherd -n "__fish_shepherd_using_subcommand rollback" -l name -d 'The daemon\'s name [default: that of the only one that is running]' -r
complete -c shepherd -n "__fish_shepherd_using_subcommand rollback" -l json -d 'Print the outcome as one JSON object, and nothing on the way'
complete -c shepherd -n "__fish_shepherd_using_subcommand rollback" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c shepherd -n "__fish_shepherd_using_subcommand scale" -l control -d 'The unix path on which the daemon listens [default: $SHEPHERD_CONTROL, if it is set]' -r -F
complete -c shepherd -n "__fish_shepherd_using_subcommand scale" -l name -d 'The daemon\'s name [default: that of the only one that is running]' -r
complete -c shepherd -n "__fish_shepherd_using_subcommand scale" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c shepherd -n "__fish_shepherd_using_subcommand restart" -l control -d 'The unix path on which the daemon listens [default: $SHEPHERD_CONTROL, if it is set]' -r -F
complete -c shepherd -n "__fish_shepherd_using_subcommand restart" -l name -d 'The daemon\'s name [default: that of the only one that is running]' -r
complete -c shepherd -n "__fish_shepherd_using_subcommand restart" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c shepherd -n "__fish_shepherd_using_subcommand stop" -l control -d 'The unix path on which the daemon listens [default: $SHEPHERD_CONTROL, if it is set]' -r -F
complete -c shepherd -n "__fish_shepherd_using_subcommand stop" -l name -d 'The daemon\'s name [default: that of the only one that is running]' -r
complete -c shepherd -n "__fish_shepherd_using_subcommand stop" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c shepherd -n "__fish_shepherd_using_subcommand start" -l control -d 'The unix path on which the daemon listens [default: $SHEPHERD_CONTROL, if it is set]' -r -F
complete -c shepherd -n "__fish_shepherd_using_subcommand start" -l name -d 'The daemon\'s name [default: that of the only one that is running]' -r
complete -c shepherd -n "__fish_shepherd_using_subcommand start" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c shepherd -n "__fish_shepherd_using_subcommand kill" -l control -d 'The unix path on which the daemon listens [default: $SHEPHERD_CONTROL, if it is set]' -r -F
complete -c shepherd -n "__fish_shepherd_using_subcommand kill" -l name -d 'The daemon\'s name [default: that of the only one that is running]' -r
complete -c shepherd -n "__fish_shepherd_using_subcommand kill" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c shepherd -n "__fish_shepherd_using_subcommand send" -l control -d 'The unix path on which the daemon listens [default: $SHEPHERD_CONTROL, if it is set]' -r -F
complete -c shepherd -n "__fish_shepherd_using_subcommand send" -l name -d 'The daemon\'s name [default: that of the only one that is running]' -r
complete -c shepherd -n "__fish_shepherd_using_subcommand send" -l json -d 'Print who gets it as one JSON object'
complete -c shepherd -n "__fish_shepherd_using_subcommand send" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c shepherd -n "__fish_shepherd_using_subcommand events" -l since -d 'Begin with the events after this number [default: with what happens from here on]' -r
complete -c shepherd -n "__fish_shepherd_using_subcommand events" -l control -d 'The unix path on which the daemon listens [default: $SHEPHERD_CONTROL, if it is set]' -r -F
complete -c shepherd -n "__fish_shepherd_using_subcommand events" -l name -d 'The daemon\'s name [default: that of the only one that is running]' -r
complete -c shepherd -n "__fish_shepherd_using_subcommand events" -l json -d 'Print each event as a JSON object on a line'
complete -c shepherd -n "__fish_shepherd_using_subcommand events" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c shepherd -n "__fish_shepherd_using_subcommand check" -l json -d 'What was found as one object of JSON, on stdout'
complete -c shepherd -n "__fish_shepherd_using_subcommand check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c shepherd -n "__fish_shepherd_using_subcommand plan" -l control -d 'The unix path on which the daemon listens [default: $SHEPHERD_CONTROL, if it is set]' -r -F
complete -c shepherd -n "__fish_shepherd_using_subcommand plan" -l name -d 'The daemon\'s name [default: that of the only one that is running]' -r
complete -c shepherd -n "__fish_shepherd_using_subcommand plan" -l json -d 'The plan as one object of JSON, on stdout'
complete -c shepherd -n "__fish_shepherd_using_subcommand plan" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c shepherd -n "__fish_shepherd_using_subcommand schema" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c shepherd -n "__fish_shepherd_using_subcommand exec" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c shepherd -n "__fish_shepherd_using_subcommand completions" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c shepherd -n "__fish_shepherd_using_subcommand man" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c shepherd -n "__fish_shepherd_using_subcommand help; and not __fish_seen_subcommand_from run status reload rollback scale restart stop start kill send events check plan schema exec completions man help" -f -a "run" -d 'Bind sockets, start workers that inherit them; restart and reload them, in the foreground'
complete -c shepherd -n "__fish_shepherd_using_subcommand help; and not __fish_seen_subcommand_from run status reload rollback scale restart stop start kill send events check plan schema exec completions man help" -f -a "status" -d 'Show services and their workers: states, generations, restarts, connections, memory'
complete -c shepherd -n "__fish_shepherd_using_subcommand help; and not __fish_seen_subcommand_from run status reload rollback scale restart stop start kill send events check plan schema exec completions man help" -f -a "reload" -d 'Roll services to a new version without losing a request; wait for the outcome'
complete -c shepherd -n "__fish_shepherd_using_subcommand help; and not __fish_seen_subcommand_from run status reload rollback scale restart stop start kill send events check plan schema exec completions man help" -f -a "rollback" -d 'Go back to the version that served before; wait for the outcome'
complete -c shepherd -n "__fish_shepherd_using_subcommand help; and not __fish_seen_subcommand_from run status reload rollback scale restart stop start kill send events check plan schema exec completions man help" -f -a "scale" -d 'Change how many workers a service has'
complete -c shepherd -n "__fish_shepherd_using_subcommand help; and not __fish_seen_subcommand_from run status reload rollback scale restart stop start kill send events check plan schema exec completions man help" -f -a "restart" -d 'Stop services and start them anew; nothing serves in between. You probably want `reload`'
complete -c shepherd -n "__fish_shepherd_using_subcommand help; and not __fish_seen_subcommand_from run status reload rollback scale restart stop start kill send events check plan schema exec completions man help" -f -a "stop" -d 'Stop services, or without any the daemon with all of them; workers drain first'
complete -c shepherd -n "__fish_shepherd_using_subcommand help; and not __fish_seen_subcommand_from run status reload rollback scale restart stop start kill send events check plan schema exec completions man help" -f -a "start" -d 'Start services that were stopped'
complete -c shepherd -n "__fish_shepherd_using_subcommand help; and not __fish_seen_subcommand_from run status reload rollback scale restart stop start kill send events check plan schema exec completions man help" -f -a "kill" -d 'Send a signal to a worker\'s main process'
complete -c shepherd -n "__fish_shepherd_using_subcommand help; and not __fish_seen_subcommand_from run status reload rollback scale restart stop start kill send events check plan schema exec completions man help" -f -a "send" -d 'Send a worker a message, over its channel'
complete -c shepherd -n "__fish_shepherd_using_subcommand help; and not __fish_seen_subcommand_from run status reload rollback scale restart stop start kill send events check plan schema exec completions man help" -f -a "events" -d 'Show what happens, as it happens, until the daemon stops'
complete -c shepherd -n "__fish_shepherd_using_subcommand help; and not __fish_seen_subcommand_from run status reload rollback scale restart stop start kill send events check plan schema exec completions man help" -f -a "check" -d 'Find the mistakes in a configuration file, all of them at once; nothing is started'
complete -c shepherd -n "__fish_shepherd_using_subcommand help; and not __fish_seen_subcommand_from run status reload rollback scale restart stop start kill send events check plan schema exec completions man help" -f -a "plan" -d 'Say what applying a file would change about the running daemon; nothing is changed'
complete -c shepherd -n "__fish_shepherd_using_subcommand help; and not __fish_seen_subcommand_from run status reload rollback scale restart stop start kill send events check plan schema exec completions man help" -f -a "schema" -d 'Print the JSON schema of shepherd.yaml, by which an editor completes and checks it'
complete -c shepherd -n "__fish_shepherd_using_subcommand help; and not __fish_seen_subcommand_from run status reload rollback scale restart stop start kill send events check plan schema exec completions man help" -f -a "exec" -d 'Stamp LISTEN_PID with our own pid, then become COMMAND: for the end of a wrapper script'
complete -c shepherd -n "__fish_shepherd_using_subcommand help; and not __fish_seen_subcommand_from run status reload rollback scale restart stop start kill send events check plan schema exec completions man help" -f -a "completions" -d 'Print the completions for a shell'
complete -c shepherd -n "__fish_shepherd_using_subcommand help; and not __fish_seen_subcommand_from run status reload rollback scale restart stop start kill send events check plan schema exec completions man help" -f -a "man" -d 'Write the pages of the manual into a directory, such as `/usr/local/share/man/man1`'
complete -c shepherd -n "__fish_shepherd_using_subcommand help; and not __fish_seen_subcommand_from run status reload rollback scale restart stop start kill send events check plan schema exec completions man help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
