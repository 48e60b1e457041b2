//! Begins connections as cheaply as a pod can: two raw frames each, a SYN and a RST, no socket. Owns the frames and their
//! pace.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use enforcer_tests::packet::Wire;
use enforcer_tests::{Family, Lab};
use etherparse::{Ipv4Header, PacketBuilder};

use crate::station::{CLOSED, OPEN};

/// Source ports of connections: those of one destination address.
const PORTS: u64 = 60_000;
/// The first of them.
const FIRST_PORT: u64 = 1_024;
/// Where things are in a frame without IPv4 options.
const IP: usize = 14;
const TCP: usize = IP + 20;
/// TCP's flags, within its header.
const FLAGS: usize = TCP + 13;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
/// Connections between two looks at the clock.
const BURST: u64 = 64;

/// A pod's wire, and connections nobody had before.
pub(crate) struct Generator {
    wire: Wire,
    frame: Vec<u8>,
    next: u64,
}

/// What was begun.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Begun {
    /// Connections that policy lets pass.
    pub(crate) open: u64,
    /// Connections that it refuses.
    pub(crate) closed: u64,
    /// How long that took.
    pub(crate) time: Duration,
}

impl Generator {
    /// Opens the wire of the pod.
    ///
    /// # Errors
    /// When a raw socket is refused.
    pub(crate) fn open(lab: &Lab) -> Result<Self> {
        let pod = lab.pod("client");
        let wire = Wire::open(pod, &lab.node)?;
        let IpAddr::V4(source) = pod.address(Family::V4) else { bail!("the pod has no IPv4 address") };
        let mut frame = Vec::new();
        let [near, far] = wire.hardware;
        PacketBuilder::ethernet2(near, far)
            .ipv4(source.octets(), OPEN.octets(), 64)
            .tcp(1, 443, 1, 65_535)
            .write(&mut frame, &[])?;
        Ok(Self { wire, frame, next: 0 })
    }

    /// Begins a connection, and breaks it off at once where `is_broken_off`.
    ///
    /// # Errors
    /// When a frame cannot be sent.
    pub(crate) fn begin(&mut self, base: Ipv4Addr, is_broken_off: bool) -> Result<u16> {
        let port = (FIRST_PORT + self.next % PORTS) as u16;
        let destination = u32::from(base) + (self.next / PORTS % 16_384) as u32;
        self.next += 1;
        self.frame[IP + 16..IP + 20].copy_from_slice(&destination.to_be_bytes());
        self.frame[TCP..TCP + 2].copy_from_slice(&port.to_be_bytes());
        let (header, _) = Ipv4Header::from_slice(&self.frame[IP..])?;
        self.frame[IP + 10..IP + 12].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
        for flags in [SYN, RST].into_iter().take(1 + usize::from(is_broken_off)) {
            self.frame[FLAGS] = flags;
            self.wire.send(&self.frame)?;
        }
        Ok(port)
    }

    /// Begins connections for a while, no more than `rate` a second where there is one, every `closed_every`th to where
    /// policy lets nobody go.
    ///
    /// # Errors
    /// When a frame cannot be sent.
    pub(crate) fn run(
        &mut self,
        time: Duration,
        rate: Option<u32>,
        closed_every: Option<u64>,
    ) -> Result<Begun> {
        let (start, mut begun) = (Instant::now(), Begun::default());
        while start.elapsed() < time {
            for _ in 0..BURST {
                let number = begun.open + begun.closed;
                if closed_every.is_some_and(|every| number % every == 0) {
                    self.begin(CLOSED, false)?;
                    begun.closed += 1;
                } else {
                    self.begin(OPEN, true)?;
                    begun.open += 1;
                }
            }
            if let Some(rate) = rate {
                let due =
                    start + Duration::from_secs_f64((begun.open + begun.closed) as f64 / f64::from(rate));
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
        }
        begun.time = start.elapsed();
        Ok(begun)
    }
}
