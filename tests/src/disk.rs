//! Disks that can be made slow, made to lie, filled up, and cut off from power; each tells whether that had an effect.
//!
//! ```text
//!   member ── files ──▶ ext4 ── page cache ──▶ loop device, direct I/O ──▶ image
//!                                  │                                        │
//!                        lost in a power cut                     copied: the disk as it was
//! ```
//!
//! A power cut is a SIGKILL and a copy of the image while it is still mounted: what the kernel had not yet written,
//! for nobody had asked it to, is not in the copy. The member goes on with the copy.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{run, run_ok};
use crate::random::Random;

/// The size of a disk: four segments each of the log and the store, and more. The image has holes where nothing lies.
const DISK_BYTES: u64 = 1 << 30;

/// What is written and never synced.
const UNSYNCED: [u8; 4096] = [b'u'; 4096];

/// How often a copy is begun anew because the kernel wrote meanwhile.
const COPIES_MAX: usize = 50;

/// An ext4 of its own in an image; unmounted when it is dropped.
pub struct Disk {
    image: PathBuf,
    device: String,
    mount: PathBuf,
    cuts: usize,
}

impl Disk {
    /// A new, empty disk, its image in `directory`, mounted there under `name`.
    ///
    /// # Errors
    /// Why there can be none here: no root, no loop device, no direct I/O.
    pub fn new(directory: &Path, name: &str) -> Result<Disk, String> {
        let image = directory.join(format!("{name}.0.image"));
        fs::File::create(&image).and_then(|file| file.set_len(DISK_BYTES)).unwrap();
        // What is made lazily would be written while it is copied.
        let lazily = "lazy_itable_init=0,lazy_journal_init=0";
        tried(
            Command::new("mkfs.ext4").args(["-q", "-F", "-N", "1024", "-E", lazily]).arg(&image),
        )?;
        let mount = directory.join(name);
        fs::create_dir(&mount).unwrap();
        let device = attached(&image)?;
        let disk = Disk { image, device, mount, cuts: 0 };
        tried(&mut disk.mounting())?;
        Ok(disk)
    }

    /// Where its files are.
    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// The kernel writes some files by itself, which it does with what it likes and when.
    pub fn write_back_some(&self, random: &mut Random) {
        write_back_some(&self.mount, random);
    }

    /// The power fails, and comes back; nobody may have files open here. What was not synced is lost.
    ///
    /// Returns whether something was lost of a file that is written here and never synced: mostly so.
    pub fn cut_power(&mut self) -> bool {
        self.cuts += 1;
        let copy = self.image.with_extension("").with_extension(format!("{}.image", self.cuts));
        let unsynced = self.copy(&copy);
        // What the kernel writes now is written to the old image.
        self.unmount();
        fs::remove_file(&self.image).unwrap();
        self.image = copy;
        self.device = attached(&self.image).expect("there was a loop device before");
        run_ok(&mut self.mounting());
        !fs::read(&unsynced).is_ok_and(|found| found == UNSYNCED)
    }

    /// Files that are removed leave holes in the image, so that less has to be copied. The journal is written when somebody
    /// syncs, and not every five seconds besides: what was not synced is lost, however slow this machine is.
    fn mounting(&self) -> Command {
        let mut mount = Command::new("mount");
        mount.args(["-o", "noatime,discard,commit=600", &self.device]).arg(&self.mount);
        mount
    }

    /// A copy takes time, and the kernel's own writes (of what was written half a minute ago, and each of it once) may come
    /// between. A copy during which none was begun or ended is the disk at one moment. Before it a file is written that is
    /// never synced; where.
    fn copy(&self, to: &Path) -> PathBuf {
        let unsynced = self.mount.join(format!("unsynced.{}", self.cuts));
        for _ in 0..COPIES_MAX {
            // A new one each time: what replaces an old one the kernel writes at once.
            if unsynced.exists() {
                fs::remove_file(&unsynced).unwrap();
            }
            fs::write(&unsynced, UNSYNCED).unwrap();
            let before = self.writes();
            run_ok(Command::new("cp").arg("--sparse=always").arg(&self.image).arg(to));
            if before == self.writes() && before.1 == 0 {
                return unsynced;
            }
        }
        panic!("{} is written all the time", self.image.display());
    }

    /// How many writes and discards the disk has done, and how many requests it has not.
    fn writes(&self) -> (u64, u64) {
        let name = self.device.trim_start_matches("/dev/");
        let stat = fs::read_to_string(format!("/sys/block/{name}/stat")).unwrap();
        let fields: Vec<u64> =
            stat.split_whitespace().map(|field| field.parse().unwrap()).collect();
        (fields[4] + fields[11], fields[8])
    }

    /// Takes all room that is left, but for less than a megabyte, until `free`. Call it again if somebody made room.
    pub fn fill(&self) {
        let ballast =
            fs::OpenOptions::new().create(true).append(true).open(self.ballast()).unwrap();
        let stat = rustix::fs::statvfs(&self.mount).unwrap();
        // Reserved in steps, for the file's own map takes room too.
        let mut step = stat.f_bavail * stat.f_frsize;
        while step >= 1 << 20 {
            let held = ballast.metadata().unwrap().len();
            let flags = rustix::fs::FallocateFlags::empty();
            if rustix::fs::fallocate(&ballast, flags, held, step).is_err() {
                step /= 2;
            }
        }
    }

    /// Gives back what `fill` took.
    pub fn free(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.mount.join("ballast")
    }

    fn unmount(&self) {
        run_ok(Command::new("umount").arg(&self.mount));
        run_ok(Command::new("losetup").args(["-d", &self.device]));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Also after half a start, and whatever stands in the way: the image stays for whoever wants to look.
        undone(Command::new("umount").arg("-l").arg(&self.mount));
        undone(Command::new("losetup").args(["-d", &self.device]));
    }
}

/// A small file system in memory, which can be filled; unmounted when it is dropped.
pub struct Tmpfs {
    mount: PathBuf,
}

impl Tmpfs {
    /// One of so many megabytes, mounted at `mount`, which is made.
    ///
    /// # Errors
    /// Why there can be none here: no root.
    pub fn new(mount: PathBuf, megabytes: u32) -> Result<Tmpfs, String> {
        fs::create_dir(&mount).unwrap();
        let size = format!("size={megabytes}m");
        tried(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&mount))?;
        Ok(Tmpfs { mount })
    }

    /// Where its files are.
    pub fn path(&self) -> &Path {
        &self.mount
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // A test that fails leaves a member that has files open here.
        undone(Command::new("umount").arg("-l").arg(&self.mount));
    }
}

/// Runs what undoes something; says so if it does not work.
fn undone(command: &mut Command) {
    let output = run(command);
    if !output.status.success() {
        eprintln!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Writes files to the disk, each or not. As the kernel does by itself, this takes along all changes of names so far.
fn write_back_some(directory: &Path, random: &mut Random) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            write_back_some(&path, random);
        } else if random.one_in(2) {
            fs::File::open(&path).unwrap().sync_data().unwrap();
        }
    }
}

/// The loop device that it gets, which goes past the page cache.
fn attached(image: &Path) -> Result<String, String> {
    let mut attach = Command::new("losetup");
    attach.args(["--direct-io=on", "--find", "--show"]).arg(image);
    let device = tried(&mut attach)?.trim().to_owned();
    let name = device.trim_start_matches("/dev/");
    let direct = fs::read_to_string(format!("/sys/block/{name}/loop/dio")).unwrap_or_default();
    if direct.trim() == "1" {
        return Ok(device);
    }
    run_ok(Command::new("losetup").args(["-d", &device]));
    Err(format!("{device} has no direct I/O"))
}

/// What a command prints, or why it does not work here.
fn tried(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

/// A library that stands between a process and the syncs of its disk. Whoever has Rust has a C compiler, which links for
/// it.
pub struct Syncs {
    library: PathBuf,
    control: PathBuf,
    struck: PathBuf,
    held: PathBuf,
}

impl Syncs {
    /// One in this directory, for one process; as yet it changes nothing.
    pub fn new(directory: &Path, name: &str) -> Syncs {
        let (source, library) = (directory.join("syncs.c"), directory.join("syncs.so"));
        if !library.exists() {
            fs::write(&source, include_str!("syncs.c")).unwrap();
            run_ok(Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]));
        }
        let control = directory.join(format!("{name}.syncs"));
        let [struck, held] = ["struck", "held"].map(|it| directory.join(format!("{name}.{it}")));
        fs::write(&struck, "").unwrap();
        fs::write(&held, "").unwrap();
        let syncs = Syncs { library, control, struck, held };
        syncs.heal();
        syncs
    }

    /// What the process must be started with.
    pub fn environment(&self) -> [(String, String); 4] {
        [
            ("LD_PRELOAD", &self.library),
            ("SYNCS_CONTROL", &self.control),
            ("SYNCS_STRUCK", &self.struck),
            ("SYNCS_HELD", &self.held),
        ]
        .map(|(name, path)| (name.to_owned(), path.to_str().unwrap().to_owned()))
    }

    /// From now on a sync takes so many milliseconds longer.
    pub fn slow(&self, milliseconds: u32) {
        self.say(&format!("{milliseconds} 1 0 -"));
    }

    /// From now on a sync takes so many milliseconds, says that it is done, and has done nothing.
    pub fn pretend(&self, milliseconds: u32) {
        self.say(&format!("{milliseconds} 0 0 -"));
    }

    /// From now on a sync of a file that has this word in its path waits until another thing is said; all others say that
    /// they are done, and have done nothing.
    pub fn hold(&self, word: &str) {
        self.say(&format!("0 0 0 {word}"));
    }

    /// The process is killed when it would make its n-th sync, counted from one.
    pub fn kill_at(&self, number: u32) {
        self.say(&format!("0 1 {number} -"));
    }

    /// From now on a sync is a sync.
    pub fn heal(&self) {
        self.say("0 1 0 -");
    }

    /// How many syncs were slow or none, so far.
    pub fn struck(&self) -> u64 {
        fs::metadata(&self.struck).unwrap().len()
    }

    /// How many syncs were held, so far, or are.
    pub fn held(&self) -> u64 {
        fs::metadata(&self.held).unwrap().len()
    }

    /// In one step, so that nobody reads half a word.
    fn say(&self, words: &str) {
        let new = self.control.with_extension("new");
        fs::write(&new, words).unwrap();
        fs::rename(&new, &self.control).unwrap();
    }
}
