//! What processes use: processor time, memory and writes, as the system counts them under `/proc`.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The system's clock ticks in a second; `/proc` counts processor time in these on every Linux.
const TICKS_A_SECOND: u64 = 100;
const TICK_NS: u64 = 1_000_000_000 / TICKS_A_SECOND;

/// Processor time that a process has used so far.
///
/// The scheduler counts each thread's nanoseconds, and forgets them when the thread ends; the process's ticks
/// (of 10 ms) are never forgotten. The nanoseconds are used while they agree with the ticks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cpu {
    ticks: u64,
    threads_ns: BTreeMap<u32, u64>,
}

impl Cpu {
    /// Of the process with this id; nothing once it has ended.
    pub fn of(pid: u32) -> Cpu {
        Cpu::read(&format!("/proc/{pid}"))
    }

    /// Of this process.
    pub fn own() -> Cpu {
        Cpu::read("/proc/self")
    }

    fn read(process: &str) -> Cpu {
        let mut cpu = Cpu { ticks: ticks(&read(&format!("{process}/stat"))), ..Cpu::default() };
        let tasks = std::fs::read_dir(format!("{process}/task")).into_iter().flatten().flatten();
        for task in tasks {
            let id = task.file_name().to_str().and_then(|id| id.parse::<u32>().ok());
            let text = read(&format!("{}/schedstat", task.path().display()));
            let ns = text.split_whitespace().next().and_then(|ns| ns.parse().ok());
            if let (Some(id), Some(ns)) = (id, ns) {
                cpu.threads_ns.insert(id, ns);
            }
        }
        cpu
    }

    /// Nanoseconds used between `before` and this.
    pub fn since(&self, before: &Cpu) -> u64 {
        let ticks_ns = self.ticks.saturating_sub(before.ticks) * TICK_NS;
        let all_live = before.threads_ns.keys().all(|id| self.threads_ns.contains_key(id));
        let sum = |cpu: &Cpu| cpu.threads_ns.values().sum::<u64>();
        let ns = sum(self).saturating_sub(sum(before));
        let off = ns.abs_diff(ticks_ns);
        match all_live && off <= 2 * TICK_NS + ticks_ns / 50 {
            true => ns,
            false => ticks_ns,
        }
    }
}

/// utime and stime: the 14th and 15th field, counted behind the name, which may hold anything.
fn ticks(stat: &str) -> u64 {
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

/// A number in a file of lines `name: number`, such as `/proc/PID/status`.
fn named(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

fn read(path: &str) -> String {
    // A process that has ended has no file; it uses nothing.
    std::fs::read_to_string(path).unwrap_or_default()
}

/// What a process holds and has written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// Memory that is resident, in bytes.
    pub resident_bytes: u64,
    /// The most that ever was.
    pub resident_max_bytes: u64,
    /// Bytes that it caused to be sent to the disk, as its process is charged for them: where the page cache has large
    /// pages, all of one for each byte in it. [`disk_written_bytes`] is better where there is a disk.
    pub written_bytes: u64,
}

impl Held {
    /// Of the process with this id; nothing once it has ended.
    pub fn of(pid: u32) -> Held {
        let status = read(&format!("/proc/{pid}/status"));
        let io = read(&format!("/proc/{pid}/io"));
        Held {
            resident_bytes: named(&status, "VmRSS") << 10,
            resident_max_bytes: named(&status, "VmHWM") << 10,
            written_bytes: named(&io, "write_bytes"),
        }
    }
}

/// Bytes that the disk below `path` has been sent so far, by whomever; `None` if no disk of its own is below it, as in
/// memory or in a container's layers.
pub fn disk_written_bytes(path: &Path) -> Option<u64> {
    let device = std::fs::metadata(path).ok()?.dev();
    sectors_written(&read("/proc/diskstats"), numbers_of(device)).map(|sectors| sectors << 9)
}

/// Major and minor number of a device, as Linux packs them.
fn numbers_of(device: u64) -> (u64, u64) {
    (device >> 8 & 0xfff | device >> 32 & !0xfff, device & 0xff | device >> 12 & 0xfff00)
}

/// Sectors of 512 bytes written, the tenth number of the device's line in `/proc/diskstats`.
fn sectors_written(diskstats: &str, (major, minor): (u64, u64)) -> Option<u64> {
    diskstats.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let mut number = || words.next()?.parse::<u64>().ok();
        let is_it = (number()?, number()?) == (major, minor);
        if is_it { words.nth(7)?.parse().ok() } else { None }
    })
}

/// The sum of the samples of a metric on a page of them, whatever their labels; `None` if there is none.
pub fn metric(page: &str, name: &str) -> Option<f64> {
    let samples = page.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        if !rest.starts_with([' ', '{']) {
            return None;
        }
        rest.rsplit_once(' ')?.1.parse::<f64>().ok()
    });
    samples.fold(None, |sum, sample| Some(sum.unwrap_or(0.0) + sample))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_under_proc_are_read_as_they_are_written() {
        let stat = "12 (a) b) S 1 12 12 0 -1 4194560 100 0 0 0 250 125 0 0 20 0 9 0 100 1000 10";
        assert_eq!(ticks(stat), 375);
        assert_eq!(ticks(""), 0);
        let status = "Name:\tx\nVmHWM:\t   2048 kB\nVmRSS:\t   1024 kB\n";
        assert_eq!(
            (named(status, "VmRSS"), named(status, "VmHWM"), named(status, "Vm")),
            (1024, 2048, 0)
        );
        assert!(Held::of(std::process::id()).resident_bytes > 0);
    }

    #[test]
    fn nanoseconds_count_while_they_agree_with_the_ticks() {
        let cpu = |ticks, threads: &[(u32, u64)]| Cpu {
            ticks,
            threads_ns: threads.iter().copied().collect(),
        };
        let before = cpu(100, &[(1, 500_000_000), (2, 500_000_000)]);
        let later = cpu(120, &[(1, 600_000_000), (2, 590_000_000), (3, 5_000_000)]);
        assert_eq!(later.since(&before), 195_000_000);
        // A thread has ended, and took its count with it.
        assert_eq!(cpu(120, &[(1, 600_000_000)]).since(&before), 200_000_000);
        // One came and went in between.
        assert_eq!(cpu(150, &[(1, 500_000_000), (2, 500_000_000)]).since(&before), 500_000_000);
    }

    #[test]
    fn a_disk_is_found_by_its_numbers() {
        let text = " 254       1 vdb 5 0 40 1 2 0 16 1 0 1 1\n 259    300 nvme0n1p1 9 0 72 3 7 0 1024 1 0 4 4\n";
        assert_eq!(sectors_written(text, (254, 1)), Some(16));
        assert_eq!(sectors_written(text, (259, 300)), Some(1024));
        assert_eq!(sectors_written(text, (259, 1)), None);
        assert_eq!(sectors_written("254 1 vdb 5", (254, 1)), None);
        assert_eq!(numbers_of(0xfe01), (254, 1));
        assert_eq!(numbers_of(0x1000_0000_0302), (0x1003, 2));
        assert_eq!(numbers_of(0x0010_0302), (3, 0x102));
    }

    #[test]
    fn a_metric_is_found_by_its_whole_name() {
        let page =
            "# HELP a_count help 7\na_count 3\na_count_more 9\nb{x=\"1\"} 2\nb{x=\"2\"} 2.5\n";
        assert_eq!(metric(page, "a_count"), Some(3.0));
        assert_eq!(metric(page, "b"), Some(4.5));
        assert_eq!(metric(page, "a"), None);
    }
}
