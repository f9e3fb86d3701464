//! Runs the scenario scripts of etcd-io/raft's own language and compares every trace to the letter.
//!
//! The scripts are data that is kept outside the project: in the folder that `QUORATE_RAFT_SCRIPTS` names, else in
//! `shared/data/raft-scripts` beside the workspace. Without a folder the tests say so and pass, unless
//! `QUORATE_TESTS_STRICT` is set and does not allow to skip `raft_scripts`; a folder that is named and missing is a failure.
//!
//! Lines of prose (`DEBUG …`, `INFO …`, `WARN …`, `ERROR …`) are dropped on both sides, for this crate writes none;
//! what is then empty equals `ok`.

#![allow(clippy::unwrap_used)]
// The scripts lie outside the project, on a real disk.
#![allow(clippy::disallowed_methods)]

use bytes::{Bytes, BytesMut};
use raft::quorum::{Joint, Majority, VoteResult};
use raft::*;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, mem};

#[test]
fn clusters_behave_to_the_letter() {
    run_folder("interaction", || {
        let mut cluster = Cluster::default();
        Box::new(move |directive| cluster.handle(directive))
    });
}

#[test]
fn quorums_count_to_the_letter() {
    run_folder("quorum", || Box::new(count_quorum));
}

#[test]
fn configurations_change_to_the_letter() {
    run_folder("confchange", || {
        let mut membership = Membership::new(10, 0);
        let mut last = 0;
        Box::new(move |directive| {
            let index = Index(last);
            last += 1;
            match change_configuration(&membership, directive, index) {
                Ok(next) => {
                    membership = next;
                    format!("{membership}\n{}", describe_nodes(membership.nodes()))
                }
                Err(error) => error,
            }
        })
    });
}

/// The rules of the thesis, one by one, in the same language. These scripts are the project's own: they lie beside this file,
/// and `UPDATE_GOLDENFILES=1` writes what the commands say now.
#[test]
fn the_rules_of_the_thesis_hold() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/own");
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut unequal = Vec::new();
    for file in &files {
        let script = fs::read_to_string(file).unwrap();
        let mut cluster = Cluster::default();
        let told = tell(&script, &mut |directive| cluster.handle(directive));
        if told != script {
            unequal.push(format!("{}\n--- is\n{told}", file.display()));
            if env::var_os("UPDATE_GOLDENFILES").is_some() {
                fs::write(file, told).unwrap();
            }
        }
    }
    say(&format!("own: {} of {} scripts are equal", files.len() - unequal.len(), files.len()));
    assert!(unequal.is_empty(), "{} scripts differ:\n{}", unequal.len(), unequal.join("\n"));
}

/// A script with what its commands say now.
fn tell(script: &str, handle: &mut dyn FnMut(&Directive) -> String) -> String {
    let mut lines = script.lines();
    let mut told: Vec<String> = vec![
        lines.by_ref().take_while(|line| line.starts_with('#')).collect::<Vec<_>>().join("\n"),
    ];
    let mut rest = parse(&lines.map(|line| format!("{line}\n")).collect::<String>());
    for directive in &mut rest {
        let said = normalize(&handle(directive));
        let Directive { source, input, .. } = directive;
        told.push(format!("{source}\n{input}----\n{said}"));
    }
    told.join("\n\n") + "\n"
}

// --- Scripts. ---

/// One command of a script, its input, and what it is to print.
struct Directive {
    line: usize,
    source: String,
    command: String,
    arguments: Vec<Argument>,
    input: String,
    expected: String,
}

/// `key`, `key=value` or `key=(value, value)`.
struct Argument {
    key: String,
    values: Vec<String>,
}

impl Directive {
    /// The bare words that are numbers.
    fn ids(&self) -> Vec<NodeId> {
        let bare = self.arguments.iter().filter(|argument| argument.values.is_empty());
        bare.map(|argument| argument.key.parse().unwrap()).collect()
    }

    fn first(&self) -> NodeId {
        self.arguments[0].key.parse().unwrap()
    }

    fn values(&self, key: &str) -> &[String] {
        let found = self.arguments.iter().find(|argument| argument.key == key);
        found.map_or(&[], |argument| &argument.values)
    }

    fn numbers(&self, key: &str) -> Vec<u64> {
        self.values(key).iter().map(|value| value.parse().unwrap()).collect()
    }
}

type Handler = Box<dyn FnMut(&Directive) -> String>;

fn scripts() -> Option<PathBuf> {
    if let Some(named) = env::var_os("QUORATE_RAFT_SCRIPTS") {
        let folder = PathBuf::from(named);
        assert!(folder.is_dir(), "QUORATE_RAFT_SCRIPTS names {folder:?}, which is no folder");
        return Some(folder);
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    Some(workspace.join("../shared/data/raft-scripts")).filter(|folder| folder.is_dir())
}

/// Past the test harness, which would swallow what a passing test prints.
fn say(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// Each file has a handler of its own; the state lives as long as the file.
fn run_folder(name: &str, handler: impl Fn() -> Handler) {
    let Some(folder) = scripts() else {
        let reason = "no folder of raft scripts; QUORATE_RAFT_SCRIPTS can name one";
        say(&format!("skipped: raft_scripts: {reason}"));
        if let Ok(allowed) = env::var("QUORATE_TESTS_STRICT") {
            let is_allowed = allowed.split(',').any(|name| name == "raft_scripts");
            assert!(
                is_allowed,
                "raft_scripts was skipped ({reason}), and is not on the list of skips that are allowed: {allowed}"
            );
        }
        return;
    };
    let folder = folder.join(name);
    let mut files: Vec<PathBuf> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{folder:?} has no scripts");
    let mut unequal = Vec::new();
    for file in &files {
        let mut handle = handler();
        for directive in parse(&fs::read_to_string(file).unwrap()) {
            let actual = normalize(&handle(&directive));
            let expected = normalize(&directive.expected);
            if actual != expected {
                let place = format!("{}:{}", file.display(), directive.line);
                let command = &directive.command;
                unequal.push(format!(
                    "{place}: {command}\n--- expected\n{expected}\n--- actual\n{actual}\n"
                ));
                break;
            }
        }
    }
    say(&format!("{name}: {} of {} scripts are equal", files.len() - unequal.len(), files.len()));
    assert!(unequal.is_empty(), "{} scripts differ:\n{}", unequal.len(), unequal.join("\n"));
}

fn normalize(output: &str) -> String {
    let prose = |line: &str| {
        ["DEBUG ", "INFO ", "WARN ", "ERROR "].iter().any(|level| line.trim().starts_with(level))
    };
    let lines: Vec<&str> = output.lines().filter(|line| !prose(line)).collect();
    let kept = lines.join("\n");
    if kept.trim().is_empty() { "ok".to_string() } else { kept.trim_end().to_string() }
}

fn parse(script: &str) -> Vec<Directive> {
    let mut lines = script.lines().enumerate();
    let mut directives = Vec::new();
    while let Some((place, line)) = lines.next() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let mut command = line.to_string();
        while let Some(head) = command.strip_suffix('\\') {
            command = format!("{head} {}", lines.next().map_or("", |next| next.1).trim());
        }
        let mut input = String::new();
        for (_, line) in lines.by_ref().take_while(|(_, line)| *line != "----") {
            writeln!(input, "{line}").unwrap();
        }
        let mut expected = String::new();
        let mut blank_allowed = false;
        while let Some((_, line)) = lines.next() {
            match line {
                "----" if expected.is_empty() && !blank_allowed => blank_allowed = true,
                // A doubled line ends what may have blank lines.
                "----" if blank_allowed => {
                    lines.next();
                    break;
                }
                "" if !blank_allowed => break,
                _ => writeln!(expected, "{line}").unwrap(),
            }
        }
        let source = command;
        let (command, arguments) = words(&source);
        directives.push(Directive { line: place + 1, source, command, arguments, input, expected });
    }
    directives
}

fn words(line: &str) -> (String, Vec<Argument>) {
    let mut words = Vec::new();
    let mut depth = 0;
    for character in line.chars() {
        depth += i32::from(character == '(') - i32::from(character == ')');
        if character.is_whitespace() && depth == 0 {
            words.push(String::new());
        } else if !character.is_whitespace() {
            match words.last_mut() {
                Some(word) => word.push(character),
                None => words.push(character.to_string()),
            }
        }
    }
    words.retain(|word| !word.is_empty());
    let argument = |word: &String| match word.split_once('=') {
        None => Argument { key: word.clone(), values: Vec::new() },
        Some((key, values)) => {
            let values = values.trim_start_matches('(').trim_end_matches(')').split(',');
            let values = values.filter(|value| !value.is_empty()).map(str::to_string).collect();
            Argument { key: key.to_string(), values }
        }
    };
    (words[0].clone(), words[1..].iter().map(argument).collect())
}

fn parse_changes(input: &str) -> Result<Vec<ConfChangeSingle>, String> {
    let change = |token: &str| {
        let (kind, id) = token
            .split_at_checked(1)
            .filter(|parts| !parts.1.is_empty())
            .ok_or(format!("unknown token {token}"))?;
        let kind = match kind {
            "v" => ConfChangeKind::AddNode,
            "l" => ConfChangeKind::AddLearnerNode,
            "r" => ConfChangeKind::RemoveNode,
            "u" => ConfChangeKind::UpdateNode,
            _ => return Err(format!("unknown input: {token}")),
        };
        let node_id = id.parse().map_err(|_| format!("unknown input: {token}"))?;
        Ok(ConfChangeSingle { kind, node_id })
    };
    input.split_whitespace().map(change).collect()
}

// --- Quorums and configurations. ---

fn count_quorum(directive: &Directive) -> String {
    let incoming = directive.numbers("cfg");
    let joint = directive.arguments.iter().any(|argument| argument.key == "cfgj");
    let outgoing = match directive.values("cfgj") {
        [zero] if zero == "zero" => Vec::new(),
        values => values.iter().map(|value| value.parse().unwrap()).collect(),
    };
    let mut ids: Vec<NodeId> = Vec::new();
    for id in incoming.iter().chain(&outgoing) {
        if !ids.contains(id) {
            ids.push(*id);
        }
    }
    let voters = Joint { incoming: Majority::new(incoming), outgoing: Majority::new(outgoing) };
    let key = if directive.command == "vote" { "votes" } else { "idx" };
    let values = directive.values(key);
    if values.len() != ids.len() {
        let list = |values: &[String]| values.join(" ").replace('_', "0");
        let voters: Vec<String> = voters.ids().iter().map(u64::to_string).collect();
        return format!(
            "error: mismatched input (explicit or _) for voters {}: [{}]",
            format_args!("[{}]", voters.join(" ")),
            list(values)
        );
    }
    let value = |id: NodeId| {
        let place = ids.iter().position(|known| *known == id)?;
        Some(values[place].as_str()).filter(|value| *value != "_")
    };
    if key == "votes" {
        let vote = |id| value(id).map(|vote| vote == "y");
        let result = voters.vote_result(vote);
        assert!(joint || result == voters.incoming.vote_result(vote));
        return match result {
            VoteResult::Won => "VoteWon".to_string(),
            VoteResult::Lost => "VoteLost".to_string(),
            VoteResult::Pending => "VotePending".to_string(),
        };
    }
    let reached = |id| value(id).map(|index| index.parse::<u64>().unwrap());
    let committed = match voters.committed(reached) {
        u64::MAX => "∞".to_string(),
        index => index.to_string(),
    };
    format!("{}{committed}", draw_quorum(&voters.ids(), reached))
}

/// A table with a bar for each voter: the longer, the more others lag behind it.
fn draw_quorum(ids: &[NodeId], reached: impl Fn(NodeId) -> Option<u64>) -> String {
    if ids.is_empty() {
        return "<empty majority quorum>".to_string();
    }
    let count = ids.len();
    let index = |id: NodeId| reached(id).unwrap_or(0);
    let mut drawn = format!("{:count$}    idx\n", "");
    for id in ids {
        let bar = ids.iter().filter(|other| index(**other) < index(*id)).count();
        match reached(*id) {
            None => write!(drawn, "?{:count$}", "").unwrap(),
            Some(_) => {
                write!(drawn, "{}>{:rest$}", "x".repeat(bar), "", rest = count - bar).unwrap();
            }
        }
        writeln!(drawn, " {:5}    (id={id:x})", index(*id)).unwrap();
    }
    drawn
}

fn change_configuration(
    membership: &Membership,
    directive: &Directive,
    last: Index,
) -> Result<Membership, String> {
    let changes = parse_changes(&directive.input)?;
    let auto_leave = directive.values("autoleave") == ["true"];
    let next = match directive.command.as_str() {
        "simple" => membership.simple(&changes, last),
        "enter-joint" => membership.enter_joint(auto_leave, &changes, last),
        "leave-joint" if !changes.is_empty() => {
            return Err("this command takes no input".to_string());
        }
        "leave-joint" => membership.leave_joint(),
        _ => return Err("unknown command".to_string()),
    };
    next.map_err(|error| error.to_string())
}

fn describe_nodes(nodes: &[(NodeId, Progress)]) -> String {
    nodes.iter().map(|(id, progress)| format!("{id}: {progress}\n")).collect()
}

// --- Clusters. ---

const APPEND_THREAD: NodeId = u64::MAX;
const APPLY_THREAD: NodeId = u64::MAX - 1;

/// A node, its disk, and what its two background threads have not done yet.
struct Node {
    raft: Raft,
    asynchronous: bool,
    /// Of the entry before the first one.
    base: Index,
    entries: Vec<Entry>,
    /// The state after each applied entry.
    history: Vec<Snapshot>,
    append_work: VecDeque<Message>,
    apply_work: VecDeque<Message>,
}

#[derive(Default)]
struct Cluster {
    nodes: Vec<Node>,
    messages: Vec<Message>,
    output: String,
    quiet: bool,
}

impl Cluster {
    fn handle(&mut self, directive: &Directive) -> String {
        self.output.clear();
        if let Err(error) = self.command(directive) {
            if self.quiet {
                return error;
            }
            self.output.push_str(&error);
        }
        mem::take(&mut self.output)
    }

    fn command(&mut self, directive: &Directive) -> Result<(), String> {
        match directive.command.as_str() {
            "_breakpoint" => {}
            "add-nodes" => self.add_nodes(directive)?,
            "campaign" => self.raft(directive.first()).campaign(),
            "compact" => {
                let first = Index(directive.ids()[1]);
                let node = self.node(directive.first());
                node.raft.release(first);
                node.entries.retain(|entry| entry.index > first);
                node.base = first;
                self.print_log(directive.first());
            }
            "deliver-msgs" => self.deliver_as_told(directive),
            "process-ready" => self.for_each(directive, "handling Ready", Cluster::process_ready),
            "process-append-thread" => {
                self.for_each(directive, "processing append thread", Cluster::process_append);
            }
            "process-apply-thread" => {
                self.for_each(directive, "processing apply thread", Cluster::process_apply);
            }
            "log-level" => self.set_level(&directive.arguments[0].key)?,
            "raft-log" => self.print_log(directive.first()),
            "raft-state" => self.print_states(),
            "set-randomized-election-timeout" => {
                let ticks = directive.numbers("timeout")[0];
                self.raft(directive.first()).set_election_timeout(ticks as u32);
            }
            "stabilize" => {
                let quiet = self.quiet;
                if let [level] = directive.values("log-level") {
                    self.set_level(level)?;
                }
                self.stabilize(directive.ids());
                self.quiet = quiet;
            }
            "status" => {
                let peers = describe_nodes(&self.raft(directive.first()).status().peers);
                self.print(&peers);
            }
            "tick-election" => (0..3).for_each(|_| self.raft(directive.first()).tick()),
            "tick-heartbeat" => self.raft(directive.first()).tick(),
            "transfer-leadership" => {
                let (from, to) = (directive.numbers("from")[0], directive.numbers("to")[0]);
                self.raft(from).transfer_leader(to);
            }
            "forget-leader" => self.raft(directive.first()).forget_leader(),
            "send-snapshot" => self.send_snapshot(directive.ids()[0], directive.ids()[1]),
            "propose" => {
                let data = Bytes::from(directive.arguments[1].key.clone());
                let proposed = self.raft(directive.first()).propose(vec![data]);
                proposed.map_err(|error| error.to_string())?;
            }
            "propose-conf-change" => self.propose_conf_change(directive)?,
            "read-index" => {
                let [id, context] = directive.ids()[..] else {
                    return Err("a node and a number are needed".to_string());
                };
                self.raft(id).read_index(Bytes::from(vec![context as u8]));
            }
            "report-unreachable" => {
                let [on, peer] = directive.ids()[..] else {
                    return Err("must specify exactly two node indexes: node on which to report, \
                                and reported node"
                        .to_string());
                };
                self.raft(on).report_unreachable(peer);
            }
            _ => return Err("unknown command".to_string()),
        }
        Ok(())
    }

    fn node(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id as usize - 1]
    }

    fn raft(&mut self, id: NodeId) -> &mut Raft {
        &mut self.node(id).raft
    }

    fn print(&mut self, text: &str) {
        if !self.quiet {
            self.output.push_str(text);
        }
    }

    fn indented(&mut self, act: impl FnOnce(&mut Cluster)) {
        let before = mem::take(&mut self.output);
        act(self);
        let inner = mem::replace(&mut self.output, before);
        for line in inner.lines() {
            self.output.push_str(&format!("  {line}\n"));
        }
    }

    fn set_level(&mut self, level: &str) -> Result<(), String> {
        const LEVELS: [&str; 6] = ["DEBUG", "INFO", "WARN", "ERROR", "FATAL", "NONE"];
        let level = level.to_uppercase();
        if !LEVELS.contains(&level.as_str()) {
            return Err(format!("log levels must be either of [{}]", LEVELS.join(" ")));
        }
        self.quiet = level == "NONE";
        Ok(())
    }

    fn add_nodes(&mut self, directive: &Directive) -> Result<(), String> {
        let conf_state = ConfState {
            voters: directive.numbers("voters"),
            learners: directive.numbers("learners"),
            ..ConfState::default()
        };
        let index = Index(directive.numbers("index").first().copied().unwrap_or(0));
        let data = Bytes::from(directive.values("content").concat());
        let mut metadata = SnapshotMetadata { conf_state, index, term: Term(0) };
        if metadata != SnapshotMetadata::default() || !data.is_empty() {
            if index.0 <= 1 {
                return Err("index must be specified as > 1 due to bootstrap".to_string());
            }
            metadata.term = Term(1);
        }
        let yes = |key| directive.values(key) == ["true"];
        let number = |key, default| directive.numbers(key).first().copied().unwrap_or(default);
        let read_only = match directive.values("read-only") {
            [kind] if kind == "lease-based" => ReadOnly::LeaseBased,
            [kind] if kind != "safe" => return Err(format!("invalid read-only option {kind:?}")),
            _ => ReadOnly::Safe,
        };
        for _ in 0..directive.first() {
            let config = Config {
                id: self.nodes.len() as u64 + 1,
                election_ticks: 3,
                heartbeat_ticks: 1,
                max_size_per_message: u64::MAX,
                max_inflight_messages: number("inflight", i32::MAX as u64) as usize,
                max_inflight_bytes: 0,
                max_uncommitted_bytes: 0,
                max_committed_bytes_per_ready: number("max-committed-size-per-ready", 0),
                check_quorum: yes("checkquorum"),
                pre_vote: yes("prevote"),
                read_only,
                disable_proposal_forwarding: false,
                disable_conf_change_validation: yes("disable-conf-change-validation"),
                step_down_on_removal: yes("step-down-on-removal"),
                apply_unstable: !yes("async-storage-writes"),
                seed: 7,
            };
            let restored = Restored {
                conf_state: metadata.conf_state.clone(),
                applied: index,
                base: (index, metadata.term),
                ..Restored::default()
            };
            let snapshot = Snapshot { data: data.clone(), metadata: metadata.clone() };
            let mut raft = Raft::new(config, restored).map_err(|error| error.to_string())?;
            raft.offer_snapshot(snapshot.clone());
            self.nodes.push(Node {
                raft,
                asynchronous: yes("async-storage-writes"),
                base: index,
                entries: Vec::new(),
                history: vec![snapshot],
                append_work: VecDeque::new(),
                apply_work: VecDeque::new(),
            });
        }
        Ok(())
    }

    fn propose_conf_change(&mut self, directive: &Directive) -> Result<(), String> {
        let (mut v1, mut transition) = (false, ConfChangeTransition::Auto);
        for argument in &directive.arguments[1..] {
            for value in &argument.values {
                match argument.key.as_str() {
                    "v1" => v1 = value == "true",
                    "transition" => {
                        transition = match value.as_str() {
                            "auto" => ConfChangeTransition::Auto,
                            "implicit" => ConfChangeTransition::JointImplicit,
                            "explicit" => ConfChangeTransition::JointExplicit,
                            _ => return Err(format!("unknown transition {value}")),
                        };
                    }
                    key => return Err(format!("unknown command {key}")),
                }
            }
        }
        let changes = parse_changes(&directive.input)?;
        let raft = self.raft(directive.first());
        let proposed = if v1 {
            let [ConfChangeSingle { kind, node_id }] = changes[..] else {
                return Err(V1_ONLY.to_string());
            };
            if transition != ConfChangeTransition::Auto {
                return Err(V1_ONLY.to_string());
            }
            raft.propose_conf_change(&ConfChange { kind, node_id, ..ConfChange::default() })
        } else {
            let context = Bytes::new();
            raft.propose_conf_change_v2(&ConfChangeV2 { transition, changes, context })
        };
        proposed.map_err(|error| error.to_string())
    }

    fn for_each(&mut self, directive: &Directive, what: &str, act: fn(&mut Cluster, NodeId)) {
        let ids = directive.ids();
        for id in &ids {
            if ids.len() > 1 {
                self.print(&format!("> {id} {what}\n"));
                self.indented(|cluster| act(cluster, *id));
            } else {
                act(self, *id);
            }
        }
    }

    fn deliver_as_told(&mut self, directive: &Directive) {
        let kind = directive.values("type").first().cloned();
        let drops = directive.numbers("drop").into_iter().map(|id| (id, true));
        let recipients: Vec<_> =
            directive.ids().into_iter().map(|id| (id, false)).chain(drops).collect();
        let mut count = 0;
        for (id, drop) in recipients {
            count += self.deliver(id, kind.as_deref(), drop);
        }
        if count == 0 {
            self.print("no messages\n");
        }
    }

    fn deliver(&mut self, to: NodeId, kind: Option<&str>, drop: bool) -> usize {
        let local = |m: &Message| m.from == m.to || m.from >= APPLY_THREAD || m.to >= APPLY_THREAD;
        let (taken, rest): (Vec<_>, Vec<_>) =
            mem::take(&mut self.messages).into_iter().partition(|m| {
                let wanted = kind.is_none_or(|kind| format!("Msg{:?}", m.kind) == kind);
                m.to == to && !(drop && local(m)) && wanted
            });
        self.messages = rest;
        let count = taken.len();
        for message in taken {
            let dropped = if drop { "dropped: " } else { "" };
            self.print(&format!("{dropped}{}\n", describe_message("", &message)));
            if drop {
                continue;
            }
            if let Err(error) = self.node(to).receive(message) {
                self.print(&format!("{error}\n"));
            }
        }
        count
    }

    fn process_ready(&mut self, id: NodeId) {
        let node = self.node(id);
        let mut ready = node.raft.ready();
        assert!(ready.fetches.is_empty(), "nothing is ever evicted here");
        let persisted = ready.persisted.take();
        let mut messages = mem::take(&mut ready.messages);
        if node.asynchronous {
            if let Some(persisted) = persisted {
                messages.push(storage_append(id, &ready, persisted));
            }
            if let Some(last) = ready.committed.last() {
                assert!(last.index > Index(0));
                messages.push(storage_apply(id, ready.committed.clone()));
            }
            let described = describe_ready(&ready, &messages);
            for message in messages {
                match message.to {
                    APPEND_THREAD => self.node(id).append_work.push_back(message),
                    APPLY_THREAD => self.node(id).apply_work.push_back(message),
                    _ => self.messages.push(message),
                }
            }
            self.print(&described);
            return;
        }
        messages.append(&mut ready.messages_after_persist);
        let described = describe_ready(&ready, &messages);
        node.store(ready.snapshot.as_ref(), &ready.entries);
        node.apply(&ready.committed);
        if let Some(persisted) = persisted {
            node.raft.on_persisted(persisted);
        }
        if let Some(snapshot) = &ready.snapshot {
            node.raft.on_snapshot_installed(snapshot.metadata.index);
        }
        if let Some(last) = ready.committed.last() {
            node.raft.on_applied(last.index);
        }
        self.messages.extend(messages);
        self.print(&described);
    }

    fn process_append(&mut self, id: NodeId) {
        let node = self.node(id);
        let Some(mut work) = node.append_work.pop_front() else {
            return self.print("no append work to perform");
        };
        let responses = mem::take(&mut work.responses);
        node.store(work.snapshot.as_deref(), &work.entries);
        self.print_work(&work, responses);
    }

    fn process_apply(&mut self, id: NodeId) {
        let node = self.node(id);
        let Some(mut work) = node.apply_work.pop_front() else {
            return self.print("no apply work to perform");
        };
        let responses = mem::take(&mut work.responses);
        node.apply(&work.entries);
        self.print_work(&work, responses);
    }

    fn print_work(&mut self, work: &Message, responses: Vec<Message>) {
        self.print(&format!("Processing:\n{}\nResponses:\n", describe_message("", work)));
        for response in &responses {
            self.print(&format!("{}\n", describe_message("", response)));
        }
        self.messages.extend(responses);
    }

    fn stabilize(&mut self, ids: Vec<NodeId>) {
        let all: Vec<NodeId> = (1..=self.nodes.len() as u64).collect();
        let ids = if ids.is_empty() { all } else { ids };
        let mut idle = false;
        while !idle {
            idle = true;
            for id in &ids {
                if self.raft(*id).has_ready() {
                    self.print(&format!("> {id} handling Ready\n"));
                    self.indented(|cluster| cluster.process_ready(*id));
                    idle = false;
                }
            }
            for id in &ids {
                if self.messages.iter().any(|message| message.to == *id) {
                    self.print(&format!("> {id} receiving messages\n"));
                    self.indented(|cluster| {
                        cluster.deliver(*id, None, false);
                    });
                    idle = false;
                }
            }
            for id in &ids {
                if !self.node(*id).append_work.is_empty() {
                    self.print(&format!("> {id} processing append thread\n"));
                    while !self.node(*id).append_work.is_empty() {
                        self.indented(|cluster| cluster.process_append(*id));
                    }
                    idle = false;
                }
            }
            for id in &ids {
                if !self.node(*id).apply_work.is_empty() {
                    self.print(&format!("> {id} processing apply thread\n"));
                    while !self.node(*id).apply_work.is_empty() {
                        self.indented(|cluster| cluster.process_apply(*id));
                    }
                    idle = false;
                }
            }
        }
    }

    fn send_snapshot(&mut self, from: NodeId, to: NodeId) {
        let node = self.node(from);
        let snapshot = node.history.last().cloned().map(Box::new);
        let (kind, term) = (MessageKind::Snap, node.raft.term());
        let message = Message { kind, from, to, term, snapshot, ..Message::default() };
        self.print(&describe_message("", &message));
        self.messages.push(message);
    }

    fn print_log(&mut self, id: NodeId) {
        let node = self.node(id);
        let text = if node.entries.is_empty() {
            let (base, first) = (node.base, node.base.next());
            format!("log is empty: first index={first}, last index={base}")
        } else {
            describe_entries(&node.entries)
        };
        self.print(&text);
    }

    fn print_states(&mut self) {
        for place in 0..self.nodes.len() {
            let status = self.nodes[place].raft.status();
            let ConfState { voters, voters_outgoing, .. } = &status.conf_state;
            let votes = voters.contains(&status.id) || voters_outgoing.contains(&status.id);
            let voter = if votes { "Voter" } else { "Non-Voter" };
            let Status { id, role, term, leader, .. } = status;
            self.print(&format!("{id}: State{role:?} ({voter}) Term:{term} Lead:{leader}\n"));
        }
    }
}

const V1_ONLY: &str = "v1 conf change can only have one operation and no transition";

impl Node {
    /// What peers and the node's own threads say.
    fn receive(&mut self, message: Message) -> Result<(), StepError> {
        match message.kind {
            MessageKind::StorageAppendResp => {
                let last = Some((message.index, message.log_term));
                self.raft.on_persisted(Persisted {
                    term: message.term,
                    last: last.filter(|last| last.0 > Index(0)),
                    own: Vec::new(),
                });
                if let Some(snapshot) = message.snapshot {
                    self.raft.on_snapshot_installed(snapshot.metadata.index);
                }
            }
            MessageKind::StorageApplyResp => {
                self.raft.on_applied(message.entries.last().unwrap().index);
            }
            _ if message.from == message.to => {
                let term = message.term;
                let own = vec![OwnMessage { after: 0, message }];
                self.raft.on_persisted(Persisted { term, last: None, own });
            }
            _ => self.raft.step(message)?,
        }
        Ok(())
    }

    fn store(&mut self, snapshot: Option<&Snapshot>, entries: &[Entry]) {
        if let Some(snapshot) = snapshot {
            assert!(entries.is_empty(), "a snapshot and entries at a time");
            self.entries.clear();
            self.base = snapshot.metadata.index;
        }
        let Some(first) = entries.first() else { return };
        assert!(first.index.0 <= self.base.0 + self.entries.len() as u64 + 1, "a gap");
        self.entries.retain(|entry| entry.index < first.index);
        self.entries.extend_from_slice(entries);
    }

    /// The state is all data ever applied, one after the other.
    fn apply(&mut self, entries: &[Entry]) {
        for entry in entries {
            let before = self.history.last().unwrap();
            let mut data = BytesMut::from(&before.data[..]);
            let mut conf_state = before.metadata.conf_state.clone();
            match ConfChangeV2::of_entry(entry).unwrap() {
                Some(change) => {
                    conf_state = self.raft.apply_conf_change(&change).unwrap();
                    data.extend_from_slice(&change.context);
                }
                None => data.extend_from_slice(&entry.data),
            }
            let metadata = SnapshotMetadata { conf_state, index: entry.index, term: entry.term };
            self.history.push(Snapshot { data: data.freeze(), metadata });
            self.raft.offer_snapshot(self.history.last().unwrap().clone());
        }
    }
}

/// The append as a message to a thread, with what it releases.
fn storage_append(id: NodeId, ready: &Ready, persisted: Persisted) -> Message {
    let snapshot = ready.snapshot.clone().map(Box::new);
    let mut responses = Vec::new();
    let mut own = persisted.own.into_iter().peekable();
    for place in 0..=ready.messages_after_persist.len() {
        while let Some(message) = own.next_if(|own| own.after == place) {
            responses.push(message.message);
        }
        responses.extend(ready.messages_after_persist.get(place).cloned());
    }
    if persisted.last.is_some() || snapshot.is_some() {
        let (index, log_term) = persisted.last.unwrap_or_default();
        responses.push(Message {
            kind: MessageKind::StorageAppendResp,
            from: APPEND_THREAD,
            to: id,
            term: persisted.term,
            index,
            log_term,
            snapshot: snapshot.clone(),
            ..Message::default()
        });
    }
    let state = ready.hard_state.unwrap_or_default();
    Message {
        kind: MessageKind::StorageAppend,
        from: id,
        to: APPEND_THREAD,
        term: state.term,
        vote: state.vote,
        commit: state.commit,
        entries: ready.entries.clone(),
        snapshot,
        responses,
        ..Message::default()
    }
}

fn storage_apply(id: NodeId, entries: Vec<Entry>) -> Message {
    let response = Message {
        kind: MessageKind::StorageApplyResp,
        from: APPLY_THREAD,
        to: id,
        entries: entries.clone(),
        ..Message::default()
    };
    Message {
        kind: MessageKind::StorageApply,
        from: id,
        to: APPLY_THREAD,
        entries,
        responses: vec![response],
        ..Message::default()
    }
}

// --- How things are written in a trace. ---

fn describe_ready(ready: &Ready, messages: &[Message]) -> String {
    let mut text = String::new();
    if let Some(SoftState { leader, role }) = ready.soft_state {
        writeln!(text, "Lead:{leader} State:State{role:?}").unwrap();
    }
    if let Some(HardState { term, vote, commit }) = ready.hard_state {
        let vote = if vote == NONE { String::new() } else { format!(" Vote:{vote}") };
        writeln!(text, "HardState Term:{term}{vote} Commit:{commit}").unwrap();
    }
    if !ready.read_states.is_empty() {
        let state = |read: &ReadState| {
            let context: Vec<String> = read.context.iter().map(u8::to_string).collect();
            format!("{{{} [{}]}}", read.index, context.join(" "))
        };
        let states: Vec<String> = ready.read_states.iter().map(state).collect();
        writeln!(text, "ReadStates [{}]", states.join(" ")).unwrap();
    }
    if !ready.entries.is_empty() {
        write!(text, "Entries:\n{}", describe_entries(&ready.entries)).unwrap();
    }
    if let Some(snapshot) = &ready.snapshot {
        writeln!(text, "Snapshot {}", describe_snapshot(snapshot)).unwrap();
    }
    if !ready.committed.is_empty() {
        write!(text, "CommittedEntries:\n{}", describe_entries(&ready.committed)).unwrap();
    }
    if !messages.is_empty() {
        text.push_str("Messages:\n");
        for message in messages {
            writeln!(text, "{}", describe_message("", message)).unwrap();
        }
    }
    if text.is_empty() {
        return "<empty Ready>".to_string();
    }
    format!("Ready MustSync={}:\n{text}", ready.must_sync)
}

fn describe_message(indent: &str, m: &Message) -> String {
    let target = |id| match id {
        NONE => "None".to_string(),
        APPEND_THREAD => "AppendThread".to_string(),
        APPLY_THREAD => "ApplyThread".to_string(),
        id => format!("{id:x}"),
    };
    let (from, to) = (target(m.from), target(m.to));
    let mut text = format!(
        "{indent}{from}->{to} Msg{:?} Term:{} Log:{}/{}",
        m.kind, m.term, m.log_term, m.index
    );
    if m.reject {
        write!(text, " Rejected (Hint: {})", m.reject_hint).unwrap();
    }
    if m.commit > Index(0) {
        write!(text, " Commit:{}", m.commit).unwrap();
    }
    if m.vote != NONE {
        write!(text, " Vote:{}", m.vote).unwrap();
    }
    match &m.entries[..] {
        [] => {}
        [entry] => write!(text, " Entries:[{}]", describe_entry(entry)).unwrap(),
        entries => {
            text.push_str(" Entries:[");
            for entry in entries {
                write!(text, "\n{indent}  {}", describe_entry(entry)).unwrap();
            }
            write!(text, "\n{indent}]").unwrap();
        }
    }
    if let Some(snapshot) = &m.snapshot {
        write!(text, "\n{indent}  Snapshot: {}", describe_snapshot(snapshot)).unwrap();
    }
    if !m.responses.is_empty() {
        text.push_str(" Responses:[");
        for response in &m.responses {
            write!(text, "\n{}", describe_message(&format!("{indent}  "), response)).unwrap();
        }
        write!(text, "\n{indent}]").unwrap();
    }
    text
}

fn describe_snapshot(snapshot: &Snapshot) -> String {
    let SnapshotMetadata { conf_state, index, term } = &snapshot.metadata;
    let set = |ids: &[NodeId]| {
        let ids: Vec<String> = ids.iter().map(u64::to_string).collect();
        format!("[{}]", ids.join(" "))
    };
    format!(
        "Index:{index} Term:{term} ConfState:Voters:{} VotersOutgoing:{} Learners:{} \
         LearnersNext:{} AutoLeave:{}",
        set(&conf_state.voters),
        set(&conf_state.voters_outgoing),
        set(&conf_state.learners),
        set(&conf_state.learners_next),
        conf_state.auto_leave
    )
}

fn describe_entries(entries: &[Entry]) -> String {
    entries.iter().map(|entry| format!("{}\n", describe_entry(entry))).collect()
}

fn describe_entry(entry: &Entry) -> String {
    let carried = match ConfChangeV2::of_entry(entry).unwrap() {
        None => format!("{:?}", String::from_utf8_lossy(&entry.data)),
        Some(change) => {
            let step = |single: &ConfChangeSingle| {
                let kind = match single.kind {
                    ConfChangeKind::AddNode => "v",
                    ConfChangeKind::AddLearnerNode => "l",
                    ConfChangeKind::RemoveNode => "r",
                    ConfChangeKind::UpdateNode => "u",
                };
                format!("{kind}{}", single.node_id)
            };
            change.changes.iter().map(step).collect::<Vec<_>>().join(" ")
        }
    };
    let blank = if carried.is_empty() { "" } else { " " };
    format!("{}/{} Entry{:?}{blank}{carried}", entry.term, entry.index, entry.kind)
}
