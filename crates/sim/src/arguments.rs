//! What the clients of a storm have asked, counted: every field of a request by the class of its value, every two of
//! them that stood together, and what became of them.
//!
//! Whoever draws requests and never looks which ones has blind spots. So each request is reduced to the classes of its
//! values, which the table of [`METHODS`] names. What is nested in a transaction is counted apart from what stands
//! alone, for it goes another way through the code:
//!
//! ```text
//!   get b/x/ b/x0 --rev=17 --limit=2   ──▶  range: key not there, range_end its prefix, limit several, revision past, …
//!                                            13 values, 78 pairs of them, each with how it ended
//! ```
//!
//! *Met* is a value that was asked for, a pair that was asked for in one request, and a value that ended in a certain
//! way. Some of that cannot be, by the rules of [`APART`] and [`NEVER`]; everything else must be met in a run of some
//! size, or the workload draws too little.

use proto::etcdserverpb::compare::{CompareTarget, TargetUnion};
use proto::etcdserverpb::request_op::Request as Op;
use proto::etcdserverpb::watch_create_request::FilterType;
use proto::etcdserverpb::{
    Compare, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, TxnRequest,
    WatchCreateRequest,
};
use state_machine::Request as Wish;

use crate::door;
use crate::model::Model;
use crate::shard::{Ask, Wanted};

/// What is asked, or what a part of a transaction asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// A range.
    Range,
    /// One in a transaction.
    RangeInTxn,
    /// A put.
    Put,
    /// One in a transaction.
    PutInTxn,
    /// A delete.
    Delete,
    /// One in a transaction.
    DeleteInTxn,
    /// A transaction, nested ones included.
    Txn,
    /// A compare of one.
    Compare,
    /// A compaction.
    Compact,
    /// To make a lease.
    Grant,
    /// To end it.
    Revoke,
    /// To keep it alive.
    KeepAlive,
    /// To ask how long it lives.
    TimeToLive,
    /// To ask which there are.
    Leases,
    /// To watch.
    Watch,
}

/// A field and the classes of its values.
type Field = (&'static str, &'static [&'static str]);

const KEY: Field = ("key", &["empty", "zero", "there", "not there"]);
const RANGE_END: Field =
    ("range_end", &["one key", "from the key on", "its prefix", "further on", "not above the key"]);
const NO_YES: &[&str] = &["no", "yes"];
const BOUND: &[&str] = &["none", "negative", "reached", "to come"];
const LEASE: &[&str] = &["zero", "there", "not there"];
const TARGETS: &[&str] = &["key", "version", "create", "mod", "value", "unknown"];
const COUNT: &[&str] = &["none", "one", "several"];

const RANGE: &[Field] = &[
    KEY,
    RANGE_END,
    ("limit", &["none", "one", "several", "most", "negative"]),
    ("revision", &["newest", "negative", "compacted", "mark", "past", "now", "to come"]),
    ("sort_order", &["none", "ascend", "descend", "unknown"]),
    ("sort_target", TARGETS),
    ("serializable", NO_YES),
    ("keys_only", NO_YES),
    ("count_only", NO_YES),
    ("min_mod_revision", BOUND),
    ("max_mod_revision", BOUND),
    ("min_create_revision", BOUND),
    ("max_create_revision", BOUND),
];
const PUT: &[Field] = &[
    KEY,
    ("value", &["empty", "small", "large"]),
    ("lease", LEASE),
    ("prev_kv", NO_YES),
    ("ignore_value", NO_YES),
    ("ignore_lease", NO_YES),
];
const DELETE: &[Field] = &[KEY, RANGE_END, ("prev_kv", NO_YES)];

/// All methods with their fields, in the order of [`Method`].
pub const METHODS: [(&str, &[Field]); 15] = [
    ("range", RANGE),
    ("range in txn", RANGE),
    ("put", PUT),
    ("put in txn", PUT),
    ("delete", DELETE),
    ("delete in txn", DELETE),
    (
        "txn",
        &[
            ("compare", COUNT),
            ("success", COUNT),
            ("failure", COUNT),
            ("nested", &["not", "once", "twice"]),
            ("operations", &["as many as may be", "too many"]),
            ("an operation that is none", NO_YES),
            ("a key written twice", NO_YES),
        ],
    ),
    (
        "compare",
        &[
            KEY,
            RANGE_END,
            ("target", &["version", "create", "mod", "value", "lease", "unknown"]),
            ("result", &["equal", "greater", "less", "not equal", "unknown"]),
            ("operand", &["none", "of another target", "less", "equal", "greater"]),
        ],
    ),
    (
        "compact",
        &[
            ("revision", &["negative", "zero", "compacted", "past", "now", "to come"]),
            ("physical", NO_YES),
        ],
    ),
    (
        "grant",
        &[
            ("ID", &["zero", "free", "free and negative", "taken"]),
            ("TTL", &["negative", "zero", "short", "long", "longest", "too long"]),
        ],
    ),
    ("revoke", &[("ID", LEASE)]),
    ("keep alive", &[("ID", LEASE)]),
    ("time to live", &[("ID", LEASE), ("keys", NO_YES)]),
    ("leases", &[("request", &["empty"])]),
    (
        "watch",
        &[
            KEY,
            RANGE_END,
            ("start_revision", &["zero", "negative", "compacted", "past", "next", "to come"]),
            ("progress_notify", NO_YES),
            ("filters", &["none", "no puts", "no deletes", "no puts, no deletes"]),
            ("prev_kv", NO_YES),
        ],
    ),
];

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was done.
    Done,
    /// It was refused, at the door or because of what the store held.
    Refused,
    /// The member did not take it.
    NotTaken,
    /// Nobody knows.
    Unknown,
}

const ENDS: [(&str, End); 4] = [
    ("done", End::Done),
    ("refused", End::Refused),
    ("not taken", End::NotTaken),
    ("unknown", End::Unknown),
];

/// A field with the classes that a rule is about.
type Which = (&'static str, &'static [&'static str]);

/// Values that cannot stand together, and why.
const APART: [(&[&str], Which, Which, &str); 4] = [
    (&[], ("key", &["empty"]), ("range_end", &["its prefix"]), "all keys begin with the empty one"),
    (&[], ("key", &["empty"]), ("range_end", &["not above the key"]), "nothing lies below it"),
    (&[], ("key", &["zero"]), ("range_end", &["not above the key"]), "a zero means from there on"),
    (
        &["compare"],
        ("target", &["unknown"]),
        ("operand", &["less", "equal", "greater"]),
        "it is compared with nothing",
    ),
];

/// How values cannot end, in some methods or in all, and why.
const NEVER: [(&[&str], Which, &[End], &str); 18] = [
    (
        &["range", "range in txn", "put", "put in txn", "delete", "delete in txn", "compare"],
        ("key", &["empty"]),
        &[End::Done, End::NotTaken],
        "it is refused at the door",
    ),
    (&[], ("sort_order", &["unknown"]), &[End::Done, End::NotTaken], "it is refused at the door"),
    (
        &["range", "range in txn"],
        ("sort_target", &["unknown"]),
        &[End::Done, End::NotTaken],
        "it is refused at the door",
    ),
    (
        &["txn"],
        ("operations", &["too many"]),
        &[End::Done, End::NotTaken],
        "it is refused at the door",
    ),
    (
        &["txn"],
        ("an operation that is none", &["yes"]),
        &[End::Done, End::NotTaken],
        "it is refused at the door",
    ),
    (
        &["txn"],
        ("a key written twice", &["yes"]),
        &[End::Done, End::NotTaken],
        "it is refused at the door",
    ),
    (&["grant"], ("TTL", &["too long"]), &[End::Done, End::NotTaken], "it is refused at the door"),
    (
        &["range"],
        ("serializable", &["yes"]),
        &[End::NotTaken],
        "it is read at once, or at most by a read thread",
    ),
    (&["put"], ("lease", &["not there"]), &[End::Done], "nobody grants a lease of that id"),
    (
        &["revoke", "keep alive", "time to live"],
        ("ID", &["not there"]),
        &[End::Done],
        "nobody grants a lease of that id",
    ),
    (&["compact"], ("revision", &["negative", "compacted"]), &[End::Done], "the mark only rises"),
    (
        &["revoke", "keep alive", "time to live"],
        ("ID", &["zero"]),
        &[End::Done],
        "no lease has that id",
    ),
    (&["watch"], ("start_revision", &["negative"]), &[End::Done], "it is refused at the door"),
    (&["watch"], ("range_end", &["not above the key"]), &[End::Done], "it is refused at the door"),
    (
        &["delete"],
        ("key", &["zero", "there", "not there"]),
        &[End::Refused],
        "only one without a key is refused",
    ),
    (
        &["delete"],
        ("range_end", &["its prefix", "not above the key"]),
        &[End::Refused],
        "only one without a key is refused",
    ),
    (&["leases"], ("request", &["empty"]), &[End::Refused], "a member always has its list"),
    (
        &["keep alive", "time to live", "leases", "watch"],
        ("", &[]),
        &[End::NotTaken],
        "whoever is asked keeps it until its time is over",
    ),
];

/// The number of a class of a field of a method.
pub type Value = u16;

/// A request, reduced to its values: all those of one part of it, then all those of the next.
pub type Reduced = Vec<Value>;

/// The number of each method's first value, and of all values.
const FIRST: [usize; METHODS.len() + 1] = {
    let mut first = [0; METHODS.len() + 1];
    let mut method = 0;
    while method < METHODS.len() {
        let fields = METHODS[method].1;
        let (mut field, mut count) = (0, 0);
        while field < fields.len() {
            count += fields[field].1.len();
            field += 1;
        }
        first[method + 1] = first[method] + count;
        method += 1;
    }
    first
};
const VALUES: usize = FIRST[METHODS.len()];

/// What was met.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    /// How often each value was asked for.
    asked: Vec<u64>,
    /// How often it ended so.
    ended: Vec<[u64; ENDS.len()]>,
    /// A bit for each two values.
    together: Vec<u64>,
}

impl Arguments {
    /// A request is asked.
    pub fn ask(&mut self, request: &[Value]) {
        self.asked.resize(VALUES, 0);
        self.together.resize((VALUES * VALUES).div_ceil(64), 0);
        let mut rest = request;
        while let Some(first) = rest.first() {
            let method = FIRST.partition_point(|start| *start <= usize::from(*first)) - 1;
            let (part, others) = rest.split_at(METHODS[method].1.len());
            for (place, one) in part.iter().enumerate() {
                self.asked[usize::from(*one)] += 1;
                for other in &part[place + 1..] {
                    let bit = usize::from(*one) * VALUES + usize::from(*other);
                    self.together[bit / 64] |= 1 << (bit % 64);
                }
            }
            rest = others;
        }
    }

    /// It has ended.
    pub fn end(&mut self, request: &[Value], end: End) {
        self.ended.resize(VALUES, [0; ENDS.len()]);
        request.iter().for_each(|value| self.ended[usize::from(*value)][end as usize] += 1);
    }

    /// Adds what was met elsewhere.
    pub fn add(&mut self, other: &Arguments) {
        let Arguments { asked, ended, together } = other;
        self.asked.resize(self.asked.len().max(asked.len()), 0);
        self.ended.resize(self.ended.len().max(ended.len()), [0; ENDS.len()]);
        self.together.resize(self.together.len().max(together.len()), 0);
        self.asked.iter_mut().zip(asked).for_each(|(sum, count)| *sum += count);
        self.together.iter_mut().zip(together).for_each(|(sum, bits)| *sum |= bits);
        for (sum, ended) in self.ended.iter_mut().zip(ended) {
            sum.iter_mut().zip(ended).for_each(|(sum, count)| *sum += count);
        }
    }

    fn are_together(&self, one: usize, other: usize) -> bool {
        let bit = one * VALUES + other;
        self.together.get(bit / 64).is_some_and(|bits| bits & 1 << (bit % 64) != 0)
    }

    /// What was met of all that can be.
    pub fn met(&self) -> Met {
        let mut met = Met::default();
        let named = named();
        for (one, name) in named.iter().enumerate() {
            let asked = self.asked.get(one).copied().unwrap_or(0);
            met.values.take(asked > 0, || name.to_string());
            for (end, how) in ENDS {
                let ended = self.ended.get(one).map_or(0, |ended| ended[how as usize]);
                if name.why_never(how).is_none() {
                    met.ends.take(ended > 0, || format!("{name} · {end}"));
                }
            }
            for (other, second) in named.iter().enumerate().skip(one + 1) {
                let is_pair = second.method == name.method && second.field != name.field;
                if is_pair && name.why_apart(second).is_none() {
                    let met_it = self.are_together(one, other);
                    met.pairs
                        .take(met_it, || format!("{name} · {} {}", second.field, second.class));
                }
            }
        }
        met
    }

    /// Everything that was counted, and what was never met, to be read.
    pub fn page(&self) -> String {
        let mut page = String::from("asked, and how it ended: done, refused, not taken, unknown\n");
        for (number, name) in named().iter().enumerate() {
            let asked = self.asked.get(number).copied().unwrap_or(0);
            let [done, refused, taken, unknown] =
                self.ended.get(number).copied().unwrap_or_default();
            let name = name.to_string();
            page +=
                &format!("{name:<48} {asked:>9} {done:>9} {refused:>9} {taken:>9} {unknown:>9}\n");
        }
        let met = self.met();
        for (what, tally) in [("values", &met.values), ("pairs", &met.pairs), ("ends", &met.ends)] {
            page += &format!("\n{what} never met: {} of {}\n", tally.missed.len(), tally.all);
            tally.missed.iter().for_each(|name| page += &format!("{name}\n"));
        }
        page += "\nwhat cannot be\n";
        for (methods, (one, of_one), (other, of_other), why) in APART {
            page += &format!(
                "{}{one} {} · {other} {}: {why}\n",
                list(methods),
                of_one.join(" or "),
                of_other.join(" or ")
            );
        }
        for (methods, (field, classes), ends, why) in NEVER {
            let ends: Vec<String> = ends.iter().map(|end| format!("{end:?}")).collect();
            page += &format!(
                "{}{field} {} · {}: {why}\n",
                list(methods),
                classes.join(" or "),
                ends.join(" or ")
            );
        }
        page
    }
}

fn list(methods: &[&str]) -> String {
    if methods.is_empty() { String::new() } else { format!("{}: ", methods.join(", ")) }
}

/// How many there are of a kind, and which were not met.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// So many can be.
    pub all: usize,
    /// The names of those that were not met.
    pub missed: Vec<String>,
}

impl Tally {
    fn take(&mut self, is_met: bool, name: impl FnOnce() -> String) {
        self.all += 1;
        if !is_met {
            self.missed.push(name());
        }
    }

    fn met(&self) -> usize {
        self.all - self.missed.len()
    }
}

/// What was met, and what was not.
#[derive(Clone, Debug, Default)]
pub struct Met {
    /// Values of fields.
    pub values: Tally,
    /// Two of them in one request.
    pub pairs: Tally,
    /// Values with how their request ended.
    pub ends: Tally,
}

impl Met {
    /// Whether nothing is missing.
    pub fn is_everything(&self) -> bool {
        [&self.values, &self.pairs, &self.ends].into_iter().all(|tally| tally.missed.is_empty())
    }

    /// The counts, in a line.
    pub fn line(&self) -> String {
        format!(
            "arguments      {} of {} values, {} of {} pairs of them, {} of {} with how they ended, met",
            self.values.met(),
            self.values.all,
            self.pairs.met(),
            self.pairs.all,
            self.ends.met(),
            self.ends.all
        )
    }
}

/// A value by its names.
struct Named {
    method: &'static str,
    field: &'static str,
    class: &'static str,
}

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} {}", self.method, self.field, self.class)
    }
}

/// All values, by their numbers.
fn named() -> Vec<Named> {
    let mut named = Vec::with_capacity(VALUES);
    for (method, fields) in METHODS {
        for (field, classes) in fields {
            named.extend(classes.iter().map(|class| Named { method, field, class }));
        }
    }
    named
}

impl Named {
    fn is_of(&self, methods: &[&str], (field, classes): &Which) -> bool {
        (methods.is_empty() || methods.contains(&self.method))
            && (field.is_empty() || *field == self.field)
            && (classes.is_empty() || classes.contains(&self.class))
    }

    fn why_apart(&self, other: &Named) -> Option<&'static str> {
        let apart = APART
            .iter()
            .find(|(methods, one, two, _)| self.is_of(methods, one) && other.is_of(methods, two));
        apart.map(|(.., why)| *why)
    }

    fn why_never(&self, end: End) -> Option<&'static str> {
        let never = NEVER
            .iter()
            .find(|(methods, value, ends, _)| self.is_of(methods, value) && ends.contains(&end));
        never.map(|(.., why)| *why)
    }
}

/// Reduces a request to its values, as they are at this moment.
pub fn reduce(ask: &Ask, model: &Model) -> Reduced {
    let mut reduction = Reduction { model, values: Reduced::new() };
    match ask {
        Ask::Propose(wish, _) => reduction.wish(wish),
        Ask::Read(Wanted::Range(range)) => reduction.range(Method::Range, range),
        Ask::Read(Wanted::Txn(txn, _)) => reduction.txn(txn),
        // The members are the operator's business.
        Ask::Read(Wanted::Members) => {}
        Ask::KeepAlive(lease) => {
            let lease = reduction.lease(*lease);
            reduction.part(Method::KeepAlive, &[lease]);
        }
        Ask::TimeToLive { lease, keys } => {
            let lease = reduction.lease(*lease);
            reduction.part(Method::TimeToLive, &[lease, usize::from(*keys)]);
        }
        Ask::Leases => reduction.part(Method::Leases, &[0]),
        Ask::Watch { asked, .. } => reduction.watch(asked),
        Ask::Change(_) | Ask::Transfer(_) | Ask::Unwatch(_) | Ask::Progress | Ask::Gone => {}
    }
    reduction.values
}

struct Reduction<'m> {
    model: &'m Model,
    values: Reduced,
}

impl Reduction<'_> {
    fn part(&mut self, method: Method, classes: &[usize]) {
        let fields = METHODS[method as usize].1;
        assert_eq!(fields.len(), classes.len(), "each field of a {method:?} has a value");
        let mut first = FIRST[method as usize];
        for ((name, names), class) in fields.iter().zip(classes) {
            assert!(*class < names.len(), "{name} of a {method:?} has no class {class}");
            self.values.push((first + class) as Value);
            first += names.len();
        }
    }

    fn wish(&mut self, wish: &Wish) {
        match wish {
            Wish::Put(put) => self.put(Method::Put, put),
            Wish::DeleteRange(delete) => self.delete(Method::Delete, delete),
            Wish::Txn(txn) => self.txn(txn),
            Wish::Compact(compaction) => {
                let revision = match compaction.revision {
                    ..0 => 0,
                    0 => 1,
                    revision if revision <= self.model.mark() => 2,
                    revision if revision < self.model.revision() => 3,
                    revision if revision == self.model.revision() => 4,
                    _ => 5,
                };
                self.part(Method::Compact, &[revision, usize::from(compaction.physical)]);
            }
            Wish::LeaseGrant(grant) => self.grant(grant),
            Wish::LeaseRevoke(revoke) => {
                let lease = self.lease(revoke.id);
                self.part(Method::Revoke, &[lease]);
            }
            _ => {}
        }
    }

    fn key(&self, key: &[u8]) -> usize {
        match key {
            [] => 0,
            [0] => 1,
            _ => 3 - usize::from(self.model.newest(key).is_some()),
        }
    }

    fn end(key: &[u8], range_end: &[u8]) -> usize {
        match range_end {
            [] => 0,
            [0] => 1,
            end if end <= key => 4,
            end if end == prefix_end(key) => 2,
            _ => 3,
        }
    }

    fn lease(&self, lease: i64) -> usize {
        match lease {
            0 => 0,
            lease => 2 - usize::from(self.model.leases().contains_key(&lease)),
        }
    }

    fn range(&mut self, method: Method, range: &RangeRequest) {
        let (revision, mark) = (self.model.revision(), self.model.mark());
        let bound = |bound: i64| match bound {
            0 => 0,
            ..0 => 1,
            bound if bound <= revision => 2,
            _ => 3,
        };
        let classes = [
            self.key(&range.key),
            Self::end(&range.key, &range.range_end),
            match range.limit {
                0 => 0,
                1 => 1,
                i64::MAX => 3,
                ..0 => 4,
                _ => 2,
            },
            match range.revision {
                0 => 0,
                ..0 => 1,
                at if at < mark => 2,
                at if at == mark => 3,
                at if at < revision => 4,
                at if at == revision => 5,
                _ => 6,
            },
            usize::try_from(range.sort_order).unwrap_or(3).min(3),
            usize::try_from(range.sort_target).unwrap_or(5).min(5),
            usize::from(range.serializable),
            usize::from(range.keys_only),
            usize::from(range.count_only),
            bound(range.min_mod_revision),
            bound(range.max_mod_revision),
            bound(range.min_create_revision),
            bound(range.max_create_revision),
        ];
        self.part(method, &classes);
    }

    fn put(&mut self, method: Method, put: &PutRequest) {
        let classes = [
            self.key(&put.key),
            match put.value.len() {
                0 => 0,
                1..=256 => 1,
                _ => 2,
            },
            self.lease(put.lease),
            usize::from(put.prev_kv),
            usize::from(put.ignore_value),
            usize::from(put.ignore_lease),
        ];
        self.part(method, &classes);
    }

    fn delete(&mut self, method: Method, delete: &DeleteRangeRequest) {
        let end = Self::end(&delete.key, &delete.range_end);
        self.part(method, &[self.key(&delete.key), end, usize::from(delete.prev_kv)]);
    }

    fn txn(&mut self, txn: &TxnRequest) {
        let ops = || txn.success.iter().chain(&txn.failure).map(|op| &op.request);
        fn depth(txn: &TxnRequest) -> usize {
            let ops = txn.success.iter().chain(&txn.failure);
            let nested = ops.map(|op| match &op.request {
                Some(Op::RequestTxn(nested)) => 1 + depth(nested),
                _ => 0,
            });
            nested.max().unwrap_or(0)
        }
        let count = |length: usize| length.min(2);
        let classes = [
            count(txn.compare.len()),
            count(txn.success.len()),
            count(txn.failure.len()),
            depth(txn).min(2),
            usize::from(door::is_too_long(txn, door::TXN_OPS_MAX)),
            usize::from(ops().any(Option::is_none)),
            usize::from(door::writes_twice(txn)),
        ];
        self.part(Method::Txn, &classes);
        txn.compare.iter().for_each(|compare| self.compare(compare));
        for op in ops().flatten() {
            match op {
                Op::RequestRange(range) => self.range(Method::RangeInTxn, range),
                Op::RequestPut(put) => self.put(Method::PutInTxn, put),
                Op::RequestDeleteRange(delete) => self.delete(Method::DeleteInTxn, delete),
                Op::RequestTxn(nested) => self.txn(nested),
            }
        }
    }

    fn compare(&mut self, compare: &Compare) {
        let absent = Default::default();
        let now = self.model.newest(&compare.key).unwrap_or(&absent);
        let target = CompareTarget::try_from(compare.target);
        let operand = match (target, &compare.target_union) {
            (_, None) => None,
            (Ok(CompareTarget::Version), Some(TargetUnion::Version(v))) => {
                Some(v.cmp(&now.version))
            }
            (Ok(CompareTarget::Create), Some(TargetUnion::CreateRevision(v))) => {
                Some(v.cmp(&now.create_revision))
            }
            (Ok(CompareTarget::Mod), Some(TargetUnion::ModRevision(v))) => {
                Some(v.cmp(&now.mod_revision))
            }
            (Ok(CompareTarget::Lease), Some(TargetUnion::Lease(v))) => Some(v.cmp(&now.lease)),
            (Ok(CompareTarget::Value), Some(TargetUnion::Value(v))) => Some(v.cmp(&now.value)),
            _ => None,
        };
        let operand = match (operand, &compare.target_union) {
            (None, None) => 0,
            (None, Some(_)) => 1,
            (Some(ordering), _) => (3 + ordering as i8) as usize,
        };
        let classes = [
            self.key(&compare.key),
            Self::end(&compare.key, &compare.range_end),
            usize::try_from(compare.target).unwrap_or(5).min(5),
            usize::try_from(compare.result).unwrap_or(4).min(4),
            operand,
        ];
        self.part(Method::Compare, &classes);
    }

    fn grant(&mut self, grant: &LeaseGrantRequest) {
        let id = match grant.id {
            0 => 0,
            id if self.model.leases().contains_key(&id) => 3,
            1.. => 1,
            _ => 2,
        };
        let ttl = match grant.ttl {
            ..0 => 0,
            0 => 1,
            1..60 => 2,
            60..door::TTL_MAX => 3,
            door::TTL_MAX => 4,
            _ => 5,
        };
        self.part(Method::Grant, &[id, ttl]);
    }

    fn watch(&mut self, asked: &WatchCreateRequest) {
        let next = self.model.revision() + 1;
        let start = match asked.start_revision {
            0 => 0,
            ..0 => 1,
            start if start < self.model.mark() => 2,
            start if start < next => 3,
            start if start == next => 4,
            _ => 5,
        };
        let has = |filter: FilterType| usize::from(asked.filters.contains(&(filter as i32)));
        let classes = [
            self.key(&asked.key),
            Self::end(&asked.key, &asked.range_end),
            start,
            usize::from(asked.progress_notify),
            has(FilterType::Noput) + 2 * has(FilterType::Nodelete),
            usize::from(asked.prev_kv),
        ];
        self.part(Method::Watch, &classes);
    }
}

/// The first key behind all that begin with this one; a zero if there is none.
pub fn prefix_end(key: &[u8]) -> Vec<u8> {
    let Some(last) = key.iter().rposition(|byte| *byte < 0xff) else { return vec![0] };
    let mut end = key[..=last].to_vec();
    end[last] += 1;
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rule about something that there is not would excuse nothing, or not what it says.
    #[test]
    fn rules_are_about_values_that_there_are() {
        let named = named();
        assert_eq!(named.len(), VALUES);
        let rules =
            APART.iter().flat_map(|(methods, one, other, _)| [(methods, one), (methods, other)]);
        for (methods, value) in
            rules.chain(NEVER.iter().map(|(methods, value, ..)| (methods, value)))
        {
            let found = |class: &str| {
                named.iter().any(|named| named.is_of(methods, value) && named.class == class)
            };
            assert!(value.1.iter().all(|class| found(class)), "{methods:?} {value:?}");
            let known = |method: &&str| METHODS.iter().any(|(name, _)| name == method);
            assert!(methods.iter().all(known), "{methods:?}");
        }
    }

    #[test]
    fn a_range_is_reduced_to_a_value_of_each_field() {
        let range = RangeRequest {
            key: "a".into(),
            range_end: "b".into(),
            limit: 2,
            revision: 7,
            sort_order: 9,
            ..RangeRequest::default()
        };
        let ask = Ask::Read(Wanted::Range(range));
        let values = reduce(&ask, &Model::new(1));
        let named = named();
        let names: Vec<String> =
            values[..6].iter().map(|value| named[usize::from(*value)].to_string()).collect();
        assert_eq!(
            names,
            [
                "range: key not there",
                "range: range_end its prefix",
                "range: limit several",
                "range: revision to come",
                "range: sort_order unknown",
                "range: sort_target key"
            ]
        );
        let mut arguments = Arguments::default();
        arguments.ask(&values);
        arguments.end(&values, End::Refused);
        let mut sum = Arguments::default();
        sum.add(&arguments);
        let met = sum.met();
        assert_eq!((met.values.met(), met.pairs.met(), met.ends.met()), (13, 78, 13));
        assert!(!met.is_everything());
        let missed = |name: &str| met.pairs.missed.iter().any(|missed| missed == name);
        assert!(!missed("range: key not there · limit several"));
        assert!(missed("range: key there · limit several"));
        assert!(!missed("range: key empty · range_end not above the key"));
    }
}
