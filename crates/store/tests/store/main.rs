//! The store on a disk in memory: crashes at every step, full disks, rot, and what must survive them.

#![allow(clippy::unwrap_used)]

mod crash;
mod inspect;
mod lives;
mod member;
mod scenario;
mod scripts;
