//! Typed reading and writing of one map, element by element and in batches.

use super::{Attribute, Command, Mapped, bpf};
use aya::Pod;
use aya::maps::MapData;
use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};

/// The kernel's own `ENOTSUPP`, which has no name in libc.
const ENOTSUPP: i32 = 524;
/// Elements asked for at once.
const CHUNK: usize = 1024;

#[repr(C)]
struct ElementAttribute {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

// SAFETY: as the `MAP_*_ELEM` member of `union bpf_attr`, without padding.
unsafe impl Attribute for ElementAttribute {}

#[repr(C)]
pub(super) struct BatchAttribute {
    pub(super) in_batch: u64,
    pub(super) out_batch: u64,
    pub(super) keys: u64,
    pub(super) values: u64,
    pub(super) count: u32,
    pub(super) map_fd: u32,
    pub(super) element_flags: u64,
    pub(super) flags: u64,
}

// SAFETY: as the `MAP_*_BATCH` member of `union bpf_attr`, without padding.
unsafe impl Attribute for BatchAttribute {}

/// A map whose keys are `K` and values `V`; sizes were checked when it was made.
pub(crate) struct Store<K, V> {
    data: MapData,
    capacity: u32,
    types: PhantomData<fn(K) -> V>,
}

impl<K: Pod, V: Pod> Store<K, V> {
    /// Takes a map over; an error when its key or value size is not that of `K` and `V`.
    pub(crate) fn new(data: MapData) -> io::Result<Self> {
        let info = data.info().map_err(io::Error::other)?;
        let (key, value) = (info.key_size() as usize, info.value_size() as usize);
        if key != size_of::<K>() || value != size_of::<V>() {
            let (k, v) = (size_of::<K>(), size_of::<V>());
            return Err(io::Error::other(format!(
                "key and value have {key} and {value} octets instead of {k} and {v}"
            )));
        }
        Ok(Self { capacity: info.max_entries(), data, types: PhantomData })
    }

    /// The same map once more, by a descriptor of its own.
    pub(crate) fn again(&self) -> io::Result<Self> {
        let descriptor = self.data.fd().as_fd().try_clone_to_owned()?;
        Self::new(MapData::from_fd(descriptor).map_err(io::Error::other)?)
    }

    /// The map as this process' memory: a `T`, or several in a row, are one of its values.
    pub(crate) fn mapped<T: Pod>(&self) -> io::Result<Mapped<T>> {
        Mapped::new(&self.data)
    }

    /// Elements it has room for.
    pub(crate) fn capacity(&self) -> u32 {
        self.capacity
    }

    /// The value at `key`; `None` when there is none.
    pub(crate) fn get(&self, key: &K) -> io::Result<Option<V>> {
        self.read(Command::LookupElem, key)
    }

    /// Takes the value at `key` out of the map; nothing written to it in between is lost.
    pub(crate) fn take(&self, key: &K) -> io::Result<Option<V>> {
        match self.read(Command::LookupAndDeleteElem, key) {
            Err(error) if is_unsupported(&error) => {
                let value = self.get(key)?;
                self.delete(key)?;
                Ok(value)
            }
            other => other,
        }
    }

    fn read(&self, command: Command, key: &K) -> io::Result<Option<V>> {
        let mut value = MaybeUninit::<V>::uninit();
        let mut attribute = self.element(key, value.as_mut_ptr() as u64);
        // SAFETY: key and value lie on the stack and have the map's sizes.
        match unsafe { bpf(command, &mut attribute) } {
            // SAFETY: the kernel wrote the whole value, and every octet pattern is a `V`.
            Ok(_) => Ok(Some(unsafe { value.assume_init() })),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes one value.
    pub(crate) fn set(&self, key: &K, value: &V) -> io::Result<()> {
        let mut attribute = self.element(key, std::ptr::from_ref(value) as u64);
        // SAFETY: key and value are borrowed over the call and have the map's sizes.
        unsafe { bpf(Command::UpdateElem, &mut attribute) }.map(drop)
    }

    /// Deletes one value; true when there was one.
    pub(crate) fn delete(&self, key: &K) -> io::Result<bool> {
        let mut attribute = self.element(key, 0);
        // SAFETY: the key is borrowed over the call and has the map's size.
        match unsafe { bpf(Command::DeleteElem, &mut attribute) } {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes `values` at `keys`, in order; on an error those before the failing one are written.
    pub(crate) fn set_all(&self, keys: &[K], values: &[V]) -> io::Result<()> {
        assert_eq!(keys.len(), values.len(), "a value for each key");
        let mut done = 0;
        while done < keys.len() {
            let mut attribute = self.batch(keys[done..].as_ptr() as u64, values[done..].as_ptr() as u64);
            attribute.count = (keys.len() - done) as u32;
            // SAFETY: both slices hold `count` elements of the map's sizes.
            match unsafe { bpf(Command::UpdateBatch, &mut attribute) } {
                Ok(_) => return Ok(()),
                Err(error) if is_unsupported(&error) => {
                    return keys.iter().zip(values).skip(done).try_for_each(|(k, v)| self.set(k, v));
                }
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => done += attribute.count as usize,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Deletes `keys`; those that are not there do not matter.
    pub(crate) fn delete_all(&self, keys: &[K]) -> io::Result<()> {
        let mut rest = keys;
        while !rest.is_empty() {
            let mut attribute = self.batch(rest.as_ptr() as u64, 0);
            attribute.count = rest.len() as u32;
            // SAFETY: the slice holds `count` keys of the map's size.
            let result = unsafe { bpf(Command::DeleteBatch, &mut attribute) };
            let done = (attribute.count as usize).min(rest.len());
            match result {
                Ok(_) => return Ok(()),
                Err(error) if is_unsupported(&error) => {
                    return rest.iter().try_for_each(|key| self.delete(key).map(drop));
                }
                // The batch ends at a key that is not there: go on behind it.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                    rest = &rest[(done + 1).min(rest.len())..]
                }
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => rest = &rest[done..],
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Visits every element, a chunk at a time. Elements written meanwhile may or may not be seen.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&K, &V)) -> io::Result<()> {
        let mut chunk = Chunk::new(CHUNK);
        loop {
            let more = match self.next_chunk(&mut chunk) {
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                    chunk.grow();
                    continue;
                }
                other => other?,
            };
            // SAFETY: the kernel wrote `length` keys, and every octet pattern is a `K`.
            let keys = unsafe { std::slice::from_raw_parts(chunk.keys.as_ptr().cast::<K>(), chunk.length) };
            // SAFETY: the kernel wrote `length` values, and every octet pattern is a `V`.
            let values =
                unsafe { std::slice::from_raw_parts(chunk.values.as_ptr().cast::<V>(), chunk.length) };
            keys.iter().zip(values).for_each(|(key, value)| visit(key, value));
            if !more {
                return Ok(());
            }
        }
    }

    /// Reads on from the chunk's position; false when that was the last of it.
    fn next_chunk(&self, chunk: &mut Chunk<K, V>) -> io::Result<bool> {
        let mut attribute = self.batch(chunk.keys.as_mut_ptr() as u64, chunk.values.as_mut_ptr() as u64);
        attribute.count = chunk.keys.len() as u32;
        attribute.in_batch = if chunk.began { chunk.position.as_ptr() as u64 } else { 0 };
        attribute.out_batch = chunk.position.as_mut_ptr() as u64;
        // SAFETY: the vectors have room for `count` elements; a position is a key or four octets, and has room for both.
        let result = unsafe { bpf(Command::LookupBatch, &mut attribute) };
        let more = match result {
            Ok(_) => true,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => false,
            Err(error) => return Err(error),
        };
        chunk.began = true;
        chunk.length = (attribute.count as usize).min(chunk.keys.len());
        Ok(more)
    }

    fn element(&self, key: &K, value: u64) -> ElementAttribute {
        ElementAttribute {
            map_fd: self.fd(),
            padding: 0,
            key: std::ptr::from_ref(key) as u64,
            value,
            flags: 0,
        }
    }

    fn batch(&self, keys: u64, values: u64) -> BatchAttribute {
        let map_fd = self.fd();
        BatchAttribute {
            in_batch: 0,
            out_batch: 0,
            keys,
            values,
            count: 0,
            map_fd,
            element_flags: 0,
            flags: 0,
        }
    }

    fn fd(&self) -> u32 {
        self.data.fd().as_fd().as_raw_fd() as u32
    }
}

/// Room for one answer of a batch look-up, and where the next one begins.
struct Chunk<K, V> {
    keys: Vec<MaybeUninit<K>>,
    values: Vec<MaybeUninit<V>>,
    position: Vec<u8>,
    began: bool,
    length: usize,
}

impl<K, V> Chunk<K, V> {
    fn new(size: usize) -> Self {
        let keys = std::iter::repeat_with(MaybeUninit::uninit).take(size).collect();
        let values = std::iter::repeat_with(MaybeUninit::uninit).take(size).collect();
        Self { keys, values, position: vec![0; size_of::<K>().max(4)], began: false, length: 0 }
    }

    /// Doubles the room: one bucket of a hash map held more than was asked for.
    fn grow(&mut self) {
        let size = self.keys.len() * 2;
        self.keys.resize_with(size, MaybeUninit::uninit);
        self.values.resize_with(size, MaybeUninit::uninit);
    }
}

/// True when this kernel or map type lacks the operation, rather than the operation having failed.
fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP | ENOTSUPP))
}
