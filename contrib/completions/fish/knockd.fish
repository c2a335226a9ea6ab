# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_knockd_global_optspecs
    string join \n i/interface= d/daemon D/debug l/lookup p/pidfile= g/logfile= v/verbose 4/only-ip-v4 dry-run read= c/config= state-dir= run-dir= V/version h/help
end

function __fish_knockd_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_knockd_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_knockd_using_subcommand
    set -l cmd (__fish_knockd_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c knockd -n "__fish_knockd_needs_command" -s i -l interface -d 'Listen to this interface, whatever the configuration says; a name, a glob or `any`. May be given several times' -r
complete -c knockd -n "__fish_knockd_needs_command" -s p -l pidfile -d 'Write the process number here when in the background [default: /var/run/knockd.pid]' -r -F
complete -c knockd -n "__fish_knockd_needs_command" -s g -l logfile -d 'Log to this file, whatever the configuration says' -r -F
complete -c knockd -n "__fish_knockd_needs_command" -l read -d 'With --dry-run: replay this capture and print what each knock in it would do' -r -F
complete -c knockd -n "__fish_knockd_needs_command" -s c -l config -d 'The configuration: TOML if its name ends in `.toml`, in the format of knock 0.8 if in `.conf`; by another name TOML if it has a `[firewall]` or `[door.…]` header [default: /etc/knockd.toml, else /etc/knockd.conf]' -r -F
complete -c knockd -n "__fish_knockd_needs_command" -l state-dir -d 'What must outlive a reboot: the last good configuration, pending stops' -r -F
complete -c knockd -n "__fish_knockd_needs_command" -l run-dir -d 'What must not: the lock and the control socket' -r -F
complete -c knockd -n "__fish_knockd_needs_command" -s d -l daemon -d 'Go to the background and write the pid file'
complete -c knockd -n "__fish_knockd_needs_command" -s D -l debug -d 'Write debug messages to stdout'
complete -c knockd -n "__fish_knockd_needs_command" -s l -l lookup -d 'Look up the names of sources for the log. It tells whoever sees our DNS who knocks'
complete -c knockd -n "__fish_knockd_needs_command" -s v -l verbose -d 'Write what happens to stdout'
complete -c knockd -n "__fish_knockd_needs_command" -s 4 -l only-ip-v4 -d 'Ignore IPv6'
complete -c knockd -n "__fish_knockd_needs_command" -l dry-run -d 'Print the table and what each door would do; change nothing, listen to nothing'
complete -c knockd -n "__fish_knockd_needs_command" -s V -l version -d 'Print the version and exit'
complete -c knockd -n "__fish_knockd_needs_command" -s h -l help -d 'Print help'
complete -c knockd -n "__fish_knockd_needs_command" -f -a "check" -d 'Check the configuration; as root also whether the doors work on this machine'
complete -c knockd -n "__fish_knockd_needs_command" -f -a "convert" -d 'Print a knockd.conf as TOML that makes the same decisions'
complete -c knockd -n "__fish_knockd_needs_command" -f -a "guard" -d 'Put the guard in place without listening: for the time before the network is up'
complete -c knockd -n "__fish_knockd_needs_command" -f -a "list" -d 'List the openings in the kernel'
complete -c knockd -n "__fish_knockd_needs_command" -f -a "status" -d 'Say what the daemon hears and has done'
complete -c knockd -n "__fish_knockd_needs_command" -f -a "open" -d 'Open a door for an address as if it had knocked'
complete -c knockd -n "__fish_knockd_needs_command" -f -a "close" -d 'Close what is open'
complete -c knockd -n "__fish_knockd_needs_command" -f -a "clear" -d 'Remove the table, and with it the guard: the ports are open to all'
complete -c knockd -n "__fish_knockd_needs_command" -f -a "reload" -d 'Have the daemon read its configuration again, and say what becomes of it'
complete -c knockd -n "__fish_knockd_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c knockd -n "__fish_knockd_using_subcommand check" -l saved-ruleset -d 'Where the ruleset that is loaded at boot is kept' -r -F
complete -c knockd -n "__fish_knockd_using_subcommand check" -s c -l config -d 'The configuration: TOML if its name ends in `.toml`, in the format of knock 0.8 if in `.conf`; by another name TOML if it has a `[firewall]` or `[door.…]` header [default: /etc/knockd.toml, else /etc/knockd.conf]' -r -F
complete -c knockd -n "__fish_knockd_using_subcommand check" -l state-dir -d 'What must outlive a reboot: the last good configuration, pending stops' -r -F
complete -c knockd -n "__fish_knockd_using_subcommand check" -l run-dir -d 'What must not: the lock and the control socket' -r -F
complete -c knockd -n "__fish_knockd_using_subcommand check" -l file-only -d 'Look at the file alone, not at the running system'
complete -c knockd -n "__fish_knockd_using_subcommand check" -l json -d 'As JSON'
complete -c knockd -n "__fish_knockd_using_subcommand check" -s h -l help -d 'Print help'
complete -c knockd -n "__fish_knockd_using_subcommand convert" -s c -l config -d 'The configuration: TOML if its name ends in `.toml`, in the format of knock 0.8 if in `.conf`; by another name TOML if it has a `[firewall]` or `[door.…]` header [default: /etc/knockd.toml, else /etc/knockd.conf]' -r -F
complete -c knockd -n "__fish_knockd_using_subcommand convert" -l state-dir -d 'What must outlive a reboot: the last good configuration, pending stops' -r -F
complete -c knockd -n "__fish_knockd_using_subcommand convert" -l run-dir -d 'What must not: the lock and the control socket' -r -F
complete -c knockd -n "__fish_knockd_using_subcommand convert" -l native -d 'Turn commands that plainly open or close a port into `open` and `close`'
complete -c knockd -n "__fish_knockd_using_subcommand convert" -s h -l help -d 'Print help'
complete -c knockd -n "__fish_knockd_using_subcommand guard" -s c -l config -d 'The configuration: TOML if its name ends in `.toml`, in the format of knock 0.8 if in `.conf`; by another name TOML if it has a `[firewall]` or `[door.…]` header [default: /etc/knockd.toml, else /etc/knockd.conf]' -r -F
complete -c knockd -n "__fish_knockd_using_subcommand guard" -l state-dir -d 'What must outlive a reboot: the last good configuration, pending stops' -r -F
complete -c knockd -n "__fish_knockd_using_subcommand guard" -l run-dir -d 'What must not: the lock and the control socket' -r -F
complete -c knockd -n "__fish_knockd_using_subcommand guard" -s h -l help -d 'Print help'
complete -c knockd -n "__fish_knockd_using_subcommand list" -s c -l config -d 'The configuration: TOML if its name ends in `.toml`, in the format of knock 0.8 if in `.conf`; by another name TOML if it has a `[firewall]` or `[door.…]` header [default: /etc/knockd.toml, else /etc/knockd.conf]' -r -F
complete -c knockd -n "__fish_knockd_using_subcommand list" -l state-dir -d 'What must outlive a reboot: the last good configuration, pending stops' -r -F
complete -c knockd -n "__fish_knockd_using_subcommand list" -l run-dir -d 'What must not: the lock and the control socket' -r -F
complete -c knockd -n "__fish_knockd_using_subcommand list" -l json -d 'As JSON'
complete -c knockd -n "__fish_knockd_using_subcommand list" -s h -l help -d 'Print help'
complete -c knockd -n "__fish_knockd_using_subcommand status" -l saved-ruleset -d 'Where the ruleset that is loaded at boot is kept' -r -F
complete -c knockd -n "__fish_knockd_using_subcommand status" -s c -l config -d 'The configuration: TOML if its name ends in `.toml`, in the format of knock 0.8 if in `.conf`; by another name TOML if it has a `[firewall]` or `[door.…]` header [default: /etc/knockd.toml, else /etc/knockd.conf]' -r -F
complete -c knockd -n "__fish_knockd_using_subcommand status" -l state-dir -d 'What must outlive a reboot: the last good configuration, pending stops' -r -F
complete -c knockd -n "__fish_knockd_using_subcommand status" -l run-dir -d 'What must not: the lock and the control socket' -r -F
complete -c knockd -n "__fish_knockd_using_subcommand status" -l json -d 'As JSON'
complete -c knockd -n "__fish_knockd_using_subcommand status" -s h -l help -d 'Print help'
complete -c knockd -n "__fish_knockd_using_subcommand open" -l for -d 'For how long, in place of the door\'s own time' -r
complete -c knockd -n "__fish_knockd_using_subcommand open" -s c -l config -d 'The configuration: TOML if its name ends in `.toml`, in the format of knock 0.8 if in `.conf`; by another name TOML if it has a `[firewall]` or `[door.…]` header [default: /etc/knockd.toml, else /etc/knockd.conf]' -r -F
complete -c knockd -n "__fish_knockd_using_subcommand open" -l state-dir -d 'What must outlive a reboot: the last good configuration, pending stops' -r -F
complete -c knockd -n "__fish_knockd_using_subcommand open" -l run-dir -d 'What must not: the lock and the control socket' -r -F
complete -c knockd -n "__fish_knockd_using_subcommand open" -s h -l help -d 'Print help'
complete -c knockd -n "__fish_knockd_using_subcommand close" -s c -l config -d 'The configuration: TOML if its name ends in `.toml`, in the format of knock 0.8 if in `.conf`; by another name TOML if it has a `[firewall]` or `[door.…]` header [default: /etc/knockd.toml, else /etc/knockd.conf]' -r -F
complete -c knockd -n "__fish_knockd_using_subcommand close" -l state-dir -d 'What must outlive a reboot: the last good configuration, pending stops' -r -F
complete -c knockd -n "__fish_knockd_using_subcommand close" -l run-dir -d 'What must not: the lock and the control socket' -r -F
complete -c knockd -n "__fish_knockd_using_subcommand close" -l all -d 'Everybody\'s'
complete -c knockd -n "__fish_knockd_using_subcommand close" -s h -l help -d 'Print help'
complete -c knockd -n "__fish_knockd_using_subcommand clear" -s c -l config -d 'The configuration: TOML if its name ends in `.toml`, in the format of knock 0.8 if in `.conf`; by another name TOML if it has a `[firewall]` or `[door.…]` header [default: /etc/knockd.toml, else /etc/knockd.conf]' -r -F
complete -c knockd -n "__fish_knockd_using_subcommand clear" -l state-dir -d 'What must outlive a reboot: the last good configuration, pending stops' -r -F
complete -c knockd -n "__fish_knockd_using_subcommand clear" -l run-dir -d 'What must not: the lock and the control socket' -r -F
complete -c knockd -n "__fish_knockd_using_subcommand clear" -s h -l help -d 'Print help'
complete -c knockd -n "__fish_knockd_using_subcommand reload" -s c -l config -d 'The configuration: TOML if its name ends in `.toml`, in the format of knock 0.8 if in `.conf`; by another name TOML if it has a `[firewall]` or `[door.…]` header [default: /etc/knockd.toml, else /etc/knockd.conf]' -r -F
complete -c knockd -n "__fish_knockd_using_subcommand reload" -l state-dir -d 'What must outlive a reboot: the last good configuration, pending stops' -r -F
complete -c knockd -n "__fish_knockd_using_subcommand reload" -l run-dir -d 'What must not: the lock and the control socket' -r -F
complete -c knockd -n "__fish_knockd_using_subcommand reload" -s h -l help -d 'Print help'
complete -c knockd -n "__fish_knockd_using_subcommand help; and not __fish_seen_subcommand_from check convert guard list status open close clear reload help" -f -a "check" -d 'Check the configuration; as root also whether the doors work on this machine'
complete -c knockd -n "__fish_knockd_using_subcommand help; and not __fish_seen_subcommand_from check convert guard list status open close clear reload help" -f -a "convert" -d 'Print a knockd.conf as TOML that makes the same decisions'
complete -c knockd -n "__fish_knockd_using_subcommand help; and not __fish_seen_subcommand_from check convert guard list status open close clear reload help" -f -a "guard" -d 'Put the guard in place without listening: for the time before the network is up'
complete -c knockd -n "__fish_knockd_using_subcommand help; and not __fish_seen_subcommand_from check convert guard list status open close clear reload help" -f -a "list" -d 'List the openings in the kernel'
complete -c knockd -n "__fish_knockd_using_subcommand help; and not __fish_seen_subcommand_from check convert guard list status open close clear reload help" -f -a "status" -d 'Say what the daemon hears and has done'
complete -c knockd -n "__fish_knockd_using_subcommand help; and not __fish_seen_subcommand_from check convert guard list status open close clear reload help" -f -a "open" -d 'Open a door for an address as if it had knocked'
complete -c knockd -n "__fish_knockd_using_subcommand help; and not __fish_seen_subcommand_from check convert guard list status open close clear reload help" -f -a "close" -d 'Close what is open'
complete -c knockd -n "__fish_knockd_using_subcommand help; and not __fish_seen_subcommand_from check convert guard list status open close clear reload help" -f -a "clear" -d 'Remove the table, and with it the guard: the ports are open to all'
complete -c knockd -n "__fish_knockd_using_subcommand help; and not __fish_seen_subcommand_from check convert guard list status open close clear reload help" -f -a "reload" -d 'Have the daemon read its configuration again, and say what becomes of it'
complete -c knockd -n "__fish_knockd_using_subcommand help; and not __fish_seen_subcommand_from check convert guard list status open close clear reload help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
