//! The command line of `quorate bench`.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Parser, ValueEnum};

use crate::load::Load;
use crate::server::Binary;
use crate::workload::{Data, KEY_SPACE_MAX, NAMES, Workload};

/// How long each workload runs if nobody says otherwise.
const DURATION: Duration = Duration::from_secs(5);
/// How long it runs before it counts, if servers are started afresh.
const WARM_UP: Duration = Duration::from_secs(1);

/// Measures an etcd or Quorate cluster, or starts several servers in turn and compares them.
#[derive(Debug, Parser)]
#[command(
    name = "quorate bench",
    bin_name = "quorate bench",
    after_help = after_help(),
    styles = Styles::plain().header(AnsiColor::Green.on_default().bold())
        .literal(AnsiColor::Cyan.on_default()),
    max_term_width = 110,
)]
pub struct Flags {
    /// What to measure, one after the other; the names stand below.
    #[arg(value_name = "WORKLOAD")]
    pub names: Vec<Workload>,
    /// The same as naming it.
    #[arg(long = "workload", short = 'w', value_name = "WORKLOAD")]
    pub workloads: Vec<Workload>,

    /// Where the cluster is reached; it should hold nothing else, for keys and leases stay behind.
    #[arg(
        long,
        value_name = "HOST:PORT,…",
        value_delimiter = ',',
        default_value = "127.0.0.1:2379"
    )]
    pub endpoints: Vec<String>,
    /// Clients, each with one request at a time.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub clients: u32,
    /// Connections that the clients share.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub connections: u32,
    /// Operations of each workload; a watch counts events.
    #[arg(long, value_name = "N")]
    pub total: Option<u64>,
    /// How long each workload runs [default: 5s, or as long as --total takes].
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub duration: Option<Duration>,
    /// Operations a second, whatever the server does; latency then counts from when a request was due.
    #[arg(long, value_name = "N", value_parser = positive)]
    pub rate: Option<f64>,
    /// How long each workload runs before it counts [default: nothing; 1s with --server].
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub warm_up: Option<Duration>,
    /// Keys there are.
    #[arg(long, value_name = "N", default_value_t = 10_000,
        value_parser = clap::value_parser!(u64).range(1..=KEY_SPACE_MAX))]
    pub key_space: u64,
    /// Bytes of each value.
    #[arg(long, value_name = "BYTES", default_value_t = 256,
        value_parser = clap::value_parser!(u32).range(0..=64 << 20))]
    pub value_bytes: u32,
    /// Keys in turn instead of by chance.
    #[arg(long)]
    pub sequential: bool,
    /// Leases that are kept alive [default: as many as clients].
    #[arg(long, value_name = "N")]
    pub leases: Option<u64>,
    /// Watchers, besides, of a key that nobody writes.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub bystanders: u64,
    /// The seed of everything that is left to chance.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Threads that generate the load.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub threads: u32,

    /// A server to start afresh, and to compare with the first; `limit` is our serving layer that answers with a
    /// constant. Flags for it may follow the binary.
    #[arg(long = "server", value_name = "NAME=BINARY [FLAG…]")]
    pub servers: Vec<Binary>,
    /// Members of each server's cluster.
    #[arg(long, default_value = "1", value_parser = ["1", "3"], hide_possible_values = false)]
    pub members: String,
    /// Which of them the load goes to.
    #[arg(long, value_enum, default_value = "all")]
    pub target: Target,
    /// How often each server is started and measured; medians are shown.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// Where the servers' temporary directories are made; the disk that is measured [default: that of temporary
    /// files].
    #[arg(long, value_name = "DIR")]
    pub data_parent: Option<PathBuf>,
    /// The processor time that an operation may take, as a part of the reference's (`etcd…`, or the first server); what takes
    /// more is a missed target.
    #[arg(long, value_name = "PART", value_parser = positive)]
    pub cpu_within: Option<f64>,
    /// A whole set of measurements with targets, for --server; instead of workloads.
    #[arg(long, value_enum)]
    pub suite: Option<Suite>,
    /// Only the suite's rows whose name contains this.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub only: String,

    /// Writes everything that was measured.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Writes a page with plots.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// Which members the load goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// The leader.
    Leader,
    /// One of the others.
    Follower,
    /// All, by turns of connections.
    All,
}

/// Measurements that belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Suite {
    /// Rate and cost of each kind of request.
    Work,
    /// Cost as keys, watchers, connections, values and leases grow; ten million keys take their time (--only).
    Growth,
}

fn after_help() -> String {
    let mut out = String::from("Workloads:\n");
    for (name, what) in NAMES {
        out.push_str(&format!("  {name:18}{what}\n"));
    }
    out.push_str(
        "  Behind what reads, `:serializable` asks the member alone.\n\n\
         Examples:\n  \
         quorate bench put range --endpoints 127.0.0.1:2379\n  \
         quorate bench mixed:90 --rate 5000 --duration 1m --html mixed.html\n  \
         quorate bench put --server etcd=./etcd --server quorate=./quorate --server limit\n  \
         quorate bench --suite work --server etcd=./etcd --server quorate=./quorate --json work.json\n\n\
         It ends with 1 if any operation failed, or a row of a suite missed its target.",
    );
    out
}

/// A time such as `500ms`, `10s`, `1.5m`.
fn duration(text: &str) -> Result<Duration, String> {
    let unit_at = text.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("a time has a unit: 500ms, 10s, 1.5m, 1h".to_owned()),
    };
    let number: f64 = number.parse().map_err(|_| format!("{number:?} is no number"))?;
    Duration::try_from_secs_f64(number * seconds).map_err(|error| error.to_string())
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate <= 1e9 => Ok(rate),
        _ => Err("it is a number above 0".to_owned()),
    }
}

/// Where an endpoint is: `host:port`, with or without `http://`.
///
/// # Errors
/// Why it is none.
pub fn address(endpoint: &str) -> Result<SocketAddr, String> {
    if endpoint.starts_with("https://") {
        return Err(format!("{endpoint}: TLS is not spoken here"));
    }
    let plain = endpoint.strip_prefix("http://").unwrap_or(endpoint).trim_end_matches('/');
    let mut found = plain.to_socket_addrs().map_err(|error| format!("{endpoint}: {error}"))?;
    found.next().ok_or_else(|| format!("{endpoint}: no such host"))
}

impl FromStr for Binary {
    type Err = String;

    fn from_str(text: &str) -> Result<Binary, String> {
        let (name, command) = match text.split_once('=') {
            Some((name, command)) => (name, command),
            None if text == "limit" => ("limit", "limit"),
            None => return Err("it is NAME=BINARY, or limit".to_owned()),
        };
        let mut words = command.split_whitespace().map(str::to_owned);
        match words.next() {
            Some(program) if !name.is_empty() => Ok(Binary {
                name: name.to_owned(),
                limit: program == "limit",
                program: PathBuf::from(program),
                flags: words.collect(),
            }),
            _ => Err("neither name nor binary may be empty".to_owned()),
        }
    }
}

impl Flags {
    /// The workloads, however they were named.
    pub fn all_workloads(&self) -> Vec<Workload> {
        self.names.iter().chain(&self.workloads).copied().collect()
    }

    /// How many members a cluster has.
    pub fn member_count(&self) -> usize {
        self.members.parse().unwrap_or(1)
    }

    /// How long a load runs before it counts.
    pub fn warm_up(&self) -> Duration {
        let default = if self.servers.is_empty() { Duration::ZERO } else { WARM_UP };
        self.warm_up.unwrap_or(default)
    }

    /// The load of a workload with these flags.
    pub fn load(&self, workload: Workload) -> Load {
        let clients = self.clients as usize;
        let duration = match (self.duration, self.total) {
            (None, None) => Some(DURATION),
            (duration, _) => duration,
        };
        let (mut key_space, mut total) = (self.key_space, self.total);
        if workload == Workload::Delete {
            // Each key is deleted once, so there are as many operations as keys.
            key_space = total.unwrap_or(key_space).max(key_space);
            total = Some(total.unwrap_or(key_space));
        }
        Load {
            workload,
            data: Data {
                key_space,
                value_bytes: self.value_bytes as usize,
                sequential: self.sequential,
                seed: self.seed,
                first_lease: 0,
                leases: self.leases.unwrap_or(clients as u64).max(1),
                doomed: workload == Workload::Delete,
            },
            clients,
            connections: (self.connections as usize).min(clients),
            total,
            duration,
            rate: self.rate,
            threads: self.threads as usize,
            bystanders: self.bystanders,
            stopped: 0,
        }
    }

    /// What clap cannot see.
    ///
    /// # Errors
    /// What does not go together.
    pub fn check(&self) -> Result<(), String> {
        let workloads = self.all_workloads();
        match (self.suite, workloads.is_empty(), self.servers.is_empty()) {
            (Some(_), false, _) => Err("a suite has its own workloads".to_owned()),
            (Some(_), true, true) => Err("a suite needs --server".to_owned()),
            (Some(_), ..) if self.cpu_within.is_some() => {
                Err("a suite has its own targets; --cpu-within is for workloads".to_owned())
            }
            (None, ..) if self.cpu_within.is_some() && self.servers.len() < 2 => {
                Err("--cpu-within compares servers: name two".to_owned())
            }
            (None, true, _) => {
                Err("what shall be measured? (--help lists the workloads)".to_owned())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Flags {
        Flags::try_parse_from(["quorate bench"].into_iter().chain(line.split_whitespace())).unwrap()
    }

    #[test]
    fn the_definition_holds_together() {
        Flags::command().debug_assert();
    }

    #[test]
    fn a_line_is_a_load() {
        let flags =
            parse("put -w range:100 --clients 1000 --connections 100 --total 5000 --rate 2.5");
        let workloads = flags.all_workloads();
        assert_eq!(
            workloads.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["put", "range:100"]
        );
        let load = flags.load(workloads[0]);
        assert_eq!((load.clients, load.connections, load.total), (1000, 100, Some(5000)));
        assert_eq!((load.duration, load.rate), (None, Some(2.5)));
        assert_eq!(flags.warm_up(), Duration::ZERO);
        let load = parse("put").load(Workload::Put);
        assert_eq!((load.total, load.duration), (None, Some(DURATION)));
        let load = parse("delete --total 50000").load(Workload::Delete);
        assert_eq!((load.total, load.data.key_space), (Some(50_000), 50_000));
    }

    #[test]
    fn servers_have_names_and_flags_of_their_own() {
        let line =
            ["x", "put", "--server", "etcd=/bin/etcd --quota-backend-bytes 9", "--server", "limit"];
        let flags = Flags::try_parse_from(line).unwrap();
        let [etcd, limit] = &flags.servers[..] else { panic!("two servers") };
        assert_eq!((&*etcd.name, etcd.limit), ("etcd", false));
        assert_eq!(
            (&etcd.flags[..], etcd.program.to_str()),
            (&["--quota-backend-bytes".to_owned(), "9".to_owned()][..], Some("/bin/etcd"))
        );
        assert!(limit.limit);
        assert_eq!(flags.warm_up(), WARM_UP);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "",
            "--suite work",
            "put --suite work --server a=b",
            "--suite work --server a=b --server c=d --cpu-within 0.5",
            "put --server a=b --cpu-within 0.5",
            "put --cpu-within 0.5",
        ] {
            assert!(parse(line).check().is_err(), "{line}");
        }
        for line in [
            "putt",
            "put --clients 0",
            "put --duration 5",
            "put --duration 5y",
            "put --rate 0",
            "put --cpu-within 0",
            "put --members 2",
            "put --server etcd",
            "put --server =x",
            "put --key-space 0",
            "put --target nobody",
        ] {
            let words = ["quorate bench"].into_iter().chain(line.split_whitespace());
            assert!(Flags::try_parse_from(words).is_err(), "{line}");
        }
    }

    #[test]
    fn times_and_addresses() {
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert!(duration("ms").is_err());
        let wanted: SocketAddr = "127.0.0.1:2379".parse().unwrap();
        assert_eq!(address("127.0.0.1:2379"), Ok(wanted));
        assert_eq!(address("http://127.0.0.1:2379/"), Ok(wanted));
        assert!(address("https://127.0.0.1:2379").is_err());
        assert!(address("nowhere").is_err());
    }
}
