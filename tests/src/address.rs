//! Addresses for servers of a test, which nobody takes: not now, and not while a server of it is away.
//!
//! A port that was free a moment ago may belong to somebody else when a server comes (back) to listen there: the system
//! gives such ports to connections that go out. So each test process has an address of its own in 127.0.0.0/8, from its
//! process id; connections go out from 127.0.0.1. Its ports lie below those that the system gives away, and each is given
//! out once. Other packages' tests take this file by its path.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// 127.64.0.0/10: as many addresses as Linux has process ids.
const FIRST_HOST: u32 = 0x7f40_0000;
const HOSTS: u32 = 1 << 22;

/// Below what Linux gives away (32768 to 60999), and beside the well-known ones.
const FIRST_PORT: u16 = 10_000;
const PORTS: u16 = 20_000;

/// The address of this process.
pub fn own_host() -> Ipv4Addr {
    Ipv4Addr::from(FIRST_HOST + std::process::id() % HOSTS)
}

/// A port of it which was not given out before.
pub fn own_address() -> SocketAddrV4 {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    loop {
        let given = GIVEN.fetch_add(1, Ordering::Relaxed);
        assert!(given < PORTS, "this test has taken {PORTS} ports");
        let address = SocketAddrV4::new(own_host(), FIRST_PORT + given);
        // Somebody may listen at all addresses.
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}
