//! A per-CPU array of numbers, summed: all of it in one call. Owns the layout of what the kernel hands over; never knows what
//! a number counts.

use super::element::BatchAttribute;
use super::{Command, bpf};
use aya::maps::MapData;
use aya::util::nr_cpus;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// A per-CPU array of `u64`.
pub(crate) struct Totals {
    data: MapData,
    elements: usize,
    cpus: usize,
}

impl Totals {
    /// Takes an array over; an error when its values are of another size.
    pub(crate) fn new(data: MapData) -> io::Result<Self> {
        let info = data.info().map_err(io::Error::other)?;
        if (info.key_size(), info.value_size()) != (4, 8) {
            return Err(io::Error::other(format!("values have {} octets", info.value_size())));
        }
        let cpus = nr_cpus().map_err(|(_, error)| error)?;
        Ok(Self { elements: info.max_entries() as usize, data, cpus })
    }

    /// Every element as it is now, over all CPUs (Linux 5.13).
    pub(crate) fn read(&self) -> io::Result<Vec<u64>> {
        let mut keys = vec![0_u32; self.elements];
        let mut values = vec![0_u64; self.elements * self.cpus];
        let mut position = 0_u32;
        let mut attribute = BatchAttribute {
            in_batch: 0,
            out_batch: &raw mut position as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: self.elements as u32,
            map_fd: self.data.fd().as_fd().as_raw_fd() as u32,
            element_flags: 0,
            flags: 0,
        };
        // SAFETY: the vectors have room for `count` keys and for as many values of each CPU, the position for a key.
        match unsafe { bpf(Command::LookupBatch, &mut attribute) } {
            // The end of the map, which is what is asked for.
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => return Err(error),
            _ => {}
        }
        if attribute.count as usize != self.elements {
            return Err(io::Error::other(format!("{} of {} elements came", attribute.count, self.elements)));
        }
        Ok(values.chunks_exact(self.cpus).map(|of_one| of_one.iter().sum()).collect())
    }
}
