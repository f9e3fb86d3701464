//! The command line: which words and flags there are, and how they are read.
//!
//! Commands and flags are defined once, in [`ROOT`]; parsing, help and the environment are made from
//! these tables. They are read as etcdctl's users are used to: flags stand before or after the verb,
//! verbs may be shortened to a prefix that is unique, `--` ends the flags.

use std::collections::BTreeMap;

use crate::go;

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing, or `=true`, `=false`.
    Bool,
    Int,
    Text,
    Duration,
    /// Values between commas; given again they add up.
    List,
}

/// One flag.
#[derive(Debug)]
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    pub(crate) short: Option<char>,
    pub(crate) kind: Kind,
    pub(crate) default: &'static str,
    pub(crate) usage: &'static str,
}

/// What a command does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Nothing but naming its children.
    Group,
    Put,
    Get,
    Del,
    Txn,
    Compaction,
    Watch,
    LeaseGrant,
    LeaseRevoke,
    LeaseTimeToLive,
    LeaseList,
    LeaseKeepAlive,
    MemberList,
    EndpointHealth,
    EndpointStatus,
    EndpointHashKv,
    WalDump,
    WalStatus,
    StoreDump,
    StoreStatus,
    StoreGet,
    SnapshotStatus,
    TracePut,
    TraceGet,
    TraceDel,
    TraceTxn,
    Slow,
    Version,
    Options,
    Help,
    /// A command of etcdctl that is known and refused.
    NotYet,
}

/// One command, with its children.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) name: &'static str,
    /// What follows the name.
    pub(crate) arguments: &'static str,
    /// What it does. The first line alone where it is listed.
    pub(crate) short: &'static str,
    pub(crate) verb: Verb,
    pub(crate) flags: &'static [Flag],
    /// Flags of all its children.
    pub(crate) shared_flags: &'static [Flag],
    pub(crate) children: &'static [Command],
}

pub(crate) const fn flag(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    usage: &'static str,
) -> Flag {
    Flag { name, short: None, kind, default, usage }
}

pub(crate) const fn on_off(name: &'static str, usage: &'static str) -> Flag {
    flag(name, Kind::Bool, "false", usage)
}

pub(crate) const fn number(name: &'static str, usage: &'static str) -> Flag {
    flag(name, Kind::Int, "0", usage)
}

pub(crate) const fn text(name: &'static str, default: &'static str, usage: &'static str) -> Flag {
    flag(name, Kind::Text, default, usage)
}

pub(crate) const fn command(
    name: &'static str,
    arguments: &'static str,
    short: &'static str,
    verb: Verb,
    flags: &'static [Flag],
) -> Command {
    Command { name, arguments, short, verb, flags, shared_flags: &[], children: &[] }
}

pub(crate) const fn not_yet(name: &'static str, short: &'static str) -> Command {
    command(name, "", short, Verb::NotYet, &[])
}

const CONSISTENCY: Flag =
    text("consistency", "l", "l asks the cluster (linearizable), s the member (serializable)");

const INTERACTIVE: Flag = Flag {
    name: "interactive",
    short: Some('i'),
    kind: Kind::Bool,
    default: "false",
    usage: "read requests from standard input, with prompts where there are any",
};

const PUT_FLAGS: &[Flag] = &[
    on_off("ignore-lease", "leave the key's lease as it is"),
    on_off("ignore-value", "leave the key's value as it is"),
    text("lease", "0", "lease to attach, in hexadecimal"),
    on_off("prev-kv", "also print what was there before"),
];

const GET_FLAGS: &[Flag] = &[
    CONSISTENCY,
    on_off("count-only", "only count (with --write-out=fields)"),
    on_off("from-key", "from the given key on, in byte order"),
    on_off("keys-only", "keys without their values"),
    number("limit", "no more keys than this"),
    number("max-create-rev", "created at this revision or before"),
    number("max-mod-rev", "last changed at this revision or before"),
    number("min-create-rev", "created at this revision or later"),
    number("min-mod-rev", "last changed at this revision or later"),
    text("order", "", "ASCEND or DESCEND"),
    on_off("prefix", "all keys that begin with the given one"),
    on_off("print-value-only", "values without their keys (with --write-out=simple)"),
    number("rev", "as of this revision"),
    text("sort-by", "", "CREATE, KEY, MODIFY, VALUE or VERSION"),
    on_off("stream", "read in pieces"),
];

const DEL_FLAGS: &[Flag] = &[
    on_off("from-key", "from the given key on, in byte order"),
    on_off("prefix", "all keys that begin with the given one"),
    on_off("prev-kv", "also print what was deleted"),
    on_off("range", "two keys are meant as a range: do not wait for second thoughts"),
];

const WATCH_FLAGS: &[Flag] = &[
    INTERACTIVE,
    on_off("prefix", "all keys that begin with the given one"),
    on_off("prev-kv", "also print what was there before"),
    on_off("progress-notify", "let the member say from time to time how far it is"),
    number("rev", "begin with this revision"),
];

/// The operations of a transaction, which are read like commands.
pub(crate) static OPERATIONS: [Command; 3] = [
    command("del", "<key> [range_end]", "Deletes keys", Verb::Del, DEL_FLAGS),
    command("get", "<key> [range_end]", "Reads keys", Verb::Get, GET_FLAGS),
    command("put", "<key> <value>", "Writes a key", Verb::Put, PUT_FLAGS),
];

/// `watch` alone, for its interactive lines.
pub(crate) static WATCH: Command = command(
    "watch",
    "[key] [range_end] [-- command argument ...]",
    "Prints changes of keys as they happen",
    Verb::Watch,
    WATCH_FLAGS,
);

/// etcdctl, whole.
pub(crate) static ROOT: Command = Command {
    name: "etcdctl",
    arguments: "",
    short: "The command line of a Quorate or etcd cluster.",
    verb: Verb::Group,
    flags: &[],
    shared_flags: &[
        text("auth-jwt-token", "", "token to authenticate with"),
        text("cacert", "", "certificates to check the servers' with"),
        text("cert", "", "certificate to show to servers"),
        flag("command-timeout", Kind::Duration, "5s", "time for one command"),
        on_off("debug", "say what is configured"),
        flag("dial-timeout", Kind::Duration, "2s", "time for making one connection"),
        Flag {
            name: "discovery-srv",
            short: Some('d'),
            kind: Kind::Text,
            default: "",
            usage: "domain whose SRV records name the endpoints",
        },
        text("discovery-srv-name", "", "service name in those records"),
        flag("endpoints", Kind::List, "127.0.0.1:2379", "members' client addresses"),
        on_off("hex", "print keys, values and ids in hexadecimal"),
        flag("insecure-discovery", Kind::Bool, "true", "take insecure SRV records"),
        on_off("insecure-skip-tls-verify", "do not check the servers' certificates"),
        flag("insecure-transport", Kind::Bool, "true", "talk to servers in the clear"),
        flag("keepalive-time", Kind::Duration, "2s", "time between pings"),
        flag("keepalive-timeout", Kind::Duration, "6s", "time for the answer to a ping"),
        text("key", "", "key of that certificate"),
        number("max-recv-bytes", "the largest answer taken, in bytes (0: 2 GiB)"),
        number("max-request-bytes", "the largest request sent, in bytes (0: 2 MiB)"),
        text("password", "", "password of the user"),
        text("user", "", "name[:password] to authenticate with"),
        Flag {
            name: "write-out",
            short: Some('w'),
            kind: Kind::Text,
            default: "simple",
            usage: "how to print: fields, json, protobuf, simple or table",
        },
    ],
    children: &[
        not_yet("alarm", "Shows and clears alarms (not yet supported)"),
        not_yet("auth", "Switches authentication (not yet supported)"),
        not_yet("check", "Measures a cluster (not yet supported)"),
        command(
            "compaction",
            "<revision>",
            "Forgets the history before a revision",
            Verb::Compaction,
            &[on_off("physical", "wait until its space is free")],
        ),
        not_yet("completion", "Makes a completion script (not yet supported)"),
        not_yet("defrag", "Gives space back (not yet supported)"),
        command("del", "<key> [range_end]", "Deletes keys", Verb::Del, DEL_FLAGS),
        not_yet("downgrade", "Prepares an older version (not yet supported)"),
        not_yet("elect", "Takes part in an election (not yet supported)"),
        Command {
            name: "endpoint",
            arguments: "",
            short: "Asks single members",
            verb: Verb::Group,
            flags: &[],
            shared_flags: &[on_off("cluster", "ask all members of the cluster")],
            children: &[
                command(
                    "hashkv",
                    "",
                    "Hashes the members' keys",
                    Verb::EndpointHashKv,
                    &[number("rev", "up to this revision (0: the current one)")],
                ),
                command("health", "", "Says whether members serve", Verb::EndpointHealth, &[]),
                command("status", "", "Shows the members' state", Verb::EndpointStatus, &[]),
            ],
        },
        command("get", "<key> [range_end]", "Reads keys", Verb::Get, GET_FLAGS),
        command("help", "[command]", "Explains a command", Verb::Help, &[]),
        Command {
            name: "lease",
            arguments: "",
            short: "Grants, revokes and renews leases",
            verb: Verb::Group,
            flags: &[],
            shared_flags: &[],
            children: &[
                command("grant", "<ttl>", "Grants a lease", Verb::LeaseGrant, &[]),
                command(
                    "keep-alive",
                    "<lease>",
                    "Renews a lease until interrupted",
                    Verb::LeaseKeepAlive,
                    &[on_off("once", "renew it once")],
                ),
                command("list", "", "Lists the leases", Verb::LeaseList, &[]),
                command("revoke", "<lease>", "Ends a lease", Verb::LeaseRevoke, &[]),
                command(
                    "timetolive",
                    "<lease>",
                    "Shows how long a lease has to live",
                    Verb::LeaseTimeToLive,
                    &[on_off("keys", "also list its keys")],
                ),
            ],
        },
        not_yet("lock", "Holds a lock (not yet supported)"),
        not_yet("make-mirror", "Mirrors keys to another cluster (not yet supported)"),
        Command {
            name: "member",
            arguments: "",
            short: "Shows and changes the membership",
            verb: Verb::Group,
            flags: &[],
            shared_flags: &[],
            children: &[
                not_yet("add", "Adds a member (not yet supported)"),
                command("list", "", "Lists the members", Verb::MemberList, &[CONSISTENCY]),
                not_yet("promote", "Makes a learner a voter (not yet supported)"),
                not_yet("remove", "Removes a member (not yet supported)"),
                not_yet("update", "Changes a member (not yet supported)"),
            ],
        },
        not_yet("move-leader", "Hands leadership over (not yet supported)"),
        command("options", "", "Lists the flags of all commands", Verb::Options, &[]),
        command("put", "<key> <value>", "Writes a key", Verb::Put, PUT_FLAGS),
        not_yet("role", "Manages roles (not yet supported)"),
        command(
            "slow",
            "",
            "Lists the slowest requests of the last minutes",
            Verb::Slow,
            &[
                on_off("cluster", "ask all members of the cluster"),
                flag("limit", Kind::Int, "20", "no more than this"),
            ],
        ),
        not_yet("snapshot", "Saves a snapshot (not yet supported)"),
        Command {
            name: "trace",
            arguments: "",
            short: "Runs a request, and shows what it went through",
            verb: Verb::Group,
            flags: &[],
            shared_flags: &[on_off("explain", "say in words where the time went")],
            children: &[
                command("del", "<key> [range_end]", "Deletes keys", Verb::TraceDel, DEL_FLAGS),
                command("get", "<key> [range_end]", "Reads keys", Verb::TraceGet, GET_FLAGS),
                command("put", "<key> <value>", "Writes a key", Verb::TracePut, PUT_FLAGS),
                command("txn", "", "Runs a transaction", Verb::TraceTxn, &[INTERACTIVE]),
            ],
        },
        command("txn", "", "Runs a transaction", Verb::Txn, &[INTERACTIVE]),
        not_yet("user", "Manages users (not yet supported)"),
        command("version", "", "Prints the version", Verb::Version, &[]),
        command(
            "watch",
            "[key] [range_end] [-- command argument ...]",
            "Prints changes of keys as they happen",
            Verb::Watch,
            WATCH_FLAGS,
        ),
    ],
};

/// A command line that was understood.
#[derive(Debug)]
pub(crate) struct Parsed {
    /// The command and its parents, outermost first.
    pub(crate) path: Vec<&'static Command>,
    /// What is neither command nor flag.
    pub(crate) arguments: Vec<Vec<u8>>,
    /// How many of the arguments stood before `--`, if there was one.
    pub(crate) dash: Option<usize>,
    /// `-h` or `--help` was given.
    pub(crate) help: bool,
    /// Flags that were set, here or in the environment.
    values: BTreeMap<&'static str, String>,
}

/// Why a command line was not understood.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UsageError {
    pub(crate) message: String,
    /// The command whose usage helps.
    pub(crate) command: Option<&'static str>,
}

impl Parsed {
    /// The command itself.
    pub(crate) fn command(&self) -> &'static Command {
        self.path.last().expect("a path begins with the root")
    }

    /// Whether the flag was set.
    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// All flags of the command and of its parents, by name.
    pub(crate) fn flags(&self) -> Vec<&'static Flag> {
        flags_of(&self.path)
    }

    /// Sets a flag, as if it had been given. Lists add up.
    pub(crate) fn set(&mut self, flag: &'static Flag, value: &str) -> Result<(), String> {
        check_value(flag.kind, value)?;
        let slot = self.values.entry(flag.name);
        slot.and_modify(|old| match flag.kind {
            Kind::List => *old = format!("{old},{value}"),
            _ => value.clone_into(old),
        })
        .or_insert_with(|| value.to_owned());
        Ok(())
    }

    /// The flag's value, or its default.
    ///
    /// # Panics
    /// If the command has no such flag: that is a misspelling in this program.
    pub(crate) fn text(&self, name: &str) -> &str {
        let flag = self.flags().into_iter().find(|flag| flag.name == name);
        let flag = flag.unwrap_or_else(|| panic!("no flag --{name} is defined"));
        self.values.get(name).map_or(flag.default, String::as_str)
    }

    pub(crate) fn bool(&self, name: &str) -> bool {
        go::parse_bool(self.text(name)).expect("it was checked when it was set")
    }

    pub(crate) fn int(&self, name: &str) -> i64 {
        go::parse_int(self.text(name), 0).expect("it was checked when it was set")
    }

    pub(crate) fn duration(&self, name: &str) -> std::time::Duration {
        go::parse_duration(self.text(name)).expect("it was checked when it was set")
    }

    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        match self.text(name) {
            "" => Vec::new(),
            text => text.split(',').map(|part| part.trim().to_owned()).collect(),
        }
    }
}

fn check_value(kind: Kind, value: &str) -> Result<(), String> {
    match kind {
        Kind::Bool => go::parse_bool(value).map(drop),
        Kind::Int => go::parse_int(value, 0).map(drop),
        Kind::Duration => go::parse_duration(value).map(drop),
        Kind::Text | Kind::List => Ok(()),
    }
}

/// Reads a command line: first which command is meant, then its flags and arguments.
pub(crate) fn parse(root: &'static Command, words: &[Vec<u8>]) -> Result<Parsed, UsageError> {
    let mut path = vec![root];
    let mut rest = words.to_vec();
    while let Some(at) = first_argument(&path, &rest) {
        let here = *path.last().expect("a path begins with the root");
        let Some(child) = child(here.children, &rest[at]) else {
            if path.len() == 1 && !here.children.is_empty() {
                let word = go::quote(&rest[at]);
                let message = format!("unknown command {word} for \"{}\"", here.name);
                return Err(UsageError { message, command: None });
            }
            break;
        };
        rest.remove(at);
        path.push(child);
    }
    let parsed =
        Parsed { path, arguments: Vec::new(), dash: None, help: false, values: BTreeMap::new() };
    // What is refused is refused whatever its flags are.
    if parsed.command().verb == Verb::NotYet {
        return Ok(parsed);
    }
    read_flags(parsed, &rest)
}

/// The named child, or the only one whose name begins so.
fn child(children: &'static [Command], word: &[u8]) -> Option<&'static Command> {
    if let Some(exact) = children.iter().find(|child| child.name.as_bytes() == word) {
        return Some(exact);
    }
    // Commands that etcdctl has not must not take from others the prefix by which they are known.
    let is_ours = |child: &&Command| matches!(child.name, "slow" | "trace");
    let mut begins =
        children.iter().filter(|child| child.name.as_bytes().starts_with(word) && !is_ours(child));
    begins.next().filter(|_| !word.is_empty() && begins.next().is_none())
}

/// Where the first word stands that is neither flag nor a flag's value. An unknown flag is taken to
/// have a value, since that cannot be known.
fn first_argument(path: &[&'static Command], words: &[Vec<u8>]) -> Option<usize> {
    let flags = flags_of(path);
    let mut at = 0;
    while let Some(word) = words.get(at) {
        match word.as_slice() {
            b"--" => return None,
            [b'-', b'-', name @ ..] => {
                let known = flags.iter().find(|flag| flag.name.as_bytes() == name);
                let bare = known.is_some_and(|flag| flag.kind == Kind::Bool) || name == b"help";
                at += if bare || name.contains(&b'=') { 1 } else { 2 };
            }
            [b'-', short] => {
                let known = flags.iter().find(|flag| flag.short == Some(char::from(*short)));
                let bare = known.is_some_and(|flag| flag.kind == Kind::Bool) || *short == b'h';
                at += if bare { 1 } else { 2 };
            }
            [b'-', _, ..] => at += 1,
            _ => return Some(at),
        }
    }
    None
}

fn flags_of(path: &[&'static Command]) -> Vec<&'static Flag> {
    let own = path.last().into_iter().flat_map(|command| command.flags);
    own.chain(path.iter().flat_map(|command| command.shared_flags)).collect()
}

fn read_flags(mut parsed: Parsed, words: &[Vec<u8>]) -> Result<Parsed, UsageError> {
    let command = Some(parsed.command().name);
    let fail = |message: String| UsageError { message, command };
    let flags = parsed.flags();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let text = String::from_utf8_lossy(word).into_owned();
        if word == b"--" {
            parsed.dash = Some(parsed.arguments.len());
            parsed.arguments.extend(words.by_ref().cloned());
        } else if let Some(long) = text.strip_prefix("--") {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (long, None),
            };
            if name == "help" {
                parsed.help = true;
                continue;
            }
            let flag = flags.iter().find(|flag| flag.name == name);
            let flag = flag.ok_or_else(|| fail(format!("unknown flag: --{name}")))?;
            let value = match value {
                Some(value) => value,
                None if flag.kind == Kind::Bool => "true".to_owned(),
                None => match words.next() {
                    Some(value) => String::from_utf8_lossy(value).into_owned(),
                    None => return Err(fail(format!("flag needs an argument: --{name}"))),
                },
            };
            set(&mut parsed, flag, &value).map_err(fail)?;
        } else if word.len() > 1 && word[0] == b'-' {
            let mut letters = text[1..].chars();
            while let Some(letter) = letters.next() {
                if letter == 'h' {
                    parsed.help = true;
                    continue;
                }
                let flag = flags.iter().find(|flag| flag.short == Some(letter));
                let flag = flag.ok_or_else(|| {
                    let quoted = format!("'{letter}' in {text}");
                    fail(format!("unknown shorthand flag: {quoted}"))
                })?;
                let attached = letters.as_str();
                let value = match (flag.kind, attached.strip_prefix('=')) {
                    (_, Some(value)) => value.to_owned(),
                    (Kind::Bool, None) => {
                        set(&mut parsed, flag, "true").map_err(fail)?;
                        continue;
                    }
                    (_, None) if !attached.is_empty() => attached.to_owned(),
                    (_, None) => match words.next() {
                        Some(value) => String::from_utf8_lossy(value).into_owned(),
                        None => {
                            let message = format!("flag needs an argument: '{letter}' in {text}");
                            return Err(fail(message));
                        }
                    },
                };
                set(&mut parsed, flag, &value).map_err(fail)?;
                break;
            }
        } else {
            parsed.arguments.push(word.clone());
        }
    }
    Ok(parsed)
}

fn set(parsed: &mut Parsed, flag: &'static Flag, value: &str) -> Result<(), String> {
    parsed.set(flag, value).map_err(|why| {
        let name = match flag.short {
            Some(short) => format!("-{short}, --{}", flag.name),
            None => format!("--{}", flag.name),
        };
        format!("invalid argument {} for \"{name}\" flag: {why}", go::quote(value.as_bytes()))
    })
}

/// How to use a command: its children and flags, in columns.
pub(crate) fn usage(path: &[&'static Command]) -> String {
    let command = *path.last().expect("a path begins with the root");
    let mut name: String = path.iter().map(|command| command.name).collect::<Vec<_>>().join(" ");
    let mut out = String::from("Usage:\n");
    if !command.children.is_empty() {
        out.push_str(&format!("  {name} [command]\n\nAvailable Commands:\n"));
        let width = command.children.iter().map(|child| child.name.len()).max().unwrap_or(0);
        for child in command.children {
            let short = child.short.lines().next().unwrap_or_default();
            out.push_str(&format!("  {:width$}  {short}\n", child.name));
        }
    } else {
        if !command.arguments.is_empty() {
            name = format!("{name} {}", command.arguments);
        }
        out.push_str(&format!("  {name} [flags]\n"));
    }
    let shared = if path.len() > 1 { command.shared_flags } else { &[] };
    let flags: Vec<_> = command.flags.iter().chain(shared).collect();
    if !flags.is_empty() {
        out.push_str("\nFlags:\n");
        out.push_str(&flag_columns(&flags));
    }
    out
}

/// The flags that every command takes.
pub(crate) fn global_flags(root: &Command) -> String {
    flag_columns(&root.shared_flags.iter().collect::<Vec<_>>())
}

fn flag_columns(flags: &[&Flag]) -> String {
    let left = |flag: &Flag| {
        let short = flag.short.map_or("    ".to_owned(), |short| format!("-{short}, "));
        let kind = match flag.kind {
            Kind::Bool => "",
            Kind::Int => " int",
            Kind::Text => " string",
            Kind::Duration => " duration",
            Kind::List => " strings",
        };
        format!("  {short}--{}{kind}", flag.name)
    };
    let width = flags.iter().map(|flag| left(flag).len()).max().unwrap_or(0);
    let line = |flag: &&Flag| {
        let default = match (flag.kind, flag.default) {
            (_, "" | "0" | "false") => String::new(),
            (Kind::Text, default) => format!(" (default \"{default}\")"),
            (_, default) => format!(" (default {default})"),
        };
        format!("{:width$}   {}{default}\n", left(flag), flag.usage)
    };
    flags.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Parsed, UsageError> {
        let words: Vec<_> = line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
        parse(&ROOT, &words)
    }

    fn arguments(parsed: &Parsed) -> Vec<&str> {
        parsed.arguments.iter().map(|word| std::str::from_utf8(word).unwrap()).collect()
    }

    #[test]
    fn flags_stand_before_and_after_the_verb() {
        for line in [
            "--endpoints=a:1,b:2 -w json get k --prefix --limit=5",
            "get -w=json --endpoints a:1 --endpoints b:2 k --limit 5 --prefix=true",
            "get k -wjson --endpoints a:1,b:2 --limit 0x5 --prefix",
        ] {
            let parsed = read(line).unwrap();
            assert_eq!(parsed.command().verb, Verb::Get, "{line}");
            assert_eq!(arguments(&parsed), ["k"], "{line}");
            assert_eq!(parsed.list("endpoints"), ["a:1", "b:2"], "{line}");
            assert_eq!(parsed.text("write-out"), "json", "{line}");
            assert!(parsed.bool("prefix") && parsed.int("limit") == 5, "{line}");
        }
    }

    #[test]
    fn verbs_may_be_shortened_as_long_as_they_are_unique() {
        assert_eq!(read("le gr 60").unwrap().command().verb, Verb::LeaseGrant);
        assert_eq!(read("comp").unwrap_err().message, "unknown command \"comp\" for \"etcdctl\"");
        assert_eq!(read("compa 5").unwrap().command().verb, Verb::Compaction);
    }

    #[test]
    fn a_flag_of_a_group_may_stand_before_the_verb() {
        let parsed = read("endpoint --cluster status").unwrap();
        assert_eq!(parsed.command().verb, Verb::EndpointStatus);
        assert!(parsed.bool("cluster"));
    }

    #[test]
    fn a_double_dash_ends_the_flags() {
        let parsed = read("put -- -k --v").unwrap();
        assert_eq!(arguments(&parsed), ["-k", "--v"]);
        let parsed = read("watch k --rev 3 -- echo --rev").unwrap();
        assert_eq!((parsed.dash, parsed.int("rev")), (Some(1), 3));
        assert_eq!(arguments(&parsed), ["k", "echo", "--rev"]);
    }

    #[test]
    fn what_is_wrong_is_said_as_etcdctl_says_it() {
        for (line, message) in [
            ("frob", "unknown command \"frob\" for \"etcdctl\""),
            ("--bogus get x", "unknown command \"x\" for \"etcdctl\""),
            ("get --bogus x", "unknown flag: --bogus"),
            ("get x -z", "unknown shorthand flag: 'z' in -z"),
            ("get x --limit", "flag needs an argument: --limit"),
            ("get x -w", "flag needs an argument: 'w' in -w"),
            (
                "get x --limit=y",
                "invalid argument \"y\" for \"--limit\" flag: strconv.ParseInt: parsing \"y\": invalid syntax",
            ),
            (
                "get x --prefix=y",
                "invalid argument \"y\" for \"--prefix\" flag: strconv.ParseBool: parsing \"y\": invalid syntax",
            ),
        ] {
            assert_eq!(read(line).unwrap_err().message, message, "{line}");
        }
    }

    #[test]
    fn what_is_not_yet_there_is_known() {
        for line in ["alarm list", "member add x --peer-urls=y", "snapshot save f", "defrag"] {
            assert_eq!(read(line).unwrap().command().verb, Verb::NotYet, "{line}");
        }
    }

    #[test]
    fn flags_of_each_command_are_sorted_and_have_good_defaults() {
        fn check(command: &'static Command) {
            for flags in [command.flags, command.shared_flags] {
                assert!(flags.is_sorted_by_key(|flag| flag.name), "{}", command.name);
                for flag in flags {
                    check_value(flag.kind, flag.default).unwrap();
                }
            }
            assert!(command.children.is_sorted_by_key(|child| child.name), "{}", command.name);
            command.children.iter().for_each(check);
        }
        check(&ROOT);
    }
}
