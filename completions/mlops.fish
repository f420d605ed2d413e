# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_mlops_global_optspecs
    string join \n config= profile= tracking-uri= backend-store-uri= artifact-root= output= q/quiet v/verbose color= progress= yes dry-run work-dir= state-dir= jobs= h/help V/version
end

function __fish_mlops_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_mlops_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_mlops_using_subcommand
    set -l cmd (__fish_mlops_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c mlops -n "__fish_mlops_needs_command" -l config -d 'Configuration file [default: MLOPS_CONFIG, ~/.config/mlops/config.toml, /etc/mlops/config.toml]' -r -F
complete -c mlops -n "__fish_mlops_needs_command" -l profile -d 'Profile in the configuration file whose values beat the file\'s own [default: MLOPS_PROFILE]' -r
complete -c mlops -n "__fish_mlops_needs_command" -l tracking-uri -d 'Tracking server [default: MLOPS_TRACKING_URI, MLFLOW_TRACKING_URI]' -r
complete -c mlops -n "__fish_mlops_needs_command" -l backend-store-uri -d 'Backend database of MLflow\'s: a SQLite file or a postgresql:// address [default: MLOPS_BACKEND_STORE_URI, MLFLOW_BACKEND_STORE_URI]' -r
complete -c mlops -n "__fish_mlops_needs_command" -l artifact-root -d 'Where the server\'s artifacts are: a folder or s3://bucket/path [default: MLOPS_ARTIFACT_ROOT, MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_DEFAULT_ARTIFACT_ROOT]' -r
complete -c mlops -n "__fish_mlops_needs_command" -l output -d 'Form of the result [default: table]' -r -f -a "table\t'For people'
json\t'One document'
nagios\t'A monitoring plugin\'s status line and performance data (health only)'
prometheus\t'Prometheus\' text format (health only)'
markdown\t'For a ticket or a chat (health only)'"
complete -c mlops -n "__fish_mlops_needs_command" -l color -d 'Colours on the terminal [default: auto; NO_COLOR is honoured]' -r -f -a "auto\t''
always\t''
never\t''"
complete -c mlops -n "__fish_mlops_needs_command" -l progress -d 'Progress on stderr: bars on a terminal, else a line every few seconds [default: auto]' -r -f -a "auto\t''
plain\t''
json\t''
none\t''"
complete -c mlops -n "__fish_mlops_needs_command" -l work-dir -d 'Folder for private copies of SQLite files [default: TMPDIR or /tmp]' -r -F
complete -c mlops -n "__fish_mlops_needs_command" -l state-dir -d 'Folder for what is remembered between runs [default: /var/lib/mlops for root, else ~/.local/state/mlops]' -r -F
complete -c mlops -n "__fish_mlops_needs_command" -l jobs -d 'Threads and connections that work at once [default: the number of processors]' -r
complete -c mlops -n "__fish_mlops_needs_command" -s q -l quiet -d 'Say nothing on stderr but errors'
complete -c mlops -n "__fish_mlops_needs_command" -s v -l verbose -d 'Log to stderr what is done; twice: every statement'
complete -c mlops -n "__fish_mlops_needs_command" -l yes -d 'Agree to what would be asked'
complete -c mlops -n "__fish_mlops_needs_command" -l dry-run -d 'Print the plan and stop; the exit code is that of the refusal the real run would give'
complete -c mlops -n "__fish_mlops_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlops -n "__fish_mlops_needs_command" -s V -l version -d 'Print version'
complete -c mlops -n "__fish_mlops_needs_command" -f -a "migrate" -d 'Move a store to another database or into an archive and back, or compare two stores'
complete -c mlops -n "__fish_mlops_needs_command" -f -a "db" -d 'Look at a backend database, mend it, or make a new one'
complete -c mlops -n "__fish_mlops_needs_command" -f -a "health" -d 'Look at the whole stack at once, and end with the exit code that a monitor understands'
complete -c mlops -n "__fish_mlops_needs_command" -f -a "backup" -d 'Back up the database and the artifacts that it refers to, as one unit, while the stack is in use'
complete -c mlops -n "__fish_mlops_needs_command" -f -a "restore" -d 'Make a stack of a backup: its artifacts below a root, its database in SQLite or PostgreSQL'
complete -c mlops -n "__fish_mlops_needs_command" -f -a "cleanup" -d 'Delete old experiments and runs by policy, put them back, remove what is deleted for good'
complete -c mlops -n "__fish_mlops_needs_command" -f -a "promote" -d 'Put a model\'s challenger into production, if every gate lets it through'
complete -c mlops -n "__fish_mlops_needs_command" -f -a "rollback" -d 'Put the former champion back into production'
complete -c mlops -n "__fish_mlops_needs_command" -f -a "verify" -d 'Prove a tracking server by using it: restarts, upgrades and moves, a new deployment, concurrent writers'
complete -c mlops -n "__fish_mlops_needs_command" -f -a "models" -d 'Look at the model registry, register models, export what is in production, tell who was champion when'
complete -c mlops -n "__fish_mlops_needs_command" -f -a "demo" -d 'Make a sample MLflow store and migrate it, to see what this tool does'
complete -c mlops -n "__fish_mlops_needs_command" -f -a "config" -d 'Settings: where they come from, whether they work, and a first file of them'
complete -c mlops -n "__fish_mlops_needs_command" -f -a "completions" -d 'Print a completion script for a shell'
complete -c mlops -n "__fish_mlops_needs_command" -f -a "man" -d 'Write the man pages into a folder'
complete -c mlops -n "__fish_mlops_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and not __fish_seen_subcommand_from sqlite-to-pg export import verify help" -l config -d 'Configuration file [default: MLOPS_CONFIG, ~/.config/mlops/config.toml, /etc/mlops/config.toml]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and not __fish_seen_subcommand_from sqlite-to-pg export import verify help" -l profile -d 'Profile in the configuration file whose values beat the file\'s own [default: MLOPS_PROFILE]' -r
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and not __fish_seen_subcommand_from sqlite-to-pg export import verify help" -l tracking-uri -d 'Tracking server [default: MLOPS_TRACKING_URI, MLFLOW_TRACKING_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and not __fish_seen_subcommand_from sqlite-to-pg export import verify help" -l backend-store-uri -d 'Backend database of MLflow\'s: a SQLite file or a postgresql:// address [default: MLOPS_BACKEND_STORE_URI, MLFLOW_BACKEND_STORE_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and not __fish_seen_subcommand_from sqlite-to-pg export import verify help" -l artifact-root -d 'Where the server\'s artifacts are: a folder or s3://bucket/path [default: MLOPS_ARTIFACT_ROOT, MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_DEFAULT_ARTIFACT_ROOT]' -r
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and not __fish_seen_subcommand_from sqlite-to-pg export import verify help" -l output -d 'Form of the result [default: table]' -r -f -a "table\t'For people'
json\t'One document'
nagios\t'A monitoring plugin\'s status line and performance data (health only)'
prometheus\t'Prometheus\' text format (health only)'
markdown\t'For a ticket or a chat (health only)'"
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and not __fish_seen_subcommand_from sqlite-to-pg export import verify help" -l color -d 'Colours on the terminal [default: auto; NO_COLOR is honoured]' -r -f -a "auto\t''
always\t''
never\t''"
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and not __fish_seen_subcommand_from sqlite-to-pg export import verify help" -l progress -d 'Progress on stderr: bars on a terminal, else a line every few seconds [default: auto]' -r -f -a "auto\t''
plain\t''
json\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and not __fish_seen_subcommand_from sqlite-to-pg export import verify help" -l work-dir -d 'Folder for private copies of SQLite files [default: TMPDIR or /tmp]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and not __fish_seen_subcommand_from sqlite-to-pg export import verify help" -l state-dir -d 'Folder for what is remembered between runs [default: /var/lib/mlops for root, else ~/.local/state/mlops]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and not __fish_seen_subcommand_from sqlite-to-pg export import verify help" -l jobs -d 'Threads and connections that work at once [default: the number of processors]' -r
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and not __fish_seen_subcommand_from sqlite-to-pg export import verify help" -s q -l quiet -d 'Say nothing on stderr but errors'
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and not __fish_seen_subcommand_from sqlite-to-pg export import verify help" -s v -l verbose -d 'Log to stderr what is done; twice: every statement'
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and not __fish_seen_subcommand_from sqlite-to-pg export import verify help" -l yes -d 'Agree to what would be asked'
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and not __fish_seen_subcommand_from sqlite-to-pg export import verify help" -l dry-run -d 'Print the plan and stop; the exit code is that of the refusal the real run would give'
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and not __fish_seen_subcommand_from sqlite-to-pg export import verify help" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and not __fish_seen_subcommand_from sqlite-to-pg export import verify help" -f -a "sqlite-to-pg" -d 'Move an MLflow SQLite database into PostgreSQL'
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and not __fish_seen_subcommand_from sqlite-to-pg export import verify help" -f -a "export" -d 'Write a store into an archive: one file to keep, to send and to restore from'
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and not __fish_seen_subcommand_from sqlite-to-pg export import verify help" -f -a "import" -d 'Make a store of an archive, in PostgreSQL or SQLite'
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and not __fish_seen_subcommand_from sqlite-to-pg export import verify help" -f -a "verify" -d 'Compare any two stores, table by table and cell by cell'
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and not __fish_seen_subcommand_from sqlite-to-pg export import verify help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from sqlite-to-pg" -l source -d 'The SQLite file, or its address: mlflow.db, sqlite:///mlflow.db' -r
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from sqlite-to-pg" -l target -d 'The PostgreSQL database: postgresql://user:password@host/database; SQLAlchemy\'s forms are fine' -r
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from sqlite-to-pg" -l certificate -d 'Write what was proven into this file, as JSON: both ends without secrets, revision, counts, digests, times' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from sqlite-to-pg" -l include-table -d 'Also copy a table that MLflow does not own, with its primary key; may be repeated' -r
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from sqlite-to-pg" -l bad-rows -d 'Rows that PostgreSQL cannot hold: refuse the migration, or put them and all that refer to them aside into a file of JSON lines and copy the rest (exit code 4)' -r -f -a "refuse\t''
quarantine\t''"
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from sqlite-to-pg" -l quarantine-file -d 'The file for rows that are put aside [default: mlops-quarantine-<id>.jsonl in the current folder]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from sqlite-to-pg" -l rewrite-artifacts -d 'Change artifact addresses that begin with FROM (whole segments of a path, as it stands in the store), in every column, tag and JSON document that holds one; may be repeated, the longest prefix wins; --dry-run counts what there is' -r
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from sqlite-to-pg" -l config -d 'Configuration file [default: MLOPS_CONFIG, ~/.config/mlops/config.toml, /etc/mlops/config.toml]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from sqlite-to-pg" -l profile -d 'Profile in the configuration file whose values beat the file\'s own [default: MLOPS_PROFILE]' -r
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from sqlite-to-pg" -l tracking-uri -d 'Tracking server [default: MLOPS_TRACKING_URI, MLFLOW_TRACKING_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from sqlite-to-pg" -l backend-store-uri -d 'Backend database of MLflow\'s: a SQLite file or a postgresql:// address [default: MLOPS_BACKEND_STORE_URI, MLFLOW_BACKEND_STORE_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from sqlite-to-pg" -l artifact-root -d 'Where the server\'s artifacts are: a folder or s3://bucket/path [default: MLOPS_ARTIFACT_ROOT, MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_DEFAULT_ARTIFACT_ROOT]' -r
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from sqlite-to-pg" -l output -d 'Form of the result [default: table]' -r -f -a "table\t'For people'
json\t'One document'
nagios\t'A monitoring plugin\'s status line and performance data (health only)'
prometheus\t'Prometheus\' text format (health only)'
markdown\t'For a ticket or a chat (health only)'"
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from sqlite-to-pg" -l color -d 'Colours on the terminal [default: auto; NO_COLOR is honoured]' -r -f -a "auto\t''
always\t''
never\t''"
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from sqlite-to-pg" -l progress -d 'Progress on stderr: bars on a terminal, else a line every few seconds [default: auto]' -r -f -a "auto\t''
plain\t''
json\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from sqlite-to-pg" -l work-dir -d 'Folder for private copies of SQLite files [default: TMPDIR or /tmp]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from sqlite-to-pg" -l state-dir -d 'Folder for what is remembered between runs [default: /var/lib/mlops for root, else ~/.local/state/mlops]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from sqlite-to-pg" -l jobs -d 'Threads and connections that work at once [default: the number of processors]' -r
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from sqlite-to-pg" -l rehearse -d 'Do all of it on a private PostgreSQL that is thrown away, and tell what was found and how long it took'
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from sqlite-to-pg" -l replace -d 'Put what is in the target\'s place aside, where it stays: in PostgreSQL MLflow tables with data, in a schema mlops_replaced_<id>; a SQLite file that nobody uses, as FILE.mlops-replaced-<id>'
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from sqlite-to-pg" -l no-verify -d 'Do not read the target back before it is published'
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from sqlite-to-pg" -l widen -d 'Make a VARCHAR column longer in the target where a value needs it'
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from sqlite-to-pg" -l remap-experiment-ids -d 'Give experiments whose ids PostgreSQL\'s integer cannot hold (those of former file stores have 18 digits) new small ones, in every column, tag and JSON document that holds one; addresses stay'
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from sqlite-to-pg" -s q -l quiet -d 'Say nothing on stderr but errors'
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from sqlite-to-pg" -s v -l verbose -d 'Log to stderr what is done; twice: every statement'
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from sqlite-to-pg" -l yes -d 'Agree to what would be asked'
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from sqlite-to-pg" -l dry-run -d 'Print the plan and stop; the exit code is that of the refusal the real run would give'
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from sqlite-to-pg" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from export" -l file -d 'The archive, which must not be there yet; - is standard output' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from export" -l compression -d 'How rows are compressed: gzip, which every machine unpacks, or zstd, which is smaller and faster' -r -f -a "gzip\t''
zstd\t''"
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from export" -l certificate -d 'Write what was proven into this file, as JSON' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from export" -l include-table -d 'Also copy a table that MLflow does not own, with its primary key; may be repeated' -r
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from export" -l rewrite-artifacts -d 'Change artifact addresses that begin with FROM (whole segments of a path, as it stands in the store), in every column, tag and JSON document that holds one; may be repeated, the longest prefix wins; --dry-run counts what there is' -r
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from export" -l config -d 'Configuration file [default: MLOPS_CONFIG, ~/.config/mlops/config.toml, /etc/mlops/config.toml]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from export" -l profile -d 'Profile in the configuration file whose values beat the file\'s own [default: MLOPS_PROFILE]' -r
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from export" -l tracking-uri -d 'Tracking server [default: MLOPS_TRACKING_URI, MLFLOW_TRACKING_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from export" -l backend-store-uri -d 'Backend database of MLflow\'s: a SQLite file or a postgresql:// address [default: MLOPS_BACKEND_STORE_URI, MLFLOW_BACKEND_STORE_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from export" -l artifact-root -d 'Where the server\'s artifacts are: a folder or s3://bucket/path [default: MLOPS_ARTIFACT_ROOT, MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_DEFAULT_ARTIFACT_ROOT]' -r
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from export" -l output -d 'Form of the result [default: table]' -r -f -a "table\t'For people'
json\t'One document'
nagios\t'A monitoring plugin\'s status line and performance data (health only)'
prometheus\t'Prometheus\' text format (health only)'
markdown\t'For a ticket or a chat (health only)'"
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from export" -l color -d 'Colours on the terminal [default: auto; NO_COLOR is honoured]' -r -f -a "auto\t''
always\t''
never\t''"
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from export" -l progress -d 'Progress on stderr: bars on a terminal, else a line every few seconds [default: auto]' -r -f -a "auto\t''
plain\t''
json\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from export" -l work-dir -d 'Folder for private copies of SQLite files [default: TMPDIR or /tmp]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from export" -l state-dir -d 'Folder for what is remembered between runs [default: /var/lib/mlops for root, else ~/.local/state/mlops]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from export" -l jobs -d 'Threads and connections that work at once [default: the number of processors]' -r
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from export" -l no-verify -d 'Do not read the archive back before it gets its name'
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from export" -l remap-experiment-ids -d 'Give experiments whose ids PostgreSQL\'s integer cannot hold (those of former file stores have 18 digits) new small ones, in every column, tag and JSON document that holds one; addresses stay'
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from export" -s q -l quiet -d 'Say nothing on stderr but errors'
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from export" -s v -l verbose -d 'Log to stderr what is done; twice: every statement'
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from export" -l yes -d 'Agree to what would be asked'
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from export" -l dry-run -d 'Print the plan and stop; the exit code is that of the refusal the real run would give'
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from export" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from import" -l target -d 'The store to be made: a postgresql:// address, or a SQLite file' -r
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from import" -l certificate -d 'Write what was proven into this file, as JSON: both ends without secrets, revision, counts, digests, times' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from import" -l include-table -d 'Also copy a table that MLflow does not own; may be repeated' -r
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from import" -l bad-rows -d 'Rows that PostgreSQL cannot hold: refuse the migration, or put them and all that refer to them aside into a file of JSON lines and copy the rest (exit code 4)' -r -f -a "refuse\t''
quarantine\t''"
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from import" -l quarantine-file -d 'The file for rows that are put aside [default: mlops-quarantine-<id>.jsonl in the current folder]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from import" -l rewrite-artifacts -d 'Change artifact addresses that begin with FROM (whole segments of a path, as it stands in the store), in every column, tag and JSON document that holds one; may be repeated, the longest prefix wins; --dry-run counts what there is' -r
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from import" -l config -d 'Configuration file [default: MLOPS_CONFIG, ~/.config/mlops/config.toml, /etc/mlops/config.toml]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from import" -l profile -d 'Profile in the configuration file whose values beat the file\'s own [default: MLOPS_PROFILE]' -r
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from import" -l tracking-uri -d 'Tracking server [default: MLOPS_TRACKING_URI, MLFLOW_TRACKING_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from import" -l backend-store-uri -d 'Backend database of MLflow\'s: a SQLite file or a postgresql:// address [default: MLOPS_BACKEND_STORE_URI, MLFLOW_BACKEND_STORE_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from import" -l artifact-root -d 'Where the server\'s artifacts are: a folder or s3://bucket/path [default: MLOPS_ARTIFACT_ROOT, MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_DEFAULT_ARTIFACT_ROOT]' -r
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from import" -l output -d 'Form of the result [default: table]' -r -f -a "table\t'For people'
json\t'One document'
nagios\t'A monitoring plugin\'s status line and performance data (health only)'
prometheus\t'Prometheus\' text format (health only)'
markdown\t'For a ticket or a chat (health only)'"
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from import" -l color -d 'Colours on the terminal [default: auto; NO_COLOR is honoured]' -r -f -a "auto\t''
always\t''
never\t''"
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from import" -l progress -d 'Progress on stderr: bars on a terminal, else a line every few seconds [default: auto]' -r -f -a "auto\t''
plain\t''
json\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from import" -l work-dir -d 'Folder for private copies of SQLite files [default: TMPDIR or /tmp]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from import" -l state-dir -d 'Folder for what is remembered between runs [default: /var/lib/mlops for root, else ~/.local/state/mlops]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from import" -l jobs -d 'Threads and connections that work at once [default: the number of processors]' -r
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from import" -l replace -d 'Put what is in the target\'s place aside, where it stays: in PostgreSQL MLflow tables with data, in a schema mlops_replaced_<id>; a SQLite file that nobody uses, as FILE.mlops-replaced-<id>'
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from import" -l no-verify -d 'Do not read the target back before it is published'
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from import" -l widen -d 'Make a VARCHAR column longer in the target where a value needs it'
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from import" -l remap-experiment-ids -d 'Give experiments whose ids PostgreSQL\'s integer cannot hold (those of former file stores have 18 digits) new small ones, in every column, tag and JSON document that holds one; addresses stay'
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from import" -s q -l quiet -d 'Say nothing on stderr but errors'
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from import" -s v -l verbose -d 'Log to stderr what is done; twice: every statement'
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from import" -l yes -d 'Agree to what would be asked'
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from import" -l dry-run -d 'Print the plan and stop; the exit code is that of the refusal the real run would give'
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from import" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from verify" -l source -d 'One store: a SQLite file, a postgresql:// address or an archive' -r
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from verify" -l target -d 'The other store' -r
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from verify" -l include-table -d 'Also compare a table that MLflow does not own; may be repeated' -r
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from verify" -l rewrite-artifacts -d 'Change artifact addresses that begin with FROM (whole segments of a path, as it stands in the store), in every column, tag and JSON document that holds one; may be repeated, the longest prefix wins; --dry-run counts what there is' -r
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from verify" -l config -d 'Configuration file [default: MLOPS_CONFIG, ~/.config/mlops/config.toml, /etc/mlops/config.toml]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from verify" -l profile -d 'Profile in the configuration file whose values beat the file\'s own [default: MLOPS_PROFILE]' -r
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from verify" -l tracking-uri -d 'Tracking server [default: MLOPS_TRACKING_URI, MLFLOW_TRACKING_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from verify" -l backend-store-uri -d 'Backend database of MLflow\'s: a SQLite file or a postgresql:// address [default: MLOPS_BACKEND_STORE_URI, MLFLOW_BACKEND_STORE_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from verify" -l artifact-root -d 'Where the server\'s artifacts are: a folder or s3://bucket/path [default: MLOPS_ARTIFACT_ROOT, MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_DEFAULT_ARTIFACT_ROOT]' -r
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from verify" -l output -d 'Form of the result [default: table]' -r -f -a "table\t'For people'
json\t'One document'
nagios\t'A monitoring plugin\'s status line and performance data (health only)'
prometheus\t'Prometheus\' text format (health only)'
markdown\t'For a ticket or a chat (health only)'"
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from verify" -l color -d 'Colours on the terminal [default: auto; NO_COLOR is honoured]' -r -f -a "auto\t''
always\t''
never\t''"
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from verify" -l progress -d 'Progress on stderr: bars on a terminal, else a line every few seconds [default: auto]' -r -f -a "auto\t''
plain\t''
json\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from verify" -l work-dir -d 'Folder for private copies of SQLite files [default: TMPDIR or /tmp]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from verify" -l state-dir -d 'Folder for what is remembered between runs [default: /var/lib/mlops for root, else ~/.local/state/mlops]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from verify" -l jobs -d 'Threads and connections that work at once [default: the number of processors]' -r
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from verify" -l remap-experiment-ids -d 'Give experiments whose ids PostgreSQL\'s integer cannot hold (those of former file stores have 18 digits) new small ones, in every column, tag and JSON document that holds one; addresses stay'
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from verify" -s q -l quiet -d 'Say nothing on stderr but errors'
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from verify" -s v -l verbose -d 'Log to stderr what is done; twice: every statement'
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from verify" -l yes -d 'Agree to what would be asked'
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from verify" -l dry-run -d 'Print the plan and stop; the exit code is that of the refusal the real run would give'
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from verify" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from help" -f -a "sqlite-to-pg" -d 'Move an MLflow SQLite database into PostgreSQL'
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from help" -f -a "export" -d 'Write a store into an archive: one file to keep, to send and to restore from'
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from help" -f -a "import" -d 'Make a store of an archive, in PostgreSQL or SQLite'
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from help" -f -a "verify" -d 'Compare any two stores, table by table and cell by cell'
complete -c mlops -n "__fish_mlops_using_subcommand migrate; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c mlops -n "__fish_mlops_using_subcommand db; and not __fish_seen_subcommand_from info init doctor help" -l config -d 'Configuration file [default: MLOPS_CONFIG, ~/.config/mlops/config.toml, /etc/mlops/config.toml]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand db; and not __fish_seen_subcommand_from info init doctor help" -l profile -d 'Profile in the configuration file whose values beat the file\'s own [default: MLOPS_PROFILE]' -r
complete -c mlops -n "__fish_mlops_using_subcommand db; and not __fish_seen_subcommand_from info init doctor help" -l tracking-uri -d 'Tracking server [default: MLOPS_TRACKING_URI, MLFLOW_TRACKING_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand db; and not __fish_seen_subcommand_from info init doctor help" -l backend-store-uri -d 'Backend database of MLflow\'s: a SQLite file or a postgresql:// address [default: MLOPS_BACKEND_STORE_URI, MLFLOW_BACKEND_STORE_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand db; and not __fish_seen_subcommand_from info init doctor help" -l artifact-root -d 'Where the server\'s artifacts are: a folder or s3://bucket/path [default: MLOPS_ARTIFACT_ROOT, MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_DEFAULT_ARTIFACT_ROOT]' -r
complete -c mlops -n "__fish_mlops_using_subcommand db; and not __fish_seen_subcommand_from info init doctor help" -l output -d 'Form of the result [default: table]' -r -f -a "table\t'For people'
json\t'One document'
nagios\t'A monitoring plugin\'s status line and performance data (health only)'
prometheus\t'Prometheus\' text format (health only)'
markdown\t'For a ticket or a chat (health only)'"
complete -c mlops -n "__fish_mlops_using_subcommand db; and not __fish_seen_subcommand_from info init doctor help" -l color -d 'Colours on the terminal [default: auto; NO_COLOR is honoured]' -r -f -a "auto\t''
always\t''
never\t''"
complete -c mlops -n "__fish_mlops_using_subcommand db; and not __fish_seen_subcommand_from info init doctor help" -l progress -d 'Progress on stderr: bars on a terminal, else a line every few seconds [default: auto]' -r -f -a "auto\t''
plain\t''
json\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand db; and not __fish_seen_subcommand_from info init doctor help" -l work-dir -d 'Folder for private copies of SQLite files [default: TMPDIR or /tmp]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand db; and not __fish_seen_subcommand_from info init doctor help" -l state-dir -d 'Folder for what is remembered between runs [default: /var/lib/mlops for root, else ~/.local/state/mlops]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand db; and not __fish_seen_subcommand_from info init doctor help" -l jobs -d 'Threads and connections that work at once [default: the number of processors]' -r
complete -c mlops -n "__fish_mlops_using_subcommand db; and not __fish_seen_subcommand_from info init doctor help" -s q -l quiet -d 'Say nothing on stderr but errors'
complete -c mlops -n "__fish_mlops_using_subcommand db; and not __fish_seen_subcommand_from info init doctor help" -s v -l verbose -d 'Log to stderr what is done; twice: every statement'
complete -c mlops -n "__fish_mlops_using_subcommand db; and not __fish_seen_subcommand_from info init doctor help" -l yes -d 'Agree to what would be asked'
complete -c mlops -n "__fish_mlops_using_subcommand db; and not __fish_seen_subcommand_from info init doctor help" -l dry-run -d 'Print the plan and stop; the exit code is that of the refusal the real run would give'
complete -c mlops -n "__fish_mlops_using_subcommand db; and not __fish_seen_subcommand_from info init doctor help" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlops -n "__fish_mlops_using_subcommand db; and not __fish_seen_subcommand_from info init doctor help" -f -a "info" -d 'What a database is: engine, MLflow\'s revision and the releases that have it, rows and bytes per table'
complete -c mlops -n "__fish_mlops_using_subcommand db; and not __fish_seen_subcommand_from info init doctor help" -f -a "init" -d 'Make the role and the database that MLflow needs on a PostgreSQL server, and its tables if wanted'
complete -c mlops -n "__fish_mlops_using_subcommand db; and not __fish_seen_subcommand_from info init doctor help" -f -a "doctor" -d 'Every difference between a database and MLflow\'s schema at its revision, what it breaks, and the SQL that mends it'
complete -c mlops -n "__fish_mlops_using_subcommand db; and not __fish_seen_subcommand_from info init doctor help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from info" -l config -d 'Configuration file [default: MLOPS_CONFIG, ~/.config/mlops/config.toml, /etc/mlops/config.toml]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from info" -l profile -d 'Profile in the configuration file whose values beat the file\'s own [default: MLOPS_PROFILE]' -r
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from info" -l tracking-uri -d 'Tracking server [default: MLOPS_TRACKING_URI, MLFLOW_TRACKING_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from info" -l backend-store-uri -d 'Backend database of MLflow\'s: a SQLite file or a postgresql:// address [default: MLOPS_BACKEND_STORE_URI, MLFLOW_BACKEND_STORE_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from info" -l artifact-root -d 'Where the server\'s artifacts are: a folder or s3://bucket/path [default: MLOPS_ARTIFACT_ROOT, MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_DEFAULT_ARTIFACT_ROOT]' -r
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from info" -l output -d 'Form of the result [default: table]' -r -f -a "table\t'For people'
json\t'One document'
nagios\t'A monitoring plugin\'s status line and performance data (health only)'
prometheus\t'Prometheus\' text format (health only)'
markdown\t'For a ticket or a chat (health only)'"
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from info" -l color -d 'Colours on the terminal [default: auto; NO_COLOR is honoured]' -r -f -a "auto\t''
always\t''
never\t''"
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from info" -l progress -d 'Progress on stderr: bars on a terminal, else a line every few seconds [default: auto]' -r -f -a "auto\t''
plain\t''
json\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from info" -l work-dir -d 'Folder for private copies of SQLite files [default: TMPDIR or /tmp]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from info" -l state-dir -d 'Folder for what is remembered between runs [default: /var/lib/mlops for root, else ~/.local/state/mlops]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from info" -l jobs -d 'Threads and connections that work at once [default: the number of processors]' -r
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from info" -s q -l quiet -d 'Say nothing on stderr but errors'
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from info" -s v -l verbose -d 'Log to stderr what is done; twice: every statement'
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from info" -l yes -d 'Agree to what would be asked'
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from info" -l dry-run -d 'Print the plan and stop; the exit code is that of the refusal the real run would give'
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from info" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from init" -l role -d 'The role that MLflow will log in as' -r
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from init" -l database -d 'The database that it will own [default: named as the role]' -r
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from init" -l password-env -d 'The environment variable that holds the role\'s password [default: the role is made without a password]' -r
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from init" -l password-file -d 'The file that holds the role\'s password; a line end at its end is not part of it' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from init" -l schema -d 'Also make MLflow\'s tables of a release (3.4.0) or of a revision (71994744cf8e)' -r
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from init" -l config -d 'Configuration file [default: MLOPS_CONFIG, ~/.config/mlops/config.toml, /etc/mlops/config.toml]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from init" -l profile -d 'Profile in the configuration file whose values beat the file\'s own [default: MLOPS_PROFILE]' -r
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from init" -l tracking-uri -d 'Tracking server [default: MLOPS_TRACKING_URI, MLFLOW_TRACKING_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from init" -l backend-store-uri -d 'Backend database of MLflow\'s: a SQLite file or a postgresql:// address [default: MLOPS_BACKEND_STORE_URI, MLFLOW_BACKEND_STORE_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from init" -l artifact-root -d 'Where the server\'s artifacts are: a folder or s3://bucket/path [default: MLOPS_ARTIFACT_ROOT, MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_DEFAULT_ARTIFACT_ROOT]' -r
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from init" -l output -d 'Form of the result [default: table]' -r -f -a "table\t'For people'
json\t'One document'
nagios\t'A monitoring plugin\'s status line and performance data (health only)'
prometheus\t'Prometheus\' text format (health only)'
markdown\t'For a ticket or a chat (health only)'"
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from init" -l color -d 'Colours on the terminal [default: auto; NO_COLOR is honoured]' -r -f -a "auto\t''
always\t''
never\t''"
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from init" -l progress -d 'Progress on stderr: bars on a terminal, else a line every few seconds [default: auto]' -r -f -a "auto\t''
plain\t''
json\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from init" -l work-dir -d 'Folder for private copies of SQLite files [default: TMPDIR or /tmp]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from init" -l state-dir -d 'Folder for what is remembered between runs [default: /var/lib/mlops for root, else ~/.local/state/mlops]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from init" -l jobs -d 'Threads and connections that work at once [default: the number of processors]' -r
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from init" -l print -d 'Print a script for psql that does the same, and do nothing; no server is needed'
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from init" -s q -l quiet -d 'Say nothing on stderr but errors'
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from init" -s v -l verbose -d 'Log to stderr what is done; twice: every statement'
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from init" -l yes -d 'Agree to what would be asked'
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from init" -l dry-run -d 'Print the plan and stop; the exit code is that of the refusal the real run would give'
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from init" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from doctor" -l config -d 'Configuration file [default: MLOPS_CONFIG, ~/.config/mlops/config.toml, /etc/mlops/config.toml]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from doctor" -l profile -d 'Profile in the configuration file whose values beat the file\'s own [default: MLOPS_PROFILE]' -r
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from doctor" -l tracking-uri -d 'Tracking server [default: MLOPS_TRACKING_URI, MLFLOW_TRACKING_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from doctor" -l backend-store-uri -d 'Backend database of MLflow\'s: a SQLite file or a postgresql:// address [default: MLOPS_BACKEND_STORE_URI, MLFLOW_BACKEND_STORE_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from doctor" -l artifact-root -d 'Where the server\'s artifacts are: a folder or s3://bucket/path [default: MLOPS_ARTIFACT_ROOT, MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_DEFAULT_ARTIFACT_ROOT]' -r
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from doctor" -l output -d 'Form of the result [default: table]' -r -f -a "table\t'For people'
json\t'One document'
nagios\t'A monitoring plugin\'s status line and performance data (health only)'
prometheus\t'Prometheus\' text format (health only)'
markdown\t'For a ticket or a chat (health only)'"
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from doctor" -l color -d 'Colours on the terminal [default: auto; NO_COLOR is honoured]' -r -f -a "auto\t''
always\t''
never\t''"
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from doctor" -l progress -d 'Progress on stderr: bars on a terminal, else a line every few seconds [default: auto]' -r -f -a "auto\t''
plain\t''
json\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from doctor" -l work-dir -d 'Folder for private copies of SQLite files [default: TMPDIR or /tmp]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from doctor" -l state-dir -d 'Folder for what is remembered between runs [default: /var/lib/mlops for root, else ~/.local/state/mlops]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from doctor" -l jobs -d 'Threads and connections that work at once [default: the number of processors]' -r
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from doctor" -l fix -d 'Mend what SQL can mend without losing data, in one transaction that is checked before it is committed'
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from doctor" -l print -d 'Print the SQL that --fix would run, as a script for psql, and change nothing'
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from doctor" -s q -l quiet -d 'Say nothing on stderr but errors'
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from doctor" -s v -l verbose -d 'Log to stderr what is done; twice: every statement'
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from doctor" -l yes -d 'Agree to what would be asked'
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from doctor" -l dry-run -d 'Print the plan and stop; the exit code is that of the refusal the real run would give'
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from doctor" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from help" -f -a "info" -d 'What a database is: engine, MLflow\'s revision and the releases that have it, rows and bytes per table'
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from help" -f -a "init" -d 'Make the role and the database that MLflow needs on a PostgreSQL server, and its tables if wanted'
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from help" -f -a "doctor" -d 'Every difference between a database and MLflow\'s schema at its revision, what it breaks, and the SQL that mends it'
complete -c mlops -n "__fish_mlops_using_subcommand db; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c mlops -n "__fish_mlops_using_subcommand health" -l only -d 'Only checks whose id matches: `server.*`, `activity.nightly.*`; repeatable' -r
complete -c mlops -n "__fish_mlops_using_subcommand health" -l skip -d 'No checks whose id matches; repeatable' -r
complete -c mlops -n "__fish_mlops_using_subcommand health" -l backup-to -d 'Where `mlops backup` keeps its backups: a folder, or s3://bucket/path [default: `to` of [backup] in the configuration, MLOPS_BACKUP_TO]' -r
complete -c mlops -n "__fish_mlops_using_subcommand health" -l timeout -d 'The time for all checks together' -r
complete -c mlops -n "__fish_mlops_using_subcommand health" -l fail-on -d 'End with 0 or 1 only: 1 from this status on' -r -f -a "warning\t''
critical\t''"
complete -c mlops -n "__fish_mlops_using_subcommand health" -l textfile -d 'Also write Prometheus\' text format into this file, in one step, for node_exporter\'s textfile collector' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand health" -l incident -d 'Where something is wrong, write what was found, since when, why probably, and what helps, as Markdown' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand health" -l ping -d 'Tell a dead man\'s switch that this ran, and how it went: URL/start, then URL or URL/fail (healthchecks.io)' -r
complete -c mlops -n "__fish_mlops_using_subcommand health" -l notify -d 'Post a message to a Slack-compatible webhook when the verdict is another than that of the run before' -r
complete -c mlops -n "__fish_mlops_using_subcommand health" -l for -d 'Look again and again for so long, and give one verdict on all of it' -r
complete -c mlops -n "__fish_mlops_using_subcommand health" -l every -d 'The time from one look to the next, with --for' -r
complete -c mlops -n "__fish_mlops_using_subcommand health" -l config -d 'Configuration file [default: MLOPS_CONFIG, ~/.config/mlops/config.toml, /etc/mlops/config.toml]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand health" -l profile -d 'Profile in the configuration file whose values beat the file\'s own [default: MLOPS_PROFILE]' -r
complete -c mlops -n "__fish_mlops_using_subcommand health" -l tracking-uri -d 'Tracking server [default: MLOPS_TRACKING_URI, MLFLOW_TRACKING_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand health" -l backend-store-uri -d 'Backend database of MLflow\'s: a SQLite file or a postgresql:// address [default: MLOPS_BACKEND_STORE_URI, MLFLOW_BACKEND_STORE_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand health" -l artifact-root -d 'Where the server\'s artifacts are: a folder or s3://bucket/path [default: MLOPS_ARTIFACT_ROOT, MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_DEFAULT_ARTIFACT_ROOT]' -r
complete -c mlops -n "__fish_mlops_using_subcommand health" -l output -d 'Form of the result [default: table]' -r -f -a "table\t'For people'
json\t'One document'
nagios\t'A monitoring plugin\'s status line and performance data (health only)'
prometheus\t'Prometheus\' text format (health only)'
markdown\t'For a ticket or a chat (health only)'"
complete -c mlops -n "__fish_mlops_using_subcommand health" -l color -d 'Colours on the terminal [default: auto; NO_COLOR is honoured]' -r -f -a "auto\t''
always\t''
never\t''"
complete -c mlops -n "__fish_mlops_using_subcommand health" -l progress -d 'Progress on stderr: bars on a terminal, else a line every few seconds [default: auto]' -r -f -a "auto\t''
plain\t''
json\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand health" -l work-dir -d 'Folder for private copies of SQLite files [default: TMPDIR or /tmp]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand health" -l state-dir -d 'Folder for what is remembered between runs [default: /var/lib/mlops for root, else ~/.local/state/mlops]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand health" -l jobs -d 'Threads and connections that work at once [default: the number of processors]' -r
complete -c mlops -n "__fish_mlops_using_subcommand health" -l deep -d 'Also write: a tag of the experiment mlops-probe, and an artifact that is deleted again'
complete -c mlops -n "__fish_mlops_using_subcommand health" -s q -l quiet -d 'Say nothing on stderr but errors'
complete -c mlops -n "__fish_mlops_using_subcommand health" -s v -l verbose -d 'Log to stderr what is done; twice: every statement'
complete -c mlops -n "__fish_mlops_using_subcommand health" -l yes -d 'Agree to what would be asked'
complete -c mlops -n "__fish_mlops_using_subcommand health" -l dry-run -d 'Print the plan and stop; the exit code is that of the refusal the real run would give'
complete -c mlops -n "__fish_mlops_using_subcommand health" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and not __fish_seen_subcommand_from create list show verify prune pin unpin help" -l to -d 'Where backups are kept: a folder, or s3://bucket/path [default: `to` of [backup], MLOPS_BACKUP_TO]' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and not __fish_seen_subcommand_from create list show verify prune pin unpin help" -l file -d 'Make one self-contained file instead, which must not exist yet; `tar xf` makes a place of backups of it' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand backup; and not __fish_seen_subcommand_from create list show verify prune pin unpin help" -l artifacts -d 'Which artifacts: all that the database refers to, those that registered models need, or none [default: all, or `artifacts` of [backup]]' -r -f -a "all\t''
registered\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand backup; and not __fish_seen_subcommand_from create list show verify prune pin unpin help" -l keep-last -d 'The newest N; `unlimited` for all, here and below. One of these flags puts all limits of [backup] aside' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and not __fish_seen_subcommand_from create list show verify prune pin unpin help" -l keep-hourly -d 'The newest of each of the last N hours that have one' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and not __fish_seen_subcommand_from create list show verify prune pin unpin help" -l keep-daily -d 'The same by days' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and not __fish_seen_subcommand_from create list show verify prune pin unpin help" -l keep-weekly -d 'The same by weeks' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and not __fish_seen_subcommand_from create list show verify prune pin unpin help" -l keep-monthly -d 'The same by months' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and not __fish_seen_subcommand_from create list show verify prune pin unpin help" -l keep-yearly -d 'The same by years' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and not __fish_seen_subcommand_from create list show verify prune pin unpin help" -l keep-within -d 'All that are at most so much older than the newest: 1y5m7d2h' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and not __fish_seen_subcommand_from create list show verify prune pin unpin help" -l ping -d 'Tell a dead man\'s switch that this ran, and how it went: URL/start, then URL or URL/fail (healthchecks.io)' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and not __fish_seen_subcommand_from create list show verify prune pin unpin help" -l notify -d 'Post a message to a Slack-compatible webhook unless it went well' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and not __fish_seen_subcommand_from create list show verify prune pin unpin help" -l config -d 'Configuration file [default: MLOPS_CONFIG, ~/.config/mlops/config.toml, /etc/mlops/config.toml]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand backup; and not __fish_seen_subcommand_from create list show verify prune pin unpin help" -l profile -d 'Profile in the configuration file whose values beat the file\'s own [default: MLOPS_PROFILE]' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and not __fish_seen_subcommand_from create list show verify prune pin unpin help" -l tracking-uri -d 'Tracking server [default: MLOPS_TRACKING_URI, MLFLOW_TRACKING_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and not __fish_seen_subcommand_from create list show verify prune pin unpin help" -l backend-store-uri -d 'Backend database of MLflow\'s: a SQLite file or a postgresql:// address [default: MLOPS_BACKEND_STORE_URI, MLFLOW_BACKEND_STORE_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and not __fish_seen_subcommand_from create list show verify prune pin unpin help" -l artifact-root -d 'Where the server\'s artifacts are: a folder or s3://bucket/path [default: MLOPS_ARTIFACT_ROOT, MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_DEFAULT_ARTIFACT_ROOT]' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and not __fish_seen_subcommand_from create list show verify prune pin unpin help" -l output -d 'Form of the result [default: table]' -r -f -a "table\t'For people'
json\t'One document'
nagios\t'A monitoring plugin\'s status line and performance data (health only)'
prometheus\t'Prometheus\' text format (health only)'
markdown\t'For a ticket or a chat (health only)'"
complete -c mlops -n "__fish_mlops_using_subcommand backup; and not __fish_seen_subcommand_from create list show verify prune pin unpin help" -l color -d 'Colours on the terminal [default: auto; NO_COLOR is honoured]' -r -f -a "auto\t''
always\t''
never\t''"
complete -c mlops -n "__fish_mlops_using_subcommand backup; and not __fish_seen_subcommand_from create list show verify prune pin unpin help" -l progress -d 'Progress on stderr: bars on a terminal, else a line every few seconds [default: auto]' -r -f -a "auto\t''
plain\t''
json\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand backup; and not __fish_seen_subcommand_from create list show verify prune pin unpin help" -l work-dir -d 'Folder for private copies of SQLite files [default: TMPDIR or /tmp]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand backup; and not __fish_seen_subcommand_from create list show verify prune pin unpin help" -l state-dir -d 'Folder for what is remembered between runs [default: /var/lib/mlops for root, else ~/.local/state/mlops]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand backup; and not __fish_seen_subcommand_from create list show verify prune pin unpin help" -l jobs -d 'Threads and connections that work at once [default: the number of processors]' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and not __fish_seen_subcommand_from create list show verify prune pin unpin help" -l rehash -d 'Read every file, also those that have the size and time that they had; what is damaged in the place is stored anew'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and not __fish_seen_subcommand_from create list show verify prune pin unpin help" -l prune -d 'Then prune by the --keep rules, without any by the limits of [backup]; without --yes nothing is removed'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and not __fish_seen_subcommand_from create list show verify prune pin unpin help" -s q -l quiet -d 'Say nothing on stderr but errors'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and not __fish_seen_subcommand_from create list show verify prune pin unpin help" -s v -l verbose -d 'Log to stderr what is done; twice: every statement'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and not __fish_seen_subcommand_from create list show verify prune pin unpin help" -l yes -d 'Agree to what would be asked'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and not __fish_seen_subcommand_from create list show verify prune pin unpin help" -l dry-run -d 'Print the plan and stop; the exit code is that of the refusal the real run would give'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and not __fish_seen_subcommand_from create list show verify prune pin unpin help" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and not __fish_seen_subcommand_from create list show verify prune pin unpin help" -f -a "create" -d 'The same as `mlops backup` alone'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and not __fish_seen_subcommand_from create list show verify prune pin unpin help" -f -a "list" -d 'The backups of a place: time, size, what the place grew by, runs, models, whether verified and pinned'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and not __fish_seen_subcommand_from create list show verify prune pin unpin help" -f -a "show" -d 'All that one backup says of itself'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and not __fish_seen_subcommand_from create list show verify prune pin unpin help" -f -a "verify" -d 'Check every checksum, and with --drill restore into a scratch database'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and not __fish_seen_subcommand_from create list show verify prune pin unpin help" -f -a "prune" -d 'Remove backups that no rule keeps, and contents that no backup refers to any more'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and not __fish_seen_subcommand_from create list show verify prune pin unpin help" -f -a "pin" -d 'Keep a backup for ever'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and not __fish_seen_subcommand_from create list show verify prune pin unpin help" -f -a "unpin" -d 'Let the rules decide on a backup again'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and not __fish_seen_subcommand_from create list show verify prune pin unpin help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from create" -l to -d 'Where backups are kept: a folder, or s3://bucket/path [default: `to` of [backup], MLOPS_BACKUP_TO]' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from create" -l file -d 'Make one self-contained file instead, which must not exist yet; `tar xf` makes a place of backups of it' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from create" -l artifacts -d 'Which artifacts: all that the database refers to, those that registered models need, or none [default: all, or `artifacts` of [backup]]' -r -f -a "all\t''
registered\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from create" -l keep-last -d 'The newest N; `unlimited` for all, here and below. One of these flags puts all limits of [backup] aside' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from create" -l keep-hourly -d 'The newest of each of the last N hours that have one' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from create" -l keep-daily -d 'The same by days' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from create" -l keep-weekly -d 'The same by weeks' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from create" -l keep-monthly -d 'The same by months' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from create" -l keep-yearly -d 'The same by years' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from create" -l keep-within -d 'All that are at most so much older than the newest: 1y5m7d2h' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from create" -l ping -d 'Tell a dead man\'s switch that this ran, and how it went: URL/start, then URL or URL/fail (healthchecks.io)' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from create" -l notify -d 'Post a message to a Slack-compatible webhook unless it went well' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from create" -l config -d 'Configuration file [default: MLOPS_CONFIG, ~/.config/mlops/config.toml, /etc/mlops/config.toml]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from create" -l profile -d 'Profile in the configuration file whose values beat the file\'s own [default: MLOPS_PROFILE]' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from create" -l tracking-uri -d 'Tracking server [default: MLOPS_TRACKING_URI, MLFLOW_TRACKING_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from create" -l backend-store-uri -d 'Backend database of MLflow\'s: a SQLite file or a postgresql:// address [default: MLOPS_BACKEND_STORE_URI, MLFLOW_BACKEND_STORE_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from create" -l artifact-root -d 'Where the server\'s artifacts are: a folder or s3://bucket/path [default: MLOPS_ARTIFACT_ROOT, MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_DEFAULT_ARTIFACT_ROOT]' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from create" -l output -d 'Form of the result [default: table]' -r -f -a "table\t'For people'
json\t'One document'
nagios\t'A monitoring plugin\'s status line and performance data (health only)'
prometheus\t'Prometheus\' text format (health only)'
markdown\t'For a ticket or a chat (health only)'"
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from create" -l color -d 'Colours on the terminal [default: auto; NO_COLOR is honoured]' -r -f -a "auto\t''
always\t''
never\t''"
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from create" -l progress -d 'Progress on stderr: bars on a terminal, else a line every few seconds [default: auto]' -r -f -a "auto\t''
plain\t''
json\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from create" -l work-dir -d 'Folder for private copies of SQLite files [default: TMPDIR or /tmp]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from create" -l state-dir -d 'Folder for what is remembered between runs [default: /var/lib/mlops for root, else ~/.local/state/mlops]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from create" -l jobs -d 'Threads and connections that work at once [default: the number of processors]' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from create" -l rehash -d 'Read every file, also those that have the size and time that they had; what is damaged in the place is stored anew'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from create" -l prune -d 'Then prune by the --keep rules, without any by the limits of [backup]; without --yes nothing is removed'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from create" -s q -l quiet -d 'Say nothing on stderr but errors'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from create" -s v -l verbose -d 'Log to stderr what is done; twice: every statement'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from create" -l yes -d 'Agree to what would be asked'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from create" -l dry-run -d 'Print the plan and stop; the exit code is that of the refusal the real run would give'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from create" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from list" -l from -d 'Where backups are kept [default: `to` of [backup] in the configuration, MLOPS_BACKUP_TO]' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from list" -l config -d 'Configuration file [default: MLOPS_CONFIG, ~/.config/mlops/config.toml, /etc/mlops/config.toml]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from list" -l profile -d 'Profile in the configuration file whose values beat the file\'s own [default: MLOPS_PROFILE]' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from list" -l tracking-uri -d 'Tracking server [default: MLOPS_TRACKING_URI, MLFLOW_TRACKING_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from list" -l backend-store-uri -d 'Backend database of MLflow\'s: a SQLite file or a postgresql:// address [default: MLOPS_BACKEND_STORE_URI, MLFLOW_BACKEND_STORE_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from list" -l artifact-root -d 'Where the server\'s artifacts are: a folder or s3://bucket/path [default: MLOPS_ARTIFACT_ROOT, MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_DEFAULT_ARTIFACT_ROOT]' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from list" -l output -d 'Form of the result [default: table]' -r -f -a "table\t'For people'
json\t'One document'
nagios\t'A monitoring plugin\'s status line and performance data (health only)'
prometheus\t'Prometheus\' text format (health only)'
markdown\t'For a ticket or a chat (health only)'"
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from list" -l color -d 'Colours on the terminal [default: auto; NO_COLOR is honoured]' -r -f -a "auto\t''
always\t''
never\t''"
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from list" -l progress -d 'Progress on stderr: bars on a terminal, else a line every few seconds [default: auto]' -r -f -a "auto\t''
plain\t''
json\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from list" -l work-dir -d 'Folder for private copies of SQLite files [default: TMPDIR or /tmp]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from list" -l state-dir -d 'Folder for what is remembered between runs [default: /var/lib/mlops for root, else ~/.local/state/mlops]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from list" -l jobs -d 'Threads and connections that work at once [default: the number of processors]' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from list" -s q -l quiet -d 'Say nothing on stderr but errors'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from list" -s v -l verbose -d 'Log to stderr what is done; twice: every statement'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from list" -l yes -d 'Agree to what would be asked'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from list" -l dry-run -d 'Print the plan and stop; the exit code is that of the refusal the real run would give'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from show" -l from -d 'Where backups are kept [default: `to` of [backup] in the configuration, MLOPS_BACKUP_TO]' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from show" -l config -d 'Configuration file [default: MLOPS_CONFIG, ~/.config/mlops/config.toml, /etc/mlops/config.toml]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from show" -l profile -d 'Profile in the configuration file whose values beat the file\'s own [default: MLOPS_PROFILE]' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from show" -l tracking-uri -d 'Tracking server [default: MLOPS_TRACKING_URI, MLFLOW_TRACKING_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from show" -l backend-store-uri -d 'Backend database of MLflow\'s: a SQLite file or a postgresql:// address [default: MLOPS_BACKEND_STORE_URI, MLFLOW_BACKEND_STORE_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from show" -l artifact-root -d 'Where the server\'s artifacts are: a folder or s3://bucket/path [default: MLOPS_ARTIFACT_ROOT, MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_DEFAULT_ARTIFACT_ROOT]' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from show" -l output -d 'Form of the result [default: table]' -r -f -a "table\t'For people'
json\t'One document'
nagios\t'A monitoring plugin\'s status line and performance data (health only)'
prometheus\t'Prometheus\' text format (health only)'
markdown\t'For a ticket or a chat (health only)'"
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from show" -l color -d 'Colours on the terminal [default: auto; NO_COLOR is honoured]' -r -f -a "auto\t''
always\t''
never\t''"
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from show" -l progress -d 'Progress on stderr: bars on a terminal, else a line every few seconds [default: auto]' -r -f -a "auto\t''
plain\t''
json\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from show" -l work-dir -d 'Folder for private copies of SQLite files [default: TMPDIR or /tmp]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from show" -l state-dir -d 'Folder for what is remembered between runs [default: /var/lib/mlops for root, else ~/.local/state/mlops]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from show" -l jobs -d 'Threads and connections that work at once [default: the number of processors]' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from show" -s q -l quiet -d 'Say nothing on stderr but errors'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from show" -s v -l verbose -d 'Log to stderr what is done; twice: every statement'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from show" -l yes -d 'Agree to what would be asked'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from show" -l dry-run -d 'Print the plan and stop; the exit code is that of the refusal the real run would give'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from verify" -l read-data-subset -d 'Read only this part of the artifacts, and see of the others that they are there: 1/7 on Mondays, 2/7 on Tuesdays' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from verify" -l drill-on -d 'Drill on this PostgreSQL server, in a temporary database mlops_drill_<id>; the role needs CREATEDB' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from verify" -l from -d 'Where backups are kept [default: `to` of [backup] in the configuration, MLOPS_BACKUP_TO]' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from verify" -l ping -d 'Tell a dead man\'s switch that this ran, and how it went: URL/start, then URL or URL/fail (healthchecks.io)' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from verify" -l notify -d 'Post a message to a Slack-compatible webhook unless it went well' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from verify" -l config -d 'Configuration file [default: MLOPS_CONFIG, ~/.config/mlops/config.toml, /etc/mlops/config.toml]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from verify" -l profile -d 'Profile in the configuration file whose values beat the file\'s own [default: MLOPS_PROFILE]' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from verify" -l tracking-uri -d 'Tracking server [default: MLOPS_TRACKING_URI, MLFLOW_TRACKING_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from verify" -l backend-store-uri -d 'Backend database of MLflow\'s: a SQLite file or a postgresql:// address [default: MLOPS_BACKEND_STORE_URI, MLFLOW_BACKEND_STORE_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from verify" -l artifact-root -d 'Where the server\'s artifacts are: a folder or s3://bucket/path [default: MLOPS_ARTIFACT_ROOT, MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_DEFAULT_ARTIFACT_ROOT]' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from verify" -l output -d 'Form of the result [default: table]' -r -f -a "table\t'For people'
json\t'One document'
nagios\t'A monitoring plugin\'s status line and performance data (health only)'
prometheus\t'Prometheus\' text format (health only)'
markdown\t'For a ticket or a chat (health only)'"
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from verify" -l color -d 'Colours on the terminal [default: auto; NO_COLOR is honoured]' -r -f -a "auto\t''
always\t''
never\t''"
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from verify" -l progress -d 'Progress on stderr: bars on a terminal, else a line every few seconds [default: auto]' -r -f -a "auto\t''
plain\t''
json\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from verify" -l work-dir -d 'Folder for private copies of SQLite files [default: TMPDIR or /tmp]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from verify" -l state-dir -d 'Folder for what is remembered between runs [default: /var/lib/mlops for root, else ~/.local/state/mlops]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from verify" -l jobs -d 'Threads and connections that work at once [default: the number of processors]' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from verify" -l all -d 'Every backup of the place'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from verify" -l drill -d 'Also restore each database into a scratch one, compare every digest with the manifest\'s, and throw it away'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from verify" -s q -l quiet -d 'Say nothing on stderr but errors'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from verify" -s v -l verbose -d 'Log to stderr what is done; twice: every statement'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from verify" -l yes -d 'Agree to what would be asked'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from verify" -l dry-run -d 'Print the plan and stop; the exit code is that of the refusal the real run would give'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from verify" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from prune" -l from -d 'Where backups are kept [default: `to` of [backup] in the configuration, MLOPS_BACKUP_TO]' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from prune" -l keep-last -d 'The newest N; `unlimited` for all, here and below. One of these flags puts all limits of [backup] aside' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from prune" -l keep-hourly -d 'The newest of each of the last N hours that have one' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from prune" -l keep-daily -d 'The same by days' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from prune" -l keep-weekly -d 'The same by weeks' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from prune" -l keep-monthly -d 'The same by months' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from prune" -l keep-yearly -d 'The same by years' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from prune" -l keep-within -d 'All that are at most so much older than the newest: 1y5m7d2h' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from prune" -l ping -d 'Tell a dead man\'s switch that this ran, and how it went: URL/start, then URL or URL/fail (healthchecks.io)' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from prune" -l notify -d 'Post a message to a Slack-compatible webhook unless it went well' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from prune" -l config -d 'Configuration file [default: MLOPS_CONFIG, ~/.config/mlops/config.toml, /etc/mlops/config.toml]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from prune" -l profile -d 'Profile in the configuration file whose values beat the file\'s own [default: MLOPS_PROFILE]' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from prune" -l tracking-uri -d 'Tracking server [default: MLOPS_TRACKING_URI, MLFLOW_TRACKING_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from prune" -l backend-store-uri -d 'Backend database of MLflow\'s: a SQLite file or a postgresql:// address [default: MLOPS_BACKEND_STORE_URI, MLFLOW_BACKEND_STORE_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from prune" -l artifact-root -d 'Where the server\'s artifacts are: a folder or s3://bucket/path [default: MLOPS_ARTIFACT_ROOT, MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_DEFAULT_ARTIFACT_ROOT]' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from prune" -l output -d 'Form of the result [default: table]' -r -f -a "table\t'For people'
json\t'One document'
nagios\t'A monitoring plugin\'s status line and performance data (health only)'
prometheus\t'Prometheus\' text format (health only)'
markdown\t'For a ticket or a chat (health only)'"
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from prune" -l color -d 'Colours on the terminal [default: auto; NO_COLOR is honoured]' -r -f -a "auto\t''
always\t''
never\t''"
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from prune" -l progress -d 'Progress on stderr: bars on a terminal, else a line every few seconds [default: auto]' -r -f -a "auto\t''
plain\t''
json\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from prune" -l work-dir -d 'Folder for private copies of SQLite files [default: TMPDIR or /tmp]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from prune" -l state-dir -d 'Folder for what is remembered between runs [default: /var/lib/mlops for root, else ~/.local/state/mlops]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from prune" -l jobs -d 'Threads and connections that work at once [default: the number of processors]' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from prune" -s q -l quiet -d 'Say nothing on stderr but errors'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from prune" -s v -l verbose -d 'Log to stderr what is done; twice: every statement'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from prune" -l yes -d 'Agree to what would be asked'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from prune" -l dry-run -d 'Print the plan and stop; the exit code is that of the refusal the real run would give'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from prune" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from pin" -l from -d 'Where backups are kept [default: `to` of [backup] in the configuration, MLOPS_BACKUP_TO]' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from pin" -l config -d 'Configuration file [default: MLOPS_CONFIG, ~/.config/mlops/config.toml, /etc/mlops/config.toml]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from pin" -l profile -d 'Profile in the configuration file whose values beat the file\'s own [default: MLOPS_PROFILE]' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from pin" -l tracking-uri -d 'Tracking server [default: MLOPS_TRACKING_URI, MLFLOW_TRACKING_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from pin" -l backend-store-uri -d 'Backend database of MLflow\'s: a SQLite file or a postgresql:// address [default: MLOPS_BACKEND_STORE_URI, MLFLOW_BACKEND_STORE_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from pin" -l artifact-root -d 'Where the server\'s artifacts are: a folder or s3://bucket/path [default: MLOPS_ARTIFACT_ROOT, MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_DEFAULT_ARTIFACT_ROOT]' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from pin" -l output -d 'Form of the result [default: table]' -r -f -a "table\t'For people'
json\t'One document'
nagios\t'A monitoring plugin\'s status line and performance data (health only)'
prometheus\t'Prometheus\' text format (health only)'
markdown\t'For a ticket or a chat (health only)'"
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from pin" -l color -d 'Colours on the terminal [default: auto; NO_COLOR is honoured]' -r -f -a "auto\t''
always\t''
never\t''"
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from pin" -l progress -d 'Progress on stderr: bars on a terminal, else a line every few seconds [default: auto]' -r -f -a "auto\t''
plain\t''
json\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from pin" -l work-dir -d 'Folder for private copies of SQLite files [default: TMPDIR or /tmp]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from pin" -l state-dir -d 'Folder for what is remembered between runs [default: /var/lib/mlops for root, else ~/.local/state/mlops]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from pin" -l jobs -d 'Threads and connections that work at once [default: the number of processors]' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from pin" -s q -l quiet -d 'Say nothing on stderr but errors'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from pin" -s v -l verbose -d 'Log to stderr what is done; twice: every statement'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from pin" -l yes -d 'Agree to what would be asked'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from pin" -l dry-run -d 'Print the plan and stop; the exit code is that of the refusal the real run would give'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from pin" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from unpin" -l from -d 'Where backups are kept [default: `to` of [backup] in the configuration, MLOPS_BACKUP_TO]' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from unpin" -l config -d 'Configuration file [default: MLOPS_CONFIG, ~/.config/mlops/config.toml, /etc/mlops/config.toml]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from unpin" -l profile -d 'Profile in the configuration file whose values beat the file\'s own [default: MLOPS_PROFILE]' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from unpin" -l tracking-uri -d 'Tracking server [default: MLOPS_TRACKING_URI, MLFLOW_TRACKING_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from unpin" -l backend-store-uri -d 'Backend database of MLflow\'s: a SQLite file or a postgresql:// address [default: MLOPS_BACKEND_STORE_URI, MLFLOW_BACKEND_STORE_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from unpin" -l artifact-root -d 'Where the server\'s artifacts are: a folder or s3://bucket/path [default: MLOPS_ARTIFACT_ROOT, MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_DEFAULT_ARTIFACT_ROOT]' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from unpin" -l output -d 'Form of the result [default: table]' -r -f -a "table\t'For people'
json\t'One document'
nagios\t'A monitoring plugin\'s status line and performance data (health only)'
prometheus\t'Prometheus\' text format (health only)'
markdown\t'For a ticket or a chat (health only)'"
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from unpin" -l color -d 'Colours on the terminal [default: auto; NO_COLOR is honoured]' -r -f -a "auto\t''
always\t''
never\t''"
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from unpin" -l progress -d 'Progress on stderr: bars on a terminal, else a line every few seconds [default: auto]' -r -f -a "auto\t''
plain\t''
json\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from unpin" -l work-dir -d 'Folder for private copies of SQLite files [default: TMPDIR or /tmp]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from unpin" -l state-dir -d 'Folder for what is remembered between runs [default: /var/lib/mlops for root, else ~/.local/state/mlops]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from unpin" -l jobs -d 'Threads and connections that work at once [default: the number of processors]' -r
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from unpin" -s q -l quiet -d 'Say nothing on stderr but errors'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from unpin" -s v -l verbose -d 'Log to stderr what is done; twice: every statement'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from unpin" -l yes -d 'Agree to what would be asked'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from unpin" -l dry-run -d 'Print the plan and stop; the exit code is that of the refusal the real run would give'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from unpin" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from help" -f -a "create" -d 'The same as `mlops backup` alone'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from help" -f -a "list" -d 'The backups of a place: time, size, what the place grew by, runs, models, whether verified and pinned'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from help" -f -a "show" -d 'All that one backup says of itself'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from help" -f -a "verify" -d 'Check every checksum, and with --drill restore into a scratch database'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from help" -f -a "prune" -d 'Remove backups that no rule keeps, and contents that no backup refers to any more'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from help" -f -a "pin" -d 'Keep a backup for ever'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from help" -f -a "unpin" -d 'Let the rules decide on a backup again'
complete -c mlops -n "__fish_mlops_using_subcommand backup; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c mlops -n "__fish_mlops_using_subcommand restore" -l from -d 'Where backups are kept [default: `to` of [backup] in the configuration, MLOPS_BACKUP_TO]' -r
complete -c mlops -n "__fish_mlops_using_subcommand restore" -l to -d 'The database to be made: a postgresql:// address or a SQLite file' -r
complete -c mlops -n "__fish_mlops_using_subcommand restore" -l auth-to -d 'The database of basic-auth to be made, where the backup has one' -r
complete -c mlops -n "__fish_mlops_using_subcommand restore" -l experiment -d 'Restore this experiment only, by name or id, with its runs, models, traces and files, and of the model registry the versions that came from its runs; may be given more than once' -r
complete -c mlops -n "__fish_mlops_using_subcommand restore" -l bad-rows -d 'Rows that PostgreSQL cannot hold: refuse the migration, or put them and all that refer to them aside into a file of JSON lines and copy the rest (exit code 4)' -r -f -a "refuse\t''
quarantine\t''"
complete -c mlops -n "__fish_mlops_using_subcommand restore" -l quarantine-file -d 'The file for rows that are put aside [default: mlops-quarantine-<id>.jsonl in the current folder]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand restore" -l ping -d 'Tell a dead man\'s switch that this ran, and how it went: URL/start, then URL or URL/fail (healthchecks.io)' -r
complete -c mlops -n "__fish_mlops_using_subcommand restore" -l notify -d 'Post a message to a Slack-compatible webhook unless it went well' -r
complete -c mlops -n "__fish_mlops_using_subcommand restore" -l config -d 'Configuration file [default: MLOPS_CONFIG, ~/.config/mlops/config.toml, /etc/mlops/config.toml]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand restore" -l profile -d 'Profile in the configuration file whose values beat the file\'s own [default: MLOPS_PROFILE]' -r
complete -c mlops -n "__fish_mlops_using_subcommand restore" -l tracking-uri -d 'Tracking server [default: MLOPS_TRACKING_URI, MLFLOW_TRACKING_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand restore" -l backend-store-uri -d 'Backend database of MLflow\'s: a SQLite file or a postgresql:// address [default: MLOPS_BACKEND_STORE_URI, MLFLOW_BACKEND_STORE_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand restore" -l artifact-root -d 'Where the server\'s artifacts are: a folder or s3://bucket/path [default: MLOPS_ARTIFACT_ROOT, MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_DEFAULT_ARTIFACT_ROOT]' -r
complete -c mlops -n "__fish_mlops_using_subcommand restore" -l output -d 'Form of the result [default: table]' -r -f -a "table\t'For people'
json\t'One document'
nagios\t'A monitoring plugin\'s status line and performance data (health only)'
prometheus\t'Prometheus\' text format (health only)'
markdown\t'For a ticket or a chat (health only)'"
complete -c mlops -n "__fish_mlops_using_subcommand restore" -l color -d 'Colours on the terminal [default: auto; NO_COLOR is honoured]' -r -f -a "auto\t''
always\t''
never\t''"
complete -c mlops -n "__fish_mlops_using_subcommand restore" -l progress -d 'Progress on stderr: bars on a terminal, else a line every few seconds [default: auto]' -r -f -a "auto\t''
plain\t''
json\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand restore" -l work-dir -d 'Folder for private copies of SQLite files [default: TMPDIR or /tmp]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand restore" -l state-dir -d 'Folder for what is remembered between runs [default: /var/lib/mlops for root, else ~/.local/state/mlops]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand restore" -l jobs -d 'Threads and connections that work at once [default: the number of processors]' -r
complete -c mlops -n "__fish_mlops_using_subcommand restore" -l no-artifacts -d 'Restore the database alone: no artifact is written, no address changes'
complete -c mlops -n "__fish_mlops_using_subcommand restore" -l replace -d 'Move what is there already aside: in PostgreSQL tables with data, into a schema mlops_replaced_<id>; a SQLite file that nobody uses, beside the new one'
complete -c mlops -n "__fish_mlops_using_subcommand restore" -l widen -d 'Make a VARCHAR column longer in the target where a value needs it'
complete -c mlops -n "__fish_mlops_using_subcommand restore" -s q -l quiet -d 'Say nothing on stderr but errors'
complete -c mlops -n "__fish_mlops_using_subcommand restore" -s v -l verbose -d 'Log to stderr what is done; twice: every statement'
complete -c mlops -n "__fish_mlops_using_subcommand restore" -l yes -d 'Agree to what would be asked'
complete -c mlops -n "__fish_mlops_using_subcommand restore" -l dry-run -d 'Print the plan and stop; the exit code is that of the refusal the real run would give'
complete -c mlops -n "__fish_mlops_using_subcommand restore" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and not __fish_seen_subcommand_from experiments runs policy undo purge orphans help" -l config -d 'Configuration file [default: MLOPS_CONFIG, ~/.config/mlops/config.toml, /etc/mlops/config.toml]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and not __fish_seen_subcommand_from experiments runs policy undo purge orphans help" -l profile -d 'Profile in the configuration file whose values beat the file\'s own [default: MLOPS_PROFILE]' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and not __fish_seen_subcommand_from experiments runs policy undo purge orphans help" -l tracking-uri -d 'Tracking server [default: MLOPS_TRACKING_URI, MLFLOW_TRACKING_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and not __fish_seen_subcommand_from experiments runs policy undo purge orphans help" -l backend-store-uri -d 'Backend database of MLflow\'s: a SQLite file or a postgresql:// address [default: MLOPS_BACKEND_STORE_URI, MLFLOW_BACKEND_STORE_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and not __fish_seen_subcommand_from experiments runs policy undo purge orphans help" -l artifact-root -d 'Where the server\'s artifacts are: a folder or s3://bucket/path [default: MLOPS_ARTIFACT_ROOT, MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_DEFAULT_ARTIFACT_ROOT]' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and not __fish_seen_subcommand_from experiments runs policy undo purge orphans help" -l output -d 'Form of the result [default: table]' -r -f -a "table\t'For people'
json\t'One document'
nagios\t'A monitoring plugin\'s status line and performance data (health only)'
prometheus\t'Prometheus\' text format (health only)'
markdown\t'For a ticket or a chat (health only)'"
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and not __fish_seen_subcommand_from experiments runs policy undo purge orphans help" -l color -d 'Colours on the terminal [default: auto; NO_COLOR is honoured]' -r -f -a "auto\t''
always\t''
never\t''"
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and not __fish_seen_subcommand_from experiments runs policy undo purge orphans help" -l progress -d 'Progress on stderr: bars on a terminal, else a line every few seconds [default: auto]' -r -f -a "auto\t''
plain\t''
json\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and not __fish_seen_subcommand_from experiments runs policy undo purge orphans help" -l work-dir -d 'Folder for private copies of SQLite files [default: TMPDIR or /tmp]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and not __fish_seen_subcommand_from experiments runs policy undo purge orphans help" -l state-dir -d 'Folder for what is remembered between runs [default: /var/lib/mlops for root, else ~/.local/state/mlops]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and not __fish_seen_subcommand_from experiments runs policy undo purge orphans help" -l jobs -d 'Threads and connections that work at once [default: the number of processors]' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and not __fish_seen_subcommand_from experiments runs policy undo purge orphans help" -s q -l quiet -d 'Say nothing on stderr but errors'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and not __fish_seen_subcommand_from experiments runs policy undo purge orphans help" -s v -l verbose -d 'Log to stderr what is done; twice: every statement'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and not __fish_seen_subcommand_from experiments runs policy undo purge orphans help" -l yes -d 'Agree to what would be asked'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and not __fish_seen_subcommand_from experiments runs policy undo purge orphans help" -l dry-run -d 'Print the plan and stop; the exit code is that of the refusal the real run would give'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and not __fish_seen_subcommand_from experiments runs policy undo purge orphans help" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and not __fish_seen_subcommand_from experiments runs policy undo purge orphans help" -f -a "experiments" -d 'Soft-delete experiments whose last activity is long ago'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and not __fish_seen_subcommand_from experiments runs policy undo purge orphans help" -f -a "runs" -d 'Soft-delete runs whose last activity is long ago'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and not __fish_seen_subcommand_from experiments runs policy undo purge orphans help" -f -a "policy" -d 'Do what [[cleanup.policy]] of the configuration says, entry after entry: the line for cron'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and not __fish_seen_subcommand_from experiments runs policy undo purge orphans help" -f -a "undo" -d 'Put back exactly what a batch deleted; without an id, list the batches'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and not __fish_seen_subcommand_from experiments runs policy undo purge orphans help" -f -a "purge" -d 'Remove deleted runs, logged models and experiments for good: artifacts, then rows'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and not __fish_seen_subcommand_from experiments runs policy undo purge orphans help" -f -a "orphans" -d 'Find what lost its other half: artifacts without a row, rows without artifacts, rows without a parent'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and not __fish_seen_subcommand_from experiments runs policy undo purge orphans help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from experiments" -l name -d 'Only experiments with names like this; may be given more than once' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from experiments" -l older-than -d 'The time since the last activity: 90d, 12h' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from experiments" -l exclude -d 'Keep names like this; may be given more than once' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from experiments" -l tag -d 'Only with this tag; without =V with any value; may be given more than once, and then all are asked for' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from experiments" -l keep-last -d 'Keep the newest N: of all experiments that are chosen, or of the runs of each experiment (a run counts with its children)' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from experiments" -l include -d 'Do not protect these; may be given more than once' -r -f -a "default\t'The default experiment (0)'
registered\t'Runs behind model versions without a stage and an alias; those with one are always kept'
keep\t'What has the tag mlops.keep'
pinned\t'What has a tag `pinned`, or one that ends in `.pinned`; the pins of MLflow\'s own page are kept by the browser only'
running\t'Runs that have not ended'"
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from experiments" -l ping -d 'Tell a dead man\'s switch that this ran, and how it went: URL/start, then URL or URL/fail (healthchecks.io)' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from experiments" -l notify -d 'Post a message to a Slack-compatible webhook unless it went well' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from experiments" -l config -d 'Configuration file [default: MLOPS_CONFIG, ~/.config/mlops/config.toml, /etc/mlops/config.toml]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from experiments" -l profile -d 'Profile in the configuration file whose values beat the file\'s own [default: MLOPS_PROFILE]' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from experiments" -l tracking-uri -d 'Tracking server [default: MLOPS_TRACKING_URI, MLFLOW_TRACKING_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from experiments" -l backend-store-uri -d 'Backend database of MLflow\'s: a SQLite file or a postgresql:// address [default: MLOPS_BACKEND_STORE_URI, MLFLOW_BACKEND_STORE_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from experiments" -l artifact-root -d 'Where the server\'s artifacts are: a folder or s3://bucket/path [default: MLOPS_ARTIFACT_ROOT, MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_DEFAULT_ARTIFACT_ROOT]' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from experiments" -l output -d 'Form of the result [default: table]' -r -f -a "table\t'For people'
json\t'One document'
nagios\t'A monitoring plugin\'s status line and performance data (health only)'
prometheus\t'Prometheus\' text format (health only)'
markdown\t'For a ticket or a chat (health only)'"
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from experiments" -l color -d 'Colours on the terminal [default: auto; NO_COLOR is honoured]' -r -f -a "auto\t''
always\t''
never\t''"
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from experiments" -l progress -d 'Progress on stderr: bars on a terminal, else a line every few seconds [default: auto]' -r -f -a "auto\t''
plain\t''
json\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from experiments" -l work-dir -d 'Folder for private copies of SQLite files [default: TMPDIR or /tmp]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from experiments" -l state-dir -d 'Folder for what is remembered between runs [default: /var/lib/mlops for root, else ~/.local/state/mlops]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from experiments" -l jobs -d 'Threads and connections that work at once [default: the number of processors]' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from experiments" -s q -l quiet -d 'Say nothing on stderr but errors'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from experiments" -s v -l verbose -d 'Log to stderr what is done; twice: every statement'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from experiments" -l yes -d 'Agree to what would be asked'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from experiments" -l dry-run -d 'Print the plan and stop; the exit code is that of the refusal the real run would give'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from experiments" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from runs" -l name -d 'Only runs with names like this; may be given more than once' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from runs" -l experiment -d 'Only runs of experiments with this id, or a name like this; may be given more than once' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from runs" -l status -d 'Only with this status: FINISHED, FAILED, KILLED, RUNNING, SCHEDULED; may be given more than once' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from runs" -l user -d 'Only runs of this user; may be given more than once' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from runs" -l keep-best -d 'Keep the best N runs of each experiment by --metric' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from runs" -l metric -d 'The metric of --keep-best' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from runs" -l older-than -d 'The time since the last activity: 90d, 12h' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from runs" -l exclude -d 'Keep names like this; may be given more than once' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from runs" -l tag -d 'Only with this tag; without =V with any value; may be given more than once, and then all are asked for' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from runs" -l keep-last -d 'Keep the newest N: of all experiments that are chosen, or of the runs of each experiment (a run counts with its children)' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from runs" -l include -d 'Do not protect these; may be given more than once' -r -f -a "default\t'The default experiment (0)'
registered\t'Runs behind model versions without a stage and an alias; those with one are always kept'
keep\t'What has the tag mlops.keep'
pinned\t'What has a tag `pinned`, or one that ends in `.pinned`; the pins of MLflow\'s own page are kept by the browser only'
running\t'Runs that have not ended'"
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from runs" -l ping -d 'Tell a dead man\'s switch that this ran, and how it went: URL/start, then URL or URL/fail (healthchecks.io)' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from runs" -l notify -d 'Post a message to a Slack-compatible webhook unless it went well' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from runs" -l config -d 'Configuration file [default: MLOPS_CONFIG, ~/.config/mlops/config.toml, /etc/mlops/config.toml]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from runs" -l profile -d 'Profile in the configuration file whose values beat the file\'s own [default: MLOPS_PROFILE]' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from runs" -l tracking-uri -d 'Tracking server [default: MLOPS_TRACKING_URI, MLFLOW_TRACKING_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from runs" -l backend-store-uri -d 'Backend database of MLflow\'s: a SQLite file or a postgresql:// address [default: MLOPS_BACKEND_STORE_URI, MLFLOW_BACKEND_STORE_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from runs" -l artifact-root -d 'Where the server\'s artifacts are: a folder or s3://bucket/path [default: MLOPS_ARTIFACT_ROOT, MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_DEFAULT_ARTIFACT_ROOT]' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from runs" -l output -d 'Form of the result [default: table]' -r -f -a "table\t'For people'
json\t'One document'
nagios\t'A monitoring plugin\'s status line and performance data (health only)'
prometheus\t'Prometheus\' text format (health only)'
markdown\t'For a ticket or a chat (health only)'"
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from runs" -l color -d 'Colours on the terminal [default: auto; NO_COLOR is honoured]' -r -f -a "auto\t''
always\t''
never\t''"
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from runs" -l progress -d 'Progress on stderr: bars on a terminal, else a line every few seconds [default: auto]' -r -f -a "auto\t''
plain\t''
json\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from runs" -l work-dir -d 'Folder for private copies of SQLite files [default: TMPDIR or /tmp]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from runs" -l state-dir -d 'Folder for what is remembered between runs [default: /var/lib/mlops for root, else ~/.local/state/mlops]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from runs" -l jobs -d 'Threads and connections that work at once [default: the number of processors]' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from runs" -l lower -d 'Less of that metric is better'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from runs" -s q -l quiet -d 'Say nothing on stderr but errors'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from runs" -s v -l verbose -d 'Log to stderr what is done; twice: every statement'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from runs" -l yes -d 'Agree to what would be asked'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from runs" -l dry-run -d 'Print the plan and stop; the exit code is that of the refusal the real run would give'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from runs" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from policy" -l ping -d 'Tell a dead man\'s switch that this ran, and how it went: URL/start, then URL or URL/fail (healthchecks.io)' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from policy" -l notify -d 'Post a message to a Slack-compatible webhook unless it went well' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from policy" -l config -d 'Configuration file [default: MLOPS_CONFIG, ~/.config/mlops/config.toml, /etc/mlops/config.toml]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from policy" -l profile -d 'Profile in the configuration file whose values beat the file\'s own [default: MLOPS_PROFILE]' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from policy" -l tracking-uri -d 'Tracking server [default: MLOPS_TRACKING_URI, MLFLOW_TRACKING_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from policy" -l backend-store-uri -d 'Backend database of MLflow\'s: a SQLite file or a postgresql:// address [default: MLOPS_BACKEND_STORE_URI, MLFLOW_BACKEND_STORE_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from policy" -l artifact-root -d 'Where the server\'s artifacts are: a folder or s3://bucket/path [default: MLOPS_ARTIFACT_ROOT, MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_DEFAULT_ARTIFACT_ROOT]' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from policy" -l output -d 'Form of the result [default: table]' -r -f -a "table\t'For people'
json\t'One document'
nagios\t'A monitoring plugin\'s status line and performance data (health only)'
prometheus\t'Prometheus\' text format (health only)'
markdown\t'For a ticket or a chat (health only)'"
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from policy" -l color -d 'Colours on the terminal [default: auto; NO_COLOR is honoured]' -r -f -a "auto\t''
always\t''
never\t''"
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from policy" -l progress -d 'Progress on stderr: bars on a terminal, else a line every few seconds [default: auto]' -r -f -a "auto\t''
plain\t''
json\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from policy" -l work-dir -d 'Folder for private copies of SQLite files [default: TMPDIR or /tmp]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from policy" -l state-dir -d 'Folder for what is remembered between runs [default: /var/lib/mlops for root, else ~/.local/state/mlops]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from policy" -l jobs -d 'Threads and connections that work at once [default: the number of processors]' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from policy" -s q -l quiet -d 'Say nothing on stderr but errors'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from policy" -s v -l verbose -d 'Log to stderr what is done; twice: every statement'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from policy" -l yes -d 'Agree to what would be asked'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from policy" -l dry-run -d 'Print the plan and stop; the exit code is that of the refusal the real run would give'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from policy" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from undo" -l config -d 'Configuration file [default: MLOPS_CONFIG, ~/.config/mlops/config.toml, /etc/mlops/config.toml]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from undo" -l profile -d 'Profile in the configuration file whose values beat the file\'s own [default: MLOPS_PROFILE]' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from undo" -l tracking-uri -d 'Tracking server [default: MLOPS_TRACKING_URI, MLFLOW_TRACKING_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from undo" -l backend-store-uri -d 'Backend database of MLflow\'s: a SQLite file or a postgresql:// address [default: MLOPS_BACKEND_STORE_URI, MLFLOW_BACKEND_STORE_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from undo" -l artifact-root -d 'Where the server\'s artifacts are: a folder or s3://bucket/path [default: MLOPS_ARTIFACT_ROOT, MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_DEFAULT_ARTIFACT_ROOT]' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from undo" -l output -d 'Form of the result [default: table]' -r -f -a "table\t'For people'
json\t'One document'
nagios\t'A monitoring plugin\'s status line and performance data (health only)'
prometheus\t'Prometheus\' text format (health only)'
markdown\t'For a ticket or a chat (health only)'"
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from undo" -l color -d 'Colours on the terminal [default: auto; NO_COLOR is honoured]' -r -f -a "auto\t''
always\t''
never\t''"
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from undo" -l progress -d 'Progress on stderr: bars on a terminal, else a line every few seconds [default: auto]' -r -f -a "auto\t''
plain\t''
json\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from undo" -l work-dir -d 'Folder for private copies of SQLite files [default: TMPDIR or /tmp]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from undo" -l state-dir -d 'Folder for what is remembered between runs [default: /var/lib/mlops for root, else ~/.local/state/mlops]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from undo" -l jobs -d 'Threads and connections that work at once [default: the number of processors]' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from undo" -s q -l quiet -d 'Say nothing on stderr but errors'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from undo" -s v -l verbose -d 'Log to stderr what is done; twice: every statement'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from undo" -l yes -d 'Agree to what would be asked'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from undo" -l dry-run -d 'Print the plan and stop; the exit code is that of the refusal the real run would give'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from undo" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from purge" -l older-than -d 'Deleted so long ago or longer: 30d, 12h' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from purge" -l experiment -d 'Only in this experiment, by name or id; may be given more than once' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from purge" -l name -d 'Only the deleted experiment of that name, however lately it was deleted: its name is free after that' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from purge" -l artifacts -d 'Whether artifacts go as well; `none`: rows alone, and the files stay for ever' -r -f -a "all\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from purge" -l backup-first -d 'Before anything goes, write an archive of just the rows that go; `mlops migrate import` brings them back into an empty database. Artifacts are not in it' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from purge" -l ping -d 'Tell a dead man\'s switch that this ran, and how it went: URL/start, then URL or URL/fail (healthchecks.io)' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from purge" -l notify -d 'Post a message to a Slack-compatible webhook unless it went well' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from purge" -l config -d 'Configuration file [default: MLOPS_CONFIG, ~/.config/mlops/config.toml, /etc/mlops/config.toml]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from purge" -l profile -d 'Profile in the configuration file whose values beat the file\'s own [default: MLOPS_PROFILE]' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from purge" -l tracking-uri -d 'Tracking server [default: MLOPS_TRACKING_URI, MLFLOW_TRACKING_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from purge" -l backend-store-uri -d 'Backend database of MLflow\'s: a SQLite file or a postgresql:// address [default: MLOPS_BACKEND_STORE_URI, MLFLOW_BACKEND_STORE_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from purge" -l artifact-root -d 'Where the server\'s artifacts are: a folder or s3://bucket/path [default: MLOPS_ARTIFACT_ROOT, MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_DEFAULT_ARTIFACT_ROOT]' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from purge" -l output -d 'Form of the result [default: table]' -r -f -a "table\t'For people'
json\t'One document'
nagios\t'A monitoring plugin\'s status line and performance data (health only)'
prometheus\t'Prometheus\' text format (health only)'
markdown\t'For a ticket or a chat (health only)'"
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from purge" -l color -d 'Colours on the terminal [default: auto; NO_COLOR is honoured]' -r -f -a "auto\t''
always\t''
never\t''"
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from purge" -l progress -d 'Progress on stderr: bars on a terminal, else a line every few seconds [default: auto]' -r -f -a "auto\t''
plain\t''
json\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from purge" -l work-dir -d 'Folder for private copies of SQLite files [default: TMPDIR or /tmp]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from purge" -l state-dir -d 'Folder for what is remembered between runs [default: /var/lib/mlops for root, else ~/.local/state/mlops]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from purge" -l jobs -d 'Threads and connections that work at once [default: the number of processors]' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from purge" -s q -l quiet -d 'Say nothing on stderr but errors'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from purge" -s v -l verbose -d 'Log to stderr what is done; twice: every statement'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from purge" -l yes -d 'Agree to what would be asked'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from purge" -l dry-run -d 'Print the plan and stop; the exit code is that of the refusal the real run would give'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from purge" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from orphans" -l min-age -d 'What was written later than that ago is left alone' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from orphans" -l artifacts -d 'Whether artifacts are looked at; `none`: rows alone' -r -f -a "all\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from orphans" -l put-back -d 'Move everything of that batch back to where it was, and do nothing else; no later run takes it for an orphan' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from orphans" -l ping -d 'Tell a dead man\'s switch that this ran, and how it went: URL/start, then URL or URL/fail (healthchecks.io)' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from orphans" -l notify -d 'Post a message to a Slack-compatible webhook unless it went well' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from orphans" -l config -d 'Configuration file [default: MLOPS_CONFIG, ~/.config/mlops/config.toml, /etc/mlops/config.toml]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from orphans" -l profile -d 'Profile in the configuration file whose values beat the file\'s own [default: MLOPS_PROFILE]' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from orphans" -l tracking-uri -d 'Tracking server [default: MLOPS_TRACKING_URI, MLFLOW_TRACKING_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from orphans" -l backend-store-uri -d 'Backend database of MLflow\'s: a SQLite file or a postgresql:// address [default: MLOPS_BACKEND_STORE_URI, MLFLOW_BACKEND_STORE_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from orphans" -l artifact-root -d 'Where the server\'s artifacts are: a folder or s3://bucket/path [default: MLOPS_ARTIFACT_ROOT, MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_DEFAULT_ARTIFACT_ROOT]' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from orphans" -l output -d 'Form of the result [default: table]' -r -f -a "table\t'For people'
json\t'One document'
nagios\t'A monitoring plugin\'s status line and performance data (health only)'
prometheus\t'Prometheus\' text format (health only)'
markdown\t'For a ticket or a chat (health only)'"
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from orphans" -l color -d 'Colours on the terminal [default: auto; NO_COLOR is honoured]' -r -f -a "auto\t''
always\t''
never\t''"
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from orphans" -l progress -d 'Progress on stderr: bars on a terminal, else a line every few seconds [default: auto]' -r -f -a "auto\t''
plain\t''
json\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from orphans" -l work-dir -d 'Folder for private copies of SQLite files [default: TMPDIR or /tmp]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from orphans" -l state-dir -d 'Folder for what is remembered between runs [default: /var/lib/mlops for root, else ~/.local/state/mlops]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from orphans" -l jobs -d 'Threads and connections that work at once [default: the number of processors]' -r
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from orphans" -l sole-owner -d 'No other database has artifacts below that root: look at folders of experiments that this one does not know as well, and go on although more than a tenth of what is there has no row'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from orphans" -s q -l quiet -d 'Say nothing on stderr but errors'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from orphans" -s v -l verbose -d 'Log to stderr what is done; twice: every statement'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from orphans" -l yes -d 'Agree to what would be asked'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from orphans" -l dry-run -d 'Print the plan and stop; the exit code is that of the refusal the real run would give'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from orphans" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from help" -f -a "experiments" -d 'Soft-delete experiments whose last activity is long ago'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from help" -f -a "runs" -d 'Soft-delete runs whose last activity is long ago'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from help" -f -a "policy" -d 'Do what [[cleanup.policy]] of the configuration says, entry after entry: the line for cron'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from help" -f -a "undo" -d 'Put back exactly what a batch deleted; without an id, list the batches'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from help" -f -a "purge" -d 'Remove deleted runs, logged models and experiments for good: artifacts, then rows'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from help" -f -a "orphans" -d 'Find what lost its other half: artifacts without a row, rows without artifacts, rows without a parent'
complete -c mlops -n "__fish_mlops_using_subcommand cleanup; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c mlops -n "__fish_mlops_using_subcommand promote" -l model -d 'The registered model' -r
complete -c mlops -n "__fish_mlops_using_subcommand promote" -l version -d 'The version of that number' -r
complete -c mlops -n "__fish_mlops_using_subcommand promote" -l alias -d 'The version under that alias' -r
complete -c mlops -n "__fish_mlops_using_subcommand promote" -l stage -d 'The newest version in that stage' -r
complete -c mlops -n "__fish_mlops_using_subcommand promote" -l run -d 'The newest version that this run made' -r
complete -c mlops -n "__fish_mlops_using_subcommand promote" -l uuid -d 'The newest version that was made from this logged model (MLflow 3)' -r
complete -c mlops -n "__fish_mlops_using_subcommand promote" -l to -d 'Where to: Production, Staging, Archived, None, or an alias as @champion [default: production, as it is marked today]' -r
complete -c mlops -n "__fish_mlops_using_subcommand promote" -l mode -d 'How the version in production is marked [default: the way it is marked today; the first one by its stage]' -r -f -a "stage\t'By the stage Production'
alias\t'By the alias @champion'
both\t'By both, kept the same'"
complete -c mlops -n "__fish_mlops_using_subcommand promote" -l require -d 'A comparison of metrics: \'rmse < champion\', \'r2 >= 0.85\', \'mae <= champion * 1.1\', \'f1 > champion.f1 - 0.01\'; may be given more than once, as may --require-tag and --check. One that compares with a champion is not asked where there is none yet' -r
complete -c mlops -n "__fish_mlops_using_subcommand promote" -l require-tag -d 'A tag of the version; without =V any value' -r
complete -c mlops -n "__fish_mlops_using_subcommand promote" -l max-age -d 'The version is at most so old: 30d' -r
complete -c mlops -n "__fish_mlops_using_subcommand promote" -l soak -d 'It has been in Staging, or under its alias, for so long: 24h. Only what mlops put there is known; else it is refused. What another client moves out and in again is not seen' -r
complete -c mlops -n "__fish_mlops_using_subcommand promote" -l approve-by-tag -d 'This tag of the version names who approved it' -r
complete -c mlops -n "__fish_mlops_using_subcommand promote" -l check -d 'A command, whose exit code 0 lets it through; it finds MODEL_NAME, VERSION, RUN_ID, MODEL_URI and CHAMPION_VERSION in its environment. It is run with --dry-run, too. Its text and the last line that it says are kept in the record' -r
complete -c mlops -n "__fish_mlops_using_subcommand promote" -l check-timeout -d 'The longest that each command may take [default: 5 min]' -r
complete -c mlops -n "__fish_mlops_using_subcommand promote" -l reason -d 'Why, for the record' -r
complete -c mlops -n "__fish_mlops_using_subcommand promote" -l by -d 'Who, for the record [default: the user of this process]' -r
complete -c mlops -n "__fish_mlops_using_subcommand promote" -l ping -d 'Tell a dead man\'s switch that this ran, and how it went: URL/start, then URL or URL/fail (healthchecks.io)' -r
complete -c mlops -n "__fish_mlops_using_subcommand promote" -l notify -d 'Post a message to a Slack-compatible webhook unless it went well' -r
complete -c mlops -n "__fish_mlops_using_subcommand promote" -l config -d 'Configuration file [default: MLOPS_CONFIG, ~/.config/mlops/config.toml, /etc/mlops/config.toml]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand promote" -l profile -d 'Profile in the configuration file whose values beat the file\'s own [default: MLOPS_PROFILE]' -r
complete -c mlops -n "__fish_mlops_using_subcommand promote" -l tracking-uri -d 'Tracking server [default: MLOPS_TRACKING_URI, MLFLOW_TRACKING_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand promote" -l backend-store-uri -d 'Backend database of MLflow\'s: a SQLite file or a postgresql:// address [default: MLOPS_BACKEND_STORE_URI, MLFLOW_BACKEND_STORE_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand promote" -l artifact-root -d 'Where the server\'s artifacts are: a folder or s3://bucket/path [default: MLOPS_ARTIFACT_ROOT, MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_DEFAULT_ARTIFACT_ROOT]' -r
complete -c mlops -n "__fish_mlops_using_subcommand promote" -l output -d 'Form of the result [default: table]' -r -f -a "table\t'For people'
json\t'One document'
nagios\t'A monitoring plugin\'s status line and performance data (health only)'
prometheus\t'Prometheus\' text format (health only)'
markdown\t'For a ticket or a chat (health only)'"
complete -c mlops -n "__fish_mlops_using_subcommand promote" -l color -d 'Colours on the terminal [default: auto; NO_COLOR is honoured]' -r -f -a "auto\t''
always\t''
never\t''"
complete -c mlops -n "__fish_mlops_using_subcommand promote" -l progress -d 'Progress on stderr: bars on a terminal, else a line every few seconds [default: auto]' -r -f -a "auto\t''
plain\t''
json\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand promote" -l work-dir -d 'Folder for private copies of SQLite files [default: TMPDIR or /tmp]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand promote" -l state-dir -d 'Folder for what is remembered between runs [default: /var/lib/mlops for root, else ~/.local/state/mlops]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand promote" -l jobs -d 'Threads and connections that work at once [default: the number of processors]' -r
complete -c mlops -n "__fish_mlops_using_subcommand promote" -l latest -d 'The newest version of all'
complete -c mlops -n "__fish_mlops_using_subcommand promote" -l require-signature -d 'The model has a signature'
complete -c mlops -n "__fish_mlops_using_subcommand promote" -l set-validation-status -d 'Judge only, and leave the verdict with the version: tag validation_status=passed or =failed. Nothing is promoted, and what --require-tag and the configuration ask of that tag itself is left out'
complete -c mlops -n "__fish_mlops_using_subcommand promote" -s q -l quiet -d 'Say nothing on stderr but errors'
complete -c mlops -n "__fish_mlops_using_subcommand promote" -s v -l verbose -d 'Log to stderr what is done; twice: every statement'
complete -c mlops -n "__fish_mlops_using_subcommand promote" -l yes -d 'Agree to what would be asked'
complete -c mlops -n "__fish_mlops_using_subcommand promote" -l dry-run -d 'Print the plan and stop; the exit code is that of the refusal the real run would give'
complete -c mlops -n "__fish_mlops_using_subcommand promote" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlops -n "__fish_mlops_using_subcommand rollback" -l model -d 'The registered model' -r
complete -c mlops -n "__fish_mlops_using_subcommand rollback" -l to-version -d 'The version that is put back [default: the former champion]. One that no record knows as champion is a warning' -r
complete -c mlops -n "__fish_mlops_using_subcommand rollback" -l to -d 'The place: Production, or an alias as @champion [default: production, as it is marked today]' -r
complete -c mlops -n "__fish_mlops_using_subcommand rollback" -l mode -d 'How the version in production is marked [default: the way it is marked today; the first one by its stage]' -r -f -a "stage\t'By the stage Production'
alias\t'By the alias @champion'
both\t'By both, kept the same'"
complete -c mlops -n "__fish_mlops_using_subcommand rollback" -l reason -d 'Why, for the record' -r
complete -c mlops -n "__fish_mlops_using_subcommand rollback" -l by -d 'Who, for the record [default: the user of this process]' -r
complete -c mlops -n "__fish_mlops_using_subcommand rollback" -l ping -d 'Tell a dead man\'s switch that this ran, and how it went: URL/start, then URL or URL/fail (healthchecks.io)' -r
complete -c mlops -n "__fish_mlops_using_subcommand rollback" -l notify -d 'Post a message to a Slack-compatible webhook unless it went well' -r
complete -c mlops -n "__fish_mlops_using_subcommand rollback" -l config -d 'Configuration file [default: MLOPS_CONFIG, ~/.config/mlops/config.toml, /etc/mlops/config.toml]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand rollback" -l profile -d 'Profile in the configuration file whose values beat the file\'s own [default: MLOPS_PROFILE]' -r
complete -c mlops -n "__fish_mlops_using_subcommand rollback" -l tracking-uri -d 'Tracking server [default: MLOPS_TRACKING_URI, MLFLOW_TRACKING_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand rollback" -l backend-store-uri -d 'Backend database of MLflow\'s: a SQLite file or a postgresql:// address [default: MLOPS_BACKEND_STORE_URI, MLFLOW_BACKEND_STORE_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand rollback" -l artifact-root -d 'Where the server\'s artifacts are: a folder or s3://bucket/path [default: MLOPS_ARTIFACT_ROOT, MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_DEFAULT_ARTIFACT_ROOT]' -r
complete -c mlops -n "__fish_mlops_using_subcommand rollback" -l output -d 'Form of the result [default: table]' -r -f -a "table\t'For people'
json\t'One document'
nagios\t'A monitoring plugin\'s status line and performance data (health only)'
prometheus\t'Prometheus\' text format (health only)'
markdown\t'For a ticket or a chat (health only)'"
complete -c mlops -n "__fish_mlops_using_subcommand rollback" -l color -d 'Colours on the terminal [default: auto; NO_COLOR is honoured]' -r -f -a "auto\t''
always\t''
never\t''"
complete -c mlops -n "__fish_mlops_using_subcommand rollback" -l progress -d 'Progress on stderr: bars on a terminal, else a line every few seconds [default: auto]' -r -f -a "auto\t''
plain\t''
json\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand rollback" -l work-dir -d 'Folder for private copies of SQLite files [default: TMPDIR or /tmp]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand rollback" -l state-dir -d 'Folder for what is remembered between runs [default: /var/lib/mlops for root, else ~/.local/state/mlops]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand rollback" -l jobs -d 'Threads and connections that work at once [default: the number of processors]' -r
complete -c mlops -n "__fish_mlops_using_subcommand rollback" -s q -l quiet -d 'Say nothing on stderr but errors'
complete -c mlops -n "__fish_mlops_using_subcommand rollback" -s v -l verbose -d 'Log to stderr what is done; twice: every statement'
complete -c mlops -n "__fish_mlops_using_subcommand rollback" -l yes -d 'Agree to what would be asked'
complete -c mlops -n "__fish_mlops_using_subcommand rollback" -l dry-run -d 'Print the plan and stop; the exit code is that of the refusal the real run would give'
complete -c mlops -n "__fish_mlops_using_subcommand rollback" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlops -n "__fish_mlops_using_subcommand verify; and not __fish_seen_subcommand_from persistence snapshot compare deployment concurrency help" -l config -d 'Configuration file [default: MLOPS_CONFIG, ~/.config/mlops/config.toml, /etc/mlops/config.toml]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand verify; and not __fish_seen_subcommand_from persistence snapshot compare deployment concurrency help" -l profile -d 'Profile in the configuration file whose values beat the file\'s own [default: MLOPS_PROFILE]' -r
complete -c mlops -n "__fish_mlops_using_subcommand verify; and not __fish_seen_subcommand_from persistence snapshot compare deployment concurrency help" -l tracking-uri -d 'Tracking server [default: MLOPS_TRACKING_URI, MLFLOW_TRACKING_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand verify; and not __fish_seen_subcommand_from persistence snapshot compare deployment concurrency help" -l backend-store-uri -d 'Backend database of MLflow\'s: a SQLite file or a postgresql:// address [default: MLOPS_BACKEND_STORE_URI, MLFLOW_BACKEND_STORE_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand verify; and not __fish_seen_subcommand_from persistence snapshot compare deployment concurrency help" -l artifact-root -d 'Where the server\'s artifacts are: a folder or s3://bucket/path [default: MLOPS_ARTIFACT_ROOT, MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_DEFAULT_ARTIFACT_ROOT]' -r
complete -c mlops -n "__fish_mlops_using_subcommand verify; and not __fish_seen_subcommand_from persistence snapshot compare deployment concurrency help" -l output -d 'Form of the result [default: table]' -r -f -a "table\t'For people'
json\t'One document'
nagios\t'A monitoring plugin\'s status line and performance data (health only)'
prometheus\t'Prometheus\' text format (health only)'
markdown\t'For a ticket or a chat (health only)'"
complete -c mlops -n "__fish_mlops_using_subcommand verify; and not __fish_seen_subcommand_from persistence snapshot compare deployment concurrency help" -l color -d 'Colours on the terminal [default: auto; NO_COLOR is honoured]' -r -f -a "auto\t''
always\t''
never\t''"
complete -c mlops -n "__fish_mlops_using_subcommand verify; and not __fish_seen_subcommand_from persistence snapshot compare deployment concurrency help" -l progress -d 'Progress on stderr: bars on a terminal, else a line every few seconds [default: auto]' -r -f -a "auto\t''
plain\t''
json\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand verify; and not __fish_seen_subcommand_from persistence snapshot compare deployment concurrency help" -l work-dir -d 'Folder for private copies of SQLite files [default: TMPDIR or /tmp]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand verify; and not __fish_seen_subcommand_from persistence snapshot compare deployment concurrency help" -l state-dir -d 'Folder for what is remembered between runs [default: /var/lib/mlops for root, else ~/.local/state/mlops]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand verify; and not __fish_seen_subcommand_from persistence snapshot compare deployment concurrency help" -l jobs -d 'Threads and connections that work at once [default: the number of processors]' -r
complete -c mlops -n "__fish_mlops_using_subcommand verify; and not __fish_seen_subcommand_from persistence snapshot compare deployment concurrency help" -s q -l quiet -d 'Say nothing on stderr but errors'
complete -c mlops -n "__fish_mlops_using_subcommand verify; and not __fish_seen_subcommand_from persistence snapshot compare deployment concurrency help" -s v -l verbose -d 'Log to stderr what is done; twice: every statement'
complete -c mlops -n "__fish_mlops_using_subcommand verify; and not __fish_seen_subcommand_from persistence snapshot compare deployment concurrency help" -l yes -d 'Agree to what would be asked'
complete -c mlops -n "__fish_mlops_using_subcommand verify; and not __fish_seen_subcommand_from persistence snapshot compare deployment concurrency help" -l dry-run -d 'Print the plan and stop; the exit code is that of the refusal the real run would give'
complete -c mlops -n "__fish_mlops_using_subcommand verify; and not __fish_seen_subcommand_from persistence snapshot compare deployment concurrency help" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlops -n "__fish_mlops_using_subcommand verify; and not __fish_seen_subcommand_from persistence snapshot compare deployment concurrency help" -f -a "persistence" -d 'Restart the stack, and see whether all that was in it is still there'
complete -c mlops -n "__fish_mlops_using_subcommand verify; and not __fish_seen_subcommand_from persistence snapshot compare deployment concurrency help" -f -a "snapshot" -d 'Write down what a stack holds, for `verify compare` after an upgrade or a move'
complete -c mlops -n "__fish_mlops_using_subcommand verify; and not __fish_seen_subcommand_from persistence snapshot compare deployment concurrency help" -f -a "compare" -d 'Compare a stack with a snapshot of it: what was lost, what was changed, what is new'
complete -c mlops -n "__fish_mlops_using_subcommand verify; and not __fish_seen_subcommand_from persistence snapshot compare deployment concurrency help" -f -a "deployment" -d 'Register, find, download, move and delete a small model, step by step'
complete -c mlops -n "__fish_mlops_using_subcommand verify; and not __fish_seen_subcommand_from persistence snapshot compare deployment concurrency help" -f -a "concurrency" -d 'Let many writers write at the same time, and compare what is there with what the server said'
complete -c mlops -n "__fish_mlops_using_subcommand verify; and not __fish_seen_subcommand_from persistence snapshot compare deployment concurrency help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from persistence" -l restart-cmd -d 'Shell command that restarts the server; what it starts stays' -r
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from persistence" -l restart -d 'Restart a container by Docker: `docker:CONTAINER`, or `compose:SERVICE` in the folder of the Compose file' -r
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from persistence" -l experiments -d 'Experiments that are made, each with a run' -r
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from persistence" -l ready-timeout -d 'How long the server may take to answer a search again' -r
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from persistence" -l restart-timeout -d 'How long the restart command may take' -r
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from persistence" -l restart-seen-within -d 'How long after the command, or after Enter, the restart may begin: one that is only asked for begins later' -r
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from persistence" -l accept -d 'A kind of finding that is known and is no reason to fail; may be given more than once: ephemeral_path, relative_path, anonymous_volume, restart_not_seen, release_changed, secrets_unreadable_before' -r
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from persistence" -l report -d 'Write the account as a Markdown page as well: procedure, checkpoints, figures, findings, verdict' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from persistence" -l config -d 'Configuration file [default: MLOPS_CONFIG, ~/.config/mlops/config.toml, /etc/mlops/config.toml]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from persistence" -l profile -d 'Profile in the configuration file whose values beat the file\'s own [default: MLOPS_PROFILE]' -r
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from persistence" -l tracking-uri -d 'Tracking server [default: MLOPS_TRACKING_URI, MLFLOW_TRACKING_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from persistence" -l backend-store-uri -d 'Backend database of MLflow\'s: a SQLite file or a postgresql:// address [default: MLOPS_BACKEND_STORE_URI, MLFLOW_BACKEND_STORE_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from persistence" -l artifact-root -d 'Where the server\'s artifacts are: a folder or s3://bucket/path [default: MLOPS_ARTIFACT_ROOT, MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_DEFAULT_ARTIFACT_ROOT]' -r
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from persistence" -l output -d 'Form of the result [default: table]' -r -f -a "table\t'For people'
json\t'One document'
nagios\t'A monitoring plugin\'s status line and performance data (health only)'
prometheus\t'Prometheus\' text format (health only)'
markdown\t'For a ticket or a chat (health only)'"
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from persistence" -l color -d 'Colours on the terminal [default: auto; NO_COLOR is honoured]' -r -f -a "auto\t''
always\t''
never\t''"
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from persistence" -l progress -d 'Progress on stderr: bars on a terminal, else a line every few seconds [default: auto]' -r -f -a "auto\t''
plain\t''
json\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from persistence" -l work-dir -d 'Folder for private copies of SQLite files [default: TMPDIR or /tmp]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from persistence" -l state-dir -d 'Folder for what is remembered between runs [default: /var/lib/mlops for root, else ~/.local/state/mlops]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from persistence" -l jobs -d 'Threads and connections that work at once [default: the number of processors]' -r
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from persistence" -l pause -d 'Wait until somebody has restarted it by hand, 30 minutes at most; on a terminal Enter says that it is done'
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from persistence" -l frozen -d 'Nobody else uses the stack: whatever is new or went on is wrong as well'
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from persistence" -l keep -d 'Leave what was made on the server, and tell its names'
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from persistence" -s q -l quiet -d 'Say nothing on stderr but errors'
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from persistence" -s v -l verbose -d 'Log to stderr what is done; twice: every statement'
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from persistence" -l yes -d 'Agree to what would be asked'
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from persistence" -l dry-run -d 'Print the plan and stop; the exit code is that of the refusal the real run would give'
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from persistence" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from snapshot" -l file -d 'The file, which must not be there yet' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from snapshot" -l config -d 'Configuration file [default: MLOPS_CONFIG, ~/.config/mlops/config.toml, /etc/mlops/config.toml]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from snapshot" -l profile -d 'Profile in the configuration file whose values beat the file\'s own [default: MLOPS_PROFILE]' -r
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from snapshot" -l tracking-uri -d 'Tracking server [default: MLOPS_TRACKING_URI, MLFLOW_TRACKING_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from snapshot" -l backend-store-uri -d 'Backend database of MLflow\'s: a SQLite file or a postgresql:// address [default: MLOPS_BACKEND_STORE_URI, MLFLOW_BACKEND_STORE_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from snapshot" -l artifact-root -d 'Where the server\'s artifacts are: a folder or s3://bucket/path [default: MLOPS_ARTIFACT_ROOT, MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_DEFAULT_ARTIFACT_ROOT]' -r
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from snapshot" -l output -d 'Form of the result [default: table]' -r -f -a "table\t'For people'
json\t'One document'
nagios\t'A monitoring plugin\'s status line and performance data (health only)'
prometheus\t'Prometheus\' text format (health only)'
markdown\t'For a ticket or a chat (health only)'"
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from snapshot" -l color -d 'Colours on the terminal [default: auto; NO_COLOR is honoured]' -r -f -a "auto\t''
always\t''
never\t''"
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from snapshot" -l progress -d 'Progress on stderr: bars on a terminal, else a line every few seconds [default: auto]' -r -f -a "auto\t''
plain\t''
json\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from snapshot" -l work-dir -d 'Folder for private copies of SQLite files [default: TMPDIR or /tmp]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from snapshot" -l state-dir -d 'Folder for what is remembered between runs [default: /var/lib/mlops for root, else ~/.local/state/mlops]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from snapshot" -l jobs -d 'Threads and connections that work at once [default: the number of processors]' -r
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from snapshot" -s q -l quiet -d 'Say nothing on stderr but errors'
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from snapshot" -s v -l verbose -d 'Log to stderr what is done; twice: every statement'
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from snapshot" -l yes -d 'Agree to what would be asked'
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from snapshot" -l dry-run -d 'Print the plan and stop; the exit code is that of the refusal the real run would give'
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from snapshot" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from compare" -l file -d 'The snapshot' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from compare" -l report -d 'Write the account as a Markdown page as well' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from compare" -l config -d 'Configuration file [default: MLOPS_CONFIG, ~/.config/mlops/config.toml, /etc/mlops/config.toml]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from compare" -l profile -d 'Profile in the configuration file whose values beat the file\'s own [default: MLOPS_PROFILE]' -r
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from compare" -l tracking-uri -d 'Tracking server [default: MLOPS_TRACKING_URI, MLFLOW_TRACKING_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from compare" -l backend-store-uri -d 'Backend database of MLflow\'s: a SQLite file or a postgresql:// address [default: MLOPS_BACKEND_STORE_URI, MLFLOW_BACKEND_STORE_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from compare" -l artifact-root -d 'Where the server\'s artifacts are: a folder or s3://bucket/path [default: MLOPS_ARTIFACT_ROOT, MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_DEFAULT_ARTIFACT_ROOT]' -r
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from compare" -l output -d 'Form of the result [default: table]' -r -f -a "table\t'For people'
json\t'One document'
nagios\t'A monitoring plugin\'s status line and performance data (health only)'
prometheus\t'Prometheus\' text format (health only)'
markdown\t'For a ticket or a chat (health only)'"
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from compare" -l color -d 'Colours on the terminal [default: auto; NO_COLOR is honoured]' -r -f -a "auto\t''
always\t''
never\t''"
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from compare" -l progress -d 'Progress on stderr: bars on a terminal, else a line every few seconds [default: auto]' -r -f -a "auto\t''
plain\t''
json\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from compare" -l work-dir -d 'Folder for private copies of SQLite files [default: TMPDIR or /tmp]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from compare" -l state-dir -d 'Folder for what is remembered between runs [default: /var/lib/mlops for root, else ~/.local/state/mlops]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from compare" -l jobs -d 'Threads and connections that work at once [default: the number of processors]' -r
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from compare" -l allow-upgrade -d 'Accept what an upgrade of MLflow or a move to another engine changes, and nothing else: the revision, tables and columns that are new, fields and tags of its own that a newer release fills'
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from compare" -l frozen -d 'Nobody used the stack in between: whatever is new or went on is wrong as well'
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from compare" -s q -l quiet -d 'Say nothing on stderr but errors'
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from compare" -s v -l verbose -d 'Log to stderr what is done; twice: every statement'
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from compare" -l yes -d 'Agree to what would be asked'
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from compare" -l dry-run -d 'Print the plan and stop; the exit code is that of the refusal the real run would give'
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from compare" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from deployment" -l model -d 'Name of the registered model that is made and removed again [default: mlops-verify-<id>]' -r
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from deployment" -l service -d 'Another part of the deployment that has to answer: `gateway=http://host/health`, or with a condition on its JSON, `gateway=http://host/health where .models > 0`; may be given more than once' -r
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from deployment" -l report -d 'Write the account as a Markdown page as well: procedure, checkpoints, figures, findings, verdict' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from deployment" -l config -d 'Configuration file [default: MLOPS_CONFIG, ~/.config/mlops/config.toml, /etc/mlops/config.toml]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from deployment" -l profile -d 'Profile in the configuration file whose values beat the file\'s own [default: MLOPS_PROFILE]' -r
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from deployment" -l tracking-uri -d 'Tracking server [default: MLOPS_TRACKING_URI, MLFLOW_TRACKING_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from deployment" -l backend-store-uri -d 'Backend database of MLflow\'s: a SQLite file or a postgresql:// address [default: MLOPS_BACKEND_STORE_URI, MLFLOW_BACKEND_STORE_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from deployment" -l artifact-root -d 'Where the server\'s artifacts are: a folder or s3://bucket/path [default: MLOPS_ARTIFACT_ROOT, MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_DEFAULT_ARTIFACT_ROOT]' -r
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from deployment" -l output -d 'Form of the result [default: table]' -r -f -a "table\t'For people'
json\t'One document'
nagios\t'A monitoring plugin\'s status line and performance data (health only)'
prometheus\t'Prometheus\' text format (health only)'
markdown\t'For a ticket or a chat (health only)'"
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from deployment" -l color -d 'Colours on the terminal [default: auto; NO_COLOR is honoured]' -r -f -a "auto\t''
always\t''
never\t''"
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from deployment" -l progress -d 'Progress on stderr: bars on a terminal, else a line every few seconds [default: auto]' -r -f -a "auto\t''
plain\t''
json\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from deployment" -l work-dir -d 'Folder for private copies of SQLite files [default: TMPDIR or /tmp]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from deployment" -l state-dir -d 'Folder for what is remembered between runs [default: /var/lib/mlops for root, else ~/.local/state/mlops]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from deployment" -l jobs -d 'Threads and connections that work at once [default: the number of processors]' -r
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from deployment" -l keep -d 'Leave what was made on the server, and tell its names'
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from deployment" -s q -l quiet -d 'Say nothing on stderr but errors'
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from deployment" -s v -l verbose -d 'Log to stderr what is done; twice: every statement'
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from deployment" -l yes -d 'Agree to what would be asked'
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from deployment" -l dry-run -d 'Print the plan and stop; the exit code is that of the refusal the real run would give'
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from deployment" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from concurrency" -l writers -d 'Writers at the same time' -r
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from concurrency" -l runs -d 'Runs of each writer' -r
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from concurrency" -l metrics -d 'Points of each run: half of them logged one by one, half in batches' -r
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from concurrency" -l duration -d 'As many runs as fit in this time, one at least: 60s' -r
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from concurrency" -l baseline -d 'The document that an earlier run printed with --output json, to compare with' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from concurrency" -l max-p95 -d 'The longest p95 of each operation: 500ms' -r
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from concurrency" -l min-rate -d 'The least operations a second, all together' -r
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from concurrency" -l max-errors -d 'Operations that may fail [default: 0]' -r
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from concurrency" -l worse-than -d 'How many times slower than the baseline the p95 of each operation, and the rate of all, may be: 1.5' -r
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from concurrency" -l report -d 'Write the account as a Markdown page as well: procedure, checkpoints, figures, findings, verdict' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from concurrency" -l config -d 'Configuration file [default: MLOPS_CONFIG, ~/.config/mlops/config.toml, /etc/mlops/config.toml]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from concurrency" -l profile -d 'Profile in the configuration file whose values beat the file\'s own [default: MLOPS_PROFILE]' -r
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from concurrency" -l tracking-uri -d 'Tracking server [default: MLOPS_TRACKING_URI, MLFLOW_TRACKING_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from concurrency" -l backend-store-uri -d 'Backend database of MLflow\'s: a SQLite file or a postgresql:// address [default: MLOPS_BACKEND_STORE_URI, MLFLOW_BACKEND_STORE_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from concurrency" -l artifact-root -d 'Where the server\'s artifacts are: a folder or s3://bucket/path [default: MLOPS_ARTIFACT_ROOT, MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_DEFAULT_ARTIFACT_ROOT]' -r
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from concurrency" -l output -d 'Form of the result [default: table]' -r -f -a "table\t'For people'
json\t'One document'
nagios\t'A monitoring plugin\'s status line and performance data (health only)'
prometheus\t'Prometheus\' text format (health only)'
markdown\t'For a ticket or a chat (health only)'"
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from concurrency" -l color -d 'Colours on the terminal [default: auto; NO_COLOR is honoured]' -r -f -a "auto\t''
always\t''
never\t''"
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from concurrency" -l progress -d 'Progress on stderr: bars on a terminal, else a line every few seconds [default: auto]' -r -f -a "auto\t''
plain\t''
json\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from concurrency" -l work-dir -d 'Folder for private copies of SQLite files [default: TMPDIR or /tmp]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from concurrency" -l state-dir -d 'Folder for what is remembered between runs [default: /var/lib/mlops for root, else ~/.local/state/mlops]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from concurrency" -l jobs -d 'Threads and connections that work at once [default: the number of processors]' -r
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from concurrency" -l keep -d 'Leave what was made on the server, and tell its names'
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from concurrency" -s q -l quiet -d 'Say nothing on stderr but errors'
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from concurrency" -s v -l verbose -d 'Log to stderr what is done; twice: every statement'
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from concurrency" -l yes -d 'Agree to what would be asked'
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from concurrency" -l dry-run -d 'Print the plan and stop; the exit code is that of the refusal the real run would give'
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from concurrency" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from help" -f -a "persistence" -d 'Restart the stack, and see whether all that was in it is still there'
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from help" -f -a "snapshot" -d 'Write down what a stack holds, for `verify compare` after an upgrade or a move'
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from help" -f -a "compare" -d 'Compare a stack with a snapshot of it: what was lost, what was changed, what is new'
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from help" -f -a "deployment" -d 'Register, find, download, move and delete a small model, step by step'
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from help" -f -a "concurrency" -d 'Let many writers write at the same time, and compare what is there with what the server said'
complete -c mlops -n "__fish_mlops_using_subcommand verify; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c mlops -n "__fish_mlops_using_subcommand models; and not __fish_seen_subcommand_from list show register export history help" -l config -d 'Configuration file [default: MLOPS_CONFIG, ~/.config/mlops/config.toml, /etc/mlops/config.toml]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand models; and not __fish_seen_subcommand_from list show register export history help" -l profile -d 'Profile in the configuration file whose values beat the file\'s own [default: MLOPS_PROFILE]' -r
complete -c mlops -n "__fish_mlops_using_subcommand models; and not __fish_seen_subcommand_from list show register export history help" -l tracking-uri -d 'Tracking server [default: MLOPS_TRACKING_URI, MLFLOW_TRACKING_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand models; and not __fish_seen_subcommand_from list show register export history help" -l backend-store-uri -d 'Backend database of MLflow\'s: a SQLite file or a postgresql:// address [default: MLOPS_BACKEND_STORE_URI, MLFLOW_BACKEND_STORE_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand models; and not __fish_seen_subcommand_from list show register export history help" -l artifact-root -d 'Where the server\'s artifacts are: a folder or s3://bucket/path [default: MLOPS_ARTIFACT_ROOT, MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_DEFAULT_ARTIFACT_ROOT]' -r
complete -c mlops -n "__fish_mlops_using_subcommand models; and not __fish_seen_subcommand_from list show register export history help" -l output -d 'Form of the result [default: table]' -r -f -a "table\t'For people'
json\t'One document'
nagios\t'A monitoring plugin\'s status line and performance data (health only)'
prometheus\t'Prometheus\' text format (health only)'
markdown\t'For a ticket or a chat (health only)'"
complete -c mlops -n "__fish_mlops_using_subcommand models; and not __fish_seen_subcommand_from list show register export history help" -l color -d 'Colours on the terminal [default: auto; NO_COLOR is honoured]' -r -f -a "auto\t''
always\t''
never\t''"
complete -c mlops -n "__fish_mlops_using_subcommand models; and not __fish_seen_subcommand_from list show register export history help" -l progress -d 'Progress on stderr: bars on a terminal, else a line every few seconds [default: auto]' -r -f -a "auto\t''
plain\t''
json\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand models; and not __fish_seen_subcommand_from list show register export history help" -l work-dir -d 'Folder for private copies of SQLite files [default: TMPDIR or /tmp]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand models; and not __fish_seen_subcommand_from list show register export history help" -l state-dir -d 'Folder for what is remembered between runs [default: /var/lib/mlops for root, else ~/.local/state/mlops]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand models; and not __fish_seen_subcommand_from list show register export history help" -l jobs -d 'Threads and connections that work at once [default: the number of processors]' -r
complete -c mlops -n "__fish_mlops_using_subcommand models; and not __fish_seen_subcommand_from list show register export history help" -s q -l quiet -d 'Say nothing on stderr but errors'
complete -c mlops -n "__fish_mlops_using_subcommand models; and not __fish_seen_subcommand_from list show register export history help" -s v -l verbose -d 'Log to stderr what is done; twice: every statement'
complete -c mlops -n "__fish_mlops_using_subcommand models; and not __fish_seen_subcommand_from list show register export history help" -l yes -d 'Agree to what would be asked'
complete -c mlops -n "__fish_mlops_using_subcommand models; and not __fish_seen_subcommand_from list show register export history help" -l dry-run -d 'Print the plan and stop; the exit code is that of the refusal the real run would give'
complete -c mlops -n "__fish_mlops_using_subcommand models; and not __fish_seen_subcommand_from list show register export history help" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlops -n "__fish_mlops_using_subcommand models; and not __fish_seen_subcommand_from list show register export history help" -f -a "list" -d 'Every registered model in a line: versions, what is in Production and Staging, aliases, a metric, age'
complete -c mlops -n "__fish_mlops_using_subcommand models; and not __fish_seen_subcommand_from list show register export history help" -f -a "show" -d 'One model, one version or one logged model: run, metrics, params, signature, tags, files, lineage'
complete -c mlops -n "__fish_mlops_using_subcommand models; and not __fish_seen_subcommand_from list show register export history help" -f -a "register" -d 'Make a version of a registered model from a run\'s model, a logged model or an address'
complete -c mlops -n "__fish_mlops_using_subcommand models; and not __fish_seen_subcommand_from list show register export history help" -f -a "export" -d 'What is in production, as a JSON document, and with --files also its artifacts'
complete -c mlops -n "__fish_mlops_using_subcommand models; and not __fish_seen_subcommand_from list show register export history help" -f -a "history" -d 'Who was champion when, as the versions\' tags and the log of the state folder tell'
complete -c mlops -n "__fish_mlops_using_subcommand models; and not __fish_seen_subcommand_from list show register export history help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from list" -l name -d 'Only models whose name matches: `*` stands for any characters, `?` for one' -r
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from list" -l metric -d 'Also this metric of the version in production' -r
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from list" -l config -d 'Configuration file [default: MLOPS_CONFIG, ~/.config/mlops/config.toml, /etc/mlops/config.toml]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from list" -l profile -d 'Profile in the configuration file whose values beat the file\'s own [default: MLOPS_PROFILE]' -r
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from list" -l tracking-uri -d 'Tracking server [default: MLOPS_TRACKING_URI, MLFLOW_TRACKING_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from list" -l backend-store-uri -d 'Backend database of MLflow\'s: a SQLite file or a postgresql:// address [default: MLOPS_BACKEND_STORE_URI, MLFLOW_BACKEND_STORE_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from list" -l artifact-root -d 'Where the server\'s artifacts are: a folder or s3://bucket/path [default: MLOPS_ARTIFACT_ROOT, MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_DEFAULT_ARTIFACT_ROOT]' -r
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from list" -l output -d 'Form of the result [default: table]' -r -f -a "table\t'For people'
json\t'One document'
nagios\t'A monitoring plugin\'s status line and performance data (health only)'
prometheus\t'Prometheus\' text format (health only)'
markdown\t'For a ticket or a chat (health only)'"
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from list" -l color -d 'Colours on the terminal [default: auto; NO_COLOR is honoured]' -r -f -a "auto\t''
always\t''
never\t''"
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from list" -l progress -d 'Progress on stderr: bars on a terminal, else a line every few seconds [default: auto]' -r -f -a "auto\t''
plain\t''
json\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from list" -l work-dir -d 'Folder for private copies of SQLite files [default: TMPDIR or /tmp]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from list" -l state-dir -d 'Folder for what is remembered between runs [default: /var/lib/mlops for root, else ~/.local/state/mlops]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from list" -l jobs -d 'Threads and connections that work at once [default: the number of processors]' -r
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from list" -s q -l quiet -d 'Say nothing on stderr but errors'
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from list" -s v -l verbose -d 'Log to stderr what is done; twice: every statement'
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from list" -l yes -d 'Agree to what would be asked'
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from list" -l dry-run -d 'Print the plan and stop; the exit code is that of the refusal the real run would give'
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from show" -l uuid -d 'The logged model of that id, and nothing else that has such a name' -r
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from show" -l config -d 'Configuration file [default: MLOPS_CONFIG, ~/.config/mlops/config.toml, /etc/mlops/config.toml]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from show" -l profile -d 'Profile in the configuration file whose values beat the file\'s own [default: MLOPS_PROFILE]' -r
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from show" -l tracking-uri -d 'Tracking server [default: MLOPS_TRACKING_URI, MLFLOW_TRACKING_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from show" -l backend-store-uri -d 'Backend database of MLflow\'s: a SQLite file or a postgresql:// address [default: MLOPS_BACKEND_STORE_URI, MLFLOW_BACKEND_STORE_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from show" -l artifact-root -d 'Where the server\'s artifacts are: a folder or s3://bucket/path [default: MLOPS_ARTIFACT_ROOT, MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_DEFAULT_ARTIFACT_ROOT]' -r
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from show" -l output -d 'Form of the result [default: table]' -r -f -a "table\t'For people'
json\t'One document'
nagios\t'A monitoring plugin\'s status line and performance data (health only)'
prometheus\t'Prometheus\' text format (health only)'
markdown\t'For a ticket or a chat (health only)'"
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from show" -l color -d 'Colours on the terminal [default: auto; NO_COLOR is honoured]' -r -f -a "auto\t''
always\t''
never\t''"
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from show" -l progress -d 'Progress on stderr: bars on a terminal, else a line every few seconds [default: auto]' -r -f -a "auto\t''
plain\t''
json\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from show" -l work-dir -d 'Folder for private copies of SQLite files [default: TMPDIR or /tmp]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from show" -l state-dir -d 'Folder for what is remembered between runs [default: /var/lib/mlops for root, else ~/.local/state/mlops]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from show" -l jobs -d 'Threads and connections that work at once [default: the number of processors]' -r
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from show" -s q -l quiet -d 'Say nothing on stderr but errors'
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from show" -s v -l verbose -d 'Log to stderr what is done; twice: every statement'
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from show" -l yes -d 'Agree to what would be asked'
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from show" -l dry-run -d 'Print the plan and stop; the exit code is that of the refusal the real run would give'
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from register" -l name -d 'The registered model; it is made if it is not there' -r
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from register" -l run -d 'The run that made the model' -r
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from register" -l path -d 'Where the model is among the run\'s artifacts, or the name of a logged model of the run\'s [default: model]' -r
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from register" -l uuid -d 'A logged model' -r
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from register" -l source -d 'An address: runs:/ID/PATH, models:/m-ID, models:/NAME/VERSION, mlflow-artifacts:/..., s3://...; --run names the run that it belongs to, where the address does not' -r
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from register" -l description -d 'The version\'s description' -r
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from register" -l tag -d 'A tag of the version; repeatable' -r
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from register" -l config -d 'Configuration file [default: MLOPS_CONFIG, ~/.config/mlops/config.toml, /etc/mlops/config.toml]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from register" -l profile -d 'Profile in the configuration file whose values beat the file\'s own [default: MLOPS_PROFILE]' -r
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from register" -l tracking-uri -d 'Tracking server [default: MLOPS_TRACKING_URI, MLFLOW_TRACKING_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from register" -l backend-store-uri -d 'Backend database of MLflow\'s: a SQLite file or a postgresql:// address [default: MLOPS_BACKEND_STORE_URI, MLFLOW_BACKEND_STORE_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from register" -l artifact-root -d 'Where the server\'s artifacts are: a folder or s3://bucket/path [default: MLOPS_ARTIFACT_ROOT, MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_DEFAULT_ARTIFACT_ROOT]' -r
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from register" -l output -d 'Form of the result [default: table]' -r -f -a "table\t'For people'
json\t'One document'
nagios\t'A monitoring plugin\'s status line and performance data (health only)'
prometheus\t'Prometheus\' text format (health only)'
markdown\t'For a ticket or a chat (health only)'"
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from register" -l color -d 'Colours on the terminal [default: auto; NO_COLOR is honoured]' -r -f -a "auto\t''
always\t''
never\t''"
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from register" -l progress -d 'Progress on stderr: bars on a terminal, else a line every few seconds [default: auto]' -r -f -a "auto\t''
plain\t''
json\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from register" -l work-dir -d 'Folder for private copies of SQLite files [default: TMPDIR or /tmp]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from register" -l state-dir -d 'Folder for what is remembered between runs [default: /var/lib/mlops for root, else ~/.local/state/mlops]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from register" -l jobs -d 'Threads and connections that work at once [default: the number of processors]' -r
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from register" -s q -l quiet -d 'Say nothing on stderr but errors'
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from register" -s v -l verbose -d 'Log to stderr what is done; twice: every statement'
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from register" -l yes -d 'Agree to what would be asked'
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from register" -l dry-run -d 'Print the plan and stop; the exit code is that of the refusal the real run would give'
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from register" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from export" -l stage -d 'All versions in this stage: Production, Staging, Archived or None' -r
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from export" -l alias -d 'The versions with this alias' -r
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from export" -l name -d 'Only models whose name matches: `*` stands for any characters, `?` for one' -r
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from export" -l files -d 'Also download the files of each version below this folder, which is made if it is not there' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from export" -l config -d 'Configuration file [default: MLOPS_CONFIG, ~/.config/mlops/config.toml, /etc/mlops/config.toml]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from export" -l profile -d 'Profile in the configuration file whose values beat the file\'s own [default: MLOPS_PROFILE]' -r
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from export" -l tracking-uri -d 'Tracking server [default: MLOPS_TRACKING_URI, MLFLOW_TRACKING_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from export" -l backend-store-uri -d 'Backend database of MLflow\'s: a SQLite file or a postgresql:// address [default: MLOPS_BACKEND_STORE_URI, MLFLOW_BACKEND_STORE_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from export" -l artifact-root -d 'Where the server\'s artifacts are: a folder or s3://bucket/path [default: MLOPS_ARTIFACT_ROOT, MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_DEFAULT_ARTIFACT_ROOT]' -r
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from export" -l output -d 'Form of the result [default: table]' -r -f -a "table\t'For people'
json\t'One document'
nagios\t'A monitoring plugin\'s status line and performance data (health only)'
prometheus\t'Prometheus\' text format (health only)'
markdown\t'For a ticket or a chat (health only)'"
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from export" -l color -d 'Colours on the terminal [default: auto; NO_COLOR is honoured]' -r -f -a "auto\t''
always\t''
never\t''"
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from export" -l progress -d 'Progress on stderr: bars on a terminal, else a line every few seconds [default: auto]' -r -f -a "auto\t''
plain\t''
json\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from export" -l work-dir -d 'Folder for private copies of SQLite files [default: TMPDIR or /tmp]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from export" -l state-dir -d 'Folder for what is remembered between runs [default: /var/lib/mlops for root, else ~/.local/state/mlops]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from export" -l jobs -d 'Threads and connections that work at once [default: the number of processors]' -r
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from export" -s q -l quiet -d 'Say nothing on stderr but errors'
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from export" -s v -l verbose -d 'Log to stderr what is done; twice: every statement'
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from export" -l yes -d 'Agree to what would be asked'
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from export" -l dry-run -d 'Print the plan and stop; the exit code is that of the refusal the real run would give'
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from export" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from history" -l config -d 'Configuration file [default: MLOPS_CONFIG, ~/.config/mlops/config.toml, /etc/mlops/config.toml]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from history" -l profile -d 'Profile in the configuration file whose values beat the file\'s own [default: MLOPS_PROFILE]' -r
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from history" -l tracking-uri -d 'Tracking server [default: MLOPS_TRACKING_URI, MLFLOW_TRACKING_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from history" -l backend-store-uri -d 'Backend database of MLflow\'s: a SQLite file or a postgresql:// address [default: MLOPS_BACKEND_STORE_URI, MLFLOW_BACKEND_STORE_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from history" -l artifact-root -d 'Where the server\'s artifacts are: a folder or s3://bucket/path [default: MLOPS_ARTIFACT_ROOT, MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_DEFAULT_ARTIFACT_ROOT]' -r
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from history" -l output -d 'Form of the result [default: table]' -r -f -a "table\t'For people'
json\t'One document'
nagios\t'A monitoring plugin\'s status line and performance data (health only)'
prometheus\t'Prometheus\' text format (health only)'
markdown\t'For a ticket or a chat (health only)'"
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from history" -l color -d 'Colours on the terminal [default: auto; NO_COLOR is honoured]' -r -f -a "auto\t''
always\t''
never\t''"
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from history" -l progress -d 'Progress on stderr: bars on a terminal, else a line every few seconds [default: auto]' -r -f -a "auto\t''
plain\t''
json\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from history" -l work-dir -d 'Folder for private copies of SQLite files [default: TMPDIR or /tmp]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from history" -l state-dir -d 'Folder for what is remembered between runs [default: /var/lib/mlops for root, else ~/.local/state/mlops]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from history" -l jobs -d 'Threads and connections that work at once [default: the number of processors]' -r
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from history" -s q -l quiet -d 'Say nothing on stderr but errors'
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from history" -s v -l verbose -d 'Log to stderr what is done; twice: every statement'
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from history" -l yes -d 'Agree to what would be asked'
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from history" -l dry-run -d 'Print the plan and stop; the exit code is that of the refusal the real run would give'
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from history" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from help" -f -a "list" -d 'Every registered model in a line: versions, what is in Production and Staging, aliases, a metric, age'
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from help" -f -a "show" -d 'One model, one version or one logged model: run, metrics, params, signature, tags, files, lineage'
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from help" -f -a "register" -d 'Make a version of a registered model from a run\'s model, a logged model or an address'
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from help" -f -a "export" -d 'What is in production, as a JSON document, and with --files also its artifacts'
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from help" -f -a "history" -d 'Who was champion when, as the versions\' tags and the log of the state folder tell'
complete -c mlops -n "__fish_mlops_using_subcommand models; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c mlops -n "__fish_mlops_using_subcommand demo" -l experiments -d 'Experiments' -r
complete -c mlops -n "__fish_mlops_using_subcommand demo" -l runs -d 'Runs' -r
complete -c mlops -n "__fish_mlops_using_subcommand demo" -l metrics -d 'Metric rows, up to tens of millions' -r
complete -c mlops -n "__fish_mlops_using_subcommand demo" -l file -d 'Write the sample to this file and keep it' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand demo" -l target -d 'Migrate into this PostgreSQL database' -r
complete -c mlops -n "__fish_mlops_using_subcommand demo" -l config -d 'Configuration file [default: MLOPS_CONFIG, ~/.config/mlops/config.toml, /etc/mlops/config.toml]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand demo" -l profile -d 'Profile in the configuration file whose values beat the file\'s own [default: MLOPS_PROFILE]' -r
complete -c mlops -n "__fish_mlops_using_subcommand demo" -l tracking-uri -d 'Tracking server [default: MLOPS_TRACKING_URI, MLFLOW_TRACKING_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand demo" -l backend-store-uri -d 'Backend database of MLflow\'s: a SQLite file or a postgresql:// address [default: MLOPS_BACKEND_STORE_URI, MLFLOW_BACKEND_STORE_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand demo" -l artifact-root -d 'Where the server\'s artifacts are: a folder or s3://bucket/path [default: MLOPS_ARTIFACT_ROOT, MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_DEFAULT_ARTIFACT_ROOT]' -r
complete -c mlops -n "__fish_mlops_using_subcommand demo" -l output -d 'Form of the result [default: table]' -r -f -a "table\t'For people'
json\t'One document'
nagios\t'A monitoring plugin\'s status line and performance data (health only)'
prometheus\t'Prometheus\' text format (health only)'
markdown\t'For a ticket or a chat (health only)'"
complete -c mlops -n "__fish_mlops_using_subcommand demo" -l color -d 'Colours on the terminal [default: auto; NO_COLOR is honoured]' -r -f -a "auto\t''
always\t''
never\t''"
complete -c mlops -n "__fish_mlops_using_subcommand demo" -l progress -d 'Progress on stderr: bars on a terminal, else a line every few seconds [default: auto]' -r -f -a "auto\t''
plain\t''
json\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand demo" -l work-dir -d 'Folder for private copies of SQLite files [default: TMPDIR or /tmp]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand demo" -l state-dir -d 'Folder for what is remembered between runs [default: /var/lib/mlops for root, else ~/.local/state/mlops]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand demo" -l jobs -d 'Threads and connections that work at once [default: the number of processors]' -r
complete -c mlops -n "__fish_mlops_using_subcommand demo" -l only-sample -d 'Only write the sample'
complete -c mlops -n "__fish_mlops_using_subcommand demo" -s q -l quiet -d 'Say nothing on stderr but errors'
complete -c mlops -n "__fish_mlops_using_subcommand demo" -s v -l verbose -d 'Log to stderr what is done; twice: every statement'
complete -c mlops -n "__fish_mlops_using_subcommand demo" -l yes -d 'Agree to what would be asked'
complete -c mlops -n "__fish_mlops_using_subcommand demo" -l dry-run -d 'Print the plan and stop; the exit code is that of the refusal the real run would give'
complete -c mlops -n "__fish_mlops_using_subcommand demo" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlops -n "__fish_mlops_using_subcommand config; and not __fish_seen_subcommand_from show check init help" -l config -d 'Configuration file [default: MLOPS_CONFIG, ~/.config/mlops/config.toml, /etc/mlops/config.toml]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand config; and not __fish_seen_subcommand_from show check init help" -l profile -d 'Profile in the configuration file whose values beat the file\'s own [default: MLOPS_PROFILE]' -r
complete -c mlops -n "__fish_mlops_using_subcommand config; and not __fish_seen_subcommand_from show check init help" -l tracking-uri -d 'Tracking server [default: MLOPS_TRACKING_URI, MLFLOW_TRACKING_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand config; and not __fish_seen_subcommand_from show check init help" -l backend-store-uri -d 'Backend database of MLflow\'s: a SQLite file or a postgresql:// address [default: MLOPS_BACKEND_STORE_URI, MLFLOW_BACKEND_STORE_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand config; and not __fish_seen_subcommand_from show check init help" -l artifact-root -d 'Where the server\'s artifacts are: a folder or s3://bucket/path [default: MLOPS_ARTIFACT_ROOT, MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_DEFAULT_ARTIFACT_ROOT]' -r
complete -c mlops -n "__fish_mlops_using_subcommand config; and not __fish_seen_subcommand_from show check init help" -l output -d 'Form of the result [default: table]' -r -f -a "table\t'For people'
json\t'One document'
nagios\t'A monitoring plugin\'s status line and performance data (health only)'
prometheus\t'Prometheus\' text format (health only)'
markdown\t'For a ticket or a chat (health only)'"
complete -c mlops -n "__fish_mlops_using_subcommand config; and not __fish_seen_subcommand_from show check init help" -l color -d 'Colours on the terminal [default: auto; NO_COLOR is honoured]' -r -f -a "auto\t''
always\t''
never\t''"
complete -c mlops -n "__fish_mlops_using_subcommand config; and not __fish_seen_subcommand_from show check init help" -l progress -d 'Progress on stderr: bars on a terminal, else a line every few seconds [default: auto]' -r -f -a "auto\t''
plain\t''
json\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand config; and not __fish_seen_subcommand_from show check init help" -l work-dir -d 'Folder for private copies of SQLite files [default: TMPDIR or /tmp]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand config; and not __fish_seen_subcommand_from show check init help" -l state-dir -d 'Folder for what is remembered between runs [default: /var/lib/mlops for root, else ~/.local/state/mlops]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand config; and not __fish_seen_subcommand_from show check init help" -l jobs -d 'Threads and connections that work at once [default: the number of processors]' -r
complete -c mlops -n "__fish_mlops_using_subcommand config; and not __fish_seen_subcommand_from show check init help" -s q -l quiet -d 'Say nothing on stderr but errors'
complete -c mlops -n "__fish_mlops_using_subcommand config; and not __fish_seen_subcommand_from show check init help" -s v -l verbose -d 'Log to stderr what is done; twice: every statement'
complete -c mlops -n "__fish_mlops_using_subcommand config; and not __fish_seen_subcommand_from show check init help" -l yes -d 'Agree to what would be asked'
complete -c mlops -n "__fish_mlops_using_subcommand config; and not __fish_seen_subcommand_from show check init help" -l dry-run -d 'Print the plan and stop; the exit code is that of the refusal the real run would give'
complete -c mlops -n "__fish_mlops_using_subcommand config; and not __fish_seen_subcommand_from show check init help" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlops -n "__fish_mlops_using_subcommand config; and not __fish_seen_subcommand_from show check init help" -f -a "show" -d 'Each setting, its value (secrets masked) and its origin'
complete -c mlops -n "__fish_mlops_using_subcommand config; and not __fish_seen_subcommand_from show check init help" -f -a "check" -d 'Try what is set: read the secrets, ask the server, the database, the artifact root and the place of the backups'
complete -c mlops -n "__fish_mlops_using_subcommand config; and not __fish_seen_subcommand_from show check init help" -f -a "init" -d 'Write a configuration file, with every key explained in it'
complete -c mlops -n "__fish_mlops_using_subcommand config; and not __fish_seen_subcommand_from show check init help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from show" -l config -d 'Configuration file [default: MLOPS_CONFIG, ~/.config/mlops/config.toml, /etc/mlops/config.toml]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from show" -l profile -d 'Profile in the configuration file whose values beat the file\'s own [default: MLOPS_PROFILE]' -r
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from show" -l tracking-uri -d 'Tracking server [default: MLOPS_TRACKING_URI, MLFLOW_TRACKING_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from show" -l backend-store-uri -d 'Backend database of MLflow\'s: a SQLite file or a postgresql:// address [default: MLOPS_BACKEND_STORE_URI, MLFLOW_BACKEND_STORE_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from show" -l artifact-root -d 'Where the server\'s artifacts are: a folder or s3://bucket/path [default: MLOPS_ARTIFACT_ROOT, MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_DEFAULT_ARTIFACT_ROOT]' -r
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from show" -l output -d 'Form of the result [default: table]' -r -f -a "table\t'For people'
json\t'One document'
nagios\t'A monitoring plugin\'s status line and performance data (health only)'
prometheus\t'Prometheus\' text format (health only)'
markdown\t'For a ticket or a chat (health only)'"
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from show" -l color -d 'Colours on the terminal [default: auto; NO_COLOR is honoured]' -r -f -a "auto\t''
always\t''
never\t''"
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from show" -l progress -d 'Progress on stderr: bars on a terminal, else a line every few seconds [default: auto]' -r -f -a "auto\t''
plain\t''
json\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from show" -l work-dir -d 'Folder for private copies of SQLite files [default: TMPDIR or /tmp]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from show" -l state-dir -d 'Folder for what is remembered between runs [default: /var/lib/mlops for root, else ~/.local/state/mlops]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from show" -l jobs -d 'Threads and connections that work at once [default: the number of processors]' -r
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from show" -s q -l quiet -d 'Say nothing on stderr but errors'
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from show" -s v -l verbose -d 'Log to stderr what is done; twice: every statement'
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from show" -l yes -d 'Agree to what would be asked'
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from show" -l dry-run -d 'Print the plan and stop; the exit code is that of the refusal the real run would give'
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from check" -l config -d 'Configuration file [default: MLOPS_CONFIG, ~/.config/mlops/config.toml, /etc/mlops/config.toml]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from check" -l profile -d 'Profile in the configuration file whose values beat the file\'s own [default: MLOPS_PROFILE]' -r
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from check" -l tracking-uri -d 'Tracking server [default: MLOPS_TRACKING_URI, MLFLOW_TRACKING_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from check" -l backend-store-uri -d 'Backend database of MLflow\'s: a SQLite file or a postgresql:// address [default: MLOPS_BACKEND_STORE_URI, MLFLOW_BACKEND_STORE_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from check" -l artifact-root -d 'Where the server\'s artifacts are: a folder or s3://bucket/path [default: MLOPS_ARTIFACT_ROOT, MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_DEFAULT_ARTIFACT_ROOT]' -r
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from check" -l output -d 'Form of the result [default: table]' -r -f -a "table\t'For people'
json\t'One document'
nagios\t'A monitoring plugin\'s status line and performance data (health only)'
prometheus\t'Prometheus\' text format (health only)'
markdown\t'For a ticket or a chat (health only)'"
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from check" -l color -d 'Colours on the terminal [default: auto; NO_COLOR is honoured]' -r -f -a "auto\t''
always\t''
never\t''"
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from check" -l progress -d 'Progress on stderr: bars on a terminal, else a line every few seconds [default: auto]' -r -f -a "auto\t''
plain\t''
json\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from check" -l work-dir -d 'Folder for private copies of SQLite files [default: TMPDIR or /tmp]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from check" -l state-dir -d 'Folder for what is remembered between runs [default: /var/lib/mlops for root, else ~/.local/state/mlops]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from check" -l jobs -d 'Threads and connections that work at once [default: the number of processors]' -r
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from check" -s q -l quiet -d 'Say nothing on stderr but errors'
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from check" -s v -l verbose -d 'Log to stderr what is done; twice: every statement'
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from check" -l yes -d 'Agree to what would be asked'
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from check" -l dry-run -d 'Print the plan and stop; the exit code is that of the refusal the real run would give'
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from init" -l backup-to -d 'Where backups are kept: a folder or s3://bucket/path' -r
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from init" -l config -d 'Configuration file [default: MLOPS_CONFIG, ~/.config/mlops/config.toml, /etc/mlops/config.toml]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from init" -l profile -d 'Profile in the configuration file whose values beat the file\'s own [default: MLOPS_PROFILE]' -r
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from init" -l tracking-uri -d 'Tracking server [default: MLOPS_TRACKING_URI, MLFLOW_TRACKING_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from init" -l backend-store-uri -d 'Backend database of MLflow\'s: a SQLite file or a postgresql:// address [default: MLOPS_BACKEND_STORE_URI, MLFLOW_BACKEND_STORE_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from init" -l artifact-root -d 'Where the server\'s artifacts are: a folder or s3://bucket/path [default: MLOPS_ARTIFACT_ROOT, MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_DEFAULT_ARTIFACT_ROOT]' -r
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from init" -l output -d 'Form of the result [default: table]' -r -f -a "table\t'For people'
json\t'One document'
nagios\t'A monitoring plugin\'s status line and performance data (health only)'
prometheus\t'Prometheus\' text format (health only)'
markdown\t'For a ticket or a chat (health only)'"
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from init" -l color -d 'Colours on the terminal [default: auto; NO_COLOR is honoured]' -r -f -a "auto\t''
always\t''
never\t''"
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from init" -l progress -d 'Progress on stderr: bars on a terminal, else a line every few seconds [default: auto]' -r -f -a "auto\t''
plain\t''
json\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from init" -l work-dir -d 'Folder for private copies of SQLite files [default: TMPDIR or /tmp]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from init" -l state-dir -d 'Folder for what is remembered between runs [default: /var/lib/mlops for root, else ~/.local/state/mlops]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from init" -l jobs -d 'Threads and connections that work at once [default: the number of processors]' -r
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from init" -s q -l quiet -d 'Say nothing on stderr but errors'
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from init" -s v -l verbose -d 'Log to stderr what is done; twice: every statement'
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from init" -l yes -d 'Agree to what would be asked'
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from init" -l dry-run -d 'Print the plan and stop; the exit code is that of the refusal the real run would give'
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from init" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "show" -d 'Each setting, its value (secrets masked) and its origin'
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "check" -d 'Try what is set: read the secrets, ask the server, the database, the artifact root and the place of the backups'
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "init" -d 'Write a configuration file, with every key explained in it'
complete -c mlops -n "__fish_mlops_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c mlops -n "__fish_mlops_using_subcommand completions" -l config -d 'Configuration file [default: MLOPS_CONFIG, ~/.config/mlops/config.toml, /etc/mlops/config.toml]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand completions" -l profile -d 'Profile in the configuration file whose values beat the file\'s own [default: MLOPS_PROFILE]' -r
complete -c mlops -n "__fish_mlops_using_subcommand completions" -l tracking-uri -d 'Tracking server [default: MLOPS_TRACKING_URI, MLFLOW_TRACKING_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand completions" -l backend-store-uri -d 'Backend database of MLflow\'s: a SQLite file or a postgresql:// address [default: MLOPS_BACKEND_STORE_URI, MLFLOW_BACKEND_STORE_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand completions" -l artifact-root -d 'Where the server\'s artifacts are: a folder or s3://bucket/path [default: MLOPS_ARTIFACT_ROOT, MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_DEFAULT_ARTIFACT_ROOT]' -r
complete -c mlops -n "__fish_mlops_using_subcommand completions" -l output -d 'Form of the result [default: table]' -r -f -a "table\t'For people'
json\t'One document'
nagios\t'A monitoring plugin\'s status line and performance data (health only)'
prometheus\t'Prometheus\' text format (health only)'
markdown\t'For a ticket or a chat (health only)'"
complete -c mlops -n "__fish_mlops_using_subcommand completions" -l color -d 'Colours on the terminal [default: auto; NO_COLOR is honoured]' -r -f -a "auto\t''
always\t''
never\t''"
complete -c mlops -n "__fish_mlops_using_subcommand completions" -l progress -d 'Progress on stderr: bars on a terminal, else a line every few seconds [default: auto]' -r -f -a "auto\t''
plain\t''
json\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand completions" -l work-dir -d 'Folder for private copies of SQLite files [default: TMPDIR or /tmp]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand completions" -l state-dir -d 'Folder for what is remembered between runs [default: /var/lib/mlops for root, else ~/.local/state/mlops]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand completions" -l jobs -d 'Threads and connections that work at once [default: the number of processors]' -r
complete -c mlops -n "__fish_mlops_using_subcommand completions" -s q -l quiet -d 'Say nothing on stderr but errors'
complete -c mlops -n "__fish_mlops_using_subcommand completions" -s v -l verbose -d 'Log to stderr what is done; twice: every statement'
complete -c mlops -n "__fish_mlops_using_subcommand completions" -l yes -d 'Agree to what would be asked'
complete -c mlops -n "__fish_mlops_using_subcommand completions" -l dry-run -d 'Print the plan and stop; the exit code is that of the refusal the real run would give'
complete -c mlops -n "__fish_mlops_using_subcommand completions" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlops -n "__fish_mlops_using_subcommand man" -l config -d 'Configuration file [default: MLOPS_CONFIG, ~/.config/mlops/config.toml, /etc/mlops/config.toml]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand man" -l profile -d 'Profile in the configuration file whose values beat the file\'s own [default: MLOPS_PROFILE]' -r
complete -c mlops -n "__fish_mlops_using_subcommand man" -l tracking-uri -d 'Tracking server [default: MLOPS_TRACKING_URI, MLFLOW_TRACKING_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand man" -l backend-store-uri -d 'Backend database of MLflow\'s: a SQLite file or a postgresql:// address [default: MLOPS_BACKEND_STORE_URI, MLFLOW_BACKEND_STORE_URI]' -r
complete -c mlops -n "__fish_mlops_using_subcommand man" -l artifact-root -d 'Where the server\'s artifacts are: a folder or s3://bucket/path [default: MLOPS_ARTIFACT_ROOT, MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_DEFAULT_ARTIFACT_ROOT]' -r
complete -c mlops -n "__fish_mlops_using_subcommand man" -l output -d 'Form of the result [default: table]' -r -f -a "table\t'For people'
json\t'One document'
nagios\t'A monitoring plugin\'s status line and performance data (health only)'
prometheus\t'Prometheus\' text format (health only)'
markdown\t'For a ticket or a chat (health only)'"
complete -c mlops -n "__fish_mlops_using_subcommand man" -l color -d 'Colours on the terminal [default: auto; NO_COLOR is honoured]' -r -f -a "auto\t''
always\t''
never\t''"
complete -c mlops -n "__fish_mlops_using_subcommand man" -l progress -d 'Progress on stderr: bars on a terminal, else a line every few seconds [default: auto]' -r -f -a "auto\t''
plain\t''
json\t''
none\t''"
complete -c mlops -n "__fish_mlops_using_subcommand man" -l work-dir -d 'Folder for private copies of SQLite files [default: TMPDIR or /tmp]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand man" -l state-dir -d 'Folder for what is remembered between runs [default: /var/lib/mlops for root, else ~/.local/state/mlops]' -r -F
complete -c mlops -n "__fish_mlops_using_subcommand man" -l jobs -d 'Threads and connections that work at once [default: the number of processors]' -r
complete -c mlops -n "__fish_mlops_using_subcommand man" -s q -l quiet -d 'Say nothing on stderr but errors'
complete -c mlops -n "__fish_mlops_using_subcommand man" -s v -l verbose -d 'Log to stderr what is done; twice: every statement'
complete -c mlops -n "__fish_mlops_using_subcommand man" -l yes -d 'Agree to what would be asked'
complete -c mlops -n "__fish_mlops_using_subcommand man" -l dry-run -d 'Print the plan and stop; the exit code is that of the refusal the real run would give'
complete -c mlops -n "__fish_mlops_using_subcommand man" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mlops -n "__fish_mlops_using_subcommand help; and not __fish_seen_subcommand_from migrate db health backup restore cleanup promote rollback verify models demo config completions man help" -f -a "migrate" -d 'Move a store to another database or into an archive and back, or compare two stores'
complete -c mlops -n "__fish_mlops_using_subcommand help; and not __fish_seen_subcommand_from migrate db health backup restore cleanup promote rollback verify models demo config completions man help" -f -a "db" -d 'Look at a backend database, mend it, or make a new one'
complete -c mlops -n "__fish_mlops_using_subcommand help; and not __fish_seen_subcommand_from migrate db health backup restore cleanup promote rollback verify models demo config completions man help" -f -a "health" -d 'Look at the whole stack at once, and end with the exit code that a monitor understands'
complete -c mlops -n "__fish_mlops_using_subcommand help; and not __fish_seen_subcommand_from migrate db health backup restore cleanup promote rollback verify models demo config completions man help" -f -a "backup" -d 'Back up the database and the artifacts that it refers to, as one unit, while the stack is in use'
complete -c mlops -n "__fish_mlops_using_subcommand help; and not __fish_seen_subcommand_from migrate db health backup restore cleanup promote rollback verify models demo config completions man help" -f -a "restore" -d 'Make a stack of a backup: its artifacts below a root, its database in SQLite or PostgreSQL'
complete -c mlops -n "__fish_mlops_using_subcommand help; and not __fish_seen_subcommand_from migrate db health backup restore cleanup promote rollback verify models demo config completions man help" -f -a "cleanup" -d 'Delete old experiments and runs by policy, put them back, remove what is deleted for good'
complete -c mlops -n "__fish_mlops_using_subcommand help; and not __fish_seen_subcommand_from migrate db health backup restore cleanup promote rollback verify models demo config completions man help" -f -a "promote" -d 'Put a model\'s challenger into production, if every gate lets it through'
complete -c mlops -n "__fish_mlops_using_subcommand help; and not __fish_seen_subcommand_from migrate db health backup restore cleanup promote rollback verify models demo config completions man help" -f -a "rollback" -d 'Put the former champion back into production'
complete -c mlops -n "__fish_mlops_using_subcommand help; and not __fish_seen_subcommand_from migrate db health backup restore cleanup promote rollback verify models demo config completions man help" -f -a "verify" -d 'Prove a tracking server by using it: restarts, upgrades and moves, a new deployment, concurrent writers'
complete -c mlops -n "__fish_mlops_using_subcommand help; and not __fish_seen_subcommand_from migrate db health backup restore cleanup promote rollback verify models demo config completions man help" -f -a "models" -d 'Look at the model registry, register models, export what is in production, tell who was champion when'
complete -c mlops -n "__fish_mlops_using_subcommand help; and not __fish_seen_subcommand_from migrate db health backup restore cleanup promote rollback verify models demo config completions man help" -f -a "demo" -d 'Make a sample MLflow store and migrate it, to see what this tool does'
complete -c mlops -n "__fish_mlops_using_subcommand help; and not __fish_seen_subcommand_from migrate db health backup restore cleanup promote rollback verify models demo config completions man help" -f -a "config" -d 'Settings: where they come from, whether they work, and a first file of them'
complete -c mlops -n "__fish_mlops_using_subcommand help; and not __fish_seen_subcommand_from migrate db health backup restore cleanup promote rollback verify models demo config completions man help" -f -a "completions" -d 'Print a completion script for a shell'
complete -c mlops -n "__fish_mlops_using_subcommand help; and not __fish_seen_subcommand_from migrate db health backup restore cleanup promote rollback verify models demo config completions man help" -f -a "man" -d 'Write the man pages into a folder'
complete -c mlops -n "__fish_mlops_using_subcommand help; and not __fish_seen_subcommand_from migrate db health backup restore cleanup promote rollback verify models demo config completions man help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c mlops -n "__fish_mlops_using_subcommand help; and __fish_seen_subcommand_from migrate" -f -a "sqlite-to-pg" -d 'Move an MLflow SQLite database into PostgreSQL'
complete -c mlops -n "__fish_mlops_using_subcommand help; and __fish_seen_subcommand_from migrate" -f -a "export" -d 'Write a store into an archive: one file to keep, to send and to restore from'
complete -c mlops -n "__fish_mlops_using_subcommand help; and __fish_seen_subcommand_from migrate" -f -a "import" -d 'Make a store of an archive, in PostgreSQL or SQLite'
complete -c mlops -n "__fish_mlops_using_subcommand help; and __fish_seen_subcommand_from migrate" -f -a "verify" -d 'Compare any two stores, table by table and cell by cell'
complete -c mlops -n "__fish_mlops_using_subcommand help; and __fish_seen_subcommand_from db" -f -a "info" -d 'What a database is: engine, MLflow\'s revision and the releases that have it, rows and bytes per table'
complete -c mlops -n "__fish_mlops_using_subcommand help; and __fish_seen_subcommand_from db" -f -a "init" -d 'Make the role and the database that MLflow needs on a PostgreSQL server, and its tables if wanted'
complete -c mlops -n "__fish_mlops_using_subcommand help; and __fish_seen_subcommand_from db" -f -a "doctor" -d 'Every difference between a database and MLflow\'s schema at its revision, what it breaks, and the SQL that mends it'
complete -c mlops -n "__fish_mlops_using_subcommand help; and __fish_seen_subcommand_from backup" -f -a "create" -d 'The same as `mlops backup` alone'
complete -c mlops -n "__fish_mlops_using_subcommand help; and __fish_seen_subcommand_from backup" -f -a "list" -d 'The backups of a place: time, size, what the place grew by, runs, models, whether verified and pinned'
complete -c mlops -n "__fish_mlops_using_subcommand help; and __fish_seen_subcommand_from backup" -f -a "show" -d 'All that one backup says of itself'
complete -c mlops -n "__fish_mlops_using_subcommand help; and __fish_seen_subcommand_from backup" -f -a "verify" -d 'Check every checksum, and with --drill restore into a scratch database'
complete -c mlops -n "__fish_mlops_using_subcommand help; and __fish_seen_subcommand_from backup" -f -a "prune" -d 'Remove backups that no rule keeps, and contents that no backup refers to any more'
complete -c mlops -n "__fish_mlops_using_subcommand help; and __fish_seen_subcommand_from backup" -f -a "pin" -d 'Keep a backup for ever'
complete -c mlops -n "__fish_mlops_using_subcommand help; and __fish_seen_subcommand_from backup" -f -a "unpin" -d 'Let the rules decide on a backup again'
complete -c mlops -n "__fish_mlops_using_subcommand help; and __fish_seen_subcommand_from cleanup" -f -a "experiments" -d 'Soft-delete experiments whose last activity is long ago'
complete -c mlops -n "__fish_mlops_using_subcommand help; and __fish_seen_subcommand_from cleanup" -f -a "runs" -d 'Soft-delete runs whose last activity is long ago'
complete -c mlops -n "__fish_mlops_using_subcommand help; and __fish_seen_subcommand_from cleanup" -f -a "policy" -d 'Do what [[cleanup.policy]] of the configuration says, entry after entry: the line for cron'
complete -c mlops -n "__fish_mlops_using_subcommand help; and __fish_seen_subcommand_from cleanup" -f -a "undo" -d 'Put back exactly what a batch deleted; without an id, list the batches'
complete -c mlops -n "__fish_mlops_using_subcommand help; and __fish_seen_subcommand_from cleanup" -f -a "purge" -d 'Remove deleted runs, logged models and experiments for good: artifacts, then rows'
complete -c mlops -n "__fish_mlops_using_subcommand help; and __fish_seen_subcommand_from cleanup" -f -a "orphans" -d 'Find what lost its other half: artifacts without a row, rows without artifacts, rows without a parent'
complete -c mlops -n "__fish_mlops_using_subcommand help; and __fish_seen_subcommand_from verify" -f -a "persistence" -d 'Restart the stack, and see whether all that was in it is still there'
complete -c mlops -n "__fish_mlops_using_subcommand help; and __fish_seen_subcommand_from verify" -f -a "snapshot" -d 'Write down what a stack holds, for `verify compare` after an upgrade or a move'
complete -c mlops -n "__fish_mlops_using_subcommand help; and __fish_seen_subcommand_from verify" -f -a "compare" -d 'Compare a stack with a snapshot of it: what was lost, what was changed, what is new'
complete -c mlops -n "__fish_mlops_using_subcommand help; and __fish_seen_subcommand_from verify" -f -a "deployment" -d 'Register, find, download, move and delete a small model, step by step'
complete -c mlops -n "__fish_mlops_using_subcommand help; and __fish_seen_subcommand_from verify" -f -a "concurrency" -d 'Let many writers write at the same time, and compare what is there with what the server said'
complete -c mlops -n "__fish_mlops_using_subcommand help; and __fish_seen_subcommand_from models" -f -a "list" -d 'Every registered model in a line: versions, what is in Production and Staging, aliases, a metric, age'
complete -c mlops -n "__fish_mlops_using_subcommand help; and __fish_seen_subcommand_from models" -f -a "show" -d 'One model, one version or one logged model: run, metrics, params, signature, tags, files, lineage'
complete -c mlops -n "__fish_mlops_using_subcommand help; and __fish_seen_subcommand_from models" -f -a "register" -d 'Make a version of a registered model from a run\'s model, a logged model or an address'
complete -c mlops -n "__fish_mlops_using_subcommand help; and __fish_seen_subcommand_from models" -f -a "export" -d 'What is in production, as a JSON document, and with --files also its artifacts'
complete -c mlops -n "__fish_mlops_using_subcommand help; and __fish_seen_subcommand_from models" -f -a "history" -d 'Who was champion when, as the versions\' tags and the log of the state folder tell'
complete -c mlops -n "__fish_mlops_using_subcommand help; and __fish_seen_subcommand_from config" -f -a "show" -d 'Each setting, its value (secrets masked) and its origin'
complete -c mlops -n "__fish_mlops_using_subcommand help; and __fish_seen_subcommand_from config" -f -a "check" -d 'Try what is set: read the secrets, ask the server, the database, the artifact root and the place of the backups'
complete -c mlops -n "__fish_mlops_using_subcommand help; and __fish_seen_subcommand_from config" -f -a "init" -d 'Write a configuration file, with every key explained in it'
